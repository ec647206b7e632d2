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
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.display import as_html, as_text
from perfmodel.errors import InputError, SystemFileError
from perfmodel.machine import system_file
from perfmodel.machine.hwdb import accelerators, find_hwdb, systems
from perfmodel.machine.system_figures import DOUBTFUL, Fact
from perfmodel.machine.system_file import REDUCTIONS
from perfmodel.machine.topology import TOPOLOGIES, Topology
from perfmodel.parameter_paths import parameter_units, parameters, with_parameters
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import STANDS_FOR

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


@record
class NPU:
    """One accelerator: peak rate [FLOP/s], its memory's bandwidth [B/s] and capacity [B].

    Attributes:
        peak_flops: dense, of the system's dtype.
        cores: streaming multiprocessors, compute units or what else its vendor counts; None where not known.
        dtype_ratios: (dtype, its peak over the system's dtype's) of every dtype that the device has; none where all
            have the same. Sweeping `peak_flops` keeps the ratios.
        sustained: (dtype, share of its peak that matrix products can keep up within the board's power); none where
            that is not known, or where the coefficients were fitted on the device itself. Kept in sweeps, too.
    """

    peak_flops: Any = number("FLOP/s")
    memory_bandwidth: Any = number("B/s")
    memory_capacity: Any = number("B", default=math.inf)
    cores: Any = number("1", default=None)
    dtype_ratios: tuple[tuple[str, float], ...] = static(default=())
    sustained: tuple[tuple[str, float], ...] = static(default=())

    def of_dtype(self, dtype: str) -> NPU:
        """The same NPU with the peak rate of a dtype; itself of "", which stands for the system's.

        A device that has no rate for a variant of a dtype (`vocabulary.STANDS_FOR`) takes that dtype's.

        Raises:
            InputError: the device has no such dtype.

        >>> hardware("h100-sxm").npu.of_dtype("fp8").peak_flops / 1e12
        1979.0
        """
        if not dtype or not self.dtype_ratios:
            return self
        ratios = dict(self.dtype_ratios)
        if dtype not in ratios and dtype in STANDS_FOR:
            dtype = STANDS_FOR[dtype]
        if dtype not in ratios:
            raise InputError(
                f"dtype {dtype!r}: the device has no peak rate for it; it has {', '.join(ratios)}"
            )
        return dataclasses.replace(self, peak_flops=self.peak_flops * ratios[dtype])


@record
class Dimension:
    """One dimension of the network: an NPU's one-way bandwidth [B/s] and a hop's latency [s].

    `size` NPUs take part. `built` says how many the hardware joins where the machine is used in
    part (0: as many as take part); it fixes how many links share a fully connected bandwidth.
    `reduction` says what its switches reduce by themselves: "nvls" (NVLink SHARP), "sharp"
    (InfiniBand SHARP) or nothing.
    """

    bandwidth: Any = number("B/s")
    latency: Any = number("s")
    topology: str = static(default="switch")
    size: int = static(default=1)
    built: int = static(default=0)
    reduction: str = static(default="")

    def __post_init__(self) -> None:
        if self.topology not in TOPOLOGIES:
            raise InputError(f"topology {self.topology!r}: expected one of {', '.join(TOPOLOGIES)}")
        if self.size < 1:
            raise InputError(f"size of a network dimension: got {self.size}, expected 1 or more")
        if self.reduction not in REDUCTIONS:
            raise InputError(
                f"reduction {self.reduction!r}: expected one of {', '.join(filter(None, REDUCTIONS))}, or none"
            )

    @property
    def shape(self) -> Topology:
        """What follows from the topology."""
        return TOPOLOGIES[self.topology]

    @property
    def links(self) -> int:
        """Links of an NPU that share the bandwidth: 2 on a ring, 1 to a switch, one per peer."""
        return self.shape.links(max(self.built, self.size))


@record
class RemoteMemory:
    """Memory behind the network: an NPU's bandwidth to it [B/s], the latency of an access [s]."""

    bandwidth: Any = number("B/s")
    latency: Any = number("s")


