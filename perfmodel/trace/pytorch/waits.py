"""Who waits for whom: streams for streams, and the host for the GPU.

**With `cuda_sync` events** (recorded on request) a stream's wait names the record call of the event it waits for: it
is a wait for the last kernel issued on `wait_on_stream` before that call. Where the record call is not in the file,
the time of the wait call stands for it.

**Without them** the calls tell only that somebody waits. PyTorch's own habits fill the gap:

* an NCCL kernel waits for the last kernel that its thread issued before it, on another stream;
* a `cudaStreamWaitEvent` directly in a `record_param_comms` that launches nothing, or in no operator at all (DDP's
  reducer), makes the stream wait for the oldest collective that nobody has waited for yet, first in, first out, those
  of its own thread before others;
* a wait between a launch on one stream and the same thread's next launch on another makes the second wait for the
  first.

**In a CUDA graph** no call says which of its streams waits for which: an event that starts later than its stream
explains waits for the graph's event that was over last before.

A wait that the recorded times refute (the waiting kernel started before) is left out and counted.

**The host** waits in `cudaStreamSynchronize` for the stream on which its thread issued last, in `cudaDeviceSynchronize`
for all streams, in `cudaEventSynchronize` for the event's kernel, and in a copy that returned after it was done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch.kineto import MEMCPY, OPERATOR, RUNTIME, SYNC, Device
from perfmodel.trace.pytorch.launches import Launches
from perfmodel.trace.pytorch.nesting import ancestors
from perfmodel.trace.pytorch.step_window import StepWindow

STREAM_WAIT = ("cudaStreamWaitEvent", "hipStreamWaitEvent", "cuStreamWaitEvent")
STREAM_SYNC = ("cudaStreamSynchronize", "hipStreamSynchronize", "cuStreamSynchronize")
DEVICE_SYNC = ("cudaDeviceSynchronize", "hipDeviceSynchronize", "cuCtxSynchronize")
EVENT_SYNC = ("cudaEventSynchronize", "hipEventSynchronize", "cuEventSynchronize")
PARAMETERS = ("record_param_comms",)
BLOCKED = 20e-6
"""A call on an event that lasts longer has waited [s]; those that do not wait take 2 to 9 us."""

TOLERANCE = 1e-6
"""Times of whole microseconds may be off by one."""


@dataclass(frozen=True)
class StreamWaits:
    """[w] pairs of GPU events (places in `Launches`): `target` starts after `source` is over; `kind` says by which
    rule."""

    source: NDArray[np.int64]
    target: NDArray[np.int64]
    kind: NDArray[np.int8]
    refuted: int


COMPUTE_TO_COLLECTIVE, COLLECTIVE_TO_COMPUTE, RECORDED, SWITCH, GRAPH = range(5)


def stream_waits(
    device: Device, window: StepWindow, work: Launches, parent: NDArray[np.int64]
) -> StreamWaits:
    """Waits between streams; `parent` is the enclosing event of each event of the device trace."""
    if not len(work):
        none = np.zeros(0, np.int64)
        return StreamWaits(none, none, np.zeros(0, np.int8), 0)
    calls = np.flatnonzero(
        device.named(*STREAM_WAIT)
        & (device.category == RUNTIME)
        & (device.start >= window.start)
        & (device.start < window.end)
    )
    calls = calls[np.argsort(device.start[calls], kind="stable")]
    said = np.flatnonzero(
        device.named("Stream Wait Event")
        & (device.category == SYNC)
        & np.isin(device.correlation, device.correlation[calls])
    )
    if len(said):
        parts = [(*_recorded(device, work, said), RECORDED)]
    else:
        parts = [
            (*_into_collectives(work), COMPUTE_TO_COLLECTIVE),
            *_inferred(device, work, calls, parent),
        ]
    parts.append((*_in_graphs(work), GRAPH))
    source = np.concatenate([p[0] for p in parts])
    target = np.concatenate([p[1] for p in parts])
    kind = np.concatenate([np.full(len(p[0]), p[2], np.int8) for p in parts])
    valid = (source >= 0) & (target >= 0)
    valid[valid] = work.stream[source[valid]] != work.stream[target[valid]]
    source, target, kind = source[valid], target[valid], kind[valid]
    holds = work.start[target] >= work.end[source] - TOLERANCE
    return StreamWaits(source[holds], target[holds], kind[holds], int((~holds).sum()))


def _recorded(
    device: Device, work: Launches, said: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Waits that `cuda_sync` events name."""
    calls = np.flatnonzero(device.category == RUNTIME)
    calls = calls[np.argsort(device.correlation[calls], kind="stable")]
    correlations = device.correlation[calls]

    def begun(wanted: NDArray[Any]) -> NDArray[np.float64]:
        at = np.minimum(np.searchsorted(correlations, wanted), len(calls) - 1)
        return np.where(correlations[at] == wanted, device.start[calls[at]], np.nan)

    args = [device.args[i] for i in said.tolist()]
    waited = begun(device.correlation[said])
    record = begun(np.array([_number(a, "wait_on_cuda_event_record_corr_id") for a in args]))
    record = np.where(np.isnan(record), waited, record)
    onto = np.array([_number(a, "wait_on_stream") for a in args])
    gpu = np.array([a.get("device", -1) for a in args], object)
    places = {(str(p), str(s)): i for i, (p, s) in enumerate(device.threads)}

    def place(stream: NDArray[Any]) -> NDArray[np.int64]:
        return np.array(
            [places.get((str(g), str(s)), -1) for g, s in zip(gpu, stream.tolist())], np.int64
        )

    source = work.last_issued(record, place(onto))
    target = work.next_issued(waited, place(device.stream[said]))
    return source, target


