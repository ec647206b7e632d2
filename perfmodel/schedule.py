"""Event-driven list schedule: which operation each resource runs next, decided by time.

Each resource (a rank's compute unit, communication unit, host; or a recorded stream or thread) runs one operation
at a time. Whenever operations finish, every idle resource takes the ready operation with the lowest node id.
Receives need no resource: they finish when posted and their message has arrived. A collective occupies its
resource on every member from its own issue on, and finishes on all members one cost after the last has joined.

Times closer than one part in 10^12 count as one moment, so that rounding never decides. The same kernel gives a
design its own schedule (`makespans`) and, recording, the order that `freeze` turns into edges: the longest path
over those edges equals the schedule's times at that design.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numba
import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import DeadlockError
from perfmodel.events import Events
from perfmodel.graph import Graph
from perfmodel.kinds import NodeType, describe
from perfmodel.reduce import not_implied
from perfmodel.tasks import Tasks

SAME_MOMENT = 1e-12
"""Relative distance below which two times are one moment."""

RECV = int(NodeType.COMM_RECV)
SEND = int(NodeType.COMM_SEND)


@numba.njit(cache=True, nogil=True, inline="always")
def _push(heap_time, heap_code, size, time, code):
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if heap_time[parent] <= time:
            break
        heap_time[i], heap_code[i] = heap_time[parent], heap_code[parent]
        i = parent
    heap_time[i], heap_code[i] = time, code


@numba.njit(cache=True, nogil=True, inline="always")
def _pop(heap_time, heap_code, size):
    """Remove the smallest; `size` is the size before."""
    last = size - 1
    time, code = heap_time[last], heap_code[last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last and heap_time[child + 1] < heap_time[child]:
            child += 1
        if heap_time[child] >= time:
            break
        heap_time[i], heap_code[i] = heap_time[child], heap_code[child]
        i = child
    heap_time[i], heap_code[i] = time, code


@numba.njit(cache=True, nogil=True)
def _simulate(cost, program, state, expected, sequence):
    """One schedule; `state` is written, see `_state`.

    Returns (makespan, last node, differs from `expected`, length of the sequence, nodes finished); fewer finished
    nodes than there are mean deadlock.
    """
    (
        start,
        finish,
        ready,
        ready_from,
        came_from,
        waiting,
        order,
        instance,
        join_last,
        join_row,
    ) = state
    (
        kind,
        priority,
        row,
        resource,
        place,
        succ_ptr,
        succ,
        indegree,
        join,
        match,
        caller,
        members,
        recorded,
        partner,
        callers,
    ) = program
    n = kind.size
    instances = members.size
    resources = place.size - 1
    recording = sequence.size > 0
    checking = expected.size > 0
    differs = False
    steps = 0
    heap_time = np.empty(n + instances + 1)
    heap_code = np.empty(n + instances + 1, np.int64)
    events = 0
    queue_key = np.empty(n, np.int64)  # one binary heap per resource, at its place
    queue_size = np.zeros(resources, np.int64)
    running = np.zeros(resources, np.bool_)
    free = np.zeros(resources)
    free_from = np.full(resources, -1, np.int64)
    issued = np.zeros(resources, np.int64)
    touched = np.empty(resources + 1, np.int64)
    is_touched = np.zeros(resources, np.bool_)
    touches = 0
    joined = np.zeros(instances, np.int64)
    join_time = np.zeros(instances)
    join_last[:] = -1
    join_row[:] = -1
    join_first = np.full(instances, -1, np.int64)
    next_member = np.full(n if instances else 0, -1, np.int64)
    calls = np.zeros(callers, np.int64)
    arrived = np.zeros(n, np.bool_)
    finished = 0
    makespan = 0.0
    last = -1
    fresh = np.empty(n + 1, np.int64)  # nodes whose prerequisites are done
    fresh_count = 0
    for v in range(n):
        waiting[v] = indegree[v]
        ready[v] = 0.0
        ready_from[v] = -1
        if waiting[v] == 0:
            fresh[fresh_count] = v
            fresh_count += 1
    now = 0.0
    while True:
        # every node of this moment is done: queue what became ready
        for k in range(fresh_count):
            v = fresh[k]
            r = resource[v]
            if r >= 0:
                base = place[r]
                i = queue_size[r]
                key = (np.int64(priority[v]) << 32) | v
                while i > 0:
                    parent = (i - 1) >> 1
                    if queue_key[base + parent] <= key:
                        break
                    queue_key[base + i] = queue_key[base + parent]
                    i = parent
                queue_key[base + i] = key
                queue_size[r] += 1
                if not is_touched[r]:
                    is_touched[r] = True
                    touched[touches] = r
                    touches += 1
            else:
                start[v] = ready[v]
                came_from[v] = ready_from[v]
                if kind[v] == RECV:
                    s = partner[v]
                    if arrived[s]:
                        if finish[s] > ready[v]:
                            came_from[v] = s
                        _push(heap_time, heap_code, events, max(ready[v], finish[s]), v)
                        events += 1
                        if recording:
                            sequence[steps] = v
                            steps += 1
                    else:
                        arrived[v] = True  # posted
                else:
                    if recording:
                        sequence[steps] = v
                        steps += 1
                    _push(heap_time, heap_code, events, ready[v], v)
                    events += 1
        fresh_count = 0
        # idle resources take the lowest id
        for k in range(touches):
            r = touched[k]
            is_touched[r] = False
            if running[r] or queue_size[r] == 0:
                continue
            base = place[r]
            v = queue_key[base] & 0xFFFFFFFF
            queue_size[r] -= 1
            size = queue_size[r]
            key = queue_key[base + size]
            i = 0
            while True:
                child = 2 * i + 1
                if child >= size:
                    break
                if child + 1 < size and queue_key[base + child + 1] < queue_key[base + child]:
                    child += 1
                if queue_key[base + child] >= key:
                    break
                queue_key[base + i] = queue_key[base + child]
                i = child
            queue_key[base + i] = key
            running[r] = True
            if free_from[r] >= 0 and free[r] >= ready[v]:
                start[v] = free[r]
                came_from[v] = free_from[r]
            else:
                start[v] = ready[v]
                came_from[v] = ready_from[v]
            at = base + issued[r]
            issued[r] += 1
            if checking and expected[at] != v:
                differs = True
            order[at] = v
            if recording:
                sequence[steps] = v
                steps += 1
            if join[v] < 0:
                c = row[v]
                _push(heap_time, heap_code, events, start[v] + (cost[c] if c >= 0 else 0.0), v)
                events += 1
            else:
                j = match[v]
                if j < 0:
                    j = calls[caller[v]]
                    calls[caller[v]] += 1
                j += join[v]
                instance[v] = j
                joined[j] += 1
                next_member[v] = join_first[j]
                join_first[j] = v
                if join_last[j] < 0 or start[v] > join_time[j]:
                    join_time[j] = start[v]
                    join_last[j] = v
                c = row[v]
                if c >= 0:
                    o = join_row[j]
                    # a replayed collective lasts what its quickest member recorded
                    if o < 0 or ((cost[c] < cost[o]) == recorded[v] and cost[c] != cost[o]):
                        join_row[j] = c
                if joined[j] == members[j]:
                    c = join_row[j]
                    end = join_time[j] + (cost[c] if c >= 0 else 0.0)
                    _push(heap_time, heap_code, events, end, n + j)
                    events += 1
                    if recording:
                        sequence[steps] = n + j
                        steps += 1
        touches = 0
        if events == 0:
            break
        now = heap_time[0]
        limit = now + SAME_MOMENT * now
        while events > 0 and heap_time[0] <= limit:
            time, code = heap_time[0], heap_code[0]
            _pop(heap_time, heap_code, events)
            events -= 1
            v = code if code < n else join_first[code - n]
            while v >= 0:
                finish[v] = time
                finished += 1
                if time > makespan or last < 0:
                    makespan = time
                    last = v
                r = resource[v]
                if r >= 0:
                    running[r] = False
                    free[r] = time
                    free_from[r] = v
                    if not is_touched[r]:
                        is_touched[r] = True
                        touched[touches] = r
                        touches += 1
                for e in range(succ_ptr[v], succ_ptr[v + 1]):
                    w = succ[e]
                    if time > ready[w] or ready_from[w] < 0:
                        ready[w] = time
                        ready_from[w] = v
                    waiting[w] -= 1
                    if waiting[w] == 0:
                        fresh[fresh_count] = w
                        fresh_count += 1
                if kind[v] == SEND:
                    arrived[v] = True
                    w = partner[v]
                    if arrived[w]:  # posted before
                        if time > ready[w]:
                            came_from[w] = v
                        _push(heap_time, heap_code, events, max(ready[w], time), w)
                        events += 1
                        if recording:
                            sequence[steps] = w
                            steps += 1
                v = next_member[v] if code >= n else -1
    return makespan, last, differs, steps, finished


@numba.njit(cache=True, nogil=True)
def _state(n, instances):
    """Arrays that one schedule writes: times [n], prerequisites that bound [n], order [n], joins [instances]."""
    return (
        np.zeros(n),  # start
        np.zeros(n),  # finish
        np.zeros(n),  # ready: the last prerequisite finished
        np.full(n, -1, np.int64),  # ready_from: that prerequisite
        np.full(n, -1, np.int64),  # came_from: what the start (a receive: the finish) waited for
        np.zeros(n, np.int64),  # waiting: prerequisites left
        np.zeros(
            n, np.int64
        ),  # order: each resource's nodes in order of issue, at the resource's place
        np.full(n, -1, np.int64),  # instance that a collective joined
        np.full(instances, -1, np.int64),  # join_last: the member that joined last
        np.full(instances, -1, np.int64),  # join_row: the cost that the instance takes
    )


@numba.njit(cache=True, nogil=True)
def _simulate_many(costs, program, expected, makespan, differs, counts):
    """Own schedules of the columns of `costs` [S, D]; path counts [S, D] where `counts` has rows."""
    n = program[0].size
    row, join, members = program[2], program[8], program[11]
    state = _state(n, members.size)
    came_from, instance, join_last, join_row = state[4], state[7], state[8], state[9]
    nothing = np.zeros(0, np.int64)
    for d in range(costs.shape[1]):
        makespan[d], v, differs[d], _, finished = _simulate(
            costs[:, d].copy(), program, state, expected, nothing
        )
        if finished < n:
            makespan[d] = np.nan
            continue
        while counts.shape[0] and v >= 0:
            c = row[v]
            if join[v] >= 0:
                c = join_row[instance[v]]
                v = join_last[instance[v]]
            if c >= 0:
                counts[c, d] += 1
            v = came_from[v]


@dataclass(frozen=True, eq=False)
class Schedule:
    """What the list schedule did at one design, for the n tasks of the representative ranks.

    Attributes:
        start, finish: [n] f64 [s]; order: [n] i64, tasks by resource in order of issue.
        sequence: [V] i64, tasks and (from n on) instances of collectives, in the order in which their times
            became known.
        before: [n] i64, the task that ran before on the same resource, -1 for none.
        instance: [n] i64, the instance that each collective joined, -1 for others; instance_cost: cost rows.
        makespan: [s].
    """

    start: NDArray[np.float64]
    finish: NDArray[np.float64]
    order: NDArray[np.int64]
    sequence: NDArray[np.int64]
    before: NDArray[np.int64]
    instance: NDArray[np.int64]
    instance_cost: NDArray[np.int64]
    makespan: float


def program_of(tasks: Tasks) -> tuple:
    """The arrays that the kernel reads, in its order."""
    n = len(tasks)
    target = np.repeat(np.arange(n), np.diff(tasks.pred_ptr))
    by_source = np.argsort(tasks.pred, kind="stable")
    succ_ptr = np.concatenate([[0], np.cumsum(np.bincount(tasks.pred, minlength=n))])
    count = np.bincount(tasks.resource[tasks.resource >= 0], minlength=tasks.resources)
    return (
        tasks.type.astype(np.int64),
        tasks.priority,
        tasks.cost,
        tasks.resource,
        np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        succ_ptr.astype(np.int64),
        target[by_source].astype(np.int32),
        np.diff(tasks.pred_ptr),
        tasks.join,
        tasks.match,
        tasks.caller,
        tasks.members,
        tasks.recorded,
        tasks.partner,
        int(tasks.caller.max(initial=-1)) + 1,
    )


def list_schedule(graph: Graph, tasks: Tasks, cost: NDArray[np.float64]) -> Schedule:
    """Schedule the tasks at one design.

    Args:
        graph: for messages.
        tasks: n tasks.
        cost: [S] f64, duration of each distinct cost [s].

    Raises:
        DeadlockError: ranks wait for each other; names them and their nodes.
    """
    n = len(tasks)
    program = program_of(tasks)
    state = _state(n, len(tasks.members))
    sequence = np.zeros(n + len(tasks.members), np.int64)
    nothing = np.zeros(0, np.int64)
    makespan, _, _, steps, finished = _simulate(cost, program, state, nothing, sequence)
    if finished < n:
        raise DeadlockError(_diagnose(graph, tasks, sequence[:steps]))
    start, finish, order, instance, join_row = (state[k] for k in (0, 1, 6, 7, 9))
    place = program[4]
    before = np.full(n, -1, np.int64)
    for r in range(tasks.resources):
        mine = order[place[r] : place[r + 1]]
        before[mine[1:]] = mine[:-1]
    return Schedule(start, finish, order, sequence, before, instance, join_row, makespan)


def _diagnose(graph: Graph, tasks: Tasks, sequence: np.ndarray) -> str:
    """Who waits for whom when nothing moves any more."""
    n = len(tasks)
    known = set(sequence.tolist())
    lines = []
    for c, rank in enumerate(tasks.representative):
        stuck = []
        for v in range(int(tasks.offset[c]), int(tasks.offset[c + 1])):
            position = v - int(tasks.offset[c])
            p = graph.programs[graph.program[rank]]
            if tasks.join[v] >= 0 and v in known:
                group = graph.groups[p.groups[graph.row[rank], p.slot[position]]]
                instances = [k for k in known if k >= n]
                if not _completed(tasks, v, instances, n):
                    what = describe(p.type[position], p.comm_type[position])
                    stuck.append(
                        f"{graph.name(rank, position)} has started {what} on ranks "
                        f"{list(group)[:8]} and waits for members that have not"
                    )
            elif tasks.type[v] == RECV and v not in known:
                peer, back = tasks.place(int(tasks.partner[v]))
                other = int(tasks.representative[peer])
                stuck.append(
                    f"{graph.name(rank, position)} waits for the message of {graph.name(other, back)}"
                )
        lines += stuck[:2]
    shown = "\n  ".join(lines[:12])
    return (
        f"{graph.source}: deadlock, these operations wait for each other:\n  {shown}\n"
        "Ranks issue their collectives in different orders, or a message is sent only after one that waits for "
        "it. Add the missing dependency, or order the nodes the same way on all ranks"
    )


def _completed(tasks: Tasks, v: int, instances: list[int], n: int) -> bool:
    """Whether the instance that a started collective belongs to is known to have completed."""
    if tasks.match[v] < 0:
        return False
    return n + int(tasks.join[v]) + int(tasks.match[v]) in instances


def freeze(tasks: Tasks, schedule: Schedule) -> Events:
    """The schedule's order as edges: a vertex per task, and one more per receive and per completed collective.

    A task follows its prerequisites and the task before it on its resource. A collective has a vertex without cost
    for each member's arrival, and one for all that follows the arrivals and takes the cost. A receive has a vertex
    for its posting, and one that follows the posting and the message.
    """
    cost, out, into, first, last, _ = _edges(tasks, schedule)
    return Events.of_edges(cost, out, into, first=first, last=last)


def order_is_forced(tasks: Tasks, schedule: Schedule, events: Events) -> bool:
    """Whether dependencies alone put every resource's operations in the schedule's order.

    Then the order holds on every design. True when each edge from an operation to the next one on its resource is
    a dependency or implied by the other edges: going along the topological order, every such edge can then be
    replaced by dependencies.
    """
    _, out, into, _, _, added = _edges(tasks, schedule)
    n = max(len(events), 1)
    by_order = np.unique((into * n + out)[added])
    by_dependency = np.unique((into * n + out)[~added])
    open_edges = np.setdiff1d(by_order, by_dependency, assume_unique=True)
    if not len(open_edges):
        return True
    target = np.repeat(np.arange(len(events)), np.diff(events.pred_ptr))
    keep = not_implied(events.pred_ptr, events.pred)
    needed = (target.astype(np.int64) * n + events.pred)[keep]
    return not np.isin(open_edges, needed).any()


def _edges(tasks: Tasks, schedule: Schedule):
    """Costs, edges (source, target), first and last vertex of each task, and which edges the order added."""
    n, instances = len(tasks), len(tasks.members)
    receive = tasks.type == RECV
    posting = np.append(receive, np.zeros(instances, bool))[schedule.sequence]
    number = np.arange(len(posting)) + np.cumsum(posting)  # a posting's vertex is the one before
    vertex = np.full(n + instances, -1, np.int64)
    vertex[schedule.sequence] = number
    collective = schedule.instance >= 0
    first, last = vertex[:n] - receive, vertex[:n].copy()
    last[collective] = vertex[n + schedule.instance[collective]]
    target = np.repeat(np.arange(n), np.diff(tasks.pred_ptr))
    followed = schedule.before >= 0
    into = [first[target], first[followed], last[receive], last[receive], last[collective]]
    out = [
        last[tasks.pred],
        last[schedule.before[followed]],
        last[tasks.partner[receive]],
        first[receive],
        first[collective],
    ]
    cost = np.full(len(posting) + int(posting.sum()), -1, np.int32)
    cost[first] = np.where(collective, -1, tasks.cost)
    cost[vertex[n:]] = schedule.instance_cost
    added = np.zeros(sum(map(len, into)), bool)
    added[len(target) : len(target) + int(followed.sum())] = True
    return cost, np.concatenate(out), np.concatenate(into), first, last, added


def makespans(
    tasks: Tasks,
    costs: NDArray[np.float64],
    *,
    expected: NDArray[np.int64],
    paths: bool = False,
    threads: int = 2,
) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
    """Every design's own schedule.

    Args:
        tasks: n tasks.
        costs: [S, D] f64, duration of each distinct cost on each design [s].
        expected: [n] i64, `Schedule.order` to compare with.
        paths: also count how often each cost stands on the critical path.
        threads: designs are split over this many threads.

    Returns:
        [D] makespan [s] (nan: deadlock), [D] whether the order differs from the expected one, [S, D] path counts
        (empty unless asked for).
    """
    designs = costs.shape[1]
    program = program_of(tasks)
    makespan, differs = np.zeros(designs), np.zeros(designs, bool)
    counts = np.zeros((costs.shape[0] if paths else 0, designs), np.int32)

    def work(part: slice) -> None:
        _simulate_many(
            costs[:, part], program, expected, makespan[part], differs[part], counts[:, part]
        )

    edges = np.linspace(0, designs, threads + 1).astype(int)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(work, [slice(a, b) for a, b in zip(edges, edges[1:])]))
    return makespan, differs, counts
