"""One rank's nodes as any reader or generator has them: the entrance of every trace format.

A new format is one function that returns `RankColumns` for each rank; `Graph.from_ranks` checks and joins them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.errors import InputError
from perfmodel.vocabulary import MOST_DIMENSIONS
from perfmodel.workload.tensor_memory import RankTensors

_COLUMNS: dict[str, tuple[Any, Any]] = {
    "id": (np.uint64, None),
    "type": (np.int32, None),
    "host": (np.bool_, False),
    "flops": (np.int64, -1),
    "bytes": (np.int64, -1),
    "kind": (np.int8, 0),
    "dtype": (np.int8, -1),
    "duration": (np.float64, np.nan),
    "start": (np.float64, np.nan),
    "comm_type": (np.int32, -1),
    "size": (np.int64, -1),
    "group": (np.int32, -1),
    "peer": (np.int64, -1),
    "tag": (np.int64, 0),
    "involved": (np.int32, -1),
    "local": (np.bool_, False),
}
"""Column -> its type, and what it is where it is not given."""


@dataclass(frozen=True, eq=False)
class RankColumns:
    """The n nodes of one rank, in the order of its file.

    Everything but `id` and `type` may be left out. A negative whole number, a time that is not a number, and an empty
    text mean that a node lacks the figure. Among ready nodes of one resource the lowest id is taken first.

    Attributes:
        id: [n] u64, different for each node.
        type: [n] i32, `vocabulary.NodeType`.
        name: n texts; parts end at dots or slashes and make the component hierarchy.
        host: [n] bool, runs on the host and not on the accelerator.
        flops, bytes: [n] i64, work of compute and memory nodes [FLOP], [B].
        kind: [n] i8, index into `vocabulary.OPERATIONS`; dimensions: [n, 7] i64, its sizes in the order of
            `vocabulary.DIMENSIONS`; dtype: [n] i8, index into `vocabulary.DTYPES`, -1: the system's.
        duration, start: [n] f64, recorded [s].
        comm_type: [n] i32, index into `vocabulary.COLLECTIVES`.
        size: [n] i64, bytes that this rank hands to a collective or a message [B].
        group: [n] i32, index into `group_names` of a collective's communicator group; -1: all ranks.
        peer, tag: [n] i64, the other rank and the tag of a send or receive.
        involved: [n] i32, bit mask of the network dimensions of a collective, -1: all (ASTRA-sim's `involved_dim`).
        local: [n] bool, a memory node that names local memory.
        resource: [n] i32, index into `resources`, -1: none, the node contends with nothing. Left out, nodes run on one
            of three units of the rank: compute, communication, cpu. Receives hold none, whatever stands here;
            collectives need one.
        edge_from, edge_to: [e] i64, positions: `edge_to` starts no earlier than `edge_latency` [s] after the end of
            `edge_from`. Repeats are allowed.
        group_names, resources: the texts that columns point to.
        own_groups: ranks of the groups that this rank's own trace defines, by name; None: all ranks.
        tensors: what the rank's tensors hold, where the trace names them.

    Raises:
        InputError: columns of different lengths, or a position or index that points nowhere.

    Example: a product of 4096 x 4096 x 4096 numbers in bf16, then an all-reduce of its result over all ranks.
        >>> from perfmodel.vocabulary import NodeType
        >>> columns = RankColumns(
        ...     id=[1, 2], type=[NodeType.COMP, NodeType.COMM_COLL], flops=[2 * 4096**3, -1],
        ...     kind=[1, 0], dimensions=[[1, 4096, 4096, 4096], []], comm_type=[-1, 0],
        ...     size=[-1, 2 * 4096**2], edge_from=[0], edge_to=[1])
        >>> columns.dimensions[0].tolist(), len(columns)
        ([1, 4096, 4096, 4096, -1, -1, -1], 2)
    """

    id: Any
    type: Any
    name: Sequence[str] = ()
    host: Any = None
    flops: Any = None
    bytes: Any = None
    kind: Any = None
    dimensions: Any = None
    dtype: Any = None
    duration: Any = None
    start: Any = None
    comm_type: Any = None
    size: Any = None
    group: Any = None
    peer: Any = None
    tag: Any = None
    involved: Any = None
    local: Any = None
    resource: Any = None
    edge_from: Any = ()
    edge_to: Any = ()
    edge_latency: Any = None
    group_names: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    own_groups: Mapping[str, tuple[int, ...] | None] = field(default_factory=dict)
    tensors: RankTensors | None = None

    def __len__(self) -> int:
        return len(self.id)

    def __post_init__(self) -> None:
        n = len(self.id)

        def put(name: str, value: Any) -> None:
            object.__setattr__(self, name, value)

        for name, (dtype, absent) in _COLUMNS.items():
            given = getattr(self, name)
            if given is None:
                put(name, np.broadcast_to(np.asarray(absent, dtype), (n,)))
            else:
                put(name, _column(name, given, dtype, n))
        put("dimensions", _dimensions(self.dimensions, n))
        if self.resource is not None:
            put("resource", _column("resource", self.resource, np.int32, n))
        edges = len(self.edge_from)
        for name in ("edge_from", "edge_to"):
            put(name, _column(name, getattr(self, name), np.int64, edges))
        if self.edge_latency is None:
            put("edge_latency", np.broadcast_to(0.0, (edges,)))
        else:
            put("edge_latency", _column("edge_latency", self.edge_latency, np.float64, edges))
        put("name", tuple(self.name) if len(self.name) else ("",) * n)
        put("group_names", tuple(map(str, self.group_names)))
        put("resources", tuple(map(str, self.resources)))
        if len(self.name) != n:
            raise InputError(f"columns: name has {len(self.name)} entries, id has {n}")
        self._check_pointers()

    def _check_pointers(self) -> None:
        n = len(self)
        bounds: dict[str, tuple[int, int]] = {
            "edge_from": (0, n),
            "edge_to": (0, n),
            "group": (-1, len(self.group_names)),
        }
        if self.resource is not None:
            bounds["resource"] = (-1, len(self.resources))
        for name, (low, high) in bounds.items():
            column = getattr(self, name)
            if column.size and not (column.min() >= low and column.max() < high):
                worst = int(column.max() if column.max() >= high else column.min())
                raise InputError(
                    f"columns: {name} holds {worst}, expected numbers from {low} to {high - 1}"
                )
        if self.tensors is not None and not _within(self.tensors.node, n):
            raise InputError(f"columns: tensors name a node beyond the {n} that there are")
        if not (self.edge_latency >= 0).all() or np.isinf(self.edge_latency).any():
            raise InputError("columns: edge_latency holds a time that is no finite number >= 0")


def _within(place: NDArray[np.int64], n: int) -> bool:
    """Whether all positions are those of n nodes."""
    return not len(place) or (int(place.min()) >= 0 and int(place.max()) < n)


def _column(name: str, given: ArrayLike, dtype: Any, length: int) -> NDArray[Any]:
    """A column of one type and length; numbers that the type cannot hold are refused."""
    raw = np.asarray(given)
    if raw.shape != (length,):
        raise InputError(f"columns: {name} has shape {raw.shape}, expected ({length},)")
    if raw.dtype == dtype:
        return raw
    if raw.size and raw.dtype.kind not in "biuf":
        raise InputError(f"columns: {name} holds {raw.tolist()[0]!r}, expected numbers")
    column = raw.astype(dtype)
    whole = np.issubdtype(dtype, np.integer)
    if whole and not np.array_equal(column.astype(raw.dtype), raw):
        raise InputError(f"columns: {name} holds numbers that are no {np.dtype(dtype).name}")
    return column


def _dimensions(given: Any, length: int) -> NDArray[np.int64]:
    """[n, 7] sizes; shorter rows are filled up with -1."""
    if given is None:
        return np.broadcast_to(np.int64(-1), (length, MOST_DIMENSIONS))
    if isinstance(given, np.ndarray) and given.shape == (length, MOST_DIMENSIONS):
        return given.astype(np.int64, copy=False)
    rows = list(given)
    if len(rows) != length or any(len(row) > MOST_DIMENSIONS for row in rows):
        raise InputError(
            f"columns: dimensions has {len(rows)} rows for {length} nodes, or one of more than "
            f"{MOST_DIMENSIONS} sizes"
        )
    table = np.full((length, MOST_DIMENSIONS), -1, np.int64)
    for row, sizes in zip(table, rows):
        row[: len(sizes)] = sizes
    return table
