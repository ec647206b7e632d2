"""What traces from the wild need before they are a graph: each repair says what it took for granted.

Every function takes a rank's columns and gives them back, changed or not; findings go to a `Notes`.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import RankFindings as Notes
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.stream_waits import stream_waits

_LIBRARY = re.compile(r"nccl:|(nccl|rccl)(Dev)?Kernel|c10d::|mscclKernel|oneccl", re.IGNORECASE)
_KERNELS = {
    "allreduce": "all_reduce",
    "alltoall": "all_to_all",
    "allgather": "all_gather",
    "reducescatter": "reduce_scatter",
    "broadcast": "broadcast",
    "reduce": "reduce",
}
"""What a kernel's or operator's name says it does, without _ and -, in the order of the question."""


def repaired(columns: RankColumns, note: Notes, sizes: Mapping[str, float]) -> RankColumns:
    """All repairs of one rank, in the order in which they build on each other."""
    columns = host_operators(columns, note)
    columns = named_collectives(columns, note)
    columns = sized(columns, note, sizes)
    columns = waits_between_streams(columns, note)
    find_library_names(columns, note)
    find_leaves(columns, note)
    return columns


def host_operators(c: RankColumns, note: Notes) -> RankColumns:
    """Operators on the CPU that are typed as collectives and say no kind: they call one, and are host work."""
    where = c.host & (c.type == NodeType.COMM_COLL) & (c.comm_type < 0)
    if not where.any():
        return c
    note.warning(
        "host-collective",
        where,
        f"{_counted(where)} on the CPU typed as collectives without comm_type: they call a collective and are taken as"
        " host work",
    )
    return replace(
        c,
        type=np.where(where, NodeType.COMP, c.type).astype(np.int8),
        size=np.where(where, -1, c.size),
        group=np.where(where, -1, c.group).astype(c.group.dtype),
    )


def named_collectives(c: RankColumns, note: Notes) -> RankColumns:
    """Collective kernels without comm_type whose name says what they are."""
    where = (c.type == NodeType.COMM_COLL) & (c.comm_type < 0)
    if not where.any():
        return c
    kind = c.comm_type.copy()
    for k in np.flatnonzero(where).tolist():
        kind[k] = kind_of_name(c.name[k])
    found = where & (kind >= 0)
    note.warning(
        "collective-by-name",
        found,
        f"{_counted(found)} without comm_type: taken as what their names say",
    )
    return replace(c, comm_type=kind)


def kind_of_name(name: str) -> int:
    """Index into COLLECTIVES of what a name says, -1 where it says nothing.

    >>> COLLECTIVES[kind_of_name("ncclDevKernel_ReduceScatter_Sum_f32_RING_LL")]
    'reduce_scatter'
    """
    text = re.sub("[_-]", "", name.split("(")[0]).lower()
    for word, kind in _KERNELS.items():
        if word in text:
            return COLLECTIVES.index(kind)
    return -1


def sized(c: RankColumns, note: Notes, sizes: Mapping[str, float]) -> RankColumns:
    """Collectives and sends without a size, given the one that `sizes` has for their name (wildcards allowed)."""
    if not sizes:
        return c
    communicates = np.isin(c.type, (NodeType.COMM_COLL, NodeType.COMM_SEND))
    lacking = np.flatnonzero(communicates & (c.size < 0))
    size = c.size.copy()
    for k in lacking.tolist():
        for pattern, value in sizes.items():
            if fnmatchcase(c.name[k], pattern):
                size[k] = round(value)
                break
    given = size != c.size
    note.warning(
        "size-given", given, f"{_counted(given)} without comm_size: taken as the option says"
    )
    return replace(c, size=size)


def waits_between_streams(c: RankColumns, note: Notes) -> RankColumns:
    """Edges between streams, where recorded start times show them and no kernel waits for another stream's."""
    if not np.isfinite(c.start).any() or not _leaves(c)[0]:
        return c
    before, after = stream_waits(
        start=c.start,
        duration=c.duration,
        device=_kernels(c),
        communicates=_communicates(c),
        resource=c.resource,
        edge_from=c.edge_from,
        edge_to=c.edge_to,
    )
    if not len(before):
        return c
    where = np.zeros(len(c.id), bool)
    where[after] = True
    note.warning(
        "inferred-edges",
        where,
        f"kernels wait for nothing but their launch: {len(before)} waits between streams are inferred from launch order"
        " and recorded start times",
    )
    return replace(
        c,
        edge_from=np.concatenate([c.edge_from, before]),
        edge_to=np.concatenate([c.edge_to, after]),
        edge_latency=np.concatenate([c.edge_latency, np.zeros(len(before))]),
    )


