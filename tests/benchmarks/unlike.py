"""Ranks that have nothing in common: random programs, no two alike, no two kernels that take equally long."""

from __future__ import annotations

import numpy as np

from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.columns import RankColumns

COLLECTIVE = 0.05
"""Share of nodes that are all-reduces over all ranks, one after the other."""

BACK = 50
"""How many nodes back a dependency reaches."""


def unlike_ranks(ranks: int, nodes: int, seed: int = 0) -> list[RankColumns]:
    """Columns of ranks with about 2.5 dependencies a node."""
    choice = np.random.default_rng(seed)
    calls = choice.random(nodes) < COLLECTIVE
    size = np.where(calls, choice.integers(10**3, 10**8, nodes), -1)
    kind = np.where(calls, int(NodeType.COMM_COLL), int(NodeType.COMP))
    each = np.flatnonzero(calls)
    found = []
    for _ in range(ranks):
        to = np.repeat(np.arange(nodes), 3)[choice.random(3 * nodes) < 0.82]
        back = to - choice.integers(1, BACK, len(to))
        to, back = to[back >= 0], back[back >= 0]
        found.append(
            RankColumns(
                id=np.arange(1, nodes + 1),
                type=kind,
                flops=np.where(calls, -1, choice.integers(10**6, 10**12, nodes)),
                bytes=np.where(calls, -1, choice.integers(10**3, 10**9, nodes)),
                comm_type=np.where(calls, COLLECTIVES.index("all_reduce"), -1),
                size=size,
                edge_from=np.concatenate([back, each[:-1]]),
                edge_to=np.concatenate([to, each[1:]]),
            )
        )
    return found
