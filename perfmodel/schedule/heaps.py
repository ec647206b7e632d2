"""Binary heaps in arrays that the caller holds and counts: events by time, and keys.

What is first stands at the heap's first place; `size` is how many there are before the call.
"""

from __future__ import annotations

from perfmodel.compiled_code import machine_code


@machine_code(nogil=True, inline="always")
def push_event(heap_time, heap_code, size, time, code):
    """Add an event: when, and what."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if heap_time[parent] <= time:
            break
        heap_time[i], heap_code[i] = heap_time[parent], heap_code[parent]
        i = parent
    heap_time[i], heap_code[i] = time, code


@machine_code(nogil=True, inline="always")
def pop_event(heap_time, heap_code, size):
    """Remove the earliest event."""
    last = size - 1
    time, code = heap_time[last], heap_code[last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        child += (child + 1 < last) & (heap_time[child + 1] < heap_time[child])
        if heap_time[child] >= time:
            break
        heap_time[i], heap_code[i] = heap_time[child], heap_code[child]
        i = child
    heap_time[i], heap_code[i] = time, code


@machine_code(nogil=True, inline="always")
def push_registered(heap_time, heap_since, heap_code, size, time, since, code):
    """Add an event: when, since when it is known, and what. Of events at one time, the one longest known is first."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        t = heap_time[parent]
        if t < time or (t == time and heap_since[parent] <= since):
            break
        heap_time[i], heap_since[i], heap_code[i] = t, heap_since[parent], heap_code[parent]
        i = parent
    heap_time[i], heap_since[i], heap_code[i] = time, since, code


@machine_code(nogil=True, inline="always")
def pop_registered(heap_time, heap_since, heap_code, size):
    """Remove the first event."""
    last = size - 1
    time, since, code = heap_time[last], heap_since[last], heap_code[last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        if child + 1 < last:
            a, b = heap_time[child], heap_time[child + 1]
            child += b < a or (b == a and heap_since[child + 1] < heap_since[child])
        t = heap_time[child]
        if t > time or (t == time and heap_since[child] >= since):
            break
        heap_time[i], heap_since[i], heap_code[i] = t, heap_since[child], heap_code[child]
        i = child
    heap_time[i], heap_since[i], heap_code[i] = time, since, code


@machine_code(nogil=True, inline="always")
def push_key(heap, place, size, key):
    """Add a key to the heap that begins at a place of an array."""
    i = size
    while i > 0:
        parent = (i - 1) >> 1
        if heap[place + parent] <= key:
            break
        heap[place + i] = heap[place + parent]
        i = parent
    heap[place + i] = key


@machine_code(nogil=True, inline="always")
def pop_key(heap, place, size):
    """Remove the lowest key of the heap that begins at a place of an array."""
    last = size - 1
    key = heap[place + last]
    i = 0
    while True:
        child = 2 * i + 1
        if child >= last:
            break
        child += (child + 1 < last) & (heap[place + child + 1] < heap[place + child])
        if heap[place + child] >= key:
            break
        heap[place + i] = heap[place + child]
        i = child
    heap[place + i] = key
