"""Whether a design keeps a frozen order: a certificate of comparisons, judged beside the longest path.

A schedule decides which operation a resource takes next, and, among messages, which of several comes first somewhere.
In a frozen order some decisions could not have been others on any design, because what was taken later follows what
was taken earlier. Each of the rest is safe on the designs on which one time of the frozen graph comes before another.
A design that passes all of these comparisons has the frozen order; one that fails some may still have it.

For operations i before j on a resource, with start S, end F, R_j the last end among j's prerequisites, and i-1 the one
before i (the rules and their proof by induction over the first deviation):

* j follows F_i or S_i: safe, and with it all that come before i.
* i would lose against j (higher key): S_i < R_j; then all before i are safe, too.
* i would win: every prerequisite u of i has ended when i-1 ends, or when j becomes ready: F_u <= max(F_i-1, R_j). Safe
  where i-1 or a prerequisite of j follows u.

The comparisons with <= hold at ties where equal times are one moment and u's end is handled at the beginning of it
(`Decisions.moments`); where ties are decided by who was registered first, they have to be strict, too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.frozen_graph import Events
from perfmodel.schedule.liveness import slots_by_liveness

MOST_WORK = 6_000_000_000
"""Edges times columns of ancestor clocks up to which decisions are looked at; beyond, no design is certified."""

MOST_MEMORY = 1_000_000_000
"""Bytes that live ancestor clocks may take."""

MOST_PAIRS = 50_000_000
"""Pairs of operations on one resource that are looked at."""

MOST_OPEN = 200_000
"""Open comparisons that are kept."""

TIE = 4e-12
"""Relative distance from which on two times are two moments for a schedule that takes 1e-12 for the same one."""

START_BEFORE_READY, END_BY_READY, IN_LINE = range(3)


@dataclass(frozen=True, eq=False)
class Decisions:
    """What a schedule decided, n tasks.

    Attributes:
        order: tasks by resource in order of issue; place: [resources+1], where each resource begins in it.
        key: [n], the lower one is taken first.
        pred_ptr, pred: [n+1], [e], prerequisites of each task.
        moments: all that happens at equal times counts before something is taken (else the order of registration
            decides).
        margin: relative distance from which on times are certainly different (0 for whole numbers).
        line, vertex: [k] places that vertices reach one after the other, in the order in which they did.
        strict: [lines] whether vertices must not change places even at equal times.
        rows: [m, 2] cost rows of which the first must not be the longer one.
    """

    order: NDArray[np.int64]
    place: NDArray[np.int64]
    key: NDArray[np.int64]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    moments: bool
    margin: float
    line: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    vertex: NDArray[np.int64] = field(default_factory=lambda: np.zeros(0, np.int64))
    strict: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(0, bool))
    rows: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 2), np.int64))


@dataclass(frozen=True, eq=False)
class Checks:
    """Comparisons of the finish times F of a graph: F[a] * factor <= (or <) max(F[b], F[c]).

    Attributes:
        a, b, c: [k] vertices. factor: [k]. strict: [k] bool, whether equal times fail.
        longer: cost rows that must be longer than `least` of the makespan.
        rows: [m, 2] cost rows of which the first must not be the longer one.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    c: NDArray[np.int64]
    factor: NDArray[np.float64]
    strict: NDArray[np.bool_]
    longer: NDArray[np.int64]
    rows: NDArray[np.int64]
    least: float = TIE

    def __len__(self) -> int:
        return len(self.a)

    def lasting(
        self, costs: NDArray[np.floating], makespan: NDArray[np.floating]
    ) -> NDArray[np.bool_]:
        """[D] whether the rows of costs [S, D] are as long as they must be, beside these makespans [D]."""
        longer = costs[self.longer] > self.least * makespan
        taken, other = self.rows.T
        return np.asarray(longer.all(axis=0) & (costs[taken] <= costs[other]).all(axis=0))

    @property
    def forced(self) -> bool:
        """Nothing is open: every design has this order."""
        return not (len(self.a) or len(self.longer) or len(self.rows))


