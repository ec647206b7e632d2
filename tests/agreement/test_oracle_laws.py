"""Laws that hold whatever the costs are: conservation, scaling, and what may be renamed."""

import random
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.report.path_and_ranks import path_breakdown
from tests import oracle
from tests.oracle_case import (
    Case,
    assert_close,
    case_of,
    cases,
    compile_eagerly,
    evaluate_eagerly,
    load,
    repeatable,
)
from tests.random_graphs import Operation, Workload, shapes, workload

CATEGORY = {
    oracle.COMP: "compute",
    oracle.MEM_LOAD: "memory",
    oracle.MEM_STORE: "memory",
    oracle.SEND: "communication",
    oracle.RECV: "communication",
    oracle.COLLECTIVE: "communication",
}


def predict(case: Case):
    return evaluate_eagerly(compile_eagerly(case.graph, case.system, case.models))


def exposed(case: Case, rank: int) -> dict[str, float]:
    """Seconds of a rank by the first of compute, memory, communication, waiting host that there is, else idle.

    A collective waits until its last member has joined, and communicates from then on.
    """
    assert case.times is not None
    times = case.times
    busy = []
    for v in range(len(case.nodes)):
        if case.nodes.rank[v] == rank and case.nodes.type[v] in CATEGORY:
            start = times.start[v]
            if case.nodes.type[v] == oracle.RECV:  # from when the message is on its way
                start = max(start, times.start[case.nodes.partner[v]])
            if case.nodes.type[v] == oracle.COLLECTIVE and times.call[v] is not None:
                joined = max(times.start[u] for u in times.calls[times.call[v]])
                busy.append((start, joined, "waiting"))
                start = joined
            program = case.graph.programs[case.graph.program[rank]]
            host = case.nodes.type[v] == oracle.COMP and program.cpu[case.nodes.position[v]]
            kind = "host" if host else CATEGORY[case.nodes.type[v]]
            busy.append((start, times.finish[v], kind))
    kinds = ("compute", "memory", "communication", "waiting", "host")
    seconds = dict.fromkeys((*kinds, "idle"), 0.0)
    moments = sorted({0.0, times.makespan, *(t for b in busy for t in b[:2])})
    for begin, end in pairwise(moments):
        running = {kind for start, finish, kind in busy if start <= begin and end <= finish}
        first = next((k for k in kinds if k in running), "idle")
        seconds[first] += end - begin
    return seconds


@given(cases(chained=True))
@repeatable(40)
def test_each_ranks_time_is_compute_exposed_memory_and_communication_waiting_and_idle(case):
    table = pm.breakdown(predict(case)).set_index("rank")
    for rank in range(case.graph.ranks):
        row, expected = table.loc[rank], exposed(case, rank)
        columns = (
            "compute_s",
            "exposed_memory_s",
            "exposed_communication_s",
            "waiting_s",
            "host_s",
            "idle_s",
        )
        for column, kind in zip(columns, expected):
            assert row[column] == pytest.approx(expected[kind], rel=1e-9, abs=1e-9 * case.scale)
        assert sum(row[list(columns)]) == pytest.approx(row["makespan_s"], rel=1e-9)


@given(cases(chained=True))
@repeatable(40)
def test_the_critical_path_adds_up_to_the_makespan_without_a_gap(case):
    p = predict(case)
    table = pm.critical_path(p)
    assert table["on_path_s"].sum() == pytest.approx(p.makespan, rel=1e-9)
    assert table["waiting_s"].sum() == pytest.approx(0.0, abs=1e-9 * case.scale)
    seconds = path_breakdown(p)
    assert sum(seconds.values()) == pytest.approx(p.makespan, rel=1e-9)
    assert seconds["waiting"] == pytest.approx(0.0, abs=1e-9 * case.scale)
    # a receive on the path through its message may well be posted later
    started = [v for v in p.critical if case.nodes.type[v] != oracle.RECV]
    assert (p.slack[started] <= 1e-9 * case.scale).all()


