"""ASTRA-sim's configuration files: system JSON, network YAML, remote-memory JSON.

Every key that ASTRA-sim's analytical backends read is taken; a value that is unknown, contradictory or asks for
something that is not modelled here is one clear error. Keys that ASTRA-sim itself ignores are collected in
`ignored`, so that a typing error does not go unnoticed.

Source: ASTRA-sim's system, network and remote-memory layers at 518bd51, network v2.2.1, memory 641cce8.
"""

from __future__ import annotations

import json
import math
import re
import sys
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from perfmodel.errors import SystemFileError

COLLECTIVE_KEYS = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
"""The collectives that algorithms are configured for, by their key without "-implementation"."""

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
ALGORITHMS = ("ring", "direct", "halvingDoubling", "doubleBinaryTree")

_GIBI = 2.0**30
_WITHOUT_EFFECT = {
    "boost-mode",
    "local-mem-trace-filename",
    "local-reduction-delay",
    "track-local-mem",
    "trace-enabled",
}
"""Keys that ASTRA-sim reads, or used to read, and that change no time without its shared-bus model."""
_BUS_KEYS = ("L", "o", "g", "G")


@dataclass(frozen=True)
class Algorithm:
    """How a collective runs in one dimension.

    Attributes:
        name: one of `ALGORITHMS`.
        window: messages that ``direct`` keeps in flight; -1 for all.
        flat: a ``one*`` variant: one dimension over all ranks, the dimensions after it unused.
    """

    name: str
    window: int = -1
    flat: bool = False


@dataclass(frozen=True)
class SystemConfig:
    """The system JSON.

    Attributes:
        peak_flops: [FLOP/s]; memory_bandwidth: of the local memory [B/s]; 0 where the file has none.
        endpoint_delay: [ns]; splits: ``preferred-dataset-splits``; active_chunks: per dimension.
        algorithms: one tuple of `Algorithm`, a dimension each, by collective key; absent where not configured.
        custom: prefix of the Chakra traces that replace a collective's algorithm, by collective key.
        baseline: all-reduce runs a whole all-reduce in each dimension (else local-bandwidth-aware).
        roofline: compute nodes are costed by roofline, else replayed; replay: every node is replayed.
        queues: per dimension.
        source: the file, for messages; ignored: keys without effect.
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
    ignored: tuple[str, ...] = ()


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
) -> Config:
    """Read and check the three files (or their contents as mappings).

    Args:
        backend: "unaware" or "aware" of congestion.
        queues: ASTRA-sim's ``--num-queues-per-dim``.

    Raises:
        SystemFileError: naming file, key, what was got and what fits.
    """
    if backend not in ("unaware", "aware"):
        raise SystemFileError(f"backend is {backend!r}; expected 'unaware' or 'aware'")
    if queues < 1:
        raise SystemFileError(f"num-queues-per-dim is {queues}; expected 1 or more")
    config = Config(
        read_system(system, queues=queues),
        read_network(network),
        read_memory(remote_memory),
        backend,
    )
    _check_together(config)
    return config


def warn_of_ignored(config: Config) -> None:
    """Name keys without effect once."""
    if config.ignored:
        warnings.warn(
            f"without effect in ASTRA-sim: {'; '.join(config.ignored)}", UserWarning, stacklevel=3
        )


def read_system(source: str | Path | Mapping[str, Any], *, queues: int = 1) -> SystemConfig:
    """The system JSON, checked."""
    data, name = _mapping(source, _load_json, "system")
    take = _Taker(data, name)
    if take.number("model-shared-bus", 0) != 0:
        raise SystemFileError(
            f"{name}: model-shared-bus is on; the LogGP bus is not modelled; set it to 0"
        )
    for key in _BUS_KEYS:
        take.number(key, 0)
    take.choice("scheduling-policy", ("LIFO", "FIFO", "EXPLICIT"), "LIFO")
    optimization = take.choice("collective-optimization", ("baseline", "localBWAware"), "baseline")
    algorithms, custom = {}, {}
    for key in COLLECTIVE_KEYS:
        names = take.texts(f"{key}-implementation")
        if names is not None:
            algorithms[key] = tuple(
                _algorithm(text, f"{name}: {key}-implementation") for text in names
            )
        prefix = take.texts(f"{key}-implementation-custom")
        if prefix is not None:
            if len(prefix) != 1:
                raise SystemFileError(
                    f"{name}: {key}-implementation-custom has {len(prefix)} entries; expected one "
                    "prefix of Chakra traces"
                )
            custom[key] = prefix[0]
    if "per-node-custom-implementation" in data:
        raise SystemFileError(
            f"{name}: per-node-custom-implementation is not modelled; use "
            "<collective>-implementation-custom, which applies to all nodes of that collective"
        )
    splits = take.integer("preferred-dataset-splits", None, 1)
    return SystemConfig(
        source=name,
        peak_flops=take.number("peak-perf", 0.0, 0.0) * 1e12,
        memory_bandwidth=take.number("local-mem-bw", 0.0, 0.0) * 1e9,
        endpoint_delay=take.integer("endpoint-delay", 10, 0, LONGEST),
        splits=splits,
        active_chunks=take.integer("active-chunks-per-dimension", 1, 1),
        algorithms=algorithms,
        custom=custom,
        baseline=optimization == "baseline",
        roofline=take.number("roofline-enabled", 0) != 0,
        replay=take.number("replay-only", 0) != 0,
        queues=queues,
        ignored=take.ignored(_WITHOUT_EFFECT | set(_BUS_KEYS)),
    )


def read_network(source: str | Path | Mapping[str, Any]) -> NetworkConfig:
    """The network YAML, checked. ``bandwidth`` is GiB/s (x 2^30 B/s), ``latency`` ns."""
    data, name = _mapping(source, _load_yaml, "network")
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
    for key, convert in (("npus_count", _whole), ("bandwidth", _scalar), ("latency", _scalar)):
        lists[key] = [convert(value) for value in lists[key]]
    for text in lists["topology"]:
        if text not in TOPOLOGIES:
            raise SystemFileError(f"{name}: topology {text!r}; expected one of {TOPOLOGIES}")
    for size in lists["npus_count"]:
        if not isinstance(size, int) or isinstance(size, bool) or size < 1:
            raise SystemFileError(f"{name}: npus_count {size!r}; expected a positive whole number")
    bandwidth = [_real(v, f"{name}: bandwidth", above=0.0) for v in lists["bandwidth"]]
    latency = [_real(v, f"{name}: latency", least=0.0, most=LONGEST) for v in lists["latency"]]
    unknown = sorted(set(data) - set(lists))
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
    data, name = _mapping(source, _load_json, "remote memory")
    take = _Taker(data, name)
    kind = take.choice("memory-type", MEMORY_TYPES, None)
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
        name, kind, latency / 1e9, bandwidth * 1e9, nodes, ranks_per_node, take.ignored(set())
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


def _algorithm(text: str, where: str) -> Algorithm:
    """One entry of an implementation list.

    >>> _algorithm("oneDirect3", "x")
    Algorithm(name='direct', window=3, flat=True)
    """
    flat = text.startswith("one")
    name = text[3:4].lower() + text[4:] if flat and text[3:4].isupper() else text
    match = re.fullmatch(r"direct([0-9]*)", name)
    if match:
        window = int(match[1]) if match[1] else -1
        if window != 0:
            return Algorithm("direct", window, flat)
    elif name in ALGORITHMS and not (flat and name == "doubleBinaryTree"):
        return Algorithm(name, -1, flat)
    raise SystemFileError(
        f"{where}: {text!r}; expected ring, oneRing, direct or direct<window>, oneDirect or "
        "oneDirect<window> (window 1 or more), halvingDoubling, oneHalvingDoubling, doubleBinaryTree"
    )


class _Taker:
    """Takes keys from a mapping, checks them, and remembers which were asked for."""

    def __init__(self, data: Mapping[str, Any], name: str):
        self.data, self.name, self.known = data, name, set[str]()

    def number(
        self,
        key: str,
        default: float | None,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> float:
        self.known.add(key)
        if key not in self.data and default is not None:
            return default
        return _real(self.data.get(key), f"{self.name}: {key}", least=least, most=most)

    def integer(self, key: str, default: int | None, least: int, most: float = math.inf) -> int:
        value = self.number(key, default, least, most)
        if value != int(value):
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected a whole number")
        return int(value)

    def choice(self, key: str, options: tuple[str, ...], default: str | None) -> str:
        self.known.add(key)
        value = self.data.get(key, default)
        if value not in options:
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected one of {options}")
        return str(value)

    def texts(self, key: str) -> list[str] | None:
        self.known.add(key)
        value = self.data.get(key)
        if value is None and key not in self.data:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected a list of texts")
        return value

    def ignored(self, without_effect: set[str]) -> tuple[str, ...]:
        unknown = set(self.data) - (self.known - without_effect)
        return tuple(f"{self.name}: {key}" for key in sorted(unknown))


def _scalar(value: Any) -> Any:
    """A number that YAML 1.1 takes for a text (1e3, "50") as ASTRA-sim's reader takes it.

    >>> _scalar("1e3")
    1000.0
    """
    pattern = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return float(value) if isinstance(value, str) and re.fullmatch(pattern, value) else value


def _whole(value: Any) -> Any:
    """The same for a whole number."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value


