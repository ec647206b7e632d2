"""The bulk engine and the exact reduction against a loop over vertices in plain Python, on random graphs."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse

from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine import reduction
from perfmodel.engine.bulk import makespans
from perfmodel.engine.longest_path import cut, makespan
from perfmodel.engine.reduction import _contract_chains, _drop_implied, _merge_equal, reduce
from perfmodel.schedule.ancestry import ancestry
from perfmodel.schedule.certificate import Checks
from perfmodel.schedule.frozen_graph import Events, times
from tests.oracle_case import cases, compile_eagerly, costs_eagerly, repeatable


def graph_of(costs: list[int], before: list[list[int]]) -> Events:
    """Vertices with a cost number (-1: none) and the smaller numbers that each follows; the end is added."""
    n = len(costs)
    edges = [(u, v) for v, all_before in enumerate(before) for u in all_before]
    source, target = np.array(edges, np.int64).reshape(-1, 2).T
    each = np.arange(n)
    return Events.of_edges(
        np.array(costs, np.int32), source, target, first=each, last=each, owner=each
    )


def by_hand(events: Events, cost: np.ndarray) -> tuple[float, np.ndarray]:
    """Makespan and how often each cost stands on one longest path, vertex by vertex."""
    finish: list[float] = []
    for v in range(len(events)):
        before = events.pred[events.pred_ptr[v] : events.pred_ptr[v + 1]]
        own = cost[events.cost[v]] if events.cost[v] >= 0 else 0.0
        finish.append(max((finish[u] for u in before), default=0.0) + own)
    counts, v = np.zeros(len(cost)), len(events) - 1
    while v >= 0:
        if events.cost[v] >= 0:
            counts[events.cost[v]] += 1
        before = events.pred[events.pred_ptr[v] : events.pred_ptr[v + 1]]
        v = int(max(before, key=lambda u: finish[u])) if len(before) else -1
    return finish[-1], counts


@st.composite
def graphs(draw, vertices: int = 60, costs: int = 5) -> Events:
    """Random graphs with twins, chains, vertices without cost and implied edges."""
    n = draw(st.integers(1, vertices))
    choice = np.random.default_rng(draw(st.integers(0, 2**32)))
    near = draw(st.sampled_from([2, 5, vertices]))  # how far back edges reach
    most = draw(st.sampled_from([1, 2, 4, 9]))
    before: list[list[int]] = []
    for v in range(n):
        if v and choice.random() < 0.2:  # the same predecessors as the vertex before
            before.append(list(before[-1]))
            continue
        low = max(0, v - near)
        count = min(int(choice.integers(0, most + 1)), v - low)
        before.append([int(u) for u in choice.choice(np.arange(low, v), count, replace=False)])
    return graph_of([int(c) for c in choice.integers(-1, costs, n)], before)


def designs(count: int, costs: int = 5, seed: int = 0) -> np.ndarray:
    """[costs, count] random costs: no two paths are equally long but those with equal costs."""
    return np.random.default_rng(seed).uniform(0.1, 1.0, (costs, count))


@given(graphs())
@repeatable(200)
def test_makespans_and_paths_are_those_of_the_loop_with_and_without_reduction(events):
    costs = designs(3)
    expected = [by_hand(events, c) for c in costs.T]
    for merge in (True, False):
        plan = engine.plan(reduce(events, len(costs), merge=merge))
        value = engine.makespans(plan, costs)[0]
        again, paths = engine.makespans(plan, costs, paths=True)
        np.testing.assert_array_equal(value, again)
        np.testing.assert_allclose(value, [t for t, _ in expected], rtol=1e-12)
        # another longest path may be counted where several are equally long; its length is the same
        np.testing.assert_allclose((paths * costs).sum(axis=0), value, rtol=1e-12)
        for d, (_, counts) in enumerate(expected):
            if len(set(np.round(costs[:, d] @ np.stack([counts, paths[:, d]], axis=1), 9))) > 1:
                np.testing.assert_array_equal(paths[:, d], counts)


@given(graphs())
@repeatable(60)
def test_threads_and_tiles_change_nothing(events):
    costs = designs(23)
    plan = engine.plan(reduce(events, len(costs)))
    value, paths = engine.makespans(plan, costs, threads=1, tile=23, paths=True)
    for threads, tile in ((1, 1), (2, 4), (3, 7), (2, 64), (5, None)):
        np.testing.assert_array_equal(
            engine.makespans(plan, costs, threads=threads, tile=tile)[0], value
        )
        again, same = engine.makespans(plan, costs, threads=threads, tile=tile, paths=True)
        np.testing.assert_array_equal(again, value)
        np.testing.assert_array_equal(same, paths)


@given(graphs())
@repeatable(60)
def test_single_precision_differs_by_rounding_only(events):
    costs = designs(16)
    plan = engine.plan(reduce(events, len(costs)))
    value = engine.makespans(plan, costs, dtype=np.float32)[0]
    assert value.dtype == np.float32
    np.testing.assert_allclose(value, engine.makespans(plan, costs)[0], rtol=1e-5)


@given(graphs())
@repeatable(60)
def test_the_paths_are_the_finite_differences_of_the_makespan(events):
    costs = designs(1)
    plan = engine.plan(reduce(events, len(costs)))
    _, paths = engine.makespans(plan, costs, paths=True)
    step = 1e-7
    for k in range(len(costs)):
        moved = np.repeat(costs, 2, axis=1)
        moved[k] += [step, -step]
        up, down = engine.makespans(plan, moved)[0]
        centre = engine.makespans(plan, costs)[0][0]
        right, left = (up - centre) / step, (centre - down) / step
        if abs(right - left) < 1e-6:  # no tie
            assert paths[k, 0] == pytest.approx(right, abs=1e-6)
        else:
            assert left - 1e-6 <= paths[k, 0] <= right + 1e-6


@given(cases(chained=True, ranks=4, events=12))
@repeatable(25)
def test_the_reduced_graph_of_a_workload_gives_the_time_of_its_frozen_graph_at_other_rates(case):
    compiled = compile_eagerly(case.graph, case.system, case.models)
    cost = costs_eagerly(compiled, compiled.system, compiled.models)
    factors = np.random.default_rng(0).uniform(0.3, 3.0, (len(cost), 4))
    value = engine.makespans(compiled.plan, cost[:, None] * factors)[0]
    for d in range(4):
        expected, _ = by_hand(compiled.events, cost * factors[:, d])
        assert value[d] == pytest.approx(expected, rel=1e-12)
    assert len(compiled.reduced) <= len(compiled.events)


@given(graphs())
@repeatable(60)
def test_the_scan_in_jax_finds_the_same_finish_times(events):
    cost = designs(1)[:, 0]
    levels = cut(events.pred_ptr, events.pred, events.cost)
    assert float(makespan(levels, cost)) == pytest.approx(by_hand(events, cost)[0], rel=1e-12)
    start, finish = times(events.pred_ptr, events.pred, events.cost, cost)
    assert finish[-1] == pytest.approx(by_hand(events, cost)[0], rel=1e-12)
    assert all(finish[events.pred[a:b]].max(initial=0) == s for a, b, s in stretches(events, start))


def stretches(events, start):
    """Where each vertex's predecessors stand, and its start."""
    return zip(events.pred_ptr[:-1], events.pred_ptr[1:], start)


