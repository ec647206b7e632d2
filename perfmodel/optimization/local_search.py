"""Where every design has its own order of issue, gradients see one order at a time: look around with samples.

A list schedule changes with the design, and its makespan then jumps. Designs throughout the bounds, then ever closer
to the best, are evaluated with their own schedules in batches; from each improvement the optimiser starts again along
that design's order.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from perfmodel.optimization.cutting_planes import project
from perfmodel.optimization.epigraph import FEASIBLE, EpigraphProblem, Vector

SAMPLES = 64
"""Designs per batch."""

RADII = (1.0, 0.2, 0.05, 0.01)
"""Of the samples around the best, as fractions of the bounds."""

BATCHES = 4
"""At most so many per radius, as long as they improve."""

WORTHWHILE = 1e-5
"""A relative improvement that is worth another descent."""


def search(
    best: Any, again: Callable[[Vector], Any], rank: Callable[[Any], tuple[Any, ...]], *, seed: int
) -> Any:
    """The best found with samples, and descents from them.

    Args:
        best: what was found so far, with `problem` and `point`.
        again: the optimum for the order of issue of the design z [P].
        rank: the lower the better.
        seed: of the samples.
    """
    rng = np.random.default_rng(seed)
    for radius in RADII:
        for _ in range(BATCHES):
            z, found = _sample(best.problem, best.point.z, radius, rng)
            here = rank(best)
            if found is None or not _better(found, here):
                break
            later = again(z)
            if rank(later) >= here:
                break
            best = later
    return best


def _better(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] < other[0] or (one[0] == other[0] and one[1] < other[1] - WORTHWHILE)


def _sample(
    problem: EpigraphProblem, centre: Vector, radius: float, rng: np.random.Generator
) -> tuple[Vector, tuple[float, float] | None]:
    """The best of a batch of designs around a centre, and its rank."""
    low, high = problem.bounds()
    step = rng.uniform(-radius, radius, (SAMPLES, len(centre))) * (high - low)
    z, _ = project(problem, np.clip(centre + step, low, high))
    if not len(z):
        return centre, None
    makespan = problem.own(z)
    ranks = []
    for row, t in zip(z, makespan):
        if not np.isfinite(t):
            ranks.append((math.inf, math.inf))  # a deadlock on this design
            continue
        y = np.append(row, math.log(t))
        ranks.append((max(problem.excess(y), FEASIBLE), problem.objective(y)[0]))
    k = min(range(len(z)), key=lambda k: ranks[k])
    return z[k], ranks[k]
