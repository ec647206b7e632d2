"""How often operators and kernels run and how long they take, and how two traces differ in them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.prediction import Prediction
from perfmodel.report.tables import component
from perfmodel.workload.graph import Graph, check_ranks

KEYS = ("name", "operator", "type", "kind")
_SIGNATURE = "(<"


def statistics(
    what: Graph | Prediction,
    by: str = "operator",
    *,
    where: str = "all",
    ranks: Sequence[int] | None = None,
    depth: int = 99,
) -> pd.DataFrame:
    """Calls, time and work by operator, kernel name, type or kind of operation.

    Args:
        what: a graph, whose recorded durations count, or a prediction, whose times do.
        by: "operator": names without numbers and signatures, so that layers and micro-batches count together; "name":
            as they stand; "type": COMP, ALL_REDUCE, ...; "kind": gemm, attention, ...
        where: "host" (CPU operators), "device" (kernels, communication), or "all".
        ranks: some ranks only.
        depth: how many parts of a dotted or slashed name count ("operator" only).

    Returns:
        A row each, the longest first: the key, calls, total_s, mean_s, min_s, max_s, share (of the time of all), flops,
        bytes_B, flops_per_s. Times are nan where no call has one; a collective's time in a prediction holds its wait.

    Raises:
        InputError: an unknown `by` or `where`, or no such rank.
    """
    table = _calls(what, by, where, ranks, depth)
    grouped = table.groupby(by, sort=False)
    total = grouped["time"].sum(min_count=1)
    result = pd.DataFrame(
        {
            "calls": grouped.size(),
            "total_s": total,
            "mean_s": grouped["time"].mean(),
            "min_s": grouped["time"].min(),
            "max_s": grouped["time"].max(),
            "share": total / total.sum() if total.sum() else np.nan,
            "flops": grouped["flops"].sum(),
            "bytes_B": grouped["bytes_B"].sum(),
        }
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        result["flops_per_s"] = np.where(
            result["flops"] > 0, result["flops"] / result["total_s"], np.nan
        )
    return result.sort_values("total_s", ascending=False, kind="stable").reset_index()


def difference(
    a: Graph | Prediction,
    b: Graph | Prediction,
    by: str = "operator",
    *,
    where: str = "all",
    depth: int = 99,
) -> pd.DataFrame:
    """Where two traces, or a measurement and a prediction, differ: time and calls by operator.

    Args:
        a, b: graphs (their recorded durations) or predictions; a graph beside its own prediction is measured against
            predicted.
        by, where, depth: as for `statistics`.

    Returns:
        A row for each that either has, the largest difference first: the key, calls_a, calls_b, a_s, b_s, difference_s
        (b - a), ratio (b / a), share (of the difference of the sums).
    """
    one, other = (statistics(x, by, where=where, depth=depth).set_index(by) for x in (a, b))
    table = pd.DataFrame(
        {
            "calls_a": one["calls"],
            "calls_b": other["calls"],
            "a_s": one["total_s"],
            "b_s": other["total_s"],
        }
    )
    table[["calls_a", "calls_b"]] = table[["calls_a", "calls_b"]].fillna(0).astype(np.int64)
    for side in (
        "a",
        "b",
    ):  # what is not there takes no time; what is there without a time stays unknown
        table.loc[table[f"calls_{side}"] == 0, f"{side}_s"] = 0.0
    table["difference_s"] = table["b_s"] - table["a_s"]
    with np.errstate(divide="ignore", invalid="ignore"):
        table["ratio"] = table["b_s"] / table["a_s"]
        table["share"] = table["difference_s"] / table["difference_s"].sum()
    order = (
        table["difference_s"]
        .abs()
        .sort_values(ascending=False, kind="stable", na_position="last")
        .index
    )
    table.index.name = by
    return table.loc[order].reset_index()


def operator(name: str, depth: int = 99) -> str:
    """A name without what tells its calls apart: numbers, template arguments and parameters.

    >>> operator("fwd.layer3.attention.qkv"), operator("void gemm<float, 4>(float*, int)")
    ('fwd.layer*.attention.qkv', 'void gemm')
    """
    short = name
    for mark in _SIGNATURE:
        at = short.find(mark)
        if at > 0:
            short = short[:at]
    return component(short.strip() or name, depth, numbers=False)


def _calls(what: Any, by: str, where: str, ranks: Any, depth: int) -> pd.DataFrame:
    if by not in KEYS:
        raise InputError(f"by: got {by!r}, expected one of {', '.join(KEYS)}")
    if where not in ("all", "host", "device"):
        raise InputError(f"where: got {where!r}, expected all, host or device")
    predicted = isinstance(what, Prediction)
    graph = what.graph if predicted else what
    chosen = check_ranks(graph, ranks)
    table = graph.table(chosen)
    table["time"] = (
        what.of_nodes(what.task_finish - what.task_start, chosen)
        if predicted
        else table["duration_s"]
    )
    table = table[~table["type"].isin(["METADATA", "INVALID"])]
    if where != "all":
        table = table[table["cpu"] == (where == "host")]
    for column in ("flops", "bytes_B"):
        table[column] = table[column].clip(lower=0).astype(float)
    if by == "operator":
        names = {name: operator(name, depth) for name in table["name"].unique()}
        table["operator"] = table["name"].map(names)
    elif by == "kind" and "kind" not in table:
        raise InputError(f"{graph.source}: its nodes have no kind of operation")
    return table