def _real(
    value: Any,
    where: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> float:
    good = isinstance(value, int | float) and abs(value) < math.inf
    if not good or value < least or value <= above or value > min(most, sys.float_info.max):
        bound = f", at least {least:g}" if least > -math.inf else ""
        bound = f", above {above:g}" if above > -math.inf else bound
        bound += f", at most {most:g}" if most < math.inf else ""
        raise SystemFileError(f"{where} is {value!r}; expected a number{bound}")
    return float(value)


def _mapping(source, load, what: str) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, f"<{what} configuration>"
    path = Path(source)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemFileError(f"{path}: cannot be read as the {what} file ({error})") from None
    data = load(text, str(path))
    if not isinstance(data, dict) or not all(isinstance(key, str) for key in data):
        raise SystemFileError(f"{path}: not a {what} configuration; expected keys and values")
    return data, str(path)


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The keys and values of a mapping, each key once: readers differ in which of two they take."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SystemFileError(f"the key {key!r} is given twice; expected once")
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML in which no key may be given twice."""

    def construct_mapping(self, node, deep=False):
        made = super().construct_mapping(node, deep=deep)
        _pairs((self.construct_object(key, deep=True), None) for key, _ in node.value)
        return made


def _load_json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except SystemFileError as error:
        raise SystemFileError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise SystemFileError(f"{name}: not JSON ({error})") from None


def _load_yaml(text: str, name: str) -> Any:
    try:
        return yaml.load(text, Loader=_Loader)
    except SystemFileError as error:
        raise SystemFileError(f"{name}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise SystemFileError(f"{name}: not YAML ({error})") from None
