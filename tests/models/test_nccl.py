"""NCCL's collectives: worked by hand, limits, what grows with what, derivatives."""

import math
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from perfmodel.errors import InputError
from perfmodel.machine.placement import Span
from perfmodel.machine.system import Dimension
from perfmodel.machine.topology import TOPOLOGIES
from perfmodel.models.across_nodes import Across
from perfmodel.models.nccl import Messages, Nccl, Nvls, Protocols, volume
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import COLLECTIVES
from tests.models.gradients import check_gradient


@record
class Link:
    bandwidth: float = number("B/s", default=450e9)
    latency: float = number("s", default=0.6e-6)
    topology: str = static(default="switch")
    size: int = static(default=8)
    reduction: str = static(default="")

    @property
    def shape(self):
        return TOPOLOGIES[self.topology]


RING = Protocols("all_reduce", 5e-6, 1.3, 5e-6, 1.8, 0.88, 7e-3, 1e6, 0.5)
KINDS = tuple(
    replace(RING, kind=k) for k in ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")
)
NVLS = Nvls(1.9e-5, 0.66, 7e-5, 5e6)
NODES = Across(5.7e-5, 4.8e-5, 2.3e4, 3.3e-4, 3.5e7, 1.0, 0.93)
MESSAGES = Messages(8e-6, 0.95, 2.6e-3, 2.5e-5, 0.74, 1.9e-3)
MODEL = Nccl(KINDS, NVLS, NODES, MESSAGES)
NODE = (Link(), Link(50e9, 2.7e-6, size=4))


def time(kind, size, members, network=NODE, model=MODEL):
    size = jnp.atleast_1d(jnp.asarray(size, float))
    return model.collective(kind, size, Span(members, (1,) * len(members)), network)


def test_volumes_are_those_of_nccl_tests():
    """busbw / algbw of doc/PERFORMANCE.md: 2 (n - 1) / n, (n - 1) / n of NCCL's size; a broadcast's 1."""
    assert volume("all_reduce", 8.0, 4)[0] / 8.0 == 2 * 3 / 4
    sent, hops, counted = volume("all_gather", 2.0, 4)
    assert (sent / counted, hops, counted) == (3 / 4, 3, 8.0)
    assert volume("reduce_scatter", 8.0, 4) == (6.0, 3, 8.0)
    assert volume("broadcast", 8.0, 4)[0] == 8.0


def test_small_sizes_take_start_and_hops():
    """14 hops of 1.3 x 0.6 us after 5 us: 15.92 us among 8."""
    assert time("all_reduce", 8.0, (8, 1)).item() == pytest.approx(
        5e-6 + 14 * 1.3 * 0.6e-6, rel=1e-3
    )


def test_large_sizes_take_their_bandwidth():
    """1 TB among 4: 1.5 TB at 88 % of 450 GB/s, and 7e-3 of the root of 1.5e12 / 450e9."""
    transfer = 1.5e12 / 450e9 / 0.88 + 7e-3 * math.sqrt(1.5e12 / 450e9)
    expected = math.hypot(transfer, 5e-6 + 6 * 1.8 * 0.6e-6)
    assert time("all_reduce", 1e12, (4, 1)).item() == pytest.approx(expected, rel=1e-6)


def test_between_the_protocols_the_logarithms_are_mixed_in_equal_parts():
    """At change sqrt(n / 2) both have weight 1/2: the geometric mean."""
    size, n = 1e6 * math.sqrt(8 / 2), 8
    sent, hops = 2 * 7 / 8 * size, 14
    small = 5e-6 + 1.3 * hops * 0.6e-6
    large = math.hypot(
        5e-6 + 1.8 * hops * 0.6e-6, sent / 450e9 / 0.88 + 7e-3 * math.sqrt(sent / 450e9)
    )
    assert time("all_reduce", size, (n, 1)).item() == pytest.approx(math.sqrt(small * large))


def test_a_switch_that_adds_sends_the_input_once_and_the_result_once():
    """8 members, 1 TB: 9/8 TB at 66 % of 450 GB/s and 70 us to fill, less than the ring's 1.75 TB at 88 %."""
    adding = (Link(reduction="nvls"),)
    expected = math.hypot(1.9e-5, 9 / 8 * 1e12 / (0.66 * 450e9) + 7e-5 / (1 + 5e6 / 1.125e12))
    assert time("all_reduce", 1e12, (8,), adding).item() == pytest.approx(expected, rel=1e-6)
    assert time("all_reduce", 1e12, (8,), adding) < time("all_reduce", 1e12, (8,), (Link(),))
    assert time("all_reduce", 1e9, (4,), adding) == time("all_reduce", 1e9, (4,), (Link(),))
    assert time("all_gather", 1e9, (8,), adding) == time("all_gather", 1e9, (8,), (Link(),))


def test_in_a_rack_small_all_reduces_do_not_hop_from_gpu_to_gpu():
    """A ring's 142 hops of 72 GPUs take 116 us, the switch 19."""
    rack = (Link(reduction="nvls", size=72),)
    t = [time("all_reduce", s, (72,), rack).item() for s in (8.0, 2.0**20, 2.0**26)]
    assert t[0] == pytest.approx(1.9e-5, rel=0.01)
    assert t == sorted(t)


