"""Computation beside collectives: how much of its time each kernel runs while a collective of its rank holds cores.

NCCL takes a core (SM) per channel for as long as a collective runs; a kernel that is beside it for a share f of its
time has cores - f c of them in the mean, so that it takes cores / (cores - f c) times as long (many waves; a kernel
of one wave may take twice as long). The shares are read off the schedule at the reference design, in eighths, so that
kernels stay few distinct ones. Those beside collectives get costs of their own, which `models.cost` stretches.

Sources: NVIDIA developer forum 337991 (H100, 132 cores, 24 channels: 1.7 times for a single wave, 1.22 by this
formula); NVIDIA/nccl-tests, issue 100 (24 channels on 8 A100). The fitted models of these devices say so
(`hwdb/models`), and their relatives take it from there, as they do all coefficients; the bare models leave kernels
alone.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.models.cost_blocks import BESIDE, CostBlock, DistinctCosts
from perfmodel.schedule.list_schedule import Schedule
from perfmodel.schedule.tasks import Tasks
from perfmodel.vocabulary import NodeType

STEPS = 8
"""Shares of a kernel's time are rounded to one in so many."""


def shares(tasks: Tasks, schedule: Schedule) -> NDArray[np.int8]:
    """[n] of its time that a compute task runs beside collectives of its rank, in `STEPS`."""
    result = np.zeros(len(tasks), np.int8)
    for first, last in zip(tasks.offset[:-1], tasks.offset[1:]):
        mine = np.arange(first, last)
        calls = mine[(tasks.type[mine] == NodeType.COMM_COLL) & (tasks.cost[mine] >= 0)]
        kernels = mine[(tasks.type[mine] == NodeType.COMP) & (tasks.cost[mine] >= 0)]
        if not (len(calls) and len(kernels)):
            continue
        begin, end = _united(schedule.start[calls], schedule.finish[calls])
        start, finish = schedule.start[kernels], schedule.finish[kernels]
        shared = _covered(finish, begin, end) - _covered(start, begin, end)
        length = np.where(finish > start, finish - start, np.inf)
        result[kernels] = np.rint(STEPS * np.clip(shared / length, 0.0, 1.0))
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
    """The tasks, those that run beside a collective with costs of their own; the same where none does."""
    share = shares(tasks, schedule)
    if not share.any():
        return tasks
    cost, blocks, base = tasks.cost.copy(), list(tasks.work.blocks), len(tasks.work)
    first = 0
    for block in tasks.work.blocks:
        here = (tasks.cost >= first) & (tasks.cost < first + len(block.rows))
        scale = np.broadcast_to(block.scale, (len(block.rows),))
        mine = np.flatnonzero(here & (share > 0) & (block.key[0] == "compute"))
        if len(mine):
            pairs = np.stack([share[mine], tasks.cost[mine] - first])
            (steps, used), number = np.unique(pairs, axis=1, return_inverse=True)
            cost[mine] = base + number.ravel()
            base += len(used)
            rows = np.column_stack([block.rows[used], steps / STEPS])
            blocks.append(CostBlock((*block.key, BESIDE), rows, scale[used], block.category))
        first += len(block.rows)
    return replace(tasks, cost=cost.astype(np.int32), work=DistinctCosts(tuple(blocks)))
