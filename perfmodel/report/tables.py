"""A prediction as tables: timeline, breakdowns, critical path. Units are in the column names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.compiled import Compiled
from perfmodel.errors import InputError
from perfmodel.machine.placement import coordinates, span
from perfmodel.prediction import Prediction, prediction_of
from perfmodel.vocabulary import (
    CATEGORIES,
    COMMUNICATION,
    COMPUTE,
    HOST,
    MEMORY,
    WAITING,
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
    prediction = prediction_of(prediction)
    p, c = prediction, prediction.compiled
    rows: list[dict[str, Any]] = []
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
        return _by_rank(prediction)
    if by == "critical_path":
        seconds = {f"{k}_s": v for k, v in path_breakdown(prediction).items()}
        return pd.DataFrame([{**seconds, "makespan_s": prediction.makespan}])
    if by == "collective":
        return _by_collective(prediction)
    if by in ("component", "type", "group"):
        return _by_label(prediction, by, depth, numbers)
    raise InputError(f"by: got {by!r}, expected one of {', '.join(BREAKDOWNS)}")


def _by_rank(prediction: Prediction) -> pd.DataFrame:
    c = prediction.compiled
    rows = []
    for k, rank in enumerate(c.representative):
        start, finish, category = busy_intervals(prediction, k)
        shown = exposed(start, finish, category)
        lasts = [float((finish - start)[category == w].sum()) for w in range(len(CATEGORIES))]
        rows.append(
            {
                "compute_s": shown[COMPUTE],
                "exposed_memory_s": shown[MEMORY],
                "exposed_communication_s": shown[COMMUNICATION],
                "waiting_s": shown[WAITING],
                "host_s": shown[HOST],
                "idle_s": max(prediction.makespan - sum(shown), 0.0),
                "makespan_s": prediction.makespan,
                "finish_s": float(prediction.task_finish[c.tasks_of(rank)].max(initial=0.0)),
                "total_compute_s": lasts[COMPUTE],
                "total_memory_s": lasts[MEMORY],
                "total_communication_s": lasts[COMMUNICATION],
                "total_waiting_s": lasts[WAITING],
                "total_host_s": lasts[HOST],
            }
        )
    table = pd.DataFrame(rows).iloc[c.rank_class].reset_index(drop=True)
    table.insert(0, "rank", np.arange(len(table)))
    return table


def busy_intervals(
    prediction: Prediction, k: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Start, finish and category of everything that takes time on the ranks of class k.

    A collective is two intervals: waiting until its last member has joined, communication from then on. A receive
    counts from the start of the send that feeds it (or from its own, if later).
    """
    c = prediction.compiled
    program = prediction.graph.programs[prediction.graph.program[c.representative[k]]]
    tasks = c.tasks_of(c.representative[k])
    begin, finish = prediction.task_start[tasks], prediction.task_finish[tasks]
    category = category_of(program.type, program.cpu)
    feeding = c.partner[tasks]
    receives = feeding >= 0
    start = begin + prediction.task_waiting[tasks]
    start[receives] = np.maximum(start[receives], prediction.task_start[feeding[receives]])
    start = np.minimum(start, finish)
    timed = category >= 0
    waits = timed & ~receives & (start > begin)
    return (
        np.concatenate([start[timed], begin[waits]]),
        np.concatenate([finish[timed], start[waits]]),
        np.concatenate([category[timed], np.full(int(waits.sum()), WAITING, np.int8)]),
    )


def category_of(node_type: NDArray[Any], host: NDArray[Any] | None = None) -> NDArray[np.int8]:
    """[n] category of each node by its type, -1 for nodes that take no time; what runs on the host is HOST."""
    category = np.full(len(node_type), -1, np.int8)
    category[node_type == NodeType.COMP] = COMPUTE
    if host is not None:
        category[(node_type == NodeType.COMP) & host] = HOST
    category[np.isin(node_type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))] = MEMORY
    communicates = (NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL)
    category[np.isin(node_type, communicates)] = COMMUNICATION
    return category


def exposed(start: NDArray[Any], finish: NDArray[Any], category: NDArray[Any]) -> tuple[float, ...]:
    """Seconds by the first category, in the order of `vocabulary.CATEGORIES`, of all that runs at a moment.

    So compute counts in full, memory where nothing computes, communication where neither runs, waiting for other
    members of a collective where nothing else does, and the host where even that does not.

    >>> exposed(np.array([0.0, 1.0]), np.array([2.0, 5.0]), np.array([COMPUTE, COMMUNICATION]))
    (2.0, 0.0, 3.0, 0.0, 0.0)
    """
    count = len(CATEGORIES)
    if not len(start):
        return (0.0,) * count
    moment = np.concatenate([start, finish])
    change = np.zeros((len(moment), count), np.int64)
    index = np.concatenate([category, category])
    change[np.arange(len(moment)), index] = np.repeat([1, -1], len(start))
    order = np.argsort(moment, kind="stable")
    active = np.cumsum(change[order], axis=0)[:-1] > 0
    length = np.diff(moment[order])
    first = np.where(active.any(axis=1), active.argmax(axis=1), -1)
    return tuple(float(length[first == k].sum()) for k in range(count))


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
