"""Optimal hardware against closed forms, other solvers, dense grids and brute force."""

import dataclasses
import itertools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from scipy.optimize import minimize

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis import economics
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.synth import Role, Steps, Work, Workload

PATHS = tuple(f"network.{k}.bandwidth" for k in range(4))
BOUNDS = dict.fromkeys(PATHS, (1e9, 1e12))
TOTAL = " + ".join(PATHS) + " <= 1000e9"
SIZES = (4, 8, 4, 32)
LIBRA = System(
    NPU(1e15, 3e12, 80e9),
    tuple(
        Dimension(100e9, 0.0, topology, size)
        for topology, size in zip(("ring", "fully-connected", "ring", "switch"), SIZES)
    ),
)


def volumes(size, sizes=SIZES):
    """Bytes that an all-reduce sends per NPU in each dimension: twice (n - 1) / n of what the inner ones left."""
    left = size / np.cumprod([1, *sizes[:-1]])
    return 2 * (np.array(sizes) - 1) / np.array(sizes) * left


@pytest.fixture(scope="module")
def all_reduce():
    return synth.collective("all_reduce", 4096, 1 << 30).graph()


def program(*steps):
    """A graph of one rank from (name, flops, bytes, after) or, for 2 ranks, all-reduces (name, size, after)."""
    found = Steps()
    places = {}
    for name, *work, after in steps:
        waits = [places[a] for a in after]
        if len(work) == 2:
            found.last = None  # no stream: a node waits for what it names only
            places[name] = found.compute(name, Work(*work), waits)
        else:
            places[name] = found.collective(name, "all_reduce", work[0], "world", waits)
    return found


def graph_of(steps, ranks):
    return Workload("by hand", (Role(steps, np.arange(ranks, dtype=np.int32)),)).graph()


@pytest.fixture(scope="module")
def overlapped():
    """Two ranks: a kernel beside a large all-reduce, then a kernel bound by memory and another by arithmetic."""
    steps = program(
        ("first", 10**12, 10**6, ()),
        ("reduce", 10**9, ()),
        ("memory", 10**9, 10**10, ("first", "reduce")),
        ("arithmetic", 4 * 10**12, 10**9, ("memory",)),
    )
    return graph_of(steps, 2), System(NPU(1e15, 3e12, 80e9), (Dimension(1e11, 1e-6, "ring", 2),))


def test_a_bandwidth_budget_is_shared_as_the_closed_form_says(all_reduce):
    """min sum v_k / b_k with sum b_k = B: b_k = B sqrt(v_k) / sum of sqrt(v), by Lagrange."""
    best = pm.optimize(all_reduce, LIBRA, bounds=BOUNDS, constraints=[TOTAL], check_gradients=True)
    root = np.sqrt(volumes(2**30))
    assert best.objective == pytest.approx(root.sum() ** 2 / 1e12, rel=1e-9)
    assert list(best.parameters.values()) == pytest.approx(1e12 * root / root.sum(), rel=1e-4)
    assert best.bound <= best.objective <= best.bound * (1 + 1e-6)
    assert best.makespan == best.own_makespan == pytest.approx(best.objective, rel=1e-14)
    worth = best.multipliers.set_index("constraint").multiplier
    assert worth[TOTAL] == pytest.approx(root.sum() ** 2 / 1e24, rel=1e-5)


def test_a_cost_budget_is_shared_as_the_closed_form_says(all_reduce):
    """min sum v_k / b_k with sum p_k b_k = C: b_k = C sqrt(v_k / p_k) / sum of sqrt(v p)."""
    cost = economics.Cost()
    price = np.array([float(c.per_bandwidth(d)) for c, d in cost.links.of(LIBRA.network)])
    npu = float(cost.total(dataclasses.replace(LIBRA, network=())))
    money = 3000.0
    limit = 4096 * (npu + money)
    best = pm.optimize(all_reduce, LIBRA, bounds=BOUNDS, constraints={"cost": limit})
    volume = volumes(2**30)
    expected = np.sqrt(volume * price).sum() ** 2 / money
    shares = money * np.sqrt(volume / price) / np.sqrt(volume * price).sum()
    assert best.objective == pytest.approx(expected, rel=1e-9)
    assert list(best.parameters.values()) == pytest.approx(shares, rel=1e-3)
    row = best.multipliers.iloc[0]
    assert row.active
    assert row.multiplier == pytest.approx(expected / money / 4096, rel=1e-4)  # seconds per dollar


