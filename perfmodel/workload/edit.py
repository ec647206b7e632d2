"""Which nodes a what-if is about: a condition on the columns of `Graph.table`, and programs split by it.

Ranks that run one program may differ in what was chosen. Every distinct choice becomes a program of its own, with
the rows of its ranks; programs that nothing was chosen of stay as they are. Costs grow with distinct programs and
label sets, not with ranks, unless the condition looks at `rank`, `group` or `peer`, or is a function.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, NoReturn

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph, check_ranks, parted
from perfmodel.workload.program import Program

Where = Mapping[str, Any] | Callable[[pd.DataFrame], Any] | None
ProgramChange = Callable[[Program, NDArray[np.bool_]], Program]

COLUMNS = (
    "rank",
    "node_id",
    "name",
    "type",
    "cpu",
    "resource",
    "flops",
    "bytes_B",
    "duration_s",
    "size_B",
    "group",
    "peer",
    "tag",
)
"""The columns of `Graph.table`."""

OF_THE_RANK = ("rank", "group", "peer")
"""Columns in which ranks that run one program with the same labels may differ."""

LISTED = 12
"""So many groups are listed where none was found."""


def change(graph: Graph, where: Where, ranks: Sequence[int] | None, edit: ProgramChange) -> Graph:
    """A graph whose chosen nodes are edited.

    Args:
        graph: stays as it is.
        where: None (all nodes), {column: value, list of values, or glob pattern with * ? []}, all of which must
            hold, or a function of a rank's table (`Graph.table([rank])`) that returns a truth value per row.
        ranks: only on these, all by default.
        edit: (program, chosen [n]) -> program.

    Raises:
        InputError: an unknown column or rank, a function that returns something else, or no node chosen.
    """
    if not isinstance(graph, Graph):
        raise InputError(f"graph: got {type(graph).__name__}, expected a Graph from pm.load(...)")
    chosen_ranks = check_ranks(graph, ranks) if ranks is not None else range(graph.ranks)
    masks = _masks(graph, where, chosen_ranks)
    return (
        split(graph, masks, edit) if any(m.any() for m in masks.values()) else _none(graph, where)
    )


def split(graph: Graph, masks: Mapping[int, NDArray[np.bool_]], edit: ProgramChange) -> Graph:
    """Edit the nodes masked on each rank [n of its program]; ranks without a mask stay as they are."""
    chosen = {rank: mask for rank, mask in masks.items() if mask.any()}
    keys = [chosen[rank].tobytes() if rank in chosen else b"" for rank in range(graph.ranks)]
    graph = parted(graph, keys)
    programs = (
        edit(p, chosen[first]) if (first := int(p.ranks[0])) in chosen else p
        for p in graph.programs
    )
    return replace(graph, programs=tuple(programs))


def _none(graph: Graph, where: Where) -> NoReturn:
    """Raise InputError: nothing chosen, and what there is to choose."""
    text = dict(where) if isinstance(where, Mapping) else "the function"
    sample = graph.table([0])
    names = ", ".join(map(repr, sample["name"].unique()[:5]))
    raise InputError(
        f"{graph.source}: where: {text} chooses no node; rank 0 has names such as {names} and types "
        f"{', '.join(sample['type'].unique())}"
        + (f"; {_groups(graph)}" if isinstance(where, Mapping) and "group" in where else "")
    )


def _groups(graph: Graph) -> str:
    """The groups of a trace by name, the first few ranks of each.

    >>> from perfmodel import synth
    >>> _groups(synth.collective("all_reduce", 8, 1024).graph())
    "its groups are '' (ranks 0, 1, 2, 3, ...)"
    """
    words = []
    for name, members in list(zip(graph.group_names, graph.groups))[:LISTED]:
        more = ", ..." if len(members) > 4 else ""
        words.append(f"{name!r} (ranks {', '.join(map(str, members[:4]))}{more})")
    rest = len(graph.groups) - len(words)
    return f"its groups are {', '.join(words)}" + (f" and {rest} more" if rest > 0 else "")


def _masks(graph: Graph, where: Where, ranks: Sequence[int]) -> dict[int, NDArray[np.bool_]]:
    """Which nodes are chosen on each of the ranks."""
    if where is not None and not callable(where) and not isinstance(where, Mapping):
        raise InputError(
            f"where: got {type(where).__name__}, expected {{column: value}} or a function of a table"
        )
    same = where is None or (isinstance(where, Mapping) and not set(where) & set(OF_THE_RANK))
    if isinstance(where, Mapping):
        wrong = [c for c in where if c not in COLUMNS]
        if wrong:
            raise InputError(f"where: no column {wrong[0]!r}; the columns are {', '.join(COLUMNS)}")
    known: dict[tuple[int, int], NDArray[np.bool_]] = {}
    masks = {}
    for rank in ranks:
        key = (int(graph.program[rank]), int(graph.label[rank]))
        if same and key in known:
            masks[rank] = known[key]
        else:
            masks[rank] = known[key] = _mask(graph, where, rank)
    return masks


def _mask(graph: Graph, where: Where, rank: int) -> NDArray[np.bool_]:
    size = len(graph.programs[graph.program[rank]])
    if where is None:
        return np.ones(size, bool)
    table = graph.table([rank])
    if callable(where):
        result = np.asarray(where(table))
        if result.shape != (size,) or result.dtype != bool:
            raise InputError(
                f"where: the function returned {result.dtype} of shape {result.shape} for rank {rank}, "
                f"expected {size} truth values, one per row"
            )
        return result
    mask = np.ones(size, bool)
    for column, wanted in where.items():
        mask &= _equals(table[column], wanted)
    return mask


def _equals(values: pd.Series, wanted: Any) -> NDArray[np.bool_]:
    """Whether each value is the one wanted, one of those wanted, or fits a pattern."""
    if isinstance(wanted, (list, tuple, set, range)):
        any_of: NDArray[np.bool_] = np.logical_or.reduce(
            [_equals(values, w) for w in wanted] or [np.zeros(len(values), bool)]
        )
        return any_of
    if isinstance(wanted, str):
        distinct = {v: fnmatchcase(str(v), wanted) for v in values.unique()}
        fits: NDArray[np.bool_] = values.map(distinct).to_numpy(bool)
        return fits
    equal: NDArray[np.bool_] = (values == wanted).to_numpy(bool)
    return equal


MembersOf = Callable[[int], Sequence[int]]


def regroup(graph: Graph, members: MembersOf, *, where: Where) -> Graph:
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

    result = change(graph, where, None, edit)
    names = tuple(f"what-if {k}" for k in range(len(place)))
    result = replace(
        result,
        groups=(*graph.groups, *place),
        group_names=(*graph.group_names, *names),
        by_name=np.concatenate([graph.by_name, np.zeros(len(place), bool)]),
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


def _group(graph: Graph, members: MembersOf, rank: int) -> tuple[int, ...]:
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
