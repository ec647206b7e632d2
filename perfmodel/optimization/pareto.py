"""What can be had at the same time: designs that no other design beats in every objective."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.analysis.design_space import bounds_of
from perfmodel.compiled import Compiled, unpack
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost_power_area import Economics
from perfmodel.models.figures import figures_of
from perfmodel.optimization.checked_request import Bounds, SearchOptions, problems
from perfmodel.optimization.epigraph import EpigraphProblem, NothingFeasible
from perfmodel.optimization.expression import parse
from perfmodel.optimization.objective import Constraints, VariedDesign, goal, relations
from perfmodel.optimization.optimize import Found, settle
from perfmodel.workload.graph import Graph

ROOM = 1e-7
"""The best value of an objective may be exceeded by this much (relative) while others are improved."""

SAME = 1e-5
"""Values this close (relative) count as equal."""


def pareto(
    graph: Graph | Compiled,
    system: System | None = None,
    *,
    bounds: Bounds,
    objectives: Sequence[str] = ("time", "cost"),
    points: int = 20,
    constraints: Constraints | None = None,
    models: Any = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    economics: Economics | None = None,
    schedule: str = "frozen",
    starts: int = 8,
    log: bool = True,
    seed: int = 0,
    tolerance: float = 1e-7,
    threads: int = 1,
) -> pd.DataFrame:
    """The front of two or three objectives.

    The first objective is minimised while the others may not exceed limits, which go through their ranges in
    geometric steps (the epsilon-constraint method; Y. Haimes et al., IEEE Trans. Systems, Man, and Cybernetics 1(3),
    1971). What one point teaches about the makespan serves all later ones.

    Args:
        graph, system, bounds, constraints, models, choices, economics, starts, log, seed, tolerance, threads: as for
            `optimize`.
        objectives: two or three texts: figures or expressions, positive within the bounds.
        points: about so many on the front; of three objectives, a grid of them.
        schedule: "frozen" keeps the order of issue of `system`; "own" finds each point's own, which takes long.

    Returns:
        One row per design, by the second objective ascending: the parameters, one column per objective
        (makespan_s, cost_usd, power_W, energy_J, area_mm2, or the text), own_makespan_s, the choices. Designs that
        another one beats in every objective are left out, so there may be fewer than `points`.

    Raises:
        InputError: as `optimize`; not two or three objectives; an objective that is not positive.
    """
    if isinstance(objectives, str) or not 2 <= len(objectives) <= 3:
        raise InputError(f"objectives: got {objectives!r}, expected two or three texts")
    if len(set(objectives)) < len(objectives):
        raise InputError(f"objectives: one of {', '.join(objectives)} is named twice")
    if points < 2:
        raise InputError(f"points: got {points}, expected 2 or more")
    graph, system, models = unpack(graph, system, models, "pareto")
    bounds = bounds_of(bounds)
    options = SearchOptions(
        objective=objectives[0],
        constraints=constraints,
        economics=economics,
        schedule=schedule,
        method="SLSQP",
        starts=starts,
        log=log,
        seed=seed,
        tolerance=tolerance,
        rounds=200,
        integers=(),
        check_gradients=False,
        threads=threads,
    )
    rows: list[dict[str, Any]] = []
    values: list[list[float]] = []
    for chosen, problem in problems(graph, system, models, bounds, options, choices):
        for found in _front(problem, objectives, points, options):
            row, value = _row(found, objectives)
            rows.append({**row, **chosen})
            values.append(value)
    if not rows:
        raise InputError("constraints: no design within the bounds was found that meets them")
    kept = undominated(np.array(values))
    table = pd.DataFrame(rows)[kept]
    return table.sort_values(_column(objectives[1], economics), ignore_index=True)


def undominated(values: NDArray[np.float64]) -> NDArray[np.bool_]:
    """[n] which rows of values [n, m] no other row beats: lower in one, higher in none.

    Of rows that are equal to `SAME` the first stays.

    >>> undominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 3.0], [1.0, 3.0]])).tolist()
    [True, True, False, False]
    """
    rounded = np.rint(np.log(values) / SAME)
    not_above = (rounded[:, None] <= rounded[None]).all(axis=2)
    below = (rounded[:, None] < rounded[None]).any(axis=2)
    earlier = np.triu(np.ones((len(values), len(values)), bool), 1)
    unbeaten: NDArray[np.bool_] = np.logical_not(np.any(not_above & (below | earlier), axis=0))
    return unbeaten


def _front(
    problem: EpigraphProblem, objectives: Sequence[str], points: int, options: SearchOptions
) -> Iterator[Found]:
    """Designs for one combination of choices."""
    first, *others = objectives
    centre = jnp.asarray(problem.scale.centre())
    for text in others:
        goal(problem.design, text, None, centre)
    ends = []
    for text in objectives:
        found = _solve(problem, text, {}, options)
        if found is None:
            return
        ends.append([_value(found, other) for other in objectives])
    table = np.array(ends)
    if not (table > 0).all():
        raise InputError(f"objectives: {', '.join(objectives)} must be positive within the bounds")
    steps = points if len(others) == 1 else math.ceil(math.sqrt(points))
    limits = [
        np.geomspace(table[:, k].min() * (1 + ROOM), table[:, k].max(), steps)
        for k in range(1, len(objectives))
    ]
    for combination in itertools.product(*limits):
        found = _solve(problem, first, dict(zip(others, combination)), options)
        if found is not None:
            yield found


def _solve(
    problem: EpigraphProblem, objective: str, limits: Mapping[str, float], options: SearchOptions
) -> Found | None:
    """The best design under limits of the other objectives; None if nothing meets them."""
    said = [*relations(options.constraints), *relations({f"({t})": v for t, v in limits.items()})]
    wanted = goal(problem.design, objective, said, jnp.asarray(problem.scale.centre()))
    here = problem.towards(wanted)
    try:
        return settle(here, replace(options, objective=objective), lambda step: None)
    except NothingFeasible:
        return None


def _value(found: Found, text: str) -> float:
    design: VariedDesign = found.problem.design
    x = jnp.asarray(found.problem.scale.x(found.point.z))
    return float(design.value(parse(text), x, found.point.makespan))


def _column(text: str, economics: Any = None) -> str:
    known = figures_of(economics)
    return known[text].column if text in known else text


def _row(found: Found, objectives: Sequence[str]) -> tuple[dict[str, Any], list[float]]:
    """A table's row, and the objectives' values."""
    x = np.asarray(found.problem.scale.x(found.point.z), float).tolist()
    values = [_value(found, text) for text in objectives]
    economics = found.problem.design.economics
    known = figures_of(economics)
    factors = [known[text].factor if text in known else 1.0 for text in objectives]
    columns = {_column(t, economics): v * f for t, v, f in zip(objectives, values, factors)}
    parameters = dict(zip(found.problem.design.paths, x))
    return {**parameters, **columns, "own_makespan_s": found.own}, values
