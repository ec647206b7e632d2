"""Cycles among nodes and their prerequisites, and how deep each node lies behind others."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.workload.edges import predecessors, reverse


def smallest_cycle(
    pred_ptr: NDArray[np.int64], pred: NDArray[np.integer]
) -> tuple[NDArray[np.intp], int]:
    """Positions of the fewest nodes that reach each other, and how many such sets there are; none and 0 without.

    Args:
        pred_ptr, pred: [n+1], [E], prerequisites by position.

    >>> smallest_cycle(np.array([0, 1, 2, 3]), np.array([1, 0, 2]))
    (array([2]), 2)
    """
    n = len(pred_ptr) - 1
    if _in_order(pred_ptr, pred):  # of the file, as nearly all are
        return np.zeros(0, np.intp), 0
    if (_depths(*reverse(pred_ptr, pred), np.diff(pred_ptr)) >= 0).all():
        return np.zeros(0, np.intp), 0
    from scipy import sparse  # only broken traces need it
    from scipy.sparse import csgraph

    edges = sparse.csr_array((np.ones(len(pred), np.int8), pred, pred_ptr), shape=(n, n))
    _, part = csgraph.connected_components(edges, connection="strong")
    size = np.bincount(part)
    target = np.repeat(np.arange(n), np.diff(pred_ptr))
    itself = np.zeros(len(size), bool)
    itself[part[target[target == pred]]] = True
    cycles = np.flatnonzero((size > 1) | itself)
    return np.flatnonzero(part == cycles[np.argmin(size[cycles])]), len(cycles)


@machine_code(small=True, nogil=True)
def _in_order(pred_ptr: NDArray[Any], pred: NDArray[Any]) -> bool:
    """Whether all prerequisites stand before the nodes that have them."""
    for v in range(pred_ptr.size - 1):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            if pred[e] >= v:
                return False
    return True


def depths(n: int, before: NDArray[np.int64], after: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] most nodes in a row before each node; 0 on a cycle and behind one.

    Args:
        before, after: [E], [E], edges by position, in any order.

    >>> depths(3, np.array([0, 0, 1]), np.array([1, 2, 2])).tolist()
    [0, 1, 2]
    """
    succ_ptr, succ = predecessors(after, before, n)  # grouped by the node that they leave
    found: NDArray[np.int64] = _depths(succ_ptr, succ, np.bincount(succ, minlength=n))
    return np.maximum(found, 0)


@machine_code(small=True)
def _depths(succ_ptr, succ, waiting):
    """[n] most nodes in a row before each node, -1 on a cycle and behind one (Kahn's algorithm).

    `waiting` [n], how many nodes each follows, is written.
    """
    n = waiting.size
    depth = np.zeros(n, np.int64)
    stack = np.empty(n, np.int64)
    top = 0
    for v in range(n):
        if waiting[v] == 0:
            stack[top] = v
            top += 1
    while top:
        top -= 1
        v = stack[top]
        for e in range(succ_ptr[v], succ_ptr[v + 1]):
            w = succ[e]
            depth[w] = max(depth[w], depth[v] + 1)
            waiting[w] -= 1
            if waiting[w] == 0:
                stack[top] = w
                top += 1
    for v in range(n):
        if waiting[v] > 0:
            depth[v] = -1
    return depth
