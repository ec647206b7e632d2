"""Which designs keep a frozen order: by hand, and against the oracle's own schedules on random workloads."""

import numpy as np
import pytest
from hypothesis import event, given

import perfmodel as pm
from perfmodel.engine import cells
from perfmodel.engine.cells import (
    ANOTHER,
    NOBODY,
    REFERENCE,
    Cells,
    cell_of,
    checks_of,
    frozen_at,
)
from perfmodel.schedule import list_orders
from tests.agreement.test_oracle_designs import designs, seeds, table
from tests.handmade import coll, comp, recv, send, write
from tests.oracle_case import assert_close, cases, compile_eagerly, repeatable


def compiled_of(tmp_path, ranks, groups=None):
    graph = pm.load(write(tmp_path / "t", ranks, groups))
    return pm.compile(graph, pm.hardware("dgx-h100", ranks=graph.ranks))


def answered(compiled, costs):
    """Makespans along the frozen order, whether certified, and the own schedule's makespans, of costs [S, D]."""
    cell = cell_of(*compiled.checked, len(costs))
    makespan, sure, _ = cell.answer(costs, paths=False, threads=1)
    return makespan, sure, compiled.own(costs, threads=1)[0]


def two_messages(ids):
    """Rank 1 computes after one message from rank 0 and after another; the nodes of rank 1 have the given ids.

    Rank 0 computes for 4 and 1 (on streams of their own), and sends after each.
    """
    rank0 = [
        comp(4 * 10**12, 1, stream=1, id=0),
        comp(10**12, 1, stream=2, id=1),
        send(1, 64, tag=1, deps=[0], stream=3, id=2),
        send(1, 64, tag=2, deps=[1], stream=4, id=3),
    ]
    first, second = ids
    rank1 = [
        recv(0, 64, tag=1, id=10),
        recv(0, 64, tag=2, id=11),
        comp(8 * 10**12, 1, deps=[10], id=first),
        comp(16 * 10**12, 1, deps=[11], id=second),
    ]
    return [rank0, rank1]


@pytest.mark.parametrize("ids", [(12, 13), (13, 12)])
def test_who_is_ready_first_decides_and_the_certificate_asks_for_that(tmp_path, ids):
    compiled = compiled_of(tmp_path, two_messages(ids))
    assert not compiled.forced
    rows = dict(zip((4.0, 1.0, 8.0, 16.0), range(4)))
    work = compiled.own.tasks.work.blocks[0].rows[:, 0] / 1e12
    cost = np.zeros((len(compiled.category), 5))
    for k, value in enumerate(work):
        # the reference runs the node behind the shorter computation first
        cost[k] = [
            (4, 3, 2, 1, 2)[d]
            if rows[value] == 0
            else (1, 2, 3, 4, 2)[d]
            if rows[value] == 1
            else value
            for d in range(5)
        ]
    makespan, sure, own = answered(compiled, cost)
    np.testing.assert_allclose(makespan[sure], own[sure])
    assert sure.tolist()[:4] == [True, True, False, False]
    # a receive may end in a later pass of its moment, so that no tie is certain
    assert not sure[4]


def test_a_tie_is_certain_where_both_end_at_the_beginning_of_their_moment(tmp_path):
    # one stream; 2 follows 0, 3 follows 1, and 2 has the lower id
    nodes = [
        comp(10**12, 1, stream=1, id=0),
        comp(2 * 10**12, 1, stream=2, id=1),
        comp(3 * 10**12, 1, deps=[0], stream=3, id=2),
        comp(5 * 10**12, 1, deps=[1], stream=3, id=3),
    ]
    compiled = compiled_of(tmp_path, [nodes, nodes])
    assert not compiled.forced
    work = compiled.own.tasks.work.blocks[0].rows[:, 0] / 1e12
    times = {1.0: (1, 2, 2 + 1e-9, 0), 2.0: (2, 2, 2, 0), 3.0: 4 * (3,), 5.0: 4 * (5,)}
    cost = np.array([times[w] for w in work], float)
    makespan, sure, own = answered(compiled, cost)
    # 0 ends before 1, with it, after it; with nothing to wait for, the pass is not certain
    assert sure.tolist() == [True, True, False, False]
    np.testing.assert_allclose(makespan[sure], own[sure])


