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
"""Fewest and most designs per tile; shorter rows cost more than a larger cache does. Half as few where paths are
asked for, which note a byte for every vertex and design and read it on the way back."""

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
        count: integer type that can count how often any one combined cost stands on a path.
        matrix, spread: (pointers, columns, weights) of the graph's combination of costs, and of its transpose, there
            in whole numbers.
        checks: (pointers [V+1], slots a, b, c, factor, strict): the comparisons to make when a vertex has finished.
        lasting: (rows that must be longer than `least` of the makespan, rows, rows that must not be shorter than these,
            [least]): what costs have to pass.
        reduced: the graph. certificate: the comparisons by vertex.
    """

    cost: NDArray[np.uint32]
    ptr: NDArray[np.uint32]
    slot_in: NDArray[np.uint32]
    slot: NDArray[np.uint32]
    slots: int
    choice: DTypeLike
    count: DTypeLike
    matrix: tuple[NDArray[Any], ...]
    spread: tuple[NDArray[Any], ...]
    checks: tuple[NDArray[Any], ...]
    lasting: tuple[NDArray[Any], ...]
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
    longer, pairs, least = np.zeros(0, np.int64), np.zeros((0, 2), np.int64), 0.0
    if checks is not None:
        wanted, factor, strict = [checks.a, checks.b, checks.c], checks.factor, checks.strict
        longer, pairs, least = checks.longer, checks.rows, checks.least
    at = np.maximum.reduce(wanted)
    order = np.argsort(at, kind="stable")
    last_use = np.arange(vertices)
    for vertex in wanted:
        np.maximum.at(last_use, vertex, at)
    last_use[-1] = vertices
    slot, slots = slots_by_liveness(reduced.pred_ptr, reduced.pred, last_use)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(at, minlength=vertices))])
    spread = _parts(reduced.combination.T.tocsr())
    return Plan(
        reduced.cost.astype(np.uint32),
        reduced.pred_ptr.astype(np.uint32),
        slot[reduced.pred],
        slot,
        slots,
        np.min_scalar_type(int(np.diff(reduced.pred_ptr).max())),
        np.uint8 if np.bincount(reduced.cost).max() < 256 else np.uint32,
        _parts(reduced.combination),
        (*spread[:2], spread[2].astype(np.uint32)),
        (
            ptr.astype(np.uint64),
            *(slot[vertex[order]].astype(np.uint64) for vertex in wanted),
            factor[order],
            strict[order],
        ),
        (*(x.astype(np.uint64) for x in (longer, *pairs.T)), np.array([least])),
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
        held: [D], becomes 1 where all of the plan's certificate holds, 0 elsewhere.
        designs: the D columns of the costs that are meant, by default all. A tile of them is gathered when its turn
            comes, so that it is in the cache.
        counts: with `paths`, as wide as the costs, C-contiguous: takes the derivatives, at the columns that are meant.

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
    elif not counts.flags.c_contiguous:
        raise ValueError("counts: expected a C-contiguous table")
    if paths and not len(costs):  # a trace of metadata: nothing takes time
        return np.zeros_like(makespan), counts
    flat = costs.reshape(-1)
    flat.flags.writeable = (
        False  # one kind of argument, whatever the table was: loops are compiled for each kind
    )
    chosen = np.zeros(0, np.uint64) if designs is None else np.asarray(designs, np.uint64)
    judged = np.zeros(0, np.uint8) if held is None else held
    tile = tile or _tile(plan, width, dtype, threads, choices=paths)
    threads = max(min(threads, -(-width // tile)), 1)

    def work(first: int) -> None:
        room = _Room.of(plan, flat.dtype, tile, dtype, designs=len(chosen) > 0, paths=paths)
        kernels.answer(
            plan.graph,
            plan.checks,
            plan.lasting,
            plan.matrix,
            plan.spread,
            flat,
            *map(np.uint64, (width, first, threads, tile)),
            chosen,
            room.shared,
            room.tabulated,
            room.chosen,
            room.combined,
            makespan,
            judged,
            counts.reshape(-1),
        )

    in_threads(work, range(threads))
    return makespan, counts


def sums(matrix: sparse.csr_array, values: NDArray[np.float64]) -> NDArray[np.float64]:
    """[K, D] a sparse matrix [K, S] times values [S, D]."""
    found = np.empty((matrix.shape[0], values.shape[1]))
    width = np.uint64(values.shape[1])
    values = np.ascontiguousarray(values, np.float64)
    kernels.product(_parts(matrix), values.ravel(), width, np.uint64(0), found.ravel(), width)
    return found


@dataclass(frozen=True)
class _Room:
    """Memory of one thread, for one tile after the other; see `bulk_cpu_kernels.answer`.

    Attributes:
        shared: the window of live finish times, the table of combined costs, the costs of the designs that are meant,
            bytes that say whether a vertex is on a design's path, how often a cost is.
        tabulated: whether combined costs are tabulated.
        chosen: which predecessor was last. combined: how often each combined cost is on each design's path.
    """

    shared: tuple[NDArray[Any], ...]
    tabulated: bool
    chosen: NDArray[Any]
    combined: NDArray[Any]

    @classmethod
    def of(
        cls, plan: Plan, kind: DTypeLike, tile: int, dtype: DTypeLike, *, designs: bool, paths: bool
    ) -> _Room:
        """For tiles of so many designs of a plan, with costs of that kind."""
        rows, costs = plan.reduced.combination.shape
        table = _tabulated(plan)
        shared = (
            np.empty(plan.slots * tile, dtype),
            np.empty(max(table, 1) * tile, dtype),
            np.empty(costs * tile if designs else 0, kind),
            np.zeros(plan.slots * tile if paths else 0, np.uint8),
            np.empty(tile if paths else 0, np.uint32),
        )
        chosen = np.empty(len(plan.cost) * tile if paths else 0, plan.choice)
        return cls(shared, table > 0, chosen, np.empty(rows * tile if paths else 0, plan.count))


def _tabulated(plan: Plan) -> int:
    """Rows of the table of combined costs; 0 where they are summed up when needed."""
    rows = plan.reduced.combination.shape[0]
    return rows if rows * REUSE <= len(plan.cost) else 0


def _tile(
    plan: Plan, designs: int, dtype: DTypeLike, threads: int, *, choices: bool = False
) -> int:
    """Designs in a tile: as many as the cache holds, and no more than each thread's share."""
    column = (plan.slots + _tabulated(plan)) * np.dtype(dtype).itemsize
    memory = column + choices * len(plan.cost) * np.dtype(plan.choice).itemsize
    fit = 1 << max(CACHE // column, 1).bit_length() - 1
    fair = -(-designs // threads)
    return max(min(max(fit, TILES[0] >> choices), TILES[1], fair, MEMORY // memory), 1)