def open_decisions(events: Events, decisions: Decisions) -> NDArray[np.int64] | None:
    """The decisions that could have been others on some design.

    Returns:
        [k, 4] (what, x, y, z): `START_BEFORE_READY` of tasks x and y; `END_BY_READY` of task x, the task y before the
        one that needs it (-1 none), and z; `IN_LINE` of vertices x and y, z 1 where strict. None where there is too
        much to look at.
    """
    d = decisions
    n = len(d.key)
    unit, position = np.full(n, -1, np.int64), np.zeros(n, np.int64)
    unit[d.order] = np.repeat(np.arange(len(d.place) - 1), np.diff(d.place))
    position[d.order] = np.arange(len(d.order)) - d.place[unit[d.order]]
    free, owners = _columns_of_free_tasks(events, d, unit)
    lines = len(d.strict)
    columns = len(d.place) - 1 + free + lines
    last_use = np.arange(len(events))
    np.maximum.at(last_use, events.last[d.pred], np.repeat(events.first, np.diff(d.pred_ptr)))
    slot, slots = slots_by_liveness(events.pred_ptr, events.pred, last_use)
    if len(events.pred) * columns > MOST_WORK or 4 * slots * columns > MOST_MEMORY:
        return None
    first_task = _by_vertex(events.first, len(events))
    last_task = _by_vertex(events.last, len(events))
    in_line = _by_vertex(d.vertex, len(events))
    count, found = _judge(
        events.pred_ptr,
        events.pred,
        events.cost,
        events.first,
        events.last,
        first_task,
        last_task,
        (d.order, d.place, d.key, d.pred_ptr, d.pred, unit, position),
        (in_line, d.line, d.vertex, d.strict, _previous(d.line)),
        (owners, len(d.place) - 1, free),
        slot,
        np.full((slots, columns), -1, np.int32),
        np.empty((MOST_OPEN, 4), np.int64),
        MOST_PAIRS,
    )
    return None if count < 0 else found[:count].copy()