def _number(args: Mapping[str, Any], key: str) -> int:
    value = args.get(key, -1)
    return value if isinstance(value, int) else -1


def _into_collectives(work: Launches) -> tuple[NDArray[Any], NDArray[Any]]:
    """An NCCL kernel waits for its thread's last compute kernel before it."""
    target = np.flatnonzero(work.collective)
    source = work.last_by_thread(work.issued[target], work.thread[target], chosen=~work.collective)
    return source, target


def _in_graphs(work: Launches) -> tuple[NDArray[Any], NDArray[Any]]:
    """Waits between the streams of one CUDA graph, whose calls are not in the trace: by the recorded times.

    Where an event starts later than its stream explains, it waited for the event of its graph that was over last
    before.
    """
    sources, targets = [], []
    calls, count = np.unique(work.call[work.call >= 0], return_counts=True)
    for call in calls[count > 1].tolist():
        mine = np.flatnonzero(work.call == call)
        if len(np.unique(work.stream[mine])) < 2:
            continue
        before = work.before[mine]
        free = np.where(before >= 0, work.end[before], work.issued[mine] + work.latency[mine])
        late = mine[
            work.start[mine] - np.maximum(free, work.issued[mine]) > 2 * work.gap + TOLERANCE
        ]
        order = mine[np.argsort(work.end[mine], kind="stable")]
        at = np.searchsorted(work.end[order], work.start[late], side="right") - 1
        sources.append(order[at[at >= 0]])
        targets.append(late[at >= 0])
    none = np.zeros(0, np.int64)
    return np.concatenate([none, *sources]), np.concatenate([none, *targets])


def _inferred(
    device: Device, work: Launches, calls: NDArray[np.int64], parent: NDArray[np.int64]
) -> list[tuple[NDArray[Any], NDArray[Any], int]]:
    """Waits for collectives and between compute streams, from the wait calls and where they stand."""
    operator = device.category == OPERATOR
    communication = device.named(*PARAMETERS) & operator
    launching = np.zeros(len(device), bool)
    inside = ancestors(parent, communication)
    issuing = work.call[work.call >= 0]
    launching[inside[issuing[inside[issuing] >= 0]]] = True
    above = ancestors(parent, operator)[calls]
    of_collective = (above < 0) | (communication[above] & ~launching[above])
    waits = calls[of_collective]
    taken = _oldest(work, device.start[waits], device.thread[waits])
    waits, source = waits[taken >= 0], taken[taken >= 0]
    target = _next_compute(device, work, waits)
    others = np.setdiff1d(calls, waits)
    one = work.last_by_thread(device.start[others], device.thread[others], chosen=~work.collective)
    two = work.next_by_thread(device.start[others], device.thread[others], chosen=~work.collective)
    return [(source, target, COLLECTIVE_TO_COMPUTE), (one, two, SWITCH)]


def _oldest(work: Launches, times: NDArray[Any], threads: NDArray[Any]) -> NDArray[np.int64]:
    """[w] the collective that each wait is for: the oldest of its own thread that nobody has waited for, else of
    any."""
    collective = np.flatnonzero(work.collective)
    collective = collective[np.argsort(work.issued[collective], kind="stable")]
    taken = np.full(len(times), -1, np.int64)
    for thread in np.unique(threads):
        own = collective[work.thread[collective] == thread]
        here = np.flatnonzero(threads == thread)
        number = first_in_first_out(work.issued[own], times[here])
        taken[here[number >= 0]] = own[number[number >= 0]]
    left, here = np.setdiff1d(collective, taken), np.flatnonzero(taken < 0)
    left = left[np.argsort(work.issued[left], kind="stable")]
    number = first_in_first_out(work.issued[left], times[here])
    taken[here[number >= 0]] = left[number[number >= 0]]
    return taken


