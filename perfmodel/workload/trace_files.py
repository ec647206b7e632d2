"""A graph as Chakra trace files: one per rank, and the communicator groups beside them.

What is written follows the rules of Chakra's reader and feeder and of ASTRA-sim: a metadata record, no dependency on a
node that is not there, messages with peer and tag, groups by decimal numbers from 1 on, whole microseconds. What that
cannot say stands in attributes of our own beside it (see `trace.chakra.more_attributes`), so that `load` gives the
graph back.
"""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import json_forms, own_attributes
from perfmodel.vocabulary import DIMENSIONS, DTYPES, OPERATIONS, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program, resources_of

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
    numbers = group_numbers(graph)
    group_file = prefix.with_name(f"{prefix.name}.json")
    present = [f for f in [*files, *([group_file] if numbers else [])] if f.exists()]
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
        data = encode_rank(graph, rank, numbers)
        if ".json" in ending:
            data = _as_json(data, str(file))
        chakra.write_bytes(file, data)
    if numbers:
        lines = [f'  "{number}": {list(graph.groups[g])}' for g, number in numbers.items()]
        chakra.write_bytes(group_file, ("{\n" + ",\n".join(lines) + "\n}\n").encode())
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


def encode_rank(graph: Graph, rank: int, numbers: dict[int, str]) -> bytes:
    """The bytes of a rank's .et file; `numbers` from `group_numbers`."""
    program, row = graph.programs[graph.program[rank]], int(graph.row[rank])
    labels = graph.labels[graph.label[rank]]
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
    peer = np.full(n, -1, np.int64)
    peer[program.p2p] = program.peer[row]
    tag = np.full(n, -1, np.int64)
    tag[program.p2p] = labels.tag[program.p2p]
    slots = [numbers.get(int(g), "") for g in program.groups[row]]
    group = np.array([*(k if name else -1 for k, name in enumerate(slots)), -1])[program.slot]
    with np.errstate(invalid="ignore"):
        recorded = np.nan_to_num(program.duration, nan=0.0)
        whole = np.rint(recorded * 1e6)
    stream, thread = _recorded_resources(program)
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
        comm_dst=np.where(program.type == NodeType.COMM_SEND, peer, -1),
        comm_src=np.where(program.type == NodeType.COMM_RECV, peer, -1),
        comm_tag=tag,
        stream=stream,
        tid=thread,
        tensor_loc=np.where(program.local, 1, -1),
        involved_dim=program.involved,
        involved_dims=dims,
        group=group,
        group_names=tuple(slots),
        version=VERSION,
        source=f"{graph.source}, rank {rank}",
    )
    extra = _own(program, whole, stream, thread, labels.start)
    if extra is None and graph.recorded is None:
        return chakra.encode(trace)
    head = chakra.GlobalMetadata.FromString(trace.metadata or b"")
    head.attr.add(name=own_attributes.MARK, string_val=own_attributes.VERSION)
    if graph.recorded is not None:
        head.attr.add(name=own_attributes.RECORDED, string_val=graph.recorded.text())
    return chakra.encode(replace(trace, metadata=head.SerializeToString()), extra=extra)


def _whole_starts(start: NDArray[np.float64], n: int) -> NDArray[np.uint64]:
    """[n] starts in whole microseconds, 0 where there is none."""
    if not len(start):
        return np.zeros(n, np.uint64)
    return np.rint(np.nan_to_num(start, nan=0.0).clip(0, 2.0**53 * 1e-6) * 1e6).astype(np.uint64)


def _bits(mask: NDArray[np.int32]) -> NDArray[np.int64]:
    return np.array([max(int(m), 0).bit_length() for m in mask], np.int64)


def _recorded_resources(program: Program) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n] stream and [n] thread numbers that resources named "stream 7", "thread 1" stand for, -1 for others."""
    number = {
        "stream": np.full(len(program.resources) + 1, -1),
        "thread": np.full(len(program.resources) + 1, -1),
    }
    for k, label in enumerate(program.resources):
        if match := _LABEL.fullmatch(label):
            number[match[1]][k] = int(match[2])
    return number["stream"][program.resource], number["thread"][program.resource]


def _own(
    program: Program,
    whole: NDArray[np.float64],
    stream: NDArray[np.int64],
    thread: NDArray[np.int64],
    start: NDArray[np.float64],
) -> tuple[bytes, NDArray[np.int64]] | None:
    """Attributes of our own for the nodes that need some: their bytes one after the other, [n+1] where each begins."""
    n = len(program)
    pieces: list[list[bytes]] = [[] for _ in range(n)]
    known: dict[tuple[str, Any], bytes] = {}

    def put(i: int, name: str, value: Any) -> None:
        key = (name, value)
        if key not in known:
            known[key] = own_attributes.attribute(name, value)
        pieces[i].append(known[key])

    written = _whole_starts(start, len(start)) * 1e-6
    for i in np.flatnonzero(np.isfinite(start) & (written != start)).tolist():
        put(i, own_attributes.START, float(start[i]))
    exact = np.isnan(program.duration) | ((whole > 0) & (whole * 1e-6 == program.duration))
    for i in np.flatnonzero(~exact).tolist():
        put(i, own_attributes.DURATION, float(program.duration[i]))
    for i in np.flatnonzero(program.kind > 0).tolist():
        word = OPERATIONS[program.kind[i]]
        put(i, own_attributes.KIND, word)
        sizes = tuple(program.dimensions[i, : len(DIMENSIONS.get(word, ()))].tolist())
        if any(size >= 0 for size in sizes):
            put(i, own_attributes.DIMENSIONS, sizes)
    for i in np.flatnonzero(program.dtype >= 0).tolist():
        put(i, own_attributes.DTYPE, DTYPES[program.dtype[i]])
    resource, labels = resources_of(program.type, program.cpu, stream, thread)
    mine = np.array([*program.resources, ""], dtype=object)[program.resource]
    usual = np.array([*labels, ""], dtype=object)[resource]
    for i in np.flatnonzero(mine != usual).tolist():
        put(i, own_attributes.RESOURCE, str(mine[i]))
    late = (
        np.add.reduceat(np.append(program.pred_latency != 0, False), program.pred_ptr[:-1])
        if n
        else np.zeros(0)
    )
    late = np.where(np.diff(program.pred_ptr) > 0, late, 0)
    for i in np.flatnonzero(late).tolist():
        put(
            i,
            own_attributes.LATENCY,
            tuple(program.pred_latency[program.pred_ptr[i] : program.pred_ptr[i + 1]].tolist()),
        )
    joined = [b"".join(mine) for mine in pieces]
    if not any(joined):
        return None
    return b"".join(joined), np.concatenate(
        [[0], np.cumsum([len(text) for text in joined])]
    ).astype(np.int64)


def _as_json(data: bytes, source: str) -> bytes:
    records = chakra.messages_of(data, source)
    return json_forms.document(next(records), records).encode()
