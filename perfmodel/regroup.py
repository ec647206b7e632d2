"""Collectives moved to other communicator groups: the same work along another parallel dimension."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.graph import Graph, Program
from perfmodel.kinds import NodeType
from perfmodel.nodes_where import Where, change

Members = Callable[[int], Sequence[int]]


def regroup(graph: Graph, members: Members, *, where: Where) -> Graph:
    """The graph with some collectives among other ranks.

    Every rank's chosen collectives, which may have been in several groups, go to one new group: the ranks that
    `members` gives for it. Their sizes stay. Within a new group they pair up by order of issue.

    Args:
        graph: stays as it is.
        members: rank -> the ranks of its new group, in order, itself among them; the same for all of them.
        where: which collectives, as for `whatif.scale`; on every member as many.

    Raises:
        InputError: a rank that is not in its own group, members of an old or new group that would issue different
            numbers of collectives (groups that overlap, too), or a chosen node that is no collective.

    Example: tensor-parallel groups of neighbours, (0, 1), (2, 3), ... of 8 ranks, put as far apart as possible:
        `regroup(graph, lambda r: (r % 4, r % 4 + 4), where={"group": "tp*"})`.
    """
    place: dict[tuple[int, ...], int] = {}

    def edit(program: Program, chosen: NDArray[np.bool_]) -> Program:
        if (program.type[chosen] != NodeType.COMM_COLL).any():
            raise InputError(
                f'{graph.source}: where: chooses nodes that are no collectives; add "type" to it'
            )
        new = [_group(graph, members, int(rank)) for rank in program.ranks]
        numbers = [place.setdefault(group, len(graph.groups) + len(place)) for group in new]
        return _moved(program, chosen, np.array(numbers, np.int32))

    result = change(graph, where, None, edit, "regroup")
    names = tuple(f"what-if {k}" for k in range(len(place)))
    digest = hashlib.sha256(f"{result.digest}|{list(place)!r}".encode()).hexdigest()
    result = replace(
        result,
        groups=(*graph.groups, *place),
        group_names=(*graph.group_names, *names),
        by_name=np.concatenate([graph.by_name, np.zeros(len(place), bool)]),
        digest=digest,
    )
    _check_calls(result)
    return result


def _check_calls(graph: Graph) -> None:
    """All members of a group must call it equally often."""
    calls: dict[int, dict[int, int]] = {}
    for program in graph.programs:
        count = np.bincount(program.slot[program.slot >= 0], minlength=program.groups.shape[1])
        for rank, groups in zip(program.ranks, program.groups):
            for group, number in zip(groups, count):
                here = calls.setdefault(int(group), {})
                here[int(rank)] = here.get(int(rank), 0) + int(number)
    for group, here in calls.items():
        everyone = {rank: here.get(rank, 0) for rank in (*graph.groups[group], *here)}
        if len(set(everyone.values())) > 1:
            shown = ", ".join(f"rank {rank} {n}" for rank, n in list(everyone.items())[:8])
            raise InputError(
                f"{graph.source}: regroup: members of the group {graph.groups[group]} would issue "
                f"different numbers of collectives: {shown}; choose the same on every member of the "
                "old groups and of the new"
            )


def _group(graph: Graph, members: Members, rank: int) -> tuple[int, ...]:
    new = tuple(int(r) for r in members(rank))
    if rank not in new or len(set(new)) < len(new) or not all(0 <= r < graph.ranks for r in new):
        raise InputError(
            f"{graph.source}: regroup: rank {rank} got the group {new}, expected different ranks of "
            f"0 to {graph.ranks - 1} with itself among them"
        )
    return new


def _moved(program: Program, chosen: NDArray[np.bool_], group: NDArray[np.int32]) -> Program:
    """The chosen collectives in a slot of their own; slots that nothing uses any more go."""
    slots = program.groups.shape[1]
    slot = np.where(chosen, slots, program.slot)
    match = program.match.copy()
    for k in range(slots):  # instances are numbered without gaps
        left = np.flatnonzero(slot == k)
        match[left] = np.argsort(np.argsort(match[left], kind="stable"), kind="stable")
    groups = np.column_stack([program.groups, group])
    used = np.unique(slot[slot >= 0])
    number = np.full(slots + 1, -1, np.int32)
    number[used] = np.arange(len(used))
    return replace(
        program,
        slot=np.where(slot >= 0, number[slot], -1).astype(np.int32),
        match=match,
        groups=np.ascontiguousarray(groups[:, used]).astype(np.int32),
    )
