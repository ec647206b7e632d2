"""ASTRA-sim's configuration files: system JSON, network YAML, remote-memory JSON.

Every key that ASTRA-sim's analytical backends read is taken as they take it; a value on which they would stop is one
clear error. Keys that they ignore are collected in `ignored`, so that a typing error does not go unnoticed, and values
that mean something else there than they seem to in `notes`.

Source: ASTRA-sim's system, network and remote-memory layers at 518bd51, network v2.2.1, memory 641cce8.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.astra.algorithm_phases import KEYS, Algorithm, parse_algorithm
from perfmodel.astra.config_values import (
    LARGEST,
    Taker,
    load_json,
    load_yaml,
    read_mapping,
    real,
    scalar,
    whole,
)
from perfmodel.errors import SystemFileError

TOPOLOGIES = ("Ring", "FullyConnected", "Switch")
MEMORY_TYPES = (
    "NO_MEMORY_EXPANSION",
    "PER_NPU_MEMORY_EXPANSION",
    "PER_NODE_MEMORY_EXPANSION",
    "MEMORY_POOL",
)
NO_FILE = "no remote-memory file"
"""Source of a memory configuration that was not given."""
LONGEST = 2.0**53
"""Longest latency or delay [ns]: whole nanoseconds are exact up to it."""

_GIBI = 2.0**30


@dataclass(frozen=True)
class Bus:
    """The shared bus between a rank and its memory, by the LogGP model.

    Attributes:
        latency, overhead, gap: L, o, g [ns]. gap_per_byte: G [ns/B], in single precision as the simulator keeps it.
        reduction_delay: ``local-reduction-delay`` of 100 B [ns].
    """

    latency: int
    overhead: int
    gap: int
    gap_per_byte: float
    reduction_delay: int


@dataclass(frozen=True)
class SystemConfig:
    """The system JSON.

    Attributes:
        peak_flops: [FLOP/s]; memory_bandwidth: of the local memory [B/s]; 0 where the file has none.
        endpoint_delay: [ns], scaled by ``--injection-scale`` where the file gives it.
        splits: ``preferred-dataset-splits``; active_chunks: per dimension.
        algorithms: one tuple of `Algorithm`, a dimension each, by collective key; absent where not configured.
        custom: prefix of the Chakra traces that replace a collective's algorithm, by collective key.
        per_node: the same for single nodes, by node id.
        baseline: all-reduce runs a whole all-reduce in each dimension (else local-bandwidth-aware).
        roofline: compute nodes are costed by roofline, else replayed; replay: every node is replayed.
        queues: per dimension. rendezvous: messages are asked for by their receivers. bus: the shared bus, if any.
        trace: issue and end of every node are logged. track_memory, memory_trace: whether and under which name the use
            of the local memory is written.
        source: the file, for messages; ignored: keys without effect; notes: what is not what it seems to be.
    """

    source: str
    peak_flops: float
    memory_bandwidth: float
    endpoint_delay: int
    splits: int
    active_chunks: int
    algorithms: Mapping[str, tuple[Algorithm, ...]]
    custom: Mapping[str, str]
    baseline: bool
    roofline: bool
    replay: bool
    queues: int = 1
    rendezvous: bool = False
    per_node: Mapping[int, str] = field(default_factory=dict)
    bus: Bus | None = None
    trace: bool = False
    track_memory: bool = False
    memory_trace: str = "local_mem_trace"
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class NetworkConfig:
    """The network YAML, innermost dimension first: bandwidth per link [B/s], latency per hop [s]."""

    source: str
    topology: tuple[str, ...]
    sizes: tuple[int, ...]
    bandwidth: tuple[float, ...]
    latency: tuple[float, ...]
    ignored: tuple[str, ...] = ()

    @property
    def ranks(self) -> int:
        """Product of the sizes."""
        return math.prod(self.sizes)


@dataclass(frozen=True)
class MemoryConfig:
    """The remote-memory JSON: latency [s], bandwidth [B/s] (ASTRA-sim keeps whole ns and whole B/ns)."""

    source: str
    type: str = "NO_MEMORY_EXPANSION"
    latency: float = 0.0
    bandwidth: float = 0.0
    nodes: int = 0
    ranks_per_node: int = 0
    ignored: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Config:
    """All that a run needs besides the trace."""

    system: SystemConfig
    network: NetworkConfig
    memory: MemoryConfig
    backend: str = "unaware"

    @property
    def ignored(self) -> tuple[str, ...]:
        """Keys without effect, with the file they stand in."""
        return self.system.ignored + self.network.ignored + self.memory.ignored


def read_config(
    system: str | Path | Mapping[str, Any],
    network: str | Path | Mapping[str, Any],
    remote_memory: str | Path | Mapping[str, Any] | None = None,
    *,
    backend: str = "unaware",
    queues: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
) -> Config:
    """Read and check the three files (or their contents as mappings).

    Args:
        backend: "unaware" or "aware" of congestion.
        queues, injection_scale, rendezvous: ASTRA-sim's ``--num-queues-per-dim``, ``--injection-scale`` (of the
            endpoint delay) and ``--rendezvous-protocol``.

    Raises:
        SystemFileError: naming file, key, what was got and what fits.
    """
    if backend not in ("unaware", "aware"):
        raise SystemFileError(f"backend is {backend!r}; expected 'unaware' or 'aware'")
    if queues < 1:
        raise SystemFileError(f"num-queues-per-dim is {queues}; expected 1 or more")
    config = Config(
        read_system(system, queues=queues, injection_scale=injection_scale, rendezvous=rendezvous),
        read_network(network),
        read_memory(remote_memory),
        backend,
    )
    _check_together(config)
    return config


def warn_of_ignored(config: Config) -> None:
    """Name what is not what it seems to be, a line each, and all keys without effect in one line."""
    for note in config.system.notes + config.memory.notes:
        warnings.warn(note, UserWarning, stacklevel=3)
    if config.ignored:
        warnings.warn(
            f"without effect in ASTRA-sim: {'; '.join(config.ignored)}", UserWarning, stacklevel=3
        )


def read_system(
    source: str | Path | Mapping[str, Any],
    *,
    queues: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
) -> SystemConfig:
    """The system JSON, checked."""
    data, name = read_mapping(source, load_json, "system")
    take = Taker(data, name)
    bus = _bus(take) if take.integer("model-shared-bus", 0, -LARGEST) == 1 else None
    take.choice("scheduling-policy", ("LIFO", "FIFO", "EXPLICIT"), "LIFO")
    optimization = take.choice("collective-optimization", ("baseline", "localBWAware"), "baseline")
    algorithms, custom = {}, {}
    for key in KEYS.values():
        names = take.texts(f"{key}-implementation")
        if names is not None:
            algorithms[key] = tuple(
                parse_algorithm(text, f"{name}: {key}-implementation") for text in names
            )
        prefix = take.texts(f"{key}-implementation-custom")
        if prefix is not None:
            if len(prefix) != 1:
                raise SystemFileError(
                    f"{name}: {key}-implementation-custom has {len(prefix)} entries; expected one "
                    "prefix of Chakra traces"
                )
            custom[key] = prefix[0]
    real(injection_scale, "injection-scale", least=0.0)
    delay = take.integer("endpoint-delay", 10, 0)
    scaled = math.trunc(delay * injection_scale) if "endpoint-delay" in data else delay
    return SystemConfig(
        source=name,
        peak_flops=take.number("peak-perf", 0.0, 0.0) * 1e12,
        memory_bandwidth=take.number("local-mem-bw", 0.0, 0.0) * 1e9,
        endpoint_delay=int(real(scaled, f"{name}: endpoint-delay, scaled,", most=LARGEST)),
        splits=take.integer("preferred-dataset-splits", None, 1),
        active_chunks=take.integer("active-chunks-per-dimension", 1, 1),
        algorithms=algorithms,
        custom=custom,
        baseline=optimization == "baseline",
        roofline=take.switch("roofline-enabled"),
        replay=take.switch("replay-only"),
        queues=queues,
        rendezvous=rendezvous,
        per_node=_per_node(take),
        bus=bus,
        trace=take.switch("trace-enabled"),
        track_memory=take.switch("track-local-mem"),
        memory_trace=take.text("local-mem-trace-filename", "local_mem_trace"),
        ignored=take.ignored(),
        notes=tuple(take.notes),
    )


def _bus(take: Taker) -> Bus:
    """The LogGP figures, which the simulator keeps in single precision; all but G are then cut to whole ns."""
    latency, overhead, gap, per_byte = (
        float(np.float32(take.number(key, 0.0, 0.0, LARGEST))) for key in ("L", "o", "g", "G")
    )
    delay = take.integer("local-reduction-delay", 1, 0)
    return Bus(int(latency), int(overhead), int(gap), per_byte, delay)


def _per_node(take: Taker) -> dict[int, str]:
    """The YAML file of custom implementations by node id; relative to the working directory, or to the system file."""
    key = "per-node-custom-implementation"
    path = Path(take.text(key, ""))
    if key not in take.data:
        return {}
    found = next((p for p in (path, Path(take.name).parent / path) if p.is_file()), None)
    if found is None:
        raise SystemFileError(
            f"{take.name}: {key} {str(path)!r} is no file, relative to the working directory or to this file"
        )
    data, name = read_mapping(found, load_yaml, key)
    for node, prefix in data.items():
        if not isinstance(whole(node), int) or not isinstance(prefix, str):
            raise SystemFileError(
                f"{name}: {node!r}: {prefix!r}; expected a node id and a prefix of Chakra traces"
            )
    return {whole(node): prefix for node, prefix in data.items()}


def read_network(source: str | Path | Mapping[str, Any]) -> NetworkConfig:
    """The network YAML, checked. ``bandwidth`` is GiB/s (x 2^30 B/s), ``latency`` ns."""
    data, name = read_mapping(source, load_yaml, "network")
    lists: dict[str, list[Any]] = {}
    for key in ("topology", "npus_count", "bandwidth", "latency"):
        value = data.get(key)
        if not isinstance(value, list) or not value:
            raise SystemFileError(f"{name}: {key} is {value!r}; expected a list, a dimension each")
        lists[key] = value
    lengths = {key: len(value) for key, value in lists.items()}
    if len(set(lengths.values())) > 1:
        raise SystemFileError(
            f"{name}: lists of different lengths {lengths}; one entry a dimension"
        )
    for key, convert in (("npus_count", whole), ("bandwidth", scalar), ("latency", scalar)):
        lists[key] = [convert(value) for value in lists[key]]
    for text in lists["topology"]:
        if text not in TOPOLOGIES:
            raise SystemFileError(f"{name}: topology {text!r}; expected one of {TOPOLOGIES}")
    for size in lists["npus_count"]:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise SystemFileError(f"{name}: npus_count {size!r}; expected a positive whole number")
    bandwidth = [real(v, f"{name}: bandwidth", above=0.0) for v in lists["bandwidth"]]
    latency = [real(v, f"{name}: latency", least=0.0, most=LONGEST) for v in lists["latency"]]
    unknown = sorted(set(data) - set(lists), key=str)
    return NetworkConfig(
        source=name,
        topology=tuple(lists["topology"]),
        sizes=tuple(lists["npus_count"]),
        bandwidth=tuple(v * _GIBI for v in bandwidth),
        latency=tuple(v / 1e9 for v in latency),
        ignored=tuple(f"{name}: {key}" for key in unknown),
    )


def read_memory(source: str | Path | Mapping[str, Any] | None) -> MemoryConfig:
    """The remote-memory JSON, checked; None is a system without remote memory."""
    if source is None:
        return MemoryConfig(NO_FILE)
    data, name = read_mapping(source, load_json, "remote memory")
    take = Taker(data, name)
    kind = take.choice("memory-type", MEMORY_TYPES, "NO_MEMORY_EXPANSION")
    latency = float(int(take.number("remote-mem-latency", 0.0, 0.0, LONGEST)))
    bandwidth = float(int(take.number("remote-mem-bw", 0.0, 0.0)))
    nodes = ranks_per_node = 0
    if kind == "PER_NODE_MEMORY_EXPANSION":
        nodes = take.integer("num-nodes", None, 1)
        ranks_per_node = take.integer("num-npus-per-node", None, 1)
    if kind != "NO_MEMORY_EXPANSION" and bandwidth < 1:
        raise SystemFileError(
            f"{name}: remote-mem-bw is below 1 B/ns; ASTRA-sim keeps whole B/ns, so it would be 0"
        )
    return MemoryConfig(
        name,
        kind,
        latency / 1e9,
        bandwidth * 1e9,
        nodes,
        ranks_per_node,
        take.ignored(),
        tuple(take.notes),
    )


def _check_together(config: Config) -> None:
    system, network, memory = config.system, config.network, config.memory
    if config.backend == "aware" and len(network.sizes) != 1:
        raise SystemFileError(
            f"{network.source}: {len(network.sizes)} dimensions; the congestion-aware backend takes one"
        )
    for key, algorithms in system.algorithms.items():
        if len(algorithms) > len(network.sizes):
            raise SystemFileError(
                f"{system.source}: {key}-implementation has {len(algorithms)} entries, "
                f"{network.source} {len(network.sizes)} dimensions; expected at most one a dimension"
            )
    if memory.type == "PER_NODE_MEMORY_EXPANSION":
        reach = memory.nodes * memory.ranks_per_node
        if reach < network.ranks:
            raise SystemFileError(
                f"{memory.source}: {memory.nodes} nodes x {memory.ranks_per_node} NPUs cover {reach} "
                f"ranks, the network has {network.ranks}"
            )