def test_libras_example_constraints_give_another_solvers_optimum(all_reduce):
    """sum = 1000, b_0 = 500, b_2 + b_3 = 200 GB/s, b_0 >= b_1 >= b_2, by SLSQP on the explicit convex formula."""
    said = [
        " + ".join(PATHS) + " == 1000e9",
        "network.0.bandwidth == 500e9",
        "network.0.bandwidth >= network.1.bandwidth",
        "network.1.bandwidth >= network.2.bandwidth",
        "network.2.bandwidth + network.3.bandwidth == 200e9",
    ]
    best = pm.optimize(all_reduce, LIBRA, bounds=BOUNDS, constraints=said)
    volume = volumes(2**30) / 1e9
    other = minimize(
        lambda b: (volume / np.array([500, 300, b[0], 200 - b[0]])).sum(),
        [100.0],
        bounds=[(1, 199)],
        method="SLSQP",
        options={"ftol": 1e-15},
    )
    assert best.objective == pytest.approx(other.fun, rel=1e-6)


def test_an_equality_said_twice_is_no_obstacle(all_reduce):
    said = [
        " + ".join(PATHS) + " == 1000e9",
        "network.0.bandwidth == 500e9",
        "network.1.bandwidth + network.2.bandwidth + network.3.bandwidth == 500e9",
    ]
    best = pm.optimize(all_reduce, LIBRA, bounds=BOUNDS, constraints=said)
    volume = volumes(2**30)
    expected = volume[0] / 500e9 + np.sqrt(volume[1:]).sum() ** 2 / 500e9
    assert best.objective == pytest.approx(expected, rel=1e-6)


def test_a_roofline_is_bought_at_its_ridge():
    """One kernel: t = max(F / P, Q / B) under a P + b B = C is smallest where both are t = (a F + b Q) / C."""
    flops, size = 7 * 10**13, 3 * 10**10
    graph = graph_of(program(("kernel", flops, size, ())), 1)
    cost = economics.Cost()
    system = System(NPU(1e15, 3e12, 80e9))
    best = pm.optimize(
        graph,
        system,
        bounds={"npu.peak_flops": (1e13, 1e16), "npu.memory_bandwidth": (1e11, 1e14)},
        constraints={"cost": 40e3},
    )
    money = 40e3 - cost.base - cost.per_memory_capacity * 80e9
    expected = (cost.per_flops * flops + cost.per_memory_bandwidth * size) / money
    assert best.objective == pytest.approx(expected, rel=1e-9)
    assert best.parameters["npu.peak_flops"] == pytest.approx(flops / expected, rel=1e-8)
    assert best.parameters["npu.memory_bandwidth"] == pytest.approx(size / expected, rel=1e-8)


OVERLAPPED = {
    "npu.peak_flops": (1e14, 1e16),
    "npu.memory_bandwidth": (3e11, 3e13),
    "network.0.bandwidth": (1e10, 1e13),
}


