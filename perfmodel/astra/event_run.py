"""Running the compiled simulator: memory for a run, repeats with more room, results, many designs."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import kernel, layout
from perfmodel.astra.hash_order import buckets_for
from perfmodel.astra.kernel_tables import Tables
from perfmodel.astra.lower import Lowered
from perfmodel.errors import InputError
from perfmodel.schedule.frozen_graph import times
from perfmodel.threads import in_threads
from perfmodel.workload.edges import predecessors

_POOL_WIDTHS = {
    layout.TIMERS: layout.TIMER_W,
    layout.BATCHES: layout.BATCH_W,
    layout.MESSAGES: layout.MESSAGE_W,
    layout.CHUNKS: layout.CHUNK_W,
    layout.CELLS: layout.CELL_W,
    layout.HANDSHAKES: layout.HANDSHAKE_W,
    layout.REQUESTS: layout.REQUEST_W,
}
_NAN = int(np.float64(np.nan).view(np.int64))


@dataclass(frozen=True, eq=False)
class EventGraph:
    """The order of a run as a graph; V vertices in topological order.

    ``finish[v] = max(finish[p] for p before v, default 0) + cost of v``

    Attributes:
        cost: i32 [V], row of the cost table, -1 for no cost.
        pred_ptr: i64 [V+1]; pred: i32 [E], ascending and without repeats for each vertex.
        node_first, node_last: i32 [N] by row of the trace, -1 for nodes that never ended: a node is issued
            when all before `node_first` have finished, and ends with `node_last`.
        marks: i64 [M, 3], in the order in which it happened: what (`layout.MARK_JOIN`, ...), the resource, and the
            vertex that came next there.
    """

    cost: NDArray[np.int32]
    pred_ptr: NDArray[np.int64]
    pred: NDArray[np.int32]
    node_first: NDArray[np.int32]
    node_last: NDArray[np.int32]
    marks: NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Run:
    """Times of a simulation [ns], by row of the trace.

    Attributes:
        issue, finish: f64 [N], nan for nodes that were never issued or never ended.
        rank_end: f64 [R], nan for ranks that did not finish.
        ok: whether all ranks finished; else `waiting` has what a diagnosis needs.
        digest: of the order of all decisions; equal digests have equal event graphs.
        count: events that the simulator handled; at_zero: whether one of them was at time 0.
        events: the event graph, where it was recorded.
        journal: i64, what happened in which order, where it was recorded: 2n and 2n+1 for issue and end of node n (in
            the kernel's order), -1-r for the end of rank r; nodes that end as they are issued have no end.
    """

    issue: NDArray[np.float64]
    finish: NDArray[np.float64]
    rank_end: NDArray[np.float64]
    ok: bool
    digest: int
    count: int
    at_zero: bool
    events: EventGraph | None
    journal: NDArray[np.int64]
    waiting: RunMemory | None

    def issued(self, lowered: Lowered) -> NDArray[np.int64]:
        """Rows of the trace in the order in which they were issued."""
        entries = self.journal[(self.journal >= 0) & (self.journal % 2 == 0)]
        rows: NDArray[np.int64] = lowered.order[entries // 2]
        return rows

    def ended(self, lowered: Lowered) -> NDArray[np.int64]:
        """Rows of the trace in the order in which they ended."""
        action = lowered.tables.node_column(layout.NODE_ACTION)
        nodes = self.journal[self.journal >= 0]
        ends = nodes[(nodes % 2 == 1) | (action[nodes // 2] == layout.SKIP)]
        rows: NDArray[np.int64] = lowered.order[ends // 2]
        return rows


class RunMemory:
    """Room for a run of one workload; grows when a run has exhausted it.

    Attributes:
        words: i64, the array `m` of the kernel after `simulate`; floats: the same as float64.
    """

    words: NDArray[np.int64]
    floats: NDArray[np.float64]

    def __init__(self, tables: Tables, rows: int, *, record: bool):
        self.tables, self.rows, self.record = tables, rows, record
        active = min(tables.places * tables.stations, tables.chunks)
        flight = tables.ranks * (4 + 2 * active * tables.window)
        self.room = {
            layout.HEAP: 64 + flight,
            layout.TIMERS: 64 + flight,
            layout.BATCHES: 64 + flight,
            layout.MESSAGES: 64 + flight,
            layout.CHUNKS: 64 + tables.ranks * (tables.chunks + tables.stations * tables.places),
            layout.CELLS: 64 + 4 * flight * record,
            layout.HANDSHAKES: 64 + flight * (tables.rendezvous >= 0),
            layout.REQUESTS: 64 + 2 * flight * (len(tables.per_byte) > 0),
            layout.VERTEX_ROW: (1024 + 64 * tables.nodes) * record,
            layout.EDGE: (4096 + 128 * tables.nodes) * record,
        }

    def simulate(self, cost: NDArray[np.float64]) -> None:
        """Run to the end, with more room where it did not suffice."""
        while True:
            self._prepare(cost)
            kernel.simulate(self.tables.words, self.words, self.floats)
            full = int(self.words[layout.FULL])
            if full == 0:
                return
            self.room[full] *= 4

    def view(self, field: int, count: int, width: int = 1) -> NDArray[np.int64]:
        """Records of the state as a table [count, width]."""
        start = int(self.words[field])
        return self.words[start : start + count * width].reshape(count, width)

    def _prepare(self, cost: NDArray[np.float64]) -> None:
        """A fresh state; memory of the size needed is used again."""
        t, room = self.tables, self.room
        rank_words = layout.RANK_TURNS + 7 * t.levels
        end = layout.M_HEADER
        header = np.zeros(end, np.int64)
        buckets = 1 << int(room[layout.MESSAGES]).bit_length()
        for field, words in (
            (layout.COSTS, self.rows),
            (layout.HEAP, room[layout.HEAP] * layout.EVENT_W),
            (layout.BUCKETS, buckets),
            (layout.RANKS, t.ranks * rank_words),
            (layout.NODES, t.nodes * layout.NODE_STATE_W),
            (layout.READY, t.nodes),
            (layout.DEFERRED, t.nodes),
            (layout.FAMILIES, t.members),
            (layout.CHOSEN, t.ranks * t.choices),
            (layout.STATIONS, t.ranks * t.stations * layout.STATION_W),
            (layout.LEAVES, t.ranks * t.stations * t.places * self.record),
            (layout.LINKS, t.links * layout.SERVER_W),
            (layout.SERVERS, t.servers * layout.SERVER_W),
            (layout.CUSTOM_STATE, 2 * t.ranks * t.custom_room),
            (layout.CUSTOM_READY, t.custom_room),
            (layout.CUSTOM_CHAIN, t.custom_room + 1),
            (layout.CUSTOM_HEADS, buckets_for(t.custom_room)),
            (layout.SIDES, 4 * t.ranks * layout.SIDE_W * (len(t.per_byte) > 0)),
            (layout.BUS_PER_BYTE, len(t.per_byte)),
            (layout.JOURNAL, (2 * t.nodes + t.ranks) * self.record),
            (layout.VERTEX_ROW, room[layout.VERTEX_ROW]),
            (layout.VERTEX_PTR, room[layout.VERTEX_ROW] + 1),
            (layout.EDGE, room[layout.EDGE]),
        ):
            header[field] = end
            end += words
        header[layout.HEAP_END] = header[layout.HEAP] + room[layout.HEAP] * layout.EVENT_W
        header[layout.VERTEX_END] = header[layout.VERTEX_ROW] + room[layout.VERTEX_ROW]
        header[layout.EDGE_END] = header[layout.EDGE] + room[layout.EDGE]
        header[layout.BUCKET_MASK] = buckets - 1
        header[layout.RANK_WORDS] = rank_words
        header[layout.CUSTOM_ROOM] = t.custom_room
        header[layout.RECORD] = int(self.record)
        cleared = int(header[layout.VERTEX_ROW])
        for pool, width in _POOL_WIDTHS.items():
            header[pool + layout.POOL_SPARE] = end
            header[pool + layout.POOL_NEXT] = end + width
            header[pool + layout.POOL_WIDTH] = width
            end += (room[pool] + 1) * width
            header[pool + layout.POOL_END] = end
        if not hasattr(self, "words") or len(self.words) != end:
            self.words = np.zeros(end, np.int64)
            self.floats = self.words.view(np.float64)
        self.words[:cleared] = 0
        self.words[: len(header)] = header
        self.floats[header[layout.COSTS] : header[layout.COSTS] + self.rows] = cost
        place = int(header[layout.BUS_PER_BYTE])
        self.floats[place : place + len(t.per_byte)] = t.per_byte
        self._fill_records()

    def _fill_records(self) -> None:
        t = self.tables
        ranks = self.view(layout.RANKS, t.ranks, int(self.words[layout.RANK_WORDS]))
        ranks[:, layout.RANK_NODES] = t.rank_nodes
        ranks[:, layout.RANK_VERTEX : layout.RANK_LAST + 4] = -1
        ranks[:, layout.RANK_END] = _NAN
        nodes = self.view(layout.NODES, t.nodes, layout.NODE_STATE_W)
        nodes[:, layout.NODE_WAITS] = t.indegree
        nodes[:, [layout.NODE_ISSUE, layout.NODE_FINISH]] = _NAN
        nodes[:, [layout.NODE_FIRST, layout.NODE_LAST]] = -1
        self.view(layout.STATIONS, t.ranks * t.stations, layout.STATION_W)[
            :, layout.STATION_NODE
        ] = -1
        self.view(layout.LINKS, t.links, layout.SERVER_W)[:, layout.SERVER_VERTEX] = -1
        if len(t.per_byte):
            sides = self.view(layout.SIDES, 4 * t.ranks, layout.SIDE_W)
            sides[:, layout.SIDE_VERTEX] = -1
        servers = self.view(layout.SERVERS, t.servers, layout.SERVER_W)
        servers[:, [layout.SERVER_VERTEX, layout.SERVER_HEAD]] = -1


def run(lowered: Lowered, cost: NDArray[np.float64], *, record: bool = False) -> Run:
    """Simulate a workload at the given durations of its cost rows.

    Args:
        cost: f64 [S], [ns], none negative. record: also return the event graph.
    """
    cost = _checked(lowered, cost, 1)
    memory = RunMemory(lowered.tables, len(lowered.rows), record=record)
    memory.simulate(cost)
    t, words = lowered.tables, memory.words
    times = memory.view(layout.NODES, t.nodes, layout.NODE_STATE_W).view(np.float64)
    issue, finish = np.empty(t.nodes), np.empty(t.nodes)
    issue[lowered.order] = times[:, layout.NODE_ISSUE]
    finish[lowered.order] = times[:, layout.NODE_FINISH]
    ok = bool(words[layout.FINISHED] == t.ranks)
    return Run(
        issue=issue,
        finish=finish,
        rank_end=_rank_ends(memory),
        ok=ok,
        digest=int(words[layout.DIGEST : layout.DIGEST + 1].view(np.uint64)[0]),
        count=int(words[layout.EVENTS]),
        at_zero=bool(words[layout.AT_ZERO]),
        events=_event_graph(lowered, memory) if record else None,
        journal=memory.view(layout.JOURNAL, int(words[layout.JOURNAL_SIZE])).ravel().copy(),
        waiting=None if ok else memory,
    )


def along(lowered: Lowered, run: Run, cost: NDArray[np.float64]) -> Run:
    """The times of a run by the longest path over the order that it recorded: at any durations [S] of the cost rows.

    At the durations of the run itself they are the run's own, to the last nanosecond.
    """
    events = run.events
    if events is None or not run.ok:
        raise ValueError("a longest path needs the recorded order of a run that ended")
    start, finish = times(events.pred_ptr, events.pred, events.cost, cost)
    issue, end = start[events.node_first], finish[events.node_last]
    last = np.zeros(lowered.flat.ranks)
    np.maximum.at(last, lowered.flat.rank, end)
    return replace(run, issue=issue, finish=end, rank_end=last)


def _rank_ends(memory: RunMemory) -> NDArray[np.float64]:
    width = int(memory.words[layout.RANK_WORDS])
    ranks = memory.view(layout.RANKS, memory.tables.ranks, width)
    return np.ascontiguousarray(ranks[:, layout.RANK_END]).view(np.float64)


def run_many(
    lowered: Lowered, cost: NDArray[np.float64], *, threads: int = 2
) -> tuple[NDArray[np.float64], NDArray[np.uint64]]:
    """Simulate D designs, each with its own order.

    Args:
        cost: f64 [S, D], durations of the cost rows [ns].

    Returns:
        Rank ends f64 [R, D] [ns], nan where a rank does not finish, and digests of the order u64 [D].
    """
    cost = _checked(lowered, cost, 2)
    designs = cost.shape[1]
    ends = np.empty((lowered.tables.ranks, designs))
    digests = np.empty(designs, np.uint64)

    left = iter(range(designs))

    def work(_: int) -> None:
        memory = RunMemory(lowered.tables, len(lowered.rows), record=False)
        for d in left:
            memory.simulate(np.ascontiguousarray(cost[:, d]))
            ends[:, d] = _rank_ends(memory)
            digests[d] = memory.words[layout.DIGEST : layout.DIGEST + 1].view(np.uint64)[0]

    threads = max(min(threads, designs), 1)
    try:
        in_threads(work, range(threads))
    finally:  # after an interrupt no thread takes another one
        deque(left, maxlen=0)
    return ends, digests


def _checked(lowered: Lowered, cost: NDArray[np.float64], dimensions: int) -> NDArray[np.float64]:
    cost = np.asarray(cost, np.float64)
    if cost.ndim != dimensions or cost.shape[0] != len(lowered.rows):
        raise InputError(
            f"costs of shape {cost.shape}; expected {len(lowered.rows)} rows in {dimensions} dimensions"
        )
    if not np.isfinite(cost).all() or (cost < 0).any():
        raise InputError("a duration is negative or not finite; check the parameters of the design")
    return np.ascontiguousarray(cost)


def _event_graph(lowered: Lowered, memory: RunMemory) -> EventGraph:
    words = memory.words
    vertices, edge_count = int(words[layout.VERTICES]), int(words[layout.EDGES])
    row = memory.view(layout.VERTEX_ROW, vertices).ravel()
    real = row >= -1
    number = np.cumsum(real) - 1
    target = np.repeat(
        np.arange(vertices), np.diff(memory.view(layout.VERTEX_PTR, vertices + 1).ravel())
    )
    source = memory.view(layout.EDGE, edge_count).ravel()
    inside = real[target]
    ptr, pred = predecessors(
        number[source[inside]], number[target[inside]], int(number[-1]) + 1 if vertices else 0
    )
    resource, kind = np.divmod(-2 - row[~real], layout.MARKS)
    marks = np.stack([kind, resource, number[source[~inside]]], axis=1)
    nodes = memory.view(layout.NODES, memory.tables.nodes, layout.NODE_STATE_W)
    first = np.empty(len(nodes), np.int32)
    last = np.empty(len(nodes), np.int32)
    for into, field in ((first, layout.NODE_FIRST), (last, layout.NODE_LAST)):
        vertex = nodes[:, field]
        into[lowered.order] = np.where(vertex >= 0, np.append(number, -1)[vertex], -1)
    return EventGraph(
        cost=row[real].astype(np.int32),
        pred_ptr=ptr,
        pred=pred,
        node_first=first,
        node_last=last,
        marks=marks,
    )
