"""Bulk evaluation in JAX: the engine for GPUs, one or several.

The same reduced graph as `engine` takes, cut into steps as in `longest_path`, for a whole batch of designs at once.
Finish times live in a window of rows, one design per column; a row is given to another vertex as soon as nothing
needs it any more. Every design is a column of its own, so the batch is sharded over devices without any exchange.
On a CPU `engine` is several times faster (see the benchmarks); this one is for where JAX finds something better.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import DTypeLike, NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.engine.longest_path import cut
from perfmodel.engine.reduction import Reduced

BATCH = 16_384
"""Designs per batch and device."""


@dataclass(frozen=True, eq=False)
class Window:
    """A reduced graph laid out in steps of w vertices over a window of rows.

    Attributes:
        pred: [steps, w, 2] i32, rows of the two predecessors; row 0 always holds 0 s.
        cost: [steps, w] i32, combined cost.
        row: [steps, w] i32, where the finish times go; row 1 takes what nobody reads.
        rows: their number. last: the row that holds the makespan in the end.
        combination: [K, S] how often each distinct cost is in each combined cost.
    """

    pred: NDArray[np.int32]
    cost: NDArray[np.int32]
    row: NDArray[np.int32]
    rows: int
    last: int
    combination: NDArray[np.float64]


def window(reduced: Reduced) -> Window:
    """Lay out a reduced graph."""
    levels = cut(reduced.pred_ptr, reduced.pred, reduced.cost.astype(np.int32))
    pred, cost = np.asarray(levels.pred), np.asarray(levels.cost)
    steps, width = cost.shape
    last = int(np.asarray(levels.place)[-1])
    row, rows = _rows(pred.reshape(-1, 2), steps, width, last)
    lookup = np.append(row, 0)
    return Window(
        pred=lookup[pred].astype(np.int32),
        cost=np.maximum(cost, 0),  # combined cost 0 is nothing
        row=row.reshape(steps, width),
        rows=rows,
        last=int(row[last]),
        combination=reduced.combination.toarray(),
    )


@machine_code
def _rows(pred: NDArray[Any], steps: int, width: int, last: int) -> tuple[NDArray[Any], int]:
    """Row of each place: free again after the step that reads it last; rows are read before they are written."""
    nowhere = steps * width
    last_read = np.full(nowhere, -1, np.int64)
    for place in range(nowhere):
        for k in range(2):
            if pred[place, k] < nowhere:
                last_read[pred[place, k]] = place // width
    last_read[last] = steps
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


@jax.jit
def _run(pred: Array, cost: Array, row: Array, last: Array, start: Array, combined: Array) -> Array:
    """[D] makespan from the combined costs [K, D] and a window of zeros [rows, D]."""

    def step(finish: Array, now: tuple[Array, Array, Array]) -> tuple[Array, None]:
        pred, cost, row = now
        ends = jnp.maximum(finish[pred[:, 0]], finish[pred[:, 1]]) + combined[cost]
        return finish.at[row].set(ends), None

    finish, _ = lax.scan(step, start, (pred, cost, row))
    return finish[last]


def makespans(
    plan: Window,
    costs: NDArray[np.floating],
    *,
    dtype: DTypeLike = np.float64,
    devices: Sequence[Any] | None = None,
    batch: int = BATCH,
) -> NDArray[np.floating]:
    """The makespan on every design.

    Args:
        plan: a reduced graph, laid out.
        costs: [S, D] duration of each distinct cost on each design [s].
        dtype: float64 or float32.
        devices: JAX devices that share the designs, all of the default platform by default.
        batch: designs per device at a time: the window takes rows x batch numbers.

    Returns:
        [D] makespan [s].
    """
    devices = jax.devices() if devices is None else list(devices)
    split = PartitionSpec(None, "designs")  # type: ignore[no-untyped-call, unused-ignore]
    columns = NamedSharding(Mesh(np.array(devices), ("designs",)), split)
    size = min(batch, -(-costs.shape[1] // len(devices))) * len(devices)
    start = jax.device_put(np.zeros((plan.rows, size), dtype), columns)
    makespan = np.empty(costs.shape[1], dtype)
    for at in range(0, costs.shape[1], size):
        part = costs[:, at : at + size]
        width = part.shape[1]
        padded = np.pad(plan.combination @ part, ((0, 0), (0, size - width))).astype(dtype)
        combined = jax.device_put(padded, columns)
        found = _run(plan.pred, plan.cost, plan.row, plan.last, start, combined)
        makespan[at : at + size] = np.asarray(found)[:width]
    return makespan
