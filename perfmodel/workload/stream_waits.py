"""Waits between GPU streams that a trace does not write down, from the times at which its kernels started.

Chakra's converter lets a kernel wait for its launch alone. Where start times are recorded, two facts say more:

1. *Launch order*: a framework's collective waits for the compute kernel that its thread launched last before it (the
   communication stream waits for an event on the current stream).
2. *Gaps*: a kernel that started later than its launch and its own stream allowed has waited for something. If another
   stream's kernel ended just before it started, it waited for that one.

No edge contradicts a recorded time: what is waited for ended by then.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

ROUNDING = 1e-6
"""Start times and durations are whole microseconds: how far an end may seem to lie behind a start [s]."""
REACTION = 10e-6
"""A kernel that waited starts within this of the end of what it waited for [s]."""


def stream_waits(
    *,
    start: NDArray[np.float64],
    duration: NDArray[np.float64],
    device: NDArray[np.bool_],
    communicates: NDArray[np.bool_],
    resource: NDArray[np.int32],
    edge_from: NDArray[np.int64],
    edge_to: NDArray[np.int64],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Edges between the kernels of one rank, found from their recorded times.

    Args:
        start, duration: [n] recorded times [s], nan where there are none.
        device: [n] kernels: what runs on a stream of the accelerator.
        communicates: [n] collectives and messages among them.
        resource: [n] stream or thread, -1 for none.
        edge_from, edge_to: [e] the edges that are there.

    Returns:
        [k] and [k]: from, to; no edge twice, none that is there already.

    >>> import numpy as np
    >>> us = 1e-6 * np.array([0.0, 12, 10, 1012, 20, 3012, 30, 3512])
    >>> kernel = np.array([False, True] * 4)
    >>> before, after = stream_waits(
    ...     start=us, duration=1e-6 * np.array([10.0, 1000, 10, 2000, 10, 500, 10, 300]), device=kernel,
    ...     communicates=np.arange(8) == 5, resource=np.array([0, 1, 0, 1, 0, 2, 0, 1]),
    ...     edge_from=np.array([0, 2, 4, 6]), edge_to=np.array([1, 3, 5, 7]))
    >>> list(zip(before.tolist(), after.tolist()))
    [(3, 5), (5, 7)]
    """
    kernels = np.flatnonzero(device & (resource >= 0) & np.isfinite(start) & np.isfinite(duration))
    if len(kernels) < 2:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    end = start + duration
    launcher = _launchers(start, device, edge_from, edge_to)
    pairs = np.concatenate(
        [
            _by_launch(kernels, launcher, start, end, communicates, resource),
            _by_gap(kernels, launcher, start, end, resource),
        ]
    )
    pairs = pairs[
        (start[pairs[:, 0]] < start[pairs[:, 1]]) & (resource[pairs[:, 0]] != resource[pairs[:, 1]])
    ]
    n = len(start)
    new = np.setdiff1d(pairs[:, 0] * n + pairs[:, 1], edge_from.astype(np.int64) * n + edge_to)
    return new // n, new % n


def _launchers(
    start: NDArray[np.float64],
    device: NDArray[np.bool_],
    edge_from: NDArray[np.int64],
    edge_to: NDArray[np.int64],
) -> NDArray[np.int64]:
    """[n] the host node that a kernel waits for and that started last, -1 where there is none."""
    launcher = np.full(len(start), -1, np.int64)
    launch = device[edge_to] & ~device[edge_from] & np.isfinite(start[edge_from])
    source, target = edge_from[launch], edge_to[launch]
    order = np.lexsort((start[source], target))
    launcher[target[order]] = source[order]  # the last one written wins
    return launcher


def _by_launch(
    kernels: NDArray[np.int64],
    launcher: NDArray[np.int64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    communicates: NDArray[np.bool_],
    resource: NDArray[np.int32],
) -> NDArray[np.int64]:
    """[k, 2] the compute kernel launched last before each communication kernel, by the same thread."""
    known = kernels[launcher[kernels] >= 0]
    thread, issued = resource[launcher[known]], start[launcher[known]]
    order = np.lexsort((known, issued, thread))
    known, thread = known[order], thread[order]
    computes = np.where(~communicates[known], np.arange(len(known)), -1)
    last = np.maximum.accumulate(computes) if len(known) else computes
    source, target = known[np.maximum(last, 0)], known
    good = communicates[target] & (last >= 0) & (thread[np.maximum(last, 0)] == thread)
    good &= end[source] <= start[target] + ROUNDING
    return np.stack([source[good], target[good]], axis=1)


def _by_gap(
    kernels: NDArray[np.int64],
    launcher: NDArray[np.int64],
    start: NDArray[np.float64],
    end: NDArray[np.float64],
    resource: NDArray[np.int32],
) -> NDArray[np.int64]:
    """[k, 2] the kernel of another stream whose end ended the wait of each kernel that waited."""
    order = kernels[np.lexsort((kernels, start[kernels], resource[kernels]))]
    same = np.concatenate([[False], resource[order[1:]] == resource[order[:-1]]])
    ready = np.full(len(start), -np.inf)
    ready[order[1:]] = np.where(same[1:], end[order[:-1]], -np.inf)
    launched = kernels[launcher[kernels] >= 0]
    ready[launched] = np.maximum(ready[launched], end[launcher[launched]])
    by_end = kernels[np.argsort(end[kernels], kind="stable")]
    place = np.searchsorted(end[by_end], start[kernels] + ROUNDING, side="right") - 1
    source = by_end[np.maximum(place, 0)]
    waited = (place >= 0) & np.isfinite(ready[kernels])
    waited &= (end[source] > ready[kernels] + ROUNDING) & (end[source] >= start[kernels] - REACTION)
    return np.stack([source[waited], kernels[waited]], axis=1)
