"""A prediction as tables: timeline, breakdowns, critical path. Units are in the column names."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.compiled import Compiled
from perfmodel.errors import InputError
from perfmodel.machine.placement import coordinates, span
from perfmodel.prediction import Prediction, prediction_of
from perfmodel.vocabulary import CATEGORIES, COMMUNICATION, COMPUTE, MEMORY, NodeType, describe
from perfmodel.workload.graph import check_ranks

BREAKDOWNS = ("rank", "critical_path", "component", "type", "group")


def timeline(prediction: Prediction | Compiled, ranks: Sequence[int] | None = None) -> pd.DataFrame:
    """When every node runs.

    Args:
        prediction: from `predict`; or a compiled graph, at its own design.
        ranks: some ranks only (all by default).

    Returns:
        One row per node, indexed by node number: rank, node_id, name, type, resource, start_s, finish_s,
        duration_s, slack_s, critical.

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
    prediction = prediction_of(prediction)
    p, c = prediction, prediction.compiled
    rows: list[dict] = []
    clock = 0.0
    for task, vertex in p.critical_tasks:
        start, finish = p.vertex_start[vertex], p.vertex_finish[vertex]
        k = int(np.searchsorted(c.offset, task, side="right")) - 1
        rank, position = int(c.representative[k]), int(task - c.offset[k])
        key = (rank, position)
        if rows and rows[-1]["key"] == key:
            rows[-1]["finish_s"] = finish
            rows[-1]["on_path_s"] += finish - start
        else:
            program, labels = (
                p.graph.programs[p.graph.program[rank]],
                p.graph.labels[p.graph.label[rank]],
            )
            rows.append(
                {
                    "key": key,
                    "rank": rank,
                    "node_id": int(labels.node_id[position]),
                    "name": labels.names[position],
                    "type": describe(program.type[position], program.comm_type[position]),
                    "start_s": start,
                    "finish_s": finish,
                    "on_path_s": finish - start,
                    "waiting_s": max(start - clock, 0.0),
                }
            )
        clock = finish
    columns = ["rank", "node_id", "name", "type", "start_s", "finish_s", "on_path_s", "waiting_s"]
    table = pd.DataFrame(rows, columns=["key", *columns])[columns]
    table["share"] = table["on_path_s"] / p.makespan if p.makespan else 0.0
    return table


