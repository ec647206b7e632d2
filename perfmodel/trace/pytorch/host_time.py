"""The host's time, thread by thread, cut where something else depends on it.

A thread's recorded time is cut at the start of every launch, round every call that waits for the GPU, round every
operator that computes (the outermost: `aten::linear`, not the `aten::addmm` in it), and where threads wait for each
other. What lies between two cuts is one node that takes its recorded time, Python's time between operators included.

**Threads.** More than 100 us of silence on the step's main thread, also inside an open operator that does not compute
(backward's), while another thread works is a wait for it. Another thread that was silent with no operator open was
woken: by whatever thread did something last. Both go on as long after that as they did when recorded.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch.kineto import ANNOTATION, MODULE, OPERATOR, RUNTIME, Device
from perfmodel.trace.pytorch.launches import Launches
from perfmodel.trace.pytorch.nesting import outermost
from perfmodel.trace.pytorch.step_window import StepWindow
from perfmodel.trace.pytorch.waits import HostWaits

SILENCE = 100e-6
"""A thread that does nothing for longer [s] may have waited for another one."""

RETURN = 5e-6
"""How long after the GPU's end a waiting call returns [s] where the trace holds none that waited."""

BEGIN, TIME, RESUME, CALL, COLLECTIVE, TAIL = range(6)
"""Kinds of host nodes: a thread's beginning, time that passed, going on after a wait, a call that waits for the GPU, a
collective of the host, and what that still takes on one rank when it is over on another."""

NOT_COMPUTING = ("c10d::", "_c10d_functional::", "autograd::", "torch::")
HOST_COLLECTIVES = ("gloo:", "mpi:", "ucc:")


@dataclass(frozen=True, eq=False)
class HostTime:
    """h host nodes in order of thread and time.

    Attributes:
        thread: [h] i32 place in `Device.threads`; kind: [h] i8.
        start, end: [h] f64 recorded [s]; duration: [h] f64 what is its own [s].
        event: [h] i64 the event that names it, -1 for none.
        chain: [h] i64 the node before it on its thread, -1 for the first.
        wake_from, wake_to, wake_latency: edges between threads: nodes, and [s] from end to start.
        wait_from, wait_to, wait_latency: edges from the GPU (place in `Launches`) to nodes [s].
    """

    thread: NDArray[np.int32]
    kind: NDArray[np.int8]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    duration: NDArray[np.float64]
    event: NDArray[np.int64]
    chain: NDArray[np.int64]
    wake_from: NDArray[np.int64]
    wake_to: NDArray[np.int64]
    wake_latency: NDArray[np.float64]
    wait_from: NDArray[np.int64]
    wait_to: NDArray[np.int64]
    wait_latency: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.thread)

    def ending(self, threads: NDArray[Any], times: NDArray[np.float64]) -> NDArray[np.int64]:
        """[q] the last node of a thread that is over at a time, -1 for none."""
        found = np.full(len(times), -1, np.int64)
        for thread in np.unique(threads):
            mine = np.flatnonzero(self.thread == thread)
            here = np.flatnonzero(threads == thread)
            at = np.searchsorted(self.end[mine], times[here], side="right") - 1
            found[here[at >= 0]] = mine[at[at >= 0]]
        return found


