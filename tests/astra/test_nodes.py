"""Nodes of ASTRA mode: resources, order of issue, messages, memory, and what is refused."""

import numpy as np
import pytest

from perfmodel.astra import event_run, exposed
from perfmodel.errors import SystemFileError, TraceError
from tests.astra_workload import collective, compute, implementation, prepare, receive, send


def run(lowered):
    found = event_run.run(lowered, lowered.costs())
    assert found.ok
    return found


def test_ready_nodes_are_tried_in_ascending_id_one_at_a_time():
    found = run(prepare([[compute(9, 1), compute(2, 2), compute(5, 4)]], ("Ring", 1)))
    assert found.issue.tolist() == [6000, 0, 2000]
    assert found.rank_end.tolist() == [7000]


def test_the_roofline_takes_the_slower_of_peak_and_memory():
    nodes = [compute(0, 1), {"node_id": 1, "num_ops": 1000, "tensor_size": 100_000}]
    found = run(prepare([nodes], ("Ring", 1)))
    assert (found.finish - found.issue).tolist() == [1000, 2000]


def test_host_work_is_replayed_beside_the_gpu():
    nodes = [
        compute(0, 3),
        {"node_id": 1, "is_cpu": True, "duration_us": 2},
        {"node_id": 2, "is_cpu": True},
    ]
    lowered = prepare([nodes], ("Ring", 1))
    found = run(lowered)
    assert found.issue.tolist() == [0, 0, 2000]
    assert found.finish.tolist() == [3000, 2000, 2001]
    assert exposed(lowered, lowered.costs(), found) == [0]


def test_without_roofline_compute_is_replayed_and_zero_lasts_a_nanosecond():
    nodes = [compute(0, 3, duration_us=5), compute(1, 3, 0)]
    found = run(prepare([nodes], ("Ring", 1), roofline_enabled=0))
    assert found.finish.tolist() == [5000, 5001]


def test_replaying_everything_counts_all_of_it_as_gpu_time():
    ranks = [[collective(0, 0, 4096, duration_us=3), compute(1, 1, duration_us=2)]] * 2
    lowered = prepare(ranks, replay_only=1)
    found = run(lowered)
    assert found.rank_end.tolist() == [3000, 3000]
    assert exposed(lowered, lowered.costs(), found) == [2**64 - 2000] * 2


def test_a_message_arrives_late_or_waits():
    wire = int(500 + 1000 / (50 * 2**30 / 1e9))
    early = run(prepare([[send(0, 1, 1000)], [compute(0, 9), receive(1, 0, 1000, 0)]]))
    assert early.finish.tolist() == [wire, 9000, 9000]
    late = run(prepare([[compute(0, 9), send(1, 1, 1000, 0)], [receive(0, 0, 1000)]]))
    assert late.finish.tolist() == [9000, 9000 + wire, 9000 + wire]


def test_a_send_keeps_communication_and_receives_do_not():
    ranks = [
        [send(0, 1, 1000), send(1, 1, 1000, tag=1)],
        [receive(0, 0, 1000), receive(1, 0, 1000, tag=1)],
    ]
    wire = int(500 + 1000 / (50 * 2**30 / 1e9))
    found = run(prepare(ranks))
    assert found.issue.tolist() == [0, wire, 0, 0]
    assert found.finish.tolist() == [wire, 2 * wire] * 2


def test_equal_messages_pair_in_order():
    ranks = [
        [send(0, 1, 1000), compute(1, 5, 0), send(2, 1, 1000, 1)],
        [receive(5, 0, 1000), receive(3, 0, 1000)],
    ]
    found = run(prepare(ranks))
    assert found.finish[4] == found.finish[0]
    assert found.finish[3] == found.finish[2]


def test_a_broadcast_is_replayed_and_holds_communication():
    nodes = [collective(0, 5, 4096, duration_us=4), send(1, 1, 1000)]
    found = run(prepare([nodes, [receive(0, 0, 1000)]]))
    assert found.finish[0] == 4000
    assert found.issue[1] == 4000


def test_metadata_takes_no_time_but_waits_for_communication():
    ranks = [
        [send(0, 1, 1000), {"node_id": 1, "type": 1}, compute(2, 1)],
        [receive(0, 0, 1000)],
    ]
    found = run(prepare(ranks))
    assert found.issue[1] == found.finish[1] == found.finish[0]


