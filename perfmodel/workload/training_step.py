"""What a graph does for a model: tokens and operations of the step, and the memory that its ranks hold.

Generators fill this in and files of this package keep it; other traces do not know it. Hardware appears nowhere here.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

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

    def text(self, rank: int) -> str:
        """What one rank's file says of the step, as JSON: the figures of all, and those of its kind of rank."""
        kind = int(self.kind[rank])
        mine = self.change_kind == kind
        return json.dumps(
            {
                "tokens": self.tokens,
                "model_flops": self.model_flops,
                "hardware_flops": self.hardware_flops,
                "dtype": self.dtype,
                "kind": kind,
                "memory": self.memory[kind].tolist(),
                "change_node": self.change_node[mine].tolist(),
                "change": self.change[mine].tolist(),
            }
        )

    @staticmethod
    def of_texts(texts: Sequence[str]) -> TrainingStep:
        """Back from what the files of all ranks say.

        Args:
            texts: of rank 0, 1, ... (see `text`).

        Raises:
            ValueError, TypeError, KeyError, OverflowError: they do not say one thing, or are damaged.
        """
        number = {text: k for k, text in enumerate(dict.fromkeys(texts))}
        said = [json.loads(text) for text in number]
        figures = [
            (int(s["tokens"]), float(s["model_flops"]), float(s["hardware_flops"]), str(s["dtype"]))
            for s in said
        ]
        if len(set(figures)) > 1:
            raise ValueError("ranks disagree about the step")
        by_kind = {int(s["kind"]): s for s in said}
        if len(by_kind) < len(said) or sorted(by_kind) != list(range(len(said))):
            raise ValueError("the kinds of ranks are not 0, 1, ..., each described once")
        ordered = [by_kind[k] for k in range(len(said))]
        memory = np.array([s["memory"] for s in ordered], np.float64)
        if memory.shape != (len(ordered), len(PARTS)):
            raise ValueError(f"memory is not one figure for each of {', '.join(PARTS)}")
        change = [np.array(s["change"], np.float64) for s in ordered]
        return TrainingStep(
            *figures[0],
            memory=memory,
            kind=np.array([said[number[text]]["kind"] for text in texts], np.int32),
            change_kind=np.repeat(np.arange(len(ordered), dtype=np.int32), list(map(len, change))),
            change_node=np.concatenate([_whole(s["change_node"]) for s in ordered]),
            change=np.concatenate(change),
        )

    @property
    def peak(self) -> float:
        """Bytes of the rank that holds most [B]."""
        return float(self.memory.sum(axis=1).max())


def _whole(values: Any) -> NDArray[np.int64]:
    """A list of whole numbers as an array."""
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError("change_node is no list of whole numbers")
    return np.array(values, np.int64)
