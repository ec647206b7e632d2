"""Exact reduction of the frozen graph: fewer vertices, the same makespan on every design.

Three rules, each exact for non-negative costs, repeated until nothing changes:

* an edge u -> v is *implied* when another predecessor of v follows u, and goes;
* vertices with equal cost and equal predecessors finish together and become *one*;
* a vertex with a single predecessor that nothing else follows becomes part of that predecessor's *chain*, and a
  vertex without cost and with a single predecessor is that predecessor. A chain costs a fixed combination of the
  distinct costs; distinct combinations are few and evaluated once per design.

Large graphs in which hardly any two vertices take equally long have nothing to merge, and as many combinations as
chains: of the three only the first is applied there.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.schedule.ancestry import ancestry
from perfmodel.schedule.distinct_rows import number_rows
from perfmodel.schedule.frozen_graph import Events
from perfmodel.workload.edges import predecessors, reverse

if TYPE_CHECKING:
    from scipy import sparse

MAX_ROUNDS = 8
LARGE, LITTLE = 300_000, 0.03
"""Graphs of more vertices than this are not looked at again after a round that removed less than this share."""
ALIKE = 0.1
"""Share of vertices that take as long as some other from which on a large graph is worth merging."""


@dataclass(frozen=True, eq=False)
class Reduced:
    """A reduced graph of V vertices that ends in one last vertex.

    Attributes:
        cost: [V] i32, row of `combination`; row 0 costs nothing.
        pred_ptr, pred: edges, as in `Events`.
        combination: [K, S] sparse, how often each distinct cost is in each vertex cost.
    """

    cost: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    combination: sparse.csr_array

    def __len__(self) -> int:
        return len(self.cost)


def reduce(events: Events, costs: int, *, merge: bool = True) -> Reduced:
    """Reduce a frozen graph.

    Args:
        events: the graph.
        costs: number S of distinct costs.
        merge: off keeps every vertex and edge.

    Returns:
        The reduced graph; its last vertex finishes with the makespan.
    """
    return reduce_observed(events, costs, np.zeros(0, np.int64), merge=merge)[0]


def reduce_observed(
    events: Events, costs: int, observed: NDArray[np.int64], *, merge: bool = True
) -> tuple[Reduced, NDArray[np.int64]]:
    """Reduce a frozen graph in which the finish of some vertices is looked at.

    A vertex that is looked at counts as having one more follower: no chain goes on through it.

    Args:
        as for `reduce`; observed: [k] vertices.

    Returns:
        The reduced graph, and [k] the vertices of it that finish when the observed ones do.
    """
    from scipy import sparse

    ptr, pred = events.pred_ptr, events.pred
    # combination k as a sorted tuple of (cost, count); 0 is the empty one
    combination = sparse.vstack(
        [sparse.csr_array((1, costs)), sparse.eye_array(costs, format="csr")], format="csr"
    )
    cost = events.cost.astype(np.int64) + 1
    if not merge:
        return Reduced(cost.astype(np.int32), ptr, pred, combination), observed
    if len(cost) > LARGE and _alike(cost) < ALIKE:
        ptr, pred = _drop_implied(ptr, pred)
        return Reduced(cost.astype(np.int32), ptr, pred, combination), observed
    for _ in range(MAX_ROUNDS):
        before = len(cost), len(pred)
        ptr, pred = _drop_implied(ptr, pred)
        ptr, pred, cost, number = _merge_equal(ptr, pred, cost)
        observed = number[observed]
        ptr, pred, cost, combination, number = _contract_chains(
            ptr, pred, cost, combination, observed
        )
        observed = number[observed]
        gone = before[0] - len(cost) + before[1] - len(pred)
        if gone <= (LITTLE if len(cost) > LARGE else 0) * sum(before):
            break
    return Reduced(cost.astype(np.int32), ptr, pred, combination), observed


def cost_between(
    reduced: Reduced, first: NDArray[np.int64], later: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[k] a distinct cost that lies between a vertex and one of the [k, 2] later ones on some path, -1 where none is.

    The later of the two then finishes at least that cost after the first one.
    """
    known = ancestry(reduced.pred_ptr, reduced.pred)
    if known.clock is None or not len(first):
        return np.full(len(first), -1, np.int64)
    rows = reduced.combination.indptr
    some = np.full(len(rows) - 1, -1)  # a distinct cost of each combination
    filled = np.flatnonzero(np.diff(rows))
    some[filled] = reduced.combination.indices[rows[filled]]
    found: NDArray[np.int64] = _cost_between(
        reduced.pred_ptr,
        reduced.pred,
        some[reduced.cost].astype(np.int64),
        known.chain,
        known.place,
        known.clock,
        first,
        later,
    )
    return found


