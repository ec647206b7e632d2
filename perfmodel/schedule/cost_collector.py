"""The distinct costs of a graph: what has a cost, and which nodes have the same."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.placement import hops_table, span
from perfmodel.machine.system import System
from perfmodel.models.cost_blocks import CostBlock, DistinctCosts
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
        self.rows_of: list[list[tuple[int, NDArray[np.float64]]]] = []
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
        if index == len(self.rows_of):
            self.rows_of.append([])
            self.category.append(category)
        rows = np.column_stack([c[chosen].astype(float) for c in (*columns, scale)])
        distinct, found = distinct_rows(rows)
        self.rows_of[index].append((self.count, distinct))
        number[chosen] = self.count + found
        self.count += len(distinct)

    def finish(self) -> tuple[DistinctCosts, np.ndarray]:
        """The table, and the final number of each provisional one; -1 stays -1."""
        number = np.full(self.count + 1, -1, np.int32)
        blocks, base = [], 0
        for key, index in self.keys.items():
            parts, self.rows_of[index] = self.rows_of[index], []
            places = [(first, len(rows)) for first, rows in parts]
            table = np.concatenate([rows for _, rows in parts])
            del parts  # large tables are not held twice
            rows, found = distinct_rows(table)
            done = 0
            for first, count in places:
                number[first : first + count] = base + found[done : done + count]
                done += count
            base += len(rows)
            word = key[:-1] if key[0] in ("recorded", "compute") else key
            blocks.append(CostBlock(word, rows[:, :-1], rows[:, -1], self.category[index]))
        return DistinctCosts(tuple(blocks)), number
