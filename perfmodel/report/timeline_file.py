"""A prediction as a Chrome trace-event file: open it in Perfetto (ui.perfetto.dev) or chrome://tracing.

Reference: "Trace Event Format", Google, 2016 (JSON object form; metadata, complete and flow events).

A process per rank, a thread per resource, receives on a thread of their own; what overlaps on one resource is
spread over further threads, because a viewer nests what overlaps. Sends and receives are joined by arrows. The
critical path is a process of its own, on top, and its nodes have the category "critical" and a colour of their own.
Times are whole nanoseconds, written in microseconds as the format wants them.
"""

from __future__ import annotations

import heapq
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.files import check_target, whole_file
from perfmodel.prediction import Prediction
from perfmodel.report.components import component_spans
from perfmodel.report.path_and_ranks import category_of
from perfmodel.report.tables import critical_path, timeline
from perfmodel.vocabulary import CATEGORIES, COLLECTIVES, WAITING, NodeType
from perfmodel.workload.graph import check_ranks

ENDINGS = (".json", ".json.gz")
"""What a timeline's name may end in."""

MAX_NODES = 2_000_000
"""More nodes than this make a file that no viewer opens: ask for some ranks."""

RECEIVES, UNTIMED = "receives", "no resource"
"""Threads of nodes that hold no resource."""

COMPONENTS = 1_000_000
"""Number of the thread of components, beyond those of resources."""

CRITICAL_COLOUR = "terrible"
COLOURS = (
    "thread_state_running",
    "thread_state_iowait",
    "rail_response",
    "grey",
    "rail_animation",
    "grey",
)
"""Reserved colour names of the format, by category, and (-1) for what takes no time."""

_COLLECTIVES = frozenset(word.upper() for word in COLLECTIVES)

Event = dict[str, Any]


def write_timeline(
    prediction: Prediction,
    path: str | Path,
    ranks: Sequence[int] | None = None,
    *,
    depth: int = 0,
) -> None:
    """Write when every node runs as a trace-event file.

    Args:
        prediction: from `predict`.
        path: the file, .json or (compressed) .json.gz; it appears whole or not at all.
        ranks: some ranks only (all by default); the critical path is there in any case, arrows where both ends are.
        depth: also a thread per rank with its components, nested in so many levels (parts of a name); 0 for none.

    Raises:
        InputError: a file that cannot be written, no such rank, no ranks, too many nodes for a viewer, or times that
            are not finite.
    """
    check_target(path, ENDINGS)
    graph = prediction.graph
    if ranks is not None and not len(ranks):
        raise InputError(f"{graph.source}: no ranks chosen; name some, for example ranks=[0]")
    nodes = int(np.diff(graph.offset)[_existing(graph, ranks)].sum())
    if nodes > MAX_NODES:
        raise InputError(
            f"{graph.source}: {nodes:,} nodes are more than a timeline viewer opens (limit "
            f"{MAX_NODES:,}); choose some ranks, for example ranks=[0] (command line: --rank 0)"
        )
    chosen = list(dict.fromkeys(check_ranks(graph, ranks)))
    if not np.isfinite(prediction.makespan):
        raise InputError(
            f"{graph.source}: its makespan on {prediction.compiled.system.name} is "
            f"{prediction.makespan} s, which no timeline shows; look for a rate of 0"
        )
    _write(_events(prediction, chosen, depth), Path(path), _about(prediction))


def _existing(graph: Any, ranks: Sequence[int] | None) -> list[int]:
    """The ranks that exist: counting comes first, so that a huge graph is told to choose ranks."""
    chosen = range(graph.ranks) if ranks is None else map(int, ranks)
    return [r for r in chosen if 0 <= r < graph.ranks]


def _about(prediction: Prediction) -> Event:
    return {
        "source": prediction.graph.source,
        "system": prediction.compiled.system.name,
        "makespan_s": prediction.makespan,
    }


def _events(prediction: Prediction, ranks: list[int], depth: int) -> Iterator[list[Event]]:
    """Lists of events, one per process, and of its components."""
    yield _path_events(prediction)
    shown = np.zeros(prediction.graph.ranks, bool)
    shown[ranks] = True
    for rank in ranks:
        yield _rank_events(prediction, rank, shown)
        if depth:
            yield _component_events(prediction, rank, depth)


