"""A training step of a mixture of experts: tokens travel to experts on other ranks and back.

Sources: Lepikhin et al. 2021 (GShard, arXiv:2006.16668), section 2.2, for capacity and the two all-to-alls;
Fedus et al. 2022 (Switch Transformer, arXiv:2101.03961), section 2.2, for the capacity factor; Rajbhandari et al.
2022 (DeepSpeed-MoE, arXiv:2201.05596), section 5, for expert parallelism beside data parallelism.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, isfinite

import numpy as np

from perfmodel.errors import InputError
from perfmodel.synth.checks import divisible, whole
from perfmodel.synth.layout import Layout
from perfmodel.synth.passes import (
    After,
    backward,
    embedding_backward,
    embedding_forward,
    forward,
    head_backward,
    head_forward,
)
from perfmodel.synth.role import Role
from perfmodel.synth.steps import WORLD, Steps, Work
from perfmodel.synth.transformer import Transformer
from perfmodel.synth.workload import Workload

EXPERT = "expert"
REPLICA = "expert_data"


def moe(
    *,
    layers: int,
    hidden: int,
    heads: int,
    experts: int,
    ranks: int,
    expert_parallel: int | None = None,
    top_k: int = 2,
    capacity_factor: float = 1.0,
    moe_every: int = 1,
    sequence: int = 2048,
    vocabulary: int = 51_200,
    feed_forward: int | None = None,
    batch: int = 1,
    dtype_bytes: int = 2,
    gradient_bytes: int | None = None,
) -> Workload:
    """One training step of a GPT whose mlp blocks are experts.

    All ranks are data-parallel. Experts are spread over groups of `expert_parallel` consecutive ranks; rank =
    i_expert + expert_parallel x i_replica. With C = ceil(top_k x batch x sequence x capacity_factor / experts)
    tokens from each rank for each expert (tokens are spread evenly), a rank hands C x experts x hidden x dtype_bytes
    bytes to an all-to-all before and after its experts, twice forward and twice backward, and its experts work on
    C x experts tokens: two products hidden -> feed_forward -> hidden with (experts / expert_parallel) sets of
    weights, 4 x C x experts x hidden x feed_forward FLOP forward and twice that backward. The router is a product
    hidden -> experts. Everything but the experts is all-reduced over all ranks, layer by layer during the backward
    pass; the experts' gradients over the ranks that have the same ones.

    FLOP and bytes of the other kernels: `synth.transformer`, with tensor = 1.

    Args:
        layers, hidden, heads: of the model.
        experts: in each layer that has them.
        ranks: of the job.
        expert_parallel: ranks that hold all experts together, all unless given; at least 2.
        top_k: experts that each token goes to.
        capacity_factor: room for uneven routing, 1 for none.
        moe_every: every so many layers the mlp is experts (layers moe_every - 1, 2 moe_every - 1, ...).
        sequence, vocabulary: s, V [tokens].
        feed_forward: of the mlp and of each expert, 4 x hidden unless given.
        batch: sequences per rank and step.
        dtype_bytes: of weights and activations [B].
        gradient_bytes: of a gradient that is reduced [B], dtype_bytes unless given.

    Raises:
        InputError: a number that is not positive, or that ranks cannot share equally.

    Example:
        >>> moe(layers=2, hidden=256, heads=4, experts=8, ranks=8).ranks
        8
    """
    whole(layers=layers, hidden=hidden, heads=heads, experts=experts, top_k=top_k)
    whole(moe_every=moe_every)
    whole(2, ranks=ranks)
    expert_parallel = ranks if expert_parallel is None else expert_parallel
    whole(2, expert_parallel=expert_parallel)
    divisible("ranks", ranks, expert_parallel=expert_parallel)
    divisible("experts", experts, expert_parallel=expert_parallel)
    if top_k > experts:
        raise InputError(f"top_k: got {top_k}, expected at most the number of experts, {experts}.")
    if not (isfinite(capacity_factor) and capacity_factor > 0):
        raise InputError(f"capacity_factor: got {capacity_factor}, expected a positive number.")
    if moe_every > layers:
        raise InputError(
            f"moe_every: got {moe_every}, which leaves none of {layers} layers with experts."
            f" Expected at most {layers}."
        )
    whole(dtype_bytes=dtype_bytes)
    gradient_bytes = dtype_bytes if gradient_bytes is None else gradient_bytes
    whole(gradient_bytes=gradient_bytes)
    model = Transformer(
        hidden=hidden,
        heads=heads,
        sequence=sequence,
        vocabulary=vocabulary,
        micro_batch=batch,
        feed_forward=4 * hidden if feed_forward is None else feed_forward,
        dtype_bytes=dtype_bytes,
    )
    capacity = ceil(top_k * model.tokens * capacity_factor / experts)
    routed = _Experts(model, experts, experts // expert_parallel, capacity * experts)
    layout = Layout({EXPERT: expert_parallel, REPLICA: ranks // expert_parallel})
    groups = {EXPERT: layout.along(EXPERT), REPLICA: layout.along(REPLICA)}
    sparse = [(layer + 1) % moe_every == 0 for layer in range(layers)]
    steps = _steps(model, routed, sparse, ranks // expert_parallel, gradient_bytes)
    name = (
        f"moe: {layers} layers of {hidden}, {experts} experts on {ranks} ranks"
        f" in groups of {expert_parallel}"
    )
    return Workload(name, (Role(steps, np.arange(ranks, dtype=np.int32), groups),))


@dataclass(frozen=True)
class _Experts:
    """An expert block on one rank.

    Attributes:
        experts, local: of the layer, and on this rank.
        rows: tokens that a rank sends out, and that its experts receive.
    """

    model: Transformer
    experts: int
    local: int
    rows: int

    @property
    def message(self) -> int:
        """Bytes a rank hands to an all-to-all [B]."""
        return self.model.dtype_bytes * self.rows * self.model.hidden

    @property
    def router(self) -> Work:
        """Scores of every expert for every token."""
        return self.model.product(self.model.hidden, self.experts)

    @property
    def parameters(self) -> int:
        """Of this rank's experts: two matrices and two biases each."""
        h, f = self.model.hidden, self.model.feed_forward
        return self.local * (2 * h * f + f + h)

    @property
    def dense_parameters(self) -> int:
        """Of the block's norm and router."""
        return self.model.norm_parameters + self.model.hidden * self.experts

    def product(self, inputs: int, outputs: int) -> Work:
        """One product of all local experts, each with its own weights."""
        m, e = self.rows, self.model.dtype_bytes
        numbers = m * inputs + self.local * inputs * outputs + m * outputs
        return Work(2 * m * inputs * outputs, e * numbers)

    @property
    def up(self) -> Work:
        """hidden -> feed_forward."""
        return self.product(self.model.hidden, self.model.feed_forward)

    @property
    def down(self) -> Work:
        """feed_forward -> hidden."""
        return self.product(self.model.feed_forward, self.model.hidden)

    def forward(self, steps: Steps, where: str, after: After) -> int:
        """Route, send tokens out, compute, send them back."""
        name = f"{where}.moe"
        last = steps.compute(f"{name}.norm", self.model.norm, after)
        last = steps.compute(f"{name}.router", self.router, [last])
        last = self._exchange(steps, f"{name}.dispatch", last)
        last = steps.compute(f"{name}.experts.up", self.up, [last])
        last = steps.compute(f"{name}.experts.down", self.down, [last])
        return self._exchange(steps, f"{name}.combine", last)

    def backward(self, steps: Steps, where: str, after: After) -> tuple[int, int]:
        """The way back; returns the gradient of the input, and the kernel that ends the experts' gradients."""
        name = f"{where}.moe"
        last = steps.collective(f"{name}.combine", "all_to_all", self.message, EXPERT, after)
        gradient = steps.compute(f"{name}.experts.down.input_gradient", self.down, [last])
        steps.compute(f"{name}.experts.down.weight_gradient", self.down, [last])
        last = steps.compute(f"{name}.experts.up.input_gradient", self.up, [gradient])
        back = self._exchange(steps, f"{name}.dispatch", last)
        ready = steps.compute(f"{name}.experts.up.weight_gradient", self.up, [gradient])
        steps.compute(f"{name}.router.input_gradient", self.router, [back])
        steps.compute(f"{name}.router.weight_gradient", self.router, [back])
        return steps.compute(f"{name}.norm", self.model.norm * 2), ready

    def _exchange(self, steps: Steps, name: str, last: int) -> int:
        return steps.collective(name, "all_to_all", self.message, EXPERT, [last])


