"""Memory over a rank's nodes: from Kineto's memory events where they were recorded, else from tensors' lifetimes.

Kineto's events "[memory]" (`profile_memory=True`) are the allocator's own count: every block that it gives out or takes
back, with all that is then allocated on the device. They see what no operator names, and say nothing of the CUDA
context and of what the allocator itself holds in reserve.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.trace.pytorch.host_time import HostTime
from perfmodel.trace.pytorch.host_trace import HostTrace
from perfmodel.trace.pytorch.kineto import Allocations, Device
from perfmodel.trace.pytorch.lifetimes import SEES, Calls, changes, lifetimes
from perfmodel.trace.pytorch.operator_links import OperatorLinks
from perfmodel.trace.pytorch.step_window import StepWindow

ALLOCATED = (
    "Kineto's memory events: what the allocator had given out, without the CUDA context, libraries' own memory and"
    " what the allocator holds in reserve"
)


class MemoryChanges(NamedTuple):
    """Bytes before the first node; the nodes that let memory grow as they begin or shrink (< 0) as they end, and by how
    much [B]; what it is read from and what that cannot see."""

    before: float
    node: NDArray[np.int64]
    change: NDArray[np.float64]
    source: str


def at_nodes(where: ArrayLike, change: ArrayLike) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Changes in the order in which they happened, as one growth and one shrinking of each node.

    While a node runs memory may go up and down many times. It grows by the most that there is at any moment as the node
    begins, and shrinks to what is left as it ends.

    Args:
        where: [c] positions of the nodes during which the changes happen; change: [c] [B].

    Returns:
        node, change: each node at most twice.

    >>> at_nodes([0, 0, 0, 1], [3, -3, 4, -2])
    (array([0, 1]), array([ 4., -2.]))
    >>> at_nodes([0, 0, 0], [3, -3, 2])
    (array([0, 0]), array([ 3., -1.]))
    """
    place, by = np.asarray(where, np.int64), np.asarray(change, np.float64)
    order = np.argsort(place, kind="stable")
    place, by = place[order], by[order]
    if not len(place):
        return place, by
    starts = np.flatnonzero(np.append(True, np.diff(place) > 0))
    run = np.cumsum(by)
    base = np.repeat(run[starts] - by[starts], np.diff(np.append(starts, len(place))))
    most = np.maximum(np.maximum.reduceat(run - base, starts), 0)
    left = (run - base)[np.append(starts[1:], len(place)) - 1]
    node = np.repeat(place[starts], 2)
    both = np.stack([most, left - most], axis=1).ravel()
    kept = both != 0
    return node[kept], both[kept]


def in_order_of_calls(trace: HostTrace, chosen: Sequence[int]) -> MemoryChanges | None:
    """Of a host trace without times.

    Args:
        chosen: the calls that are nodes, in the order of the calls.
    """
    calls, order = calls_of(trace)
    lives = lifetimes(calls)
    if lives is None or not len(chosen):
        return None
    before, moment, change = changes(lives)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    called = place[np.asarray(chosen)]
    call = moment // 2
    begins = np.searchsorted(called, call)  # the first node at or after a call that is none itself
    ends = np.searchsorted(called, call, side="right") - 1
    where = np.clip(np.where(moment % 2 == 0, begins, ends), 0, len(called) - 1)
    return MemoryChanges(before, *at_nodes(where, change), SEES)


def in_time(
    device: Device,
    window: StepWindow,
    time: HostTime,
    trace: HostTrace | None,
    links: OperatorLinks | None,
) -> MemoryChanges | None:
    """Of a device trace, with its host trace or without: positions are those of the host's nodes in `time`."""
    if device.allocations is not None:
        when, thread, by, before = _allocated(device.allocations)
        source, ends = ALLOCATED, np.zeros(len(when), bool)
    elif trace is not None and links is not None:
        calls, order = calls_of(trace)
        lives = lifetimes(calls)
        if lives is None:
            return None
        before, moment, by = changes(lives)
        when, thread = _times(device, links, order, moment)
        source, ends = SEES, moment % 2 == 1
    else:
        return None
    early, late = when < window.start, when > window.end
    before += float(by[early].sum())
    inside = ~(early | late)
    where = _nodes(time, window.main, when[inside], thread[inside], ends[inside])
    return MemoryChanges(max(before, 0.0), *at_nodes(where, by[inside]), source)


def calls_of(trace: HostTrace) -> tuple[Calls, NDArray[np.int64]]:
    """The calls of a host trace in the order in which they began, and which nodes of the trace they are."""
    order = np.lexsort((trace.id, trace.record))
    place = {int(n): k for k, n in enumerate(trace.id[order].tolist())}
    parent = np.array([place.get(p, -1) for p in trace.parent[order].tolist()], np.int64)
    parent[parent >= np.arange(len(parent))] = -1  # the root names itself; damaged files anything
    inputs = [trace.inputs[i][2] for i in order.tolist()]
    outputs = [trace.outputs[i][2] for i in order.tolist()]
    return Calls(parent, inputs, outputs), order


def _times(
    device: Device, links: OperatorLinks, order: NDArray[np.int64], moment: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """[c] when a call began or ended [s], and on which thread; of one that the device trace lacks, when the one before
    it began."""
    event = np.full(int(order.max()) + 1, -1, np.int64)
    there = np.flatnonzero(links.node >= 0)
    event[links.node[there]] = there
    event = event[order]
    known = np.maximum.accumulate(np.where(event >= 0, np.arange(len(event)), -1))
    call = moment // 2
    source = known[call]
    at = event[np.maximum(source, 0)]
    missing = (source < 0) | (at < 0)
    ended = (moment % 2 == 1) & (source == call)
    when = np.where(ended, device.end[at], device.start[at])
    return np.where(missing, -np.inf, when), np.where(missing, -1, device.thread[at])


def _allocated(
    found: Allocations,
) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], float]:
    """When, on which thread and by how much memory changes, and what is there before [B]; of the fullest device."""
    devices = np.unique(found.device)
    most = {int(d): float(found.total[found.device == d].max()) for d in devices}
    chosen = max(most, key=lambda d: (found.accelerator[found.device == d][0], most[d]))
    mine = found.device == chosen
    total = found.total[mine]
    first = float(total[0] - found.bytes[mine][0])
    change = np.diff(total, prepend=first)  # what other threads' events between changed, too
    return found.when[mine], found.thread[mine].astype(np.int64), change, max(first, 0.0)


def _nodes(
    time: HostTime,
    main: int,
    when: NDArray[np.float64],
    thread: NDArray[np.int64],
    ends: NDArray[np.bool_],
) -> NDArray[np.int64]:
    """[c] the host node that runs at a time on a thread; of a thread without nodes, on the main one."""
    found = np.zeros(len(when), np.int64)
    with_nodes = np.unique(time.thread)
    thread = np.where(np.isin(thread, with_nodes), thread, main)
    for t in with_nodes.tolist():
        mine = np.flatnonzero(time.thread == t)
        for over in (False, True):  # what ends as a node does belongs to that one
            here = np.flatnonzero((thread == t) & (ends == over))
            side: Literal["left", "right"] = "left" if over else "right"
            at = np.searchsorted(time.start[mine], when[here], side=side) - 1
            found[here] = mine[np.maximum(at, 0)]
    return found
