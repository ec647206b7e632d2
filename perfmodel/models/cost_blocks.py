"""The distinct costs of a graph as rows of numbers, before any model has made time of them."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError

BESIDE = "beside"
"""Marks the costs of kernels that run while a collective of their rank does."""


@dataclass(frozen=True)
class CostBlock:
    """Distinct costs of one kind: a static key and one row of numbers per cost.

    Keys and rows: ("compute", kind, dtype) FLOP, B, the kind's sizes (`vocabulary.DIMENSIONS`), with `BESIDE` after it
    also for which share of their time kernels are beside a collective; ("recorded",) s;
    ("memory", "local" | "remote") B; ("collective", kind, Span) B; ("point_to_point", hops) B. `scale` multiplies the
    cost.
    """

    key: tuple[Hashable, ...]
    rows: NDArray[np.float64]
    scale: NDArray[np.float64]
    category: int


@dataclass(frozen=True)
class DistinctCosts:
    """The distinct costs of a graph; a cost is named by its place in the concatenated blocks."""

    blocks: tuple[CostBlock, ...]

    def __len__(self) -> int:
        return sum(len(b.rows) for b in self.blocks)

    @property
    def category(self) -> NDArray[np.int8]:
        """[S] i8, category of each cost."""
        parts = [np.full(len(b.rows), b.category, np.int8) for b in self.blocks]
        return np.concatenate(parts) if parts else np.zeros(0, np.int8)


def check_costs(costs: NDArray[np.floating], work: DistinctCosts | None = None) -> None:
    """Raise InputError unless every duration [S] or [S, D] is a finite time >= 0.

    Args:
        costs: the table of distinct costs. work: what they are of, for the message.
    """
    if not costs.size or (costs.min() >= 0 and costs.max() < np.inf):
        return
    rows = costs.reshape(len(costs), -1)
    row = int(np.flatnonzero(~((rows >= 0) & (rows < np.inf)).all(axis=1))[0])
    value = rows[row][~((rows[row] >= 0) & (rows[row] < np.inf))][0]
    names = [" ".join(_words(b)) for b in work.blocks for _ in b.rows] if work else []
    what = f"of {names[row]} " if names else ""
    raise InputError(
        f"the model gives a duration {what}of {value:g} s; expected a finite time >= 0. Check the parameters and the "
        "formulas"
    )


def _words(block: CostBlock) -> list[str]:
    """What a block is of, for messages."""
    return [str(word) for word in block.key if word not in ("", "other")]


ALIGNMENT = 8
"""JAX takes tables as they are that begin at a multiple of so many numbers."""


def aligned(rows: int, columns: int) -> NDArray[np.float64]:
    """A table that JAX takes from NumPy as it is, without a copy; not yet filled."""
    table = np.empty(rows * columns + ALIGNMENT)
    first = -(table.ctypes.data // table.itemsize) % ALIGNMENT
    return table[first : first + rows * columns].reshape(rows, columns)
