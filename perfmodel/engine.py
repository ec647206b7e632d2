"""Bulk evaluation on the host: the makespan of one reduced graph on very many designs.

Vertices are visited in topological order, each as one vector operation over a tile of designs
(``F[v] = max(F[u] for u before v) + C[cost of v]``). A finish time is kept only as long as something still needs
it: slots are assigned by liveness, so that the window of live values and the tile stay in the cache, and memory is
bounded by window x tile whatever the number of vertices and designs. Tiles are shared out over threads.

The derivative of the makespan with respect to a cost is how often the cost stands on the critical path. On the way
forward the engine notes which predecessor was last, a byte per vertex and design; on the way back a byte says
whether the vertex is on the design's path, and goes to that predecessor. Bytes are cheap: the way back is a vector
operation over the tile, too, and vertices on nobody's path are passed over.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

import numba
import numpy as np
from numpy.typing import DTypeLike, NDArray

from perfmodel.reduce import Reduced

if TYPE_CHECKING:
    from scipy import sparse

CACHE = 192 * 1024
"""Bytes that the live finish times and the table of costs of a tile may take: most of a second-level cache."""

TILES = (64, 1024)
"""Fewest and most designs per tile."""

REUSE = 4
"""Costs that serve this many vertices on average are tabulated per tile; others are summed up when needed."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A reduced graph laid out for the engine.

    Attributes:
        cost: [V] i32, row of the combined costs.
        ptr, slot_in: [V+1] i64, [E] i32, slots of each vertex's predecessors.
        slot: [V] i32, where the finish time goes; slots: number of them.
        choice: integer type that can number the predecessors of any vertex.
        matrix, spread: (pointers, columns, weights) of the graph's combination of costs, and of its transpose.
        reduced: the graph.
    """

    cost: NDArray[np.int32]
    ptr: NDArray[np.int64]
    slot_in: NDArray[np.int32]
    slot: NDArray[np.int32]
    slots: int
    choice: DTypeLike
    matrix: tuple[NDArray, ...]
    spread: tuple[NDArray, ...]
    reduced: Reduced

    @property
    def graph(self) -> tuple[NDArray, ...]:
        """What the kernels visit."""
        return self.cost, self.ptr, self.slot_in, self.slot


def plan(reduced: Reduced) -> Plan:
    """Assign slots by liveness."""
    slot, slots = _slots(reduced.pred_ptr, reduced.pred)
    return Plan(
        reduced.cost.astype(np.int32),
        reduced.pred_ptr,
        slot[reduced.pred],
        slot,
        slots,
        np.min_scalar_type(int(np.diff(reduced.pred_ptr).max())),
        _parts(reduced.combination),
        _parts(reduced.combination.T.tocsr()),
        reduced,
    )


def _parts(matrix: sparse.csr_array) -> tuple[NDArray, NDArray, NDArray]:
    return matrix.indptr.astype(np.int64), matrix.indices.astype(np.int64), matrix.data


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
def _sum_row(ptr, column, weight, k, values, at, out):
    """out [width] = row k of a sparse matrix times values [S, at : at + width]."""
    width = out.size
    begin, end = ptr[k], ptr[k + 1]
    if begin == end:
        out[:] = 0
        return
    first, w = values[column[begin]], weight[begin]
    for d in range(width):
        out[d] = w * first[at + d]
    for e in range(begin + 1, end):
        more, w = values[column[e]], weight[e]
        for d in range(width):
            out[d] += w * more[at + d]


@numba.njit(nogil=True, cache=True)
def _product(ptr, column, weight, values, at, out):
    """out [K, width] = a sparse matrix [K, S] times values [S, at : at + width]; nothing where out is empty."""
    for k in range(out.shape[0]):
        _sum_row(ptr, column, weight, k, values, at, out[k])


@numba.njit(nogil=True, cache=True)
def _finish(graph, matrix, costs, at, table, window):
    """One tile: fill the window; the last vertex's slot then holds the makespans [width].

    `table` [K, width] holds the combined costs; where it is empty they are summed up one by one. Two rows of the
    window behind the slots are for the largest of many predecessors, and for such a sum.
    """
    cost, ptr, slot_in, slot = graph
    row_ptr, column, weight = matrix
    width = window.shape[1]
    best, fresh = window[window.shape[0] - 2], window[window.shape[0] - 1]
    for v in range(cost.size):
        begin, degree = ptr[v], ptr[v + 1] - ptr[v]
        out = window[slot[v]]
        if table.shape[0]:
            c = table[cost[v]]
        else:
            c = fresh
            _sum_row(row_ptr, column, weight, cost[v], costs, at, c)
        if degree == 2:
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            for d in range(width):
                out[d] = (a[d] if a[d] > b[d] else b[d]) + c[d]
        elif degree == 1:
            a = window[slot_in[begin]]
            for d in range(width):
                out[d] = a[d] + c[d]
        elif degree == 0:
            for d in range(width):
                out[d] = c[d]
        else:
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            for d in range(width):
                best[d] = a[d] if a[d] > b[d] else b[d]
            for e in range(begin + 2, begin + degree):
                a = window[slot_in[e]]
                for d in range(width):
                    best[d] = a[d] if a[d] > best[d] else best[d]
            for d in range(width):
                out[d] = best[d] + c[d]


@numba.njit(nogil=True, cache=True)
def _finish_and_choose(graph, matrix, costs, at, table, window, chosen):
    """As `_finish`; `chosen` [V, width] notes which predecessor was last (the first of equals)."""
    cost, ptr, slot_in, slot = graph
    row_ptr, column, weight = matrix
    width = window.shape[1]
    best, fresh = window[window.shape[0] - 2], window[window.shape[0] - 1]
    for v in range(cost.size):
        begin, degree = ptr[v], ptr[v + 1] - ptr[v]
        out = window[slot[v]]
        if table.shape[0]:
            c = table[cost[v]]
        else:
            c = fresh
            _sum_row(row_ptr, column, weight, cost[v], costs, at, c)
        if degree == 0:
            for d in range(width):
                out[d] = c[d]
        elif degree == 1:
            a = window[slot_in[begin]]
            for d in range(width):
                out[d] = a[d] + c[d]
        elif degree == 2:
            choice = chosen[v]
            a, b = window[slot_in[begin]], window[slot_in[begin + 1]]
            for d in range(width):
                choice[d] = b[d] > a[d]
            for d in range(width):
                out[d] = (a[d] if a[d] >= b[d] else b[d]) + c[d]
        else:
            choice = chosen[v]
            a = window[slot_in[begin]]
            for d in range(width):
                best[d] = a[d]
                choice[d] = 0
            for k in range(1, degree):
                a = window[slot_in[begin + k]]
                for d in range(width):
                    choice[d] = k if a[d] > best[d] else choice[d]
                for d in range(width):
                    best[d] = a[d] if a[d] > best[d] else best[d]
            for d in range(width):
                out[d] = best[d] + c[d]


@numba.njit(nogil=True, cache=True)
def _trace_back(graph, chosen, on, counts):
    """`counts` [K, width] += how often each combined cost stands on each design's critical path.

    `on` [slots, width] is 0, and 0 again afterwards. A slot holds a vertex's byte from the last vertex that needs
    it back to the vertex itself, the same stretch for which it holds the finish time on the way forward.
    """
    cost, ptr, slot_in, slot = graph
    on[slot[cost.size - 1]] = 1
    for v in range(cost.size - 1, -1, -1):
        mine = on[slot[v]]
        if not _any(mine):
            continue
        _count(counts[cost[v]], mine)
        begin, degree = ptr[v], ptr[v + 1] - ptr[v]
        if degree == 1:
            _pass_on(on[slot_in[begin]], mine)
        elif degree == 2:
            _pass_to_one(on[slot_in[begin]], on[slot_in[begin + 1]], mine, chosen[v])
        else:
            for k in range(degree):
                _pass_where(on[slot_in[begin + k]], mine, chosen[v], k)
        _clear(mine)


# one loop over bytes per function: only so does the compiler make them vector operations
@numba.njit(nogil=True, cache=True)
def _any(mine):
    some = np.uint8(0)
    for d in range(mine.size):
        some |= mine[d]
    return some != 0


@numba.njit(nogil=True, cache=True)
def _count(count, mine):
    for d in range(mine.size):
        count[d] += mine[d]


@numba.njit(nogil=True, cache=True)
def _pass_on(only, mine):
    for d in range(mine.size):
        only[d] |= mine[d]


@numba.njit(nogil=True, cache=True)
def _pass_to_one(first, second, mine, choice):
    for d in range(mine.size):
        second[d] |= mine[d] & np.uint8(choice[d])
        first[d] |= mine[d] & np.uint8(~choice[d])


@numba.njit(nogil=True, cache=True)
def _pass_where(one, mine, choice, k):
    for d in range(mine.size):
        one[d] |= mine[d] & np.uint8(choice[d] == k)


@numba.njit(nogil=True, cache=True)
def _clear(mine):
    for d in range(mine.size):
        mine[d] = 0


def makespans(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    tile: int | None = None,
) -> NDArray[np.floating]:
    """The makespan on every design.

    Args:
        plan: a reduced graph.
        costs: [S, D] duration of each distinct cost on each design [s].
        dtype: float64, or float32 (resolves 1 us at 10 s).
        threads: tiles are shared out over this many threads.
        tile: designs per tile; by default as many as the cache holds.

    Returns:
        [D] makespan [s].
    """
    costs = np.ascontiguousarray(costs)
    makespan = np.empty(costs.shape[1], dtype)
    graph, matrix = plan.graph, plan.matrix

    def work(tiles: list[slice]) -> None:
        for width, same in groupby(tiles, _width):
            window, table = _room(plan, width, dtype)
            for part in same:
                _product(*matrix, costs, part.start, table)
                _finish(graph, matrix, costs, part.start, table, window)
                makespan[part] = window[plan.slot[-1]]

    _share(work, _tiles(plan, costs.shape[1], dtype, threads, tile), threads)
    return makespan


def makespans_and_paths(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    tile: int | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The makespan and its derivative with respect to each distinct cost.

    Args:
        as for `makespans`.

    Returns:
        [D] makespan [s], and [S, D] how often each distinct cost stands on the critical path. At ties the path
        through the predecessor with the lowest number counts: a one-sided derivative.
    """
    costs = np.ascontiguousarray(costs)
    makespan = np.empty(costs.shape[1], dtype)
    paths = np.empty(costs.shape, np.float64)
    graph, matrix = plan.graph, plan.matrix

    def work(tiles: list[slice]) -> None:
        for width, same in groupby(tiles, _width):
            window, table = _room(plan, width, dtype)
            chosen = np.empty((len(plan.cost), width), plan.choice)
            on = np.zeros((plan.slots, width), np.uint8)
            counts = np.empty((plan.reduced.combination.shape[0], width), np.uint32)
            often = np.empty((len(costs), width))
            for part in same:
                _product(*matrix, costs, part.start, table)
                _finish_and_choose(graph, matrix, costs, part.start, table, window, chosen)
                makespan[part] = window[plan.slot[-1]]
                counts[:] = 0
                _trace_back(graph, chosen, on, counts)
                _product(*plan.spread, counts, 0, often)
                paths[:, part] = often

    _share(work, _tiles(plan, costs.shape[1], dtype, threads, tile), threads)
    return makespan, paths


