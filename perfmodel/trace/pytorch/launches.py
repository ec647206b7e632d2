"""What the GPU did, which call launched it, and how long launches and gaps in a stream take.

A kernel starts when its launch has arrived, L after the launch call began, and the one before it on its stream is over
for g; later if it waits for another stream. L and g are medians of the trace, each over the kernels that it decides
about: L where the stream was idle, g where the kernel stood in the queue. Where the call itself was held up (a full
queue, a module loaded on first use: up to 29 ms in one step) the kernel comes as late after it as recorded.

A GPU event is joined to its launch by `correlation`. "External id" is not used: in many traces it repeats the
correlation and meets unrelated operators.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch.kineto import KERNEL, MEMCPY, ON_DEVICE, RUNTIME, Device
from perfmodel.trace.pytorch.step_window import StepWindow

LATENCY, GAP = 7e-6, 1.5e-6
"""Stand for L and g [s] where a trace has no kernel to measure them by (medians of V100 and A100 traces)."""

ENOUGH = 5
"""Copies, memsets or kernels that launched into an idle stream, from which on their own median counts."""

BLOCKED = 10
"""A launch call that lasts this many times L was held up, and its kernel with it."""

COLLECTIVE_KERNELS = ("nccl", "rccl")
"""Words in the names of kernels that communicate, in lower case."""


@dataclass(frozen=True, eq=False)
class Launches:
    """The GPU work of a window: k events in order of start.

    Attributes:
        event: [k] i64 place in the device trace.
        start, end: [k] f64 [s].
        stream: [k] i32 place in `Device.threads`.
        call: [k] i64 launch call in the device trace, -1 where the file lacks it.
        issued: [k] f64 when the call began [s]; where it is lacking, `latency` before the start.
        thread: [k] i32 host thread that launched it; where the call is lacking, that of the stream's neighbour.
        before: [k] i64 the event before it on its stream, as a place among the k; -1 for the first.
        collective: [k] bool, an NCCL or RCCL kernel.
        latency: [k] f64 from the call's begin to the earliest start [s]: L, but as recorded where the call blocked.
        gap: g [s].
        busy: {stream: when earlier work leaves it [s]}.
    """

    event: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    stream: NDArray[np.int32]
    call: NDArray[np.int64]
    issued: NDArray[np.float64]
    thread: NDArray[np.int32]
    before: NDArray[np.int64]
    collective: NDArray[np.bool_]
    latency: NDArray[np.float64]
    gap: float
    busy: dict[int, float]

    def __len__(self) -> int:
        return len(self.event)

    def last_issued(
        self,
        times: NDArray[np.float64],
        streams: NDArray[Any],
        *,
        chosen: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """[w] the last event issued on a stream before a time, -1 for none."""
        return self._around(times, streams, self.stream, chosen, after=False)

    def next_issued(
        self,
        times: NDArray[np.float64],
        streams: NDArray[Any],
        *,
        chosen: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """[w] the first event issued on a stream at or after a time, -1 for none."""
        return self._around(times, streams, self.stream, chosen, after=True)

    def last_by_thread(
        self,
        times: NDArray[np.float64],
        threads: NDArray[Any],
        *,
        chosen: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """[w] the last event that a thread issued before a time, -1 for none."""
        return self._around(times, threads, self.thread, chosen, after=False)

    def next_by_thread(
        self,
        times: NDArray[np.float64],
        threads: NDArray[Any],
        *,
        chosen: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """[w] the first event that a thread issued at or after a time, -1 for none."""
        return self._around(times, threads, self.thread, chosen, after=True)

    def _around(
        self,
        times: NDArray[np.float64],
        keys: NDArray[Any],
        key_of: NDArray[Any],
        chosen: NDArray[np.bool_] | None,
        *,
        after: bool,
    ) -> NDArray[np.int64]:
        places = np.flatnonzero(chosen) if chosen is not None else np.arange(len(self))
        found = np.full(len(times), -1, np.int64)
        for key in np.unique(keys):  # a handful of streams or threads
            mine = places[key_of[places] == key]
            mine = mine[np.lexsort((mine, self.issued[mine]))]
            here = np.flatnonzero(keys == key)
            at = np.searchsorted(self.issued[mine], times[here], side="left") - (not after)
            inside = (at >= 0) & (at < len(mine))
            found[here[inside]] = mine[at[inside]]
        return found


def launches(device: Device, window: StepWindow) -> Launches:
    """The GPU work that the window's host calls launched, and what lies between where the call is lacking."""
    gpu = np.flatnonzero(np.isin(device.category, ON_DEVICE))
    gpu = gpu[np.lexsort((gpu, device.start[gpu]))]
    call = _calls(device, gpu)
    known = call >= 0
    issued = np.where(known, device.start[call], device.start[gpu])
    inside = (issued >= window.start) & (issued < window.end)
    earlier = gpu[issued < window.start]
    busy = {
        int(s): float(device.end[earlier[device.thread[earlier] == s]].max())
        for s in np.unique(device.thread[earlier])
    }
    gpu, call, known, issued = gpu[inside], call[inside], known[inside], issued[inside]
    stream = device.thread[gpu]
    before = _before(stream, len(device.threads))
    start, end = device.start[gpu], device.end[gpu]
    plain = known & ~_forks(call, stream)
    latency, gap = _medians(start, end, issued, plain, before, device.category[gpu])
    issued = np.where(known, issued, start - latency)
    thread = np.where(known, device.thread[call], -1).astype(np.int32)
    return Launches(
        event=gpu,
        start=start,
        end=end,
        stream=stream,
        call=call,
        issued=issued,
        thread=_fill(thread, stream, window.main),
        before=before,
        collective=device.named(*COLLECTIVE_KERNELS, whole=False)[gpu]
        & (device.category[gpu] == KERNEL),
        latency=np.where(
            _blocked(device, start, end, issued, call, before, latency), start - issued, latency
        ),
        gap=gap,
        busy={s: t for s, t in busy.items() if t > window.start},
    )


