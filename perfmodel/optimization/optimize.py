"""The best hardware within bounds and limits, by exact gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.analysis.design_space import bounds_of
from perfmodel.compiled import Compiled, compile, unpack
from perfmodel.machine.system import System
from perfmodel.models.cost_power_area import Economics
from perfmodel.optimization.branch_and_bound import branch
from perfmodel.optimization.checked_request import Bounds, SearchOptions, problems
from perfmodel.optimization.cutting_planes import Iterate, descend, project
from perfmodel.optimization.epigraph import (
    FEASIBLE,
    EpigraphProblem,
    NothingFeasible,
    Point,
    Vector,
)
from perfmodel.optimization.local_search import search
from perfmodel.optimization.objective import Constraints, Objective
from perfmodel.optimization.optimum import History, Optimum, check_gradient, multipliers
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.workload.graph import Graph

RESCHEDULES = 4
"""How often an optimum's own order of issue is frozen in turn."""

SAME = 1e-9
"""Two makespans closer than this (relative) come from the same order of issue."""


@dataclass(frozen=True, eq=False)
class Found:
    """The best of one combination of choices: the point, and the problem that it is the optimum of."""

    problem: EpigraphProblem
    point: Point
    bound: float
    own: float


def optimize(
    graph: Graph | Compiled,
    system: System | None = None,
    *,
    bounds: Bounds,
    objective: Objective = "time",
    constraints: Constraints | None = None,
    models: Any = None,
    choices: Mapping[str, Sequence[Any]] | None = None,
    integers: Sequence[str] = (),
    economics: Economics | None = None,
    schedule: str = "own",
    method: str = "SLSQP",
    starts: int = 8,
    log: bool = True,
    seed: int = 0,
    tolerance: float = 1e-9,
    rounds: int = 200,
    check_gradients: bool = False,
    progress: bool | Callable[[Iterate], None] | None = None,
    threads: int = 1,
) -> Optimum:
    """The parameters within bounds and constraints that minimise an objective.

    Figures that objective and constraints may name: time [s] (the makespan), cost [$], power [W], energy [J per step],
    area [m^2], by `economics`; every parameter path [SI]; and, of a graph that knows what its ranks hold
    (`synth.training`), peak_memory_B and memory_margin_B = npu.memory_capacity - peak_memory_B.

    A makespan is a maximum of smooth pieces, and the optimum usually lies where some of them meet. `descent` says how
    it is found there to `tolerance`, with a bound that proves it for the usual models.

    The order of issue: `schedule="frozen"` keeps that of `system`. With "own" the order is frozen at each optimum in
    turn until the optimum's own schedule is the one it was optimised for, at most 4 times; where dependencies leave
    the order open, designs around the optimum and throughout the bounds are then tried with their own schedules,
    and the best is improved likewise (a schedule that changes with the design makes jumps, which no gradient sees).

    Args:
        graph: the workload, from `load`; or a compiled graph, which brings system and models.
        system: the reference design; it is the first start.
        bounds: {parameter path: (lowest, highest)} [SI].
        objective: a text ("time", "energy", "time * cost", any expression), {text: weight}, or a function of (system,
            models, makespan) in JAX; it must not fall where the makespan grows.
        constraints: texts ("network.0.bandwidth + network.1.bandwidth <= 1e12", "cost <= 2e6",
            "network.0.bandwidth >= network.1.bandwidth", "npu.peak_flops / npu.memory_bandwidth == 300"); or {text: at
            most} and {text: (at least, at most)}; or functions of (system, models, makespan) in JAX that must be
            <= 0. Sums, differences, products, ratios and parentheses are understood.
        models: what turns work into time.
        choices: {path: values} to be tried all: "system" (names in hwdb or files), labels of models
            ("network.algorithm"), or parameters that come in discrete parts.
        integers: paths among `bounds` whose values must be whole (branch and bound).
        economics: models of cost, power, energy and area; by default the public ones, scaled to what hwdb knows of
            each system.
        schedule: "own" or "frozen", see above.
        method: "SLSQP" or "trust-constr" for the smooth problems, "L-BFGS-B" to descend the makespan itself first.
        starts: designs to start from, evaluated in one batch: the reference, and a Sobol sample.
        log: scale the variables logarithmically.
        seed: of the sample.
        tolerance: relative distance from the bound at which to stop.
        rounds: at most so many steps per descent.
        check_gradients: compare gradients with finite differences at the starts.
        progress: show a line, or call a function with every step.
        threads: for batches of designs.

    Returns:
        An `Optimum`.

    Raises:
        InputError: unknown paths (the nearest are offered), bounds that are empty, not finite or out of order,
            constraints that cannot be met, an objective that falls where the makespan grows, wrong derivatives.

    Example: two network dimensions share 500 GB/s.
        >>> import perfmodel as pm
        >>> from perfmodel import synth
        >>> graph = synth.collective("all_reduce", 16, 1 << 30).graph()
        >>> system = pm.hardware("dgx-h100", ranks=16, models="roofline")
        >>> best = pm.optimize(
        ...     graph,
        ...     system,
        ...     bounds={f"network.{k}.bandwidth": (1e9, 1e12) for k in (0, 1)},
        ...     constraints=["network.0.bandwidth + network.1.bandwidth <= 500e9"],
        ... )
        >>> [round(value / 1e9) for value in best.parameters.values()]
        [395, 105]
    """
    graph, system, models = unpack(graph, system, models, "optimize")
    bounds = bounds_of(bounds)
    options = SearchOptions(
        objective,
        constraints,
        economics,
        schedule,
        method,
        starts,
        log,
        seed,
        tolerance,
        rounds,
        tuple(integers),
        check_gradients,
        threads,
    )
    history = History(tuple(bounds), progress)
    best: tuple[Found, dict[str, Any]] | None = None
    failure: NothingFeasible | None = None
    with history:
        for chosen, problem in problems(graph, system, models, bounds, options, choices):
            history.combination = chosen
            try:
                found = settle(problem, options, history.note)
            except NothingFeasible as error:
                failure = error
                continue
            if best is None or rank(found) < rank(best[0]):
                best = found, chosen
    if best is None:
        assert failure is not None
        raise failure
    return _optimum(*best, bounds, history)


