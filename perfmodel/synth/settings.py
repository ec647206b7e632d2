"""How a training step is spread over ranks and run: the settings of `synth.training`, checked.

Symbols: data D, tensor t, pipeline p, context c, virtual v, expert ep, expert_tensor et. The ranks of a stage are
t c D; experts lie on the same ranks as (expert data) x ep x et, so that t c D = ep et x expert data.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from typing import Any

from perfmodel.errors import InputError
from perfmodel.synth.parameter_checks import divides, divisible, one_of, real, truth, whole
from perfmodel.synth.schedules import check as check_schedule
from perfmodel.synth.schedules import place
from perfmodel.synth.sizes import Sizes

BYTES = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2, "fp8": 1, "fp4": 0.5}
"""Bytes of a number."""

OVERLAPS = ("gradients", "parameters", "tensor", "pipeline", "sums")
"""What may run beside computation: gradient reduction in buckets, prefetch of parameters, tensor-parallel
collectives in parts beside their products, messages between stages, and the tensor-parallel sum of an input's
gradient beside the product of the weights' (with sequence parallelism the gather of the kept input, too)."""

USUAL_OVERLAPS = ("gradients", "parameters", "pipeline", "sums")
RECOMPUTED = ("attention", "norm", "activation", "mlp", "alternate")
"""Parts of a layer that may be computed again; "selective" is attention, "alternate" every second product and all that
is neither product nor attention (PyTorch's selective checkpointing as torchtitan uses it)."""

ORDERS = ("tensor-context-data-pipeline", "tensor-context-pipeline-data")
CONTEXT_METHODS = ("ring", "all_gather", "all_to_all")
OFFLOADS = ("optimizer", "activations")
HOST_WAITS = ("never", "pass", "layer")
ACCUMULATIONS = ("fused", "buffer", "autograd")
"""How a micro-batch's gradients of weights join those before: in the product that makes them, which reads and writes
the sum (Megatron-LM's gradient_accumulation_fusion, its default); by a kernel that adds them to a buffer (Megatron-LM
without it, and whatever is no product's); or as PyTorch's autograd does, which keeps the first and adds to it."""


