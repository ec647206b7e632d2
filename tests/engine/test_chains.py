"""Graphs of very many distinct costs: one design after the other gives what the ordinary path gives."""

from __future__ import annotations

from dataclasses import replace

import jax
import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.compiled import compile
from perfmodel.engine.chains import Chains
from perfmodel.models import large_table
from perfmodel.schedule import distinct_rows
from perfmodel.schedule.frozen_graph import Events, times
from tests.benchmarks.unlike import unlike_ranks
from tests.oracle_case import load
from tests.random_graphs import Shape, workload


def graphs() -> list[pm.Graph]:
    """Random ranks with nothing in common, ranks that share a program, and random traces with messages."""
    shape = Shape(6, 20, 0.3, True, True, "some", True, True, 0.2, 0)
    return [
        pm.Graph.from_ranks(unlike_ranks(4, 300, seed=1)),
        pm.Graph.from_ranks(unlike_ranks(1, 300, seed=2) * 4),
        *(load(workload(replace(shape, seed=k, by_name=k % 2 > 0))) for k in range(8)),
    ]


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every table counts as a large one, of several stretches."""
    monkeypatch.setattr(large_table, "LARGE", 1)
    monkeypatch.setattr(large_table, "STRETCH", 16)
    monkeypatch.setattr(large_table, "SLOPES", 16)
    monkeypatch.setattr(distinct_rows, "LARGE", 1)


def answers(graph: pm.Graph) -> tuple[list[float], np.ndarray, pd.DataFrame]:
    system = pm.hardware("dgx-h100", ranks=graph.ranks)
    compiled = compile(graph, system, "roofline")
    designs = [
        replace(system, npu=replace(system.npu, peak_flops=peak)) for peak in (1e13, 1e15, 1e18)
    ]
    seconds = [pm.predict(compiled, system).makespan]
    seconds += [pm.evaluate(compiled, design).makespan for design in designs]
    return seconds, pm.evaluate(compiled, designs[0]).finish, pm.sensitivity(compiled)


def test_large_tables_give_the_makespans_times_and_derivatives_of_small_ones(request):
    cases = graphs()
    with jax.disable_jit():  # nothing to compile for each graph
        found = [answers(graph) for graph in cases]
    request.getfixturevalue("large")
    for graph, (seconds, finish, table) in zip(cases, found, strict=True):
        with jax.disable_jit():
            here = answers(graph)
        np.testing.assert_allclose(here[0], seconds, rtol=1e-13)
        np.testing.assert_allclose(here[1], finish, rtol=1e-13)
        pd.testing.assert_frame_equal(here[2], table, rtol=1e-10)


def test_a_large_table_is_differentiable_and_swept_like_any_other(large):
    graph = pm.Graph.from_ranks(unlike_ranks(2, 50))
    compiled = compile(graph, pm.hardware("dgx-h100", ranks=2, models="roofline"))
    assert compiled.large is not None
    assert pm.predict(compiled).makespan == pytest.approx(
        float(compiled.makespan(compiled.system, compiled.models)), rel=1e-13
    )
    table = pm.sweep(compiled, {"npu.peak_flops": [1e14, 1e15]}, schedule="frozen")
    system = compiled.system
    one = pm.predict(compiled, replace(system, npu=replace(system.npu, peak_flops=1e14)))
    assert table.makespan_s[0] == pytest.approx(one.makespan, rel=1e-13)


def test_the_last_finish_is_the_makespan_to_the_bit(large):
    graph = pm.Graph.from_ranks(unlike_ranks(4, 300))
    compiled = compile(graph, pm.hardware("dgx-h100", ranks=4, models="roofline"))
    assert compiled.large is not None
    system, differed = compiled.system, 0
    for peak in np.geomspace(1e14, 1e16, 12):
        p = pm.predict(compiled, replace(system, npu=replace(system.npu, peak_flops=peak)))
        cost = np.asarray(compiled.evaluate(*p.at), np.float64)
        e = compiled.events
        differed += times(e.pred_ptr, e.pred, e.cost, cost)[1][-1] != p.makespan
        assert p.finish.max() == p.vertex_finish.max() == p.vertex_finish[-1] == p.makespan
        assert (p.start <= p.finish).all()
    assert differed  # or the sums are no others, and nothing is to be made equal


def test_a_cost_that_is_no_time_is_said(large):
    compiled = compile(
        pm.Graph.from_ranks(unlike_ranks(2, 50)),
        pm.hardware("dgx-h100", ranks=2, models="roofline"),
    )
    bad = replace(compiled.system.npu, peak_flops=float("nan"))
    with pytest.raises(pm.InputError):
        pm.predict(compiled, replace(compiled.system, npu=bad))


class Costs:
    """Costs in the place of a table of formulas, in two stretches."""

    def __init__(self, seconds: np.ndarray):
        self.parts = {0: seconds[:7], 7: seconds[7:]}

    def stretches(self, system, models, share, shares):
        return iter([list(self.parts.items())[share]])


def spread_chains() -> Chains:
    """Three chains, the third one after both others; of 20 costs one stands on no chain, one on two."""
    chain = np.random.default_rng(0).integers(0, 3, 20).astype(np.int32)
    chain[13] = 3
    again, on = np.array([4], np.int32), np.array([(chain[4] + 1) % 3], np.int32)
    return Chains(np.array([0, 0, 0, 2]), np.array([0, 1], np.int32), chain, again, on, 2)


def test_every_cost_is_added_to_its_chain_and_to_the_others_that_it_stands_on():
    chains = spread_chains()
    seconds = np.random.default_rng(1).uniform(0, 1, 20)
    total = np.bincount(chains.chain, seconds, 4)
    total[chains.on] += seconds[chains.again]
    expected = max(total[:2]) + total[2]
    assert chains.makespan(Costs(seconds), None, None) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -1e-9])
def test_one_cost_that_is_no_time_is_noticed_wherever_it_stands(wrong):
    chains = spread_chains()
    for k in range(20):
        seconds = np.ones(20)
        seconds[k] = wrong
        assert np.isnan(chains.makespan(Costs(seconds), None, None)), k


def test_costs_that_stand_on_many_chains_and_on_none():
    # 0 and 1 cost the same, 2 the same again after both, 3 is the end; cost 1 stands nowhere
    events = Events(
        cost=np.array([0, 0, 0, -1], np.int32),
        pred_ptr=np.array([0, 0, 0, 2, 3]),
        pred=np.array([0, 1, 2], np.int32),
        first=np.arange(3),
        last=np.arange(3),
        owner=np.arange(4),
    )
    chains = Chains.of(events, 2)
    assert chains.chain.tolist() == [0, 3]
    assert chains.again.tolist() == [0, 0]
    assert chains.on.tolist() == [1, 2]


def test_chains_of_a_graph_with_vertices_without_cost_in_a_row():
    # 0 and 1 cost; 2 and 3 cost nothing and hand on; 4 costs; 5 is the end
    events = Events(
        cost=np.array([0, 1, -1, -1, 2, -1], np.int32),
        pred_ptr=np.array([0, 0, 0, 2, 3, 4, 5]),
        pred=np.array([0, 1, 2, 3, 4], np.int32),
        first=np.arange(5),
        last=np.arange(5),
        owner=np.arange(6),
    )
    chains = Chains.of(events, 3)
    assert len(chains.ptr) - 1 <= 4
    assert (chains.chain < len(chains.ptr) - 1).all()
    assert len(chains.again) == len(chains.on) == 0
