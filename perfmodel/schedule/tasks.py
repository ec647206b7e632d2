"""A graph on a network of a given shape: equal ranks once, and the table of distinct costs.

One representative stands for each class of equal ranks (see `rank_classes`), and equal costs are one row. The time that
scheduling takes therefore grows with distinct ranks, not with ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost_blocks import DistinctCosts
from perfmodel.schedule.cost_collector import CostCollector
from perfmodel.schedule.rank_classes import rank_classes
from perfmodel.threads import even_slices, in_threads
from perfmodel.vocabulary import (
    NodeType,
)
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program

MANY = 100_000
"""Nodes per program from which on collecting their costs is work for two threads."""


@dataclass(frozen=True, eq=False)
class Tasks:
    """The nodes of the representative ranks, and the latencies between them, n in all, ready to be scheduled.

    The latency of an edge is a task without a resource; those come after the tasks of all classes.

    Attributes:
        rank_class: [R] i32, class of each rank; representative: [C] i32, a rank of each class.
        offset: [C+1] i64, number of the first task of each class; the last is that of the first latency.
        type, priority, cost: [n]; `cost` is a row of `work`, -1 for what takes no time.
        resource: [n] i32 over all classes, -1 none; resources: number of them.
        pred_ptr, pred: prerequisites.
        join: [n] i32, first instance number of the collective's group orbit (-1: nobody to wait for);
        match: [n] i32, instance within the orbit, -1 where order of issue decides;
        caller: [n] i32, the (class, slot) that issues it; members: [instances] i32, callers each waits for.
        recorded: [n] bool, a collective that replays a recorded duration.
        partner: [n] i32, for a receive the send that feeds it, for a send its receive; -1 else.
        work: the table of distinct costs.
    """

    rank_class: NDArray[np.int32]
    representative: NDArray[np.int32]
    offset: NDArray[np.int64]
    type: NDArray[np.int8]
    priority: NDArray[np.int32]
    cost: NDArray[np.int32]
    resource: NDArray[np.int32]
    resources: int
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    join: NDArray[np.int32]
    match: NDArray[np.int32]
    caller: NDArray[np.int32]
    members: NDArray[np.int32]
    recorded: NDArray[np.bool_]
    partner: NDArray[np.int32]
    work: DistinctCosts

    def __len__(self) -> int:
        return len(self.type)

    def place(self, task: int) -> tuple[int, int]:
        """Class and position of a task."""
        c = int(np.searchsorted(self.offset, task, side="right")) - 1
        return c, task - int(self.offset[c])


def build(
    graph: Graph,
    system: System,
    *,
    prefer: str = "work",
    merge_ranks: bool = True,
    quickest: bool = False,
) -> Tasks:
    """The tasks of a graph on a network shape.

    Args:
        graph: R ranks.
        system: its shape matters, not its rates; as many ranks as the graph.
        prefer: "work" or "recorded", which of the two counts where a node has both.
        merge_ranks: let one rank stand for all equal ones.
        quickest: every collective lasts what its quickest member says, as replayed ones do.

    Raises:
        InputError: the system has another number of ranks.
    """
    if system.ranks != graph.ranks:
        raise InputError(
            f"{graph.source} has {graph.ranks} ranks, system {system.name} has {system.ranks}; "
            "resize it with pm.hardware(..., ranks=...)"
        )
    if merge_ranks:
        colour, group_colour = rank_classes(graph, system)
    else:
        colour = np.arange(graph.ranks, dtype=np.int32)
        group_colour = np.arange(len(graph.groups), dtype=np.int32)
    representative = np.zeros(int(colour.max()) + 1, np.int32)
    representative[colour[::-1]] = np.arange(graph.ranks, dtype=np.int32)[::-1]
    programs = [graph.programs[graph.program[r]] for r in representative]
    offset = np.concatenate([[0], np.cumsum([len(p) for p in programs])]).astype(np.int64)
    table, cost, recorded, latencies = _costs(
        [CostCollector(graph, system, prefer, quickest) for _ in programs],
        [(p, int(graph.row[r])) for p, r in zip(programs, representative)],
    )
    work, number = table.finish()
    resource, resources = _resources(programs)
    join, match, caller, members = _joins(graph, programs, representative, group_colour)
    partner = np.full(int(offset[-1]), -1, np.int32)
    for c, (r, p) in enumerate(zip(representative, programs)):
        row = graph.row[r]
        if len(p.p2p):
            there = offset[colour[p.peer[row]]] + p.partner[row]
            partner[offset[c] + p.p2p] = there
    begin = np.concatenate([[0], np.cumsum([len(p.pred) for p in programs])])
    tasks = Tasks(
        rank_class=colour,
        representative=representative,
        offset=offset,
        type=np.concatenate([p.type for p in programs]),
        priority=np.concatenate([p.priority for p in programs]),
        cost=np.concatenate([number[rows] for rows in cost]),
        resource=resource,
        resources=resources,
        pred_ptr=np.concatenate(
            [*(p.pred_ptr[:-1] + b for p, b in zip(programs, begin)), begin[-1:]]
        ).astype(np.int64),
        pred=np.concatenate([p.pred + np.int32(o) for p, o in zip(programs, offset)]),
        join=join,
        match=match,
        caller=caller,
        members=members,
        recorded=np.concatenate(recorded),
        partner=partner,
        work=work,
    )
    if all(rows is None for rows in latencies):
        return tasks
    none = (np.broadcast_to(-1, (len(p.pred),)) for p in programs)
    known = [number[n if rows is None else rows] for n, rows in zip(none, latencies)]
    return _with_latencies(tasks, np.concatenate(known))


def _costs(
    own: list[CostCollector], programs: list[tuple[Program, int]]
) -> tuple[CostCollector, list[Any], list[Any], list[Any]]:
    """All costs together; of every program the provisional numbers, which collectives replay, latencies' numbers.

    Large programs are looked at two at a time.

    Args:
        own: a collector for each program. programs: with the row that stands for its class.
    """
    found: dict[int, tuple[Any, ...]] = {}

    def work(part: slice) -> None:
        for k in range(part.start, part.stop):
            p, row = programs[k]
            found[k] = (*own[k].rows(p, row), own[k].latencies(p))

    nodes = sum(len(p) for p, _ in programs)
    in_threads(work, even_slices(len(own), 2 if nodes >= MANY * len(own) else 1))
    table = own[0]
    for k in range(1, len(own)):
        moved = table.take(own[k])
        for number in (found[k][0], found[k][2]):
            if number is not None:
                number += (number >= 0) * np.int32(moved)
    cost, recorded, latencies = ([found[k][of] for k in range(len(own))] for of in range(3))
    return table, cost, recorded, latencies


def _with_latencies(tasks: Tasks, row: NDArray[np.int32]) -> Tasks:
    """Edges that take time, [E] cost rows (-1: they do not), as tasks between the two nodes."""
    slow = np.flatnonzero(row >= 0)
    if not len(slow):
        return tasks
    n, more = len(tasks), len(slow)
    pred = tasks.pred.copy()
    pred[slow] = n + np.arange(more)

    def longer(column: NDArray[Any], value: Any) -> NDArray[Any]:
        return np.concatenate([column, np.full(more, value, column.dtype)])

    ptr = np.concatenate([tasks.pred_ptr, tasks.pred_ptr[-1] + 1 + np.arange(more)])
    return replace(
        tasks,
        type=longer(tasks.type, NodeType.METADATA),
        priority=longer(tasks.priority, 0),
        cost=np.concatenate([tasks.cost, row[slow]]).astype(np.int32),
        resource=longer(tasks.resource, -1),
        pred_ptr=ptr,
        pred=np.concatenate([pred, tasks.pred[slow]]).astype(np.int32),
        join=longer(tasks.join, -1),
        match=longer(tasks.match, -1),
        caller=longer(tasks.caller, -1),
        recorded=longer(tasks.recorded, False),
        partner=longer(tasks.partner, -1),
    )


def _resources(programs: Sequence[Program]) -> tuple[np.ndarray, int]:
    parts, base = [], 0
    for p in programs:
        parts.append(np.where(p.resource >= 0, p.resource + base, -1))
        base += len(p.resources)
    return np.concatenate(parts).astype(np.int32), base


def _joins(
    graph: Graph,
    programs: Sequence[Program],
    representative: NDArray[np.int32],
    group_colour: NDArray[np.int32],
) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
    """Instances of collectives: one per group colour and instance number.

    A group whose members all look alike has one caller: they issue the same at the same time, nobody waits for anybody,
    and its collectives are operations like any other.
    """
    callers = [
        (c, slot, int(group_colour[group]), bool(graph.by_name[group]))
        for c, (r, p) in enumerate(zip(representative, programs))
        for slot, group in enumerate(p.groups[graph.row[r]])
    ]
    size = Counter(colour for _, _, colour, _ in callers)
    join, match, caller = ([np.full(len(p), -1, np.int32) for p in programs] for _ in range(3))
    base: dict[int, int] = {}
    members: list[int] = []
    for number, (c, slot, colour, by_name) in enumerate(callers):
        if size[colour] == 1:
            continue
        calls = programs[c].slot == slot
        if colour not in base:
            base[colour] = len(members)
            members.extend([size[colour]] * int(calls.sum()))
        join[c][calls] = base[colour]
        if by_name:
            match[c][calls] = programs[c].match[calls]
        caller[c][calls] = number
    return (
        np.concatenate(join),
        np.concatenate(match),
        np.concatenate(caller),
        np.array(members, np.int32),
    )