def test_a_chain_of_dependencies_forces_the_order(tmp_path):
    nodes = [comp(id=0), comp(deps=[0], id=1), coll(deps=[1], id=2), comp(deps=[1], id=3)]
    assert compiled_of(tmp_path, [nodes, nodes]).forced


@given(cases(), seeds)
@repeatable(120)
def test_a_certified_design_has_the_oracles_makespan_of_its_own_order(case, seed):
    if case.times is None:
        return
    compiled = compile_eagerly(case.graph, case.system, case.models)
    if compiled.checked is None:
        event("not looked at")
        return
    chosen = designs(case, seed)
    costs = table(compiled, chosen)
    cell = cell_of(*compiled.checked, len(costs))
    makespan, sure, counts = cell.answer(costs, paths=True, threads=1)
    event(f"certified: {bool(sure[1:].any())}, forced: {compiled.forced}")
    for d in np.flatnonzero(sure):
        times = case.at(*chosen[d])
        assert times is not None
        assert_close(makespan[d], times.makespan, case.scale)
        assert_close(counts[:, d] @ costs[:, d], times.makespan, case.scale)


@given(cases(), seeds)
@repeatable(60)
def test_a_certificate_holds_among_ties_as_well(case, seed):
    if case.times is None:
        return
    compiled = compile_eagerly(case.graph, case.system, case.models)
    choice = np.random.default_rng(seed)
    shape = (len(compiled.category), 32)
    costs = choice.integers(0, choice.choice([2, 3, 10], shape[1]), shape).astype(float)
    own = compiled.own(costs, threads=1)[0]
    ends = np.flatnonzero(np.isfinite(own))
    frozen = [(compiled.events, compiled.own.decided())]
    if len(ends):
        frozen.append(frozen_at(compiled.own, costs[:, ends[0]].copy()))
    for events, decided in frozen:
        checked = checks_of(events, decided)
        if checked is not None:
            makespan, sure, _ = cell_of(*checked, len(costs)).answer(costs, paths=False, threads=1)
            np.testing.assert_array_equal(makespan[sure], own[sure])


def test_calls_of_different_cost_that_meet_take_the_longer_one_on_every_design(tmp_path):
    """../shared/facts/orders.md, 4: the reference's longer call is not every design's."""
    first = [coll("all_reduce", 2**20, group="g", id=0), coll("all_gather", 2**21, group="g", id=1)]
    other = [coll("all_gather", 2**21, group="g", id=0), coll("all_reduce", 2**20, group="g", id=1)]
    for nodes in (first, other):
        nodes[1]["deps"] = [0]
        for k, node in enumerate(nodes):
            node["name"] = f"{id(nodes)} {k}"
    with pytest.warns(UserWarning, match="collectives of different type or size"):
        compiled = compiled_of(tmp_path, [first, other], {"g": [0, 1]})
    assert compiled.forced
    costs = np.array([[1.0, 5.0, 2.0], [3.0, 1.0, 2.0]])
    assert costs.shape[0] == len(compiled.category)
    makespan, sure, own = answered(compiled, costs)
    assert own.tolist() == [6.0, 10.0, 4.0]
    assert (makespan.tolist(), sure.all()) == (own.tolist(), True)
    counts = cell_of(*compiled.checked, 2).answer(costs, paths=True, threads=1)[2]
    assert counts[:, :2].tolist() == [[0, 2], [2, 0]]


def test_the_default_sweep_is_as_long_as_the_simulation_where_different_calls_meet(tmp_path):
    ranks = [
        [
            coll("all_reduce", 2**20, group="g", id=0),
            coll("all_gather", 2**21, group="g", id=1, deps=[0]),
        ],
        [
            coll("all_gather", 2**21, group="g", id=0),
            coll("all_reduce", 2**20, group="g", id=1, deps=[0]),
        ],
    ]
    for rank, nodes in enumerate(ranks):
        for node in nodes:
            node["name"] = f"{rank} {node['id']}"
    graph = pm.load(write(tmp_path / "t", ranks, {"g": [0, 1]}))
    system = pm.hardware("dgx-h100", ranks=2)
    here = pm.parameters(system)["network.0.bandwidth"]
    late = 10 * pm.parameters(system)["network.0.latency"]
    points = {"network.0.bandwidth": [here * 100, here, here / 100], "network.0.latency": [late]}
    with pytest.warns(UserWarning, match="different type or size"):
        default = pm.sweep(graph, system, points)
    with pytest.warns(UserWarning, match="different type or size"):
        simulated = pm.sweep(graph, system, points, schedule="simulated")
    np.testing.assert_allclose(default.makespan_s, simulated.makespan_s, rtol=1e-12)
    parts = [c for c in default if c.endswith("_s") and c != "makespan_s"]
    np.testing.assert_allclose(default[parts].sum(axis=1), default.makespan_s, rtol=1e-9)


