"""A Kineto device trace as columns: operators, runtime calls, GPU work and synchronisation, with times.

Kineto writes Chrome's trace format: a list of events with phase, category, name, process, thread, start [us], duration
[us] and a record of further arguments. Only complete events (phase "X") say anything about time. Category names have
changed over the years; `CATEGORIES` knows them all.

Times are kept as seconds after the file's own zero, `base` [ns], because microseconds since 1970 leave a double
only a quarter of a microsecond.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError

OPERATOR, ANNOTATION, MODULE, RUNTIME, KERNEL, MEMCPY, MEMSET, SYNC = range(8)
CATEGORIES = {
    "cpu_op": OPERATOR,
    "operator": OPERATOR,
    "user_annotation": ANNOTATION,
    "python_function": MODULE,
    "cuda_runtime": RUNTIME,
    "cuda_driver": RUNTIME,
    "hip_runtime": RUNTIME,
    "hip_driver": RUNTIME,
    "xpu_runtime": RUNTIME,
    "mtia_runtime": RUNTIME,
    "privateuse1_runtime": RUNTIME,
    "privateuse1_driver": RUNTIME,
    "runtime": RUNTIME,
    "kernel": KERNEL,
    "gpu_memcpy": MEMCPY,
    "memcpy": MEMCPY,
    "gpu_memset": MEMSET,
    "memset": MEMSET,
    "cuda_sync": SYNC,
}
"""Kineto's categories, in lower case, and what they mean here; others (overhead, spans, flows) carry no work."""

ON_DEVICE = (KERNEL, MEMCPY, MEMSET)

MOST_RANKS = 1 << 20
"""More ranks than this are no size of a run but damage."""

STEP = re.compile(r"ProfilerStep#(\d+)")


MEMORY = "[memory]"
"""The name of an event of the allocator."""


@dataclass(frozen=True, eq=False)
class Allocations:
    """Events of the allocator in order of time, c of them.

    Attributes:
        when: [c] f64 [s] after the file's zero.
        thread: [c] i32 place in `Device.threads`, -1 for one that does nothing else.
        device: [c] i32 a number for each device; accelerator: [c] bool it is one.
        bytes: [c] f64 of the block, negative where it is given back [B].
        total: [c] f64 all that is then allocated there [B].
    """

    when: NDArray[np.float64]
    thread: NDArray[np.int32]
    device: NDArray[np.int32]
    accelerator: NDArray[np.bool_]
    bytes: NDArray[np.float64]
    total: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Device:
    """One rank's Kineto trace, n events in order of thread, start and length (outer events first).

    Attributes:
        path: the file.
        rank, world: from `distributedInfo`, -1 where it does not say.
        backend: of the default process group ("nccl", "gloo", "").
        device_name: of `deviceProperties` ("NVIDIA A100-SXM4-80GB"), "" where there is none.
        base: zero of the times [ns since 1970, or since the machine started].
        category: [n] i8 as `CATEGORIES`.
        name: names, and [n] which of them each event has.
        thread: [n] i32 place in `threads`, labels (process, thread) of the host and (device, stream) of the device.
        start, end: [n] f64 [s] after `base`.
        external, record, correlation: [n] i64, -1 where absent: "External id", "Record function id", "correlation".
        stream: [n] i64, of GPU work and synchronisation, -1 where absent.
        args: the further arguments of each event, n records (empty ones are shared).
        process_groups: of `distributedInfo.pg_config`: {name: ranks}.
        allocations: of the memory that was recorded, None where it was not.
    """

    path: str
    rank: int
    world: int
    backend: str
    device_name: str
    base: int
    category: NDArray[np.int8]
    names: tuple[str, ...]
    name: NDArray[np.int32]
    threads: tuple[tuple[Any, Any], ...]
    thread: NDArray[np.int32]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    external: NDArray[np.int64]
    record: NDArray[np.int64]
    correlation: NDArray[np.int64]
    stream: NDArray[np.int64]
    args: Sequence[Mapping[str, Any]]
    process_groups: Mapping[str, tuple[int, ...]]
    allocations: Allocations | None = None

    def __len__(self) -> int:
        return len(self.category)

    def named(self, *words: str, whole: bool = True) -> NDArray[np.bool_]:
        """[n] events with one of these names, or with a name that holds one of the words (in lower case)."""
        if whole:
            chosen = [n in words for n in self.names]
        else:
            chosen = [any(w in n.lower() for w in words) for n in self.names]
        return np.array([*chosen, False], bool)[self.name]

    def steps(self) -> dict[int, tuple[float, float]]:
        """{number: (start, end)} of the profiler's steps [s], in order of time; without those that hold no operator
        (the one that the profiler was stopped in)."""
        found = {}
        begun = np.sort(self.start[self.category == OPERATOR])
        for index, name in enumerate(self.names):
            if match := STEP.fullmatch(name):
                here = (self.name == index) & (self.category == ANNOTATION)
                if here.any():
                    start, end = float(self.start[here].min()), float(self.end[here].max())
                    if np.searchsorted(begun, end) > np.searchsorted(begun, start):
                        found[int(match[1])] = (start, end)
        return dict(sorted(found.items(), key=lambda item: item[1]))


