"""Minimise an objective of a makespan, exactly: cutting planes that are smooth paths instead of planes.

    minimise F(x, t)  subject to  t >= piece_k(x) for all pieces k known so far, limits(x, t) <= 0

is a smooth problem whose optimum bounds the real one from below; the real makespan at its solution brings one more
piece (see `problem`), and when that piece changes nothing the solution is the optimum. With x in logarithms, times
and prices that are sums of products of powers make every such problem convex (a geometric program; S. Boyd et al.,
"A tutorial on geometric programming", Optimization and Engineering 8, 2007), so the optimum is the global one, and the
difference between bound and objective says how far off it can be. J. E. Kelley, "The cutting-plane method for
solving convex programs", J. SIAM 8(4), 1960, is the same with planes.

Where costs are not such sums, pieces found too high are dropped, and the optimum is the best that several starts find.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import Bounds, NonlinearConstraint, minimize

from perfmodel.optimization.epigraph import FEASIBLE, EpigraphProblem, Point, Vector
from perfmodel.optimization.multipliers import weigh

MOST_PIECES = 120
"""Pieces in one smooth problem to begin with; the slackest wait until they matter."""

NARROW = 1e-9
"""Equalities that are split into two inequalities hold to this (relative)."""

FAR = 30.0
"""The smooth problem looks for makespans within e^30 of its start."""

SOLVED = 1e-4
"""First-order conditions hold to this (relative) at a solution; else the solver stopped early, and another is tried."""

Smooth = Callable[[Vector], tuple[Any, Vector]]
"""A function (or several) of y with its gradient (gradients)."""

OTHERS = 3
"""Starts from which the smooth problem is solved again before its optimum is believed."""

SLACKEST = 1.5
"""So does a piece that is e^1.5 times shorter than the makespan."""


@dataclass(frozen=True, eq=False)
class Iterate:
    """A line of an optimisation's history: stage ("start", "direct" or "piece"), point, its parameters' values, its
    objective and the bound known then in the user's units, evaluations so far.
    """

    stage: str
    point: Point
    values: list[float]
    objective: float
    bound: float
    evaluations: int


def _step(stage: str, problem: EpigraphProblem, point: Point, bound: float = -np.inf) -> Iterate:
    values = np.asarray(problem.scale.x(point.z), float).tolist()
    objective, least = problem.unscaled(point.objective), problem.unscaled(bound)
    return Iterate(stage, point, values, objective, least, problem.effort.evaluations)


def project(problem: EpigraphProblem, starts: Vector) -> tuple[Vector, float]:
    """The nearest designs [D, P] that meet the limits without time in them, and the least excess found."""
    chosen = [k for k, limit in enumerate(problem.goal.limits) if not limit.timed]
    if not chosen:
        return starts, 0.0
    equal = np.array([problem.goal.limits[k].equal for k in chosen], bool)

    def residuals(z: Vector) -> tuple[Vector, Vector]:
        value, slope = problem.limits(np.append(z, 0.0))
        return value[chosen], slope[chosen, :-1]

    low, high = problem.bounds()
    found, least = [], np.inf
    for start in starts:

        def distance(z: Vector, start: Vector = start) -> tuple[float, Vector]:
            return 0.5 * float(np.sum((z - start) ** 2)), z - start

        for split in (False, True) if equal.any() else (False,):
            z = _slsqp(distance, residuals, start, (low, high), equal, split=split)
            value = residuals(z)[0]
            excess = float(np.where(equal, np.abs(value), value).max())
            least = min(least, excess)
            if excess <= FEASIBLE:
                found.append(z)
                break
    return np.array(found).reshape(-1, starts.shape[1]), least


def _slsqp(
    function: Smooth,
    residuals: Smooth,
    start: Vector,
    ends: tuple[Vector, Vector],
    equal: NDArray[Any],
    *,
    split: bool,
) -> Vector:
    result = minimize(
        function,
        start,
        jac=True,
        method="SLSQP",
        bounds=Bounds(*ends),
        constraints=_scipy_limits(residuals, equal, split=split),
        options={"maxiter": 200, "ftol": 1e-13},
    )
    solution: Vector = np.clip(result.x, *ends)
    return solution


def _scipy_limits(
    residuals: Callable[[Vector], tuple[Vector, Vector]], equal: NDArray[Any], *, split: bool
) -> list[Any]:
    """Constraints as SLSQP takes them: >= 0 and == 0.

    Equalities that say the same twice make its equations singular; `split` makes two inequalities of each,
    `NARROW` apart.
    """
    room = NARROW if split else 0.0
    parts = [("ineq", -1.0, ~equal, 0.0), ("eq", -1.0, equal, 0.0)]
    if split:
        parts[1:] = [("ineq", -1.0, equal, room), ("ineq", 1.0, equal, room)]
    return [
        {
            "type": kind,
            "fun": lambda v, sign=sign, chosen=chosen, room=room: (
                sign * residuals(v)[0][chosen] + room
            ),
            "jac": lambda v, sign=sign, chosen=chosen: sign * residuals(v)[1][chosen],
        }
        for kind, sign, chosen, room in parts
        if chosen.any()
    ]


def descend(
    problem: EpigraphProblem,
    starts: Vector,
    *,
    method: str,
    tolerance: float,
    rounds: int,
    tell: Callable[[Iterate], None],
) -> tuple[Point, float]:
    """The best design, and a lower bound of the objective if all pieces are convex.

    Args:
        problem: with what it knows from earlier calls.
        starts: [D, P], evaluated in one batch.
        method: "SLSQP" or "trust-constr" for the smooth problems; "L-BFGS-B" descends the makespan itself first.
        tolerance: relative difference between objective and bound at which to stop.
        rounds: at most so many new pieces.
        tell: is called with every step.
    """
    points = problem.evaluate(starts)
    best = points[0]
    for point in points:
        tell(_step("start", problem, point))
        best = point if point.better_than(best) else best
    if method == "L-BFGS-B":
        best = _direct(problem, best, tell)
    others = sorted(points, key=lambda p: (max(p.excess, FEASIBLE), p.objective))[:OTHERS]
    bound, everywhere, stuck = -np.inf, False, 0
    scale = 1.0 if problem.goal.positive else max(abs(best.objective), 1e-300)
    for _ in range(rounds):
        froms = [best.y, *(p.y for p in others)] if everywhere else [best.y]
        y, level, bound = _smooth_optimum(problem, froms, method)
        known = len(problem.pieces)
        (point,) = problem.evaluate(y[None, :-1])
        _drop_too_high(problem, point)
        best = point if point.better_than(best) else best
        tell(_step("piece", problem, point, bound))
        closed = best.excess <= FEASIBLE and best.objective - level <= tolerance * scale
        stuck += len(problem.pieces) == known and not closed
        if (closed and (everywhere or len(points) == 1)) or stuck > 2:
            break  # `stuck`: no new piece, so there is nothing more to learn
        everywhere = closed or len(problem.pieces) == known
    return best, bound


def _drop_too_high(problem: EpigraphProblem, point: Point) -> None:
    """Forget pieces that exceed the makespan somewhere: they bound nothing."""
    pieces = list(problem.pieces.items())
    value, _ = problem.paths(point.y, [p for _, p in pieces])
    for (key, _), excess in zip(pieces, value):
        if excess > 1e-9 and key != point.piece.key():
            del problem.pieces[key]


def _smooth_optimum(
    problem: EpigraphProblem, froms: list[Vector], method: str
) -> tuple[Vector, float, float]:
    """Optimum (z, ln t) of the smooth problem, the best from several starts; its objective; a bound that proves it.

    Both are -inf where no solver came near an optimum.
    """
    pieces = list(problem.pieces.values())
    slack = -problem.paths(froms[0], pieces)[0]
    nearest = np.argsort(slack, kind="stable")
    near = slack[nearest] < max(SLACKEST, slack[nearest[0]])
    chosen = set(nearest[: max(1, min(MOST_PIECES, int(near.sum())))].tolist())
    while True:
        y, level, bound = _smooth_optimum_of(
            problem, [pieces[k] for k in sorted(chosen)], froms, method
        )
        above = np.flatnonzero(problem.paths(y, pieces)[0] > 1e-10)
        missing = set(above.tolist()) - chosen
        if not missing:
            return y, level, bound
        chosen |= missing


def _smooth_optimum_of(
    problem: EpigraphProblem, pieces: list[Any], froms: list[Vector], method: str
) -> tuple[Vector, float, float]:
    low, high = problem.bounds()
    equal = np.array([False] * len(pieces) + [limit.equal for limit in problem.goal.limits], bool)
    memory: dict[bytes, tuple[Any, ...]] = {}

    def everything(y: Vector) -> tuple[float, Vector, Vector, Vector]:
        key = y.tobytes()
        if key not in memory:
            problem.effort.smooth += 1
            path, path_slope = problem.paths(y, pieces)
            limit, limit_slope = problem.limits(y)
            memory[key] = (
                *problem.objective(y),
                np.concatenate([path, limit]),
                np.concatenate([path_slope, limit_slope]),
            )
        return memory[key]

    best, solution = (np.inf, np.inf), (froms[0], -np.inf, -np.inf)
    for start in froms:
        ends = np.append(low, start[-1] - FAR), np.append(high, start[-1] + FAR)
        for y in _solutions(method, everything, start, ends, equal):
            value, _, residual, _ = everything(y)
            excess = float(np.where(equal, np.abs(residual), residual).max(initial=0.0))
            rank = (max(excess, FEASIBLE), value)
            if not np.isfinite(rank).all():
                continue
            weights = weigh(problem, y, pieces, ends)
            solved = excess <= FEASIBLE and weights.residual <= SOLVED
            if rank < best:
                best = rank
                solution = (y, value, weights.bound) if solved else (y, -np.inf, -np.inf)
            if solved or (excess > FEASIBLE and not equal.any()):
                break
    return solution


def _solutions(
    method: str, everything: Any, start: Vector, ends: tuple[Vector, Vector], equal: NDArray[Any]
) -> Iterator[Vector]:
    """Solutions of one smooth problem by scipy, as long as a better one is asked for."""

    def function(y: Vector) -> tuple[float, Vector]:
        value_and_slope: tuple[float, Vector] = everything(y)[:2]
        return value_and_slope

    def residuals(y: Vector) -> tuple[Vector, Vector]:
        both: tuple[Vector, Vector] = everything(y)[2:]
        return both

    if method == "trust-constr":
        yield _trust_constr(function, residuals, start, ends, equal)
    y = _slsqp(function, residuals, start, ends, equal, split=False)
    yield y
    yield _slsqp(function, residuals, y, ends, equal, split=bool(equal.any()))
    if method != "trust-constr":
        yield _trust_constr(function, residuals, y, ends, equal)


def _trust_constr(
    function: Smooth,
    residuals: Smooth,
    start: Vector,
    ends: tuple[Vector, Vector],
    equal: NDArray[Any],
) -> Vector:
    limits = NonlinearConstraint(
        lambda y: residuals(y)[0],
        np.where(equal, 0.0, -np.inf),
        np.zeros(len(equal)),
        jac=lambda y: residuals(y)[1],
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of quasi-Newton updates for linear functions
        result = minimize(
            function,
            start,
            jac=True,
            method="trust-constr",
            bounds=Bounds(*ends),
            constraints=[limits],
            options={"gtol": 1e-10, "xtol": 1e-12, "barrier_tol": 1e-12, "maxiter": 1000},
        )
    solution: Vector = np.clip(result.x, *ends)
    return solution


def _direct(problem: EpigraphProblem, best: Point, tell: Callable[[Iterate], None]) -> Point:
    """L-BFGS-B on the makespan itself, by the derivative of the critical path; it stops at kinks."""
    kept = [best]

    def function(z: Vector) -> tuple[float, Vector]:
        (point,) = problem.evaluate(z[None])
        tell(_step("direct", problem, point))
        kept[0] = point if point.better_than(kept[0]) else kept[0]
        return point.objective, problem.gradient(point)

    minimize(function, best.z, jac=True, method="L-BFGS-B", bounds=Bounds(*problem.bounds()))
    return kept[0]
