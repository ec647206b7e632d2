"""Who comes before whom in a frozen graph: ancestor clocks over a cover of chains."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code

CLOCK_ENTRIES = 50_000_000
"""Ancestor clocks larger than this are not built; implied edges then stay (slower, never wrong)."""


@dataclass(frozen=True, eq=False)
class Ancestry:
    """Who comes before whom in a graph of V vertices, covered by chains.

    Attributes:
        keep: [E] False where an edge u -> v is known to be implied: another predecessor of v follows u.
        chain, place: [V] each vertex's chain and place on it.
        clock: [V, chains] furthest place on each chain that a vertex follows or is; None where it would be too large.
    """

    keep: NDArray[np.bool_]
    chain: NDArray[np.int32]
    place: NDArray[np.int32]
    clock: NDArray[np.int32] | None


def ancestry(ptr: NDArray[np.int64], pred: NDArray[np.int32]) -> Ancestry:
    """Ancestor clocks of a graph in topological order; without clocks only nearby implied edges are found."""
    chain, place, chains = _chains(ptr, pred)
    if chains * (len(ptr) - 1) > CLOCK_ENTRIES:
        return Ancestry(_not_implied_nearby(ptr, pred), chain, place, None)
    keep, clock = _clocks(ptr, pred, chain, place, chains)
    return Ancestry(keep, chain, place, clock)


@machine_code(small=True)
def _chains(ptr: NDArray[Any], pred: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], int]:
    """Cover the vertices greedily with chains: (chain of each vertex, place on it, number of chains)."""
    n = ptr.size - 1
    chain, place = np.empty(n, np.int32), np.empty(n, np.int32)
    extended = np.zeros(n, np.bool_)
    chains = 0
    for v in range(n):
        chain[v] = -1
        for e in range(ptr[v + 1] - 1, ptr[v] - 1, -1):
            u = pred[e]
            if not extended[u]:
                chain[v], place[v] = chain[u], place[u] + 1
                extended[u] = True
                break
        if chain[v] < 0:
            chain[v], place[v] = chains, 0
            chains += 1
    return chain, place, chains


@machine_code(small=lambda ptr, pred, chain, place, chains: pred.size * chains)
def _clocks(
    ptr: NDArray[Any], pred: NDArray[Any], chain: NDArray[Any], place: NDArray[Any], chains: int
) -> tuple[NDArray[Any], NDArray[Any]]:
    """[E] whether no other predecessor follows this one, and [V, chains] ancestor clocks."""
    n = ptr.size - 1
    clock = np.full((n, chains), -1, np.int32)
    keep = np.ones(pred.size, np.bool_)
    for v in range(n):
        own = clock[v]
        # predecessors from late to early: an implied one follows from a later one
        for e in range(ptr[v + 1] - 1, ptr[v] - 1, -1):
            u = pred[e]
            if own[chain[u]] >= place[u]:
                keep[e] = False
                continue
            other = clock[u]
            for c in range(chains):
                if other[c] > own[c]:
                    own[c] = other[c]
        own[chain[v]] = place[v]
    return keep, clock


@machine_code
def _not_implied_nearby(ptr: NDArray[Any], pred: NDArray[Any]) -> NDArray[Any]:
    """As `_clocks`, looking only one edge behind the other predecessors."""
    n = ptr.size - 1
    keep = np.ones(pred.size, np.bool_)
    edge_to = np.full(n, -1, np.int64)  # the present vertex's edge from each of its predecessors
    for v in range(n):
        begin, end = ptr[v], ptr[v + 1]
        if end - begin < 2:
            continue
        for e in range(begin, end):
            edge_to[pred[e]] = e
        for e in range(begin, end):
            w = pred[e]
            for back in range(ptr[w], ptr[w + 1]):
                u = pred[back]
                if edge_to[u] >= begin:
                    keep[edge_to[u]] = False
    return keep
