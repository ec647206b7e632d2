"""The frozen graph that the longest path runs over: vertices in topological order, a cost each, and edges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code


@dataclass(frozen=True, eq=False)
class Events:
    """V vertices, every edge from a smaller number to a larger one; the last one has no cost and is the end.

    ``finish[v] = max(finish[u] for u before v, default 0) + cost of v``

    Attributes:
        cost: [V] i32, row of the cost table, -1 for no cost.
        pred_ptr, pred: [V+1] i64, [E] i32, the vertices before each vertex, ascending, without repeats.
        first, last: [n] i64, each task starts when all before `first` have finished, and ends with `last`.
        owner: [V] i64, the task that each vertex is part of, -1 for none (the end of a collective is its members').
    """

    cost: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]
    owner: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.cost)

    @classmethod
    def of_edges(
        cls,
        cost: NDArray[np.int32],
        source: NDArray[np.int64],
        target: NDArray[np.int64],
        *,
        first: NDArray[np.int64],
        last: NDArray[np.int64],
        owner: NDArray[np.int64],
    ) -> Events:
        """From edge lists in any order, repeats allowed; the end is added behind every task.

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
            first,
            last,
            np.append(owner, -1),
        )


@machine_code(small=True)
def predecessors(
    source: NDArray[Any], target: NDArray[Any], vertices: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edges [E] in any order by their target: (pointers [V+1], sources ascending and without repeats).

    Two counting sorts, by source and then by target: the work is linear, and repeats end up side by side.
    """
    ptr = np.zeros(vertices + 1, np.int64)
    for e in range(source.size):
        ptr[source[e] + 1] += 1
    ptr = np.cumsum(ptr)
    into = np.empty(source.size, np.int32)
    for e in range(source.size):
        into[ptr[source[e]]] = target[e]
        ptr[source[e]] += 1  # in the end where the next source begins
    begin = np.zeros(vertices + 1, np.int64)
    for e in range(source.size):
        begin[target[e] + 1] += 1
    begin = np.cumsum(begin)
    fill = begin[:-1].copy()
    pred = np.empty(source.size, np.int32)
    at = 0
    for u in range(vertices):
        while at < ptr[u]:
            v = into[at]
            at += 1
            if fill[v] == begin[v] or pred[fill[v] - 1] != u:
                pred[fill[v]] = u
                fill[v] += 1
    kept = 0
    for v in range(vertices):
        first = kept
        for k in range(begin[v], fill[v]):
            pred[kept] = pred[k]
            kept += 1
        begin[v] = first
    begin[vertices] = kept
    return begin, pred[:kept].copy()


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


@machine_code(small=True)
def reverse(pred_ptr: NDArray[Any], pred: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same edges by their source: (succ_ptr, succ)."""
    n = pred_ptr.size - 1
    ptr = np.zeros(n + 1, np.int64)
    for e in range(pred.size):
        ptr[pred[e] + 1] += 1
    ptr = np.cumsum(ptr)
    fill = ptr[:-1].copy()
    succ = np.empty(pred.size, np.int32)
    for v in range(n):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            succ[fill[pred[e]]] = v
            fill[pred[e]] += 1
    return ptr, succ
