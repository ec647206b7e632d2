"""The nodes of a rank program as arrays: what `Steps` become, and what passes are tiled into."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.synth.steps import COMMUNICATION, COMPUTE, HOST, Step
from perfmodel.vocabulary import DTYPES, MOST_DIMENSIONS, OPERATIONS, NodeType

Ints = NDArray[np.int64]
FREE = (NodeType.COMM_RECV, NodeType.METADATA, NodeType.INVALID)
"""Types that occupy no resource."""

UNITS = {COMPUTE: 0, COMMUNICATION: 1, HOST: 2}
"""Resources that follow from a node's type."""


@dataclass(frozen=True, eq=False)
class Columns:
    """n nodes in program order; -1 marks an absent integer.

    Attributes:
        type: [n] i8;  flops, bytes, size: [n] i64 [FLOP], [B], [B];  comm_type: [n] i32.
        group: [n] i32, index into `group_labels`; group_labels: labels of the groups that collectives run over.
        offset, tag: [n] i64, distance to the peer of a message, and its tag.
        kind, dtype: [n] i8, index into `vocabulary.OPERATIONS` and `DTYPES`; dimensions: [n, 7] i64.
        resource: [n] i32, index into `resources`, -1 for nodes that need none.
        host: [n] bool;  duration: [n] f64 [s], nan for work that a model times.
        pred_ptr, pred: [n+1] i64, [e] i64, positions of the nodes waited for;  latency: [e] f64, least time between
            the end of the one and the beginning of the other [s].
        names: n texts.
    """

    type: NDArray[np.int8]
    flops: Ints
    bytes: Ints
    size: Ints
    comm_type: NDArray[np.int32]
    group: NDArray[np.int32]
    group_labels: tuple[str, ...]
    offset: Ints
    tag: Ints
    kind: NDArray[np.int8]
    dimensions: Ints
    dtype: NDArray[np.int8]
    resource: NDArray[np.int32]
    resources: tuple[str, ...]
    host: NDArray[np.bool_]
    duration: NDArray[np.float64]
    pred_ptr: Ints
    pred: Ints
    latency: NDArray[np.float64]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.type)


PER_NODE = (
    "type",
    "flops",
    "bytes",
    "size",
    "comm_type",
    "group",
    "offset",
    "tag",
    "kind",
    "dimensions",
    "dtype",
    "resource",
    "host",
    "duration",
)
"""Columns with one entry a node."""


def columns(nodes: Sequence[Step]) -> Columns:
    """The columns of nodes in program order."""
    n = len(nodes)
    type_ = np.array([s.type for s in nodes], np.int8)
    groups = {label: k for k, label in enumerate(dict.fromkeys(s.group for s in nodes if s.group))}
    labels = [resource_of(s) for s in nodes]
    streams = {label: k for k, label in enumerate(in_order(labels))}
    dimensions = np.full((n, MOST_DIMENSIONS), -1, np.int64)
    for i, s in enumerate(nodes):
        if s.dimensions:
            dimensions[i, : len(s.dimensions)] = s.dimensions
    pred = np.array([p for s in nodes for p in s.after], np.int64)
    return Columns(
        type=type_,
        flops=np.array([s.flops for s in nodes], np.int64),
        bytes=np.array([s.bytes for s in nodes], np.int64),
        size=np.array([s.size for s in nodes], np.int64),
        comm_type=np.array([s.comm_type for s in nodes], np.int32),
        group=np.array([groups.get(s.group, -1) for s in nodes], np.int32),
        group_labels=tuple(groups),
        offset=np.array([s.offset for s in nodes], np.int64),
        tag=np.array([s.tag for s in nodes], np.int64),
        kind=np.array([OPERATIONS.index(s.kind) for s in nodes], np.int8),
        dimensions=dimensions,
        dtype=np.array([DTYPES.index(s.dtype) if s.dtype else -1 for s in nodes], np.int8),
        resource=np.array([streams.get(label, -1) for label in labels], np.int32),
        resources=tuple(streams),
        host=np.array([s.host for s in nodes], bool),
        duration=np.array([s.duration for s in nodes], np.float64),
        pred_ptr=np.cumsum([0, *(len(s.after) for s in nodes)]).astype(np.int64),
        pred=pred,
        latency=np.zeros(len(pred)),
        names=tuple(s.name for s in nodes),
    )


def in_order(labels: Iterable[str]) -> list[str]:
    """Distinct resources: the three units first, as readers of files have them, then streams by name."""
    return sorted({x for x in labels if x}, key=lambda x: (x not in UNITS, UNITS.get(x, 0), x))


def resource_of(step: Step) -> str:
    """The stream that a node occupies: its own, or the unit of its type; "" for none."""
    if step.type in FREE:
        return ""
    if step.resource:
        return step.resource
    if step.host:
        return HOST
    return COMPUTE if step.type == NodeType.COMP else COMMUNICATION
