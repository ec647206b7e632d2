"""The end of a step: gradients that are still to be summed, their norm, the optimizer, parameters back.

The order is Megatron-LM's: reductions are waited for; norms' gradients are summed over the tensor group under
sequence parallelism; tied weights' over both ends of the pipeline; then one number, the norm of all gradients, over all
ranks, on which every rank waits; then Adam; then parameters are gathered, where that does not wait for the next step.
"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.synth.blocks import Blocks
from perfmodel.synth.kernel_record import Kernel
from perfmodel.synth.kernels import ADAM_FLOPS
from perfmodel.synth.layout import DATA, MODEL, REPLICA, TIED
from perfmodel.synth.model_states import (
    ParametersHeld,
    stage_held,
    state_bytes,
    tied_apart,
    tied_copy,
)
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.shards import Chunk, gathers, sharing
from perfmodel.synth.steps import WORLD
from perfmodel.vocabulary import OFFLOAD, NodeType


def finish(
    b: Blocks, s: Settings, stage: int, chunks: Sequence[Chunk], reductions: list[int]
) -> None:
    """Append the end of a stage's step.

    Args:
        b: the steps so far of the end.
        stage, chunks: whose end, and what that stage holds.
        reductions: nodes that have summed gradients already.
    """
    mine = stage_held(s, stage)
    waits: list[int | None] = [*reductions, b.last]
    if "gradients" not in s.overlap and not (s.sharded and s.reshard) and s.sharding != 2:
        waits += _reduce_all(b, s, mine)
    if s.sequence_parallel and s.tensor > 1:
        size = int(BYTES[s.gradient_dtype]) * _replicated(s, chunks)
        waits = [b.in_tensor_group("norms.all_reduce", "all_reduce", size, waits)]
    ends = (0, s.pipeline - 1)
    if tied_apart(s) and stage in ends:
        size = int(BYTES[s.gradient_dtype]) * tied_copy(s)
        waits = [b.collective("tied.all_reduce", "all_reduce", size, TIED, waits, resource=TIED)]
    waits = [*waits, *reductions]
    owned = _owned(s, mine)
    if s.clip:
        waits = _clip(b, s, owned, waits)
    _optimize(b, s, mine, owned, waits)
    if s.sharding in (1, 2) and "parameters" not in s.overlap:
        gathers(b, s, mine, "", [b.last])


def _reduce_all(b: Blocks, s: Settings, mine: ParametersHeld) -> list[int | None]:
    """One reduction of all gradients, after the last backward pass."""
    found: list[int | None] = []
    kind = "reduce_scatter" if s.sharding else "all_reduce"
    for part in sharing(s, mine):
        last, name = b.last, part.name
        size = int(BYTES[s.gradient_dtype]) * part.parameters
        if part.ranks > 1:
            last = b.collective(f"{name}.{kind}", kind, size, part.group, [last], resource=DATA)
            found.append(last)
        if part.copies > 1:
            shard, name = -(-size // part.ranks), f"{name}.replicas.all_reduce"
            found.append(
                b.collective(name, "all_reduce", shard, part.over, [last], resource=REPLICA)
            )
    return found


def _replicated(s: Settings, chunks: Sequence[Chunk]) -> int:
    """Parameters that every tensor-parallel rank has whole: norms, biases after sums, positions."""
    m = s.model
    total = sum(m.layer(n).whole for chunk in chunks for n in chunk.layers)
    total += sum(m.embedding.whole for chunk in chunks if chunk.first)
    return total + sum(m.head.whole for chunk in chunks if chunk.last)


def _owned(s: Settings, mine: ParametersHeld) -> int:
    """Parameters that this rank's optimizer steps."""
    if s.sharding == 0:
        return mine.dense + mine.expert
    return -(-mine.dense // s.state_ranks) + -(-mine.expert // s.expert_shards)


def _clip(b: Blocks, s: Settings, owned: int, waits: list[int | None]) -> list[int | None]:
    """The norm of all gradients: a pass over the rank's own, a sum of one number, and a pass that scales them.

    With fp16 a pass before it takes the loss's scale out and looks for overflow (Micikevicius et al. 2018,
    arXiv:1710.03740, section 3.2).
    """
    size = int(BYTES[s.gradient_dtype])
    if s.wide == "fp16":
        unscale = Kernel("clip.unscale", "elementwise", owned, 2 * size * owned, (), s.wide)
        b.run("gradient", [unscale], waits)
    norm = Kernel("norm", "reduction", 2 * owned, size * owned, (), s.wide)
    b.run("gradient", [norm], waits)
    label, ranks = (WORLD, s.ranks) if s.sharding else (MODEL, s.tensor * s.pipeline)
    found: list[int | None] = []
    if ranks > 1:
        name = "gradient.norm.all_reduce"
        found = [b.collective(name, "all_reduce", 4, label, [b.last], resource="norm")]
    scale = Kernel("clip", "elementwise", owned, 2 * size * owned, (), s.wide)
    return [b.run("gradient", [scale], found)]


def _optimize(
    b: Blocks, s: Settings, mine: ParametersHeld, owned: int, waits: list[int | None]
) -> None:
    """Adam on the rank's own parameters: gradient and state in, state and weight out; a gradient buffer is zeroed."""
    states = state_bytes(s, 1).optimizer
    moved = int(owned * (BYTES[s.gradient_dtype] + 2 * states + BYTES[s.wide]))
    share = s.offload.get("optimizer", 0.0)
    if share:
        size = int(share * states * owned)
        load = b.memory("offload.load", NodeType.MEM_LOAD, size, [b.last], resource=OFFLOAD)
        waits = [*waits, load]
    b.compute("optimizer", _kernel(ADAM_FLOPS * owned, moved, s), waits)
    if share:
        size = int(share * states * owned)
        b.memory("offload.store", NodeType.MEM_STORE, size, [b.last], resource=OFFLOAD)
    if not s.sharded and s.accumulation != "autograd":
        zeroed = int((mine.dense + mine.expert) * BYTES[s.gradient_dtype])
        b.compute("zero", Kernel("zero", "elementwise", 1, zeroed, (), s.wide))


def _kernel(flops: int, moved: int, s: Settings) -> Kernel:
    return Kernel("optimizer", "optimizer", flops, moved, (), s.wide)
