"""A graph as a GOAL schedule, the text that LogGOPSim simulates.

GOAL knows computation in whole ns, sends and receives. A node that computes becomes `calc`; a collective becomes the
messages of a plain algorithm, and an empty `calc` that waits for its last ones and stands for its end:

| collective | messages of each member (n members, S bytes handed in) |
| --- | --- |
| all-reduce | ring: 2 (n - 1) of S/n |
| reduce-scatter | ring: n - 1 of S/n |
| all-gather | ring: n - 1 of S |
| all-to-all | n - 1 of S/n, one to each |
| broadcast, reduce | binomial tree from or to the first member: S |
| gather, scatter | each with the first member: S, S/n |
| barrier | dissemination: 1 B, ceil(log2 n) rounds |

Source: the algorithms as in Thakur, Rabenseifner, Gropp 2005, "Optimization of Collective Communication Operations in
MPICH"; the format as in `trace.goal`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.files import whole_file
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program

Transfers = tuple[list[tuple[int, int]], list[tuple[int, int]]]
"""What a member sends and receives at once: (member, bytes) of each."""


def write_goal(graph: Graph, path: str | Path, *, times: NDArray[np.float64] | None = None) -> None:
    """Write a graph as GOAL text; a name in .gz compresses.

    Args:
        graph: any; factors of a what-if count.
        path: the file.
        times: [N] seconds of every node, as a prediction has them (`prediction.duration`); by default recorded ones.
            Only what computes or moves memory needs one.

    Raises:
        InputError: a node that computes has no time.
    """
    with whole_file(path) as file:
        file.write(f"num_ranks {graph.ranks}\n".encode())
        tags = _Tags(graph)
        for rank in range(graph.ranks):
            file.write(("\n".join(_rank(graph, rank, tags, times)) + "\n").encode())


class _Tags:
    """Tags of collectives, above those of messages: one for each call of each group."""

    def __init__(self, graph: Graph):
        self.graph = graph
        self.next = 1 + max((int(labels.tag.max(initial=0)) for labels in graph.labels), default=0)
        self.known: dict[tuple[int, int], int] = {}

    def of(self, group: int, instance: int) -> int:
        """The tag of the group's call of this number."""
        key = (group, instance)
        if key not in self.known:
            self.known[key] = self.next + len(self.known)
        return self.known[key]


def _rank(graph: Graph, rank: int, tags: _Tags, times: NDArray[Any] | None) -> Iterator[str]:
    p, row = graph.programs[graph.program[rank]], graph.row[rank]
    labels = graph.labels[graph.label[rank]]
    seconds = p.duration if times is None else times[graph.offset[rank] : graph.offset[rank + 1]]
    peer = dict(zip(p.p2p.tolist(), p.peer[row].tolist()))
    instance = _instances(graph, p)
    yield f"rank {rank} {{"
    for k in range(len(p)):
        name = f"n{k}"
        before = [f"n{j}" for j in p.pred[p.pred_ptr[k] : p.pred_ptr[k + 1]].tolist()]
        unit = f" cpu {max(int(p.resource[k]), 0)}"
        kind = int(p.type[k])
        if kind == NodeType.COMM_COLL:
            group = int(p.groups[row, p.slot[k]])
            yield from _collective(
                name,
                before,
                graph,
                rank,
                k,
                int(instance[k]),
                tags.of(group, int(instance[k])),
                unit,
            )
            continue
        if kind in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            word, way = ("send", "to") if kind == NodeType.COMM_SEND else ("recv", "from")
            size = int(p.size[k])
            if size < 0 and kind == NodeType.COMM_RECV:
                other = graph.programs[graph.program[peer[k]]]
                size = int(other.size[p.partner[row][np.searchsorted(p.p2p, k)]])
            if size < 0:
                raise InputError(
                    f"{graph.source}: {graph.name(rank, k)}: has no size, which GOAL needs"
                )
            yield f"{name}: {word} {size}b {way} {peer[k]} tag {int(labels.tag[k])}{unit}"
        elif kind in (NodeType.METADATA, NodeType.INVALID):
            yield f"{name}: calc 0"
        else:
            if not np.isfinite(seconds[k]):
                raise InputError(
                    f"{graph.source}: {graph.name(rank, k)}: has no recorded duration; give times, for example those"
                    " that a system predicts (--system)"
                )
            yield f"{name}: calc {round(float(seconds[k]) * float(p.scale[k] if times is None else 1.0) * 1e9)}{unit}"
        for other_name in before:
            yield f"{name} requires {other_name}"
    yield "}"


