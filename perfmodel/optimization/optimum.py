"""What an optimisation found, and what its limits are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from tqdm import tqdm

from perfmodel.display import as_html, as_text, seconds
from perfmodel.errors import InputError
from perfmodel.optimization.cutting_planes import FAR, Iterate
from perfmodel.optimization.epigraph import FEASIBLE, Effort, EpigraphProblem, Point, Vector
from perfmodel.optimization.multipliers import weigh
from perfmodel.parameter_paths import parameter_units

ACTIVE = 1e-6
"""A limit or a bound is active where it is met to this (relative)."""


@dataclass(frozen=True, eq=False)
class Optimum:
    """The best design found.

    Attributes:
        parameters: path -> value [SI].
        choices: what was chosen of each of the catalogue's choices.
        objective: its value, in the units of what was asked for.
        makespan: [s], along the order of issue that was optimised.
        own_makespan: [s], of the design's own schedule (equal, unless the order kept changing).
        bound: nothing within bounds and limits is below this, for the order of issue optimised, if times and
            prices are sums of products of powers of the parameters (see `descent`).
        system, models: at the optimum.
        multipliers: constraint, value, limit, active, multiplier. The multiplier is how much the objective falls
            where the limit (the right side; for a bound, the bound) is raised by one unit; negative: it rises.
        path: one row per design evaluated: iteration, stage, parameters, objective, makespan_s, bound, feasible,
            evaluations so far.
        effort: evaluations by kind.
        bounds: path -> (lower, upper).
    """

    parameters: dict[str, float]
    choices: dict[str, Any]
    objective: float
    makespan: float
    own_makespan: float
    bound: float
    system: Any
    models: Any
    multipliers: pd.DataFrame
    path: pd.DataFrame
    effort: Effort
    bounds: dict[str, tuple[float, float]] = field(default_factory=dict)

    def _rows(self) -> dict[str, str]:
        units = parameter_units(self.system, self.models)
        found = {path: f"{value:.6g} {units[path]}" for path, value in self.parameters.items()}
        return {
            **{path: str(value) for path, value in self.choices.items()},
            **found,
            "objective": f"{self.objective:.6g}, proven bound {self.bound:.6g}",
            "makespan": seconds(self.own_makespan),
            "evaluations": f"{self.evaluations:,}",
        }

    def __repr__(self) -> str:
        return as_text("Optimum", self._rows())

    def _repr_html_(self) -> str:
        return as_html("Optimum", self._rows())

    @property
    def evaluations(self) -> int:
        """Evaluations of the model: makespans of whole graphs, and every step within the smooth problems."""
        return self.effort.evaluations

    def table(self) -> pd.DataFrame:
        """One row per parameter: parameter, value, unit, lower, upper, at (the bound it lies on, if any)."""
        units = parameter_units(self.system, self.models)
        rows = []
        for path, value in self.parameters.items():
            low, high = self.bounds[path]
            near = [abs(value - end) <= ACTIVE * max(abs(end), high - low) for end in (low, high)]
            at = "lower" if near[0] else "upper" if near[1] else ""
            rows.append((path, value, units[path], low, high, at))
        return pd.DataFrame(rows, columns=["parameter", "value", "unit", "lower", "upper", "at"])


class History:
    """Every design evaluated on the way, and a line that shows the best of them."""

    def __init__(self, paths: tuple[str, ...], progress: bool | Callable[[Iterate], None] | None):
        self.paths = paths
        self.combination: dict[str, Any] = {}
        self.rows: list[tuple[Any, ...]] = []
        self.call = progress if callable(progress) else None
        self.best: Point | None = None
        self.line = tqdm(
            disable=None if progress is None else not progress or callable(progress),
            unit=" designs",
            leave=False,
        )

    def __enter__(self) -> History:
        return self

    def __exit__(self, *reason: object) -> None:
        self.line.close()

    def note(self, step: Iterate) -> None:
        """Keep a step."""
        point = step.point
        self.rows.append((step, dict(self.combination)))
        if self.call is not None:
            self.call(step)
        if point.better_than(self.best):
            self.best = point
            self.line.set_postfix(makespan_s=f"{point.makespan:.4g}", refresh=False)
        self.line.update()

    def table(self) -> pd.DataFrame:
        """One row per step; see `Optimum.path`."""
        rows = []
        for k, (step, combination) in enumerate(self.rows):
            point = step.point
            rows.append(
                {
                    "iteration": k,
                    "stage": step.stage,
                    **combination,
                    **dict(zip(self.paths, step.values)),
                    "objective": step.objective,
                    "makespan_s": point.makespan,
                    "bound": step.bound,
                    "feasible": point.excess <= FEASIBLE,
                    "evaluations": step.evaluations,
                }
            )
        return pd.DataFrame(rows)


def multipliers(problem: EpigraphProblem, point: Point, paths: tuple[str, ...]) -> pd.DataFrame:
    """What limits, and the bounds of some parameters, are worth at an optimum (see `kkt`)."""
    scale, y = problem.scale, point.y
    low, high = (np.append(scale.z(end), y[-1]) for end in (scale.lower, scale.upper))
    ends = low - FAR * np.eye(len(y))[-1], high + FAR * np.eye(len(y))[-1]
    weights = weigh(problem, y, list(problem.pieces.values()), ends)
    factor = float(np.exp(point.objective)) if problem.goal.positive else 1.0
    rows = [*_limit_rows(problem, point, factor * weights.limits)]
    rows += [
        row
        for path, row in _bound_rows(problem, point, factor * weights.lower, factor * weights.upper)
        if path in paths
    ]
    return pd.DataFrame(rows, columns=["constraint", "value", "limit", "active", "multiplier"])


def _limit_rows(
    problem: EpigraphProblem, point: Point, weights: Vector
) -> Iterator[tuple[Any, ...]]:
    x, t = problem.scale.x(point.z), point.makespan
    residual = problem.limits(point.y)[0]
    for limit, excess, weight in zip(problem.goal.limits, residual, weights):
        active = bool(limit.equal or excess > -ACTIVE)
        worth = float(weight * limit.per_unit(x, t))
        yield limit.name, float(limit.left(x, t)), float(limit.right(x, t)), active, worth


def _bound_rows(
    problem: EpigraphProblem, point: Point, lower: Vector, upper: Vector
) -> Iterator[tuple[str, tuple[Any, ...]]]:
    scale = problem.scale
    x = np.asarray(scale.x(point.z), float)
    slope = scale.slope(x)
    for sign, word, end, weights in (
        (-1.0, ">=", scale.lower, lower),
        (1.0, "<=", scale.upper, upper),
    ):
        active = np.abs(point.z - scale.z(end)) <= ACTIVE
        for k, path in enumerate(problem.design.paths):
            worth = float(sign * weights[k] / slope[k]) if active[k] and slope[k] else 0.0
            name = f"{path} {word} {end[k]:g}"
            yield path, (name, float(x[k]), float(end[k]), bool(active[k]), worth)


def check_gradient(
    problem: EpigraphProblem, point: Point, *, step: float = 1e-5, tolerance: float = 1e-4
) -> int:
    """Compare the objective's gradient with central differences of the makespan.

    A parameter whose two neighbours lie on another piece of the makespan (a tie within reach) is left out, and so
    is one whose differences drown in rounding.

    Returns:
        How many parameters were compared.

    Raises:
        InputError: they disagree, with parameter and both values.
    """
    exact = problem.gradient(point)
    compared = 0
    for k, path in enumerate(problem.design.paths):
        shift = step * np.eye(len(exact))[k]
        above, below = problem.evaluate(np.stack([point.z + shift, point.z - shift]))
        if {above.piece.key(), below.piece.key()} != {point.piece.key()}:
            continue
        difference = (above.objective - below.objective) / (2 * step)
        noise = 1e-15 * max(abs(point.objective), 1.0) / step
        if abs(difference - exact[k]) > tolerance * max(abs(difference), abs(exact[k])) + noise:
            slope = problem.scale.slope(np.asarray(problem.scale.x(point.z)))[k]
            raise InputError(
                f"parameter {path}: a model's derivative is wrong: {exact[k] / slope:g} by differentiation, "
                f"{difference / slope:g} by finite differences, at {problem.named(point.z)}"
            )
        compared += 1
    return compared
