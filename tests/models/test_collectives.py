"""Latency hops and bytes of collectives: by hand, against the literature, and by moving data."""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError
from perfmodel.models.collectives import ALGORITHMS, EVERYONE, choose, coefficients, phases
from perfmodel.vocabulary import COLLECTIVES

SWITCH = {"topology": "switch", "links": 1, "stride": 1}


def on_switch(kind, algorithm, n):
    return coefficients(kind, algorithm, n, size=n, **SWITCH)


def on_ring(kind, algorithm, n, stride=1, size=None):
    size = n * stride if size is None else size
    return coefficients(kind, algorithm, n, topology="ring", links=2, stride=stride, size=size)


def on_full(kind, algorithm, n, built=None):
    links = (built or n) - 1
    return coefficients(
        kind, algorithm, n, topology="fully-connected", links=links, stride=1, size=n
    )


@pytest.mark.parametrize(
    ("kind", "algorithm", "n", "hops", "volume"),
    [
        ("all_reduce", "ring", 4, 6, 1.5),
        ("reduce_scatter", "ring", 4, 3, 0.75),
        ("reduce_scatter_block", "ring", 4, 3, 0.75),
        ("all_gather", "ring", 4, 3, 3),
        ("all_to_all", "ring", 4, 3, 0.75),
        ("broadcast", "ring", 4, 3, 1),
        ("reduce", "ring", 4, 3, 1),
        ("gather", "ring", 4, 3, 3),
        ("scatter", "ring", 4, 3, 0.75),
        ("barrier", "ring", 4, 6, 0),
        ("all_reduce", "halving-doubling", 8, 6, 1.75),
        ("reduce_scatter", "halving-doubling", 8, 3, 0.875),
        ("all_gather", "halving-doubling", 8, 3, 7),
        ("all_to_all", "halving-doubling", 8, 3, 1.5),
        ("broadcast", "halving-doubling", 8, 6, 1.75),
        ("reduce", "halving-doubling", 8, 6, 1.75),
        ("gather", "halving-doubling", 8, 3, 7),
        ("scatter", "halving-doubling", 8, 3, 0.875),
        ("barrier", "halving-doubling", 8, 3, 0),
        ("all_reduce", "tree", 6, 6, 2),
        ("broadcast", "tree", 6, 3, 1),
        ("reduce", "tree", 6, 3, 1),
        ("gather", "tree", 6, 3, 5),
        ("scatter", "tree", 6, 3, 5 / 6),
        ("barrier", "tree", 6, 6, 0),
        ("all_gather", "tree", 6, 5, 5),
        ("reduce_scatter", "tree", 6, 5, 5 / 6),
        ("all_to_all", "tree", 6, 5, 5 / 6),
        ("all_reduce", "direct", 5, 2, 1.6),
        ("reduce_scatter", "direct", 5, 1, 0.8),
        ("all_gather", "direct", 5, 1, 4),
        ("all_to_all", "direct", 5, 1, 0.8),
        ("broadcast", "direct", 5, 2, 1.6),
        ("reduce", "direct", 5, 2, 1.6),
        ("gather", "direct", 5, 1, 4),
        ("scatter", "direct", 5, 1, 0.8),
        ("barrier", "direct", 5, 1, 0),
    ],
)
def test_through_a_switch_by_hand(kind, algorithm, n, hops, volume):
    assert on_switch(kind, algorithm, n) == pytest.approx((hops, volume))


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "direct"])
@pytest.mark.parametrize("n", [2, 4, 8, 64])
def test_bandwidth_terms_are_the_bus_bandwidth_factors_of_nccl_tests(algorithm, n):
    """nccl-tests doc/PERFORMANCE.md; there the size of an all-gather is its output, n inputs."""
    assert on_switch("all_reduce", algorithm, n)[1] == pytest.approx(2 * (n - 1) / n)
    assert on_switch("reduce_scatter", algorithm, n)[1] == pytest.approx((n - 1) / n)
    assert on_switch("all_gather", algorithm, n)[1] / n == pytest.approx((n - 1) / n)
    assert on_switch("all_to_all", "direct", n)[1] == pytest.approx((n - 1) / n)
    assert on_switch("broadcast", "ring", n)[1] == pytest.approx(1)


