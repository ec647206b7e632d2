"""Trace files of all ranks in, one checked `Graph` out.

Every rank's nodes become a program in positions instead of ids; ranks with equal programs share one; sends and
receives pair up by (source, destination, tag, order of ids); collectives pair up by name where all members of a
group have the same names, else by order of issue, which the schedule decides. All problems are reported at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np

from perfmodel import chakra
from perfmodel.errors import InputError, TraceError
from perfmodel.graph import Graph, Labels, Program, resources_of
from perfmodel.kinds import COLLECTIVES, TYPE_NAMES, NodeType
from perfmodel.problems import Problems

SUB_MICROSECOND = 0.5e-6
"""What a recorded duration of 0 whole microseconds stands for [s]."""

DEPENDENCIES = ("both", "data", "control")


@dataclass
class _Rank:
    """One rank on its way into the graph."""

    rank: int
    structure: dict
    labels: Labels
    group_of_slot: list[int]
    peer: np.ndarray
    recorded: bool
    names_of_slot: list[bytes]
    p2p_size: np.ndarray


def load(
    trace: str | Path | Sequence[str | Path],
    *,
    groups: str | Path | Mapping[str, Sequence[int]] | None = None,
    group: Mapping[str, Sequence[int]] | None = None,
    unknown_group: str = "error",
    dependencies: str = "both",
    zero_duration: float = SUB_MICROSECOND,
    strict: bool = False,
) -> Graph:
    """Load a Chakra trace of all ranks.

    Args:
        trace: a prefix ("dir/t" for dir/t.0.et, dir/t.1.et, ...), a folder, or a list of files.
        groups: the communicator group file, or its content; by default the one found beside the trace.
        group: further groups, {name: ranks}.
        unknown_group: "error", or "world" to let groups that nobody defines be all ranks.
        dependencies: which edges count: "both", "data" or "control".
        zero_duration: what a recorded duration of 0 whole microseconds means [s].
        strict: warnings are errors.

    Returns:
        The checked graph.

    Raises:
        TraceError: anything wrong with the trace, all of it in one message.
        InputError: an option with an unknown value.

    Example:
        >>> import perfmodel as pm
        >>> pm.load("traces/all_reduce_4")
        Graph('traces/all_reduce_4': 4 ranks, 4 nodes, 1 distinct programs, 1 groups)
    """
    graph, problems = examine(
        trace,
        groups=groups,
        group=group,
        unknown_group=unknown_group,
        dependencies=dependencies,
        zero_duration=zero_duration,
    )
    problems.check(strict=strict)
    assert graph is not None
    return graph


def examine(
    trace: str | Path | Sequence[str | Path],
    *,
    groups: str | Path | Mapping[str, Sequence[int]] | None = None,
    group: Mapping[str, Sequence[int]] | None = None,
    unknown_group: str = "error",
    dependencies: str = "both",
    zero_duration: float = SUB_MICROSECOND,
) -> tuple[Graph | None, Problems]:
    """As `load`, but give back what was found instead of raising; the graph is None where there are errors."""
    if dependencies not in DEPENDENCIES:
        raise InputError(f"dependencies: got {dependencies!r}, expected one of {DEPENDENCIES}")
    if unknown_group not in ("error", "world"):
        raise InputError(f'unknown_group: got {unknown_group!r}, expected "error" or "world"')
    if not (np.isfinite(zero_duration) and zero_duration > 0):
        raise InputError(f"zero_duration: got {zero_duration!r}, expected a positive time [s]")
    files, beside = chakra.find(trace)
    source = str(trace) if isinstance(trace, str | Path) else f"{trace[0]} and others"
    traces = _read(files)
    if isinstance(groups, Mapping):
        named = {str(k): tuple(v) for k, v in groups.items()}
    else:
        chosen = groups if groups is not None else beside
        named = chakra.read_groups(chosen) if chosen is not None else {}
    named |= {str(k): tuple(v) for k, v in (group or {}).items()}
    problems = Problems(source)
    registry = _Groups(named, len(traces), unknown_group, problems)
    for name, members in named.items():
        registry.check_members(name, members)
    recorded = any((t.duration_us > 0).any() for t in traces)
    ranks = [
        _rank(r, t, registry, problems, dependencies, recorded, zero_duration)
        for r, t in enumerate(traces)
    ]
    registry.report()
    if problems.errors():
        return None, problems
    partner = _pair(ranks, problems)
    if problems.errors():
        return None, problems
    digest = hashlib.sha256()
    for t in traces:
        digest.update(t.digest.encode())
    options = (sorted(named.items()), unknown_group, dependencies, zero_duration)
    digest.update(repr(options).encode())
    graph = _assemble(ranks, partner, registry, problems, source, digest.hexdigest())
    return (None if problems.errors() else graph), problems


def _read(files: Sequence[tuple[int, Path]]) -> list:
    """Decode the files; byte-equal ones once."""
    seen: dict[str, object] = {}
    traces = []
    for _, path in files:
        raw = Path(path).read_bytes() if Path(path).is_file() else None
        if raw is None:
            raise TraceError(f"{path}: no such file")
        key = hashlib.sha256(raw).hexdigest()
        if key not in seen:
            seen[key] = chakra.decode(raw, str(path))
        traces.append(seen[key])
    return traces


class _Groups:
    """Names of groups to numbers; group 0 is the world."""

    def __init__(self, named, ranks: int, unknown: str, problems: Problems):
        self.named, self.ranks, self.unknown, self.problems = named, ranks, unknown, problems
        self.members: list[tuple[int, ...]] = [tuple(range(ranks))]
        self.names: list[str] = [""]
        self.index: dict[tuple, int] = {}
        self.missing: dict[str, list[tuple[int, list[int]]]] = {}

    def check_members(self, name: str, members: tuple[int, ...]) -> None:
        outside = [m for m in members if not 0 <= m < self.ranks]
        if outside:
            self.problems.add(
                "error",
                "missing-rank",
                f"group {name!r} lists rank {outside[0]}, but the trace has ranks 0 to {self.ranks - 1}",
                remedy="Add the missing ranks' files, or give the right group file with --groups",
            )

    def find(self, name: str, rank: int, own, nodes: list[int]) -> int:
        """The group called `name` on this rank; `own` are the rank's process groups."""
        if name in ("", "0") and name not in self.named:
            return 0
        members = self.named.get(name)
        if members is None and name in own:
            members = own[name] if own[name] is not None else self.members[0]
            self.check_members(name, members)
        if members is None:
            self.missing.setdefault(name, []).append((rank, nodes))
            return 0
        if rank not in members:
            self.problems.add(
                "error",
                "not-a-member",
                f"uses group {name!r} = {_short(members)}, which does not list it",
                rank=rank,
                nodes=nodes,
                remedy="Correct the group file",
            )
        key = (name, members)
        if key not in self.index:
            self.index[key] = len(self.members)
            self.members.append(tuple(members))
            self.names.append(name)
        return self.index[key]

    def report(self) -> None:
        """Note the groups that nobody defines."""
        for name, places in self.missing.items():
            rank, nodes = places[0]
            users = len(places)
            text = f"unknown group {name!r}" + (f" (on {users} ranks)" if users > 1 else "")
            if self.unknown == "world":
                self.problems.add(
                    "warning",
                    "unknown-group",
                    text + ", taken as all ranks",
                    rank=rank,
                    nodes=nodes,
                )
            else:
                self.problems.add(
                    "error",
                    "unknown-group",
                    text + f"; known are {_short(tuple(self.named)) or 'none'}",
                    rank=rank,
                    nodes=nodes,
                    remedy=f"Name its ranks with --group {name}=0,1,..., give a group file with --groups, "
                    "or say --unknown-group world",
                )
        self.missing = {}


