"""The nodes of a text workload, in the order in which the simulators issue the layers' work.

What a strategy means is that order: one stream of compute; a *blocking* collective holds it up until it is done, a free
one only the work that needs its result:

| strategy | forward | backward, from the last layer | waits |
| --- | --- | --- | --- |
| DATA, HYBRID_DLRM* | F | W, free Wc, I (not of layer 0) | F for its Wc of the pass before |
| MODEL, other HYBRID_* | F, blocking Fc | I, free Ic (not of layer 0), W, free Wc | next layer for Ic |
| HYBRID_TRANSFORMER* | F, blocking Fc | I, blocking Ic, W, free Wc | as DATA |
| DISTRIBUTED_INFERENCE | F, blocking Fc | none | |
| MICRO | Wc alone, all at once | none | |

F, I, W are the compute of the forward pass, the input gradient and the weight gradient, Fc, Ic, Wc their collectives.

HYBRID_DLRM: a forward ALLTOALL is free and layer DLRM_LAST_BOTTOM_LAYER waits for that of layer 0; below it in the
backward pass layer 0's Ic is issued, for which W of layer 0 waits. HYBRID_TRANSFORMER_FWD_IN_BCKWD: before the
backward pass of a layer in `checkpoint_initiates`, the forward pass from the last checkpoint up to it runs again.

Sources: ASTRA-sim 1.0 and aliyun/SimAI, astra-sim/workload/Workload.cc and Layer.cc; mlcommons/chakra's Text converter.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from perfmodel.trace.text_workload import Layer, LayerPass, Table


@dataclass
class NodeLists:
    """A rank's nodes in the making: columns as lists; `after` are positions."""

    name: list[str] = field(default_factory=list)
    time: list[int] = field(default_factory=list)
    collective: list[str] = field(default_factory=list)
    size: list[int] = field(default_factory=list)
    group: list[str] = field(default_factory=list)
    update: list[bool] = field(default_factory=list)
    edges: list[tuple[int, int]] = field(default_factory=list)

    def add(
        self,
        name: str,
        after: Iterable[int | None],
        *,
        time: int = 0,
        collective: str = "",
        size: int = 0,
        group: str = "",
        update: bool = False,
    ) -> int:
        """One node; its position."""
        here = len(self.name)
        self.name.append(name)
        self.time.append(time)
        self.collective.append(collective)
        self.size.append(size)
        self.group.append(group)
        self.update.append(update)
        self.edges += [(p, here) for p in dict.fromkeys(after) if p is not None]
        return here


