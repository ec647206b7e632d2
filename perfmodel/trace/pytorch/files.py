"""Which files are PyTorch's, which is host and which is device trace, and of which rank.

Told apart by content: a Kineto trace has "traceEvents", a host execution trace "nodes" beside "schema". Both may be
packed with gzip. The rank is `distributedInfo.rank` of a Kineto trace, else the last number in the file's name.
"""

from __future__ import annotations

import gc
import json
import os
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from perfmodel.errors import TraceError
from perfmodel.files import StrPath
from perfmodel.json_text import check_held
from perfmodel.trace.chakra.inflate import inflate
from perfmodel.trace.pytorch.host_trace import HostTrace, host_trace
from perfmodel.trace.pytorch.kineto import Device, device_trace

Recordings = StrPath | Sequence[StrPath | tuple[StrPath, StrPath]]

HEAD = 1 << 16
"""Bytes of a file that are looked at to tell what it is."""

ENDINGS = (".json", ".json.gz", ".pt.trace.json", ".pt.trace.json.gz")

CHAKRA = re.compile(r"\.\d+\.(et|eg)(\.gz)?$")
"""How names of Chakra's files end."""

_NUMBER = re.compile(r"\d+")


@dataclass(frozen=True)
class RankFiles:
    """The traces of one rank; either path is empty where there is none."""

    rank: int
    device: Device | None
    host: HostTrace | None


def is_pytorch(trace: Any) -> bool:
    """Whether a path, a folder or a list of them holds PyTorch's traces (and no Chakra files that would go first)."""
    try:
        return any(_kind(path) for path in candidates(trace))
    except (OSError, TypeError):
        return False


def candidates(trace: Recordings) -> list[Path]:
    """The files that a trace argument means: a file, a folder's JSON files, those with a prefix, a list, pairs.

    None where Chakra's files stand beside them, whose group files are JSON, too.
    """
    if isinstance(trace, str | os.PathLike):
        path = Path(trace)
        if path.is_file():
            return [path]
        folder, prefix = (path, "") if path.is_dir() else (path.parent, path.name)
        if not folder.is_dir():
            return []
        named = [f for f in folder.iterdir() if f.name.startswith(prefix) and f.is_file()]
        if any(CHAKRA.search(f.name) for f in named):
            return []
        return sorted(f for f in named if f.name.endswith(ENDINGS))
    return [
        Path(p) for entry in trace for p in (entry if isinstance(entry, tuple | list) else (entry,))
    ]


def _kind(path: Path) -> str:
    """ "device", "host" or "" (neither), from the beginning of a file."""
    if not path.is_file():
        return ""
    with path.open("rb") as file:
        raw = file.read(HEAD)
    if raw[:2] == b"\x1f\x8b":
        try:
            raw = zlib.decompressobj(wbits=31).decompress(raw, 4 * HEAD)
        except zlib.error:
            return ""
    text = raw.lstrip()
    if any(
        word in text for word in (b'"traceEvents"', b'"deviceProperties"', b'"distributedInfo"')
    ):
        return "device"
    if text[:1] == b"[" and b'"ph"' in text:
        return "device"
    return "host" if b'"schema"' in text and b'"nodes"' in text else ""


