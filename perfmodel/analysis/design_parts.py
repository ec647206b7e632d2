"""A table of designs in parts: what is a choice of labels in it, and the figures of one part.

Points that differ in a label (an algorithm, the system, the trace) are compiled once per choice; a part holds points
of one choice only, and is one unit of work wherever it is evaluated.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any

import numpy as np
import pandas as pd

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
    table: pd.DataFrame,
    options: EvaluationOptions,
) -> None:
    """Everything that can be wrong with a sweep, before any work starts."""
    if options.schedule not in SCHEDULES:
        raise InputError(f"schedule: got {options.schedule!r}, expected one of {SCHEDULES}")
    if options.batch_size is not None and not (
        isinstance(options.batch_size, Real) and options.batch_size > 0
    ):
        raise InputError(f"batch_size: got {options.batch_size}, expected a positive number")
    if options.dtype not in ("float64", "float32"):
        raise InputError(f"dtype: got {options.dtype}, expected float64 or float32")
    if options.economics is not None:
        models_for(system, options.economics)
    for names, part in _by_choice(table, models_of(system, models)):
        here, with_choice = apply_choices(system, models, names)
        here = here.resized(graphs[str(names.get("trace", ""))].ranks)
        units = parameter_units(here, with_choice)
        varied = [column for column in part.columns if column not in names]
        for column, kind in zip(varied, part.dtypes[varied]):
            check_path(column, units)
            if not pd.api.types.is_numeric_dtype(kind):
                raise InputError(
                    f"points: {column} holds {part[column].iloc[0]!r}, expected numbers"
                )
        rates = [column for column in varied if units[column].endswith("/s")]
        for row, k in np.argwhere(part[rates].to_numpy(float) == 0):
            raise InputError(
                f"points: {rates[k]} is 0 in row {part.index[row]}; a rate must be positive"
            )


def in_si_units(
    graphs: Mapping[str, Graph], system: System, models: Any, table: pd.DataFrame
) -> pd.DataFrame:
    """The table with texts that name a number and its unit in SI."""
    chosen = models_of(system, models)
    texts = [
        column for column, kind in table.dtypes.items() if not pd.api.types.is_numeric_dtype(kind)
    ]
    if texts:
        chosen_by_name = choices(table, chosen)
        texts = [column for column in texts if column not in chosen_by_name]
    if not texts:
        return table
    found: dict[str, list[pd.Series]] = {column: [] for column in texts}
    for names, part in _by_choice(table, chosen):
        here, with_choice = apply_choices(system, models, names)
        here = here.resized(graphs[str(names.get("trace", ""))].ranks)
        known = parameter_units(here, with_choice)
        for column in texts:
            check_path(column, known)
            values = [_in_si(value, known[column], column) for value in part[column]]
            found[column].append(pd.Series(values, part.index))
    return table.assign(**{column: pd.concat(parts) for column, parts in found.items()})


def _in_si(value: Any, unit: str, column: str) -> float:
    try:
        return in_si(value, unit, column)
    except InputError as error:
        raise InputError(
            f"points: {column} holds {value!r:.60}, expected numbers; {error}"
        ) from None


def choices(table: pd.DataFrame, models: Any) -> list[str]:
    """Columns that are choices rather than numbers."""
    static = set(static_paths(models))
    return [c for c in table.columns if c in ("system", "trace") or c in static]


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


def _by_choice(table: pd.DataFrame, models: Any) -> Iterator[tuple[dict[str, Any], pd.DataFrame]]:
    names = choices(table, models)
    if not names:
        yield {}, table
        return
    for key, rows in table.groupby(names, sort=False, dropna=False):
        yield dict(zip(names, key)), rows


def split(table: pd.DataFrame, models: Any, part: int) -> Iterator[pd.DataFrame]:
    """Parts of a table, each with one choice only; rows keep their index."""
    for _, rows in _by_choice(table, models):
        for at in range(0, len(rows), part):
            yield rows.iloc[at : at + part]


def evaluate_part(
    compiled: dict[tuple[Any, ...], Evaluator], work: SweepWork, rows: pd.DataFrame
) -> pd.DataFrame:
    """One part; `compiled` keeps the evaluators of earlier parts."""
    names = choices(rows, models_of(work.system, work.models))
    chosen = {n: rows[n].iloc[0] for n in names}
    key = tuple(chosen.items())
    if key not in compiled:
        system, models = apply_choices(work.system, work.models, chosen)
        graph = work.graphs[str(chosen.get("trace", ""))]
        compiled[key] = Evaluator.of(recall(graph, system, models))
    columns = [c for c in rows.columns if c not in names]
    values = rows[columns].to_numpy(float).T.reshape(len(columns), len(rows))
    figures: dict[str, Any] = compiled[key].figures(tuple(columns), values, work.options)
    for name, texts in compiled[key].labels.items():
        if name in figures:
            figures[name] = pd.Index(texts).take(figures[name].astype(np.intp))
    return pd.concat(
        [rows, pd.DataFrame(figures, rows.index)], axis=1
    )  # assigned one by one takes longer
