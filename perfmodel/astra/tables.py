"""The kernel's tables in one array of words, from the lowered nodes and the planner's collection."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import hash_order, state
from perfmodel.astra.config import Config
from perfmodel.astra.costs import CostTable
from perfmodel.astra.customs import Customs
from perfmodel.astra.naming import Flat
from perfmodel.astra.plans import Planner

Ints = NDArray[np.int64]
SIZE_ROWS = (state.SIZE_HOLD, state.SIZE_ARRIVE, *range(state.SIZE_BUS_HOLD, state.SIZE_W))


@dataclass(frozen=True, eq=False)
class Tables:
    """What workload and configuration fix, and the sizes that a run's memory depends on.

    Attributes:
        words: i64, the array `t` of the kernel (see `state`).
        nodes: number of nodes; ranks, stations (a rank), levels; links, servers: of the system.
        indegree: i64 [N]; rank_nodes: i64 [R], nodes of each rank.
        chunks: of the largest collective; window: slots of the widest phase; places: of a station.
        members: of all groups together; custom_room: nodes of the largest custom trace.
        rendezvous: number of the size of the small messages, -1 without them. per_byte: f64, G of the outer and the
            inner shared bus [ns/B], none without them.
    """

    words: Ints
    nodes: int
    ranks: int
    stations: int
    levels: int
    links: int
    servers: int
    indegree: Ints
    rank_nodes: Ints
    chunks: int
    window: int
    places: int
    members: int
    custom_room: int
    rendezvous: int
    per_byte: NDArray[np.float64]

    def node_column(self, field: int) -> Ints:
        """A column of the node table, in the kernel's order."""
        start = int(self.words[state.T_NODES])
        return self.words[start : start + self.nodes * state.NODE_W].reshape(-1, state.NODE_W)[
            :, field
        ]


class _Words:
    """Appends tables behind a header that holds their positions."""

    def __init__(self) -> None:
        self.header = np.zeros(state.T_HEADER, np.int64)
        self.parts: list[Ints] = []
        self.end = state.T_HEADER

    def add(self, field: int, table: NDArray) -> None:
        words = np.ascontiguousarray(table, np.int64).ravel()
        self.header[field] = self.end
        self.parts.append(words)
        self.end += len(words)

    def array(self) -> Ints:
        return np.concatenate([self.header, *self.parts])