_FAR = 2.0**62
_EMPTY: Mapping[str, Any] = {}


def device_trace(document: Any, path: str) -> Device:
    """Columns from a parsed Kineto file.

    Args:
        document: what JSON gave: a record with "traceEvents", or the list of events itself.
        path: for messages.

    Raises:
        TraceError: no list of events, no complete event, or a field of the wrong kind.
    """
    head = document if isinstance(document, dict) else {}
    events = head.get("traceEvents", document if isinstance(document, list) else None)
    if not isinstance(events, list) or not all(map(dict.__instancecheck__, events)):
        raise TraceError(
            f'{path}: "traceEvents" is no list of records. Expected a trace that torch.profiler exported.'
        )
    kept = [e for e in events if e.get("ph") == "X" and str(e.get("cat")).lower() in CATEGORIES]
    if not kept:
        raise TraceError(
            f"{path}: holds no event of an operator, a runtime call or a kernel ({len(events)} events in all). "
            "Record with torch.profiler's activities CPU and CUDA."
        )
    category = np.array([CATEGORIES[str(e["cat"]).lower()] for e in kept], np.int8)
    begun = (t for e in kept if isinstance(t := e.get("ts"), int | float) and -_FAR < t < _FAR)
    zero = int(min(begun, default=0))
    start = _numbers([e.get("ts") for e in kept], "ts", path, shift=zero)
    length = _numbers([e.get("dur", 0) for e in kept], "dur", path)
    if (length < 0).any():
        raise TraceError(f'{path}: "dur" is negative in {int((length < 0).sum())} events.')
    args = [a if isinstance(a := e.get("args"), dict) else _EMPTY for e in kept]
    names, name = _words([str(e.get("name", "")) for e in kept])
    threads, thread = _words([(_plain(e.get("pid")), _plain(e.get("tid"))) for e in kept])
    external = _ids(args, "External id", "external id")
    order = np.lexsort((external, category, -length, start, thread))
    info = head.get("distributedInfo")
    info = info if isinstance(info, dict) else {}
    return Device(
        path=path,
        rank=min(_whole(info.get("rank")), MOST_RANKS),
        world=_world(info),
        backend=str(info.get("backend", "")),
        device_name=_device_name(head),
        base=max(_id(head.get("baseTimeNanoseconds", 0)), 0) + 1000 * zero,
        category=category[order],
        names=names,
        name=name[order],
        threads=threads,
        thread=thread[order],
        start=(start * 1e-6)[order],
        end=((start + length) * 1e-6)[order],
        external=external[order],
        record=_ids(args, "Record function id")[order],
        correlation=_ids(args, "correlation")[order],
        stream=_ids(args, "stream")[order],
        args=[args[i] for i in order.tolist()],
        process_groups=_process_groups(info),
        allocations=_allocations(events, zero, threads),
    )


