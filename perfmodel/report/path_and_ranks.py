"""The critical path and the time of every rank as columns: what `tables` makes data frames of, without pandas.

Importing pandas takes half a second, which a command that prints a few rows does not wait for.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.prediction import Prediction
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

TableColumns = dict[str, Any]
"""Name with unit -> a list or an array, all of one length."""

PATH = ("rank", "node_id", "name", "type", "start_s", "finish_s", "on_path_s", "waiting_s")


def path_columns(prediction: Prediction) -> TableColumns:
    """The nodes on the critical path in time; the columns of `tables.critical_path`."""
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
    columns: TableColumns = {name: [row[name] for row in rows] for name in PATH}
    on_path = np.array(columns["on_path_s"], float)
    columns["share"] = on_path / p.makespan if p.makespan else np.zeros(len(on_path))
    return columns


def path_breakdown(prediction: Prediction) -> dict[str, float]:
    """Seconds of the critical path by category, a new dictionary; they add up to the makespan."""
    return dict(prediction.seconds_by_category)


def path_breakdown_columns(prediction: Prediction) -> TableColumns:
    """The same as one row; the columns of `tables.breakdown(by="critical_path")`."""
    seconds = {f"{k}_s": [v] for k, v in path_breakdown(prediction).items()}
    return {**seconds, "makespan_s": [prediction.makespan]}


def rank_columns(prediction: Prediction) -> TableColumns:
    """Where the time of every rank goes; the columns of `tables.breakdown`."""
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
    figures = {name: np.array([row[name] for row in rows])[c.rank_class] for name in rows[0]}
    return {"rank": np.arange(len(c.rank_class)), **figures}


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
