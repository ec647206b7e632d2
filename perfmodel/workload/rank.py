"""One rank's nodes, checked, with positions instead of ids."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Findings, RankFindings
from perfmodel.vocabulary import COLLECTIVES, TYPE_NAMES, NodeType
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.cycles import smallest_cycle
from perfmodel.workload.edges import predecessors
from perfmodel.workload.groups import Groups, short
from perfmodel.workload.program import Labels, resources_of

BARRIER = COLLECTIVES.index("barrier")


@dataclass
class CheckedRank:
    """One rank on its way into the graph.

    Attributes:
        structure: the fields of a `Program` that equal ranks share.
        labels: node ids, tags, names.
        group_of_slot: number of the group in each slot.
        names_of_slot: hash of the sorted names of the slot's collectives.
        peer, p2p_size: [k] the other rank and the size of each send and receive.
    """

    rank: int
    structure: dict[str, Any]
    labels: Labels
    group_of_slot: list[int]
    names_of_slot: list[bytes]
    peer: NDArray[np.int32]
    p2p_size: NDArray[np.int64]

    def calls(self, slot: int) -> NDArray[np.intp]:
        """Positions of a slot's collectives, by their number in it."""
        return self._calls[slot]

    @cached_property
    def _calls(self) -> list[NDArray[np.intp]]:
        return by_slot(self.structure["slot"], self.structure["match"], len(self.group_of_slot))


@dataclass
class CheckedNodes:
    """One rank's nodes, checked by themselves: its groups are still names.

    Attributes:
        columns: n nodes; found: what is wrong with them.
        priority: [n] position in ascending node id.
        pred_ptr, pred, pred_latency: prerequisites, see `Program`.
        p2p, peer: [k] positions of the sends and receives, and the other rank of each.
        resource, resources: [n] index of each node's resource, -1 for none, and what they are called.
    """

    rank: int
    columns: RankColumns
    found: Findings
    priority: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    pred_latency: NDArray[np.float64]
    p2p: NDArray[np.int32]
    peer: NDArray[np.int32]
    resource: NDArray[np.int32]
    resources: tuple[str, ...]


def check_nodes(rank: int, columns: RankColumns, ranks: int, findings: Findings) -> CheckedNodes:
    """Check one rank's nodes by themselves.

    Args:
        rank: its number.
        columns: n nodes.
        ranks: how many there are.
        findings: gets what is wrong.
    """
    t, n = columns, len(columns)
    note = RankFindings(rank, t.id, findings)
    if n == 0:
        findings.add("error", "empty", "has no nodes", rank=rank, remedy="Record it again")
    priority = np.arange(n, dtype=np.int32)
    if not (t.id[1:] > t.id[:-1]).all():
        order = np.argsort(t.id, kind="stable").astype(np.int32)
        priority[order] = np.arange(n, dtype=np.int32)
        _check_ids(t, order, note)
    _check_types(t, note)
    prerequisites = _prerequisites(t)
    _check_cycles(*prerequisites[:2], note)
    _check_work(t, note)
    _check_collectives(t, note)
    messages = _messages(t, rank=rank, ranks=ranks, note=note)
    resource = _resources(t, note)
    return CheckedNodes(rank, columns, findings, priority, *prerequisites, *messages, *resource)


def check_rank(nodes: CheckedNodes, groups: Groups) -> CheckedRank:
    """One rank with its groups, which are found by name; `groups` grows, so that the order of ranks matters."""
    t, rank, n, priority = nodes.columns, nodes.rank, len(nodes.columns), nodes.priority
    slot, group_of_slot = _slots(t, rank, priority, groups)
    match, names_of_slot = _match(slot, priority, t.name, len(group_of_slot))
    structure = {
        "type": t.type.astype(np.int8),
        "cpu": t.host,
        "flops": t.flops,
        "bytes": t.bytes,
        "duration": t.duration,
        "comm_type": np.where(t.type == NodeType.COMM_COLL, t.comm_type, -1).astype(np.int32),
        "size": t.size,
        "slot": slot,
        "match": match,
        "local": t.local,
        "involved": t.involved,
        "scale": np.broadcast_to(1.0, (n,)),
        "kind": t.kind,
        "dimensions": t.dimensions,
        "dtype": t.dtype,
        "resource": nodes.resource,
        "resources": nodes.resources,
        "priority": priority,
        "pred_ptr": nodes.pred_ptr,
        "pred": nodes.pred,
        "pred_latency": nodes.pred_latency,
        "p2p": nodes.p2p,
    }
    start = t.start if not np.isnan(t.start).all() else np.zeros(0)
    tag = t.tag if (t.tag >= 0).all() else np.maximum(t.tag, 0)
    labels = Labels(t.id, tag, tuple(t.name), start)
    return CheckedRank(
        rank, structure, labels, group_of_slot, names_of_slot, nodes.peer, t.size[nodes.p2p]
    )


