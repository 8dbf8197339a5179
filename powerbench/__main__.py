"""The command `powerbench`, and `python -m powerbench`."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command line; returns the exit status."""
    if sys.platform == "win32":
        sys.stderr.write("powerbench runs on Linux and macOS; on Windows, use it inside WSL.\n")
        return 1
    if os.geteuid() == 0 and "SUDO_UID" in os.environ:
        sys.dont_write_bytecode = True  # of root's making there is no file, not even this one
        from powerbench.keeper import is_for_another
        from powerbench.keeper import main as keep

        if is_for_another(os.environ, effective_uid=0):
            return keep(sys.argv[1:])
    try:
        from powerbench.cli.app import main as run

        return run(sys.argv[1:])
    except KeyboardInterrupt:  # before a command has begun
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
