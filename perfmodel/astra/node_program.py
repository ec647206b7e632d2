"""What the schedule of nodes reads, from the simulator's tables; see `node_scheduler`.

Only for workloads whose collectives are matrices: unaware of congestion, one phase, ring or halving-doubling, queues
with one place, neither a shared bus nor the rendezvous protocol. Nodes that are skipped or stuck and queues at memory
servers are left to the simulator as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import layout, node_scheduler
from perfmodel.astra.collective_matrices import CIRCULANT, EXCLUSIVE_OR, NO_SYMMETRY, Modules
from perfmodel.astra.decisions import ROUNDING
from perfmodel.astra.kernel_tables import Tables
from perfmodel.astra.lower import Lowered
from perfmodel.threads import even_slices, in_threads

Ints = NDArray[np.int64]

MATRIX_REUSE = 2
"""A matrix is made for collectives that occur so many times as often as it has columns to be computed."""


@dataclass(frozen=True, eq=False)
class NodeProgram:
    """A workload ready to be scheduled by nodes; the tuples are what `node_scheduler.simulate` takes."""

    program: tuple[Any, ...]
    modules: Modules
    layout: tuple[Any, ...]
    sizes: tuple[int, ...]
    most_members: int
    most_choices: int

    def makespans(
        self, costs: NDArray[np.float64], *, paths: bool, threads: int, truncate: bool
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64], NDArray[np.float64]]:
        """Designs with costs [S, D].

        Where moments that are equal but for rounding leave a design open, it is done again without matrices:
        recurrences add up in the simulator's order, and what is equal then is equal there, to the bit.

        Returns:
            [D] makespan [ns], nan where it is given up; [D] digest of the order; [S, D] path counts (or empty).
        """
        designs = costs.shape[1]
        makespan, digest = np.empty(designs), np.empty(designs, np.uint64)
        counts = np.zeros((designs, len(costs) if paths else 0))
        tolerance = 0.0 if truncate else ROUNDING
        self._run(costs, self.layout, tolerance, (makespan, digest, counts), threads)
        lost = np.flatnonzero(np.isnan(makespan))
        if len(lost) and not truncate:
            matrix_ptr, symmetry = self.layout
            none = np.full_like(matrix_ptr, -1), symmetry
            found = makespan[lost], digest[lost], np.zeros_like(counts[lost])
            self._run(costs[:, lost], none, 0.0, found, threads)
            makespan[lost], digest[lost], counts[lost] = found
        return makespan, digest, counts.T if paths else np.zeros((0, designs))

    def _run(
        self,
        costs: NDArray[np.float64],
        matrices: tuple[Any, ...],
        tolerance: float,
        found: tuple[NDArray[Any], ...],
        threads: int,
    ) -> None:
        """Fill `found`: [D] makespans, [D] digests and [D, S] or [D, 0] path counts."""
        makespan, digest, counts = found

        def work(part: slice) -> None:
            node_scheduler.simulate_many(
                costs[:, part],
                self.program,
                self.modules,
                matrices,
                self.sizes,
                (self.most_members, self.most_choices),
                tolerance,
                makespan[part],
                digest[part],
                counts[part],
            )

        in_threads(work, even_slices(costs.shape[1], threads))


def node_program(lowered: Lowered) -> NodeProgram | None:
    """A workload by nodes; None where it is one that only the simulator takes."""
    t = lowered.tables
    node = {name: t.node_column(k) for k, name in enumerate(layout.NODE_FIELDS)}
    phases, plans = (
        _table(t, layout.T_PHASES, layout.PHASE_W),
        _table(t, layout.T_PLANS, layout.PLAN_W),
    )
    if not _covered(t, node, phases, plans):
        return None
    n = t.nodes
    words = t.words
    action = node["action"]
    row = node["row"].copy()
    sends = action == layout.SEND
    row[sends] = _message_rows(t, node["rank"][sends], node["peer"][sends], node["size"][sends])
    key, messages = _message_keys(node)
    calls = np.flatnonzero(action == layout.COLLECTIVE)
    rings = _Rings(t, node, phases, plans, calls)
    succ_ptr = words[words[layout.T_SUCCESSOR_PTR] :][: n + 1]
    succ = words[words[layout.T_SUCCESSOR] :][: succ_ptr[-1]]
    heap_ptr = words[words[layout.T_READY_PTR] :][: 4 * t.ranks + 1]
    ints = np.int32
    program = (
        node["rank"].astype(ints),
        node["unit"].astype(ints),
        action.astype(ints),
        row.astype(ints),
        succ_ptr.astype(ints),
        succ.astype(ints),
        node["indegree"].astype(ints),
        heap_ptr.astype(ints),
        key.astype(ints),
        *(column.astype(ints) for column in rings.columns(n)),
        rings.instance_ptr.astype(ints),
        rings.slot_ptr.astype(ints),
        rings.members.astype(ints),
        t.ranks,
    )
    modules, matrix_ptr, symmetry, numbers = rings.modules()
    most_members = int(rings.members.max(initial=1))
    choices = modules.members.astype(np.int64) * modules.chunks * modules.sends
    return NodeProgram(
        program=program,
        modules=modules,
        layout=(matrix_ptr, symmetry),
        sizes=(
            n,
            t.ranks,
            int(rings.slots),
            int(rings.instance_ptr[-1]),
            messages,
            max(rings.counters, t.members, 1),
            numbers,
        ),
        most_members=most_members,
        most_choices=int(choices.max(initial=1)),
    )


def _table(t: Tables, field: int, width: int) -> Ints:
    start, end = int(t.words[field]), int(t.words[field + 1])
    return t.words[start:end].reshape(-1, width)


def _covered(t: Tables, node: dict[str, Ints], phases: Ints, plans: Ints) -> bool:
    action = node["action"]
    if t.words[layout.T_BUS] == 1 or t.words[layout.T_RENDEZVOUS] >= 0:
        return False
    if t.words[layout.T_NETWORK] != layout.UNAWARE or t.words[layout.T_QUEUES] != 1:
        return False
    if ((action == layout.SKIP) | (action == layout.STUCK)).any():
        return False
    if (node["server"][action == layout.MEMORY] >= 0).any():
        return False
    if t.words[layout.T_PLACES] != 1 or (plans[:, layout.PLAN_COUNT] > 1).any():
        return False
    members, algorithm = phases[:, layout.PHASE_MEMBERS], phases[:, layout.PHASE_ALGORITHM]
    halving = algorithm == layout.HALVING
    odd = halving & (members & (members - 1) != 0)
    return bool(((algorithm == layout.RING) | halving).all() and not odd.any())


def _message_rows(t: Tables, source: Ints, target: Ints, size: Ints) -> Ints:
    """Cost row of messages: by size, the first dimension in which the addresses differ, and the hops there."""
    words = t.words
    dims = words[words[layout.T_DIMS] :][: words[layout.T_DIM_COUNT] * layout.DIM_W]
    kind = np.full(len(source), -1, np.int64)
    for d in dims.reshape(-1, layout.DIM_W):
        extent, stride = d[layout.DIM_EXTENT], d[layout.DIM_STRIDE]
        up = (target // stride - source // stride) % extent
        here = (kind < 0) & (up > 0)
        hops = np.minimum(up, extent - up) - 1 if d[layout.DIM_RING] else 0
        kind = np.where(here, d[layout.DIM_CLASS] + hops, kind)
    rows: Ints = words[words[layout.T_MESSAGE_ROWS] + size * words[layout.T_CLASSES] + kind]
    return rows


def _message_keys(node: dict[str, Ints]) -> tuple[Ints, int]:
    """First message of each send's and receive's kind (tag, source, target, size), and the number of messages."""
    action = node["action"]
    talks = np.flatnonzero((action == layout.SEND) | (action == layout.RECV))
    sending = action[talks] == layout.SEND
    own, peer = node["rank"][talks], node["peer"][talks]
    table = np.stack(
        [
            node["tag"][talks],
            np.where(sending, own, peer),
            np.where(sending, peer, own),
            node["size"][talks],
        ],
        axis=1,
    )
    _, kind = np.unique(table, axis=0, return_inverse=True)
    kind = kind.ravel()
    count = np.maximum(np.bincount(kind[sending], minlength=1), 0)
    kinds = int(kind.max(initial=-1)) + 1
    count = np.bincount(kind[sending], minlength=kinds)
    count = np.maximum(count, np.bincount(kind[~sending], minlength=kinds))
    first = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    key = np.full(len(action), -1, np.int64)
    key[talks] = first[kind]
    return key, int(first[-1])


class _Rings:
    """Who meets whom in collectives: one ring per list of members in the order of the algorithm."""

    def __init__(self, t: Tables, node: dict[str, Ints], phases: Ints, plans: Ints, calls: Ints):
        self.t, self.phases, self.plans, self.calls = t, phases, plans, calls
        plan = plans[node["plan"][calls]]
        phase = phases[plan[:, layout.PLAN_FIRST]]
        rank = node["rank"][calls]
        n, stride = phase[:, layout.PHASE_MEMBERS], phase[:, layout.PHASE_STRIDE]
        step = np.maximum(stride, 1)
        place = (rank // step) % n
        base = np.where(stride > 0, rank - place * step, 0)
        self.member = np.where(stride > 0, place, node["member"][calls])
        family = plan[:, layout.PLAN_FAMILY]
        table = np.stack([family, stride, phase[:, layout.PHASE_LIST], n, base], axis=1)
        self.rings, self.ring = np.unique(table, axis=0, return_inverse=True)
        self.ring = self.ring.ravel()
        self.members = self.rings[:, 3]
        self.call_base = np.concatenate([[0], np.cumsum(self.members)]).astype(np.int64)
        self.counters = int(self.call_base[-1])
        self.call = self.call_base[self.ring] + self.member
        made = np.bincount(self.call, minlength=self.counters)
        instances = np.array(
            [made[a:b].max(initial=0) for a, b in zip(self.call_base, self.call_base[1:])],
            np.int64,
        )
        self.instance_ptr = np.concatenate([[0], np.cumsum(instances)]).astype(np.int64)
        slots = np.concatenate([[0], np.cumsum(instances * self.members)]).astype(np.int64)
        self.slot_ptr, self.slots = slots[:-1], int(slots[-1])
        self.tag = np.where(family >= 0, plan[:, layout.PLAN_COUNTER] + node["member"][calls], -1)
        self.chunks = plan[:, layout.PLAN_CHUNKS]
        pairs, self.pair = np.unique(
            np.stack([node["plan"][calls], self.ring], axis=1), axis=0, return_inverse=True
        )
        self.pair = self.pair.ravel()
        self.found: dict[tuple[Any, ...], int] = {}
        self.number = np.array([self._module(p, r) for p, r in pairs.tolist()], np.int64)
        self.module = self.number[self.pair] if len(calls) else np.zeros(0, np.int64)

    def columns(self, n: int) -> list[Ints]:
        """Module, member, ring, counter of calls, counter of chunks (-1: the rank's stream), chunks, by node."""
        result = []
        for values in (self.module, self.member, self.ring, self.call, self.tag, self.chunks):
            column = np.full(n, -1, np.int64)
            column[self.calls] = values
            result.append(column)
        return result

    def _module(self, plan: int, ring: int) -> int:
        """The number of what a plan does on a ring: equal for rings of equal message costs."""
        words = self.t.words
        chunks, first = self.plans[plan][[layout.PLAN_CHUNKS, layout.PLAN_FIRST]].tolist()
        phase = self.phases[first]
        n, base = int(phase[layout.PHASE_MEMBERS]), int(self.rings[ring, 4])
        stride = int(phase[layout.PHASE_STRIDE])
        place = np.arange(n)
        if stride > 0:
            ranks = base + place * stride
        else:
            start = words[layout.T_MEMBERS] + phase[layout.PHASE_LIST]
            ranks = words[start : start + n]
        sends = int(phase[layout.PHASE_SENDS])
        reduces, period = int(phase[layout.PHASE_REDUCES]), int(phase[layout.PHASE_PERIOD])
        source: list[tuple[int, ...]] = []
        edge: list[tuple[int, ...]] = []
        reduction: list[int] = []
        if phase[layout.PHASE_ALGORITHM] == layout.RING:
            before = (place - 1) % n
            rows = _message_rows(self.t, ranks[before], ranks, np.full(n, phase[layout.PHASE_SIZE]))
            source, edge = [tuple(before.tolist())], [tuple(rows.tolist())]
            for j in range(sends + 1):
                does = reduces > 0 and j % period >= 1 and (reduces == 2 or j // period % 2 == 0)
                reduction.append(int(phase[layout.PHASE_REDUCTION]) if does else -1)
        else:
            at = words[layout.T_STEPS] + phase[layout.PHASE_STEPS] * layout.STEP_W
            steps = words[at : at + (sends + 1) * layout.STEP_W].reshape(-1, layout.STEP_W)
            for distance, size, *_ in steps[:sends].tolist():
                partner = (
                    np.where(place // distance % 2 == 0, place + distance, place - distance) % n
                )
                rows = _message_rows(self.t, ranks[partner], ranks, np.full(n, size))
                source.append(tuple(partner.tolist()))
                edge.append(tuple(rows.tolist()))
            reduction = steps[:, layout.STEP_REDUCTION].tolist()
        delay = int(phase[layout.PHASE_ROW])
        key = (n, chunks, sends, delay, tuple(reduction), tuple(source), tuple(edge))
        return self.found.setdefault(key, len(self.found))

    def modules(self) -> tuple[Modules, Ints, Ints, int]:
        """(the modules, [M] begin of each one's matrix or -1, [M] its symmetry, entries of all matrices)."""
        scalars: list[list[int]] = [[], [], [], []]
        reduction_ptr, edge_ptr, per_step = [], [], []
        reductions: list[int] = []
        source: list[int] = []
        edge: list[int] = []
        matrix_ptr, symmetry = [], []
        numbers = 0
        often = np.bincount(self.module, minlength=len(self.found))
        for k, (n, chunks, sends, delay, reduction, sources, edges) in enumerate(self.found):
            for column, value in zip(scalars, (n, chunks, sends, delay)):
                column.append(value)
            reduction_ptr.append(len(reductions))
            edge_ptr.append(len(source))
            per_step.append(n if len(sources) > 1 else 0)
            reductions += reduction
            for line, rows in zip(sources, edges):
                source += line
                edge += rows
            alike = all(len(set(rows)) == 1 for rows in edges)
            kind = NO_SYMMETRY
            if alike:
                ring = len(sources) == 1 and n > 2
                kind = CIRCULANT if ring else EXCLUSIVE_OR
            columns = 1 if kind != NO_SYMMETRY else n
            if often[k] >= MATRIX_REUSE * columns * n:  # as many instances as columns
                matrix_ptr.append(numbers)
                numbers += n * n
            else:
                matrix_ptr.append(-1)
            symmetry.append(kind)
        columns_of = (*scalars, reduction_ptr, edge_ptr, per_step, reductions, source, edge)
        return (
            Modules(*(np.array(column, np.int32) for column in columns_of)),
            np.array(matrix_ptr, np.int32),
            np.array(symmetry, np.int32),
            numbers,
        )
