"""All ranks of a workload joined into one structure of arrays.

Most ranks of a training job run the same program on their own data: their files are equal but for names, node
ids, communicator groups and peers. A `Graph` therefore keeps every distinct *program* once, with a table that
says which ranks run it and what each of its group slots and peers means on each of them. A graph of 65,536 ranks
costs what its distinct programs cost; rows per original node are made on demand (`Graph.nodes`).

Nodes are numbered in the order rank, then position in the file. Hardware appears nowhere in here.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.display import as_html
from perfmodel.errors import InputError, quoted
from perfmodel.findings import Findings
from perfmodel.vocabulary import describe
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.identity import content_digest
from perfmodel.workload.join import join
from perfmodel.workload.program import Ints, Labels, Origin, Program
from perfmodel.workload.recorded import Recorded
from perfmodel.workload.tensor_memory import TensorMemory
from perfmodel.workload.training_step import TrainingStep

if TYPE_CHECKING:
    import pandas as pd

MAX_TABLE_ROWS = 50_000_000
"""More rows than this are not put into one table: ask for some ranks."""


@dataclass(frozen=True, eq=False)
class Graph:
    """A workload of R ranks.

    Attributes:
        programs: the distinct programs.
        program: [R] i32, the program of each rank.
        row: [R] i32, the rank's row in its program's tables.
        groups: communicator groups, each a tuple of ranks in list order; group 0 is the world.
        group_names: their names in the trace.
        by_name: [G] bool, the group's collectives pair up by name (else by order of issue).
        labels: the distinct label sets.
        label: [R] i32, the label set of each rank.
        source: where the graph came from, for messages.
        warnings: what loading noticed and went on with.
        origin: the files it came from, where it came from files.
        recorded: how and on what it was recorded, where its times are those of a device.
        step: what it does for the model that it trains, where its generator says so.
        tensors: what the ranks' tensors hold, where their traces name them.
    """

    programs: tuple[Program, ...]
    program: NDArray[np.int32]
    row: NDArray[np.int32]
    groups: tuple[tuple[int, ...], ...]
    group_names: tuple[str, ...]
    by_name: NDArray[np.bool_]
    labels: tuple[Labels, ...]
    label: NDArray[np.int32]
    source: str = ""
    warnings: tuple[str, ...] = ()
    origin: Origin | None = None
    recorded: Recorded | None = None
    step: TrainingStep | None = None
    tensors: TensorMemory | None = None

    @cached_property
    def digest(self) -> str:
        """Hash of all that the graph says, however it was made: equal digests, equal workloads."""
        return content_digest(self)

    @classmethod
    def from_ranks(
        cls,
        ranks: Sequence[RankColumns],
        *,
        groups: Mapping[str, Sequence[int]] | None = None,
        unknown_group: str = "error",
        source: str = "columns",
        strict: bool = False,
    ) -> Graph:
        """Join the columns of all ranks: the entrance for readers and generators of one's own.

        Args:
            ranks: the columns of rank 0, 1, ...; ranks that do the same may be the same object.
            groups: communicator groups, name -> ranks, as the columns' `group_names` call them.
            unknown_group: "error", or "world" to let groups that nobody defines be all ranks.
            source: what messages call the workload.
            strict: warnings are errors.

        Raises:
            TraceError: anything wrong, all of it in one message: repeated ids, cycles, nodes without a cost, sends
                without their receive, members of a group that disagree.

        Example: two ranks that compute and then reduce.
            >>> from perfmodel.vocabulary import NodeType
            >>> from perfmodel.workload.columns import RankColumns
            >>> one = RankColumns(
            ...     id=[1, 2], type=[NodeType.COMP, NodeType.COMM_COLL], flops=[10**12, -1],
            ...     bytes=[10**9, -1], comm_type=[-1, 0], size=[-1, 10**8], edge_from=[0], edge_to=[1])
            >>> Graph.from_ranks([one, one], source="two ranks")
            Graph('two ranks': 2 ranks, 4 nodes, 1 distinct programs, 1 groups)
        """
        if not len(ranks):
            raise InputError(f"{source}: has no ranks")
        findings = Findings(source)
        joined = join(ranks, groups or {}, findings, unknown_group=unknown_group)
        findings.check(strict=strict)
        return cls(**joined, source=source)

    @property
    def ranks(self) -> int:
        """Number of ranks."""
        return len(self.program)

    @cached_property
    def offset(self) -> Ints:
        """[R+1] i64, number of the first node of each rank."""
        sizes = np.array([len(p) for p in self.programs], dtype=np.int64)
        return np.concatenate([[0], np.cumsum(sizes[self.program])])

    def __len__(self) -> int:
        """Number of nodes over all ranks."""
        return int(self.offset[-1])

    def __repr__(self) -> str:
        return (
            f"Graph({self.source!r}: {self.ranks} ranks, {len(self):,} nodes, "
            f"{len(self.programs)} distinct programs, {len(self.groups)} groups)"
        )

    def _repr_html_(self) -> str:
        return as_html(
            "Workload",
            {
                "source": self.source,
                "ranks": f"{self.ranks:,}, {len(self.programs):,} distinct programs",
                "nodes": f"{len(self):,}",
                "groups": f"{len(self.groups):,}",
            },
        )

    def name(self, rank: int, position: int) -> str:
        """The node's name and id, for messages."""
        labels = self.labels[self.label[rank]]
        return f"rank {rank} node {labels.node_id[position]} ({quoted(labels.names[position])})"

    @property
    def nodes(self) -> pd.DataFrame:
        """One row per node, in node order; see `table` for some ranks only."""
        return self.table()

    def table(self, ranks: Sequence[int] | None = None) -> pd.DataFrame:
        """The nodes of some or all ranks as a table.

        Args:
            ranks: which ranks, all by default.

        Returns:
            Columns rank, node_id, name, type, cpu, resource, flops, bytes_B, duration_s (recorded), size_B,
            group, peer, tag; indexed by node number.

        Raises:
            InputError: the table would be too large.
        """
        import pandas as pd

        chosen = check_ranks(self, ranks)
        columns: dict[str, list[np.ndarray]] = {}
        for rank in chosen:
            for key, value in self._columns(rank).items():
                columns.setdefault(key, []).append(value)
        table = pd.DataFrame({key: np.concatenate(parts) for key, parts in columns.items()})
        table.index = pd.Index(self.numbers(chosen), name="node")
        return table

    def numbers(self, ranks: Sequence[int]) -> Ints:
        """Node numbers of the nodes of the given ranks."""
        return np.concatenate([np.arange(self.offset[r], self.offset[r + 1]) for r in ranks])

    def _columns(self, rank: int) -> dict[str, np.ndarray]:
        p, labels = self.programs[self.program[rank]], self.labels[self.label[rank]]
        row = self.row[rank]
        n = len(p)
        resources = np.array([*p.resources, ""], dtype=object)
        group = np.full(n, "", dtype=object)
        inside = p.slot >= 0
        names = np.array(self.group_names, dtype=object)
        if inside.any():
            group[inside] = names[p.groups[row, p.slot[inside]]]
        peer = np.full(n, -1, dtype=np.int64)
        peer[p.p2p] = p.peer[row]
        return {
            "rank": np.full(n, rank),
            "node_id": labels.node_id,
            "name": np.array(labels.names, dtype=object),
            "type": np.array([describe(t, c) for t, c in zip(p.type, p.comm_type)], dtype=object),
            "cpu": p.cpu,
            "resource": resources[p.resource],
            "flops": p.flops,
            "bytes_B": p.bytes,
            "duration_s": p.duration,
            "size_B": p.size,
            "group": group,
            "peer": peer,
            "tag": labels.tag,
        }

    @cached_property
    def flat(self) -> Flat:
        """Every node of every rank in plain arrays, for models that look at single messages."""
        return flatten(self)


