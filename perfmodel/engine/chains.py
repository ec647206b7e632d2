"""The makespan of a large graph in which hardly anything is alike, one design after the other.

A vertex with a single predecessor that nothing else follows continues that one's *chain*; a vertex without cost that
one other follows hands its predecessors on to it (once: lists do not grow). What is left are chains, few beside the
vertices where ranks mostly work by themselves: costs are added up by chain as stretches of the table come out of their
formula, then the longest path runs over chains. The sums are associated otherwise than along the path, so the last
bits differ.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.models.large_table import LargeTable
from perfmodel.schedule.frozen_graph import Events
from perfmodel.threads import in_threads


@dataclass(frozen=True, eq=False)
class Chains:
    """C chains in topological order.

    Attributes:
        ptr, pred: [C+1], [E], the chains before each chain.
        chain: [S] a chain that each distinct cost stands on; C, which is none, where it stands on no chain.
        again, on: [k] costs that stand on one more, ascending and as often as they do, and that chain.
        last: the chain that the end is on.
    """

    ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    chain: NDArray[np.int32]
    again: NDArray[np.int32]
    on: NDArray[np.int32]
    last: int

    @classmethod
    def of(cls, events: Events, costs: int) -> Chains:
        """The chains of a graph with a number of distinct costs."""
        return cls(*_chains(events.pred_ptr, events.pred, events.cost, costs))

    def makespan(self, table: LargeTable, system: Any, models: Any, *, threads: int = 2) -> float:
        """The longest path at other rates, in the unit of the costs; nan where a cost is no finite number >= 0."""
        totals = np.zeros((threads, len(self.ptr)))
        good = [True] * threads

        def work(share: int) -> None:
            for first, cost in table.stretches(system, models, share, threads):
                more = slice(*np.searchsorted(self.again, (first, first + len(cost))))
                places = self.chain[first:], self.again[more], self.on[more]
                good[share] &= _add(cost, first, *places, totals[share])

        in_threads(work, list(range(threads)))
        finite = _finish(self.ptr, self.pred, totals)
        return float(totals[0, self.last]) if finite and all(good) else np.nan


@machine_code
def _chains(
    ptr: NDArray[Any], pred: NDArray[Any], row: NDArray[Any], costs: int
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any], int]:
    """See `Chains`."""
    n = row.size
    followers = np.zeros(n, np.int32)
    for u in pred:
        followers[u] += 1
    # edges with the predecessors of dissolved vertices in their place
    begin = np.zeros(n + 1, np.int64)
    source = np.empty(2 * pred.size, np.int32)  # each may be handed on once
    gone = np.zeros(n, np.bool_)
    count = 0
    for v in range(n):
        first = count
        handed = False
        for e in range(ptr[v], ptr[v + 1]):
            u = pred[e]
            if gone[u]:
                handed = True
                for k in range(begin[u], begin[u + 1]):
                    count = _put(source, first, count, source[k])
            else:
                count = _put(source, first, count, u)
        begin[v + 1] = count
        gone[v] = row[v] < 0 and followers[v] == 1 and not handed and v < n - 1
    followers[:] = 0
    for v in range(n):
        if not gone[v]:
            for k in range(begin[v], begin[v + 1]):
                followers[source[k]] += 1
    chain_of = np.full(n, -1, np.int32)
    chains = 0
    edges = 0
    for v in range(n):
        if gone[v]:
            continue
        if begin[v + 1] - begin[v] == 1 and followers[source[begin[v]]] == 1:
            chain_of[v] = chain_of[source[begin[v]]]
            continue
        chain_of[v] = chains
        chains += 1
        edges += begin[v + 1] - begin[v]
    new_ptr = np.zeros(chains + 1, np.int64)
    new_pred = np.empty(edges, np.int32)
    chains = 0
    edges = 0
    for v in range(n):
        if chain_of[v] == chains:
            for k in range(begin[v], begin[v + 1]):
                new_pred[edges] = chain_of[source[k]]
                edges += 1
            chains += 1
            new_ptr[chains] = edges
    chain = np.full(costs, chains, np.int32)
    more = np.zeros(costs, np.int32)
    for v in range(n):
        if row[v] >= 0:
            if chain[row[v]] == chains:
                chain[row[v]] = chain_of[v]
            else:
                more[row[v]] += 1
    end = np.cumsum(more)
    again = np.empty(end[-1] if costs else 0, np.int32)
    on = np.empty(again.size, np.int32)
    for v in range(n - 1, -1, -1):
        if row[v] >= 0 and more[row[v]] > 0:
            more[row[v]] -= 1
            end[row[v]] -= 1
            again[end[row[v]]] = row[v]
            on[end[row[v]]] = chain_of[v]
    return new_ptr, new_pred, chain, again, on, chain_of[n - 1]


@machine_code
def _put(values: NDArray[Any], first: int, count: int, value: int) -> int:
    """Add a value to values[first:count] unless it is there; the new end."""
    for k in range(first, count):
        if values[k] == value:
            return count
    values[count] = value
    return count + 1


@machine_code(nogil=True)
def _add(
    cost: NDArray[Any],
    first: int,
    chain: NDArray[Any],
    again: NDArray[Any],
    on: NDArray[Any],
    total: NDArray[Any],
) -> bool:
    """Add costs, from row `first` on, to the chains that they stand on; whether none of them is negative.

    A cost that is no finite number makes its chain's total none. Four stretches at the same time: neighbours mostly
    stand on one chain, and each sum would wait for the one before it.
    """
    n = cost.size // 4
    least = least_1 = least_2 = least_3 = 0.0
    for k in range(n):
        seconds = cost[k]
        least = min(least, seconds)
        total[chain[k]] += seconds
        seconds = cost[k + n]
        least_1 = min(least_1, seconds)
        total[chain[k + n]] += seconds
        seconds = cost[k + 2 * n]
        least_2 = min(least_2, seconds)
        total[chain[k + 2 * n]] += seconds
        seconds = cost[k + 3 * n]
        least_3 = min(least_3, seconds)
        total[chain[k + 3 * n]] += seconds
    for k in range(4 * n, cost.size):
        least = min(least, cost[k])
        total[chain[k]] += cost[k]
    for k in range(again.size):
        total[on[k]] += cost[again[k] - first]
    return min(min(least, least_1), min(least_2, least_3)) >= 0


@machine_code
def _finish(ptr: NDArray[Any], pred: NDArray[Any], totals: NDArray[Any]) -> bool:
    """How long each chain takes, the sum of the rows of totals, becomes when it has finished, in the first one.

    Whether all of these, and the costs that are on no chain, are finite numbers.
    """
    finish = totals[0]
    finite = True
    for c in range(ptr.size - 1):
        latest = 0.0
        for e in range(ptr[c], ptr[c + 1]):
            latest = max(latest, finish[pred[e]])
        for k in range(1, totals.shape[0]):
            finish[c] += totals[k, c]
        finish[c] += latest
        finite &= finish[c] < np.inf
    for k in range(totals.shape[0]):
        finite &= totals[k, -1] < np.inf
    return finite
