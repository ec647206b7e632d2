"""The comparisons of a certificate as finish times of vertices: open decisions, and the vertices that they ask for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.schedule.certificate import END_BY_READY, START_BEFORE_READY, Checks, Decisions
from perfmodel.schedule.frozen_graph import Events
from perfmodel.workload.edges import predecessors


def comparisons(
    events: Events, decisions: Decisions, found: NDArray[np.int64]
) -> tuple[Events, Checks]:
    """The graph with a vertex for every time that an open decision asks for, and the comparisons on it."""
    d = decisions
    extra = ObservedTimes(events, d)
    a, b, c, strict, longer = [], [], [], [], []
    cost_of_end = events.cost[events.last]
    for what, x, y, z in np.unique(found, axis=0).tolist():
        if what == START_BEFORE_READY:
            a.append(extra.start(x))
            b.append(extra.ready(y))
            c.append(b[-1])
            strict.append(True)
        elif what == END_BY_READY:
            a.append(int(events.last[x]))
            known = ([int(events.last[y])] if y >= 0 else []) + [extra.ready(z)]
            known = [v for v in known if v >= 0] or [-1]
            b.append(known[0])
            c.append(known[-1])
            tie = d.moments and cost_of_end[x] >= 0
            strict.append(not tie)
            if tie:
                longer.append(int(cost_of_end[x]))
        else:
            a.append(x)
            b.append(y)
            c.append(y)
            strict.append(bool(z))
    graph, number = extra.graph()
    strict_rows = np.array(strict, bool)
    return graph, Checks(
        number[np.array(a, np.int64)],
        number[np.array(b, np.int64)],
        number[np.array(c, np.int64)],
        np.where(strict_rows, 1.0 + d.margin, 1.0),
        strict_rows,
        np.unique(np.array(longer, np.int64)),
        d.rows,
    )


class ObservedTimes:
    """Collects vertices without cost that nothing follows, numbered from V on."""

    def __init__(self, events: Events, d: Decisions):
        self.events, self.d = events, d
        self.made: dict[tuple[int, ...], int] = {}

    def ready(self, task: int) -> int:
        """When all prerequisites of a task have ended; -1: from the beginning."""
        ptr = self.d.pred_ptr
        return self._latest(self.events.last[self.d.pred[ptr[task] : ptr[task + 1]]])

    def start(self, task: int) -> int:
        """When a task starts."""
        v = int(self.events.first[task])
        if self.events.cost[v] < 0:
            return v
        ptr = self.events.pred_ptr
        return self._latest(self.events.pred[ptr[v] : ptr[v + 1]])

    def _latest(self, vertices: NDArray[Any]) -> int:
        key = tuple(np.unique(vertices).tolist())
        if len(key) < 2:
            return key[0] if key else -1
        return self.made.setdefault(key, len(self.events) + len(self.made))

    def graph(self) -> tuple[Events, NDArray[np.int64]]:
        """The larger graph, and the new number of every vertex; a vertex 0 without cost stands for the beginning.

        Returns [V + made + 1] numbers, the last one the beginning's.
        """
        old, more = self.events, list(self.made)
        vertices = len(old)
        behind = np.array([max(key) for key in more], np.int64)
        rank = np.concatenate([np.arange(vertices) * 2, behind * 2 + 1])
        number = np.empty(len(rank) + 1, np.int64)
        number[np.argsort(rank, kind="stable")] = np.arange(len(rank)) + 1
        number[-1] = 0
        target = np.repeat(np.arange(vertices), np.diff(old.pred_ptr))
        source = [old.pred.astype(np.int64), *(np.array(key, np.int64) for key in more)]
        into = [target, *(np.full(len(key), vertices + k) for k, key in enumerate(more))]
        ptr, pred = predecessors(
            number[np.concatenate(source)], number[np.concatenate(into)], len(number)
        )
        cost = np.full(len(number), -1, np.int32)
        cost[number[:vertices]] = old.cost
        owner = np.full(len(number), -1, np.int32)
        owner[number[:vertices]] = old.owner
        first, last = (number[of].astype(np.int32) for of in (old.first, old.last))
        graph = Events(cost, ptr, pred, first, last, owner)
        return graph, number
