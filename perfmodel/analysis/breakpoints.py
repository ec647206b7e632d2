"""How far a parameter can move, alone, before the critical path changes.

With w . c(p) the length of the present critical path and T(p) the makespan, the gap g(p) = T(p) - w . c(p) is 0
at the design and, under a frozen order, never negative. The breakpoint is where g leaves 0. Where every cost is
affine in p (a latency) or in 1/p (a bandwidth), g is a maximum of affine functions of that variable, so that the
set g = 0 is an interval: a bracket found on any grid then holds the only breakpoint, and it is computed to
rounding. With other models (a roofline at its ridge) g could leave 0 and return between two points of the grid;
the grid is the check, `GRID` points to each side over a factor of `REACH`.

A design's own order of issue, and costs in whole nanoseconds, add jumps: there the breakpoint is the first value
found at which T(p) departs from w . c(p) either way, to rounding.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator
from perfmodel.compiled import Compiled
from perfmodel.engine import bulk_cpu as engine

REACH = 1000.0
"""Breakpoints are looked for up to this factor away from the design."""

GRID = 48
"""Points of the grid to each side, evenly spaced in the logarithm."""

SPLIT = 16
"""Parts into which every round cuts a bracket."""

ROUNDS = 12
"""16^12 = 2.8e14: the last bracket is as narrow as rounding."""

SAME = 1e-11
"""The gap, relative to the makespan, below which the critical path is still the longest."""

BATCH = 8_000_000
"""Numbers in one table of costs [S, D]."""


@dataclass(frozen=True, eq=False)
class FollowedDesign:
    """A compiled graph at the design whose critical path is followed.

    Attributes:
        compiled: the graph; names: [P] parameter paths; point: [P] their values [SI].
        cost: [S] the distinct costs; counts: [S] how often each stands on the critical path.
        schedule: "own" or "frozen".
    """

    compiled: Compiled
    names: tuple[str, ...]
    point: NDArray[np.float64]
    cost: NDArray[np.float64]
    counts: NDArray[np.float64]
    schedule: str
    evaluator: Evaluator = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "evaluator", Evaluator.of(self.compiled))

    @property
    def frozen(self) -> bool:
        """Whether the frozen longest path answers: asked for, or the only order there is."""
        return self.schedule == "frozen" or self.compiled.forced


def makespans(design: FollowedDesign, values: NDArray[Any]) -> NDArray[np.float64]:
    """[D] makespan, in the unit of the costs, from [P, D] parameter values."""
    return _evaluate(design, values)[0]


def breakpoints(
    design: FollowedDesign, slope: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The values between which the critical path stays the longest, per parameter.

    Args:
        design: where the path is.
        slope: [S, P] derivative of the costs; gives a parameter that is 0 a scale to move on.

    Returns:
        lower [P], upper [P], in the parameter's unit; 0 and inf where nothing changes within a factor of REACH.
        For a parameter that is 0 the largest cost that it enters is let grow to REACH makespans. Infinite
        parameters cannot be moved: nan and inf.
    """
    movable = np.isfinite(design.point)
    total = float(design.counts @ design.cost)
    steepest = np.abs(slope).max(axis=0, initial=0.0)
    scale = np.divide(total, steepest, where=steepest > 0, out=np.ones(len(steepest)))
    factor = np.geomspace(1.0, REACH, GRID + 1)
    which, ladder = [], []
    for p in np.flatnonzero(movable):
        at = design.point[p]
        up = at * factor if at else np.append(0.0, scale[p] * np.geomspace(1e-9, REACH, GRID))
        which += [p, p]
        ladder += [at / factor, up]
    lower, upper = np.where(movable, 0.0, np.nan), np.full(len(movable), np.inf)
    if not which:
        return lower, upper
    found = _first_change(design, np.array(which), np.array(ladder))
    lower[which[::2]] = np.where(np.isnan(found[::2]), 0.0, found[::2])
    upper[which[1::2]] = np.where(np.isnan(found[1::2]), np.inf, found[1::2])
    return lower, upper


def _first_change(
    design: FollowedDesign, which: NDArray[Any], ladder: NDArray[Any]
) -> NDArray[np.float64]:
    """[B] where the gap of each ladder [B, GRID + 1] of values of parameter `which` [B] opens; nan if nowhere."""
    result = np.full(len(which), np.nan)
    good, bad, opened = _bracket(design, which, ladder)
    rows = np.flatnonzero(opened)
    which, good, bad = which[rows], good[rows], bad[rows]
    for _ in range(ROUNDS if len(rows) else 0):
        steps = np.linspace(0.0, 1.0, SPLIT + 1)
        good, bad, _ = _bracket(design, which, good[:, None] + (bad - good)[:, None] * steps)
    if len(rows):
        steady = design.frozen and not design.compiled.batched
        result[rows] = _polish(design, which, bad) if steady else bad
    return result


def _bracket(
    design: FollowedDesign, which: NDArray[Any], ladder: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], Any]:
    """The last value before the gap opens and the first behind it [B], and whether it does [B]."""
    rows, steps = ladder.shape
    values = np.repeat(design.point[:, None], rows * steps, axis=1)
    values[np.repeat(which, steps), np.arange(rows * steps)] = ladder.ravel()
    total, along = _evaluate(design, values)
    gap = np.abs(total - along)
    # a design without a schedule (nan) has another path, too
    closed = (gap <= SAME * np.maximum(total, along)).reshape(rows, steps)
    closed[:, 0] = True
    opened = ~closed.all(axis=1)
    first = np.where(opened, np.argmin(closed, axis=1), steps - 1)
    each = np.arange(rows)
    return ladder[each, np.maximum(first - 1, 0)], ladder[each, first], opened


def _evaluate(
    design: FollowedDesign, values: NDArray[Any]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[D] makespan and [D] length of the design's critical path, in the unit of the costs, in batches."""
    size = max(1, BATCH // max(len(design.counts), 1))
    options = EvaluationOptions(schedule=design.schedule)
    total, along = [], []
    for at in range(0, values.shape[1], size):
        costs = design.evaluator.costs(design.names, values[:, at : at + size])
        total.append(design.evaluator.makespans(costs, options, paths=False)[0])
        along.append(design.counts @ costs)
    return np.concatenate(total).astype(float), np.concatenate(along)


def _polish(design: FollowedDesign, which: NDArray[Any], bad: NDArray[Any]) -> NDArray[np.float64]:
    """One Newton step from just behind each breakpoint [B], on the path that overtook there.

    The bracket ends where the gap exceeds SAME, a little behind the crossing (w_k - w) . c(p) = 0 itself.
    """
    values = np.repeat(design.point[:, None], len(which), axis=1)
    each = np.arange(len(which))
    values[which, each] = bad
    costs = design.evaluator.costs(design.names, values)
    _, overtaking = engine.makespans(design.compiled.plan, costs, paths=True)
    difference = overtaking - design.counts[:, None]
    gap = np.einsum("sd,sd->d", difference, costs) * design.compiled.unit
    rate = design.evaluator.gradients(design.names, values, difference, design.names)[which, each]
    step = np.divide(gap, rate, where=rate != 0, out=np.zeros_like(gap))
    # no further back than the design itself
    start = design.point[which]
    polished: NDArray[np.float64] = np.clip(
        bad - step, np.minimum(start, bad), np.maximum(start, bad)
    )
    return polished
