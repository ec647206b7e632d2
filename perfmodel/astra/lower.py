"""From graph arrays and a configuration to the simulator's tables: `lower(flat, config) -> Lowered`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import costs, layout
from perfmodel.astra.algorithm_phases import BROADCAST
from perfmodel.astra.collective_plans import Planner
from perfmodel.astra.config import NO_FILE, Config
from perfmodel.astra.custom_files import NATIVE_TAGS, CustomNodes, choices, custom_of, read_custom
from perfmodel.astra.flat_nodes import FlatNodes, group_name, name_of
from perfmodel.astra.kernel_tables import Tables, build_tables
from perfmodel.errors import InputError, SystemFileError, TraceError
from perfmodel.vocabulary import NodeType

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Lowered:
    """A workload on a configuration, ready to run at any design.

    Attributes:
        flat, config: what it was made from.
        tables: of the kernel, nodes in the order rank, ascending id.
        rows: the cost table. order: [N] row of `flat` at each place of the kernel's node order.
        counted: [N] bool by `flat` row, nodes whose cost counts as GPU time (the rest of a rank is exposed).
        node_row: [N] i32 by `flat` row, cost row of nodes that are costed as a whole, else -1.
        parameters: path -> value of the configuration's hardware, in SI.
    """

    flat: FlatNodes
    config: Config
    tables: Tables
    rows: costs.CostTable
    order: Ints
    counted: NDArray[np.bool_]
    node_row: NDArray[np.int32]
    parameters: dict[str, float]

    def costs(self, parameters: Mapping[str, Any] | None = None, truncate: bool = True) -> Any:
        """Durations of the S cost rows [ns], f64 [S] or [S, D]; see `CostTable.evaluate`.

        Args:
            parameters: path -> value in SI, scalar or array [D]; the configuration's where left out.
        """
        unknown = sorted(set(parameters or ()) - set(self.parameters))
        if unknown:
            raise InputError(
                f"unknown parameter {unknown[0]!r}; this system has {', '.join(self.parameters)}"
            )
        return self.rows.evaluate({**self.parameters, **(parameters or {})}, truncate=truncate)


def parameters_of(config: Config) -> dict[str, float]:
    """The hardware figures of a configuration by parameter path, in SI."""
    found = {
        "npu.peak_flops": config.system.peak_flops,
        "npu.memory_bandwidth": config.system.memory_bandwidth,
    }
    for k, (bandwidth, latency) in enumerate(zip(config.network.bandwidth, config.network.latency)):
        found[f"network.{k}.bandwidth"] = bandwidth
        found[f"network.{k}.latency"] = latency
    found["endpoint_delay"] = config.system.endpoint_delay / 1e9
    if config.memory.type != "NO_MEMORY_EXPANSION":
        found["remote_memory.latency"] = config.memory.latency
        found["remote_memory.bandwidth"] = config.memory.bandwidth
    return found


def lower(flat: FlatNodes, config: Config) -> Lowered:
    """Lower a workload.

    Raises:
        TraceError: what ASTRA-sim cannot run, or would get silently wrong, naming rank and node id.
        SystemFileError: a configuration that does not fit the workload.
    """
    _check_world(flat, config)
    planner = Planner(config, flat.groups, costs.RowTable())
    customs, prefixes, custom = _customs(flat, config, planner)
    nodes = {name: np.zeros(len(flat.rank), np.int64) for name in layout.NODE_FIELDS}
    nodes["rank"][:] = flat.rank
    for name in ("row", "server", "plan"):
        nodes[name][:] = -1
    nodes["unit"] = _units(flat)
    _Nodes(flat, config, planner, nodes, [*prefixes, ""], custom).fill()
    order = np.lexsort((flat.node_id, flat.rank))
    tables, rows = build_tables(flat, config, planner, nodes, customs, order)
    timed = nodes["action"] == layout.TIMER
    compute = (flat.type == NodeType.COMP) | config.system.replay
    return Lowered(
        flat=flat,
        config=config,
        tables=tables,
        rows=rows,
        order=order,
        counted=timed & compute & ~flat.is_cpu,
        node_row=nodes["row"].astype(np.int32),
        parameters=parameters_of(config),
    )


def _check_world(flat: FlatNodes, config: Config) -> None:
    if flat.ranks != config.network.ranks:
        raise SystemFileError(
            f"{config.network.source}: npus_count {list(config.network.sizes)} makes "
            f"{config.network.ranks} ranks, the trace has {flat.ranks}; they have to be equal"
        )
    for g, members in enumerate(flat.groups):
        bad = [r for r in members if not 0 <= r < flat.ranks]
        if bad or len(set(members)) < len(members):
            what = f"names rank {bad[0]}, the trace has {flat.ranks}" if bad else "repeats a rank"
            raise TraceError(f"communicator group {group_name(flat, g)} {what}")


def _customs(
    flat: FlatNodes, config: Config, planner: Planner
) -> tuple[CustomNodes, list[str], Ints]:
    """The custom collectives that are run, their prefixes, and [N] an index into these, -1 for none."""
    custom = np.full(len(flat.rank), -1, np.int64)
    rows = np.flatnonzero((flat.type == NodeType.COMM_COLL) & (not config.system.replay))
    prefixes, found = custom_of(flat, rows, config)
    custom[rows] = found
    members = dict.fromkeys(prefixes, 0)
    table = np.unique(np.stack([found, flat.group[rows]]), axis=1)
    for k, group in table.T.tolist():
        if k >= 0 and 0 <= group < len(flat.groups):
            members[prefixes[k]] = max(members[prefixes[k]], len(flat.groups[group]))
    used = {prefix: count for prefix, count in members.items() if count}
    return read_custom(config, planner, used), prefixes, custom


def _units(flat: FlatNodes) -> Ints:
    """The resource of each node; on the GPU side all but compute and receives share communication."""
    unit = np.full(len(flat.rank), layout.COMMUNICATION, np.int64)
    unit[flat.type == NodeType.COMP] = layout.COMPUTE
    unit[flat.type == NodeType.COMM_RECV] = layout.RECEIVE
    unit[flat.is_cpu] = layout.CPU
    return unit


class CollectiveCall(NamedTuple):
    """A collective as the planner is asked for it; `custom` is an index of a custom implementation or -1."""

    kind: int
    size: int
    group: int
    involved: int
    custom: int


class _Nodes:
    """Decides what every node does when it is issued."""

    def __init__(
        self,
        flat: FlatNodes,
        config: Config,
        planner: Planner,
        nodes: dict[str, Ints],
        prefixes: list[str],
        custom: Ints,
    ):
        self.flat, self.config, self.planner, self.nodes = flat, config, planner, nodes
        self.prefixes, self.custom = prefixes, custom

    def fill(self) -> None:
        flat, system = self.flat, self.config.system
        kind = flat.type
        known = (kind >= 0) & (kind <= max(NodeType))
        self._refuse(~known, "has an unknown node type")
        if system.replay:
            self._replay(np.ones(len(kind), bool))
            return
        compute = kind == NodeType.COMP
        replayed = compute & flat.is_cpu if system.roofline else compute
        self._replay(replayed)
        self._roofline(compute & ~replayed)
        self._memory((kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE))
        self.nodes["action"][kind <= NodeType.METADATA] = layout.SKIP
        communication = kind >= NodeType.COMM_SEND
        self._refuse(
            communication & flat.is_cpu,
            "is communication marked as CPU work (is_cpu_op), on which ASTRA-sim stops",
        )
        self._messages(kind == NodeType.COMM_SEND, layout.SEND)
        self._messages(kind == NodeType.COMM_RECV, layout.RECV)
        collective = kind == NodeType.COMM_COLL
        self._refuse(collective & (flat.comm_type < 0), "has no comm_type")
        broadcast = collective & (flat.comm_type == BROADCAST)
        self._replay(broadcast)
        self._collectives(collective & ~broadcast)

    def _refuse(self, which: NDArray[np.bool_], why: str) -> None:
        rows = np.flatnonzero(which)
        if len(rows):
            more = f" (and {len(rows) - 1} more nodes)" if len(rows) > 1 else ""
            raise TraceError(f"{name_of(self.flat, rows[0])} {why}{more}")

    def _replay(self, which: NDArray[np.bool_]) -> None:
        """Recorded durations, whole microseconds; 0 lasts 1 ns."""
        duration = np.where(self.flat.duration_us > 0, self.flat.duration_us * 1000.0, 1.0)
        self._give_rows(which, costs.FIXED, duration)

    def _roofline(self, which: NDArray[np.bool_]) -> None:
        flat = self.flat
        self._refuse(which & (flat.tensor_size < 0), "has no tensor_size, which the roofline needs")
        self._refuse(which & (flat.num_ops < 0), "has no num_ops, which the roofline needs")
        empty = which & (flat.tensor_size == 0)
        self.nodes["action"][empty] = layout.SKIP
        which = which & ~empty
        system = self.config.system
        if which.any() and (system.peak_flops <= 0 or system.memory_bandwidth <= 0):
            raise SystemFileError(
                f"{system.source}: roofline-enabled needs peak-perf and local-mem-bw above 0; got "
                f"{system.peak_flops / 1e12:g} TFLOP/s and {system.memory_bandwidth / 1e9:g} GB/s (needed by "
                f"{name_of(self.flat, int(np.flatnonzero(which)[0]))})"
            )
        self._refuse(which & (flat.num_ops == 0), "has num_ops 0: the roofline divides 0 by 0")
        self._give_rows(which, costs.ROOFLINE, flat.num_ops, flat.tensor_size)

    def _memory(self, which: NDArray[np.bool_]) -> None:
        if not which.any():
            return
        memory = self.config.memory
        if memory.type == "NO_MEMORY_EXPANSION":
            why = (
                "there is no remote-memory file"
                if memory.source == NO_FILE
                else f"the memory-type of {memory.source} is NO_MEMORY_EXPANSION"
            )
            self._refuse(which, f"is a memory node, but {why}")
        self._refuse(which & (self.flat.tensor_size < 0), "has no tensor_size")
        self._give_rows(which, costs.REMOTE, self.flat.tensor_size)
        self.nodes["action"][which] = layout.MEMORY
        if memory.type == "PER_NODE_MEMORY_EXPANSION":
            self.nodes["server"][which] = self.flat.rank[which] // memory.ranks_per_node
        elif memory.type == "MEMORY_POOL":
            self.nodes["server"][which] = 0

    def _messages(self, which: NDArray[np.bool_], action: int) -> None:
        flat = self.flat
        peer = "comm_dst" if action == layout.SEND else "comm_src"
        self._refuse(which & (flat.comm_size <= 0), "has no comm_size, or one of 0 bytes")
        self._refuse(which & (flat.tag < 0), "has no comm_tag")
        outside = (flat.peer < 0) | (flat.peer >= flat.ranks)
        self._refuse(which & outside, f"has no {peer}, or one that is no rank of the trace")
        self._refuse(which & (flat.peer == flat.rank), f"names its own rank as {peer}")
        self.nodes["action"][which] = action
        self.nodes["peer"][which] = flat.peer[which]
        self.nodes["tag"][which] = -1 - flat.tag[which] % NATIVE_TAGS
        rows = np.flatnonzero(which)
        distinct, inverse = np.unique(flat.comm_size[rows], return_inverse=True)
        for k, size in enumerate(distinct.tolist()):
            here = rows[inverse == k]
            number = self.planner.size(size)
            self.nodes["size"][here] = number
            if action == layout.SEND:
                self.planner.use(
                    number, flat.rank[here].astype(np.int64), flat.peer[here].astype(np.int64)
                )

    def _collectives(self, which: NDArray[np.bool_]) -> None:
        flat, nodes = self.flat, self.nodes
        rows = np.flatnonzero(which)
        if not len(rows):
            return
        self._refuse(which & (flat.comm_size < 0), "has no comm_size")
        columns = (flat.comm_type, flat.comm_size, flat.group, flat.involved, self.custom)
        table = np.stack([np.asarray(column, np.int64)[rows] for column in columns])
        distinct, first, inverse = np.unique(table, axis=1, return_index=True, return_inverse=True)
        calls = [CollectiveCall(*call) for call in distinct.T.tolist()]
        plans = np.array([self._plan(row, call) for row, call in zip(rows[first], calls)])
        self._choose(rows[first], calls, plans)
        nodes["plan"][rows] = plans[inverse]
        stuck = plans[inverse] < 0
        nodes["action"][rows] = np.where(stuck, layout.STUCK, layout.COLLECTIVE)
        self._places(rows)

    def _plan(self, row: int, call: CollectiveCall) -> int:
        """The plan of the collective at `row` of the trace; -1 where it would never end."""
        where = name_of(self.flat, row)
        kind, size, group, involved, custom = call
        if group < 0 or group >= len(self.flat.groups):
            raise TraceError(f"{where} is of an unknown group")
        try:
            return self.planner.plan(kind, size, group, involved, self.prefixes[custom])
        except TraceError as error:
            raise TraceError(f"{where} {error}") from None
        except SystemFileError as error:
            raise SystemFileError(f"{error} (needed by {where})") from None

    def _choose(self, rows: Ints, calls: list[CollectiveCall], plans: Ints) -> None:
        """Where the implementations in a group differ, give each collective its plans by all of them.

        Args:
            rows: of the trace, an example of each of `calls`. plans: of these.
        """
        kind, _, group, _, custom = np.array(calls).T
        made = dict(zip(calls, plans.tolist()))
        for choice, (key, variants) in enumerate(choices(kind, group, custom).items()):
            here = {
                call._replace(custom=-1): row
                for row, call in zip(rows.tolist(), calls)
                if (call.kind, call.group) == key
            }
            for like, row in here.items():
                alike = [like._replace(custom=variant) for variant in variants]
                for call in alike:
                    if call not in made:
                        made[call] = self._plan(row, call)
                if min(made[call] for call in alike) < 0:
                    raise SystemFileError(
                        f"{self.config.system.source}: per-node-custom-implementation: {name_of(self.flat, row)} and "
                        "others of its communicator group of one rank run a custom and a built-in implementation; "
                        "ASTRA-sim never ends the built-in one there: give all of them the custom one"
                    )
                self.planner.choose(choice, [made[call] for call in alike])

    def _places(self, rows: Ints) -> None:
        """Each member's place in its group, in list order and in ascending order."""
        flat, nodes = self.flat, self.nodes
        for g in np.unique(flat.group[rows]).tolist():
            here = rows[flat.group[rows] == g]
            members = np.array(flat.groups[g])
            order = np.argsort(members)
            place = np.searchsorted(members[order], flat.rank[here])
            place = np.minimum(place, len(members) - 1)
            outside = members[order][place] != flat.rank[here]
            if outside.any():
                node = name_of(flat, here[np.flatnonzero(outside)[0]])
                raise TraceError(
                    f"{node} is of communicator group {group_name(flat, g)}, which its rank is not in"
                )
            nodes["member"][here] = order[place]
            nodes["position"][here] = place

    def _give_rows(self, which: NDArray[np.bool_], kind: int, *work: NDArray[Any]) -> None:
        rows = np.flatnonzero(which)
        if not len(rows):
            return
        table = np.stack([np.asarray(column, np.float64)[rows] for column in work])
        distinct, inverse = np.unique(table, axis=1, return_inverse=True)
        numbers = [self.planner.rows.row(kind, *column) for column in distinct.T.tolist()]
        self.nodes["row"][rows] = np.array(numbers, np.int32)[inverse]
        self.nodes["action"][rows] = layout.TIMER
