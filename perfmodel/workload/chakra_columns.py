"""A Chakra trace of one rank as columns: ids become positions, whole microseconds seconds."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.findings import Findings, RankFindings
from perfmodel.trace import chakra
from perfmodel.vocabulary import COLLECTIVES, NodeType
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.groups import short
from perfmodel.workload.program import resources_of

BARRIER = COLLECTIVES.index("barrier")

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
) -> RankColumns:
    """The columns of one rank.

    Args:
        rank: its number, for messages; ranks: how many there are.
        trace: n nodes.
        findings: gets what is wrong.
        dependencies: one of `DEPENDENCIES`.
        recorded: some rank of the workload records durations, so that 0 us means "under 1".
        zero_duration: what it then stands for [s].
    """
    t, n = trace, len(trace.id)
    note = RankFindings(rank, t.id, findings)
    order = np.argsort(t.id, kind="stable")
    edge_from, edge_to = _edges(t, order, dependencies, note)
    note.warning(
        "no-edges",
        np.full(n, (dependencies, len(t.data_dep) > 0, len(t.ctrl_dep) > 0) in _ONE_SIDED),
        f"there are no {dependencies} dependencies, only others, which are left out",
        "Take them in with --dependencies both",
    )
    duration = _durations(t, note, recorded=recorded, zero_duration=zero_duration)
    note.warning(
        "involved-dim",
        (t.type == NodeType.COMM_COLL) & _masked(t),
        "collective leaves network dimensions out (involved_dim), which is taken into account in ASTRA-sim mode only: "
        "it counts as one of its whole group here",
        "Name the ranks that take part as a communicator group",
    )
    host = t.is_cpu == 1
    resource, resources = resources_of(t.type, host, t.stream, t.tid)
    memory = np.isin(t.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE))
    return RankColumns(
        id=t.id,
        type=t.type,
        name=t.names(),
        host=host,
        flops=t.num_ops,
        bytes=t.tensor_size,
        duration=duration,
        comm_type=t.comm_type,
        size=t.comm_size,
        group=t.group,
        peer=np.where(t.type == NodeType.COMM_SEND, t.comm_dst, t.comm_src),
        tag=t.comm_tag,
        involved=t.involved_dim,
        local=memory & (t.tensor_loc == 1),
        resource=resource,
        resources=resources,
        edge_from=edge_from,
        edge_to=edge_to,
        group_names=t.group_names,
        own_groups=chakra.process_groups(t, ranks),
    )


_ONE_SIDED = (("data", False, True), ("control", True, False))
"""Dependencies asked for, and whether there are data and control ones: none of those, only others."""


def _durations(
    t, note: RankFindings, *, recorded: bool, zero_duration: float
) -> NDArray[np.float64]:
    """[n] recorded durations [s], nan where there is none."""
    duration = np.where(t.duration_us > 0, t.duration_us * 1e-6, np.nan)
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


def _masked(t) -> NDArray[np.bool_]:
    """[n] whether a node's involved_dim leaves a network dimension out."""
    every = np.left_shift(1, np.maximum(t.involved_dims, 0).astype(np.int64)) - 1
    return (t.involved_dims > 0) & (t.involved_dim != every)


def _edges(t, order, dependencies: str, note: RankFindings) -> tuple[NDArray, NDArray]:
    """[e], [e] positions of each prerequisite and of the node that waits for it; missing ones are noted."""
    ids, n = t.id[order], len(order)
    parts = []
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
            missing = np.unique(dep[~known])
            note.error(
                "missing-dependency",
                where,
                f"{wanted} dependency on {short(tuple(missing.tolist()))}, which is not in the file",
                f"Leave {wanted} edges out with --dependencies "
                + ("control" if wanted == "data" else "data"),
            )
            parts.append((order[at[known]], node_of[known]))
    if not parts:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    before, after = zip(*parts, strict=True)
    return np.concatenate(before), np.concatenate(after)
