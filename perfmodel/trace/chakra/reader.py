"""Chakra trace files to arrays, without an object per node.

One compiled loop counts the records and checks that they fit the file, a second reads them into
arrays of that size; where nodes have more dependencies than most, it runs again with room for all.
So memory follows what the file holds, never what it says. No protobuf runtime is involved but for
the metadata record.
"""

from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from itertools import islice
from pathlib import Path

import numpy as np
from google.protobuf.message import DecodeError

from perfmodel.errors import TraceError
from perfmodel.trace.chakra import attributes as at
from perfmodel.trace.chakra import dialects, older, schema
from perfmodel.trace.chakra.decode_errors import trace_error
from perfmodel.trace.chakra.inflate import LIMIT, inflate
from perfmodel.trace.chakra.rank_trace import RankTrace
from perfmodel.trace.chakra.record_loops import (
    CTRL_DEPS,
    CTRL_END,
    DATA_DEPS,
    DATA_END,
    DURATION,
    FAULT,
    LENGTH_FIELDS,
    NAME_AT,
    NAME_SIZE,
    NODE_AT,
    NODE_SIZE,
    NODES,
    NOTES,
    OLD_ATTRIBUTES,
    TYPE,
    VARINT_FIELDS,
    WIDTH,
    frame,
    group_runs,
    walk,
)
from perfmodel.trace.chakra.wire import (
    CUT_FIELD,
    LENGTH,
    LONG_RECORD,
    MAX_RECORD,
    address,
    fields,
    varint,
)

# A row of the table takes 70 times as much as the shortest record: junk must not fill the memory.
_MANY, _SMALLEST = 2**20, 6

LONGEST_NAME = 2**16
"""Bytes of a node's or group's name that are taken."""

LARGEST_MESSAGE = 2**24
"""Bytes of a record that is read as a protobuf message, whose fields become objects."""

HELD = 1.9e9
"""What a trace may take in memory however small its file is [B]."""

HELD_PER_BYTE = 32
"""What a larger file may take, in terms of its size; real ones take 5 to 15."""

_PER_NODE, _PER_EDGE, _PER_NAME = 700, 80, 24
"""Bytes in memory for a node, for a dependency, and for a byte of a name, until ranks are joined."""


def read(path: str | Path, *, limit: int = LIMIT) -> RankTrace:
    """Read one rank's trace file; gzip is recognised by content.

    limit: most bytes a compressed file may grow to [B]
    Raises TraceError where the file cannot be read or is no Chakra trace.
    """
    return decode(content(path), str(path), limit=limit)


def content(path: str | Path) -> bytes:
    """The bytes of a file. Raises TraceError where it cannot be read, or is a device, which may have no end."""
    try:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise TraceError(f"{path}: is a device or a pipe. Give the path of an .et file.")
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:  # a name with a zero byte is a ValueError
        if isinstance(error, TraceError):
            raise
        raise TraceError(
            f"{path}: cannot be read ({getattr(error, 'strerror', None) or error})."
            " Give the path of an .et file."
        ) from error


def hash_of(path: str | Path) -> str:
    """SHA-256 of a file as it stands, compressed or not."""
    return sha256(content(path)).hexdigest()


