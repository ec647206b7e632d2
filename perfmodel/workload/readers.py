"""Which reader a trace is for, and what every reader hands over: columns per rank, groups, and the files it read.

Formats are told apart by content. A new one is a function `(trace, options, findings) -> Loaded` behind a question that
its file's first bytes answer, in `reader_of`.
"""

from __future__ import annotations

import contextlib
import hashlib
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.errors import InputError, TraceError, quoted
from perfmodel.findings import Findings, RankFindings
from perfmodel.trace import chakra, goal, text_workload
from perfmodel.trace.chakra.inflate import inflate
from perfmodel.trace.text_workload_order import steps_of
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.chakra_columns import DEPENDENCIES, chakra_columns, groups_by_users
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.own_columns import recording, training_step
from perfmodel.workload.recorded import Recorded
from perfmodel.workload.repairs import repaired, with_peers
from perfmodel.workload.training_step import TrainingStep

Trace = str | Path | Sequence[str | Path]
HEAD = 2**16
"""Bytes at the beginning of a file that tell its format [B]."""
SUB_MICROSECOND = 0.5e-6
"""What a recorded duration of 0 whole microseconds stands for [s]."""
MESSAGES = ("pair", "replay")


@dataclass(frozen=True)
class LoadOptions:
    """How a trace is to be read; see `load` for each.

    simulator: by the rules of ASTRA-sim: work as the file has it, no repairs, no edge left out.
    """

    groups: str | Path | Mapping[str, Sequence[int]] | None = None
    group: Mapping[str, Sequence[int]] | None = None
    unknown_group: str = "error"
    dependencies: str = "both"
    zero_duration: float = SUB_MICROSECOND
    ranks: int | Sequence[int] | None = None
    tensor: int | None = None
    passes: int = 1
    tick: float = text_workload.TICK
    sizes: Mapping[str, float] = field(default_factory=dict)
    messages: str = "pair"
    recorded_on: str | None = None
    step: int | str = "last"
    offsets: str = "recorded"
    simulator: bool = False

    def __post_init__(self) -> None:
        choices = (
            ("dependencies", DEPENDENCIES),
            ("unknown_group", ("error", "world")),
            ("messages", MESSAGES),
        )
        for name, allowed in choices:
            value = getattr(self, name)
            if not isinstance(value, str) or value not in allowed:
                raise InputError(f"{name}: got {value!r}, expected one of {allowed}")
        for name in ("zero_duration", "tick"):
            value = getattr(self, name)
            if not (isinstance(value, Real) and 0 < float(value) < np.inf):
                raise InputError(f"{name}: got {value!r}, expected a positive time [s]")
        if isinstance(self.ranks, Sequence) and not isinstance(self.ranks, str):
            if not self.ranks or not all(isinstance(r, Integral) and r >= 0 for r in self.ranks):
                raise InputError(f"ranks: got {self.ranks!r:.60}, expected ranks from 0 on")
            object.__setattr__(self, "ranks", tuple(sorted({int(r) for r in self.ranks})))
        for name in ("ranks", "tensor", "passes"):
            value = getattr(self, name)
            if isinstance(value, tuple):
                continue
            whole = isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
            if not whole and not (value is None and name != "passes"):
                raise InputError(f"{name}: got {value!r}, expected a whole number from 1 on")
        if not isinstance(self.sizes, Mapping):
            raise InputError(f"sizes: got {self.sizes!r:.60}, expected {{name: bytes}}")
        for name, value in self.sizes.items():
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= value < 2**63:
                raise InputError(
                    f"sizes: {name!r} is {value!r}, expected a number of bytes from 0 on"
                )
        for name in ("groups", "group"):
            if isinstance(getattr(self, name), Mapping):
                object.__setattr__(self, name, _members(name, getattr(self, name)))

    def kept(self) -> dict[str, Any]:
        """The options that a saved graph is read anew with."""
        usual = LoadOptions()
        options: dict[str, Any] = {
            name: getattr(self, name) for name in ("unknown_group", "dependencies", "zero_duration")
        }
        further = ("recorded_on", "step", "offsets")
        for name in (
            *("groups", "group", "ranks", "tensor", "passes", "tick", "sizes", "messages"),
            *further,
        ):
            value = getattr(self, name)
            if value and value != getattr(usual, name):
                options[name] = value
        if isinstance(self.groups, str | Path):
            options["groups"] = str(Path(self.groups).resolve())
        return options


