"""Cost, power, energy and area: worked by hand, against LIBRA's own sum, and against boards."""

import dataclasses
import math

import jax
import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis import economics
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, RemoteMemory, System, hardware
from perfmodel.models.cost_power_area import Area, Cost, Economics, Links, Power, TotalWork, basis

LIBRA = System(
    NPU(1e15, 3e12, 80e9),
    (
        Dimension(250e9, 0.0, "ring", 4),
        Dimension(200e9, 0.0, "fully-connected", 8),
        Dimension(100e9, 0.0, "ring", 4),
        Dimension(50e9, 0.0, "switch", 32),
    ),
)


def libra_network_cost(network):
    """LIBRA's way (src/cost_model/cost_model.py): groups x links in a group x bandwidth of a link x prices."""
    sizes = [d.size for d in network]
    prices = [
        2.0,
        4.0,
        4.0,
        7.8 + 31.6 + 18.0,
    ]  # the last one a switch: link, NIC, switch [$ per GB/s]
    total = 0.0
    for k, d in enumerate(network):
        if d.topology == "switch":
            groups, links, shared = math.prod(sizes[k + 1 :]), math.prod(sizes[: k + 1]), 1
        elif d.topology == "ring":
            groups, links, shared = math.prod(sizes) // d.size, 2 * d.size, 2
        else:
            groups, links, shared = math.prod(sizes) // d.size, d.size * (d.size - 1), d.size - 1
        total += groups * links * d.bandwidth / 1e9 / shared * prices[k]
    return total


def test_the_network_costs_what_libra_says():
    assert LIBRA.ranks * Cost().network(LIBRA) == pytest.approx(
        libra_network_cost(LIBRA.network), rel=1e-12
    )


def test_the_outermost_dimensions_have_the_outermost_classes():
    three = dataclasses.replace(LIBRA, network=LIBRA.network[1:])
    five = dataclasses.replace(LIBRA, network=(LIBRA.network[0], *LIBRA.network))
    assert [c.price for c, _ in Links().of(three.network)] == [4e-9, 4e-9, 7.8e-9]
    assert [c.price for c, _ in Links().of(five.network)] == [2e-9, 2e-9, 4e-9, 4e-9, 7.8e-9]


def test_a_machine_costs_its_npus_and_its_network():
    cost = Cost(base=100.0, per_flops=1e-13, per_memory_bandwidth=1e-10, per_memory_capacity=1e-9)
    npu = 100 + 100 + 300 + 80
    network = 250 * 2 + 200 * 4 + 100 * 4 + 50 * 57.4
    assert cost.total(LIBRA) == pytest.approx(512 * 8 * (npu + network), rel=1e-12)


@pytest.mark.parametrize(
    ("name", "watts"), [("dgx-a100", 400), ("dgx-h100", 700), ("dgx-b200", 1000)]
)
def test_boards_draw_about_what_their_makers_say(name, watts):
    system = dataclasses.replace(pm.hardware(name, ranks=8), network=())
    assert float(Power().supply(system)) == pytest.approx(watts, rel=0.15)


def test_anchored_models_reproduce_the_figures_of_hwdb():
    system = pm.hardware("dgx-h100", ranks=16)
    models = economics.anchored(system)
    alone = dataclasses.replace(system, network=())
    assert float(models.cost.total(alone)) == pytest.approx(system.fact("npu.price").value)
    assert float(models.power.supply(alone)) == pytest.approx(system.fact("npu.power").value)
    assert float(models.area.total(system)) == pytest.approx(16 * system.fact("npu.die_area").value)
    assert system.fact("npu.die_area").value == pytest.approx(814e-6)


def test_anchoring_leaves_alone_what_hwdb_does_not_know():
    system = System(NPU(1e15, 3e12, 80e9))
    assert economics.anchored(system) == Economics()


def test_energy_is_static_power_and_work():
    power = Power(static=100.0, per_flop=1e-12, per_byte=1e-11)
    totals = TotalWork(flops=4e15, bytes=2e12, network=(0.0, 0.0, 0.0, 1e12))
    expected = 4096 * 100 * 0.5 + 4e3 + 20 + 1e12 * 53 * 8e-12
    assert float(power.energy(LIBRA, 0.5, totals)) == pytest.approx(expected, rel=1e-12)


