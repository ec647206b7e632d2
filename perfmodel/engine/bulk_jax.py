"""Bulk evaluation in JAX: the engine for accelerators, one or several.

The same reduced graph as `bulk_cpu` takes, cut into steps as in `longest_path`, for a whole batch of designs at once.
Finish times live in a window of rows, one design per column; a row is given to another vertex as soon as nothing
needs it any more, those that a certificate compares stay. Every design is a column of its own, so the batch is
sharded over devices without any exchange.

The way back is the engine's on the host, too: forward a bit per vertex and design notes which predecessor was last;
backward a byte in the vertex's row says whether it is on the design's critical path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import DTypeLike, NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.engine.longest_path import cut
from perfmodel.engine.reduction import Reduced
from perfmodel.schedule.certificate import Checks

if TYPE_CHECKING:
    from scipy import sparse

BATCH = 16_384
"""Most designs per batch and device."""

MEMORY = 4 * 1024**3
"""Bytes of a device that a batch may take, which makes the batches of large graphs smaller."""

BLOCK = 64
"""Rows of a sparse product that are added to at once."""

TOGETHER = 64
"""Comparisons that are made at once."""


@dataclass(frozen=True, eq=False)
class WindowedGraph:
    """A reduced graph laid out in steps of w vertices over a window of rows.

    Attributes:
        steps: (predecessors [steps, w, 2], cost [steps, w], row [steps, w]), i32: rows of the two predecessors (row 0
            always holds 0 s), combined cost, and where the finish times go (row 1 takes what nobody reads).
        rows: their number. last: the row that holds the makespan in the end.
        matrix, spread: the graph's combination of costs and its transpose, see `_in_blocks`.
        checks: (rows [n, 3, t], factor [n, t], strict [n, t]): comparisons to make in the end.
    """

    steps: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    rows: int
    last: int
    matrix: tuple[NDArray[Any], ...]
    spread: tuple[NDArray[Any], ...]
    checks: tuple[NDArray[Any], ...]

    def bytes_per_design(self, dtype: DTypeLike, *, paths: bool) -> int:
        """What one design takes of a device's memory."""
        places, size = self.steps[1].size, np.dtype(dtype).itemsize
        combined, costs = len(self.matrix[3]), len(self.spread[3])
        back = places + self.rows + 4 * combined + 8 * costs
        return int((self.rows + combined + costs) * size + paths * back)


def windowed(reduced: Reduced, checks: Checks | None = None) -> WindowedGraph:
    """Lay out a reduced graph, with comparisons of its finish times."""
    levels = cut(reduced.pred_ptr, reduced.pred, reduced.cost.astype(np.int32))
    pred, cost = np.asarray(levels.pred), np.asarray(levels.cost)
    steps, width = cost.shape
    place = np.asarray(levels.place).astype(np.int64)
    compared = np.zeros((3, 0), np.int64)
    factor, strict = np.zeros(0), np.zeros(0, bool)
    if checks is not None:
        compared = place[np.stack([checks.a, checks.b, checks.c])]
        factor, strict = checks.factor, checks.strict
    last_place = int(place[-1])
    kept = np.unique(np.append(compared, last_place))
    row, rows = _rows(pred.reshape(-1, 2), steps, width, kept)
    matrix, place_of = _in_blocks(reduced.combination)
    first, column, weight, cost_place = _in_blocks(reduced.combination.T.tocsr())[0]
    return WindowedGraph(
        (
            np.append(row, 0)[pred].astype(np.int32),
            place_of[np.maximum(cost, 0)],  # combined cost 0 is nothing
            row.reshape(steps, width),
        ),
        rows,
        int(row[last_place]),
        matrix,
        (first, place_of[column], weight, cost_place),
        _in_groups(row[compared], factor, strict),
    )


