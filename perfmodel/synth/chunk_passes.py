"""A micro-batch's way through a chunk of layers, forward or back, each distinct one described once.

Parameters and gradients within a pass, n ranks that share them:

    sharding  parameters                                   gradients
    0         whole                                        all-reduce in buckets beside the last backward pass
    1, 2      wait for their bucket in the first pass      reduce-scatter in buckets (2: of every micro-batch)
    3         all-gather of each layer before each use     reduce-scatter of each layer, of every micro-batch
    hybrid    3 within a shard group                       and an all-reduce of shards over the groups

Buckets fill in the order in which gradients get ready and close at `bucket` parameters. Sources: Rajbhandari
et al. 2020 (ZeRO, arXiv:1910.02054); Zhao et al. 2023 (PyTorch FSDP, arXiv:2304.11277), section 3.3 for prefetching.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from perfmodel.synth.blocks import Blocks
from perfmodel.synth.experts import Experts
from perfmodel.synth.kernels import LayerKernels
from perfmodel.synth.layout import DATA, REPLICA
from perfmodel.synth.memory import layer_activations
from perfmodel.synth.model_states import ParametersHeld
from perfmodel.synth.passes import LOSS
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.shards import Chunk, bucket_ends, gathers, sharing, units_held
from perfmodel.synth.tiling import AHEAD, PREVIOUS, SENT, SUMMED, PassNodes, pass_nodes, port
from perfmodel.vocabulary import OFFLOAD, NodeType


class DistinctPasses:
    """The distinct passes of a job, each described once."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.kernels = LayerKernels(settings)
        self.made: dict[tuple[Any, ...], PassNodes] = {}

    def get(self, chunk: Chunk, kind: str, index: int, first: bool, last: bool) -> PassNodes:
        """The pass of a chunk; `first` and `last` where the first or last micro-batch does something of its own."""
        s = self.settings
        layers = tuple((s.model.has_experts(n), s.model.windowed(n)) for n in chunk.layers)
        experts = index if any(e for e, _ in layers) else 0
        ends = (chunk.first, chunk.last, chunk.receives, chunk.sends)
        forward = kind == "F"
        early = first and forward and (s.sharding != 0)
        late = last and not forward
        alone = first and not forward and s.accumulation == "autograd"
        key = (kind, layers, ends, experts, early, late, alone)
        if key not in self.made:
            kernels = replace(self.kernels, adding=not alone)
            self.made[key] = _Passage(self.settings, kernels, chunk, index, early, late).build(kind)
        return self.made[key]


