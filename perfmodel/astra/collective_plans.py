"""Collectives as the simulator needs them: chunks, phases, members, messages and their cost rows.

Every distinct collective (type, size, group, involved dimensions) becomes one plan; the phases of a plan are
templates that all ranks share. Rules: ASTRA-sim's `generate_collective`, chunk sizes and queue levels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import costs, layout
from perfmodel.astra.algorithm_phases import (
    ALL_GATHER,
    ALL_REDUCE,
    KEYS,
    REDUCE_SCATTER,
    Algorithm,
    PhaseMembers,
    phase_of,
)
from perfmodel.astra.config import Config
from perfmodel.astra.config_values import LARGEST
from perfmodel.errors import InputError, SystemFileError, TraceError

MOST_CHUNKS = 100_000
"""Chunks of a collective; each of them takes memory on each rank."""
SMALL = 8192
"""Size of the message with which a receiver asks for another, with the rendezvous protocol [B]."""
INNER_PER_BYTE = 0.0038
"""G of the inner shared bus, between a rank's NPU and its memory [ns/B]."""


@dataclass(frozen=True)
class CustomFile:
    """One position's trace of a custom collective: its sends and receives by node id and peer."""

    path: Path
    messages: tuple[tuple[int, int], ...]


@dataclass
class Planner:
    """Collects plans, phases, steps, trees and message sizes while a workload is lowered."""

    config: Config
    groups: tuple[tuple[int, ...], ...]
    rows: costs.RowTable
    plans: list[tuple[int, ...]] = field(default_factory=list)
    phases: list[dict[str, int]] = field(default_factory=list)
    steps: list[tuple[int, int, int, int]] = field(default_factory=list)
    places: list[tuple[int, int, int, int]] = field(default_factory=list)
    alternatives: list[int] = field(default_factory=list)
    choices: int = 0
    custom_start: dict[str, int] = field(default_factory=dict)
    custom_files: dict[str, list[CustomFile]] = field(default_factory=dict)
    _sizes: dict[int, int] = field(default_factory=dict)
    trees: dict[int, int] = field(default_factory=dict)
    _used: set[tuple[int, int, int]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.starts = np.cumsum([0, *(len(g) for g in self.groups)])
        self.members = np.array([r for g in self.groups for r in g], np.int32)
        self.extents = np.array(self.config.network.sizes, np.int64)
        self.strides = np.concatenate([[1], np.cumprod(self.extents)[:-1]]).astype(np.int64)
        bus = self.config.system.bus
        self.per_byte = [bus.gap_per_byte, INNER_PER_BYTE] if bus else []
        self.small = self.size(SMALL) if self.config.system.rendezvous else -1

    def size(self, size: int) -> int:
        """The number of a message size [B]; 0 bytes abort ASTRA-sim."""
        if size <= 0:
            raise TraceError(
                "needs a message of 0 bytes, on which ASTRA-sim aborts; a larger comm_size or fewer "
                "preferred-dataset-splits avoid it"
            )
        system = self.config.system
        if size > LARGEST and (system.rendezvous or system.bus):
            raise TraceError(
                f"needs a message of {size} B; with --rendezvous-protocol or model-shared-bus ASTRA-sim keeps 31 bits "
                f"of a size; messages of at most {LARGEST} B"
            )
        return self._sizes.setdefault(size, len(self._sizes))

    def use(self, size: int, source: NDArray[np.int64], target: NDArray[np.int64]) -> None:
        """Make cost rows for messages of a size between ranks."""
        if self.config.backend == "aware":
            self._used.add((size, 0, 0))
            return
        dimension, hops = hops_between(self.config, source, target)
        for k, h in np.unique(np.stack([dimension, hops]), axis=1).T.tolist():
            self._used.add((size, k, h))

    def plan(self, kind: int, size: int, group: int, involved: int, custom: str = "") -> int:
        """The plan of a collective of one rank's `size` bytes, or of a custom one; -1 where it would never end.

        Raises:
            TraceError, SystemFileError: without rank and node, which the caller adds.
        """
        if kind not in KEYS:
            raise TraceError(
                f"has comm_type {kind}; ASTRA-sim runs all-reduce (0), all-gather (2), broadcast (5), "
                "all-to-all (6) and reduce-scatter (7)"
            )
        first = len(self.phases)
        system = self.config.system
        key = KEYS[kind]
        if custom:
            chunks = self._chunks(kind, size)[1]
            if chunks != 1:
                raise SystemFileError(
                    f"{system.source}: preferred-dataset-splits {system.splits} makes {chunks} chunks of a "
                    f"collective, but the custom implementation {custom!r} runs one: ASTRA-sim then waits for "
                    "the others for ever; set it to 1"
                )
            self._add_custom(custom, group)
        else:
            if key not in system.algorithms:
                raise SystemFileError(f"{system.source} has no {key}-implementation")
            chunk, chunks = self._chunks(kind, size)
            dimensions = self._dimensions(kind, group, involved)
            self._add_phases(kind, chunk, dimensions)
        count = len(self.phases) - first
        if count == 0:
            return -1
        if count > layout.MAX_PHASES:
            raise TraceError(f"runs in {count} phases; up to {layout.MAX_PHASES} are modelled")
        counter = int(self.starts[group])
        self.plans.append((chunks, first, count, group - 1, counter, -1, 0, 0))
        return len(self.plans) - 1

    def choose(self, choice: int, plans: Sequence[int]) -> None:
        """Let a rank run a collective by that of its `plans` whose place in them the first issued of `choice` has."""
        for variant, plan in enumerate(plans):
            self.plans[plan] = (*self.plans[plan][:-3], choice, variant, len(self.alternatives))
        self.alternatives += plans
        self.choices = max(self.choices, choice + 1)

    def _chunks(self, kind: int, size: int) -> tuple[int, int]:
        splits, ranks = self.config.system.splits, self.config.network.ranks
        chunk = size // splits
        if splits > MOST_CHUNKS:
            raise SystemFileError(
                f"{self.config.system.source}: preferred-dataset-splits {splits}; up to {MOST_CHUNKS} chunks of "
                "a collective are modelled"
            )
        if kind != ALL_GATHER and chunk < ranks:
            return ranks, splits
        if chunk == 0:
            raise TraceError(
                f"has comm_size {size}, less than preferred-dataset-splits {splits}: its chunks are empty"
            )
        return chunk, -(-size // chunk)

    def _dimensions(self, kind: int, group: int, involved: int) -> list[PhaseMembers]:
        """The dimensions of a collective by ascending level, masked ones and those of size 1 left out."""
        algorithms = self.config.system.algorithms[KEYS[kind]]
        ranks = self.config.network.ranks
        members = self.groups[group]
        if group > 0 and len(members) < ranks:
            algorithm = algorithms[0] if len(algorithms) == 1 else Algorithm("ring")
            if len(members) == 1:
                return []
            return [PhaseMembers(algorithm, len(members), 0, int(self.starts[group]), 0)]
        if group > 0:
            involved = -1
        if involved < 0 and group == 0 and len(algorithms) > 4:
            raise TraceError("has no involved_dim; ASTRA-sim then involves four dimensions at most")
        found = []
        for k, algorithm in enumerate(algorithms):
            if algorithm.flat:
                extent, stride = ranks, 1
            else:
                extent, stride = int(self.extents[k]), int(self.strides[k])
            last = k + 1 == len(self.extents) or k + 1 < len(algorithms)
            if extent > 1 and (involved < 0 or involved >> k & 1):
                found.append(PhaseMembers(algorithm, extent, stride, 0, k, last))
            if algorithm.flat:
                break
        return found

    def _add_phases(self, kind: int, size: int, dimensions: list[PhaseMembers]) -> None:
        if kind == ALL_REDUCE and not self.config.system.baseline:
            up, turn = dimensions[:-1], dimensions[-1:]
            for d in up:
                size = self._add(d, REDUCE_SCATTER, size, layout.LOWER_QUEUES, kind)
            for d in turn:
                size = self._add(d, ALL_REDUCE, size, layout.LOWER_QUEUES, kind)
            for d in reversed(up):
                size = self._add(d, ALL_GATHER, size, layout.UPPER_QUEUES, kind)
            return
        for d in reversed(dimensions) if kind == ALL_GATHER else dimensions:
            size = self._add(d, kind, size, layout.ALL_QUEUES, kind)

    def _add(self, d: PhaseMembers, kind: int, size: int, queues: int, collective: int) -> int:
        """Append a phase; returns the bytes that a rank holds after it."""
        phase, after = phase_of(self, d, kind, size, queues, collective)
        self.phases.append(phase)
        return after

    def reduction(self, size: int) -> int:
        """The cost row of a local reduction."""
        if self.config.system.memory_bandwidth <= 0:
            raise SystemFileError(
                f"{self.config.system.source} has no local-mem-bw, which local reductions need"
            )
        return self.rows.row(costs.REDUCTION, size)

    def packet_size(self, size: int) -> int:
        """The number of the size of a packet that crosses the shared bus, if there is one, without a message."""
        return self._sizes.setdefault(size, len(self._sizes)) if self.per_byte else 0

    def use_offsets(self, size: int, d: PhaseMembers, offsets: Iterable[int]) -> None:
        """Make cost rows for messages to members so many places further; all places of a dimension are alike."""
        if d.in_group:
            ranks = self.members[d.list : d.list + d.members].astype(np.int64)
        else:
            ranks = np.arange(d.members, dtype=np.int64) * d.stride
        for offset in offsets:
            self.use(size, ranks, np.roll(ranks, -offset))

    def _add_custom(self, prefix: str, group: int) -> None:
        """A phase of a custom trace: files go to the members in ascending order, peers are places in the list."""
        listed, files = self.groups[group], self.custom_files[prefix]
        members = len(listed)
        aborts = self.config.backend == "unaware"  # on a message from a rank to itself
        if len(files) < members:
            path = files[0].path.with_name(f"{Path(prefix).name}.{len(files)}.et")
            raise TraceError(
                f"runs the custom collective {prefix!r} on {members} members, but {path} is missing: "
                f"it needs a file for each of the positions 0 to {members - 1}"
            )
        for rank, file in zip(sorted(listed), files):
            for node, peer in file.messages:
                if peer >= members or (aborts and listed[peer] == rank):
                    raise TraceError(
                        f"runs the custom collective {prefix!r} on {members} members, but {file.path}: "
                        f"node {node} names peer {peer}; expected the position of another member, 0 to "
                        f"{members - 1} in the order of the group's list"
                    )
        self.phases.append(
            {
                "algorithm": layout.CUSTOM,
                "list": int(self.starts[group]) if group > 0 else -1,
                "steps": self.custom_start[prefix],
                "reduction": -1,
                "row": -1,
            }
        )

    def tables(self) -> dict[str, NDArray[Any]]:
        """Everything collected, as the kernel's tables; cost rows still carry their first numbers."""
        sizes = np.full((max(len(self._sizes), 1), layout.SIZE_W), -1, np.int64)
        first = np.concatenate([[0], np.cumsum(np.where(self._is_ring(), self.extents // 2, 1))])
        table = np.full((len(sizes), int(first[-1])), -1, np.int64)
        inverse = {number: size for size, number in self._sizes.items()}
        sizes[: len(inverse), layout.SIZE_BYTES] = list(self._sizes)
        if self.small >= 0:  # the way back has as many hops in the same dimension
            self._used |= {(self.small, k, hops) for _, k, hops in self._used}
        for number, k, hops in sorted(self._used):
            if self.config.backend == "aware":
                sizes[number, layout.SIZE_HOLD] = self.rows.row(costs.HOLD, inverse[number])
                sizes[number, layout.SIZE_ARRIVE] = self.rows.row(costs.ARRIVAL, inverse[number])
            else:
                place = first[k] + (hops - 1 if self._is_ring()[k] else 0)
                table[number, place] = self.rows.row(costs.MESSAGE, inverse[number], k, hops)
        dims = np.stack(
            [self.extents, self.strides, self._is_ring().astype(np.int64), first[:-1]], 1
        )
        phases = np.array(
            [[phase.get(name, 0) for name in layout.PHASE_FIELDS] for phase in self.phases],
            np.int64,
        ).reshape(-1, layout.PHASE_W)
        return {
            "plans": np.array(self.plans, np.int64).reshape(-1, layout.PLAN_W),
            "alternatives": np.array(self.alternatives, np.int64),
            "phases": phases,
            "steps": np.array(self.steps, np.int64).reshape(-1, layout.STEP_W),
            "trees": np.array(self.places, np.int64).reshape(-1, layout.TREE_W),
            "members": self.members.astype(np.int64),
            "sizes": sizes,
            "message_rows": table,
            "bus": self._bus_rows(sizes),
            "dims": dims.astype(np.int64),
        }

    def _bus_rows(self, sizes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Durations on the shared bus by message size, and [1, 7] figures of the bus, the first whether it is there.

        They are cut to whole ns as after a start that waits for the overhead alone. The simulator cuts the sum with
        what the start waited for, which is a whole number of ns, too: the same, whatever that was.
        """
        bus = self.config.system.bus
        if bus is None:
            return np.array([[0, 0, 0, 0, 0, -1, -1]])
        o = float(bus.overhead)
        for size, row in zip(self._sizes, sizes, strict=False):
            for k, per_byte in enumerate(self.per_byte):
                wire = per_byte * (size - 1)
                hold = max(math.trunc(o + wire), bus.overhead) - o
                arrive = max(math.trunc(o + wire + bus.latency + o), bus.overhead) - o
                row[layout.SIZE_BUS_HOLD + 2 * k] = self.rows.row(costs.DELAY, hold)
                row[layout.SIZE_BUS_ARRIVE + 2 * k] = self.rows.row(costs.DELAY, arrive)
            work = size // 100 * bus.reduction_delay + 50
            row[layout.SIZE_PROCESS] = self.rows.row(costs.DELAY, work)
        figures = (1, bus.latency, bus.overhead, bus.gap, bus.reduction_delay)
        waits = (self.rows.row(costs.DELAY, bus.overhead), self.rows.row(costs.DELAY, bus.gap))
        return np.array([figures + waits])

    def _is_ring(self) -> NDArray[np.bool_]:
        return np.array([name == "Ring" for name in self.config.network.topology])


def hops_between(
    config: Config, source: NDArray[np.int64], target: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Dimension and hops of messages: the first dimension in which the addresses differ carries them."""
    dimension = np.full(len(source), -1)
    hops = np.zeros(len(source), np.int64)
    stride = 1
    for k, (extent, name) in enumerate(zip(config.network.sizes, config.network.topology)):
        a, b = source // stride % extent, target // stride % extent
        here = (dimension < 0) & (a != b)
        up = (b - a) % extent
        count = {"FullyConnected": 1, "Switch": 2}.get(name, np.minimum(up, extent - up))
        hops = np.where(here, count, hops)
        dimension = np.where(here, k, dimension)
        stride *= extent
    if (dimension < 0).any():
        raise InputError("a message from a rank to itself")
    return dimension, hops
