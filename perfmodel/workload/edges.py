"""Edges between numbered vertices by the vertex that they lead to, and by the one that they leave."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code

FEW = 32
"""Up to so many numbers are sorted by insertion."""


@machine_code(small=True, nogil=True)
def predecessors(
    source: NDArray[Any], target: NDArray[Any], vertices: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Edges [E] in any order by their target: (pointers [V+1] i64, sources [E] i32 ascending and without repeats).

    A counting sort by target; the work is linear but for the sorting of each vertex's few sources.
    """
    begin = _first_places(target, vertices)
    pred = np.empty(source.size, np.int32)
    for e in range(source.size):
        pred[begin[target[e] + 1]] = source[e]
        begin[target[e] + 1] += 1
    kept = 0
    for v in range(vertices):
        first, end = begin[v], begin[v + 1]
        begin[v] = kept
        sort_few(pred, first, end)
        for k in range(first, end):
            if kept == begin[v] or pred[kept - 1] != pred[k]:
                pred[kept] = pred[k]
                kept += 1
    begin[vertices] = kept
    return begin, pred if kept == pred.size else pred[:kept].copy()


@machine_code
def sort_few(values: NDArray[Any], begin: int, end: int) -> None:
    """Sort values[begin:end], of which there are mostly few, in place."""
    if end - begin > FEW:
        values[begin:end].sort()
        return
    for i in range(begin + 1, end):
        value = values[i]
        k = i
        while k > begin and values[k - 1] > value:
            values[k] = values[k - 1]
            k -= 1
        values[k] = value


@machine_code(small=True, nogil=True)
def reverse(pred_ptr: NDArray[Any], pred: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """The same edges by their source: (pointers [V+1] i64, targets [E] i32 ascending)."""
    n = pred_ptr.size - 1
    ptr = _first_places(pred, n)
    succ = np.empty(pred.size, np.int32)
    for v in range(n):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            succ[ptr[pred[e] + 1]] = v
            ptr[pred[e] + 1] += 1
    return ptr, succ


@machine_code
def _first_places(vertex: NDArray[Any], vertices: int) -> NDArray[Any]:
    """[V+1] where the edges of the vertex before each number begin, among edges sorted by vertex.

    Whoever then puts each edge at its vertex's place, and moves that on by one, is left with the pointers.
    """
    place = np.zeros(vertices + 1, np.int64)
    for e in range(vertex.size):
        if vertex[e] + 2 <= vertices:
            place[vertex[e] + 2] += 1
    for v in range(1, vertices):
        place[v + 1] += place[v]
    return place