class _Passage:
    """One pass on its way to its nodes."""

    def __init__(
        self,
        settings: Settings,
        kernels: LayerKernels,
        chunk: Chunk,
        index: int,
        early: bool,
        late: bool,
    ) -> None:
        self.settings, self.chunk = settings, chunk
        self.kernels, self.index = kernels, index
        self.early, self.late = early, late
        self.held = units_held(self.settings, chunk)
        self.marks: list[int] = []

    def build(self, kind: str) -> PassNodes:
        s = self.settings
        self.b = Blocks(self.kernels, Experts(self.kernels, self.index), kind)
        self.b.last = PREVIOUS
        self.b.pending = [SENT]
        self.ahead = PREVIOUS
        sent = self._forward() if kind == "F" else self._backward()
        return pass_nodes(
            self.b.nodes,
            self.b.prefixes,
            gap=s.gap,
            sent=sent,
            ahead=self.ahead,
            marks=self.marks,
        )

    @property
    def message(self) -> int:
        """Bytes of the activations that a rank hands to the next stage: its part of the tensor group's [B]."""
        return self.b.activation // self.settings.tensor

    def _receive(self, way: int, tag: int) -> list[int | None]:
        """The neighbour's message; ranks that hold whole activations send a part each and gather the parts.

        The scatter/gather optimization of Narayanan et al. 2021, section 4.1.
        """
        b, s = self.b, self.settings
        x: list[int | None] = [b.receive("receive", self.message, way, tag=tag)]
        if s.tensor > 1 and s.split == 1:
            b.launched = [SUMMED]
            x = [b.in_tensor_group("receive.all_gather", "all_gather", self.message, x)]
            b.launched = list(x)
        return x

    def _wait(self, received: list[int | None]) -> None:
        """Where the host waits between passes, it does so for the one before, and for what this one begins with."""
        if self.settings.host_waits != "never":
            self.b.waited = [PREVIOUS, *received]

    def _forward(self) -> int | None:
        b, s, units = self.b, self.settings, self.chunk.units
        x: list[int | None] = []
        if self.chunk.receives:
            x = self._receive(-1, 0)
        self._wait(x)
        gathers = s.sharded and (s.reshard or self.early)
        ready = self._gather(0, [AHEAD]) if gathers else []
        whole = s.whole_layers(len(self.chunk.layers))
        for u, unit in enumerate(units):
            b.prefix = self._prefix(u)
            self.ahead = b.last if b.last is not None else PREVIOUS
            following = self._gather(u + 1, [b.last]) if gathers and u + 1 < len(units) else []
            b.prefix = self._prefix(u)
            b.pending += [*ready, *self._bucket_ports(u)]
            ready = following
            if unit == "embedding":
                x = list(b.embedding(x))
            elif unit == "head":
                more = LOSS[0] * (not s.fused_loss)
                x = b.launch(partial(b.head, x), s.host_forward, more=more)
            else:
                layer = self._layer(u)
                x = b.launch(partial(b.layer, layer, x), s.host_forward)
                self._offload(layer, NodeType.MEM_STORE, whole)
        b.prefix = 0
        if self.chunk.sends:
            return b.send("send", self.message, 1, tag=0, after=x, resource="pipeline")
        return None

    def _backward(self) -> int | None:
        b, s, units = self.b, self.settings, self.chunk.units
        x: list[int | None] = []
        if self.chunk.sends and b.inputs:
            x = self._receive(1, 1)
        self._wait(x)
        gathers = s.sharded and s.reshard
        top = len(units) - 1
        start = top - 1 if self.chunk.last else top  # the head stays whole after its forward pass
        ready = self._gather(start, [AHEAD]) if gathers and start == top else []
        buckets = bucket_ends(s, self.held) if self._reduces() else {}
        sent: int | None = None
        whole = s.whole_layers(len(self.chunk.layers))
        for u in range(top, -1, -1):
            b.prefix = self._prefix(u)
            self.ahead = b.last if b.last is not None else PREVIOUS
            following = self._gather(u - 1, [b.last]) if gathers and u else []
            b.prefix = self._prefix(u)
            b.pending += ready
            ready = following
            if units[u] == "head":
                more = LOSS[1] * (b.inputs and not s.fused_loss)
                x = b.launch(partial(b.head_backward, x), s.host_backward, more=more)
            elif units[u] == "embedding":
                b.embedding_backward(x)
            else:
                x = self._layer_backward(u, x, whole)
            if u == (1 if self.chunk.first else 0) and self.chunk.receives and b.inputs:
                # before the reduction in program order: where both are ready, another stage waits for this
                b.prefix = 0
                sent = b.send("send", self.message, -1, tag=1, after=x, resource="pipeline_back")
                b.prefix = self._prefix(u)
            if u in buckets and b.weights:
                self._reduce(units[u], buckets[u])
        b.prefix = 0
        return sent

    def _layer_backward(self, u: int, x: list[int | None], whole: int) -> list[int | None]:
        b, s, layer = self.b, self.settings, self._layer(u)
        self._offload(layer, NodeType.MEM_LOAD, whole)
        again = b.inputs and self._place_in_chunk(u) < whole
        if again:
            b.label = "recompute."
            b.launch(partial(b.layer, layer, ()), s.host_forward)
            b.label = ""
        return b.launch(partial(b.layer_backward, layer, x), s.host_backward, waits=not again)

    # which unit is what

    def _place_in_chunk(self, u: int) -> int:
        return u - int(self.chunk.first)

    def _layer(self, u: int) -> int:
        return self.chunk.layers[self._place_in_chunk(u)]

    def _prefix(self, u: int) -> int:
        """0 for embedding, head and messages, 1 + k for the k-th layer."""
        k = self._place_in_chunk(u)
        return 1 + k if 0 <= k < len(self.chunk.layers) else 0

    # parameters and gradients

    def _gather(self, u: int, after: list[int | None]) -> list[int]:
        """All-gathers of a unit's parameters."""
        if u < 0:
            return []
        self.b.prefix = self._prefix(u)
        name = "" if self.b.prefix else f"{self.chunk.units[u]}."
        return list(gathers(self.b, self.settings, self.held[u], name, after).values())

    def _bucket_ports(self, u: int) -> list[int]:
        """The gathers, made at the step's beginning, of the buckets that hold a unit."""
        s = self.settings
        if not self.early or s.sharded or "parameters" not in s.overlap:
            return []
        ends = sorted(bucket_ends(s, self.held), reverse=True)
        k = next(i for i, end in enumerate(ends) if end <= u)
        return [port(2 * k), port(2 * k + 1)]

    def _reduces(self) -> bool:
        """Whether gradients are reduced beside this pass."""
        s = self.settings
        if (s.sharded and s.reshard) or s.sharding == 2:
            return True
        return self.late and "gradients" in s.overlap

    def _reduce(self, unit: str, counts: ParametersHeld) -> None:
        b, s = self.b, self.settings
        size = int(BYTES[s.gradient_dtype])
        kind = "reduce_scatter" if s.sharding else "all_reduce"
        for part in sharing(s, counts):
            name = f"{part.name}.gradient" if b.prefix else f"{unit}.{part.name}.gradient"
            found = b.last
            if part.ranks > 1:
                found = b.collective(
                    *(f"{name}.{kind}", kind, size * part.parameters, part.group, [found]),
                    resource=DATA,
                )
                self.marks.append(found)
            if part.copies > 1 and self.late:
                shard = size * -(-part.parameters // part.ranks)
                self.marks.append(
                    b.collective(
                        *(f"{name}.all_reduce", "all_reduce", shard, part.over, [found]),
                        resource=REPLICA,
                    )
                )

    # remote memory

    def _offload(self, layer: int, kind: NodeType, whole: int) -> None:
        """A share of the layer's activations leaves after its forward pass and comes back before its backward pass."""
        s, b = self.settings, self.b
        share = s.offload.get("activations", 0.0)
        if not share:
            return
        full = (layer - self.chunk.layers.start) < whole
        size = int(share * layer_activations(s, layer, whole=full))
        name = "offload.store" if kind == NodeType.MEM_STORE else "offload.load"
        moved = b.memory(name, kind, size, [b.last], resource=OFFLOAD)
        if kind == NodeType.MEM_LOAD:
            b.pending.append(moved)
