"""One training step of a transformer on any combination of parallel dimensions: `training`.

What runs on a rank is put together from the modules beside this one: `sizes` and `presets` (the model), `settings` (how
it is spread), `kernels` and `experts` (work), `blocks` and `routing` (passes of a layer, with their communication),
`schedules` (order of passes), `stage` and `finish` (a stage's program), `tiling` (repetition), `states` and `memory`.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.synth.chunk_passes import DistinctPasses
from perfmodel.synth.configuration import configuration
from perfmodel.synth.grid import Grid
from perfmodel.synth.memory import rank_memory
from perfmodel.synth.operations import step_flops
from perfmodel.synth.parameter_checks import whole
from perfmodel.synth.presets import PRESETS, preset
from perfmodel.synth.role import Role
from perfmodel.synth.settings import USUAL_OVERLAPS, Settings, overlaps
from perfmodel.synth.sizes import Sizes, sizes_of
from perfmodel.synth.stage import Stage
from perfmodel.synth.workload import Workload
from perfmodel.workload.training_step import PARTS, TrainingStep

Model = str | Path | Sizes | Mapping[str, Any]

NODE_BYTES = 1000
"""Memory that a prediction takes for every node of the distinct programs, at least [B]."""


def training(
    model: Model,
    *,
    data: int = 1,
    tensor: int = 1,
    pipeline: int = 1,
    context: int = 1,
    expert: int = 1,
    expert_tensor: int = 1,
    virtual: int = 1,
    schedule: str = "1f1b",
    micro_batch: int = 1,
    micro_batches: int | None = None,
    global_batch: int | None = None,
    sequence: int | None = None,
    dtype: str = "bf16",
    sequence_parallel: bool = False,
    recompute: str | int | Iterable[str] = "none",
    sharding: int | str = 0,
    distributed_optimizer: bool = False,
    overlap: bool | str | Iterable[str] = USUAL_OVERLAPS,
    first_stage_layers: int | None = None,
    last_stage_layers: int | None = None,
    offload: str | Iterable[str] | Mapping[str, float] = (),
    skew: float = 0.0,
    capacity: float | None = None,
    attention: str | None = None,
    dropout: bool | None = None,
    fused_loss: bool | None = None,
    gradient_dtype: str | None = None,
    gather_dtype: str | None = None,
    accumulation: str | None = None,
    optimizer_bytes: int = 12,
    bucket: int | None = None,
    shard_ranks: int = 8,
    reshard: bool | None = None,
    context_method: str = "ring",
    rank_order: str = "tensor-context-data-pipeline",
    clip: bool = True,
    gap: float = 2e-6,
    host_forward: float = 0.0,
    host_backward: float = 0.0,
    host_kernel: float = 0.0,
    host_waits: str = "never",
    reserved: int = 0,
    fragmentation: float = 0.0,
) -> Workload:
    """One training step of a transformer on data x tensor x pipeline x context ranks.

    Every rank runs its kernels on one stream, and the collectives of each communicator on that communicator's stream,
    each in the order of issue. Of passes of "dualpipe-v" that run side by side, whichever is ready is first, so that
    ranks that differ, as with a straggler, may wait for each other. A step's products and attention take `.flops` over
    all ranks (see `Sizes.token_flops`); what is computed again comes on top (`.hardware_flops`).

    Args:
        model: a preset ("llama-3-70b"; `synth.presets.names()` lists them), the path of a Hugging Face `config.json`
            or of its folder, or a record of sizes (`synth.Sizes`, or a mapping of its fields: layers, hidden, heads,
            kv_heads, inner, vocabulary, ...).
        data, tensor, pipeline, context: ranks in each parallel dimension; tensor is innermost.
        expert, expert_tensor: ranks that share a layer's experts, and that share each expert; together a divisor of
            tensor x context x data, on whose ranks they lie.
        virtual: v, chunks of layers that each pipeline stage holds.
        schedule: "gpipe", "1f1b" ("interleaved" where virtual > 1), "zero-bubble", and of two chunks
            (virtual=2) "zero-bubble-v", "dualpipe-v".
        micro_batch: sequences that go through at once.
        micro_batches, global_batch: micro-batches of a step on each replica (1 unless given), or sequences of a step
            over all.
        sequence: tokens of a sequence, those that the model was trained on unless given. Learned positions become as
            many where the model has fewer.
        dtype: of products in the layers; beside "fp8" and "fp4" all else is "bf16".
        sequence_parallel: tensor-parallel ranks hold a part of the tokens each between blocks.
        recompute: "none"; "selective" computes attention again in the backward pass; "full" whole layers; a number
            that many first layers of every chunk; or names of parts: "attention", "norm", "activation", "mlp".
        sharding: over data x context ranks, 0 nothing, 1 the optimizer's states, 2 gradients, too, 3 parameters, too
            (FSDP); "hybrid" as 3 within groups of `shard_ranks`, whose gradients are summed over the groups.
        distributed_optimizer: Megatron-LM's name for sharding = 1.
        overlap: what runs beside computation: "gradients" (reduced in buckets), "parameters" (fetched ahead), "tensor"
            (collectives in parts beside their products), "pipeline" (messages between stages, where the schedule is
            not plain 1f1b), "sums" (a tensor-parallel sum of an input's gradient beside the product of the weights',
            as Megatron-LM has it since 2022); True for all, False for nothing.
        first_stage_layers, last_stage_layers: layers of the first and the last chunk of the pipeline.
        offload: "optimizer", "activations", or a share of each: sent to remote memory while they are not needed.
        skew: expert i draws a share of tokens proportional to (i + 1)^-skew; 0 for equal loads.
        capacity: rows that an expert takes, and is padded to, over those of equal loads; None drops nothing.
        attention: "flash", or "unfused" with its traffic of scores and without regard to the mask, the usual for models
            of GPT-3's time (learned positions).
        dropout: masks are made and kept; the usual where positions are learned.
        fused_loss: softmax and cross-entropy in one kernel and in 16 bits; the usual where positions are not learned.
        gradient_dtype: of gradients as they are summed, "fp32" unless given.
        gather_dtype: of parameters as they are gathered, 16 bits unless given.
        accumulation: how a micro-batch's gradients join those before: "fused" into the product that makes them
            (Megatron-LM's default), by a kernel that adds them to a "buffer" (the usual where parameters are sharded
            and stay whole, reshard=False), or by PyTorch's "autograd", in the weights' type and from the second
            micro-batch on. Nothing is added where each micro-batch's gradients are reduced (sharding 2, and 3
            otherwise).
        optimizer_bytes: of the optimizer's states, a parameter: master weight and both moments in fp32.
        bucket: parameters of a bucket; Megatron-LM's max(40 million, 1 million x ranks) unless given.
        shard_ranks: of "hybrid".
        reshard: gathered parameters are dropped after the forward pass; unless given, where there is no pipeline.
        context_method: "ring", "all_gather" or "all_to_all".
        rank_order: of the parallel dimensions, innermost first.
        clip: gradients are clipped by their global norm.
        gap: least time between two kernels of a rank [s].
        host_forward, host_backward: the host's time to launch a layer's kernels [s]. Those that are computed again are
            launched again; the head, with the loss, has about as many as a layer.
        host_kernel: the host's time to launch each kernel and each collective of layers and head [s], one after the
            other, on top of these.
        host_waits: whether the host, before it launches more, waits for what it has launched: "never"; before each
            "pass" of a micro-batch, as Megatron-LM's timers had it until 2022; or before each "layer", too, as
            Megatron-DeepSpeed's --synchronize-each-layer has it.
        reserved: memory that libraries and the allocator hold [B]; fragmentation: share of activations lost to it.

    Raises:
        InputError: settings that do not fit each other or the model; says what does.

    Example:
        >>> training("llama-3-8b", data=2, tensor=2, pipeline=2, micro_batches=4).ranks
        8
    """
    sizes = sizes_from(model)
    learned = sizes.positions > 0
    micro_batches = _micro_batches(micro_batches, global_batch, data, micro_batch)
    if distributed_optimizer and sharding == 0:
        sharding = 1
    wide = "bf16" if dtype in ("fp8", "fp4") else dtype
    settings = Settings(
        model=sizes,
        data=data,
        tensor=tensor,
        pipeline=pipeline,
        context=context,
        expert=expert,
        expert_tensor=expert_tensor,
        virtual=virtual,
        schedule=schedule,
        micro_batch=micro_batch,
        micro_batches=micro_batches,
        sequence=sizes.sequence if sequence is None else sequence,
        dtype=dtype,
        sequence_parallel=sequence_parallel,
        recompute=recompute if isinstance(recompute, str | int) else _words("recompute", recompute),
        sharding=sharding,
        overlap=overlaps(overlap),
        first_stage_layers=first_stage_layers,
        last_stage_layers=last_stage_layers,
        offload=_shares(offload),
        skew=skew,
        capacity=capacity,
        attention=("unfused" if learned and context == 1 else "flash")
        if attention is None
        else attention,
        dropout=learned if dropout is None else dropout,
        fused_loss=not learned if fused_loss is None else fused_loss,
        gradient_dtype=gradient_dtype or "fp32",
        gather_dtype=gather_dtype or wide,
        accumulation=accumulation or ("buffer" if sharding in (3, "hybrid") else "fused"),
        optimizer_bytes=optimizer_bytes,
        bucket=max(40_000_000, 1_000_000 * data * context) if bucket is None else bucket,
        shard_ranks=shard_ranks,
        reshard=(pipeline == 1) if reshard is None else reshard,
        context_method=context_method,
        rank_order=rank_order,
        clip=clip,
        gap=gap,
        host_forward=host_forward,
        host_backward=host_backward,
        host_kernel=host_kernel,
        host_waits=host_waits,
        reserved=reserved,
        fragmentation=fragmentation,
    )
    if learned and settings.sequence > sizes.positions:
        longer = replace(sizes, positions=settings.sequence)
        settings = replace(settings, model=longer)
    return build(settings)


def build(settings: Settings) -> Workload:
    """The workload of checked settings; programs are made when they are asked for."""
    s, m = settings, settings.model
    sizes = {"data": s.data, "tensor": s.tensor, "pipeline": s.pipeline, "context": s.context}
    spread = " x ".join(f"{name} {n}" for name, n in sizes.items() if n > 1) or "one rank"
    if s.expert > 1:
        spread += f", expert {s.expert}"
    name = (
        f"{m.name}: {m.layers} layers of {m.hidden}, {spread}, {s.micro_batches}"
        f" micro-batch{'es' if s.micro_batches > 1 else ''} of {s.micro_batch} x {s.sequence}"
    )
    programs = Programs(settings, name)
    return Workload(name, lambda: programs.roles, settings, lambda: programs.step)


@dataclass(frozen=True, eq=False)
class Programs:
    """The distinct programs of a job, made when they are needed."""

    settings: Settings
    name: str

    @cached_property
    def grid(self) -> Grid:
        return Grid(self.settings)

    @cached_property
    def stages(self) -> list[tuple[int, int | None, Stage]]:
        """Number, place in the expert groups (where loads are uneven), and program of every kind of rank."""
        s, passes, first = self.settings, DistinctPasses(self.settings), self.grid.first_of_stages()
        indices: list[int | None] = list(range(s.expert)) if s.skew and s.expert > 1 else [None]
        found = [
            (number, index, Stage(passes, number, index or 0, first))
            for number in range(s.pipeline)
            for index in indices
        ]
        _check_size(s, self.name, [stage.nodes for _, _, stage in found])
        return found

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """What ranks do."""
        return tuple(
            Role(stage.tiling.columns(), self.grid.of_stage(number, index), self.grid.groups)
            for number, index, stage in self.stages
        )

    @cached_property
    def step(self) -> TrainingStep:
        """What the step does for the model."""
        s = self.settings
        kind = np.zeros(s.ranks, np.int32)
        changes: list[tuple[NDArray[Any], NDArray[Any], NDArray[Any]]] = []
        for k, (number, index, stage) in enumerate(self.stages):
            kind[self.grid.of_stage(number, index)] = k
            node, change = stage.changes()
            changes.append((np.full(len(node), k, np.int32), node, change))
        held = [rank_memory(s, number) for number, _, _ in self.stages]
        return TrainingStep(
            tokens=s.sequences * s.sequence,
            model_flops=step_flops(s),
            hardware_flops=step_flops(s, again=True),
            dtype=s.dtype,
            memory=np.array([[getattr(m, part) for part in PARTS] for m in held]),
            kind=kind,
            change_kind=np.concatenate([c[0] for c in changes]),
            change_node=np.concatenate([c[1] for c in changes]),
            change=np.concatenate([c[2] for c in changes]),
        )


def _check_size(s: Settings, name: str, nodes: list[int]) -> None:
    """Refuse at once what no prediction on this machine could hold."""
    total, room = sum(nodes), physical_memory()
    if total * NODE_BYTES > room:
        raise InputError(
            f"{name}: {s.micro_batches:,} micro-batches make {max(nodes):,} nodes a rank, {len(nodes)} distinct"
            f" programs {total:,}, which take about {total * NODE_BYTES / 1e9:,.0f} GB to predict; this machine has"
            f" {room / 1e9:,.0f} GB. A step's time grows linearly with micro-batches once the pipeline is full:"
            f" predict it at two numbers of them, {4 * s.places} and {8 * s.places} for example, and extrapolate."
        )


def physical_memory() -> int:
    """Of this machine [B]."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def sizes_from(model: Model) -> Sizes:
    """The sizes of a model given in any of the ways that `training` takes.

    Raises:
        InputError: no such preset or file, a record with wrong keys.
    """
    if isinstance(model, Sizes):
        return model
    if isinstance(model, Mapping):
        return sizes_of(model)
    if not isinstance(model, str | Path):
        raise InputError(
            f"model: got a {type(model).__name__}, expected a preset's name, the path of a config.json, or a record"
            " of sizes."
        )
    text = str(model)
    looks = isinstance(model, Path) or text.endswith(".json") or "/" in text or "\\" in text
    if looks or (text not in PRESETS and Path(text).is_dir()):
        return configuration(text)
    return preset(text)


def _micro_batches(given: int | None, global_batch: int | None, data: int, micro_batch: int) -> int:
    if global_batch is None:
        return 1 if given is None else given
    whole(global_batch=global_batch, data=data, micro_batch=micro_batch)
    each = data * micro_batch
    if global_batch % each:
        below = global_batch - global_batch % each
        fits = f"{below} and {below + each} fit" if below else f"{each} fits"
        raise InputError(
            f"global_batch: got {global_batch}, which data x micro_batch = {each} does not divide. {fits}."
        )
    if given is not None and given != global_batch // each:
        raise InputError(
            f"micro_batches: got {given} with global_batch = {global_batch}, which makes {global_batch // each}."
            " Give one of them."
        )
    return global_batch // each


def _shares(offload: Any) -> dict[str, float]:
    if isinstance(offload, Mapping):
        return dict(offload)
    names = (offload,) if isinstance(offload, str) else _words("offload", offload or ())
    return dict.fromkeys(names, 1.0)


def _words(setting: str, given: Any) -> tuple[Any, ...]:
    if not isinstance(given, Iterable):
        raise InputError(f"{setting}: got {given!r}, expected names, or a share for each name")
    return tuple(given)