def _members(name: str, groups: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Groups by name, checked to be lists of distinct ranks."""
    found: dict[str, tuple[int, ...]] = {}
    for key, members in groups.items():
        try:
            ranks = tuple(index(rank) for rank in members)
        except TypeError:
            raise InputError(f"{name}: {quoted(key)} is {members!r:.60}, expected ranks") from None
        if not ranks or len(set(ranks)) < len(ranks):
            raise InputError(f"{name}: {quoted(key)} has no rank, or one twice")
        found[str(key)] = ranks
    return found


@dataclass(frozen=True)
class Loaded:
    """What a reader found.

    Attributes:
        columns: of rank 0, 1, ...
        groups: name -> ranks, of the groups that hold for all ranks.
        files: path and SHA-256 of each file that was read, as it lies there; group_file: of the group file.
        recorded: how and on what the times were recorded, where a trace says so.
        step: what the workload does for a model, where a trace says so.
    """

    columns: list[RankColumns]
    groups: Mapping[str, Sequence[int]]
    files: tuple[tuple[str, str], ...]
    group_file: tuple[str, str] | None = None
    recorded: Recorded | None = None
    step: TrainingStep | None = None


Reader = Callable[[Trace, LoadOptions, Findings], Loaded]


def reader_of(trace: Trace) -> Reader:
    """The reader for a trace, by the first bytes of its file; a prefix or a folder is Chakra's."""
    one = trace if isinstance(trace, str | Path) else trace[0] if len(trace) == 1 else ""
    if one and Path(one).is_file():
        head = _head(Path(one))
        if text_workload.is_text_workload(head):
            return read_text_workload
        if goal.is_goal(head):
            return read_goal
    return read_chakra


def _head(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            head = file.read(HEAD)
            if head.startswith(b"\x1f\x8b\x08"):
                with contextlib.suppress(zlib.error):  # what is damaged is said when all is read
                    return zlib.decompressobj(31).decompress(head, HEAD)
    except OSError as error:
        raise TraceError(f"{path}: cannot be read ({error.strerror})") from error
    return head


def _text(trace: Trace) -> tuple[Path, str, tuple[str, str]]:
    """Path, content, and name and hash of the one text file of a trace."""
    path = Path(trace if isinstance(trace, str | Path) else trace[0])
    raw = chakra.content(path)
    try:
        text = inflate(raw, str(path)).decode()
    except UnicodeDecodeError as error:
        raise TraceError(
            f"{path}: byte {error.start}: is no UTF-8 text. Copy the file again"
        ) from error
    return path, text, (str(path.resolve()), hashlib.sha256(raw).hexdigest())


def read_chakra(trace: Trace, options: LoadOptions, findings: Findings) -> Loaded:
    """Chakra files of all ranks, in any of their formats."""
    files, beside = chakra.find(trace)
    others = chakra.siblings(files)
    traces, origins = _decoded(files)
    group_file = None
    if isinstance(options.groups, Mapping):
        named = dict(options.groups)
    else:
        chosen = options.groups if options.groups is not None else beside
        named = {}
        if chosen is not None:
            named = dict(chakra.read_groups(chosen, simulator=options.simulator))
            group_file = (str(Path(chosen).resolve()), chakra.hash_of(chosen))
    named |= options.group or {}
    if others:
        findings.add(
            "error",
            "missing-rank",
            f"{files[0][1]} is one of several ranks; {others[0].name}"
            + (f" and {len(others) - 1} more files are" if len(others) > 1 else " is")
            + " left out",
            remedy=f"Give the prefix {str(others[0]).rsplit('.', 2)[0]}, or a copy of the file in a folder of its own",
        )
    recorded = any((t.duration_us > 0).any() for t in traces)
    columns: list[RankColumns] = []
    known: dict[
        int, RankColumns
    ] = {}  # of traces that gave no findings, which every rank gives anew
    for rank, t in enumerate(traces):
        if id(t) in known:
            columns.append(known[id(t)])
            continue
        before = len(findings.found)
        made = chakra_columns(
            rank,
            t,
            findings,
            ranks=len(traces),
            dependencies=options.dependencies,
            recorded=recorded,
            zero_duration=options.zero_duration,
            simulator=options.simulator,
        )
        if not options.simulator:
            made = repaired(made, RankFindings(rank, made.id, findings), options.sizes)
        if len(findings.found) == before:
            known[id(t)] = made
        columns.append(made)
    if not options.simulator:
        notes = [RankFindings(rank, c.id, findings) for rank, c in enumerate(columns)]
        named |= groups_by_users(traces, columns, named, findings)
        columns = with_peers(columns, notes, named, options.messages)
    if options.simulator:
        return Loaded(columns, named, origins, group_file)
    step = None
    try:
        step = training_step(traces) if not others else None
    except TraceError as error:
        findings.add("error", "training-step", str(error))
    return Loaded(columns, named, origins, group_file, recording(traces[0]), step)


def _decoded(
    files: Sequence[tuple[int, Path]],
) -> tuple[list[chakra.RankTrace], tuple[tuple[str, str], ...]]:
    """The files' traces, byte-equal ones decoded once; and their names and hashes."""
    seen: dict[str, chakra.RankTrace] = {}
    traces, origins = [], []
    for _, path in files:
        raw = chakra.content(path)
        key = hashlib.sha256(raw).hexdigest()
        if key not in seen:
            seen[key] = chakra.decode(raw, str(path))
        traces.append(seen[key])
        origins.append((str(Path(path).resolve()), key))
    return traces, tuple(origins)


def read_text_workload(trace: Trace, options: LoadOptions, findings: Findings) -> Loaded:
    """A text workload of ASTRA-sim 1.0 or SimAI, on as many ranks as it or the caller says."""
    path, text, origin = _text(trace)
    table = text_workload.parse(text, str(path))
    if not isinstance(options.ranks, int | None):
        raise InputError(f"ranks: got {options.ranks!r:.60}, expected how many ranks run {path}")
    ranks = text_workload.ranks_of(table, options.ranks)
    steps = steps_of(table, options.passes)
    kinds = text_workload.groups_of(table, ranks, options.tensor, steps.group)
    if (table.numbers.get("pipeline") or 1) > 1:
        findings.add(
            "warning",
            "pipeline-left-out",
            f"says {table.numbers['pipeline']} pipeline stages; its table is that of one stage, so the times have no"
            " pipeline bubbles",
        )
    n = len(steps.name)
    collective = np.array([COLLECTIVES.index(c) if c else -1 for c in steps.collective], np.int32)
    resources = ("compute", "communication", "update")
    edges = np.array(steps.edges, np.int64).reshape(-1, 2)
    updates = np.array(steps.update, bool)
    slots = sorted(kinds)
    shared: dict[str, Any] = {
        "id": np.arange(1, n + 1),
        "type": np.where(collective >= 0, NodeType.COMM_COLL, NodeType.COMP),
        "name": tuple(steps.name),
        "duration": np.where(collective >= 0, np.nan, np.array(steps.time, float) * options.tick),
        "comm_type": collective,
        "size": np.where(collective >= 0, np.array(steps.size, np.int64), -1),
        "group": np.array([slots.index(g) if g else -1 for g in steps.group], np.int32),
        "resource": np.where(updates, 2, np.where(collective >= 0, 1, 0)).astype(np.int32),
        "resources": resources,
        "edge_from": edges[:, 0],
        "edge_to": edges[:, 1],
    }
    groups: dict[str, tuple[int, ...]] = {}
    names: list[list[str]] = [[] for _ in range(ranks)]
    for kind in slots:
        for k, members in enumerate(kinds[kind].tolist()):
            name = "" if kind == "ALL" else f"{kind}{k}"
            if name:
                groups[name] = tuple(members)
            for member in members:
                names[member].append(name)
    made: dict[tuple[str, ...], RankColumns] = {}
    columns = []
    for mine in map(tuple, names):
        if mine not in made:
            made[mine] = RankColumns(**shared, group_names=mine)
        columns.append(made[mine])
    return Loaded(columns, groups, (origin,))


def read_goal(trace: Trace, options: LoadOptions, findings: Findings) -> Loaded:
    """A GOAL schedule: every `cpu` computes, every `nic` sends, on its own."""
    path, text, origin = _text(trace)
    columns = []
    kinds = {"calc": NodeType.COMP, "send": NodeType.COMM_SEND, "recv": NodeType.COMM_RECV}
    for rank, operations in enumerate(goal.parse(text, str(path))):
        kind = np.array([kinds[word] for word in operations.kind], np.int32)
        amount = np.array(operations.amount, np.int64)
        calc = kind == NodeType.COMP
        sends = kind == NodeType.COMM_SEND
        unit = np.where(sends, operations.nic, operations.cpu).astype(np.int64)
        labels = [
            f"{'communication' if send else 'compute'}{f' {u}' if u else ''}"
            for send, u in zip(sends.tolist(), unit.tolist())
        ]
        known = {label: k for k, label in enumerate(dict.fromkeys(labels))}
        resource = np.array([known[label] for label in labels], np.int32)
        edges = np.array([(b, a) for a, b in goal.edges(operations)], np.int64).reshape(-1, 2)
        if not len(operations):
            kind, calc, amount = np.array([NodeType.COMP]), np.array([True]), np.array([0])
            operations.label.append("nothing")
            operations.peer.append(-1)
            operations.tag.append(0)
            resource, known = np.zeros(1, np.int32), {"compute": 0}
        words = operations.kind or ["calc"]
        columns.append(
            RankColumns(
                id=np.arange(len(kind)),
                type=kind,
                name=tuple(
                    label or f"{word}{k}"
                    for k, (label, word) in enumerate(zip(operations.label, words))
                ),
                duration=np.where(calc, amount * goal.NANOSECOND, np.nan),
                size=np.where(calc, -1, amount),
                peer=np.where(calc, -1, operations.peer),
                tag=np.where(calc, 0, operations.tag),
                resource=np.where(kind == NodeType.COMM_RECV, -1, resource),
                resources=tuple(known),
                edge_from=edges[:, 0],
                edge_to=edges[:, 1],
            )
        )
        if operations.irequires:
            where = np.zeros(len(kind), bool)
            where[[a for a, _ in operations.irequires]] = True
            RankFindings(rank, columns[-1].id, findings).warning(
                "irequires",
                where,
                "irequires: waits for all that the other operation waits for, not for the time it queues",
            )
    return Loaded(columns, {}, (origin,))
