"""The longest path over a PyTorch recording in plain Python: an oracle for what replays it.

A node starts when all nodes before it are over, each edge's latency later. The n-th collective of a name meets the n-th
of the other members; all of them are over when the last has come and the least recorded duration has passed.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from itertools import pairwise

import numpy as np

from perfmodel.trace.pytorch.read import Recording
from perfmodel.vocabulary import NodeType


def replay(
    recording: Recording,
    *,
    drop=lambda rank, columns: np.zeros(len(columns["edge_from"]), bool),
    meet: bool = True,
):
    """[(start, end)] of each rank's nodes [s].

    Args:
        recording: what was read.
        drop: (rank, its columns) -> which of its edges to leave out.
        meet: collectives wait for each other.
    """
    base = np.cumsum([0, *(len(c["id"]) for c in recording.ranks)])
    n = int(base[-1])
    before, after = defaultdict(list), defaultdict(list)
    meeting: dict[tuple, list[int]] = defaultdict(list)
    of: dict[int, tuple] = {}
    duration = np.concatenate([c["duration"] for c in recording.ranks])
    for rank, (first, c) in enumerate(zip(base, recording.ranks)):
        keep = ~drop(rank, c)
        for u, v, late in zip(
            c["edge_from"][keep].tolist(),
            c["edge_to"][keep].tolist(),
            c["edge_latency"][keep].tolist(),
        ):
            before[first + v].append((first + u, late))
            after[first + u].append(first + v)
        seen: Counter = Counter()
        for i in np.flatnonzero(c["type"] == NodeType.COMM_COLL).tolist():
            group = c["group_names"][c["group"][i]]
            key = (group, c["name"][i], seen[group, c["name"][i]])
            seen[group, c["name"][i]] += 1
            meeting[key].append(first + i)
            of[first + i] = key
    start, end = np.zeros(n), np.full(n, np.nan)
    waiting = [len(before[v]) for v in range(n)]
    ready = deque(v for v in range(n) if waiting[v] == 0)
    come: Counter = Counter()

    def finish(node: int, time: float) -> None:
        end[node] = time
        for follower in after[node]:
            waiting[follower] -= 1
            if waiting[follower] == 0:
                ready.append(follower)

    while ready:
        v = ready.popleft()
        start[v] = max((end[u] + late for u, late in before[v]), default=0.0)
        if v not in of:
            finish(v, start[v] + duration[v])
            continue
        members = meeting[of[v]]
        cost = min(duration[m] for m in members)
        if not meet:
            finish(v, start[v] + cost)
            continue
        come[of[v]] += 1
        if come[of[v]] == len(members):
            over = max(start[m] for m in members) + cost
            for m in members:
                finish(m, over)
    assert not np.isnan(end).any(), "nodes wait for each other"
    return [(start[a:b], end[a:b]) for a, b in pairwise(base)]