def test_over_two_nodes_the_slower_phase_counts_not_the_sum():
    """16 GiB on 2 x 8: NVLink 2 x 7/8 S / 450 GB/s = 66.8 ms, network S / 8 / 46.5 GB/s = 46.2 ms."""
    size = 2.0**34
    inside, outside = 1.75 * size / 450e9, size / 8 / (0.93 * 50e9)
    latency = 5.7e-5 + 14 * 0.6e-6 + 2 * 2.7e-6
    filling = 4.8e-5 * size / (size + 2.3e4) + 3.3e-4 * size / (size + 3.5e7)
    expected = latency + filling + (inside**8 + outside**8) ** 0.125
    assert time("all_reduce", size, (8, 2)).item() == pytest.approx(expected, rel=1e-9)


def test_over_more_nodes_a_flat_ring_uses_all_nics():
    """16 GiB on 10 x 4: NICs 4 x 0.97 x 50 GB/s = 194 GB/s against NVLink's 369: busbw 194 but for latency."""
    size = 2.0**34
    t = time("all_reduce", size, (4, 10), (Link(), Link(50e9, 2.7e-6, size=10))).item()
    assert 2 * 39 / 40 * size / t == pytest.approx(194e9, rel=0.01)


def test_nodes_of_eight_are_limited_by_nvlink():
    """10 x 8: NICs 388 GB/s, NVLink 0.82 x 450 = 369: the eighth-power mean of the two times, 352 GB/s."""
    size = 2.0**36
    t = time("all_reduce", size, (8, 10), (Link(), Link(50e9, 2.7e-6, size=10))).item()
    rate = (369e9**-8 + 388e9**-8) ** (-1 / 8)
    assert 2 * 79 / 80 * size / t == pytest.approx(rate, rel=0.01)


def test_an_all_to_all_sends_what_leaves_the_node_through_the_gpu_s_own_nic():
    """4 GiB on 2 x 8: S (16 - 8) / 16 at 92 % of 50 GB/s."""
    size = 2.0**32
    assert time("all_to_all", size, (8, 2)).item() == pytest.approx(size / 2 / 46e9, rel=0.01)


def test_one_gpu_a_node_uses_its_nic_alone():
    size = 2.0**32
    t = time("all_reduce", size, (1, 10), (Link(), Link(50e9, 2.7e-6, size=10))).item()
    assert 2 * 9 / 10 * size / t == pytest.approx(48.5e9, rel=0.01)


@pytest.mark.parametrize("kind", COLLECTIVES)
@pytest.mark.parametrize("members", [(2, 1), (8, 1), (1, 4), (8, 2), (8, 4), (4, 3)])
def test_every_collective_has_a_time_that_grows_with_its_size(kind, members):
    size = np.concatenate([[0.0], np.geomspace(1, 1e11, 60)])
    t = np.asarray(time(kind, size, members))
    assert np.isfinite(t).all()
    assert (t > 0).all()
    assert (np.diff(t) >= -1e-12 * t[1:]).all()


def test_a_group_of_one_costs_nothing():
    assert time("all_reduce", 1e9, (1, 1)).item() == 0.0


def test_more_nodes_are_slower():
    nodes = (Link(reduction="nvls"), NODE[1])
    times = [time("all_reduce", 2.0**34, (8, k), nodes).item() for k in (1, 2, 3, 4, 8, 16)]
    assert times == sorted(times)


def test_messages_by_hand():
    near = 1e9 / 450e9
    assert MODEL.point_to_point(jnp.array([1e9]), (1, 0), NODE).item() == pytest.approx(
        math.hypot(8e-6, near / 0.95 + 2.6e-3 * math.sqrt(near))
    )
    far = 1e9 / 50e9
    assert MODEL.point_to_point(jnp.array([1e9]), (1, 1), NODE).item() == pytest.approx(
        math.hypot(2.5e-5, far / 0.74 + 1.9e-3 * math.sqrt(far))
    )


def test_what_is_no_switch_falls_back_to_latency_and_bandwidth():
    ring = (Dimension(450e9, 0.6e-6, "ring", 4),)
    t = time("all_reduce", 4e9, (4,), ring).item()
    assert t == pytest.approx(6 * 0.6e-6 + 6e9 / 450e9)


def test_unknown_collectives_and_messages_to_oneself_are_refused():
    with pytest.raises(InputError, match="expected one of all_reduce"):
        time("all_reduse", 1.0, (8, 1))
    with pytest.raises(InputError, match="crosses no network"):
        MODEL.point_to_point(jnp.ones(1), (0, 0), NODE)


@pytest.mark.parametrize("kind", ["all_reduce", "all_gather", "all_to_all"])
@pytest.mark.parametrize("members", [(2, 1), (8, 1), (8, 2), (8, 4)])
def test_derivatives_equal_central_differences(kind, members):
    size = jnp.asarray(np.geomspace(1e2, 1e11, 25))

    def seconds(model, network):
        return model.collective(kind, size, Span(members, (1, 1)), network)

    check_gradient(seconds, MODEL, (Link(reduction="nvls"), Link(50e9, 2.7e-6)))


def test_derivatives_of_messages_equal_central_differences():
    size = jnp.asarray(np.geomspace(1e2, 1e11, 25))
    check_gradient(lambda m, n: m.point_to_point(size, (1, 1), n), MODEL, NODE)