@given(cases(chained=True))
@repeatable(40)
def test_no_node_starts_early_and_no_resource_runs_two(case):
    p, nodes = predict(case), case.nodes
    start, finish, rounding = p.start, p.finish, 1e-12 * case.scale
    for v in range(len(nodes)):
        assert all(start[v] >= finish[u] - rounding for u in nodes.before[v])
        assert finish[v] >= start[v]
        if nodes.type[v] == oracle.RECV:
            assert finish[v] >= finish[nodes.partner[v]] - rounding
    users: dict[int, list[int]] = {}
    for v, resource in enumerate(nodes.resource):
        if resource >= 0:
            users.setdefault(resource, []).append(v)
    for line in users.values():
        line.sort(key=lambda v: (start[v], finish[v]))
        assert all(start[v] >= finish[u] - rounding for u, v in pairwise(line))
    assert (p.slack >= 0).all()
    assert p.makespan == finish.max(initial=0.0)


@given(cases(chained=True))
@repeatable(40)
def test_doubled_rates_and_halved_latencies_and_records_halve_every_time(case):
    rates = ("peak_flops", "bandwidth")
    times = ("latency", "overhead")
    factor = {
        path: 2.0 if path.endswith(rates) else 0.5 if path.endswith(times) else 1.0
        for path in parameters(case.system, case.models)
    }
    values = {
        path: value * factor[path] for path, value in parameters(case.system, case.models).items()
    }
    system, models = with_parameters(case.system, case.models, values)
    halved = [replace(program, duration=program.duration / 2) for program in case.graph.programs]
    graph = replace(case.graph, programs=tuple(halved))
    fast, slow = evaluate_eagerly(compile_eagerly(graph, system, models)), predict(case)
    assert_close(fast.start * 2, slow.start, case.scale)
    assert_close(fast.finish * 2, slow.finish, case.scale)


@given(cases(chained=True))
@repeatable(30)
def test_other_node_ids_in_the_same_order_change_nothing(case):
    graph = load(case.workload.renumbered())
    assert (graph.nodes["node_id"] != case.graph.nodes["node_id"]).any()
    renumbered = evaluate_eagerly(compile_eagerly(graph, case.system, case.models))
    p = predict(case)
    assert renumbered.start.tolist() == p.start.tolist()
    assert renumbered.finish.tolist() == p.finish.tolist()


def moved(given: Workload, to: list[int]) -> Workload:
    """The same workload with rank r's part done by rank to[r]."""
    ranks: list[list[Operation]] = [[] for _ in to]
    for rank, operations in enumerate(given.ranks):
        copies = {id(o): replace(o, attributes=dict(o.attributes)) for o in operations}
        for copy in copies.values():
            copy.data = [copies[id(o)] for o in copy.data]
            copy.control = [copies[id(o)] for o in copy.control]
            for name in ("comm_src", "comm_dst"):
                if name in copy.attributes:
                    copy.attributes[name] = to[copy.attributes[name]]
        ranks[to[rank]] = [copies[id(o)] for o in operations]
    groups = {name: [to[r] for r in members] for name, members in given.groups.items()}
    return Workload(ranks, groups)


@given(shapes(chained=True), st.integers(0, 2**32))
@repeatable(40)
def test_ranks_may_trade_places_where_the_network_looks_the_same_to_all(shape, seed):
    switch = System(NPU(1e12, 1e11), (Dimension(1e10, 1e-6, "switch", shape.ranks),), name="switch")
    to = list(range(shape.ranks))
    random.Random(seed).shuffle(to)
    one = case_of(workload(shape), switch, pm.Models())
    other = case_of(moved(one.workload, to), switch, pm.Models())
    p, q = predict(one), predict(other)
    for rank in range(shape.ranks):
        here = slice(*one.graph.offset[rank : rank + 2])
        there = slice(*other.graph.offset[to[rank] : to[rank] + 2])
        np.testing.assert_allclose(q.start[there], p.start[here], rtol=1e-12, atol=1e-15)
        np.testing.assert_allclose(q.finish[there], p.finish[here], rtol=1e-12, atol=1e-15)
