"""The frozen graph that the longest path runs over: vertices in topological order, a cost each, and edges."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


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
        ends = np.unique(last)
        source = np.concatenate([source, ends]).astype(np.int64)
        target = np.concatenate([target, np.full(len(ends), end)]).astype(np.int64)
        edges = np.unique(target * (end + 1) + source)
        into = edges // (end + 1)
        ptr = np.concatenate([[0], np.cumsum(np.bincount(into, minlength=end + 1))])
        return cls(
            np.append(cost, -1).astype(np.int32),
            ptr.astype(np.int64),
            (edges % (end + 1)).astype(np.int32),
            first,
            last,
            np.append(owner, -1),
        )


@numba.njit(cache=True)
def reverse(pred_ptr, pred):
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
