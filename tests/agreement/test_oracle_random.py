"""The package against the plain-Python oracle on random workloads, by way of files."""

import jax
import numpy as np
import pytest
from hypothesis import event, given

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from tests import oracle
from tests.oracle_case import (
    Case,
    assert_close,
    case_of,
    cases,
    compile_eagerly,
    evaluate_eagerly,
    repeatable,
)
from tests.random_graphs import Operation, Shape, Workload, workload


def check(case: Case, *, merge_ranks: bool) -> None:
    """Start and finish of every node, and the makespan; or a deadlock in both."""
    if case.times is None:
        event("deadlock")
        with pytest.raises(pm.DeadlockError, match="rank"):
            compile_eagerly(case.graph, case.system, case.models, merge_ranks=merge_ranks)
        return
    compiled = compile_eagerly(case.graph, case.system, case.models, merge_ranks=merge_ranks)
    if merge_ranks:
        event(f"merged: {len(compiled.representative) < case.graph.ranks}")
    p = evaluate_eagerly(compiled)
    assert_close(p.start, case.times.start, case.scale, "start")
    assert_close(p.finish, case.times.finish, case.scale, "finish")
    assert p.makespan == pytest.approx(case.times.makespan, rel=1e-9, abs=1e-30)


@given(cases())
@repeatable(320)
def test_every_node_starts_and_ends_when_the_oracle_says(case):
    check(case, merge_ranks=True)


@given(cases())
@repeatable(120)
def test_ranks_simulated_one_by_one_give_the_oracles_times_too(case):
    check(case, merge_ranks=False)


@given(cases(chained=True, ranks=6, events=12))
@repeatable(25)
def test_predict_as_users_call_it_gives_the_oracles_times(case):
    assert case.times is not None
    p = pm.predict(case.graph, case.system, case.models)
    assert_close(p.start, case.times.start, case.scale)
    assert_close(p.finish, case.times.finish, case.scale)


@given(cases())
@repeatable(100)
def test_collectives_and_messages_pair_up_as_the_oracle_finds_on_its_own(case):
    graph, nodes = case.graph, case.nodes
    instance: dict = {}
    for v in range(len(nodes)):
        program = graph.programs[graph.program[nodes.rank[v]]]
        row, k = graph.row[nodes.rank[v]], nodes.position[v]
        if nodes.type[v] == oracle.COLLECTIVE:
            group = program.groups[row][program.slot[k]]
            assert bool(graph.by_name[group]) == (nodes.joins[v] is not None)
            if nodes.joins[v] is not None:
                number = (group, program.match[k])
                assert instance.setdefault(nodes.joins[v], number) == number
        elif nodes.type[v] in (oracle.SEND, oracle.RECV):
            place = int(np.flatnonzero(program.p2p == k)[0])
            partner = nodes.partner[v]
            assert nodes.rank[partner] == program.peer[row][place]
            assert nodes.position[partner] == program.partner[row][place]
    assert len(set(instance.values())) == len(instance)


@given(cases())
@repeatable(120)
def test_the_oracles_longest_path_equals_the_oracles_schedule(case):
    if case.times is None:
        return
    again = oracle.longest_path(case.nodes, case.times, *case.costs(case.system, case.models))
    assert again.start == case.times.start
    assert again.finish == case.times.finish


def alike(seed: int, *, streams: bool = False) -> Shape:
    """All eight ranks do the same."""
    return Shape(8, 20, 1.0, True, True, "none", streams, False, 0.2, seed)


@pytest.mark.parametrize("seed", range(8))
def test_equal_ranks_are_simulated_once_and_all_get_their_times(seed):
    switch = System(NPU(1e12, 1e11), (Dimension(1e10, 1e-6, "switch", 8),), name="switch")
    case = case_of(workload(alike(seed)), switch, pm.Models())
    compiled = compile_eagerly(case.graph, switch, case.models)
    assert len(compiled.representative) < 8
    p = evaluate_eagerly(compiled)
    assert case.times is not None
    assert_close(p.start, case.times.start, case.scale)
    assert_close(p.finish, case.times.finish, case.scale)


def test_random_workloads_have_everything_in_them_that_the_rules_are_about():
    seen: set = set()
    switch = System(NPU(1e12, 1e11), (Dimension(1e10, 1e-6, "switch", 6),), name="switch")
    for seed in range(40):
        shape = Shape(
            6, 20, 0.3, seed % 2 == 0, seed % 3 == 0, "some", seed % 5 == 0, False, 0.2, seed
        )
        case = case_of(workload(shape), switch, pm.Models())
        seen.add("deadlock" if case.times is None else "schedule")
        for program in case.graph.programs:
            seen |= set(program.type.tolist())
            seen |= {"order of issue"} if (~case.graph.by_name).any() else set()
            seen |= {"streams"} if any("stream" in r for r in program.resources) else set()
            seen |= {"recorded"} if np.isfinite(program.duration).any() else set()
    assert seen >= {*range(1, 8), "deadlock", "schedule", "order of issue", "streams", "recorded"}


def test_rounding_does_not_decide_which_of_two_simultaneous_operations_goes_first():
    a, b = next((a, b) for a in range(1, 50) for b in range(1, 50) if late(a, b))

    def operation(id: int, stream: int, duration: int, *before: Operation) -> Operation:
        attributes = {"duration_us": duration, "stream": stream}
        return Operation(id, f"op{id}", oracle.COMP, list(before), [], attributes)

    first = operation(1, 0, a)
    second = operation(2, 0, b, first)
    beside = operation(3, 1, a + b)
    line = [first, second, beside, operation(4, 2, 5, second), operation(5, 2, 5, beside)]
    one = System(NPU(1e12, 1e11), (Dimension(1e10, 1e-6, "switch", 1),), name="one")
    case = case_of(Workload([line]), one, pm.Models())
    p = pm.predict(case.graph, one)
    assert case.times is not None
    assert_close(p.start, case.times.start, case.scale)
    assert p.start.argsort()[-2:].tolist() == [3, 4]


def late(a: int, b: int) -> bool:
    """Whether a us and then b us end later than a + b us, by rounding alone."""
    return a * 1e-6 + b * 1e-6 > (a + b) * 1e-6


def test_jax_counts_in_64_bits_here():
    assert jax.numpy.zeros(1).dtype == np.float64
