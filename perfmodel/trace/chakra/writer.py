"""Arrays to the bytes of a trace file, without an object per node: for generators of large traces.

What is written is what the columns of `RankTrace` hold, in protobuf's own order, each attribute in
the kind that most consumers take. Text that has no column (inputs, outputs, operator schemas) is
not written; `protobuf_messages.write` keeps everything.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from perfmodel.errors import InputError
from perfmodel.trace.chakra import attributes as at
from perfmodel.trace.chakra import schema as messages
from perfmodel.trace.chakra.rank_trace import RankTrace
from perfmodel.trace.chakra.wire import compiled, length_prefix

# Attributes whose value is one varint, by code, and the kind they are written as.
_KINDS = {
    at.IS_CPU: "bool_val",
    at.NUM_OPS: "int64_val",
    at.TENSOR_SIZE: "uint64_val",
    at.COMM_SIZE: "int64_val",
    at.COMM_TYPE: "int64_val",
    at.COMM_SRC: "int32_val",
    at.COMM_DST: "int32_val",
    at.COMM_TAG: "int32_val",
    at.STREAM: "int64_val",
    at.TID: "int64_val",
    at.TENSOR_LOC: "int32_val",
}
_COLUMNS = {at.IS_CPU: "is_cpu"}  # where column and attribute are named differently
Dependencies = tuple[np.ndarray, np.ndarray]


def build(
    names: Sequence[str],
    type: Any,
    *,
    id: Any = None,
    data_deps: Dependencies | None = None,
    ctrl_deps: Dependencies | None = None,
    start_us: Any = 0,
    duration_us: Any = 0,
    group: Any = -1,
    group_names: Sequence[str] = (),
    involved_dim: Any = -1,
    involved_dims: Any = 0,
    version: str = "",
    schema: str = "",
    source: str = "<built>",
    **attributes: Any,
) -> RankTrace:
    """A rank's trace from columns, as `read` would return it (see `RankTrace` for each column).

    names, type: of the n nodes;  id: default 0..n-1
    data_deps, ctrl_deps: (ptr [n+1], ids that nodes wait for), default none
    attributes: columns named as in RankTrace (is_cpu, num_ops, tensor_size, comm_size, comm_type,
        comm_src, comm_dst, comm_tag, stream, tid, tensor_loc); one number stands for all nodes, -1
        and a column left out mean that nodes lack the attribute
    Raises InputError for a column of another length or an unknown one.

    >>> trace = build(["matmul"], [4], num_ops=2048)
    >>> trace.name(0), int(trace.num_ops[0]), int(trace.comm_size[0])
    ('matmul', 2048, -1)
    """
    n = len(names)

    def column(name: str, value: Any, kind: Any = np.int64) -> np.ndarray:
        array = np.asarray(value)
        if array.shape not in ((), (n,)):
            raise InputError(f"{source}: column {name} has shape {array.shape}, expected ({n},).")
        exact = _as_integers(value, kind)
        if exact is None:
            raise InputError(f"{source}: column {name} holds what is no {np.dtype(kind)}.")
        return np.array(np.broadcast_to(exact, n))

    def links(name: str, value: Dependencies | None) -> Dependencies:
        if value is None:
            return np.zeros(n + 1, np.int64), np.empty(0, np.uint64)
        ptr, ids = np.asarray(value[0], np.int64), np.asarray(value[1], np.uint64)
        if ptr.shape != (n + 1,) or ptr[0] or ptr[-1] != len(ids) or (np.diff(ptr) < 0).any():
            raise InputError(f"{source}: {name} need ptr [{n + 1}] from 0 up to the number of ids.")
        return ptr, ids

    known = {_COLUMNS.get(code, at.NAMES[code]) for code in _KINDS}
    if unknown := sorted(attributes.keys() - known):
        raise InputError(f"{source}: unknown column {unknown[0]}; known are {sorted(known)}.")
    texts = [name.encode() for name in names]
    name_size = np.array([len(text) for text in texts], np.int32)
    kinds = {"is_cpu": np.int8, "comm_type": np.int32, "tensor_loc": np.int8}
    data_ptr, data_dep = links("data_deps", data_deps)
    ctrl_ptr, ctrl_dep = links("ctrl_deps", ctrl_deps)
    metadata = messages.GlobalMetadata(version=version)
    if schema:
        metadata.attr.add(name="schema", string_val=schema)
    given: dict[str, Any] = {
        name: column(name, attributes.get(name, -1), kinds.get(name, np.int64)) for name in known
    }
    return RankTrace(
        source=source,
        data=b"".join(texts),
        id=column("id", np.arange(n) if id is None else id, np.uint64),
        type=column("type", type, np.int32),
        name_offset=np.cumsum(name_size, dtype=np.int64) - name_size,
        name_size=name_size,
        data_ptr=data_ptr,
        data_dep=data_dep,
        ctrl_ptr=ctrl_ptr,
        ctrl_dep=ctrl_dep,
        start_us=column("start_us", start_us, np.uint64),
        duration_us=column("duration_us", duration_us),
        **given,
        involved_dim=column("involved_dim", involved_dim, np.int32),
        involved_dims=column("involved_dims", involved_dims, np.int8),
        group=column("group", group, np.int32),
        group_names=tuple(group_names),
        node_offset=np.zeros(n, np.int64),
        node_size=np.zeros(n, np.int32),
        metadata=metadata.SerializeToString(),
        version=version,
        schema=schema,
    )


def encode(trace: RankTrace, *, extra: tuple[bytes, np.ndarray] | None = None) -> bytes:
    """The bytes of an .et file with the columns of `trace`; `decode` gives the same columns back.

    extra: fields that go behind the others of each node, as bytes: one after the other, and [n+1]
        where each node's begin
    Raises InputError for a number that its attribute's kind cannot hold.
    """
    values = np.stack([getattr(trace, _COLUMNS.get(k, at.NAMES[k])) for k in _KINDS]).astype(
        np.int64
    )
    for k, code in enumerate(_KINDS):
        most = 2**31 - 1 if _KINDS[code] == "int32_val" else at.LARGEST[code]
        wrong = np.flatnonzero((values[k] > most) | (values[k] < -1))
        if wrong.size:
            raise InputError(
                f"{trace.source}: node {trace.id[wrong[0]]}, attribute {at.NAMES[code]}:"
                f" {values[k, wrong[0]]} cannot be written. Expected 0..{most}, or -1 for none."
            )
    prefixes, prefix_ptr = _blob([_prefix(at.NAMES[code], kind) for code, kind in _KINDS.items()])
    groups, group_ptr = _blob(
        [
            _prefix("pg_name", "string_val") + length_prefix(len(text)) + text
            for text in (name.encode() for name in trace.group_names)
        ]
    )
    dims, _ = _blob([_prefix("involved_dim", "bool_list")])
    more, more_ptr = extra or (b"", np.zeros(len(trace) + 1, np.int64))
    arguments = (
        np.frombuffer(trace.data, np.uint8),
        trace.name_offset,
        trace.name_size.astype(np.int64),
        trace.id,
        trace.type.astype(np.int64),
        trace.ctrl_ptr,
        trace.ctrl_dep,
        trace.data_ptr,
        trace.data_dep,
        trace.start_us,
        trace.duration_us,
        values,
        prefixes,
        prefix_ptr,
        trace.group.astype(np.int64),
        groups,
        group_ptr,
        trace.involved_dim.astype(np.int64),
        trace.involved_dims.astype(np.int64),
        dims,
        np.frombuffer(more, np.uint8),
        np.asarray(more_ptr, np.int64),
    )
    sizes = np.zeros(len(trace), np.int64)
    nothing = np.empty(0, np.uint8)
    total = _emit(nothing, sizes, False, *arguments)
    out = np.empty(total, np.uint8)
    _emit(out, sizes, True, *arguments)
    head = b""
    if trace.metadata is not None:
        head = length_prefix(len(trace.metadata)) + trace.metadata
    return head + out.tobytes()


def _prefix(name: str, kind: str) -> bytes:
    """An attribute's bytes up to its value: the name, and the tag of the kind."""
    field = messages.AttributeProto.DESCRIPTOR.fields_by_name[kind]
    wire = 2 if kind.endswith("_list") or kind == "string_val" else 0
    text = name.encode()
    return b"\x0a" + length_prefix(len(text)) + text + length_prefix(field.number * 8 + wire)


