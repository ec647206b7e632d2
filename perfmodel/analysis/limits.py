"""What limits a design: its critical path by category, the parameter that the time hangs on most, and what no
parameter changes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from perfmodel.compiled import Compiled
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.vocabulary import CATEGORIES, HOST

SAME = 1e-9
"""Shares of the time whose relative difference is less than this are equal."""


def kinds_of_costs(category: NDArray[np.int8], answers: NDArray[np.bool_]) -> sparse.csr_array:
    """[categories + 2, S] the distinct costs of each category, those that no parameter changes, and the host's.

    Args:
        category: [S] category of each distinct cost. answers: [S] whether it depends on any parameter.
    """
    host, fixed = category == HOST, ~answers
    rows = [category == k for k in range(len(CATEGORIES))]
    return sparse.csr_array(np.array([*rows, fixed & ~host, fixed & host], float))


def by_category(
    seconds: NDArray[Any], spent: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """The critical path by category [s].

    Args:
        seconds: [D] the makespan [s]. spent: [categories, D] how much of it distinct costs of each take [s].
    """
    parts = {f"{word}_s": spent[k] for k, word in enumerate(CATEGORIES)}
    known = sum(part for name, part in parts.items() if name != "waiting_s")
    rest = seconds - known - parts["waiting_s"]
    parts["waiting_s"] = parts["waiting_s"] + np.where(np.abs(rest) > 1e-9 * known, rest, 0.0)
    return parts


def limiting(
    known: Mapping[str, Any],
    paths: tuple[str, ...],
    values: NDArray[Any],
    slope: NDArray[Any],
    fixed: NDArray[np.float64],
) -> NDArray[np.intp]:
    """[D] number of what takes most of the time: a parameter, by p dT/dp [s]; what is recorded; the host; nothing.

    Args:
        known: [W] the system's parameters at the reference design.
        paths, values: [P], [P, D] what the points set.
        slope: [W, D] derivatives by the system's parameters. fixed: [2, D] what is recorded, and the host's [s].
    """
    point = np.stack(
        [
            values[paths.index(w)] if w in paths else np.full(values.shape[1], float(here))
            for w, here in known.items()
        ]
    )
    # an infinite capacity costs nothing
    weight = np.abs(slope * np.where(slope == 0, 0.0, point))
    seconds = np.concatenate([weight, fixed])
    most = seconds.max(axis=0)
    # the first of those that are equal but for rounding, however the derivatives were computed
    first = np.argmax(seconds >= most * (1 - SAME), axis=0)
    return np.where(most > 0, first, len(seconds))


def answering(c: Compiled, host: Any) -> NDArray[np.bool_]:
    """[S] whether a distinct cost depends on any parameter of the system or the models at the reference design.

    Args:
        host: the formulas of the costs for few designs, or None.
    """
    known = {name: float(v) for name, v in parameters(c.system, c.models).items() if not np.ndim(v)}
    known = {name: value for name, value in known.items() if np.isfinite(value)}
    names = tuple(known)
    point = np.array(list(known.values()))[:, None]

    # two small steps off the design, along neither of which a cost is likely to stay: the formulas alone compile
    # ten times as fast as their derivatives
    scale = np.where(point == 0, 1.0, point)
    steps = np.random.default_rng(0).uniform(0.5, 1.5, (len(names), 2)) * 1e-4
    values = np.concatenate([point, point + scale * steps], axis=1)
    if host is not None:
        found = host.values(dict(zip(names, values)))
    else:
        evaluate = c.smooth or c.evaluate

        def costs(values: jax.Array) -> jax.Array:
            return evaluate(*with_parameters(c.system, c.models, dict(zip(names, values))))

        found = np.asarray(jax.jit(jax.vmap(costs, in_axes=1, out_axes=1))(values))
    moved = ~np.isclose(found, found[:, :1], rtol=1e-12, atol=0).all(axis=1)
    return np.asarray(moved, bool)


def unanswered(
    c: Compiled,
    paths: tuple[str, ...],
    costs: Callable[[tuple[str, ...], NDArray[Any]], NDArray[np.float64]],
) -> list[str]:
    """Parameters that no cost of the workload depends on, whether a thousandth or a thousandfold.

    Args:
        costs: [S, D] of [P, D] values of [P] parameters.
    """
    known = parameters(c.system, c.models)
    named = tuple(path for path in paths if np.isfinite(float(known[path])))
    if not named or not len(c.category):  # nothing takes time, whatever the parameters
        return []
    here = np.array([float(known[path]) or 1.0 for path in named])
    values = np.repeat(here[:, None], 2 * len(named) + 1, axis=1)
    each = np.arange(len(named))
    values[each, 1 + each] *= 1e-3
    values[each, 1 + len(named) + each] *= 1e3
    found = costs(named, values)
    same = np.asarray(np.isclose(found, found[:, :1], rtol=1e-12, atol=0).all(axis=0))
    return [p for k, p in enumerate(named) if same[1 + k] and same[1 + len(named) + k]]
