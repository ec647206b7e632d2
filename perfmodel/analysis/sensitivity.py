"""Which parameter matters: derivative, elasticity, share of the critical path, and how far that answer holds.

The makespan is the longest of very many paths, each a sum of costs: T(p) = max over paths k of w_k . c(p), with
w_k [S] how often each distinct cost stands on path k and c(p) [S] their durations. So where one path is longest

    dT/dp = w . dc/dp        and        elasticity = d ln T / d ln p = (p / T) dT/dp

and both hold, but for the curvature of c itself, until another path overtakes: the breakpoint of p.

**Ties.** Where several paths are equally long the derivative differs to the two sides: going up it is the largest
w_k . dc/dp among them, going down the smallest. Both are computed, exactly, by one pass over the graph.
`derivative` is then that of the path that `pm.critical_path` shows.

**The schedule.** Derivatives are taken along the order of issue at the design itself, where the frozen order and
the design's own agree; a change of order is a jump or a kink elsewhere. Breakpoints and the tornado's times are
those of every design's own order (`schedule="own"`, as in `pm.predict`) or of this design's (`"frozen"`).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import jax
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.analysis.breakpoints import FollowedDesign, breakpoints, makespans
from perfmodel.analysis.evaluation import SCHEDULES, Evaluator
from perfmodel.analysis.tied_paths import TiedPaths
from perfmodel.compiled import Compiled, recall, unpack
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import models_of
from perfmodel.parameter_paths import parameter_units, parameters, with_parameters
from perfmodel.vocabulary import CATEGORIES
from perfmodel.workload.graph import Graph

FIGURES = ("makespan", *(f"{word}_s" for word in CATEGORIES))
"""What a derivative can be of: the makespan, and the parts of it along the critical path."""

TIE = 1e-9
"""Paths within this fraction of the makespan count as equally long."""

TORNADO = 0.1
"""How far `tornado=True` moves each parameter, up and down."""


def sensitivity(
    graph: Graph | Compiled,
    system: System | None = None,
    models: Any = None,
    *,
    of: str = "makespan",
    schedule: str = "own",
    second: bool = False,
    moves: bool = False,
    tornado: bool | float = False,
) -> pd.DataFrame:
    """What the makespan, or a part of it, gains by each parameter.

    Args:
        graph: the workload, from `load`; or a compiled graph, which brings system and models.
        system: the design at which derivatives are taken.
        models: what turns work into time.
        of: "makespan", or a part of it along the critical path: compute_s, memory_s, communication_s, waiting_s.
        schedule: whose order of issue breakpoints and the tornado see: "own" (every design's) or "frozen".
        second: also the second derivative, of the present critical path.
        moves: also how far each parameter can move alone before the critical path changes (see `breakpoints`).
        tornado: also the makespan with each parameter alone lower and higher by this fraction (True: 10 %).

    Returns:
        One row per parameter of system and models: parameter, value, unit, derivative [s per unit], elasticity,
        share (of the makespan: critical operations whose duration depends on the parameter), derivative_down and
        derivative_up (one-sided, over all paths within 1e-9 of the longest), tie (they differ). With `second`:
        second_derivative. With `moves`: lower, upper. With `tornado`: low_s, high_s (at the lower and at the
        higher value).

    Raises:
        InputError: unknown figure, schedule or fraction; a parameter that is not one number.

    Example: a single all-reduce costs a alpha + b / B; twice the bandwidth halves its second part.
        >>> import perfmodel as pm
        >>> graph, system = pm.load("traces/all_reduce_4"), pm.hardware("dgx-h100", ranks=4)
        >>> table = pm.sensitivity(graph, system).set_index("parameter")
        >>> bool(-1 < table.elasticity["network.0.bandwidth"] < 0)
        True
    """
    graph, system, models = unpack(graph, system, models, "sensitivity")
    figure = _figure(of)
    if schedule not in SCHEDULES:
        raise InputError(f"schedule: got {schedule!r}, expected one of {SCHEDULES}")
    fraction = TORNADO if tornado is True else float(tornado)
    if not 0 <= fraction < 1:
        raise InputError(f"tornado: got {tornado}, expected a fraction from 0 to 1, such as 0.1")
    names, point = numbers(system, models_of(system, models))
    compiled = recall(graph, system, models)
    large = compiled.large
    every = second or moves or not large  # else only the derivatives on paths that are longest
    at = compiled.system, compiled.models
    if every:
        cost, slope, curve = _expand(compiled, names, point, second)
    else:
        cost = np.asarray(compiled.evaluate(*at), np.float64)
    paths = TiedPaths.of(compiled.events, cost, TIE)
    stretches: Iterable[tuple[NDArray[np.integer], NDArray[np.float64]]]
    if large is None or every:
        stretches = [(np.arange(len(cost)), slope)]
    else:
        stretches = large.slopes(paths.rows, names, point, at)
    spent, derivative, share = 0.0, np.zeros(len(names)), np.zeros(len(names))
    tied = np.zeros((len(paths.ptr) - 1, len(names)))
    for rows, here in stretches:
        weight = paths.counts[rows]
        if figure is not None:
            part = compiled.category[rows] == figure
            weight, here = np.where(part, weight, 0.0), np.where(part[:, None], here, 0.0)
        seconds = weight * cost[rows]
        spent += float(seconds.sum())
        derivative += weight @ here
        share += seconds @ (here != 0)
        paths.add(rows, here, tied)
    value = paths.makespan if figure is None else spent
    derivative *= compiled.unit
    down, up = (slopes * compiled.unit for slopes in paths.extreme(tied))
    units = parameter_units(*at)
    table = pd.DataFrame(
        {
            "parameter": names,
            "value": point,
            "unit": [units[name] for name in names],
            "derivative": derivative,
            "elasticity": _elasticity(point, derivative, value * compiled.unit),
            "share": share / paths.makespan if paths.makespan else share,
            "derivative_down": down,
            "derivative_up": up,
            "tie": up - down > TIE * (np.abs(up) + np.abs(down)),
        }
    )
    if second:
        table["second_derivative"] = weight @ curve * compiled.unit
    if moves or fraction:
        design = FollowedDesign(compiled, names, point, cost, paths.counts, schedule)
        if moves:
            table["lower"], table["upper"] = breakpoints(design, slope)
        if fraction:
            table["low_s"], table["high_s"] = _tornado(design, fraction)
            table.attrs["tornado"] = fraction
    return table


def _figure(of: str) -> int | None:
    """Number of the category whose seconds are asked for; None for all of them."""
    name = "makespan" if of == "makespan_s" else of
    if name not in FIGURES:
        raise InputError(f"of: got {of!r}, expected one of {', '.join(FIGURES)}")
    return None if name == "makespan" else FIGURES.index(name) - 1


def numbers(system: System, models: Any) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Names [P] and values [P] of all parameters.

    Raises:
        InputError: one that holds several numbers.
    """
    known = parameters(system, models)
    for name, value in known.items():
        if np.ndim(value):
            raise InputError(
                f"parameter {name}: holds {np.size(value)} numbers, expected one; give each a field of its own"
            )
    return tuple(known), np.array([float(v) for v in known.values()])


def _expand(
    compiled: Compiled, names: tuple[str, ...], point: NDArray[Any], second: bool
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Costs [S], their derivatives [S, P], and with `second` their second derivatives [S, P] (else empty)."""
    directions = np.eye(len(point))
    cost = np.asarray(compiled.evaluate(compiled.system, compiled.models), np.float64)
    host, rows = Evaluator.of(compiled).host, len(cost)
    if host is not None and host.suits(rows):
        slope = host.pull({}, np.eye(rows), names).T
    else:
        slope = np.asarray(_derivatives(compiled, names)[0](point, directions), np.float64)
    if not second:
        return cost, slope, np.zeros((0, len(point)))
    curves = _derivatives(compiled, names)[1]
    return cost, slope, np.asarray(curves(point, directions), np.float64)


def _derivatives(compiled: Compiled, names: tuple[str, ...]) -> tuple[Any, Any]:
    """Jitted functions of (values [P], directions [P, P]): derivatives [S, P]; second derivatives. Kept."""
    key = ("derivatives", names)
    if key in compiled.functions:
        kept: tuple[Any, Any] = compiled.functions[key]
        return kept
    evaluate = compiled.smooth or compiled.evaluate

    def costs(values: jax.Array) -> jax.Array:
        return evaluate(
            *with_parameters(compiled.system, compiled.models, dict(zip(names, values)))
        )

    def along(values: jax.Array, direction: jax.Array) -> jax.Array:
        first: jax.Array = jax.jvp(costs, (values,), (direction,))[1]
        return first

    def twice(values: jax.Array, direction: jax.Array) -> jax.Array:
        second: jax.Array = jax.jvp(lambda v: along(v, direction), (values,), (direction,))[1]
        return second

    each = jax.jit(jax.vmap(along, in_axes=(None, 0), out_axes=1))
    curves = jax.jit(jax.vmap(twice, in_axes=(None, 0), out_axes=1))
    kept = compiled.functions.setdefault(key, (each, curves))
    return kept


def _elasticity(point: NDArray[Any], derivative: NDArray[Any], value: float) -> NDArray[np.float64]:
    """p / T dT/dp; 0 where nothing depends on p, an infinite p included."""
    matters = (derivative != 0) & (value != 0)
    elasticity: NDArray[np.float64] = np.divide(
        derivative * np.where(matters, point, 0), value or 1.0
    )
    return elasticity


def _tornado(design: FollowedDesign, fraction: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Makespan [P] with each parameter alone lower, and higher, by a fraction [s]."""
    point = design.point
    count = len(point)
    finite = np.where(np.isfinite(point), point, 0.0)
    values = np.repeat(point[:, None], 2 * count, axis=1)
    each = np.arange(count)
    values[each, each] -= fraction * finite
    values[each, count + each] += fraction * finite
    seconds = makespans(design, values) * design.compiled.unit
    return seconds[:count], seconds[count:]