def _next_compute(device: Device, work: Launches, waits: NDArray[np.int64]) -> NDArray[np.int64]:
    """[w] the next compute event on the stream that the waiting thread uses."""
    at, thread = device.start[waits], device.thread[waits]
    previous = work.last_by_thread(at, thread, chosen=~work.collective)
    following = work.next_by_thread(at, thread, chosen=~work.collective)
    known = np.where(previous >= 0, previous, following)
    stream = np.where(known >= 0, work.stream[known], -1)
    return work.next_issued(at, stream, chosen=~work.collective)


def first_in_first_out(arrivals: NDArray[Any], departures: NDArray[Any]) -> NDArray[np.int64]:
    """[w] which arrival each departure takes, oldest first; -1 where all that arrived before it are gone.

    Both in order of time. Departure j has been served at most one more than the departure before it, and at most
    as many as have arrived: S_j = min over i <= j of (A_i + j - i), and j + 1.

    >>> first_in_first_out(np.array([1.0, 2, 9]), np.array([0.5, 3, 4, 5, 10])).tolist()
    [-1, 0, 1, -1, 2]
    """
    j = np.arange(len(departures))
    arrived = np.searchsorted(arrivals, departures, side="left")
    served = np.minimum(j + 1, np.minimum.accumulate(arrived - j) + j)
    return np.where(np.diff(served, prepend=0) > 0, served - 1, -1)


@dataclass(frozen=True)
class HostWaits:
    """Calls in which the host waits for the GPU.

    Attributes:
        call: [c] the runtime calls in the device trace, in order of start.
        source: [p] GPU events (places in `Launches`) waited for; [p] `of`, the call each belongs to.
        refuted: waits left out because the call returned before.
    """

    call: NDArray[np.int64]
    source: NDArray[np.int64]
    of: NDArray[np.int64]
    refuted: int


def host_waits(device: Device, window: StepWindow, work: Launches) -> HostWaits:
    """Where the host waits. Calls after the end of the step are the profiler's own and left out."""
    inside = (
        (device.category == RUNTIME) & (device.start >= window.start) & (device.start < window.end)
    )
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
    streams = np.flatnonzero(inside & device.named(*STREAM_SYNC))
    if len(streams) and len(work):
        last = work.last_by_thread(device.start[streams], device.thread[streams])
        said = _said_stream(device, streams)
        onto = np.where(said >= 0, said, np.where(last >= 0, work.stream[last], -1))
        parts.append((streams, work.last_issued(device.start[streams], onto)))
    whole = np.flatnonzero(inside & device.named(*DEVICE_SYNC))
    for stream in np.unique(work.stream):
        parts.append((whole, work.last_issued(device.start[whole], np.full(len(whole), stream))))
    events = np.flatnonzero(inside & device.named(*EVENT_SYNC))
    events = events[device.end[events] - device.start[events] > BLOCKED]
    if len(events) and len(work):
        parts.append((events, _latest_end(work, device.start[events], device.end[events])))
    copies = np.flatnonzero(
        (work.call >= 0)
        & (device.category[work.event] == MEMCPY)
        & (work.end <= np.where(work.call >= 0, device.end[work.call], -np.inf))
    )
    parts.append((work.call[copies], copies))
    call = np.concatenate([p[0] for p in parts])
    source = np.concatenate([p[1] for p in parts])
    call, source = call[source >= 0], source[source >= 0]
    holds = work.end[source] <= device.end[call] + TOLERANCE
    refuted = int((~holds).sum())
    call, source = call[holds], source[holds]
    unique = np.unique(call)
    unique = unique[np.lexsort((unique, device.start[unique]))]
    order = np.argsort(unique)
    return HostWaits(unique, source, order[np.searchsorted(unique[order], call)], refuted)


def _said_stream(device: Device, calls: NDArray[np.int64]) -> NDArray[np.int64]:
    """[c] the stream that a `cuda_sync` event says a call waited for, as a place in `Device.threads`; -1 unknown."""
    said = np.flatnonzero((device.category == SYNC) & (device.stream >= 0))
    said = said[np.argsort(device.correlation[said], kind="stable")]
    if not len(said):
        return np.full(len(calls), -1, np.int64)
    wanted = device.correlation[calls]
    at = np.minimum(np.searchsorted(device.correlation[said], wanted), len(said) - 1)
    return np.where(device.correlation[said[at]] == wanted, device.thread[said[at]], -1)


def _latest_end(work: Launches, start: NDArray[Any], end: NDArray[Any]) -> NDArray[np.int64]:
    """[c] the GPU event that was over last before a call returned, and after it began; -1 for none."""
    order = np.argsort(work.end, kind="stable")
    at = np.searchsorted(work.end[order], end, side="right") - 1
    found = order[np.maximum(at, 0)]
    return np.where((at >= 0) & (work.end[found] > start), found, -1)
