"""Ranks that do the same at the same time, found once for all designs of a network's shape.

Ranks that run the same program, and whose groups and peers look alike (same spans over the network's dimensions,
members of the same classes), do everything at the same time on every design with that network shape. They form
the classes of the coarsest equitable partition, found by colour refinement.
"""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np

from perfmodel.machine.placement import hops_table, span
from perfmodel.machine.system import System
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program


def rank_classes(graph: Graph, system: System) -> tuple[np.ndarray, np.ndarray]:
    """Colour refinement: [R] i32 class of each rank, [G] i32 colour of each group."""
    shapes: dict[Hashable, int] = {}
    sizes = tuple(d.size for d in system.network)
    users = _users(graph)
    used = np.unique(users[:, 0]) if len(users) else np.zeros(0, np.int64)
    shape = np.full(len(graph.groups), -1, np.int64)
    for g in used:
        key = (span(graph.groups[g], sizes), bool(graph.by_name[g]))
        shape[g] = shapes.setdefault(key, len(shapes))
    routes = [_routes(p, system) for p in graph.programs]
    colour = graph.program.astype(np.int64)
    count = len(graph.programs)
    while True:
        group_colour = _group_colours(users, shape, colour)
        seen: dict[bytes, int] = {}
        new = np.empty_like(colour)
        for p, route in zip(graph.programs, routes):
            table = np.concatenate(
                [
                    colour[p.ranks][:, None],
                    group_colour[p.groups].reshape(len(p.ranks), -1),
                    colour[p.peer].reshape(len(p.ranks), -1),
                    p.partner,
                    route,
                ],
                axis=1,
            ).astype(np.int64)
            for rank, line in zip(p.ranks, table):
                new[rank] = seen.setdefault(line.tobytes(), len(seen))
        colour = new
        if len(seen) == count:
            return colour.astype(np.int32), group_colour.astype(np.int32)
        count = len(seen)


def _users(graph: Graph) -> np.ndarray:
    """[k, 3] (group, rank, slot) of every group that a rank uses, sorted by group."""
    parts = [
        np.stack(
            [
                p.groups.ravel(),
                np.repeat(p.ranks, p.groups.shape[1]),
                np.tile(np.arange(p.groups.shape[1]), len(p.ranks)),
            ],
            axis=1,
        )
        for p in graph.programs
    ]
    users = np.concatenate(parts).astype(np.int64)
    return users[np.lexsort((users[:, 1], users[:, 0]))]


def _routes(p: Program, system: System) -> np.ndarray:
    """[m, k] a number for the hops between each rank and its peers."""
    own = np.repeat(p.ranks, p.peer.shape[1])
    if not own.size:
        return np.zeros((len(p.ranks), 0), np.int64)
    table = hops_table(own, p.peer.ravel(), system.network)
    number = np.zeros(len(table), np.int64)
    for k in range(table.shape[1]):
        number = number * (int(table[:, k].max()) + 1) + table[:, k]
    return number.reshape(p.peer.shape)


def _group_colours(users: np.ndarray, shape: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """[G] groups with equal shape and equally coloured members have one colour; -1 unused."""
    result = np.full(len(shape), -1, np.int64)
    if not len(users):
        return result
    value = colour[users[:, 1]] * (int(users[:, 2].max()) + 1) + users[:, 2]
    order = np.lexsort((value, users[:, 0]))
    value, group = value[order], users[order, 0]
    start = np.flatnonzero(np.r_[True, group[1:] != group[:-1]])
    seen: dict[tuple[int, bytes], int] = {}
    for a, b in zip(start, np.r_[start[1:], len(group)]):
        key = (int(shape[group[a]]), value[a:b].tobytes())
        result[group[a]] = seen.setdefault(key, len(seen))
    return result
