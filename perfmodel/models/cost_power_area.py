"""What a machine costs, draws, occupies, and what energy a step takes: rough models to be replaced by better ones.

    from perfmodel import economics
    economics.figures(system, p.makespan, economics.totals(graph, system))

`Cost`, `Power` and `Area` are records of coefficients over the same parameters as the models of time, so that
they can be optimised and differentiated together with them. Their defaults are public figures, some of them weak
(each names its source); `anchored` scales them to what hwdb knows of one machine. Nothing is free by
default: where no figure is known (remote memory) the models ask for one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import field, replace
from typing import Any

import jax

from perfmodel.errors import InputError
from perfmodel.machine.system import Dimension, System
from perfmodel.models.figures import FIGURES, figures_of
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.pytree import number, record


@record
class Link:
    """A class of links: price of bandwidth [$ per B/s], of its switch and NIC, and energy [J/B].

    None means that there is none of it: a chiplet dimension cannot be a switch at any price.
    """

    price: Any = number("$ s/B")
    energy: Any = number("J/B")
    switch: Any = number("$ s/B", default=None)
    nic: Any = number("$ s/B", default=0.0)

    def per_bandwidth(self, dimension: Dimension) -> Any:
        """$ per B/s that an NPU has in the dimension.

        Raises:
            InputError: a switch in a class that has none.
        """
        if not dimension.shape.switched:
            return self.price
        if self.switch is None:
            raise InputError("economics: a switch among chiplets has no price; give Link(switch=)")
        return self.price + self.switch + self.nic


def _links() -> tuple[Link, ...]:
    return (
        Link(2.0e-9, 1 * 8e-12),
        Link(4.0e-9, 13 * 8e-12, 13.0e-9),
        Link(4.0e-9, 13 * 8e-12, 13.0e-9),
        Link(7.8e-9, 53 * 8e-12, 18.0e-9, 31.6e-9),
    )


@record
class Links:
    """The link class of every network dimension: chiplet, package, node, pod, from the inside out.

    K dimensions are the K outermost classes; further inner ones are chiplets, too.

    Prices: LIBRA's inputs/cost_model/4d_cost_model.yml (astra-sim/libra@0044db0), $ per GB/s that an NPU has; its
    trailing 1e-5 digits left out. As there, a switch costs link + switch + NIC, a ring or full connection its links.
    Energy: 1 and 13 pJ/bit within and between packages (DeepFlow@e8fc755); a pod adds two optical modules of 20
    pJ/bit (800G OSFP, 16 W; achoenix.github.io/optical_io).
    """

    classes: tuple[Link, ...] = field(default_factory=_links)

    def of(self, network: Sequence[Dimension]) -> list[tuple[Link, Dimension]]:
        """(class, dimension), innermost first."""
        first = len(self.classes) - len(network)
        return [(self.classes[max(first + k, 0)], d) for k, d in enumerate(network)]


@record
class Cost:
    """Price of a machine [$]: NPUs and the network between them.

    cost = ranks (base + f P + b B + c C + sum over dimensions k of l_k B_k)

    with P the peak rate [FLOP/s], B and C bandwidth [B/s] and capacity [B] of an NPU's memory, B_k its bandwidth in
    dimension k, l_k the link class's price. The defaults divide the selling price of an H100, 28 k$, like its bill of
    materials (logic 300, memory 1400, packaging, test and other 1670 $; third-party estimates by siliconanalysts,
    weak), the memory's part in halves between bandwidth and capacity (assumed).

    >>> from perfmodel.machine.system import NPU
    >>> round(float(Cost().total(System(NPU(989e12, 3.35e12, 80e9)))))
    28000
    """

    base: Any = number("$", default=28e3 * 1670 / 3370)
    per_flops: Any = number("$ s/FLOP", default=28e3 * 300 / 3370 / 989e12)
    per_memory_bandwidth: Any = number("$ s/B", default=28e3 * 700 / 3370 / 3.35e12)
    per_memory_capacity: Any = number("$/B", default=28e3 * 700 / 3370 / 80e9)
    per_remote_bandwidth: Any = number("$ s/B", default=None)
    links: Links = field(default_factory=Links)

    def total(self, system: System) -> Any:
        """Of the whole machine [$]."""
        npu = system.npu
        price = self.base + self.per_flops * npu.peak_flops
        price = price + self.per_memory_bandwidth * npu.memory_bandwidth
        price = price + self.per_memory_capacity * _finite(npu.memory_capacity)
        if system.remote_memory is not None:
            known = _given(self.per_remote_bandwidth, "Cost(per_remote_bandwidth=) [$ per B/s]")
            price = price + known * system.remote_memory.bandwidth
        return system.ranks * (price + self.network(system))

    def network(self, system: System) -> Any:
        """The network's part, per NPU [$]."""
        return sum(c.per_bandwidth(d) * d.bandwidth for c, d in self.links.of(system.network))


