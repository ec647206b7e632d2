"""Alpha-beta times, where groups lie, and routes between ranks."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.machine.placement import Span, hops, hops_table, span
from perfmodel.machine.system import Dimension, hardware
from perfmodel.models.network import AlphaBeta
from perfmodel.vocabulary import COLLECTIVES

jax.config.update("jax_enable_x64", True)

TOPOLOGIES = ("ring", "switch", "fully-connected")


def networks():
    dimension = st.builds(
        Dimension,
        st.floats(1e9, 1e12),
        st.floats(1e-7, 1e-5),
        st.sampled_from(TOPOLOGIES),
        st.integers(1, 5),
    )
    return st.lists(dimension, min_size=1, max_size=3).map(tuple)


def whole(network):
    sizes = tuple(d.size for d in network)
    return span(range(math.prod(sizes)), sizes)


def test_a_hierarchical_all_reduce_by_hand():
    """8 NPUs at 400 B/s and 0.1 s, 2 nodes at 50 B/s and 1 s, 800 B."""
    network = (Dimension(400.0, 0.1, "switch", 8), Dimension(50.0, 1.0, "switch", 2))
    time = AlphaBeta(algorithm="ring").collective(
        "all_reduce", 800.0, Span((8, 2), (1, 1)), network
    )
    scatter = 7 * 0.1 + 7 / 8 * 800 / 400
    across = 2 * 1.0 + 100 / 50
    assert time == pytest.approx(scatter + across + scatter)


def test_an_algorithm_per_dimension_by_hand():
    network = (Dimension(400.0, 0.1, "switch", 8), Dimension(50.0, 1.0, "switch", 4))
    model = AlphaBeta(algorithm=("direct", "auto"))
    time = model.collective("all_reduce", 800.0, Span((8, 4), (1, 1)), network)
    inside = 0.1 + 7 / 8 * 800 / 400
    across = 4 * 1.0 + 1.5 * 100 / 50
    assert time == pytest.approx(2 * inside + across)


def test_a_tensor_parallel_group_stays_inside_the_node():
    network = hardware("dgx-h100", ranks=64).network
    inside = span(range(8), (8, 8))
    across = span(range(0, 64, 8), (8, 8))
    assert (inside.members, across.members) == ((8, 1), (1, 8))
    size = 1e9
    volume = 2 * 7 / 8 * size
    assert AlphaBeta().collective("all_reduce", size, inside, network) == pytest.approx(
        volume / 450e9 + 6 * 0.6e-6
    )
    assert AlphaBeta().collective("all_reduce", size, across, network) == pytest.approx(
        volume / 50e9 + 6 * 2.7e-6
    )


@given(networks(), st.sampled_from(COLLECTIVES), st.floats(0, 1e10))
@settings(deadline=None)
def test_twice_the_bandwidth_and_half_the_latency_take_half_the_time(network, kind, size):
    fast = tuple(Dimension(2 * d.bandwidth, d.latency / 2, d.topology, d.size) for d in network)
    here = whole(network)
    slow_time = AlphaBeta().collective(kind, size, here, network)
    assert AlphaBeta().collective(kind, size, here, fast) == pytest.approx(slow_time / 2)


@given(networks(), st.sampled_from(COLLECTIVES))
@settings(deadline=None)
def test_time_grows_with_size_from_latency_alone(network, kind):
    sizes = jnp.array([0.0, 1e3, 1e6, 1e9])
    time = AlphaBeta().collective(kind, sizes, whole(network), network)
    assert time.shape == sizes.shape
    assert bool((jnp.diff(time) >= 0).all())
    alone = whole(network).members == (1,) * len(network)
    assert bool(time[0] > 0) != alone
    assert bool(time[-1] > time[0]) == (not alone and kind != "barrier")


def test_a_group_of_one_costs_nothing_and_any_other_the_overhead():
    network = (Dimension(1.0, 1.0, "switch", 4),)
    model = AlphaBeta(overhead=5.0)
    assert model.collective("all_reduce", 8.0, Span((1,), (1,)), network) == 0.0
    assert model.collective("barrier", 8.0, Span((4,), (1,)), network) == 5.0 + 4.0
    assert model.point_to_point(8.0, (1,), network) == 5.0 + 1.0 + 8.0


def test_efficiency_scales_the_bandwidth_term_only():
    network = (Dimension(10.0, 1.0, "ring", 4),)
    here = whole(network)
    full = AlphaBeta().collective("all_gather", 100.0, here, network)
    half = AlphaBeta(efficiency=0.5).collective("all_gather", 100.0, here, network)
    assert (full, half) == (3 + 30, 3 + 60)


@pytest.mark.parametrize("kind", COLLECTIVES)
@pytest.mark.parametrize("topology", TOPOLOGIES)
def test_gradients_agree_with_central_differences(kind, topology):
    def time(x):
        network = (
            Dimension(x[0], x[1], topology, 4),
            Dimension(x[2], x[3], "ring", 3),
        )
        model = AlphaBeta(efficiency=x[4], overhead=x[5])
        total = model.collective(kind, 1e6, whole(network), network)
        return total + model.point_to_point(1e6, (1, 1), network)

    at = jnp.array([1e9, 1e-6, 3e8, 4e-6, 0.7, 1e-5])
    gradient = jax.grad(time)(at)
    for k in range(len(at)):
        step = 1e-5 * at[k]
        numeric = (time(at.at[k].add(step)) - time(at.at[k].add(-step))) / (2 * step)
        np.testing.assert_allclose(gradient[k], numeric, rtol=1e-6, atol=1e-8 * time(at) / at[k])


def test_costs_can_be_batched_over_designs():
    def time(bandwidth):
        network = (Dimension(bandwidth, 1e-6, "switch", 8),)
        return AlphaBeta().collective("all_reduce", jnp.array([1e6, 1e9]), whole(network), network)

    assert jax.jit(jax.vmap(time))(jnp.array([1e9, 2e9, 4e9])).shape == (3, 2)


@pytest.mark.parametrize(
    ("topology", "size", "hops", "link"),
    [("ring", 4, 2, 0.5), ("switch", 4, 1, 1.0), ("fully-connected", 5, 1, 0.25)],
)
def test_a_message_takes_one_link_by_hand(topology, size, hops, link):
    network = (Dimension(100.0, 1.0, topology, size),)
    time = AlphaBeta(efficiency=0.8).point_to_point(1000.0, (hops,), network)
    assert time == pytest.approx(hops * 1.0 + 1000 / (0.8 * 100 * link))


def test_a_message_over_several_dimensions_goes_at_the_pace_of_the_slowest_link():
    network = (Dimension(100.0, 1.0, "ring", 4), Dimension(40.0, 7.0, "switch", 2))
    assert AlphaBeta().point_to_point(80.0, (2, 1), network) == 2 + 7 + 80 / 40
    assert AlphaBeta().point_to_point(80.0, (2, 0), network) == pytest.approx(2 + 80 / 50)
    with pytest.raises(InputError, match="to itself"):
        AlphaBeta().point_to_point(80.0, (0, 0), network)


def test_the_mi300xs_peers_have_64_gigabytes_a_second():
    """xGMI: 448 GB/s to all 7 peers, 64 GB/s to one, as AMD prints it."""
    network = hardware("mi300x-8").network
    time = AlphaBeta().point_to_point(64e9, (1, 0), network)
    assert time == pytest.approx(1.0, abs=1e-5)


def test_unknown_kinds_and_algorithms_are_refused():
    network = (Dimension(1.0, 1.0, "switch", 4),)
    with pytest.raises(InputError, match="all_redcue"):
        AlphaBeta().collective("all_redcue", 1.0, Span((4,), (1,)), network)
    with pytest.raises(InputError, match="expected auto, ring"):
        AlphaBeta(algorithm="rings")
    with pytest.raises(InputError, match="2 names for 1 network dimensions"):
        AlphaBeta(algorithm=("ring", "ring")).collective(
            "all_reduce", 1.0, Span((4,), (1,)), network
        )


@given(st.data())
@settings(deadline=None)
def test_products_of_coordinates_are_recognised_exactly(data):
    sizes = tuple(data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=3)))
    sets = [
        data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=n, unique=True))
        for n in sizes
    ]
    steps = [math.prod(sizes[:k]) for k in range(len(sizes))]
    ranks = [
        sum(c * s for c, s in zip(place, steps, strict=True)) for place in itertools.product(*sets)
    ]
    shuffled = data.draw(st.permutations(ranks))
    assert span(tuple(shuffled), sizes).members == tuple(len(s) for s in sets)


@pytest.mark.parametrize(
    ("members", "size", "stride"),
    [
        (range(8), 8, 1),
        ((0, 2, 4, 6), 8, 2),
        ((1, 3, 5, 7), 8, 2),
        ((0, 4), 8, 4),
        ((0, 1), 8, 1),
        ((0, 7), 8, 1),
        ((0, 1, 2, 3), 8, 2),
        ((6, 7, 0, 1), 8, 2),
        ((5,), 8, 1),
    ],
)
def test_strides_are_hops_between_neighbours_folded_where_the_ring_does_not_close(
    members, size, stride
):
    assert span(tuple(members), (size,)).stride == (stride,)


@given(st.data())
@settings(deadline=None)
def test_a_stride_never_beats_the_best_order_of_the_members(data):
    size = data.draw(st.integers(2, 9))
    places = sorted(
        data.draw(st.lists(st.integers(0, size - 1), min_size=2, max_size=6, unique=True))
    )
    first, *rest = places
    best = min(
        max(
            min(abs(a - b), size - abs(a - b))
            for a, b in itertools.pairwise((first, *order, first))
        )
        for order in itertools.permutations(rest)
    )
    found = span(tuple(places), (size,)).stride[0]
    assert best <= found <= 2 * best


def test_an_irregular_group_counts_as_flat_in_the_outermost_dimension_it_touches():
    assert span((0, 1, 2, 3, 4), (4, 2, 2)) == Span((1, 5, 1), (1, 1, 1))
    network = hardware("dgx-h100", ranks=16).network
    flat = span(range(12), (8, 2))
    assert flat.members == (1, 12)
    size = 1e9
    irregular = AlphaBeta().collective("all_reduce", size, flat, network)
    assert irregular > AlphaBeta().collective("all_reduce", size, whole(network), network)


def test_ranks_outside_the_network_are_refused():
    with pytest.raises(InputError, match="rank 8: the network has 8 NPUs"):
        span((0, 8), (4, 2))
    with pytest.raises(InputError, match="rank -1"):
        span((-1, 0), (4, 2))


@given(networks())
@settings(deadline=None)
def test_hops_are_shortest_paths_in_the_real_graph(network):
    sizes = [d.size for d in network]
    total = math.prod(sizes)
    table = hops_table(np.zeros(total, int), np.arange(total), network).sum(1)
    distance = {0: 0}
    frontier = [0]
    while frontier:
        rank = frontier.pop(0)
        for near in _neighbours(rank, network):
            if near not in distance:
                distance[near] = distance[rank] + 1
                frontier.append(near)
    assert [distance[r] for r in range(total)] == table.tolist()


def _neighbours(rank, network):
    step = 1
    for d in network:
        place = rank // step % d.size
        others = range(d.size)
        if d.topology == "ring":
            others = ((place + 1) % d.size, (place - 1) % d.size)
        yield from (rank + (other - place) * step for other in others)
        step *= d.size


def test_hops_of_one_pair_and_of_many_agree():
    network = hardware("tpu-v4-slice", ranks=64).network
    src, dst = np.arange(64), np.arange(64)[::-1]
    table = hops_table(src, dst, network)
    assert [hops(int(a), int(b), network) for a, b in zip(src, dst)] == [
        tuple(row) for row in table.tolist()
    ]
    assert hops_table(0, dst, network).shape == (64, 3)


def test_one_efficiency_serves_all_collectives_of_a_measured_node(shared):
    """nccl-tests on 8 A100, 64 to 512 MiB: model over measurement differs by size, not by kind."""
    table = pd.read_csv(shared / "reference/measured/nccl_collectives_a100_h100.csv")
    here = (table.system == "a100_sxm") & (table.num_gpus == 8) & (table["dtype"] == "half")
    table = table[here & (table.message_size_raw * 2 >= 1 << 26)]
    network = hardware("dgx-a100").network
    reached: dict[int, dict[str, float]] = {}
    for row in table.itertuples():
        kind = row.op.replace("alltoall", "all_to_all")
        buffer = row.message_size_raw * 2
        size = buffer / 8 if kind == "all_gather" else buffer
        model = AlphaBeta().collective(kind, size, Span((8, 1), (1, 1)), network)
        reached.setdefault(buffer, {})[kind] = float(model) / (row.lat_ms_med * 1e-3)
    assert len(reached) == 4
    for efficiency in reached.values():
        assert len(efficiency) == 4
        assert 0.5 < min(efficiency.values()) <= max(efficiency.values()) < 0.8
        assert max(efficiency.values()) < 1.2 * min(efficiency.values())