def _in_groups(
    rows: NDArray[Any], factor: NDArray[Any], strict: NDArray[Any]
) -> tuple[NDArray[Any], ...]:
    """Comparisons in groups of `TOGETHER`, filled up with 0 s <= 0 s."""
    groups = -(-len(factor) // TOGETHER)
    empty = groups * TOGETHER - len(factor)
    return (
        np.pad(rows, ((0, 0), (0, empty))).reshape(3, groups, TOGETHER).swapaxes(0, 1),
        np.pad(factor, (0, empty)).reshape(groups, TOGETHER),
        np.pad(strict, (0, empty)).reshape(groups, TOGETHER),
    )


def _in_blocks(matrix: sparse.csr_array) -> tuple[tuple[NDArray[Any], ...], NDArray[np.int32]]:
    """A sparse matrix [K, S] as blocks of `BLOCK` rows that take one number each, and the place of each row.

    Rows with many numbers come first, so that the rows which have a k-th one are a run from the first row on; blocks
    go over the first numbers of all rows, then the second ones, and so on: the sum of a row is in order of columns,
    as on the host, and the same whatever happens at the same time.

    Returns:
        (first row [n], column [n, BLOCK], weight [n, BLOCK], row in the order of the matrix [K]); [K] place.
    """
    count = np.diff(matrix.indptr)
    order = np.argsort(-count, kind="stable")
    at, columns, weights = [], [], []
    for k in range(int(count.max(initial=0))):
        mine = matrix.indptr[order[: int((count > k).sum())]] + k
        for first in range(0, len(mine), BLOCK):
            here = mine[first : first + BLOCK]
            empty = (0, BLOCK - len(here))
            at.append(first)
            columns.append(np.pad(matrix.indices[here], empty))
            weights.append(np.pad(matrix.data[here], empty))
    place = np.empty(len(order), np.int32)
    place[order] = np.arange(len(order))
    blocks = (
        np.array(at, np.int32),
        np.array(columns, np.int32).reshape(-1, BLOCK),
        np.array(weights, np.float64).reshape(-1, BLOCK),
        place,
    )
    return blocks, place


@machine_code
def _rows(
    pred: NDArray[Any], steps: int, width: int, kept: NDArray[Any]
) -> tuple[NDArray[Any], int]:
    """Row of each place: free again after the step that reads it last; rows are read before they are written.

    Those of the places in `kept` are never free again.
    """
    nowhere = steps * width
    last_read = np.full(nowhere, -1, np.int64)
    for place in range(nowhere):
        for k in range(2):
            if pred[place, k] < nowhere:
                last_read[pred[place, k]] = place // width
    for place in kept:
        last_read[place] = steps
    row = np.ones(nowhere, np.int32)
    free = np.empty(nowhere + 1, np.int32)
    count = 0
    rows = 2
    released = np.zeros(steps + 2, np.int64)
    for place in range(nowhere):
        if last_read[place] >= 0:
            released[last_read[place] + 1] += 1
    released = np.cumsum(released)
    by_read = np.empty(nowhere, np.int64)
    fill = released.copy()
    for place in range(nowhere):
        if last_read[place] >= 0:
            by_read[fill[last_read[place]]] = place
            fill[last_read[place]] += 1
    for step in range(steps):
        for k in range(released[step], released[step + 1]):
            free[count] = row[by_read[k]]
            count += 1
        for place in range(step * width, (step + 1) * width):
            if last_read[place] >= 0:
                if count:
                    count -= 1
                    row[place] = free[count]
                else:
                    row[place] = rows
                    rows += 1
    return row, rows


def _product(blocks: tuple[Array, ...], values: Array, zeros: Array) -> Array:
    """A sparse matrix in blocks times values [S, D], added to zeros [places, D]; rows by place."""

    def add(total: Array, block: tuple[Array, ...]) -> tuple[Array, None]:
        first, column, weight = block
        here = lax.dynamic_slice_in_dim(total, first, BLOCK)
        here = here + weight[:, None].astype(total.dtype) * values[column]
        return lax.dynamic_update_slice_in_dim(total, here, first, 0), None

    total: Array = lax.scan(add, zeros, blocks[:3])[0]
    return total


def _held(checks: tuple[Array, ...], finish: Array, held: Array) -> Array:
    """[D] whether all comparisons hold; `held` [D] is true."""

    def compare(held: Array, group: tuple[Array, ...]) -> tuple[Array, None]:
        (a, b, c), factor, strict = group
        here = finish[a] * factor[:, None].astype(finish.dtype)
        there = jnp.maximum(finish[b], finish[c])
        holds = jnp.where(strict[:, None], here < there, here <= there)
        return held & holds.all(axis=0), None

    result: Array = lax.scan(compare, held, checks)[0]
    return result


@partial(jax.jit, static_argnames=("rows", "columns", "paths"))
def run(
    plan: tuple[Any, ...], costs: Array, *, rows: int, columns: NamedSharding, paths: bool
) -> tuple[Array, Array, Array]:
    """[D] makespan, [D] whether all comparisons hold, [S, D] path counts (or none), of costs [S, D].

    Args:
        plan, rows: what `laid_out` gives, `WindowedGraph.rows`. columns: how the designs are shared out.
    """
    steps, last, matrix, spread, checks = plan
    designs = costs.shape[1]

    def zeros(height: int, dtype: Any) -> Any:
        return jax.jit(jnp.zeros, static_argnums=(0, 1), out_shardings=columns)(
            (height, designs), dtype
        )

    # as high as the last block may reach
    height = len(matrix[3]) + BLOCK
    combined = _product(matrix, costs, zeros(height, costs.dtype))

    def forward(finish: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array | None]:
        pred, cost, row = now
        first, second = finish[pred[:, 0]], finish[pred[:, 1]]
        ends = jnp.maximum(first, second) + combined[cost]
        return finish.at[row].set(ends), second > first if paths else None

    finish, chosen = lax.scan(forward, zeros(rows, costs.dtype), steps)
    held = _held(checks, finish, zeros(1, costs.dtype)[0] == 0)
    if not paths:
        return finish[last], held, costs[:0]

    def backward(
        state: tuple[Array, Array], now: tuple[Any, Any]
    ) -> tuple[tuple[Array, Array], None]:
        (on, counts), ((pred, cost, row), second) = state, now
        mine = on[row]
        counts = counts.at[cost].add(mine.astype(counts.dtype))
        on = on.at[row].set(jnp.uint8(0))
        on = on.at[pred[:, 1]].max(mine & second.astype(on.dtype))
        on = on.at[pred[:, 0]].max(mine & (~second).astype(on.dtype))
        return (on, counts), None

    start = zeros(rows, jnp.uint8).at[last].set(jnp.uint8(1)), zeros(height, jnp.int32)
    (_, counts), _ = lax.scan(backward, start, (steps, chosen), reverse=True)
    often = _product(spread, counts.astype(float), zeros(len(spread[3]) + BLOCK, float))
    return finish[last], held, often[spread[3]]


def laid_out(plan: WindowedGraph, columns: NamedSharding) -> Any:
    """What `run` takes of a plan, a copy on each device."""
    layout = (plan.steps, plan.last, plan.matrix, plan.spread, plan.checks)
    everywhere = PartitionSpec()  # type: ignore[no-untyped-call, unused-ignore]
    return jax.device_put(layout, NamedSharding(columns.mesh, everywhere))


def split_over(devices: Sequence[Any]) -> NamedSharding:
    """Columns of a table [rows, designs] shared out over devices."""
    split = PartitionSpec(None, "designs")  # type: ignore[no-untyped-call, unused-ignore]
    return NamedSharding(Mesh(np.array(devices), ("designs",)), split)


def makespans(
    plan: WindowedGraph,
    costs: NDArray[np.floating],
    *,
    paths: bool = False,
    dtype: DTypeLike = np.float64,
    devices: Sequence[Any] | None = None,
    batch: int | None = None,
    held: NDArray[np.uint8] | None = None,
) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
    """The makespan on every design, and its derivative with respect to each distinct cost.

    Args:
        plan: a reduced graph, laid out.
        costs: [S, D] duration of each distinct cost on each design [s].
        paths: whether derivatives are wanted.
        dtype: float64 or float32.
        devices: JAX devices that share the designs, all of the default platform by default.
        batch: designs per device at a time; by default as many as `MEMORY` holds, at most `BATCH`.
        held: [D], becomes 1 where all of the plan's comparisons hold, 0 elsewhere.

    Returns:
        [D] makespan [s], and [S, D] path counts ([0, D] where they are not wanted); at ties as in `bulk_cpu`.
    """
    devices = jax.devices() if devices is None else list(devices)
    designs = costs.shape[1]
    makespan = np.empty(designs, dtype)
    counts = np.empty((len(costs) if paths else 0, designs))
    if not designs or not len(costs):  # a trace of metadata: nothing takes time
        return np.zeros_like(makespan), counts
    if batch is None:
        batch = min(BATCH, max(MEMORY // plan.bytes_per_design(dtype, paths=paths), 1))
    columns = split_over(devices)
    size = min(batch, -(-designs // len(devices))) * len(devices)
    layout = laid_out(plan, columns)
    for at in range(0, designs, size):
        part = np.asarray(costs[:, at : at + size], dtype)
        width = part.shape[1]
        part = jax.device_put(np.pad(part, ((0, 0), (0, size - width))), columns)
        found, sure, often = run(layout, part, rows=plan.rows, columns=columns, paths=paths)
        makespan[at : at + size] = np.asarray(found)[:width]
        counts[:, at : at + size] = np.asarray(often)[:, :width]
        if held is not None:
            held[at : at + size] = np.asarray(sure)[:width]
    return makespan, counts
