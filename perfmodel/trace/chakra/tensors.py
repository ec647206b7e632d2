"""Tensors that nodes name as STAGE does: attributes `inputs` and `outputs`, lists of a name and a size in turn.

Any generator may tag its nodes so. Sizes are decimal texts of whole bytes [B]; tensors of size 0 do not count.

Source: astra-sim/stage; ASTRA-sim's local memory tracker reads the same lists.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.chakra.attributes import decimal
from perfmodel.trace.chakra.rank_trace import RankTrace
from perfmodel.trace.chakra.rare_attributes import TEXTS, locate
from perfmodel.trace.chakra.wire import LENGTH, address, reader, skip, tag

SIDES = ("inputs", "outputs")


class Named(NamedTuple):
    """Tensors as nodes name them, u of them.

    Attributes:
        node: [u] i64, position in the file; written: [u] bool, among its outputs.
        tensor: [u] i64, equal for equal names; size: [u] i64 [B].
    """

    node: NDArray[np.int64]
    written: NDArray[np.bool_]
    tensor: NDArray[np.int64]
    size: NDArray[np.int64]


def named(trace: RankTrace) -> Named | None:
    """The tensors of a trace; None where it names none, or some list is none of names and sizes."""
    if not all(side.encode() in trace.data for side in SIDES):
        return None  # most files, which need no second pass
    number, start, end = locate(trace, SIDES)
    if not (number == TEXTS).any():
        return None
    parts = []
    for side in (0, 1):
        here = np.flatnonzero(number[side] == TEXTS)
        base = address(trace.data)
        count = _walk(base, start[side, here], end[side, here], *_room(0))
        if count < 0:
            return None
        place, size, first, last = room = _room(count)
        _walk(base, start[side, here], end[side, here], *room)
        parts.append((here[place], np.full(count, side == 1), size, first, last))
    node, written, size, first, last = (np.concatenate(column) for column in zip(*parts))
    known: dict[bytes, int] = {}
    tensor = np.array(
        [
            known.setdefault(trace.data[a:b], len(known))
            for a, b in zip(first.tolist(), last.tolist())
        ],
        np.int64,
    )
    kept = size > 0
    if not kept.any():
        return None
    return Named(node[kept], written[kept], tensor[kept], size[kept])


def _room(count: int) -> tuple[NDArray[np.int64], ...]:
    return tuple(np.zeros(count, np.int64) for _ in range(4))


@reader(lambda base, start, end, *_: int((end - start).sum()) // 2)
def _walk(base, start, end, place, size, first, last):
    """How many tensors the lists hold, -1 where one is no list of names and sizes; filled in where there is room."""
    found = 0
    for i in range(len(start)):
        pos, stop, count = np.int64(start[i]), np.int64(end[i]), 0
        a = b = np.int64(0)
        while pos < stop:
            field, wire, pos = tag(base, pos, stop)
            if pos < 0:
                return -1
            p, pos = skip(base, pos, stop, wire)
            if pos < 0:
                return -1
            if field != 1 or wire != LENGTH:
                continue
            if count % 2 == 0:
                a, b = p, pos
            else:
                status, value = decimal(base, p, pos)
                if status != 0 or value < 0:
                    return -1
                if found < len(place):
                    place[found], size[found], first[found], last[found] = i, value, a, b
                found += 1
            count += 1
        if count % 2:
            return -1
    return found
