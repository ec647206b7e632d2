"""The reader of PyTorch's traces: columns of all ranks, and what is known of the recording."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Findings
from perfmodel.trace.pytorch.attribution import SOURCES
from perfmodel.trace.pytorch.devices import accelerator
from perfmodel.trace.pytorch.files import RankFiles, Recordings, find, without_collection
from perfmodel.trace.pytorch.host_work import host_work
from perfmodel.trace.pytorch.read import Recording, replayable
from perfmodel.vocabulary import DTYPES, MOST_DIMENSIONS, OPERATIONS
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.readers import Loaded, LoadOptions
from perfmodel.workload.recorded import Recorded
from perfmodel.workload.tensor_memory import RankTensors


def read_pytorch(trace: Recordings, options: LoadOptions, findings: Findings) -> Loaded:
    """PyTorch's traces of one run: replayed where there are device traces, else work to be modelled.

    Args:
        trace: a Kineto file, a folder, a prefix, a list of files, or of pairs (host trace, device trace).
        options: ranks, step, offsets and recorded_on count.
        findings: gets what is odd.
    """
    wanted = options.ranks
    chosen = range(wanted) if isinstance(wanted, int) else wanted
    with without_collection():
        files = find(trace, chosen)
        if all(f.device is None for f in files):
            return _work(files, findings)
        recording = replayable(files, step=options.step, offsets_from=options.offsets)
    for f in recording.findings:
        findings.add("warning", f.code, f.message, rank=f.rank, remedy=f.remedy)
    return Loaded(
        [_rank_columns(c) for c in recording.ranks],
        recording.groups,
        _origins(recording.files),
        recorded=_recorded(recording, options.recorded_on, findings),
    )


def _origins(paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Name and SHA-256 of each file."""
    return tuple(
        (str(Path(p).resolve()), hashlib.sha256(Path(p).read_bytes()).hexdigest()) for p in paths
    )


def _recorded(recording: Recording, recorded_on: str | None, findings: Findings) -> Recorded:
    device = recorded_on or accelerator(recording.device_name)
    if not device:
        what = (
            f"device {recording.device_name!r} of the recording is not in hwdb"
            if recording.device_name
            else "the traces do not say which device they were recorded on"
        )
        findings.add(
            "warning",
            "unknown-device",
            f"{what}: recorded times stay as they are on other hardware, too",
            remedy='Name it: recorded_on="a100-sxm-80"',
        )
    return Recorded(
        device=device,
        name=recording.device_name,
        ranks=recording.numbers,
        step=recording.figures[0].step,
        operators_linked=tuple(f.operators_linked for f in recording.figures),
        time_attributed=tuple(f.time_attributed for f in recording.figures),
        time_by_source=_time_by_source(recording),
        collectives_matched=recording.matched,
    )


def _time_by_source(recording: Recording) -> dict[str, float]:
    """Share of all ranks' GPU time by where its work is known from; collectives with their pure cost, without the
    wait."""
    seconds = np.zeros(len(SOURCES))
    for c, length in zip(recording.ranks, _lengths(recording)):
        known = c["source"] >= 0
        seconds += np.bincount(c["source"][known], length[known], len(SOURCES))
    total = max(float(seconds.sum()), 1e-30)
    return {word: float(s) / total for word, s in zip(SOURCES, seconds)}


def _lengths(recording: Recording) -> list[NDArray[np.float64]]:
    """Per rank [n] durations [s]; of a collective the least of its members', n-th with n-th."""
    found = [c["duration"].copy() for c in recording.ranks]
    for name, members in recording.groups.items():
        if len(members) > 1:
            columns = [recording.ranks[m] for m in members]
            places = [np.flatnonzero(c["group"] == c["group_names"].index(name)) for c in columns]
            least = np.min([found[m][at] for m, at in zip(members, places)], axis=0)
            for m, at in zip(members, places):
                found[m][at] = least
    return found


def _rank_columns(columns: Mapping[str, Any]) -> RankColumns:
    """The reader's columns as those of every trace format."""
    n = len(columns["id"])
    kind, dtype = np.zeros(n, np.int8), np.full(n, -1, np.int8)
    dimensions = np.full((n, MOST_DIMENSIONS), -1, np.int64)
    for i, work in enumerate(columns["work"]):
        if work is not None:
            kind[i] = OPERATIONS.index(work.kind)
            if work.dtype and work.dimensions:  # what streams through memory asks for no peak
                dtype[i] = DTYPES.index(work.dtype)
            dimensions[i, : len(work.dimensions)] = work.dimensions
    kept = (
        "id", "type", "name", "host", "flops", "bytes", "duration", "start", "comm_type", "size", "group",
        "group_names", "resource", "resources", "edge_from", "edge_to", "edge_latency",
    )  # fmt: skip
    held = columns["held"]
    return RankColumns(
        **{name: columns[name] for name in kept},
        kind=kind,
        dtype=dtype,
        dimensions=dimensions,
        tensors=RankTensors(*held) if held is not None else None,
    )


def _work(files: list[RankFiles], findings: Findings) -> Loaded:
    """Host execution traces without times, as work to be done.

    One file stands for all ranks of its communicators, which do the same in data-parallel training.
    """
    hosts = [f.host for f in files if f.host is not None]
    columns = [_rank_columns(host_work(h)) for h in hosts]
    named = hosts[0].process_groups
    if len(hosts) == 1:
        world = max((max(ranks, default=0) + 1 for ranks in named.values()), default=1)
        columns *= world
        if world > 1:
            findings.add(
                "warning",
                "one-for-all",
                f"{hosts[0].path} stands for all {world} ranks of its communicators",
                remedy="Give the traces of all ranks where they do not do the same",
            )
    every = range(len(columns))
    groups = {
        name: tuple(named[name])
        if name in named and set(named[name]) <= set(every)
        else tuple(every)
        for c in columns
        for name in c.group_names
    }
    findings.add(
        "warning",
        "no-times",
        "host execution traces hold no times: their operators' work is modelled, in the order of the calls",
        remedy="Give Kineto's traces with them to replay what was recorded",
    )
    return Loaded(columns, groups, _origins(h.path for h in hosts))
