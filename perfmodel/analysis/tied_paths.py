"""The paths of a frozen graph that are longest but for a small share, and the least and largest slope among them.

Most of what stands on such paths stands in a row that they all take. A *segment* is such a row: slopes are added up by
segment, and only where segments part and meet are there slopes to choose among.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.frozen_graph import Events


@dataclass(frozen=True, eq=False)
class TiedPaths:
    """The longest path at one design, and those that tie with it, in G segments in topological order.

    The longest path is that of `Prediction.path`. A path ties where it is the longest but for a share of the makespan
    wherever it meets others.

    Attributes:
        makespan: in the unit of the costs.
        counts: [S] how often each cost stands on the longest path.
        row, segment: [k], [k] the costs on paths that tie, ascending and as often as they stand there, and where.
        ptr, pred: [G+1], [e] the segments before each segment; the last one ends with the graph.
    """

    makespan: float
    counts: NDArray[np.float64]
    row: NDArray[np.int32]
    segment: NDArray[np.int32]
    ptr: NDArray[np.int64]
    pred: NDArray[np.int32]

    @classmethod
    def of(cls, events: Events, cost: NDArray[np.float64], tie: float) -> TiedPaths:
        """Those of a frozen graph at costs [S] that are longest but for a share `tie`."""
        makespan, counts, row, segment, ptr, pred = _tied_paths(
            events.cost, events.pred_ptr, events.pred, cost, tie
        )
        order = np.argsort(row, kind="stable")
        return cls(makespan, counts, row[order], segment[order], ptr, pred)

    @property
    def rows(self) -> NDArray[np.int32]:
        """The distinct costs on paths that tie, ascending."""
        return self.row[np.diff(self.row, prepend=-1) > 0]

    def add(
        self, rows: NDArray[np.integer], slope: NDArray[np.float64], total: NDArray[np.float64]
    ) -> None:
        """Add slopes [k, P] of costs [k], ascending, to those of the segments [G, P] that they stand on."""
        if not len(rows):
            return
        here = slice(*np.searchsorted(self.row, (rows[0], rows[-1] + 1)))
        _add_up(np.searchsorted(rows, self.row[here]), self.segment[here], slope, total)

    def extreme(
        self, total: NDArray[np.float64]
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Least and largest sum [P] over all paths that tie, of slopes by segment [G, P]."""
        found: tuple[NDArray[np.float64], NDArray[np.float64]] = _extreme(
            self.ptr, self.pred, total
        )
        return found


@machine_code
def _tied_paths(
    row: NDArray[Any], ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any], tie: float
) -> tuple[float, NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """See `TiedPaths`; costs and segments by vertex."""
    vertices = row.size
    finish = np.empty(vertices)
    for v in range(vertices):
        latest = _latest(ptr, pred, finish, v)
        finish[v] = latest + cost[row[v]] if row[v] >= 0 else latest
    makespan = finish[vertices - 1]
    counts = np.zeros(cost.size)
    at = vertices - 1
    while at >= 0:
        if row[at] >= 0:
            counts[row[at]] += 1.0
        before = -1
        for e in range(ptr[at], ptr[at + 1]):
            if before < 0 or finish[pred[e]] > finish[before]:
                before = pred[e]
        at = before
    # how many follow a vertex on paths that tie: none, one, or several
    followers = np.zeros(vertices, np.int8)
    followers[vertices - 1] = 1
    margin = tie * makespan
    costs = 0
    for back in range(vertices):
        v = vertices - 1 - back
        if followers[v]:
            costs += row[v] >= 0
            least = _latest(ptr, pred, finish, v) - margin
            for e in range(ptr[v], ptr[v + 1]):
                if finish[pred[e]] >= least:
                    followers[pred[e]] = min(followers[pred[e]] + 1, 2)
    segment = np.empty(vertices, np.int32)
    found_row, found_segment = np.empty(costs, np.int32), np.empty(costs, np.int32)
    segments = 0
    edges = 0
    costs = 0
    for v in range(vertices):
        if not followers[v]:
            continue
        least = _latest(ptr, pred, finish, v) - margin
        before = -1
        count = 0
        for e in range(ptr[v], ptr[v + 1]):
            if finish[pred[e]] >= least:
                before = pred[e]
                count += 1
        if count == 1 and followers[before] == 1:
            segment[v] = segment[before]
        else:
            segment[v] = segments
            segments += 1
            edges += count
        if row[v] >= 0:
            found_row[costs] = row[v]
            found_segment[costs] = segment[v]
            costs += 1
    new_ptr = np.zeros(segments + 1, np.int64)
    new_pred = np.empty(edges, np.int32)
    segments = 0
    edges = 0
    for v in range(vertices):
        if not followers[v] or segment[v] < segments:
            continue
        least = _latest(ptr, pred, finish, v) - margin
        for e in range(ptr[v], ptr[v + 1]):
            if finish[pred[e]] >= least:
                new_pred[edges] = segment[pred[e]]
                edges += 1
        segments += 1
        new_ptr[segments] = edges
    return makespan, counts, found_row, found_segment, new_ptr, new_pred


@machine_code
def _latest(ptr: NDArray[Any], pred: NDArray[Any], finish: NDArray[Any], v: int) -> float:
    """When the last one before a vertex has finished."""
    latest = 0.0
    for e in range(ptr[v], ptr[v + 1]):
        latest = max(latest, finish[pred[e]])
    return latest


@machine_code
def _add_up(
    place: NDArray[Any], segment: NDArray[Any], slope: NDArray[Any], total: NDArray[Any]
) -> None:
    """Add slope[place] [P] to each segment."""
    for k in range(place.size):
        for p in range(slope.shape[1]):
            total[segment[k], p] += slope[place[k], p]


@machine_code
def _extreme(
    ptr: NDArray[Any], pred: NDArray[Any], total: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """See `TiedPaths.extreme`."""
    segments, width = total.shape
    least, largest = total.copy(), total.copy()
    for g in range(segments):
        for p in range(width):
            if ptr[g] < ptr[g + 1]:
                low, high = least[pred[ptr[g]], p], largest[pred[ptr[g]], p]
                for e in range(ptr[g] + 1, ptr[g + 1]):
                    low = min(low, least[pred[e], p])
                    high = max(high, largest[pred[e], p])
                least[g, p] += low
                largest[g, p] += high
    return least[segments - 1], largest[segments - 1]
