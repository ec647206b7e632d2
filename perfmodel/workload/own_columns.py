"""Columns that .et files of this package have beside those of all (see `trace.chakra.own_attributes`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError
from perfmodel.trace.chakra import own_attributes as own
from perfmodel.trace.chakra.locate import doubles_of, lists_of, locate, texts_of
from perfmodel.trace.chakra.schema import GlobalMetadata
from perfmodel.trace.chakra.trace import RankTrace
from perfmodel.vocabulary import DTYPES, MOST_DIMENSIONS, OPERATIONS
from perfmodel.workload.program import resources_of
from perfmodel.workload.recorded import Recorded


@dataclass(frozen=True)
class OwnColumns:
    """What a file's own attributes say; None where it has none of a kind.

    Attributes:
        kind, dimensions, dtype: as in `RankColumns`.
        duration, start: [n] f64, nan where whole microseconds count [s].
        latency: pointers of data_deps [n+1] -> time behind each of them [s].
        label: [n] index into `labels`, -1 for the usual resource.
    """

    kind: NDArray[np.int8] | None = None
    dimensions: NDArray[np.int64] | None = None
    dtype: NDArray[np.int8] | None = None
    duration: NDArray[np.float64] | None = None
    start: NDArray[np.float64] | None = None
    latency: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None = None
    label: NDArray[np.int64] | None = None
    labels: tuple[str, ...] = ()

    def resources_of(
        self, type: NDArray[Any], host: NDArray[Any], stream: NDArray[Any], thread: NDArray[Any]
    ) -> tuple[NDArray[np.int32], tuple[str, ...]]:
        """[n] resource of each node and the labels: the file's own where it names one, else the usual."""
        index, labels = resources_of(type, host, stream, thread)
        if self.label is None:
            return index, labels
        known = {label: k for k, label in enumerate(labels)}
        for label in self.labels:
            if label:
                known.setdefault(label, len(known))
        place = np.array([known.get(label, -1) for label in self.labels], np.int32)
        mine = np.where(self.label >= 0, place[self.label], index).astype(np.int32)
        used = np.unique(mine[mine >= 0])
        number = np.full(len(known) + 1, -1, np.int32)
        number[used] = np.arange(len(used))
        texts = list(known)
        return number[mine], tuple(texts[k] for k in used.tolist())


def own_columns(t: RankTrace) -> OwnColumns:
    """The own attributes of a trace; nothing is looked for in files whose metadata do not announce them.

    Raises:
        TraceError: a kind or dtype that this version does not know, lists of another length than they should have.
    """
    if not t.metadata or own.MARK.encode() not in t.metadata:
        return OwnColumns()
    n = len(t)
    number, start, end = locate(t, own.NAMES)
    row = {name: k for k, name in enumerate(own.NAMES)}

    def words(name: str, known: tuple[str, ...], absent: int) -> NDArray[np.int8] | None:
        k = row[name]
        index, texts = texts_of(t, number[k], start[k], end[k])
        if not texts:
            return None
        for text in texts:
            if text not in known:
                i = int(np.flatnonzero(index == texts.index(text))[0])
                raise TraceError(
                    f"{t.source}: node {t.id[i]}, attribute {name}: {text!r} is none of {', '.join(known)}."
                    " The file was written by a newer version, or is damaged"
                )
        place = np.array([*(known.index(text) for text in texts), absent], np.int8)
        numbers: NDArray[np.int8] = place[index]
        return numbers

    sizes = lists_of(t, *(a[row[own.DIMENSIONS]] for a in (number, start, end)))
    dimensions = None
    if sizes:
        dimensions = np.full((n, MOST_DIMENSIONS), -1, np.int64)
        for i, values in sizes.items():
            if len(values) > MOST_DIMENSIONS:
                raise _wrong_length(t, i, own.DIMENSIONS, len(values), f"at most {MOST_DIMENSIONS}")
            dimensions[i, : len(values)] = values
    k = row[own.DURATION]
    duration = doubles_of(t, number[k], start[k])
    if (duration < 0).any() or np.isinf(duration).any():
        i = int(np.flatnonzero((duration < 0) | np.isinf(duration))[0])
        raise TraceError(
            f"{t.source}: node {t.id[i]}, attribute {own.DURATION}: {duration[i]} is no duration. The file is damaged"
        )
    k = row[own.START]
    begin = doubles_of(t, number[k], start[k])
    if np.isinf(begin).any():
        i = int(np.flatnonzero(np.isinf(begin))[0])
        raise TraceError(
            f"{t.source}: node {t.id[i]}, attribute {own.START}: {begin[i]} is no time. The file is damaged"
        )
    k = row[own.RESOURCE]
    label, labels = texts_of(t, number[k], start[k], end[k])
    late = lists_of(t, *(a[row[own.LATENCY]] for a in (number, start, end)))

    def latency(ptr: NDArray[np.int64]) -> NDArray[np.float64]:
        values = np.zeros(int(ptr[-1]))
        for i, times in late.items():
            if len(times) != ptr[i + 1] - ptr[i] or not all(0 <= x < np.inf for x in times):
                raise _wrong_length(t, i, own.LATENCY, len(times), "a time for each of data_deps")
            values[ptr[i] : ptr[i + 1]] = times
        return values

    return OwnColumns(
        kind=words(own.KIND, OPERATIONS, 0),
        dimensions=dimensions,
        dtype=words(own.DTYPE, DTYPES, -1),
        duration=duration if np.isfinite(duration).any() else None,
        start=begin if np.isfinite(begin).any() else None,
        latency=latency if late else None,
        label=label if labels else None,
        labels=tuple(labels),
    )


def recording(t: RankTrace) -> Recorded | None:
    """What a file's metadata say of the recording, None where they say nothing.

    Raises:
        TraceError: what they say is not what this package writes.
    """
    if not t.metadata or own.RECORDED.encode() not in t.metadata:
        return None
    for attribute in GlobalMetadata.FromString(t.metadata).attr:
        if attribute.name == own.RECORDED:
            try:
                return Recorded.of_text(attribute.string_val)
            except (ValueError, TypeError, KeyError, RecursionError) as error:
                raise TraceError(
                    f"{t.source}: metadata attribute {own.RECORDED}: {error}. The file is damaged"
                ) from error
    return None


def _wrong_length(t: RankTrace, i: int, name: str, got: int, expected: str) -> TraceError:
    return TraceError(
        f"{t.source}: node {t.id[i]}, attribute {name}: has {got} numbers, expected {expected}. The file is damaged"
    )
