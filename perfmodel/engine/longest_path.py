"""The longest path through a frozen graph, level by level in JAX.

``finish[v] = max(finish[u] for u before v, default 0) + cost[v]``, for all vertices of a level at once; levels are
steps of a `lax.scan`, wide levels several steps. The derivative of the makespan with respect to a cost is how
often that cost stands on the critical path (the path indicator): a linear rule (`custom_jvp`), so that jit, vmap,
forward and reverse mode all work. At a tie the predecessor with the lowest number is on the path: the derivative
is then that of one of the equally long paths, a one-sided one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code

STEP_OVERHEAD = 200
"""What a scan step costs, in elements of work: decides how wide a step is."""


SHORT_SCAN = 64
"""Up to so many steps a compilation takes longer than the work that padding adds."""


@partial(
    jax.tree_util.register_dataclass,
    data_fields=("pred", "cost", "place"),
    meta_fields=(),
)
@dataclass(frozen=True)
class Levels:
    """A graph cut into steps of equal width; the arrays are padded so that few shapes occur.

    They are NumPy's: arrays that JAX made while it traced one function would not be usable in another.

    Attributes:
        pred: [steps, width, 2] i32, places of the two predecessors; the last place holds 0 s.
        cost: [steps, width] i32, row of the cost table; the row past its end costs nothing.
        place: [V] i32, place (step x width + column) of each vertex.
    """

    pred: Any
    cost: Any
    place: Any


def cut(ptr: NDArray[np.int64], pred: NDArray[np.int32], cost: NDArray[np.int32]) -> Levels:
    """Cut a graph in topological order into steps.

    Args:
        ptr, pred: [V+1], [E], predecessors (smaller numbers).
        cost: [V], row of the cost table, -1 for no cost.
    """
    number, pair, cost = _at_most_two(ptr, pred, cost)
    level = _levels(pair)
    order = np.argsort(level, kind="stable")
    count = np.bincount(level)
    width = _width(count)
    steps_of = -(-count // width)
    steps = _bucket(int(steps_of.sum()))
    first = np.concatenate([[0], np.cumsum(steps_of)[:-1]]) * width
    begin = np.cumsum(count) - count
    place = np.empty(len(cost), np.int64)
    place[order] = (first - begin)[level[order]] + np.arange(len(cost))
    nowhere = steps * width
    table = np.full((nowhere, 2), nowhere, np.int32)
    table[place] = np.append(place, nowhere)[pair]
    costs = np.full(steps * width, -1, np.int32)
    costs[place] = cost
    return Levels(
        table.reshape(steps, width, 2),
        costs.reshape(steps, width),
        place[number].astype(np.int32),
    )


@machine_code(small=True)
def _at_most_two(
    ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Every larger maximum as a tree of vertices without cost.

    Neighbours are joined, so that of equally late predecessors the first one still comes first.
    Returns (number [V] of each vertex, predecessors [W, 2] with -1 for none, cost [W]), in topological order.
    """
    vertices = cost.size
    extra = 0
    for v in range(vertices):
        extra += max(0, ptr[v + 1] - ptr[v] - 2)
    number = np.empty(vertices, np.int64)
    pair = np.full((vertices + extra, 2), -1, np.int64)
    new_cost = np.full(vertices + extra, -1, np.int32)
    left = np.empty(pred.size + 1, np.int64)
    count = 0
    for v in range(vertices):
        size = ptr[v + 1] - ptr[v]
        for k in range(size):
            left[k] = number[pred[ptr[v] + k]]
        while size > 2:
            joined = 0
            for k in range(0, size - 1, 2):
                pair[count, 0], pair[count, 1] = left[k], left[k + 1]
                left[joined] = count
                joined += 1
                count += 1
            if size % 2:
                left[joined] = left[size - 1]
                joined += 1
            size = joined
        for k in range(size):
            pair[count, k] = left[k]
        new_cost[count] = cost[v]
        number[v] = count
        count += 1
    return number, pair, new_cost


@machine_code(small=True)
def _levels(pair: NDArray[Any]) -> NDArray[Any]:
    """[W] length of the longest chain of edges that ends in each vertex."""
    level = np.zeros(pair.shape[0], np.int64)
    for v in range(pair.shape[0]):
        for k in range(2):
            if pair[v, k] >= 0 and level[pair[v, k]] >= level[v]:
                level[v] = level[pair[v, k]] + 1
    return level


def _width(count: np.ndarray) -> int:
    """The step width with the least total work."""
    best, width = np.inf, 1
    for k in range(int(np.ceil(np.log2(count.max()))) + 1):
        w = 1 << k
        work = (-(-count // w)).sum() * (STEP_OVERHEAD + w)
        if work < best:
            best, width = work, w
    return width


def _bucket(steps: int) -> int:
    """Round up to a power of two times 1, 1.25, 1.5 or 1.75: few shapes, few compilations.

    Short scans to a power of two.
    """
    if steps <= SHORT_SCAN:
        return 1 << max(steps - 1, 0).bit_length()
    scale = 1 << max(steps.bit_length() - 3, 0)
    return -(-steps // scale) * scale


def _scan(pred: Array, row: Array, cost: Array) -> tuple[Array, Array]:
    """Start [steps x width] and finish [steps x width + 1] of every place [s]."""
    steps, width = row.shape
    duration = jnp.append(cost, jnp.zeros(1, cost.dtype))[row]

    def step(finish: Array, now: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        k, pred, duration = now
        start = jnp.max(finish[pred], axis=1)
        finish = lax.dynamic_update_slice(finish, start + duration, (k * width,))
        return finish, start

    finish = jnp.zeros(steps * width + 1, cost.dtype)
    finish, start = lax.scan(step, finish, (jnp.arange(steps), pred, duration))
    return start.ravel(), finish


def path_counts(levels: Levels, cost: Array) -> tuple[Array, Array]:
    """The makespan, and how often each cost stands on the critical path.

    Args:
        levels: V vertices.
        cost: [S], the cost table [s].

    Returns:
        makespan [s]; [S] counts, the derivative of the makespan.
    """
    _, finish = _scan(levels.pred, levels.cost, cost)
    pred = jnp.asarray(levels.pred).reshape(-1, 2)
    row = jnp.asarray(levels.cost).ravel()
    nowhere = finish.size - 1

    def step(state: tuple[Array, Array]) -> tuple[Array, Array]:
        v, counts = state
        counts = counts.at[row[v]].add(jnp.where(row[v] >= 0, 1.0, 0.0))
        a, b = pred[v, 0], pred[v, 1]
        return jnp.where(finish[b] > finish[a], b, a), counts

    last = levels.place[-1]
    counts = jnp.zeros(cost.shape[0], finish.dtype)
    _, counts = lax.while_loop(lambda state: state[0] < nowhere, step, (last, counts))
    return finish[last], counts


@jax.custom_jvp
def makespan(levels: Levels, cost: Array) -> Array:
    """Finish of the last vertex [s], from the cost table [S] s; differentiable in the costs."""
    _, finish = _scan(levels.pred, levels.cost, cost)
    return finish[levels.place[-1]]


@makespan.defjvp
def _makespan_jvp(
    primals: tuple[Levels, Array], tangents: tuple[Any, Array]
) -> tuple[Array, Array]:
    levels, cost = primals
    value, counts = path_counts(levels, cost)
    return value, jnp.vdot(lax.stop_gradient(counts), tangents[1])
