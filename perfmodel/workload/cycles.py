"""Cycles among nodes and their prerequisites, and how deep each node lies behind others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.edges import reverse


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
    if not _unsorted(pred_ptr, pred).any():
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


@machine_code(small=True)
def _unsorted(pred_ptr, pred):
    """[n] bool, nodes that lie on a cycle or behind one (Kahn's algorithm)."""
    n = pred_ptr.size - 1
    forward = True
    for v in range(n):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            forward &= pred[e] < v
    if forward:  # in the order of the file, as nearly all are
        return np.zeros(n, np.bool_)
    waiting = np.diff(pred_ptr)
    succ_ptr, succ = reverse(pred_ptr, pred)
    stack = np.empty(n, np.int64)
    top = 0
    left = np.ones(n, np.bool_)
    for v in range(n):
        if waiting[v] == 0:
            stack[top] = v
            top += 1
    while top:
        top -= 1
        v = stack[top]
        left[v] = False
        for e in range(succ_ptr[v], succ_ptr[v + 1]):
            waiting[succ[e]] -= 1
            if waiting[succ[e]] == 0:
                stack[top] = succ[e]
                top += 1
    return left


@machine_code
def depths(n, before, after):
    """[n] most nodes in a row before each node; 0 on and behind a cycle."""
    waiting = np.zeros(n, np.int64)
    count = np.zeros(n + 1, np.int64)
    for e in range(before.size):
        waiting[after[e]] += 1
        count[before[e] + 1] += 1
    ptr = np.cumsum(count)
    fill = ptr[:-1].copy()
    follows = np.empty(before.size, np.int64)
    for e in range(before.size):
        follows[fill[before[e]]] = after[e]
        fill[before[e]] += 1
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
        for e in range(ptr[v], ptr[v + 1]):
            w = follows[e]
            depth[w] = max(depth[w], depth[v] + 1)
            waiting[w] -= 1
            if waiting[w] == 0:
                stack[top] = w
                top += 1
    return depth