@pytest.mark.parametrize(
    ("kind", "ends"),
    [
        ("PER_NPU_MEMORY_EXPANSION", [300, 300, 300, 300]),
        ("PER_NODE_MEMORY_EXPANSION", [300, 600, 300, 600]),
        ("MEMORY_POOL", [300, 600, 900, 1200]),
    ],
)
def test_remote_memory_serves_one_at_a_time_where_it_is_shared(kind, ends):
    memory = {
        "memory-type": kind,
        "remote-mem-latency": 200,
        "remote-mem-bw": 10,
        "num-nodes": 2,
        "num-npus-per-node": 2,
    }
    nodes = [{"node_id": 0, "type": 3, "tensor_size": 1005}, compute(1, 5)]
    found = run(prepare([nodes] * 4, memory=memory))
    assert found.finish.reshape(4, 2)[:, 0].tolist() == ends


def test_groups_run_in_a_ring_in_the_order_of_their_list():
    size = 40_000
    ranks = [[collective(0, 2, size, group=1)] if r % 2 else [compute(0, 1)] for r in range(8)]
    found = run(prepare(ranks, ("Ring", 8), groups={"1": (1, 5, 3, 7)}, endpoint_delay=77))
    far, near = (int(h * 500 + size / (50 * 2**30 / 1e9)) for h in (4, 2))
    assert far > near
    send_at = dict.fromkeys((1, 5, 3, 7), 10)
    order = (1, 5, 3, 7)
    for _ in range(3):
        wire = {5: far, 3: near, 7: far, 1: near}
        send_at = {
            r: max(send_at[r], send_at[order[k - 1]] + wire[r]) + 10 for k, r in enumerate(order)
        }
    assert found.finish[1::2].tolist() == [send_at[r] for r in (1, 3, 5, 7)]


def test_a_group_of_all_ranks_uses_all_dimensions_like_the_world():
    shape = (("Ring", 2), ("Switch", 2))
    world = run(prepare([[collective(0, 0, 4096)]] * 4, *shape, **implementation("ring", "ring")))
    whole = run(
        prepare(
            [[collective(0, 0, 4096, group=1, involved=1)]] * 4,
            *shape,
            groups={"1": (3, 1, 0, 2)},
            **implementation("ring", "ring"),
        )
    )
    assert whole.rank_end.tolist() == world.rank_end.tolist()


def test_masked_dimensions_are_left_out():
    shape = (("Ring", 2), ("Switch", 2))
    keys = implementation("ring", "ring")
    both = run(prepare([[collective(0, 0, 4096)]] * 4, *shape, **keys))
    first = run(prepare([[collective(0, 0, 4096, involved=1)]] * 4, *shape, **keys))
    second = run(prepare([[collective(0, 0, 4096, involved=2)]] * 4, *shape, **keys))
    assert first.rank_end[0] < both.rank_end[0]
    assert second.rank_end[0] < both.rank_end[0]
    assert first.rank_end[0] != second.rank_end[0]


def test_more_places_let_chunks_overlap():
    ends = []
    for active in (1, 2, 4):
        lowered = prepare(
            [[collective(0, 7, 1 << 20)]] * 4,
            preferred_dataset_splits=4,
            active_chunks_per_dimension=active,
        )
        ends.append(run(lowered).rank_end[0])
    assert ends[0] == pytest.approx(2 * ends[1], abs=2)
    assert ends[1] == pytest.approx(2 * ends[2], abs=2)


def test_queues_share_the_active_chunks_and_the_upper_half_runs_backwards():
    skew = [compute(0, 1), compute(0, 40), compute(0, 20)]
    ranks = [[node, collective(1, 2, 600_000, 0)] for node in skew]
    ends = {}
    for queues in (1, 2, 4):
        lowered = prepare(ranks, queues=queues, preferred_dataset_splits=4)
        ends[queues] = run(lowered).rank_end.tolist()
    assert ends[1] != ends[2]
    assert max(ends[2]) < max(ends[1])


def refused(nodes, match, error=TraceError, ranks=2, **keys):
    with pytest.raises(error, match=match):
        prepare([nodes] + [[compute(0, 1)]] * (ranks - 1), **keys)


