"""Several ranks together: clocks, communicators, and which collective of one rank meets which of another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.findings import Finding, warning
from perfmodel.trace.pytorch import host_time as host
from perfmodel.trace.pytorch.collectives import SEND_RECV, Collective
from perfmodel.trace.pytorch.columns import RankNodes

OFFSETS = ("recorded", "collectives", "none")

CLOCKS = 1e-3
"""What clocks of machines that are kept together may differ by [s]."""

MISSED = 0.1
"""Share of meetings that the recorded times may refute before the members are taken to be others."""


def offsets(ranks: Sequence[RankNodes], how: str = "recorded") -> NDArray[np.float64]:
    """[R] when each rank starts after the first of them [s].

    Args:
        ranks: their nodes.
        how: "recorded": by the clocks of the traces; "collectives": by clocks set so that the collectives of every rank
            end together, for machines whose clocks differ; "none": all start together.

    Raises:
        InputError: another word.
    """
    if how not in OFFSETS:
        raise InputError(f"offsets: got {how!r}, expected one of {', '.join(OFFSETS)}")
    if how == "none":
        return np.zeros(len(ranks))
    zero = min(r.timeline.device.base for r in ranks)
    begin = np.array(
        [(r.timeline.device.base - zero) * 1e-9 + r.timeline.window.start for r in ranks]
    )
    if how == "collectives":
        ends = [np.sort(r.end[sorted(r.collective)]) for r in ranks]
        if len({len(e) for e in ends}) != 1 or not len(ends[0]):
            raise InputError(
                'offsets="collectives": the ranks have '
                f"{', '.join(str(len(e)) for e in ends)} collectives, expected the same number on all of them"
            )
        begin = np.array([float(np.median(ends[0] - e)) for e in ends])
    offset: NDArray[np.float64] = begin - begin.min()
    return offset


@dataclass(frozen=True, eq=False)
class Meetings:
    """Who meets whom.

    Attributes:
        groups: {name: places of the members among the ranks loaded}.
        group: per rank {node: name of its group}.
        tail: per rank {node: how much longer its collective takes here than where it is over first [s]}.
        matched: share of collectives whose group is loaded and that all members have.
        findings: what is odd.
    """

    groups: dict[str, tuple[int, ...]]
    group: list[dict[int, str]]
    tail: list[dict[int, float]]
    matched: float
    findings: list[Finding]


def meet(
    ranks: Sequence[RankNodes], numbers: Sequence[int], world: int, begin: NDArray[Any]
) -> Meetings:
    """Match the collectives of all ranks, n-th with n-th in each communicator.

    Args:
        ranks: nodes of the ranks loaded; numbers: their ranks in the run; world: how many the run had (-1 unknown).
        begin: [R] when each started on the common clock [s].

    A communicator of which some members are not loaded, or where members disagree on how often it was used, cannot be
    replayed: its collectives keep their recorded time. All others meet at the last arrival and take the least time that
    any member recorded (on the host: what is left after the last arrival until the first is over; gloo lets its members
    go at different times, and the rest stays with each).
    """
    place = {number: i for i, number in enumerate(numbers)}
    everyone = tuple(range(world)) if world > 0 else tuple(numbers)
    groups: dict[str, tuple[int, ...]] = {}
    group: list[dict[int, str]] = [{} for _ in ranks]
    members: dict[str, tuple[int, ...]] = {}
    users: dict[str, dict[int, list[int]]] = {}
    findings: list[Finding] = []
    unpaired = 0
    assumed: set[str] = set()
    for i, rank in enumerate(ranks):
        addresses: dict[str, str] = {}
        for node in sorted(rank.collective, key=lambda n: _order(rank, n)):
            what = rank.collective[node]
            if what.group.startswith("<"):  # an address: the n-th in use here is the n-th elsewhere
                own = addresses.setdefault(what.group, f"communicator {len(addresses) + 1}")
                what = replace(what, group=own)
            name, ranks_of = _communicator(what, numbers[i], everyone)
            unpaired += not ranks_of
            if not what.ranks and what.kind != SEND_RECV:
                assumed.add(name)
            members.setdefault(name, ranks_of or (numbers[i],))
            users.setdefault(name, {}).setdefault(i, []).append(node)
    total = sum(len(r.collective) for r in ranks)
    met = 0
    tail: list[dict[int, float]] = [{} for _ in ranks]
    absent: dict[str, int] = {}
    for name, used in users.items():
        loaded = tuple(sorted(place[r] for r in members[name] if r in place))
        counts = {i: len(nodes) for i, nodes in used.items()}
        whole = len(loaded) == len(members[name])
        even = sorted(counts) == list(loaded) and len(set(counts.values())) == 1
        possible = not even or name not in assumed or _possible(ranks, used, begin)
        if whole and len(loaded) > 1 and even and possible:
            groups[name] = loaded
            for i, nodes in used.items():
                group[i].update(dict.fromkeys(nodes, name))
            met += sum(counts.values())
            _tails(ranks, used, begin, tail)
            continue
        if not whole:
            absent[name] = sum(counts.values())
        elif len(loaded) > 1 and not even:
            findings.append(_uneven(name, counts, numbers))
        elif len(loaded) > 1:
            findings.append(_impossible(name))
        for i, nodes in used.items():
            alone = f"{name} as recorded on rank {numbers[i]}"
            groups[alone] = (i,)
            group[i].update(dict.fromkeys(nodes, alone))
    if absent:
        findings.append(_absent(absent, members, place))
    if unpaired:
        findings.append(
            warning(
                "unpaired-messages",
                f"{unpaired} sends and receives do not name the other rank: they keep their recorded time",
            )
        )
    return Meetings(groups, group, tail, met / total if total else 1.0, findings)


def _order(rank: RankNodes, node: int) -> tuple[Any, ...]:
    """Collectives in order of issue; those of the host, which threads may take up in any order, by size first."""
    if node < rank.hosts:
        return (0, rank.collective[node].kind, rank.collective[node].size, rank.start[node])
    return (1, rank.timeline.work.issued[node - rank.hosts], node)


def _communicator(
    what: Collective, own: int, everyone: tuple[int, ...]
) -> tuple[str, tuple[int, ...]]:
    """Name and members; none for messages to nobody knows whom."""
    if what.kind == SEND_RECV:
        if what.peer < 0 or what.peer == own:
            return f"{what.group or 'messages'} of rank {own}", ()
        pair = tuple(sorted((own, what.peer)))
        return f"{what.group or 'messages'} {pair[0]}-{pair[1]}", pair
    ranks = what.ranks or everyone
    if what.group and what.ranks and ranks != everyone:
        return (
            f"{what.group} ({', '.join(map(str, ranks[:8]))}{', ...' if len(ranks) > 8 else ''})",
            ranks,
        )
    return what.group or "world", ranks


def _tails(
    ranks: Sequence[RankNodes],
    used: Mapping[int, list[int]],
    begin: NDArray[Any],
    tail: Sequence[dict[int, float]],
) -> None:
    """What each member of a host collective still has to do when the first of them is done."""
    places = sorted(used)
    nodes = np.array([used[i] for i in places])  # members x times used
    start = np.stack([ranks[i].start[used[i]] + begin[i] for i in places])
    end = np.stack([ranks[i].end[used[i]] + begin[i] for i in places])
    on_host = np.array([np.array(used[i]) < ranks[i].hosts for i in places]).all(axis=0)
    split = on_host & (
        end.min(axis=0) > start.max(axis=0)
    )  # else the clocks differ too much to say
    rest = np.where(split, end - end.min(axis=0), 0.0)
    for row, i in enumerate(places):
        tail[i].update({n: r for n, r in zip(nodes[row].tolist(), rest[row].tolist()) if r > 0})


def _possible(
    ranks: Sequence[RankNodes], used: Mapping[int, list[int]], begin: NDArray[Any]
) -> bool:
    """Whether ranks that are taken to meet can have met: none was done before another came, but for a few."""
    start = np.stack([ranks[i].start[nodes] + begin[i] for i, nodes in used.items()])
    end = np.stack([ranks[i].end[nodes] + begin[i] for i, nodes in used.items()])
    return bool(np.mean(end.min(axis=0) < start.max(axis=0) - CLOCKS) <= MISSED)


def _impossible(name: str) -> Finding:
    return warning(
        "refuted-members",
        f"communicator {name!r} does not say who its members are, and the recorded times refute that all "
        "ranks are: its collectives keep their recorded time",
        remedy="Give host traces that list the process groups; where the ranks' clocks differ, "
        'offsets="collectives"',
    )


def _uneven(name: str, counts: dict[int, int], numbers: Sequence[int]) -> Finding:
    text = ", ".join(f"{c} on rank {numbers[i]}" for i, c in sorted(counts.items()))
    return warning(
        "uneven-collectives",
        f"communicator {name!r} is used a different number of times by its members ({text}): its "
        "collectives keep their recorded time",
        remedy="Choose another step",
    )


def _absent(
    absent: dict[str, int], members: Mapping[str, tuple[int, ...]], place: Mapping[int, int]
) -> Finding:
    name = next(iter(absent))
    lacking = [r for r in members[name] if r not in place]
    more = f" and {len(absent) - 1} more communicators" if len(absent) > 1 else ""
    return warning(
        "absent-ranks",
        f"communicator {name!r}{more} has ranks that are not loaded (rank {lacking[0]}"
        + (f" and {len(lacking) - 1} more" if len(lacking) > 1 else "")
        + f"): {sum(absent.values())} collectives keep their recorded time, their wait for others included",
        remedy="Give the traces of all ranks",
    )


def has_tail(rank: RankNodes) -> NDArray[np.int64]:
    """[h] the node that holds what a host collective still takes, for each collective; -1 else."""
    kind = rank.timeline.host.kind
    found = np.full(len(kind), -1, np.int64)
    blocks = np.flatnonzero(kind == host.COLLECTIVE)
    found[blocks] = blocks + 1
    return found