def _path_events(prediction: Prediction) -> list[Event]:
    """The critical path as a process of its own, before all ranks."""
    process = prediction.graph.ranks
    table = critical_path(prediction)
    start, finish = _nanoseconds(table["start_s"]), _nanoseconds(table["finish_s"])
    events = [*_process(process, "critical path", -1), _thread(process, 0, "critical path")]
    rows = zip(
        _microseconds(start),
        _microseconds(finish - start),
        table[["rank", "node_id", "name", "type", "waiting_s"]].itertuples(index=False),
    )
    for ts, dur, row in rows:
        events.append(
            {
                "ph": "X",
                "pid": process,
                "tid": 0,
                "ts": ts,
                "dur": dur,
                "name": f"rank {row.rank}: {row.name}",
                "cat": "critical",
                "cname": CRITICAL_COLOUR,
                "args": {
                    "rank": row.rank,
                    "node_id": row.node_id,
                    "type": row.type,
                    "waiting_us": row.waiting_s * 1e6,
                },
            }
        )
    return events


def _rank_events(prediction: Prediction, rank: int, shown: NDArray[np.bool_]) -> list[Event]:
    """Names, nodes and arrows of one rank."""
    graph = prediction.graph
    program = graph.programs[graph.program[rank]]
    table = timeline(prediction, [rank])
    start, finish = _nanoseconds(table["start_s"]), _nanoseconds(table["finish_s"])
    receives = program.type == NodeType.COMM_RECV
    label = np.array([*program.resources, UNTIMED], dtype=object)[program.resource]
    label[receives & (program.resource < 0)] = RECEIVES
    thread, names = lanes(label, start, finish)
    events = _process(rank, f"rank {rank}", rank)
    events += [_thread(rank, k, name) for k, name in enumerate(names)]
    category = category_of(program.type, program.cpu)
    rows = zip(
        thread.tolist(),
        _microseconds(start),
        _microseconds(finish - start),
        category.tolist(),
        _details(graph.table([rank]), table),
        table["name"],
        table["critical"].tolist(),
    )
    for tid, ts, dur, kind, args, name, critical in rows:
        word = CATEGORIES[kind] if kind >= 0 else "none"
        events.append(
            {
                "ph": "X",
                "pid": rank,
                "tid": tid,
                "ts": ts,
                "dur": dur,
                "name": name,
                "cat": f"{word},critical" if critical else word,
                "cname": CRITICAL_COLOUR if critical else COLOURS[kind],
                "args": args,
            }
        )
    events += _waits(table, start, len(names))
    return events + _arrows(prediction, rank, shown, thread, start, finish)


def _waits(table: pd.DataFrame, start: NDArray[np.int64], threads: int) -> list[Event]:
    """In collectives for their last member: slices on threads of their own, numbered from `threads` on."""
    waiting = _nanoseconds(table["waiting_s"])
    here = np.flatnonzero(waiting > 0)
    if not len(here):
        return []
    begin, lasts = start[here], waiting[here]
    thread, names = lanes(np.full(len(here), "waiting", object), begin, begin + lasts)
    rank = int(table["rank"].iloc[0])
    events = [_thread(rank, threads + k, name) for k, name in enumerate(names)]
    rows = zip(
        thread.tolist(),
        _microseconds(begin),
        _microseconds(lasts),
        table[["name", "node_id"]].iloc[here].itertuples(index=False),
    )
    for tid, ts, dur, row in rows:
        events.append(
            {
                "ph": "X",
                "pid": rank,
                "tid": threads + tid,
                "ts": ts,
                "dur": dur,
                "name": f"waiting in {row.name}",
                "cat": "waiting",
                "cname": COLOURS[WAITING],
                "args": {"node_id": int(row.node_id)},
            }
        )
    return events


def _component_events(prediction: Prediction, rank: int, depth: int) -> list[Event]:
    """A rank's components as slices in each other, on a thread of their own above the others."""
    table = component_spans(prediction, depth, [rank])
    start, finish = _nanoseconds(table["start_s"]), _nanoseconds(table["finish_s"])
    events = [_thread(rank, COMPONENTS, "components")]
    rows = zip(
        _microseconds(start),
        _microseconds(finish - start),
        table[["component", "level", "nodes", "busy_s"]].itertuples(index=False),
    )
    for ts, dur, row in rows:
        events.append(
            {
                "ph": "X",
                "pid": rank,
                "tid": COMPONENTS,
                "ts": ts,
                "dur": dur,
                "name": row.component,
                "cat": "component",
                "args": {"level": row.level, "nodes": row.nodes, "busy_us": row.busy_s * 1e6},
            }
        )
    return events


def _details(nodes: pd.DataFrame, times: pd.DataFrame) -> Iterator[Event]:
    """What a viewer shows of each node that is clicked on; absent figures are left out."""
    rows = zip(
        nodes["node_id"].tolist(),
        nodes["type"],
        nodes["flops"].tolist(),
        nodes["bytes_B"].tolist(),
        nodes["size_B"].tolist(),
        nodes["group"],
        nodes["peer"].tolist(),
        (times["slack_s"] * 1e6).tolist(),
        times["critical"].tolist(),
    )
    for node_id, kind, flops, moved, size, group, peer, slack, critical in rows:
        args: Event = {
            "node_id": node_id,
            "type": kind,
            "slack_us": slack,
            "critical": critical,
        }
        figures = (("flops_FLOP", flops), ("bytes_B", moved), ("size_B", size), ("peer", peer))
        args |= {key: value for key, value in figures if value >= 0}
        if kind in _COLLECTIVES or group:
            args["group"] = group or "world"
        yield args


