"""PyTorch's traces of several ranks in, columns of nodes per rank out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perfmodel.errors import TraceError
from perfmodel.findings import Finding, warning
from perfmodel.trace.pytorch import host_time as host
from perfmodel.trace.pytorch.attribution import TRANSFER
from perfmodel.trace.pytorch.collectives import SEND_RECV, UNKNOWN
from perfmodel.trace.pytorch.columns import RankNodes, rank_nodes
from perfmodel.trace.pytorch.files import RankFiles, Recordings, find, without_collection
from perfmodel.trace.pytorch.memory_changes import in_time
from perfmodel.trace.pytorch.operator_links import OperatorLinks, link
from perfmodel.trace.pytorch.rank_meetings import Meetings, has_tail, meet, offsets
from perfmodel.trace.pytorch.step_window import StepChoice, choose
from perfmodel.trace.pytorch.timeline import timeline
from perfmodel.vocabulary import NodeType

BROADCAST = 5


@dataclass(frozen=True)
class RecordingQuality:
    """How well one rank's recording is understood.

    Attributes:
        rank, step: which rank of the run, which part of it.
        operators_linked: share of operators found in host and device trace; 1 where there is no host trace.
        rule: how they were joined, "" without a host trace.
        time_attributed: share of the GPU's time whose launch lies in a known operator.
        launch_latency, stream_gap: medians of the trace [s].
        offset: when the rank starts after the first of all [s].
    """

    rank: int
    step: str
    operators_linked: float
    rule: str
    time_attributed: float
    launch_latency: float
    stream_gap: float
    offset: float


@dataclass(frozen=True)
class Recording:
    """What a set of PyTorch traces says.

    Attributes:
        ranks: per rank the columns of its nodes by name (see `workload.columns.RankColumns`), in order of rank.
        numbers: the ranks' numbers in the run.
        groups: {communicator: places of its members among `ranks`}.
        device_name: as the driver calls it ("NVIDIA A100-SXM4-80GB"), "" unknown.
        figures: per rank.
        matched: share of collectives that met the other members'.
        findings: what is odd.
        files: all files read.
    """

    ranks: list[dict[str, Any]]
    numbers: tuple[int, ...]
    groups: Mapping[str, tuple[int, ...]]
    device_name: str
    figures: tuple[RecordingQuality, ...]
    matched: float
    findings: list[Finding]
    files: tuple[str, ...]


def read(
    trace: Recordings,
    *,
    ranks: Iterable[int] | None = None,
    step: StepChoice = "last",
    offsets_from: str = "recorded",
) -> Recording:
    """Read the traces of one run: `find` them and `replayable`."""
    with without_collection():
        return replayable(find(trace, ranks), step=step, offsets_from=offsets_from)


def replayable(
    files: Sequence[RankFiles], *, step: StepChoice = "last", offsets_from: str = "recorded"
) -> Recording:
    """Traces of one run as nodes and edges.

    Args:
        files: of all ranks, each with a device trace.
        step: "last", "all", "file", or the number of a ProfilerStep.
        offsets_from: when ranks start: "recorded", "collectives" or "none" (together).

    Raises:
        TraceError: a file that is damaged, or of another run.
        InputError: an option with an unknown value.
    """
    without = next((f.host for f in files if f.device is None), None)
    if without is not None:
        raise TraceError(
            f"{without.path}: is a host execution trace, which holds no times to replay."
        )
    devices = [f.device for f in files if f.device is not None]
    windows = choose(devices, step)
    links = [link(f.host, d) if f.host is not None else None for f, d in zip(files, devices)]
    nodes = [
        rank_nodes(timeline(d, w), f.host, found)
        for f, d, w, found in zip(files, devices, windows, links)
    ]
    begin = offsets(nodes, offsets_from)
    numbers = tuple(f.rank for f in files)
    world = max((d.world for d in devices), default=-1)
    clock = offsets(nodes, "recorded") if offsets_from == "none" else begin
    meetings = meet(nodes, numbers, world, clock)
    names = {d.device_name for d in devices}
    findings = [*meetings.findings, *_findings(nodes, numbers)]
    return Recording(
        ranks=[
            _columns(n, meetings, i, float(begin[i]), f, found)
            for i, (n, f, found) in enumerate(zip(nodes, files, links))
        ],
        numbers=numbers,
        groups=meetings.groups,
        device_name=names.pop() if len(names) == 1 else "",
        figures=tuple(
            _figures(n, f, found, float(b)) for n, f, found, b in zip(nodes, files, links, begin)
        ),
        matched=meetings.matched,
        findings=findings,
        files=tuple(
            p
            for f in files
            for p in (f.host.path if f.host else "", f.device.path if f.device else "")
            if p
        ),
    )


def _findings(nodes: list[RankNodes], numbers: Sequence[int]) -> list[Finding]:
    found = []
    for number, rank in zip(numbers, nodes):
        line = rank.timeline
        lost = int((line.work.call < 0).sum())
        if lost:
            found.append(
                warning(
                    "launch-missing",
                    f"{lost} GPU events have no launch call in the file: they keep their order in the stream",
                    rank=number,
                )
            )
        refuted = line.stream_waits.refuted + line.host_waits.refuted
        if refuted:
            found.append(
                warning(
                    "wait-refuted",
                    f"{refuted} waits that the calls suggest are refuted by the recorded times and left out",
                    rank=number,
                )
            )
        unknown = sum(c.kind == UNKNOWN for c in rank.collective.values())
        if unknown:
            found.append(
                warning(
                    "unknown-collective",
                    f"{unknown} NCCL kernels do not say which collective they are: "
                    "they keep their recorded time on other hardware",
                    rank=number,
                )
            )
    return found


def _figures(
    rank: RankNodes, files: RankFiles, links: OperatorLinks | None, offset: float
) -> RecordingQuality:
    line, work = rank.timeline, rank.timeline.work
    length = work.end - work.start
    total = max(float(length.sum()), 1e-30)
    return RecordingQuality(
        rank=files.rank,
        step=line.window.label,
        operators_linked=links.share if links is not None else 1.0,
        rule=links.rule if links is not None else "",
        time_attributed=float(length[rank.attribution.operator >= 0].sum() / total)
        if len(work)
        else 1.0,
        launch_latency=float(np.median(work.latency)) if len(work) else 0.0,
        stream_gap=work.gap,
        offset=offset,
    )


def _columns(
    rank: RankNodes,
    meetings: Meetings,
    place: int,
    begin: float,
    files: RankFiles,
    links: OperatorLinks | None,
) -> dict[str, Any]:
    """One rank's columns, nodes in order of recorded start."""
    line, time = rank.timeline, rank.timeline.host
    h, n = rank.hosts, len(rank)
    duration = rank.duration.copy()
    start, end = rank.start + begin, rank.end + begin
    first = int(np.flatnonzero((time.thread == line.window.main) & (time.kind == host.BEGIN))[0])
    duration[first], start[first] = begin, 0.0
    after = has_tail(rank)
    for node, rest in meetings.tail[place].items():
        duration[after[node]] = rest
        start[after[node]] -= rest
        end[node] -= rest
        duration[node] = end[node] - start[node]
    order = np.lexsort((np.arange(n), end, start))
    position = np.empty(n, np.int64)
    position[order] = np.arange(n)
    names = list(meetings.groups)
    group = np.full(n, -1, np.int32)
    comm_type, size = np.full(n, -1, np.int32), np.full(n, -1, np.int64)
    kind = np.full(n, int(NodeType.COMP), np.int8)
    number = {name: i for i, name in enumerate(names)}
    on_host = np.arange(n) < h
    kind[h:][rank.attribution.source == TRANSFER] = int(NodeType.MEM_LOAD)
    for node, what in rank.collective.items():
        on_host[node] = False  # what gloo does is communication, not the host's own time
        kind[node] = int(NodeType.COMM_COLL)
        comm_type[node] = what.kind if what.kind not in (SEND_RECV, UNKNOWN) else BROADCAST
        size[node] = what.size if what.kind != UNKNOWN else -1
        group[node] = number[meetings.group[place][node]]
    flops, moved = np.full(n, -1, np.int64), np.full(n, -1, np.int64)
    flops[h:], moved[h:] = rank.attribution.flops, rank.attribution.bytes
    works = [None] * h + rank.attribution.work
    held = in_time(line.device, line.window, time, files.host, links)
    if held is not None:
        held = held._replace(node=position[held.node])
    return {
        "id": np.arange(n, dtype=np.uint64),
        "type": kind[order],
        "name": tuple(rank.name[order].tolist()),
        "host": on_host[order],
        "flops": flops[order],
        "bytes": moved[order],
        "work": tuple(works[i] for i in order.tolist()),
        "duration": duration[order],
        "start": start[order],
        "comm_type": comm_type[order],
        "size": size[order],
        "group": group[order],
        "group_names": tuple(names),
        "resource": rank.resource[order],
        "resources": rank.resources,
        "source": np.concatenate([np.full(h, -1, np.int8), rank.attribution.source])[order],
        "edge_from": position[line.edge_from],
        "edge_to": position[line.edge_to],
        "edge_latency": line.edge_latency,
        "edge_kind": line.edge_kind,
        "end": end[order],
        "held": held,
    }
