"""Values of named attributes, found in a pass of their own over a trace's nodes.

For attributes that most files lack: those that every model reads stand in `attributes.NAMES` and cost no second pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.chakra.rank_trace import RankTrace
from perfmodel.trace.chakra.wire import (
    LENGTH,
    address,
    byte_at,
    reader,
    skip,
    tag,
    varint,
)

DOUBLE, INTEGER, TEXT, TEXTS = 3, 9, 29, 30
"""Fields of AttributeProto that hold a double, an int64, a text and a list of texts."""


def locate(
    trace: RankTrace, names: Sequence[str]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Where the values of the named attributes stand in `trace.data`.

    Returns:
        [names, n] number of the value's field (0: the node lacks it), [names, n] start and [names, n] end of the value.
    """
    texts = [name.encode() for name in names]
    shape = (len(names), len(trace))
    number, start, end = (np.zeros(shape, np.int64) for _ in range(3))
    ptr = np.cumsum([0, *map(len, texts)])
    blob = np.frombuffer(b"".join(texts), np.uint8)
    sizes = trace.node_size.astype(np.int64)
    _locate(address(trace.data), trace.node_offset, sizes, blob, ptr, number, start, end)
    return number, start, end


def texts_of(
    trace: RankTrace, number: NDArray[Any], start: NDArray[Any], end: NDArray[Any]
) -> tuple[NDArray[Any], list[str]]:
    """[n] index of each node's text into the distinct ones (-1: none), for one row of `locate`."""
    index = np.full(len(trace), -1, np.int64)
    known: dict[bytes, int] = {}
    for i in np.flatnonzero(number == TEXT).tolist():
        index[i] = known.setdefault(trace.data[start[i] : end[i]], len(known))
    return index, [text.decode("utf-8", "replace") for text in known]


def doubles_of(trace: RankTrace, number: NDArray[Any], start: NDArray[Any]) -> NDArray[np.float64]:
    """[n] each node's double, nan where it has none."""
    value = np.full(len(trace), np.nan)
    here = np.flatnonzero(number == DOUBLE)
    data = np.frombuffer(trace.data, np.uint8)
    value[here] = data[start[here, None] + np.arange(8)].copy().view("<f8")[:, 0]
    return value


def integers_of(
    trace: RankTrace, number: NDArray[Any], start: NDArray[Any], end: NDArray[Any]
) -> NDArray[np.int64]:
    """[n] each node's int64, -1 where it has none, is negative, or is no int64."""
    value = np.full(len(trace), -1, np.int64)
    _integers(address(trace.data), number, start, end, value)
    return value


@reader(lambda base, number, *_: 2 * number.size)
def _integers(base, number, start, end, value):
    for i in range(len(value)):
        if number[i] == INTEGER:
            found, pos = varint(base, np.int64(start[i]), np.int64(end[i]))
            if pos >= 0 and found < np.uint64(2**63):
                value[i] = np.int64(found)


@reader(lambda base, offsets, sizes, *_: int(sizes.sum()) // 2)
def _locate(base, offsets, sizes, blob, ptr, number, start, end):
    for i in range(len(offsets)):
        pos = np.int64(offsets[i])
        stop = pos + np.int64(sizes[i])
        while pos < stop:
            field, wire, pos = tag(base, pos, stop)
            p, pos = skip(base, pos, stop, wire)
            if field != 10 or wire != LENGTH:
                continue
            q = p
            name = name_end = np.int64(0)
            value = value_end = kind = np.int64(0)
            while q < pos:
                inner, w, q = tag(base, q, pos)
                a, q = skip(base, q, pos, w)
                if inner == 1 and w == LENGTH:
                    name, name_end = a, q
                elif 3 <= inner <= 32:
                    kind, value, value_end = inner, a, q
            if kind == 0:
                continue
            for k in range(len(ptr) - 1):
                if name_end - name != ptr[k + 1] - ptr[k]:
                    continue
                same = True
                for j in range(name_end - name):
                    if byte_at(base, name + j) != np.uint64(blob[ptr[k] + j]):
                        same = False
                        break
                if same:
                    number[k, i], start[k, i], end[k, i] = kind, value, value_end
                    break
