"""What an optimisation was asked for, and everything that can be wrong with it, before any work starts."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd

from perfmodel.economics import Economics, totals
from perfmodel.errors import InputError
from perfmodel.goal import Constraints, Design, Goal, Objective, goal
from perfmodel.graph import Graph
from perfmodel.hardware import System
from perfmodel.parameters import check_path, parameters, with_parameters
from perfmodel.problem import Scale
from perfmodel.sweep import SCHEDULES, apply_choices
from perfmodel.sweep import choices as labels_among

METHODS = ("SLSQP", "trust-constr", "L-BFGS-B")

MOST_COMBINATIONS = 4096
"""Catalogue choices are all tried; more combinations than this are refused."""


class NothingFeasible(InputError):
    """No design within the bounds meets the constraints."""


Bounds = Mapping[str, tuple[float, float]]


@dataclass(frozen=True)
class Options:
    """How an optimum is looked for."""

    objective: Objective
    constraints: Constraints | None
    economics: Economics
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


def combinations(choices: Mapping[str, Sequence[Any]] | None) -> Iterator[dict[str, Any]]:
    """Every combination of the choices."""
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
    for combination in itertools.product(*lists.values()):
        yield dict(zip(lists, combination))


def labels(combination: Mapping[str, Any], models: Any) -> list[str]:
    """Those choices that are no numbers: the system, labels of models."""
    return labels_among(pd.DataFrame(columns=list(combination)), models)


def prepare(
    graph: Graph,
    system: System,
    models: Any,
    bounds: Bounds,
    options: Options,
    combination: Mapping[str, Any],
) -> tuple[Design, Goal]:
    """Everything that can be wrong, before any work starts."""
    names = labels(combination, models)
    system, models = apply_choices(system, models, {k: combination[k] for k in names})
    system = system.resized(graph.ranks)
    known = parameters(system, models)
    numbers = {k: v for k, v in combination.items() if k not in names}
    for path, value in numbers.items():
        check_path(path, known)
        if not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
            raise InputError(f"choices: {path} is {value!r}, expected a finite number >= 0")
        if path in bounds:
            raise InputError(f"choices: {path} has bounds, too; give one of the two")
    _check(bounds, options, known)
    system, models = with_parameters(system, models, numbers)
    design = Design(tuple(bounds), system, models, options.economics, totals(graph, system))
    scale = scale_of(bounds, options)
    centre = jnp.asarray(scale.centre())
    wanted = goal(design, options.objective, options.constraints, centre)
    if options.method == "L-BFGS-B" and wanted.limits:
        raise InputError('method "L-BFGS-B" takes no constraints; use "SLSQP" or "trust-constr"')
    return design, wanted


def _check(bounds: Bounds, options: Options, known: Mapping[str, Any]) -> None:
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


def scale_of(bounds: Bounds, options: Options) -> Scale:
    ends = np.array([[float(a), float(b)] for a, b in bounds.values()])
    return Scale(ends[:, 0], ends[:, 1], options.log)
