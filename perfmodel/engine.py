"""Bulk evaluation on the host: the makespan of one reduced graph on very many designs.

Vertices are visited in topological order, each as one vector operation over a tile of designs
(``F[v] = max(F[u] for u before v) + C[cost of v]``). A finish time is kept only as long as something still needs
it: slots are assigned by liveness, so that the window of live values and the tile stay in the cache, and memory is
bounded by window x tile whatever the number of vertices and designs. Tiles are shared out over threads.

The derivative of the makespan with respect to a cost is how often the cost stands on the critical path; the
engine notes which predecessor was last (a byte per edge choice) and walks back once per design.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from perfmodel.reduce import Reduced

TILE = 128
"""Designs per tile: 128 float32 values are 512 B, so a window of 64 live rows fits a 32 KiB first-level cache."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A reduced graph laid out for the engine.

    Attributes:
        cost: [V] i32, row of the combined costs.
        ptr, slot_in: [V+1] i64, [E] i32, slots of each vertex's predecessors.
        vertex_in: [E] i32, the predecessors themselves.
        slot: [V] i32, where the finish time goes; slots: number of them.
        choice: integer type that can number the predecessors of any vertex.
        reduced: the graph.
    """

    cost: NDArray[np.int32]
    ptr: NDArray[np.int64]
    slot_in: NDArray[np.int32]
    vertex_in: NDArray[np.int32]
    slot: NDArray[np.int32]
    slots: int
    choice: DTypeLike
    reduced: Reduced


def plan(reduced: Reduced) -> Plan:
    """Assign slots by liveness."""
    slot, slots = _slots(reduced.pred_ptr, reduced.pred)
    return Plan(
        reduced.cost.astype(np.int32),
        reduced.pred_ptr,
        slot[reduced.pred],
        reduced.pred,
        slot,
        slots,
        np.min_scalar_type(int(np.diff(reduced.pred_ptr).max())),
        reduced,
    )


@numba.njit(cache=True)
def _slots(ptr, pred):
    """Slot of each vertex: one that nobody needs any more, else a new one."""
    n = ptr.size - 1
    last_use = np.arange(n)
    for v in range(n):
        for e in range(ptr[v], ptr[v + 1]):
            last_use[pred[e]] = v
    last_use[n - 1] = n
    # vertices by last use
    count = np.zeros(n + 2, np.int64)
    for v in range(n):
        count[last_use[v] + 1] += 1
    count = np.cumsum(count)
    by_use = np.empty(n, np.int64)
    fill = count.copy()
    for v in range(n):
        by_use[fill[last_use[v]]] = v
        fill[last_use[v]] += 1
    slot = np.empty(n, np.int32)
    free = np.empty(n + 1, np.int32)
    free_count = 0
    slots = 0
    for v in range(n):
        if free_count:
            free_count -= 1
            slot[v] = free[free_count]
        else:
            slot[v] = slots
            slots += 1
        for k in range(count[v], count[v + 1]):
            free[free_count] = slot[by_use[k]]
            free_count += 1
    return slot, slots


@numba.njit(nogil=True, cache=True)
def _finish(cost, ptr, slot_in, slot, combined, window):
    """One tile: fill the window; the last vertex's slot then holds the makespans [tile]."""
    tile = window.shape[1]
    for v in range(cost.size):
        begin, degree = ptr[v], ptr[v + 1] - ptr[v]
        c, out = combined[cost[v]], window[slot[v]]
        if degree == 2:
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            for d in range(tile):
                out[d] = (a[d] if a[d] > b[d] else b[d]) + c[d]
        elif degree == 1:
            a = window[slot_in[begin]]
            for d in range(tile):
                out[d] = a[d] + c[d]
        elif degree == 0:
            for d in range(tile):
                out[d] = c[d]
        else:
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            best = window[window.shape[0] - 1]
            for d in range(tile):
                best[d] = a[d] if a[d] > b[d] else b[d]
            for e in range(begin + 2, begin + degree):
                a = window[slot_in[e]]
                for d in range(tile):
                    best[d] = a[d] if a[d] > best[d] else best[d]
            for d in range(tile):
                out[d] = best[d] + c[d]


