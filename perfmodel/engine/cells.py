"""Many designs, few orders: a frozen graph with its certificate is a cell, and answers every design that it certifies.

Which cells pay is learned from a sample: designs that are simulated anyway show how often each order occurs. A cell is
built while the simulations that it is expected to save take longer than building it and trying it on the rest.

Who answers a design decides about the last bits of its makespan (sums are associated differently). So what a batch is
answered by hangs on that batch alone: on no clock (times are estimated from counts) and on no earlier batch, of which
only what has been built is kept. A sweep that is interrupted, or spread over workers, comes out bit for bit the same.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from perfmodel.engine import bulk
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine.bulk import Devices
from perfmodel.engine.reduction import Reduced, cost_between, reduce_observed
from perfmodel.schedule.certificate import TIE, Checks, Decisions, open_decisions
from perfmodel.schedule.comparisons import comparisons
from perfmodel.schedule.frozen_graph import Events

SAMPLE_SIZE = 64
"""Designs that are simulated to learn which orders there are."""

BUILD_S = (0.01, 4e-6)
"""Time to build a cell: in all, and per vertex of its frozen graph [s]; this and the next as measured on a Xeon."""

TRY_S = (5e-7, 5e-10)
"""Time to try a cell on a design: in all, and per vertex, edge and comparison [s]; with paths about twice as much."""

FEWEST = 64
"""Designs from which on it is worth asking at all."""

KEPT_VERTICES = 5_000_000
"""Vertices that the frozen graphs of kept cells may have together."""

NARROW = 4
"""Once so many times as many costs are read as are asked for, those that are asked for are put together."""

MOSTLY = 0.7
"""Share of designs that pass from which on the path counts of all are computed with the certificate."""


class Orders(Protocol):
    """Every design's own order, by simulation."""

    @property
    def digest(self) -> int:
        """Of the reference design's order."""

    @property
    def simulation_s(self) -> float:
        """About how long simulating a design takes, from counts of what there is to do [s]."""

    def __call__(
        self, costs: NDArray[np.float64], *, paths: bool = False, threads: int = 2
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[Any]]:
        """[D] makespan (nan: deadlock), [D] order differs, [S, D] path counts of those where it does (or empty).

        The longest path along the reference's order is the makespan wherever the order does not differ.
        """

    def decided(self) -> Decisions | None:
        """What the reference's schedule decided; None where that cannot be certified."""

    def digests(
        self, costs: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """[D] makespan (nan: not known) and [D] digest of the order, of costs [S, D]."""

    def recorded_at(
        self, cost: NDArray[np.float64]
    ) -> tuple[tuple[NDArray[Any], ...], Callable[[], tuple[Events, Decisions | None]]]:
        """What was written down of the run of a design that ends, costs [S], and what makes the rest of that alone.

        The rest is its frozen graph and what its schedule decided.
        """

    def nodes(
        self, costs: NDArray[np.float64], *, paths: bool, threads: int
    ) -> tuple[NDArray[np.float64], NDArray[Any]] | None:
        """[D] makespan (nan: not known) and [S, D] path counts (or empty) by a quicker exact way; None without one."""


REFERENCE, ANOTHER, SAMPLE, NOBODY = range(4)


@dataclass(frozen=True, eq=False)
class Cell:
    """An order, and the designs that certainly have it: its reduced graph, and what a design has to pass."""

    plan: engine.Plan
    checks: Checks

    def seconds(self, *, paths: bool) -> float:
        """About how long trying it on a design takes [s]."""
        work = len(self.plan.cost) + len(self.plan.slot_in) + len(self.checks)
        return (TRY_S[0] + TRY_S[1] * work) * (1 + paths)

    def answer(
        self,
        costs: NDArray[np.float64],
        *,
        paths: bool,
        threads: int,
        devices: Devices = (),
        designs: NDArray[np.intp] | None = None,
        counts: NDArray[np.float64] | None = None,
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """[D] makespan along this order, [D] whether it is certainly the design's, path counts (or empty).

        `designs` and `counts` are as for `bulk.makespans`: which columns are meant, and where the path counts go.
        """
        width = costs.shape[1] if designs is None else len(designs)
        held = np.ones(width, np.uint8)
        makespan, found = bulk.makespans(
            self.plan,
            costs,
            paths=paths,
            threads=threads,
            devices=devices,
            held=held,
            designs=designs,
            counts=counts,
        )

        sure = np.asarray(held, bool)
        return np.asarray(makespan, np.float64), sure, np.asarray(found, np.float64)


def checks_of(events: Events, decisions: Decisions | None) -> tuple[Events, Checks] | None:
    """The graph with the vertices that comparisons need, and those; None where no design is certified."""
    found = None if decisions is None else open_decisions(events, decisions)
    return None if decisions is None or found is None else comparisons(events, decisions, found)


def cell_of(graph: Events, checks: Checks, costs: int) -> Cell:
    """Lay an order out for the engine."""
    reduced, checks = reduced_with(graph, checks, costs)
    return Cell(engine.plan(reduced, checks), checks)


def reduced_with(graph: Events, checks: Checks, costs: int) -> tuple[Reduced, Checks]:
    """Both after exact reduction, equal comparisons once.

    One time certainly comes before another where a cost lies between them, if that cost is long enough.
    """
    seen = np.unique(np.concatenate([checks.a, checks.b, checks.c]))
    reduced, place = reduce_observed(graph, costs, seen)
    at = [place[np.searchsorted(seen, x)] for x in (checks.a, checks.b, checks.c)]
    a, low, high = at[0], np.minimum(at[1], at[2]), np.maximum(at[1], at[2])
    table = np.stack([a, low, high, checks.strict.astype(np.int64)], axis=1)
    trivial = ((a == low) | (a == high)) & ~checks.strict
    table = np.unique(table[~trivial], axis=0)
    between = cost_between(reduced, table[:, 0], table[:, 1:3])
    table, longer = table[between < 0], between[between >= 0]
    strict = table[:, 3] > 0
    margin = checks.factor.max(initial=1.0)
    return reduced, Checks(
        table[:, 0],
        table[:, 1],
        table[:, 2],
        np.where(strict, margin, 1.0),
        strict,
        np.union1d(checks.longer, longer),
        checks.rows,
        max(TIE, 2 * (margin - 1.0)),
    )


class Cells:
    """Answers batches of designs of one compiled graph.

    Args:
        orders: simulates. vertices: of a frozen graph, from which the time to build a cell is estimated.
        settled: the reference's cell where that has no comparisons: it is tried first.
    """

    def __init__(self, orders: Orders, vertices: int, settled: Cell | None = None):
        self.orders, self.vertices, self.settled = orders, vertices, settled
        self.build_s = BUILD_S[0] + BUILD_S[1] * vertices
        self._built: dict[bytes, Cell | None] = {}

    def answer(
        self, costs: NDArray[np.float64], *, paths: bool, threads: int, devices: Devices = ()
    ) -> tuple[NDArray[np.float64], NDArray[np.int8], NDArray[np.float64]]:
        """What cells can say of designs: [D] makespan, [D] who answered, [S, D] path counts (or empty).

        Who: `REFERENCE`, `ANOTHER`, `NOBODY`, or `SAMPLE` where a design was simulated to learn its order.
        """
        batch = _Batch(costs, paths, threads, devices)
        if self.settled is not None:
            batch.try_on(self.settled, REFERENCE, 1.0)
        while len(batch.left) >= FEWEST and (found := self._next(batch)):
            digest, share = found
            cell = self._cell(batch.design_of(digest))
            batch.looked_at.add(digest)
            if cell is not None and share * self.orders.simulation_s > cell.seconds(paths=paths):
                batch.try_on(cell, REFERENCE if digest == self.orders.digest else ANOTHER, share)
        return batch.makespan, batch.who, batch.counts

    def _next(self, batch: _Batch) -> tuple[int, float] | None:
        """(digest, share) of the most frequent order of a sample of what is left; None where a cell would not pay.

        What cells have not answered of a sample is one of what they have left.
        """
        if len(batch.left) * self.orders.simulation_s < self.build_s:
            return None  # all that is left is simulated sooner than a cell is built
        batch.sample = {d: digest for d, digest in batch.sample.items() if batch.who[d] >= SAMPLE}
        if len(batch.sample) < min(SAMPLE_SIZE // 4, len(batch.left) // 4):
            self._draw(batch)
        seen = Counter(x for x in batch.sample.values() if x not in batch.looked_at)
        digest, often = max(seen.items(), key=lambda item: item[1], default=(0, 0))
        share = (often - 1) / max(len(batch.sample), 1)
        if often < 2 or share * len(batch.left) * self.orders.simulation_s < self.build_s:
            return None
        return digest, share

    def _cell(self, cost: NDArray[np.float64]) -> Cell | None:
        """The cell of a design's order, costs [S]; None where that certifies no design."""
        found, freeze = self.orders.recorded_at(cost)
        key = _hash_of(found)
        if key not in self._built:
            while self._built and (len(self._built) + 1) * self.vertices > KEPT_VERTICES:
                del self._built[next(iter(self._built))]
            checked = checks_of(*freeze())
            self._built[key] = None if checked is None else cell_of(*checked, len(cost))
        return self._built[key]

    def _draw(self, batch: _Batch) -> None:
        """Simulate some of the designs that are left, to learn their order."""
        left = batch.left
        size = min(SAMPLE_SIZE, len(left) // 4)
        sample = left[np.linspace(0, len(left) - 1, size).astype(int)]
        found, digests = self.orders.digests(batch.of(sample), threads=batch.threads)
        ended = np.isfinite(found)
        if not batch.paths:
            batch.makespan[sample[ended]] = found[ended]
            batch.who[sample[ended]] = SAMPLE
            batch.left = left[batch.who[left] == NOBODY]
        batch.sample |= dict(zip(sample[ended].tolist(), map(int, digests[ended]), strict=True))


def _hash_of(found: tuple[NDArray[Any], ...]) -> bytes:
    """Of all that a cell is made from."""
    hasher = hashlib.blake2b()
    for array in found:
        hasher.update(f"{array.dtype}{array.shape}".encode())
        hasher.update(array.tobytes())
    return hasher.digest()


def frozen_at(orders: Orders, cost: NDArray[np.float64]) -> tuple[Events, Decisions | None]:
    """The frozen graph of a design that ends, costs [S], and what its schedule decided."""
    return orders.recorded_at(cost)[1]()


class _Batch:
    """Designs that are being answered; `sample` holds the digests of those that were simulated for it.

    `looked_at` holds the digests of the orders that were tried, or that did not pay. `left` are the designs that nobody
    has answered; those that a cell may still answer, the sample too, are `_open`, and their costs stand in `_table` at
    the columns `_place`.
    """

    def __init__(self, costs: NDArray[np.float64], paths: bool, threads: int, devices: Devices):
        designs = costs.shape[1]
        self.costs, self.paths, self.threads, self.devices = costs, paths, threads, devices
        self.makespan = np.full(designs, np.nan)
        self.who = np.full(designs, NOBODY, np.int8)
        self.counts = np.zeros((len(costs) if paths else 0, designs))
        self.sample: dict[int, int] = {}
        self.looked_at: set[int] = set()
        self.left = np.arange(designs)
        self._open = self.left
        self._table, self._place = costs, self.left

    def of(self, chosen: NDArray[np.intp]) -> NDArray[np.float64]:
        """Costs of some designs."""
        return self.costs if len(chosen) == len(self.who) else self.costs[:, chosen]

    def design_of(self, digest: int) -> NDArray[np.float64]:
        """Costs [S] of the first design of the sample with this order."""
        return self.costs[:, next(d for d, x in self.sample.items() if x == digest)]

    def try_on(self, cell: Cell, who: int, share: float) -> None:
        """Answer what a cell certifies; where a small share is expected to pass, paths are looked for on those only."""
        tried = self._open
        if not len(tried):
            return
        # where it is not certain, somebody else answers later, and says which paths
        at_once = self.paths and share > MOSTLY
        if at_once:
            makespan, sure = self._with_paths(cell, tried)
        else:
            makespan, sure = self._makespans(cell)
        mine = tried[sure]
        self.makespan[mine], self.who[mine] = makespan[sure], who
        self._open, self._place = tried[~sure], self._place[~sure]
        self.left = self._open[self.who[self._open] == NOBODY]
        if self.paths and len(mine) and not at_once:
            self._with_paths(cell, mine)

    def _makespans(self, cell: Cell) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Of all that are open; the costs of few of many are put together first, since each is read with others."""
        if len(self._place) * NARROW <= self._table.shape[1]:
            self._table = np.take(self._table, self._place, axis=1)
            self._place = np.arange(len(self._place))
        return cell.answer(
            self._table,
            paths=False,
            threads=self.threads,
            devices=self.devices,
            designs=None if len(self._place) == self._table.shape[1] else self._place,
        )[:2]

    def _with_paths(
        self, cell: Cell, designs: NDArray[np.intp]
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
        """Makespans and whether they are certain; path counts go to this batch's."""
        return cell.answer(
            self.costs,
            paths=True,
            threads=self.threads,
            devices=self.devices,
            designs=None if len(designs) == len(self.who) else designs,
            counts=self.counts,
        )[:2]
