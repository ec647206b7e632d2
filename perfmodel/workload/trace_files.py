"""A graph as Chakra trace files: one per rank, and the communicator groups beside them.

What is written follows the rules of Chakra's reader and feeder and of ASTRA-sim: a metadata record, no dependency on a
node that is not there, messages with peer and tag, groups by decimal numbers from 1 on, whole microseconds. What that
cannot say stands in attributes of our own beside it (see `trace.chakra.own_attributes`), so that `load` gives the
graph back.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import json_forms, own_attributes
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import RESOURCE_UNITS, Program, resources_of
from perfmodel.workload.work_table import tabulate

VERSION = "1.0.0"
NETWORK_DIMENSIONS = 4
"""involved_dim has at least so many entries: as many as ASTRA-sim takes where a node has none."""
_LABEL = re.compile(r"(stream|thread) (\d{1,18})")


def write_trace(
    graph: Graph, prefix: str | Path, *, ending: str = ".et", overwrite: bool = False
) -> list[Path]:
    """Write `<prefix>.<rank>.et` for every rank, and `<prefix>.json` where there are communicator groups.

    Args:
        graph: any; what-if factors are refused, as no file can hold them.
        prefix: folder and beginning of the files' names; the folder is made if it is not there.
        ending: ".et", ".et.gz", ".json" or ".json.gz".
        overwrite: replace files that are there.

    Returns:
        The files.

    Raises:
        InputError: files of these names are there, the folder cannot be made, or the graph has what no file can hold.
    """
    if ending not in (".et", ".et.gz", ".json", ".json.gz"):
        raise InputError(f"write: ending: got {ending!r}, expected .et, .et.gz, .json or .json.gz")
    prefix = Path(prefix)
    if not prefix.name:
        raise InputError(f"{prefix}: names no files; expected a folder and the beginning of a name")
    files = [prefix.with_name(f"{prefix.name}.{rank}{ending}") for rank in range(graph.ranks)]
    encoder = RankEncoder(graph)
    groups = encoder.group_file()
    group_file = prefix.with_name(f"{prefix.name}.json")
    present = [f for f in [*files, *([group_file] if groups else [])] if f.exists()]
    if present and not overwrite:
        raise InputError(
            f"{present[0]}: is there already"
            + (f", and {len(present) - 1} more files" if len(present) > 1 else "")
            + ". Choose another name, or say overwrite (--overwrite)"
        )
    try:
        prefix.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{prefix.parent}: cannot be made a folder ({error.strerror})") from error
    for rank, file in enumerate(files):
        data = encoder.encode(rank)
        if ".json" in ending:
            data = _as_json(data, str(file))
        chakra.write_bytes(file, data)
    if groups:
        chakra.write_bytes(group_file, groups)
        files.append(group_file)
    return files


def group_numbers(graph: Graph) -> dict[int, str]:
    """What files call each group in use but the world: its own name where all are different decimals from 1 on."""
    used = sorted({int(g) for p in graph.programs for g in np.unique(p.groups)} - {0})
    names = [graph.group_names[g] for g in used]
    decimal = all(re.fullmatch(r"[1-9]\d{0,8}", name) for name in names)
    if decimal and len(set(names)) == len(names):
        return dict(zip(used, names))
    return {g: str(k) for k, g in enumerate(used, 1)}


@dataclass(frozen=True, eq=False)
class _Shared:
    """What the files of ranks with one program, one label set and the same memory have in common."""

    trace: chakra.RankTrace
    extra: tuple[bytes, NDArray[np.int64]] | None


class RankEncoder:
    """The bytes of each rank's .et file; what equal ranks share is made once.

    Example:
        >>> from perfmodel import synth
        >>> encoder = RankEncoder(synth.data_parallel(2, 8).graph())
        >>> encoder.encode(0) == encoder.encode(1)
        True
    """

    def __init__(self, graph: Graph):
        self.graph = graph
        self.groups = group_numbers(graph)
        """What files call each group in use but the world."""
        self._shared: dict[tuple[int, int, int], _Shared] = {}

    def group_file(self) -> bytes:
        """The content of the group file, nothing where there is none to write."""
        if not self.groups:
            return b""
        lines = [f'  "{number}": {list(self.graph.groups[g])}' for g, number in self.groups.items()]
        return ("{\n" + ",\n".join(lines) + "\n}\n").encode()

    def encode(self, rank: int) -> bytes:
        """A rank's file.

        Raises:
            InputError: the graph has what no file can hold.
        """
        graph = self.graph
        held = -1 if graph.step is None else int(graph.step.kind[rank])
        key = (int(graph.program[rank]), int(graph.label[rank]), held)
        if key not in self._shared:
            self._shared[key] = _shared(graph, rank)
        shared, program = self._shared[key], graph.programs[key[0]]
        row = int(graph.row[rank])
        peer = np.full(len(program), -1, np.int64)
        peer[program.p2p] = program.peer[row]
        slots = [self.groups.get(int(g), "") for g in program.groups[row]]
        group = np.array([*(k if name else -1 for k, name in enumerate(slots)), -1])[program.slot]
        trace = replace(
            shared.trace,
            comm_dst=np.where(program.type == NodeType.COMM_SEND, peer, -1),
            comm_src=np.where(program.type == NodeType.COMM_RECV, peer, -1),
            group=group.astype(np.int32),
            group_names=tuple(slots),
            source=f"{graph.source}, rank {rank}",
        )
        return chakra.encode(trace, extra=shared.extra)


def _shared(graph: Graph, rank: int) -> _Shared:
    """What the rank's file has in common with those of its like."""
    program, labels = graph.programs[graph.program[rank]], graph.labels[graph.label[rank]]
    if (program.scale != 1).any():
        raise InputError(
            f"{graph.source}: has what-if factors on rank {rank}, which a trace file cannot hold; write the graph"
            " that the what-if was made of"
        )
    n = len(program)
    ids = labels.node_id
    communicates = np.isin(
        program.type, (NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL)
    )
    tag = np.full(n, -1, np.int64)
    tag[program.p2p] = labels.tag[program.p2p]
    with np.errstate(invalid="ignore"):
        recorded = np.nan_to_num(program.duration, nan=0.0)
        whole = np.rint(recorded * 1e6)
    stream, thread = _numbered_resources(program)
    dims = np.where(
        program.involved >= 0, np.maximum(NETWORK_DIMENSIONS, _bits(program.involved)), 0
    )
    # ASTRA-sim takes every METADATA node for a table of groups, which stands in the group file here
    kinds = np.where(program.type == NodeType.METADATA, NodeType.INVALID, program.type)
    trace = chakra.build(
        labels.names,
        kinds.astype(np.int64),
        id=ids,
        data_deps=(program.pred_ptr, ids[program.pred]),
        start_us=_whole_starts(labels.start, n),
        duration_us=whole.astype(np.int64),
        is_cpu=(program.cpu & ~communicates).astype(np.int64),
        num_ops=program.flops,
        tensor_size=program.bytes,
        comm_size=program.size,
        comm_type=program.comm_type.astype(np.int64),
        comm_tag=tag,
        stream=stream,
        tid=thread,
        tensor_loc=np.where(program.local, 1, -1),
        involved_dim=program.involved,
        involved_dims=dims,
        version=VERSION,
        source=f"{graph.source}, rank {rank}",
    )
    usual = resources_of(program.type, program.cpu, stream, thread)
    table, row = tabulate(program, usual)
    extra = _own(program, whole, row, labels.start)
    if extra is None and graph.recorded is None and graph.step is None:
        return _Shared(trace, None)
    head = chakra.GlobalMetadata.FromString(trace.metadata or b"")
    head.attr.add(name=own_attributes.MARK, string_val=own_attributes.VERSION)
    if len(table):
        head.attr.add(name=own_attributes.WORK, string_val=table.text())
    if graph.recorded is not None:
        head.attr.add(name=own_attributes.RECORDED, string_val=graph.recorded.text())
    if graph.step is not None:
        head.attr.add(name=own_attributes.STEP, string_val=graph.step.text(rank))
    return _Shared(replace(trace, metadata=head.SerializeToString()), extra)


