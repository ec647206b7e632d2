"""The distinct costs of a graph: what has a cost, and which nodes have the same."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.placement import hops_table, span
from perfmodel.machine.system import System
from perfmodel.models.cost_blocks import CostBlock, DistinctCosts, aligned
from perfmodel.schedule.distinct_rows import distinct_rows
from perfmodel.vocabulary import (
    COLLECTIVES,
    COMMUNICATION,
    COMPUTE,
    DIMENSIONS,
    DTYPES,
    HOST,
    MEMORY,
    OPERATIONS,
    NodeType,
)
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program


class CostCollector:
    """Collects distinct costs; rows are numbered per key first, globally at the end."""

    def __init__(self, graph: Graph, system: System, prefer: str, quickest: bool):
        if prefer not in ("work", "recorded"):
            raise InputError(f'prefer: got {prefer!r}, expected "work" or "recorded"')
        self.graph, self.system, self.prefer, self.quickest = graph, system, prefer, quickest
        self.sizes = tuple(d.size for d in system.network)
        self.keys: dict[tuple[Hashable, ...], int] = {}
        self.category: list[int] = []
        self.parts: list[list[_RowsOfProgram]] = []
        self.count = 0

    def rows(self, p: Program, row: int) -> tuple[np.ndarray, np.ndarray]:
        """[n] provisional cost numbers (-1 none) and [n] whether a collective replays its record."""
        number = np.full(len(p), -1, np.int32)
        comp = p.type == NodeType.COMP
        memory = (p.type == NodeType.MEM_LOAD) | (p.type == NodeType.MEM_STORE)
        coll = p.type == NodeType.COMM_COLL
        send = p.type == NodeType.COMM_SEND
        work = np.select(
            [comp, memory, coll, send],
            [
                (p.flops >= 0) | (p.bytes >= 0),
                p.bytes >= 0,
                (p.size >= 0) | (p.comm_type == COLLECTIVES.index("barrier")),
                p.size >= 0,
            ],
            False,
        )
        has_record = ~np.isnan(p.duration)
        replay = has_record & ~work if self.prefer == "work" else has_record
        replay &= comp | memory | coll | send
        for category, chosen in (
            (COMPUTE, replay & comp & ~p.cpu),
            (HOST, replay & comp & p.cpu),
            (MEMORY, replay & memory),
            (COMMUNICATION, replay & (coll | send)),
        ):
            self._add(number, chosen, ("recorded", category), category, p.scale, p.duration)
        self._compute(number, comp & ~replay, p)
        for word, chosen in (("local", self._local(p)), ("remote", ~self._local(p))):
            chosen = memory & ~replay & chosen
            self._add(number, chosen, ("memory", word), MEMORY, p.scale, p.bytes)
        for slot, group in enumerate(p.groups[row]):
            calls = coll & (p.slot == slot)
            members = self.graph.groups[group]
            if len(members) == 1:
                number[calls & ~replay] = -1  # alone
                continue
            shape = span(members, self.sizes)
            for kind in np.unique(p.comm_type[calls & ~replay]):
                chosen = calls & ~replay & (p.comm_type == kind)
                key = ("collective", COLLECTIVES[kind], shape)
                self._add(number, chosen, key, COMMUNICATION, p.scale, np.maximum(p.size, 0))
        self._messages(number, send & ~replay, p, row)
        return number, (replay | self.quickest) & coll

    def latencies(self, p: Program) -> np.ndarray | None:
        """[e] provisional cost numbers of a program's edges, -1 for those that take no time; None: all of them."""
        slow = p.pred_latency > 0
        if not slow.any():
            return None
        number = np.full(len(p.pred), -1, np.int32)
        once = np.broadcast_to(1.0, (len(p.pred),))
        self._add(number, slow, ("recorded", HOST), HOST, once, p.pred_latency)
        return number

    def _compute(self, number: np.ndarray, chosen: np.ndarray, p: Program) -> None:
        """Kernels by kind and number format; kinds with sizes have those as further columns."""
        if not chosen.any():
            return
        flops, moved = np.maximum(p.flops, 0), np.maximum(p.bytes, 0)
        both = p.kind.astype(np.int64) * (len(DTYPES) + 1) + p.dtype + 1
        for code in np.flatnonzero(np.bincount(both[chosen])):
            kind, dtype = divmod(int(code), len(DTYPES) + 1)
            word = OPERATIONS[kind]
            sizes = [p.dimensions[:, k] for k in range(len(DIMENSIONS.get(word, ())))]
            for host, category in ((False, COMPUTE), (True, HOST)):
                here = chosen & (both == code) & (p.cpu == host)
                key = ("compute", word, DTYPES[dtype - 1] if dtype else "", category)
                self._add(number, here, key, category, p.scale, flops, moved, *sizes)

    def _local(self, p: Program) -> NDArray[np.bool_]:
        """Memory nodes go to remote memory where the system has one, unless they name local memory."""
        return p.local | (self.system.remote_memory is None)

    def _messages(self, number: np.ndarray, chosen: np.ndarray, p: Program, row: int) -> None:
        if not chosen.any():
            return
        positions = p.p2p
        sends = chosen[positions]
        own = int(p.ranks[row])
        peers = p.peer[row][sends]
        table = hops_table(np.full(len(peers), own), peers, self.system.network)
        for route in np.unique(table, axis=0):
            here = np.zeros(len(p), bool)
            here[positions[sends][(table == route).all(1)]] = True
            key = ("point_to_point", tuple(int(h) for h in route))
            self._add(number, here, key, COMMUNICATION, p.scale, p.size)

    def _add(
        self,
        number: np.ndarray,
        chosen: np.ndarray,
        key: tuple[Hashable, ...],
        category: int,
        scale: np.ndarray,
        *columns: np.ndarray,
    ) -> None:
        """Number the costs of the chosen nodes: rows of columns and a factor; equal ones are one."""
        if not chosen.any():
            return
        index = self.keys.setdefault(key, len(self.keys))
        if index == len(self.parts):
            self.parts.append([])
            self.category.append(category)
        of = [c[chosen] for c in (*columns, scale)]
        factor = float(of[-1][0]) if (of[-1] == of[-1][0]).all() else None
        rows = np.empty((len(of[0]), len(of) - (factor is not None)))
        for column, values in zip(rows.T, of):
            column[:] = values
        distinct, found = distinct_rows(rows)
        self.parts[index].append(_RowsOfProgram(self.count, distinct, factor))
        number[chosen] = self.count + found
        self.count += len(distinct)

    def take(self, other: CostCollector) -> int:
        """Put another one's costs behind those here; how far their numbers move."""
        for key, index in other.keys.items():
            mine = self.keys.setdefault(key, len(self.keys))
            if mine == len(self.parts):
                self.parts.append([])
                self.category.append(other.category[index])
            self.parts[mine] += [
                replace(part, first=part.first + self.count) for part in other.parts[index]
            ]
        moved = self.count
        self.count += other.count
        return moved

    def finish(self) -> tuple[DistinctCosts, np.ndarray]:
        """The table, and the final number of each provisional one; -1 stays -1."""
        number = np.full(self.count + 1, -1, np.int32)
        blocks, base = [], 0
        for key, index in self.keys.items():
            places = [(part.first, len(part.rows)) for part in self.parts[index]]
            rows, factor = _joined(self.parts[index])
            rows, found = distinct_rows(rows)
            done = 0
            for first, count in places:
                number[first : first + count] = base + found[done : done + count]
                done += count
            base += len(rows)
            if factor is None:
                rows, scale = rows[:, :-1], rows[:, -1]
            else:
                scale = np.broadcast_to(factor, (len(rows),))
            word = key[:-1] if key[0] in ("recorded", "compute") else key
            blocks.append(CostBlock(word, rows, scale, self.category[index]))
        return DistinctCosts(tuple(blocks)), number


@dataclass(frozen=True)
class _RowsOfProgram:
    """Distinct costs of one kind of one program.

    Attributes:
        first: the provisional number of the first one.
        rows: [k, c] what they are of, with a factor each as the last column where there is no common one.
        factor: common to all of them.
    """

    first: int
    rows: NDArray[np.float64]
    factor: float | None


def _joined(parts: list[_RowsOfProgram]) -> tuple[NDArray[np.float64], float | None]:
    """The rows of all parts, which are let go on the way: large tables are not held twice; and the common factor."""
    first = parts[0]
    factor = first.factor if all(part.factor == first.factor for part in parts) else None
    columns = first.rows.shape[1] + (factor is None and first.factor is not None)
    joined = aligned(sum(len(part.rows) for part in parts), columns)
    end = len(joined)
    while parts:
        part = parts.pop()
        here = joined[end - len(part.rows) : end]
        here[:, : part.rows.shape[1]] = part.rows
        if factor is None and part.factor is not None:
            here[:, -1] = part.factor
        end -= len(part.rows)
    return joined, factor
