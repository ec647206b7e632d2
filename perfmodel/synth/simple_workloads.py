"""Workloads without a model: one collective, and a plain data-parallel chain of kernels."""

from __future__ import annotations

import numpy as np

from perfmodel.errors import InputError
from perfmodel.synth.parameter_checks import one_of, whole
from perfmodel.synth.role import Role
from perfmodel.synth.steps import WORLD, Steps, Work
from perfmodel.synth.workload import Workload
from perfmodel.vocabulary import COLLECTIVES


def collective(kind: str, ranks: int, size: int, *, repeat: int = 1) -> Workload:
    """One collective over all ranks, or several one after the other.

    Args:
        kind: one of `vocabulary.COLLECTIVES`, "all_reduce" for example.
        ranks: at least 2.
        size: bytes that each rank hands in: the shard of an all-gather, else the whole buffer; 0 for a barrier [B].
        repeat: how many.

    Raises:
        InputError: an unknown kind, or a number out of range.

    Example:
        >>> collective("all_gather", 4, 1024).nodes
        4
    """
    one_of("kind", kind, COLLECTIVES)
    whole(2, ranks=ranks)
    whole(0 if kind == "barrier" else 1, size=size)
    whole(repeat=repeat)
    if kind == "barrier" and size:
        raise InputError(f"size: got {size}, expected 0: a barrier carries no data.")
    steps = Steps()
    last: int | None = None
    for i in range(repeat):
        name = kind if repeat == 1 else f"{kind}{i}"
        last = steps.collective(name, kind, size, WORLD, [last])
    times = f"{repeat} x " if repeat > 1 else ""
    name = f"{times}{kind} of {size} B on {ranks} ranks"
    return Workload(name, (Role(steps, np.arange(ranks, dtype=np.int32)),))


def data_parallel(
    ranks: int,
    nodes_per_rank: int = 10_000,
    *,
    flops: int = 20_000_000_000,
    bytes: int = 50_000_000,
    bucket_layers: int = 8,
    bucket_bytes: int = 25 * 2**20,
) -> Workload:
    """Data parallelism at scale: a chain of kernels, gradients all-reduced in buckets behind it.

    Every rank runs L layers forward, each `flops` and `bytes`, then backward, each twice that; after every
    `bucket_layers` layers of the backward pass (and after the last) an all-reduce of `bucket_bytes` over all ranks
    starts; the optimizer waits for all of them. L is as large as fits into `nodes_per_rank` nodes,
    2 L + ceil(L / bucket_layers) + 1; up to two nodes that are left over are input kernels before the first layer.

    Args:
        ranks: at least 2.
        nodes_per_rank: exactly so many nodes on each rank; at least 4.
        flops, bytes: of a layer's forward pass [FLOP], [B].
        bucket_layers: layers whose gradients travel together.
        bucket_bytes: their size [B]; the default is that of PyTorch's DistributedDataParallel.

    Raises:
        InputError: a number out of range.

    Example:
        >>> data_parallel(1024, 100).graph()
        Graph('data_parallel: 1024 ranks of 100 nodes': 1024 ranks, 102,400 nodes, 1 distinct programs, 1 groups)
    """
    whole(2, ranks=ranks)
    whole(4, nodes_per_rank=nodes_per_rank)
    whole(flops=flops, bytes=bytes, bucket_layers=bucket_layers, bucket_bytes=bucket_bytes)

    def used(layers: int) -> int:
        return 2 * layers + -(-layers // bucket_layers) + 1

    layers = (nodes_per_rank - 1) * bucket_layers // (2 * bucket_layers + 1) + 1
    while used(layers) > nodes_per_rank:
        layers -= 1
    steps, work = Steps(), Work(flops, bytes)
    for i in range(nodes_per_rank - used(layers)):
        steps.compute(f"input{i}", work)
    for layer in range(layers):
        steps.compute(f"fwd.layer{layer}", work)
    reductions = []
    for layer in range(layers - 1, -1, -1):
        steps.compute(f"bwd.layer{layer}", work * 2)
        if layer % bucket_layers == 0:
            name = f"step.layer{layer}.grad_all_reduce"
            reductions.append(
                steps.collective(name, "all_reduce", bucket_bytes, WORLD, [steps.last])
            )
    steps.compute("step.optimizer", work, reductions)
    name = f"data_parallel: {ranks} ranks of {nodes_per_rank} nodes"
    return Workload(name, (Role(steps, np.arange(ranks, dtype=np.int32)),))
