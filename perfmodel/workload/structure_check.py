"""Whether the arrays of a graph fit each other: what every later stage takes for granted, and compiled loops index by.

Reading a trace makes graphs that do; one that comes out of a file which somebody may have edited is checked first.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.vocabulary import COLLECTIVES, DTYPES, MOST_DIMENSIONS, OPERATIONS, NodeType
from perfmodel.workload.cycles import smallest_cycle
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Program


def check_structure(graph: Graph) -> None:
    """Raise ValueError, with the field and what is wrong, unless all arrays of the graph fit each other."""
    ranks = graph.ranks
    _require(ranks > 0 and len(graph.programs) > 0, "program", "there is no rank")
    _within("program", graph.program, 0, len(graph.programs) - 1)
    _within("label", graph.label, 0, len(graph.labels) - 1)
    _groups(graph)
    for labels in graph.labels:
        _labels(labels)
    for k, program in enumerate(graph.programs):
        _program(f"p{k}.", program, ranks, len(graph.groups))
        own = graph.program[program.ranks] == k
        place = graph.row[program.ranks] == np.arange(len(program.ranks))
        _require(bool((own & place).all()), f"p{k}.ranks", "does not fit program and row")
    total = sum(len(p.ranks) for p in graph.programs)
    _require(total == ranks, "ranks", f"are {total} in the programs, {ranks} in all")
    lengths = np.array([len(p) for p in graph.programs])[graph.program]
    named = np.array([len(labels.names) for labels in graph.labels])[graph.label]
    _require(bool((lengths == named).all()), "label", "has other nodes than the program")
    _messages(graph)
    _collectives(graph)


def _require(good: bool, field: str, what: str) -> None:
    if not good:
        raise ValueError(f"{field} {what}")


def _within(field: str, values: NDArray[Any], low: int, high: int | None = None) -> None:
    """All values lie in low..high."""
    if values.size:
        least, most = int(values.min()), int(values.max())
        _require(least >= low, field, f"holds {least}, expected at least {low}")
        _require(high is None or most <= high, field, f"holds {most}, expected at most {high}")


def _groups(graph: Graph) -> None:
    _require(
        bool(graph.groups) and graph.groups[0] == tuple(range(graph.ranks)),
        "group_member",
        "group 0 is not all ranks",
    )
    _require(
        len(graph.group_names) == len(graph.groups) == len(graph.by_name),
        "group_names",
        "are not one per group",
    )
    for members in graph.groups:
        array = np.array(members, np.int64)
        _within("group_member", array, 0, graph.ranks - 1)
        distinct = len(np.unique(array)) == len(array) > 0
        _require(distinct, "group_member", "has an empty group, or a rank twice in one")


def _labels(labels: Labels) -> None:
    n = len(labels.node_id)
    _require(len(labels.tag) == n == len(labels.names), "names", "are not one per node")
    _require(all(type(name) is str for name in labels.names), "names", "are not all texts")
    _require(len(labels.start) in (0, n), "start", "is not one per node")


def _program(where: str, p: Program, ranks: int, groups: int) -> None:
    """One program by itself."""
    n = len(p)
    _within(where + "type", p.type, 0, max(NodeType))
    for name in ("flops", "bytes", "size"):
        _within(where + name, getattr(p, name), -1)
    timed = (p.duration >= 0) & np.isfinite(p.duration)
    _require(bool((timed | np.isnan(p.duration)).all()), where + "duration", "holds no time")
    _require(bool(((p.scale >= 0) & np.isfinite(p.scale)).all()), where + "scale", "is no factor")
    _within(where + "kind", p.kind, 0, len(OPERATIONS) - 1)
    _within(where + "dimensions", p.dimensions, -1)
    _within(where + "dtype", p.dtype, -1, len(DTYPES) - 1)
    slow = (p.pred_latency >= 0) & np.isfinite(p.pred_latency)
    _require(bool(slow.all()), where + "pred_latency", "holds no time")
    _within(where + "resource", p.resource, -1, len(p.resources) - 1)
    _within(where + "resource", p.resource[p.type == NodeType.COMM_RECV], -1, -1)
    _within(where + "resource", p.resource[p.type == NodeType.COMM_COLL], 0)
    _permutation(where + "priority", p.priority)
    _require(
        len(p.pred_ptr) == n + 1
        and int(p.pred_ptr[0]) == 0
        and int(p.pred_ptr[-1]) == len(p.pred)
        and bool((np.diff(p.pred_ptr) >= 0).all()),
        where + "pred_ptr",
        "does not divide the dependencies",
    )
    _within(where + "pred", p.pred, 0, n - 1)
    _require(smallest_cycle(p.pred_ptr, p.pred)[1] == 0, where + "pred", "has a cycle")
    collective = p.type == NodeType.COMM_COLL
    _require(bool(((p.slot >= 0) == collective).all()), where + "slot", "does not fit the types")
    _within(where + "slot", p.slot, -1, p.groups.shape[1] - 1)
    _within(where + "comm_type", p.comm_type[collective], 0, len(COLLECTIVES) - 1)
    _within(where + "comm_type", p.comm_type[~collective], -1, -1)
    _require(
        _numbered(p.slot, p.match), where + "match", "does not number the collectives of a slot"
    )
    _within(where + "match", p.match[~collective], -1, -1)
    message = (p.type == NodeType.COMM_SEND) | (p.type == NodeType.COMM_RECV)
    _require(np.array_equal(p.p2p, np.flatnonzero(message)), where + "p2p", "are not the messages")
    _within(where + "ranks", p.ranks, 0, ranks - 1)
    _require(bool((np.diff(p.ranks) > 0).all()), where + "ranks", "are not ascending")
    _within(where + "groups", p.groups, 0, groups - 1)
    _within(where + "peer", p.peer, 0, ranks - 1)


def _permutation(field: str, values: NDArray[Any]) -> None:
    """The values are 0..n-1, each once."""
    _within(field, values, 0, len(values) - 1)
    once = len(np.unique(values)) == len(values)
    _require(once, field, "holds a position twice")


def _numbered(slot: NDArray[Any], match: NDArray[Any]) -> bool:
    """Whether `match` is 0..k-1 over the k nodes of each slot, in any order."""
    slot, match = slot[slot >= 0], match[slot >= 0]
    order = np.lexsort((match, slot))
    starts = np.searchsorted(slot[order], slot[order])
    return np.array_equal(match[order], np.arange(len(order)) - starts)


def _messages(graph: Graph) -> None:
    """Every send's partner is a receive on its peer whose partner is the send."""
    node, other, send = [], [], []
    for p in graph.programs:
        if not p.p2p.size:
            continue
        _within("partner", p.partner, 0)
        begin = graph.offset[p.peer]
        inside = p.partner < graph.offset[p.peer + 1] - begin
        _require(bool(inside.all()), "partner", "lies behind the peer's last node")
        node.append((graph.offset[p.ranks][:, None] + p.p2p).ravel())
        other.append((begin + p.partner).ravel())
        send.append(np.broadcast_to(p.type[p.p2p] == NodeType.COMM_SEND, p.peer.shape).ravel())
    if not node:
        return
    nodes, others, sends = map(np.concatenate, (node, other, send))
    order = np.argsort(nodes)
    nodes, others, sends = nodes[order], others[order], sends[order]
    at = np.minimum(np.searchsorted(nodes, others), len(nodes) - 1)
    good = (nodes[at] == others) & (others[at] == nodes) & (sends[at] != sends)
    _require(bool(good.all()), "partner", "does not pair sends and receives")


