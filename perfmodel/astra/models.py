"""ASTRA-sim's inputs for the general pipeline: the same runs, swept, differentiated, explained.

`load` gives a graph, a system and models. The models lower the graph to single messages in the simulator's way; the
longest path over the recorded order then equals the simulator's cycles, and the order each design would take itself
comes from running the simulator's semantics again. Costs are in ns; results are in seconds, as everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import costs, event_run
from perfmodel.astra.config import Config, read_config, warn_of_ignored
from perfmodel.astra.custom_files import warn_of_sizes
from perfmodel.astra.deadlock import diagnose
from perfmodel.astra.decisions import decisions
from perfmodel.astra.event_run import Run
from perfmodel.astra.flat_nodes import FlatNodes
from perfmodel.astra.lower import Lowered, lower
from perfmodel.astra.node_program import NodeProgram, node_program
from perfmodel.astra.traces import aliases, trace_files, warn_of_left_out
from perfmodel.compiled import Compiled
from perfmodel.errors import DeadlockError, InputError
from perfmodel.machine.system import NPU, Dimension, RemoteMemory, System
from perfmodel.pytree import number, record, static
from perfmodel.schedule.certificate import Decisions
from perfmodel.schedule.frozen_graph import Events, path_counts
from perfmodel.trace import chakra
from perfmodel.vocabulary import COMMUNICATION, COMPUTE, MEMORY
from perfmodel.workload.graph import Graph
from perfmodel.workload.load import examine

NANOSECOND = 1e-9
LENIENT = frozenset(
    {
        "no-work",
        "no-size",
        "collective-type",
        "no-peer",
        "self-message",
        "unmatched",
        "size-mismatch",
        "type-mismatch",
        "member-count",
        "missing-member",
        "not-a-member",
        "missing-rank",
    }
)
"""What `lower` and the simulator judge by their own rules."""

RUN_S, EVENT_S, NODE_S = 1e-5, 1.7e-7, 2e-7
"""Time to run a design: in all; per event; or per node, by the schedule of nodes [s], as measured on a Xeon."""

TOPOLOGIES = {"Ring": "ring", "Switch": "switch", "FullyConnected": "fully-connected"}
CATEGORY = {
    costs.FIXED: COMPUTE,
    costs.ROOFLINE: COMPUTE,
    costs.REMOTE: MEMORY,
}
"""Category of each kind of cost; the others are communication."""


@dataclass(frozen=True, eq=False)
class Setup:
    """What of a configuration is no number; equal only to itself."""

    config: Config


@record
class AstraModels:
    """ASTRA-sim's analytical models as one lowering.

    Attributes:
        endpoint_delay: [s] before each message of a collective over all ranks.
        setup: algorithms, chunks, queues, backend.
        truncate: whole nanoseconds as in the simulator; without it costs are smooth in the parameters.
    """

    endpoint_delay: Any = number("s")
    setup: Setup = static()
    truncate: bool = static(default=False)

    def lower(self, graph: Graph, system: System) -> Compiled:
        """Simulate at the reference design, and keep its order.

        Raises:
            TraceError, SystemFileError: what the simulator cannot run.
            DeadlockError: ranks that wait for each other.
        """
        config = self.setup.config
        if any((p.scale != 1.0).any() for p in graph.programs):
            raise InputError(
                f"{graph.source}: whatif.scale and whatif.straggler are not modelled in ASTRA-sim mode; change the "
                "work of nodes with whatif.replace, or parameters"
            )
        lowered = lower(flat_of(graph), config)
        bound = _Bound(lowered, self.truncate)
        cost = np.asarray(bound(system, self), np.float64)
        run = event_run.run(lowered, cost, record=True)
        if not run.ok:
            raise DeadlockError(*diagnose(lowered, run).split("\n"))
        events = frozen_events(run.events)
        return Compiled(
            graph=graph,
            system=system,
            models=self,
            rank_class=np.arange(graph.ranks, dtype=np.int32),
            representative=np.arange(graph.ranks, dtype=np.int32),
            offset=graph.offset,
            events=events,
            category=_categories(lowered),
            evaluate=bound,
            own=AstraOrders(lowered, run, cost, self.truncate),
            partner=np.full(len(graph), -1, np.int32),
            unit=NANOSECOND,
            batched=self.truncate,
            smooth=_Bound(lowered, False),
        )


def _categories(lowered: Lowered) -> NDArray[np.int8]:
    """[S] category of each cost."""
    kinds = lowered.rows.work[:, 0].astype(int)
    return np.array([CATEGORY.get(kind, COMMUNICATION) for kind in kinds], np.int8)


def flat_of(graph: Graph) -> FlatNodes:
    """The nodes of all ranks as the simulator takes them."""
    values = {f.name: getattr(graph.flat, f.name) for f in fields(graph.flat)}
    return FlatNodes(**values, group_names=graph.group_names)


@dataclass(frozen=True, eq=False)
class _Bound:
    """(system, models) -> [S] or [S, D] costs [ns]."""

    lowered: Lowered
    truncate: bool

    def __call__(self, system: System, models: AstraModels) -> Any:
        values: dict[str, Any] = {
            "npu.peak_flops": system.npu.peak_flops,
            "npu.memory_bandwidth": system.npu.memory_bandwidth,
            "endpoint_delay": models.endpoint_delay,
        }
        for k, dimension in enumerate(system.network):
            values[f"network.{k}.bandwidth"] = dimension.bandwidth
            values[f"network.{k}.latency"] = dimension.latency
        if system.remote_memory is not None:
            values["remote_memory.bandwidth"] = system.remote_memory.bandwidth
            values["remote_memory.latency"] = system.remote_memory.latency
        return self.lowered.costs(values, truncate=self.truncate)


@dataclass(frozen=True, eq=False)
class AstraOrders:
    """Every design's own run, and its critical path where the order is another; see `cells.Orders`.

    Attributes:
        lowered: the workload. reference: the recorded run at the reference design, costs [S] `cost`.
        truncate: costs are whole numbers.
    """

    lowered: Lowered
    reference: Run
    cost: NDArray[np.float64]
    truncate: bool

    @cached_property
    def digest(self) -> int:
        """Of the reference's order."""
        return int(self.digests(self.cost[:, None], 1)[1][0])

    @property
    def simulation_s(self) -> float:
        """About how long a run of a design takes [s]."""
        if self.program is not None:
            return RUN_S + NODE_S * len(self.lowered.order)
        return RUN_S + EVENT_S * self.reference.count

    def decided(self) -> Decisions | None:
        """What the reference's run decided."""
        return self._decisions(self.reference, frozen_events(self.reference.events))

    def _decisions(self, run: Run, events: Events) -> Decisions | None:
        return decisions(self.lowered, run, events, truncate=self.truncate)

    def digests(
        self, costs: NDArray[np.float64], threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
        """Makespans (nan: not known) and digests of some designs."""
        if self.program is not None:
            return self._by_node(costs, paths=False, threads=threads)[:2]
        ends, found = event_run.run_many(self.lowered, costs, threads=threads)
        return ends.max(axis=0), found

    def recorded_at(
        self, cost: NDArray[np.float64]
    ) -> tuple[tuple[NDArray[Any], ...], Callable[[], tuple[Events, Decisions | None]]]:
        """What says all of a design's run, its frozen graph and what it decided; and these two."""
        run = event_run.run(self.lowered, np.ascontiguousarray(cost), record=True)
        events = frozen_events(run.events)
        decided = self._decisions(run, events)
        known = [vars(record) for record in (events, decided) if record is not None]
        found = tuple(np.asarray(value) for record in known for value in record.values())
        return found, lambda: (events, decided)

    @cached_property
    def program(self) -> NodeProgram | None:
        """The workload by nodes."""
        return node_program(self.lowered)

    def nodes(
        self, costs: NDArray[np.float64], *, paths: bool, threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """Makespans (nan: not known) and path counts by the schedule of nodes."""
        if self.program is None:
            return None
        makespan, _, counts = self._by_node(costs, paths=paths, threads=threads)
        return makespan, counts

    def _by_node(
        self, costs: NDArray[np.float64], *, paths: bool, threads: int
    ) -> tuple[NDArray[np.float64], NDArray[np.uint64], NDArray[np.float64]]:
        assert self.program is not None
        return self.program.makespans(costs, paths=paths, threads=threads, truncate=self.truncate)

    def __call__(
        self, costs: NDArray[np.float64], *, paths: bool = False, threads: int = 2
    ) -> tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[np.float64]]:
        """[D] makespan [ns] (nan: deadlock), [D] order differs, [S, D] path counts of those where it does, if asked."""
        ends, digests = event_run.run_many(self.lowered, costs, threads=threads)
        makespan, differs = ends.max(axis=0), digests != np.uint64(self.reference.digest)
        if self.lowered.config.system.bus is not None:
            # its turns hang on more than orders: whether a side was free when something was asked of it
            digests, differs = np.arange(costs.shape[1], dtype=np.uint64), np.ones_like(differs)
        if not paths:
            return makespan, differs, np.zeros((0, costs.shape[1]))
        counts = np.zeros(costs.shape)
        another = np.flatnonzero(differs & np.isfinite(makespan))
        for order in np.unique(digests[another]):  # one graph for all designs that share it
            mine = another[digests[another] == order]
            first = event_run.run(self.lowered, costs[:, mine[0]], record=True)
            own = frozen_events(first.events)
            for d in mine:
                cost = np.ascontiguousarray(costs[:, d])
                counts[:, d] = path_counts(own.pred_ptr, own.pred, own.cost, cost)
        return makespan, differs, counts


def frozen_events(found: Any) -> Events:
    """The recorded order as the pipeline's graph."""
    first, last = found.node_first.astype(np.int64), found.node_last.astype(np.int64)
    owner = np.full(len(found.cost), -1, np.int64)
    owner[last] = np.arange(len(last))
    owner[first] = np.arange(len(first))
    target = np.repeat(np.arange(len(found.cost)), np.diff(found.pred_ptr))
    return Events.of_edges(found.cost, found.pred, target, first=first, last=last, owner=owner)


def load(
    prefix: str | Path,
    system: str | Path | Mapping[str, Any],
    network: str | Path | Mapping[str, Any],
    remote_memory: str | Path | Mapping[str, Any] | None = None,
    comm_group: str | Path | None = None,
    backend: str = "unaware",
    truncate: bool = False,
    *,
    queues: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
) -> tuple[Graph, System, AstraModels]:
    """ASTRA-sim's inputs as (graph, system, models) for predict, sweep, sensitivity, optimize.

    Args:
        prefix: of the traces, `<prefix>.<rank>.et`.
        system, network, remote_memory, comm_group: the simulator's files.
        backend: "unaware" or "aware" of congestion.
        truncate: keep the simulator's whole nanoseconds; without it results are smooth in the parameters.
        queues, injection_scale, rendezvous: `--num-queues-per-dim`, `--injection-scale`, `--rendezvous-protocol`.

    Returns:
        The graph; the system, its `network.K.bandwidth` the YAML's GiB/s per link in B/s; the models.

    Raises:
        TraceError, SystemFileError: anything wrong with an input.
    """
    config = read_config(
        system,
        network,
        remote_memory,
        backend=backend,
        queues=queues,
        injection_scale=injection_scale,
        rendezvous=rendezvous,
    )
    warn_of_ignored(config)
    files = _files(prefix, config.network.ranks)
    given: Any = {} if comm_group is None or "empty" in str(comm_group) else comm_group
    rules: dict[str, Any] = {"lenient": LENIENT, "simulator": True}
    graph, problems = examine(files, groups=given, **rules)
    if given and any(problem.code == "unknown-group" for problem in problems.found):
        known = chakra.read_groups(given, simulator=True)
        named = {name for file in files for name in chakra.read(file).group_names}
        graph, problems = examine(files, groups=known | aliases(named, known), **rules)
    problems.check()
    if config.system.custom or config.system.per_node:
        warn_of_sizes(flat_of(graph), config)
    return (
        replace(graph, source=str(prefix)),
        system_of(config),
        AstraModels(config.system.endpoint_delay * NANOSECOND, Setup(config), truncate),
    )


def _files(prefix: str | Path, ranks: int) -> list[Path]:
    """The trace as `simulate` takes it: the files of ranks 0..ranks-1; or those of a folder, or a file of one rank."""
    if not Path(f"{prefix}.0.et").is_file() and Path(prefix).exists():
        return [path for _, path in chakra.find(prefix)[0]]
    warn_of_left_out(prefix, ranks)
    return trace_files(prefix, ranks)


def system_of(config: Config) -> System:
    """The hardware of a configuration."""
    dimensions = tuple(
        Dimension(bandwidth, latency, TOPOLOGIES[topology], size)
        for topology, size, bandwidth, latency in zip(
            config.network.topology,
            config.network.sizes,
            config.network.bandwidth,
            config.network.latency,
        )
    )
    memory = None
    if config.memory.type != "NO_MEMORY_EXPANSION":
        memory = RemoteMemory(config.memory.bandwidth, config.memory.latency)
    npu = NPU(  # rates that the file leaves out are asked for by no node
        config.system.peak_flops or math.inf, config.system.memory_bandwidth or math.inf
    )
    return System(npu, dimensions, memory, name=Path(config.network.source).stem)