def find_library_names(c: RankColumns, note: Notes) -> None:
    """Compute nodes that bear names of a communication library."""
    if not any(word in "\0".join(c.name).lower() for word in ("ccl", "c10d::")):
        return
    comp = c.type == NodeType.COMP
    where = np.zeros(len(c.id), bool)
    hits = [k for k in np.flatnonzero(comp).tolist() if _LIBRARY.match(c.name[k])]
    where[hits] = True
    kernels = [k for k in hits if not c.host[k]]
    operators = where & c.host
    if not kernels and (c.type == NodeType.COMM_COLL).any():
        return  # operators that launch collectives, which are there
    text = f"{_counted(where)} with names of a communication library (nccl:, nccl[Dev]Kernel_, c10d::) and type COMP:"
    note.warning(
        "communication-typed-compute",
        where if kernels else operators,
        f"{text} they count as compute, and the network does not matter to them",
        "Convert the trace with a tool that types them, or give the PyTorch files it was made from",
    )


def find_leaves(c: RankColumns, note: Notes) -> None:
    """Traces in which kernels wait for their launch alone, so that communication overlaps all that there is."""
    bare, collectives, total = _leaves(c)
    if bare:
        note.warning(
            "kernels-are-leaves",
            collectives,
            f"collectives wait for no kernel ({int(collectives.sum())} of {total}) and no kernel waits for a collective"
            ": overlap is an upper bound",
            "Give the PyTorch files that the trace was made from, or a trace with start times",
        )


def _leaves(c: RankColumns) -> tuple[bool, NDArray[np.bool_], int]:
    """Whether kernels and collectives do not wait for each other though there are launches; the collectives."""
    kernels, communicates = _kernels(c), _communicates(c)
    collectives = kernels & communicates
    computes = kernels & ~communicates
    launched = (~kernels[c.edge_from] & kernels[c.edge_to]).any()
    crossing = (
        kernels[c.edge_from]
        & kernels[c.edge_to]
        & (communicates[c.edge_from] != communicates[c.edge_to])
    )
    back = kernels[c.edge_from] & ~kernels[c.edge_to]  # the host waits for a kernel
    bare = bool(
        collectives.any() and computes.any() and launched and not crossing.any() and not back.any()
    )
    return bare, collectives, int(collectives.sum())


def _kernels(c: RankColumns) -> NDArray[np.bool_]:
    """[n] what runs on the accelerator, where there is a host that launches it."""
    if not c.host.any():
        return np.zeros(len(c.id), bool)
    work = ~np.isin(c.type, (NodeType.METADATA, NodeType.INVALID))
    kernels: NDArray[np.bool_] = ~c.host & work
    return kernels


def _communicates(c: RankColumns) -> NDArray[np.bool_]:
    kinds = (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)
    return np.isin(c.type, kinds)


def _counted(where: NDArray[np.bool_]) -> str:
    n = int(where.sum())
    return f"{n} node{'s' * (n != 1)}"


