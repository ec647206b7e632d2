"""The kernels and messages of a layer of experts on one rank.

T' tokens of the rank (T / t: with tensor parallelism every rank of the group sends out its own part, which it holds
under sequence parallelism and cuts out of the whole without it) go to `top` experts each:

    rows sent        R = T' top, or E ceil(T' top capacity / E) with a capacity
    rows received    R times the load of the rank's experts, 1 where loads are even
    an all-to-all    e h R bytes a rank, of the most loaded rank where loads are uneven
    experts' rows    those received by all expert-tensor ranks together, as each has a part of every expert

Loads: expert i draws a share proportional to (i + 1)^-skew; with a capacity every expert is filled or padded to it.
Sources: Lepikhin et al. 2021 (GShard, arXiv:2006.16668) for capacity and the two all-to-alls; Fedus et al. 2022
(arXiv:2101.03961) for the capacity factor; Singh et al. 2023 (DeepSpeed-TED, arXiv:2303.06318) for the tokens of
tensor-parallel ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from perfmodel.synth.kernel_record import LayerPart
from perfmodel.synth.kernels import LayerKernels


@dataclass(frozen=True)
class Experts:
    """A layer's experts on the rank at place `index` of its expert group."""

    kernels: LayerKernels
    index: int = 0

    @property
    def local(self) -> int:
        """Experts on a rank."""
        s = self.kernels.settings
        return s.model.experts // s.expert

    @property
    def tokens(self) -> int:
        """T', tokens that a rank sends out."""
        s = self.kernels.settings
        return -(-s.tokens // s.tensor)

    @property
    def sent(self) -> int:
        """R, rows that a rank sends out."""
        s, m = self.kernels.settings, self.kernels.model
        rows = self.tokens * m.top_k
        if s.capacity is None:
            return rows
        return m.experts * ceil(rows * s.capacity / m.experts)

    def loads(self) -> np.ndarray:
        """[ep] rows that each rank of the group receives, over those it would with even loads."""
        s, m = self.kernels.settings, self.kernels.model
        if s.capacity is not None:  # what does not fit is dropped, and what is free is padded
            return np.ones(s.expert)
        share = (1.0 + np.arange(m.experts)) ** -s.skew
        share *= m.experts / share.sum()
        loads: np.ndarray = share.reshape(s.expert, -1).mean(axis=1)
        return loads

    @property
    def received(self) -> int:
        """Rows that come to this rank's experts."""
        return max(round(self.sent * float(self.loads()[self.index])), 1)

    @property
    def message(self) -> int:
        """Bytes that a rank hands to an all-to-all [B]."""
        s = self.kernels.settings
        most = max(1.0, float(self.loads().max()))
        return s.number * s.model.hidden * round(self.sent * most)

    @property
    def rows(self) -> int:
        """Rows that this rank's experts work on."""
        return self.received * self.kernels.settings.expert_tensor

    @property
    def inner(self) -> int:
        """Inner size of an expert on a rank."""
        s = self.kernels.settings
        return s.model.expert_inner // s.expert_tensor

    def router(self) -> LayerPart:
        """Scores of every expert for every token."""
        m = self.kernels.model
        return self.kernels.product(
            "router", self.tokens, m.hidden, m.experts, bias=m.router_bias, wide=True
        )

    def choice(self) -> LayerPart:
        """The `top` scores of each token, and their weights."""
        k, numbers = self.kernels, self.tokens * self.kernels.model.experts
        return LayerPart(
            (k.passes("choice", "reduction", numbers, 3, 4),),
            (k.passes("choice.gradient", "reduction", numbers, 3, 2),),
        )

    def permute(self) -> LayerPart:
        """Tokens sorted by expert, each `top` times."""
        return self._move("permute", self.tokens + self.sent)

    def sort(self) -> LayerPart:
        """Received rows sorted by expert; with one expert a rank, or all of them, there is nothing to do."""
        s = self.kernels.settings
        return (
            self._move("sort", 2 * self.rows)
            if self.local > 1 and s.expert > 1
            else LayerPart((), ())
        )

    def unpermute(self) -> LayerPart:
        """Experts' results back in the order of tokens, summed with their weights."""
        return self._move("unpermute", self.tokens + self.sent)

    def _move(self, name: str, rows: int) -> LayerPart:
        k = self.kernels
        numbers = rows * k.model.hidden
        return LayerPart(
            (k.passes(name, "elementwise", numbers, 1),),
            (k.passes(f"{name}.gradient", "elementwise", numbers, 1),),
        )

    def up(self) -> LayerPart:
        """Hidden to inner size in every local expert."""
        wide = 2 if self.kernels.model.gated else 1
        return self._product("experts.up", self.kernels.model.hidden, wide * self.inner)

    def down(self) -> LayerPart:
        """Inner to hidden size in every local expert."""
        return self._product("experts.down", self.inner, self.kernels.model.hidden)

    def activation(self) -> LayerPart:
        """The activation of the experts' inner numbers."""
        return self.kernels.activation(self.rows * self.inner, "experts.activation")

    def _product(self, name: str, inputs: int, outputs: int) -> LayerPart:
        """One product with each local expert's weights, in one kernel."""
        rows = -(-self.rows // self.local)
        return self.kernels.product(name, rows, inputs, outputs, bias=False, batch=self.local)
