"""What ASTRA-sim would stop at or pass over in silence, found in a graph before any run."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Finding
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program

NEVER_RUN = ("reduce", "gather", "scatter", "barrier", "reduce_scatter_block")
"""Collectives at which the simulator aborts."""


def findings(graph: Graph) -> list[Finding]:
    """Nodes that ASTRA-sim cannot run, or times at nothing; a finding per rank and kind, with the nodes' ids."""
    found = []
    for rank in range(graph.ranks):
        p = graph.programs[graph.program[rank]]
        ids = graph.labels[graph.label[rank]].node_id
        alone = np.array([len(graph.groups[g]) == 1 for g in p.groups[graph.row[rank]]], bool)
        for code, where, text, remedy in _kinds(p, alone):
            if where.any():
                nodes = tuple(int(k) for k in ids[where])
                found.append(Finding("warning", code, rank, nodes, f"in ASTRA-sim: {text}", remedy))
    return found


def _kinds(
    p: Program, alone: NDArray[np.bool_]
) -> Iterator[tuple[str, NDArray[np.bool_], str, str]]:
    """(code, [n] which nodes, what happens, what to do)."""
    compute = p.type == NodeType.COMP
    collective = p.type == NodeType.COMM_COLL
    messages = (p.type == NodeType.COMM_SEND) | (p.type == NodeType.COMM_RECV)
    in_group = np.append(alone, False)[p.slot]  # slot -1: none
    unknown = np.array([COLLECTIVES.index(kind) for kind in NEVER_RUN])
    yield (
        "astra-group-of-one",
        collective & in_group,
        "a collective in a group of one rank never ends",
        "Leave it out of the trace",
    )
    yield (
        "astra-cpu-communication",
        p.cpu & (collective | messages),
        "communication marked as a CPU operation (is_cpu_op) stops the run, or takes no time in older versions",
        "Set is_cpu_op to false",
    )
    yield (
        "astra-no-size",
        compute & ~p.cpu & (p.bytes == 0),
        "compute with tensor_size 0 takes no time with the roofline, and what it alone releases may never start",
        "Record the bytes that it moves",
    )
    yield (
        "astra-no-operations",
        compute & ~p.cpu & (p.flops == 0) & (p.bytes > 0),
        "compute with num_ops 0 divides 0 by 0 with the roofline",
        "Record its operations, or replay its duration",
    )
    yield (
        "astra-collective",
        collective & np.isin(p.comm_type, unknown),
        f"{', '.join(NEVER_RUN)} abort the run",
        "Use another collective, or messages",
    )
    yield (
        "astra-empty-message",
        messages & (p.size <= 0),
        "a message without a size, or of 0 bytes, aborts the run",
        "Record comm_size on both sides",
    )
