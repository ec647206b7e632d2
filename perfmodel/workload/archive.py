"""Graphs kept in a file: read once, opened again at once.

A NumPy archive (`.npz`, never pickled): the arrays of every program, the label sets as text, and a JSON note of
where the graph came from. The archive's checksums show damage. Opening compares the source files with what was
read (by size and time of change, and by content where those differ); where they have changed, or the archive is
damaged beside a readable note, the graph is read anew and the file is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.errors import InputError, TraceError
from perfmodel.workload.graph import Graph, Labels, Origin, Program

FORMAT = "perfmodel-graph-1"
SUFFIX = ".npz"
ARRAYS = tuple(f.name for f in fields(Program) if f.name != "resources")


def save(graph: Graph, path: str | Path) -> None:
    """Write a graph to a file that `load` opens.

    Args:
        graph: from `load` or a generator.
        path: a name ending in .npz. Beside it a note (`.npz.json`) says what was read.

    Raises:
        InputError: another ending.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a saved graph's name ends in {SUFFIX}")
    arrays: dict[str, np.ndarray] = {
        "program": graph.program,
        "row": graph.row,
        "by_name": graph.by_name,
        "label": graph.label,
        "group_size": np.array([len(g) for g in graph.groups], np.int64),
        "group_member": np.array([m for g in graph.groups for m in g], np.int32),
    }
    for k, p in enumerate(graph.programs):
        for name in ARRAYS:
            arrays[f"p{k}.{name}"] = getattr(p, name)
    for k, labels in enumerate(graph.labels):
        arrays[f"l{k}.node_id"], arrays[f"l{k}.tag"] = labels.node_id, labels.tag
        arrays[f"l{k}.names"] = np.frombuffer(json.dumps(labels.names).encode(), np.uint8)
    header = {
        "format": FORMAT,
        "source": graph.source,
        "warnings": graph.warnings,
        "digest": graph.digest,
        "group_names": graph.group_names,
        "resources": [p.resources for p in graph.programs],
        "labels": len(graph.labels),
    }
    arrays["header"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    partial = path.with_name(path.name + ".tmp.npz")
    np.savez(partial, **arrays)  # type: ignore[arg-type]
    os.replace(partial, path)
    _write_note(graph.origin, path)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_note(origin: Origin | None, path: Path) -> None:
    files = []
    for name, digest in origin.files if origin else ():
        stat = os.stat(name)
        files.append([name, digest, stat.st_size, stat.st_mtime_ns])
    text = json.dumps(
        {"format": FORMAT, "files": files, "options": origin.options if origin else {}}
    )
    partial = path.with_name(path.name + ".json.tmp")
    partial.write_text(text)
    os.replace(partial, _note(path))


def is_saved(trace: Any) -> bool:
    """Whether a trace argument names a saved graph."""
    return isinstance(trace, str | Path) and Path(trace).suffix == SUFFIX


def restore(path: Path, read: Callable[[Sequence[str], dict], Graph]) -> Graph:
    """Open a saved graph; read it anew, and save it again, where it is stale or damaged.

    Args:
        path: the file.
        read: reads the graph from its files with its options.

    Raises:
        TraceError: no such file, no saved graph, or damaged with nothing to read it from.
    """
    note = _read_note(path)
    stale = _changed(note)
    if not stale:
        try:
            return _open(path, note)
        except (ValueError, KeyError, OSError, zipfile.BadZipFile, zlib.error, EOFError) as error:
            stale = f"is damaged ({error})"
            if not note["files"]:
                raise TraceError(f"{path}: {stale}; save it again") from None
    warnings.warn(f"{path}: {stale}; read anew from its files", stacklevel=3)
    options = {k: v for k, v in note["options"].items() if k in OPTIONS}
    graph = read([name for name, *_ in note["files"]], options)
    save(graph, path)
    return graph


OPTIONS = ("groups", "unknown_group", "dependencies", "zero_duration")


def _read_note(path: Path) -> dict:
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    try:
        note = json.loads(_note(path).read_text())
        if note["format"] != FORMAT:
            raise ValueError(f"format {note['format']!r}")
        files = [(str(n), str(d), int(s), int(t)) for n, d, s, t in note["files"]]
        return {"files": files, "options": dict(note["options"])}
    except FileNotFoundError:
        return {"files": [], "options": {}}
    except (ValueError, KeyError, TypeError) as error:
        raise TraceError(
            f"{_note(path)}: is no note of a saved graph ({error}); save it again"
        ) from None


def _changed(note: dict) -> str:
    """What has changed in the source files since they were read; files that are gone do not count."""
    for name, digest, size, time in note["files"]:
        try:
            stat = os.stat(name)
        except OSError:
            continue
        if (stat.st_size, stat.st_mtime_ns) == (size, time):
            continue
        if stat.st_size != size or hashlib.sha256(Path(name).read_bytes()).hexdigest() != digest:
            return f"{name} has changed since"
    return ""


def _open(path: Path, note: dict) -> Graph:
    with open(path, "rb") as file:
        if not zipfile.is_zipfile(file):
            raise ValueError("no archive")
        file.seek(0)
        with np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    header = json.loads(arrays["header"].tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']!r}")
    programs = tuple(
        Program(resources=tuple(r), **{name: arrays[f"p{k}.{name}"] for name in ARRAYS})
        for k, r in enumerate(header["resources"])
    )
    labels = tuple(
        Labels(
            arrays[f"l{k}.node_id"],
            arrays[f"l{k}.tag"],
            tuple(json.loads(arrays[f"l{k}.names"].tobytes())),
        )
        for k in range(header["labels"])
    )
    ends = np.cumsum(arrays["group_size"])
    member = arrays["group_member"].tolist()
    groups = tuple(tuple(member[a:b]) for a, b in zip(ends - arrays["group_size"], ends))
    origin = Origin(tuple((n, d) for n, d, *_ in note["files"]), note["options"])
    graph = Graph(
        programs=programs,
        program=arrays["program"],
        row=arrays["row"],
        groups=groups,
        group_names=tuple(header["group_names"]),
        by_name=arrays["by_name"],
        labels=labels,
        label=arrays["label"],
        source=header["source"],
        warnings=tuple(header["warnings"]),
        digest=header["digest"],
    )
    return replace(graph, origin=origin) if note["files"] else graph