def _whole_starts(start: NDArray[np.float64], n: int) -> NDArray[np.uint64]:
    """[n] starts in whole microseconds, 0 where there is none."""
    if not len(start):
        return np.zeros(n, np.uint64)
    return np.rint(np.nan_to_num(start, nan=0.0).clip(0, 2.0**53 * 1e-6) * 1e6).astype(np.uint64)


def _bits(mask: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.array([max(int(m), 0).bit_length() for m in mask], np.int64)


def _numbered_resources(program: Program) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n] stream and [n] thread numbers, -1 for none: those that "stream 7", "thread 1" have in their names, and for
    resources of other names but the units' streams of their own, so that other tools see them apart."""
    stream, thread = np.full((2, len(program.resources) + 1), -1)
    for k, label in enumerate(program.resources):
        if match := _LABEL.fullmatch(label):
            (stream if match[1] == "stream" else thread)[k] = int(match[2])
    free = int(stream.max()) + 1
    for k, label in enumerate(program.resources):
        if label not in RESOURCE_UNITS and not _LABEL.fullmatch(label):
            stream[k] = free + k
    return np.where(program.cpu, -1, stream[program.resource]), thread[program.resource]


def _own(
    program: Program,
    whole: NDArray[np.float64],
    row: NDArray[np.int64],
    start: NDArray[np.float64],
) -> tuple[bytes, NDArray[np.int64]] | None:
    """Attributes of our own for the nodes that need some: their bytes one after the other, [n+1] where each begins."""
    work = [
        own_attributes.attribute(own_attributes.WORK, k)
        for k in range(int(row.max(initial=-1)) + 1)
    ]
    texts = [work[k] if k >= 0 else b"" for k in row.tolist()]
    written = _whole_starts(start, len(start)) * 1e-6
    for i in np.flatnonzero(np.isfinite(start) & (written != start)).tolist():
        texts[i] += own_attributes.attribute(own_attributes.START, float(start[i]))
    exact = np.isnan(program.duration) | ((whole > 0) & (whole * 1e-6 == program.duration))
    for i in np.flatnonzero(~exact).tolist():
        texts[i] += own_attributes.attribute(own_attributes.DURATION, float(program.duration[i]))
    if not any(texts):
        return None
    return b"".join(texts), np.cumsum([0, *map(len, texts)]).astype(np.int64)


def _as_json(data: bytes, source: str) -> bytes:
    records = chakra.messages_of(data, source)
    return json_forms.document(next(records), records).encode()
