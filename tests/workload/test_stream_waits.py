"""Edges between streams from recorded times, by hand."""

import numpy as np

from perfmodel.workload.stream_waits import stream_waits


def waits(rows, edges):
    """rows: (start us, duration us, kernel, communicates, resource)."""
    start, duration, device, communicates, resource = map(np.array, zip(*rows))
    before, after = stream_waits(
        start=start * 1e-6,
        duration=duration * 1e-6,
        device=device.astype(bool),
        communicates=communicates.astype(bool),
        resource=resource.astype(np.int32),
        edge_from=np.array([a for a, _ in edges], np.int64),
        edge_to=np.array([b for _, b in edges], np.int64),
    )
    return set(zip(before.tolist(), after.tolist()))


LAUNCHES = [(0, 1), (2, 3), (4, 5)]


def test_a_collective_waits_for_the_kernel_that_its_thread_launched_before_it():
    rows = [(0, 5, 0, 0, 0), (10, 20, 1, 0, 7), (40, 5, 0, 0, 0), (60, 10, 1, 1, 20)]
    assert waits(rows, LAUNCHES[:2]) == {(1, 3)}


def test_not_for_one_that_was_still_running():
    rows = [(0, 5, 0, 0, 0), (10, 90, 1, 0, 7), (40, 5, 0, 0, 0), (60, 10, 1, 1, 20)]
    assert waits(rows, LAUNCHES[:2]) == set()


def test_a_kernel_that_started_late_waited_for_what_ended_just_before():
    rows = [(0, 5, 0, 0, 0), (10, 90, 1, 1, 20), (6, 5, 0, 0, 0), (102, 10, 1, 0, 7)]
    assert waits(rows, LAUNCHES[:2]) == {(1, 3)}


def test_a_kernel_that_started_at_its_launch_waited_for_nothing():
    rows = [(0, 5, 0, 0, 0), (10, 90, 1, 1, 20), (95, 6, 0, 0, 0), (102, 10, 1, 0, 7)]
    assert waits(rows, LAUNCHES[:2]) == set()


def test_a_gap_that_nothing_explains_makes_no_edge():
    rows = [(0, 5, 0, 0, 0), (10, 90, 1, 1, 20), (6, 5, 0, 0, 0), (180, 10, 1, 0, 7)]
    assert waits(rows, LAUNCHES[:2]) == set()


def test_edges_never_go_against_time():
    random = np.random.default_rng(4)
    for _ in range(50):
        n = 40
        start = np.sort(random.integers(0, 500, n))
        rows = [
            (s, d, k, c, r)
            for s, d, k, c, r in zip(
                start,
                random.integers(0, 40, n),
                random.integers(0, 2, n),
                random.integers(0, 2, n),
                random.integers(0, 4, n),
            )
        ]
        edges = [(a, a + 1) for a in range(n - 1) if not rows[a][2] and rows[a + 1][2]]
        for before, after in waits(rows, edges):
            assert rows[before][0] < rows[after][0]
            assert rows[before][0] + rows[before][1] <= rows[after][0] + 1