def _short(items: tuple, limit: int = 8) -> str:
    text = ", ".join(map(str, items[:limit]))
    return f"[{text}{', ...' if len(items) > limit else ''}]" if items else ""


def _rank(rank, t, registry, problems, dependencies, recorded, zero_duration) -> _Rank:
    """Check one rank's nodes and turn ids into positions."""
    n = len(t.id)
    order = np.argsort(t.id, kind="stable")
    ids = t.id[order]

    def note(level, code, where, message, remedy=""):
        if np.any(where):
            problems.add(level, code, message, rank=rank, nodes=t.id[where], remedy=remedy)

    if n == 0:
        problems.add("error", "empty", "has no nodes", rank=rank, remedy="Record it again")
    repeated = np.zeros(n, bool)
    repeated[order[1:]] = ids[1:] == ids[:-1]
    note("error", "duplicate-id", repeated, "node id occurs more than once", "Write the trace anew")
    priority = np.empty(n, np.int32)
    priority[order] = np.arange(n)
    pred_ptr, pred = _dependencies(t, ids, order, dependencies, note)
    left = unsorted(pred_ptr, pred)
    note(
        "error",
        "cycle",
        left,
        "depend on each other in a cycle",
        "Leave one kind of edge out with --dependencies data or --dependencies control",
    )
    cpu = t.is_cpu == 1
    kind = t.type
    unknown = ~np.isin(kind, list(TYPE_NAMES))
    note(
        "error",
        "unknown-type",
        unknown,
        f"unknown node type {_short(tuple(np.unique(kind[unknown])))}",
    )
    duration = np.where(t.duration_us > 0, t.duration_us * 1e-6, np.nan)
    flops, size_bytes = t.num_ops.copy(), t.tensor_size.copy()
    comp = kind == NodeType.COMP
    idle = comp & (flops < 0) & (size_bytes < 0)
    if recorded:
        short = idle & np.isnan(duration)
        duration[short] = zero_duration
        note(
            "warning",
            "under-one-microsecond",
            short,
            f"{int(short.sum())} compute nodes record 0 whole microseconds, "
            f"taken as {zero_duration * 1e6:g} us each",
        )
    else:
        note(
            "error",
            "no-work",
            idle,
            "compute has neither num_ops and tensor_size nor a duration",
            "Record one of them",
        )
    note(
        "warning",
        "no-bytes",
        comp & (flops >= 0) & (size_bytes < 0),
        "compute has num_ops but no tensor_size: its memory traffic is left out",
    )
    note(
        "warning",
        "zero-work",
        comp & (flops <= 0) & (size_bytes == 0) & np.isnan(duration),
        "compute says that it has no work and takes no time",
    )
    memory = (kind == NodeType.MEM_LOAD) | (kind == NodeType.MEM_STORE)
    note(
        "error",
        "no-size",
        memory & (size_bytes < 0) & np.isnan(duration),
        "memory node has no tensor_size",
        "Record it [B]",
    )
    collective = kind == NodeType.COMM_COLL
    note(
        "error",
        "collective-type",
        collective & ((t.comm_type < 0) | (t.comm_type >= len(COLLECTIVES))),
        "collective has no valid comm_type",
        f"It is a number from 0 ({COLLECTIVES[0]}) to {len(COLLECTIVES) - 1} ({COLLECTIVES[-1]})",
    )
    barrier = t.comm_type == COLLECTIVES.index("barrier")
    unsized = collective & (t.comm_size < 0) & ~barrier
    note(
        "error",
        "no-size",
        unsized & np.isnan(duration),
        "collective has no comm_size and no duration, so it has no cost",
        "Record comm_size [B of one rank's input], or a duration",
    )
    note(
        "warning",
        "zero-size",
        collective & (t.comm_size == 0) & ~barrier,
        "collective of 0 bytes costs its latency only",
    )
    note(
        "warning",
        "communication-on-cpu",
        cpu & np.isin(kind, (NodeType.COMM_COLL, NodeType.COMM_SEND, NodeType.COMM_RECV)),
        "communication is marked as a CPU operation (is_cpu_op)",
    )
    send, recv = kind == NodeType.COMM_SEND, kind == NodeType.COMM_RECV
    p2p = np.flatnonzero(send | recv).astype(np.int32)
    peer = np.where(send, t.comm_dst, t.comm_src)[p2p]
    place = np.zeros(n, bool)
    place[p2p] = peer < 0
    note(
        "error",
        "no-peer",
        place,
        "send or receive names no peer",
        "Sends need comm_dst, receives comm_src (PyTorch's converter leaves them out)",
    )
    place[p2p] = peer >= registry.ranks
    note(
        "error",
        "missing-rank",
        place,
        f"sends to or receives from a rank that is missing (the trace has 0 to {registry.ranks - 1})",
        "Add the missing ranks' files",
    )
    place[p2p] = peer == rank
    note("error", "self-message", place, "sends to or receives from its own rank")
    note("error", "no-size", send & (t.comm_size < 0), "send has no comm_size", "Record it [B]")

    own = chakra.process_groups(t)
    slot = np.full(n, -1, np.int32)
    group_of_slot: list[int] = []
    texts = [*t.group_names, ""]
    where = t.group.copy()
    where[where < 0] = len(texts) - 1
    for index in np.unique(where[collective]):
        here = collective & (where == index)
        number = registry.find(texts[index], rank, own, list(t.id[here]))
        if number not in group_of_slot:
            group_of_slot.append(number)
        slot[here] = group_of_slot.index(number)
    # slots in order of first use, so that equal ranks have equal slots whatever their groups are called
    first = [int(priority[slot == s].min()) for s in range(len(group_of_slot))]
    new = np.argsort(first, kind="stable")
    group_of_slot = [group_of_slot[i] for i in new]
    lookup = np.full(len(new) + 1, -1, np.int32)
    lookup[new] = np.arange(len(new))
    slot = lookup[slot]
    names = tuple(t.names())
    match, names_of_slot = _match(slot, priority, names, len(group_of_slot))
    resource, resources = resources_of(kind, cpu, t.stream, t.tid)
    structure = {
        "type": kind.astype(np.int8),
        "cpu": cpu,
        "flops": flops,
        "bytes": size_bytes,
        "duration": duration,
        "comm_type": np.where(collective, t.comm_type, -1).astype(np.int32),
        "size": t.comm_size,
        "slot": slot,
        "match": match,
        "local": memory & (t.tensor_loc == 1),
        "involved": t.involved_dim,
        "scale": np.ones(n),
        "resource": resource,
        "resources": resources,
        "priority": priority,
        "pred_ptr": pred_ptr,
        "pred": pred,
        "p2p": p2p,
    }
    labels = Labels(t.id, np.maximum(t.comm_tag, 0), names)
    return _Rank(
        rank,
        structure,
        labels,
        group_of_slot,
        peer.astype(np.int32),
        recorded,
        names_of_slot,
        t.comm_size[p2p],
    )