def test_recorded_durations_count_at_the_sustained_rate():
    power = Power(static=0.0, per_flop=1e-12, per_byte=1e-11, sustained=0.5)
    rates = 1e-12 * 1e15 + 1e-11 * 3e12
    for field, watts in (
        ("recorded_compute", 0.5 * rates),
        ("recorded_memory", 0.5 * 1e-11 * 3e12),
        ("recorded_communication", 0.5 * 53 * 8e-12 * 50e9),
    ):
        totals = TotalWork(flops=0.0, bytes=0.0, network=(0.0,) * 4, **{field: 2.0})
        assert float(power.energy(LIBRA, 1.0, totals)) == pytest.approx(2 * watts)


def test_the_area_of_an_a100_is_that_of_its_die():
    system = System(NPU(312e12, 2.039e12, 80e9), (Dimension(300e9, 1e-6),))
    assert float(Area().total(system)) * 1e6 == pytest.approx(826, rel=0.01)
    assert Area(density=2.0).total(system) == pytest.approx(Area().total(system) / 2)


def test_totals_of_a_collective_are_what_every_rank_must_send():
    system = dataclasses.replace(LIBRA, network=(LIBRA.network[0], LIBRA.network[1]))
    totals = economics.totals(synth.collective("all_reduce", 32, 1 << 20).graph(), system)
    inner = 2 * 3 / 4 * 2**20  # reduce-scatter and all-gather among 4
    outer = 2 * 7 / 8 * 2**18  # all-reduce of a quarter among 8
    assert totals.network == pytest.approx((32 * inner, 32 * outer))
    assert (totals.flops, totals.bytes, totals.remote_bytes) == (0, 0, 0)


def test_totals_sum_work_over_all_ranks():
    work = synth.training({"layers": 2, "hidden": 64, "heads": 4}, data=2, tensor=2, pipeline=2)
    graph = work.graph()
    totals = economics.totals(graph, pm.hardware("dgx-h100", ranks=8))
    nodes = graph.nodes
    compute = nodes[nodes.type == "COMP"]
    assert totals.flops == float(compute.flops.sum())
    assert totals.bytes == float(compute.bytes_B.sum())
    sends = nodes[nodes.type == "COMM_SEND"]
    alone = pm.hardware("dgx-h100", ranks=8)
    ring = dataclasses.replace(alone, network=(Dimension(1e9, 0.0, "ring", 8),))
    hops = np.minimum((sends.peer - sends["rank"]) % 8, (sends["rank"] - sends.peer) % 8)
    collectives = nodes[
        nodes.type == "ALL_REDUCE"
    ].size_B.sum()  # among 2: each sends its size once
    collectives += nodes[nodes.type == "ALL_GATHER"].size_B.sum()  # among 2: the other's part
    collectives += nodes[nodes.type == "REDUCE_SCATTER"].size_B.sum() / 2
    expected = float((sends.size_B * hops).sum() + collectives)
    assert economics.totals(graph, ring).network == pytest.approx((expected,))


def test_nodes_with_a_recorded_duration_only_are_kept_apart():
    graph = synth.training({"layers": 1, "hidden": 64, "heads": 4}).graph()
    p = graph.programs[0]
    silent = dataclasses.replace(
        p,
        flops=np.full_like(p.flops, -1),
        bytes=np.full_like(p.bytes, -1),
        duration=np.full(len(p), 0.25),
    )
    totals = economics.totals(
        dataclasses.replace(graph, programs=(silent,)), pm.hardware("dgx-h100", ranks=1)
    )
    assert totals.flops == 0
    assert totals.recorded_compute == 0.25 * (p.type == 4).sum()


def test_figures_of_many_designs_equal_those_of_each():
    graph = synth.collective("all_reduce", 16, 1 << 20).graph()
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=16))
    paths = ("npu.peak_flops", "network.1.bandwidth")
    values = np.array([[1e15, 2e15, 5e14], [5e10, 1e11, 2e11]])
    makespan = np.array([1e-3, 2e-3, 3e-3])
    at_reference = economics.anchored(compiled.system)
    table = economics.columns(compiled, paths, values, makespan)
    assert list(table) == ["cost_usd", "power_W", "energy_J", "area_mm2"]
    work = economics.totals(graph, compiled.system)
    for d in range(3):
        system, _ = pm.with_parameters(
            compiled.system, compiled.models, dict(zip(paths, values[:, d]))
        )
        one = economics.figures(system, makespan[d], work, economics=at_reference)
        for name, column in table.items():
            assert column[d] == pytest.approx(float(one[name]), rel=1e-12)
        assert one["makespan_s"] == makespan[d]


