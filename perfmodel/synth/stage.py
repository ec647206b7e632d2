"""A pipeline stage's program: passes in the schedule's order, between what begins and what ends a step.

A step begins with the gathers, in buckets, of parameters that a sharded optimizer left in parts (sharding 1 and 2)
and ends with what is left to do for gradients, and the optimizer. Source: Megatron-LM's distributed optimizer and its
order at the end of a step.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.synth.blocks import Blocks
from perfmodel.synth.chunk_passes import DistinctPasses
from perfmodel.synth.experts import Experts
from perfmodel.synth.memory import pass_changes
from perfmodel.synth.schedules import Pass, order, stage_of
from perfmodel.synth.settings import Settings
from perfmodel.synth.shards import Chunk, bucket_ends, gathers, units_held
from perfmodel.synth.step_end import finish
from perfmodel.synth.tiling import PREVIOUS, Repetition, Tiling, pass_nodes, port


@dataclass(frozen=True)
class Stage:
    """One pipeline stage; `index` is a rank's place in its expert group, where loads are uneven."""

    passes: DistinctPasses
    number: int
    index: int
    ranks_of_stages: tuple[int, ...]
    """Rank of one and the same position in every stage: peers are as far apart everywhere."""

    @property
    def settings(self) -> Settings:
        return self.passes.settings

    @cached_property
    def chunks(self) -> list[Chunk]:
        """What the stage holds, by chunk."""
        s, found = self.settings, []
        for where in s.places_of(self.number):
            first, last = where == 0, where == s.places - 1
            before, after = (
                None if end else stage_of(s.schedule, where + step, stages=s.pipeline)
                for end, step in ((first, -1), (last, 1))
            )
            found.append(
                Chunk(
                    where,
                    s.layers_of_places[where],
                    first,
                    last,
                    before is not None and before != self.number,
                    after is not None and after != self.number,
                )
            )
        return found

    @property
    def nodes(self) -> int:
        """About how many nodes the program has: those of its passes."""
        s = self.settings
        kinds = "FIW" if s.schedule.startswith("zero-bubble") else "FB"
        described = [
            self.passes.get(chunk, kind, self.index, False, False)
            for chunk in self.chunks
            for kind in kinds
        ]
        return s.micro_batches * sum(len(one.nodes) for one in described)

    def order(self) -> list[Pass]:
        """The stage's passes."""
        s = self.settings
        return order(
            s.schedule,
            self.number,
            stages=s.pipeline,
            micro_batches=s.micro_batches,
            virtual=s.virtual,
        )

    @cached_property
    def tiling(self) -> Tiling:
        """The stage's program."""
        s, tiling = self.settings, Tiling()
        gathered = [self._prologue(tiling, chunk) for chunk in self.chunks]
        blocking = "pipeline" not in s.overlap or (s.schedule == "1f1b" and s.virtual == 1)
        last = s.micro_batches - 1
        marks: list[int] = []
        for item in self.order():
            chunk, i = self.chunks[item.chunk], item.micro_batch
            this = self.passes.get(chunk, item.kind, self.index, i == 0, i == last)
            start = tiling.add(
                Repetition(
                    this,
                    self._prefixes(item, chunk),
                    self._reach(chunk, 1, i),
                    self._reach(chunk, -1, i),
                    blocking,
                    gathered[item.chunk] if item.kind == "F" else (),
                    item.beside and not blocking,
                )
            )
            if i == last:
                marks += [start + k for k in this.marks]
        self._epilogue(tiling, marks)
        return tiling

    def changes(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Nodes at which activations grow (as they begin) or shrink (as they end), and by how many bytes."""
        tiling, changes = self.tiling, pass_changes(self.settings, self.number)
        passes = (at for at, part in enumerate(tiling.parts) if part.prefixes[0] != "step.")
        node, change = [], []
        for at, item in zip(passes, self.order()):
            last = 0 if item.kind == "F" else (tiling.parts[at].piece.last or 0)
            node.append(tiling.starts[at] + last)
            change.append(changes[item.chunk][item.kind])
        return np.array(node, np.int64), np.array(change)

    def _prefixes(self, item: Pass, chunk: Chunk) -> list[str]:
        word = {"F": "fwd", "B": "bwd", "I": "bwd", "W": "bww"}[item.kind]
        head = f"mb{item.micro_batch}.{word}."
        if self.settings.virtual > 1:
            head = f"mb{item.micro_batch}.{word}{item.chunk}."
        return [head, *(f"{head}layer{n}." for n in chunk.layers)]

    def _reach(self, chunk: Chunk, way: int, micro_batch: int) -> tuple[int, int]:
        """Distance to the next or previous place of the pipeline, and the number of the boundary between."""
        s = self.settings
        where = chunk.place + way
        if not 0 <= where < s.places:
            return 0, 0
        other = stage_of(s.schedule, where, stages=s.pipeline)
        distance = self.ranks_of_stages[other] - self.ranks_of_stages[self.number]
        return distance, micro_batch * s.places + min(chunk.place, where)

    def _prologue(self, tiling: Tiling, chunk: Chunk) -> list[int]:
        """The gathers of a chunk's buckets at the beginning of the step; two nodes, or none, for each bucket."""
        s = self.settings
        if s.sharded or not s.sharding or "parameters" not in s.overlap:
            return []
        b = self._blank()
        ports: list[int] = []
        ends = bucket_ends(s, units_held(s, chunk))
        for u in sorted(ends):
            found = {"dense": -1, "experts": -1}
            for part, node in gathers(b, s, ends[u], f"{chunk.units[u]}.").items():
                found[part] = node
            ports = [found["dense"], found["experts"], *ports]
        start = tiling.add(Repetition(pass_nodes(b.nodes, b.prefixes), ["step."])) if b.nodes else 0
        return [start + p if p >= 0 else -1 for p in ports]

    def _blank(self) -> Blocks:
        return Blocks(self.passes.kernels, Experts(self.passes.kernels, self.index))

    def _epilogue(self, tiling: Tiling, marks: list[int]) -> None:
        b, s = self._blank(), self.settings
        b.last = PREVIOUS
        finish(b, s, self.number, self.chunks, [port(k) for k in range(len(marks))])
        tiling.add(Repetition(pass_nodes(b.nodes, b.prefixes, gap=s.gap), ["step."], ports=marks))
