"""Whole-number parameters by branch and bound.

A. H. Land, A. G. Doig, "An automatic method of solving discrete programming problems", Econometrica 28(3), 1960: solve
with the parameters continuous, cut the interval of one that is not whole in two, leave out what cannot be better
than the best whole solution so far.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from perfmodel.errors import InputError
from perfmodel.optimization.epigraph import (
    FEASIBLE,
    EpigraphProblem,
    NothingFeasible,
    Point,
    Vector,
)

MOST_BRANCHES = 1000
WHOLE = 1e-6
"""A value this close to a whole number is one (relative)."""

Descent = Callable[[EpigraphProblem, Vector], tuple[Point, float]]


def branch(
    problem: EpigraphProblem, starts: Vector, integers: Sequence[str], descent: Descent
) -> tuple[Point, float]:
    """The best design with the named parameters whole, and the lower bound of the first, continuous, problem.

    `problem.box` is left with those parameters fixed.

    Raises:
        InputError: nothing whole meets the limits, or more than `MOST_BRANCHES` problems.
    """
    if not integers:
        return descent(problem, starts)
    places = [problem.design.paths.index(path) for path in integers]
    scale = problem.scale
    low, high = (np.array(scale.x(z), float) for z in problem.bounds())
    low[places], high[places] = np.ceil(scale.lower[places]), np.floor(scale.upper[places])
    best: Point | None = None
    first: float | None = None
    box: tuple[Vector, Vector] | None = None
    waiting = [(low, high)]
    for _ in range(MOST_BRANCHES):
        if not waiting:
            break
        low, high = waiting.pop()
        problem.box = (scale.z(low), scale.z(high))
        point, bound = descent(problem, np.clip(starts, *problem.box))
        first = bound if first is None else first
        if point.excess > FEASIBLE or not point.better_than(best):
            continue
        x = np.asarray(scale.x(point.z), float)
        away = np.abs(x - np.rint(x))
        away[[k for k in range(len(x)) if k not in places]] = 0.0
        widest = int(np.argmax(away))
        if away[widest] > WHOLE * max(1.0, x[widest]):
            below, above = high.copy(), low.copy()
            below[widest], above[widest] = np.floor(x[widest]), np.ceil(x[widest])
            waiting += [(low, below), (above, high)]
            continue
        low, high = low.copy(), high.copy()
        low[places] = high[places] = np.rint(x[places])
        problem.box = (scale.z(low), scale.z(high))
        point, _ = descent(problem, np.clip(point.z[None], *problem.box))
        if point.excess <= FEASIBLE and point.better_than(best):
            best, box = point, problem.box
    else:
        raise InputError(
            f"integers: {MOST_BRANCHES} problems did not settle {', '.join(integers)}; narrow their bounds"
        )
    if best is None or first is None:
        raise NothingFeasible(
            f"integers: no design with {', '.join(integers)} whole meets all constraints; relax one or widen bounds"
        )
    problem.box = box
    return best, first