def _previous(line: NDArray[np.int64]) -> NDArray[np.int64]:
    """[k] the entry before on the same line, -1 for none."""
    order = np.argsort(line, kind="stable")
    before = np.full(len(line), -1, np.int64)
    same = line[order[1:]] == line[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def _by_vertex(
    vertex: NDArray[np.integer], vertices: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(pointers [V+1], entries) of the entries at each vertex, in their order."""
    known = np.flatnonzero(vertex >= 0)
    order = known[np.argsort(vertex[known], kind="stable")]
    count = np.bincount(vertex[known], minlength=vertices)
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64), order


def _columns_of_free_tasks(
    events: Events, d: Decisions, unit: NDArray[np.int64]
) -> tuple[int, NDArray[np.int64]]:
    """How many columns tasks without a resource may take, and the range that each one may choose from.

    Receives of a rank mostly follow each other, if not one by one; tasks without a resource that nobody's decision
    asks for need none.
    """
    n = len(unit)
    wanted = np.zeros(n, bool)
    limited = np.zeros(n, bool)
    limited[d.order] = True
    target = np.repeat(np.arange(n), np.diff(d.pred_ptr))
    wanted[d.pred[limited[target]]] = True
    wanted &= unit < 0
    return int(min(wanted.sum(), 64)), np.where(wanted, 0, -1)


@machine_code
def _join(own: NDArray[Any], other: NDArray[Any]) -> None:
    for c in range(own.size):
        own[c] = max(own[c], other[c])


@machine_code
def _registered_together(
    ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any], first: int, second: int
) -> bool:
    """Whether two vertices have the same cause and cost: two timers that run in the order in which they were set."""
    return (
        first < second
        and cost[first] == cost[second]
        and ptr[first + 1] - ptr[first] == 1
        and ptr[second + 1] - ptr[second] == 1
        and pred[ptr[first]] == pred[ptr[second]]
    )


@machine_code(small=lambda ptr, pred, *more: 2 * pred.size * more[-3].shape[1])
def _judge(
    ptr: NDArray[Any],
    pred: NDArray[Any],
    cost: NDArray[Any],
    first: NDArray[Any],
    last: NDArray[Any],
    first_task: tuple[NDArray[Any], ...],
    last_task: tuple[NDArray[Any], ...],
    tasks: tuple[Any, ...],
    lines: tuple[Any, ...],
    free: tuple[Any, ...],
    slot: NDArray[Any],
    clock: NDArray[Any],
    found: NDArray[Any],
    most_pairs: int,
) -> tuple[int, NDArray[Any]]:
    """Visit the vertices in topological order with a clock each: how far along every column it follows.

    A resource's column counts 2 k at the start and 2 k + 1 at the end of its k-th task; a task without a resource
    goes on a column whose last entry it follows, or on one that is still empty.
    """
    order, place, key, task_ptr, task_pred, unit, position = tasks
    in_line, line, vertex, strict, previous = lines
    wanted, resources, free_columns = free
    n = key.size
    column = np.full(n, -1, np.int64)
    reached = np.zeros(n, np.int64)  # place of a task's end on its column
    for t in range(n):
        if unit[t] >= 0:
            column[t], reached[t] = unit[t], 2 * position[t] + 1
    tail = np.full(free_columns, -1, np.int64)  # the last entry of each column of free tasks
    bound = np.zeros(n, np.bool_)  # all prerequisites end when the task before ends, or earlier
    width = clock.shape[1]
    ready = np.empty(width, np.int32)
    count = 0
    pairs = 0
    for v in range(ptr.size - 1):
        own = clock[slot[v]]
        own[:] = -1
        for e in range(ptr[v], ptr[v + 1]):
            _join(own, clock[slot[pred[e]]])
        for k in range(first_task[0][v], first_task[0][v + 1]):
            j = first_task[1][k]
            r = unit[j]
            if r < 0:
                continue
            own[r] = max(own[r], 2 * position[j])
            before = position[j] - 1
            if before < 0:
                continue
            ready[:] = -1
            for e in range(task_ptr[j], task_ptr[j + 1]):
                _join(ready, clock[slot[last[task_pred[e]]]])
            end_before = clock[slot[last[order[place[r] + before]]]]
            bound[j] = True
            for e in range(task_ptr[j], task_ptr[j + 1]):
                u = task_pred[e]
                if column[u] < 0 or end_before[column[u]] < reached[u]:
                    bound[j] = False
            while before >= 0:
                i = order[place[r] + before]
                if ready[r] >= 2 * before:
                    break  # j follows i's start
                pairs += 1
                if pairs > most_pairs or count >= found.shape[0]:
                    return -1, found
                if key[i] > key[j]:
                    found[count, 0], found[count, 1] = START_BEFORE_READY, i
                    found[count, 2], found[count, 3] = j, 0
                    count += 1
                    break
                if not bound[i]:
                    earlier = order[place[r] + before - 1] if before > 0 else -1
                    for e in range(task_ptr[i], task_ptr[i + 1]):
                        u = task_pred[e]
                        if column[u] >= 0 and ready[column[u]] >= reached[u]:
                            continue
                        if count >= found.shape[0]:
                            return -1, found
                        found[count, 0], found[count, 1] = END_BY_READY, u
                        found[count, 2], found[count, 3] = earlier, j
                        count += 1
                before -= 1
        for k in range(last_task[0][v], last_task[0][v + 1]):
            t = last_task[1][k]
            if unit[t] < 0 and wanted[t] >= 0:
                for q in range(free_columns):
                    if tail[q] < 0 or own[resources + q] >= tail[q]:
                        tail[q] += 1
                        column[t], reached[t] = resources + q, tail[q]
                        break
            if column[t] >= 0:
                own[column[t]] = max(own[column[t]], reached[t])
        for k in range(in_line[0][v], in_line[0][v + 1]):
            m = in_line[1][k]
            c = resources + free_columns + line[m]
            p = previous[m]
            if p >= 0 and vertex[p] != v and own[c] < p:
                if _registered_together(ptr, pred, cost, vertex[p], v):
                    own[c] = max(own[c], m)
                    continue
                if count >= found.shape[0]:
                    return -1, found
                found[count, 0], found[count, 1], found[count, 2] = IN_LINE, vertex[p], v
                found[count, 3] = strict[line[m]]
                count += 1
            own[c] = max(own[c], m)
    return count, found
