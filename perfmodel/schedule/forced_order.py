"""Whether a schedule's order of issue holds on every design.

On a resource, operation a always comes before the next one, b, when

* b follows a anyway: a dependency, or a chain of them; or
* a is ready no later than b on any design (each prerequisite of a is, or comes before, a prerequisite of b) and has
  the lower node id, so that a is taken first even where both become ready together.

If one of the two holds for every pair of neighbours, no design can issue in another order: at the first deviation
some operation would be taken while one that precedes it is ready and has a lower id, or has not finished.

Collectives that pair up by order of issue need more: one resource for all of a rank's calls to the group (the order
among several is open), and one cost (whose cost counts would be open).
"""

from __future__ import annotations

import numpy as np

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.ancestry import ancestry
from perfmodel.schedule.frozen_graph import Events
from perfmodel.schedule.list_schedule import Schedule
from perfmodel.schedule.tasks import Tasks


def order_is_forced(tasks: Tasks, schedule: Schedule, events: Events) -> bool:
    """True where the frozen order is every design's own; False where it may not be."""
    if _calls_are_open(tasks, schedule):
        return False
    later = np.flatnonzero(schedule.before >= 0)
    earlier = schedule.before[later]
    found = ancestry(events.pred_ptr, events.pred)
    if found.clock is None:
        return False
    return bool(
        _all_forced(
            earlier,
            later,
            tasks.pred_ptr,
            tasks.pred,
            tasks.priority,
            events.last,
            found.chain,
            found.place,
            found.clock,
        )
    )


def _calls_are_open(tasks: Tasks, schedule: Schedule) -> bool:
    """Whether calls of one group come from several resources of a rank, or differ in cost."""
    calls = (tasks.join >= 0) & (tasks.match < 0)
    caller = tasks.caller[calls]
    units = np.unique(np.stack([caller, tasks.resource[calls]]), axis=1).shape[1]
    modelled = calls & ~tasks.recorded
    instance = schedule.instance[modelled]
    costs = np.unique(np.stack([instance, tasks.cost[modelled]]), axis=1).shape[1]
    return units > len(np.unique(caller)) or costs > len(np.unique(instance))


@machine_code
def _all_forced(earlier, later, pred_ptr, pred, priority, last, chain, place, clock):
    for k in range(earlier.size):
        a, b = earlier[k], later[k]
        if not _behind(last[a], b, pred_ptr, pred, last, chain, place, clock):
            if priority[a] > priority[b]:
                return False
            for e in range(pred_ptr[a], pred_ptr[a + 1]):
                if not _behind(last[pred[e]], b, pred_ptr, pred, last, chain, place, clock):
                    return False
    return True


@machine_code
def _behind(vertex, task, pred_ptr, pred, last, chain, place, clock):
    """Whether some prerequisite of the task is the vertex or follows it."""
    for e in range(pred_ptr[task], pred_ptr[task + 1]):
        if clock[last[pred[e]], chain[vertex]] >= place[vertex]:
            return True
    return False