def host_time(
    device: Device, window: StepWindow, work: Launches, waits: HostWaits, parent: NDArray[np.int64]
) -> HostTime:
    """Cut the host's time into nodes; `parent` is the enclosing event of each event."""
    computing = _computing(device)
    gloo = _host_collectives(device)
    inside = (
        np.isin(device.category, (OPERATOR, ANNOTATION, RUNTIME))
        & (device.start < window.end)
        & (device.end > window.start)
        & ((device.thread == window.main) | (device.start >= window.start))
    )
    working = np.unique(
        np.concatenate(
            [
                device.thread[inside & (device.category == OPERATOR)],
                device.thread[inside & gloo],
                work.thread,
                [window.main],
            ]
        )
    )
    inside &= np.isin(device.thread, working)
    boundaries = {int(t): _boundaries(device, inside, window, int(t)) for t in working}
    wakes = _wakes(device, window, boundaries, parent, computing, inside)
    outer = outermost(parent, computing & inside)
    operators = np.unique(outer[inside & (outer >= 0)])
    rows = []
    for t in working.tolist():
        cuts = [
            boundaries[t][:1],
            device.start[operators[device.thread[operators] == t]],
            device.end[operators[device.thread[operators] == t]],
            work.issued[(work.thread == t) & (work.call >= 0)],
            device.start[waits.call[device.thread[waits.call] == t]],
            device.end[waits.call[device.thread[waits.call] == t]],
            wakes.start[wakes.thread == t],
            wakes.end[wakes.thread == t],
            wakes.when[wakes.by == t],
        ]
        if t == window.main:
            cuts.append(np.array([window.start, window.end]))
        else:
            cuts.append(boundaries[t][-1:])
        blocks = np.flatnonzero(gloo & inside & (device.thread == t))
        cuts += [device.start[blocks], device.end[blocks]]
        rows.append(_rows(t, np.concatenate(cuts), device, waits, wakes, blocks, boundaries[t]))
    return _assemble(rows, device, waits, wakes, work, parent, inside, outer, window)


def _computing(device: Device) -> NDArray[np.bool_]:
    """[n] operators of a library that compute something: "aten::mm", "fbgemm::...", not "c10d::..." or
    "autograd::..."."""
    names = [("::" in n) and not n.startswith(NOT_COMPUTING) for n in device.names]
    computing: NDArray[np.bool_] = np.array([*names, False], bool)[device.name] & (
        device.category == OPERATOR
    )
    return computing


def _host_collectives(device: Device) -> NDArray[np.bool_]:
    names = [n.startswith(HOST_COLLECTIVES) for n in device.names]
    return np.array([*names, False], bool)[device.name] & np.isin(
        device.category, (OPERATOR, ANNOTATION)
    )


def _boundaries(
    device: Device, inside: NDArray[Any], window: StepWindow, thread: int
) -> NDArray[Any]:
    """Times at which anything begins or ends on a thread, in order."""
    mine = inside & (device.thread == thread)
    times = np.concatenate([device.start[mine], device.end[mine]])
    if thread == window.main:
        times = np.concatenate(
            [np.clip(times, window.start, window.end), [window.start, window.end]]
        )
    return np.unique(times)


@dataclass(frozen=True)
class _Wakes:
    """Silences [start, end] of a thread that end because thread `by` did something at `when`."""

    thread: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    by: NDArray[np.int64]
    when: NDArray[np.float64]


def _wakes(
    device: Device,
    window: StepWindow,
    boundaries: Mapping[int, NDArray[np.float64]],
    parent: NDArray[np.int64],
    computing: NDArray[np.bool_],
    inside: NDArray[np.bool_],
) -> _Wakes:
    """Who woke whom."""
    found = []
    for thread, times in boundaries.items():
        gap = np.flatnonzero(np.diff(times) > SILENCE)
        start, end = times[gap], times[gap + 1]
        if len(gap):
            open_ = _open(device, inside, parent, thread, (start + end) / 2)
            category = device.category[open_]
            if thread == window.main:
                free = (open_ < 0) | ((category != RUNTIME) & ~computing[open_])
            else:
                free = open_ < 0
            start, end = start[free], end[free]
        if thread != window.main:  # what it does first, somebody asked for
            start = np.concatenate([[window.start - 1.0], start])
            end = np.concatenate([times[:1], end])
        by, when = np.full(len(start), -1, np.int64), np.full(len(start), -np.inf)
        for other, moments in boundaries.items():
            if other == thread:
                continue
            if thread == window.main:
                mine = inside & (device.thread == other)
                moments = np.unique(device.end[mine])
            at = np.searchsorted(moments, end, side="left") - 1
            moment = np.where(at >= 0, moments[np.maximum(at, 0)], -np.inf)
            better = (moment > start) & (moment > when)
            by[better], when[better] = other, moment[better]
        found.append((np.full(len(by), thread), start, end, by, when))
    columns = [np.concatenate([f[i] for f in found]) for i in range(5)]
    known = columns[3] >= 0
    return _Wakes(*(c[known] for c in columns))