def with_peers(
    ranks: Sequence[RankColumns],
    notes: Sequence[Notes],
    named: Mapping[str, Sequence[int]],
    messages: str,
) -> list[RankColumns]:
    """Peers of sends and receives that name none, where a single pairing is possible.

    Messages without peers are compared by communicator group and size: where one rank alone sends those and one other
    alone receives them, as many, they belong together, in order of issue. (PyTorch's converter leaves peers out; its
    groups of two ranks settle most.)

    Args:
        ranks: columns of every rank.
        notes: where each rank's findings go.
        named: ranks of the groups that hold for all ranks.
        messages: "pair", or "replay": those that cannot be paired take their recorded time instead.
    """

    def members(r: int, c: RankColumns, k: int) -> tuple[int, ...]:
        name = c.group_names[c.group[k]] if c.group[k] >= 0 else ""
        found = named.get(name, c.own_groups.get(name))
        return tuple(found) if found is not None else tuple(range(len(ranks)))

    result = list(ranks)
    classes: dict[tuple[Any, ...], dict[int, tuple[list[int], list[int]]]] = defaultdict(dict)
    for r, c in enumerate(ranks):
        send, receive = c.type == NodeType.COMM_SEND, c.type == NodeType.COMM_RECV
        bare = np.flatnonzero((send | receive) & (c.peer < 0))
        if not len(bare):
            continue
        for k in bare[np.argsort(c.id[bare], kind="stable")].tolist():
            group = members(r, c, k)
            sides = classes[group, int(c.size[k])].setdefault(r, ([], []))
            sides[0 if send[k] else 1].append(k)
    if not classes:
        return result
    peer = {r: ranks[r].peer.copy() for found in classes.values() for r in found}
    tag = {r: ranks[r].tag.copy() for r in peer}
    loose: dict[int, list[int]] = defaultdict(list)
    next_tag: Counter[tuple[int, int]] = Counter()
    for (group, _), found in classes.items():
        pairs = _pairs(group, found)
        if pairs is None:
            for r, sides in found.items():
                loose[r] += sides[0] + sides[1]
            continue
        for a, b in pairs:
            for mine, theirs in zip(found[a][0], found.get(b, ([], []))[1]):
                peer[a][mine], peer[b][theirs] = b, a
                tag[a][mine] = tag[b][theirs] = _FIRST_TAG + next_tag[a, b]
                next_tag[a, b] += 1
    for r in peer:
        c = ranks[r]
        where = (peer[r] >= 0) & (c.peer < 0)
        notes[r].warning(
            "peer-inferred",
            where,
            f"{_counted(where)} name no peer: paired as the only way possible",
        )
        result[r] = replace(c, peer=peer[r], tag=tag[r])
        if loose[r] and messages == "replay":
            result[r] = _replayed(result[r], loose[r], notes[r])
    return result


_FIRST_TAG = 1_000_000
"""Tags of inferred pairs begin here, so that they meet no recorded ones."""


def _pairs(
    group: tuple[int, ...], found: Mapping[int, tuple[list[int], list[int]]]
) -> list[tuple[int, int]] | None:
    """(sender, receiver) of the messages of one group and size; None where more than one way is possible, or none."""
    senders = [r for r, (sends, _) in found.items() if sends]
    receivers = [r for r, (_, receives) in found.items() if receives]
    involved = sorted({*senders, *receivers})
    if len(involved) != 2:
        return None
    a, b = involved
    for one, other in ((a, b), (b, a)):
        if len(found[one][0]) != len(found[other][1]):
            return None
    return [(one, other) for one, other in ((a, b), (b, a)) if found[one][0]]


def _replayed(c: RankColumns, nodes: list[int], note: Notes) -> RankColumns:
    """Messages as work of their recorded time on their stream."""
    where = np.zeros(len(c.id), bool)
    where[nodes] = True
    note.error(
        "no-duration",
        where & ~np.isfinite(c.duration),
        "send or receive without a peer has no recorded duration that could be replayed",
        "Record one of them",
    )
    note.warning(
        "message-replayed",
        where,
        f"{_counted(where)} without a peer take their recorded time, as compute",
    )
    return replace(
        c,
        type=np.where(where, NodeType.COMP, c.type).astype(np.int8),
        size=np.where(where, -1, c.size),
        peer=np.where(where, -1, c.peer),
    )