@record
class System:
    """NPUs, all alike, and what joins them, innermost dimension first.

    `grows` says that the outermost dimension takes the size that the ranks need; `used` how many NPUs
    of each inner dimension jobs use (none: all that are built). `facts` are all figures of the
    system's files with their sources, those that no parameter holds (power, price, die area)
    included. `model_set` names the fitted coefficients that the machine takes, `fitted` holds them (`models.fitted`);
    `accelerator` names the file of its NPU's figures. `as_read` are the parameters as the file gives
    them, whatever has been changed since.
    """

    npu: NPU
    network: tuple[Dimension, ...] = ()
    remote_memory: RemoteMemory | None = None
    name: str = static(default="")
    grows: bool = static(default=False)
    dtype: str = static(default="")
    facts: tuple[Fact, ...] = static(default=())
    used: tuple[int, ...] = static(default=())
    model_set: str = static(default="")
    title: str = static(default="")
    accelerator: str = static(default="")
    fitted: Any = static(default=None)
    as_read: tuple[tuple[str, float], ...] = static(default=())

    @property
    def models(self) -> Any:
        """The models that were fitted to this hardware, or to a relative; None where there are none."""
        return None if self.fitted is None else self.fitted.models

    def _rows(self) -> dict[str, str]:
        npu = self.npu
        rows = {
            "ranks": f"{self.ranks:,}",
            "npu": f"{npu.peak_flops} FLOP/s {self.dtype}".rstrip(),
            "memory": f"{npu.memory_bandwidth} B/s, {npu.memory_capacity} B",
        }
        for k, d in enumerate(self.network):
            rows[f"network {k}"] = f"{d.topology} of {d.size}, {d.bandwidth} B/s, {d.latency} s"
        if self.remote_memory is not None:
            far = self.remote_memory
            rows["remote memory"] = f"{far.bandwidth} B/s, {far.latency} s"
        return rows

    def __repr__(self) -> str:
        return as_text(f"System {self.name}".rstrip(), self._rows())

    def _repr_html_(self) -> str:
        return as_html(f"System {self.name}".rstrip(), self._rows())

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
        if isinstance(ranks, bool) or not isinstance(ranks, int | np.integer) or ranks < 1:
            raise SystemFileError(
                f"system {self.name}: {ranks!r} ranks asked for, expected a whole number, 1 or more"
            )
        if ranks == self.ranks:
            return self
        if not self.grows:
            raise SystemFileError(
                f"system {self.name} has a fixed size of {self.ranks} ranks, {ranks} are needed; "
                'use a system of that size, or give its outermost network dimension size = "any"'
            )
        sizes, left = [], ranks
        for k, dimension in enumerate(self.network[:-1]):
            built = max(dimension.built, dimension.size)
            full = self.used[k] if k < len(self.used) else built
            if left > full and left % full:
                raise SystemFileError(
                    f"system {self.name}: {ranks} ranks do not fill whole groups of {full} in "
                    f"network dimension {k}; use a multiple of {ranks // left * full}, or say how many "
                    f"jobs use of each: hardware(..., sizes=({'..., ' * k}N,)), --used"
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

    def doubtful(self) -> tuple[Fact, ...]:
        """The figures behind the system's numbers that are weak, assumed or extrapolated, as far as they still hold.

        >>> [f.path for f in hardware("mi300x-8").doubtful()]
        ['network.0.latency']
        """
        known = parameters(self)
        return tuple(
            f
            for f in self.facts
            if f.status in DOUBTFUL and f.path in known and _same(known[f.path], f.value)
        )


def hardware(
    name_or_path: str | Path,
    *,
    ranks: int | None = None,
    dtype: str | None = None,
    sizes: Sequence[int] = (),
) -> System:
    """The system of that name in hwdb, or of one's own TOML file.

    Args:
        name_or_path: a name that `systems()` lists, or the path of a file of the same form.
        ranks: how many NPUs; without it the file's size, one of an outermost dimension "any".
        dtype: which of the peak rates counts; by default bf16, or what the file says where the device has none.
        sizes: how many NPUs jobs use of each inner dimension, innermost first: (64,) for 64 of 72; of a ring, whose
            links close it at any size, how many it has. One more is the outermost's size.

    Raises:
        SystemFileError: no such system (the nearest names are offered), its file is wrong, or it cannot have the sizes.

    >>> hardware("dgx-h100", ranks=16).sizes, hardware("gb200-nvl72", ranks=128, sizes=(64,)).sizes
    ((8, 2), (64, 2))
    """
    description = system_file.read(name_or_path, dtype=dtype)
    network = tuple(
        Dimension(
            d["bandwidth"], d["latency"], d["topology"], d["size"] or 1, reduction=d["reduction"]
        )
        for d in description.network
    )
    remote = description.remote_memory
    peaks = description.peaks
    ratios = tuple((word, peak / peaks[description.dtype]) for word, peak in peaks.items())
    system = System(
        NPU(**description.npu, dtype_ratios=ratios, sustained=description.sustained),
        network,
        RemoteMemory(**remote) if remote else None,
        name=description.name,
        grows=bool(network) and description.network[-1]["size"] is None,
        dtype=description.dtype,
        facts=description.facts,
        model_set=_beside(description.models, description.folder),
        title=description.title,
        accelerator=description.accelerator,
    )
    system = dataclasses.replace(system, as_read=tuple(parameters(system).items()))
    if len(sizes):
        system = _shaped(system, tuple(sizes))
    return system if ranks is None else system.resized(ranks)


def _same(value: Any, figure: float) -> bool:
    """Whether a parameter is still the number of its file."""
    return isinstance(value, int | float) and math.isclose(value, figure, rel_tol=1e-12)


def _beside(models: str, folder: Path) -> str:
    """The name of a set of coefficients; the path of a file of them is relative to the system's file."""
    return str(folder / models) if models.endswith(".toml") else models


def _shaped(system: System, sizes: tuple[int, ...]) -> System:
    """The system whose dimensions have, or are used to, these sizes."""
    where = f"system {system.name}: sizes={sizes}"
    network = system.network
    most = len(network) if system.grows else len(network) - 1
    if len(sizes) > most:
        fixed = "" if system.grows else " besides the outermost, whose size is fixed"
        raise SystemFileError(f"{where}: {len(sizes)} sizes, but it has {most} dimensions{fixed}")
    shaped = []
    for k, (size, d) in enumerate(zip(sizes, network)):
        if isinstance(size, bool) or not isinstance(size, int | np.integer) or size < 1:
            raise SystemFileError(
                f"{where}: dimension {k}: got {size!r}, expected a whole number, 1 or more"
            )
        built = max(d.built, d.size)
        free = d.shape.extends or (system.grows and k + 1 == len(network))
        if size > built and not free:
            raise SystemFileError(
                f"{where}: dimension {k}: {size} NPUs, but its {d.topology} joins {built}"
            )
        shaped.append(dataclasses.replace(d, size=int(size), built=0 if free else built))
    inner = tuple(d.size for d in shaped[: len(network) - 1])
    whole = (*shaped, *network[len(sizes) :])
    total = math.prod(d.size for d in whole)
    if total > system_file.LARGEST_SIZE:
        raise SystemFileError(
            f"{where}: {total} NPUs in all, expected {system_file.LARGEST_SIZE} at most"
        )
    return dataclasses.replace(system, network=whole, used=inner)
