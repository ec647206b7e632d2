"""Every design's own list schedule, on very many designs: makespans, path counts, which order it is.

Designs are scheduled by the runs of tasks that a contraction leaves; those for which it does not stand (something that
ends a run takes no time there) by the tasks themselves.
"""

from __future__ import annotations

import hashlib
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.models.cost_blocks import check_costs
from perfmodel.schedule.contraction import Contraction, contraction, one_by_one
from perfmodel.schedule.list_schedule import Schedule, program_of
from perfmodel.schedule.list_scheduler import orders_of_many, simulate_many
from perfmodel.schedule.tasks import Tasks
from perfmodel.threads import even_slices, in_threads


class OwnSchedules:
    """Own schedules of the tasks of a graph; `expected` is the schedule whose order they are compared with."""

    def __init__(self, tasks: Tasks, expected: Schedule):
        self.tasks, self.expected = tasks, expected

    def __len__(self) -> int:
        """Runs that are scheduled in the place of the tasks."""
        return len(self.runs.tasks)

    @cached_property
    def runs(self) -> Contraction:
        """The tasks, joined where nothing contends with them."""
        return contraction(self.tasks)

    @cached_property
    def _by_run(self) -> Scheduled:
        return Scheduled(self.runs, self._order, self.expected.instance)

    @cached_property
    def by_task(self) -> Scheduled:
        """The tasks themselves."""
        return Scheduled(one_by_one(self.tasks), self._order, self.expected.instance)

    @property
    def _order(self) -> NDArray[np.int32]:
        return self.expected.order[: int((self.tasks.resource >= 0).sum())]

    @property
    def digest(self) -> int:
        """Of the order that is expected."""
        return digest_of(self._by_run.order, self._by_run.instance)

    def makespans(
        self, costs: NDArray[np.float64], *, paths: bool = False, threads: int = 2
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
        """Every design's own schedule.

        Args:
            costs: [S, D] f64, duration of each distinct cost on each design [s].
            paths: also count how often each cost stands on the critical path.
            threads: designs are split over this many threads.

        Returns:
            [D] makespan [s] (nan: deadlock), [D] whether the order, or which calls meet, differs from what is expected,
            [S, D] path counts (empty unless asked for).
        """
        check_costs(costs, self.tasks.work)
        makespan, differs, counts = self._by_run.makespans(costs, paths=paths, threads=threads)
        rest = np.flatnonzero(~self.runs.stands(costs, makespan))
        if len(rest):
            here = np.ascontiguousarray(costs[:, rest])
            found = self.by_task.makespans(here, paths=paths, threads=threads)
            makespan[rest], differs[rest], counts[:, rest] = found
        return makespan, differs, counts

    def digests(
        self, costs: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """[D] makespan (nan: deadlock) and [D] digest of every design's own order, for a few designs, costs [S, D]."""
        makespan, orders, instances = self._by_run.orders(costs, threads)
        digests = np.array([digest_of(*found) for found in zip(orders, instances)], np.uint64)
        rest = np.flatnonzero(~self.runs.stands(costs, makespan))
        if len(rest):
            here = np.ascontiguousarray(costs[:, rest])
            makespan[rest], orders, instances = self.by_task.orders(here, threads)
            for d, order, instance in zip(rest, orders, instances):
                digests[d] = digest_of(self.runs.order(order), self.runs.instance(instance))
        return makespan, digests


def digest_of(order: NDArray[np.int32], instance: NDArray[np.int32]) -> int:
    """64 bits of a hash of who is issued when, and which instance each collective joins."""
    hasher = hashlib.blake2b(order.tobytes(), digest_size=8)
    hasher.update(instance.tobytes())
    return int.from_bytes(hasher.digest(), "little")


def calls_from_several_resources(tasks: Tasks) -> bool:
    """Whether a rank calls collectives of a group, which pair up by order of issue, from more than one resource."""
    by_issue = (tasks.join >= 0) & (tasks.match < 0)
    caller = tasks.caller[by_issue]
    pairs = np.unique(np.stack([caller, tasks.resource[by_issue]]), axis=1).shape[1]
    return bool(pairs > len(np.unique(caller)))


class Scheduled:
    """Runs of tasks as the scheduler reads them, and what their own schedules are compared with.

    Args:
        order: tasks that need a resource, by resource in order of issue. instance: that each task joins, -1 for none.
    """

    def __init__(self, runs: Contraction, order: NDArray[np.int32], instance: NDArray[np.int32]):
        self.program = program_of(runs)
        self.order, self.instance = runs.order(order), runs.instance(instance)
        tasks = runs.tasks
        # the orders on resources say nothing of the order in which one rank calls from several
        by_issue = (tasks.join >= 0) & (tasks.match < 0)
        self.calls = np.flatnonzero(by_issue & calls_from_several_resources(tasks))

    def makespans(
        self, costs: NDArray[np.float64], *, paths: bool = False, threads: int = 2
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.int32]]:
        """As `OwnSchedules.makespans`."""
        designs = costs.shape[1]
        makespan, differs = np.zeros(designs), np.zeros(designs, bool)
        counts = np.zeros((costs.shape[0] if paths else 0, designs), np.int32)
        expected = self.order, self.calls, self.instance[self.calls]

        def work(part: slice) -> None:
            simulate_many(
                costs[:, part],
                self.program,
                expected,
                makespan[part],
                differs[part],
                counts[:, part],
            )

        in_threads(work, even_slices(designs, threads))
        return makespan, differs, counts

    def orders(
        self, costs: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.int32], NDArray[np.int32]]:
        """[D] makespan (nan: deadlock), [D, .] order of issue and [D, m] instances joined, of costs [S, D]."""
        designs = costs.shape[1]
        makespan = np.zeros(designs)
        order = np.zeros((designs, len(self.order)), np.int32)
        instance = np.zeros((designs, len(self.instance)), np.int32)

        def work(part: slice) -> None:
            found = makespan[part], order[part], instance[part]
            orders_of_many(costs[:, part], self.program, *found)

        in_threads(work, even_slices(designs, threads))
        return makespan, order, instance
