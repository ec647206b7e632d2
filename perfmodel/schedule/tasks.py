"""A graph on a network of a given shape: equal ranks once, and the table of distinct costs.

Ranks that run the same program, and whose groups and peers look alike (same spans over the network's dimensions,
members of the same classes), do everything at the same time on every design with that network shape. They form
the classes of the coarsest equitable partition, found by colour refinement; one representative stands for each.
The cost of scheduling therefore grows with distinct ranks, not with ranks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.placement import hops_table, span
from perfmodel.machine.system import System
from perfmodel.models.cost import CostBlock, DistinctCosts
from perfmodel.schedule.distinct_rows import distinct_rows
from perfmodel.vocabulary import (
    COLLECTIVES,
    COMMUNICATION,
    COMPUTE,
    DIMENSIONS,
    DTYPES,
    HOST,
    MEMORY,
    OPERATIONS,
    NodeType,
)
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program


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


def rank_classes(graph: Graph, system: System) -> tuple[np.ndarray, np.ndarray]:
    """Colour refinement: [R] i32 class of each rank, [G] i32 colour of each group."""
    shapes: dict[Hashable, int] = {}
    sizes = tuple(d.size for d in system.network)
    users = _users(graph)
    used = np.unique(users[:, 0]) if len(users) else np.zeros(0, np.int64)
    shape = np.full(len(graph.groups), -1, np.int64)
    for g in used:
        key = (span(graph.groups[g], sizes), bool(graph.by_name[g]))
        shape[g] = shapes.setdefault(key, len(shapes))
    routes = [_routes(p, system) for p in graph.programs]
    colour = graph.program.astype(np.int64)
    count = len(graph.programs)
    while True:
        group_colour = _group_colours(users, shape, colour)
        seen: dict[bytes, int] = {}
        new = np.empty_like(colour)
        for p, route in zip(graph.programs, routes):
            table = np.concatenate(
                [
                    colour[p.ranks][:, None],
                    group_colour[p.groups].reshape(len(p.ranks), -1),
                    colour[p.peer].reshape(len(p.ranks), -1),
                    p.partner,
                    route,
                ],
                axis=1,
            ).astype(np.int64)
            for rank, line in zip(p.ranks, table):
                new[rank] = seen.setdefault(line.tobytes(), len(seen))
        colour = new
        if len(seen) == count:
            return colour.astype(np.int32), group_colour.astype(np.int32)
        count = len(seen)


def _users(graph: Graph) -> np.ndarray:
    """[k, 3] (group, rank, slot) of every group that a rank uses, sorted by group."""
    parts = [
        np.stack(
            [
                p.groups.ravel(),
                np.repeat(p.ranks, p.groups.shape[1]),
                np.tile(np.arange(p.groups.shape[1]), len(p.ranks)),
            ],
            axis=1,
        )
        for p in graph.programs
    ]
    users = np.concatenate(parts).astype(np.int64)
    return users[np.lexsort((users[:, 1], users[:, 0]))]


def _routes(p: Program, system: System) -> np.ndarray:
    """[m, k] a number for the hops between each rank and its peers."""
    own = np.repeat(p.ranks, p.peer.shape[1])
    if not own.size:
        return np.zeros((len(p.ranks), 0), np.int64)
    table = hops_table(own, p.peer.ravel(), system.network)
    number = np.zeros(len(table), np.int64)
    for k in range(table.shape[1]):
        number = number * (int(table[:, k].max()) + 1) + table[:, k]
    return number.reshape(p.peer.shape)


def _group_colours(users: np.ndarray, shape: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """[G] groups with equal shape and equally coloured members have one colour; -1 unused."""
    result = np.full(len(shape), -1, np.int64)
    if not len(users):
        return result
    value = colour[users[:, 1]] * (int(users[:, 2].max()) + 1) + users[:, 2]
    order = np.lexsort((value, users[:, 0]))
    value, group = value[order], users[order, 0]
    start = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    seen: dict[tuple[int, bytes], int] = {}
    for a, b in zip(start, np.r_[start[1:], len(group)]):
        key = (int(shape[group[a]]), value[a:b].tobytes())
        result[group[a]] = seen.setdefault(key, len(seen))
    return result


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
    table = _CostCollector(graph, system, prefer, quickest)
    cost, recorded, latencies = [], [], []
    for r, p in zip(representative, programs):
        rows, replayed = table.rows(p, int(graph.row[r]))
        cost.append(rows)
        recorded.append(replayed)
        latencies.append(table.latencies(p))
    work, number = table.finish()
    resource, resources = _resources(programs)
    join, match, caller, members = _joins(graph, programs, representative, group_colour)
    partner = np.full(int(offset[-1]), -1, np.int32)
    for c, (r, p) in enumerate(zip(representative, programs)):
        row = graph.row[r]
        if len(p.p2p):
            there = offset[colour[p.peer[row]]] + p.partner[row]
            partner[offset[c] + p.p2p] = there
    nodes_cost = np.concatenate(cost)
    tasks = Tasks(
        rank_class=colour,
        representative=representative,
        offset=offset,
        type=np.concatenate([p.type for p in programs]),
        priority=np.concatenate([p.priority for p in programs]),
        cost=number[nodes_cost].astype(np.int32),
        resource=resource,
        resources=resources,
        pred_ptr=np.concatenate(
            [[0], np.cumsum(np.concatenate([np.diff(p.pred_ptr) for p in programs]))]
        ).astype(np.int64),
        pred=np.concatenate([p.pred + o for p, o in zip(programs, offset)]).astype(np.int32),
        join=join,
        match=match,
        caller=caller,
        members=members,
        recorded=np.concatenate(recorded),
        partner=partner,
        work=work,
    )
    return _with_latencies(tasks, number[np.concatenate(latencies)])


def _with_latencies(tasks: Tasks, row: NDArray[np.int64]) -> Tasks:
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


class _CostCollector:
    """Collects distinct costs; rows are numbered per key first, globally at the end."""

    def __init__(self, graph: Graph, system: System, prefer: str, quickest: bool):
        if prefer not in ("work", "recorded"):
            raise InputError(f'prefer: got {prefer!r}, expected "work" or "recorded"')
        self.graph, self.system, self.prefer, self.quickest = graph, system, prefer, quickest
        self.sizes = tuple(d.size for d in system.network)
        self.keys: dict[tuple[Hashable, ...], int] = {}
        self.category: list[int] = []
        self.rows_of: list[list[tuple[int, NDArray[np.float64]]]] = []
        self.count = 0

    def rows(self, p: Program, row: int) -> tuple[np.ndarray, np.ndarray]:
        """[n] provisional cost numbers (-1 none) and [n] whether a collective replays its record."""
        number = np.full(len(p), -1, np.int64)
        comp = p.type == NodeType.COMP
        memory = (p.type == NodeType.MEM_LOAD) | (p.type == NodeType.MEM_STORE)
        coll = p.type == NodeType.COMM_COLL
        send = p.type == NodeType.COMM_SEND
        work = np.select(
            [comp, memory, coll, send],
            [
                (p.flops >= 0) | (p.bytes >= 0),
                p.bytes >= 0,
                (p.size >= 0) | (p.comm_type == COLLECTIVES.index("barrier")),
                p.size >= 0,
            ],
            False,
        )
        has_record = ~np.isnan(p.duration)
        replay = has_record & ~work if self.prefer == "work" else has_record
        replay &= comp | memory | coll | send
        for category, chosen in (
            (COMPUTE, replay & comp & ~p.cpu),
            (HOST, replay & comp & p.cpu),
            (MEMORY, replay & memory),
            (COMMUNICATION, replay & (coll | send)),
        ):
            self._add(number, chosen, ("recorded", category), category, p.scale, p.duration)
        self._compute(number, comp & ~replay, p)
        for word, chosen in (("local", self._local(p)), ("remote", ~self._local(p))):
            chosen = memory & ~replay & chosen
            self._add(number, chosen, ("memory", word), MEMORY, p.scale, p.bytes)
        for slot, group in enumerate(p.groups[row]):
            calls = coll & (p.slot == slot)
            members = self.graph.groups[group]
            if len(members) == 1:
                number[calls & ~replay] = -1  # alone
                continue
            shape = span(members, self.sizes)
            for kind in np.unique(p.comm_type[calls & ~replay]):
                chosen = calls & ~replay & (p.comm_type == kind)
                key = ("collective", COLLECTIVES[kind], shape)
                self._add(number, chosen, key, COMMUNICATION, p.scale, np.maximum(p.size, 0))
        self._messages(number, send & ~replay, p, row)
        return number, (replay | self.quickest) & coll

    def latencies(self, p: Program) -> np.ndarray:
        """[e] provisional cost numbers of a program's edges, -1 for those that take no time."""
        number = np.full(len(p.pred), -1, np.int64)
        slow = p.pred_latency > 0
        if slow.any():
            once = np.broadcast_to(1.0, (len(p.pred),))
            self._add(number, slow, ("recorded", HOST), HOST, once, p.pred_latency)
        return number

    def _compute(self, number: np.ndarray, chosen: np.ndarray, p: Program) -> None:
        """Kernels by kind and number format; kinds with sizes have those as further columns."""
        if not chosen.any():
            return
        flops, moved = np.maximum(p.flops, 0), np.maximum(p.bytes, 0)
        both = p.kind.astype(np.int64) * (len(DTYPES) + 1) + p.dtype + 1
        for code in np.unique(both[chosen]):
            kind, dtype = divmod(int(code), len(DTYPES) + 1)
            word = OPERATIONS[kind]
            sizes = [p.dimensions[:, k] for k in range(len(DIMENSIONS.get(word, ())))]
            for host, category in ((False, COMPUTE), (True, HOST)):
                here = chosen & (both == code) & (p.cpu == host)
                key = ("compute", word, DTYPES[dtype - 1] if dtype else "", category)
                self._add(number, here, key, category, p.scale, flops, moved, *sizes)

    def _local(self, p: Program) -> NDArray[np.bool_]:
        """Memory nodes go to remote memory where the system has one, unless they name local memory."""
        return p.local | (self.system.remote_memory is None)

    def _messages(self, number: np.ndarray, chosen: np.ndarray, p: Program, row: int) -> None:
        if not chosen.any():
            return
        positions = p.p2p
        sends = chosen[positions]
        own = int(p.ranks[row])
        peers = p.peer[row][sends]
        table = hops_table(np.full(len(peers), own), peers, self.system.network)
        for route in np.unique(table, axis=0):
            here = np.zeros(len(p), bool)
            here[positions[sends][(table == route).all(1)]] = True
            key = ("point_to_point", tuple(int(h) for h in route))
            self._add(number, here, key, COMMUNICATION, p.scale, p.size)

    def _add(
        self,
        number: np.ndarray,
        chosen: np.ndarray,
        key: tuple[Hashable, ...],
        category: int,
        scale: np.ndarray,
        *columns: np.ndarray,
    ) -> None:
        """Number the costs of the chosen nodes: rows of columns and a factor; equal ones are one."""
        if not chosen.any():
            return
        index = self.keys.setdefault(key, len(self.keys))
        if index == len(self.rows_of):
            self.rows_of.append([])
            self.category.append(category)
        rows = np.column_stack([c[chosen].astype(float) for c in (*columns, scale)])
        distinct, found = distinct_rows(rows)
        self.rows_of[index].append((self.count, distinct))
        number[chosen] = self.count + found
        self.count += len(distinct)

    def finish(self) -> tuple[DistinctCosts, np.ndarray]:
        """The table, and the final number of each provisional one; -1 stays -1."""
        number = np.full(self.count + 1, -1, np.int64)
        blocks, base = [], 0
        for key, index in self.keys.items():
            parts = self.rows_of[index]
            rows, found = distinct_rows(np.concatenate([rows for _, rows in parts]))
            provisional = [first + np.arange(len(part)) for first, part in parts]
            number[np.concatenate(provisional)] = base + found
            base += len(rows)
            word = key[:-1] if key[0] in ("recorded", "compute") else key
            blocks.append(CostBlock(word, rows[:, :-1], rows[:, -1], self.category[index]))
        return DistinctCosts(tuple(blocks)), number
