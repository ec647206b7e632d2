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

from typing import Any

import jax
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.analysis.breakpoints import FollowedDesign, breakpoints, makespans
from perfmodel.analysis.evaluation import SCHEDULES, Evaluator
from perfmodel.compiled import Compiled, recall, unpack
from perfmodel.compiled_code import machine_code
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
    if every:
        cost, slope, curve = _expand(compiled, names, point, second)
    else:
        cost = np.asarray(compiled.evaluate(compiled.system, compiled.models), np.float64)
    events = compiled.events
    longest, counts, tied = _critical_paths(events.cost, events.pred_ptr, events.pred, cost, TIE)
    if every:
        rows = np.arange(len(cost))
    else:
        used = np.zeros(len(cost) + 1, bool)
        used[events.cost[tied]] = True  # no cost is the last
        rows = np.flatnonzero(used[:-1])
        assert large is not None
        slope = large.slopes(rows, names, point, (compiled.system, compiled.models))
    total = longest * compiled.unit
    part = np.ones(len(rows), bool) if figure is None else compiled.category[rows] == figure
    weight = np.where(part, counts[rows], 0.0)
    value = float(weight @ cost[rows]) * compiled.unit if figure is not None else total
    derivative = weight @ slope * compiled.unit
    masked = slope if figure is None else np.where(part[:, None], slope, 0.0)
    down, up = _one_sided(compiled, cost, tied, rows, masked)
    down, up = down * compiled.unit, up * compiled.unit
    units = parameter_units(compiled.system, compiled.models)
    table = pd.DataFrame(
        {
            "parameter": names,
            "value": point,
            "unit": [units[name] for name in names],
            "derivative": derivative,
            "elasticity": _elasticity(point, derivative, value),
            "share": _share(weight * cost[rows] * compiled.unit, slope, total),
            "derivative_down": down,
            "derivative_up": up,
            "tie": up - down > TIE * (np.abs(up) + np.abs(down)),
        }
    )
    if second:
        table["second_derivative"] = weight @ curve * compiled.unit
    if moves or fraction:
        design = FollowedDesign(compiled, names, point, cost, counts, schedule)
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


@machine_code
def _critical_paths(
    row: NDArray[Any], ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any], tie: float
) -> tuple[float, NDArray[Any], NDArray[Any]]:
    """The makespan, how often each cost stands on the critical path, and the vertices on paths that tie with it.

    The critical path is that of `Prediction.path`. A path ties where it is the longest but for a share `tie` of the
    makespan wherever it meets others.
    """
    vertices = row.size
    finish = np.empty(vertices)
    for v in range(vertices):
        latest = 0.0
        for e in range(ptr[v], ptr[v + 1]):
            latest = max(latest, finish[pred[e]])
        finish[v] = latest + cost[row[v]] if row[v] >= 0 else latest
    makespan = finish[vertices - 1]
    counts = np.zeros(cost.size)
    at = vertices - 1
    while at >= 0:
        if row[at] >= 0:
            counts[row[at]] += 1.0
        before = -1
        for e in range(ptr[at], ptr[at + 1]):
            if before < 0 or finish[pred[e]] > finish[before]:
                before = pred[e]
        at = before
    on = np.zeros(vertices, np.bool_)
    on[vertices - 1] = True
    count = 0
    for back in range(vertices):
        v = vertices - 1 - back
        if not on[v]:
            continue
        count += 1
        latest = 0.0
        for e in range(ptr[v], ptr[v + 1]):
            latest = max(latest, finish[pred[e]])
        for e in range(ptr[v], ptr[v + 1]):
            if finish[pred[e]] >= latest - tie * makespan:
                on[pred[e]] = True
    tied = np.empty(count, np.int64)
    count = 0
    for v in range(vertices):
        if on[v]:
            tied[count] = v
            count += 1
    return makespan, counts, tied


def _elasticity(point: NDArray[Any], derivative: NDArray[Any], value: float) -> NDArray[np.float64]:
    """p / T dT/dp; 0 where nothing depends on p, an infinite p included."""
    matters = (derivative != 0) & (value != 0)
    elasticity: NDArray[np.float64] = np.divide(
        derivative * np.where(matters, point, 0), value or 1.0
    )
    return elasticity


def _share(seconds: NDArray[Any], slope: NDArray[Any], total: float) -> NDArray[np.float64]:
    """[P] fraction of the makespan spent in critical operations [S] that a parameter has a part in."""
    return seconds @ (slope != 0) / total if total else np.zeros(slope.shape[1])


def _one_sided(
    compiled: Compiled,
    cost: NDArray[Any],
    tied: NDArray[np.int64],
    rows: NDArray[np.int64],
    slope: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Least and largest derivative [P] among all paths that are longest but for TIE.

    Args:
        tied: the vertices on such paths. rows, slope: [k], [k, P] the costs that occur there, and their derivatives.
    """
    events = compiled.events
    number = np.full(len(events), -1, np.int32)
    number[tied] = np.arange(len(tied))
    begin = events.pred_ptr[tied]
    count = events.pred_ptr[tied + 1] - begin
    edge = np.repeat(begin - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    before = number[events.pred[edge]]
    target = np.repeat(np.arange(len(tied)), count)[before >= 0]
    ptr = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=len(tied)))])
    place_of = np.full(len(cost) + 1, len(rows), np.int32)  # no cost is the last
    place_of[rows] = np.arange(len(rows))
    place = place_of[events.cost[tied]]
    slopes: tuple[NDArray[Any], NDArray[Any]] = _extreme_slopes(
        place,
        ptr.astype(np.int64),
        before[before >= 0],
        np.append(cost[rows], 0.0),
        np.concatenate([slope, np.zeros((1, slope.shape[1]))]),
        TIE,
    )
    return slopes


@machine_code
def _extreme_slopes(
    row: NDArray[Any],
    ptr: NDArray[Any],
    pred: NDArray[Any],
    cost: NDArray[Any],
    slope: NDArray[Any],
    tie: float,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Longest path to the last vertex; least and largest sum of `slope` [K, P] over the paths that tie."""
    vertices, width = row.size, slope.shape[1]
    finish = np.empty(vertices)
    for v in range(vertices):
        latest = 0.0
        for e in range(ptr[v], ptr[v + 1]):
            latest = max(latest, finish[pred[e]])
        finish[v] = latest + cost[row[v]]
    margin = tie * finish[vertices - 1]
    least, largest = np.zeros((vertices, width)), np.zeros((vertices, width))
    for v in range(vertices):
        latest = 0.0
        for e in range(ptr[v], ptr[v + 1]):
            latest = max(latest, finish[pred[e]])
        first = True
        for e in range(ptr[v], ptr[v + 1]):
            u = pred[e]
            if finish[u] < latest - margin:
                continue
            for p in range(width):
                if first or least[u, p] < least[v, p]:
                    least[v, p] = least[u, p]
                if first or largest[u, p] > largest[v, p]:
                    largest[v, p] = largest[u, p]
            first = False
        for p in range(width):
            least[v, p] += slope[row[v], p]
            largest[v, p] += slope[row[v], p]
    return least[vertices - 1], largest[vertices - 1]


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
