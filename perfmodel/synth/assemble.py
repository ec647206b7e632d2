"""A workload's roles to the arrays of a `Graph`, with the conventions of `load`.

Per role the work is Python over its nodes; per rank it is NumPy over whole tables.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.synth.layout import Communicators
from perfmodel.synth.role import Role, ordered
from perfmodel.synth.steps import WORLD
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Program
from perfmodel.workload.training_step import TrainingStep

FIRST_ID = 1
"""Node ids count from here: 0 is protobuf's absent number."""


@dataclass(frozen=True, eq=False)
class GroupTable:
    """The groups that a workload's collectives use, numbered as `load` numbers them.

    Attributes:
        members: each a tuple of ranks; 0 is the world, then in order of first use by rank and node.
        slots: of each role, the labels of its group slots in order of first use.
        of_role: of each role, [m, slots] i32 group of each slot on each of its ranks.
    """

    members: tuple[tuple[int, ...], ...]
    slots: list[list[str]]
    of_role: list[NDArray[np.int32]]

    def names(self) -> tuple[str, ...]:
        """What files call them: decimal numbers, nothing for the world."""
        return ("", *map(str, range(1, len(self.members))))


class PeerMessages(NamedTuple):
    """Messages of one kind to peers at one distance, by tag, those of equal tags in program order.

    Attributes:
        column: [k] place in `Program.p2p`. position: [k] in the program. tag: [k].
    """

    column: NDArray[np.int64]
    position: NDArray[np.int64]
    tag: NDArray[np.int64]


NOTHING = PeerMessages(*(np.zeros(0, np.int64) for _ in range(3)))


def assemble(name: str, roles: Sequence[Role], step: TrainingStep | None = None) -> Graph:
    """The graph of a workload (see `Workload.graph`), and what it does for a model."""
    roles = ordered(name, roles)
    ranks = sum(len(role.ranks) for role in roles)
    table = number_groups(name, roles)
    partners = pair(roles, ranks, name)
    programs: dict[bytes, list[int]] = {}
    structures = []
    labels: list[Labels] = []
    known: dict[tuple[Any, ...], int] = {}
    label = np.zeros(ranks, np.int32)
    for k, role in enumerate(roles):
        structure = _structure(role, table.slots[k])
        structures.append(structure)
        programs.setdefault(_digest(structure), []).append(k)
        nodes = role.columns
        key = (nodes.names, nodes.tag.tobytes())
        if key not in known:
            known[key] = len(labels)
            labels.append(_labels(nodes.names, nodes.tag))
        label[role.ranks] = known[key]
    program, row = np.zeros(ranks, np.int32), np.zeros(ranks, np.int32)
    built = []
    for index, members in enumerate(programs.values()):
        mine = np.concatenate([roles[k].ranks for k in members])
        order = np.argsort(mine)
        p2p = structures[members[0]]["p2p"]
        offset = np.concatenate([_offsets(roles[k], p2p) for k in members])
        program[mine] = index
        row[mine[order]] = np.arange(len(mine))
        built.append(
            Program(
                **structures[members[0]],
                ranks=mine[order],
                groups=np.concatenate([table.of_role[k] for k in members])[order],
                peer=(mine[:, None] + offset)[order].astype(np.int32),
                partner=np.concatenate([partners[k] for k in members])[order],
            )
        )
    return Graph(
        programs=tuple(built),
        program=program,
        row=row,
        groups=table.members,
        group_names=table.names(),
        by_name=np.ones(len(table.members), bool),
        labels=tuple(labels),
        label=label,
        source=name,
        step=step,
    )


