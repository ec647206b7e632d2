"""The use of a rank's local memory as ASTRA-sim writes it with ``track-local-mem``: a timeline and the peak.

A node reads the tensors of its attribute `inputs` and writes those of `outputs`, lists of name and size in turn, while
it runs. A tensor takes memory from the start of the node that writes it, or from 0 where none has before it is read, to
the end of its last read. Events stand in the order in which the simulator's hash tables are walked; tensors of equal
lifetime in the order in which its sorting leaves them.

Source: ASTRA-sim's LocalMemUsageTracker at 518bd51; GCC's std::sort.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from perfmodel.astra.event_run import Run
from perfmodel.astra.flat_nodes import name_of
from perfmodel.astra.hash_order import hash_of_text, walk
from perfmodel.astra.lower import Lowered
from perfmodel.errors import TraceError
from perfmodel.files import write_whole
from perfmodel.trace import chakra

LIFETIME, USE, HEATMAP = 1_000_000, 2_000_000, 3_000_000
"""Numbers of processes in the timeline, to which the rank is added."""
UNWRITTEN = ("UNDEFINED", 2**64 - 1)
"""Name and id of the node that wrote a tensor which none has."""
MIB = 1024.0 * 1024.0
UNITS = ("B", "KB", "MB", "GB", "TB")


class Activity(NamedTuple):
    """A read or write of a tensor by a node [ns]."""

    start: int
    end: int
    name: str
    node: int


@dataclass
class Tensors:
    """What a rank reads and writes, by tensor in the order of first use."""

    reads: dict[str, list[Activity]] = field(default_factory=dict)
    writes: dict[str, Activity] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)


def write_memory_use(
    lowered: Lowered, run: Run, traces: list[Path], folder: Path
) -> dict[int, str]:
    """Write ``<name>.<rank>.json`` for every rank into a folder, and return the peaks as the simulator prints them.

    Args:
        traces: the file of each rank.

    Raises:
        TraceError: a node without lists of inputs and outputs, or a tensor that is written twice.
    """
    peaks = {}
    rows = run.ended(lowered)
    for rank, path in enumerate(traces):
        tensors = _tensors(lowered, run, rows[lowered.flat.rank[rows] == rank], path)
        events, peak = _timeline(tensors, rank)
        peaks[rank] = _size(peak)
        text = json.dumps(
            {"traceEvents": events}, indent=2, sort_keys=True, ensure_ascii=False, default=int
        )
        name = f"{lowered.config.system.memory_trace}.{rank}.json"
        write_whole(folder / name, text.encode("utf-8", "surrogateescape"))
    return peaks


def _tensors(lowered: Lowered, run: Run, rows: np.ndarray, path: Path) -> Tensors:
    """Reads and writes of a rank's nodes, which are given in the order in which they end."""
    trace, found = chakra.read(path), Tensors()
    place = {node: i for i, node in enumerate(trace.id.tolist())}
    for row in rows.tolist():
        where = name_of(lowered.flat, row)
        node = chakra.Node.FromString(trace.record(place[int(lowered.flat.node_id[row])]))
        span = Activity(int(run.issue[row]), int(run.finish[row]), node.name, node.id)
        for tensor, size in _pairs(node, "inputs", where):
            if tensor not in found.sizes:
                found.sizes[tensor] = size
                found.writes[tensor] = Activity(0, 10, *UNWRITTEN)
            found.reads.setdefault(tensor, []).append(span)
        for tensor, size in _pairs(node, "outputs", where):
            if tensor in found.sizes:
                raise TraceError(
                    f"{where} writes tensor {tensor!r}, which is there already; track-local-mem wants each tensor "
                    "to be written once, and before it is read"
                )
            found.sizes[tensor], found.writes[tensor] = size, span
    return found