def test_paths_meet_where_the_budget_is_best_spent(overlapped):
    """Against a dense grid on the budget's surface, refined around its own best point."""
    graph, system = overlapped
    best = pm.optimize(graph, system, bounds=OVERLAPPED, constraints={"cost": 60e3})
    compiled = pm.compile(graph, system)
    cost = economics.Cost()
    link = float(cost.links.of(system.network)[0][0].per_bandwidth(system.network[0]))
    fixed = cost.base + cost.per_memory_capacity * 80e9
    low, high = (np.log([b[k] for b in OVERLAPPED.values()]) for k in (0, 1))
    found = np.inf
    for _ in range(6):
        axes = [np.linspace(low[k], high[k], 60) for k in (0, 1)]
        peak, memory = (np.exp(a).ravel() for a in np.meshgrid(*axes))
        money = 30e3 - fixed - cost.per_flops * peak - cost.per_memory_bandwidth * memory
        bandwidth = np.minimum(money / link, OVERLAPPED["network.0.bandwidth"][1])
        inside = bandwidth >= OVERLAPPED["network.0.bandwidth"][0]
        points = pd.DataFrame(
            dict(zip(OVERLAPPED, (peak[inside], memory[inside], bandwidth[inside])))
        )
        makespan = pm.sweep(graph, system, points, threads=1, breakdown=False).makespan_s
        k = int(makespan.idxmin())
        found = min(found, float(makespan[k]))
        at = np.log(points.iloc[k, :2].to_numpy(float))
        width = (high - low)[:2] / 10
        low, high = np.append(at - width, low[2]), np.append(at + width, high[2])
    assert best.objective <= found * (1 + 1e-9)
    assert best.objective == pytest.approx(found, rel=1e-5)
    assert best.objective <= best.bound * (1 + 1e-6)
    assert float(compiled.makespan(best.system, best.models)) == pytest.approx(best.makespan)


def test_multipliers_are_what_moving_the_limits_gains(overlapped):
    graph, system = overlapped

    def optimum(budget, memory_top):
        bounds = {**OVERLAPPED, "npu.memory_bandwidth": (3e11, memory_top)}
        return pm.optimize(graph, system, bounds=bounds, constraints={"cost": budget})

    here = optimum(60e3, 1.2e12)
    worth = here.multipliers.set_index("constraint").multiplier
    more_money = optimum(60e3 + 10, 1.2e12).objective
    assert worth["cost <= 60000"] == pytest.approx((here.objective - more_money) / 10, rel=1e-2)
    more_memory = optimum(60e3, 1.2e12 * 1.001).objective
    gain = (here.objective - more_memory) / 1.2e9
    assert worth["npu.memory_bandwidth <= 1.2e+12"] == pytest.approx(gain, rel=1e-2)
    table = here.table().set_index("parameter")
    assert table.at["npu.memory_bandwidth", "at"] == "upper"
    assert table.at["npu.peak_flops", "at"] == ""


@pytest.mark.parametrize("options", [{"method": "trust-constr"}, {"log": False}, {"seed": 5}])
def test_solver_scale_and_seed_do_not_change_the_optimum(overlapped, options):
    graph, system = overlapped
    wanted = {"bounds": OVERLAPPED, "constraints": {"cost": 60e3}}
    one = pm.optimize(graph, system, **wanted)
    other = pm.optimize(graph, system, **wanted, **options)
    assert other.objective == pytest.approx(one.objective, rel=1e-7)


def test_without_constraints_the_descent_of_the_makespan_itself_arrives_too(overlapped):
    graph, system = overlapped
    wanted = {"bounds": OVERLAPPED, "objective": "time * cost"}
    one = pm.optimize(graph, system, **wanted)
    other = pm.optimize(graph, system, **wanted, method="L-BFGS-B")
    assert other.objective == pytest.approx(one.objective, rel=1e-7)
    assert "direct" in set(other.path.stage)


def test_the_cheapest_machine_within_a_deadline_is_the_fastest_for_its_price(overlapped):
    graph, system = overlapped
    fast = pm.optimize(graph, system, bounds=OVERLAPPED, constraints={"cost": 60e3})
    cheap = pm.optimize(
        graph, system, bounds=OVERLAPPED, objective="cost", constraints={"time": fast.objective}
    )
    assert cheap.objective == pytest.approx(60e3, rel=1e-7)
    back = fast.multipliers.multiplier[0] * cheap.multipliers.multiplier[0]
    assert back == pytest.approx(1.0, rel=1e-3)  # seconds per dollar and dollars per second


