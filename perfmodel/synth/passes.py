"""The forward and backward passes of a transformer's parts as steps: what runs, and what waits for what.

With tensor parallelism the ranks of a group hold partial results, which are summed (Shoeybi et al. 2019,
arXiv:1909.08053); with sequence parallelism each holds a part of the tokens between blocks, so that the sum is a
reduce-scatter and the way back an all-gather (Korthikanti et al. 2022, arXiv:2205.05198).
"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.synth.steps import Steps
from perfmodel.synth.transformer import Block, Transformer

TENSOR = "tensor"
"""Label of a rank's tensor-parallel group."""

After = Sequence[int | None]


def gather(steps: Steps, model: Transformer, name: str, after: After) -> After:
    """Collect all tokens where each rank holds a part of them; else there is nothing to do.

    Returns:
        What the next node has to wait for.
    """
    if model.shards == 1:
        return after
    size = model.activation // model.tensor
    return [steps.collective(f"{name}.all_gather", "all_gather", size, TENSOR, after)]


def reduce(steps: Steps, model: Transformer, name: str, last: int) -> int:
    """Sum the tensor group's partial results, `last` being the rank's own; nothing to do for a group of one."""
    if model.tensor == 1:
        return last
    kind = "reduce_scatter" if model.sequence_parallel else "all_reduce"
    return steps.collective(f"{name}.{kind}", kind, model.activation, TENSOR, [last])


def forward(
    steps: Steps, model: Transformer, where: str, *, block: Block, after: After = ()
) -> int:
    """A block's forward pass up to its partial result.

    Args:
        where: the nodes' names up to the block's.
        after: what its input comes from.

    Returns:
        The node that yields the partial result.
    """
    name = f"{where}.{block.name}"
    last = steps.compute(f"{name}.norm", block.norm, after)
    after = gather(steps, model, name, [last])
    for kernel in block.kernels:
        after = [last := steps.compute(f"{name}.{kernel.name}", kernel.forward, after)]
    return last


def backward(
    steps: Steps, model: Transformer, where: str, *, block: Block, after: After = ()
) -> int:
    """A block's backward pass, from the gradient of its partial result to that of its input.

    The reduction of the input's gradient overlaps the weights' gradient. With sequence parallelism only a part of
    the input was kept: it is gathered again while the input's gradient is computed (Korthikanti et al., section
    4.2.2).
    """
    name = f"{where}.{block.name}"
    for kernel in reversed(block.kernels):
        part = f"{name}.{kernel.name}"
        if not kernel.product:
            after = [steps.compute(part, kernel.forward * 2, after)]
            continue
        first = kernel is block.kernels[0]
        stored = gather(steps, model, f"{part}.input", after) if first else ()
        gradient = after
        last = steps.compute(f"{part}.input_gradient", kernel.forward, gradient)
        after = [reduce(steps, model, name, last) if first else last]
        steps.compute(f"{part}.weight_gradient", kernel.forward, [*gradient, *stored])
    return steps.compute(f"{name}.norm", block.norm * 2, after)


def layer_forward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """Attention and mlp, forward; returns the node that yields the layer's output."""
    for block in (model.attention, model.mlp):
        last = forward(steps, model, where, block=block, after=after)
        after = [last := reduce(steps, model, f"{where}.{block.name}", last)]
    return last


def layer_backward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """Mlp and attention, backward; returns the node that yields the gradient of the layer's input."""
    for block in (model.mlp, model.attention):
        after = gather(steps, model, f"{where}.{block.name}.gradient", after)
        after = [last := backward(steps, model, where, block=block, after=after)]
    return last


def embedding_forward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """Look-up; with tensor parallelism every rank has a part of the vocabulary, and the parts are summed."""
    found = steps.compute(f"{where}.embedding.lookup", model.embedding, after)
    return reduce(steps, model, f"{where}.embedding", found)


def embedding_backward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """The gradient of the embedding's rows."""
    after = gather(steps, model, f"{where}.embedding.gradient", after)
    return steps.compute(f"{where}.embedding.lookup", model.embedding * 2, after)


def head_forward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """Logits and loss.

    With tensor parallelism each rank has the logits of a part of the vocabulary: the maximum, the target's logit
    and the sum of exponentials are all-reduced, 4 b s bytes each (Shoeybi et al. 2019, section 3).
    """
    last = forward(steps, model, where, block=model.head, after=after)
    last = steps.compute(f"{where}.head.loss", model.loss, [last])
    if model.tensor > 1:
        for value in ("maximum", "target", "sum"):
            name = f"{where}.head.loss.{value}.all_reduce"
            last = steps.collective(name, "all_reduce", 4 * model.tokens, TENSOR, [last])
    return last


def head_backward(steps: Steps, model: Transformer, where: str, after: After = ()) -> int:
    """From the loss back to the gradient of the last layer's output."""
    last = steps.compute(f"{where}.head.loss", model.loss * 2, after)
    return backward(steps, model, where, block=model.head, after=[last])
