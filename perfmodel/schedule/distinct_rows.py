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
    first, number = number_rows(*_words(table))
    return table[first], number


def _words(table: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    """The rows of a dense table as `number_rows` takes them."""
    n, width = table.shape
    return np.arange(n + 1) * width, table.view(np.uint64).reshape(-1)


def _repeated(rows: NDArray[np.float64]) -> float:
    """About what share of rows repeats another one: that of the rows whose hash begins with certain digits.

    Rows that are equal have equal hashes, so they are looked at together or not at all.
    """
    chosen = _some(*_words(rows))
    first, _ = number_rows(*_words(rows[chosen]))
    return 1 - len(first) / max(len(chosen), 1)


@machine_code(small=True, nogil=True)
def _some(ptr: NDArray[Any], words: NDArray[Any]) -> NDArray[Any]:
    """The rows whose hash begins with six zeros, one of 64."""
    found = np.empty(ptr.size - 1, np.int64)
    count = 0
    for k in range(ptr.size - 1):
        if _hash(words, ptr[k], ptr[k + 1]) >> np.uint64(58) == 0:
            found[count] = k
            count += 1
    return found[:count].copy()


@machine_code
def _hash(words: NDArray[Any], begin: int, end: int) -> Any:
    key = np.uint64(end - begin)
    for e in range(begin, end):
        key = (key ^ words[e]) * np.uint64(0x9E3779B97F4A7C15)
        key ^= key >> np.uint64(32)
    key = key * np.uint64(0xBF58476D1CE4E5B9)
    return key ^ (key >> np.uint64(29))


@machine_code(small=True, nogil=True)
def number_rows(
    ptr: NDArray[np.int64], words: NDArray[np.uint64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Number equal rows alike; open addressing, equality is checked, not assumed.

    Args:
        ptr: [n + 1] begin of each row in words.
        words: all rows one after the other.

    Returns:
        [d] first row of each number; [n] number of each row, in the order in which they first occur.
    """
    n = ptr.size - 1
    size = 16
    while size < 2 * n:
        size *= 2
    table = np.full(size, -1, np.int64)
    number = np.empty(n, np.int64)
    first = np.empty(n, np.int64)
    count = 0
    for k in range(n):
        begin, length = ptr[k], ptr[k + 1] - ptr[k]
        slot = np.int64(_hash(words, begin, begin + length) & np.uint64(size - 1))
        while table[slot] >= 0:
            other = first[table[slot]]
            same = ptr[other + 1] - ptr[other] == length
            e = 0
            while same and e < length:
                same = words[ptr[other] + e] == words[begin + e]
                e += 1
            if same:
                break
            slot = (slot + 1) & (size - 1)
        if table[slot] < 0:
            table[slot] = count
            first[count] = k
            count += 1
        number[k] = table[slot]
    return first[:count].copy(), number