def _allocations(
    events: list[Any], zero: int, threads: tuple[tuple[Any, Any], ...]
) -> Allocations | None:
    """The allocator's events; those that lack a number of theirs say nothing and are left out."""
    place = {label: k for k, label in enumerate(threads)}
    devices: dict[tuple[int, int], int] = {}
    rows = []
    for e in events:
        args = e.get("args")
        if e.get("name") != MEMORY or not isinstance(args, dict):
            continue
        numbers = [e.get("ts"), *(args.get(k) for k in ("Bytes", "Total Allocated"))]
        if not all(isinstance(v, int | float) and -_FAR < v < _FAR for v in numbers):
            continue
        key = (_id(args.get("Device Type", -1)), _id(args.get("Device Id", -1)))
        thread = place.get((_plain(e.get("pid")), _plain(e.get("tid"))), -1)
        number = devices.setdefault(key, len(devices))
        rows.append((numbers[0] - zero, thread, number, key[0] > 0, numbers[1], numbers[2]))
    if not rows:
        return None
    rows.sort(key=lambda row: row[0])
    columns = [np.array(column) for column in zip(*rows)]
    return Allocations(
        when=columns[0].astype(np.float64) * 1e-6,
        thread=columns[1].astype(np.int32),
        device=columns[2].astype(np.int32),
        accelerator=columns[3].astype(bool),
        bytes=columns[4].astype(np.float64),
        total=columns[5].astype(np.float64),
    )


def _plain(value: Any) -> Any:
    return value if isinstance(value, int | str) else str(value)


def _words(values: list[Any]) -> tuple[tuple[Any, ...], NDArray[np.int32]]:
    """Distinct values in order of first use, and which of them each is."""
    numbers = {value: i for i, value in enumerate(dict.fromkeys(values))}
    return tuple(numbers), np.fromiter(
        map(numbers.__getitem__, values), np.int32, count=len(values)
    )


def _numbers(values: list[Any], field: str, path: str, *, shift: int = 0) -> NDArray[np.float64]:
    try:
        numbers = np.array([v - shift for v in values], np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise TraceError(
            f'{path}: "{field}" of an event is missing or no number ({error}).'
        ) from error
    if not np.isfinite(numbers).all():
        raise TraceError(f'{path}: "{field}" of an event is not finite.')
    return numbers


def _whole(value: Any, default: int = -1) -> int:
    try:
        return int(value)
    except (TypeError, ValueError, OverflowError):
        return default


def _ids(args: list[Any], *keys: str) -> NDArray[np.int64]:
    """[n] an id of each event; -1 where it is absent, no whole number or out of range."""
    return np.array([_id(a.get(keys[0], a.get(keys[-1], -1))) for a in args], np.int64)


def _id(value: Any) -> int:
    """A whole number of 62 bits, -1 for anything else."""
    number = value if isinstance(value, int) else _whole(value)
    return number if -_FAR < number < _FAR else -1


def _device_name(head: Mapping[str, Any]) -> str:
    properties = head.get("deviceProperties")
    if isinstance(properties, list):
        names = [p.get("name") for p in properties if isinstance(p, dict)]
        if names and isinstance(names[0], str):
            return names[0]
    return ""


def _world(info: Mapping[str, Any]) -> int:
    """How many ranks the run has, -1 where the trace does not say, or says nonsense."""
    world = _whole(info.get("world_size"))
    return world if world <= MOST_RANKS else -1


def _process_groups(info: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """{name: ranks} of `pg_config`; an empty list of ranks means all."""
    found = {}
    configured = info.get("pg_config")
    for entry in configured if isinstance(configured, list) else []:
        if isinstance(entry, dict) and isinstance(entry.get("ranks"), list):
            ranks = tuple(r for r in entry["ranks"] if isinstance(r, int))
            found[str(entry.get("pg_name", ""))] = ranks or tuple(range(max(_world(info), 0)))
    return found
