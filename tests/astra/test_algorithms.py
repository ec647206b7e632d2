"""Collective algorithms of ASTRA mode against recurrences, member by member, with ranks that start apart.

The recurrences are an independent second statement of the rules: no events, no queues, only maxima.
"""

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.astra import event_run
from tests.astra_workload import collective, compute, implementation, prepare

ALL_REDUCE, ALL_GATHER, ALL_TO_ALL, REDUCE_SCATTER = 0, 2, 6, 7
KINDS = (ALL_REDUCE, ALL_GATHER, ALL_TO_ALL, REDUCE_SCATTER)
DELAY = 10
LATENCY = 500.0
PER_NANOSECOND = 50.0 * 2**30 / 1e9


def hops(topology, i, j, n):
    return {"FullyConnected": 1, "Switch": 2}.get(topology, min((j - i) % n, (i - j) % n))


def reduction(size):
    return 3 * int(size / 50e9 * 1e9)


class Fabric:
    """Message time between members of a one-dimensional network."""

    def __init__(self, topology, n):
        self.topology, self.n = topology, n

    def __call__(self, i, j, size):
        return int(hops(self.topology, i, j, self.n) * LATENCY + size / PER_NANOSECOND)


def ring(kind, size, start, fabric):
    n = len(start)
    message = size if kind == ALL_GATHER else size // n
    steps = {ALL_REDUCE: 2 * (n - 1), ALL_TO_ALL: n * (n - 1) // 2}.get(kind, n - 1)
    send = [s + DELAY for s in start]
    for k in range(steps):
        came = [max(send[i], send[i - 1] + fabric((i - 1) % n, i, message)) for i in range(n)]
        reduces = kind == REDUCE_SCATTER or (kind == ALL_REDUCE and k < n - 1)
        send = [t + DELAY + (reduction(message) if reduces else 0) for t in came]
    return send


def direct(kind, size, start, fabric):
    n = len(start)
    message = size if kind == ALL_GATHER else size // n
    t = [s + DELAY for s in start]

    def arrival(i, k, left):
        source = (i - 1 - k) % n
        return left + fabric(source, i, message)

    r = [[max(t[i], arrival(i, k, t[(i - 1 - k) % n])) for k in range(n - 1)] for i in range(n)]
    if kind != ALL_REDUCE:
        after = reduction(message) if kind == REDUCE_SCATTER else 0
        return [max(row) + DELAY + after for row in r]
    x = [sorted(value + DELAY + reduction(message) for value in row) for row in r]
    gate = [min(value for value in x[i] if value >= max(r[i])) for i in range(n)]
    z = [[math.inf] * (n - 1) for _ in range(n)]
    while True:
        y = [[max(gate[i], sorted(x[i] + z[i])[k]) for k in range(n - 1)] for i in range(n)]
        new = [
            [max(y[i][k], arrival(i, k, y[(i - 1 - k) % n][k])) + DELAY for k in range(n - 1)]
            for i in range(n)
        ]
        if new == z:
            return [max(row) for row in z]
        z = new


def halving(kind, size, start, fabric):
    n = len(start)
    levels = int(math.log2(n))
    if kind == ALL_GATHER:
        steps = [(n >> (j + 1), size << j) for j in range(levels)]
    else:
        steps = [(1 << j, size >> (j + 1)) for j in range(levels)]
    if kind == ALL_REDUCE:
        rest = size >> (levels + 1)
        steps += [(n >> (j + 1), (2 << j) * rest) for j in range(levels)]
    t = [s + DELAY for s in start]
    for j, (distance, message) in enumerate(steps):
        peer = [i + distance if i // distance % 2 == 0 else i - distance for i in range(n)]
        came = [max(t[i], t[peer[i]] + fabric(peer[i], i, message)) for i in range(n)]
        reduces = kind != ALL_GATHER and 1 <= j + 1 <= levels - 1
        t = [value + DELAY + (reduction(steps[j + 1][1]) if reduces else 0) for value in came]
    return t


def tree(size, start, fabric):
    """The first chunk: the last member is the top, its child the root of a perfect tree of the others."""
    n = len(start)
    end = [0] * n
    up = [0] * n
    children = {n - 1: [(n - 1) // 2] if n > 2 else [0]}

    def build(first, count):
        middle = first + count // 2
        if count > 1:
            children[middle] = [build(first, count // 2), build(middle + 1, count // 2)]
        return middle

    root = build(0, n - 1)
    children[n - 1] = [root]

    def climb(i):
        for child in children.get(i, ()):
            climb(child)
        came = [max(start[i], up[c] + fabric(c, i, size)) for c in children.get(i, ())]
        up[i] = (max(came) + reduction(size) if came else start[i]) + DELAY

    def descend(i, parent):
        if parent is None:
            end[i] = up[i]
        else:
            got = max(up[i], end[parent] + fabric(parent, i, size))
            end[i] = got + DELAY + (reduction(size) if i in children else 0)
        for child in children.get(i, ()):
            descend(child, i)

    climb(n - 1)
    descend(n - 1, None)
    return end


def simulated(kind, size, skew, topology, algorithm, splits=1, backend="unaware"):
    """Ends of one collective whose members start when their compute node is over."""
    ranks = [[compute(0, microseconds), collective(1, kind, size, 0)] for microseconds in skew]
    lowered = prepare(
        ranks,
        (topology, len(skew)),
        backend=backend,
        preferred_dataset_splits=splits,
        **implementation(algorithm if kind != ALL_TO_ALL or "alving" not in algorithm else "ring"),
    )
    run = event_run.run(lowered, lowered.costs())
    assert run.ok
    issue = run.issue.reshape(-1, 2)[:, 1].astype(int).tolist()
    return issue, run.finish.reshape(-1, 2)[:, 1].astype(int).tolist()


skews = st.lists(st.integers(1, 60), min_size=2, max_size=8)
topologies = st.sampled_from(["Ring", "FullyConnected", "Switch"])


@settings(max_examples=150, deadline=None)
@given(skews, topologies, st.sampled_from(KINDS), st.integers(1_000, 3_000_000))
def test_ring_follows_its_recurrence(skew, topology, kind, size):
    start, end = simulated(kind, size, skew, topology, "ring")
    assert end == ring(kind, size, start, Fabric(topology, len(skew)))


@settings(max_examples=150, deadline=None)
@given(skews, topologies, st.sampled_from(KINDS), st.integers(1_000, 3_000_000))
def test_direct_follows_its_recurrence(skew, topology, kind, size):
    start, end = simulated(kind, size, skew, topology, "direct")
    assert end == direct(kind, size, start, Fabric(topology, len(skew)))


@settings(max_examples=100, deadline=None)
@given(
    st.sampled_from([2, 4, 8, 16]).flatmap(
        lambda n: st.lists(st.integers(1, 60), min_size=n, max_size=n)
    ),
    topologies,
    st.sampled_from([ALL_REDUCE, ALL_GATHER, REDUCE_SCATTER]),
    st.integers(1_000, 3_000_000),
)
def test_halving_doubling_follows_its_recurrence(skew, topology, kind, size):
    start, end = simulated(kind, size, skew, topology, "halvingDoubling")
    assert end == halving(kind, size, start, Fabric(topology, len(skew)))


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([2, 4, 8, 16]).flatmap(
        lambda n: st.lists(st.integers(1, 60), min_size=n, max_size=n)
    ),
    topologies,
    st.integers(1_000, 3_000_000),
)
def test_the_double_binary_tree_follows_its_recurrence(skew, topology, size):
    start, end = simulated(ALL_REDUCE, size, skew, topology, "doubleBinaryTree")
    assert end == tree(size, start, Fabric(topology, len(skew)))


@settings(max_examples=50, deadline=None)
@given(skews, topologies, st.sampled_from(KINDS), st.integers(20_000, 3_000_000), st.integers(2, 6))
def test_chunks_of_a_ring_follow_one_another_on_every_rank(skew, topology, kind, size, splits):
    start, end = simulated(kind, size, skew, topology, "ring", splits)
    chunk = size // splits
    for _ in range(-(-size // chunk)):
        start = ring(kind, chunk, start, Fabric(topology, len(skew)))
    assert end == start


@pytest.mark.parametrize("kind", KINDS)
def test_with_equal_starts_a_ring_takes_what_the_closed_form_says(kind):
    n, size = 4, 1_048_576
    _, end = simulated(kind, size, [1] * n, "Ring", "ring", splits=4)
    message = size // 4 if kind == ALL_GATHER else size // 4 // n
    steps = {ALL_REDUCE: 2 * (n - 1), ALL_TO_ALL: n * (n - 1) // 2}.get(kind, n - 1)
    reductions = {ALL_REDUCE: n - 1, REDUCE_SCATTER: n - 1}.get(kind, 0)
    delay = int(LATENCY + message / PER_NANOSECOND)
    total = 4 * (DELAY + steps * (delay + DELAY) + reductions * reduction(message))
    assert end == [1000 + total] * n


@pytest.mark.parametrize("kind", KINDS)
def test_a_flat_ring_over_all_ranks_sends_in_the_first_dimension_that_differs(kind):
    ranks = [[collective(0, kind, 1 << 20)] for _ in range(8)]
    lowered = prepare(ranks, ("Ring", 2), ("Switch", 4), **implementation("oneRing"))
    run = event_run.run(lowered, lowered.costs())
    # neighbours i and i + 1 always differ in the first dimension, a ring of two
    expected = ring(kind, 1 << 20, [0] * 8, lambda i, j, size: int(500 + size / PER_NANOSECOND))
    assert run.finish.tolist() == expected


def test_a_window_keeps_that_many_messages_in_flight():
    ends = []
    for name in ("direct1", "direct2", "direct3", "direct"):
        ranks = [[collective(0, ALL_TO_ALL, 1 << 20)] for _ in range(4)]
        lowered = prepare(ranks, ("Switch", 4), **implementation(name))
        ends.append(event_run.run(lowered, lowered.costs()).finish.max())
    assert ends[0] > ends[1] > ends[2] == ends[3]
    message = int(1000 + (1 << 18) / PER_NANOSECOND)
    assert ends[0] == 3 * (message + DELAY) + DELAY


def test_links_that_are_shared_make_direct_pay_for_each_message():
    ranks = [[collective(0, ALL_GATHER, 1 << 20)] for _ in range(4)]
    ends = {}
    for backend in ("unaware", "aware"):
        lowered = prepare(ranks, ("FullyConnected", 4), backend=backend, **implementation("direct"))
        ends[backend] = event_run.run(lowered, lowered.costs()).finish.max()
        lowered = prepare(ranks, ("Switch", 4), backend=backend, **implementation("direct"))
        ends[backend, "Switch"] = event_run.run(lowered, lowered.costs()).finish.max()
    assert ends["aware"] == ends["unaware"]
    hold = int((1 << 20) / PER_NANOSECOND)
    arrive = int(500 + (1 << 20) / PER_NANOSECOND)
    assert ends["aware", "Switch"] == DELAY + 2 * hold + 2 * arrive + DELAY
    assert ends["unaware", "Switch"] == DELAY + int(1000 + (1 << 20) / PER_NANOSECOND) + DELAY
