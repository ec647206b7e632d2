"""A workload as ASTRA-sim takes it: ``<prefix>.<rank>.et`` of all ranks and a communicator-group file."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from perfmodel.astra.flat_nodes import FlatNodes, name_of
from perfmodel.errors import TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra.groups import GroupMembers
from perfmodel.vocabulary import NodeType
from perfmodel.workload.cycles import smallest_cycle


def read_flat(prefix: str | Path, ranks: int, comm_group: str | Path | None = None) -> FlatNodes:
    """Read the traces of ranks 0..ranks-1.

    Args:
        comm_group: the group file; None, or a name with "empty" in it as in ASTRA-sim, for none.

    Raises:
        TraceError: a missing file, a node id given twice, a dependency on a node that is not there, a cycle,
            an unknown group.
    """
    paths = trace_files(prefix, ranks)
    file_groups = _file_groups(comm_group)
    names: list[str] = ["0"]
    members: list[tuple[int, ...]] = [tuple(range(ranks))]
    by_name: dict[tuple[str, tuple[int, ...]], int] = {}
    traces, groups, targets, counts = [], [], [], []
    offset = 0
    for path in paths:
        trace = chakra.read(path)
        known = {**file_groups, **_process_groups(trace, ranks)}
        slots = []
        for name in trace.group_names:
            if name in ("", "0"):
                slots.append(0)
                continue
            name, asked = _known_as(name, known), name
            if name not in known:
                row = int(np.flatnonzero(trace.group == len(slots))[0])
                raise TraceError(
                    f"{path}: node {trace.id[row]} is of communicator group {asked!r}, which no group "
                    f"file defines; known are {sorted(known) or 'none'}"
                )
            key = (name, known[name])
            if key not in by_name:
                by_name[key] = len(members)
                members.append(known[name])
                names.append(name)
            slots.append(by_name[key])
        table = np.array([*slots, 0], np.int32)
        groups.append(table[trace.group])
        target, count = _dependencies(trace, path)
        targets.append(target + offset)
        counts.append(count)
        offset += len(trace)
        traces.append(trace)
    pred_ptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))]).astype(np.int64)
    return _flat(traces, np.concatenate(groups), pred_ptr, np.concatenate(targets), members, names)


def aliases(names: Iterable[str], known: GroupMembers) -> GroupMembers:
    """Further names of known groups: "01" is group "1"."""
    found = {name: _known_as(name, known) for name in names}
    return {name: known[other] for name, other in found.items() if other in known}


def _known_as(name: str, known: GroupMembers) -> str:
    """The name under which a group is known: ASTRA-sim takes names for numbers, and looks at their first digits."""
    number = _number(name)
    if name in known or number is None:
        return name
    return next((other for other in known if _number(other) == number), name)


def _number(name: str) -> int | None:
    """What a name is as a number; None without digits.

    >>> _number("01"), _number("1a"), _number("a")
    (1, 1, None)
    """
    found = re.match(r"\s*([+-]?[0-9]+)", name)
    return int(found[1]) if found else None


def warn_of_left_out(prefix: str | Path, ranks: int) -> None:
    """A line that says which traces are not read, where there are more than ranks of the network."""
    folder, name = Path(prefix).parent, Path(prefix).name
    pattern = re.compile(rf"{re.escape(name)}\.([0-9]+)\.et")
    files = (pattern.fullmatch(file.name) for file in folder.iterdir()) if folder.is_dir() else ()
    left = sorted(rank for rank in (int(m[1]) for m in files if m) if rank >= ranks)
    if left:
        which = (
            f"rank {left[0]}" if len(left) == 1 else f"{len(left)} ranks, {left[0]} to {left[-1]},"
        )
        warnings.warn(
            f"{prefix}.{left[0]}.et: the traces of {which} are left out: the network has {ranks} NPUs",
            UserWarning,
            stacklevel=3,
        )


def trace_files(prefix: str | Path, ranks: int) -> list[Path]:
    """The files of ranks 0..ranks-1; more may be there, as in ASTRA-sim.

    Raises:
        TraceError: naming the first that is missing.
    """
    paths = []
    for rank in range(ranks):
        path = Path(f"{prefix}.{rank}.et")
        if not path.is_file():
            raise TraceError(f"{path}: no such file; ranks 0 to {ranks - 1} need one each")
        paths.append(path)
    return paths


def _file_groups(comm_group: str | Path | None) -> GroupMembers:
    """Groups of the file; a name with "empty" in it is none, as in ASTRA-sim."""
    if comm_group is None or "empty" in str(comm_group):
        return {}
    return chakra.read_groups(comm_group, simulator=True)


def _process_groups(trace: chakra.RankTrace, ranks: int) -> GroupMembers:
    """Groups that PyTorch's metadata node defines; no list of ranks means all."""
    everyone = tuple(range(ranks))
    return {name: found or everyone for name, found in chakra.process_groups(trace, ranks).items()}