def _instances(graph: Graph, p: Program) -> NDArray[np.int64]:
    """[n] number of each collective among its group's, in the way they pair up."""
    number = np.full(len(p), -1, np.int64)
    for slot in range(p.groups.shape[1]):
        here = np.flatnonzero(p.slot == slot)
        if graph.by_name[p.groups[0, slot]]:
            number[here] = p.match[here]
        else:
            number[here[np.argsort(p.priority[here], kind="stable")]] = np.arange(len(here))
    return number


def _collective(
    name: str,
    before: list[str],
    graph: Graph,
    rank: int,
    k: int,
    instance: int,
    tag: int,
    unit: str,
) -> Iterator[str]:
    p, row = graph.programs[graph.program[rank]], graph.row[rank]
    members = graph.groups[p.groups[row, p.slot[k]]]
    kind, size = COLLECTIVES[p.comm_type[k]], int(p.size[k])
    if size < 0 and kind != "barrier" and len(members) > 1:
        raise InputError(f"{graph.source}: {graph.name(rank, k)}: has no size, which GOAL needs")
    last = before
    for step, (sends, receives) in enumerate(
        rounds(kind, len(members), members.index(rank), max(size, 0))
    ):
        here = []
        for word, way, pairs in (("send", "to", sends), ("recv", "from", receives)):
            for j, (member, count) in enumerate(pairs):
                label = f"{name}_{step}{word[0]}{j}"
                here.append(label)
                yield f"{label}: {word} {max(count, 1)}b {way} {members[member]} tag {tag}{unit}"
        for label in here:
            for other in last:
                yield f"{label} requires {other}"
        last = here or last
    yield f"{name}: calc 0{unit}"
    for other in last:
        yield f"{name} requires {other}"


def rounds(kind: str, n: int, i: int, size: int) -> list[Transfers]:
    """What member i of n sends and receives in each round of a collective, by member and bytes.

    >>> rounds("all_reduce", 2, 0, 8)
    [([(1, 4)], [(1, 4)]), ([(1, 4)], [(1, 4)])]
    >>> rounds("broadcast", 4, 1, 8)
    [([], [(0, 8)]), ([(3, 8)], [])]
    """
    if n == 1:
        return []
    part = -(-size // n)
    after, ahead = (i + 1) % n, (i - 1) % n
    if kind in ("all_reduce", "reduce_scatter", "reduce_scatter_block", "all_gather"):
        count = size if kind == "all_gather" else part
        return [([(after, count)], [(ahead, count)])] * (
            (n - 1) * (2 if kind == "all_reduce" else 1)
        )
    if kind == "all_to_all":
        return [([((i + k) % n, part)], [((i - k) % n, part)]) for k in range(1, n)]
    if kind == "barrier":
        steps = (n - 1).bit_length()
        return [([((i + 2**k) % n, 1)], [((i - 2**k) % n, 1)]) for k in range(steps)]
    if kind in ("gather", "scatter"):
        count = size if kind == "gather" else part
        mine, root = [(0, count)], [(k, count) for k in range(1, n)]
        if i == 0:
            return [([], root) if kind == "gather" else (root, [])]
        return [(mine, []) if kind == "gather" else ([], mine)]
    tree: list[Transfers] = []
    for k in range((n - 1).bit_length()):  # who has it sends to the one 2^k further
        if i < 2**k and i + 2**k < n:
            tree.append(([(i + 2**k, size)], []))
        elif 2**k <= i < 2 ** (k + 1):
            tree.append(([], [(i - 2**k, size)]))
    if kind == "broadcast":
        return tree
    return [(receives, sends) for sends, receives in reversed(tree)]  # reduce: the way back
