"""First-order conditions: what holds an optimum in its place, with what force, and the bound that follows.

At an optimum y of  minimise f(y) subject to g(y) <= 0  there are weights m >= 0 of the active g with

    grad f + sum m grad g = 0                                                (Karush, Kuhn, Tucker)

They are found by non-negative least squares. Where f and g are convex, f + sum m g lies above its tangent for any
weights m >= 0, so that with r the left side above, over the box low <= y' <= high,

    f(y') >= f(y) + sum m g(y) - sum max(r (y - low), r (y - high))

which says how far off the optimum a y can be whatever led there (weak duality).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.optimize import nnls

from perfmodel.optimization.epigraph import EpigraphProblem, SmoothPiece, Vector

ACTIVE = (1e-11, 1e-9, 1e-6)
"""A limit, a bound or a piece is active where it is met to this (relative); the narrowest that explains most counts."""


@dataclass(frozen=True, eq=False)
class Weights:
    """Weights of the pieces [K], the limits [m] (negative: the other side of an equality), and the bounds [P+1].

    `bound` is the lower bound of the objective, if all is convex; `residual` the length of the left side above over
    that of grad f, 0 at an optimum (a local one, if not all is convex).
    """

    pieces: Vector
    limits: Vector
    lower: Vector
    upper: Vector
    bound: float
    residual: float


def weigh(
    problem: EpigraphProblem, y: Vector, pieces: list[SmoothPiece], ends: tuple[Vector, Vector]
) -> Weights:
    """The weights at y = (z, ln t), with `ends` the box of y."""
    value, gradient = problem.objective(y)
    path, path_slope = problem.paths(y, pieces)
    limit, limit_slope = problem.limits(y)
    equal = np.array([found.equal for found in problem.goal.limits], bool)
    residual = np.concatenate([path, limit, -limit[equal], ends[0] - y, y - ends[1]])
    axes = np.eye(len(y))
    slope = np.concatenate([path_slope, limit_slope, -limit_slope[equal], -axes, axes])
    always = np.zeros(len(residual), bool)
    always[len(path) : len(path) + len(limit)] = equal
    always[len(path) + len(limit) :][: int(equal.sum())] = True
    best, least, length = np.zeros(len(residual)), -np.inf, np.inf
    for within in ACTIVE:
        active = always | (residual > -within)
        weights = np.zeros(len(residual))
        if active.any():
            weights[active] = nnls(slope[active].T, -gradient)[0]
        left = gradient + weights @ slope
        far = np.maximum(left * (y - ends[0]), left * (y - ends[1])).sum()
        bound = value + weights @ np.minimum(residual, 0.0) - far
        if bound > least:
            best, least, length = weights, float(bound), float(np.linalg.norm(left))
    at = np.cumsum([len(path), len(limit), int(equal.sum()), len(y)])
    on_pieces, on_limits, opposite, low, high = np.split(best, at)
    on_limits[equal] -= opposite
    size = max(float(np.linalg.norm(gradient)), 1e-300)
    return Weights(on_pieces, on_limits, low, high, least, length / size)
