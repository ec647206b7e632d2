"""What-ifs: scaled, replaced and regrouped nodes, stragglers, jitter, tables; worked by hand."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.compute import Roofline
from tests.handmade import coll, comp, recv, send, write

GIGA = 10**9
SYSTEM = System(
    NPU(1e12, 1e12),
    (Dimension(1e11, 0.0, "switch", 2), Dimension(1e10, 0.0, "switch", 2)),
    name="two by two",
)
PAIRS = {"1": [0, 1], "2": [2, 3], "3": [0, 2], "4": [1, 3]}


def step(rank, *, group=None):
    """2 ms of attention, 1 ms of feed-forward, then an all-reduce: neighbours (inner dimension) unless told."""
    group = group or ("1" if rank < 2 else "2")
    return [
        comp(2 * GIGA, 0, name="layer.attention"),
        comp(GIGA, 0, name="layer.mlp", deps=[0]),
        coll(size=10**8, name="sum", group=group, deps=[1]),
    ]


@pytest.fixture
def graph(tmp_path):
    return pm.load(write(tmp_path, [step(rank) for rank in range(4)], PAIRS))


def seconds(graph, models=None):
    return pm.predict(graph, SYSTEM, models).makespan


def test_the_baseline_is_3_ms_and_an_all_reduce_of_1_ms(graph):
    # two members by halving: S / 2 twice at 100 GB/s
    assert seconds(graph) == pytest.approx(4e-3, rel=1e-12)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"name": "*attention"}, 3e-3),
        ({"name": "layer.*"}, 2.5e-3),
        ({"type": "ALL_REDUCE"}, 3.5e-3),
        ({"type": ["COMP", "ALL_REDUCE"]}, 2e-3),
        ({"type": "COMP", "name": "*mlp"}, 3.5e-3),
        ({"flops": GIGA}, 3.5e-3),
        ({"group": ["1", "2"]}, 3.5e-3),
        (None, 2e-3),
        (lambda table: table["flops"] > 1.5 * GIGA, 3e-3),
    ],
)
def test_twice_as_fast_halves_what_was_chosen(graph, where, expected):
    assert seconds(pm.whatif.scale(graph, 0.5, where=where)) == pytest.approx(expected, rel=1e-12)


def test_a_factor_counts_overheads_and_earlier_factors(graph):
    models = pm.Models(compute=Roofline(overhead=1e-3))
    once = pm.whatif.scale(graph, 2, where={"name": "*mlp"})
    twice = pm.whatif.scale(once, 3, where={"name": "*mlp"})
    assert seconds(graph, models) == pytest.approx(6e-3, rel=1e-12)
    assert seconds(once, models) == pytest.approx(8e-3, rel=1e-12)
    assert seconds(twice, models) == pytest.approx(16e-3, rel=1e-12)


def test_the_graph_itself_stays_as_it_was(graph):
    before = seconds(graph)
    digest = graph.digest
    other = pm.whatif.scale(graph, 7)
    assert seconds(graph) == before
    assert graph.digest == digest != other.digest
    assert other.digest != pm.whatif.scale(graph, 8).digest


def test_a_slow_rank_delays_its_pair_and_nobody_else(graph):
    slow = pm.whatif.straggler(graph, 3, 1.5)
    p = pm.predict(slow, SYSTEM)
    assert p.makespan == pytest.approx(5.5e-3, rel=1e-12)
    finish = p.finish.reshape(4, 3)[:, -1]
    assert finish == pytest.approx([4e-3, 4e-3, 5.5e-3, 5.5e-3], rel=1e-12)


def test_only_the_ranks_that_differ_become_programs_of_their_own(graph):
    assert len(graph.programs) == 1
    slow = pm.whatif.straggler(graph, 3, 1.5)
    assert [list(p.ranks) for p in slow.programs] == [[0, 1, 2], [3]]
    assert list(slow.program) == [0, 0, 0, 1]
    assert list(slow.row) == [0, 1, 2, 0]
    everywhere = pm.whatif.scale(graph, 2, where={"name": "*mlp"})
    assert len(everywhere.programs) == 1
    restored = pm.whatif.straggler(slow, 3, 1 / 1.5)
    assert seconds(restored) == pytest.approx(seconds(graph), rel=1e-12)


def test_messages_survive_the_split_of_their_ranks(tmp_path):
    lines = [[comp(GIGA, 0), send(r ^ 1, 10**8, deps=[0]), recv(r ^ 1, 10**8)] for r in range(4)]
    graph = pm.load(write(tmp_path, lines))
    slow = pm.whatif.straggler(graph, 2, 3.0)
    finish = pm.predict(slow, SYSTEM).finish.reshape(4, 3)
    assert finish[:, 1] == pytest.approx([2e-3, 2e-3, 4e-3, 2e-3], rel=1e-12)
    assert finish[:, 2] == pytest.approx([2e-3, 2e-3, 2e-3, 4e-3], rel=1e-12)


def test_a_scaled_graph_equals_one_that_was_written_with_that_work(tmp_path, graph):
    lines = [step(rank) for rank in range(4)]
    for line in lines[1:3]:
        line[0]["num_ops"] *= 5
    written = pm.load(write(tmp_path / "other", lines, PAIRS))
    scaled = pm.whatif.scale(graph, 5, where={"name": "*attention"}, ranks=[1, 2])
    a, b = (pm.timeline(pm.predict(g, SYSTEM)) for g in (written, scaled))
    pd.testing.assert_frame_equal(a, b, rtol=1e-12)


def test_replaced_work_takes_its_own_time(graph):
    replace = pm.whatif.replace
    assert seconds(replace(graph, where={"name": "*mlp"}, flops=4 * GIGA)) == pytest.approx(7e-3)
    assert seconds(replace(graph, where={"name": "*mlp"}, bytes=5 * GIGA)) == pytest.approx(8e-3)
    assert seconds(replace(graph, where={"name": "sum"}, size=3 * 10**8)) == pytest.approx(6e-3)
    recorded = replace(graph, where={"name": "*mlp"}, duration=10e-3)
    assert seconds(recorded, pm.Models(prefer="recorded")) == pytest.approx(13e-3)


def test_a_collective_moves_to_the_other_dimension(tmp_path, graph):
    moved = pm.whatif.regroup(graph, lambda r: (r % 2, r % 2 + 2), where={"name": "sum"})
    written = pm.load(
        write(
            tmp_path / "other", [step(r, group="3" if r % 2 == 0 else "4") for r in range(4)], PAIRS
        )
    )
    # ten times slower there: 10 ms
    assert seconds(moved) == pytest.approx(13e-3, rel=1e-12)
    assert seconds(moved) == seconds(written)
    assert set(moved.table([1])["group"]) == {"", "what-if 1"}
    assert moved.groups[-2:] == ((0, 2), (1, 3))
    assert graph.groups == moved.groups[:-2]


def test_some_of_a_groups_collectives_move_and_the_others_still_pair_up(tmp_path):
    line = [
        coll(size=10**8, name="first", group="1"),
        coll(size=2 * 10**8, name="second", group="1", deps=[0]),
        coll(size=3 * 10**8, name="third", group="1", deps=[1]),
    ]
    groups = {"1": [0, 1], "2": [2, 3]}
    lines = [[{**node, "group": g} for node in line] for g in ("1", "1", "2", "2")]
    graph = pm.load(write(tmp_path, lines, groups))
    assert seconds(graph) == pytest.approx(6e-3, rel=1e-12)
    moved = pm.whatif.regroup(graph, lambda r: (r % 2, r % 2 + 2), where={"name": "second"})
    assert seconds(moved) == pytest.approx(1e-3 + 20e-3 + 3e-3, rel=1e-12)


@pytest.mark.parametrize(
    ("members", "where", "words"),
    [
        (lambda r: (0, 1), {"name": "sum"}, ["rank 2", "(0, 1)"]),
        (lambda r: (r, 9), {"name": "sum"}, ["rank 0", "(0, 9)"]),
        (lambda r: (r, (r + 1) % 4), {"name": "sum"}, ["different numbers"]),
        (lambda r: (r ^ 1, r), {"type": "*"}, ["no collectives"]),
        (
            lambda r: (r ^ 2, r),
            {"name": "sum", "rank": 0},
            ["different numbers", "rank 2 0, rank 0 1"],
        ),
    ],
)
def test_groups_that_do_not_fit_are_refused(graph, members, where, words):
    with pytest.raises(pm.InputError) as error:
        pm.whatif.regroup(graph, members, where=where)
    assert all(word in str(error.value) for word in words), error.value


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda g: pm.whatif.scale(g, -1), ["factor", "-1"]),
        (lambda g: pm.whatif.scale(g, np.nan), ["factor", "nan"]),
        (lambda g: pm.whatif.scale(g, 2, where={"nam": "x"}), ["'nam'", "name", "size_B"]),
        (
            lambda g: pm.whatif.scale(g, 2, where={"name": "softmax"}),
            ["no node", "layer.attention"],
        ),
        (lambda g: pm.whatif.scale(g, 2, where="name == 'x'"), ["where", "str"]),
        (lambda g: pm.whatif.scale(g, 2, where=lambda t: [True]), ["shape (1,)", "3 truth values"]),
        (lambda g: pm.whatif.scale(g, 2, ranks=[4]), ["no rank 4"]),
        (lambda g: pm.whatif.straggler(g, -1, 2), ["no rank -1"]),
        (lambda g: pm.whatif.replace(g, where=None), ["nothing to replace"]),
        (lambda g: pm.whatif.replace(g, where=None, size=1), ["COMP", "no size"]),
        (lambda g: pm.whatif.replace(g, where=None, flops=-1), ["flops", "-1"]),
        (lambda g: pm.whatif.replace(g, where=None, flops=0.5), ["flops", "0.5"]),
        (lambda g: pm.whatif.table(g, SYSTEM, {"x": 3}), ["'x'", "int"]),
        (lambda g: pm.whatif.table(g, SYSTEM, {"x": {"npu.peak": 1.0}}), ["npu.peak_flops"]),
        (lambda g: pm.whatif.jitter(g, SYSTEM, -0.1), ["sigma", "-0.1"]),
        (lambda g: pm.whatif.jitter(g, SYSTEM, {"computing": 0.1}), ["computing", "compute"]),
        (lambda g: pm.whatif.jitter(g, SYSTEM, 0.1, 0), ["draws", "0"]),
        (lambda g: pm.whatif.jitter(g, SYSTEM, 0.1, quantiles=[50]), ["quantiles", "50"]),
    ],
)
def test_a_what_if_that_makes_no_sense_is_refused(graph, change, words):
    with pytest.raises(pm.InputError) as error:
        change(graph)
    assert all(word in str(error.value) for word in words), error.value


def test_no_jitter_leaves_the_makespan_alone(graph):
    table = pm.whatif.jitter(graph, SYSTEM, 0.0, 10)
    assert list(table.makespan_s) == pytest.approx([4e-3] * 6, rel=1e-12)
    assert list(table.columns) == ["quantile", "makespan_s", "change"]


def test_one_node_has_the_quantiles_of_the_lognormal(tmp_path):
    graph = pm.load(write(tmp_path, [[comp(GIGA, 0)]]))
    system = System(NPU(1e12, 1e12), (Dimension(1e9, 0.0, "switch", 1),))
    draws = pm.whatif.makespans(graph, system, 0.2, draws=20_000, seed=1)
    expected = stats.lognorm(0.2, scale=1e-3 * np.exp(-(0.2**2) / 2))
    assert stats.kstest(draws, expected.cdf).pvalue > 1e-3
    assert draws.mean() == pytest.approx(1e-3, rel=0.01)


def test_the_slowest_of_many_ranks_has_the_quantiles_of_a_maximum(tmp_path):
    """16 equal ranks and a barrier that costs nothing: F(t)^16."""
    lines = [[comp(GIGA, 0), coll("barrier", 0, deps=[0])]] * 16
    graph = pm.load(write(tmp_path, lines))
    system = System(NPU(1e12, 1e12), (Dimension(1e11, 0.0, "switch", 16),))
    table = pm.whatif.jitter(graph, system, {"compute": 0.1}, 20_000, quantiles=[0.1, 0.5, 0.9])
    one = stats.lognorm(0.1, scale=1e-3 * np.exp(-(0.1**2) / 2))
    expected = one.ppf(np.array([0.1, 0.5, 0.9]) ** (1 / 16))
    assert list(table.makespan_s) == pytest.approx(list(expected), rel=5e-3)
    assert list(table.change) == pytest.approx(list(expected / 1e-3 - 1), abs=5e-3)


def test_draws_repeat_with_their_seed(graph):
    a, b, c = (pm.whatif.makespans(graph, SYSTEM, 0.1, draws=50, seed=s) for s in (1, 1, 2))
    assert (a == b).all()
    assert (a != c).all()


def test_jitter_that_varies_no_category_of_the_path_changes_nothing(graph):
    draws = pm.whatif.makespans(graph, SYSTEM, {"memory": 0.5}, draws=20)
    assert draws == pytest.approx(4e-3, rel=1e-12)


def test_scenarios_stand_side_by_side(graph):
    table = pm.whatif.table(
        graph,
        SYSTEM,
        {
            "quicker": pm.whatif.scale(graph, 0.5, where={"name": "*attention"}),
            "slow rank": lambda g: pm.whatif.straggler(g, 0, 2.0),
            "wider": {"network.0.bandwidth": 2e11},
        },
    )
    assert list(table.scenario) == ["baseline", "quicker", "slow rank", "wider"]
    assert list(table.makespan_s) == pytest.approx([4e-3, 3e-3, 7e-3, 3.5e-3], rel=1e-12)
    assert list(table.change) == pytest.approx([0, -0.25, 0.75, -0.125], rel=1e-12)
    parts = table[["compute_s", "memory_s", "communication_s", "waiting_s"]].sum(axis=1)
    assert list(parts) == pytest.approx(list(table.makespan_s), rel=1e-12)


def test_what_ifs_on_a_reference_trace_agree_with_the_parameter_that_means_the_same(shared):
    graph = pm.load(shared / "reference/astra-sim/traces/llm_dp2tp2pp2")
    system = pm.hardware("dgx-h100", ranks=8, models="roofline")
    slower = pm.whatif.scale(graph, 2.0, where={"type": "COMP"})
    moved, _ = pm.with_parameters(
        system,
        None,
        {
            "npu.peak_flops": system.npu.peak_flops / 2,
            "npu.memory_bandwidth": system.npu.memory_bandwidth / 2,
        },
    )
    expected = pm.predict(graph, moved).makespan
    assert pm.predict(slower, system).makespan == pytest.approx(expected, rel=1e-12)