@dataclass(frozen=True, eq=False)
class Flat:
    """The nodes of all ranks without sharing; -1 marks an absent integer, group 0 is the world."""

    ranks: int
    rank: NDArray[np.int32]
    node_id: NDArray[np.uint64]
    type: NDArray[np.int8]
    is_cpu: NDArray[np.bool_]
    num_ops: Ints
    tensor_size: Ints
    duration_us: Ints
    comm_type: NDArray[np.int32]
    comm_size: Ints
    group: NDArray[np.int32]
    peer: NDArray[np.int32]
    tag: Ints
    involved: NDArray[np.int32]
    pred_ptr: Ints
    pred: NDArray[np.int32]
    groups: tuple[tuple[int, ...], ...]
    names: list[str]


def check_ranks(graph: Graph, ranks: Sequence[int] | None) -> list[int]:
    """The chosen ranks as a list; an error names those that the graph does not have."""
    chosen = list(range(graph.ranks)) if ranks is None else [int(r) for r in ranks]
    wrong = [r for r in chosen if not 0 <= r < graph.ranks]
    if wrong:
        raise InputError(
            f"{graph.source}: no rank {wrong[0]}; the ranks are 0 to {graph.ranks - 1}"
        )
    rows = int(sum(graph.offset[r + 1] - graph.offset[r] for r in chosen))
    if rows > MAX_TABLE_ROWS:
        raise InputError(
            f"{graph.source}: {rows:,} nodes do not fit one table (limit {MAX_TABLE_ROWS:,}); "
            "name the ranks you want, for example ranks=[0]"
        )
    return chosen


