"""A Chakra trace of one rank as columns: ids become positions, whole microseconds seconds.

Attributes of this package's own and STAGE's count of work are taken in, unless the simulator's reading is asked for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Findings, RankFindings
from perfmodel.trace import chakra
from perfmodel.trace.chakra import stage
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.chakra_tensors import chakra_tensors
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.cycles import smallest_cycle
from perfmodel.workload.groups import short
from perfmodel.workload.own_columns import OwnColumns, own_columns

BARRIER = COLLECTIVES.index("barrier")
_OLD = "Chakra's wire format"
_PYTORCH = re.compile(r"1\.\d+\.\d+(-chakra\.\d+\.\d+\.\d+)?")
"""Schemas of PyTorch's host traces, which Chakra's converter copies into the metadata."""

DEPENDENCIES = ("both", "data", "control")
"""Which edges of a trace may be asked for."""


def chakra_columns(
    rank: int,
    trace: chakra.RankTrace,
    findings: Findings,
    *,
    ranks: int,
    dependencies: str,
    recorded: bool,
    zero_duration: float,
    simulator: bool = False,
) -> RankColumns:
    """The columns of one rank.

    Args:
        rank: its number, for messages; ranks: how many there are.
        trace: n nodes.
        findings: gets what is wrong.
        dependencies: one of `DEPENDENCIES`.
        recorded: some rank of the workload records durations, so that 0 us means "under 1".
        zero_duration: what it then stands for [s].
        simulator: as ASTRA-sim reads it: STAGE's numbers as they are, and no dependency may point nowhere.
    """
    t, n = trace, len(trace.id)
    note = RankFindings(rank, t.id, findings)
    order = np.argsort(t.id, kind="stable")
    own = OwnColumns() if simulator else own_columns(t)
    edge_from, edge_to, edge_latency = _edges(t, order, dependencies, note, own.latency, simulator)
    note.warning(
        "no-edges",
        np.full(n, (dependencies, len(t.data_dep) > 0, len(t.ctrl_dep) > 0) in _ONE_SIDED),
        f"there are no {dependencies} dependencies, only others, which are left out",
        "Take them in with --dependencies both",
    )
    flops, size = t.num_ops, t.tensor_size
    if t.schema == stage.SCHEMA and not simulator:
        flops, size = stage.stage_work(t)
    duration = _durations(
        t, note, recorded=recorded, zero_duration=zero_duration, exact=own.duration
    )
    note.warning(
        "run-time-unit",
        np.full(n, t.form.startswith(_OLD)) & (t.duration_us > 0),
        "the wire formats of 2023 do not say the unit of run times: taken as microseconds, as later ones have it",
    )
    note.warning(
        "involved-dim",
        (t.type == NodeType.COMM_COLL) & _masked(t),
        "collective leaves network dimensions out (involved_dim), which is taken into account in ASTRA-sim mode only: "
        "it counts as one of its whole group here",
        "Name the ranks that take part as a communicator group",
    )
    host = t.is_cpu == 1
    resource, resources = own.resources_of(t.type, host, t.stream, t.tid)
    memory = np.isin(t.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))
    return RankColumns(
        id=t.id,
        type=t.type,
        name=t.names(),
        host=host,
        flops=flops,
        bytes=size,
        kind=own.kind,
        dimensions=own.dimensions,
        dtype=own.dtype,
        duration=duration,
        start=_starts(t, own.start),
        comm_type=t.comm_type,
        size=t.comm_size,
        group=t.group,
        peer=np.where(t.type == NodeType.COMM_SEND, t.comm_dst, t.comm_src),
        tag=t.comm_tag,
        involved=np.where(_masked(t), t.involved_dim, -1) if not simulator else t.involved_dim,
        local=memory & (t.tensor_loc == 1),
        resource=resource,
        resources=resources,
        edge_from=edge_from,
        edge_to=edge_to,
        edge_latency=edge_latency,
        group_names=t.group_names,
        own_groups=chakra.process_groups(t, ranks),
        tensors=None
        if simulator
        else chakra_tensors(t, edge_from, edge_to, pytorch=bool(_PYTORCH.fullmatch(t.schema))),
    )


_ONE_SIDED = (("data", False, True), ("control", True, False))
"""Dependencies asked for, and whether there are data and control ones: none of those, only others."""


def _durations(
    t: chakra.RankTrace,
    note: RankFindings,
    *,
    recorded: bool,
    zero_duration: float,
    exact: NDArray[np.float64] | None,
) -> NDArray[np.float64]:
    """[n] recorded durations [s], nan where there is none; `exact` where a file says more than whole microseconds."""
    duration = np.where(t.duration_us > 0, t.duration_us * 1e-6, np.nan)
    if exact is not None:
        duration = np.where(np.isnan(exact), duration, exact)
    idle = (t.type == NodeType.COMP) & (t.num_ops < 0) & (t.tensor_size < 0) & np.isnan(duration)
    communicates = (t.type == NodeType.COMM_SEND) | (
        (t.type == NodeType.COMM_COLL) & (t.comm_type != BARRIER)
    )
    if (communicates & (t.duration_us > 0)).any():  # communication is recorded here, too
        idle |= communicates & (t.comm_size < 0) & np.isnan(duration)
    if recorded:
        duration[idle] = zero_duration
        note.warning(
            "under-one-microsecond",
            idle,
            f"{int(idle.sum())} nodes record 0 whole microseconds, "
            f"taken as {zero_duration * 1e6:g} us each",
        )
    return duration


def _starts(t: chakra.RankTrace, exact: NDArray[np.float64] | None) -> NDArray[np.float64]:
    """[n] recorded starts [s], nan where there is none; `exact` where a file says more than whole microseconds."""
    start = np.where(t.start_us.any() | (t.start_us > 0), t.start_us * 1e-6, np.nan)
    return start if exact is None else np.where(np.isnan(exact), start, exact)


def _masked(t: chakra.RankTrace) -> NDArray[np.bool_]:
    """[n] whether a node's involved_dim leaves a network dimension out."""
    every = np.left_shift(1, np.maximum(t.involved_dims, 0).astype(np.int64)) - 1
    masked: NDArray[np.bool_] = (t.involved_dims > 0) & (t.involved_dim != every)
    return masked


