"""Slots by liveness: no value is overwritten while it is needed, and there are no more slots than values alive."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.schedule.liveness import slots_by_liveness


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_slots_hold_what_is_needed_and_no_more(vertices, seed):
    choice = np.random.default_rng(seed)
    before = [
        np.unique(choice.integers(0, v, choice.integers(0, 4))) if v else np.zeros(0, np.int64)
        for v in range(vertices)
    ]
    ptr = np.cumsum([0, *map(len, before)])
    wanted = np.array([choice.integers(v, vertices + 1) for v in range(vertices)])
    needed_to = wanted.copy()  # the last vertex with which each is needed
    for v, all_before in enumerate(before):
        needed_to[all_before] = np.maximum(needed_to[all_before], v)
    slot, slots = slots_by_liveness(ptr, np.concatenate(before).astype(np.int64), wanted)
    owner = np.full(slots, -1)
    most = 0
    for v in range(vertices):
        # a vertex reads what it follows before it writes: its own slot is one that nobody needs after the one before
        there = owner[slot[v]]
        assert there < 0 or needed_to[there] < v
        owner[slot[v]] = v
        most = max(most, sum(needed_to[u] >= v for u in range(v + 1)))
    assert slots == most