@numba.njit(nogil=True, cache=True)
def _finish_and_choose(cost, ptr, slot_in, slot, combined, window, chosen):
    """As `_finish`; `chosen` [V, tile] notes which predecessor was last (the first of equals)."""
    tile = window.shape[1]
    best = window[window.shape[0] - 1]
    for v in range(cost.size):
        begin, degree = ptr[v], ptr[v + 1] - ptr[v]
        c, out = combined[cost[v]], window[slot[v]]
        if degree == 0:
            for d in range(tile):
                out[d] = c[d]
        elif degree == 1:
            a = window[slot_in[begin]]
            for d in range(tile):
                out[d] = a[d] + c[d]
        elif degree == 2:
            choice = chosen[v]
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            for d in range(tile):
                choice[d] = b[d] > a[d]
            for d in range(tile):
                out[d] = (a[d] if a[d] >= b[d] else b[d]) + c[d]
        else:
            choice = chosen[v]
            a = window[slot_in[begin]]
            for d in range(tile):
                best[d] = a[d]
                choice[d] = 0
            for k in range(1, degree):
                a = window[slot_in[begin + k]]
                for d in range(tile):
                    choice[d] = k if a[d] > best[d] else choice[d]
                for d in range(tile):
                    best[d] = a[d] if a[d] > best[d] else best[d]
            for d in range(tile):
                out[d] = best[d] + c[d]


@numba.njit(nogil=True, cache=True)
def _walk_back(cost, ptr, vertex_in, chosen, counts):
    """`counts` [K, tile] += how often each combined cost stands on each design's critical path."""
    for d in range(counts.shape[1]):
        v = cost.size - 1
        while True:
            counts[cost[v], d] += 1
            degree = ptr[v + 1] - ptr[v]
            if degree == 0:
                break
            v = vertex_in[ptr[v] + (chosen[v, d] if degree > 1 else 0)]


def makespans(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    tile: int = TILE,
) -> NDArray[np.floating]:
    """The makespan on every design.

    Args:
        plan: a reduced graph.
        costs: [S, D] duration of each distinct cost on each design [s].
        dtype: float64, or float32 (resolves 1 us at 10 s).
        threads: tiles are shared out over this many threads.
        tile: designs per tile.

    Returns:
        [D] makespan [s].
    """
    designs = costs.shape[1]
    makespan = np.empty(designs, dtype)
    matrix = plan.reduced.combination

    def work(begin: int) -> None:
        window = np.zeros((plan.slots + 1, tile), dtype)
        for at in range(begin, designs, tile * threads):
            part = costs[:, at : at + tile]
            combined = np.zeros((matrix.shape[0], tile), dtype)
            combined[:, : part.shape[1]] = matrix @ part
            _finish(plan.cost, plan.ptr, plan.slot_in, plan.slot, combined, window)
            makespan[at : at + tile] = window[plan.slot[-1], : part.shape[1]]

    _share(work, threads, tile)
    return makespan


def makespans_and_paths(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    tile: int = TILE,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The makespan and its derivative with respect to each distinct cost.

    Args:
        as for `makespans`.

    Returns:
        [D] makespan [s], and [S, D] how often each distinct cost stands on the critical path. At ties the path
        through the predecessor with the lowest number counts: a one-sided derivative.
    """
    designs = costs.shape[1]
    makespan = np.empty(designs, dtype)
    paths = np.empty(costs.shape, np.float64)
    matrix = plan.reduced.combination
    spread = matrix.T.tocsr()

    def work(begin: int) -> None:
        window = np.zeros((plan.slots + 1, tile), dtype)
        chosen = np.empty((len(plan.cost), tile), plan.choice)
        for at in range(begin, designs, tile * threads):
            part = costs[:, at : at + tile]
            width = part.shape[1]
            combined = np.zeros((matrix.shape[0], tile), dtype)
            combined[:, :width] = matrix @ part
            _finish_and_choose(
                plan.cost, plan.ptr, plan.slot_in, plan.slot, combined, window, chosen
            )
            makespan[at : at + tile] = window[plan.slot[-1], :width]
            counts = np.zeros((matrix.shape[0], width))
            _walk_back(plan.cost, plan.ptr, plan.vertex_in, chosen, counts)
            paths[:, at : at + tile] = spread @ counts

    _share(work, threads, tile)
    return makespan, paths


def _share(work, threads: int, tile: int) -> None:
    """Thread k takes tiles k, k + threads, ..."""
    if threads == 1:
        work(0)
        return
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, range(0, tile * threads, tile)))
