"""Which operator a GPU event works for, and how much of its work it does.

An operator's work is counted once: where one call launches several kernels (two gradients of a convolution, the last
step of a split sum) they share it in proportion to their time, and the longest carries the dimensions. The operator
is the innermost one round the launch whose work is known: `aten::addmm`,
not `aten::linear` round it. Copies and memsets say themselves how many bytes they move.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch.host_trace import HostTrace
from perfmodel.trace.pytorch.kineto import MEMCPY, MEMSET, OPERATOR, Device
from perfmodel.trace.pytorch.launches import Launches
from perfmodel.trace.pytorch.operators import MOST, OperatorWork, work_of

FORMULA, REST, COPY, TRANSFER, COLLECTIVE, UNKNOWN = range(6)
SOURCES = (
    "operator's formula",
    "share of such an operator's work",
    "copies in device memory",
    "transfers to and from the host",
    "collectives",
    "work unknown",
)
"""Where a GPU event's work is known from."""


@dataclass(frozen=True, eq=False)
class Attribution:
    """Work of k GPU events.

    Attributes:
        operator: [k] i64 the innermost operator round the launch, -1 for none.
        source: [k] i8 as `SOURCES`.
        flops, bytes: [k] i64, -1 unknown.
        work: [k] what the operator does where `source` is `FORMULA`, else None.
    """

    operator: NDArray[np.int64]
    source: NDArray[np.int8]
    flops: NDArray[np.int64]
    bytes: NDArray[np.int64]
    work: list[OperatorWork | None]


def attribute(
    device: Device,
    work: Launches,
    parent: NDArray[np.int64],
    host: HostTrace | None,
    node: NDArray[np.int64] | None,
) -> Attribution:
    """The work of each GPU event.

    Args:
        device, work, parent: the trace, its GPU events, and the enclosing event of each event.
        host, node: the host trace and the node of each event, where there is one.
    """
    k = len(work)
    operator = _innermost(device, work, parent)
    known: dict[int, OperatorWork | None] = {}
    signatures: dict[Any, OperatorWork | None] = {}
    holder, found = operator.copy(), np.full(k, -1, np.int64)
    while True:
        for event in np.unique(holder[holder >= 0]).tolist():
            if event not in known:
                known[event] = _work(device, event, host, node, signatures)
        has = np.array([h >= 0 and known[h] is not None for h in holder.tolist()], bool)
        found[has] = holder[has]
        holder = np.where((holder >= 0) & ~has, _above(device, parent, holder), -1)
        if not (holder >= 0).any():
            break
    category = device.category[work.event]
    found[work.collective | np.isin(category, (MEMCPY, MEMSET))] = -1
    source = np.full(k, UNKNOWN, np.int8)
    source[found >= 0] = REST
    carrier = _longest(found, work.end - work.start)
    source[carrier] = FORMULA
    source[work.collective] = COLLECTIVE
    flops, moved = np.full(k, -1, np.int64), np.full(k, -1, np.int64)
    works: list[OperatorWork | None] = [None] * k
    for i in carrier.tolist():
        own = known[int(found[i])]
        if own is not None:
            name = device.names[device.name[work.event[i]]].lower()
            if own.dtype == "fp32" and "tf32" in name:  # the operator's tensors do not show it
                own = replace(own, dtype="tf32")
            works[i], flops[i], moved[i] = own, own.flops, own.bytes
    _share(found, carrier, work.end - work.start, (flops, moved))
    _copies(device, work, category, source, flops, moved)
    return Attribution(operator, source, flops, moved, works)


def _innermost(device: Device, work: Launches, parent: NDArray[np.int64]) -> NDArray[np.int64]:
    """[k] the innermost operator that is open when the launch call begins."""
    call = np.where(work.call >= 0, work.call, 0)
    return np.where(work.call >= 0, _above(device, parent, call), -1)


def _above(
    device: Device, parent: NDArray[np.int64], event: NDArray[np.int64]
) -> NDArray[np.int64]:
    """[k] the innermost operator round each event (not itself), -1 for none."""
    found = np.where(event >= 0, parent[event], -1)
    while True:
        other = (found >= 0) & (device.category[found] != OPERATOR)
        if not other.any():
            return found
        found[other] = parent[found[other]]


def _work(
    device: Device,
    event: int,
    host: HostTrace | None,
    node: NDArray[np.int64] | None,
    signatures: dict[Any, OperatorWork | None],
) -> OperatorWork | None:
    """The work of one operator event; equal calls are looked at once."""
    name = device.names[device.name[event]]
    if host is not None and node is not None and node[event] >= 0:
        shapes, types, values = host.inputs[node[event]]
        output_shapes, output_types, _ = host.outputs[node[event]]
    else:
        args = device.args[event]
        shapes, types, values = (
            args.get(k) for k in ("Input Dims", "Input type", "Concrete Inputs")
        )
        output_shapes = output_types = ()
    if not isinstance(shapes, list) or not isinstance(types, list):
        return None
    values = values if isinstance(values, list) else []
    plain = [v if not isinstance(v, list) or len(v) < 4 else None for v in values]
    key = (name, repr((shapes, types, plain, output_shapes, output_types)))
    if key not in signatures:
        signatures[key] = work_of(
            name,
            shapes,
            types,
            values or (),
            output_shapes=output_shapes,
            output_types=output_types,
        )
    return signatures[key]


def _longest(owner: NDArray[np.int64], length: NDArray[np.float64]) -> NDArray[np.int64]:
    """Places of the longest event of each owner (-1: of nobody)."""
    mine = np.flatnonzero(owner >= 0)
    order = mine[np.lexsort((-length[mine], owner[mine]))]
    first = np.diff(owner[order], prepend=-1) != 0
    longest: NDArray[np.int64] = order[first]
    return longest


def _share(
    owner: NDArray[np.int64],
    carrier: NDArray[np.int64],
    length: NDArray[np.float64],
    totals: Sequence[NDArray[np.int64]],
) -> None:
    """Split what the longest kernel of each owner holds over all its kernels, by their time; the longest keeps the
    rest."""
    mine = np.flatnonzero(owner >= 0)
    others = np.setdiff1d(mine, carrier)
    if not len(others):
        return
    leader = dict(zip(owner[carrier].tolist(), carrier.tolist()))
    first = np.array([leader[o] for o in owner[others].tolist()], np.int64)
    whole = np.bincount(owner[mine], weights=length[mine])
    part = length[others] / np.maximum(whole[owner[others]], 1e-30)
    for total in totals:
        total[others] = np.floor(part * total[first]).astype(np.int64)
        np.subtract.at(total, first, total[others])


def _copies(
    device: Device,
    work: Launches,
    category: NDArray[np.int8],
    source: NDArray[np.int8],
    flops: NDArray[np.int64],
    moved: NDArray[np.int64],
) -> None:
    """Bytes of copies and memsets; those over the host's link scale with nothing that a device has."""
    for i in np.flatnonzero(np.isin(category, (MEMCPY, MEMSET))).tolist():
        event = int(work.event[i])
        size = device.args[event].get("bytes")
        name = device.names[device.name[event]]
        on_device = category[i] == MEMSET or "DtoD" in name or "Device -> Device" in name
        source[i] = COPY if on_device else TRANSFER
        if isinstance(size, int) and 0 <= size < MOST // 2 and on_device:
            flops[i], moved[i] = 0, size if category[i] == MEMSET else 2 * size
