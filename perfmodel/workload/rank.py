"""One rank's nodes, checked, with positions instead of ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Findings
from perfmodel.trace import chakra
from perfmodel.vocabulary import COLLECTIVES, TYPE_NAMES, NodeType
from perfmodel.workload.cycles import smallest_cycle
from perfmodel.workload.graph import Labels, resources_of
from perfmodel.workload.groups import Groups, short

BARRIER = COLLECTIVES.index("barrier")


@dataclass
class Rank:
    """One rank on its way into the graph.

    Attributes:
        structure: the fields of a `Program` that equal ranks share.
        labels: node ids, tags, names.
        group_of_slot: number of the group in each slot.
        names_of_slot: hash of the sorted names of the slot's collectives.
        peer, p2p_size: [k] the other rank and the size of each send and receive.
    """

    rank: int
    structure: dict
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


class Notes:
    """Findings about one rank, by a mask of its nodes."""

    def __init__(self, rank: int, ids: NDArray[np.uint64], problems: Findings):
        self.rank, self.ids, self.problems = rank, ids, problems

    def error(self, code: str, where: NDArray[np.bool_], message: str, remedy: str = "") -> None:
        """Stop the work where any node is marked."""
        self._add("error", code, where, message, remedy)

    def warning(self, code: str, where: NDArray[np.bool_], message: str, remedy: str = "") -> None:
        """Say so where any node is marked, and go on."""
        self._add("warning", code, where, message, remedy)

    def _add(self, level, code, where, message, remedy) -> None:
        if np.any(where):
            self.problems.add(
                level, code, message, rank=self.rank, nodes=self.ids[where], remedy=remedy
            )


def read_rank(
    rank: int,
    trace: chakra.RankTrace,
    groups: Groups,
    problems: Findings,
    *,
    dependencies: str,
    recorded: bool,
    zero_duration: float,
) -> Rank:
    """Check one rank's nodes and turn ids into positions.

    Args:
        rank: its number.
        trace: n nodes.
        groups: finds groups by name; grows.
        problems: gets what is wrong.
        dependencies: "both", "data" or "control".
        recorded: some rank of the workload records durations, so that 0 us means "under 1".
        zero_duration: what it then stands for [s].
    """
    t, n = trace, len(trace.id)
    note = Notes(rank, t.id, problems)
    if n == 0:
        problems.add("error", "empty", "has no nodes", rank=rank, remedy="Record it again")
    order = np.argsort(t.id, kind="stable")
    priority = np.empty(n, np.int32)
    priority[order] = np.arange(n)
    _check_ids(t, order, note)
    pred_ptr, pred = _dependencies(t, order, dependencies, note)
    note.warning(
        "no-edges",
        np.full(n, (dependencies, len(t.data_dep) > 0, len(t.ctrl_dep) > 0) in _ONE_SIDED),
        f"there are no {dependencies} dependencies, only others, which are left out",
        "Take them in with --dependencies both",
    )
    _check_cycles(pred_ptr, pred, note)
    duration = _durations(t, note, recorded=recorded, zero_duration=zero_duration)
    _check_work(t, duration, note)
    _check_collectives(t, duration, note)
    p2p, peer = _messages(t, duration, rank=rank, ranks=groups.ranks, note=note)
    slot, group_of_slot = _slots(t, rank, priority, groups)
    names = tuple(t.names())
    match, names_of_slot = _match(slot, priority, names, len(group_of_slot))
    cpu = t.is_cpu == 1
    resource, resources = resources_of(t.type, cpu, t.stream, t.tid)
    memory = np.isin(t.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))
    structure = {
        "type": t.type.astype(np.int8),
        "cpu": cpu,
        "flops": t.num_ops,
        "bytes": t.tensor_size,
        "duration": duration,
        "comm_type": np.where(t.type == NodeType.COMM_COLL, t.comm_type, -1).astype(np.int32),
        "size": t.comm_size,
        "slot": slot,
        "match": match,
        "local": memory & (t.tensor_loc == 1),
        "involved": t.involved_dim,
        "scale": np.ones(n),
        "resource": resource,
        "resources": resources,
        "priority": priority,
        "pred_ptr": pred_ptr,
        "pred": pred,
        "p2p": p2p,
    }
    labels = Labels(t.id, np.maximum(t.comm_tag, 0), names)
    return Rank(rank, structure, labels, group_of_slot, names_of_slot, peer, t.comm_size[p2p])


_ONE_SIDED = (("data", False, True), ("control", True, False))
"""Dependencies asked for, and whether there are data and control ones: none of those, only others."""


def _check_ids(t, order, note: Notes) -> None:
    ids = t.id[order]
    repeated = np.zeros(len(ids), bool)
    repeated[order[1:]] = ids[1:] == ids[:-1]
    note.error("duplicate-id", repeated, "node id occurs more than once", "Write the trace anew")
    unknown = ~np.isin(t.type, list(TYPE_NAMES))
    found = short(tuple(np.unique(t.type[unknown]).tolist()))
    note.error(
        "unknown-type",
        unknown,
        f"unknown node type {found}",
        "Known are 0 (INVALID) to 7 (COMM_COLL)",
    )


def _durations(t, note: Notes, *, recorded: bool, zero_duration: float) -> NDArray[np.float64]:
    """[n] recorded durations [s], nan where there is none."""
    duration = np.where(t.duration_us > 0, t.duration_us * 1e-6, np.nan)
    idle = (t.type == NodeType.COMP) & (t.num_ops < 0) & (t.tensor_size < 0) & np.isnan(duration)
    communicates = (t.type == NodeType.COMM_SEND) | (
        (t.type == NodeType.COMM_COLL) & (t.comm_type != BARRIER)
    )
    if (communicates & (t.duration_us > 0)).any():  # communication is recorded here, too
        idle |= communicates & (t.comm_size < 0) & np.isnan(duration)
    if recorded:
        duration[idle] = zero_duration
        note.warning(
            "under-one-microsecond",
            idle,
            f"{int(idle.sum())} nodes record 0 whole microseconds, "
            f"taken as {zero_duration * 1e6:g} us each",
        )
    else:
        note.error(
            "no-work",
            idle,
            "compute has neither num_ops and tensor_size nor a duration",
            "Record one of them",
        )
    return duration


def _check_work(t, duration, note: Notes) -> None:
    comp = t.type == NodeType.COMP
    note.warning(
        "no-bytes",
        comp & (t.num_ops >= 0) & (t.tensor_size < 0),
        "compute has num_ops but no tensor_size: its memory traffic is left out",
    )
    note.warning(
        "zero-work",
        comp & (t.num_ops <= 0) & (t.tensor_size == 0) & np.isnan(duration),
        "compute says that it has no work and takes no time",
    )
    memory = np.isin(t.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))
    note.error(
        "no-size",
        memory & (t.tensor_size < 0) & np.isnan(duration),
        "memory node has no tensor_size",
        "Record it [B]",
    )


def _masked(t) -> NDArray[np.bool_]:
    """[n] whether a node's involved_dim leaves a network dimension out."""
    every = np.left_shift(1, np.maximum(t.involved_dims, 0).astype(np.int64)) - 1
    return (t.involved_dims > 0) & (t.involved_dim != every)


