"""Sensitivities: worked by hand, one-sided at ties, against an independent model on random graphs."""

import jax
import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.engine import bulk_cpu as engine
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.compute import Roofline
from perfmodel.models.network import AlphaBeta
from tests import oracle, oracle_costs
from tests.handmade import coll, comp, recv, send, write

GIGA = 10**9
ALONE = System(NPU(1e12, 1e12), (Dimension(1e11, 1e-6, "switch", 1),))


def load_to(size):
    """A load of so many bytes from local memory."""
    return {"type": 2, "tensor_size": size, "tensor_loc": 1}


@pytest.fixture
def fork(tmp_path):
    """An operation of 2 ms beside a load of 1 ms (or of that many GB), then one of 1 ms that needs both."""

    def make(load=GIGA):
        nodes = [
            comp(2 * GIGA, 0),
            load_to(load),
            comp(GIGA, 0, deps=[0, 1]),
        ]
        return pm.load(write(tmp_path / str(load), [nodes]))

    return make


def by_name(graph, system, models=None, **options):
    return pm.sensitivity(graph, system, models, **options).set_index("parameter")


def test_a_fork_worked_by_hand(fork):
    table = by_name(fork(), ALONE, second=True, moves=True, tornado=0.5)
    peak = table.loc["npu.peak_flops"]
    assert peak.unit == "FLOP/s"
    assert peak.value == 1e12
    assert peak.derivative == pytest.approx(-3e9 / 1e24, rel=1e-12)
    assert peak.elasticity == pytest.approx(-1, rel=1e-12)
    assert peak.share == pytest.approx(1, rel=1e-12)
    assert peak.second_derivative == pytest.approx(6e9 / 1e36, rel=1e-12)
    # at 2 TFLOP/s the operation takes 1 ms, as long as the load
    assert peak.upper == pytest.approx(2e12, rel=1e-12)
    assert peak.lower == 0
    assert peak.low_s == pytest.approx(6e-3, rel=1e-12)
    assert peak.high_s == pytest.approx(2e-3, rel=1e-12)
    memory = table.loc["npu.memory_bandwidth"]
    assert memory.derivative == memory.elasticity == memory.share == 0
    assert memory.lower == pytest.approx(0.5e12, rel=1e-12)
    assert memory.upper == np.inf
    assert table.upper["memory.latency"] == pytest.approx(1e-3, rel=1e-12)
    assert table.derivative["compute.overhead"] == 2
    assert table.elasticity["compute.overhead"] == 0
    assert not table.tie.any()


def test_at_a_tie_the_two_sides_are_those_of_the_two_paths(fork):
    table = by_name(fork(2 * GIGA), ALONE, moves=True)
    peak, memory = table.loc["npu.peak_flops"], table.loc["npu.memory_bandwidth"]
    assert peak.tie
    assert memory.tie
    assert peak.derivative_down == pytest.approx(-3e9 / 1e24, rel=1e-12)
    assert peak.derivative_up == pytest.approx(-1e9 / 1e24, rel=1e-12)
    assert memory.derivative_down == pytest.approx(-2e9 / 1e24, rel=1e-12)
    assert memory.derivative_up == 0
    assert peak.derivative in (peak.derivative_down, peak.derivative_up)
    # the path shown is longest to one side only, and there as far as one looks
    assert {peak.lower, peak.upper} in ({0, 1e12}, {1e12, np.inf})


def test_parts_of_the_critical_path_add_up(fork):
    graph = fork(3 * GIGA)
    whole = by_name(graph, ALONE)
    parts = [
        by_name(graph, ALONE, of=figure)
        for figure in ("compute_s", "memory_s", "communication_s", "waiting_s")
    ]
    total = sum(part.derivative for part in parts)
    pd.testing.assert_series_equal(total, whole.derivative, rtol=1e-12, check_names=False)
    assert parts[0].elasticity["npu.peak_flops"] == pytest.approx(-1, rel=1e-12)
    assert parts[1].elasticity["npu.memory_bandwidth"] == pytest.approx(-1, rel=1e-12)
    assert whole.share["npu.memory_bandwidth"] == pytest.approx(0.75, rel=1e-12)


def test_elasticities_of_rates_and_times_add_up_to_zero(tmp_path):
    """Twice the rates and half the times: every duration halves (Euler's theorem)."""
    graph = pm.load(write(tmp_path, [[comp(), coll(deps=[0])]] * 4))
    system = System(NPU(1e12, 1e12), (Dimension(1e10, 5e-6, "ring", 4),))
    elasticity = by_name(graph, system).elasticity
    rates = ["npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth"]
    assert elasticity[rates].sum() - elasticity["network.0.latency"] == pytest.approx(-1)


