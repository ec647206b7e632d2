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

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from perfmodel.engine import bulk_cpu_kernels as kernels
from perfmodel.engine.reduction import Reduced
from perfmodel.schedule.certificate import Checks
from perfmodel.schedule.liveness import slots_by_liveness
from perfmodel.threads import in_threads

if TYPE_CHECKING:
    from scipy import sparse

CACHE = 256 * 1024
"""Bytes that the live finish times and the table of costs of a tile may take: well within a second-level cache."""

TILES = (256, 1024)
"""Fewest and most designs per tile; shorter rows cost more than a larger cache does."""

MEMORY = 128 * 1024 * 1024
"""Bytes that a tile may take in all, which narrows the tiles of graphs with very many live values."""

REUSE = 4
"""Costs that serve this many vertices on average are tabulated per tile; others are summed up when needed."""


@dataclass(frozen=True, eq=False)
class Plan:
    """A reduced graph laid out for the engine.

    Attributes:
        cost: [V] u32, row of the combined costs.
        ptr, slot_in: [V+1], [E] u32, slots of each vertex's predecessors.
        slot: [V] u32, where the finish time goes; slots: number of them.
        choice: integer type that can number the predecessors of any vertex.
        matrix, spread: (pointers, columns, weights) of the graph's combination of costs, and of its transpose.
        checks: (pointers [V+1], slots a, b, c, factor, strict): the comparisons to make when a vertex has finished.
        reduced: the graph. certificate: the comparisons by vertex.
    """

    cost: NDArray[np.uint32]
    ptr: NDArray[np.uint32]
    slot_in: NDArray[np.uint32]
    slot: NDArray[np.uint32]
    slots: int
    choice: DTypeLike
    matrix: tuple[NDArray[Any], ...]
    spread: tuple[NDArray[Any], ...]
    checks: tuple[NDArray[Any], ...]
    reduced: Reduced
    certificate: Checks | None

    @property
    def graph(self) -> tuple[NDArray[Any], ...]:
        """What the kernels visit."""
        return self.cost, self.ptr, self.slot_in, self.slot


def plan(reduced: Reduced, checks: Checks | None = None) -> Plan:
    """Assign slots by liveness; finish times that are compared live until they are."""
    vertices = len(reduced)
    wanted = [np.zeros(0, np.int64)] * 3
    factor, strict = np.zeros(0), np.zeros(0, bool)
    if checks is not None:
        wanted, factor, strict = [checks.a, checks.b, checks.c], checks.factor, checks.strict
    at = np.maximum.reduce(wanted)
    order = np.argsort(at, kind="stable")
    last_use = np.arange(vertices)
    for vertex in wanted:
        np.maximum.at(last_use, vertex, at)
    last_use[-1] = vertices
    slot, slots = slots_by_liveness(reduced.pred_ptr, reduced.pred, last_use)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=vertices))])
    return Plan(
        reduced.cost.astype(np.uint32),
        reduced.pred_ptr.astype(np.uint32),
        slot[reduced.pred],
        slot,
        slots,
        np.min_scalar_type(int(np.diff(reduced.pred_ptr).max())),
        _parts(reduced.combination),
        _parts(reduced.combination.T.tocsr()),
        (
            ptr.astype(np.uint64),
            *(slot[vertex[order]].astype(np.uint64) for vertex in wanted),
            factor[order],
            strict[order],
        ),
        reduced,
        checks,
    )


def _parts(matrix: sparse.csr_array) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    return matrix.indptr.astype(np.uint32), matrix.indices.astype(np.uint32), matrix.data


