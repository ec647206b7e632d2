"""Paths that tie: the segments that they share, and the least and largest slope among all of them."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.analysis.tied_paths import TiedPaths
from perfmodel.schedule.frozen_graph import Events


def events(before: list[list[int]], cost: list[int]) -> Events:
    """A frozen graph by what is before each vertex."""
    vertices = np.arange(len(before))
    return Events(
        cost=np.array(cost, np.int32),
        pred_ptr=np.cumsum([0, *map(len, before)]),
        pred=np.array([u for mine in before for u in mine], np.int32),
        first=vertices[:-1],
        last=vertices[:-1],
        owner=vertices,
    )


def every_path(before: list[list[int]], cost: list[int], seconds: np.ndarray) -> list[list[int]]:
    """The costs on each of the paths that are equally long, by trying all of them."""
    paths: list[list[list[int]]] = []
    for mine, row in zip(before, cost):
        own = [row] if row >= 0 else []
        paths.append([path + own for u in mine for path in paths[u]] or [own])
    length = [sum(seconds[r] for r in path) for path in paths[-1]]
    return [path for path, s in zip(paths[-1], length) if s >= max(length) * (1 - 1e-9)]


def test_a_row_that_all_tied_paths_take_is_one_segment():
    # 0, 1 in a row; 2 and 3 side by side, 4 shorter; 5, 6 in a row; 7 is the end
    before = [[], [0], [1], [1], [1], [2, 3, 4], [5], [6]]
    paths = TiedPaths.of(
        events(before, [0, 1, 2, 2, 3, 4, 4, -1]), np.array([1.0, 1, 2, 1, 3]), 1e-9
    )
    assert paths.makespan == 10
    assert paths.counts.tolist() == [1, 1, 1, 0, 2]
    assert paths.row.tolist() == [0, 1, 2, 2, 4, 4]
    assert paths.segment.tolist() == [0, 0, 1, 2, 3, 3]
    assert paths.rows.tolist() == [0, 1, 2, 4]
    assert np.diff(paths.ptr).tolist() == [0, 1, 1, 2]


@pytest.mark.parametrize("stretch", [1, 3, 100])
@pytest.mark.parametrize("seed", range(20))
def test_extreme_slopes_are_those_of_all_tied_paths(seed, stretch):
    choice = np.random.default_rng(seed)
    before: list[list[int]] = [[]]
    for v in range(1, 12):
        before.append(sorted({int(u) for u in choice.integers(max(0, v - 4), v, 2)}))
    followed = {u for mine in before for u in mine}
    before.append([u for u in range(12) if u not in followed])
    cost = [*choice.integers(-1, 6, 12).tolist(), -1]
    seconds, slope = choice.integers(1, 3, 6).astype(float), choice.normal(size=(6, 2))
    paths = TiedPaths.of(events(before, cost), seconds, 1e-9)
    total = np.zeros((len(paths.ptr) - 1, 2))
    for k in range(0, len(paths.rows), stretch):
        rows = paths.rows[k : k + stretch]
        paths.add(rows, slope[rows], total)
    least, largest = paths.extreme(total)
    sums = np.array([slope[path].sum(axis=0) for path in every_path(before, cost, seconds)])
    np.testing.assert_allclose(least, sums.min(axis=0), rtol=1e-12)
    np.testing.assert_allclose(largest, sums.max(axis=0), rtol=1e-12)
