"""The frozen graph that the longest path runs over: vertices in topological order, a cost each, and edges."""

from __future__ import annotations

from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Events:
    """V vertices, every edge from a smaller number to a larger one.

    ``finish[v] = max(finish[u] for u before v, default 0) + cost of v``

    Attributes:
        cost: [V] i32, row of the cost table, -1 for no cost.
        pred_ptr, pred: [V+1] i64, [E] i32, the vertices before each vertex, ascending, without repeats.
        first, last: [n] i64, each task starts when all before `first` have finished, and ends with `last`.
    """

    cost: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    first: NDArray[np.int64]
    last: NDArray[np.int64]

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
    ) -> Events:
        """From edge lists in any order, repeats allowed."""
        vertices = len(cost)
        edges = np.unique(target.astype(np.int64) * max(vertices, 1) + source)
        into = edges // max(vertices, 1)
        ptr = np.concatenate([[0], np.cumsum(np.bincount(into, minlength=vertices))])
        pred = (edges % max(vertices, 1)).astype(np.int32)
        return cls(cost, ptr.astype(np.int64), pred, first, last)

    def sinks(self) -> NDArray[np.int64]:
        """Vertices that nothing follows."""
        followed = np.zeros(len(self), bool)
        followed[self.pred] = True
        return np.flatnonzero(~followed)


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
