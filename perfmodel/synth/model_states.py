"""The parameters that a rank holds, and what the optimizer keeps for each of them.

    bytes a parameter            weights   gradients   optimizer
    bf16, fp32 gradients         2         4           12: master weight and both moments in fp32
    bf16 gradients               2         2           12
    fp16, fp16 gradients         2         2           16: an fp32 gradient, too
    fp32                         4         4           8
    fp8 or fp4 products          2 + 2     as bf16     12; a transposed copy, and 2 more beside bf16 parameters
    sharded (3, hybrid)          4 / n     4 / n       8 / n: the shard is the master weight

Autograd keeps gradients in the weights' type whatever they are summed in. Sharding 1 divides the optimizer's by n
ranks, 2 the gradients, too. Sources: Rajbhandari et al. 2020 (ZeRO), section 3; Megatron-LM's documentation of
its distributed optimizer (6 + 12 / n bytes).
"""

from __future__ import annotations

from typing import NamedTuple

from perfmodel.synth.schedules import stage_of
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.sizes import Count


class ParametersHeld(NamedTuple):
    """Parameters on a rank before sharding: those of experts, and the others."""

    dense: int
    expert: int


class StateBytes(NamedTuple):
    """Bytes a parameter [B]."""

    weights: float
    gradients: float
    optimizer: float


def on_rank(s: Settings, count: Count) -> ParametersHeld:
    """A part's parameters on one rank of its tensor and expert groups."""
    return ParametersHeld(
        -(-count.split // s.tensor) + count.whole, count.expert // (s.expert * s.expert_tensor)
    )


def held(s: Settings, unit: str, place: int) -> ParametersHeld:
    """A unit's parameters on a rank: "embedding", "head" or "layer<number>".

    The head of a model with tied weights is a copy of the embedding where another stage has that.
    """
    if unit == "embedding":
        return on_rank(s, s.model.embedding)
    if unit == "head":
        found = on_rank(s, s.model.head)
        copy = tied_copy(s) if s.model.tied and _far(s) else 0
        return ParametersHeld(found.dense + copy, 0)
    found = on_rank(s, s.model.layer(int(unit.removeprefix("layer"))))
    return found._replace(dense=found.dense + _heads_held_again(s))


def _heads_held_again(s: Settings) -> int:
    """What a rank holds of a layer's keys and values beyond its part, where tensor ranks share a head of them."""
    m = s.model
    if m.latent or s.tensor <= m.kv_heads:
        return 0
    head = 2 * m.head_size * (m.hidden + m.qkv_bias)
    return head - head * m.kv_heads // s.tensor


def tied_copy(s: Settings) -> int:
    """A rank's part of the word embedding, V h / t."""
    return -(-s.model.vocabulary // s.tensor) * s.model.hidden


def _far(s: Settings) -> bool:
    """Whether embedding and head are on different stages."""
    return stage_of(s.schedule, s.places - 1, stages=s.pipeline) != 0


def tied_apart(s: Settings) -> bool:
    """Whether two stages hold the tied weights and have to sum their gradients."""
    return s.model.tied and _far(s)


def stage_held(s: Settings, stage: int) -> ParametersHeld:
    """All parameters on a rank of a stage."""
    dense = expert = 0
    for where in s.places_of(stage):
        units = [f"layer{n}" for n in s.layers_of_places[where]]
        units += ["embedding"] * (where == 0) + ["head"] * (where == s.places - 1)
        for unit in units:
            found = held(s, unit, where)
            dense, expert = dense + found.dense, expert + found.expert
    return ParametersHeld(dense, expert)


def state_bytes(s: Settings, ranks: int) -> StateBytes:
    """Bytes a parameter of what `ranks` ranks share."""
    if s.sharded:
        kept = (2 + BYTES[s.gradient_dtype]) if not s.reshard else 0.0
        gradient = 4 / ranks + (BYTES[s.gradient_dtype] if kept else 0)
        return StateBytes(4 / ranks + (2 if kept else 0), gradient, (s.optimizer_bytes - 4) / ranks)
    wide = BYTES[s.wide]
    weights: float = wide
    optimizer: float = s.optimizer_bytes
    if s.wide == "fp32":
        optimizer -= 4  # the weight is its own master
    elif s.wide == "fp16" and s.gradient_dtype != "fp32":
        optimizer += 4
    if s.dtype in ("fp8", "fp4") and s.gather_dtype not in ("fp8", "fp4"):
        weights += 2
    gradient = wide if s.accumulation == "autograd" else BYTES[s.gradient_dtype]
    if s.sharding == 0:
        return StateBytes(weights, gradient, optimizer)
    if s.sharding == 1:
        return StateBytes(weights, gradient, optimizer / ranks)
    return StateBytes(weights, gradient / ranks, optimizer / ranks)