@contextmanager
def without_collection() -> Iterator[None]:
    """Python's search for cycles is off: it would go through millions of parsed records again and again, to no
    avail."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collecting:
            gc.enable()


def read_json(path: Path) -> Any:
    """A JSON file, packed or not.

    Raises:
        TraceError: it cannot be unpacked or is no JSON.
    """
    try:
        raw = path.read_bytes()
        raw = inflate(raw, str(path))
        check_held(raw, path, kind=TraceError)
        return json.loads(raw.decode("utf-8", errors="replace"))
    except (OSError, EOFError, zlib.error) as error:
        raise TraceError(f"{path}: cannot be read ({error}).") from error
    except (ValueError, RecursionError) as error:
        raise TraceError(
            f"{path}: is no valid JSON ({error}). Was the run stopped while it wrote the file?"
        ) from error


def find(trace: Recordings, ranks: Iterable[int] | None = None) -> list[RankFiles]:
    """The traces of each rank, in order of rank.

    Args:
        trace: a file, a folder, a prefix, a list of files, or of pairs (host trace, device trace) in either order.
        ranks: only these.

    Raises:
        TraceError: no trace, two of one kind for a rank, or a host trace without a device trace beside ranks with one.
    """
    if (
        isinstance(trace, list | tuple)
        and trace
        and all(isinstance(e, list | tuple) for e in trace)
    ):
        found = [_pair([Path(p) for p in entry], i) for i, entry in enumerate(trace)]
        found.sort(key=lambda f: f.rank)
        repeated = [b for a, b in pairwise(found) if a.rank == b.rank]
        if repeated:
            raise TraceError(
                f"{repeated[0].device and repeated[0].device.path}: is a second trace of rank {repeated[0].rank}."
            )
    else:
        found = _together(candidates(trace), str(trace))
    if ranks is not None:
        wanted = list(ranks)
        lacking = [r for r in wanted if r not in [f.rank for f in found]]
        if lacking:
            raise TraceError(
                f"{trace}: has no rank {lacking[0]}. Ranks there: {', '.join(str(f.rank) for f in found)}."
            )
        found = [f for f in found if f.rank in wanted]
    _check_times(found)
    return found


def _load(path: Path) -> tuple[Device | HostTrace, int]:
    """A trace and its rank by name (-1 for none)."""
    kind = _kind(path)
    document = read_json(path)
    if not kind:
        kind = (
            "device"
            if isinstance(document, list)
            or (isinstance(document, dict) and "traceEvents" in document)
            else "host"
        )
    numbers = _NUMBER.findall(path.name.removesuffix(".gz").removesuffix(".json"))
    by_name = int(numbers[-1]) if numbers else -1
    if kind == "device":
        device = device_trace(document, str(path))
        return device, device.rank if device.rank >= 0 else by_name
    return host_trace(document, str(path)), by_name


def _pair(paths: list[Path], number: int) -> RankFiles:
    device = host = None
    rank = number
    for path in paths:
        trace, _ = _load(path)
        if isinstance(trace, Device):
            if device is not None:
                raise TraceError(
                    f"{path}: is a second device trace in one pair, beside {device.path}."
                )
            device, rank = trace, trace.rank if trace.rank >= 0 else rank
        else:
            if host is not None:
                raise TraceError(f"{path}: is a second host trace in one pair, beside {host.path}.")
            host = trace
    return RankFiles(rank, device, host)


def _check_times(found: list[RankFiles]) -> None:
    """Either all ranks have times, or none."""
    lacking = [f.host for f in found if f.device is None]
    if lacking and len(lacking) < len(found):
        raise TraceError(
            f"{lacking[0].path if lacking[0] else ''}: is a host execution trace, which holds no times. Give the "
            "Kineto trace of the same rank (torch.profiler's export_chrome_trace) with it, as for the other ranks."
        )


def _together(paths: list[Path], source: str) -> list[RankFiles]:
    """Files of several ranks in any order, joined by rank."""
    paths = [p for p in paths if _kind(p)] if len(paths) > 1 else paths
    if not paths:
        raise TraceError(f"{source}: holds no trace. Expected PyTorch's JSON files, packed or not.")
    devices: dict[int, Device] = {}
    hosts: dict[int, HostTrace] = {}
    loaded = [(path, *_load(path)) for path in paths]
    single = sum(isinstance(t, Device) for _, t, _ in loaded) == 1
    for path, trace, rank in loaded:
        if single and len(loaded) <= 2:
            rank = 0 if not isinstance(trace, Device) or trace.rank < 0 else trace.rank
        rank = max(rank, 0)
        if isinstance(trace, Device):
            if rank in devices:
                raise TraceError(
                    f"{path}: is a second device trace of rank {rank}, beside {devices[rank].path}. "
                    "Give the files of one run."
                )
            devices[rank] = trace
        else:
            if rank in hosts:
                raise TraceError(
                    f"{path}: is a second host trace of rank {rank}, beside {hosts[rank].path}. "
                    "Give the files of one run."
                )
            hosts[rank] = trace
    if single and len(hosts) == 1:
        return [
            RankFiles(next(iter(devices)), next(iter(devices.values())), next(iter(hosts.values())))
        ]
    return [RankFiles(r, devices.get(r), hosts.get(r)) for r in sorted({*devices, *hosts})]
