"""The errors a user's input can cause: one clear message each, no traceback needed to act on it.

A message says what is wrong and where (file, rank, node id, field), what was found, what was
expected, and what to do about it. The command line prints it and exits with status 1.
"""


class InputError(ValueError):
    """The input is wrong: a trace, a system file, a parameter path, a table of points."""


class TraceError(InputError):
    """A trace file, or a set of them, cannot be read as Chakra execution traces."""


class SystemFileError(InputError):
    """A system (hardware) file is missing a figure, or holds one that makes no sense."""


class DeadlockError(InputError):
    """Nodes of a trace wait for each other, so that no schedule can finish it."""