def test_objectives_are_weights_expressions_or_functions(overlapped):
    graph, system = overlapped
    work = economics.totals(graph, system)
    power = economics.Power()

    def mine(system, models, makespan):
        return power.energy(system, makespan, work) + 2e3 * makespan

    found = [
        pm.optimize(graph, system, bounds=OVERLAPPED, objective=wanted, constraints={"cost": 60e3})
        for wanted in ({"energy": 1.0, "time": 2e3}, "energy + 2000 * time", mine)
    ]
    assert [f.objective for f in found] == pytest.approx([found[0].objective] * 3, rel=1e-7)
    x = found[0]
    assert x.objective == pytest.approx(float(mine(x.system, None, x.makespan)), rel=1e-12)


def test_constraints_are_texts_mappings_or_functions(overlapped):
    graph, system = overlapped
    ratio = "npu.peak_flops / npu.memory_bandwidth"

    def cheap(system, models, makespan):
        return economics.Cost().total(system) - 60e3

    def few(system, models, makespan):
        return system.npu.peak_flops - 300 * system.npu.memory_bandwidth

    found = [
        pm.optimize(graph, system, bounds=OVERLAPPED, constraints=wanted)
        for wanted in (
            ["cost <= 60e3", f"{ratio} <= 300"],
            {"cost": 60e3, ratio: (None, 300)},
            [cheap, few],
            ["60e3 >= cost", "npu.peak_flops - 300 * npu.memory_bandwidth <= 0"],
        )
    ]
    assert [f.objective for f in found] == pytest.approx([found[0].objective] * 4, rel=1e-6)
    values = found[0].parameters
    assert values["npu.peak_flops"] <= 300 * values["npu.memory_bandwidth"] * (1 + 1e-6)


def test_a_pair_of_equal_ends_is_an_equality(overlapped):
    graph, system = overlapped
    best = pm.optimize(
        graph, system, bounds=OVERLAPPED, constraints={"npu.peak_flops": (2e15, 2e15)}
    )
    assert best.parameters["npu.peak_flops"] == pytest.approx(2e15, rel=1e-6)
    assert best.multipliers.constraint[0].endswith("== 2000000000000000")


@pm.record
class Units:
    """A kernel's time falls with whole numbers of two kinds of units."""

    wide: float = pm.number("1", default=1.0)
    narrow: float = pm.number("1", default=1.0)

    def time(self, flops, bytes, npu):
        return flops / (npu.peak_flops * self.wide) + bytes / (npu.memory_bandwidth * self.narrow)


def test_whole_numbers_are_those_of_trying_all():
    graph = graph_of(program(("kernel", 3 * 10**12, 4 * 10**9, ())), 1)
    system = System(NPU(1e12, 1e9, 80e9))
    ends = {"compute.wide": (0.5, 9.7), "compute.narrow": (1, 9)}
    best = pm.optimize(
        graph,
        system,
        bounds=ends,
        models=pm.Models(compute=Units()),
        integers=list(ends),
        constraints=["2 * compute.wide + 3 * compute.narrow <= 24.9"],
    )
    tried = {
        (wide, narrow): 3 / wide + 4 / narrow
        for wide, narrow in itertools.product(range(1, 10), repeat=2)
        if 2 * wide + 3 * narrow <= 24.9
    }
    assert best.objective == pytest.approx(min(tried.values()), rel=1e-12)
    assert tuple(best.parameters.values()) in tried
    assert best.bound < best.objective


def test_choices_are_all_tried():
    graph = synth.collective("all_reduce", 8, 1 << 28).graph()
    system = pm.hardware("dgx-a100", ranks=8)
    wanted = {"system": ["dgx-a100", "dgx-h100"], "network.algorithm": ["direct", "tree"]}
    best = pm.optimize(graph, system, bounds={"network.0.latency": (1e-7, 1e-5)}, choices=wanted)
    rows = {
        (name, algorithm): pm.predict(
            graph,
            dataclasses.replace(
                hardware := pm.hardware(name, ranks=8),
                network=(
                    dataclasses.replace(hardware.network[0], latency=1e-7),
                    *hardware.network[1:],
                ),
            ),
            pm.Models(network=dataclasses.replace(pm.Models().network, algorithm=algorithm)),
        ).makespan
        for name, algorithm in itertools.product(*wanted.values())
    }
    assert best.objective == pytest.approx(min(rows.values()), rel=1e-9)
    assert tuple(best.choices.values()) == min(rows, key=rows.get)
    assert best.system.name == best.choices["system"]