def test_a_sample_of_the_designs_finds_the_orders_that_pay(tmp_path):
    compiled = compiled_of(tmp_path, two_messages((13, 12)))
    compiled.cells.build_s = 0.0
    looked_at = []
    cell_of_design = compiled.cells._cell
    compiled.cells._cell = lambda cost: looked_at.append(cost) or cell_of_design(cost)
    choice = np.random.default_rng(0)
    costs = choice.random((len(compiled.category), 2000)) + 0.1
    own = compiled.own(costs, threads=1)[0]
    for paths in (False, True):
        makespan, who, counts = compiled.cells.answer(costs, paths=paths, threads=1)
        answered = who != NOBODY
        np.testing.assert_allclose(makespan[answered], own[answered], rtol=1e-12)
        assert (who == REFERENCE).sum() > 100
        assert (who == ANOTHER).sum() > 100
        assert answered.mean() > 0.9
        if paths:
            np.testing.assert_allclose((counts * costs).sum(axis=0)[answered], own[answered])
    assert 2 * 2 <= len(looked_at) <= 2 * 4


def test_designs_that_are_put_together_are_answered_as_in_their_places(tmp_path, monkeypatch):
    compiled = compiled_of(tmp_path, two_messages((13, 12)))
    compiled.cells.build_s = 0.0
    costs = np.random.default_rng(0).random((len(compiled.category), 2000)) + 0.1
    expected = compiled.cells.answer(costs, paths=True, threads=1)
    assert {REFERENCE, ANOTHER} <= set(expected[1].tolist())
    for times in (1, 10**9):  # always, never
        monkeypatch.setattr(cells, "NARROW", times)
        for here, there in zip(compiled.cells.answer(costs, paths=True, threads=1), expected):
            np.testing.assert_array_equal(here, there)


def test_an_order_that_is_known_is_not_frozen_again(tmp_path, monkeypatch):
    compiled = compiled_of(tmp_path, two_messages((13, 12)))
    compiled.cells.build_s = 0.0
    costs = np.random.default_rng(0).random((len(compiled.category), 2000)) + 0.1
    expected = compiled.cells.answer(costs, paths=False, threads=1)

    def refuse(*_):
        raise AssertionError("an order was frozen")

    monkeypatch.setattr(list_orders, "freeze", refuse)
    for here, there in zip(compiled.cells.answer(costs, paths=False, threads=1), expected):
        np.testing.assert_array_equal(here, there)
    fresh = Cells(compiled.own, len(compiled.events))
    fresh.build_s = 0.0
    with pytest.raises(AssertionError, match="was frozen"):
        fresh.answer(costs, paths=False, threads=1)


def test_nothing_is_tried_out_where_simulating_all_takes_less_time(tmp_path, monkeypatch):
    compiled = compiled_of(tmp_path, two_messages((13, 12)))
    costs = np.random.default_rng(0).random((len(compiled.category), 200)) + 0.1
    answering = compiled.cells
    answering.build_s = 1e9

    def refuse(*_):
        raise AssertionError("a sample was drawn")

    monkeypatch.setattr(answering, "_draw", refuse)
    assert (answering.answer(costs, paths=True, threads=1)[1] == NOBODY).all()


def test_what_answers_a_batch_hangs_on_no_other_batch(tmp_path):
    choice = np.random.default_rng(0)
    again = compiled_of(tmp_path, two_messages((13, 12)))
    batches = choice.random((3, len(again.category), 2000)) + np.array([0.1, 0.1, 2])[:, None, None]
    again.cells.build_s = 0.0
    for costs in (*batches, *batches):
        fresh = compiled_of(tmp_path, two_messages((13, 12)))
        fresh.cells.build_s = 0.0
        for here, there in zip(
            again.cells.answer(costs, paths=True, threads=1),
            fresh.cells.answer(costs, paths=True, threads=2),
            strict=True,
        ):
            np.testing.assert_array_equal(here, there)