@dataclass(frozen=True)
class Settings:
    """The settings of `synth.training` after checks and defaults; see there for what each means."""

    model: Sizes
    data: int = 1
    tensor: int = 1
    pipeline: int = 1
    context: int = 1
    expert: int = 1
    expert_tensor: int = 1
    virtual: int = 1
    schedule: str = "1f1b"
    micro_batch: int = 1
    micro_batches: int = 1
    sequence: int = 2048
    dtype: str = "bf16"
    sequence_parallel: bool = False
    recompute: str | int | tuple[str, ...] = "none"
    sharding: int | str = 0
    overlap: tuple[str, ...] = USUAL_OVERLAPS
    first_stage_layers: int | None = None
    last_stage_layers: int | None = None
    offload: Mapping[str, float] = field(default_factory=dict)
    skew: float = 0.0
    capacity: float | None = None
    attention: str = "flash"
    dropout: bool = False
    fused_loss: bool = True
    gradient_dtype: str = "fp32"
    gather_dtype: str = "bf16"
    accumulation: str = "fused"
    optimizer_bytes: int = 12
    bucket: int = 40_000_000
    shard_ranks: int = 8
    reshard: bool = True
    context_method: str = "ring"
    rank_order: str = ORDERS[0]
    clip: bool = True
    gap: float = 2e-6
    host_forward: float = 0.0
    host_backward: float = 0.0
    host_kernel: float = 0.0
    host_waits: str = "never"
    reserved: int = 0
    fragmentation: float = 0.0

    def __post_init__(self) -> None:
        m = self.model
        whole(
            data=self.data,
            tensor=self.tensor,
            pipeline=self.pipeline,
            context=self.context,
            expert=self.expert,
            expert_tensor=self.expert_tensor,
            virtual=self.virtual,
            micro_batch=self.micro_batch,
            micro_batches=self.micro_batches,
            sequence=self.sequence,
            bucket=self.bucket,
            shard_ranks=self.shard_ranks,
        )
        one_of("dtype", self.dtype, tuple(BYTES))
        one_of("gradient_dtype", self.gradient_dtype, tuple(k for k, b in BYTES.items() if b >= 1))
        one_of("gather_dtype", self.gather_dtype, tuple(BYTES))
        one_of("accumulation", self.accumulation, ACCUMULATIONS)
        one_of("attention", self.attention, ("flash", "unfused"))
        one_of("context_method", self.context_method, CONTEXT_METHODS)
        one_of("host_waits", self.host_waits, HOST_WAITS)
        one_of("rank_order", self.rank_order, ORDERS)
        if self.sharding not in (0, 1, 2, 3, "hybrid"):
            raise InputError(f"sharding: got {self.sharding!r}, expected 0, 1, 2, 3 or 'hybrid'.")
        divides("tensor", self.tensor, heads=m.heads, inner=m.inner)
        divisible("sequence", self.sequence, context=self.context)
        if self.context > 1:
            divisible("sequence", self.sequence, context_blocks=2 * self.context)
            if self.context_method == "all_to_all":
                divides("context", self.context, heads_of_a_rank=m.heads // self.tensor)
        if self.sequence_parallel:
            divisible("sequence", self.sequence // self.context, tensor=self.tensor)
        self._check_recompute()
        self._check_experts()
        self._check_numbers()
        check_schedule(
            self.schedule,
            stages=self.pipeline,
            micro_batches=self.micro_batches,
            virtual=self.virtual,
        )
        if self.sharding == "hybrid":
            divisible("data x context", self.replicas, shard_ranks=self.shard_ranks)
        if self.attention == "unfused" and self.context > 1:
            raise InputError(
                "attention: got 'unfused' with context > 1, expected 'flash': context parallelism passes keys and"
                " values on while the fused kernel runs."
            )
        self.layers_of_places  # noqa: B018  checked here, on the host

    def _check_recompute(self) -> None:
        value = self.recompute
        if isinstance(value, bool) or (isinstance(value, int) and value < 0):
            raise InputError(
                f"recompute: got {value!r}, expected a number of layers of at least 0."
            )
        if isinstance(value, str):
            one_of("recompute", value, ("none", "selective", "full"))
        if isinstance(value, tuple):
            for part in value:
                one_of("recompute", part, RECOMPUTED)
            if "alternate" in value and (self.attention == "unfused" or self.model.latent):
                given = "latent attention" if self.model.latent else "attention='unfused'"
                raise InputError(
                    f"recompute: got 'alternate' with {given}, expected 'flash' of queries, keys and values: which of"
                    " other products are every second one is not known here."
                )

    def _check_experts(self) -> None:
        m, e, et = self.model, self.expert, self.expert_tensor
        if not m.experts:
            for name, value in (("expert", e), ("expert_tensor", et)):
                if value > 1:
                    raise InputError(
                        f"{name}: got {value}, expected 1: {m.name} has no experts. Take a model with experts."
                    )
            if self.skew or self.capacity is not None:
                raise InputError(
                    f"skew, capacity: got {self.skew}, {self.capacity}, but {m.name} has no experts."
                )
            return
        divides("expert", e, experts=m.experts)
        divides("expert_tensor", et, expert_inner=m.expert_inner)
        divisible("tensor x context x data", self.tensor * self.context * self.data, expert=e * et)
        near = self.shard_ranks * self.tensor
        if self.sharding == "hybrid" and near % (e * et) and (e * et) % near:
            raise InputError(
                f"shard_ranks: got {self.shard_ranks} of {self.tensor} tensor-parallel ranks each, expected ranks that"
                f" hold every expert equally often, or the reverse: expert x expert_tensor = {e * et}."
            )

    def _check_numbers(self) -> None:
        times = ("gap", "host_forward", "host_backward", "host_kernel")
        numbers = (*times, "skew", "reserved", "fragmentation", "optimizer_bytes")
        real(**{name: getattr(self, name) for name in numbers})
        switches = ("sequence_parallel", "dropout", "fused_loss", "reshard", "clip")
        truth(**{name: getattr(self, name) for name in switches})
        if (self.sharded or self.wide == "fp32") and self.optimizer_bytes < 4:
            raise InputError(
                f"optimizer_bytes: got {self.optimizer_bytes}, expected at least 4: with parameters that are sharded or"
                " in fp32 the weight itself is the master weight, which is counted among them."
            )
        if self.capacity is not None and not 0 < self.capacity < inf:
            raise InputError(f"capacity: got {self.capacity!r}, expected a positive number.")
        for part, share in self.offload.items():
            one_of("offload", part, OFFLOADS)
            if not 0 <= share <= 1:
                raise InputError(f"offload: got {share!r} of {part}, expected a share of 0 to 1.")

    # ranks

    @property
    def ranks(self) -> int:
        """Of the job."""
        return self.data * self.tensor * self.pipeline * self.context

    @property
    def replicas(self) -> int:
        """Ranks over which the gradients of what is no expert are summed: data x context."""
        return self.data * self.context

    @property
    def expert_replicas(self) -> int:
        """Ranks over which an expert's gradients are summed."""
        return self.data * self.context * self.tensor // (self.expert * self.expert_tensor)

    # work of a rank

    @property
    def sequences(self) -> int:
        """Global batch: sequences of a step."""
        return self.data * self.micro_batches * self.micro_batch

    @property
    def tokens(self) -> int:
        """T, tokens of a micro-batch on a rank before tensor parallelism, b s / c."""
        return self.micro_batch * self.sequence // self.context

    @property
    def split(self) -> int:
        """In how many parts the ranks of a tensor group hold activations between blocks."""
        return self.tensor if self.sequence_parallel else 1

    @property
    def wide(self) -> str:
        """Type of what is no product of a layer: activations, attention, head; 16 bits beside 8 or 4 bits."""
        return "bf16" if self.dtype in ("fp8", "fp4") else self.dtype

    @property
    def fused_softmax(self) -> bool:
        """Megatron-LM's kernel for scale, mask and softmax takes more than 16 tokens, and them and heads in fours."""
        pairs = self.micro_batch * self.model.heads // self.tensor
        return pairs % 4 == 0 and self.sequence % 4 == 0 and self.sequence > 16

    @property
    def number(self) -> int:
        """Bytes of an activation."""
        return int(BYTES[self.wide])

    @property
    def sharded(self) -> bool:
        """Parameters are gathered layer by layer."""
        return self.sharding in (3, "hybrid")

    @property
    def accumulates(self) -> bool:
        """Gradients add up on the rank over micro-batches, and are not reduced after each."""
        return not ((self.sharded and self.reshard) or self.sharding == 2)

    @property
    def state_ranks(self) -> int:
        """Over how many ranks optimizer states are split."""
        if self.sharding == 0:
            return 1
        return self.shard_ranks if self.sharding == "hybrid" else self.replicas

    @property
    def expert_shards(self) -> int:
        """Over how many ranks the states of an expert are split, where any are.

        Those that have it among the ranks of a shard group, and of their tensor groups.
        """
        if self.sharding != "hybrid":
            return self.expert_replicas
        return max(self.shard_ranks * self.tensor // (self.expert * self.expert_tensor), 1)

    @property
    def recomputed(self) -> tuple[str, ...]:
        """Parts of every layer that are computed again."""
        if self.recompute == "selective":
            return ("attention",)
        return self.recompute if isinstance(self.recompute, tuple) else ()

    def whole_layers(self, layers: int) -> int:
        """How many of a chunk's layers are computed again whole."""
        if self.recompute == "full":
            return layers
        return min(self.recompute, layers) if isinstance(self.recompute, int) else 0

    # layers of the pipeline's places

    @property
    def places(self) -> int:
        """Chunks of the pipeline, p v."""
        return self.pipeline * self.virtual

    @property
    def layers_of_places(self) -> list[range]:
        """The layers of each place of the pipeline, in order.

        Equal parts; where the layers do not divide, those that are short of one are the last place, the first, the
        last but one, and so on, as head and embedding stand at the ends. `first_stage_layers` and
        `last_stage_layers` set the ends; the rest share what is left.
        """
        total, n = self.model.layers, self.places
        counts: list[int | None] = [None] * n
        for at, value in ((0, self.first_stage_layers), (-1, self.last_stage_layers)):
            if value is not None:
                whole(0, **{"first_stage_layers" if at == 0 else "last_stage_layers": value})
                counts[at] = value
        given = sum(k for k in counts if k is not None)
        free = [k for k in range(n) if counts[k] is None]
        left = total - given
        if (
            left < 0
            or (left and not free)
            or (free and left < len(free) and left > 0 and n > total)
        ):
            raise InputError(
                f"pipeline x virtual: got {n} chunks for {total} layers, expected at most as many chunks as layers,"
                " and no more layers at the ends than there are."
            )
        each = -(-left // len(free)) if free else 0
        for k in free:
            counts[k] = each
        short = each * len(free) - left
        ends = [k for pair in zip(reversed(free), free) for k in pair]
        for k in list(dict.fromkeys(ends))[:short]:
            counts[k] = each - 1
        edges = [0]
        found = [count or 0 for count in counts]
        for count in found:
            edges.append(edges[-1] + count)
        if min(found) < 0 or edges[-1] != total:
            raise InputError(
                f"first_stage_layers, last_stage_layers: got {self.first_stage_layers},"
                f" {self.last_stage_layers} of {total} layers on {n} chunks. Give numbers that leave the other chunks"
                " at least one layer each."
            )
        return [range(a, b) for a, b in pairwise(edges)]

    def places_of(self, stage: int) -> list[int]:
        """The places of the pipeline that a stage holds, by chunk."""
        return [place(self.schedule, stage, c, stages=self.pipeline) for c in range(self.virtual)]


def overlaps(value: Any) -> tuple[str, ...]:
    """What overlaps: None for the usual, True for all, False for nothing, or names of `OVERLAPS`."""
    if value is None or value is Ellipsis:
        return USUAL_OVERLAPS
    if isinstance(value, bool):
        return OVERLAPS if value else ()
    chosen: Iterable[str] = (value,) if isinstance(value, str) else value
    chosen = tuple(chosen)
    for name in chosen:
        one_of("overlap", name, OVERLAPS)
    return tuple(name for name in OVERLAPS if name in chosen)