def _blob(texts: list[bytes]) -> tuple[np.ndarray, np.ndarray]:
    """Texts one after the other, and where each begins [len + 1]."""
    ptr = np.concatenate([[0], np.cumsum([len(text) for text in texts], dtype=np.int64)])
    return np.frombuffer(b"".join(texts), np.uint8), ptr.astype(np.int64)


def _as_integers(value: Any, kind: Any) -> np.ndarray | None:
    """The value as an array of an integer type, None where that would change it."""
    array = np.asarray(value)
    if array.dtype.kind not in "biu":  # a list of small and very large ints makes a float array
        array = np.asarray(value, object)
        if not all(isinstance(item, int | np.integer) for item in array.ravel()):
            return None
    try:
        out = array.astype(kind)
    except OverflowError:
        return None
    return out if np.array_equal(out, array) else None


@compiled
def _size(value):
    """Bytes of a varint."""
    size = 1
    while value > np.uint64(127):
        value >>= np.uint64(7)
        size += 1
    return size


@compiled
def _put(out, pos, value, fill):
    """Write a varint if `fill`; the position behind it."""
    while value > np.uint64(127):
        if fill:
            out[pos] = np.uint8(value & np.uint64(127) | np.uint64(128))
        value >>= np.uint64(7)
        pos += 1
    if fill:
        out[pos] = np.uint8(value)
    return pos + 1