def rule(apply, events: Events, costs: int):
    """One rule of the reduction alone: the smaller graph as a plan, and its numbers of vertices and edges."""
    combination = sparse.vstack(
        [sparse.csr_array((1, costs)), sparse.eye_array(costs, format="csr")], format="csr"
    )
    ptr, pred, cost, combination = apply(
        events.pred_ptr, events.pred, events.cost.astype(np.int64) + 1, combination
    )
    whole = reduce(events, costs, merge=False)
    smaller = type(whole)(cost.astype(np.int32), ptr, pred, combination)
    return engine.plan(smaller), len(cost), len(pred)


RULES = {
    "implied edges": lambda ptr, pred, cost, rows: (*_drop_implied(ptr, pred), cost, rows),
    "equal vertices": lambda ptr, pred, cost, rows: (
        *_merge_equal(ptr, pred, cost)[:3],
        rows,
    ),
    "chains": lambda *graph: _contract_chains(*graph, np.zeros(0, np.int64))[:4],
}


@pytest.mark.parametrize("name", RULES)
@given(events=graphs())
@repeatable(60)
def test_each_rule_of_the_reduction_is_exact_alone(name, events):
    costs = designs(3)
    plan, vertices, edges = rule(RULES[name], events, len(costs))
    assert vertices <= len(events)
    assert edges <= len(events.pred)
    expected = [by_hand(events, c)[0] for c in costs.T]
    np.testing.assert_allclose(engine.makespans(plan, costs)[0], expected, rtol=1e-12)


