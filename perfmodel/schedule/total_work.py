"""The work of a graph summed up: what energy is spent on, whatever the hardware."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.machine.placement import hops_table, span
from perfmodel.machine.system import System
from perfmodel.models.collectives import coefficients, phases
from perfmodel.models.cost_power_area import TotalWork
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program


def totals(graph: Graph, system: System) -> TotalWork:
    """The work of a graph on a network of the system's shape.

    Nodes that carry a factor of a what-if (`Program.scale`) count in full: it is their time that was scaled.
    """
    system = system.resized(graph.ranks)
    network = np.zeros(len(system.network))
    flops = moved = remote = 0.0
    recorded = dict.fromkeys(("compute", "memory", "communication"), 0.0)
    for p in graph.programs:
        ranks = len(p.ranks)
        compute = p.type == NodeType.COMP
        memory = (p.type == NodeType.MEM_LOAD) | (p.type == NodeType.MEM_STORE)
        talk = (p.type == NodeType.COMM_COLL) | (p.type == NodeType.COMM_SEND)
        here = memory & (p.local | (system.remote_memory is None))
        flops += ranks * float(np.maximum(p.flops[compute], 0).sum(dtype=float))
        moved += ranks * float(np.maximum(p.bytes[compute | here], 0).sum(dtype=float))
        remote += ranks * float(np.maximum(p.bytes[memory & ~here], 0).sum(dtype=float))
        barrier = p.comm_type == COLLECTIVES.index("barrier")
        for word, silent in (
            ("compute", compute & (p.flops < 0) & (p.bytes < 0)),
            ("memory", memory & (p.bytes < 0)),
            ("communication", talk & (p.size < 0) & ~barrier),
        ):
            recorded[word] += ranks * float(np.nan_to_num(p.duration[silent]).sum())
        network += _collectives(p, graph, system) + _messages(p, system)
    return TotalWork(
        flops,
        moved,
        tuple(map(float, network)),
        remote,
        **{f"recorded_{word}": seconds for word, seconds in recorded.items()},
    )


def _collectives(p: Program, graph: Graph, system: System) -> NDArray[np.float64]:
    """[K] bytes that a program's collectives send, over its ranks."""
    sent = np.zeros(len(system.network))
    for slot in range(p.groups.shape[1]):
        calls = (p.type == NodeType.COMM_COLL) & (p.slot == slot) & (p.size >= 0)
        kinds = [
            (k, float(p.size[calls & (p.comm_type == k)].sum(dtype=float)))
            for k in set(p.comm_type[calls])
        ]
        for group, ranks in zip(*np.unique(p.groups[:, slot], return_counts=True)):
            if len(graph.groups[group]) == 1:
                continue
            members = span(graph.groups[group], system.sizes).members
            for kind, size in kinds:
                for phase in phases(COLLECTIVES[kind], members):
                    n = members[phase.dimension]
                    volume = coefficients(
                        phase.kind, "direct", n, topology="switch", links=1, stride=1, size=n
                    )[1]
                    sent[phase.dimension] += ranks * size * phase.fraction * volume
    return sent


def _messages(p: Program, system: System) -> NDArray[np.float64]:
    """[K] bytes times hops of a program's sends, over its ranks."""
    send = p.type[p.p2p] == NodeType.COMM_SEND
    if not send.any() or not len(system.network):
        return np.zeros(len(system.network))
    size = np.maximum(p.size[p.p2p[send]], 0).astype(float)
    own = np.repeat(p.ranks, int(send.sum()))
    hops = hops_table(own, p.peer[:, send].ravel(), system.network)
    return np.tile(size, len(p.ranks)) @ hops
