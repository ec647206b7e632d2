"""Parameters of a workload that cannot be: what was got, and what fits."""

import operator
from typing import Any

from perfmodel.errors import InputError


def whole(least: int = 1, /, **values: Any) -> None:
    """Every value is a whole number of at least `least`.

    Raises InputError for the first that is not.
    """
    for name, value in values.items():
        if isinstance(value, bool) or not _is_whole(value) or value < least:
            raise InputError(f"{name}: got {value!r}, expected a whole number of at least {least}.")


def divisible(name: str, value: int, **by: int) -> None:
    """`value` is a multiple of every value in `by`.

    Raises InputError that names the nearest values that fit.

    >>> divisible("hidden", 100, heads=12)
    Traceback (most recent call last):
    ...
    perfmodel.errors.InputError: hidden: got 100, which heads = 12 does not divide. 96 and 108 fit.
    """
    for other, divisor in by.items():
        if value % divisor:
            below = value - value % divisor
            fits = f"{below} and {below + divisor} fit" if below else f"{divisor} fits"
            raise InputError(
                f"{name}: got {value}, which {other} = {divisor} does not divide. {fits}."
            )


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """`value` is one of the choices.

    Raises InputError that lists them.
    """
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(choices)}.")


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
