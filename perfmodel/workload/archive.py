"""Graphs kept in a file: read once, opened again at once.

A NumPy archive (`.npz`, never pickled): the arrays of every program, the label sets as text, and a JSON note of
where the graph came from. The archive's checksums show damage, and what is in it is checked as a whole before it is
used, as somebody may have edited it. Opening compares the source files with what was read (by size and time of change,
and by content where those differ); where they have changed, or the archive is damaged beside a readable note, the
graph is read anew and the file is written again.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.errors import InputError, TraceError
from perfmodel.files import write_whole
from perfmodel.workload.archive_members import FAULTS, Members, write_members
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Origin, Program
from perfmodel.workload.recorded import Recorded
from perfmodel.workload.structure_check import check_structure, shapes
from perfmodel.workload.tensor_memory import RankTensors, TensorMemory
from perfmodel.workload.training_step import PARTS, TrainingStep

FORMAT = "perfmodel-graph-4"
SUFFIX = ".npz"
ARRAYS = tuple(f.name for f in fields(Program) if f.name != "resources")
STEP_FIGURES = ("tokens", "model_flops", "hardware_flops", "dtype")
STEP_ARRAYS: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "memory": ("f8", (None, len(PARTS))),
    "kind": ("i4", (None,)),
    "change_kind": ("i4", (None,)),
    "change_node": ("i8", (None,)),
    "change": ("f8", (None,)),
}
"""What is kept of a `TrainingStep`: figures in the header, arrays with their types and shapes."""
TENSOR_ARRAYS = {"kind": "i4", "before": "f8", "count": "i8", "node": "i8", "change": "f8"}
"""What is kept of a `TensorMemory`, with types."""
LONGEST_NOTE = 1 << 26
"""Bytes of a note that are read."""

OPTIONS = (
    *("groups", "group", "unknown_group", "dependencies", "zero_duration"),
    *("ranks", "tensor", "passes", "tick", "sizes", "messages"),
    *("recorded_on", "step", "offsets"),
)


def save(graph: Graph, path: str | Path) -> None:
    """Write a graph to a file that `load` opens.

    Args:
        graph: from `load` or a generator.
        path: a name ending in .npz. Beside it a note (`.npz.json`) says what was read.

    Raises:
        InputError: another ending, a graph that no prediction takes (of `astra.load`, with messages without partner),
            or a file that cannot be written.
    """
    path = Path(path)
    if path.suffix != SUFFIX:
        raise InputError(f"{path}: a saved graph's name ends in {SUFFIX}")
    if not isinstance(graph, Graph):
        raise InputError(f"save: got {type(graph).__name__}, expected a Graph")
    try:
        check_structure(graph)
    except ValueError as error:
        raise InputError(
            f"{path}: this graph cannot be saved, as it cannot be run: {error}"
        ) from None
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
        arrays[f"l{k}.start"] = labels.start
        arrays[f"l{k}.names"] = _bytes(labels.names)
    header = {
        "format": FORMAT,
        "source": graph.source,
        "warnings": graph.warnings,
        "group_names": graph.group_names,
        "resources": [p.resources for p in graph.programs],
        "labels": len(graph.labels),
        "recorded": graph.recorded.text() if graph.recorded else "",
    }
    if graph.step is not None:
        header["step"] = {name: getattr(graph.step, name) for name in STEP_FIGURES}
        arrays |= {f"step.{name}": getattr(graph.step, name) for name in STEP_ARRAYS}
    if graph.tensors is not None:
        header["tensors"] = [kind.source for kind in graph.tensors.kinds]
        arrays |= _of_tensors(graph.tensors)
    arrays["header"] = _bytes(header)
    write_members(path, arrays)
    _write_note(graph.origin, path)


def _bytes(value: Any) -> np.ndarray:
    """A value as JSON, as an array."""
    return np.frombuffer(json.dumps(value).encode(), np.uint8)


def _note(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _write_note(origin: Origin | None, path: Path) -> None:
    read = [] if origin is None else [*origin.files, *filter(None, [origin.group_file])]
    files = []
    for name, digest in read:
        try:
            stat = os.stat(name)
        except OSError as error:
            raise InputError(
                f"{path}: {name}, which the graph was read from, is not there any more ({error.strerror}); "
                "load the trace again, then save it"
            ) from None
        files.append([name, digest, stat.st_size, stat.st_mtime_ns])
    note = {
        "format": FORMAT,
        "files": files[: len(origin.files)] if origin else [],
        "group_file": files[len(origin.files) :] if origin else [],
        "options": origin.options if origin else {},
    }
    write_whole(_note(path), json.dumps(note).encode())


def is_saved(trace: Any) -> bool:
    """Whether a trace argument names a saved graph."""
    return isinstance(trace, str | Path) and Path(trace).suffix == SUFFIX


def restore(
    path: Path,
    read: Callable[[Sequence[str], dict[str, Any]], Graph],
    given: Mapping[str, Any],
    *,
    strict: bool = False,
) -> Graph:
    """Open a saved graph; read it anew, and save it again, where it is stale or damaged.

    Args:
        path: the file.
        read: reads the graph from its files with its options.
        given: the options that the caller gave; where they are not the saved ones, the graph is read anew from its
            files and the saved one stays.
        strict: warnings of the saved graph are errors.

    Raises:
        TraceError: no such file, no saved graph, damaged or saved with other options with nothing to read it from,
            or (strict) a graph with warnings.
    """
    note = _read_note(path)
    files = [name for name, *_ in note.files]
    other = [name for name, value in given.items() if note.options.get(name) != _plain(value)]
    if other:
        if not files or not all(map(os.path.isfile, files)):
            raise TraceError(
                f"{path}: was saved with another value of {', '.join(other)}, and the files it was read from are not "
                "there; leave the option out, or load the trace itself"
            )
        return read(files, {**note.options, **given})
    stale = _changed(note)
    if not stale:
        try:
            graph = _open(path, note)
        except FAULTS as error:
            stale = f"is damaged ({str(error) or type(error).__name__})"
            if not files:
                raise TraceError(f"{path}: {stale}; save it again") from None
        else:
            if strict and graph.warnings:
                raise TraceError(
                    f"{path}: has warnings, which are errors (strict)", *graph.warnings
                )
            return graph
    warnings.warn(f"{path}: {stale}; read anew from its files", stacklevel=3)
    graph = read(files, note.options)
    save(graph, path)
    return graph


def _plain(value: Any) -> Any:
    """An option as a note holds it."""
    try:
        return json.loads(json.dumps(value, default=str))
    except (TypeError, ValueError):
        return value


@dataclass(frozen=True)
class _Note:
    """What was read: (name, SHA-256, size [B], time of change [ns]) of each file and the group file; the options."""

    files: tuple[tuple[str, str, int, int], ...] = ()
    group_file: tuple[tuple[str, str, int, int], ...] = ()
    options: dict[str, Any] = field(default_factory=dict)


def _read_note(path: Path) -> _Note:
    if not path.is_file():
        raise TraceError(f"{path}: no such file")
    try:
        with _note(path).open("rb") as file:
            raw = file.read(LONGEST_NOTE + 1)
        if len(raw) > LONGEST_NOTE:
            raise ValueError(f"more than {LONGEST_NOTE} bytes")
        note = json.loads(raw)
        if note["format"] != FORMAT:
            raise ValueError(f"format {note['format']!r}")
        files = tuple(_file(*entry) for entry in note["files"])
        group_file = tuple(_file(*entry) for entry in note["group_file"])[:1]
        options = {k: v for k, v in dict(note["options"]).items() if k in OPTIONS}
        return _Note(files, group_file, options)
    except FileNotFoundError:
        return _Note()
    except FAULTS as error:
        raise TraceError(
            f"{_note(path)}: is no note of a saved graph ({error}); save it again"
        ) from None


def _file(name: Any, digest: Any, size: Any, time: Any) -> tuple[str, str, int, int]:
    if not (isinstance(name, str) and isinstance(digest, str) and type(size) is type(time) is int):
        raise ValueError("a file is no name, hash, size and time")
    if not name or "\0" in name:
        raise ValueError("a file has no name")
    return name, digest, size, time


def _changed(note: _Note) -> str:
    """What has changed in the source files since they were read; files that are gone do not count."""
    for name, digest, size, time in (*note.files, *note.group_file):
        try:
            stat = os.stat(name)
        except OSError:
            continue
        if (stat.st_size, stat.st_mtime_ns) == (size, time):
            continue
        if not os.path.isfile(name) or stat.st_size != size or _hash_of(name) != digest:
            return f"{name} has changed since"
    return ""


def _hash_of(name: str) -> str:
    with open(name, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _open(path: Path, note: _Note) -> Graph:
    """The graph of an archive, checked; raises one of `FAULTS`."""
    members = Members(path)
    header = json.loads(members.array("header", "u1", None).tobytes())
    if header["format"] != FORMAT:
        raise ValueError(f"format {header['format']!r}")
    resources = [_texts(labels) for labels in header["resources"]]
    labels = range(int(header["labels"]))
    if len(labels) > path.stat().st_size:
        raise ValueError("header names more labels than there are bytes")
    members.expect(
        ["header", "program", "row", "by_name", "label", "group_size", "group_member"]
        + [f"p{k}.{name}" for k in range(len(resources)) for name in ARRAYS]
        + [f"l{k}.{name}" for k in labels for name in ("node_id", "tag", "start", "names")]
        + [f"step.{name}" for name in STEP_ARRAYS if "step" in header]
        + [f"tensors.{name}" for name in TENSOR_ARRAYS if "tensors" in header]
    )
    graph = Graph(
        programs=tuple(_program(members, k, words) for k, words in enumerate(resources)),
        program=members.array("program", "i4", None),
        row=members.array("row", "i4", None),
        groups=_groups(members),
        group_names=_texts(header["group_names"]),
        by_name=members.array("by_name", "?", None),
        labels=tuple(_labels(members, k) for k in labels),
        label=members.array("label", "i4", None),
        source=str(header["source"]),
        warnings=_texts(header["warnings"]),
        recorded=Recorded.of_text(header["recorded"]) if header["recorded"] else None,
        step=_step(members, header["step"]) if "step" in header else None,
        tensors=_tensors(members, _texts(header["tensors"])) if "tensors" in header else None,
    )
    sizes = [len(graph.programs[k]) for k in graph.program]
    if graph.step is not None:
        graph.step.check(graph.ranks, sizes)
    if graph.tensors is not None:
        graph.tensors.check(graph.ranks, sizes)
    if len(graph.row) != graph.ranks or len(graph.label) != graph.ranks:
        raise ValueError("row or label is not one per rank")
    check_structure(graph)
    group_file = note.group_file[0][:2] if note.group_file else None
    origin = Origin(tuple((n, d) for n, d, *_ in note.files), note.options, group_file)
    return replace(graph, origin=origin) if note.files else graph


def _texts(values: Any) -> tuple[str, ...]:
    if not isinstance(values, list) or not all(type(value) is str for value in values):
        raise ValueError("the header holds no list of texts")
    return tuple(values)


def _program(members: Members, k: int, resources: tuple[str, ...]) -> Program:
    n = len(members.array(f"p{k}.type", "i1", None))
    e = len(members.array(f"p{k}.pred", "i4", None))
    arrays = {
        name: members.array(f"p{k}.{name}", kind, *shape)
        for name, (kind, shape) in shapes(n, e).items()
    }
    m, messages = len(arrays["ranks"]), len(arrays["p2p"])
    for name, columns in (("groups", None), ("peer", messages), ("partner", messages)):
        if len(arrays[name]) != m or columns not in (None, arrays[name].shape[1]):
            raise ValueError(f"p{k}.{name} is not one row per rank")
    return Program(resources=resources, **arrays)


def _labels(members: Members, k: int) -> Labels:
    node_id = members.array(f"l{k}.node_id", "u8", None)
    names = json.loads(members.array(f"l{k}.names", "u1", None).tobytes())
    tag = members.array(f"l{k}.tag", "i8", len(node_id))
    return Labels(node_id, tag, _texts(names), members.array(f"l{k}.start", "f8", None))


def _step(members: Members, figures: Mapping[str, Any]) -> TrainingStep:
    """What the graph does for its model."""
    arrays = {
        name: members.array(f"step.{name}", kind, *shape)
        for name, (kind, shape) in STEP_ARRAYS.items()
    }
    return TrainingStep(
        tokens=int(figures["tokens"]),
        model_flops=float(figures["model_flops"]),
        hardware_flops=float(figures["hardware_flops"]),
        dtype=str(figures["dtype"]),
        **arrays,
    )


def _of_tensors(tensors: TensorMemory) -> dict[str, np.ndarray]:
    """The arrays of what tensors hold, the changes of all kinds one after the other."""
    kinds = tensors.kinds
    return {
        "tensors.kind": tensors.kind,
        "tensors.before": np.array([k.before for k in kinds], np.float64),
        "tensors.count": np.array([len(k.node) for k in kinds], np.int64),
        "tensors.node": np.concatenate([k.node for k in kinds]),
        "tensors.change": np.concatenate([k.change for k in kinds]),
    }


def _tensors(members: Members, sources: tuple[str, ...]) -> TensorMemory:
    """What tensors hold."""
    before, count = (
        members.array(f"tensors.{name}", TENSOR_ARRAYS[name], len(sources))
        for name in ("before", "count")
    )
    node, change = (
        members.array(f"tensors.{name}", TENSOR_ARRAYS[name], None) for name in ("node", "change")
    )
    if (count < 0).any() or count.sum() != len(node) or len(node) != len(change):
        raise ValueError("the tensors' changes are not as many as their kinds count")
    ends = np.cumsum(count)
    kinds = tuple(
        RankTensors(float(b), node[end - n : end], change[end - n : end], source)
        for b, n, end, source in zip(before, count.tolist(), ends.tolist(), sources)
    )
    return TensorMemory(kinds, members.array("tensors.kind", TENSOR_ARRAYS["kind"], None))


def _groups(members: Members) -> tuple[tuple[int, ...], ...]:
    size = members.array("group_size", "i8", None)
    member = members.array("group_member", "i4", None)
    if (size.size and (size.min() < 0 or size.max() > len(member))) or size.sum() != len(member):
        raise ValueError("group_size does not divide group_member")
    ends, listed = np.cumsum(size), member.tolist()
    return tuple(tuple(listed[a:b]) for a, b in zip(ends - size, ends))
