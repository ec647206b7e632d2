"""Which event encloses which: the call stack, from start and end times."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code


@machine_code(nogil=True)
def parents(
    thread: NDArray[np.int32], start: NDArray[np.float64], end: NDArray[np.float64]
) -> NDArray[np.int64]:
    """[n] the innermost event of the same thread that is open when each event starts; -1 for none.

    The events stand in order of thread, start and length, longest first. An event that outlasts its parent by rounding
    (times of whole microseconds) keeps it.

    >>> parents(np.zeros(4, np.int32), np.array([0.0, 1, 2, 6]), np.array([5.0, 4, 3, 7])).tolist()
    [-1, 0, 1, -1]
    """
    n = thread.size
    parent = np.full(n, -1, np.int64)
    stack = np.empty(n, np.int64)
    depth = 0
    for i in range(n):
        while depth and (
            thread[stack[depth - 1]] != thread[i]
            or (
                end[stack[depth - 1]] <= start[i]
                and not (
                    end[stack[depth - 1]] == start[i]
                    and start[i] == end[i] == start[stack[depth - 1]]
                )
            )
        ):
            depth -= 1
        if depth:
            parent[i] = stack[depth - 1]
        stack[depth] = i
        depth += 1
    return parent


def ancestors(parent: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n] the innermost chosen event among an event's ancestors, -1 for none.

    >>> ancestors(np.array([-1, 0, 1, 2]), np.array([True, False, False, True])).tolist()
    [-1, 0, 0, 0]
    """
    found = parent.copy()
    while True:
        open_ = (found >= 0) & ~chosen[found]
        if not open_.any():
            return found
        found[open_] = parent[found[open_]]


def outermost(parent: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
    """[n] the outermost chosen event among an event and its ancestors, -1 for none.

    >>> outermost(np.array([-1, 0, 1, 2]), np.array([False, True, False, True])).tolist()
    [-1, 1, 1, 1]
    """
    above = ancestors(parent, chosen)
    found = np.where(chosen, np.arange(len(parent)), above)
    while True:
        further = np.where(found >= 0, above[found], -1)
        higher = further >= 0
        if not higher.any():
            return found
        found[higher] = further[higher]


def paths(
    parent: NDArray[np.int64], label: NDArray[np.object_], chosen: NDArray[np.bool_]
) -> NDArray[np.object_]:
    """[n] labels of the chosen events from the outermost down to each event itself, joined by slashes.

    >>> paths(np.array([-1, 0, 1]), np.array(["a", "b", "c"], object), np.array([True, False, True])).tolist()
    ['a', 'a', 'a/c']
    """
    above = ancestors(parent, chosen)
    text = np.where(chosen, label, "").astype(object)
    done = above < 0
    text[~chosen & done] = ""
    while not done.all():
        ready = ~done & done[above]
        outer, inner = text[above[ready]], text[ready]
        join = np.where((outer != "") & (inner != ""), "/", "").astype(object)
        text[ready] = outer + join + inner
        done |= ready
    return text