@record
class Power:
    """Electrical power [W] and energy of a step [J].

    supply = ranks (static + u (e_f P + e_b B + sum over k of e_k B_k))
    energy = ranks static T + e_f FLOP + e_b bytes + sum over k of e_k bytes_k

    with T the makespan, and work summed over all ranks. u says that boards are built for less than all units at full
    rate. The defaults come from measurements on an H200 board (aiconfigurator@095f58a: 691 W at 697 TFLOP/s in
    bf16 GEMM, 477 W at 4.09 TB/s in memory-bound GEMM) and 4.5 pJ/bit of HBM (DeepFlow@e8fc755, A100): static 477 W
    - 147 W = 330 W, e_f = (691 - 330) W / 697 TFLOP/s, u so that the H200 draws its 700 W. They give the A100, the H100
    and the B200 their power within 15 %.
    """

    static: Any = number("W", default=330.0)
    per_flop: Any = number("J/FLOP", default=0.518e-12)
    per_byte: Any = number("J/B", default=36e-12)
    per_remote_byte: Any = number("J/B", default=None)
    sustained: Any = number("1", default=0.54)
    links: Links = field(default_factory=Links)

    def supply(self, system: System) -> Any:
        """What the machine must be supplied with [W]."""
        npu = system.npu
        dynamic = self.per_flop * npu.peak_flops + self.per_byte * npu.memory_bandwidth
        dynamic = dynamic + sum(c.energy * d.bandwidth for c, d in self.links.of(system.network))
        if system.remote_memory is not None:
            known = _given(self.per_remote_byte, "Power(per_remote_byte=) [J/B]")
            dynamic = dynamic + known * system.remote_memory.bandwidth
        return system.ranks * (self.static + self.sustained * dynamic)

    def energy(self, system: System, makespan: Any, totals: TotalWork) -> Any:
        """Of one step [J].

        Work that a trace gives only as a recorded duration counts as that long at the sustained rate of its unit (a
        collective: of the outermost dimension).
        """
        npu = system.npu
        rates = self.per_flop * npu.peak_flops + self.per_byte * npu.memory_bandwidth
        total = system.ranks * self.static * makespan
        total = total + self.per_flop * totals.flops + self.per_byte * totals.bytes
        total = total + self.sustained * rates * totals.recorded_compute
        total = (
            total + self.sustained * self.per_byte * npu.memory_bandwidth * totals.recorded_memory
        )
        links = self.links.of(system.network)
        for (link, _), sent in zip(links, totals.network):
            total = total + link.energy * sent
        if links:
            link, outer = links[-1]
            busy = self.sustained * outer.bandwidth * totals.recorded_communication
            total = total + link.energy * busy
        if system.remote_memory is not None:
            known = _given(self.per_remote_byte, "Power(per_remote_byte=) [J/B]")
            total = total + known * totals.remote_bytes
        return total