def test_an_edge_that_another_one_implies_goes():
    # 0 -> 1 -> 2 and 0 -> 2
    events = graph_of([0, 1, 2], [[], [0], [0, 1]])
    _, vertices, edges = rule(RULES["implied edges"], events, 3)
    assert (vertices, edges) == (4, 3)  # with the end behind the last vertex of each task
    plan, _, _ = rule(RULES["implied edges"], events, 3)
    assert engine.makespans(plan, np.array([[1.0], [2.0], [4.0]]))[0][0] == 7.0


def test_twins_become_one_and_so_do_their_followers():
    #  0 -> 1 -> 3 and 0 -> 2 -> 4, with equal costs in each pair
    events = graph_of([0, 1, 1, 2, 2], [[], [0], [0], [1], [2]])
    _, vertices, _ = rule(RULES["equal vertices"], events, 3)
    assert vertices == 4  # three and the end
    assert len(reduce(events, 3)) == 1  # all of it is one chain
    assert reduce(events, 3).combination.toarray()[-1].tolist() == [1, 1, 1]


def test_a_chain_costs_the_sum_of_its_members():
    events = graph_of([0, 1, 0, 0], [[], [0], [1], [2]])
    reduced = reduce(events, 2)
    assert len(reduced) == 1
    assert reduced.combination.toarray()[reduced.cost[0]].tolist() == [3, 1]
    assert engine.makespans(engine.plan(reduced), np.array([[1.0], [10.0]]))[0][0] == 13.0


def test_vertices_with_different_costs_or_predecessors_stay_apart():
    # forks: 0 -> 1, 2 of different cost, both joined in 3; and 4 follows 1 only
    events = graph_of([0, 1, 2, 0, 2], [[], [0], [0], [1, 2], [1]])
    plan = engine.plan(reduce(events, 3))
    for costs in ([1.0, 5.0, 2.0], [1.0, 2.0, 5.0], [3.0, 0.0, 0.0]):
        expected, _ = by_hand(events, np.array(costs))
        assert engine.makespans(plan, np.array(costs)[:, None])[0][0] == expected


@pytest.mark.parametrize("degree", [2, 3, 255, 256, 257, 700])
def test_a_vertex_may_have_any_number_of_predecessors(degree):
    # `degree` vertices, each with its own cost, and one that waits for all
    events = graph_of([*range(degree), 0], [[]] * degree + [list(range(degree))])
    plan = engine.plan(reduce(events, degree, merge=False))
    costs = np.random.default_rng(degree).uniform(1.0, 2.0, (degree, 40))
    value, paths = engine.makespans(plan, costs, paths=True)
    np.testing.assert_allclose(value, costs.max(axis=0) + costs[0], rtol=1e-14)
    expected = np.zeros(costs.shape)
    expected[costs.argmax(axis=0), np.arange(40)] += 1
    expected[0] += 1
    np.testing.assert_array_equal(paths, expected)


def test_costs_are_summed_up_when_needed_where_a_table_would_not_pay():
    few = graph_of([0, 1] * 20, [[v - 1] if v else [] for v in range(40)])
    many = graph_of(list(range(40)), [[v - 1] if v else [] for v in range(40)])
    tabulated, streamed = (
        engine.plan(reduce(events, count, merge=False)) for events, count in ((few, 2), (many, 40))
    )
    assert engine._tabulated(tabulated)
    assert not engine._tabulated(streamed)
    for plan, costs in ((tabulated, designs(9, 2)), (streamed, designs(9, 40))):
        value, paths = engine.makespans(plan, costs, paths=True)
        repeats = 40 // len(costs)
        np.testing.assert_allclose(value, costs.sum(axis=0) * repeats, rtol=1e-13)
        np.testing.assert_array_equal(paths, np.full(costs.shape, repeats))