def parted(graph: Graph, keys: Sequence[Hashable]) -> Graph:
    """The graph with a program for each distinct key, of `keys` [R], among the ranks that run one program."""
    parts: dict[tuple[int, Hashable], list[int]] = {}
    for rank, key in enumerate(keys):
        parts.setdefault((int(graph.program[rank]), key), []).append(rank)
    programs: list[Program] = []
    program, row = np.empty(graph.ranks, np.int32), np.empty(graph.ranks, np.int32)
    for (number, _), members in parts.items():
        rows = graph.row[members]
        old = graph.programs[number]
        program[members], row[members] = len(programs), np.arange(len(members))
        part = replace(
            old,
            ranks=old.ranks[rows],
            groups=old.groups[rows],
            peer=old.peer[rows],
            partner=old.partner[rows],
        )
        programs.append(part)
    return replace(graph, programs=tuple(programs), program=program, row=row)


def flatten(graph: Graph) -> Flat:
    """Repeat every program for every rank that runs it."""
    parts: dict[str, list[np.ndarray]] = {f.name: [] for f in fields(Flat)}
    names: list[str] = []
    for rank in range(graph.ranks):
        p, labels = graph.programs[graph.program[rank]], graph.labels[graph.label[rank]]
        row, base, n = graph.row[rank], graph.offset[rank], len(p)
        group = np.zeros(n, np.int32)
        inside = p.slot >= 0
        if inside.any():
            group[inside] = p.groups[row, p.slot[inside]]
        peer = np.full(n, -1, np.int32)
        peer[p.p2p] = p.peer[row]
        recorded = np.nan_to_num(p.duration * 1e6, nan=0.0)
        columns = {
            "rank": np.full(n, rank, np.int32),
            "node_id": labels.node_id,
            "type": p.type,
            "is_cpu": p.cpu,
            "num_ops": p.flops,
            "tensor_size": p.bytes,
            "duration_us": np.rint(recorded).astype(np.int64),
            "comm_type": p.comm_type,
            "comm_size": p.size,
            "group": group,
            "peer": peer,
            "tag": labels.tag,
            "involved": p.involved,
            "pred_ptr": np.diff(p.pred_ptr),
            "pred": p.pred + np.int32(base),
        }
        for key, value in columns.items():
            parts[key].append(value)
        names.extend(labels.names)
    joined = {key: np.concatenate(values) for key, values in parts.items() if values}
    joined["pred_ptr"] = np.concatenate([[0], np.cumsum(joined["pred_ptr"])])
    return Flat(ranks=graph.ranks, groups=graph.groups, names=names, **joined)