def _check_collectives(t, duration, note: Notes) -> None:
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
        sized & (t.comm_size < 0) & np.isnan(duration),
        "collective has no comm_size and no duration, so it has no cost",
        "Record comm_size [B of one rank's input], or a duration",
    )
    note.warning(
        "zero-size", sized & (t.comm_size == 0), "collective of 0 bytes costs its latency only"
    )
    note.warning(
        "involved-dim",
        collective & _masked(t),
        "collective leaves network dimensions out (involved_dim), which is taken into account in ASTRA-sim mode only: "
        "it counts as one of its whole group here",
        "Name the ranks that take part as a communicator group",
    )
    communicates = (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)
    note.warning(
        "communication-on-cpu",
        (t.is_cpu == 1) & np.isin(t.type, communicates),
        "communication is marked as a CPU operation (is_cpu_op)",
    )


def _messages(t, duration, *, rank: int, ranks: int, note: Notes) -> tuple[NDArray, NDArray]:
    """[k] positions of sends and receives, [k] their peers."""
    send = t.type == NodeType.COMM_SEND
    p2p = np.flatnonzero(send | (t.type == NodeType.COMM_RECV)).astype(np.int32)
    peer = np.where(send, t.comm_dst, t.comm_src)[p2p]

    def at(mask: NDArray) -> NDArray[np.bool_]:
        place = np.zeros(len(t.id), bool)
        place[p2p[mask]] = True
        return place

    note.error(
        "no-peer",
        at(peer < 0),
        "send or receive names no peer",
        "Sends need comm_dst, receives comm_src (PyTorch's converter leaves them out)",
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
        send & (t.comm_size < 0) & np.isnan(duration),
        "send has no comm_size and no duration",
        "Record one of them",
    )
    return p2p, peer.astype(np.int32)


