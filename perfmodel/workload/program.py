"""What ranks do, as arrays: programs that equal ranks share, what people call their nodes, where they came from.

An array whose entries are all alike may be a read-only view of one entry (`numpy.broadcast_to`), which takes no room.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.vocabulary import MOST_DIMENSIONS, NodeType

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Program:
    """What one or more ranks do: n nodes in file order; -1 marks an absent integer.

    Attributes:
        type: [n] i8, `NodeType`.
        cpu: [n] bool, runs on the host.
        flops, bytes: [n] i64, work of compute and memory nodes [FLOP], [B].
        duration: [n] f64, recorded duration [s]; nan where none was recorded.
        comm_type: [n] i32, index into `vocabulary.COLLECTIVES`.
        size: [n] i64, bytes that one rank hands to a collective or a message [B].
        slot: [n] i32, group slot of a collective (a column of `groups`).
        match: [n] i32, which instance of its group a collective is, when members pair up by name.
        local: [n] bool, a memory node that names local memory.
        involved: [n] i32, bit mask of network dimensions of a collective (ASTRA-sim's `involved_dim`).
        scale: [n] f64, factor on a node's cost, 1 unless a what-if asked for another.
        kind: [n] i8, what a compute node calculates, index into `vocabulary.OPERATIONS`.
        dimensions: [n, 7] i64, its sizes as `vocabulary.DIMENSIONS` names them for its kind.
        dtype: [n] i8, its number format, index into `vocabulary.DTYPES`; -1: the system's.
        resource: [n] i32, index into `resources`; -1 for nodes that need none (receives, metadata).
        resources: labels, "compute", "communication", "cpu", or recorded ones ("stream 7", "thread 1").
        priority: [n] i32, position in ascending node id: the order in which ready nodes are tried.
        pred_ptr, pred: [n+1] i64, [e] i32, prerequisites by position (data and control, without repeats).
        pred_latency: [e] f64, what has to pass after each prerequisite has ended [s].
        p2p: [k] i32, positions of the sends and receives.
        ranks: [m] i32, the ranks that run this program, ascending.
        groups: [m, slots] i32, index into `Graph.groups` of each slot on each rank.
        peer, partner: [m, k] i32, the other rank and the position there of the matching node.
    """

    type: NDArray[np.int8]
    cpu: NDArray[np.bool_]
    flops: Ints
    bytes: Ints
    duration: NDArray[np.float64]
    comm_type: NDArray[np.int32]
    size: Ints
    slot: NDArray[np.int32]
    match: NDArray[np.int32]
    local: NDArray[np.bool_]
    involved: NDArray[np.int32]
    scale: NDArray[np.float64]
    kind: NDArray[np.int8]
    dimensions: Ints
    dtype: NDArray[np.int8]
    resource: NDArray[np.int32]
    resources: tuple[str, ...]
    priority: NDArray[np.int32]
    pred_ptr: Ints
    pred: NDArray[np.int32]
    pred_latency: NDArray[np.float64]
    p2p: NDArray[np.int32]
    ranks: NDArray[np.int32]
    groups: NDArray[np.int32]
    peer: NDArray[np.int32]
    partner: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.type)


STRUCTURE = tuple(
    f.name for f in fields(Program) if f.name not in ("ranks", "groups", "peer", "partner")
)
"""The fields of a program that equal ranks share."""


@dataclass(frozen=True, eq=False)
class Labels:
    """What people call the nodes of a rank; equal label sets are kept once.

    Attributes:
        node_id: [n] u64.
        tag: [n] i64, message tags.
        names: n texts.
        start: [n] f64, recorded starts [s], nan where there is none; [0] where nothing was recorded.
    """

    node_id: NDArray[np.uint64]
    tag: Ints
    names: tuple[str, ...]
    start: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True)
class Origin:
    """The files that a graph was read from, one per rank, with the hash of each; the options that were given; the
    group file, given or found beside the files."""

    files: tuple[tuple[str, str], ...]
    options: dict[str, Any]
    group_file: tuple[str, str] | None = None


def plain_work(nodes: int) -> dict[str, NDArray[Any]]:
    """The columns kind, dimensions and dtype of nodes of which no more is known than FLOP and bytes; no room taken."""
    return {
        "kind": np.broadcast_to(np.int8(0), (nodes,)),
        "dimensions": np.broadcast_to(np.int64(-1), (nodes, MOST_DIMENSIONS)),
        "dtype": np.broadcast_to(np.int8(-1), (nodes,)),
    }


def digest_of(values: Mapping[str, Any]) -> bytes:
    """Hash of arrays and other values by name."""
    hasher = hashlib.sha256()
    for key in sorted(values):
        value = values[key]
        if isinstance(value, str):
            data = value.encode(errors="surrogatepass")
        elif not isinstance(value, np.ndarray):
            data = repr(value).encode()
        elif value.size and (alike := (value == value.flat[0]).all()) and alike:
            data = b"".join([repr(value.shape).encode(), value.flat[0].tobytes()])
        else:
            data = np.ascontiguousarray(value).tobytes()
        hasher.update(f"{key}:{len(data)}:".encode())
        hasher.update(data)
    return hasher.digest()


def equal_ones(items: Sequence[Mapping[str, Any]]) -> tuple[NDArray[np.int32], list[int]]:
    """[k] number of each collection of arrays and other values, equal ones alike, and the first one of each number.

    Those that differ in length or in one of a few entries are not looked at as a whole.
    """
    outline = [_outline(values) for values in items]
    often = Counter(outline)
    found: dict[bytes, int] = {}
    first: list[int] = []
    number = np.zeros(len(items), np.int32)
    for k, (key, values) in enumerate(zip(outline, items)):
        key = key + (digest_of(values) if often[key] > 1 else b"")
        if key not in found:
            found[key] = len(first)
            first.append(k)
        number[k] = found[key]
    return number, first


LOOKED_AT = 64
"""Entries of an array by which most that differ are told apart."""


def _outline(values: Mapping[str, Any]) -> bytes:
    """A hash of the lengths of arrays and texts, and of entries evenly spread over them."""
    hasher = hashlib.sha256()
    for key in sorted(values):
        value = values[key]
        size = len(value)
        hasher.update(f"{key}:{size}:".encode())
        if isinstance(value, np.ndarray):
            hasher.update(value[:: -(-size // LOOKED_AT) or 1].tobytes())
    return hasher.digest()


RESOURCE_UNITS = ("compute", "communication", "cpu")
"""Resources that follow from a node's type."""


def resources_of(
    node_type: np.ndarray, cpu: np.ndarray, stream: np.ndarray, thread: np.ndarray
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The resource of each node: a recorded stream or thread where the trace has them, else one of three units.

    A GPU node with a recorded stream runs on that stream, a host node with a recorded thread on that thread (the
    stream 0 that converters write on host nodes means nothing). Loads and stores hold the communication unit, as in
    ASTRA-sim. Receives, METADATA and INVALID nodes need no resource.

    Args:
        node_type: [n] `NodeType`; cpu: [n] bool; stream, thread: [n] recorded numbers, -1 absent.

    Returns:
        [n] i32 index into the labels (-1: none), and the labels.
    """
    communicates = np.isin(
        node_type,
        (NodeType.COMM_SEND, NodeType.COMM_COLL, NodeType.MEM_LOAD, NodeType.MEM_STORE),
    )
    free = np.isin(node_type, (NodeType.COMM_RECV, NodeType.METADATA, NodeType.INVALID))
    # one key per resource: kind * 2^32 + number
    kind = np.where(communicates, np.int8(1), np.where(cpu, np.int8(2), np.int8(0)))
    on_thread, on_stream = cpu & (thread >= 0), ~cpu & (stream >= 0)
    if on_thread.any() or on_stream.any():
        kind[on_thread], kind[on_stream] = 4, 3
        number = np.select([on_thread, on_stream], [thread, stream], 0)
        key = np.where(free, -1, (kind.astype(np.int64) << 32) + np.minimum(number, 2**32 - 1))
        found, index = np.unique(key, return_inverse=True)
    else:  # units only: no need to sort
        unit = np.where(free, np.int8(-1), kind)
        used = np.array([(unit == k).any() for k in range(-1, 3)])
        found = np.flatnonzero(used) - 1
        found = np.where(found < 0, found, found << 32)
        index = (np.cumsum(used) - 1)[unit + 1]
    words = (*RESOURCE_UNITS, "stream", "thread")
    labels = [
        words[k >> 32] + (f" {k & 0xFFFFFFFF}" if k >> 32 >= 3 else "") for k in found if k >= 0
    ]
    shift = 1 if found.size and found[0] < 0 else 0
    return (index - shift).astype(np.int32), tuple(labels)
