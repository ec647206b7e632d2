"""Columns that .et files of this package have beside those of all (see `trace.chakra.own_attributes`)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError
from perfmodel.json_text import check_held
from perfmodel.trace.chakra import own_attributes as own
from perfmodel.trace.chakra.rank_trace import RankTrace
from perfmodel.trace.chakra.rare_attributes import doubles_of, integers_of, locate
from perfmodel.trace.chakra.schema import GlobalMetadata
from perfmodel.workload.program import resources_of
from perfmodel.workload.recorded import Recorded
from perfmodel.workload.training_step import TrainingStep
from perfmodel.workload.work_table import WorkTable


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
        """[n] resource of each node and the labels in use: the file's own where it names one, else the usual.

        The file's own come first, in the order of its table.
        """
        index, labels = resources_of(type, host, stream, thread)
        if self.label is None:
            return index, labels
        texts = list(dict.fromkeys([*filter(None, self.labels), *labels]))
        known = {label: k for k, label in enumerate(texts)}
        index = np.array([*(known[label] for label in labels), -1])[index]
        place = np.array([known.get(label, -1) for label in self.labels], np.int32)
        mine = np.where(self.label >= 0, place[self.label], index).astype(np.int32)
        used = np.unique(mine[mine >= 0])
        number = np.full(len(known) + 1, -1, np.int32)
        number[used] = np.arange(len(used))
        return number[mine], tuple(texts[k] for k in used.tolist())


def own_columns(t: RankTrace) -> OwnColumns:
    """The own attributes of a trace; nothing is looked for in files whose metadata do not announce them.

    Raises:
        TraceError: a table of work that this version does not know, numbers of rows that it does not have, times that
            are none, latencies for another number of prerequisites.
    """
    if not t.metadata or own.MARK.encode() not in t.metadata:
        return OwnColumns()
    said = {a.name: a.string_val for a in GlobalMetadata.FromString(t.metadata).attr}
    if own.MARK not in said:
        return OwnColumns()
    if said[own.MARK] != own.VERSION:
        raise TraceError(
            f"{t.source}: metadata attribute {own.MARK}: got {said[own.MARK]!r:.60}, expected {own.VERSION!r}. Another"
            " version of this package wrote the file: load it there, and save the graph"
        )
    number, start, end = locate(t, own.NAMES)
    row = {name: k for k, name in enumerate(own.NAMES)}
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
    k = row[own.WORK]
    found = OwnColumns(
        duration=duration if np.isfinite(duration).any() else None,
        start=begin if np.isfinite(begin).any() else None,
    )
    if not number[k].any():
        return found
    return _with_work(
        found,
        t,
        said.get(own.WORK, "[]"),
        integers_of(t, number[k], start[k], end[k]),
        number[k] != 0,
    )


def _with_work(
    found: OwnColumns, t: RankTrace, text: str, work: NDArray[np.int64], given: NDArray[np.bool_]
) -> OwnColumns:
    """The columns that stand in the table of work; `work`: [n] rows, of the nodes that are `given` one."""
    check_held(text.encode(), t.source, kind=TraceError)
    try:
        table = WorkTable.of_text(text)
    except (ValueError, RecursionError) as error:
        raise TraceError(
            f"{t.source}: metadata attribute {own.WORK}: {error}. A newer version wrote the file, or it is damaged"
        ) from None
    wrong = np.flatnonzero(given & ((work < 0) | (work >= len(table))))
    if wrong.size:
        raise TraceError(
            f"{t.source}: node {t.id[wrong[0]]}, attribute {own.WORK}: {work[wrong[0]]} is no row of the table in the"
            f" metadata, which has {len(table)}. The file is damaged"
        )
    labels = tuple(dict.fromkeys(word for word in table.resource if word is not None))
    place = {word: k for k, word in enumerate(labels)}
    label = np.array([-1 if word is None else place[word] for word in table.resource] + [-1])
    # the row behind the last one is that of nodes without one
    kind = np.append(table.kind, np.int8(0))[work]
    dtype = np.append(table.dtype, np.int8(-1))[work]
    unknown = np.full((1, table.dimensions.shape[1]), -1, np.int64)
    return replace(
        found,
        kind=kind,
        dimensions=np.concatenate([table.dimensions, unknown])[work],
        dtype=dtype,
        latency=_latencies(t, table, work) if any(table.latency) else None,
        label=label[work] if labels else None,
        labels=labels,
    )


def _latencies(
    t: RankTrace, table: WorkTable, work: NDArray[np.int64]
) -> Callable[[NDArray[np.int64]], NDArray[np.float64]]:
    def latency(ptr: NDArray[np.int64]) -> NDArray[np.float64]:
        values = np.zeros(int(ptr[-1]))
        order = np.argsort(work, kind="stable")
        begin = np.searchsorted(work[order], np.arange(len(table) + 1))
        for k, times in enumerate(table.latency):
            nodes = order[begin[k] : begin[k + 1]]
            if times is None or not len(nodes):
                continue
            wrong = np.flatnonzero(ptr[nodes + 1] - ptr[nodes] != len(times))
            if wrong.size:
                raise TraceError(
                    f"{t.source}: node {t.id[nodes[wrong[0]]]}: row {k} of {own.WORK} has {len(times)} latencies,"
                    " expected one for each of data_deps. The file is damaged"
                )
            values[ptr[nodes][:, None] + np.arange(len(times))] = times
        return values

    return latency


def recording(t: RankTrace) -> Recorded | None:
    """What a file's metadata say of the recording, None where they say nothing.

    Raises:
        TraceError: what they say is not what this package writes.
    """
    text = _metadata_text(t, own.RECORDED)
    if text is None:
        return None
    try:
        return Recorded.of_text(text)
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise TraceError(
            f"{t.source}: metadata attribute {own.RECORDED}: {error}. The file is damaged"
        ) from error


def training_step(traces: Sequence[RankTrace]) -> TrainingStep | None:
    """What the files of all ranks say that they do for a model, None where they say nothing.

    Raises:
        TraceError: some ranks' files say nothing, or what they say is not what this package writes.
    """
    said = {id(t): _metadata_text(t, own.STEP) for t in traces}
    texts = [said[id(t)] for t in traces]
    if not any(texts):
        return None
    found = [text for text in texts if text is not None]
    try:
        if len(found) < len(texts):
            raise ValueError(f"is missing on rank {texts.index(None)}")
        step = TrainingStep.of_texts(found)
        step.check(len(traces), [len(t) for t in traces])
    except (ValueError, TypeError, KeyError, OverflowError, RecursionError) as error:
        raise TraceError(
            f"metadata attribute {own.STEP}: {error}. Files of different workloads were mixed, or one is damaged"
        ) from error
    return step


def _metadata_text(t: RankTrace, name: str) -> str | None:
    """The text of a metadata attribute, None where the file has none of that name."""
    if not t.metadata or name.encode() not in t.metadata:
        return None
    for attribute in GlobalMetadata.FromString(t.metadata).attr:
        if attribute.name == name:
            check_held(attribute.string_val.encode(), t.source, kind=TraceError)
            text: str = attribute.string_val
            return text
    return None