def _calls(device: Device, gpu: NDArray[np.int64]) -> NDArray[np.int64]:
    """[k] the runtime call with the same correlation, -1 for none."""
    calls = np.flatnonzero((device.category == RUNTIME) & (device.correlation > 0))
    calls = calls[np.argsort(device.correlation[calls], kind="stable")]
    if not len(calls):
        return np.full(len(gpu), -1, np.int64)
    wanted = device.correlation[gpu]
    at = np.minimum(np.searchsorted(device.correlation[calls], wanted), len(calls) - 1)
    return np.where((wanted > 0) & (device.correlation[calls[at]] == wanted), calls[at], -1)


def _before(stream: NDArray[np.int32], streams: int) -> NDArray[np.int64]:
    """[k] the event before each on its stream; events stand in order of start."""
    order = np.argsort(stream, kind="stable")
    before = np.full(len(stream), -1, np.int64)
    same = stream[order[1:]] == stream[order[:-1]]
    before[order[1:][same]] = order[:-1][same]
    return before


def _forks(call: NDArray[np.int64], stream: NDArray[np.int32]) -> NDArray[np.bool_]:
    """[k] events of a CUDA graph with several streams, which wait for each other by rules that no call shows."""
    pairs = np.unique(np.stack([call, stream.astype(np.int64)]), axis=1)
    calls, streams = np.unique(pairs[0], return_counts=True)
    return np.isin(call, calls[(streams > 1) & (calls >= 0)])


def _medians(
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    issued: NDArray[np.float64],
    plain: NDArray[np.bool_],
    before: NDArray[np.int64],
    category: NDArray[np.int8],
) -> tuple[NDArray[np.float64], float]:
    """[k] L, of kernels, copies and memsets apart where there are enough of them, and g [s]."""
    free = np.where(before >= 0, end[before], -np.inf)
    idle = plain & (free <= issued)
    latency = np.full(
        len(start), max(float(np.median((start - issued)[idle])), 0.0) if idle.any() else LATENCY
    )
    for c in np.unique(category):
        own = idle & (category == c)
        if own.sum() >= ENOUGH:
            latency[category == c] = max(float(np.median((start - issued)[own])), 0.0)
    queued = plain & (before >= 0) & (free >= issued + latency)
    gap = float(np.median((start - free)[queued])) if queued.any() else GAP
    return latency, max(gap, 0.0)


def _blocked(
    device: Device,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    issued: NDArray[np.float64],
    call: NDArray[np.int64],
    before: NDArray[np.int64],
    latency: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """[k] launches whose call lasted long in the driver (a full queue, lazy loading), on a stream that was idle."""
    length = np.where(call >= 0, device.end[call] - device.start[call], 0.0)
    free = np.where(before >= 0, end[before], -np.inf)
    blocked: NDArray[np.bool_] = (
        (length > BLOCKED * latency) & (free < start - latency) & (start > issued + latency)
    )
    return blocked


def _fill(thread: NDArray[np.int32], stream: NDArray[np.int32], main: int) -> NDArray[np.int32]:
    """Threads of events without a call: that of the event before on the stream, else of the next, else the main one."""
    thread = thread.copy()
    for s in np.unique(stream[thread < 0]):
        mine = np.flatnonzero(stream == s)
        known = mine[thread[mine] >= 0]
        lacking = mine[thread[mine] < 0]
        if len(known):
            at = np.maximum(np.searchsorted(known, lacking) - 1, 0)
            thread[lacking] = thread[known[at]]
        else:
            thread[lacking] = main
    return thread


def is_copy(device: Device, work: Launches) -> NDArray[np.bool_]:
    """[k] memory copies."""
    copies: NDArray[np.bool_] = device.category[work.event] == MEMCPY
    return copies