def _collectives(graph: Graph) -> None:
    """Every member of a group that is used takes part in it, and in equally many collectives."""
    group, rank, count = [], [], []
    for p in graph.programs:
        calls = np.bincount(p.slot[p.slot >= 0], minlength=p.groups.shape[1])
        _require(bool((calls > 0).all()), "groups", "has a slot that no collective uses")
        group.append(p.groups.ravel())
        rank.append(np.repeat(p.ranks, p.groups.shape[1]))
        count.append(np.broadcast_to(calls, p.groups.shape).ravel())
    groups, ranks = np.concatenate(group), np.concatenate(rank)
    counts = np.concatenate(count)
    order = np.lexsort((ranks, groups))
    groups, ranks, counts = groups[order], ranks[order], counts[order]
    starts = np.flatnonzero(np.diff(groups, prepend=-1))
    for a, b in zip(starts, [*starts[1:], len(groups)]):
        members = np.sort(np.array(graph.groups[int(groups[a])], np.int64))
        _require(np.array_equal(members, ranks[a:b]), "groups", "are not used by their members")
        same = bool((counts[a:b] == counts[a]).all())
        _require(same, "groups", "are called a different number of times by their members")


def shapes(n: int, e: int) -> dict[str, tuple[str, tuple[Any, ...]]]:
    """dtype and shape of the arrays of a program of n nodes and e dependencies, by field; None for any length."""
    node = {
        "i1": "type kind dtype",
        "?": "cpu local",
        "i8": "flops bytes size",
        "f8": "duration scale",
    }
    node["i4"] = "comm_type slot match involved resource priority"
    found: dict[str, tuple[str, tuple[Any, ...]]] = {
        name: (kind, (n,)) for kind, names in node.items() for name in names.split()
    }
    return found | {
        "pred_ptr": ("i8", (n + 1,)),
        "pred": ("i4", (e,)),
        "pred_latency": ("f8", (e,)),
        "dimensions": ("i8", (n, MOST_DIMENSIONS)),
        "p2p": ("i4", (None,)),
        "ranks": ("i4", (None,)),
        "groups": ("i4", (None, None)),
        "peer": ("i4", (None, None)),
        "partner": ("i4", (None, None)),
    }