def number_groups(name: str, roles: Sequence[Role]) -> GroupTable:
    """Number the groups in use, in the order in which ranks first use them."""
    roles = ordered(name, roles)
    ranks = sum(len(role.ranks) for role in roles)
    base: dict[str, int] = {WORLD: 0}
    tables: list[tuple[int, Communicators]] = []
    after = 1
    slots: list[list[str]] = []
    keys: list[NDArray[np.int64]] = []
    for role in roles:
        used_labels = [role.columns.group_labels[k] for k in _in_order(role.columns.group)]
        mine = list(dict.fromkeys(_canonical(role, label, ranks) for label in used_labels))
        for name in mine:
            if name not in base:
                base[name] = after
                tables.append((after, role.groups[name]))
                after += len(role.groups[name].members)
        columns = [
            np.zeros(len(role.ranks), np.int64)
            if name == WORLD
            else base[name] + role.groups[name].of_rank[role.ranks].astype(np.int64)
            for name in mine
        ]
        slots.append(mine)
        keys.append(np.stack(columns, axis=1) if mine else np.zeros((len(role.ranks), 0), np.int64))
    key = np.concatenate([k.ravel() for k in keys])
    rank = np.concatenate([np.repeat(r.ranks, k.shape[1]) for r, k in zip(roles, keys)])
    slot = np.concatenate([np.tile(np.arange(k.shape[1]), k.shape[0]) for k in keys])
    found, first = np.unique(key[np.lexsort((slot, rank))], return_index=True)
    used = found[np.argsort(first)]
    used = used[used != 0]
    number = np.zeros(after, np.int32)
    number[used] = np.arange(1, len(used) + 1)
    members: list[tuple[int, ...]] = [tuple(range(ranks))]
    starts = np.array([start for start, _ in tables], np.int64)
    for k in used.tolist():
        start, groups = tables[int(np.searchsorted(starts, k, side="right")) - 1]
        members.append(tuple(groups.members[k - start].tolist()))
    return GroupTable(tuple(members), slots, [number[k] for k in keys])


def _in_order(values: NDArray[Any]) -> list[int]:
    """The distinct values from 0 up, in the order in which they come first."""
    found, first = np.unique(values[values >= 0], return_index=True)
    numbers: list[int] = found[np.argsort(first)].tolist()
    return numbers


def _canonical(role: Role, label: str, ranks: int) -> str:
    """The group's label; a group of all ranks is the world whatever its label."""
    return WORLD if label == WORLD or role.groups[label].size == ranks else label


def slots_of(role: Role, slots: Sequence[str]) -> NDArray[np.int32]:
    """[n] the slot of each collective's group, -1 for other nodes."""
    nodes = role.columns
    world = slots.index(WORLD) if WORLD in slots else -1
    place = [slots.index(label) if label in slots else world for label in nodes.group_labels]
    return np.array([*place, -1], np.int32)[nodes.group]


def _structure(role: Role, slots: Sequence[str]) -> dict[str, Any]:
    """The fields of a `Program` that equal ranks share."""
    nodes = role.columns
    n = len(nodes)
    slot = slots_of(role, slots)
    return {
        "type": nodes.type,
        "cpu": nodes.host,
        "flops": nodes.flops,
        "bytes": nodes.bytes,
        "kind": nodes.kind,
        "dimensions": nodes.dimensions,
        "dtype": nodes.dtype,
        "duration": nodes.duration,
        "comm_type": nodes.comm_type,
        "size": nodes.size,
        "slot": slot,
        "match": _instances(slot, nodes.names),
        "local": np.zeros(n, bool),
        "involved": np.full(n, -1, np.int32),
        "scale": np.ones(n),
        "resource": nodes.resource,
        "resources": nodes.resources,
        "priority": np.arange(n, dtype=np.int32),
        "pred_ptr": nodes.pred_ptr,
        "pred": nodes.pred.astype(np.int32),
        "pred_latency": nodes.latency,
        "p2p": np.flatnonzero(_is_p2p(nodes.type)).astype(np.int32),
    }


def _instances(slot: NDArray[Any], names: Sequence[str]) -> NDArray[np.int32]:
    """[n] which of its group's collectives each one is: by name, equal names in program order."""
    match = np.full(len(slot), -1, np.int32)
    for s in range(int(slot.max(initial=-1)) + 1):
        here = np.flatnonzero(slot == s).tolist()
        match[sorted(here, key=names.__getitem__)] = np.arange(len(here))
    return match