def test_the_tornado_and_breakpoints_agree_with_sweeps(fork):
    graph = fork()
    table = by_name(graph, ALONE, moves=True, tornado=True)
    at = {"npu.peak_flops": [0.9e12, 1.1e12]}
    swept = pm.sweep(graph, ALONE, at, breakdown=False).makespan_s
    assert list(swept) == [table.low_s["npu.peak_flops"], table.high_s["npu.peak_flops"]]
    upper = table.upper["npu.peak_flops"]
    derivative = [
        by_name(graph, pm.with_parameters(ALONE, pm.Models(), {"npu.peak_flops": p})[0])
        for p in (upper * (1 - 1e-6), upper * (1 + 1e-6))
    ]
    assert [t.derivative["npu.memory_bandwidth"] < 0 for t in derivative] == [False, True]


def test_an_own_order_of_issue_ends_the_path_where_the_order_changes(tmp_path):
    """Two chains meet on the compute unit; which comes first depends on the load that one waits for."""
    nodes = [
        comp(GIGA, 0),  # 1 ms
        load_to(GIGA // 2),  # 0.5 ms
        comp(3 * GIGA, 0, deps=[1]),  # ready at 0.5 ms, waits for the first
        comp(GIGA, 0, deps=[0, 2]),
    ]
    graph = pm.load(write(tmp_path, [nodes]))
    own, frozen = (by_name(graph, ALONE, moves=True, schedule=s) for s in ("own", "frozen"))
    # 1 + 3 + 1 ms until the load takes longer than the first operation: 1 ms at 0.5 TB/s
    for table in (own, frozen):
        assert table.lower["npu.memory_bandwidth"] == pytest.approx(0.5e12, rel=1e-9)


def test_a_parameter_without_limit_matters_nowhere(fork):
    row = by_name(fork(), ALONE, moves=True, tornado=True).loc["npu.memory_capacity"]
    assert row.value == np.inf
    assert row.elasticity == row.derivative == 0
    assert np.isnan(row.lower)
    assert row.upper == np.inf
    assert row.low_s == row.high_s


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"of": "memry_s"}, ["memry_s", "memory_s"]),
        ({"schedule": "mine"}, ["mine", "frozen"]),
        ({"tornado": 1.5}, ["tornado", "1.5", "fraction"]),
        ({"tornado": -0.1}, ["tornado", "-0.1"]),
    ],
)
def test_an_unknown_option_is_refused_with_those_that_there_are(fork, options, words):
    with pytest.raises(pm.InputError) as error:
        pm.sensitivity(fork(), ALONE, **options)
    assert all(word in str(error.value) for word in words)


def test_a_parameter_that_is_a_table_is_refused(fork):
    models = pm.Models(compute=Roofline(efficiency=np.ones(3)))
    with pytest.raises(pm.InputError, match=r"compute\.efficiency: holds 3 numbers"):
        pm.sensitivity(fork(), ALONE, models)


MOVED = (
    "npu.peak_flops",
    "npu.memory_bandwidth",
    "network.0.bandwidth",
    "network.0.latency",
    "network.1.bandwidth",
    "network.1.latency",
    "compute.efficiency",
    "compute.overhead",
    "network.efficiency",
    "network.overhead",
)
STEP = 1e-5
GROUPS = {"1": [0, 1, 2, 3], "2": [0, 1], "3": [1, 3]}