def _pairs(node: Any, key: str, where: str) -> Iterator[tuple[str, int]]:
    """Tensors and their sizes [B], of which the whole digits count, in an attribute; those of size 0 do not count."""
    lists = [a.string_list.values for a in node.attr if a.name == key]
    if not lists:
        raise TraceError(f"{where} has no attribute {key}, which track-local-mem needs")
    values = list(lists[0])
    sizes = [re.match(r"\s*\+?([0-9]{1,19})", size) for size in values[1::2]]
    if len(values) % 2 or not all(sizes):
        raise TraceError(f"{where}: {key} is no list of tensors and sizes in turn")
    for tensor, size in zip(values[::2], sizes, strict=True):
        if size and int(size[1]):
            yield tensor, int(size[1])


def _walk(names: Any) -> list[str]:
    """Texts in the order in which a table is walked into which they are put in this order."""
    names = list(names)
    hashes = np.array([hash_of_text(name) for name in names], np.uint64)
    return [names[k] for k in walk(hashes).tolist()]


def _timeline(t: Tensors, rank: int) -> tuple[list[dict[str, Any]], int]:
    """The events of a rank, and the peak [B]."""
    numbers = {name: k for k, name in enumerate(_walk(t.sizes))}
    events: list[dict[str, Any]] = []

    def span(kind: str, tensor: str, activity: Activity) -> None:
        args = {"size": t.sizes[tensor], "node_name": activity.name, "node_id": activity.node}
        for phase, time in (("B", activity.start), ("E", activity.end)):
            events.append(
                {
                    "name": tensor,
                    "cat": kind,
                    "ph": phase,
                    "ts": 1e-3 * time,
                    "pid": rank,
                    "tid": numbers[tensor],
                    "args": args,
                }
            )

    for tensor in _walk(numbers):
        for activity in t.reads.get(tensor, ()):
            span("tensorRead", tensor, activity)
    for tensor in _walk(numbers):
        span("tensorWrite", tensor, t.writes[tensor])

    def lifetime(tensor: str, phase: str, time: int) -> None:
        events.append(
            {
                "name": tensor,
                "cat": "tensorLifetime",
                "ph": phase,
                "ts": 1e-3 * time,
                "pid": rank + LIFETIME,
                "tid": numbers[tensor],
                "args": {"size": t.sizes[tensor]},
            }
        )

    begins: dict[int, list[str]] = {}
    for tensor in _walk(t.writes):
        lifetime(tensor, "B", t.writes[tensor].start)
        begins.setdefault(t.writes[tensor].start, []).append(tensor)
    ends: dict[int, list[str]] = {}
    for tensor in _walk(t.reads):
        lifetime(tensor, "E", t.reads[tensor][-1].end)
        ends.setdefault(t.reads[tensor][-1].end, []).append(tensor)
    held: set[str] = set()
    total = peak = latest = 0
    for latest in sorted({*begins, *ends}):
        for tensor in begins.get(latest, ()):
            total += t.sizes[tensor] * (tensor not in held)
            held.add(tensor)
        for tensor in ends.get(latest, ()):
            total -= t.sizes[tensor] * (tensor in held)
            held.discard(tensor)
        peak = max(peak, total)
        events.append(
            {
                "name": "GPU Memory Usage (MB)",
                "cat": "GPU Memory",
                "ph": "C",
                "ts": 1e-3 * latest,
                "pid": rank + USE,
                "args": {"Memory_MB": total / MIB},
            }
        )
    events += _heatmap(t, rank, latest)
    return events, peak


