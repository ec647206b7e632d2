"""The generators of earlier releases, as settings of `training`; they go with the next release.

They describe models of GPT-3's kind: biases, learned positions as long as the sequence, a plain mlp.
"""

from __future__ import annotations

import warnings
from typing import Any

from perfmodel.errors import InputError
from perfmodel.synth.parameter_checks import divisible, whole
from perfmodel.synth.sizes import Sizes
from perfmodel.synth.training import training
from perfmodel.synth.workload import Workload

TYPES = {1: "fp8", 2: "bf16", 4: "fp32"}
"""Types by the bytes of a number, which is what these generators were given."""


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
    """`training` with the sizes of a GPT: data, tensor and pipeline parallelism. Deprecated."""
    _warn("gpt", "data=, tensor=, pipeline=, ...")
    sizes = _sizes(layers, hidden, heads, sequence, vocabulary, feed_forward)
    return training(
        sizes,
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        micro_batch=micro_batch,
        micro_batches=micro_batches,
        sequence_parallel=sequence_parallel,
        recompute=recompute,
        **_types(dtype_bytes, gradient_bytes),
    )


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
    """`training` with `data=ranks, sharding=3` and a head of its own. Deprecated."""
    _warn("fsdp", "data=ranks, sharding=3, ...")
    whole(2, ranks=ranks)
    sizes = _sizes(layers, hidden, heads, sequence, vocabulary, feed_forward, tied=False)
    types = _types(dtype_bytes, gradient_bytes)
    return training(sizes, data=ranks, sharding=3, micro_batch=batch, **types)


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
    """`training` with experts, `data=ranks, expert=expert_parallel, capacity=capacity_factor`. Deprecated."""
    _warn("moe", "data=ranks, expert=..., capacity=..., ...")
    whole(2, ranks=ranks)
    expert_parallel = ranks if expert_parallel is None else expert_parallel
    divisible("ranks", ranks, expert_parallel=expert_parallel)
    if moe_every > layers:
        raise InputError(
            f"moe_every: got {moe_every}, which leaves none of {layers} layers with experts."
            f" Expected at most {layers}."
        )
    mixture = {"experts": experts, "top_k": top_k, "experts_every": moe_every}
    sizes = _sizes(layers, hidden, heads, sequence, vocabulary, feed_forward, **mixture)
    return training(
        sizes,
        data=ranks,
        expert=expert_parallel,
        capacity=capacity_factor,
        micro_batch=batch,
        **_types(dtype_bytes, gradient_bytes),
    )


def _warn(name: str, settings: str) -> None:
    warnings.warn(
        f"synth.{name} goes with the next release; say synth.training(sizes or a preset, {settings})",
        DeprecationWarning,
        stacklevel=3,
    )


def _sizes(
    layers: int,
    hidden: int,
    heads: int,
    sequence: int,
    vocabulary: int,
    feed_forward: int | None,
    **more: Any,
) -> Sizes:
    return Sizes(
        layers=layers,
        hidden=hidden,
        heads=heads,
        inner=feed_forward or 0,
        vocabulary=vocabulary,
        positions=sequence,
        sequence=sequence,
        name="gpt",
        **more,
    )


def _types(dtype_bytes: int, gradient_bytes: int | None) -> dict[str, Any]:
    for name, value in (("dtype_bytes", dtype_bytes), ("gradient_bytes", gradient_bytes)):
        if value is not None and value not in TYPES:
            raise InputError(f"{name}: got {value!r}, expected 1, 2 or 4.")
    gradient = dtype_bytes if gradient_bytes is None else gradient_bytes
    return {"dtype": TYPES[dtype_bytes], "gradient_dtype": TYPES[gradient]}