def _open(
    device: Device,
    inside: NDArray[np.bool_],
    parent: NDArray[np.int64],
    thread: int,
    times: NDArray[Any],
) -> NDArray[np.int64]:
    """[q] the innermost event of a thread that is open at each time, -1 for none."""
    mine = np.flatnonzero(inside & (device.thread == thread))
    if not len(mine):
        return np.full(len(times), -1, np.int64)
    at = np.searchsorted(device.start[mine], times, side="right") - 1
    found = np.where(at >= 0, mine[np.maximum(at, 0)], -1)
    while True:
        over = (found >= 0) & (device.end[found] <= times)
        if not over.any():
            return found
        found[over] = parent[found[over]]


def _rows(
    thread: int,
    cuts: NDArray[np.float64],
    device: Device,
    waits: HostWaits,
    wakes: _Wakes,
    blocks: NDArray[np.int64],
    boundaries: NDArray[np.float64],
) -> list[NDArray[Any]]:
    """[r] start, end, kind and subject (call or collective) of a thread's nodes."""
    cuts = np.unique(np.clip(cuts, boundaries[0], boundaries[-1]))
    mine = wakes.thread == thread
    calls = np.flatnonzero(device.thread[waits.call] == thread)
    spans = [
        (wakes.start[mine], wakes.end[mine], RESUME, np.full(int(mine.sum()), -1)),
        (device.start[waits.call[calls]], device.end[waits.call[calls]], CALL, calls),
        (device.start[blocks], device.end[blocks], COLLECTIVE, blocks),
    ]
    keep = np.ones(len(cuts), bool)
    for begin, finish, _, _ in spans:  # nothing is cut within them
        depth = np.searchsorted(np.sort(begin), cuts, "left") - np.searchsorted(
            np.sort(finish), cuts, "right"
        )
        keep &= depth <= 0
    cuts = cuts[keep]
    start, end = cuts[:-1], cuts[1:]
    kind = np.full(len(start), TIME, np.int8)
    subject = np.full(len(start), -1, np.int64)
    for begin, finish, what, who in spans:
        at = np.searchsorted(start, begin)
        fits = (at < len(start)) & (begin >= cuts[0])
        fits[fits] = (start[at[fits]] == begin[fits]) & (end[at[fits]] == finish[fits])
        kind[at[fits]] = what
        subject[at[fits]] = who[fits]
    first = cuts[:1]
    after = np.isin(kind, (CALL, COLLECTIVE))
    return [
        np.concatenate([first, start, end[after]]),
        np.concatenate([first, end, end[after]]),
        np.concatenate([[BEGIN], kind, np.where(kind[after] == CALL, RESUME, TAIL)]).astype(
            np.int8
        ),
        np.concatenate([[-1], subject, subject[after]]).astype(np.int64),
        np.full(1 + len(start) + int(after.sum()), thread, np.int32),
    ]