def _slots(t, rank: int, priority, groups: Groups) -> tuple[NDArray[np.int32], list[int]]:
    """[n] group slot of each collective (-1 for others), and the group in each slot.

    Slots are in order of first use, so that equal ranks have equal slots whatever their groups are called.
    """
    collective = np.flatnonzero(t.type == NodeType.COMM_COLL)
    own = chakra.process_groups(t, groups.ranks)
    texts = [*t.group_names, ""]
    text = np.where(t.group < 0, len(texts) - 1, t.group)
    number = np.full(len(t.id), -1, np.int64)
    by_text = collective[np.argsort(text[collective], kind="stable")]
    codes, starts = np.unique(text[by_text], return_index=True)
    for code, here in zip(codes.tolist(), np.split(by_text, starts[1:])):
        number[here] = groups.find(texts[code], rank, own, t.id[here].tolist())
    by_use = collective[np.argsort(priority[collective])]
    used, first, place = np.unique(number[by_use], return_index=True, return_inverse=True)
    slot_of_used = np.argsort(np.argsort(first))
    group_of_slot = used[np.argsort(first)].tolist()
    slot = np.full(len(t.id), -1, np.int32)
    slot[by_use] = slot_of_used[place]
    return slot, group_of_slot


def _dependencies(t, order, dependencies: str, note: Notes) -> tuple[NDArray, NDArray]:
    """[n+1], [e] prerequisites by position, without repeats; missing ones are noted."""
    ids, n = t.id[order], len(order)
    parts = []
    for wanted, ptr, dep in (
        ("data", t.data_ptr, t.data_dep),
        ("control", t.ctrl_ptr, t.ctrl_dep),
    ):
        if dependencies in ("both", wanted):
            node = np.repeat(np.arange(n), np.diff(ptr))
            at = np.minimum(np.searchsorted(ids, dep), max(n - 1, 0))
            known = ids[at] == dep if n else np.zeros(0, bool)
            where = np.zeros(n, bool)
            where[node[~known]] = True
            missing = np.unique(dep[~known])
            note.error(
                "missing-dependency",
                where,
                f"{wanted} dependency on {short(tuple(missing.tolist()))}, which is not in the file",
                f"Leave {wanted} edges out with --dependencies "
                + ("control" if wanted == "data" else "data"),
            )
            parts.append(node[known].astype(np.int64) * n + order[at[known]])
    edges = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    counts = np.bincount(edges // max(n, 1), minlength=n)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ptr, (edges % max(n, 1)).astype(np.int32)


def _check_cycles(pred_ptr, pred, note: Notes) -> None:
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


def _match(slot, priority, names, slots: int) -> tuple[NDArray[np.int32], list[bytes]]:
    """Instance numbers by sorted (name, occurrence), and a hash of each slot's sorted names."""
    match = np.full(len(slot), -1, np.int32)
    hashes = []
    for members in by_slot(slot, priority, slots):
        by_name = sorted(range(len(members)), key=lambda k: names[members[k]])
        match[members[by_name]] = np.arange(len(members))
        text = "\0".join(names[members[k]] for k in by_name)
        hashes.append(hashlib.sha256(text.encode(errors="replace")).digest())
    return match, hashes


def by_slot(slot: NDArray[np.int32], key: NDArray, slots: int) -> list[NDArray[np.intp]]:
    """Positions of the nodes of each slot, in ascending order of a key."""
    inside = np.flatnonzero(slot >= 0)
    order = inside[np.lexsort((key[inside], slot[inside]))]
    return np.split(order, np.searchsorted(slot[order], np.arange(1, slots)))[:slots]


def digest_of(values: Mapping) -> bytes:
    """Hash of arrays and other values by name."""
    hasher = hashlib.sha256()
    for key in sorted(values):
        value = values[key]
        if isinstance(value, np.ndarray):
            data = np.ascontiguousarray(value).tobytes()
        elif isinstance(value, str):
            data = value.encode(errors="surrogatepass")
        else:
            data = repr(value).encode()
        hasher.update(f"{key}:{len(data)}:".encode())
        hasher.update(data)
    return hasher.digest()
