"""The oracle itself, on schedules worked by hand."""

import pytest

from tests import oracle
from tests.oracle import COLLECTIVE, COMP, RECV, SEND, Nodes

WORLD = (0, 1)


def nodes(*rows: tuple) -> Nodes:
    """Nodes from rows (rank, type, resource, prerequisites, collective's name or partner)."""
    n = Nodes([], [], [], [], [], [], [], [], [], [], [])
    for v, (rank, kind, resource, before, other) in enumerate(rows):
        n.rank.append(rank)
        n.position.append(v)
        n.type.append(kind)
        n.priority.append(v)
        n.resource.append(resource)
        n.before.append(list(before))
        n.after.append([])
        n.group.append(WORLD if kind == COLLECTIVE else ())
        n.joins.append(other if kind == COLLECTIVE else None)
        n.queue.append((0, rank) if kind == COLLECTIVE else None)
        n.partner.append(other if kind in (SEND, RECV) else -1)
    for v, row in enumerate(rows):
        for u in row[3]:
            n.after[u].append(v)
    return n


def run(n: Nodes, *cost: float, replayed: bool = False) -> oracle.Times:
    return oracle.schedule(n, cost, [replayed] * len(n))


def test_a_resource_runs_one_operation_at_a_time_lowest_id_first():
    times = run(
        nodes((0, COMP, 0, (), 0), (0, COMP, 0, (), 0), (0, COMP, 1, (0,), 0)), 2.0, 3.0, 1.0
    )
    assert times.start == [0.0, 2.0, 2.0]
    assert times.finish == [2.0, 5.0, 3.0]
    assert times.order == {0: [0, 1], 1: [2]}


def test_a_collective_ends_one_cost_after_the_last_member_and_holds_the_early_ones_unit():
    n = nodes(
        (0, COLLECTIVE, 0, (), "x"),
        (0, SEND, 0, (), 4),
        (1, COMP, 1, (), 0),
        (1, COLLECTIVE, 2, (2,), "x"),
        (1, RECV, -1, (), 1),
    )
    times = run(n, 1.0, 4.0, 5.0, 1.0, 0.0)
    assert times.start == [0.0, 6.0, 0.0, 5.0, 0.0]
    assert times.finish == [6.0, 10.0, 5.0, 6.0, 10.0]
    assert oracle.critical_path(n, times) == [2, 3, 1]


def test_a_message_that_is_there_before_the_receive_costs_the_receive_nothing():
    n = nodes((0, SEND, 0, (), 2), (1, COMP, 1, (), 0), (1, RECV, -1, (1,), 0))
    times = run(n, 1.0, 3.0, 0.0)
    assert (times.start[2], times.finish[2]) == (3.0, 3.0)


def test_without_names_calls_pair_up_in_order_of_issue_and_the_dearest_counts():
    n = nodes(
        (0, COLLECTIVE, 0, (), None),
        (0, COLLECTIVE, 0, (), None),
        (1, COMP, 1, (), 0),
        (1, COLLECTIVE, 2, (2,), None),
        (1, COLLECTIVE, 2, (), None),
    )
    times = run(n, 1.0, 2.0, 1.5, 1.0, 2.0)
    # rank 1 issues node 4 first, so that it meets rank 0's node 0
    assert times.finish == [2.0, 4.0, 1.5, 4.0, 2.0]
    assert times.start == [0.0, 2.0, 0.0, 2.0, 0.0]


def test_a_replayed_collective_lasts_what_its_quickest_member_recorded():
    n = nodes((0, COLLECTIVE, 0, (), "x"), (1, COLLECTIVE, 1, (), "x"))
    assert run(n, 3.0, 2.0, replayed=True).finish == [2.0, 2.0]
    with pytest.raises(ValueError, match="others do not"):
        oracle.schedule(n, [3.0, 2.0], [True, False])


def test_several_streams_of_a_rank_issue_at_one_moment_in_ascending_id():
    n = nodes(
        (0, COLLECTIVE, 9, (), None),
        (0, COLLECTIVE, 3, (), None),
        (1, COLLECTIVE, 1, (), None),
        (1, COLLECTIVE, 2, (2,), None),
    )
    assert run(n, 1.0, 5.0, 1.0, 5.0).finish == [1.0, 6.0, 1.0, 6.0]


def test_members_that_issue_in_different_orders_by_name_deadlock():
    n = nodes(
        (0, COLLECTIVE, 0, (), "x"),
        (0, COLLECTIVE, 0, (), "y"),
        (1, COLLECTIVE, 1, (), "y"),
        (1, COLLECTIVE, 1, (), "x"),
    )
    with pytest.raises(oracle.Deadlock) as caught:
        run(n, 1.0, 1.0, 1.0, 1.0)
    assert caught.value.left == [0, 1, 2, 3]


def test_what_ends_within_rounding_of_the_earliest_end_is_one_moment():
    a, b = 0.1 + 0.2, 0.3  # differ in the last bit; the later one's follower has the lower id
    n = nodes(
        (0, COMP, 0, (), 0), (0, COMP, 1, (), 0), (0, COMP, 2, (0,), 0), (0, COMP, 2, (1,), 0)
    )
    assert a > b
    assert run(n, a, b, 1.0, 1.0).order[2] == [2, 3]


def test_the_frozen_order_stays_when_costs_change():
    n = nodes(
        (0, COMP, 0, (), 0), (0, COMP, 1, (), 0), (0, COMP, 2, (0,), 0), (0, COMP, 2, (1,), 0)
    )
    frozen = run(n, 1.0, 2.0, 3.0, 3.0)
    other = oracle.longest_path(n, frozen, [5.0, 2.0, 3.0, 3.0], [False] * 4)
    assert other.finish == [5.0, 2.0, 8.0, 11.0]
    assert run(n, 5.0, 2.0, 3.0, 3.0).finish == [5.0, 2.0, 8.0, 5.0]
    longer = oracle.longest_path(n, frozen, [5.0, 2.0, 3.0, 3.0], [False] * 4, extra=[(2, 1)])
    assert longer.finish == [5.0, 10.0, 8.0, 13.0]