class _IssueOrder:
    """The issue order of a strategy, written down."""

    def __init__(self, table: Table):
        self.table, self.steps = table, NodeLists()
        self.last: int | None = None
        """What the next compute node waits for beside the compute before it."""
        self.gradient: dict[int, int] = {}
        """Weight gradient collective of each layer in the pass before."""
        self.waits: list[int | None] = []

    def compute(self, layer: int, word: str, part: LayerPass, *after: int | None) -> int:
        name = f"{self.prefix}{self.table.layers[layer].name}_{word}"
        self.last = self.steps.add(name, [self.last, *self.waits, *after], time=part.time)
        self.waits = []
        return self.last

    def collective(self, layer: int, word: str, part: LayerPass, after: int | None) -> int | None:
        """The part's collective behind `after`, with the layer's update time behind it; None where it has none."""
        if not part.collective:
            return None
        line = self.table.layers[layer]
        name = f"{self.prefix}{line.name}_{word}_comm"
        at = self.steps.add(
            name,
            [after],
            collective=part.collective,
            size=part.size,
            group=self._group(line, word, part),
        )
        if line.update:
            at = self.steps.add(f"{name}_update", [at], time=line.update, update=True)
        return at

    def _group(self, line: Layer, word: str, part: LayerPass) -> str:
        if part.suffix:
            return part.suffix
        if self.table.strategy.startswith("HYBRID_DLRM") and line is self.table.layers[0]:
            return "ALL"
        if line.strategy in ("DATA", "MICRO", "HYBRID_DLRM", "HYBRID_DLRM_ENHANCED"):
            return "ALL" if word == "weight_grad" else ""
        if line.strategy in ("MODEL", "DISTRIBUTED_INFERENCE"):
            return "ALL" if word != "weight_grad" else ""
        return "DP" if word == "weight_grad" else "TP"

    def run(self, passes: int) -> NodeLists:
        for k in range(passes):
            self.prefix = f"pass{k}." if passes > 1 else ""
            getattr(self, _ORDERS[self.table.strategy])()
        return self.steps

    def micro(self) -> None:
        for k, line in enumerate(self.table.layers):
            self.collective(k, "weight_grad", line.weight, None)

    def _forward(self, k: int, *, blocking: bool) -> None:
        line = self.table.layers[k]
        at = self.compute(k, "forward", line.forward, self.gradient.get(k))
        if blocking:
            self._hold(self.collective(k, "forward", line.forward, at))

    def _hold(self, at: int | None) -> None:
        if at is not None:
            self.waits.append(at)

    def _weight(self, k: int, after: int | None = None) -> None:
        part = self.table.layers[k].weight
        at = self.compute(k, "weight_grad", part, after)
        done = self.collective(k, "weight_grad", part, at)
        if done is not None:
            self.gradient[k] = done

    def data(self) -> None:
        layers = self.table.layers
        for k in range(len(layers)):
            self._forward(k, blocking=False)
        for k in reversed(range(len(layers))):
            self._weight(k)
            if k:
                self.compute(k, "input_grad", layers[k].input)

    def dlrm(self) -> None:
        layers = self.table.layers
        bottom = self.table.numbers.get("last_bottom_layer", -1)
        first: int | None = None
        for k in range(len(layers)):
            at = self.compute(k, "forward", layers[k].forward, self.gradient.get(k))
            if layers[k].forward.collective == "all_to_all":
                done = self.collective(k, "forward", layers[k].forward, at)
                first = done if k == 0 else first
            if k == bottom:
                self._hold(first)
        back: int | None = None
        for k in reversed(range(len(layers))):
            self._weight(k, back if k == 0 else None)
            if k:
                at = self.compute(k, "input_grad", layers[k].input)
                if k == bottom + 1:
                    back = self.collective(0, "input_grad", layers[0].input, at)

    def model(self) -> None:
        layers = self.table.layers
        for k in range(len(layers)):
            self._forward(k, blocking=True)
        if self.table.strategy == "DISTRIBUTED_INFERENCE":
            return
        for k in reversed(range(len(layers))):
            at = self.compute(k, "input_grad", layers[k].input)
            done = self.collective(k, "input_grad", layers[k].input, at) if k else None
            self._weight(k)
            self._hold(done)

    def transformer(self) -> None:
        layers, lists = self.table.layers, self.table.lists
        again = set(lists.get("checkpoint_initiates", ()))
        kept = sorted(lists.get("checkpoints", ()))
        for k in range(len(layers)):
            self._forward(k, blocking=True)
        for k in reversed(range(len(layers))):
            if k in again:
                start = max((c for c in kept if c <= k), default=0)
                for j in range(start, k):
                    at = self.compute(j, "recompute", layers[j].forward)
                    self._hold(self.collective(j, "recompute", layers[j].forward, at))
            at = self.compute(k, "input_grad", layers[k].input)
            self._hold(self.collective(k, "input_grad", layers[k].input, at))
            self._weight(k)


_ORDERS = {
    "MICRO": "micro",
    "DATA": "data",
    "MODEL": "model",
    "HYBRID_DATA_MODEL": "model",
    "HYBRID_MODEL_DATA": "model",
    "HYBRID_CUSTOMIZED": "model",
    "DISTRIBUTED_INFERENCE": "model",
    "HYBRID_DLRM": "dlrm",
    "HYBRID_DLRM_ENHANCED": "dlrm",
    "HYBRID_TRANSFORMER": "transformer",
    "HYBRID_TRANSFORMER_FWD_IN_BCKWD": "transformer",
}


def steps_of(table: Table, passes: int = 1) -> NodeLists:
    """The nodes that every rank runs, `passes` training steps of them."""
    return _IssueOrder(table).run(passes)
