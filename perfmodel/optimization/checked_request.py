"""What an optimisation was asked for, and everything that can be wrong with it, before any work starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from perfmodel.analysis.design_parts import apply_choices
from perfmodel.analysis.design_parts import choices as labels_among
from perfmodel.analysis.evaluation import SCHEDULES
from perfmodel.compiled import recall
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import models_meant, models_of
from perfmodel.models.cost_power_area import models_for
from perfmodel.optimization.epigraph import Effort, EpigraphProblem, Scale
from perfmodel.optimization.objective import Constraints, Goal, Objective, VariedDesign, goal
from perfmodel.parameter_paths import check_path, parameters
from perfmodel.report.memory import peak_memory
from perfmodel.schedule.total_work import totals
from perfmodel.workload.graph import Graph

METHODS = ("SLSQP", "trust-constr", "L-BFGS-B")

MOST_COMBINATIONS = 4096
"""Catalogue choices are all tried; more combinations than this are refused."""


Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class SearchOptions:
    """How an optimum is looked for."""

    objective: Objective
    constraints: Constraints | None
    economics: Any
    schedule: str
    method: str
    starts: int
    log: bool
    seed: int
    tolerance: float
    rounds: int
    integers: tuple[str, ...]
    check_gradients: bool
    threads: int


@dataclass(frozen=True, eq=False)
class Prepared:
    """One choice of labels, ready to be compiled: the labels, the design, what is wanted, the variables' scale."""

    labels: dict[str, Any]
    design: VariedDesign
    goal: Goal
    scale: Scale


def problems(
    graph: Graph,
    system: System,
    models: Any,
    bounds: Bounds,
    options: SearchOptions,
    choices: Mapping[str, Sequence[Any]] | None,
) -> Iterator[tuple[dict[str, Any], EpigraphProblem]]:
    """Every combination of the choices, and the problem that it poses.

    Everything that can be wrong is found before the first. Choices of labels are compiled once each; numbers to choose
    from are variables that are held.
    """
    models = models_meant(system, models, (*bounds, *(choices or {})))
    labels, numbers = _split(choices, models_of(system, models))
    _check(options)
    ready = [
        _prepare(graph, system, models, bounds, options, chosen, numbers)
        for chosen in _combinations(labels)
    ]
    effort = Effort()
    for one in ready:
        compiled = recall(graph, one.design.system, one.design.models)
        problem = EpigraphProblem(
            compiled, one.design, one.goal, one.scale, effort, options.threads
        )
        for held in _combinations(numbers):
            yield {**one.labels, **held}, problem.holding(held)


def _split(
    choices: Mapping[str, Sequence[Any]] | None, models: Any
) -> tuple[dict[str, tuple[Any, ...]], dict[str, tuple[Any, ...]]]:
    """Choices of labels (the system, algorithms), and of numbers."""
    lists = {
        path: (values,) if isinstance(values, str) or not np.iterable(values) else tuple(values)
        for path, values in (choices or {}).items()
    }
    for path, values in lists.items():
        if not values:
            raise InputError(f"choices: {path} has no values to choose from")
    count = math.prod(map(len, lists.values()))
    if count > MOST_COMBINATIONS:
        raise InputError(
            f"choices: {count:,} combinations, at most {MOST_COMBINATIONS:,} are tried; leave some out, or give "
            "bounds instead"
        )
    if "trace" in lists:
        raise InputError(
            "choices: the trace is given, not chosen; optimise for one workload at a time"
        )
    among = labels_among(lists, models)
    return (
        {path: values for path, values in lists.items() if path in among},
        {path: values for path, values in lists.items() if path not in among},
    )


def _combinations(lists: Mapping[str, tuple[Any, ...]]) -> Iterator[dict[str, Any]]:
    for values in itertools.product(*lists.values()):
        yield dict(zip(lists, values))


def _prepare(
    graph: Graph,
    system: System,
    models: Any,
    bounds: Bounds,
    options: SearchOptions,
    labels: dict[str, Any],
    numbers: Mapping[str, tuple[Any, ...]],
) -> Prepared:
    system, models = apply_choices(system, models, labels)
    system = system.resized(graph.ranks)
    known = parameters(system, models)
    _check_bounds(bounds, options, known)
    for path, values in numbers.items():
        check_path(path, known)
        if path in bounds:
            raise InputError(f"choices: {path} has bounds, too; give one of the two")
        for value in values:
            if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
                raise InputError(f"choices: {path} is {value!r}, expected a finite number >= 0")
        if options.log and min(values) == 0:
            raise InputError(
                f"choices: {path} is 0; expected > 0 on a logarithmic scale, or log=False"
            )
    variables = {**bounds, **{path: (min(values), max(values)) for path, values in numbers.items()}}
    ends = np.array([[float(a), float(b)] for a, b in variables.values()])
    scale = Scale(ends[:, 0], ends[:, 1], options.log)
    economics = models_for(system, options.economics)
    held = _held(graph, system, models)
    work = totals(graph, system)
    design = VariedDesign(tuple(variables), system, models, economics, work, held)
    wanted = goal(design, options.objective, options.constraints, jnp.asarray(scale.centre()))
    if options.method == "L-BFGS-B" and wanted.limits:
        raise InputError('method "L-BFGS-B" takes no constraints; use "SLSQP" or "trust-constr"')
    return Prepared(labels, design, wanted, scale)


def _held(graph: Graph, system: System, models: Any) -> float | None:
    """Bytes of the rank that holds most, where that is known [B]; of tensors as the nodes run on this system."""
    if graph.step is None and graph.tensors is not None:
        return peak_memory(recall(graph, system, models))
    return graph.step.peak if graph.step is not None else None


def _check(options: SearchOptions) -> None:
    if options.schedule not in SCHEDULES:
        raise InputError(f"schedule: got {options.schedule!r}, expected one of {SCHEDULES}")
    if options.method not in METHODS:
        raise InputError(f"method: got {options.method!r}, expected one of {', '.join(METHODS)}")
    if options.starts < 1 or options.rounds < 1 or options.threads < 1:
        raise InputError(
            f"starts, rounds, threads: got {options.starts}, {options.rounds}, {options.threads}, expected 1 or more"
        )
    if not 0 < options.tolerance < 1:
        raise InputError(f"tolerance: got {options.tolerance}, expected a fraction such as 1e-9")


def _check_bounds(bounds: Bounds, options: SearchOptions, known: Mapping[str, Any]) -> None:
    if not bounds:
        raise InputError("bounds: are empty; name at least one parameter and its (lowest, highest)")
    for path, pair in bounds.items():
        check_path(path, known)
        if np.ndim(known[path]):
            raise InputError(f"bounds: {path} holds {np.size(known[path])} numbers, expected one")
        try:
            low, high = (float(end) for end in pair)
        except (TypeError, ValueError):
            raise InputError(f"bounds: {path} has {pair!r}, expected (lowest, highest)") from None
        if not (math.isfinite(low) and math.isfinite(high)) or low > high:
            raise InputError(
                f"bounds: {path} has ({low:g}, {high:g}); expected two finite numbers, lowest <= highest"
            )
        if low < 0 or (low == 0 and options.log):
            raise InputError(
                f"bounds: {path} begins at {low:g}; expected > 0 on a logarithmic scale, or log=False"
            )
    for path in options.integers:
        if path not in bounds:
            raise InputError(f"integers: {path!r} is not among the bounds: {', '.join(bounds)}")
        if math.ceil(bounds[path][0]) > math.floor(bounds[path][1]):
            raise InputError(f"integers: no whole number within the bounds of {path}")
