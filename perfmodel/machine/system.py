"""Hardware as a tree of SI numbers: an NPU, the dimensions of its network, remote memory.

A rank's address is mixed radix over the network's dimensions, dimension 0 fastest. The bandwidth of
a dimension is all that one NPU can send into it, one way, over all its links there. So in a ring
each of its two links has half; in a fully connected dimension each of its (built - 1) links has
that fraction; a switch takes all of it to one peer. Latency is per hop on a ring, and from NPU to
NPU on a switch or a fully connected dimension.
"""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError, SystemFileError
from perfmodel.machine import system_file
from perfmodel.machine.system_file import Fact, accelerators, find_hwdb, systems
from perfmodel.parameter_paths import parameter_units, parameters, with_parameters
from perfmodel.pytree import number, record, static

__all__ = [
    "NPU",
    "Dimension",
    "Fact",
    "RemoteMemory",
    "System",
    "accelerators",
    "find_hwdb",
    "hardware",
    "parameter_units",
    "parameters",
    "systems",
    "with_parameters",
]

TOPOLOGIES = ("ring", "switch", "fully-connected")


@record
class NPU:
    """One accelerator: peak rate [FLOP/s], its memory's bandwidth [B/s] and capacity [B]."""

    peak_flops: Any = number("FLOP/s")
    memory_bandwidth: Any = number("B/s")
    memory_capacity: Any = number("B", default=math.inf)


@record
class Dimension:
    """One dimension of the network: an NPU's one-way bandwidth [B/s] and a hop's latency [s].

    `size` NPUs take part. `built` says how many the hardware joins where the machine is used in
    part (0: as many as take part); it fixes how many links share a fully connected bandwidth.
    """

    bandwidth: Any = number("B/s")
    latency: Any = number("s")
    topology: str = static(default="switch")
    size: int = static(default=1)
    built: int = static(default=0)

    def __post_init__(self):
        if self.topology not in TOPOLOGIES:
            raise InputError(f"topology {self.topology!r}: expected one of {', '.join(TOPOLOGIES)}")
        if self.size < 1:
            raise InputError(f"size of a network dimension: got {self.size}, expected 1 or more")

    @property
    def links(self) -> int:
        """Links of an NPU that share the bandwidth: 2 on a ring, 1 to a switch, one per peer."""
        if self.topology == "ring":
            return 2
        return max(1, max(self.built, self.size) - 1) if self.topology != "switch" else 1


@record
class RemoteMemory:
    """Memory behind the network: an NPU's bandwidth to it [B/s], the latency of an access [s]."""

    bandwidth: Any = number("B/s")
    latency: Any = number("s")


@record
class System:
    """NPUs, all alike, and what joins them, innermost dimension first.

    `grows` says that the outermost dimension takes the size that the ranks need. `facts` are all
    figures of the system's files with their sources, those that no parameter holds (power, price,
    die area) included.
    """

    npu: NPU
    network: tuple[Dimension, ...] = ()
    remote_memory: RemoteMemory | None = None
    name: str = static(default="")
    grows: bool = static(default=False)
    dtype: str = static(default="")
    facts: tuple[Fact, ...] = static(default=())

    @property
    def sizes(self) -> tuple[int, ...]:
        """NPUs per dimension, innermost first."""
        return tuple(d.size for d in self.network)

    @property
    def ranks(self) -> int:
        """Number of NPUs: the product of the sizes.

        >>> System(NPU(1e12, 1e12), (Dimension(1e9, 1e-6, "ring", 4), Dimension(1e9, 1e-6))).ranks
        4
        """
        return math.prod(self.sizes)

    def resized(self, ranks: int) -> System:
        """The system for another number of ranks.

        Inner dimensions are filled first, innermost to outermost; what is left is the size of the
        outermost. 16 ranks of a machine of nodes of 8 are 2 nodes; 4 ranks are half a node.

        Raises:
            SystemFileError: the size is fixed and another, or ranks do not fill whole dimensions.
        """
        if ranks == self.ranks:
            return self
        if ranks < 1:
            raise SystemFileError(
                f"system {self.name}: {ranks} ranks asked for, expected 1 or more"
            )
        if not self.grows:
            raise SystemFileError(
                f"system {self.name} has a fixed size of {self.ranks} ranks, {ranks} are needed; "
                'use a system of that size, or give its outermost network dimension size = "any"'
            )
        sizes, left = [], ranks
        for k, dimension in enumerate(self.network[:-1]):
            full = max(dimension.built, dimension.size)
            if left > full and left % full:
                raise SystemFileError(
                    f"system {self.name}: {ranks} ranks do not fill whole groups of {full} in "
                    f"network dimension {k}; use a multiple of {ranks // left * full}, or a file "
                    f"of your own whose [[network]] {k} has another size"
                )
            sizes.append(min(full, left))
            left //= sizes[-1]
        inner = tuple(
            dataclasses.replace(d, size=n, built=max(d.built, d.size))
            for d, n in zip(self.network, sizes)
        )
        outer = dataclasses.replace(self.network[-1], size=left)
        return dataclasses.replace(self, network=(*inner, outer))

    def fact(self, path: str) -> Fact | None:
        """The figure of that path (`npu.power`, `npu.price`) with its source; None if not known."""
        return next((f for f in self.facts if f.path == path), None)


def hardware(name_or_path: str | Path, *, ranks: int | None = None, dtype: str = "bf16") -> System:
    """The system of that name in hwdb, or of one's own TOML file.

    Args:
        name_or_path: a name that `systems()` lists, or the path of a file of the same form.
        ranks: how many NPUs; without it the file's size, one of an outermost dimension "any".
        dtype: which of the peak rates counts.

    Raises:
        SystemFileError: no such system (the nearest names are offered), or its file is wrong.

    >>> hardware("dgx-h100", ranks=16).sizes
    (8, 2)
    """
    description = system_file.read(name_or_path, dtype=dtype)
    network = tuple(
        Dimension(d["bandwidth"], d["latency"], d["topology"], d["size"] or 1)
        for d in description.network
    )
    remote = description.remote_memory
    system = System(
        NPU(**description.npu),
        network,
        RemoteMemory(**remote) if remote else None,
        name=description.name,
        grows=bool(network) and description.network[-1]["size"] is None,
        dtype=dtype,
        facts=description.facts,
    )
    return system if ranks is None else system.resized(ranks)
