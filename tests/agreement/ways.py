"""Every way of answering a design's makespan, each by itself, to hold against the simulation of every design.

The ways are the frozen order of the reference where a design's own is the same, certificates of the reference's order,
cells (certificates of other designs' orders), and the schedule of nodes. Each knows the makespan of some designs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import bulk_cpu
from perfmodel.engine.cells import Orders, cell_of, checks_of, frozen_at
from perfmodel.engine.reduction import reduce
from perfmodel.schedule.frozen_graph import Events

SAME = 1e-9
"""Relative distance up to which two makespans are equal; whole nanoseconds have to be equal."""


@dataclass(frozen=True)
class Answer:
    """What a way says of D designs.

    Attributes:
        way: its name.
        makespan: [D]. known: [D] whether it vouches for it.
        counts: [S, D] how often each cost stands on the critical path.
    """

    way: str
    makespan: NDArray[np.float64]
    known: NDArray[np.bool_]
    counts: NDArray[np.float64]


def answers(
    orders: Orders, events: Events, costs: NDArray[np.float64], others: Sequence[int]
) -> Iterator[Answer]:
    """What each way says of costs [S, D].

    Args:
        orders, events: every design's own order, and the frozen graph of the reference's.
        others: designs whose orders become cells; they have to end.
    """
    _, differs, _ = orders(costs, threads=1)
    makespan, counts = bulk_cpu.makespans(
        bulk_cpu.plan(reduce(events, len(costs))), costs, threads=1, paths=True
    )
    yield Answer("frozen", makespan, ~differs, counts)
    yield from _certified("certificate", checks_of(events, orders.decided()), costs)
    for d in others:
        graph = frozen_at(orders, np.ascontiguousarray(costs[:, d]))
        yield from _certified("cell", checks_of(*graph), costs)
    by_nodes = orders.nodes(costs, paths=True, threads=1)
    if by_nodes is not None:
        yield Answer("nodes", by_nodes[0], np.isfinite(by_nodes[0]), by_nodes[1])


def _certified(way: str, checked, costs: NDArray[np.float64]) -> Iterator[Answer]:
    if checked is not None:
        cell = cell_of(*checked, len(costs))
        yield Answer(way, *cell.answer(costs, paths=True, threads=1))


def false_answers(
    answer: Answer, costs: NDArray[np.float64], simulated: NDArray[np.float64], *, exact: bool
) -> list[str]:
    """The designs of which a way says something else than the simulation, or though that does not end.

    Path counts have to add up to the makespan.

    Args:
        simulated: [D] makespans, nan for a deadlock. exact: whole nanoseconds.
    """
    most = 0.0 if exact else SAME
    along = (answer.counts * costs).sum(axis=0)
    found = []
    for what, value in (("", answer.makespan), (", along its path", along)):
        with np.errstate(invalid="ignore"):
            same = np.abs(value - simulated) <= most * np.abs(simulated)
        found += [
            f"{answer.way}{what}, design {d}: {value[d]!r} != {simulated[d]!r}"
            for d in np.flatnonzero(answer.known & ~same)
        ]
    return found