def test_parts_come_in_steps(overlapped):
    graph, system = overlapped
    parts = [5e11, 1e12, 2e12, 4e12]
    bounds = {k: v for k, v in OVERLAPPED.items() if k != "npu.memory_bandwidth"}
    wanted = {"bounds": bounds, "constraints": {"cost": 60e3}}
    best = pm.optimize(graph, system, choices={"npu.memory_bandwidth": parts}, **wanted)
    each = []
    for part in parts:
        there, _ = pm.with_parameters(system, None, {"npu.memory_bandwidth": part})
        each.append(pm.optimize(graph, there, **wanted).objective)
    assert best.objective == pytest.approx(min(each), rel=1e-9)
    assert best.choices["npu.memory_bandwidth"] == parts[int(np.argmin(each))]
    assert best.system.npu.memory_bandwidth == best.choices["npu.memory_bandwidth"]


def test_the_history_tells_every_step(overlapped):
    graph, system = overlapped
    steps = []
    best = pm.optimize(
        graph, system, bounds=OVERLAPPED, constraints={"cost": 60e3}, progress=steps.append
    )
    assert len(best.path) == len(steps)
    assert set(best.path.stage) == {"start", "piece"}
    assert (best.path.stage == "start").sum() == 8
    feasible = best.path[best.path.feasible]
    assert feasible.objective.min() == pytest.approx(best.objective, rel=1e-12)
    assert best.path.evaluations.is_monotonic_increasing
    assert best.evaluations == best.effort.makespans + best.effort.smooth
    assert best.effort.makespans >= len(best.path)
    assert best.path.evaluations.iloc[-1] <= best.evaluations
    row = feasible.loc[feasible.objective.idxmin()]
    for path, value in best.parameters.items():
        assert row[path] == pytest.approx(value)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"bounds": {}}, "are empty"),
        ({"bounds": {"npu.peak_flop": (1, 2)}}, "did you mean npu.peak_flops"),
        ({"bounds": {"npu.peak_flops": (2e15, 1e15)}}, "lowest <= highest"),
        ({"bounds": {"npu.peak_flops": (1e15, float("nan"))}}, "finite"),
        ({"bounds": {"npu.peak_flops": (0, 1e15)}}, "log=False"),
        ({"bounds": {"npu.peak_flops": 1e15}}, r"\(lowest, highest\)\}, two numbers each"),
        ({"constraints": ["npu.peek_flops <= 1e15"]}, "did you mean npu.peak_flops"),
        ({"constraints": ["npu.peak_flops + <= 1e15"]}, "expression"),
        ({"constraints": [3]}, "expected a text"),
        ({"constraints": {"cost": float("nan")}}, "limit is nan"),
        ({"constraints": {"cost": (2.0, 1.0)}}, "more than at most"),
        ({"constraints": {"cost": (None, None)}}, "None for an open end"),
        ({"constraints": {"npu.peak_flops": 1e13}}, "nothing within the bounds meets"),
        ({"constraints": ["time <= 1e-9"]}, "nearest has"),
        ({"objective": "tyme"}, "did you mean time"),
        ({"objective": 3}, "expected a text"),
        ({"objective": {}}, "expected a text"),
        ({"objective": {"time": -1.0}}, "expected a number > 0"),
        ({"objective": "1 / time"}, "falls where the makespan grows"),
        ({"objective": lambda s, m, t: jnp.zeros(2)}, "expected one number"),
        ({"method": "COBYLA"}, "expected one of SLSQP"),
        ({"method": "L-BFGS-B", "constraints": {"cost": 1e6}}, "takes no constraints"),
        ({"schedule": "other"}, "schedule"),
        ({"starts": 0}, "1 or more"),
        ({"tolerance": 0.0}, "tolerance"),
        ({"integers": ["npu.memory_bandwidth"]}, "not among the bounds"),
        ({"bounds": {"npu.peak_flops": (1.2, 1.8)}, "integers": ["npu.peak_flops"]}, "no whole"),
        ({"choices": {"system": []}}, "no values"),
        ({"choices": {"system": ["dgx-h10"]}}, "did you mean dgx-h100"),
        ({"choices": {"npu.peak_flops": [1e15]}}, "has bounds, too"),
        ({"choices": {"npu.memory_bandwidth": [float("inf")]}}, "finite"),
        ({"choices": {"network.0.latency": list(range(5000))}}, "5,000 combinations"),
    ],
)
def test_a_wrong_wish_is_one_clear_error(overlapped, changed, message):
    graph, system = overlapped
    wanted = {"bounds": {"npu.peak_flops": (1e14, 1e16)}, **changed}
    with pytest.raises(InputError, match=message):
        pm.optimize(graph, system, **wanted)