def _dependencies(trace: chakra.RankTrace, path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows of the prerequisites of each node, data and control, without repeats."""
    n = len(trace)
    order = np.argsort(trace.id, kind="stable")
    ids = trace.id[order]
    twice = np.flatnonzero(ids[1:] == ids[:-1])
    if len(twice):
        raise TraceError(f"{path}: node id {ids[twice[0]]} is given twice")
    owner = np.concatenate(
        [np.repeat(np.arange(n), np.diff(ptr)) for ptr in (trace.data_ptr, trace.ctrl_ptr)]
    )
    wanted = np.concatenate([trace.data_dep, trace.ctrl_dep])
    place = np.minimum(np.searchsorted(ids, wanted), max(n - 1, 0))
    missing = np.flatnonzero(ids[place] != wanted) if n else np.zeros(0, np.int64)
    if len(missing):
        k = missing[0]
        raise TraceError(
            f"{path}: node {trace.id[owner[k]]} depends on node {wanted[k]}, which is not in the file"
        )
    edges = np.unique(owner * max(n, 1) + order[place])
    pred, count = edges % max(n, 1), np.bincount(edges // max(n, 1), minlength=n)
    _check_cycles(trace.id, np.concatenate([[0], np.cumsum(count)]), pred, path)
    return pred, count


def _check_cycles(
    ids: NDArray[Any], pred_ptr: NDArray[Any], pred: NDArray[Any], path: Path
) -> None:
    nodes, _ = smallest_cycle(pred_ptr, pred)
    if len(nodes) == 1:
        raise TraceError(f"{path}: node {ids[nodes[0]]} depends on itself")
    if len(nodes):
        named = ", ".join(map(str, np.sort(ids[nodes])[:8]))
        more = f" and {len(nodes) - 8} more" if len(nodes) > 8 else ""
        raise TraceError(f"{path}: nodes {named}{more} depend on each other in a cycle")


def _flat(
    traces: Sequence[chakra.RankTrace],
    group: NDArray[np.int32],
    pred_ptr: NDArray[np.int64],
    pred: NDArray[Any],
    members: Sequence[tuple[int, ...]],
    names: Sequence[str],
) -> FlatNodes:
    def column(name: str, dtype: DTypeLike = np.int64) -> NDArray[Any]:
        return np.concatenate([getattr(trace, name) for trace in traces]).astype(dtype)

    kind = column("type", np.int32)
    rank = np.repeat(np.arange(len(traces)), [len(trace) for trace in traces]).astype(np.int32)
    sends = kind == NodeType.COMM_SEND
    peer = np.where(sends, column("comm_dst"), column("comm_src"))
    own = np.where(sends, column("comm_src"), column("comm_dst"))
    flat = FlatNodes(
        rank=rank,
        node_id=column("id", np.uint64),
        type=np.clip(kind, -1, 127).astype(np.int8),
        is_cpu=column("is_cpu", np.int8) > 0,
        num_ops=column("num_ops"),
        tensor_size=column("tensor_size"),
        duration_us=column("duration_us"),
        comm_type=column("comm_type", np.int32),
        comm_size=column("comm_size"),
        group=group,
        peer=np.clip(peer, -1, 2**31 - 1).astype(np.int32),
        tag=column("comm_tag"),
        involved=column("involved_dim", np.int32),
        pred_ptr=pred_ptr,
        pred=pred.astype(np.int32),
        ranks=len(traces),
        groups=tuple(members),
        names=[name for trace in traces for name in trace.names()],
        group_names=tuple(names),
    )
    elsewhere = np.flatnonzero((sends | (kind == NodeType.COMM_RECV)) & (own >= 0) & (own != rank))
    if len(elsewhere):
        row = elsewhere[0]
        raise TraceError(
            f"{name_of(flat, row)} names rank {own[row]} as its own side of the message"
        )
    return flat