def path_breakdown(prediction: Prediction) -> dict[str, float]:
    """Seconds of the critical path by category, a new dictionary; they add up to the makespan."""
    return dict(prediction.seconds_by_category)


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
        by: "rank": compute_s + exposed_memory_s + exposed_communication_s + idle_s = makespan_s for every rank,
            beside the totals with overlap; "critical_path": compute_s + memory_s + communication_s + waiting_s =
            makespan_s; "component": the hierarchy in node names, rolled up to `depth` parts; "type": node types;
            "group": collectives by the span of their group and messages, that is by parallel dimension.
        depth: how many parts of a dotted (or slashed) name make a component.
        numbers: False replaces numbers in names by "*", so that equal layers and micro-batches add up.

    Returns:
        One row per rank, path, component, type or group. Component, type and group tables hold busy seconds summed
        over the ranks (compute_s, memory_s, communication_s), number of nodes, and critical_path_s.

    Raises:
        InputError: unknown `by`.
    """
    prediction = prediction_of(prediction)
    if by == "rank":
        return _by_rank(prediction)
    if by == "critical_path":
        seconds = {f"{k}_s": v for k, v in path_breakdown(prediction).items()}
        return pd.DataFrame([{**seconds, "makespan_s": prediction.makespan}])
    if by in ("component", "type", "group"):
        return _by_label(prediction, by, depth, numbers)
    raise InputError(f"by: got {by!r}, expected one of {', '.join(BREAKDOWNS)}")


def _by_rank(prediction: Prediction) -> pd.DataFrame:
    c = prediction.compiled
    rows = []
    for k, rank in enumerate(c.representative):
        tasks = c.tasks_of(rank)
        start, finish, category = busy_intervals(prediction, k)
        compute, memory, communication = exposed(start, finish, category)
        lasts = [float((finish - start)[category == w].sum()) for w in range(3)]
        used = compute + memory + communication
        rows.append(
            {
                "compute_s": compute,
                "exposed_memory_s": memory,
                "exposed_communication_s": communication,
                "idle_s": max(prediction.makespan - used, 0.0),
                "makespan_s": prediction.makespan,
                "finish_s": float(prediction.task_finish[tasks].max(initial=0.0)),
                "total_compute_s": lasts[COMPUTE],
                "total_memory_s": lasts[MEMORY],
                "total_communication_s": lasts[COMMUNICATION],
            }
        )
    table = pd.DataFrame(rows).iloc[c.rank_class].reset_index(drop=True)
    table.insert(0, "rank", np.arange(len(table)))
    return table


def busy_intervals(prediction: Prediction, k: int) -> tuple[NDArray, NDArray, NDArray]:
    """Start, finish and category of everything that takes time on the ranks of class k.

    A receive counts from the start of the send that feeds it (or from its own, if later).
    """
    c = prediction.compiled
    rank = c.representative[k]
    program = prediction.graph.programs[prediction.graph.program[rank]]
    tasks = c.tasks_of(rank)
    start, finish = prediction.task_start[tasks].copy(), prediction.task_finish[tasks]
    category = category_of(program.type)
    feeding = c.partner[tasks]
    receives = feeding >= 0
    start[receives] = np.maximum(start[receives], prediction.task_start[feeding[receives]])
    start = np.minimum(start, finish)
    timed = category >= 0
    return start[timed], finish[timed], category[timed]


def category_of(node_type: NDArray) -> NDArray[np.int8]:
    """[n] category of each node type, -1 for nodes that take no time."""
    category = np.full(len(node_type), -1, np.int8)
    category[node_type == NodeType.COMP] = COMPUTE
    category[np.isin(node_type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))] = MEMORY
    communicates = (NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL)
    category[np.isin(node_type, communicates)] = COMMUNICATION
    return category


def exposed(start: NDArray, finish: NDArray, category: NDArray) -> tuple[float, float, float]:
    """Seconds with compute; with memory but no compute; with communication but neither.

    >>> exposed(np.array([0.0, 1.0]), np.array([2.0, 5.0]), np.array([COMPUTE, COMMUNICATION]))
    (2.0, 0.0, 3.0)
    """
    if not len(start):
        return 0.0, 0.0, 0.0
    moment = np.concatenate([start, finish])
    change = np.zeros((len(moment), 3), np.int64)
    index = np.concatenate([category, category])
    change[np.arange(len(moment)), index] = np.repeat([1, -1], len(start))
    order = np.argsort(moment, kind="stable")
    active = np.cumsum(change[order], axis=0)[:-1] > 0
    length = np.diff(moment[order])
    compute, memory, communication = active.T
    return (
        float(length[compute].sum()),
        float(length[memory & ~compute].sum()),
        float(length[communication & ~memory & ~compute].sum()),
    )


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
        category = category_of(graph.programs[graph.program[rank]].type)
        start, finish = prediction.task_start[tasks], prediction.task_finish[tasks]
        last = (finish - start) * count[k]
        part = pd.DataFrame({by: _labels(prediction, int(rank), table, by, depth, numbers)})
        part["nodes"] = count[k]
        receives = c.partner[tasks] >= 0
        for w, word in enumerate(CATEGORIES[:3]):
            part[f"{word}_s"] = np.where((category == w) & ~receives, last, 0.0)
        part["critical_path_s"] = [path_seconds.get((rank, i), 0.0) for i in table["node_id"]]
        parts.append(part)
    result = pd.concat(parts).groupby(by, sort=False).sum().reset_index()
    result["share"] = (
        result["critical_path_s"] / prediction.makespan if prediction.makespan else 0.0
    )
    return result.sort_values("critical_path_s", ascending=False, kind="stable", ignore_index=True)


def _labels(prediction, rank, table, by, depth, numbers) -> list[str]:
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
    kind = category_of(program.type)
    return [
        slots[s] if s >= 0 else ("messages" if k == COMMUNICATION else CATEGORIES[max(k, 0)])
        for s, k in zip(program.slot, kind)
    ]


def span_text(members: tuple[int, ...], system) -> str:
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
