"""Equal rows of a table found by hashing: linear in its size, in the order in which they first occur."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code

LARGE, ALIKE = 300_000, 0.1
"""Tables of more rows than this are left alone where less than this share of them repeats another one."""


def distinct_rows(rows: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The distinct rows of a table, and which one each row is.

    A large table in which next to nothing repeats stays as it is.

    Args:
        rows: [n, c] f64, no nan; -0.0 becomes 0.0 in it.

    Returns:
        [d, c] the distinct rows in the order of their first occurrence; [n] number of each row among them.

    Example:
        >>> distinct, number = distinct_rows(np.array([[2.0, 1.0], [0.0, 1.0], [2.0, 1.0]]))
        >>> distinct.tolist(), number.tolist()
        ([[2.0, 1.0], [0.0, 1.0]], [0, 1, 0])
    """
    table = np.ascontiguousarray(rows, np.float64)
    table += 0.0  # -0.0 becomes 0.0
    if len(table) > LARGE and _repeated(table) < ALIKE:
        return table, np.arange(len(table), dtype=np.int32)
    first, number = _number(table.view(np.uint64))
    return table[first], number


def _repeated(rows: NDArray[np.float64]) -> float:
    """About what share of rows repeats another one: that of the rows whose hash begins with certain digits.

    Rows that are equal have equal hashes, so they are looked at together or not at all.
    """
    chosen = _some(rows.view(np.uint64))
    first, _ = _number(rows[chosen].view(np.uint64))
    return 1 - len(first) / max(len(chosen), 1)


@machine_code(small=True)
def _some(rows: NDArray[Any]) -> NDArray[Any]:
    """The rows whose hash begins with six zeros, one of 64."""
    found = np.empty(rows.shape[0], np.int64)
    count = 0
    for k in range(rows.shape[0]):
        if _hash(rows, k) >> np.uint64(58) == 0:
            found[count] = k
            count += 1
    return found[:count].copy()


@machine_code
def _hash(rows: NDArray[Any], k: int) -> Any:
    """Of row k."""
    key = np.uint64(rows.shape[1])
    for c in range(rows.shape[1]):
        key = (key ^ rows[k, c]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    key = key * np.uint64(0xBF58476D1CE4E5B9)
    return key ^ (key >> np.uint64(29))


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
        slot = np.int64(_hash(rows, k) & np.uint64(size - 1))
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
