"""What data-parallel ranks share: parameters to gather, gradients to sum, in buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from perfmodel.synth.layout import (
    DATA,
    EXPERT_DATA,
    EXPERT_REPLICA,
    EXPERT_SHARD,
    REPLICA,
    SHARD,
)
from perfmodel.synth.model_states import ParametersHeld, held
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.steps import Steps

GATHER = "parameters"
"""Stream of parameter gathers that run ahead of their use."""


@dataclass(frozen=True)
class Chunk:
    """What a stage holds of one place of the pipeline.

    Attributes:
        place: in the pipeline.
        layers: numbers of its layers.
        first, last: it has the embedding, the head.
        receives, sends: its input comes from, its output goes to another stage.
    """

    place: int
    layers: range
    first: bool
    last: bool
    receives: bool
    sends: bool

    @property
    def units(self) -> list[str]:
        """What is gathered and reduced together: embedding, each layer, head."""
        ends = (["embedding"] if self.first else []), (["head"] if self.last else [])
        return [*ends[0], *(f"layer{n}" for n in self.layers), *ends[1]]


def units_held(s: Settings, chunk: Chunk) -> list[ParametersHeld]:
    """Of each unit of a chunk, the parameters that a rank holds before they are sharded."""
    return [held(s, unit, chunk.place) for unit in chunk.units]


class SharedParameters(NamedTuple):
    """Parameters of one kind that data-parallel ranks share.

    Attributes:
        name: "dense" or "experts". parameters: of them on a rank, before they are sharded.
        group, ranks: label and size of the group over which they are sharded, or their gradients summed.
        over, copies: label and size of the group over which the sums of shards are summed; 1 but for "hybrid".
    """

    name: str
    parameters: int
    group: str
    ranks: int
    over: str
    copies: int


def sharing(s: Settings, counts: ParametersHeld) -> list[SharedParameters]:
    """The two kinds of parameters: experts have their own groups."""
    hybrid = s.sharding == "hybrid"
    own = (SHARD, EXPERT_SHARD) if hybrid else (DATA, EXPERT_DATA)
    ranks = s.shard_ranks if hybrid else s.replicas, s.expert_shards
    found = [
        SharedParameters("dense", counts.dense, own[0], ranks[0], REPLICA, s.replicas // ranks[0]),
        SharedParameters(
            *("experts", counts.expert, own[1], ranks[1]),
            *(EXPERT_REPLICA, s.expert_replicas // ranks[1]),
        ),
    ]
    return [part for part in found if part.parameters]


def bucket_ends(s: Settings, units: list[ParametersHeld]) -> dict[int, ParametersHeld]:
    """The units that close a bucket, and what the bucket holds; FSDP closes one at every unit."""
    found: dict[int, ParametersHeld] = {}
    now = ParametersHeld(0, 0)
    for u in range(len(units) - 1, -1, -1):
        now = ParametersHeld(now.dense + units[u].dense, now.expert + units[u].expert)
        if s.sharded or now.dense + now.expert >= s.bucket or u == 0:
            found[u], now = now, ParametersHeld(0, 0)
    return found


def gathers(
    b: Steps, s: Settings, counts: ParametersHeld, name: str, after: Sequence[int | None] = ()
) -> dict[str, int]:
    """All-gathers of parameters, each rank handing in its shard; by what they gather."""
    found = {}
    for part in sharing(s, counts):
        if part.ranks > 1:
            shard = int(-(-part.parameters // part.ranks) * BYTES[s.gather_dtype])
            found[part.name] = b.collective(
                *(f"{name}{part.name}.all_gather", "all_gather", shard, part.group, after),
                resource=GATHER,
            )
    return found
