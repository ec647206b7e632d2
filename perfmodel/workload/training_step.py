"""What a graph does for a model: tokens and operations of the step, and the memory that its ranks hold.

Generators fill this in; a graph that was read from trace files does not know it. Hardware appears nowhere in here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from perfmodel.vocabulary import DTYPES

PARTS = ("weights", "gradients", "optimizer", "activations", "kv_cache", "buffers")
"""What memory is held for."""

ACTIVATIONS = PARTS.index("activations")


@dataclass(frozen=True, eq=False)
class TrainingStep:
    """One training step of R ranks.

    Attributes:
        tokens: of the step, over all ranks.
        model_flops: of the model, forward and backward [FLOP]; hardware_flops: with what is computed again.
        dtype: of the products, whose peak rate utilization refers to.
        memory: [P, 6] f64, bytes of each of `PARTS` at the peak, of P kinds of ranks [B].
        kind: [R] i32, which of them each rank is.
        change_kind, change_node, change: [c] of the activations over the step: the kind of rank, the position of
            the node, and by how many bytes they grow as it begins, or shrink (< 0) as it ends [B].
    """

    tokens: int
    model_flops: float
    hardware_flops: float
    dtype: str
    memory: NDArray[np.float64]
    kind: NDArray[np.int32]
    change_kind: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    change_node: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    change: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))

    def check(self, ranks: int, nodes: Sequence[int]) -> None:
        """Raise ValueError unless the arrays fit a graph.

        Args:
            ranks: of the graph; nodes: of each of its ranks.
        """
        kinds, changes = len(self.memory), len(self.change)
        sizes = {len(self.change_kind), len(self.change_node), changes}
        if len(self.kind) != ranks or len(sizes) > 1 or not kinds or self.tokens < 1:
            raise ValueError("the step's arrays do not fit the graph")
        for which in (self.kind, self.change_kind):
            if len(which) and not (which.min() >= 0 and which.max() < kinds):
                raise ValueError("the step names a kind of rank that it does not describe")
        known = self.dtype in DTYPES and np.isfinite([self.model_flops, self.hardware_flops]).all()
        if not (known and np.isfinite(self.memory).all() and np.isfinite(self.change).all()):
            raise ValueError("the step holds what is no number, or an unknown dtype")
        size = np.full(kinds, np.iinfo(np.int64).max)
        np.minimum.at(size, self.kind, np.asarray(nodes, np.int64))
        if (
            changes
            and not ((self.change_node >= 0) & (self.change_node < size[self.change_kind])).all()
        ):
            raise ValueError("the step names a node that the graph does not have")

    @property
    def peak(self) -> float:
        """Bytes of the rank that holds most [B]."""
        return float(self.memory.sum(axis=1).max())
