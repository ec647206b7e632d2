"""Designs in parts: what is a choice of labels among their columns, and the figures of one part.

Points that differ in a label (an algorithm, the system, the trace) are compiled once per choice; a part holds points
of one choice only, and is one unit of work wherever it is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.analysis.designs import Designs, is_numeric
from perfmodel.analysis.evaluation import SCHEDULES, EvaluationOptions, Evaluator
from perfmodel.compiled import recall
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import models_of
from perfmodel.models.cost_power_area import models_for
from perfmodel.models.fitted import hardware
from perfmodel.parameter_paths import check_path, in_si, parameter_units
from perfmodel.pytree import children
from perfmodel.workload.graph import Graph


@dataclass(frozen=True)
class SweepWork:
    """What every part of a sweep is evaluated with: the workloads by name, the reference design, the options."""

    graphs: Mapping[str, Graph]
    system: System
    models: Any
    options: EvaluationOptions


def check(
    graphs: Mapping[str, Graph],
    system: System,
    models: Any,
    designs: Designs,
    options: EvaluationOptions,
) -> None:
    """Everything that can be wrong with a sweep, before any work starts."""
    if options.schedule not in SCHEDULES:
        raise InputError(f"schedule: got {options.schedule!r}, expected one of {SCHEDULES}")
    if options.batch_size is not None and not (
        isinstance(options.batch_size, Real) and 0 < options.batch_size < np.inf
    ):
        raise InputError(f"batch_size: got {options.batch_size}, expected a positive number")
    if options.dtype not in ("float64", "float32"):
        raise InputError(f"dtype: got {options.dtype}, expected float64 or float32")
    if options.economics is not None:
        models_for(system, options.economics)
    for names, part in _by_choice(designs, models_of(system, models)):
        units = _units(graphs, system, models, names)
        varied = {name: part.columns[name] for name in part.columns if name not in names}
        for name, values in varied.items():
            check_path(name, units)
            if not is_numeric(values):
                raise InputError(f"points: {name} holds {values[0]!r}, expected numbers")
        rates = [name for name in varied if units[name].endswith("/s")]
        for row, k in np.argwhere(part.numbers(rates).T == 0):
            raise InputError(
                f"points: {rates[k]} is 0 in row {part.rows[row]}; a rate must be positive"
            )


def in_si_units(
    graphs: Mapping[str, Graph], system: System, models: Any, designs: Designs
) -> Designs:
    """The designs of a whole table with texts that name a number and its unit in SI."""
    chosen = models_of(system, models)
    texts = [name for name, values in designs.columns.items() if not is_numeric(values)]
    if texts:
        chosen_by_name = choices(designs.columns, chosen)
        texts = [name for name in texts if name not in chosen_by_name]
    if not texts:
        return designs
    found = {name: np.empty(len(designs)) for name in texts}
    for names, part in _by_choice(designs, chosen):
        units = _units(graphs, system, models, names)
        for name in texts:
            check_path(name, units)
            here = [_in_si(value, units[name], name) for value in part.columns[name]]
            found[name][part.rows] = here
    return designs.with_columns(found)


def _units(
    graphs: Mapping[str, Graph], system: System, models: Any, names: Mapping[str, Any]
) -> Mapping[str, str]:
    """The units of all parameters, with some choices made."""
    here, with_choice = apply_choices(system, models, names)
    return parameter_units(here.resized(graphs[str(names.get("trace", ""))].ranks), with_choice)


def _in_si(value: Any, unit: str, column: str) -> float:
    try:
        return in_si(value, unit, column)
    except InputError as error:
        raise InputError(
            f"points: {column} holds {value!r:.60}, expected numbers; {error}"
        ) from None


def choices(names: Iterable[str], models: Any) -> list[str]:
    """The columns that are choices rather than numbers."""
    static = set(static_paths(models))
    return [name for name in names if name in ("system", "trace") or name in static]


def static_paths(node: Any, prefix: str = "") -> Iterator[str]:
    """Paths of the labels in a tree of models."""
    fields = getattr(type(node), "__dataclass_fields__", {})
    numbers = children(node)
    for name in fields:
        path = f"{prefix}{name}"
        if name in numbers:
            yield from static_paths(numbers[name], f"{path}.")
        else:
            yield path


def apply_choices(system: System, models: Any, values: Mapping[str, Any]) -> tuple[System, Any]:
    """System and models with some choices made; models of None are the chosen system's own."""
    if "system" in values:
        system = hardware(str(values["system"]), dtype=system.dtype or "bf16")
    models = models_of(system, models)
    for path, value in values.items():
        if path not in ("system", "trace"):
            models = _replace_label(models, path.split("."), value)
    return system, models


def _replace_label(node: Any, words: list[str], value: Any) -> Any:
    first, *rest = words
    return replace(
        node, **{first: _replace_label(getattr(node, first), rest, value) if rest else value}
    )


def _by_choice(designs: Designs, models: Any) -> Iterator[tuple[dict[str, Any], Designs]]:
    return designs.alike(choices(designs.columns, models))


def split(designs: Designs, models: Any, part: int) -> Iterator[Designs]:
    """Parts of the designs, each with one choice only."""
    for _, alike in _by_choice(designs, models):
        for at in range(0, len(alike), part):
            yield alike.some(slice(at, at + part))


def evaluate_part(
    compiled: dict[tuple[Any, ...], Evaluator], work: SweepWork, part: Designs
) -> dict[str, NDArray[Any]]:
    """[D] figures of one part by column; `compiled` keeps the evaluators of earlier parts."""
    names = choices(part.columns, models_of(work.system, work.models))
    chosen = {name: part.columns[name][0] for name in names}
    key = tuple(chosen.items())
    if key not in compiled:
        system, models = apply_choices(work.system, work.models, chosen)
        graph = work.graphs[str(chosen.get("trace", ""))]
        compiled[key] = Evaluator.of(recall(graph, system, models))
    varied = [name for name in part.columns if name not in names]
    figures = compiled[key].figures(tuple(varied), part.numbers(varied), work.options)
    for name, texts in compiled[key].labels.items():
        if name in figures:
            figures[name] = np.array(texts, object)[figures[name].astype(np.intp)]
    return figures
