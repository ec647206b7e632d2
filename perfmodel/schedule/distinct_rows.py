"""Equal rows of a table found by hashing: linear in its size, in the order in which they first occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code


def distinct_rows(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct rows of a table, and which one each row is.

    Args:
        rows: [n, c] f64, no nan.

    Returns:
        [d, c] the distinct rows in the order of their first occurrence; [n] number of each row among them.

    Example:
        >>> distinct, number = distinct_rows(np.array([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0]]))
        >>> distinct.tolist(), number.tolist()
        ([[2.0, 1.0], [0.0, 1.0]], [0, 1, 0])
    """
    table = np.ascontiguousarray(rows + 0.0)  # -0.0 becomes 0.0
    first, number = _number(table.view(np.uint64))
    return table[first], number


@machine_code(small=True)
def _number(rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
    """First row of each number, and the number of each row; open addressing, equality is checked, not assumed."""
    n, width = rows.shape
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    number = np.empty(n, np.int64)
    first = np.empty(n, np.int64)
    count = 0
    for k in range(n):
        key = np.uint64(width)
        for c in range(width):
            key = (key ^ rows[k, c]) * np.uint64(0x9E3779B97F4A7C15)
            key ^= key >> np.uint64(32)
        key = key * np.uint64(0xBF58476D1CE4E5B9)
        slot = np.int64((key ^ (key >> np.uint64(29))) & np.uint64(size - 1))
        while table[slot] >= 0:
            same = True
            for c in range(width):
                same &= rows[first[table[slot]], c] == rows[k, c]
            if same:
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            first[count] = k
            count += 1
        number[k] = table[slot]
    return first[:count].copy(), number