def _edges(
    t: chakra.RankTrace,
    order: NDArray[Any],
    dependencies: str,
    note: RankFindings,
    latency: Callable[[NDArray[np.int64]], NDArray[np.float64]] | None,
    simulator: bool,
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """[e], [e], [e] positions of each prerequisite and of the node that waits for it, and the time between them [s].

    Prerequisites that are not there are noted: control ones, which Chakra's converter leaves behind when it deletes
    the process node, are left out with a warning, others are errors. Control edges that close a cycle, which old
    converters wrote, are left out as a whole where the data edges have none.
    """
    ids, n = t.id[order], len(order)
    parts: dict[str, tuple[NDArray[Any], ...]] = {}
    for wanted, ptr, dep in (
        ("data", t.data_ptr, t.data_dep),
        ("control", t.ctrl_ptr, t.ctrl_dep),
    ):
        if dependencies in ("both", wanted):
            node_of = np.repeat(np.arange(n), np.diff(ptr))
            at = np.minimum(np.searchsorted(ids, dep), max(n - 1, 0))
            known = ids[at] == dep if n else np.zeros(0, bool)
            where = np.zeros(n, bool)
            where[node_of[~known]] = True
            missing = short(tuple(np.unique(dep[~known]).tolist()))
            if wanted == "control" and not simulator:
                note.warning(
                    "missing-dependency",
                    where,
                    f"control dependency on {missing}, which is not in the file: left out",
                )
            else:
                note.error(
                    "missing-dependency",
                    where,
                    f"{wanted} dependency on {missing}, which is not in the file",
                    f"Leave {wanted} edges out with --dependencies "
                    + ("control" if wanted == "data" else "data"),
                )
            late = np.zeros(len(dep))
            if wanted == "data" and latency is not None:
                late = latency(ptr)
            parts[wanted] = (order[at[known]], node_of[known], late[known])
    if "control" in parts and len(t.data_dep) and not simulator:
        _drop_cyclic_control(parts, n, note)
    if not parts:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing, np.zeros(0)
    before, after, late = (np.concatenate(columns) for columns in zip(*parts.values()))
    return before, after, late


def _drop_cyclic_control(
    parts: dict[str, tuple[NDArray[Any], ...]], n: int, note: RankFindings
) -> None:
    """Take the control edges away where they close cycles that the data edges do not have."""
    if "data" not in parts or not len(parts["control"][0]):
        return
    before, after = (
        np.concatenate([parts[kind][k] for kind in ("data", "control")]) for k in (0, 1)
    )
    bad, count = _cycle(before, after, n)
    if not len(bad) or len(_cycle(parts["data"][0], parts["data"][1], n)[0]):
        return
    where = np.zeros(n, bool)
    where[bad] = True
    note.warning(
        "cyclic-control",
        where,
        f"control dependencies close {count} cycle{'s' * (count != 1)}, data dependencies none: the control"
        " dependencies of this rank are left out",
    )
    del parts["control"]


def _cycle(before: NDArray[Any], after: NDArray[Any], n: int) -> tuple[NDArray[Any], int]:
    """Nodes of the smallest cycle, and how many cycles there are."""
    order = np.argsort(after, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(after, minlength=n))]).astype(np.int64)
    nodes, count = smallest_cycle(ptr, before[order].astype(np.int32))
    return np.asarray(nodes, np.int64), count


def groups_by_users(
    traces: Sequence[chakra.RankTrace],
    columns: Sequence[RankColumns],
    named: Mapping[str, Sequence[int]],
    findings: Findings,
) -> dict[str, tuple[int, ...]]:
    """Groups of PyTorch traces that nobody defines and only two or three ranks use: those ranks.

    PyTorch launches no kernel for a group of one rank, so that two or three ranks with collectives on a name can only
    be one group; with more, several groups of one name are possible.
    """
    users: dict[str, list[int]] = {}
    for rank, (t, c) in enumerate(zip(traces, columns)):
        if not _PYTORCH.fullmatch(t.schema):
            return {}
        used = np.unique(c.group[(c.type == NodeType.COMM_COLL) & (c.group >= 0)])
        for name in (c.group_names[k] for k in used.tolist()):
            if name not in ("", "0") and name not in named and name not in c.own_groups:
                users.setdefault(name, []).append(rank)
    found = {name: tuple(ranks) for name, ranks in users.items() if len(ranks) in (2, 3)}
    for name, ranks in found.items():
        findings.add(
            "warning",
            "group-by-users",
            f"group {name!r} is defined nowhere: taken as the ranks that use it, {short(ranks)}, the only way possible",
        )
    return found
