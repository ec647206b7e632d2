"""A schedule's order as edges: the frozen graph that the longest path runs over."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.frozen_graph import Events
from perfmodel.schedule.list_scheduler import RECV
from perfmodel.schedule.tasks import Tasks
from perfmodel.workload.edges import sort_few

if TYPE_CHECKING:
    from perfmodel.schedule.list_schedule import Schedule


MOST_RESOURCES = 2048
"""With more resources than this, edges between them that are implied are not looked for: the table is their square."""


def freeze(tasks: Tasks, schedule: Schedule) -> Events:
    """The schedule's order as edges: a vertex per task, and one more per receive and per completed collective.

    A task follows its prerequisites and the task before it on its resource; prerequisites on the same resource that ran
    before that one are implied, and so are those on another resource that ran no later than one that a task before it
    waited for. A collective has a vertex without cost for each member's arrival, and one for all that
    follows the arrivals and takes the cost; where its members' calls cost differently, one for each distinct cost
    behind the arrivals, so that the longest one decides on every design. A receive has a vertex for its posting, and
    one that follows the posting and the message. The end follows what nothing else follows.
    """
    n, instances = len(tasks), len(tasks.members)
    receive = tasks.type == RECV
    met, rows = _several_costs(tasks, schedule)
    several = np.bincount(met, minlength=instances)
    calls = np.flatnonzero(schedule.instance >= 0).astype(np.int32)
    calls = calls[np.argsort(schedule.instance[calls], kind="stable")]
    more = int(receive.sum())
    vertices = n + more + instances + len(rows) + int((several > 0).sum()) + 1
    first, last, cost, owner, ptr, pred = _edges(
        schedule.sequence,
        (tasks.pred_ptr, tasks.pred, tasks.resource),
        (receive, tasks.partner, tasks.cost, schedule.instance),
        (_pointers(np.bincount(schedule.instance[calls], minlength=instances)), calls),
        (schedule.instance_cost, _pointers(several), rows),
        tasks.resources,
        vertices,
        len(tasks.pred) + n + 2 * more + len(calls) + 2 * len(rows) + vertices,
    )
    return Events(cost, ptr, pred.copy(), first, last, owner)


def _pointers(count: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(count)]).astype(np.int64)


def _several_costs(tasks: Tasks, schedule: Schedule) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(instance, cost row) of collectives whose members call with different modelled costs, by instance.

    A member that replays a record overrules the models of the others: such an instance takes one row.
    """
    calls = np.flatnonzero((schedule.instance >= 0) & (tasks.cost >= 0))
    instance = schedule.instance[calls]
    replays = np.zeros(len(tasks.members), bool)
    replays[instance[tasks.recorded[calls]]] = True
    modelled = ~replays[instance]
    calls, instance = calls[modelled], instance[modelled]
    different = np.zeros(len(tasks.members), bool)
    different[instance[tasks.cost[calls] != schedule.instance_cost[instance]]] = True
    calls = calls[different[instance]]
    met = np.stack([schedule.instance[calls], tasks.cost[calls]])
    instances, rows = np.unique(met, axis=1).astype(np.int64)
    return instances, rows


@machine_code(small=lambda sequence, tasks, *more: sequence.size + tasks[1].size)
def _edges(
    sequence: NDArray[Any],
    tasks: tuple[Any, ...],
    kinds: tuple[Any, ...],
    calls: tuple[Any, ...],
    costs: tuple[Any, ...],
    resources: int,
    vertices: int,
    most_edges: int,
) -> tuple[Any, ...]:
    """The vertices in the order of the sequence, and for each of them those before it, ascending."""
    task_ptr, task_pred, resource = tasks
    receive, partner, task_cost, instance = kinds
    call_ptr, call = calls
    instance_cost, row_ptr, rows = costs
    n = receive.size
    first, last = np.empty(n, np.int32), np.empty(n, np.int32)
    cost = np.full(vertices, -1, np.int32)
    owner = np.full(vertices, -1, np.int32)
    followed = np.zeros(vertices, np.bool_)
    ptr = np.zeros(vertices + 1, np.int64)
    pred = np.empty(most_edges, np.int32)
    # the latest vertex on each other resource that something on a resource waits for
    compared = resources if resources <= MOST_RESOURCES else 0
    known = np.full((compared, compared), -1, np.int32)
    before = np.full(resources, -1, np.int32)  # the task that ran last on each resource
    v = 0
    count = 0
    for code in sequence:
        if code < n:
            first[code] = v
            owner[v] = code
            here = resource[code]
            for e in range(task_ptr[code], task_ptr[code + 1]):
                u = task_pred[e]
                there = resource[u]
                if here >= 0 and there == here:
                    continue
                if here >= 0 and there >= 0 and compared:
                    if known[here, there] >= last[u]:
                        continue
                    known[here, there] = last[u]
                pred[count] = last[u]
                count += 1
            if here >= 0:
                if before[here] >= 0:
                    pred[count] = last[before[here]]
                    count += 1
                before[here] = code
            count = _distinct(pred, ptr[v], count, followed)
            if instance[code] < 0:
                cost[v] = task_cost[code]
            v += 1
            ptr[v] = count
            if receive[code]:
                owner[v] = code
                pred[count] = v - 1
                pred[count + 1] = last[partner[code]]
                count = _distinct(pred, count, count + 2, followed)
                v += 1
                ptr[v] = count
            last[code] = v - 1  # of a collective, until all have joined
            continue
        j = code - n
        for k in range(call_ptr[j], call_ptr[j + 1]):
            pred[count] = first[call[k]]
            count += 1
        count = _distinct(pred, ptr[v], count, followed)
        if row_ptr[j] == row_ptr[j + 1]:
            cost[v] = instance_cost[j]
        gather = v
        v += 1
        ptr[v] = count
        for k in range(row_ptr[j], row_ptr[j + 1]):
            cost[v] = rows[k]
            pred[count] = gather
            count = _distinct(pred, count, count + 1, followed)
            v += 1
            ptr[v] = count
        if v > gather + 1:
            for k in range(gather + 1, v):
                pred[count] = k
                count += 1
            count = _distinct(pred, ptr[v], count, followed)
            v += 1
            ptr[v] = count
        for k in range(call_ptr[j], call_ptr[j + 1]):
            last[call[k]] = v - 1
    for u in range(v):
        if not followed[u]:
            pred[count] = u
            count += 1
    ptr[v + 1] = count
    return first, last, cost, owner, ptr, pred[:count]


@machine_code(inline="always")
def _distinct(values: NDArray[Any], begin: int, end: int, seen: NDArray[np.bool_]) -> int:
    """Sort values[begin:end], leave repeats out, and note that they have been seen; the new end."""
    if end == begin + 1:
        seen[values[begin]] = True
        return end
    sort_few(values, begin, end)
    kept = begin
    for k in range(begin, end):
        if kept == begin or values[kept - 1] != values[k]:
            values[kept] = values[k]
            seen[values[k]] = True
            kept += 1
    return kept