def test_costs_in_any_memory_order_and_of_any_float_type_are_taken():
    events = graph_of([0, 1, 2, 0], [[], [0], [0], [1, 2]])
    plan = engine.plan(reduce(events, 3))
    costs = designs(11, 3)
    expected, expected_paths = engine.makespans(plan, costs, paths=True)
    for same in (np.asfortranarray(costs), np.repeat(costs, 2, axis=1)[:, ::2]):
        value, paths = engine.makespans(plan, same, paths=True)
        np.testing.assert_array_equal(value, expected)
        np.testing.assert_array_equal(paths, expected_paths)
    single = engine.makespans(plan, costs.astype(np.float32))[0]
    np.testing.assert_allclose(single, expected, rtol=1e-6)


def test_the_window_holds_live_vertices_only():
    line = graph_of([0] * 1000, [[v - 1] if v else [] for v in range(1000)])
    plan, vertices, _ = rule(RULES["implied edges"], line, 1)
    assert (vertices, plan.slots) == (1001, 2)
    fan = graph_of([0] * 100, [[]] + [[0]] * 99)
    plan, vertices, _ = rule(RULES["implied edges"], fan, 1)
    assert plan.slots == 100  # the end waits for 99, and takes the place of the first


def test_without_room_for_clocks_nearby_implied_edges_still_go(monkeypatch):
    from perfmodel.schedule import ancestry as module

    monkeypatch.setattr(module, "CLOCK_ENTRIES", 0)
    events = graph_of([0, 1, 2], [[], [0], [0, 1]])
    assert ancestry(events.pred_ptr, events.pred).clock is None
    assert _drop_implied(events.pred_ptr, events.pred)[1].tolist() == [0, 1, 2]
    for seed in range(20):
        choice = np.random.default_rng(seed)
        before = [
            sorted({int(u) for u in choice.integers(0, v, 3)}) if v else [] for v in range(40)
        ]
        graph = graph_of([int(c) for c in choice.integers(0, 5, 40)], before)
        costs = designs(2, seed=seed)
        expected = [by_hand(graph, c)[0] for c in costs.T]
        value = engine.makespans(engine.plan(reduce(graph, 5)), costs)[0]
        np.testing.assert_allclose(value, expected, rtol=1e-12)


@pytest.mark.parametrize("seed", range(12))
def test_a_large_graph_of_vertices_that_are_all_unlike_keeps_them_and_takes_as_long(
    seed, monkeypatch
):
    """Nothing is merged there, but for implied edges; times and path counts are those of the merged graph."""
    choice = np.random.default_rng(seed)
    n = int(choice.integers(2, 80))
    before = [
        sorted(set(choice.integers(0, v, choice.integers(0, 4)).tolist())) for v in range(1, n)
    ]
    events = graph_of(list(range(n)), [[], *before])
    costs = choice.random((n, 7))
    small = engine.makespans(engine.plan(reduce(events, n)), costs, paths=True)
    monkeypatch.setattr(reduction, "LARGE", 0)
    large = reduce(events, n)
    assert len(large) == len(events)
    assert len(large.pred) <= len(events.pred)
    np.testing.assert_array_equal(large.cost[:-1], np.arange(n) + 1)
    found = engine.makespans(engine.plan(large), costs, paths=True)
    np.testing.assert_allclose(found[0], small[0], rtol=1e-12)
    np.testing.assert_array_equal(found[1], small[1])
    for d in range(7):
        makespan, counts = by_hand(events, costs[:, d])
        assert found[0][d] == pytest.approx(makespan)
        np.testing.assert_array_equal(found[1][:, d], counts)
    alike = graph_of([k % 2 for k in range(n)], [[], *before])
    assert len(reduce(alike, 2)) < len(alike)  # vertices that are alike are merged there, too


