"""Two predictions side by side, and which parts of the step make the difference."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from perfmodel.analysis.throughput import throughput
from perfmodel.compiled import Compiled
from perfmodel.errors import InputError
from perfmodel.prediction import Prediction, predict
from perfmodel.report.path_and_ranks import path_breakdown
from perfmodel.report.tables import breakdown

Case = Prediction | Compiled | tuple[Any, ...]

SECTIONS = ("category", "type", "component", "group", "throughput")


def compare(
    a: Case,
    b: Case,
    *,
    by: Sequence[str] = ("category", "type", "component"),
    depth: int = 1,
) -> pd.DataFrame:
    """Where the difference between two predictions comes from.

    Args:
        a, b: a prediction, a compiled graph, or (graph, system) or (graph, system, models), of which one is made: two
            systems, two traces, or two sets of models.
        by: how the critical path is split: "category" (compute, memory, communication, waiting), "type" of node,
            "component" (of node names), "group" (span of the communicator). "throughput" is none of its parts: it
            adds rows of what graphs that know their model say (`throughput`), in the unit that the item names.
        depth: how many parts of a name make a component.

    Returns:
        The row "makespan", then for each section of `by` a row per item that either critical path holds, the
        largest difference first: section, item, a_s, b_s, difference_s (b - a), ratio (b / a), share (of the
        makespans' difference; nan where there is none). The rows of each section add up to the first row.

    Raises:
        InputError: neither a prediction nor a pair, or an unknown section.
    """
    wrong = [s for s in by if s not in SECTIONS]
    if wrong:
        raise InputError(f"by: got {wrong[0]!r}, expected some of {', '.join(SECTIONS)}")
    left, right = _prediction(a, "a"), _prediction(b, "b")
    rows = [("makespan", "makespan", left.makespan, right.makespan)]
    for section in by:
        if section == "throughput":
            continue
        one, other = _seconds(left, section, depth), _seconds(right, section, depth)
        items = dict.fromkeys([*one, *other])
        found = [(section, item, one.get(item, 0.0), other.get(item, 0.0)) for item in items]
        rows += sorted(found, key=lambda row: -abs(row[3] - row[2]))
    table = pd.DataFrame(rows, columns=["section", "item", "a_s", "b_s"])
    table["difference_s"] = table["b_s"] - table["a_s"]
    table["ratio"] = _ratio(table["b_s"], table["a_s"])
    table["share"] = _ratio(table["difference_s"], right.makespan - left.makespan)
    return table if "throughput" not in by else _with_throughput(table, left, right)


def _with_throughput(table: pd.DataFrame, left: Prediction, right: Prediction) -> pd.DataFrame:
    """Also rows of utilization, throughput and memory, which are no share of the makespan's difference."""
    one, other = throughput(left).iloc[0], throughput(right).iloc[0]
    items = [name for name in one.index if name != "step_time_s" and name in other.index]
    more = pd.DataFrame({"section": "throughput", "item": items})
    more["a_s"] = [float(one[name]) for name in items]
    more["b_s"] = [float(other[name]) for name in items]
    more["difference_s"] = more["b_s"] - more["a_s"]
    more["ratio"] = _ratio(more["b_s"], more["a_s"])
    more["share"] = np.nan
    return pd.concat([table, more], ignore_index=True)


def _prediction(case: Case, name: str) -> Prediction:
    if isinstance(case, Prediction):
        return case
    if isinstance(case, Compiled):
        return predict(case)
    if isinstance(case, tuple) and len(case) in (2, 3):
        return predict(*case)
    raise InputError(
        f"compare: {name} is {type(case).__name__}, expected a prediction, a compiled graph, (graph, system) or "
        "(graph, system, models)"
    )


def _seconds(prediction: Prediction, section: str, depth: int) -> dict[str, float]:
    """Seconds of the critical path by item; they add up to the makespan."""
    if section == "category":
        seconds = path_breakdown(prediction)
        return {word: value for word, value in seconds.items() if value or word != "host"}
    table = breakdown(prediction, section, depth=depth, numbers=False)
    on_path = table[table["critical_path_s"] > 0]
    seconds = dict(zip(on_path[section], on_path["critical_path_s"]))
    rest = prediction.makespan - sum(seconds.values())
    if abs(rest) > 1e-9 * prediction.makespan:
        seconds["waiting"] = seconds.get("waiting", 0.0) + rest
    return seconds


def _ratio(a: Any, b: Any) -> Any:
    """a / b; nan where both are 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(a, b)