@jax.custom_jvp
def crooked(x):
    """x, with a derivative that is off by 1 %."""
    return x


crooked.defjvp(lambda primals, tangents: (primals[0], 1.01 * tangents[0]))


@pm.record
class Crooked:
    """A roofline of arithmetic alone, with a wrong derivative."""

    def time(self, flops, bytes, npu):
        return flops / crooked(npu.peak_flops)


def test_a_wrong_derivative_is_found_where_asked_for():
    graph = graph_of(program(("kernel", 10**12, 1, ())), 1)
    system, models = System(NPU(1e15, 1e12, 80e9)), pm.Models(compute=Crooked())
    bounds = {"npu.peak_flops": (1e14, 1e16)}
    with pytest.raises(InputError, match=r"npu.peak_flops: a model's derivative is wrong"):
        pm.optimize(graph, system, bounds=bounds, models=models, check_gradients=True)
    assert pm.optimize(graph, system, bounds=bounds, models=models).objective == pytest.approx(1e-4)


@pytest.fixture(scope="module")
def recorded(shared: Path):
    prefix = shared / "reference" / "astra-sim" / "traces" / "stg_gpt_dp2tp2pp2"
    return pm.load(prefix), pm.hardware("dgx-h100", models="roofline")


@pytest.mark.parametrize("schedule", ["frozen", "own"])
def test_no_point_of_a_dense_grid_beats_the_optimum_on_a_real_trace(recorded, schedule):
    graph, system = recorded
    bounds = {
        "npu.peak_flops": (1e14, 4e15),
        "npu.memory_bandwidth": (5e11, 1e13),
        "network.0.bandwidth": (2e10, 2e12),
    }
    budget = 8 * 33_600.0
    best = pm.optimize(
        graph, system, bounds=bounds, constraints={"cost": budget}, schedule=schedule
    )
    axes = [np.geomspace(*ends, 25) for ends in bounds.values()]
    points = pd.DataFrame(list(itertools.product(*axes)), columns=list(bounds))
    # every point is scaled along the network's bandwidth onto the budget, where it can be
    cost = economics.Cost()
    inner = system.resized(8).network
    prices = [float(c.per_bandwidth(d)) for c, d in cost.links.of(inner)]
    fixed = cost.base + cost.per_memory_capacity * 80e9
    fixed += sum(p * d.bandwidth for p, d in list(zip(prices, inner))[1:])
    spent = cost.per_flops * points["npu.peak_flops"]
    spent += cost.per_memory_bandwidth * points["npu.memory_bandwidth"]
    afforded = (budget / 8 - fixed - spent) / prices[0]
    points = points[points["network.0.bandwidth"] <= afforded]
    at_budget = points.assign(**{"network.0.bandwidth": afforded[points.index].clip(upper=2e12)})
    grid = pd.concat([points, at_budget.drop_duplicates()], ignore_index=True)
    result = pm.sweep(graph, system, grid, schedule=schedule, threads=1, breakdown=False)
    assert len(grid) > 4000
    assert best.own_makespan <= float(result.makespan_s.min()) * 1.001
    assert float(best.multipliers["value"][0]) <= budget * (1 + 1e-6)