def makespans(
    plan: Plan,
    costs: NDArray[np.floating],
    *,
    paths: bool = False,
    dtype: DTypeLike = np.float64,
    threads: int = 2,
    tile: int | None = None,
    held: NDArray[np.uint8] | None = None,
    designs: NDArray[np.intp] | None = None,
    counts: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The makespan on every design, and its derivative with respect to each distinct cost.

    Args:
        plan: a reduced graph.
        costs: [S, D] duration of each distinct cost on each design [s].
        paths: whether derivatives are wanted.
        dtype: float64, or float32 (resolves 1 us at 10 s).
        threads: tiles are shared out over this many threads.
        tile: designs per tile; by default as many as the cache holds.
        held: [D], becomes 1 where all of the plan's comparisons hold, 0 elsewhere.
        designs: the D columns of the costs that are meant, by default all. A tile of them is gathered when its turn
            comes, so that it is in the cache.
        counts: with `paths`, as wide as the costs: takes the derivatives, at the columns that are meant.

    Returns:
        [D] makespan [s], and how often each distinct cost stands on the critical path: `counts`, by default [S, D]
        ([0, D] where that is not wanted). At ties the path through the predecessor with the lowest number counts: a
        one-sided derivative.
    """
    costs = np.ascontiguousarray(costs)
    width = costs.shape[1] if designs is None else len(designs)
    makespan = np.empty(width, dtype)
    if counts is None:
        counts = np.empty((len(costs) if paths else 0, costs.shape[1]))
    if paths and not len(costs):  # a trace of metadata: nothing takes time
        return np.zeros_like(makespan), counts

    def work(tiles: list[slice]) -> None:
        most = _widest(tiles)
        room = _Room(plan, costs, most, dtype)
        chosen = np.empty(len(plan.cost) * most if paths else 0, plan.choice)
        back = _WayBack(plan, most) if paths else None
        for part in tiles:
            here: Any = part if designs is None else designs[part]
            makespan[part] = room.finish(here, chosen, None if held is None else held[part])
            if back is not None:
                counts[:, here] = back.counts(chosen, part.stop - part.start)

    tiles = _tiles(plan, width, dtype, threads, tile, choices=paths)
    in_threads(work, _shared_out(tiles, threads))
    return makespan, counts


def sums(matrix: sparse.csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, D] a sparse matrix [K, S] times values [S, D]."""
    found = np.empty((matrix.shape[0], values.shape[1]))
    width = np.uint64(values.shape[1])
    values = np.ascontiguousarray(values, np.float64)
    kernels.product(_parts(matrix), values.ravel(), width, np.uint64(0), found.ravel(), width)
    return found


class _Room:
    """Memory for one tile after the other: the window of live finish times, and the costs."""

    def __init__(self, plan: Plan, costs: NDArray[Any], most: int, dtype: DTypeLike):
        self.plan, self.costs = plan, costs
        self.gathered = np.empty(0)
        self.window = np.empty(plan.slots * most, dtype)
        self.tabulated = _tabulated(plan) > 0
        self.table = np.empty(max(_tabulated(plan), 1) * most, dtype)

    def finish(
        self, designs: slice | NDArray[np.intp], chosen: NDArray[Any], held: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Makespans [width] of some designs, a stretch or any; `held` [width] says where the comparisons hold."""
        plan = self.plan
        if isinstance(designs, slice):
            width, at, columns = designs.stop - designs.start, designs.start, self.costs.shape[1]
            values = self.costs.ravel()
        else:
            width, at, columns = len(designs), 0, len(designs)
            values = self.gather(designs)
        wide, place, row = np.uint64(width), np.uint64(at), np.uint64(columns)
        judged = np.empty(0, np.uint8) if held is None else held
        judged[:] = 1
        if self.tabulated:
            kernels.product(plan.matrix, values, row, place, self.table, wide)
        kernels.finish(
            plan.graph,
            plan.checks,
            plan.matrix,
            values,
            row,
            place,
            self.table,
            self.tabulated,
            self.window,
            chosen,
            judged,
            wide,
        )
        last = int(plan.slot[-1]) * width
        return self.window[last : last + width]

    def gather(self, designs: NDArray[np.intp]) -> NDArray[Any]:
        """The costs of some designs, one row after the other."""
        size = len(self.costs) * len(designs)
        if len(self.gathered) < size:
            self.gathered = np.empty(size, self.costs.dtype)
        values = self.gathered[:size]
        np.take(self.costs, designs, axis=1, out=values.reshape(len(self.costs), -1), mode="clip")
        return values


class _WayBack:
    """Memory for following the critical paths of one tile after the other."""

    def __init__(self, plan: Plan, most: int):
        self.plan, self.costs = plan, plan.reduced.combination.shape[1]
        self.on = np.zeros(plan.slots * most, np.uint8)
        self.combined = np.empty(plan.reduced.combination.shape[0] * most, np.uint32)
        self.often = np.empty(self.costs * most)

    def counts(self, chosen: NDArray[Any], designs: int) -> NDArray[np.float64]:
        """[S, width] how often each cost stands on each design's path, from the predecessors that were last."""
        width, zero = np.uint64(designs), np.uint64(0)
        self.combined[:] = 0
        kernels.trace_back(self.plan.graph, chosen, self.on, self.combined, width)
        kernels.product(self.plan.spread, self.combined, width, zero, self.often, width)
        return self.often[: self.costs * designs].reshape(self.costs, designs)


def _tabulated(plan: Plan) -> int:
    """Rows of the table of combined costs; 0 where they are summed up when needed."""
    rows = plan.reduced.combination.shape[0]
    return rows if rows * REUSE <= len(plan.cost) else 0


def _widest(tiles: list[slice]) -> int:
    return max((tile.stop - tile.start for tile in tiles), default=0)


def _tiles(
    plan: Plan,
    designs: int,
    dtype: DTypeLike,
    threads: int,
    tile: int | None,
    *,
    choices: bool = False,
) -> list[slice]:
    """The designs in tiles of equal width, but for the last."""
    if tile is None:
        column = (plan.slots + _tabulated(plan)) * np.dtype(dtype).itemsize
        memory = column + choices * len(plan.cost) * np.dtype(plan.choice).itemsize
        fit = 1 << max(CACHE // column, 1).bit_length() - 1
        fair = -(-designs // threads)
        tile = min(max(fit, TILES[0]), TILES[1], fair, MEMORY // memory)
    tile = max(tile, 1)
    return [slice(at, min(at + tile, designs)) for at in range(0, designs, tile)]


def _shared_out(tiles: list[slice], threads: int) -> list[list[slice]]:
    """Thread k takes tiles k, k + threads, ..."""
    threads = min(threads, len(tiles))
    return [tiles[k::threads] for k in range(threads)]
