"""What a run of the simulator decided, for its certificate.

Events at one time run in the order of their registration, so every comparison is strict; chunks that leave a station
together may leave it in any order. Not certified: runs with nodes that are skipped or stuck, queues at memory servers,
a shared bus, the rendezvous protocol, custom collectives, and `direct` where the order in which messages refill slots
matters.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import layout
from perfmodel.astra.event_run import EventGraph, Run
from perfmodel.astra.lower import Lowered
from perfmodel.schedule.certificate import Decisions
from perfmodel.schedule.frozen_graph import Events

ROUNDING = 1e-11
"""Relative distance from which on two times that are not whole nanoseconds are certainly different."""


def decisions(lowered: Lowered, run: Run, events: Events, *, truncate: bool) -> Decisions | None:
    """The decisions of a recorded run; None where some are of a kind that is not certified.

    Args:
        lowered: the workload. run: recorded, and finished. events: its graph. truncate: costs are whole nanoseconds.
    """
    flat, found = lowered.flat, run.events
    if found is None or not certifiable(lowered):
        return None
    n = len(flat.rank)
    key = np.empty(n, np.int64)
    key[lowered.order] = np.arange(n)
    unit = np.full(n, -1, np.int64)
    limited = lowered.tables.node_column(layout.NODE_UNIT) != layout.RECEIVE
    columns = lowered.tables.node_column(layout.NODE_RANK) * 4
    columns += lowered.tables.node_column(layout.NODE_UNIT)
    unit[lowered.order[limited]] = columns[limited]
    mine = np.flatnonzero(unit >= 0)
    order = mine[np.lexsort((events.first[mine], unit[mine]))]
    index = np.unique(unit[order], return_index=True)[1]
    line, vertex, strict = _lines(lowered, found, events)
    return Decisions(
        order=order,
        place=np.append(index, len(order)).astype(np.int64),
        key=key,
        pred_ptr=np.asarray(flat.pred_ptr, np.int64),
        pred=np.asarray(flat.pred, np.int32),
        moments=False,
        margin=0.0 if truncate else ROUNDING,
        line=line,
        vertex=vertex,
        strict=strict,
    )


def certifiable(lowered: Lowered) -> bool:
    """Whether all decisions of a workload are of a kind that can be certified."""
    t = lowered.tables
    if t.words[layout.T_BUS] == 1 or t.words[layout.T_RENDEZVOUS] >= 0:
        return False
    action = t.node_column(layout.NODE_ACTION)
    if ((action == layout.SKIP) | (action == layout.STUCK)).any():
        return False
    if (t.node_column(layout.NODE_SERVER)[action == layout.MEMORY] >= 0).any():
        return False
    phases = phases_of(lowered)
    algorithm = phases[:, layout.PHASE_ALGORITHM]
    partial = phases[:, layout.PHASE_WINDOW] < phases[:, layout.PHASE_MEMBERS] - 1
    refills = (algorithm == layout.DIRECT) & ((phases[:, layout.PHASE_GATED] == 1) | partial)
    return not (refills | (algorithm == layout.CUSTOM)).any()


def phases_of(lowered: Lowered) -> NDArray[np.int64]:
    """[phases, PHASE_W] all phases of the workload's collectives."""
    words = lowered.tables.words
    start, end = int(words[layout.T_PHASES]), int(words[layout.T_STEPS])
    return words[start:end].reshape(-1, layout.PHASE_W)


def _lines(
    lowered: Lowered, found: EventGraph, events: Events
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
    """Where something happens one after the other: queues of stations, their exits, links, receives that look alike."""
    kind, resource, vertex = found.marks.T
    several = _several_phases(lowered)
    kept = (kind != layout.MARK_JOIN) | several
    kind, resource, vertex = kind[kept], resource[kept], vertex[kept]
    posts, like = _alike_receives(lowered, events)
    number = np.concatenate([resource * layout.MARKS + kind, -1 - like])
    strict = np.concatenate([kind != layout.MARK_LEAVE, np.ones(len(like), bool)])
    _, first, line = np.unique(number, return_index=True, return_inverse=True)
    return (
        line.ravel().astype(np.int64),
        np.concatenate([vertex, posts]).astype(np.int64),
        strict[first],
    )


def _several_phases(lowered: Lowered) -> bool:
    """Whether chunks come back to a queue; else they join it in the order in which they are cut."""
    words = lowered.tables.words
    plans = words[int(words[layout.T_PLANS]) : int(words[layout.T_PHASES])].reshape(
        -1, layout.PLAN_W
    )
    return bool((plans[:, layout.PLAN_COUNT] > 1).any())


def _alike_receives(
    lowered: Lowered, events: Events
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Vertices at which receives of equal tag, source and size are posted, in their order, and what is equal."""
    t = lowered.tables
    receives = np.flatnonzero(t.node_column(layout.NODE_ACTION) == layout.RECV)
    columns = (layout.NODE_RANK, layout.NODE_TAG, layout.NODE_PEER, layout.NODE_SIZE)
    table = np.stack([t.node_column(c)[receives] for c in columns], axis=1)
    _, like, count = np.unique(table, axis=0, return_inverse=True, return_counts=True)
    like = like.ravel()
    several = count[like] > 1
    posts = events.first[lowered.order[receives[several]]]
    order = np.argsort(posts, kind="stable")
    return posts[order].astype(np.int64), like[several][order].astype(np.int64)
