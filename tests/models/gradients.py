"""Derivatives of a formula against central differences."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import numpy as np


def check_gradient(time: Callable[..., Any], *trees: Any, tolerance: float = 1e-6) -> None:
    """Every number of the trees moves the summed times by what `jax.grad` says, in relative terms.

    Args:
        time: trees -> [rows] seconds. trees: records of numbers; a number of 0 is left alone.
        tolerance: of an elasticity, d ln t / d ln x.
    """
    leaves, structure = jax.tree_util.tree_flatten(trees)
    leaves = [float(leaf) for leaf in leaves]

    def total(values):
        return time(*jax.tree_util.tree_unflatten(structure, values)).sum()

    value, slopes = jax.value_and_grad(total)(leaves)
    for k, leaf in enumerate(leaves):
        if not leaf or not np.isfinite(leaf):
            continue
        step = 1e-5 * leaf
        moved = [total([*leaves[:k], leaf + s, *leaves[k + 1 :]]) for s in (step, -step)]
        difference = (moved[0] - moved[1]) / (2 * step)
        assert abs(slopes[k] - difference) * leaf <= tolerance * abs(value), (k, leaf)
