"""Memory of ranks from the tensors that a trace names: what is there before the step, and what comes and goes.

A reader says for a rank at which node memory grows (as the node begins) and at which it shrinks (as it ends). When that
is, and so the peak, follows from when the nodes run. Hardware appears nowhere in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError


@dataclass(frozen=True, eq=False)
class RankTensors:
    """What the tensors of one rank hold.

    Attributes:
        before: bytes that are there before the first node [B].
        node: [c] i64, positions of nodes; change: [c] f64, by how many bytes memory grows as the node begins, or
            shrinks (< 0) as it ends [B].
        source: what it is read from, and what that cannot see.

    Raises:
        InputError: columns of different lengths, or numbers that are none.
    """

    before: float
    node: NDArray[np.int64]
    change: NDArray[np.float64]
    source: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "node", np.asarray(self.node, np.int64))
        object.__setattr__(self, "change", np.asarray(self.change, np.float64))
        if self.node.shape != self.change.shape or self.node.ndim != 1:
            raise InputError(
                f"tensors: node has shape {self.node.shape}, change {self.change.shape}, expected one number each"
            )
        if not (np.isfinite(self.before) and np.isfinite(self.change).all() and self.before >= 0):
            raise InputError("tensors: hold bytes that are no finite number, or fewer than none")


@dataclass(frozen=True, eq=False)
class TensorMemory:
    """What the tensors of all ranks hold.

    Attributes:
        kinds: the distinct ones.
        kind: [R] i32, which of them each rank has; -1: its trace names no tensors.
    """

    kinds: tuple[RankTensors, ...]
    kind: NDArray[np.int32]

    def check(self, ranks: int, nodes: Sequence[int]) -> None:
        """Raise ValueError unless it fits a graph.

        Args:
            ranks: of the graph; nodes: of each of its ranks.
        """
        if len(self.kind) != ranks or not len(self.kinds):
            raise ValueError("the tensors are not one kind per rank")
        if self.kind.min() < -1 or self.kind.max() >= len(self.kinds):
            raise ValueError("the tensors name a kind of rank that they do not describe")
        for kind, size in zip(self.kind.tolist(), nodes):
            node = self.kinds[kind].node if kind >= 0 else self.kinds[0].node[:0]
            if len(node) and (node.min() < 0 or node.max() >= size):
                raise ValueError("the tensors name a node that the graph does not have")


def together(ranks: Sequence[RankTensors | None]) -> TensorMemory | None:
    """The tensors of all ranks; None where no rank has any."""
    known: dict[int, int] = {}
    kinds: list[RankTensors] = []
    kind = np.full(len(ranks), -1, np.int32)
    for rank, tensors in enumerate(ranks):
        if tensors is not None:
            if id(tensors) not in known:
                known[id(tensors)] = len(kinds)
                kinds.append(tensors)
            kind[rank] = known[id(tensors)]
    return TensorMemory(tuple(kinds), kind) if kinds else None
