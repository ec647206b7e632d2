"""Orders in ASTRA mode: forced ones, certificates, and the schedule by nodes, each against the simulator's own runs."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis.evaluation import Evaluator
from perfmodel.astra import collective_matrices, event_run
from perfmodel.astra.models import AstraOrders
from tests import astra_reference as reference
from tests.astra_workload import collective, compute, implementation, prepare

pytestmark = pytest.mark.filterwarnings("ignore:without effect in ASTRA-sim")


def loaded(trace, system="ring_s4_a1", network="switch8", backend="unaware", **more):
    folder, place = reference.trace(trace), reference.folder()
    groups = folder / "comm_groups.json"
    return pm.astra.load(
        folder / "t",
        place / "system" / f"{system}.json",
        place / "network" / f"{network}.yml",
        comm_group=groups if groups.is_file() else None,
        backend=backend,
        **more,
    )


def whole_costs(compiled, designs, most, seed=0):
    choice = np.random.default_rng(seed)
    return choice.integers(0, most, (len(compiled.category), designs)).astype(float)


def wide(system, models, count, seed=0):
    """Designs over a factor of 36, latencies over 150."""
    known = pm.parameters(system, models)
    bounds = {}
    for path in ("npu.peak_flops", "npu.memory_bandwidth", *(p for p in known if "network" in p)):
        spread = np.sqrt(150 if "latency" in path else 36)
        bounds[path] = (float(known[path]) / spread, float(known[path]) * spread)
    return pm.sample(bounds, count, seed=seed)


@pytest.mark.parametrize("trace", ["llm_dp2tp2pp2", "llm_dp8", "llm_pp8", "llm_tp8"])
@pytest.mark.parametrize("network", ["switch8", "ring8"])
def test_a_trace_in_program_order_leaves_nothing_open(trace, network):
    assert pm.compile(*loaded(trace, network=network)).forced


@pytest.mark.parametrize(
    "parallel",
    [
        {"data": 4, "tensor": 2},
        {"data": 2, "tensor": 2, "pipeline": 2, "sequence_parallel": True},
    ],
)
def test_a_made_gpt_in_program_order_is_swept_along_its_frozen_order(tmp_path, parallel):
    synth.training({"layers": 4, "hidden": 256, "heads": 4}, micro_batches=4, **parallel).write(
        tmp_path
    )
    place = reference.folder()
    graph, system, models = pm.astra.load(
        tmp_path / "t",
        place / "system" / "ring_s4_a1.json",
        place / "network" / "switch8.yml",
        comm_group=next(iter(tmp_path.glob("*.json")), None),
    )
    assert pm.compile(graph, system, models).forced
    points = wide(system, models, 16)
    default = pm.sweep(graph, system, points, models=models)
    simulated = pm.sweep(graph, system, points, models=models, schedule="simulated")
    np.testing.assert_allclose(default.makespan_s, simulated.makespan_s, rtol=1e-12)
    assert (default.schedule == "frozen").all()


def test_a_gather_behind_a_message_between_stages_leaves_the_order_open(tmp_path):
    synth.training(
        {"layers": 4, "hidden": 256, "heads": 4}, data=2, tensor=2, pipeline=2, micro_batches=4
    ).write(tmp_path)
    place = reference.folder()
    loaded = pm.astra.load(
        tmp_path / "t",
        place / "system" / "ring_s4_a1.json",
        place / "network" / "switch8.yml",
        comm_group=next(iter(tmp_path.glob("*.json")), None),
    )
    assert not pm.compile(*loaded).forced


@pytest.mark.parametrize("truncate", [False, True])
def test_an_order_that_costs_keep_is_the_frozen_one_where_they_last(truncate):
    """Messages follow each other on a link with a cost in between, which is all that a design has to pass."""
    loaded_ = loaded("llm_dp8", backend="aware", truncate=truncate)
    compiled = pm.compile(*loaded_)
    assert compiled.settled is not None
    assert not compiled.forced
    (row,) = compiled.settled.checks.longer
    points = wide(*loaded_[1:], 64)
    table = pm.sweep(compiled, points)
    assert (table.schedule == "frozen").all()
    frozen = pm.sweep(compiled, points, schedule="frozen")
    np.testing.assert_array_equal(table.makespan_s, frozen.makespan_s)
    simulated = pm.sweep(compiled, points, schedule="simulated")
    np.testing.assert_allclose(table.makespan_s, simulated.makespan_s, rtol=1e-12)
    costs = whole_costs(compiled, 2, 9) + 1.0
    costs[row, 1] = 0.0
    assert compiled.settled.answer(costs, paths=False, threads=1)[1].tolist() == [True, False]


@pytest.mark.parametrize("backend", ["unaware", "aware"])
@pytest.mark.parametrize("trace", ["fuzz1", "llm_dp2tp2pp2"])
def test_every_way_of_answering_gives_what_the_simulation_gives(trace, backend):
    graph, system, models = loaded(trace, backend=backend)
    points = wide(system, models, 96)
    default = pm.sweep(graph, system, points, models=models)
    simulated = pm.sweep(graph, system, points, models=models, schedule="simulated")
    np.testing.assert_allclose(default.makespan_s, simulated.makespan_s, rtol=1e-12)
    for column in ("compute_s", "communication_s"):
        np.testing.assert_allclose(
            default[column], simulated[column], atol=1e-9 * default.makespan_s.max()
        )
    assert (default.limited_by == simulated.limited_by).mean() > 0.97  # elasticities may be equal


@pytest.mark.parametrize("system", ["ring_s4_a1", "ring_s8_a4"])
def test_designs_that_share_an_order_are_explained_by_one_recorded_run(system, monkeypatch):
    compiled = pm.compile(*loaded("llm_dp2tp2pp2", system, backend="aware", truncate=True))
    points = wide(compiled.system, compiled.models, 48)
    costs = Evaluator(compiled).costs(tuple(points.columns), points.to_numpy(float).T)
    orders = event_run.run_many(compiled.own.lowered, costs, threads=1)[1]
    recorded = []
    run = event_run.run
    monkeypatch.setattr(event_run, "run", lambda *a, **k: recorded.append(1) or run(*a, **k))
    makespan, differs, counts = compiled.own(costs, paths=True, threads=1)
    assert len(recorded) == len(set(orders[differs].tolist())) < differs.sum()
    np.testing.assert_array_equal((counts * costs).sum(axis=0)[differs], makespan[differs])


@pytest.mark.parametrize(
    ("kind", "algorithm", "members"),
    [(0, "direct", 3), (0, "direct", 4), (0, "direct2", 4), (7, "direct2", 6)],
)
def test_a_slot_that_is_full_before_one_that_began_earlier_is_another_order(
    kind, algorithm, members
):
    """Slots that reduce nothing (the second round of an all-reduce, every other window) overtake those that do."""
    ranks = [[compute(1, 1 + 3 * rank), collective(2, kind, 100_000, 1)] for rank in range(members)]
    lowered = prepare(
        ranks,
        ("Switch", members),
        preferred_dataset_splits=2,
        active_chunks_per_dimension=2,
        **implementation(algorithm),
    )
    choice = np.random.default_rng(0)
    graphs = {}
    for _ in range(200):
        there = {
            path: value * np.exp(choice.normal(0, 2)) for path, value in lowered.parameters.items()
        }
        cost = np.asarray(lowered.costs(there, truncate=False), np.float64)
        run = event_run.run(lowered, cost, record=True)
        graph = graphs.setdefault(run.digest, run.events)
        finish = reference.longest(cost, graph.pred_ptr, graph.pred, graph.cost)[1]
        np.testing.assert_allclose(finish[graph.node_last], run.finish, rtol=1e-12)
    assert 5 < len(graphs) < 100


@pytest.mark.parametrize(
    ("kind", "per_byte", "dimensions"),
    [
        (2, 0.003, (("Ring", 2), ("Ring", 2))),
        (7, 0, (("Ring", 2), ("Ring", 2))),
        (0, 0.01, (("Ring", 4),)),
    ],
)
def test_designs_with_a_shared_bus_are_explained_by_their_own_runs(kind, per_byte, dimensions):
    """Runs of one order on a bus do not share a graph: one in which a side was free when it was asked has no wait."""
    ranks = [
        [collective(2, kind, 100_000), compute(1, 1 + 3 * rank), collective(3, kind, 3000, 1)]
        for rank in range(4)
    ]
    bus = {"model_shared_bus": 1, "L": 1.5, "o": 0, "g": 0, "G": per_byte}
    chunks = {"preferred_dataset_splits": 4, "active_chunks_per_dimension": 3}
    lowered = prepare(ranks, *dimensions, **bus, **chunks)
    choice = np.random.default_rng(0)
    there = {
        path: value * np.exp(choice.normal(0, 1, 60)) for path, value in lowered.parameters.items()
    }
    costs = np.asarray(lowered.costs(there, truncate=False), np.float64)
    reference_cost = np.asarray(lowered.costs(truncate=False), np.float64)
    run = event_run.run(lowered, reference_cost, record=True)
    orders = AstraOrders(lowered, run, reference_cost, truncate=False)
    makespan, differs, counts = orders(costs, paths=True, threads=1)
    assert differs.all()
    np.testing.assert_allclose((counts * costs).sum(axis=0), makespan, rtol=1e-12)


def test_chunks_that_leave_a_station_together_are_no_other_order():
    graph, system, models = loaded("llm_dp2tp2pp2", "ring_s8_a4", truncate=True)
    compiled = pm.compile(graph, system, models)
    checked = compiled.checked
    assert checked is not None
    assert not compiled.forced
    table = pm.sweep(graph, system, wide(system, models, 128), models=models, breakdown=False)
    assert (table.schedule != "own").mean() > 0.5  # all but the sample that is simulated


@pytest.mark.parametrize("system", ["ring_s4_a1", "ring_s1_a1", "hd_s4_a1"])
@pytest.mark.parametrize("trace", ["fuzz1", "fuzz7", "llm_pp8", "llm_dp8"])
def test_the_schedule_by_nodes_is_the_simulators_to_the_nanosecond(trace, system):
    compiled = pm.compile(*loaded(trace, system, truncate=True))
    costs = np.concatenate(
        [whole_costs(compiled, 24, 1_000_000), whole_costs(compiled, 24, 4)], axis=1
    )
    answer = compiled.own.nodes(costs, paths=True, threads=1)
    if answer is None:
        assert system == "hd_s4_a1"  # groups of three and more that are no power of two
        return
    makespan, counts = answer
    known = np.isfinite(makespan)
    assert known[:24].mean() > 0.9
    simulated = compiled.own(costs, threads=1)[0]
    np.testing.assert_array_equal(makespan[known], simulated[known])
    np.testing.assert_array_equal((counts * costs).sum(axis=0)[known], makespan[known])


def test_matrices_and_plain_recurrences_of_a_collective_agree(monkeypatch):
    from perfmodel.astra import node_program

    compiled = pm.compile(*loaded("fuzz1", network="ring8", truncate=True))
    costs = whole_costs(compiled, 16, 1000)
    results = []
    for reuse in (0, 10**9):
        monkeypatch.setattr(node_program, "MATRIX_REUSE", reuse)
        program = node_program.node_program(compiled.own.lowered)
        assert (program.layout[0] >= 0).any() == (reuse == 0)
        results.append(program.makespans(costs, paths=False, threads=1, truncate=True)[0])
    np.testing.assert_array_equal(*results)


def test_a_ring_of_three_by_hand():
    # one chunk, two messages, no reduction: t + delay, then twice max(own, the one before's + message) + delay
    modules = collective_matrices.Modules(
        **{
            name: np.array(values, np.int32)
            for name, values in {
                "members": [3],
                "chunks": [1],
                "sends": [2],
                "delay": [0],
                "reduction_ptr": [0],
                "edge_ptr": [0],
                "per_step": [0],
                "reduction": [-1, -1, -1],
                "source": [2, 0, 1],
                "edge": [1, 1, 1],
            }.items()
        }
    )
    at, other = np.array([0.0, 10.0, 0.0]), np.empty(3)
    collective_matrices.run_module(np.array([1.0, 5.0]), modules, 0, at, other)
    # fills 1, 11, 1; then 7 = 1 + 5 + 1, 12 = 11 + 1, 17 = 11 + 5 + 1; then 23 = 17 + 5 + 1, 13, 18 = 17 + 1
    assert at.tolist() == [23.0, 13.0, 18.0]
