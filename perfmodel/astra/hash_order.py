"""The order in which ASTRA-sim's hash tables are walked, which its results depend on.

The simulator keeps nodes in `unordered_set` and `unordered_map` of libstdc++. Their elements form one list. A new
element becomes the first of its bucket's run in that list, or the first of all where its bucket is empty. A table
that is full (as many elements as buckets) takes the first prime of its list that is at least twice as large, and
puts the elements, in the order of the list, into the new buckets by the same rule. So the walk over a table is a
function of the order of insertion, and inserting into an emptied table begins anew with the buckets it has.

Source: GCC's libstdc++, hashtable.h, hashtable_policy.h and hashtable-aux.cc, GCC 8 to 14; hash_bytes.cc.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

BUCKETS = (
    *(13, 29, 59, 127, 257, 541, 1109, 2357, 5087, 10273, 20753, 42043, 85229, 172933, 351061),
    *(712697, 1447153, 2938679, 5967347, 12117689, 24607243, 49969847),
)
"""Numbers of buckets of a table that grows one element at a time; the first element makes 13 of them."""


def buckets_for(count: int, buckets: int = 0) -> int:
    """Buckets of a table that had `buckets` of them (0: new) once `count` elements are in it.

    >>> buckets_for(13), buckets_for(14), buckets_for(2, buckets=29)
    (13, 29, 29)
    """
    return max(buckets, next(size for size in BUCKETS if size >= count)) if count else buckets


def walk(hashes: NDArray[np.uint64] | Sequence[int], buckets: int = 0) -> NDArray[np.int64]:
    """The order in which a table is walked.

    Args:
        hashes: [n] of distinct elements, in the order in which they are inserted; of an integer it is the integer.
        buckets: that the table already has; 0 for a new one.

    Returns:
        [n] positions in `hashes`, in the order of the walk.

    >>> walk([4, 5, 17]).tolist()
    [1, 2, 0]
    """
    hashes = np.asarray(hashes, np.uint64)
    order = np.zeros(0, np.int64)
    placed = 0
    while True:
        count = min(len(hashes), buckets)
        if count > placed:
            order = _spread(hashes, np.concatenate([order, np.arange(placed, count)]), buckets)
            placed = count
        if placed == len(hashes):
            return order
        buckets = buckets_for(max(placed, buckets) + 1, buckets)


def _spread(
    hashes: NDArray[np.uint64], inserted: NDArray[np.int64], buckets: int
) -> NDArray[np.int64]:
    """The walk after insertion in this order into empty buckets: latest run first, latest element first in its run."""
    bucket = hashes[inserted] % np.uint64(buckets)
    _, first, run = np.unique(bucket, return_index=True, return_inverse=True)
    return inserted[np.lexsort((-np.arange(len(inserted)), -first[run]))]


def hash_of_text(text: str) -> int:
    """libstdc++'s hash of a string: MurmurHash64A with the seed 0xc70f6907.

    >>> hash_of_text("abc")
    3663726644998027833
    """
    data, word = text.encode("utf-8", "surrogateescape"), (1 << 64) - 1
    factor = 0xC6A4A7935BD1E995
    found = 0xC70F6907 ^ (len(data) * factor & word)
    whole = len(data) // 8 * 8
    for k in range(0, whole, 8):
        part = int.from_bytes(data[k : k + 8], "little") * factor & word
        part = (part ^ part >> 47) * factor & word
        found = (found ^ part) * factor & word
    if len(data) > whole:
        found = (found ^ int.from_bytes(data[whole:], "little")) * factor & word
    found = (found ^ found >> 47) * factor & word
    return found ^ found >> 47
