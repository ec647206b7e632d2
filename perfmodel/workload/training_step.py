"""What a graph does for a model: tokens and operations of the step, and the memory that its ranks hold.

Generators fill this in; a graph that was read from trace files does not know it. Hardware appears nowhere in here.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

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

    @property
    def peak(self) -> float:
        """Bytes of the rank that holds most [B]."""
        return float(self.memory.sum(axis=1).max())
