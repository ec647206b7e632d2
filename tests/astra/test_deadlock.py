"""What never ends in ASTRA-sim, silently, ends in a diagnosis that names ranks and nodes."""

import pytest

from perfmodel.astra import diagnose, event_run
from perfmodel.astra.deadlock import require_finished
from perfmodel.errors import DeadlockError
from tests.astra_workload import collective, compute, implementation, prepare, receive, send


def message_of(lowered):
    run = event_run.run(lowered, lowered.costs())
    assert not run.ok
    assert run.events is None
    with pytest.raises(DeadlockError) as caught:
        require_finished(lowered, run)
    return str(caught.value)


def test_two_groups_in_opposite_orders_wait_in_a_circle():
    groups = {"1": (0, 1), "2": (1, 0)}
    ranks = [
        [collective(1, 0, 4096, group=1), collective(2, 0, 4096, 1, group=2)],
        [collective(1, 0, 4096, group=2), collective(2, 0, 4096, 1, group=1)],
        [compute(1, 5)],
    ]
    text = message_of(prepare(ranks, ("Switch", 3), groups=groups))
    assert "rank 0 -> rank 1 -> rank 0 wait in a circle" in text
    assert "rank 0: node 1 (ALL_REDUCE) of communicator group 1 waits for rank 1" in text
    assert "rank 1, node 1 (ALL_REDUCE) is under way there" in text
    assert "2 of 3 ranks do not finish" in text


def test_a_receive_without_its_send_is_named():
    ranks = [[compute(0, 3)], [receive(7, 0, 100, tag=4)]]
    text = message_of(prepare(ranks))
    assert "rank 1: node 7 (COMM_RECV) waits for a message from rank 0 with tag 4 and 100 B" in text
    assert "for which rank 0 has no send" in text


def test_a_receive_of_another_size_is_named():
    ranks = [[send(0, 1, 101, tag=4)], [receive(7, 0, 100, tag=4)]]
    assert "with that tag rank 0 sends [101] B" in message_of(prepare(ranks))


def test_a_second_receive_of_one_message_is_named():
    ranks = [[send(0, 1, 100)], [receive(7, 0, 100), receive(8, 0, 100)]]
    assert "all 1 such messages went to other receives" in message_of(prepare(ranks))


def test_a_send_that_waits_for_the_receiver_to_send_first_is_a_circle():
    ranks = [
        [receive(1, 1, 100), send(2, 1, 100, 1)],
        [receive(1, 0, 100), send(2, 0, 100, 1)],
    ]
    text = message_of(prepare(ranks))
    assert "rank 0 -> rank 1 -> rank 0 wait in a circle" in text
    assert "which rank 1, node 2 (COMM_SEND) has not sent yet" in text


def test_a_group_of_one_never_ends():
    ranks = [[collective(3, 0, 4096, group=1)], [compute(0, 1)]]
    text = message_of(prepare(ranks, groups={"1": (0,)}))
    assert "rank 0: node 3 (ALL_REDUCE) is a collective of communicator group 1" in text
    assert "which has one member" in text


def test_a_collective_in_no_dimension_never_ends():
    ranks = [[collective(0, 0, 4096, involved=0)] for _ in range(2)]
    assert "involves no dimension" in message_of(prepare(ranks))


def test_a_member_that_never_comes_is_named():
    ranks = [[collective(0, 0, 4096)], [collective(0, 0, 4096)], [compute(0, 4)]]
    text = message_of(prepare(ranks))
    assert "node 0 (ALL_REDUCE) of all ranks waits for rank 2, not there yet" in text
    assert "rank 2 has finished without it" in text


def test_halving_doubling_finds_no_partner_for_six_ranks():
    ranks = [[collective(0, 0, 60_000)] for _ in range(6)]
    text = message_of(prepare(ranks, **implementation("halvingDoubling")))
    assert "halvingDoubling needs a power of two" in text
    assert "rank -1" not in text


def test_halving_doubling_gathers_over_six_ranks_as_there():
    ranks = [[collective(0, 2, 60_000)] for _ in range(6)]
    lowered = prepare(ranks, ("FullyConnected", 6), **implementation("halvingDoubling"))
    times = [int(500 + size / (50 * 2**30 / 1e9)) for size in (60_000, 120_000)]
    assert event_run.run(lowered, lowered.costs()).rank_end.tolist() == [10 + sum(times) + 20] * 6


def test_members_with_other_sizes_meet():
    ranks = [[collective(0, 0, 4096)], [collective(0, 0, 8192)]]
    text = message_of(prepare(ranks))
    assert "meets rank 1, node 0 (ALL_REDUCE): in this order they pair up" in text


def test_a_compute_node_of_no_bytes_starts_nothing():
    ranks = [[compute(0, 1, tensor_size=0), compute(1, 1, 0)]]
    text = message_of(prepare(ranks, ("Ring", 1)))
    assert "rank 0: node 1 (COMP) became ready when rank 0, node 0 (COMP) ended at once" in text


def test_a_compute_node_of_no_bytes_is_followed_when_something_else_ends():
    ranks = [[compute(0, 1, tensor_size=0), compute(1, 1, 0), compute(2, 7)]]
    lowered = prepare(ranks, ("Ring", 1))
    run = event_run.run(lowered, lowered.costs(), record=True)
    assert run.issue.tolist() == [0, 7000, 0]
    assert run.rank_end.tolist() == [8000]
    last = run.events.node_last
    before = run.events.pred[run.events.pred_ptr[last[1]] : run.events.pred_ptr[last[1] + 1]]
    assert last[2] in before


def test_a_run_that_ends_has_no_diagnosis():
    lowered = prepare([[compute(0, 1)]], ("Ring", 1))
    run = event_run.run(lowered, lowered.costs())
    assert diagnose(lowered, run) == ""


def crowd(nodes, ranks=8, per_node=4):
    """Ranks that end together with a memory node, on memory nodes of so many ranks."""
    memory = {
        "memory-type": "PER_NODE_MEMORY_EXPANSION",
        "remote-mem-latency": 100,
        "remote-mem-bw": 10,
        "num-nodes": ranks // per_node,
        "num-npus-per-node": per_node,
    }
    work = [compute(k, 1, *range(k)[-1:]) for k in range(nodes - 1)]
    load = {"node_id": nodes, "type": 2, "tensor_size": 1000, "deps": (nodes - 2,)}
    return prepare([[*work, load]] * ranks, memory=memory)


@pytest.mark.parametrize("crowded", [crowd(40), crowd(40, 4), crowd(40, 8, 2)])
def test_ranks_that_end_with_a_memory_node_are_served_in_turn(crowded):
    run = event_run.run(crowded, crowded.costs())
    per_node = crowded.config.memory.ranks_per_node
    start = run.issue.max()
    assert sorted(set(run.rank_end.tolist())) == [start + 200 * (k + 1) for k in range(per_node)]