@machine_code(small=lambda *more: 8 * more[-2].size)
def _cost_between(
    ptr: NDArray[Any],
    pred: NDArray[Any],
    row: NDArray[Any],
    chain: NDArray[Any],
    place: NDArray[Any],
    clock: NDArray[Any],
    first: NDArray[Any],
    later: NDArray[Any],
) -> NDArray[Any]:
    """As `cost_between`, from the cost row of every vertex (-1 none): back from the later one along a path."""
    found = np.full(first.size, -1, np.int64)
    for k in range(first.size):
        a = first[k]
        for side in range(2):
            v = later[k, side]
            while v != a and clock[v, chain[a]] >= place[a] and found[k] < 0:
                found[k] = row[v]
                for e in range(ptr[v], ptr[v + 1]):
                    u = pred[e]
                    if clock[u, chain[a]] >= place[a]:
                        v = u
                        break
    return found


def _alike(cost: NDArray[np.int64]) -> float:
    """Share of vertices whose cost, or having none, some other vertex shares: only those can become one."""
    often = np.bincount(cost)
    return float(often[often > 1].sum()) / len(cost)


def _drop_implied(ptr: NDArray[Any], pred: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    keep = ancestry(ptr, pred).keep
    counts = np.concatenate([[0], np.cumsum(keep)])
    return counts[ptr], pred[keep]


def _merge_equal(
    ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Hash-consing in topological order; also gives the new number of every vertex."""
    number, count = _equal(ptr, pred, cost)
    kept = np.zeros(count, np.int64)
    kept[number[::-1]] = np.arange(len(cost))[::-1]
    return *_renumber(ptr, pred, cost, number, kept), number


@machine_code(small=True)
def _equal(ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """[V] new number of each vertex; equal ones share it, but the last one stays by itself.

    Open addressing; equality is checked, not assumed.
    """
    n = cost.size
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    number = np.empty(n, np.int32)
    seen = np.empty(pred.size, np.int32)  # merged predecessors, sorted, without repeats
    seen_ptr = np.zeros(n + 1, np.int64)
    original = np.empty(n, np.int64)
    count = 0
    for v in range(n):
        begin = seen_ptr[count]
        end = begin
        for e in range(ptr[v], ptr[v + 1]):
            u = number[pred[e]]
            i = end
            while i > begin and seen[i - 1] > u:
                i -= 1
            if i > begin and seen[i - 1] == u:
                continue
            for k in range(end, i, -1):
                seen[k] = seen[k - 1]
            seen[i] = u
            end += 1
        key = np.uint64(cost[v]) * np.uint64(0x9E3779B97F4A7C15)
        for k in range(begin, end):
            key = (key ^ np.uint64(seen[k])) * np.uint64(0xBF58476D1CE4E5B9)
            key ^= key >> np.uint64(29)
        slot = np.int64(key & np.uint64(size - 1))
        while True:
            other = table[slot]
            if other < 0 or v == n - 1:
                table[slot] = count
                number[v] = count
                original[count] = v
                count += 1
                seen_ptr[count] = end
                break
            same = (
                cost[original[other]] == cost[v]
                and seen_ptr[other + 1] - seen_ptr[other] == end - begin
            )
            k = 0
            while same and k < end - begin:
                same = seen[seen_ptr[other] + k] == seen[begin + k]
                k += 1
            if same:
                number[v] = other
                break
            slot = (slot + 1) & (size - 1)
    return number, count


def _renumber(
    ptr: NDArray[Any],
    pred: NDArray[Any],
    cost: NDArray[Any],
    number: NDArray[Any],
    kept: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The graph of the kept vertices, predecessors renamed and without repeats."""
    counts = np.diff(ptr)[kept]
    at = np.repeat(ptr[kept] - np.concatenate([[0], np.cumsum(counts)[:-1]]), counts)
    old = pred[at + np.arange(len(at))]
    target = np.repeat(np.arange(len(kept)), counts)
    return *predecessors(number[old].astype(np.int64), target, len(kept)), cost[kept]


def _contract_chains(
    ptr: NDArray[Any],
    pred: NDArray[Any],
    cost: NDArray[Any],
    combination: sparse.csr_array,
    observed: NDArray[Any],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], sparse.csr_array, NDArray[Any]]:
    """Vertices that continue a chain join its head; the head takes the sum of their costs.

    Also gives the new number of every vertex; those that finish before the end of their chain have the chain's.
    """
    from scipy import sparse

    n = len(cost)
    succ_ptr, _ = reverse(ptr, pred)
    followers = np.diff(succ_ptr)
    followers[observed] += 1
    joins, alias, head = _follow(ptr, pred, cost, followers)
    absorbed = joins | alias
    if not absorbed.any():
        return ptr, pred, cost, combination, np.arange(n)
    # the last vertex must stay last: a chain takes the place of its final member
    kept = np.flatnonzero(~absorbed)
    member = np.flatnonzero(cost > 0)
    row = np.full(n, -1, np.int64)
    row[kept] = np.arange(len(kept))
    select = sparse.csr_array(
        (np.ones(len(member)), (row[head[member]], cost[member])),
        shape=(len(kept), combination.shape[0]),
    )
    cost, combination = _distinct(sparse.csr_array(select @ combination))
    ends = np.zeros(len(kept), np.int64)
    np.maximum.at(ends, row[head], np.where(joins | ~absorbed, np.arange(n), 0))
    order = np.argsort(ends, kind="stable")
    place = np.empty(len(kept), np.int64)
    place[order] = np.arange(len(kept))
    number = place[row[head]]
    ptr, pred, cost = _renumber(ptr, pred, _spread(cost, kept, n), number, kept[order])
    return ptr, pred, cost, combination, number


def _spread(values: NDArray[Any], kept: NDArray[Any], n: int) -> NDArray[np.int64]:
    full = np.zeros(n, np.int64)
    full[kept] = values
    return full


@machine_code(small=True)
def _follow(
    ptr: NDArray[Any], pred: NDArray[Any], cost: NDArray[Any], followers: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Which vertices continue their predecessor's chain, which only repeat its time, and the head that each ends with.

    A vertex that follows one of the latter starts a chain of its own: the vertex whose time is repeated has other
    followers, so the two cannot be summed up in one.
    """
    n = cost.size
    joins, alias = np.zeros(n, np.bool_), np.zeros(n, np.bool_)
    head = np.empty(n, np.int64)
    for v in range(n):
        head[v] = v
        if ptr[v + 1] - ptr[v] == 1:
            u = pred[ptr[v]]
            joins[v] = followers[u] == 1 and not alias[u]
            alias[v] = not joins[v] and cost[v] == 0 and v < n - 1
            if joins[v] or alias[v]:
                head[v] = head[u]
    return joins, alias, head


def _distinct(rows: sparse.csr_array) -> tuple[NDArray[np.int64], sparse.csr_array]:
    """Number of each row among the distinct ones, and those; row 0 is the empty one."""
    from scipy import sparse

    empty = sparse.csr_array((1, rows.shape[1]))
    table = sparse.csr_array(sparse.vstack([empty, rows], format="csr"))
    table.sum_duplicates()
    table.sort_indices()
    words = np.empty((table.nnz, 2), np.uint64)
    words[:, 0] = table.indices
    words[:, 1] = table.data.view(np.uint64)
    first, number = number_rows(2 * table.indptr.astype(np.int64), words.reshape(-1))
    return number[1:], sparse.csr_array(table[first])