def _steps(
    model: Transformer, routed: _Experts, sparse: Sequence[bool], replicas: int, gradient_bytes: int
) -> Steps:
    """The program of every rank."""
    steps = Steps()
    x = embedding_forward(steps, model, "fwd")
    for layer, has_experts in enumerate(sparse):
        where = f"fwd.layer{layer}"
        x = forward(steps, model, where, block=model.attention, after=[x])
        if has_experts:
            x = routed.forward(steps, where, [x])
        else:
            x = forward(steps, model, where, block=model.mlp, after=[x])
    x = head_forward(steps, model, "fwd", [x])

    parameters = 0
    reductions: list[int | None] = []

    def ready(part: str, count: int, group: str = WORLD, after: int | None = None) -> None:
        """A gradient is complete."""
        nonlocal parameters
        parameters += count
        if group == REPLICA and replicas == 1:
            return
        name, size = f"step.{part}.grad_all_reduce", gradient_bytes * count
        after = steps.last if after is None else after
        reductions.append(steps.collective(name, "all_reduce", size, group, [after]))

    x = head_backward(steps, model, "bwd", [x])
    ready("head", model.norm_parameters + model.word_parameters)
    for layer in range(len(sparse) - 1, -1, -1):
        where, part = f"bwd.layer{layer}", f"layer{layer}"
        if sparse[layer]:
            x, complete = routed.backward(steps, where, [x])
            ready(f"{part}.experts", routed.parameters, REPLICA, complete)
            rest = routed.dense_parameters
        else:
            x = backward(steps, model, where, block=model.mlp, after=[x])
            rest = model.mlp_parameters
        x = backward(steps, model, where, block=model.attention, after=[x])
        ready(part, model.attention_parameters + rest)
    embedding_backward(steps, model, "bwd", [x])
    ready("embedding", model.embedding_parameters)
    work = model.optimizer(parameters, gradient_bytes)
    steps.compute("step.optimizer", work, reductions)
    return steps