def _heatmap(t: Tensors, rank: int, latest: int) -> Iterator[dict[str, Any]]:
    """Tensors by lifetime, the longest first."""
    process = rank + HEATMAP
    for name, text, more in (
        ("process_name", "Tensor Lifetime Heap", {}),
        ("thread_name", "Longest Lifetime → Shortest Lifetime", {"tid": 0}),
    ):
        yield {"name": name, "ph": "M", "pid": process, "args": {"name": text}, **more}
    lives = []
    for tensor in _walk(t.writes):
        start = t.writes[tensor].start
        end = t.reads[tensor][-1].end if tensor in t.reads else latest
        lives.append((tensor, start, end - start))
    lives = _sorted(lives, lambda a, b: a[2] > b[2])
    shortest, longest = lives[-1][2] if lives else 0, lives[0][2] if lives else 0
    largest = max(t.sizes.values(), default=0)
    for tensor, start, life in lives:
        size, position = t.sizes[tensor], 0
        if longest != shortest:
            position = int((float(life - shortest) / (longest - shortest)) * (len(lives) - 1))
        heat = min(255, int(float(size) / largest * 255))
        shown = tensor.encode("utf-8", "surrogateescape")
        shown = shown[:17] + b"..." if len(shown) > 20 else shown
        label = f"{shown.decode('utf-8', 'replace')} ({f'{size / MIB:f}'[:5]} MB)"
        yield {
            "name": label,
            "cat": "tensorHeatmap",
            "ph": "X",
            "ts": 1e-3 * start,
            "dur": 1e-3 * life,
            "pid": process,
            "tid": position,
            "cname": f"#{heat:02X}64{255 - heat:02X}",
            "args": {
                "tensor_name": tensor,
                "size_bytes": size,
                "size_mb": size / MIB,
                "lifetime_ns": life,
                "position": position,
            },
        }
    yield {
        "name": "Tensor Lifetime Heatmap",
        "cat": "tensorHeatmap",
        "ph": "i",
        "ts": 0,
        "pid": process,
        "s": "p",
        "args": {
            "description": "Tensors arranged by lifetime duration (longest at bottom)",
            "total_tensors": len(lives),
            "displayed_tensors": len(lives),
        },
    }


def _size(size: int) -> str:
    """A size with its unit, in single precision."""
    unit = 0
    while unit < len(UNITS) - 1 and size >= 1024 ** (unit + 1):
        unit += 1
    return f"{np.float32(size) / np.float32(1024.0**unit):.2f} {UNITS[unit]}"


def _sorted(items: list[Any], before: Callable[[Any, Any], bool]) -> list[Any]:
    """Items in the order in which libstdc++'s std::sort leaves them, equal ones too.

    Quicksort by the median of three (second, middle, last) down to parts of 16, then insertion sort. Where the
    quicksort goes too deep libstdc++ sorts such a part by a heap; here it is sorted stably.
    """
    a = list(items)

    def partition(first: int, last: int) -> int:
        low, middle, high = first + 1, first + (last - first) // 2, last - 1
        if before(a[low], a[middle]):
            in_order = (middle, high, low)
        else:
            in_order = (low, high, middle)
        one, other, rest = in_order
        median = one if before(a[one], a[other]) else (other if before(a[rest], a[other]) else rest)
        a[first], a[median] = a[median], a[first]
        low, high = first + 1, last
        while True:
            while before(a[low], a[first]):
                low += 1
            high -= 1
            while before(a[first], a[high]):
                high -= 1
            if low >= high:
                return low
            a[low], a[high] = a[high], a[low]
            low += 1

    def split(first: int, last: int, depth: int) -> None:
        while last - first > 16:
            if depth == 0:
                a[first:last] = _stable(a[first:last], before)
                return
            depth -= 1
            cut = partition(first, last)
            split(cut, last, depth)
            last = cut

    split(0, len(a), 2 * max(len(a).bit_length() - 1, 0))
    return _stable(a, before)


def _stable(items: list[Any], before: Callable[[Any, Any], bool]) -> list[Any]:
    """Insertion sort: an item moves in front of those that it comes before."""
    a = list(items)
    for k in range(1, len(a)):
        item, i = a[k], k
        while i > 0 and before(item, a[i - 1]):
            a[i] = a[i - 1]
            i -= 1
        a[i] = item
    return a
