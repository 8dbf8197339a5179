"""Keeps as root for another user, as `sudo powerbench power` does, a powermetrics and counters of the test's.

keeper.py USER PROGRAM POWERCAP COMMAND...
"""

from __future__ import annotations

import pwd
import sys
from pathlib import Path

from powerbench.keeper import User, keep

name, program, powercap, *command = sys.argv[1:]
entry = pwd.getpwnam(name)
user = User(entry.pw_name, entry.pw_uid, entry.pw_gid, entry.pw_dir)
raise SystemExit(keep(command, user, program=program, powercap=Path(powercap)))
