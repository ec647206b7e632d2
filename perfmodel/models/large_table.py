"""Tables of very many distinct costs, evaluated a stretch of rows at a time.

A program of XLA that holds a table as constants takes seconds to compile for every million rows, and its results as
much room as the table. Here rows are arguments: one small program per kind of cost serves all stretches, and what a
stretch gives can be summed up while it is in the cache.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel.machine.system import System
from perfmodel.models.cost import Models, block_time, durations
from perfmodel.models.cost_blocks import CostBlock, DistinctCosts
from perfmodel.models.shared_costs import Costs
from perfmodel.parameter_paths import with_parameters
from perfmodel.threads import in_threads

LARGE = 300_000
"""From so many distinct costs on they are evaluated by stretches."""

STRETCH = 1 << 18
"""Rows at a time."""

SLOPES = 1 << 13
"""Rows at a time where derivatives with respect to all parameters are asked for."""


class LargeTable:
    """Evaluates a large table of S distinct costs: (system, models) -> [S] seconds."""

    def __init__(self, work: DistinctCosts):
        self.work = work
        self.own = jax.jit(partial(durations, work))
        # functions of this table alone: a model's class may be changed before the next one is made
        self._seconds = jax.jit(partial(_seconds), static_argnums=0)
        self._slopes = jax.jit(partial(_slopes), static_argnums=(0, 1))
        self.begin = np.concatenate([[0], np.cumsum([len(b.rows) for b in work.blocks])])
        # (first row, rows and scales as JAX has them, how many of them count, key) of each stretch
        self._parts: list[tuple[int, Any, Any, int, Any]] = [
            (int(first) + at, *_padded(block, slice(at, at + STRETCH), full), block.key)
            for first, block in zip(self.begin, work.blocks)
            for full in [STRETCH if len(block.rows) > STRETCH else 0]
            for at in range(0, len(block.rows), STRETCH)
        ]

    def __call__(self, system: System, models: Any) -> Any:
        """All costs; traced parameters make it a formula with the table as constants."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((system, models))):
            return self.own(system, models)
        seconds = np.empty(len(self.work))

        def work(share: int) -> None:
            for first, part in self.stretches(system, models, share, 2):
                seconds[first : first + len(part)] = part

        in_threads(work, (0, 1))
        return seconds

    def stretches(
        self, system: System, models: Any, share: int = 0, shares: int = 1
    ) -> Iterator[tuple[int, NDArray[np.float64]]]:
        """The costs by stretches of rows: (number of the first one, seconds); all, or one of equal shares of them."""
        for k, (first, rows, scale, count, key) in enumerate(self._parts):
            if len(self._parts) * share <= k * shares < len(self._parts) * (share + 1):
                yield first, np.asarray(self._seconds(key, rows, scale, system, models))[:count]

    def slopes(
        self,
        chosen: NDArray[np.integer],
        names: tuple[str, ...],
        point: NDArray[Any],
        at: tuple[System, Any],
    ) -> Iterator[tuple[NDArray[np.integer], NDArray[np.float64]]]:
        """Derivatives of some costs, ascending, with respect to P parameters at a point [P], by stretches of them.

        Yields:
            [k] costs; [k, P] their derivatives.
        """
        place = np.searchsorted(chosen, self.begin)
        for block, first, a, b in zip(self.work.blocks, self.begin, place[:-1], place[1:]):
            for k in range(a, b, SLOPES):
                some = chosen[k : min(k + SLOPES, b)]
                rows, scale, count = _padded(block, some - first, SLOPES if b - a > SLOPES else 0)
                slope = self._slopes(block.key, names, rows, scale, at, np.asarray(point))
                yield some, np.asarray(slope)[:count]


def _padded(block: CostBlock, here: Any, least: int) -> tuple[Any, Any, int]:
    """Some rows of a block for JAX, filled up with the last one to a power of two: few shapes; and how many count.

    At least so many as there are in other stretches of the block. A scale that all of them share is one number.
    """
    rows, scale = block.rows[here], block.scale[here]
    count = len(rows)
    more = max(1 << max(count - 1, 0).bit_length(), least) - count
    if (scale == scale[0]).all():
        scale = scale[0]
    elif more:
        scale = np.pad(scale, (0, more), mode="edge")
    if more:
        rows = np.pad(rows, ((0, more), (0, 0)), mode="edge")
    return jax.device_put(rows), jax.numpy.asarray(scale), count


def evaluate_of(work: DistinctCosts) -> Callable[[System, Any], Any]:
    """What evaluates a table of distinct costs at any rates: (system, models) -> [S] seconds."""
    return LargeTable(work) if len(work) >= LARGE else Costs(work)


def _seconds(key: Any, rows: Any, scale: Any, system: System, models: Models) -> jax.Array:
    """[rows] durations of one stretch [s]."""
    block = CostBlock(key, rows, scale, 0)
    seconds: jax.Array = (
        jax.numpy.broadcast_to(block_time(block, system, models), (len(rows),)) * scale
    )
    return seconds


def _slopes(
    key: Any, names: tuple[str, ...], rows: Any, scale: Any, at: tuple[System, Models], point: Any
) -> jax.Array:
    """[rows, P] derivatives of one stretch."""

    def seconds(values: Any) -> jax.Array:
        return _seconds(key, rows, scale, *with_parameters(*at, dict(zip(names, values))))

    def along(direction: Any) -> jax.Array:
        found: jax.Array = jax.jvp(seconds, (point,), (direction,))[1]
        return found

    return jax.vmap(along, out_axes=1)(jax.numpy.eye(len(names)))