@pytest.mark.parametrize("n", [2, 4, 16, 256])
def test_rabenseifners_all_reduce_is_the_published_sum(n):
    """Thakur, Rabenseifner, Gropp 2005: 2 log2 p alpha + 2 (p - 1)/p n beta."""
    expected = (2 * math.log2(n), 2 * (n - 1) / n)
    assert on_switch("all_reduce", "halving-doubling", n) == pytest.approx(expected)


@given(st.sampled_from(COLLECTIVES), st.sampled_from(sorted(ALGORITHMS)), st.integers(1, 7))
@settings(deadline=None)
def test_no_algorithm_beats_the_bound_on_what_a_member_must_send_or_receive(kind, algorithm, k):
    """Chan et al. 2007: lower bounds of the beta term, and log2 n rounds of one partner each."""
    n = 1 << k
    bound = {
        "all_reduce": 2 * (n - 1) / n,
        "reduce_scatter": (n - 1) / n,
        "reduce_scatter_block": (n - 1) / n,
        "all_gather": n - 1,
        "all_to_all": (n - 1) / n,
        "broadcast": 1,
        "reduce": 1,
        "gather": n - 1,
        "scatter": (n - 1) / n,
        "barrier": 0,
    }[kind]
    hops, volume = on_switch(kind, algorithm, n)
    assert volume >= bound - 1e-12
    assert hops >= (1 if algorithm == "direct" else k)


@pytest.mark.parametrize("algorithm", ["ring", "halving-doubling", "direct"])
@pytest.mark.parametrize("n", [2, 4, 8, 16])
def test_the_rounds_of_reduce_scatter_and_all_gather_really_do_it(algorithm, n):
    """Moves chunks between n members as the rounds say and counts the bytes."""
    held, sent = _all_gather(algorithm, n)
    assert all(chunks == set(range(n)) for chunks in held)
    assert sent == [pytest.approx(on_switch("all_gather", algorithm, n)[1])] * n
    mirrored = on_switch("reduce_scatter", algorithm, n)
    assert mirrored[1] * n == pytest.approx(sent[0])
    assert mirrored[0] == on_switch("all_gather", algorithm, n)[0]


