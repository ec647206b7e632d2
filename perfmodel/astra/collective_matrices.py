"""Collectives of one phase as compiled recurrences and max-plus matrices, from joins of members to their ends.

Unaware of congestion, a collective of one phase is a max-plus matrix: from the moments at which its members join to
the moments at which they end, all of which come after the last join. A module is the recurrence behind it, see
`node_program`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code

CIRCULANT, EXCLUSIVE_OR, NO_SYMMETRY = range(3)

Ints = NDArray[Any]


class Modules(NamedTuple):
    """The M distinct recurrences of a workload; "row" is a row of the costs.

    Attributes:
        members, chunks, sends: [M] members, chunks one after the other, and messages of a member in each chunk.
        delay: [M] row of what a member takes at the start of a chunk and after each message.
        reduction_ptr, reduction: begin of each module's 1 + sends rows of what a member takes besides, -1 for nothing.
        edge_ptr, per_step: [M] begin of each module's edges, and how many edges on those of the next message are.
        source, edge: member that sends to each member, and row of that message.
    """

    members: Ints
    chunks: Ints
    sends: Ints
    delay: Ints
    reduction_ptr: Ints
    edge_ptr: Ints
    per_step: Ints
    reduction: Ints
    source: Ints
    edge: Ints


@machine_code(nogil=True)
def run_module(cost, modules, k, at, other):
    """Chunk after chunk of a collective: `at` [n] holds the joins and in the end the ends; `other` is room.

    at a fill: t(i) += delay (+ reduction); with a message: t(i) = max(t(i), t(source) + message time).
    """
    source, edge = modules.source, modules.edge
    n = modules.members[k]
    d = cost[modules.delay[k]]
    for _ in range(modules.chunks[k]):
        for i in range(n):
            at[i] += d
        e = modules.edge_ptr[k]
        for j in range(modules.sends[k]):
            for i in range(n):
                arrival = at[source[e + i]] + cost[edge[e + i]]
                other[i] = (at[i] if at[i] > arrival else arrival) + d
            r = modules.reduction[modules.reduction_ptr[k] + j + 1]
            if r >= 0:
                p = cost[r]
                for i in range(n):
                    at[i] = other[i] + p
            else:
                for i in range(n):
                    at[i] = other[i]
            e += modules.per_step[k]


@machine_code(nogil=True)
def matrices(cost, modules, matrix_ptr, symmetry, matrix, latest, at, other):
    """Fill the matrices [n, n] of all modules that have one, and the largest entry of each of their rows."""
    for k in range(modules.members.size):
        n, m = modules.members[k], matrix_ptr[k]
        if m < 0:
            continue
        for j in range(1 if symmetry[k] != NO_SYMMETRY else n):
            for i in range(n):
                at[i] = 0.0 if i == j else -np.inf
            run_module(cost, modules, k, at, other)
            for i in range(n):
                matrix[m + i * n + j] = at[i]
        for j in range(1, n if symmetry[k] != NO_SYMMETRY else 0):
            for i in range(n):
                other_way = (i - j) % n if symmetry[k] == CIRCULANT else i ^ j
                matrix[m + i * n + j] = matrix[m + other_way * n]
        for i in range(n):
            latest[m + i] = matrix[m + i * n]
            for j in range(1, n):
                latest[m + i] = max(latest[m + i], matrix[m + i * n + j])


@machine_code(nogil=True)
def trace_module(cost, modules, k, at, member, choice, counts):
    """Follow the critical path through a collective from a member's end back; gives the member whose join it was.

    `at` [n] holds the joins and is overwritten; `choice` is room for a byte per fill and member.
    """
    source, edge = modules.source, modules.edge
    n = modules.members[k]
    d = cost[modules.delay[k]]
    other = np.empty(n)
    q = 0
    for _ in range(modules.chunks[k]):
        for i in range(n):
            at[i] += d
        e = modules.edge_ptr[k]
        for j in range(modules.sends[k]):
            r = modules.reduction[modules.reduction_ptr[k] + j + 1]
            p = cost[r] if r >= 0 else 0.0
            for i in range(n):
                arrival = at[source[e + i]] + cost[edge[e + i]]
                late = arrival > at[i]
                choice[q] = late
                q += 1
                other[i] = ((arrival if late else at[i]) + d) + p
            for i in range(n):
                at[i] = other[i]
            e += modules.per_step[k]
    for _ in range(modules.chunks[k]):
        e = modules.edge_ptr[k] + modules.per_step[k] * modules.sends[k]
        for j in range(modules.sends[k] - 1, -1, -1):
            e -= modules.per_step[k]
            q -= n
            r = modules.reduction[modules.reduction_ptr[k] + j + 1]
            if r >= 0:
                counts[r] += 1
            counts[modules.delay[k]] += 1
            if choice[q + member]:
                counts[edge[e + member]] += 1
                member = source[e + member]
        counts[modules.delay[k]] += 1
    return member