def _labels(names: tuple[str, ...], tags: NDArray[np.int64]) -> Labels:
    ids = np.arange(FIRST_ID, FIRST_ID + len(names), dtype=np.uint64)
    return Labels(ids, tags, names)


def _is_p2p(kind: NDArray[Any]) -> NDArray[np.bool_]:
    p2p: NDArray[np.bool_] = (kind == NodeType.COMM_SEND) | (kind == NodeType.COMM_RECV)
    return p2p


def _offsets(role: Role, p2p: NDArray[Any]) -> NDArray[np.int64]:
    """[m, k] distance to the peer of each message, the same on every rank."""
    offset = role.columns.offset[p2p]
    return np.broadcast_to(offset, (len(role.ranks), len(p2p)))


def pair(roles: Sequence[Role], ranks: int, name: str) -> list[NDArray[np.int32]]:
    """Of each role, [m, k] position of each send's receive and each receive's send on the peer."""
    role_of = np.zeros(ranks, np.int32)
    for k, role in enumerate(roles):
        role_of[role.ranks] = k
    places = [_messages(role) for role in roles]
    result = []
    for role, mine in zip(roles, places):
        count = sum(len(found.tag) for found in mine.values())
        partner = np.full((len(role.ranks), count), -1, np.int32)
        for (kind, offset), found in mine.items():
            peer = role.ranks.astype(np.int64) + offset
            outside = (peer < 0) | (peer >= ranks)
            other = np.where(outside, -1, role_of[np.clip(peer, 0, ranks - 1)])
            back = NodeType.COMM_RECV if kind == NodeType.COMM_SEND else NodeType.COMM_SEND
            for o in np.unique(other):
                theirs = places[o].get((back, -offset), NOTHING) if o >= 0 else NOTHING
                known = np.isin(theirs.tag, found.tag)  # others are found out on the peer
                if not np.array_equal(theirs.tag[known], found.tag):
                    alone = _alone(found, theirs)
                    _unmatched(name, role, peer[other == o][0] - offset, offset, alone)
                rows = np.flatnonzero(other == o)
                partner[rows[:, None], found.column] = theirs.position[known]
        result.append(partner)
    return result


def _messages(role: Role) -> dict[tuple[NodeType, int], PeerMessages]:
    """The messages of a role by (send or receive, distance to the peer)."""
    nodes = role.columns
    at = np.flatnonzero(_is_p2p(nodes.type))
    kind, offset, tag = nodes.type[at], nodes.offset[at], nodes.tag[at]
    order = np.lexsort((tag, offset, kind))
    ends = np.flatnonzero(np.diff(kind[order]) | np.diff(offset[order])) + 1
    found = {}
    for part in np.split(order, ends) if len(order) else []:
        key = NodeType(kind[part[0]]), int(offset[part[0]])
        found[key] = PeerMessages(part, at[part], tag[part].astype(np.int64))
    return found


def _alone(found: PeerMessages, theirs: PeerMessages) -> int:
    """Position of the first message whose tag the peer has not as often."""
    end, begin = (np.searchsorted(theirs.tag, found.tag, side=side) for side in ("right", "left"))
    _, number, counts = np.unique(found.tag, return_inverse=True, return_counts=True)
    return int(found.position[end - begin != counts[number]].min())


def _unmatched(name: str, role: Role, rank: int, offset: int, position: int) -> None:
    nodes = role.columns
    missing = "receive" if nodes.type[position] == NodeType.COMM_SEND else "send"
    raise InputError(
        f"{name}: rank {rank} node {position + FIRST_ID} ({nodes.names[position]!r}): rank {rank + offset} has no"
        f" {missing} with tag {nodes.tag[position]} for it. Give both ranks as many messages of that tag."
    )


def _digest(structure: dict[str, Any]) -> bytes:
    hasher = hashlib.sha256()
    for key, value in structure.items():
        data = value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode()
        hasher.update(f"{key}:{len(data)}:".encode())
        hasher.update(data)
    return hasher.digest()
