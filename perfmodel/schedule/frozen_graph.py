"""The frozen graph that the longest path runs over: vertices in topological order, a cost each, and edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.workload.edges import predecessors


@dataclass(frozen=True, eq=False)
class Events:
    """V vertices, every edge from a smaller number to a larger one; the last one has no cost and is the end.

    ``finish[v] = max(finish[u] for u before v, default 0) + cost of v``

    Attributes:
        cost: [V] i32, row of the cost table, -1 for no cost.
        pred_ptr, pred: [V+1] i64, [E] i32, the vertices before each vertex, ascending, without repeats.
        first, last: [n] i32, each task starts when all before `first` have finished, and ends with `last`.
        owner: [V] i32, the task that each vertex is part of, -1 for none (the end of a collective is its members').
    """

    cost: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    first: NDArray[np.int32]
    last: NDArray[np.int32]
    owner: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.cost)

    @classmethod
    def of_edges(
        cls,
        cost: NDArray[np.int32],
        source: NDArray[np.int64],
        target: NDArray[np.int64],
        *,
        first: NDArray[np.integer],
        last: NDArray[np.integer],
        owner: NDArray[np.integer],
    ) -> Events:
        """From edge lists in any order, repeats allowed; the end is added behind every task.

        What no task ends with, such as a link that is free again, may be later than the end.

        Args:
            cost, owner: [V-1]; source, target: [E]; first, last: [n].
        """
        end = len(cost)
        ptr, pred = predecessors(
            np.concatenate([source, last]).astype(np.int64),
            np.concatenate([target, np.full(len(last), end)]).astype(np.int64),
            end + 1,
        )
        return cls(
            np.append(cost, -1).astype(np.int32),
            ptr,
            pred,
            first.astype(np.int32),
            last.astype(np.int32),
            np.append(owner, -1).astype(np.int32),
        )


@machine_code(small=True, nogil=True)
def times(
    pred_ptr: NDArray[Any], pred: NDArray[Any], row: NDArray[Any], cost: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """[V] start and [V] finish of every vertex on one design, costs [S]."""
    n = row.size
    start, finish = np.zeros(n), np.zeros(n)
    for v in range(n):
        latest = 0.0
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            if finish[pred[e]] > latest:
                latest = finish[pred[e]]
        start[v] = latest
        finish[v] = latest + cost[row[v]] if row[v] >= 0 else latest
    return start, finish


@machine_code(small=True, nogil=True)
def path_counts(
    pred_ptr: NDArray[Any], pred: NDArray[Any], row: NDArray[Any], cost: NDArray[Any]
) -> NDArray[Any]:
    """[S] how often each cost stands on the longest path of one design, costs [S].

    At ties the predecessor with the lowest number is on the path.
    """
    n = row.size
    finish = np.zeros(n)
    latest = np.full(n, -1, np.int64)
    for v in range(n):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            u = pred[e]
            if latest[v] < 0 or finish[u] > finish[latest[v]]:
                latest[v] = u
        if latest[v] >= 0:
            finish[v] = finish[latest[v]]
        if row[v] >= 0:
            finish[v] += cost[row[v]]
    counts = np.zeros(cost.size)
    v = n - 1
    while v >= 0:
        if row[v] >= 0:
            counts[row[v]] += 1
        v = latest[v]
    return counts
