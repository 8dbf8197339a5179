"""The errors that a user can act on: one sentence each, with the exit status that goes with it."""


class PowerbenchError(Exception):
    """Something the user can mend: the message says what failed, on what, and what to do next."""

    exit_status = 1


class UsageError(PowerbenchError):
    """The command or a setting is wrong as it was typed."""

    exit_status = 2


class Unavailable(PowerbenchError):
    """What was asked for by name does not exist on this machine."""

    exit_status = 3


class MeterLost(Exception):
    """A meter gives no more readings (died, lost its device, went back in time): one sentence that says why.

    No error of the run: its curve ends there, and a note says so.
    """
