"""Smooth stand-ins for the larger and the smaller of some times, made of products and square roots only.

Two things that overlap take about as long as the longer one, and a little more where both are alike; a choice
takes about as long as its best option. The p-norm (a^p + b^p)^(1/p) is the first, the same with a negative
exponent the second. With powers of two as exponents neither needs a logarithm, so that they cost little on
millions of designs; they have the derivative that the formula says at ties, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
from jax import Array, lax

import perfmodel.pytree  # noqa: F401  (switches JAX to 64-bit numbers, without which powers overflow)

SHARPNESS = 7
"""The soft minimum's exponent is -2^7: of two equal options it takes 0.54 % less than either."""

LEAST = 1e-300
"""Added below the root, so that it has a derivative where both times are 0: 3e-38 s at most."""


def _power(x: Any, doublings: int) -> Any:
    for _ in range(doublings):
        x = x * x
    return x


def _root(x: Any, halvings: int) -> Any:
    for _ in range(halvings):
        x = jnp.sqrt(x)
    return x


def overlap(a: Any, b: Any, doublings: int) -> Array:
    """(a^p + b^p)^(1/p) with p = 2^doublings (8 at most), for numbers from 0 to 1e38.

    >>> overlap(3.0, 4.0, 1).item()
    5.0
    """
    result: Array = _root(_power(a, doublings) + _power(b, doublings) + LEAST, doublings)
    return result


def soft_minimum(options: Sequence[Any] | Array, doublings: int = SHARPNESS) -> Array:
    """(sum over options of t^-p)^(-1/p) with p = 2^doublings, of positive times.

    Args:
        options: times of one shape, or an array of them along its first axis.
        doublings: of the exponent.

    >>> round(soft_minimum([2.0, 3.0]).item(), 9), round(2 * 2 ** (-1 / 128), 4)
    (2.0, 1.9892)
    """
    if len(options) == 1:
        return jnp.asarray(options[0])
    # any scale near the minimum will do; it cancels in the formula, and so in the derivative
    if isinstance(options, Array):
        rates = 1.0 / options
        scale = lax.stop_gradient(1.0 / rates.sum(axis=0))
        total = _power(scale * rates, doublings).sum(axis=0)
    else:
        each = [1.0 / option for option in options]
        scale = lax.stop_gradient(1.0 / sum(each))
        total = sum(_power(scale * rate, doublings) for rate in each)
    result: Array = scale / _root(total, doublings)
    return result
