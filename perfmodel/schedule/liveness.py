"""Which place each vertex's value takes while it is still needed, so that few places serve many vertices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code


@machine_code(small=True)
def slots_by_liveness(
    ptr: NDArray[Any], pred: NDArray[Any], last_use: NDArray[Any]
) -> tuple[NDArray[Any], int]:
    """Slot of each vertex: one whose value nobody needs any more, else a new one; and how many slots there are.

    Args:
        ptr, pred: [V+1], [E], the vertices that each follows, all of lower number.
        last_use: [V], the last vertex with which a value is needed beside its followers, at least the vertex itself
            (V: to the end); is written.

    Returns:
        [V] u32, and their number.

    >>> slot, slots = slots_by_liveness(np.array([0, 0, 1, 2]), np.array([0, 1]), np.arange(3))
    >>> slot.tolist(), int(slots)
    ([0, 1, 0], 2)
    """
    n = ptr.size - 1
    for v in range(n):
        for e in range(ptr[v], ptr[v + 1]):
            last_use[pred[e]] = max(last_use[pred[e]], v)
    # vertices by last use
    count = np.zeros(n + 2, np.int64)
    for v in range(n):
        count[last_use[v] + 1] += 1
    count = np.cumsum(count)
    by_use = np.empty(n, np.int64)
    fill = count.copy()
    for v in range(n):
        by_use[fill[last_use[v]]] = v
        fill[last_use[v]] += 1
    slot = np.empty(n, np.uint32)
    free = np.empty(n + 1, np.uint32)
    free_count = 0
    slots = 0
    for v in range(n):
        if free_count:
            free_count -= 1
            slot[v] = free[free_count]
        else:
            slot[v] = slots
            slots += 1
        for k in range(count[v], count[v + 1]):
            free[free_count] = slot[by_use[k]]
            free_count += 1
    return slot, slots
