"""The same model again, in plain Python: an independent oracle for graph, schedule and longest path.

Every rank is simulated on its own, every collective and every message one by one: no arrays, no merging, no
compiled code, and nothing of the package but the tables of a `Graph`. A loop per concept, so that each can be
checked by reading. Times are in s. `oracle_costs` holds what the nodes cost.

The rules of the schedule:

* a resource runs one operation at a time; receives, METADATA and INVALID nodes need none;
* time goes from moment to moment: everything that ends within one part in 10^12 of the earliest end ends in the
  same moment, then every idle resource takes its ready operation with the lowest node id (several resources of a
  rank do so in ascending id);
* an operation starts when its prerequisites are done, what has to pass after each of them has passed, and its
  resource is free; a send takes its cost, and the
  message arrives at its end; a receive ends when it is ready and the message is there;
* a collective starts on each member alone, holds the member's resource, and ends for all one cost after the last
  start.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

INVALID, METADATA, MEM_LOAD, MEM_STORE, COMP, SEND, RECV, COLLECTIVE = range(8)
SAME_MOMENT = 1e-12


class Deadlock(Exception):
    """Nothing moves any more; `left` are the nodes that never end."""

    def __init__(self, left: list[int]):
        super().__init__(f"{len(left)} nodes never end, first {left[:5]}")
        self.left = left


@dataclass
class Nodes:
    """The N nodes of all ranks, in the order rank, then position; lists by node number.

    Attributes:
        rank, position, type: of each node.
        priority: place of the node's id among its rank's ids.
        resource: number of the rank's resource, -1 for none.
        before, after: nodes that each waits for, and nodes that wait for it.
        group: a collective's ranks, () for other nodes.
        joins: the call that a collective is part of; None where order of issue decides.
        queue: what order of issue counts for: (group number, rank); None for other nodes.
        partner: for a send its receive, for a receive its send, else -1.
        latency: (node, node that waits for it) -> what has to pass in between [s], where that is something.
    """

    rank: list[int]
    position: list[int]
    type: list[int]
    priority: list[int]
    resource: list[int]
    before: list[list[int]]
    after: list[list[int]]
    group: list[tuple[int, ...]]
    joins: list[Hashable]
    queue: list[Hashable]
    partner: list[int]
    latency: dict[tuple[int, int], float] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rank)


@dataclass
class Times:
    """When each node ran: start, finish [s] by node, and what it depended on.

    Attributes:
        order: nodes of each resource in order of issue.
        call: the collective call that each node was part of; calls: its members.
    """

    start: list[float]
    finish: list[float]
    order: dict[int, list[int]]
    call: list[Hashable]
    calls: dict[Hashable, list[int]]

    @property
    def makespan(self) -> float:
        """The last finish [s]."""
        return max(self.finish, default=0.0)


def nodes_of(graph) -> Nodes:
    """Every node of every rank of a Graph, one by one."""
    nodes = Nodes([], [], [], [], [], [], [], [], [], [], [])
    first: list[int] = []
    resources = 0
    for rank in range(graph.ranks):
        program = graph.programs[int(graph.program[rank])]
        row = int(graph.row[rank])
        base = len(nodes)
        first.append(base)
        for k in range(len(program)):
            edges = slice(int(program.pred_ptr[k]), int(program.pred_ptr[k + 1]))
            here = program.pred[edges]
            for p, latency in zip(here, program.pred_latency[edges]):
                if latency > 0.0:
                    nodes.latency[base + int(p), base + k] = float(latency)
            resource, slot = int(program.resource[k]), int(program.slot[k])
            number = int(program.groups[row][slot]) if slot >= 0 else -1
            nodes.rank.append(rank)
            nodes.position.append(k)
            nodes.type.append(int(program.type[k]))
            nodes.priority.append(int(program.priority[k]))
            nodes.resource.append(resources + resource if resource >= 0 else -1)
            nodes.before.append([base + int(p) for p in here])
            nodes.after.append([])
            nodes.group.append(tuple(graph.groups[number]) if number >= 0 else ())
            nodes.joins.append(None)
            nodes.queue.append((number, rank) if number >= 0 else None)
            nodes.partner.append(-1)
        resources += len(program.resources)
    for v, before in enumerate(nodes.before):
        for u in before:
            nodes.after[u].append(v)
    _pair_messages(graph, nodes)
    _pair_collectives(graph, nodes)
    return nodes


def _pair_messages(graph, nodes: Nodes) -> None:
    """The n-th send of a (source, destination, tag) meets the n-th receive, in ascending node id."""
    sends, receives = defaultdict(list), defaultdict(list)
    for rank in range(graph.ranks):
        program = graph.programs[int(graph.program[rank])]
        labels = graph.labels[int(graph.label[rank])]
        base = int(graph.offset[rank])
        for k, peer in zip(program.p2p, program.peer[int(graph.row[rank])]):
            key, tag = (int(labels.node_id[k]), base + int(k)), int(labels.tag[k])
            if nodes.type[base + int(k)] == SEND:
                sends[rank, int(peer), tag].append(key)
            else:
                receives[int(peer), rank, tag].append(key)
    for route, sent in sends.items():
        for (_, send), (_, receive) in zip(sorted(sent), sorted(receives[route]), strict=True):
            nodes.partner[send], nodes.partner[receive] = receive, send


def _pair_collectives(graph, nodes: Nodes) -> None:
    """By name and occurrence, in groups whose members all call the same names; else left to order of issue."""
    members = defaultdict(lambda: defaultdict(list))  # group number -> rank -> (name, id, node)
    for v, queue in enumerate(nodes.queue):
        if queue is not None:
            labels = graph.labels[int(graph.label[nodes.rank[v]])]
            k = nodes.position[v]
            members[queue[0]][queue[1]].append((labels.names[k], int(labels.node_id[k]), v))
    for number, ranks in members.items():
        if len({tuple(sorted(name for name, _, _ in calls)) for calls in ranks.values()}) > 1:
            continue
        for calls in ranks.values():
            seen: dict[str, int] = defaultdict(int)
            for name, _, v in sorted(calls):
                nodes.joins[v] = (number, name, seen[name])
                seen[name] += 1


def call_cost(members: Iterable[int], cost: Sequence[float], replayed: Sequence[bool]) -> float:
    """What a collective costs [s]: the quickest member's record, or the dearest member's model."""
    members = list(members)
    if len({replayed[v] for v in members}) > 1:
        raise ValueError("some members of a collective replay a record, others do not")
    return (min if replayed[members[0]] else max)(cost[v] for v in members)


def schedule(nodes: Nodes, cost: Sequence[float], replayed: Sequence[bool]) -> Times:
    """Run all ranks from moment to moment.

    Args:
        nodes: N nodes.
        cost: N costs [s]; replayed: N, the cost is a collective's recorded duration.

    Raises:
        Deadlock: nodes wait for each other.
    """
    n = len(nodes)
    start, finish, ready = [0.0] * n, [0.0] * n, [0.0] * n
    waiting = [len(before) for before in nodes.before]
    done = [False] * n
    posted: set[int] = set()  # receives that wait for their message
    free: dict[int, float] = defaultdict(float)  # since when a resource is idle
    busy: set[int] = set()
    queues: dict[int, list[tuple[int, int]]] = defaultdict(list)  # ready, by ascending id
    order: dict[int, list[int]] = defaultdict(list)
    issued: dict[Hashable, int] = defaultdict(int)
    call: list[Hashable] = [None] * n
    calls: dict[Hashable, list[int]] = defaultdict(list)
    ends: list[
        tuple[float, int]
    ] = []  # what will end, by time; a collective stands under its last member, a latency under -1 - its number
    passing: list[int] = []  # by number of latency: who waits for it
    fresh = [v for v in range(n) if waiting[v] == 0]
    looked_at: set[int] = set()  # resources that may have something to do
    while True:
        for v in fresh:
            if nodes.resource[v] >= 0:
                heapq.heappush(queues[nodes.resource[v]], (nodes.priority[v], v))
                looked_at.add(nodes.resource[v])
                continue
            start[v] = ready[v]
            if nodes.type[v] == RECV and not done[nodes.partner[v]]:
                posted.add(v)
            else:
                arrival = finish[nodes.partner[v]] if nodes.type[v] == RECV else 0.0
                heapq.heappush(ends, (max(ready[v], arrival), v))
        idle = [r for r in looked_at if r not in busy and queues[r]]
        for _, v in sorted([heapq.heappop(queues[r]) for r in idle]):
            resource = nodes.resource[v]
            busy.add(resource)
            order[resource].append(v)
            start[v] = max(ready[v], free[resource])
            if nodes.type[v] != COLLECTIVE:
                heapq.heappush(ends, (start[v] + cost[v], v))
                continue
            queue, key = nodes.queue[v], nodes.joins[v]
            if key is None:
                key = (queue[0], issued[queue])  # type: ignore[index]
                issued[queue] += 1
            call[v] = key
            calls[key].append(v)
            if len(calls[key]) == len(nodes.group[v]):
                begin = max(start[u] for u in calls[key])
                heapq.heappush(ends, (begin + call_cost(calls[key], cost, replayed), v))
        if not ends:
            break
        fresh, looked_at = [], set()
        moment = ends[0][0] * (1.0 + SAME_MOMENT)
        while ends and ends[0][0] <= moment:
            time, last = heapq.heappop(ends)
            if last < 0:
                w = passing[-1 - last]
                ready[w] = max(ready[w], time)
                waiting[w] -= 1
                if waiting[w] == 0:
                    fresh.append(w)
                continue
            for v in calls[call[last]] if nodes.type[last] == COLLECTIVE else [last]:
                finish[v], done[v] = time, True
                resource = nodes.resource[v]
                if resource >= 0:
                    busy.discard(resource)
                    free[resource] = time
                    looked_at.add(resource)
                for w in nodes.after[v]:
                    if (v, w) in nodes.latency:
                        passing.append(w)
                        heapq.heappush(ends, (time + nodes.latency[v, w], -len(passing)))
                        continue
                    ready[w] = max(ready[w], time)
                    waiting[w] -= 1
                    if waiting[w] == 0:
                        fresh.append(w)
                if nodes.type[v] == SEND and nodes.partner[v] in posted:
                    receive = nodes.partner[v]
                    heapq.heappush(ends, (max(ready[receive], time), receive))
    left = [v for v in range(n) if not done[v]]
    if left:
        raise Deadlock(left)
    return Times(start, finish, dict(order), call, dict(calls))


def longest_path(
    nodes: Nodes,
    frozen: Times,
    cost: Sequence[float],
    replayed: Sequence[bool],
    *,
    extra: Iterable[tuple[int, int]] = (),
) -> Times:
    """Times at other costs with the order and the calls of a schedule kept.

    start = max(finish of prerequisites + latency, of the node before on the resource, default 0)
    finish = start + cost; of a collective: the last member's start + cost; of a receive: max(start, arrival)

    Args:
        nodes, cost, replayed: as for `schedule`.
        frozen: a schedule of these nodes.
        extra: further edges (node, node that waits for it).
    """
    n = len(nodes)
    before = [list(b) for b in nodes.before]
    for line in frozen.order.values():
        for u, v in pairwise(line):
            before[v].append(u)
    for u, v in extra:
        before[v].append(u)
    start, finish = [-1.0] * n, [-1.0] * n  # -1: not known yet

    def needed_for_start(v: int) -> list[int]:
        return [u for u in before[v] if finish[u] < 0.0]

    for root in range(n):
        stack = [root]
        while stack:
            v = stack[-1]
            team = frozen.calls[frozen.call[v]] if nodes.type[v] == COLLECTIVE else [v]
            missing = [u for w in team for u in needed_for_start(w)]
            arrival = 0.0
            if nodes.type[v] == RECV:
                arrival = finish[nodes.partner[v]]
                missing += [nodes.partner[v]] if arrival < 0.0 else []
            if missing and finish[v] < 0.0:
                stack.extend(missing)
                continue
            stack.pop()
            if finish[v] >= 0.0:
                continue
            for w in team:
                start[w] = max(
                    (finish[u] + nodes.latency.get((u, w), 0.0) for u in before[w]), default=0.0
                )
            end = max(start[w] for w in team)
            if nodes.type[v] == COLLECTIVE:
                end += call_cost(team, cost, replayed)
            elif nodes.type[v] == RECV:
                end = max(end, arrival)
            else:
                end += cost[v]
            for w in team:
                finish[w] = end
    return Times(start, finish, frozen.order, frozen.call, frozen.calls)


def critical_path(nodes: Nodes, times: Times) -> list[int]:
    """Nodes of one longest path, first to last: from the last finish back to what each start waited for."""
    preceding = {v: u for line in times.order.values() for u, v in pairwise(line)}
    v: int | None = max(range(len(nodes)), key=lambda k: times.finish[k], default=None)
    path = []
    while v is not None:
        if nodes.type[v] == COLLECTIVE:
            v = max(times.calls[times.call[v]], key=lambda k: times.start[k])
        path.append(v)
        causes = [(times.finish[u] + nodes.latency.get((u, v), 0.0), u) for u in nodes.before[v]]
        causes += [(times.finish[u], u) for u in (preceding.get(v),) if u is not None]
        if nodes.type[v] == RECV:
            causes.append((times.finish[nodes.partner[v]], nodes.partner[v]))
        v = max(causes, key=lambda cause: cause[0], default=(0.0, None))[1]
    return path[::-1]
