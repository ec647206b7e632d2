"""A rank program from pieces: each distinct pass is described once, and repeated as arrays.

A piece (`PassNodes`) is the nodes of one pass (a micro-batch through a chunk of layers), described once as steps.
Where a node waits for something outside its piece it names a port; each repetition says which node the port is there:

    PREVIOUS  the last kernel of the piece before
    SENT      what else computation waits for: the message that the piece before sent, or the piece beside it
    AHEAD     the kernel before the last layer of the piece before, after which weights may be fetched
    SUMMED    the last collective of the tensor group in the pieces before: a group's collectives run in the order in
              which they are launched, the same one on all its ranks
    port(k)   anything else: the gather of a bucket of parameters, a reduction that the optimizer waits for

The cost in Python follows distinct pieces and repetitions, not nodes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.synth.columns import PER_NODE, Columns, columns, in_order
from perfmodel.synth.layout import TENSOR
from perfmodel.synth.steps import Step
from perfmodel.vocabulary import NodeType

PREVIOUS, SENT, AHEAD, SUMMED = -1, -2, -3, -4
FIXED = 4
ABSENT = -1


def port(k: int) -> int:
    """The k-th further port."""
    return -(FIXED + 1) - k


@dataclass(frozen=True, eq=False)
class PassNodes:
    """Nodes of a pass.

    Attributes:
        nodes: their columns; waits below 0 are ports, peers are +1 (the next place of the pipeline) or -1, tags 0
            (forward) or 1 (backward).
        prefix: [n] i64, which of a repetition's prefixes each name begins with.
        last: position of the last kernel; None without kernels.
        sent: position of the message sent, None without one.
        ahead: position, or port, of the kernel before the last layer.
        summed: position of the last collective of the tensor group; None without one.
        marks: positions of reductions that the optimizer waits for.
    """

    nodes: Columns
    prefix: NDArray[np.int64]
    last: int | None
    sent: int | None
    summed: int | None
    ahead: int
    marks: tuple[int, ...]


def pass_nodes(
    steps: Sequence[Step],
    prefix: Sequence[int],
    *,
    gap: float = 0.0,
    sent: int | None = None,
    ahead: int = PREVIOUS,
    marks: Sequence[int] = (),
) -> PassNodes:
    """The piece that these steps make.

    Args:
        steps, prefix: n nodes, and the number of each one's prefix.
        gap: least time between a kernel and the next one [s].
        sent, ahead, marks: see `PassNodes`.
    """
    found = columns(steps)
    kernel = (found.type == NodeType.COMP) & ~found.host
    target = np.repeat(kernel, np.diff(found.pred_ptr))
    inside = found.pred >= 0
    before = found.pred == PREVIOUS
    before[inside] = kernel[found.pred[inside]]
    latency = np.where(target & before, gap, 0.0)
    found = Columns(**{**vars(found), "latency": latency})
    last = int(np.flatnonzero(kernel)[-1]) if kernel.any() else None
    tensor = (found.type == NodeType.COMM_COLL) & np.isin(found.resource, _streams(found, TENSOR))
    summed = int(np.flatnonzero(tensor)[-1]) if tensor.any() else None
    return PassNodes(found, np.asarray(prefix, np.int64), last, sent, summed, ahead, tuple(marks))


def _streams(found: Columns, name: str) -> list[int]:
    """The number of a resource; none where nothing needs it."""
    return [found.resources.index(name)] if name in found.resources else []


@dataclass
class Repetition:
    """A piece at a place of the program.

    Attributes:
        piece: which.
        prefixes: texts that names begin with.
        following, preceding: (distance, number of the boundary) to the next and the previous place of the pipeline.
        wait_sent: the next piece's first kernel waits for this one's message.
        ports: nodes of further ports, by number.
        beside: its kernels run beside those of the piece before, wherever one of the two waits; the next piece waits
            for both.
    """

    piece: PassNodes
    prefixes: Sequence[str]
    following: tuple[int, int] = (0, 0)
    preceding: tuple[int, int] = (0, 0)
    wait_sent: bool = False
    ports: Sequence[int] = field(default_factory=list)
    beside: bool = False


@dataclass
class Tiling:
    """Repetitions in program order, with the position where each begins."""

    parts: list[Repetition] = field(default_factory=list)
    starts: list[int] = field(default_factory=list)
    fixed: list[tuple[int, int, int, int]] = field(default_factory=list)
    length: int = 0
    previous: int = ABSENT
    sent: int = ABSENT
    ahead: int = ABSENT
    summed: int = ABSENT

    def add(self, part: Repetition) -> int:
        """Append a repetition; returns the position where it begins."""
        start, this = self.length, part.piece
        self.parts.append(part)
        self.starts.append(start)
        previous = self.fixed[-1][0] if part.beside else self.previous
        summed = self.fixed[-1][3] if part.beside else self.summed
        self.fixed.append((previous, self.sent, self.ahead, summed))
        self.length += len(this.nodes)
        joined = self.previous if part.beside else ABSENT
        if this.last is not None:
            self.ahead = start + this.ahead if this.ahead >= 0 else self.previous
            self.previous = start + this.last
        if this.summed is not None:
            self.summed = start + this.summed
        self.sent = start + this.sent if part.wait_sent and this.sent is not None else joined
        return start

    def columns(self) -> Columns:
        """The whole program."""
        distinct: dict[int, int] = {}
        pieces: list[PassNodes] = []
        for part in self.parts:
            if id(part.piece) not in distinct:
                distinct[id(part.piece)] = len(pieces)
                pieces.append(part.piece)
        which = np.array([distinct[id(part.piece)] for part in self.parts])
        library = _stack([p.nodes for p in pieces])
        sizes = np.array([len(p.nodes) for p in pieces])
        first = np.cumsum(sizes) - sizes
        index, owner = _ranges(first[which], sizes[which])
        found = {name: getattr(library, name)[index] for name in PER_NODE}
        self._messages(found, owner)
        ptr, pred, latency = self._waits(library, index, owner)
        return Columns(
            **found,
            group_labels=library.group_labels,
            resources=library.resources,
            pred_ptr=ptr,
            pred=pred,
            latency=latency,
            names=self._names(),
        )

    def _messages(self, found: dict[str, NDArray[Any]], owner: NDArray[Any]) -> None:
        """Peers and tags of messages, from +1 and -1 along the pipeline."""
        reach = np.array([(*p.following, *p.preceding) for p in self.parts], np.int64)
        way, backward = found["offset"], found["tag"]
        to = np.where(way[:, None] > 0, reach[owner, :2], reach[owner, 2:])
        found["offset"] = np.where(way == 0, 0, to[:, 0])
        found["tag"] = np.where(way == 0, 0, 2 * to[:, 1] + backward)

    def _waits(
        self, library: Columns, index: NDArray[Any], owner: NDArray[Any]
    ) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        """Waits as positions in the program; a port that is nothing here waits for nothing."""
        counts = np.diff(library.pred_ptr)[index]
        edge, node = _ranges(library.pred_ptr[:-1][index], counts)
        relative = library.pred[edge]
        width = FIXED + max((len(p.ports) for p in self.parts), default=0)
        table = np.full((len(self.parts), width), ABSENT, np.int64)
        table[:, :FIXED] = self.fixed
        for k, part in enumerate(self.parts):
            if len(part.ports):
                table[k, FIXED : FIXED + len(part.ports)] = part.ports
        mine = owner[node]
        outside = table[mine, np.where(relative < 0, -1 - relative, 0)]
        position = np.where(relative < 0, outside, relative + np.array(self.starts)[mine])
        keep = position >= 0
        node, position = node[keep], position[keep]
        latency = library.latency[edge][keep]
        order = np.lexsort((position, node))
        node, position, latency = node[order], position[order], latency[order]
        again = np.append(False, (np.diff(node) == 0) & (np.diff(position) == 0))
        if again.any():  # a node waited for twice, through two ports: once, and the longer
            starts = np.flatnonzero(~again)
            latency = np.maximum.reduceat(latency, starts)
            node, position = node[starts], position[starts]
        ptr = np.concatenate([[0], np.cumsum(np.bincount(node, minlength=len(index)))])
        return ptr.astype(np.int64), position, latency

    def _names(self) -> tuple[str, ...]:
        names: list[str] = []
        for part in self.parts:
            prefixes, this = part.prefixes, part.piece
            names += [prefixes[k] + s for k, s in zip(this.prefix.tolist(), this.nodes.names)]
        return tuple(names)


def _ranges(first: NDArray[Any], count: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """[sum(count)] first[k], first[k] + 1, ..., count[k] of them for every k; and the k of each."""
    owner = np.repeat(np.arange(len(first)), count)
    within = np.arange(len(owner)) - (np.cumsum(count) - count)[owner]
    return first[owner] + within, owner


def _stack(parts: Sequence[Columns]) -> Columns:
    """Columns one after the other; waits stay relative to their own part."""
    groups = {g: k for k, g in enumerate(dict.fromkeys(g for p in parts for g in p.group_labels))}
    streams = {r: k for k, r in enumerate(in_order(r for p in parts for r in p.resources))}
    stacked = {
        name: np.concatenate([getattr(p, name) for p in parts])
        for name in PER_NODE
        if name not in ("group", "resource")
    }
    group = [np.array([*(groups[g] for g in p.group_labels), -1], np.int32)[p.group] for p in parts]
    stream = [
        np.array([*(streams[r] for r in p.resources), -1], np.int32)[p.resource] for p in parts
    ]
    counts = np.concatenate([np.diff(p.pred_ptr) for p in parts])
    return Columns(
        **stacked,
        group=np.concatenate(group),
        group_labels=tuple(groups),
        resource=np.concatenate(stream),
        resources=tuple(streams),
        pred_ptr=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        pred=np.concatenate([p.pred for p in parts]),
        latency=np.concatenate([p.latency for p in parts]),
        names=(),
    )
