"""Robust least squares on logarithms over the numbers of a record, with derivatives from JAX."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import least_squares


def fit(
    record: Any,
    predict: Callable[[Any], jax.Array],
    seconds: np.ndarray,
    *,
    scale: float = 0.03,
    reach: float = 4.0,
    bounds: dict[str, tuple[float, float]] | None = None,
    fixed: tuple[str, ...] = (),
    starts: tuple[dict[str, float], ...] = ({},),
) -> Any:
    """The record whose predictions are nearest to `seconds` [rows].

    Minimises the sum of rho(ln t - ln seconds) with rho quadratic up to `scale`, linear beyond (soft_l1), over the
    logarithms of the record's numbers, from several starts.

    Args:
        record: the first start. predict: record -> [rows] seconds.
        reach: a number may leave its start by this factor's logarithm.
        bounds: limits of some numbers instead. fixed: numbers that stay.
        starts: values that replace some of the record's, one fit each; the best counts.
    """
    leaves, structure = jax.tree_util.tree_flatten_with_path(record)
    names = [
        ".".join(str(getattr(k, "name", getattr(k, "idx", k))) for k in path) for path, _ in leaves
    ]
    values = np.array([float(v) for _, v in leaves])
    free = np.array([k for k, name in enumerate(names) if name not in fixed])
    target = jnp.log(jnp.asarray(seconds))
    bounds = bounds or {}

    def build(theta):
        here = [jnp.asarray(v) for v in values]
        for place, k in enumerate(free):
            here[k] = jnp.exp(theta[place])
        return jax.tree_util.tree_unflatten(structure, here)

    def residual(theta):
        return jnp.log(predict(build(theta))) - target

    value, slope = jax.jit(residual), jax.jit(jax.jacfwd(residual))
    best = None
    for start in starts:
        first = np.log([start.get(names[k], values[k]) for k in free])
        low, high = first - reach, first + reach
        for place, k in enumerate(free):
            if names[k] in bounds:
                low[place], high[place] = np.log(bounds[names[k]])
        first = np.clip(first, low + 1e-9, high - 1e-9)
        found = least_squares(
            lambda theta: np.asarray(value(theta)),
            first,
            jac=lambda theta: np.asarray(slope(theta)),
            bounds=(low, high),
            loss="soft_l1",
            f_scale=scale,
            x_scale="jac",
            max_nfev=200,
        )
        if best is None or found.cost < best.cost:
            best = found
    assert best is not None
    rounded = [float(v) for v in values]
    for place, k in enumerate(free):
        rounded[k] = float(f"{np.exp(best.x[place]):.5g}")
    return jax.tree_util.tree_unflatten(structure, rounded)


def errors(predicted: np.ndarray, measured: np.ndarray) -> tuple[float, float, float]:
    """Median, mean and 95th percentile of |predicted / measured - 1| [%]."""
    off = 100.0 * np.abs(np.asarray(predicted) / np.asarray(measured) - 1.0)
    return float(np.median(off)), float(np.mean(off)), float(np.percentile(off, 95))