def _assemble(
    rows: Sequence[Sequence[NDArray[Any]]],
    device: Device,
    waits: HostWaits,
    wakes: _Wakes,
    work: Launches,
    parent: NDArray[np.int64],
    inside: NDArray[np.bool_],
    outer: NDArray[np.int64],
    window: StepWindow,
) -> HostTime:
    start, end, kind, subject, thread = (np.concatenate([r[i] for r in rows]) for i in range(5))
    order = np.lexsort((np.isin(kind, (RESUME, TAIL)), kind != BEGIN, end, start, thread))
    start, end, kind, subject, thread = (
        start[order],
        end[order],
        kind[order],
        subject[order],
        thread[order],
    )
    duration = end - start
    chain = np.where(np.diff(thread, prepend=-1) == 0, np.arange(len(thread)) - 1, -1)
    duration[(kind == RESUME) | (kind == BEGIN)] = 0.0
    wait_latency, own = _returns(device, waits, work)
    calls = kind == CALL
    duration[calls] = own[subject[calls]]
    after = np.full(len(waits.call), -1, np.int64)
    resumed = (kind == RESUME) & (subject >= 0)
    after[subject[resumed]] = np.flatnonzero(resumed)
    known = after[waits.of] >= 0
    found = HostTime(
        thread=thread,
        kind=kind,
        start=np.where(kind == RESUME, end, start),
        end=end,
        duration=duration,
        event=_names(device, start, end, kind, subject, thread, parent, inside, outer),
        chain=chain,
        wake_from=np.zeros(0, np.int64),
        wake_to=np.zeros(0, np.int64),
        wake_latency=np.zeros(0),
        wait_from=waits.source[known],
        wait_to=after[waits.of[known]],
        wait_latency=wait_latency[known],
    )
    source = found.ending(wakes.by, wakes.when)
    target = found.ending(wakes.thread, wakes.end)
    linked = (source >= 0) & (target >= 0)
    linked[linked] &= np.isin(kind[target[linked]], (RESUME, BEGIN)) & (
        found.end[target[linked]] == wakes.end[linked]
    )
    late = wakes.end - found.end[source]
    return HostTime(
        **{
            **vars(found),
            "wake_from": source[linked],
            "wake_to": target[linked],
            "wake_latency": late[linked],
        }
    )


def _returns(device: Device, waits: HostWaits, work: Launches) -> tuple[NDArray[Any], NDArray[Any]]:
    """[p] s from the GPU's end to the call's return; [c] s that a call takes where there is nothing to wait for.

    A call that waited returns as long after the last thing it waited for as recorded. The others return a median later
    at the earliest, or as soon as they did.
    """
    if not len(waits.call):
        return np.zeros(0), np.zeros(0)
    start, end = device.start[waits.call], device.end[waits.call]
    last = np.full(len(waits.call), -np.inf)
    np.maximum.at(last, waits.of, work.end[waits.source])
    waited = last > start
    late = np.maximum(end - last, 0.0)
    usual = float(np.median(late[waited])) if waited.any() else RETURN
    own = np.where(waited, np.minimum(end - start, late), end - start)
    latency = np.where(waited, late, np.minimum(late, usual))
    return latency[waits.of], own


def _names(
    device: Device,
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    kind: NDArray[np.int8],
    subject: NDArray[np.int64],
    thread: NDArray[np.int32],
    parent: NDArray[np.int64],
    inside: NDArray[np.bool_],
    outer: NDArray[np.int64],
) -> NDArray[np.int64]:
    """[h] the event that a node is named by: the outermost operator that computes, else the innermost open event."""
    event = np.full(len(start), -1, np.int64)
    inside = inside | (device.category == MODULE)
    for t in np.unique(thread):
        mine = np.flatnonzero((thread == t) & (kind != BEGIN))
        event[mine] = _open(device, inside, parent, int(t), (start[mine] + end[mine]) / 2)
    runtime = (event >= 0) & (device.category[event] == RUNTIME)
    while runtime.any():
        event[runtime] = parent[event[runtime]]
        runtime = (event >= 0) & (device.category[event] == RUNTIME)
    computed = (event >= 0) & (outer[event] >= 0)
    event[computed] = outer[event[computed]]
    chosen = np.isin(kind, (COLLECTIVE, TAIL))
    event[chosen] = subject[chosen]
    return event
