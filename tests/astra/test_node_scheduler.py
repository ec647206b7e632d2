"""The schedule of nodes on workloads full of equal moments: the simulator's answer, or none."""

import numpy as np
import pytest

from perfmodel.astra import event_run
from perfmodel.astra.node_program import node_program
from tests.astra_workload import collective, compute, prepare, receive, send

KILO = 1000


def host(node, microseconds, *deps):
    """A kernel of the CPU."""
    return compute(node, 0, *deps, is_cpu=True, duration_us=microseconds)


def tied_workload(seed):
    """4 ranks with the same program: kernels side by side, exchanges, early and late receives, collectives."""
    choice = np.random.default_rng(seed)
    ranks = [[] for _ in range(4)]
    known = [[] for _ in range(4)]

    def deps(rank):
        before = known[rank][-4:]
        return tuple(n for n in before if choice.random() < 0.5)

    def add(rank, node):
        ranks[rank].append(node)
        known[rank].append(node["node_id"])

    for step in range(int(choice.integers(4, 10))):
        number, kind = 10 * step, choice.random()
        if kind < 0.4:
            for rank in range(4):
                for k in range(int(choice.integers(1, 4))):
                    work = host if choice.random() < 0.3 else compute
                    add(rank, work(number + k, int(choice.integers(1, 3)), *deps(rank)))
        elif kind < 0.75:
            a, b = (int(rank) for rank in choice.permutation(4)[:2])
            both = choice.random() < 0.5
            for source, target, k in ((a, b, 0), (b, a, 2))[: 1 + both]:
                size = int(choice.integers(1, 3)) * KILO
                tag = int(choice.integers(2))  # two receives may look alike
                add(source, send(number + k, target, size, *deps(source), tag=tag))
                late = (compute(number + 5 + k, int(choice.integers(1, 3)), *deps(target)),)
                for node in late if choice.random() < 0.5 else ():
                    add(target, node)
                add(target, receive(number + 1 + k, source, size, *deps(target), tag=tag))
        else:
            what, size = int(choice.choice([0, 2, 7])), int(choice.integers(1, 3)) * 40 * KILO
            for rank in range(4):
                add(rank, collective(number, what, size, *deps(rank)))
    return ranks


def answers(lowered, costs=None, *, truncate):
    """(by nodes, what their paths add up to, by the simulator) of designs with costs [S, D], by default one."""
    costs = lowered.costs()[:, None] if costs is None else costs
    makespan, _, counts = node_program(lowered).makespans(
        costs, paths=True, threads=1, truncate=truncate
    )
    ends, _ = event_run.run_many(lowered, costs, threads=1)
    return makespan, (counts * costs).sum(axis=0), ends.max(axis=0)


@pytest.mark.parametrize("seed", range(60))
def test_equal_moments_give_the_simulators_answer_or_none(seed):
    lowered = prepare(tied_workload(seed))
    choice = np.random.default_rng(seed)
    shape = (len(lowered.costs()), 6)
    costs = np.concatenate([choice.integers(least, most, shape) for least, most in EQUAL], axis=1)
    for scale in (1.0, 0.1):  # tenths add up to other last bits in another order
        here = np.ascontiguousarray(costs * scale)
        makespan, path, simulated = answers(lowered, here, truncate=scale == 1.0)
        known = np.isfinite(makespan)
        exact = 0.0 if scale == 1.0 else 1e-12
        np.testing.assert_allclose(makespan[known], simulated[known], rtol=exact)
        np.testing.assert_allclose(path[known], makespan[known], rtol=exact)


EQUAL = ((0, 2), (0, 4), (1, 3), (1, 20), (1, 1000))
"""Costs are drawn from these ranges, so that they are equal, or nothing, often."""


def test_most_designs_without_equal_costs_are_answered():
    answered, ended = 0, 0
    for seed in range(40):
        lowered = prepare(tied_workload(seed))
        costs = np.random.default_rng(seed).uniform(1, 1000, (len(lowered.costs()), 8))
        makespan, _, simulated = answers(lowered, costs, truncate=False)
        answered += np.isfinite(makespan).sum()
        ended += np.isfinite(simulated).sum()
    assert ended > 200
    assert answered > 0.9 * ended