def test_what_the_simulator_cannot_run_is_refused_with_rank_and_node():
    where = r"rank 0, node 3 \(\w+\) "
    refused([collective(3, 0, 4096, is_cpu=True)], where + "is communication marked as CPU work")
    refused([compute(3, 1, tensor_size=-1)], where + "has no tensor_size")
    refused([compute(3, 1, num_ops=-1)], where + "has no num_ops")
    refused([compute(3, 0)], where + "has num_ops 0")
    for kind in (1, 3, 4, 8, 9):
        refused([collective(3, kind, 4096)], where + f"has comm_type {kind}")
    refused([collective(3, -1, 4096)], where + "has no comm_type")
    refused([collective(3, 0, -1)], where + "has no comm_size")
    refused([collective(3, 2, 0)], where + "needs a message of 0 bytes|.*chunks are empty")
    refused([send(3, 1, 0)], where + "has no comm_size, or one of 0 bytes")
    refused([send(3, 7, 10)], where + "has no comm_dst, or one that is no rank")
    refused([receive(3, -1, 10)], where + "has no comm_src")
    refused([send(3, 0, 10)], where + "names its own rank as comm_dst")
    refused([send(3, 1, 10, tag=-1)], where + "has no comm_tag")
    refused([{"node_id": 3, "type": 2, "tensor_size": 8}], where + "is a memory node")
    refused([{"node_id": 3, "type": 11}], r"rank 0, node 3 \(type 11\) has an unknown node type")


def test_a_memory_node_without_memory_says_what_is_missing():
    node = {"node_id": 3, "type": 2, "tensor_size": 8}
    refused([node], r"is a memory node, but there is no remote-memory file")
    kind = {"memory-type": "NO_MEMORY_EXPANSION"}
    refused([node], "the memory-type of <.*> is NO_MEMORY_EXPANSION", memory=kind)


def test_only_a_roofline_needs_the_figures_of_the_roofline():
    needs = r"roofline-enabled needs peak-perf .* got 0 TFLOP/s and 50 GB/s .*rank 0, node 3"
    refused([compute(3, 1)], needs, SystemFileError, peak_perf=0)
    found = run(prepare([[collective(0, 2, 4096)]] * 2, peak_perf=0))
    assert np.isfinite(found.rank_end).all()


def test_more_chunks_than_memory_holds_are_refused_at_once():
    why = r"preferred-dataset-splits 10000000; up to 100000 chunks .*rank 0, node 3"
    refused([collective(3, 0, 4096)], why, SystemFileError, preferred_dataset_splits=10**7)


def test_groups_that_do_not_fit_are_refused():
    node = collective(3, 0, 4096, group=1)
    refused([node], "of communicator group 1, which its rank is not in", groups={"1": (1,)})
    refused([node], "group 1 names rank 5, the trace has 2", groups={"1": (0, 5)})
    refused([node], "group 1 repeats a rank", groups={"1": (0, 0)})
    refused([collective(3, 0, 4096, group=4)], "unknown group")


def test_algorithms_that_crash_the_simulator_are_refused():
    reduce = collective(3, 0, 1 << 20)
    tree = implementation("doubleBinaryTree")
    refused([reduce], "doubleBinaryTree over 3 members", SystemFileError, ranks=3, **tree)
    in_group = collective(3, 0, 1 << 20, group=1)
    refused(
        [in_group],
        "doubleBinaryTree over a group smaller than the world",
        SystemFileError,
        ranks=4,
        groups={"1": (0, 1)},
        **tree,
    )
    refused(
        [collective(3, 6, 1 << 20)],
        "all-to-all-implementation is halvingDoubling",
        SystemFileError,
        **implementation("halvingDoubling"),
    )
    small = collective(3, 0, 8)
    refused([small], "message of 0 bytes", ranks=8, **implementation("halvingDoubling"))


def test_a_network_of_another_size_than_the_trace_is_refused():
    with pytest.raises(SystemFileError, match=r"makes 4 ranks, the trace has 2"):
        prepare([[compute(0, 1)]] * 2, ("Ring", 4))


def test_small_collectives_are_rounded_up_to_a_byte_a_rank():
    tiny = run(prepare([[collective(0, 0, 0)]] * 4, preferred_dataset_splits=3))
    message = int(500 + 1 / (50 * 2**30 / 1e9))
    assert tiny.rank_end.tolist() == [3 * (10 + 6 * (message + 10))] * 4


def test_a_rank_without_nodes_finishes_at_once():
    found = run(prepare([[compute(0, 1)], []]))
    assert found.rank_end.tolist() == [1000, 0]
    assert np.isfinite(found.finish).all()