def decode(data: bytes, source: str, *, limit: int = LIMIT) -> RankTrace:
    """The columns of a trace file's content; `source` is what messages call it.

    Older formats and JSON are turned into the current format first (see `dialects`).
    Raises TraceError with file, byte, record, field, and what to do, for bytes that are no trace:
    nothing that is wrong is passed over but fields no schema knows.
    """
    size = len(data)
    data = inflate(bytes(data), source, limit=limit)
    data, form = dialects.to_current(data, source)
    metadata, start = first_record(data, source)
    old_metadata = metadata is not None and not form and dialects.has_old_metadata(metadata)
    version, label = ("", "") if old_metadata else _describe(metadata, source)
    base, end = address(data), len(data)
    note = np.zeros(NOTES, np.int64)
    frame(base, start, end, note)
    if note[FAULT]:
        raise trace_error(data, source, note, has_metadata=metadata is not None)
    n = int(note[NODES])
    if n == 0:
        raise TraceError(
            f"{source}: holds no node (only a metadata record). Expected a Chakra execution trace;"
            " write the trace again."
        )
    if n > _MANY and len(data) < _SMALLEST * n:
        raise TraceError(
            f"{source}: {n} records in {len(data)} B. Expected at least {_SMALLEST} B each: a Node"
            " has an id, a type and a name or work. The file is damaged or no Chakra trace."
        )
    _check_held(source, size, len(data), nodes=n)
    ids, starts = np.zeros(n, np.uint64), np.zeros(n, np.uint64)
    table = np.full((WIDTH, n), -1, np.int64)
    data_dep, ctrl_dep = np.empty(2 * n, np.uint64), np.empty(2 * n, np.uint64)
    walk(base, start, end, ids, starts, table, data_dep, ctrl_dep, note)
    if metadata is None or old_metadata:
        old = dialects.old_version(
            data,
            start,
            varint_fields=int(note[VARINT_FIELDS]),
            length_fields=int(note[LENGTH_FIELDS]),
            old_attributes=bool(note[OLD_ATTRIBUTES]),
            old_metadata=old_metadata,
            extension=".eg" if source.lower().removesuffix(".gz").endswith(".eg") else "",
        )
        if old:
            data = older.convert(data, start, old, metadata, source)
            return replace(decode(data, source, limit=limit), form=f"Chakra's wire format {old}")
    if note[FAULT]:
        raise trace_error(data, source, note, has_metadata=metadata is not None)
    n_data, n_ctrl = int(note[DATA_DEPS]), int(note[CTRL_DEPS])
    names = _check_names(source, table, ids)
    _check_held(source, size, len(data), nodes=n, edges=n_data + n_ctrl, names=names)
    if max(n_data, n_ctrl) > 2 * n:
        data_dep, ctrl_dep = np.empty(n_data, np.uint64), np.empty(n_ctrl, np.uint64)
        walk(base, start, end, ids, starts, table, data_dep, ctrl_dep, note)
    data_dep, ctrl_dep = data_dep[:n_data].copy(), ctrl_dep[:n_ctrl].copy()
    group, group_names = _groups(data, table)

    def column(code: int, kind: type = np.int64) -> np.ndarray:
        values: np.ndarray = table[code].astype(kind, copy=False)
        return values

    def pointers(code: int) -> np.ndarray:
        return np.concatenate([np.zeros(1, np.int64), table[code]])

    return RankTrace(
        source=source,
        data=data,
        id=ids,
        type=column(TYPE, np.int32),
        name_offset=column(NAME_AT),
        name_size=column(NAME_SIZE, np.int32),
        data_ptr=pointers(DATA_END),
        data_dep=data_dep,
        ctrl_ptr=pointers(CTRL_END),
        ctrl_dep=ctrl_dep,
        start_us=starts,
        duration_us=column(DURATION),
        is_cpu=column(at.IS_CPU, np.int8),
        num_ops=column(at.NUM_OPS),
        tensor_size=column(at.TENSOR_SIZE),
        comm_size=column(at.COMM_SIZE),
        comm_type=column(at.COMM_TYPE, np.int32),
        comm_src=column(at.COMM_SRC),
        comm_dst=column(at.COMM_DST),
        comm_tag=column(at.COMM_TAG),
        stream=column(at.STREAM),
        tid=column(at.TID),
        tensor_loc=column(at.TENSOR_LOC, np.int8),
        involved_dim=column(at.INVOLVED_DIM, np.int32),
        involved_dims=column(at.DIMS, np.int8),
        group=group,
        group_names=group_names,
        node_offset=column(NODE_AT),
        node_size=column(NODE_SIZE, np.int32),
        metadata=metadata,
        version=version,
        schema=label,
        form=form,
    )


def _check_names(source: str, table: np.ndarray, ids: np.ndarray) -> int:
    """Total bytes of the names. Raises TraceError where one is too long to be a name."""
    for size, what in (
        (NAME_SIZE, "name"),
        (at.PG_TEXT + 1, "attribute pg_name"),
        (at.GROUP_TEXT + 1, "attribute comm_group"),
    ):
        k = int(table[size].argmax())
        if table[size, k] > LONGEST_NAME:
            raise TraceError(
                f"{source}: node {int(ids[k])}, {what}: has {int(table[size, k])} B. Expected at most"
                f" {LONGEST_NAME}. The file is damaged, or correct the program that wrote it."
            )
    return int(table[NAME_SIZE].sum())


