"""Parameters of a workload that cannot be: what was got, and what fits."""

import operator
from math import inf
from numbers import Real
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


def divides(name: str, value: int, **of: int) -> None:
    """`value` divides every value in `of`, which is given: the model's, not a setting.

    Raises InputError that names the nearest divisors.

    >>> divides("tensor", 7, heads=64)
    Traceback (most recent call last):
    ...
    perfmodel.errors.InputError: tensor: got 7, expected a divisor of the model's heads = 64. 4 and 8 fit.
    """
    for other, total in of.items():
        if total % value:
            fit = [d for d in range(1, total + 1) if total % d == 0]
            near = [*[d for d in fit if d < value][-1:], *[d for d in fit if d > value][:1]]
            words = f"{near[0]} and {near[1]} fit" if len(near) > 1 else f"{near[0]} fits"
            raise InputError(
                f"{name}: got {value}, expected a divisor of the model's {other} = {total}. {words}."
            )


def one_of(name: str, value: str, choices: tuple[str, ...]) -> None:
    """`value` is one of the choices.

    Raises InputError that lists them.
    """
    if value not in choices:
        raise InputError(f"{name}: got {value!r}, expected one of {', '.join(choices)}.")


def real(**values: Any) -> None:
    """Every value is a finite number of at least 0.

    Raises InputError for the first that is not.
    """
    for name, value in values.items():
        if not isinstance(value, Real) or not 0 <= float(value) < inf:
            raise InputError(f"{name}: got {value!r}, expected a number of at least 0.")


def truth(**values: Any) -> None:
    """Every value is True or False; a word is neither, whatever it says.

    Raises InputError for the first that is not.
    """
    for name, value in values.items():
        if value not in (True, False):
            raise InputError(f"{name}: got {value!r}, expected True or False.")


def _is_whole(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return True