def late_receive(*more):
    """Rank 1 posts a receive when a kernel ends; the message is there, and what it releases ends the moment.

    Two kernels become ready in that moment, the one that waits for the message with the lower number.
    """
    return [
        [send(1, 1, KILO)],
        [
            compute(1, 100),
            receive(2, 0, KILO, 1),
            compute(3, 7, 2),
            compute(4, 20, 1),
            *more,
        ],
    ]


def test_a_receive_that_finds_its_message_ends_after_the_node_whose_end_posted_it():
    lowered = prepare(late_receive())
    cost = lowered.costs()
    run = event_run.run(lowered, cost)
    # 100 us, then kernel 4 is ready before kernel 3, which waits for the receive of the same moment: 20 and 7 us
    assert run.finish[lowered.order.argsort()[[1, 2, 3, 4]]].tolist() == [
        100e3,
        100e3,
        127e3,
        120e3,
    ]
    for truncate in (True, False):
        makespan, path, simulated = answers(lowered, truncate=truncate)
        assert makespan.tolist() == path.tolist() == simulated.tolist() == [127e3]


@pytest.mark.parametrize(
    ("first", "second"), [((1,), (1, 2)), ((1, 2), (1, 2)), ((1,), (2,)), ((2,), (2,))]
)
def test_two_ends_of_a_moment_leave_open_nothing_where_one_node_is_ready_whenever_the_other_is(
    first, second
):
    nodes = [compute(1, 100), host(2, 100), compute(3, 7, *first), compute(4, 20, *second)]
    makespan, path, simulated = answers(
        prepare([[*nodes, host(5, 1, 3)], [host(1, 1)]]), truncate=True
    )
    assert makespan.tolist() == path.tolist() == simulated.tolist() == [127e3]


@pytest.mark.parametrize("before", [(2,), (1, 2)])
def test_they_leave_it_open_where_the_other_one_may_be_ready_first(before):
    nodes = [compute(1, 100), host(2, 100), compute(3, 7, *before), compute(4, 20, 1)]
    makespan, _, simulated = answers(
        prepare([[*nodes, host(5, 1, 3)], [host(1, 1)]]), truncate=True
    )
    assert np.isfinite(simulated).all()
    assert np.isnan(makespan).all()


@pytest.mark.parametrize("truncate", [True, False])
def test_of_two_messages_that_arrive_together_the_one_sent_first_does_so_first(truncate):
    first, second = receive(1, 0, KILO), receive(2, 2, 2 * KILO)
    lowered = prepare(
        [
            [send(1, 1, KILO)],
            [first, second, compute(3, 7, 2), compute(4, 20, 1), host(5, 1, 3)],
            [compute(1, 60), send(2, 1, 2 * KILO, 1)],
        ]
    )
    row = node_program(lowered).program[3]  # of all nodes, rank after rank
    cost = lowered.costs()
    cost[row[[0, 6, 7]]] = [100e3, 60e3, 40e3]
    # both arrive at 100 us, from rank 0 first: kernel 4 until 120, 3 until 127 and 5 until 128
    makespan, path, simulated = answers(lowered, cost[:, None], truncate=truncate)
    assert makespan.tolist() == path.tolist() == simulated.tolist() == [128e3]


def test_what_is_equal_but_for_rounding_is_told_apart_as_the_simulator_does():
    """0.1 + 0.2 is later than 0.3 there, by the last bit."""
    nodes = [compute(1, 1), compute(2, 2, 1), host(3, 3), compute(4, 7, 3), compute(5, 20, 2)]
    lowered = prepare([[*nodes, host(6, 1, 4)], [host(1, 1)]])
    row = node_program(lowered).program[3]
    cost = lowered.costs().astype(float)
    cost[row[[0, 1, 2]]] = [0.1, 0.2, 0.3]
    makespan, _, simulated = answers(lowered, cost[:, None], truncate=False)
    assert makespan.tolist() == simulated.tolist()


def test_another_end_of_that_moment_leaves_the_order_open():
    lowered = prepare(late_receive(host(5, 100), host(6, 1, 5)))
    makespan, _, simulated = answers(lowered, truncate=True)
    assert np.isfinite(simulated).all()
    assert np.isnan(makespan).all()