def _all_gather(algorithm, n):
    """What each member holds in the end, and chunks it sent."""
    held = [{i} for i in range(n)]
    sent = [0] * n
    last = [{i} for i in range(n)]
    for r in ALGORITHMS[algorithm]("all_gather", n):
        for _ in range(r.repeat):
            arriving = [set() for _ in range(n)]
            for i in range(n):
                if algorithm == "ring":
                    plan = {(i + r.distance) % n: last[i]}
                elif algorithm == "direct":
                    assert r.distance == EVERYONE
                    plan = {j: {i} for j in range(n) if j != i}
                else:
                    plan = {i ^ r.distance: set(held[i])}
                sizes = [len(chunks) for chunks in plan.values()]
                assert sum(sizes) == pytest.approx(r.volume)
                sent[i] += sum(sizes)
                for j, chunks in plan.items():
                    arriving[j] |= chunks
            last = arriving
            held = [h | a for h, a in zip(held, arriving)]
    return held, sent


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("n", [3, 4, 5, 8])
def test_all_to_all_on_a_ring_takes_as_long_as_its_busiest_link(n, stride):
    """Every `stride`-th NPU is in one group; all groups send at once, ties split over both ways."""
    size = n * stride
    load = _link_load(
        size,
        [
            ((i * stride + g) % size, (j * stride + g) % size, 1 / n)
            for g in range(stride)
            for i in range(n)
            for j in range(n)
            if i != j
        ],
    )
    hops, volume = on_ring("all_to_all", "direct", n, stride)
    assert volume == pytest.approx(max(load) / 0.5)
    assert hops == stride * (n // 2)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("n", [4, 8, 16])
def test_halving_doubling_on_a_ring_takes_as_long_as_its_busiest_links(n, stride):
    size, expected = n * stride, 0.0
    for k in range(n.bit_length() - 1):
        volume, d = 0.5 ** (k + 1), 1 << k
        messages = [
            (i * stride + g, (i ^ d) * stride + g, volume) for g in range(stride) for i in range(n)
        ]
        expected += max(_link_load(size, messages, split=False)) / 0.5
    assert on_ring("reduce_scatter", "halving-doubling", n, stride)[1] == pytest.approx(expected)


def _link_load(size, messages, *, split=True):
    """Bytes over each directed link of a ring, the shorter way."""
    load = [0.0] * (2 * size)
    for src, dst, volume in messages:
        right, left = (dst - src) % size, (src - dst) % size
        ways = [(right, 1), (left, -1)]
        if right != left or not split:
            ways = [(right, 1)] if right < left or (right == left and src < dst) else [(left, -1)]
        for length, step in ways:
            for k in range(length):
                link = (src + step * k) % size
                load[link if step == 1 else size + link] += volume / len(ways)
    return load


@pytest.mark.parametrize("n", [3, 4, 7])
def test_a_ring_on_a_ring_uses_both_links_and_pays_its_stride(n):
    for kind in ("all_reduce", "all_gather", "reduce_scatter", "broadcast"):
        hops, volume = on_switch(kind, "ring", n)
        assert on_ring(kind, "ring", n) == pytest.approx((hops, volume))
        assert on_ring(kind, "ring", n, 3) == pytest.approx((3 * hops, 3 * volume))


def test_two_neighbours_have_one_link_between_them_unless_they_are_the_whole_ring():
    assert on_ring("all_reduce", "ring", 2, 1, 2) == (2, 1)
    assert on_ring("all_reduce", "ring", 2, 1, 8) == (2, 2)
    assert on_ring("all_reduce", "ring", 2, 4, 8) == (8, 4)


def test_a_part_of_a_full_mesh_has_only_the_links_to_its_members():
    assert on_full("all_reduce", "direct", 8) == pytest.approx((2, 1.75))
    assert on_full("all_reduce", "direct", 4, built=8) == pytest.approx((2, 1.5 * 7 / 3))
    assert on_full("all_reduce", "ring", 4, built=8) == pytest.approx((6, 1.5 * 7 / 3))
    assert on_full("all_reduce", "halving-doubling", 8) == pytest.approx((6, 1.75 * 7))
    assert on_full("all_reduce", "tree", 8) == pytest.approx((6, 2 * 7 / 2))


def test_auto_fits_the_topology():
    assert choose("all_reduce", 8, "ring") == "ring"
    assert choose("all_reduce", 8, "fully-connected") == "direct"
    assert choose("all_gather", 8, "switch") == "halving-doubling"
    assert choose("all_gather", 12, "switch") == "ring"
    assert choose("broadcast", 12, "switch") == "tree"
    assert choose("all_to_all", 8, "ring") == "direct"


def test_what_does_not_fit_is_refused_with_a_way_out():
    with pytest.raises(InputError, match="power of two; use"):
        on_switch("all_reduce", "halving-doubling", 6)
    with pytest.raises(InputError, match='"tree" on a ring'):
        on_ring("all_reduce", "tree", 8)


@given(st.sampled_from(COLLECTIVES), st.lists(st.integers(1, 5), min_size=1, max_size=4))
@settings(deadline=None)
def test_phases_leave_every_member_with_what_the_kind_promises(kind, members):
    """The size that goes on from phase to phase ends as the operation's output does."""
    n = math.prod(members)
    steps = phases(kind, tuple(members))
    assert (len(steps) == 0) == (n == 1)
    size = 1.0
    for step in steps:
        assert step.fraction == pytest.approx(size)
        assert members[step.dimension] > 1
        if step.kind in ("reduce_scatter", "reduce_scatter_block", "scatter"):
            size /= members[step.dimension]
        elif step.kind in ("all_gather", "gather"):
            size *= members[step.dimension]
    shrinks = kind in ("reduce_scatter", "reduce_scatter_block", "scatter")
    grows = kind in ("all_gather", "gather")
    assert size == pytest.approx(1 / n if shrinks else n if grows else 1)


@given(st.lists(st.integers(2, 5), min_size=1, max_size=4))
@settings(deadline=None)
def test_hierarchical_collectives_move_no_more_than_flat_ones(members):
    """Reduce-scatter over dimensions of equal bandwidth: sum of (n_k - 1)/n_k / ... = (n - 1)/n."""
    n = math.prod(members)
    for kind, bound in (
        ("reduce_scatter", (n - 1) / n),
        ("all_gather", n - 1),
        ("all_reduce", 2 * (n - 1) / n),
        ("scatter", (n - 1) / n),
        ("gather", n - 1),
    ):
        total = sum(
            on_switch(p.kind, "ring", members[p.dimension])[1] * p.fraction
            for p in phases(kind, tuple(members))
        )
        assert total == pytest.approx(bound)