def build_tables(
    flat: Flat,
    config: Config,
    planner: Planner,
    nodes: dict[str, Ints],
    customs: Customs,
    order: Ints,
) -> tuple[Tables, CostTable]:
    """Tables with nodes in the given order (rank, ascending id), and the finished cost table.

    The cost rows in `nodes` are changed to their final numbers.
    """
    parts = planner.tables()
    rows, number = planner.rows.finish()
    nodes["row"] = number[nodes["row"]].astype(np.int64)
    for table, columns in (
        (parts["phases"], (state.PHASE_ROW, state.PHASE_REDUCTION)),
        (parts["steps"], (state.STEP_REDUCTION,)),
        (parts["sizes"], SIZE_ROWS),
        (parts["bus"], (5, 6)),
        (customs.nodes, (state.CUSTOM_ROW,)),
    ):
        for column in columns:
            table[:, column] = number[table[:, column]]
    message_rows = number[parts["message_rows"]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pred_ptr, pred = _permuted(flat, order, place)
    nodes["indegree"] = np.diff(flat.pred_ptr)
    table = np.stack([nodes[name][order] for name in state.NODE_FIELDS], axis=1)
    succ_ptr = np.concatenate([[0], np.cumsum(np.bincount(pred, minlength=len(order)))])
    target = np.repeat(np.arange(len(order)), np.diff(pred_ptr))
    rank_unit = table[:, state.NODE_RANK] * 4 + table[:, state.NODE_UNIT]
    room = np.bincount(rank_unit, minlength=4 * flat.ranks)
    w = _Words()
    w.add(state.T_NODES, table)
    w.add(state.T_SUCCESSOR_PTR, succ_ptr)
    w.add(state.T_SUCCESSOR, target[np.argsort(pred, kind="stable")])
    w.add(state.T_PREDECESSOR_PTR, pred_ptr)
    w.add(state.T_PREDECESSOR, pred)
    rank_ptr = np.searchsorted(table[:, state.NODE_RANK], np.arange(flat.ranks + 1))
    w.add(state.T_RANK_PTR, rank_ptr)
    w.add(state.T_READY_PTR, np.concatenate([[0], np.cumsum(room)]))
    w.add(state.T_PLANS, parts["plans"])
    w.add(state.T_PHASES, parts["phases"])
    w.add(state.T_STEPS, parts["steps"])
    w.add(state.T_TREES, parts["trees"])
    w.add(state.T_MEMBERS, parts["members"])
    w.add(state.T_SIZES, parts["sizes"])
    w.add(state.T_MESSAGE_ROWS, message_rows)
    w.add(state.T_DIMS, parts["dims"])
    w.add(state.T_CUSTOMS, customs.nodes)
    w.add(state.T_CUSTOM_PTR, customs.ptr)
    w.add(state.T_CUSTOM_SUCCESSOR, customs.successor)
    w.add(state.T_CUSTOM_PREDECESSOR, customs.predecessor)
    w.add(state.T_CUSTOM_BUCKETS, customs.buckets)
    w.add(state.T_BUCKET_COUNTS, np.array(hash_order.BUCKETS))
    levels, queues = len(config.network.sizes), config.system.queues
    chunks = int(parts["plans"][:, state.PLAN_CHUNKS].max(initial=1))
    places = min(-(-config.system.active_chunks // queues), chunks)
    network, links = _network(config)
    bus = parts["bus"][0].tolist()
    for field, value in (
        (state.T_RANKS, flat.ranks),
        (state.T_NETWORK, network),
        (state.T_QUEUES, queues),
        (state.T_PLACES, places),
        (state.T_LEVELS, levels),
        (state.T_STATIONS, levels * queues),
        (state.T_CLASSES, message_rows.shape[1]),
        (state.T_DIM_COUNT, levels),
        (state.T_RENDEZVOUS, planner.small),
        *zip(range(state.T_BUS, state.T_HEADER), bus, strict=True),
    ):
        w.header[field] = value
    tables = Tables(
        words=w.array(),
        nodes=len(order),
        ranks=flat.ranks,
        stations=levels * queues,
        levels=levels,
        links=links,
        servers=int(nodes["server"].max(initial=-1)) + 1,
        indegree=table[:, state.NODE_INDEGREE].copy(),
        rank_nodes=np.diff(rank_ptr),
        chunks=chunks,
        window=int(parts["phases"][:, state.PHASE_WINDOW].max(initial=1)),
        places=places,
        members=len(parts["members"]),
        rendezvous=planner.small,
        per_byte=np.array(planner.per_byte),
        custom_room=int(np.diff(customs.ptr).max(initial=1)),
    )
    return tables, rows


def _network(config: Config) -> tuple[int, int]:
    """The kernel's code of the network, and its number of directed links."""
    ranks = config.network.ranks
    if config.backend == "unaware":
        return state.UNAWARE, 0
    if config.network.topology[0] == "FullyConnected":
        return state.AWARE_FULL, ranks * ranks
    ring = config.network.topology[0] == "Ring"
    return (state.AWARE_RING if ring else state.AWARE_SWITCH), 2 * ranks


def _permuted(flat: Flat, order: Ints, place: Ints) -> tuple[Ints, Ints]:
    """Prerequisites for rows in a new order."""
    count = np.diff(flat.pred_ptr)[order]
    ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    index = np.repeat(flat.pred_ptr[:-1][order] - ptr[:-1], count) + np.arange(ptr[-1])
    return ptr, place[flat.pred[index]]