@record
class Area:
    """Silicon of all NPUs [m^2]: area = ranks (base + f P + b B + l sum over dimensions of B_k) / density.

    The defaults are the annotated die of an A100 in 7 nm (LLMCompass@2e015fd: cores 476, memory PHY and controller
    90, off-chip PHY 21, the rest 236 mm2) over its 312 TFLOP/s, 2.039 TB/s and 300 GB/s. `density` is that of
    another process over 7 nm: 1.44 for 5 nm (96.3 to 138.2 million transistors per mm2, ttm-cas@d98ac05).

    >>> from perfmodel.machine.system import NPU
    >>> npu = NPU(312e12, 2.039e12, 80e9)
    >>> round(float(Area().total(System(npu, (Dimension(300e9, 1e-6),)))) * 1e6)
    823
    """

    base: Any = number("m^2", default=235.75e-6)
    per_flops: Any = number("m^2 s/FLOP", default=476.25e-6 / 312e12)
    per_memory_bandwidth: Any = number("m^2 s/B", default=89.77e-6 / 2.039e12)
    per_network_bandwidth: Any = number("m^2 s/B", default=20.95e-6 / 300e9)
    density: Any = number("1", default=1.0)

    def total(self, system: System) -> Any:
        """Of the whole machine [m^2]."""
        npu = system.npu
        die = self.base + self.per_flops * npu.peak_flops
        die = die + self.per_memory_bandwidth * npu.memory_bandwidth
        die = die + self.per_network_bandwidth * sum(d.bandwidth for d in system.network)
        return system.ranks * die / self.density


@record
class TotalWork:
    """The work of a graph, summed over all ranks.

    Attributes:
        flops, bytes: arithmetic, and bytes moved between NPUs and their own memories [FLOP], [B].
        network: bytes sent in every dimension [B]; collectives count what any algorithm must send at least.
        remote_bytes: to and from remote memory [B].
        recorded_compute, recorded_memory, recorded_communication: time of nodes that give no work [s].
    """

    flops: Any = number("FLOP")
    bytes: Any = number("B")
    network: tuple[Any, ...] = ()
    remote_bytes: Any = number("B", default=0.0)
    recorded_compute: Any = number("s", default=0.0)
    recorded_memory: Any = number("s", default=0.0)
    recorded_communication: Any = number("s", default=0.0)


@record
class Economics:
    """The three models; each may be exchanged for one's own with the same methods."""

    cost: Any = field(default_factory=Cost)
    power: Any = field(default_factory=Power)
    area: Any = field(default_factory=Area)

    def figure(self, name: str, system: System, makespan: Any, totals: TotalWork) -> Any:
        """One figure [s, $, W, J, m^2], in pure JAX.

        Raises:
            InputError: no such figure; a price or an energy that is not known.
        """
        if name == "time":
            return makespan
        if name == "cost":
            return self.cost.total(system)
        if name == "power":
            return self.power.supply(system)
        if name == "energy":
            return self.power.energy(system, makespan, totals)
        if name == "area":
            return self.area.total(system)
        raise InputError(f"figure {name!r}: expected one of {', '.join(FIGURES)}")


def anchored(system: System, economics: Economics | None = None) -> Economics:
    """The models scaled to what hwdb knows of the system: its NPU's price, power and die area, at its file's rates.

    A figure that the system's files do not give leaves its model as it is. What they say of a whole node
    (`system.price`, `system.power`: host, NICs, fans) is not used: the models are of NPUs and the network between them.

    >>> from perfmodel.machine.system import hardware
    >>> system = hardware("dgx-h100", ranks=8)
    >>> npu, model = system.npu, anchored(system).power
    >>> drawn = model.per_flop * npu.peak_flops + model.per_byte * npu.memory_bandwidth
    >>> round(model.static + model.sustained * drawn)
    700
    """
    economics = Economics() if economics is None else economics
    cost, power, area = economics.cost, economics.power, economics.area
    system = _as_read(system)
    npu = system.npu
    alone = replace(system, network=(), remote_memory=None)
    price, drawn, die = (system.fact(f"npu.{k}") for k in ("price", "power", "die_area"))
    if price is not None:
        factor = price.value / float(cost.total(alone))
        names = ("base", "per_flops", "per_memory_bandwidth", "per_memory_capacity")
        cost = replace(cost, **{n: getattr(cost, n) * factor for n in names})
    if drawn is not None:
        factor = drawn.value / float(power.supply(alone))
        scaled = ("static", "per_flop", "per_byte")
        power = replace(power, **{n: getattr(power, n) * factor for n in scaled})
    if die is not None:
        network = sum(d.bandwidth for d in system.network) * area.per_network_bandwidth
        rest = float(area.base + area.per_flops * npu.peak_flops + network)
        rest += float(area.per_memory_bandwidth * npu.memory_bandwidth)
        area = replace(area, density=rest / die.value)
    return replace(economics, cost=cost, power=power, area=area)


