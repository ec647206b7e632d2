"""The simulator's words in memory that refuses what machine code would do unseen.

Tables and records lie apart, with words between them that nobody may touch; words that a run has not written may not
be read; an index below zero is none.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import layout as c

APART = 64
"""Words between two tables, more than any record has."""

UNWRITTEN = -0x5EED_F00D_0DD5_EED5

TABLES = (
    *("T_NODES", "T_SUCCESSOR_PTR", "T_SUCCESSOR", "T_PREDECESSOR_PTR", "T_PREDECESSOR"),
    *("T_RANK_PTR", "T_READY_PTR", "T_ALTERNATIVES", "T_PLANS", "T_PHASES", "T_STEPS", "T_TREES"),
    *("T_MEMBERS", "T_SIZES", "T_MESSAGE_ROWS", "T_DIMS", "T_CUSTOMS", "T_CUSTOM_PTR"),
    *("T_CUSTOM_SUCCESSOR", "T_CUSTOM_PREDECESSOR", "T_CUSTOM_BUCKETS", "T_BUCKET_COUNTS"),
)
STATE = (
    *("COSTS", "HEAP", "BUCKETS", "RANKS", "NODES", "READY", "DEFERRED", "FAMILIES", "CHOSEN"),
    *("STATIONS", "LEAVES", "LINKS", "SERVERS", "CUSTOM_STATE", "CUSTOM_READY", "CUSTOM_CHAIN"),
    *("CUSTOM_HEADS", "SIDES", "BUS_PER_BYTE", "JOURNAL", "VERTEX_ROW", "VERTEX_PTR", "EDGE"),
)
ENDS = {c.HEAP: c.HEAP_END, c.VERTEX_ROW: c.VERTEX_END, c.EDGE: c.EDGE_END}
POOLS = (c.TIMERS, c.BATCHES, c.MESSAGES, c.CHUNKS, c.CELLS, c.HANDSHAKES, c.REQUESTS)


class Refused(Exception):
    """The simulator touched a word that is none of its own."""


class Words:
    """What `t`, `m` and `f` are in plain Python: words by their index, as whole or as floating-point numbers."""

    def __init__(self, words: NDArray[np.int64], allowed: NDArray[np.bool_], *, numbers: bool):
        self._seen = words.data
        self._values = words.view(np.float64).data if numbers else words.data
        self._allowed = allowed.tobytes()

    def __getitem__(self, index: int) -> Any:
        if not 0 <= index < len(self._allowed) or not self._allowed[index]:
            raise Refused(f"read at {index}")
        if self._seen[index] == UNWRITTEN:
            raise Refused(f"read at {index} before anything was written there")
        return self._values[index]

    def __setitem__(self, index: int, value: Any) -> None:
        if not 0 <= index < len(self._allowed) or not self._allowed[index]:
            raise Refused(f"written at {index}")
        self._values[index] = value


def spread(
    words: NDArray[np.int64], header: int, starts: dict[int, tuple[int, ...]]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Words with their tables apart, and which of them belong to a table.

    Args:
        words: a header of so many words, and tables behind it.
        starts: the word of the header that has the position of a table -> words that have other positions in it; in
            the order of the tables.
    """
    first = [int(words[field]) for field in starts] + [len(words)]
    assert first == sorted(first)
    assert first[0] == header
    shifts = [(k + 1) * APART for k in range(len(starts))]
    moved = np.zeros(len(words) + shifts[-1] + APART, np.int64)
    allowed = np.zeros(len(moved), np.bool_)
    moved[:header], allowed[:header] = words[:header], True
    for (field, others), begin, end, shift in zip(starts.items(), first, first[1:], shifts):
        moved[begin + shift : end + shift] = words[begin:end]
        allowed[begin + shift : end + shift] = True
        moved[[field, *others]] += shift
    return moved, allowed


def spread_tables(tables: Any) -> tuple[Any, NDArray[np.bool_]]:
    """The simulator's tables apart."""
    starts: dict[int, tuple[int, ...]] = {getattr(c, name): () for name in TABLES}
    words, allowed = spread(tables.words, c.T_HEADER, starts)
    return replace(tables, words=words), allowed


def spread_state(words: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """The state before a run, apart, with what nothing has been written to marked as that."""
    starts: dict[int, tuple[int, ...]] = {
        field: (ENDS[field],) if field in ENDS else ()
        for field in (getattr(c, name) for name in STATE)
    }
    for pool in POOLS:
        starts[pool + c.POOL_SPARE] = (pool + c.POOL_NEXT, pool + c.POOL_END)
    moved, allowed = spread(words, c.M_HEADER, starts)
    behind = int(moved[c.VERTEX_ROW])
    moved[behind:][allowed[behind:]] = UNWRITTEN
    moved[moved[c.VERTEX_PTR]] = 0
    return moved, allowed