@given(graphs())
@repeatable(30)
def test_some_designs_of_a_table_are_answered_as_in_a_table_of_their_own(events):
    plan, costs = engine.plan(reduce(events, 5)), designs(40)
    chosen = np.array([3, 4, 11, 30, 39, 7])
    expected, paths = engine.makespans(plan, costs[:, chosen], paths=True)
    table = np.full(costs.shape, -1.0)
    found, counts = engine.makespans(plan, costs, paths=True, tile=4, designs=chosen, counts=table)
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(counts[:, chosen], paths)
    assert (np.delete(counts, chosen, axis=1) == -1).all()
    np.testing.assert_array_equal(engine.makespans(plan, costs, designs=chosen)[0], expected)


def test_path_counts_go_to_a_table_that_is_one_stretch_of_memory():
    plan, costs = engine.plan(reduce(graph_of([0, 1], [[], [0]]), 2)), designs(4, 2)
    with pytest.raises(ValueError, match="C-contiguous"):
        engine.makespans(plan, costs, paths=True, counts=np.zeros((4, 2)).T)


@pytest.mark.parametrize("often", [255, 256, 70_000])
@pytest.mark.parametrize("merge", [True, False])
def test_a_cost_may_stand_on_a_path_any_number_of_times(often, merge):
    """One after the other, and beside each of them one that takes less time, which nothing but the end waits for."""
    line = [[v - 2] if v >= 2 else [] for v in range(2 * often)]
    before = [line[v - v % 2] for v in range(2 * often)]
    plan = engine.plan(reduce(graph_of([0, 1] * often, before), 2, merge=merge))
    value, paths = engine.makespans(plan, np.array([[2.0, 1.0], [1.0, 4.0]]), paths=True)
    assert paths.tolist() == [[often, often - 1], [0, 1]]
    assert value.tolist() == [2.0 * often, often - 1 + 4.0]


@pytest.mark.parametrize("devices", [(), tuple(jax.devices("cpu"))])
def test_what_holds_asks_for_costs_that_last_too(devices):
    """Cost 1 has to be longer than a tenth of the makespan, and cost 0 no longer than cost 2."""
    events = graph_of([0, 1, 2], [[], [0], [0]])
    none = np.zeros(0, np.int64)
    checks = Checks(
        none, none, none, none.astype(float), none > 0, np.array([1]), np.array([[0, 2]]), 0.1
    )
    plan = engine.plan(reduce(events, 3), checks)
    costs = np.array([[1.0, 1.0, 3.0, 2.0], [1.0, 0.25, 1.0, 5.0], [2.0, 2.0, 2.0, 2.0]])
    held = np.zeros(4, np.uint8)
    makespan, _ = makespans(plan, costs, devices=devices, held=held)
    assert makespan.tolist() == [3, 3, 5, 7]
    assert held.tolist() == [1, 0, 0, 1]
    some = np.zeros(2, np.uint8)
    makespans(plan, costs, devices=devices, held=some, designs=np.array([3, 1]))
    assert some.tolist() == [1, 0]


def test_a_cost_between_two_vertices_is_one_on_a_path_between_them():
    """0 -> 1 -> 3 and 0 -> 2 -> 3, where 1 has no cost and 2 has two followers; 4 follows 0 alone."""
    events = graph_of([0, -1, 1, 2, 3], [[], [0], [0], [1, 2], [0]])
    whole = reduction.Reduced(
        (events.cost + 1).astype(np.int32),
        events.pred_ptr,
        events.pred,
        reduce(events, 4, merge=False).combination,
    )
    first, later = np.array([0, 2, 0, 3, 2]), np.array([[1, 1], [3, 3], [4, 4], [2, 2], [4, 3]])
    assert reduction.cost_between(whole, first, later).tolist() == [-1, 2, 3, -1, 2]


@given(graphs())
@repeatable(50)
def test_where_a_cost_is_between_two_vertices_they_finish_that_much_apart(events):
    reduced, costs = reduce(events, 5, merge=False), designs(8)
    a, b = (x.ravel() for x in np.meshgrid(*[np.arange(len(reduced))] * 2))
    between = reduction.cost_between(reduced, a, np.stack([b, b], axis=1))
    for cost in costs.T:
        finish = times(events.pred_ptr, events.pred, events.cost, np.ascontiguousarray(cost))[1]
        known = between >= 0
        apart = finish[b[known]] - finish[a[known]]
        assert (apart >= cost[between[known]] * (1 - 1e-12) - 1e-9).all()
