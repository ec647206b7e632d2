"""Why a workload never ends: which ranks and nodes wait for each other. ASTRA-sim prints nothing and exits 0."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from perfmodel.astra import layout
from perfmodel.astra.algorithm_phases import KEYS
from perfmodel.astra.event_run import Run
from perfmodel.astra.flat_nodes import group_name, name_of
from perfmodel.astra.lower import Lowered
from perfmodel.errors import DeadlockError
from perfmodel.vocabulary import NodeType

MOST_LINES = 6
"""Ranks that a diagnosis explains one by one."""


@dataclass(frozen=True)
class Wait:
    """Why a rank does not go on: a sentence, the ranks it waits for, and the node (row of the trace)."""

    row: int
    why: str
    ranks: tuple[int, ...]


def diagnose(lowered: Lowered, run: Run) -> str:
    """A message that names the ranks and nodes that wait, and what for.

    Returns:
        "" where the run has ended.
    """
    if run.ok:
        return ""
    stuck = np.flatnonzero(np.isnan(run.rank_end)).tolist()
    waits = _Waits(lowered, run).find()
    cycle = _cycle(waits)
    order = [*cycle, *(rank for rank in stuck if rank not in cycle)]
    lines = [f"  rank {rank}: {waits[rank].why}" for rank in order[:MOST_LINES] if rank in waits]
    if len(order) > MOST_LINES:
        lines.append(f"  and {len(order) - MOST_LINES} more ranks")
    ring = ""
    if len(cycle) > 1:
        ring = f"; {' -> '.join(f'rank {rank}' for rank in [*cycle, cycle[0]])} wait in a circle"
    return (
        f"the workload never ends: {len(stuck)} of {lowered.flat.ranks} ranks do not finish{ring}\n"
        + "\n".join(lines)
    )


def require_finished(lowered: Lowered, run: Run) -> None:
    """Raise DeadlockError with the diagnosis unless all ranks have finished."""
    if not run.ok:
        raise DeadlockError(*diagnose(lowered, run).split("\n"))


def _cycle(waits: dict[int, Wait]) -> list[int]:
    """Ranks that wait for each other in a circle, if there are any."""
    for start in waits:
        path: list[int] = []
        rank = start
        while rank in waits and rank not in path:
            path.append(rank)
            rank = min(waits[rank].ranks, default=-1)
        if rank in path:
            return path[path.index(rank) :]
    return []


class _Waits:
    """Looks at the memory of a run that has stopped."""

    def __init__(self, lowered: Lowered, run: Run):
        assert run.waiting is not None
        self.lowered, self.flat, self.run, self.memory = lowered, lowered.flat, run, run.waiting
        started, ended = ~np.isnan(run.issue), ~np.isnan(run.finish)
        self.in_flight = started & ~ended
        self.started = started
        collective = self.flat.type == NodeType.COMM_COLL
        self.collective = collective
        action = lowered.tables.node_column(layout.NODE_ACTION)
        self.action = np.empty(len(action), np.int64)
        self.action[lowered.order] = action

    def find(self) -> dict[int, Wait]:
        """The wait of each rank that has not finished."""
        found = {}
        for rank in np.flatnonzero(np.isnan(self.run.rank_end)).tolist():
            rows = np.flatnonzero(self.in_flight & (self.flat.rank == rank))
            if len(rows) == 0:
                found[rank] = self._never_tried(rank)
                continue
            waits = [self._wait(int(row)) for row in rows]
            receives = self.flat.type[rows] == NodeType.COMM_RECV
            blocking = [wait for wait, late in zip(waits, receives) if not late] or waits
            hopeless = [wait for wait in waits if not wait.ranks]
            found[rank] = (hopeless or blocking)[0]
        return found

    def _wait(self, row: int) -> Wait:
        node = name_of(self.flat, row).split(", ", 1)[1]
        if self.action[row] == layout.STUCK:
            return Wait(row, f"{node} {self._why_stuck(row)}", ())
        if self.flat.type[row] == NodeType.COMM_RECV:
            return self._receive(row, node)
        if self.flat.type[row] == NodeType.COMM_SEND:
            return self._send(row, node)
        return self._collective_wait(row, node)

    def _send(self, row: int, node: str) -> Wait:
        """With the rendezvous protocol a send waits for its receive."""
        peer = int(self.flat.peer[row])
        return Wait(
            row, f"{node} waits for rank {peer} to ask for it with a receive (rendezvous)", (peer,)
        )

    def _why_stuck(self, row: int) -> str:
        group = int(self.flat.group[row])
        members = self.flat.groups[group]
        if len(members) == 1:
            name = group_name(self.flat, group)
            return (
                f"is a collective of communicator group {name}, which has one member: ASTRA-sim never ends "
                "it, and it keeps the rank's communication; leave the node or the group out"
            )
        return "involves no dimension (involved_dim masks all): ASTRA-sim never ends it"

    def _receive(self, row: int, node: str) -> Wait:
        flat = self.flat
        source, tag, size = int(flat.peer[row]), int(flat.tag[row]), int(flat.comm_size[row])
        what = f"{node} waits for a message from rank {source} with tag {tag} and {size} B"
        sends = np.flatnonzero(
            (flat.rank == source)
            & (flat.type == NodeType.COMM_SEND)
            & (flat.peer == flat.rank[row])
        )
        exact = sends[(flat.tag[sends] == tag) & (flat.comm_size[sends] == size)]
        waiting = exact[~self.started[exact]]
        if len(waiting):
            return Wait(
                row, f"{what}, which {name_of(flat, int(waiting[0]))} has not sent yet", (source,)
            )
        same_tag = sends[flat.tag[sends] == tag]
        if len(same_tag):
            sizes = sorted(set(flat.comm_size[same_tag].tolist()))
            if sizes != [size]:
                return Wait(row, f"{what}; with that tag rank {source} sends {sizes} B", ())
            return Wait(row, f"{what}; all {len(exact)} such messages went to other receives", ())
        return Wait(row, f"{what}, for which rank {source} has no send", ())

    def _collective_wait(self, row: int, node: str) -> Wait:
        """Members pair up by order of issue; look at the same place in the order of the others."""
        flat = self.flat
        group = int(flat.group[row])
        members = flat.groups[group]
        number = self._order(int(flat.rank[row]), group).index(row)
        which = f"communicator group {group_name(flat, group)}" if group else "all ranks"
        what = f"{node} of {which}"
        missing, other = [], []
        for rank in members:
            issued = self._order(rank, group)
            if number >= len(issued):
                missing.append(rank)
            elif (flat.comm_type[issued[number]], flat.comm_size[issued[number]]) != (
                flat.comm_type[row],
                flat.comm_size[row],
            ):
                other.append(issued[number])
        if missing:
            instead = "; ".join(self._instead(rank) for rank in missing[:2])
            more = f" and {len(missing) - 2} more" if len(missing) > 2 else ""
            names = ", ".join(map(str, missing[:2]))
            return Wait(
                row,
                f"{what} waits for rank {names}{more}, not there yet ({instead})",
                tuple(missing),
            )
        if other:
            return Wait(
                row,
                f"{what} meets {name_of(flat, other[0])}: in this order they pair up, with different type or "
                "size",
                (int(flat.rank[other[0]]),),
            )
        return Wait(row, f"{what} waits for {self._inside(row, members)}", ())

    def _inside(self, row: int, members: tuple[int, ...]) -> str:
        """All members are there: what the algorithm itself waits for."""
        rank = int(self.flat.rank[row])
        unsent = {source for source, target in self._unsent() if target == rank}
        sources = sorted(unsent & set(members) - {rank})
        if sources:
            what = f"a message from rank {', '.join(map(str, sources[:4]))} that is never sent"
        elif unsent:
            what = "a message from a partner that is no other member"
        else:
            what = "its own chunks, which never get their turn in a queue or never end"
        system = self.lowered.config.system
        key = KEYS[int(self.flat.comm_type[row])]
        there = f"although all {len(members)} members are there"
        if key in system.custom:
            return (
                f"{what} {there}: the sends and receives in the traces of {system.custom[key]!r} do not "
                "match in peer, tag and size, or wait for each other"
            )
        names = {algorithm.name for algorithm in system.algorithms[key]}
        partners = (
            "the algorithm finds no partner for every rank (halvingDoubling needs a power of two), or "
            if "halvingDoubling" in names and len(members) & (len(members) - 1)
            else ""
        )
        return (
            f"{what} {there}: {partners}ranks serve the chunks of collectives or dimensions in different "
            "orders (queues and active chunks)"
        )

    def _unsent(self) -> list[tuple[int, int]]:
        """(source, target) of messages that are waited for and were not sent."""
        m, found = self.memory, []
        buckets = m.view(layout.BUCKETS, int(m.words[layout.BUCKET_MASK]) + 1).ravel()
        for k in buckets[buckets > 0].tolist():
            while k > 0:
                record = m.words[k : k + layout.MESSAGE_W]
                if record[layout.MESSAGE_SENT] == 0:
                    found.append(
                        (int(record[layout.MESSAGE_SOURCE]), int(record[layout.MESSAGE_TARGET]))
                    )
                k = int(record[layout.NEXT])
        return found

    def _order(self, rank: int, group: int) -> list[int]:
        """Collectives of a group in the order in which a rank has issued them."""
        flat = self.flat
        rows = np.flatnonzero(
            self.collective & self.started & (flat.rank == rank) & (flat.group == group)
        )
        rows = rows[self.action[rows] == layout.COLLECTIVE]
        order: list[int] = rows[np.lexsort((flat.node_id[rows], self.run.issue[rows]))].tolist()
        return order

    def _instead(self, rank: int) -> str:
        """What a rank does that others wait for."""
        rows = np.flatnonzero(self.in_flight & (self.flat.rank == rank))
        if len(rows) == 0:
            if not np.isnan(self.run.rank_end[rank]):
                return f"rank {rank} has finished without it"
            return f"rank {rank} does nothing"
        busy = rows[np.argsort(self.flat.type[rows] == NodeType.COMM_RECV, kind="stable")]
        return f"{name_of(self.flat, int(busy[0]))} is under way there"

    def _never_tried(self, rank: int) -> Wait:
        """Nothing is under way: nodes became ready without a pass in which they would be tried."""
        flat = self.flat
        rows = np.flatnonzero((flat.rank == rank) & ~self.started)
        for row in rows.tolist():
            before = flat.pred[flat.pred_ptr[row] : flat.pred_ptr[row + 1]]
            if len(before) and not np.isnan(self.run.finish[before]).any():
                skipped = before[self.action[before] == layout.SKIP]
                what = name_of(flat, int((skipped if len(skipped) else before)[0]))
                return Wait(
                    row,
                    f"{name_of(flat, row).split(', ', 1)[1]} became ready when {what} ended at once; "
                    "ASTRA-sim tries ready nodes only when some other node of the rank ends, and none is "
                    "left: give that node a tensor_size, or leave it out",
                    (),
                )
        row = int(rows[0])
        return Wait(row, f"{name_of(flat, row).split(', ', 1)[1]} is never ready", ())