def _check_ids(t: RankColumns, order: NDArray[Any], note: RankFindings) -> None:
    ids = t.id[order]
    repeated = np.zeros(len(ids), bool)
    repeated[order[1:]] = ids[1:] == ids[:-1]
    note.error("duplicate-id", repeated, "node id occurs more than once", "Write the trace anew")


def _check_types(t: RankColumns, note: RankFindings) -> None:
    unknown = ~np.isin(t.type, list(TYPE_NAMES))
    found = short(tuple(np.unique(t.type[unknown]).tolist()))
    note.error(
        "unknown-type",
        unknown,
        f"unknown node type {found}",
        "Known are 0 (INVALID) to 7 (COMM_COLL)",
    )


def _check_work(t: RankColumns, note: RankFindings) -> None:
    comp = t.type == NodeType.COMP
    note.error(
        "no-work",
        comp & (t.flops < 0) & (t.bytes < 0) & np.isnan(t.duration),
        "compute has neither num_ops and tensor_size nor a duration",
        "Record one of them",
    )
    note.warning(
        "no-bytes",
        comp & (t.flops >= 0) & (t.bytes < 0),
        "compute has num_ops but no tensor_size: its memory traffic is left out",
    )
    note.warning(
        "zero-work",
        comp & (t.flops <= 0) & (t.bytes == 0) & np.isnan(t.duration),
        "compute says that it has no work and takes no time",
    )
    memory = np.isin(t.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))
    note.error(
        "no-size",
        memory & (t.bytes < 0) & np.isnan(t.duration),
        "memory node has no tensor_size",
        "Record it [B]",
    )


def _check_collectives(t: RankColumns, note: RankFindings) -> None:
    collective = t.type == NodeType.COMM_COLL
    note.error(
        "collective-type",
        collective & ((t.comm_type < 0) | (t.comm_type >= len(COLLECTIVES))),
        "collective has no valid comm_type",
        f"It is a number from 0 ({COLLECTIVES[0]}) to {len(COLLECTIVES) - 1} ({COLLECTIVES[-1]})",
    )
    sized = collective & (t.comm_type != BARRIER)
    note.error(
        "no-size",
        sized & (t.size < 0) & np.isnan(t.duration),
        "collective has no comm_size and no duration, so it has no cost",
        "Record comm_size [B of one rank's input] or a duration, or give it with --size NAME=BYTES",
    )
    note.warning("zero-size", sized & (t.size == 0), "collective of 0 bytes costs its latency only")
    communicates = (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)
    note.warning(
        "communication-on-cpu",
        (t.host) & np.isin(t.type, communicates),
        "communication is marked as a CPU operation (is_cpu_op)",
    )


def _resources(t: RankColumns, note: RankFindings) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """[n] resource of each node, -1 for none, and what they are called; a receive holds none, whatever is given."""
    if t.resource is None:
        nowhere = np.broadcast_to(np.int64(-1), (len(t),))
        return resources_of(t.type, t.host, nowhere, nowhere)
    note.error(
        "no-resource",
        (t.type == NodeType.COMM_COLL) & (t.resource < 0),
        "collective has no resource, which it holds while it waits for the other members",
        "Give it one, of its own where it contends with nothing",
    )
    return np.where(t.type == NodeType.COMM_RECV, np.int32(-1), t.resource), t.resources


