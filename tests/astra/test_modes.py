"""The rendezvous protocol and the shared bus, worked out by hand, and what they refuse."""

import math

import numpy as np
import pytest

from perfmodel import astra
from perfmodel.astra import diagnose, event_run
from perfmodel.errors import TraceError
from tests.astra_workload import collective, compute, prepare, receive, send

BYTES_PER_NS = 50 * 2.0**30 / 1e9
BUS = {"model_shared_bus": 1, "L": 5, "o": 3, "g": 2, "G": 0.01}


def wire(size, hops=1):
    """A message on the Ring of `prepare` [ns]."""
    return int(hops * 500 + size / BYTES_PER_NS)


def ends(lowered):
    return event_run.run(lowered, lowered.costs()).rank_end.tolist()


def test_a_message_leaves_when_its_receiver_has_asked_for_it():
    ranks = [[send(1, 1, 10**6)], [compute(1, 5), receive(2, 0, 10**6, 1)]]
    asked = 5000 + wire(8192)
    assert ends(prepare(ranks, rendezvous=True)) == [asked + wire(10**6)] * 2
    assert ends(prepare(ranks)) == [wire(10**6)] * 2


def test_a_receive_that_is_posted_first_costs_its_small_message_only():
    ranks = [[compute(1, 5), send(2, 1, 1000, 1)], [receive(1, 0, 1000)]]
    assert ends(prepare(ranks, rendezvous=True)) == [5000 + wire(1000)] * 2


def test_small_messages_pair_up_whatever_size_they_ask_for():
    """Both sends carry one tag: the first to be asked for is the first that was sent."""
    ranks = [[send(1, 1, 1000), send(2, 1, 9000)], [receive(1, 0, 9000), receive(2, 0, 1000)]]
    lowered = prepare(ranks, rendezvous=True)
    found = event_run.run(lowered, lowered.costs())
    first = wire(8192) + wire(1000)
    assert found.finish.tolist() == [first, first + wire(9000), first + wire(9000), first]


def test_each_step_of_a_ring_asks_first():
    ranks = [[collective(1, 2, 4096)]] * 4
    step = wire(8192) + wire(4096) + 10
    assert ends(prepare(ranks, rendezvous=True)) == [10 + 3 * step] * 4


def test_a_send_without_a_receive_waits_for_ever_and_says_so():
    lowered = prepare([[send(1, 1, 8)], [compute(1, 1)]], rendezvous=True)
    text = diagnose(lowered, event_run.run(lowered, lowered.costs()))
    assert "node 1 (COMM_SEND) waits for rank 1 to ask for it with a receive (rendezvous)" in text


def test_with_links_the_small_messages_queue_too():
    ranks = [[send(1, 2, 10**6)], [send(1, 2, 10**6)], [receive(1, 0, 10**6), receive(2, 1, 10**6)]]
    lowered = prepare(ranks, ("Switch", 3), backend="aware", rendezvous=True)
    run = event_run.run(lowered, lowered.costs(), record=True)
    small, large = int(8192 / BYTES_PER_NS), int(10**6 / BYTES_PER_NS)
    assert run.finish[0] == 2 * wire(8192) + 2 * wire(10**6)
    assert run.finish[1] == run.finish[0] + max(small, large)
    path = astra.along(lowered, run, lowered.costs())
    assert path.rank_end.tolist() == run.rank_end.tolist()


@pytest.mark.parametrize("mode", [{"rendezvous": True}, BUS])
def test_sizes_that_the_simulator_cuts_to_31_bits_are_refused(mode):
    ranks = [[collective(1, 2, 2**31)]] * 2
    with pytest.raises(TraceError, match="message of 2147483648 B; with --rendezvous-protocol or"):
        prepare(ranks, **mode)
    prepare(ranks)


def crossing(size, per_byte, bus=BUS):
    """From the start of a transmission at one side of a bus to its end at the other [ns]."""
    return math.trunc(2 * bus["o"] + bus["L"] + per_byte * (size - 1))


def test_a_packet_crosses_the_inner_and_the_outer_bus():
    """All-gather on two ranks: a packet to the memory, a message, a packet to the NPU."""
    size, per_byte = 1000, float(np.float32(0.01))
    packet = crossing(size, 0.0038) + crossing(size, per_byte)
    assert packet == 14 + 20  # trunc(11 + 3.7962), trunc(11 + 9.99)
    assert ends(prepare([[collective(1, 2, size)]] * 2, **BUS)) == [2 * packet + wire(size)] * 2


def test_a_packet_that_reduces_is_processed_on_the_way():
    """Reduce-scatter on two ranks: 50 ns and 1 ns per 100 B more, and the local reduction."""
    message, per_byte = 1000, float(np.float32(0.01))
    packet = crossing(message, 0.0038) + crossing(message, per_byte)
    back = 2 * crossing(message, 0.0038)  # over the inner bus for processing, and back
    work = 50 + message // 100 + 3 * int(message / 50)
    found = ends(prepare([[collective(1, 7, 2 * message)]] * 2, **BUS))
    way = crossing(message, per_byte) + back + work + crossing(message, 0.0038)
    assert found == [packet + wire(message) + way] * 2


def test_groups_smaller_than_the_world_do_not_use_the_bus():
    ranks = [[collective(1, 2, 1000, group=1)], [collective(1, 2, 1000, group=1)], [compute(1, 1)]]
    groups = {"1": (0, 1)}
    assert ends(prepare(ranks, groups=groups, **BUS)) == ends(prepare(ranks, groups=groups))


@pytest.mark.parametrize(
    "name", ["ring", "direct", "direct2", "halvingDoubling", "doubleBinaryTree"]
)
@pytest.mark.parametrize("backend", ["unaware", "aware"])
def test_the_graph_of_a_run_on_the_bus_has_its_times_to_a_nanosecond(name, backend):
    ranks = [[collective(1, 0, 40_000), compute(2, 3), collective(3, 0, 999, 2)]] * 4
    lowered = prepare(
        ranks,
        ("Switch", 4),
        backend=backend,
        preferred_dataset_splits=2,
        **BUS | {"g": 40},
        all_reduce_implementation=[name],
    )
    run = event_run.run(lowered, lowered.costs(), record=True)
    path = astra.along(lowered, run, lowered.costs())
    assert np.abs(path.rank_end - run.rank_end).max() <= 1