def _arrows(
    prediction: Prediction,
    rank: int,
    shown: NDArray[Any],
    thread: NDArray[Any],
    start: NDArray[Any],
    finish: NDArray[Any],
) -> list[Event]:
    """A flow from every send to its receive; its number is the node number of the send."""
    graph = prediction.graph
    program, row = graph.programs[graph.program[rank]], graph.row[rank]
    events = []
    for position, peer, partner in zip(program.p2p, program.peer[row], program.partner[row]):
        if partner < 0 or not shown[peer]:
            continue
        sends = program.type[position] == NodeType.COMM_SEND
        number = graph.offset[rank] + position if sends else graph.offset[peer] + partner
        last = max(int(start[position]), int(finish[position]) - 1)
        moment = start[position] if sends else last
        events.append(
            {
                "ph": "s" if sends else "f",
                "pid": rank,
                "tid": int(thread[position]),
                "ts": _microseconds(np.array([moment]))[0],
                "id": int(number),
                "name": "message",
                "cat": "message",
            }
            | ({} if sends else {"bp": "e"})
        )
    return events


def lanes(
    label: NDArray[Any], start: NDArray[Any], finish: NDArray[Any]
) -> tuple[NDArray[np.int64], list[str]]:
    """Threads for nodes: one per label, further ones where nodes of a label overlap.

    Args:
        label: [n] text.
        start, finish: [n] whole ns.

    Returns:
        [n] number of each node's thread, and the threads' names.

    >>> lanes(np.array(["a", "a", "b"]), np.array([0, 1, 0]), np.array([2, 3, 1]))
    (array([0, 1, 2]), ['a', 'a 2', 'b'])
    """
    thread = np.zeros(len(label), np.int64)
    names: list[str] = []
    for word in dict.fromkeys(label):
        mine = np.flatnonzero(label == word)
        lane = _first_free(start[mine], finish[mine])
        thread[mine] = len(names) + lane
        names += [f"{word} {k + 1}" if k else str(word) for k in range(int(lane.max()) + 1)]
    return thread, names


def _first_free(start: NDArray[Any], finish: NDArray[Any]) -> NDArray[np.int64]:
    """[n] the lowest lane that is free when each interval starts."""
    order = np.lexsort((finish, start))
    lane = np.zeros(len(start), np.int64)
    if (start[order][1:] >= np.maximum.accumulate(finish[order])[:-1]).all():
        return lane
    busy: list[tuple[int, int]] = []
    free: list[int] = []
    for k in order:
        while busy and busy[0][0] <= start[k]:
            heapq.heappush(free, heapq.heappop(busy)[1])
        lane[k] = heapq.heappop(free) if free else len(busy)
        heapq.heappush(busy, (int(finish[k]), int(lane[k])))
    return lane


def _process(process: int, name: str, place: int) -> list[Event]:
    return [
        {"ph": "M", "pid": process, "tid": 0, "ts": 0, "name": key, "args": args}
        for key, args in (
            ("process_name", {"name": name}),
            ("process_sort_index", {"sort_index": place}),
        )
    ]


def _thread(process: int, thread: int, name: str) -> Event:
    return {
        "ph": "M",
        "pid": process,
        "tid": thread,
        "ts": 0,
        "name": "thread_name",
        "args": {"name": name},
    }


def _nanoseconds(seconds: pd.Series) -> NDArray[np.int64]:
    """Rounding is monotone: what does not overlap in seconds does not overlap here."""
    whole: NDArray[np.int64] = np.rint(seconds.to_numpy(float) * 1e9).astype(np.int64)
    return whole


def _microseconds(nanoseconds: NDArray[Any]) -> list[float]:
    """Microseconds that a reader who truncates 1000 x value gets the same nanoseconds from."""
    value = nanoseconds / 1000.0
    short = np.floor(value * 1000.0) < nanoseconds
    listed: list[float] = np.where(short, np.nextafter(value, np.inf), value).tolist()
    return listed


def _write(parts: Iterator[list[Event]], path: Path, about: Event) -> None:
    """Stream the events into the file."""
    with whole_file(path) as raw, io.TextIOWrapper(raw, "utf-8") as file:
        file.write('{"displayTimeUnit": "ns", "otherData": ' + json.dumps(about))
        file.write(', "traceEvents": [\n')
        between = ""
        for events in parts:
            file.write(between + ",\n".join(map(json.dumps, events)))
            between = ",\n"
        file.write("\n]}\n")