def _check_held(
    source: str, size: int, unpacked: int, *, nodes: int, edges: int = 0, names: int = 0
) -> None:
    """Raise TraceError where a trace would take more memory than its file's size may ask for."""
    held = unpacked + _PER_NODE * nodes + _PER_EDGE * edges + _PER_NAME * names
    if held > max(HELD, HELD_PER_BYTE * size):
        raise TraceError(
            f"{source}: {nodes} nodes, {edges} dependencies and {names} B of names in a file of"
            f" {size} B would take {held / 1e9:.1f} GB. At most"
            f" {max(HELD, HELD_PER_BYTE * size) / 1e9:.1f} GB are taken for a file of that size. If"
            " it is compressed and meant to be so large, unpack it (gunzip); else it is damaged."
        )


def first_record(data: bytes, source: str) -> tuple[bytes | None, int]:
    """Payload of the metadata record and the position behind it; (None, 0) if the file has none.

    An empty first record is an empty metadata. Files of 2023 begin with a Node at once.
    Raises TraceError where the first record is cut.
    """
    if not data:
        raise TraceError(
            f"{source}: is empty. Expected a Chakra execution trace; write or copy the file again."
        )
    size, start = varint(address(data), 0, len(data))
    if start < 0 or size > min(MAX_RECORD, len(data) - start):
        fault = start if start < 0 else LONG_RECORD if size > MAX_RECORD else CUT_FIELD
        note = np.zeros(NOTES, np.int64)
        note[FAULT] = fault
        raise trace_error(data, source, note, has_metadata=False)
    end = start + int(size)
    payload = data[start:end]
    return (None, 0) if _is_node(payload) else (payload, end)


_MANY_FIELDS = 10_000
"""More than a metadata record has."""


@lru_cache(maxsize=64)  # most ranks of a trace begin with the same record
def _is_node(data: bytes) -> bool:
    """Whether the first record is a Node: metadata has two fields only, text and attributes."""
    for field, wire, a, b in islice(fields(data, 0, len(data)), _MANY_FIELDS):
        if (field == 1 and wire != LENGTH) or 3 <= field <= 10:
            return True
        if field == 2:
            inner = list(islice(fields(data, a, b), _MANY_FIELDS))
            is_attribute = a == b or (inner and inner[0][:2] == (1, LENGTH) and inner[-1][3] == b)
            if not is_attribute:
                return True
    return False


def _describe(metadata: bytes | None, source: str) -> tuple[str, str]:
    """Version and schema label of the metadata record."""
    if not metadata:
        return "", ""
    if len(metadata) > LARGEST_MESSAGE:
        raise TraceError(
            f"{source}: record 0 (metadata): has {len(metadata)} B. Expected at most"
            f" {LARGEST_MESSAGE}. The file is damaged or no Chakra trace: write or copy it again."
        )
    try:
        return _labels(metadata)
    except DecodeError as error:
        raise TraceError(
            f"{source}: record 0 (metadata, {len(metadata)} B): is no GlobalMetadata message"
            f" ({error}). The file is damaged or no Chakra trace: write or copy it again."
        ) from error


@lru_cache(maxsize=64)
def _labels(metadata: bytes) -> tuple[str, str]:
    message = schema.GlobalMetadata.FromString(metadata)
    labels = [a.string_val for a in message.attr if a.name == "schema"]
    return message.version, labels[-1] if labels else ""


def _groups(data: bytes, table: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Index of each node's group, and the distinct names in order of appearance."""
    runs = np.empty((table.shape[1], 2), np.int64)
    group = np.empty(table.shape[1], np.int32)
    used = group_runs(address(data), table, group, runs)
    names: dict[str, int] = {}
    index = np.empty(used + 1, np.int32)
    index[-1] = -1
    for k, (start, size) in enumerate(runs[:used].tolist()):
        text = str(start) if size < 0 else data[start : start + size].decode("utf-8", "replace")
        index[k] = names.setdefault(text, len(names))
    return index[group], tuple(names)
