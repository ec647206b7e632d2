"""Heaps in arrays against sorted lists."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.schedule.heaps import (
    pop_event,
    pop_key,
    pop_registered,
    push_event,
    push_key,
    push_registered,
)

SMALL = st.lists(st.integers(0, 9), max_size=40)


@settings(deadline=None)
@given(SMALL, st.integers(0, 3))
def test_keys_come_out_in_ascending_order_and_nothing_beside_the_heap_is_touched(keys, place):
    heap = np.full(place + len(keys) + 1, -1)
    for size, key in enumerate(keys):
        push_key(heap, place, size, key)
    found = []
    for size in range(len(keys), 0, -1):
        found.append(int(heap[place]))
        pop_key(heap, place, size)
    assert found == sorted(keys)
    assert (heap[:place] == -1).all()
    assert heap[-1] == -1


@settings(deadline=None)
@given(SMALL)
def test_events_come_out_by_time_each_once(times):
    time, code = np.empty(len(times)), np.empty(len(times), np.int64)
    for size, when in enumerate(times):
        push_event(time, code, size, float(when), size)
    found = []
    for size in range(len(times), 0, -1):
        found.append((float(time[0]), int(code[0])))
        pop_event(time, code, size)
    assert [when for when, _ in found] == sorted(times)
    assert sorted(what for _, what in found) == list(range(len(times)))
    assert all(times[what] == when for when, what in found)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), max_size=40))
def test_events_of_one_time_come_out_by_when_they_were_registered(events):
    time, since = np.empty(len(events)), np.empty(len(events))
    code = np.empty(len(events), np.int64)
    for size, (when, known) in enumerate(events):
        push_registered(time, since, code, size, float(when), float(known), size)
    found = []
    for size in range(len(events), 0, -1):
        found.append((float(time[0]), float(since[0]), int(code[0])))
        pop_registered(time, since, code, size)
    assert [event for *event, _ in found] == sorted(map(list, events))
    assert all(events[what] == (when, known) for when, known, what in found)
    assert sorted(what for *_, what in found) == list(range(len(events)))