def random_graph(folder, seed):
    """A workload of 4 ranks: operations, loads, communication in a chain; sizes without ties."""
    random = np.random.default_rng(seed)
    lines = [[] for _ in range(4)]
    last = [None] * 4

    def add(rank, node, *, chained=False):
        line = lines[rank]
        back = [len(line) - 1 - k for k in range(min(4, len(line))) if random.random() < 0.4]
        if chained and last[rank] is not None:
            back = sorted({*back, last[rank]})
        line.append({**node, "deps": back})
        if chained:
            last[rank] = len(line) - 1

    def size():
        return int(10 ** random.uniform(4, 7.5))

    for event in range(random.integers(4, 12)):
        kind, rank = (
            random.choice(["comp", "load", "message", "coll"], p=[0.5, 0.1, 0.15, 0.25]),
            random.integers(4),
        )
        if kind == "comp":
            add(rank, comp(int(10 ** random.uniform(6, 9)), size()))
        elif kind == "load":
            add(rank, load_to(size()))
        elif kind == "message":
            other, amount = (rank + random.integers(1, 4)) % 4, size()
            add(rank, send(int(other), amount, tag=event), chained=True)
            add(other, recv(int(rank), amount, tag=event))
        else:
            group, amount = str(random.integers(1, 4)), size()
            for member in GROUPS[group]:
                add(member, coll("all_reduce", amount, group=group), chained=True)
    for rank, line in enumerate(lines):
        if not line:
            add(rank, comp(GIGA // 100, 0))
    return pm.load(write(folder, lines, GROUPS))


def oracle_makespan(graph, system, models):
    """The step's time by the plain-Python model of the tests."""
    nodes = oracle.nodes_of(graph)
    cost, replayed = oracle_costs.costs(graph, nodes, system, models)
    return oracle.schedule(nodes, cost, replayed).makespan


def frozen_makespan(compiled, system):
    """The longest path along the order that was frozen, by the bulk engine."""
    cost = np.asarray(compiled.evaluate(system, compiled.models), float)
    return engine.makespans(compiled.plan, cost[:, None], threads=1)[0][0]


def moved_by(system, models, name, value):
    return pm.with_parameters(system, models, {name: value})


def test_derivatives_equal_central_differences_of_an_independent_model_on_200_random_graphs(
    tmp_path,
):
    system = System(
        NPU(1.1e12, 3.3e11),
        (Dimension(2.1e10, 1.3e-6, "switch", 2), Dimension(1.7e10, 2.7e-6, "ring", 2)),
    )
    models = pm.Models(
        compute=Roofline(efficiency=0.7, overhead=1e-6),
        network=AlphaBeta(efficiency=0.8, overhead=2e-6, algorithm="ring"),
    )
    checked, left_out = 0, 0
    for seed in range(200):
        graph = random_graph(tmp_path / str(seed), seed)
        with jax.disable_jit():  # 200 compilations would take minutes
            table = by_name(graph, system, models)
        makespan = oracle_makespan(graph, system, models)
        for name in MOVED:
            row = table.loc[name]
            step = STEP * row.value
            below, above = (
                oracle_makespan(graph, *moved_by(system, models, name, row.value + s))
                for s in (-step, step)
            )
            # a kink within the step: the two sides differ by more than curvature can
            if abs(above - 2 * makespan + below) > 1e-3 * abs(above - below) + 1e-13 * makespan:
                left_out += 1
                continue
            checked += 1
            elasticity = (above - below) / (2 * STEP * makespan)
            assert row.elasticity == pytest.approx(elasticity, rel=1e-6, abs=1e-9), (seed, name)
    assert checked > 1900
    assert left_out < 20


def test_one_sided_derivatives_equal_one_sided_differences_where_ranks_and_sizes_tie(tmp_path):
    """Whole numbers everywhere, so that paths tie; differences along the frozen order."""
    system = System(NPU(1e12, 1e12), (Dimension(1e10, 1e-3, "switch", 2),))
    tied = 0
    for seed in range(12):
        random = np.random.default_rng(seed)
        lines = [[], []]
        for _ in range(10):
            rank = random.integers(2)
            deps = [k for k in range(len(lines[rank])) if random.random() < 0.3]
            work = int(random.integers(1, 3)) * GIGA
            node = comp(work, 0) if random.random() < 0.6 else load_to(work)
            lines[rank].append({**node, "deps": deps})
        for line in lines:
            line.append(coll(size=10**7, deps=list(range(len(line)))))
        graph = pm.load(write(tmp_path / str(seed), lines))
        with jax.disable_jit():
            compiled = pm.compile(graph, system)
            table = by_name(graph, system)
        here = frozen_makespan(compiled, system)
        for name in ("npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth"):
            row = table.loc[name]
            tied += bool(row.tie)
            step = 1e-6 * row.value
            for side, expected in ((-step, row.derivative_down), (step, row.derivative_up)):
                moved, _ = moved_by(system, None, name, row.value + side)
                difference = (frozen_makespan(compiled, moved) - here) / side
                assert difference == pytest.approx(expected, rel=1e-5, abs=1e-9 * here / step)
    assert tied > 8


def test_nothing_changes_within_the_breakpoints_and_something_behind_them(tmp_path):
    system = System(NPU(1.1e12, 3.3e11), (Dimension(2.1e10, 1.3e-6, "switch", 4),))
    found = 0
    for seed in range(3):
        graph = random_graph(tmp_path / str(seed), seed)
        compiled = pm.compile(graph, system)
        table = by_name(graph, system, moves=True, schedule="frozen")
        rows = compiled.events.cost[pm.evaluate(compiled).path]

        def length(name, value, compiled=compiled, rows=rows):
            moved, _ = moved_by(system, None, name, value)
            cost = np.asarray(compiled.evaluate(moved, compiled.models))
            return cost[rows[rows >= 0]].sum(), frozen_makespan(compiled, moved)

        for name in ("npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth"):
            row = table.loc[name]
            for edge, out in ((row.lower, 1 - 1e-6), (row.upper, 1 + 1e-6)):
                if edge in (0, np.inf):
                    continue
                found += 1
                inside = edge / out
                along, makespan = length(name, inside)
                assert makespan == pytest.approx(along, rel=1e-12)
                along, makespan = length(name, edge * out)
                assert makespan > along * (1 + 1e-12)
    assert found >= 4


def test_sensitivities_of_reference_traces_are_finite_and_add_up(shared):
    graph = pm.load(shared / "reference/astra-sim/traces/llm_dp2tp2pp2")
    table = by_name(graph, pm.hardware("dgx-h100", ranks=8, models="roofline"), tornado=True)
    assert np.isfinite(table.derivative).all()
    times = [name for name in table.index if table.unit[name] == "s"]
    rates = [name for name in table.index if table.unit[name].endswith("/s")]
    assert table.elasticity[rates].sum() - table.elasticity[times].sum() == pytest.approx(-1)
    assert (table.low_s[rates] >= table.high_s[rates]).all()
