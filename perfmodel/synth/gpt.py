"""A GPT training step with data, tensor and pipeline parallelism, as Megatron-LM runs it.

Sources: Shoeybi et al. 2019 (arXiv:1909.08053) for tensor parallelism; Narayanan et al. 2021 (arXiv:2104.04473)
for the 1F1B pipeline schedule and the operations; Korthikanti et al. 2022 (arXiv:2205.05198) for sequence
parallelism and selective recomputation. `synth.passes` has the order within a layer.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.synth.checks import divisible, one_of, whole
from perfmodel.synth.layout import Communicators, Layout, communicators
from perfmodel.synth.passes import (
    TENSOR,
    embedding_backward,
    embedding_forward,
    head_backward,
    head_forward,
    layer_backward,
    layer_forward,
)
from perfmodel.synth.role import Role
from perfmodel.synth.steps import Steps
from perfmodel.synth.transformer import Transformer
from perfmodel.synth.workload import Workload
from perfmodel.vocabulary import NodeType

RECOMPUTE = ("none", "selective", "full")
DATA = "data"
TIED = "tied"


def gpt(
    *,
    layers: int,
    hidden: int,
    heads: int,
    sequence: int = 2048,
    vocabulary: int = 51_200,
    feed_forward: int | None = None,
    micro_batch: int = 1,
    micro_batches: int = 1,
    data: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    sequence_parallel: bool = False,
    recompute: str = "none",
    dtype_bytes: int = 2,
    gradient_bytes: int | None = None,
) -> Workload:
    """One training step of a GPT on data x tensor x pipeline ranks.

    Ranks are laid out tensor fastest, then data, then pipeline: rank = i_t + t (i_d + d i_p), Megatron's order.
    A step's products take 72 B l s h^2 (1 + s/6h + V/12lh) FLOP over all ranks for a global batch of
    B = data x micro_batches x micro_batch sequences, 96 B l s h^2 (1 + s/6h + V/16lh) with full recomputation
    (Narayanan et al. 2021, equation 3); `synth.transformer` has the table of all parts.

    Each micro-batch goes forward and backward in the 1F1B order. A stage sends its output on as soon as it has
    it. Tensor parallelism adds two all-reduces per layer and pass, e b s h bytes each, overlapping the weights'
    gradients in the backward pass; sequence parallelism makes each a reduce-scatter and an all-gather. The
    gradients of a layer are all-reduced over the data-parallel ranks once the last micro-batch has passed it.
    The head uses the word embedding's weights: with a pipeline, first and last stage sum its gradient.

    Args:
        layers: l, in equal parts over the stages.
        hidden, heads: h, attention heads.
        sequence, vocabulary: s, V [tokens].
        feed_forward: f, 4 h unless given.
        micro_batch: b, sequences per micro-batch and data-parallel replica.
        micro_batches: micro-batches per step and replica.
        data, tensor, pipeline: ranks in each parallel dimension.
        sequence_parallel: split norms and embeddings over the tensor group, too.
        recompute: "none"; "selective" computes attention cores again in the backward pass, "full" whole layers.
        dtype_bytes: e, of weights and activations [B].
        gradient_bytes: of a gradient that is all-reduced [B], dtype_bytes unless given.

    Raises:
        InputError: a number that is not positive, or that ranks cannot share equally.

    Example:
        >>> gpt(layers=4, hidden=256, heads=4, data=2, tensor=2, pipeline=2, micro_batches=4).ranks
        8
    """
    one_of("recompute", recompute, RECOMPUTE)
    whole(layers=layers, hidden=hidden, micro_batches=micro_batches, data=data, pipeline=pipeline)
    whole(dtype_bytes=dtype_bytes)
    gradient_bytes = dtype_bytes if gradient_bytes is None else gradient_bytes
    whole(gradient_bytes=gradient_bytes)
    divisible("layers", layers, pipeline=pipeline)
    model = Transformer(
        hidden=hidden,
        heads=heads,
        sequence=sequence,
        vocabulary=vocabulary,
        micro_batch=micro_batch,
        feed_forward=4 * hidden if feed_forward is None else feed_forward,
        dtype_bytes=dtype_bytes,
        tensor=tensor,
        sequence_parallel=sequence_parallel,
    )
    layout = Layout({TENSOR: tensor, DATA: data, "pipeline": pipeline})
    groups = {TENSOR: layout.along(TENSOR), DATA: layout.along(DATA)}
    if pipeline > 1:
        groups[TIED] = _ends(layout)
    roles = []
    for index in range(pipeline):
        stage = _Stage(
            model,
            index,
            pipeline,
            layers=range(index * layers // pipeline, (index + 1) * layers // pipeline),
            micro_batches=micro_batches,
            replicas=data,
            hop=layout.stride("pipeline"),
            recompute=recompute,
            gradient_bytes=gradient_bytes,
        )
        roles.append(Role(stage.steps(), layout.at("pipeline", index), groups))
    name = (
        f"gpt: {layers} layers of {hidden}, data {data} x tensor {tensor} x pipeline {pipeline},"
        f" {micro_batches} micro-batches of {micro_batch} x {sequence}"
    )
    return Workload(name, tuple(roles))


def one_forward_one_backward(stage: int, stages: int, micro_batches: int) -> list[tuple[str, int]]:
    """The order of a stage's passes: fill with stages - stage - 1 forwards, alternate, drain.

    Example:
        >>> [f"{p[0]}{i}" for p, i in one_forward_one_backward(0, 2, 3)]
        ['f0', 'f1', 'b0', 'f2', 'b1', 'b2']

    Source: Narayanan et al. 2021, section 2.2.1 and figure 4 (top).
    """
    fill = min(stages - stage - 1, micro_batches)
    order = [("fwd", i) for i in range(fill)]
    for i in range(micro_batches - fill):
        order += [("fwd", fill + i), ("bwd", i)]
    return order + [("bwd", i) for i in range(micro_batches - fill, micro_batches)]


def _ends(layout: Layout) -> Communicators:
    """Ranks of the first stage, each with its counterpart in the last."""
    first = layout.at("pipeline", 0)
    last = layout.at("pipeline", layout.dimensions["pipeline"] - 1)
    return communicators(np.stack([first, last], axis=1), layout.ranks)


@dataclass(frozen=True)
class _Stage:
    """One pipeline stage on its way to steps; `hop` is the distance to the next stage's rank."""

    model: Transformer
    index: int
    stages: int
    layers: range
    micro_batches: int
    replicas: int
    hop: int
    recompute: str
    gradient_bytes: int

    @property
    def first(self) -> bool:
        return self.index == 0

    @property
    def last(self) -> bool:
        return self.index == self.stages - 1

    @property
    def message(self) -> int:
        """Bytes of the activations that a rank hands to the next stage [B]."""
        return self.model.activation // self.model.shards

    def steps(self) -> Steps:
        """The stage's program."""
        steps = Steps()
        reductions: list[int] = []
        loss: int | None = None
        order = one_forward_one_backward(self.index, self.stages, self.micro_batches)
        for direction, micro_batch in order:
            if direction == "fwd":
                loss = self._forward(steps, micro_batch)
            else:
                reductions += self._backward(steps, micro_batch, loss)
        self._finish(steps, reductions)
        return steps

    def _forward(self, steps: Steps, i: int) -> int:
        """Micro-batch i from the stage before to the stage after; returns the loss or what was sent."""
        where, model = f"mb{i}.fwd", self.model
        if self.first:
            x = embedding_forward(steps, model, where)
        else:
            x = steps.receive(
                f"{where}.receive", self.message, -self.hop, tag=i, after=[steps.last]
            )
        for layer in self.layers:
            x = layer_forward(steps, model, f"{where}.layer{layer}", [x])
        if self.last:
            return head_forward(steps, model, where, [x])
        return steps.send(f"{where}.send", self.message, self.hop, tag=i, after=[x])

    def _backward(self, steps: Steps, i: int, loss: int | None) -> list[int]:
        """Micro-batch i back; returns the reductions of gradients, which follow the last one."""
        where, model = f"mb{i}.bwd", self.model
        reductions: list[int] = []

        def ready(part: str, parameters: int) -> None:
            if i == self.micro_batches - 1 and self.replicas > 1:
                name, size = f"step.{part}.grad_all_reduce", self.gradient_bytes * parameters
                reductions.append(steps.collective(name, "all_reduce", size, DATA, [steps.last]))

        if self.last:
            x = head_backward(steps, model, where, [loss])
            ready("head", self._head_parameters)
        else:
            x = steps.receive(f"{where}.receive", self.message, self.hop, tag=i, after=[steps.last])
        for layer in reversed(self.layers):
            part = f"layer{layer}"
            if self.recompute == "full":
                layer_forward(steps, model, f"mb{i}.recompute.{part}")
            elif self.recompute == "selective":
                core = next(k for k in model.attention.kernels if not k.product)
                steps.compute(f"mb{i}.recompute.{part}.attention.{core.name}", core.forward)
            x = layer_backward(steps, model, f"{where}.{part}", [x])
            if layer == self.layers[0] and not self.first:
                # before the reduction in program order: where both are ready, other stages wait for this
                steps.send(f"{where}.send", self.message, -self.hop, tag=i, after=[x])
            ready(part, model.layer_parameters)
        if self.first:
            embedding_backward(steps, model, where, [x])
            ready("embedding", model.embedding_parameters)
        return reductions

    def _finish(self, steps: Steps, reductions: list[int]) -> None:
        """Sum the tied weights' gradient over both ends of the pipeline, and step the optimizer.

        The sum comes last of all communication: a rank that waited in it for the other end of the pipeline
        while it still owed a message would stop both.
        """
        model = self.model
        waits = [*reductions, steps.last]
        if self.stages > 1 and (self.first or self.last):
            sent = [p for p, s in enumerate(steps.nodes) if s.type == NodeType.COMM_SEND]
            size = self.gradient_bytes * model.word_parameters
            name = "step.tied.grad_all_reduce"
            waits.append(steps.collective(name, "all_reduce", size, TIED, [*waits, *sent]))
        parameters = len(self.layers) * model.layer_parameters
        parameters += model.embedding_parameters * self.first + self._head_parameters * self.last
        steps.compute("step.optimizer", model.optimizer(parameters, self.gradient_bytes), waits)

    @property
    def _head_parameters(self) -> int:
        """Last norm, and the stage's own copy of the word embedding where the first stage is another one."""
        copy = 0 if self.first else self.model.word_parameters
        return self.model.norm_parameters + copy
