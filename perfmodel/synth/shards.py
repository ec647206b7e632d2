"""What data-parallel ranks share: parameters to gather, gradients to sum, in buckets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from perfmodel.synth.layout import DATA, EXPERT_DATA, SHARD
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


def sharing(s: Settings, counts: ParametersHeld) -> list[tuple[str, int, str, int]]:
    """(name, parameters, group, ranks of the group) of the two kinds of parameters: experts have their own group."""
    dense = (SHARD, s.shard_ranks) if s.sharding == "hybrid" else (DATA, s.replicas)
    found = [
        ("dense", counts.dense, *dense),
        ("experts", counts.expert, EXPERT_DATA, s.expert_replicas),
    ]
    return [part for part in found if part[1]]


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
    for part, count, label, n in sharing(s, counts):
        if n > 1:
            shard = int(-(-count // n) * BYTES[s.gather_dtype])
            found[part] = b.collective(
                f"{name}{part}.all_gather", "all_gather", shard, label, after, resource=GATHER
            )
    return found
