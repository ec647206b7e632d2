"""What of a list schedule is left to decide: few runs of tasks in the place of all tasks.

Most tasks decide nothing. One that follows or precedes all others of its resource by dependencies never waits for the
resource and never keeps it from anybody: for the schedule it needs none. Where such a task, or a latency, is the only
one that follows another, and follows no other, the two are a run: nobody learns when the first of them ended.
Prerequisites that others imply are left out.

Times are the same to the bit, since the durations of a run are added one after the other; of tied critical paths
another one may be taken. What happens at one moment is handled in passes, an end without duration in a later one than
its cause. So a run ends with a task that takes time, on every design for which it stands (`Contraction.stands`); then
its end is there when its moment begins, as without runs.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.ancestry import ancestry
from perfmodel.schedule.certificate import TIE
from perfmodel.schedule.tasks import Tasks
from perfmodel.vocabulary import NodeType
from perfmodel.workload.cycles import depths
from perfmodel.workload.edges import predecessors

MOST_TASKS = 1_000_000
"""Larger graphs stay as they are: their schedules are made once, not on thousands of designs."""

MOST_PAIRS = 20_000_000
"""Pairs of tasks on one resource that are looked at."""


@dataclass(frozen=True, eq=False)
class Contraction:
    """Runs of the tasks of a graph.

    Attributes:
        tasks: m runs as tasks; what begins a run says how it is taken, its last task says what follows.
        more_ptr, more: [m+1], cost rows of every run after the first one.
        run: [n] i32, the run of each of the n tasks.
        last: cost rows of what runs of several tasks end with.
    """

    tasks: Tasks
    more_ptr: NDArray[np.int64]
    more: NDArray[np.int32]
    run: NDArray[np.int32]
    last: NDArray[np.int32]

    def stands(
        self, costs: NDArray[np.float64], makespan: NDArray[np.float64]
    ) -> NDArray[np.bool_]:
        """[D] whether the runs have the schedule of the tasks, on designs with costs [S, D] and these makespans [D]."""
        return np.asarray((costs[self.last] > TIE * makespan).all(axis=0))

    def order(self, order: NDArray[np.int32]) -> NDArray[np.int32]:
        """An order of issue of the tasks, by resource, as one of the runs that need a resource."""
        runs = self.run[order]
        return np.ascontiguousarray(runs[self.tasks.resource[runs] >= 0])

    def instance(self, instance: NDArray[np.int32]) -> NDArray[np.int32]:
        """[m] the instance that every run joins, -1 for none, from that of every task [n]."""
        found = np.full(len(self.tasks), -1, np.int32)
        joined = np.flatnonzero(instance >= 0)
        found[self.run[joined]] = instance[joined]
        return found


def contraction(tasks: Tasks) -> Contraction:
    """The runs of the n tasks of a graph that some design does not leave in deadlock."""
    n = len(tasks)
    if n > MOST_TASKS:
        return one_by_one(tasks)
    fed = np.flatnonzero((tasks.type == NodeType.COMM_RECV) & (tasks.partner >= 0))
    before = np.concatenate([tasks.pred, tasks.partner[fed]])
    after = np.concatenate([np.repeat(np.arange(n), np.diff(tasks.pred_ptr)), fed])
    order = np.argsort(depths(n, before.astype(np.int64), after), kind="stable")
    number = np.empty(n, np.int64)
    number[order] = np.arange(n)
    ptr, pred = predecessors(number[before], number[after], n)
    found = ancestry(ptr, pred)
    if found.clock is None:
        return one_by_one(tasks)
    alone = _alone(
        tasks.resource[order], tasks.resources, found.chain, found.place, found.clock, MOST_PAIRS
    )
    joins = (tasks.type == NodeType.COMM_COLL) & (tasks.join >= 0)
    free = np.zeros(n, bool)
    free[order] = alone
    free &= ~joins & (tasks.type != NodeType.COMM_RECV)

    # edges that nothing else implies, in the numbers of the tasks; a message is no prerequisite
    source, target = order[pred], np.repeat(order, np.diff(ptr))
    least = found.keep
    message = (tasks.type[target] == NodeType.COMM_RECV) & (tasks.partner[target] == source)
    message &= ~_wait_for_their_sends(tasks)[target]
    follows = np.full(n, -1, np.int64)
    only = (np.bincount(source[least], minlength=n) == 1)[source] & least
    only &= (np.bincount(target[least], minlength=n) == 1)[target]
    only &= free[source] & free[target] & (tasks.type[source] != NodeType.COMM_SEND)
    follows[target[only]] = source[only]
    follows = _ending_with_a_cost(follows, tasks.cost, order)
    return _joined(tasks, free, follows, order, source[least & ~message], target[least & ~message])


def _wait_for_their_sends(tasks: Tasks) -> NDArray[np.bool_]:
    """[n] receives that have the send of their message among their prerequisites, as where equal ranks are one.

    They are posted when it ends, a pass after those that wait for nothing, though at the same moment.
    """
    found = np.zeros(len(tasks), bool)
    target = np.repeat(np.arange(len(tasks)), np.diff(tasks.pred_ptr))
    receives = tasks.type[target] == NodeType.COMM_RECV
    found[target[receives & (tasks.partner[target] == tasks.pred)]] = True
    return found


def one_by_one(tasks: Tasks) -> Contraction:
    """Every task a run of its own."""
    n, none = len(tasks), np.zeros(0, np.int32)
    return Contraction(tasks, np.zeros(n + 1, np.int64), none, np.arange(n, dtype=np.int32), none)


def _joined(
    tasks: Tasks,
    free: NDArray[np.bool_],
    follows: NDArray[np.int64],
    order: NDArray[np.int64],
    source: NDArray[np.int64],
    target: NDArray[np.int64],
) -> Contraction:
    """Every task one with the task that it `follows` [n] (-1 none), which is before it in a topological order."""
    n = len(tasks)
    first = _first_of_run(follows, order)
    heads = np.flatnonzero(first == np.arange(n))
    run = np.searchsorted(heads, first).astype(np.int32)
    last = heads.copy()
    last[run[order]] = order  # the latest of each run
    between = run[source] != run[target]
    pred_ptr, pred = predecessors(run[source[between]], run[target[between]], len(heads))

    later = order[(follows[order] >= 0) & (tasks.cost[order] >= 0)]
    later = later[np.argsort(run[later], kind="stable")]
    partner = tasks.partner[last]
    return Contraction(
        replace(
            tasks,
            type=tasks.type[last],
            priority=tasks.priority[heads],
            cost=tasks.cost[heads],
            resource=np.where(free[heads], np.int32(-1), tasks.resource[heads]),
            pred_ptr=pred_ptr,
            pred=pred,
            join=tasks.join[heads],
            match=tasks.match[heads],
            caller=tasks.caller[heads],
            recorded=tasks.recorded[heads],
            partner=np.where(partner >= 0, run[partner], np.int32(-1)),
        ),
        np.concatenate([[0], np.cumsum(np.bincount(run[later], minlength=len(heads)))]),
        tasks.cost[later],
        run,
        np.unique(tasks.cost[last[last != heads]]),
    )


@machine_code(small=True)
def _ending_with_a_cost(
    follows: NDArray[Any], cost: NDArray[Any], order: NDArray[Any]
) -> NDArray[Any]:
    """`follows` [n] without what stands at the end of a run and has no cost row."""
    ends = np.ones(order.size, np.bool_)
    for k in range(order.size - 1, -1, -1):
        v = order[k]
        u = follows[v]
        if u >= 0:
            if ends[v] and cost[v] < 0:
                follows[v] = -1
            else:
                ends[u] = False
    return follows


@machine_code(small=True)
def _first_of_run(follows: NDArray[Any], order: NDArray[Any]) -> NDArray[Any]:
    """[n] the first task of each task's run."""
    first = np.arange(order.size)
    for k in range(order.size):
        v = order[k]
        if follows[v] >= 0:
            first[v] = first[follows[v]]
    return first


@machine_code(small=True)
def _alone(
    resource: NDArray[Any],
    resources: int,
    chain: NDArray[Any],
    place: NDArray[Any],
    clock: NDArray[Any],
    most: int,
) -> NDArray[Any]:
    """[n] whether a task follows or precedes all others of its resource (or has none), in topological order."""
    n = resource.size
    before = np.full(n, -1, np.int64)  # the task before on the same resource
    last = np.full(resources, -1, np.int64)
    behind_all = np.zeros(n, np.bool_)  # follows all earlier tasks of its resource
    alone = np.ones(n, np.bool_)
    pairs = 0
    for v in range(n):
        r = resource[v]
        if r < 0:
            continue
        before[v] = last[r]
        last[r] = v
        behind_all[v] = True
        u = before[v]
        while u >= 0:
            pairs += 1
            if pairs > most:
                return resource < 0
            if clock[v, chain[u]] >= place[u]:
                if behind_all[u]:
                    break
            else:
                behind_all[v] = False
                alone[v] = False
                alone[u] = False
            u = before[u]
    return alone
