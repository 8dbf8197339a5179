"""How powermetrics is started, and what to tell whom sudo refuses it."""

from __future__ import annotations

import os
import pwd
import re
import subprocess
from dataclasses import dataclass, replace

from powerbench.keeper import SAMPLERS, powermetrics_command, recorder_command


@dataclass(frozen=True, kw_only=True)
class Launch:
    """How powermetrics is started."""

    sudo: tuple[str, ...]
    program: str
    period_ms: int
    samplers: tuple[str, ...] = SAMPLERS

    def program_arguments(self) -> list[str]:
        """The command without sudo."""
        return powermetrics_command(self.program, period_ms=self.period_ms, samplers=self.samplers)

    def command(self) -> list[str]:
        """The whole command."""
        return [*self.sudo, *self.program_arguments()]

    def without(self, sampler: str) -> Launch:
        """The same, but for a sampler that this powermetrics does not know."""
        return replace(self, samplers=tuple(name for name in self.samplers if name != sampler))

    def sudoers_line(self, user: str) -> str:
        """The line for visudo that allows this command and no other argument to `user` (man 5 sudoers)."""
        words = [re.sub(r"([,:=\\ ])", r"\\\1", word) for word in [user, *self.program_arguments()]]
        return f"{words[0]} ALL=(root) NOPASSWD: {' '.join(words[1:])}"


def sudo_allows(launch: Launch) -> bool:
    """Whether `sudo -n` lets this user run the command, as far as it tells without running it."""
    command = [*launch.sudo, "-l", *launch.program_arguments()]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=5)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0


def needs_root(launch: Launch) -> str:
    """The sentence for whom sudo asks for a password."""
    return (
        f"powermetrics needs root, and sudo wants a password for it: leave `{recorder_command()}` running in another "
        "terminal; or, to be asked no more, run `sudo visudo -f /etc/sudoers.d/powerbench` and put in "
        f"`{launch.sudoers_line(_user_name())}`."
    )


def _user_name() -> str:
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:  # sudoers takes a bare number after #
        return f"#{os.getuid()}"