def _as_read(system: System) -> System:
    """The system with the rates that its file gives, of which price, power and die area are.

    So a design costs the same from whichever design one started.
    """
    known = parameters(system)
    values = {path: value for path, value in system.as_read if path in known}
    return with_parameters(system, None, values)[0] if values else system


def basis(system: System, economics: Any = None) -> dict[str, str]:
    """What each figure of money, power, energy and area rests on, in a sentence: a source, or that it is extrapolated.

    >>> from perfmodel.machine.system import hardware
    >>> basis(hardware("tpu-v5p-slice"))["power"][:40]
    'extrapolated: no power of tpu-v5p-slice '
    """
    if economics not in (None, True):
        return {name: "of models of your own" for name in ("cost", "power", "energy", "area")}
    found = {}
    for name, (path, relative) in _ANCHORS.items():
        fact = system.fact(path)
        if fact is None:
            what = path.removeprefix("npu.").replace("_", " ")
            found[name] = (
                f"extrapolated: no {what} of {system.name} is known, so its rates are priced like {relative}"
            )
        else:
            said = f"{fact.status}: {fact.source}" if fact.status else fact.source
            found[name] = (
                f"scaled to {path} = {fact.value * _SHOWN[fact.unit]:.6g} {_UNIT[fact.unit]} ({said})"
            )
            found[name] += f", divided over its rates like {relative}"
    if system.network:
        found["cost"] += "; the network at LIBRA's prices"
    found["energy"] = found["power"]
    return found


_ANCHORS = {
    "cost": ("npu.price", "an H100's estimated selling price (weak)"),
    "power": ("npu.power", "a measured H200's power"),
    "area": ("npu.die_area", "an A100's die"),
}
"""Figure -> what anchors it, and the device whose division it takes."""

_SHOWN = {"$": 1.0, "W": 1.0, "m^2": 1e6}
_UNIT = {"$": "$", "W": "W", "m^2": "mm2"}


def models_for(system: System, economics: Any = None) -> Any:
    """The models for one system: those given, or by default (None, True) the public ones, anchored to the system.

    Raises:
        InputError: what is no model.
    """
    if economics is None or economics is True:
        return anchored(system)
    if not callable(getattr(economics, "figure", None)):
        raise InputError(
            f"economics: got {economics!r}, expected pm.economics.Economics(...), or True for the default ones"
        )
    return economics


def figures(
    system: System, makespan: Any, totals: TotalWork, *, economics: Any = None
) -> dict[str, Any]:
    """Every figure of one design by its column: makespan_s, cost_usd, power_W, energy_J, area_mm2, and the models' own.

    By default of the models as they are; `anchored` ones are to be made at the reference design and given.
    """
    economics = Economics() if economics is None else economics
    return {
        f.column: economics.figure(name, system, makespan, totals) * f.factor
        for name, f in figures_of(economics).items()
    }


def _finite(capacity: Any) -> Any:
    """A capacity that a price can be put on."""
    if not isinstance(capacity, jax.core.Tracer) and math.isinf(float(capacity)):
        raise InputError(
            "economics: npu.memory_capacity is not known, so the memory has no price; give it in the system"
        )
    return capacity


def _given(value: Any, remedy: str) -> Any:
    if value is None:
        raise InputError(f"economics: no figure for remote memory is known; give {remedy}")
    return value