def test_every_figure_has_the_derivative_of_finite_differences():
    totals = TotalWork(flops=4e15, bytes=2e12, network=(1e12, 1e12, 0.0, 1e12))

    def all_figures(x):
        system, _ = pm.with_parameters(
            LIBRA, None, {"npu.peak_flops": x[0] * 1e15, "network.3.bandwidth": x[1] * 1e11}
        )
        values = economics.figures(system, x[2], totals)
        return jax.numpy.stack([jax.numpy.asarray(v, float) for v in values.values()])

    x = np.array([1.0, 0.5, 0.3])
    slope = np.asarray(jax.jacrev(all_figures)(x))
    for k in range(3):
        step = 1e-4 * np.eye(3)[k]
        difference = (all_figures(x + step) - all_figures(x - step)) / 2e-4
        assert slope[:, k] == pytest.approx(np.asarray(difference), rel=1e-6, abs=1e-6)


def test_nothing_is_free_by_default():
    remote = dataclasses.replace(LIBRA, remote_memory=RemoteMemory(1e11, 1e-6))
    with pytest.raises(InputError, match="per_remote_bandwidth"):
        Cost().total(remote)
    with pytest.raises(InputError, match="per_remote_byte"):
        Power().supply(remote)
    with pytest.raises(InputError, match="per_remote_byte"):
        Power().energy(remote, 1.0, TotalWork(0.0, 0.0))
    known = Cost(per_remote_bandwidth=1e-9)
    assert known.total(remote) == pytest.approx(Cost().total(LIBRA) + LIBRA.ranks * 100)
    chiplet = dataclasses.replace(
        LIBRA, network=(Dimension(1e9, 0.0, "switch", 4), *LIBRA.network[1:])
    )
    with pytest.raises(InputError, match="switch among chiplets"):
        Cost().total(chiplet)
    with pytest.raises(InputError, match="memory_capacity"):
        Cost().total(System(NPU(1e15, 3e12)))
    with pytest.raises(InputError, match="expected one of time, cost"):
        Economics().figure("weight", LIBRA, 1.0, TotalWork(0.0, 0.0))


def test_a_model_of_ones_own_takes_a_models_place():
    @pm.record
    class PerWatt:
        price: float = pm.number("$/W")

        def total(self, system):
            return self.price * Power().supply(system)

    mine = Economics(cost=PerWatt(2.0))
    found = economics.figures(LIBRA, 1.0, TotalWork(0.0, 0.0, (0.0,) * 4), economics=mine)
    assert float(found["cost_usd"]) == pytest.approx(2 * float(found["power_W"]))


def test_what_a_figure_rests_on_is_said_and_what_is_extrapolated_is_called_so():
    known = basis(hardware("dgx-h100"))
    assert "npu.price = 28000 $ (weak: third-party estimate" in known["cost"]
    assert "npu.power = 700 W" in known["power"]
    assert "npu.die_area = 814 mm2" in known["area"]
    assert known["energy"] == known["power"]
    unknown = basis(hardware("tpu-v6e-slice"))
    assert all(text.startswith("extrapolated: no ") for text in unknown.values())
    assert basis(hardware("dgx-h100"), Economics())["cost"] == "of models of your own"


@pm.record
class Sinking:
    """A figure by an operation that NumPy's evaluation of formulas does not know."""

    base: economics.Economics = economics.Economics()
    own_figures = (economics.Figure("depth", "depth_m", "m"),)

    def figure(self, name, system, makespan, totals):
        if name == "depth":
            return jax.numpy.sinh(makespan) + 0.0 * system.npu.peak_flops
        return self.base.figure(name, system, makespan, totals)


def test_figures_by_any_operation_of_jax_are_known():
    graph = synth.collective("all_reduce", 16, 1 << 20).graph()
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=16))
    makespan = np.linspace(0.1, 2.0, 5)
    values = np.full((1, 5), 1e15)
    found = economics.columns(compiled, ("npu.peak_flops",), values, makespan, economics=Sinking())
    assert found["depth_m"] == pytest.approx(np.sinh(makespan), rel=1e-12)


def test_the_usual_figures_compile_nothing(monkeypatch):
    graph = synth.collective("all_reduce", 16, 1 << 20).graph()
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=16))
    monkeypatch.setattr(jax, "jit", None)
    makespan = np.linspace(0.1, 2.0, 20_000)
    values = np.geomspace(1e14, 1e16, 20_000)[None]
    found = economics.columns(compiled, ("npu.peak_flops",), values, makespan)
    part = economics.columns(compiled, ("npu.peak_flops",), values[:, -3:], makespan[-3:])
    for name, column in part.items():
        np.testing.assert_array_equal(column, found[name][-3:])
