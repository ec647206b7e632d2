"""Which node on one rank belongs to which on another: messages, and collectives by name."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import quoted
from perfmodel.findings import Findings
from perfmodel.vocabulary import NodeType
from perfmodel.workload.groups import Groups
from perfmodel.workload.program import digest_of
from perfmodel.workload.rank import CheckedRank


def pair_messages(ranks: list[CheckedRank], problems: Findings) -> list[np.ndarray]:
    """Position on the other rank of each send's receive and each receive's send."""
    rows = []
    for r in ranks:
        p2p = r.structure["p2p"]
        send = r.structure["type"][p2p] == NodeType.COMM_SEND
        table = np.empty((len(p2p), 8), np.int64)
        table[:, 0] = np.where(send, r.rank, r.peer)
        table[:, 1] = np.where(send, r.peer, r.rank)
        table[:, 2] = r.labels.tag[p2p]
        table[:, 3] = r.structure["priority"][p2p]
        table[:, 4] = send
        table[:, 5] = r.rank
        table[:, 6] = np.arange(len(p2p))
        table[:, 7] = r.p2p_size
        # what names no other rank of the trace is an error already
        rows.append(table[(r.peer >= 0) & (r.peer < len(ranks)) & (r.peer != r.rank)])
    table = np.concatenate(rows) if rows else np.zeros((0, 8), np.int64)
    partner = [np.full(len(r.structure["p2p"]), -1, np.int32) for r in ranks]
    send, recv = table[table[:, 4] == 1], table[table[:, 4] == 0]
    send, recv = _numbered(send), _numbered(recv)
    key = [tuple(k) for k in recv[:, [0, 1, 2, 3]].tolist()]
    find = dict(zip(key, range(len(key))))
    taken = np.zeros(len(recv), bool)
    for row in send.tolist():
        k = find.get(tuple(row[:4]))
        if k is None:
            _unmatched(ranks, row, "send", problems)
            continue
        taken[k] = True
        other = recv[k]
        sender, receiver = ranks[row[5]], ranks[int(other[5])]
        partner[row[5]][row[6]] = receiver.structure["p2p"][other[6]]
        partner[int(other[5])][other[6]] = sender.structure["p2p"][row[6]]
        if other[7] >= 0 and other[7] != row[7]:
            node = sender.labels.node_id[sender.structure["p2p"][row[6]]]
            back = receiver.labels.node_id[receiver.structure["p2p"][other[6]]]
            problems.add(
                "error",
                "size-mismatch",
                f"sends {row[7]} B to rank {row[1]}, whose receive (node {back}) expects {other[7]} B",
                rank=row[5],
                nodes=[node],
                remedy="Both sides need the same comm_size",
            )
    for row in recv[~taken].tolist():
        _unmatched(ranks, row, "receive", problems)
    return partner


def _numbered(table: np.ndarray) -> np.ndarray:
    """Replace the priority (column 3) by the order among equal (source, destination, tag)."""
    order = np.lexsort((table[:, 3], table[:, 2], table[:, 1], table[:, 0]))
    table = table[order]
    new = np.ones(len(table), bool)
    new[1:] = (table[1:, :3] != table[:-1, :3]).any(1)
    start = np.maximum.accumulate(np.where(new, np.arange(len(table)), 0))
    table[:, 3] = np.arange(len(table)) - start
    return table


def _unmatched(ranks: list[CheckedRank], row: list[int], word: str, problems: Findings) -> None:
    source, destination, tag, _, _, rank, k, _ = row
    r = ranks[rank]
    other = destination if word == "send" else source
    missing = "receive" if word == "send" else "send"
    problems.add(
        "error",
        "unmatched",
        f"{word} {'to' if word == 'send' else 'from'} rank {other} (tag {tag}) has no matching {missing} there",
        rank=rank,
        nodes=[r.labels.node_id[r.structure["p2p"][k]]],
        remedy="Source, destination, tag and count must agree on both ranks",
    )


def check_groups(ranks: list[CheckedRank], registry: Groups, problems: Findings) -> np.ndarray:
    """[G] bool, whether each group's members have the same names; members that disagree are noted."""
    by_name = np.ones(len(registry.members), bool)
    users: dict[int, list[tuple[int, int]]] = {}
    for r in ranks:
        for slot, group in enumerate(r.group_of_slot):
            users.setdefault(group, []).append((r.rank, slot))
    for group, used in users.items():
        if group in registry.undefined:
            continue
        members, name = registry.members[group], registry.names[group] or "0"
        present = {rank for rank, _ in used}
        absent = [m for m in members if m not in present]
        if absent:
            rank, slot = used[0]
            first = np.sort(ranks[rank].labels.node_id[ranks[rank].calls(slot)])
            problems.add(
                "error",
                "missing-member",
                f"collective on group {quoted(name)}, but rank {absent[0]}"
                + (f" and {len(absent) - 1} more members" if len(absent) > 1 else "")
                + " never joins it",
                rank=rank,
                nodes=first,
                remedy="Every member of a group takes part in its collectives",
            )
            continue
        by_name[group] = len({ranks[r].names_of_slot[s] for r, s in used}) == 1
        _compare_members(ranks, used, name, bool(by_name[group]), problems)
    return by_name


def _compare_members(
    ranks: list[CheckedRank],
    used: list[tuple[int, int]],
    name: str,
    by_name: bool,
    problems: Findings,
) -> None:
    """Members must agree in number, and in type and size: of each by name, or of all that there are."""

    def calls(rank: int, slot: int) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
        s = ranks[rank].structure
        here = ranks[rank].calls(slot)
        return here, s["comm_type"][here], s["size"][here]

    rank0, slot0 = used[0]
    here0, type0, size0 = calls(rank0, slot0)
    seen = {digest_of({"t": type0, "s": size0})}
    for rank, slot in used[1:]:
        here, kind, size = calls(rank, slot)
        key = digest_of({"t": kind, "s": size})
        if key in seen:
            continue
        seen.add(key)
        if len(here) != len(here0):
            problems.add(
                "error",
                "member-count",
                f"issues {len(here)} collectives on group {quoted(name)}, rank {rank0} issues {len(here0)}",
                rank=rank,
                nodes=ranks[rank].labels.node_id[here],
                remedy="Every member must issue every collective of the group",
            )
        else:
            if (
                not by_name
            ):  # the schedule pairs them up: what there is of each type and size must agree
                mine, theirs = np.lexsort((size, kind)), np.lexsort((size0, type0))
                here, kind, size = here[mine], kind[mine], size[mine]
            else:
                theirs = np.arange(len(here0))
            wrong_type = kind != type0[theirs]
            for word, wrong in (
                ("type", wrong_type),
                ("size", ~wrong_type & (size != size0[theirs])),
            ):
                if wrong.any():
                    problems.add(
                        "error",
                        f"{word}-mismatch",
                        f"{word} of a collective on group {quoted(name)} differs from rank {rank0}'s",
                        rank=rank,
                        nodes=ranks[rank].labels.node_id[here[wrong]],
                        remedy=f"Members must agree in {word}",
                    )
