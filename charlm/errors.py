"""The exceptions a user can meet, each with the exit code the command line returns for it."""


class CharlmError(Exception):
    """Anything that stops a command: one line saying what is wrong, where, and what to do."""

    exit_code = 1


class UsageError(CharlmError):
    """Wrong usage: an option, a missing path, an unknown configuration key, a changed corpus on resume."""

    exit_code = 2


class DataError(CharlmError):
    """Bad input data: empty, undecodable, or too small for the lanes asked for."""

    exit_code = 3


class DivergedError(CharlmError):
    """The training loss is no longer finite."""

    exit_code = 4


class ModelError(CharlmError):
    """No such model, a damaged one, or one that charlm did not write."""

    exit_code = 5


class Interrupted(CharlmError):
    """Stopped by SIGINT or SIGTERM, after saving."""

    exit_code = 130
