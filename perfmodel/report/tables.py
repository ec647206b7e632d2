"""A prediction as tables: timeline, breakdowns, critical path. Units are in the column names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from perfmodel.compiled import Compiled
from perfmodel.errors import InputError
from perfmodel.machine.placement import coordinates, span
from perfmodel.prediction import Prediction, prediction_of
from perfmodel.report.path_and_ranks import (
    category_of,
    path_breakdown_columns,
    path_columns,
    rank_columns,
)
from perfmodel.vocabulary import (
    CATEGORIES,
    COMMUNICATION,
    NodeType,
    describe,
)
from perfmodel.workload.graph import check_ranks

BREAKDOWNS = ("rank", "critical_path", "component", "type", "group", "collective")


def timeline(prediction: Prediction | Compiled, ranks: Sequence[int] | None = None) -> pd.DataFrame:
    """When every node runs.

    Args:
        prediction: from `predict`; or a compiled graph, at its own design.
        ranks: some ranks only (all by default).

    Returns:
        One row per node, indexed by node number: rank, node_id, name, type, resource, start_s, finish_s,
        duration_s, waiting_s (from its start, in a collective until its last member joins), slack_s, critical.

    Raises:
        InputError: no such rank, or too many rows for one table.
    """
    prediction = prediction_of(prediction)
    chosen = check_ranks(prediction.graph, ranks)
    nodes = prediction.graph.table(chosen)
    table = nodes[["rank", "node_id", "name", "type", "resource"]].copy()
    table["start_s"] = prediction.of_nodes(prediction.task_start, chosen)
    table["finish_s"] = prediction.of_nodes(prediction.task_finish, chosen)
    table["duration_s"] = table["finish_s"] - table["start_s"]
    table["waiting_s"] = prediction.of_nodes(prediction.task_waiting, chosen)
    table["slack_s"] = prediction.of_nodes(prediction.task_slack, chosen)
    table["critical"] = np.isin(nodes.index.to_numpy(), prediction.critical)
    return table


def critical_path(prediction: Prediction | Compiled) -> pd.DataFrame:
    """The chain of nodes that makes the step as long as it is.

    Returns:
        One row per node on the path, in time: rank, node_id, name, type, start_s, finish_s, on_path_s (what the
        node adds to the path: for a collective from the arrival of the last member on), waiting_s (before it, where
        nothing on the path ran), share (of the makespan).
    """
    return pd.DataFrame(path_columns(prediction_of(prediction)))


def breakdown(
    prediction: Prediction | Compiled,
    by: str = "rank",
    *,
    depth: int = 1,
    numbers: bool = True,
) -> pd.DataFrame:
    """Where the time goes.

    Args:
        prediction: from `predict`; or a compiled graph, at its own design.
        by: "rank": compute_s + exposed_memory_s + exposed_communication_s + waiting_s + host_s + idle_s = makespan_s
            for every rank, beside the totals with overlap (waiting: in a collective for its last member; host: only
            the CPU's threads work); "critical_path": compute_s + memory_s + communication_s + waiting_s + host_s =
            makespan_s; "collective": who joined last, and what that cost the others, waiting_s summed over them;
            "component": the hierarchy in node names, rolled up to `depth` parts; "type": node types; "group":
            collectives by the span of their group and messages, that is by parallel dimension.
        depth: how many parts of a dotted (or slashed) name make a component.
        numbers: False replaces numbers in names by "*", so that equal layers and micro-batches add up.

    Returns:
        One row per rank, path, component, type or group. Component, type and group tables hold busy seconds summed
        over the ranks (compute_s, memory_s, communication_s, waiting_s, host_s), number of nodes, and critical_path_s.

    Raises:
        InputError: unknown `by`.
    """
    prediction = prediction_of(prediction)
    if by == "rank":
        return pd.DataFrame(rank_columns(prediction))
    if by == "critical_path":
        return pd.DataFrame(path_breakdown_columns(prediction))
    if by == "collective":
        return _by_collective(prediction)
    if by in ("component", "type", "group"):
        return _by_label(prediction, by, depth, numbers)
    raise InputError(f"by: got {by!r}, expected one of {', '.join(BREAKDOWNS)}")


def _by_collective(prediction: Prediction) -> pd.DataFrame:
    """A row per collective whose members do not all join together; the costliest wait first."""
    c, graph = prediction.compiled, prediction.graph
    count = np.bincount(c.rank_class, minlength=len(c.representative))
    members: dict[int, list[tuple[int, int]]] = {}
    for k, rank in enumerate(c.representative):
        program = graph.programs[graph.program[rank]]
        base = int(c.offset[k])
        for position in np.flatnonzero(program.type == NodeType.COMM_COLL).tolist():
            vertex = int(c.events.last[base + position])
            members.setdefault(vertex, []).append((k, position))
    rows = []
    for joined in members.values():
        tasks = [int(c.offset[k]) + position for k, position in joined]
        wait = prediction.task_waiting[tasks]
        if len(joined) < 2 or not wait.max() > 0:
            continue
        last = int(np.argmin(wait))
        k, position = joined[last]
        rank = int(c.representative[k])
        program, labels = graph.programs[graph.program[rank]], graph.labels[graph.label[rank]]
        group = graph.groups[program.groups[graph.row[rank], program.slot[position]]]
        ranks = np.array([count[k] for k, _ in joined])
        finish = float(prediction.task_finish[tasks[last]])
        arrival = float(prediction.task_start[tasks[last]])
        rows.append(
            {
                "name": labels.names[position],
                "type": describe(program.type[position], program.comm_type[position]),
                "group": span_text(group, c.system),
                "collectives": round(float(ranks.sum()) / len(group)),
                "last_rank": rank,
                "last_arrival_s": arrival,
                "wire_s": finish - arrival,
                "waiting_s": float(ranks @ wait),
            }
        )
    columns = ["name", "type", "group", "collectives", "last_rank", "last_arrival_s", "wire_s"]
    table = pd.DataFrame(rows, columns=[*columns, "waiting_s"])
    return table.sort_values("waiting_s", ascending=False, kind="stable", ignore_index=True)


def _by_label(prediction: Prediction, by: str, depth: int, numbers: bool) -> pd.DataFrame:
    c, graph = prediction.compiled, prediction.graph
    count = np.bincount(c.rank_class, minlength=len(c.representative))
    parts = []
    on_path = critical_path(prediction)
    path_seconds = dict(
        on_path.groupby(["rank", "node_id"])["on_path_s"].sum() if len(on_path) else {}
    )
    for k, rank in enumerate(c.representative):
        table = graph.table([rank])
        tasks = c.tasks_of(rank)
        program = graph.programs[graph.program[rank]]
        category = category_of(program.type, program.cpu)
        waits = prediction.task_waiting[tasks] * count[k]
        last = (prediction.task_finish[tasks] - prediction.task_start[tasks]) * count[k] - waits
        part = pd.DataFrame({by: _labels(prediction, int(rank), table, by, depth, numbers)})
        part["nodes"] = count[k]
        receives = c.partner[tasks] >= 0
        for w, word in enumerate(CATEGORIES):
            part[f"{word}_s"] = np.where((category == w) & ~receives, last, 0.0)
        part["waiting_s"] = np.where(receives, 0.0, waits)
        part["critical_path_s"] = [path_seconds.get((rank, i), 0.0) for i in table["node_id"]]
        parts.append(part)
    result = pd.concat(parts).groupby(by, sort=False).sum().reset_index()
    result["share"] = (
        result["critical_path_s"] / prediction.makespan if prediction.makespan else 0.0
    )
    return result.sort_values("critical_path_s", ascending=False, kind="stable", ignore_index=True)


def _labels(
    prediction: Prediction, rank: int, table: pd.DataFrame, by: str, depth: int, numbers: bool
) -> list[str]:
    if by == "type":
        return list(table["type"])
    if by == "component":
        return [component(name, depth, numbers=numbers) for name in table["name"]]
    graph = prediction.graph
    program = graph.programs[graph.program[rank]]
    slots = [
        span_text(graph.groups[g], prediction.compiled.system)
        for g in program.groups[graph.row[rank]]
    ]
    kind = category_of(program.type, program.cpu)
    return [
        slots[s] if s >= 0 else ("messages" if k == COMMUNICATION else CATEGORIES[max(k, 0)])
        for s, k in zip(program.slot, kind)
    ]


def span_text(members: tuple[int, ...], system: Any) -> str:
    """A group for people: how many members along each network dimension, and how far apart.

    >>> import perfmodel as pm
    >>> span_text((0, 8), pm.hardware("dgx-h100", ranks=16))
    '2 ranks: dimension 1 x2'
    >>> span_text((0, 4, 8, 12), pm.hardware("dgx-h100", ranks=16))
    '4 ranks: dimension 0 x2 (4 apart), dimension 1 x2'
    """
    sizes = tuple(d.size for d in system.network)
    address = coordinates(members, sizes)
    places = [np.unique(address[:, k]) for k in range(len(sizes))]
    apart = [int(np.diff(p).min()) if len(p) > 1 else 1 for p in places]
    dims = ", ".join(
        f"dimension {k} x{n}" + (f" ({apart[k]} apart)" if apart[k] > 1 else "")
        for k, n in enumerate(span(members, sizes).members)
        if n > 1
    )
    return f"{len(members)} ranks" + (f": {dims}" if dims else "")


def component(name: str, depth: int, *, numbers: bool = True) -> str:
    """The first parts of a hierarchical name; parts end at dots, slashes and "@".

    >>> component("mb0.transformer.3.mha.q@0_COMP", 3)
    'mb0.transformer.3'
    >>> component("f0.l12.attn", 2, numbers=False)
    'f*.l*'
    """
    parts = [part for part in re.split(r"[./@]", name) if part]
    text = ".".join(parts[:depth])
    return text if numbers else re.sub(r"\d+", "*", text)
