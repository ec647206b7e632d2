"""A training step with fully sharded parameters: PyTorch's FSDP, ZeRO stage 3.

Sources: Rajbhandari et al. 2020 (ZeRO, arXiv:1910.02054); Zhao et al. 2023 (PyTorch FSDP, arXiv:2304.11277),
section 3.3 for prefetching and its limit.
"""

from __future__ import annotations

import numpy as np

from perfmodel.synth.checks import whole
from perfmodel.synth.passes import (
    After,
    embedding_backward,
    embedding_forward,
    head_backward,
    head_forward,
    layer_backward,
    layer_forward,
)
from perfmodel.synth.role import Role
from perfmodel.synth.steps import WORLD, Steps
from perfmodel.synth.transformer import Transformer
from perfmodel.synth.workload import Workload


def fsdp(
    *,
    layers: int,
    hidden: int,
    heads: int,
    ranks: int,
    sequence: int = 2048,
    vocabulary: int = 51_200,
    feed_forward: int | None = None,
    batch: int = 1,
    dtype_bytes: int = 2,
    gradient_bytes: int | None = None,
) -> Workload:
    """One training step of a GPT whose parameters are sharded over all ranks.

    Units are the embedding, each layer, and the head (which has its own weights). A rank owns
    ceil(parameters / ranks) of each. Before a unit runs, forward or backward, an all-gather collects it (each rank
    hands in its shard); after its backward pass a reduce-scatter adds its gradients up (each rank hands in all of
    them). One unit ahead is gathered while another runs, so at most two are whole at a time. The head stays whole
    between its two passes. Then each rank steps the optimizer on its shards.

    FLOP and bytes of kernels: `synth.transformer`, with tensor = 1.

    Args:
        layers, hidden, heads: of the model.
        ranks: that share the parameters, each with its own data; at least 2.
        sequence, vocabulary: s, V [tokens].
        feed_forward: 4 x hidden unless given.
        batch: sequences per rank and step.
        dtype_bytes: of weights and activations [B].
        gradient_bytes: of a gradient that is reduced [B], dtype_bytes unless given.

    Raises:
        InputError: a number that is not positive, heads that do not divide hidden.

    Example:
        >>> fsdp(layers=2, hidden=256, heads=4, ranks=8).graph()
        Graph('fsdp: 2 layers of 256 on 8 ranks': 8 ranks, 456 nodes, 1 distinct programs, 1 groups)
    """
    whole(layers=layers, hidden=hidden, heads=heads)
    whole(2, ranks=ranks)
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
    units = ["embedding", *(f"layer{k}" for k in range(layers)), "head"]
    parameters = [
        model.embedding_parameters,
        *[model.layer_parameters] * layers,
        model.norm_parameters + model.word_parameters,
    ]
    shard = [-(-count // ranks) for count in parameters]
    steps = Steps()
    top = len(units) - 1

    def gather(direction: str, unit: int) -> int | None:
        """The all-gather of a unit; it waits for what ran before, so that two units are whole at most."""
        if not 0 <= unit <= top:
            return None
        name, size = f"{direction}.{units[unit]}.all_gather", dtype_bytes * shard[unit]
        return steps.collective(name, "all_gather", size, WORLD, [steps.last])

    x: int | None = None
    weights = gather("fwd", 0)
    for k, unit in enumerate(units):
        ahead = gather("fwd", k + 1)
        # a unit's first kernel waits for its weights; those after it follow in the rank's order
        x = _forward(steps, model, unit, [x, weights])
        weights = ahead
    reductions: list[int] = []
    weights = None
    for k in range(top, -1, -1):
        ahead = gather("bwd", k - 1)
        x = _backward(steps, model, units[k], [x, weights])
        size = gradient_bytes * shard[k] * ranks
        name = f"step.{units[k]}.grad_reduce_scatter"
        reductions.append(steps.collective(name, "reduce_scatter", size, WORLD, [steps.last]))
        weights = ahead
    steps.compute("step.optimizer", model.optimizer(sum(shard), gradient_bytes), reductions)
    name = f"fsdp: {layers} layers of {hidden} on {ranks} ranks"
    return Workload(name, (Role(steps, np.arange(ranks, dtype=np.int32)),))


def _forward(steps: Steps, model: Transformer, unit: str, after: After) -> int:
    """A unit's forward pass."""
    if unit == "embedding":
        return embedding_forward(steps, model, "fwd", after)
    if unit == "head":
        return head_forward(steps, model, "fwd", after)
    return layer_forward(steps, model, f"fwd.{unit}", after)


def _backward(steps: Steps, model: Transformer, unit: str, after: After) -> int:
    """A unit's backward pass."""
    if unit == "embedding":
        return embedding_backward(steps, model, "bwd", after)
    if unit == "head":
        return head_backward(steps, model, "bwd", after)
    return layer_backward(steps, model, f"bwd.{unit}", after)