def _dependencies(t, ids, order, dependencies, note) -> tuple[np.ndarray, np.ndarray]:
    """[n+1], [e] prerequisites by position, without repeats; missing ones are noted."""
    n = len(ids)
    parts = []
    for wanted, ptr, dep in (
        ("data", t.data_ptr, t.data_dep),
        ("control", t.ctrl_ptr, t.ctrl_dep),
    ):
        if dependencies in ("both", wanted):
            node = np.repeat(np.arange(n), np.diff(ptr))
            at = np.minimum(np.searchsorted(ids, dep), max(n - 1, 0))
            known = ids[at] == dep if n else np.zeros(0, bool)
            where = np.zeros(n, bool)
            where[node[~known]] = True
            missing = np.unique(dep[~known])
            note(
                "error",
                "missing-dependency",
                where,
                f"{wanted} dependency on {_short(tuple(missing))}, which is not in the file",
                f"Leave {wanted} edges out with --dependencies "
                + ("control" if wanted == "data" else "data"),
            )
            parts.append(node[known].astype(np.int64) * n + order[at[known]])
    edges = np.unique(np.concatenate(parts)) if parts else np.zeros(0, np.int64)
    counts = np.bincount(edges // max(n, 1), minlength=n)
    ptr = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    return ptr, (edges % max(n, 1)).astype(np.int32)


@numba.njit(cache=True)
def unsorted(pred_ptr, pred):
    """[n] bool, nodes that lie on a cycle or behind one (Kahn's algorithm)."""
    n = pred_ptr.size - 1
    waiting = np.diff(pred_ptr)
    count = np.zeros(n + 1, np.int64)
    for e in range(pred.size):
        count[pred[e] + 1] += 1
    succ_ptr = np.cumsum(count)
    fill = succ_ptr[:-1].copy()
    succ = np.empty(pred.size, np.int32)
    for v in range(n):
        for e in range(pred_ptr[v], pred_ptr[v + 1]):
            succ[fill[pred[e]]] = v
            fill[pred[e]] += 1
    stack = np.empty(n, np.int64)
    top = 0
    left = np.ones(n, np.bool_)
    for v in range(n):
        if waiting[v] == 0:
            stack[top] = v
            top += 1
    while top:
        top -= 1
        v = stack[top]
        left[v] = False
        for e in range(succ_ptr[v], succ_ptr[v + 1]):
            waiting[succ[e]] -= 1
            if waiting[succ[e]] == 0:
                stack[top] = succ[e]
                top += 1
    return left


def _match(slot, priority, names, slots) -> tuple[np.ndarray, list[bytes]]:
    """Instance numbers by sorted (name, occurrence), and a hash of each slot's sorted names."""
    match = np.full(len(slot), -1, np.int32)
    hashes = []
    for s in range(slots):
        members = np.flatnonzero(slot == s)
        members = members[np.argsort(priority[members], kind="stable")]
        by_name = sorted(range(len(members)), key=lambda k: names[members[k]])
        match[members[by_name]] = np.arange(len(members))
        text = "\0".join(names[members[k]] for k in by_name)
        hashes.append(hashlib.sha256(text.encode(errors="replace")).digest())
    return match, hashes


def _pair(ranks: list[_Rank], problems: Problems) -> list[np.ndarray]:
    """Position on the other rank of each send's receive and each receive's send."""
    rows = []
    for r in ranks:
        p2p = r.structure["p2p"]
        send = r.structure["type"][p2p] == NodeType.COMM_SEND
        table = np.empty((len(p2p), 8), np.int64)
        table[:, 0] = np.where(send, r.rank, r.peer)
        table[:, 1] = np.where(send, r.peer, r.rank)
        table[:, 2] = r.labels.tag[p2p]
        table[:, 3] = r.structure["priority"][p2p]
        table[:, 4] = send
        table[:, 5] = r.rank
        table[:, 6] = np.arange(len(p2p))
        table[:, 7] = r.p2p_size
        rows.append(table)
    table = np.concatenate(rows) if rows else np.zeros((0, 8), np.int64)
    partner = [np.full(len(r.structure["p2p"]), -1, np.int32) for r in ranks]
    send, recv = table[table[:, 4] == 1], table[table[:, 4] == 0]
    send, recv = _numbered(send), _numbered(recv)
    key = [tuple(k) for k in recv[:, [0, 1, 2, 3]].tolist()]
    find = dict(zip(key, range(len(key))))
    taken = np.zeros(len(recv), bool)
    for row in send.tolist():
        k = find.get(tuple(row[:4]))
        if k is None:
            _unmatched(ranks, row, "send", problems)
            continue
        taken[k] = True
        other = recv[k]
        sender, receiver = ranks[row[5]], ranks[int(other[5])]
        partner[row[5]][row[6]] = receiver.structure["p2p"][other[6]]
        partner[int(other[5])][other[6]] = sender.structure["p2p"][row[6]]
        if other[7] >= 0 and other[7] != row[7]:
            node = sender.labels.node_id[sender.structure["p2p"][row[6]]]
            back = receiver.labels.node_id[receiver.structure["p2p"][other[6]]]
            problems.add(
                "error",
                "size-mismatch",
                f"sends {row[7]} B to rank {row[1]}, whose receive (node {back}) expects {other[7]} B",
                rank=row[5],
                nodes=[node],
                remedy="Both sides need the same comm_size",
            )
    for row in recv[~taken].tolist():
        _unmatched(ranks, row, "receive", problems)
    return partner


def _numbered(table: np.ndarray) -> np.ndarray:
    """Replace the priority (column 3) by the order among equal (source, destination, tag)."""
    order = np.lexsort((table[:, 3], table[:, 2], table[:, 1], table[:, 0]))
    table = table[order]
    new = np.ones(len(table), bool)
    new[1:] = (table[1:, :3] != table[:-1, :3]).any(1)
    start = np.maximum.accumulate(np.where(new, np.arange(len(table)), 0))
    table[:, 3] = np.arange(len(table)) - start
    return table


def _unmatched(ranks, row, word, problems) -> None:
    source, destination, tag, _, _, rank, k, _ = row
    r = ranks[rank]
    other = destination if word == "send" else source
    missing = "receive" if word == "send" else "send"
    problems.add(
        "error",
        "unmatched",
        f"{word} {'to' if word == 'send' else 'from'} rank {other} (tag {tag}) has no matching {missing} there",
        rank=rank,
        nodes=[r.labels.node_id[r.structure["p2p"][k]]],
        remedy="Source, destination, tag and count must agree on both ranks",
    )


def _assemble(ranks, partner, registry, problems, source, digest) -> Graph:
    """Ranks with equal structure share a program."""
    programs: dict[bytes, list[int]] = {}
    label_sets: dict[bytes, int] = {}
    labels: list[Labels] = []
    label = np.zeros(len(ranks), np.int32)
    for r in ranks:
        programs.setdefault(_digest(r.structure), []).append(r.rank)
        key = _digest(
            {"id": r.labels.node_id, "tag": r.labels.tag, "names": "\0".join(r.labels.names)}
        )
        if key not in label_sets:
            label_sets[key] = len(labels)
            labels.append(r.labels)
        label[r.rank] = label_sets[key]
    program, row = np.zeros(len(ranks), np.int32), np.zeros(len(ranks), np.int32)
    built = []
    for index, members in enumerate(programs.values()):
        program[members] = index
        row[members] = np.arange(len(members))
        built.append(
            Program(
                **ranks[members[0]].structure,
                ranks=np.array(members, np.int32),
                groups=np.array([ranks[m].group_of_slot for m in members], np.int32).reshape(
                    len(members), -1
                ),
                peer=np.array([ranks[m].peer for m in members], np.int32),
                partner=np.array([partner[m] for m in members], np.int32),
            )
        )
    by_name = _check_groups(ranks, registry, problems)
    return Graph(
        programs=tuple(built),
        program=program,
        row=row,
        groups=tuple(registry.members),
        group_names=tuple(registry.names),
        by_name=by_name,
        labels=tuple(labels),
        label=label,
        source=source,
        warnings=tuple(str(p) for p in problems.warnings()),
        digest=digest,
    )


def _digest(values: Mapping) -> bytes:
    hasher = hashlib.sha256()
    for key in sorted(values):
        value = values[key]
        data = (
            np.ascontiguousarray(value).tobytes()
            if isinstance(value, np.ndarray)
            else repr(value).encode()
        )
        hasher.update(f"{key}:{len(data)}:".encode())
        hasher.update(data)
    return hasher.digest()


def _check_groups(ranks, registry, problems) -> np.ndarray:
    """[G] bool, whether each group's members have the same names; members that disagree are noted."""
    by_name = np.ones(len(registry.members), bool)
    users: dict[int, list[tuple[int, int]]] = {}
    for r in ranks:
        for slot, group in enumerate(r.group_of_slot):
            users.setdefault(group, []).append((r.rank, slot))
    for group, used in users.items():
        members, name = registry.members[group], registry.names[group] or "0"
        present = {rank for rank, _ in used}
        absent = [m for m in members if m not in present]
        if absent:
            rank, slot = used[0]
            first = ranks[rank].labels.node_id[ranks[rank].structure["slot"] == slot]
            problems.add(
                "error",
                "missing-member",
                f"collective on group {name!r}, but rank {absent[0]}"
                + (f" and {len(absent) - 1} more members" if len(absent) > 1 else "")
                + " never joins it",
                rank=rank,
                nodes=first,
                remedy="Every member of a group takes part in its collectives",
            )
            continue
        by_name[group] = len({ranks[r].names_of_slot[s] for r, s in used}) == 1
        _compare_members(ranks, used, name, bool(by_name[group]), problems)
    return by_name


def _compare_members(ranks, used, name, by_name, problems) -> None:
    """Members must agree in number, and where they pair up by name in type and size."""

    def calls(rank, slot):
        s = ranks[rank].structure
        here = np.flatnonzero(s["slot"] == slot)
        here = here[np.argsort(s["match"][here])]
        return here, s["comm_type"][here], s["size"][here]

    rank0, slot0 = used[0]
    here0, type0, size0 = calls(rank0, slot0)
    seen = {_digest({"t": type0, "s": size0})}
    for rank, slot in used[1:]:
        here, kind, size = calls(rank, slot)
        key = _digest({"t": kind, "s": size})
        if key in seen:
            continue
        seen.add(key)
        if len(here) != len(here0):
            problems.add(
                "error",
                "member-count",
                f"issues {len(here)} collectives on group {name!r}, rank {rank0} issues {len(here0)}",
                rank=rank,
                nodes=ranks[rank].labels.node_id[here],
                remedy="Every member must issue every collective of the group",
            )
        elif by_name:
            for word, wrong in (("type", kind != type0), ("size", size != size0)):
                if wrong.any():
                    problems.add(
                        "error",
                        f"{word}-mismatch",
                        f"{word} of a collective on group {name!r} differs from rank {rank0}'s",
                        rank=rank,
                        nodes=ranks[rank].labels.node_id[here[wrong]],
                        remedy=f"Members must agree in {word}",
                    )
