"""The errors a user's input can cause: one clear message each, no traceback needed to act on it.

A message says what is wrong and where (file, rank, node id, field), what was found, what was
expected, and what to do about it. The command line prints it and exits with status 1.

Names of files, nodes and groups in a message come from outside: what a terminal would obey (escape
sequences, line breaks, marks that turn the direction of writing) is spelt out, and what is endless
is shortened.
"""

LONGEST_LINE = 4000
"""Characters of one line of a message."""

LONGEST_NAME = 80
"""Characters of a name in a message or a table."""


def shortened(text: str, longest: int = LONGEST_NAME) -> str:
    """The text, its middle left out where it is too long.

    >>> shortened("abcdefghijkl", 9)
    'abc...jkl'
    """
    if len(text) <= longest:
        return text
    end = (longest - 3) // 2
    return f"{text[: longest - 3 - end]}...{text[len(text) - end :]}"


def one_line(text: str, longest: int = LONGEST_LINE) -> str:
    r"""A text as a terminal can show it on one line: nothing in it is obeyed, and it ends.

    >>> print(one_line("a\nb\x1b[2J"))
    a\nb\x1b[2J
    """
    text = shortened(text, longest)
    if text.isprintable():
        return text
    spelt = (c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
    return shortened("".join(spelt), longest)


def quoted(name: object) -> str:
    r"""A name in quotes for a message, spelt out and shortened.

    >>> print(quoted("a\nb"))
    'a\nb'
    """
    return repr(shortened(name) if isinstance(name, str) else name)[: 6 * LONGEST_NAME]


class InputError(ValueError):
    """The input is wrong: a trace, a system file, a parameter path, a table of points.

    Args:
        lines: the message; each further one stands on a line of its own.
    """

    def __init__(self, *lines: object):
        super().__init__(*(one_line(str(line)) for line in lines))

    def __str__(self) -> str:
        return "\n".join(map(str, self.args))


class TraceError(InputError):
    """A trace file, or a set of them, cannot be read as Chakra execution traces."""


class SystemFileError(InputError):
    """A system (hardware) file is missing a figure, or holds one that makes no sense."""


class DeadlockError(InputError):
    """Nodes of a trace wait for each other, so that no schedule can finish it."""
