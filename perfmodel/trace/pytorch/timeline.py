"""What one rank did as nodes and edges: host time, GPU work, and everything that waits for something."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch import host_time as host
from perfmodel.trace.pytorch.host_time import HostTime, host_time
from perfmodel.trace.pytorch.kineto import Device
from perfmodel.trace.pytorch.launches import Launches, launches
from perfmodel.trace.pytorch.nesting import parents
from perfmodel.trace.pytorch.step_window import StepWindow
from perfmodel.trace.pytorch.waits import HostWaits, StreamWaits, host_waits, stream_waits

LAUNCH, STREAM, INTO_COLLECTIVE, OUT_OF_COLLECTIVE, WAIT, HOST, THREAD, CHAIN, BUSY = range(9)
"""Kinds of edges: launch to kernel, order in a stream, a collective's wait for compute and compute's for a collective,
other waits between streams, the host's for the GPU, between threads, order in a thread, GPU work from before the
step."""


@dataclass(frozen=True, eq=False)
class RankTimeline:
    """What one rank did: h host nodes, then k GPU nodes, and edges between them.

    Attributes:
        device, window, parent: where it comes from; parent: [n] the enclosing event of each event.
        host, work: host nodes and GPU events.
        stream_waits, host_waits: which of them wait.
        edge_from, edge_to: [e] positions; edge_latency: [e] [s]; edge_kind: [e].
    """

    device: Device
    window: StepWindow
    parent: NDArray[np.int64]
    host: HostTime
    work: Launches
    stream_waits: StreamWaits
    host_waits: HostWaits
    edge_from: NDArray[np.int64]
    edge_to: NDArray[np.int64]
    edge_latency: NDArray[np.float64]
    edge_kind: NDArray[np.int8]


def timeline(device: Device, window: StepWindow) -> RankTimeline:
    """Cut a rank's window into nodes and find what waits for what."""
    parent = parents(device.thread, device.start, device.end)
    work = launches(device, window)
    streams = stream_waits(device, window, work, parent)
    waits = host_waits(device, window, work)
    time = host_time(device, window, work, waits, parent)
    parts = _edges(device, window, time, work, streams)
    columns = [np.concatenate([np.asarray(p[i]) for p in parts]) for i in range(3)]
    kind = np.concatenate([np.broadcast_to(np.asarray(p[3], np.int8), len(p[0])) for p in parts])
    return RankTimeline(
        device,
        window,
        parent,
        time,
        work,
        streams,
        waits,
        columns[0].astype(np.int64),
        columns[1].astype(np.int64),
        columns[2].astype(np.float64),
        kind,
    )


def _edges(
    device: Device, window: StepWindow, time: HostTime, work: Launches, streams: StreamWaits
) -> list[tuple[Any, ...]]:
    """(from, to, latency, kind) of every kind of edge; GPU nodes stand after the h host nodes."""
    h = len(time)
    main = int(np.flatnonzero((time.thread == window.main) & (time.kind == host.BEGIN))[0])
    chained = np.flatnonzero(time.chain >= 0)
    first = np.flatnonzero((time.kind == host.BEGIN) & ~np.isin(np.arange(h), time.wake_to))
    first = first[first != main]
    gpu = np.arange(len(work))
    idle = (work.before < 0) | (work.end[work.before] < work.issued)
    issued = gpu[(work.call >= 0) | idle]
    launch = time.ending(work.thread[issued], work.issued[issued])
    known = launch >= 0
    issued, launch = issued[known], launch[known]
    late = np.where(
        work.call[issued] >= 0,
        work.issued[issued] - time.end[launch],
        work.start[issued] - work.latency[issued] - time.end[launch],
    )
    later = gpu[work.before >= 0]
    begun = gpu[(work.before < 0) & np.isin(work.stream, list(work.busy))]
    busy = np.array([work.busy[int(s)] for s in work.stream[begun]]) - window.start
    between = np.full(len(streams.source), WAIT, np.int8)
    between[work.collective[streams.target]] = INTO_COLLECTIVE
    between[work.collective[streams.source]] = OUT_OF_COLLECTIVE
    return [
        (time.chain[chained], chained, np.zeros(len(chained)), CHAIN),
        (np.full(len(first), main), first, time.end[first] - window.start, THREAD),
        (time.wake_from, time.wake_to, time.wake_latency, THREAD),
        (h + time.wait_from, time.wait_to, time.wait_latency, HOST),
        (launch, h + issued, work.latency[issued] + late, LAUNCH),
        (h + work.before[later], h + later, np.full(len(later), work.gap), STREAM),
        (np.full(len(begun), main), h + begun, busy + work.gap, BUSY),
        (h + streams.source, h + streams.target, np.full(len(streams.source), work.gap), between),
    ]
