"""A rank's nodes in an order that respects their dependencies, as Chakra's feeder hands them out.

    feeder = pm.Feeder(graph, rank=0)
    for node in feeder:              # lowest id first among those that are free
        print(node.id, node.name, node.type)

A simulator of one's own takes nodes when it likes and says when they are done:

    node = feeder.take()             # None while all that are free have been taken
    feeder.finish(node.id)           # frees what waited for it
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from perfmodel.errors import InputError
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.graph import Graph


@dataclass(frozen=True)
class FeederNode:
    """One node, as the trace has it; -1, nan and "" mark what it lacks.

    id, name; type: "COMP", "COMM_COLL", ...; flops [FLOP], bytes [B]; duration: recorded [s]; collective: "all_reduce",
    ...; size [B]; group: ranks of the communicator; peer, tag: of a message; resource; host: runs on the CPU;
    waits_for: ids.
    """

    id: int
    name: str
    type: str
    flops: int
    bytes: int
    duration: float
    collective: str
    size: int
    group: tuple[int, ...]
    peer: int
    tag: int
    resource: str
    host: bool
    waits_for: tuple[int, ...]


class Feeder:
    """Nodes of one rank of a graph, each free when all that it waits for are done.

    Args:
        graph: from `load` or a generator.
        rank: whose nodes.

    Raises:
        InputError: no such rank.
    """

    def __init__(self, graph: Graph, rank: int = 0):
        if not 0 <= rank < graph.ranks:
            raise InputError(
                f"{graph.source}: no rank {rank}; the ranks are 0 to {graph.ranks - 1}"
            )
        self.graph, self.rank = graph, rank
        self._program = graph.programs[graph.program[rank]]
        self._labels = graph.labels[graph.label[rank]]
        p = self._program
        self._left = np.diff(p.pred_ptr).tolist()
        n = len(p)
        target = np.repeat(np.arange(n), np.diff(p.pred_ptr))
        order = np.argsort(p.pred, kind="stable")
        self._after = target[order]
        self._after_ptr = np.searchsorted(p.pred[order], np.arange(n + 1))
        self._place = {int(i): k for k, i in enumerate(self._labels.node_id.tolist())}
        self._peer = dict(zip(p.p2p.tolist(), p.peer[graph.row[rank]].tolist()))
        self._free = [(int(p.priority[k]), k) for k in range(n) if not self._left[k]]
        heapq.heapify(self._free)
        self._taken: set[int] = set()
        self._done = 0

    def __len__(self) -> int:
        """How many nodes are not done."""
        return len(self._program) - self._done

    def take(self) -> FeederNode | None:
        """The free node with the lowest id, which is then no longer handed out; None where none is free."""
        if not self._free:
            return None
        _, k = heapq.heappop(self._free)
        self._taken.add(k)
        return self.node(int(self._labels.node_id[k]))

    def finish(self, id: int) -> None:
        """A node that was taken is done.

        Raises:
            InputError: it was not taken, or is done already.
        """
        k = self._place.get(id, -1)
        if k not in self._taken:
            raise InputError(
                f"{self.graph.source}: rank {self.rank}: node {id} was not taken, or is done already"
            )
        self._taken.remove(k)
        self._done += 1
        for j in self._after[self._after_ptr[k] : self._after_ptr[k + 1]].tolist():
            self._left[j] -= 1
            if not self._left[j]:
                heapq.heappush(self._free, (int(self._program.priority[j]), j))

    def node(self, id: int) -> FeederNode:
        """The node with this id, done or not.

        Raises:
            InputError: no such node.
        """
        k = self._place.get(id)
        if k is None:
            raise InputError(f"{self.graph.source}: rank {self.rank} has no node {id}")
        p, labels, row = self._program, self._labels, self.graph.row[self.rank]
        collective = COLLECTIVES[p.comm_type[k]] if p.comm_type[k] >= 0 else ""
        group = self.graph.groups[p.groups[row, p.slot[k]]] if p.slot[k] >= 0 else ()
        before = p.pred[p.pred_ptr[k] : p.pred_ptr[k + 1]]
        return FeederNode(
            id=id,
            name=labels.names[k],
            type=NodeType(int(p.type[k])).name,
            flops=int(p.flops[k]),
            bytes=int(p.bytes[k]),
            duration=float(p.duration[k]),
            collective=collective,
            size=int(p.size[k]),
            group=group,
            peer=self._peer.get(k, -1),
            tag=int(labels.tag[k]) if k in self._peer else -1,
            resource=p.resources[p.resource[k]] if p.resource[k] >= 0 else "",
            host=bool(p.cpu[k]),
            waits_for=tuple(int(labels.node_id[j]) for j in before),
        )

    def __iter__(self) -> Iterator[FeederNode]:
        """All nodes that are left, each done as soon as the next one is asked for."""
        while (node := self.take()) is not None:
            yield node
            self.finish(node.id)
