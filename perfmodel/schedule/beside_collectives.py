"""Computation beside collectives: which kernels run while a collective of their rank holds some of the cores.

NCCL takes a core (SM) per channel for as long as a collective runs; a kernel beside it has cores - c of them, so that
it takes cores / (cores - c) times as long (many waves; a kernel of one wave may take twice as long). Which kernels
those are is read off the schedule at the reference design: those that a collective of their rank overlaps with for
half of their time or more. They get costs of their own, which `models.cost` stretches.

Source: NVIDIA developer forum 337991 (H100, 132 cores, 24 channels: 1.7 times for a single wave, 1.22 by this formula);
arXiv 2507.03114 (18.9 % slower in the mean over several devices). Not validated against steps: off unless asked for.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.models.cost import BESIDE, CostBlock, DistinctCosts
from perfmodel.schedule.list_schedule import Schedule
from perfmodel.schedule.tasks import Tasks
from perfmodel.vocabulary import NodeType

SHARE = 0.5
"""Of its time that a kernel runs beside a collective to be counted as slowed."""


def slowed(tasks: Tasks, schedule: Schedule) -> NDArray[np.bool_]:
    """[n] compute tasks that run beside a collective of their rank for `SHARE` of their time or more."""
    result = np.zeros(len(tasks), bool)
    for first, last in zip(tasks.offset[:-1], tasks.offset[1:]):
        mine = np.arange(first, last)
        calls = mine[(tasks.type[mine] == NodeType.COMM_COLL) & (tasks.cost[mine] >= 0)]
        kernels = mine[(tasks.type[mine] == NodeType.COMP) & (tasks.cost[mine] >= 0)]
        if not (len(calls) and len(kernels)):
            continue
        begin, end = _united(schedule.start[calls], schedule.finish[calls])
        start, finish = schedule.start[kernels], schedule.finish[kernels]
        shared = _covered(finish, begin, end) - _covered(start, begin, end)
        result[kernels] = (shared >= SHARE * (finish - start)) & (finish > start)
    return result


def _united(start: NDArray[Any], finish: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Intervals joined where they touch, in order."""
    order = np.argsort(start, kind="stable")
    start, reach = start[order], np.maximum.accumulate(finish[order])
    new = np.r_[True, start[1:] > reach[:-1]]
    return start[new], reach[np.r_[np.flatnonzero(new)[1:] - 1, len(reach) - 1]]


def _covered(at: NDArray[Any], begin: NDArray[Any], end: NDArray[Any]) -> NDArray[Any]:
    """How much of the time up to `at` disjoint intervals in order cover."""
    total = np.r_[0.0, np.cumsum(end - begin)]
    k = np.searchsorted(begin, at, side="right")
    last = np.maximum(k - 1, 0)
    return np.where(k > 0, total[last] + np.minimum(at, end[last]) - begin[last], 0.0)


def beside_collectives(tasks: Tasks, schedule: Schedule) -> Tasks:
    """The tasks, those that run beside a collective with costs of their own."""
    chosen = slowed(tasks, schedule)
    cost, blocks, base = tasks.cost.copy(), list(tasks.work.blocks), len(tasks.work)
    first = 0
    for block in tasks.work.blocks:
        rows = np.arange(first, first + len(block.rows))
        first += len(block.rows)
        mine = (
            chosen & (tasks.cost >= rows[0]) & (tasks.cost <= rows[-1])
            if len(rows)
            else chosen & False
        )
        if block.key[0] != "compute" or not mine.any():
            continue
        used, number = np.unique(tasks.cost[mine], return_inverse=True)
        cost[mine] = base + number
        base += len(used)
        blocks.append(
            CostBlock(
                (*block.key, BESIDE),
                block.rows[used - rows[0]],
                np.broadcast_to(block.scale, (len(block.rows),))[used - rows[0]],
                block.category,
            )
        )
    return replace(tasks, cost=cost.astype(np.int32), work=DistinctCosts(tuple(blocks)))