def _messages(
    t: RankColumns, *, rank: int, ranks: int, note: RankFindings
) -> tuple[NDArray[Any], NDArray[Any]]:
    """[k] positions of sends and receives, [k] their peers."""
    send = t.type == NodeType.COMM_SEND
    p2p = np.flatnonzero(send | (t.type == NodeType.COMM_RECV)).astype(np.int32)
    peer = t.peer[p2p]

    def at(mask: NDArray[Any]) -> NDArray[np.bool_]:
        place = np.zeros(len(t.id), bool)
        place[p2p[mask]] = True
        return place

    note.error(
        "no-peer",
        at(peer < 0),
        "send or receive names no peer, and more than one pairing is possible",
        "Sends need comm_dst, receives comm_src (PyTorch's converter leaves them out); or let them take their recorded "
        "time with --messages replay",
    )
    note.error(
        "missing-rank",
        at(peer >= ranks),
        f"sends to or receives from a rank that is missing (the trace has 0 to {ranks - 1})",
        "Add the missing ranks' files",
    )
    note.error("self-message", at(peer == rank), "sends to or receives from its own rank")
    note.error(
        "no-size",
        send & (t.size < 0) & np.isnan(t.duration),
        "send has no comm_size and no duration",
        "Record one of them, or give it with --size NAME=BYTES",
    )
    return p2p, peer.astype(np.int32)


def _prerequisites(t: RankColumns) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """[n+1], [e], [e] prerequisites by position, without repeats, and the longest latency of each [s]."""
    n = len(t)
    ptr, pred = predecessors(t.edge_from, t.edge_to, n)
    if not t.edge_latency.any():
        return ptr, pred, np.broadcast_to(0.0, (len(pred),))
    edges = np.repeat(np.arange(n), np.diff(ptr)) * n + pred
    latency = np.zeros(len(edges))
    np.maximum.at(latency, np.searchsorted(edges, t.edge_to * n + t.edge_from), t.edge_latency)
    return ptr, pred, latency


def _slots(
    t: RankColumns, rank: int, priority: NDArray[np.int32], groups: Groups
) -> tuple[NDArray[np.int32], list[int]]:
    """[n] group slot of each collective (-1 for others), and the group in each slot.

    Slots are in order of first use, so that equal ranks have equal slots whatever their groups are called.
    """
    collective = np.flatnonzero(t.type == NodeType.COMM_COLL)
    texts = [*t.group_names, ""]
    text = np.where(t.group < 0, len(texts) - 1, t.group)
    number = np.full(len(t.id), -1, np.int64)
    by_text = collective[np.argsort(text[collective], kind="stable")]
    codes, starts = np.unique(text[by_text], return_index=True)
    for code, here in zip(codes.tolist(), np.split(by_text, starts[1:])):
        number[here] = groups.find(texts[code], rank, t.own_groups, t.id[here].tolist())
    by_use = collective[np.argsort(priority[collective])]
    used, first, place = np.unique(number[by_use], return_index=True, return_inverse=True)
    slot_of_used = np.argsort(np.argsort(first))
    group_of_slot = used[np.argsort(first)].tolist()
    slot = np.full(len(t.id), -1, np.int32)
    slot[by_use] = slot_of_used[place]
    return slot, group_of_slot


def _check_cycles(pred_ptr: NDArray[Any], pred: NDArray[Any], note: RankFindings) -> None:
    nodes, count = smallest_cycle(pred_ptr, pred)
    where = np.zeros(len(pred_ptr) - 1, bool)
    where[nodes] = True
    more = f" (and {count - 1} more such cycles)" if count > 1 else ""
    note.error(
        "cycle",
        where,
        ("depend on each other in a cycle" if len(nodes) > 1 else "depends on itself") + more,
        "Leave one kind of edge out with --dependencies data or --dependencies control",
    )


def _match(
    slot: NDArray[np.int32], priority: NDArray[np.int32], names: Any, slots: int
) -> tuple[NDArray[np.int32], list[bytes]]:
    """Instance numbers by sorted (name, occurrence), and a hash of each slot's sorted names."""
    match = np.full(len(slot), -1, np.int32)
    hashes = []
    for members in by_slot(slot, priority, slots):
        mine = [names[k] for k in members.tolist()]
        by_name = sorted(range(len(mine)), key=mine.__getitem__)
        match[members[by_name]] = np.arange(len(members))
        text = "\0".join([mine[k] for k in by_name])
        hashes.append(hashlib.sha256(text.encode(errors="replace")).digest())
    return match, hashes


def by_slot(slot: NDArray[np.int32], key: NDArray[Any], slots: int) -> list[NDArray[np.intp]]:
    """Positions of the nodes of each slot, in ascending order of a key."""
    inside = np.flatnonzero(slot >= 0)
    order = inside[np.lexsort((key[inside], slot[inside]))]
    return np.split(order, np.searchsorted(slot[order], np.arange(1, slots)))[:slots]