def _starts(problem: EpigraphProblem, options: SearchOptions) -> Vector:
    """[D, P] the reference, the middle, and a Sobol sample, where they meet the limits without time in them."""
    from scipy.stats import qmc  # importing it takes as long as importing JAX

    low, high = problem.bounds()
    known = parameters(problem.design.system, problem.design.models)
    reference = np.array([float(known[path]) for path in problem.design.paths])
    first = np.clip(
        problem.scale.z(np.clip(reference, problem.scale.lower, problem.scale.upper)), low, high
    )
    drawn = qmc.Sobol(len(low), rng=np.random.default_rng(options.seed)).random_base2(
        max(options.starts - 1, 0).bit_length()
    )[: options.starts - 1]
    raw = np.concatenate([first[None], low + drawn * (high - low)])
    found, least = project(problem, raw)
    if len(found) == 0 and least > FEASIBLE:
        names = "; ".join(limit.name for limit in problem.goal.limits if not limit.timed)
        raise NothingFeasible(
            f"constraints: nothing within the bounds meets all of: {names}; the nearest design exceeds one by "
            f"{least:.2g} (relative). Widen the bounds or relax a limit"
        )
    return found


def settle(
    problem: EpigraphProblem, options: SearchOptions, tell: Callable[[Iterate], None]
) -> Found:
    """The optimum for one combination of choices, with the order of issue that is its own."""
    compiled, design = problem.compiled, problem.design

    def descent(problem: EpigraphProblem, starts: Vector) -> tuple[Point, float]:
        return descend(
            problem,
            starts,
            method=options.method,
            tolerance=options.tolerance,
            rounds=options.rounds,
            tell=tell,
        )

    def found(problem: EpigraphProblem, point: Point, bound: float) -> Found:
        own = point.makespan
        if open_order:
            own = float(problem.own(point.z[None])[0])
        return Found(problem, point, bound, own)

    def again(z: Vector) -> Found:
        """The optimum for the order of issue of the design z, or that design, if its own schedule is better."""
        x = np.asarray(problem.scale.x(z), float).tolist()
        at = with_parameters(design.system, design.models, dict(zip(design.paths, x)))
        here = best.problem.along(compile(compiled.graph, *at))
        (start,) = here.evaluate(z[None])
        point, bound = descent(here, z[None])
        return min(found(here, point, bound), found(here, start, bound), key=rank)

    open_order = options.schedule == "own" and not compiled.forced
    starts = _starts(problem, options)
    if options.check_gradients:
        for point in problem.evaluate(starts):
            check_gradient(problem, point)
    best = found(problem, *branch(problem, starts, options.integers, descent))
    for _ in range(RESCHEDULES if open_order else 0):
        if abs(best.own - best.point.makespan) <= SAME * best.own:
            break
        later = again(best.point.z)
        if rank(later) >= rank(best):
            break
        best = later
    if open_order:
        best = search(best, again, rank, seed=options.seed)
    _check_feasible(best)
    return best


def rank(found: Found) -> tuple[float, float]:
    """Feasible first, then lower: of the design with its own schedule."""
    y = np.append(found.point.z, math.log(found.own))
    return max(found.problem.excess(y), FEASIBLE), found.problem.objective(y)[0]


def _check_feasible(best: Found) -> None:
    """Raise InputError where the best design still exceeds a limit."""
    y = np.append(best.point.z, math.log(best.own))
    if best.problem.excess(y) <= FEASIBLE:
        return
    residuals = best.problem.limits(y)[0]
    equal = [limit.equal for limit in best.problem.goal.limits]
    worst = int(np.argmax(np.where(equal, np.abs(residuals), residuals)))
    limit = best.problem.goal.limits[worst]
    x = best.problem.scale.x(best.point.z)
    raise NothingFeasible(
        f"constraints: no design within the bounds was found that meets {limit.name}; the nearest has "
        f"{float(limit.left(x, best.own)):g} against {float(limit.right(x, best.own)):g}, at "
        f"{best.problem.named(best.point.z)}. Widen the bounds or relax the limit"
    )


def _optimum(best: Found, chosen: dict[str, Any], bounds: Bounds, history: History) -> Optimum:
    problem, point = best.problem, best.point
    design, scale = problem.design, problem.scale
    found = np.clip(np.asarray(scale.x(point.z), float), scale.lower, scale.upper)  # of rounding
    values = dict(zip(design.paths, found.tolist()))
    values.update((path, float(chosen[path])) for path in design.paths if path not in bounds)
    system, models = with_parameters(design.system, design.models, values)
    value = problem.objective(np.append(point.z, math.log(best.own)))[0]
    return Optimum(
        parameters={path: values[path] for path in bounds},
        choices=dict(chosen),
        objective=problem.unscaled(value),
        makespan=point.makespan,
        own_makespan=best.own,
        bound=problem.unscaled(best.bound),
        system=system,
        models=models,
        multipliers=multipliers(problem, point, tuple(bounds)),
        path=history.table(),
        effort=problem.effort,
        bounds={path: (float(low), float(high)) for path, (low, high) in bounds.items()},
    )