@compiled
def _copy(out, pos, source, start, stop, fill):
    """Copy bytes if `fill`; the position behind them."""
    if fill:
        for i in range(start, stop):
            out[pos + i - start] = source[i]
    return pos + stop - start


@compiled
def _put_links(out, pos, field, ids, start, stop, fill):
    """Write a packed list of ids if it is not empty."""
    if start == stop:
        return pos
    size = 0
    for k in range(start, stop):
        size += _size(ids[k])
    pos = _put(out, pos, np.uint64(field * 8 + 2), fill)
    pos = _put(out, pos, np.uint64(size), fill)
    if not fill:
        return pos + size
    for k in range(start, stop):
        pos = _put(out, pos, ids[k], fill)
    return pos


@compiled
def _emit(
    out,
    sizes,
    fill,
    text,
    name_offset,
    name_size,
    ids,
    types,
    ctrl_ptr,
    ctrl_dep,
    data_ptr,
    data_dep,
    start_us,
    duration_us,
    values,
    prefixes,
    prefix_ptr,
    group,
    groups,
    group_ptr,
    dim_mask,
    dim_count,
    dims,
    more,
    more_ptr,
):
    """Write all nodes into `out` (the second pass), or only measure them into `sizes` (the first).

    Returns the total number of bytes.
    """
    pos = 0
    for i in range(len(ids)):
        if fill:
            pos = _put(out, pos, np.uint64(sizes[i]), fill)
        first = pos
        if ids[i] != np.uint64(0):
            pos = _put(out, pos, np.uint64(8), fill)
            pos = _put(out, pos, ids[i], fill)
        if name_size[i] > 0:
            pos = _put(out, pos, np.uint64(18), fill)
            pos = _put(out, pos, np.uint64(name_size[i]), fill)
            stop = name_offset[i] + name_size[i]
            pos = _copy(out, pos, text, name_offset[i], stop, fill)
        if types[i] != 0:
            pos = _put(out, pos, np.uint64(24), fill)
            pos = _put(out, pos, np.uint64(types[i]), fill)
        pos = _put_links(out, pos, 4, ctrl_dep, ctrl_ptr[i], ctrl_ptr[i + 1], fill)
        pos = _put_links(out, pos, 5, data_dep, data_ptr[i], data_ptr[i + 1], fill)
        if start_us[i] != np.uint64(0):
            pos = _put(out, pos, np.uint64(48), fill)
            pos = _put(out, pos, start_us[i], fill)
        if duration_us[i] != 0:
            pos = _put(out, pos, np.uint64(56), fill)
            pos = _put(out, pos, np.uint64(duration_us[i]), fill)
        for k in range(len(values)):
            if values[k, i] >= 0:
                value = np.uint64(values[k, i])
                size = prefix_ptr[k + 1] - prefix_ptr[k] + _size(value)
                pos = _put(out, pos, np.uint64(82), fill)
                pos = _put(out, pos, np.uint64(size), fill)
                pos = _copy(out, pos, prefixes, prefix_ptr[k], prefix_ptr[k + 1], fill)
                pos = _put(out, pos, value, fill)
        if dim_mask[i] >= 0:
            pos = _put(out, pos, np.uint64(82), fill)
            pos = _put(out, pos, np.uint64(len(dims) + 3 + dim_count[i]), fill)
            pos = _copy(out, pos, dims, 0, len(dims), fill)
            pos = _put(out, pos, np.uint64(2 + dim_count[i]), fill)
            pos = _put(out, pos, np.uint64(10), fill)
            pos = _put(out, pos, np.uint64(dim_count[i]), fill)
            for d in range(dim_count[i]):
                pos = _put(out, pos, np.uint64((dim_mask[i] >> d) & 1), fill)
        if group[i] >= 0:
            start, stop = group_ptr[group[i]], group_ptr[group[i] + 1]
            pos = _put(out, pos, np.uint64(82), fill)
            pos = _put(out, pos, np.uint64(stop - start), fill)
            pos = _copy(out, pos, groups, start, stop, fill)
        pos = _copy(out, pos, more, more_ptr[i], more_ptr[i + 1], fill)
        if not fill:
            sizes[i] = pos - first
            pos += _size(np.uint64(sizes[i]))
    return pos
