"""Collectives of one phase as compiled recurrences and max-plus matrices, from joins of members to their ends.

Unaware of congestion, a collective of one phase is a max-plus matrix: from the moments at which its members join to
the moments at which they end, all of which come after the last join. A module is the recurrence behind it, see
`node_program`.
"""

from __future__ import annotations

import numpy as np

from perfmodel.compiled_code import machine_code

CIRCULANT, EXCLUSIVE_OR, NO_SYMMETRY = range(3)


@machine_code(nogil=True)
def run_module(cost, modules, k, at, other):
    """Chunk after chunk of a collective: `at` [n] holds the joins and in the end the ends; `other` is room.

    at a fill: t(i) += delay (+ reduction); with a message: t(i) = max(t(i), t(source) + message time).
    """
    members, chunks, sends, delay, reduction_ptr, edge_ptr, per_step, reductions, source, edge = (
        modules[0],
        modules[1],
        modules[2],
        modules[3],
        modules[4],
        modules[5],
        modules[6],
        modules[7],
        modules[8],
        modules[9],
    )
    n = members[k]
    d = cost[delay[k]]
    for _ in range(chunks[k]):
        for i in range(n):
            at[i] += d
        e = edge_ptr[k]
        for j in range(sends[k]):
            for i in range(n):
                arrival = at[source[e + i]] + cost[edge[e + i]]
                other[i] = (at[i] if at[i] > arrival else arrival) + d
            r = reductions[reduction_ptr[k] + j + 1]
            if r >= 0:
                p = cost[r]
                for i in range(n):
                    at[i] = other[i] + p
            else:
                for i in range(n):
                    at[i] = other[i]
            e += per_step[k]


@machine_code(nogil=True)
def matrices(cost, modules, matrix_ptr, symmetry, matrix, latest, at, other):
    """Fill the matrices [n, n] of all modules that have one, and the largest entry of each of their rows."""
    members = modules[0]
    for k in range(members.size):
        n, m = members[k], matrix_ptr[k]
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
    members, chunks, sends, delay = modules[0], modules[1], modules[2], modules[3]
    reduction_ptr, edge_ptr, per_step, reductions, source, edge = (
        modules[4],
        modules[5],
        modules[6],
        modules[7],
        modules[8],
        modules[9],
    )
    n = members[k]
    d = cost[delay[k]]
    other = np.empty(n)
    q = 0
    for _ in range(chunks[k]):
        for i in range(n):
            at[i] += d
        e = edge_ptr[k]
        for j in range(sends[k]):
            r = reductions[reduction_ptr[k] + j + 1]
            p = cost[r] if r >= 0 else 0.0
            for i in range(n):
                arrival = at[source[e + i]] + cost[edge[e + i]]
                late = arrival > at[i]
                choice[q] = late
                q += 1
                other[i] = ((arrival if late else at[i]) + d) + p
            for i in range(n):
                at[i] = other[i]
            e += per_step[k]
    for _ in range(chunks[k]):
        e = edge_ptr[k] + per_step[k] * sends[k]
        for j in range(sends[k] - 1, -1, -1):
            e -= per_step[k]
            q -= n
            r = reductions[reduction_ptr[k] + j + 1]
            if r >= 0:
                counts[r] += 1
            counts[delay[k]] += 1
            if choice[q + member]:
                counts[edge[e + member]] += 1
                member = source[e + member]
        counts[delay[k]] += 1
    return member
