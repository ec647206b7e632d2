"""Every design's own list schedule, and what a list schedule decided, for its certificate."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.schedule.certificate import TIE, Decisions
from perfmodel.schedule.contraction import one_by_one
from perfmodel.schedule.frozen_graph import Events
from perfmodel.schedule.list_schedule import Schedule, list_schedule, program_of
from perfmodel.schedule.order_edges import freeze
from perfmodel.schedule.own_schedules import OwnSchedules, calls_from_several_resources
from perfmodel.schedule.tasks import Tasks
from perfmodel.workload.graph import Graph

SIMULATION_S = (1e-5, 8e-8)
"""Time to schedule a design: in all, and per run of tasks [s], as measured on a Xeon."""


@dataclass(frozen=True, eq=False)
class ListOrders:
    """Own orders by the list scheduler; `schedule` is the reference design's. See `cells.Orders`."""

    graph: Graph
    tasks: Tasks
    schedule: Schedule

    def __call__(
        self, costs: NDArray[np.float64], *, paths: bool = False, threads: int = 2
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
        """See `OwnSchedules.makespans`; where another record is the quickest, the order counts as another one."""
        makespan, differs, counts = self.schedules.makespans(costs, paths=paths, threads=threads)
        for taken, other in _quickest_records(self.tasks, self.schedule):
            differs |= costs[taken] > costs[other]
        return makespan, differs, counts

    @cached_property
    def schedules(self) -> OwnSchedules:
        """Of many designs."""
        return OwnSchedules(self.tasks, self.schedule)

    @cached_property
    def digest(self) -> int:
        """Of the reference's order."""
        return self.schedules.digest

    @property
    def simulation_s(self) -> float:
        """About how long scheduling a design takes [s]."""
        return SIMULATION_S[0] + SIMULATION_S[1] * len(self.schedules)

    def decided(self) -> Decisions | None:
        """What the reference's schedule decided."""
        return decisions(self.tasks, self.schedule)

    def digests(
        self, costs: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """Makespans and digests of a few designs."""
        return self.schedules.digests(costs, threads)

    def recorded_at(
        self, cost: NDArray[np.float64]
    ) -> tuple[tuple[NDArray[Any], ...], Callable[[], tuple[Events, Decisions | None]]]:
        """What a design's schedule wrote down; what makes its frozen graph, and what it decided, of that alone."""
        s = list_schedule(self.graph, self.tasks, np.ascontiguousarray(cost), self._program)
        found = (s.order, s.sequence, s.instance, s.instance_cost)
        return found, lambda: (freeze(self.tasks, s), decisions(self.tasks, s))

    @cached_property
    def _program(self) -> tuple[Any, ...]:
        return program_of(one_by_one(self.tasks))

    def nodes(self, costs: NDArray[np.float64], *, paths: bool, threads: int) -> None:
        """There is no quicker way than the scheduler."""


def decisions(tasks: Tasks, schedule: Schedule) -> Decisions | None:
    """The decisions of a list schedule; None where some are of a kind that is not certified.

    Collectives that pair up by order of issue are certain with the order on their resource, if one resource of a rank
    makes all of its calls to the group. Where members replay records, the quickest record has to stay the quickest.
    """
    if calls_from_several_resources(tasks):
        return None
    limited = np.flatnonzero(tasks.resource >= 0)
    count = np.bincount(tasks.resource[limited], minlength=tasks.resources)
    return Decisions(
        order=schedule.order[: len(limited)].astype(np.int64),
        place=np.concatenate([[0], np.cumsum(count)]).astype(np.int64),
        key=tasks.priority.astype(np.int64),
        pred_ptr=tasks.pred_ptr,
        pred=tasks.pred,
        moments=True,
        margin=TIE,
        rows=_quickest_records(tasks, schedule),
    )


def _quickest_records(tasks: Tasks, schedule: Schedule) -> np.ndarray:
    """[m, 2] the record that an instance takes, and another one of its members."""
    replayed = np.flatnonzero((schedule.instance >= 0) & tasks.recorded & (tasks.cost >= 0))
    taken = schedule.instance_cost[schedule.instance[replayed]]
    pairs = np.stack([taken, tasks.cost[replayed]], axis=1).astype(np.int64)
    return np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0)