def _tabulated(plan: Plan) -> int:
    """Rows of the table of combined costs; 0 where they are summed up when needed."""
    rows = plan.reduced.combination.shape[0]
    return rows if rows * REUSE <= len(plan.cost) else 0


def _room(plan: Plan, width: int, dtype: DTypeLike) -> tuple[NDArray, NDArray]:
    """Window and table for tiles of this width."""
    return np.zeros((plan.slots + 2, width), dtype), np.empty((_tabulated(plan), width), dtype)


def _width(tile: slice) -> int:
    return tile.stop - tile.start


def _tiles(
    plan: Plan, designs: int, dtype: DTypeLike, threads: int, tile: int | None
) -> list[slice]:
    """The designs in tiles of equal width, but for the last."""
    if tile is None:
        column = (plan.slots + _tabulated(plan)) * np.dtype(dtype).itemsize
        fit = 1 << max(CACHE // column, 1).bit_length() - 1
        fair = -(-designs // threads)
        tile = max(min(fit, TILES[1], fair), min(TILES[0], designs), 1)
    return [slice(at, min(at + tile, designs)) for at in range(0, designs, tile)]


def _share(work: Callable[[list[slice]], None], tiles: list[slice], threads: int) -> None:
    """Thread k takes tiles k, k + threads, ...; the calling thread takes part."""
    threads = min(threads, len(tiles))
    waiting = [_helpers(threads - 1).submit(work, tiles[k::threads]) for k in range(1, threads)]
    if tiles:
        work(tiles[::threads])
    for future in waiting:
        future.result()


@functools.cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not survive a fork
