"""The kernel's tables in one array of words, from the lowered nodes and the planner's collection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import hash_order, layout
from perfmodel.astra.collective_plans import Planner
from perfmodel.astra.config import Config
from perfmodel.astra.costs import CostTable
from perfmodel.astra.custom_files import CustomNodes
from perfmodel.astra.flat_nodes import FlatNodes

Ints = NDArray[np.int64]
SIZE_ROWS = (layout.SIZE_HOLD, layout.SIZE_ARRIVE, *range(layout.SIZE_BUS_HOLD, layout.SIZE_W))


@dataclass(frozen=True, eq=False)
class Tables:
    """What workload and configuration fix, and the sizes that a run's memory depends on.

    Attributes:
        words: i64, the array `t` of the kernel (see `layout`).
        nodes: number of nodes; ranks, stations (a rank), levels; links, servers: of the system.
        indegree: i64 [N]; rank_nodes: i64 [R], nodes of each rank.
        chunks: of the largest collective; window: slots of the widest phase; places: of a station.
        members: of all groups together; choices: decisions between implementations (a rank).
        custom_room: nodes of the largest custom trace.
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
    choices: int
    custom_room: int
    rendezvous: int
    per_byte: NDArray[np.float64]

    def node_column(self, field: int) -> Ints:
        """A column of the node table, in the kernel's order."""
        start = int(self.words[layout.T_NODES])
        return self.words[start : start + self.nodes * layout.NODE_W].reshape(-1, layout.NODE_W)[
            :, field
        ]


class _Words:
    """Appends tables behind a header that holds their positions."""

    def __init__(self) -> None:
        self.header = np.zeros(layout.T_HEADER, np.int64)
        self.parts: list[Ints] = []
        self.end = layout.T_HEADER

    def add(self, field: int, table: NDArray[Any]) -> None:
        words = np.ascontiguousarray(table, np.int64).ravel()
        self.header[field] = self.end
        self.parts.append(words)
        self.end += len(words)

    def array(self) -> Ints:
        return np.concatenate([self.header, *self.parts])


def build_tables(
    flat: FlatNodes,
    config: Config,
    planner: Planner,
    nodes: dict[str, Ints],
    customs: CustomNodes,
    order: Ints,
) -> tuple[Tables, CostTable]:
    """Tables with nodes in the given order (rank, ascending id), and the finished cost table.

    The cost rows in `nodes` are changed to their final numbers.
    """
    parts = planner.tables()
    rows, number = planner.rows.finish()
    nodes["row"] = number[nodes["row"]].astype(np.int64)
    for table, columns in (
        (parts["phases"], (layout.PHASE_ROW, layout.PHASE_REDUCTION)),
        (parts["steps"], (layout.STEP_REDUCTION,)),
        (parts["sizes"], SIZE_ROWS),
        (parts["bus"], (5, 6)),
        (customs.nodes, (layout.CUSTOM_ROW,)),
    ):
        for column in columns:
            table[:, column] = number[table[:, column]]
    message_rows = number[parts["message_rows"]]
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    pred_ptr, pred = _permuted(flat, order, place)
    nodes["indegree"] = np.diff(flat.pred_ptr)
    table = np.stack([nodes[name][order] for name in layout.NODE_FIELDS], axis=1)
    succ_ptr = np.concatenate([[0], np.cumsum(np.bincount(pred, minlength=len(order)))])
    target = np.repeat(np.arange(len(order)), np.diff(pred_ptr))
    rank_unit = table[:, layout.NODE_RANK] * 4 + table[:, layout.NODE_UNIT]
    room = np.bincount(rank_unit, minlength=4 * flat.ranks)
    w = _Words()
    w.add(layout.T_NODES, table)
    w.add(layout.T_SUCCESSOR_PTR, succ_ptr)
    w.add(layout.T_SUCCESSOR, target[np.argsort(pred, kind="stable")])
    w.add(layout.T_PREDECESSOR_PTR, pred_ptr)
    w.add(layout.T_PREDECESSOR, pred)
    rank_ptr = np.searchsorted(table[:, layout.NODE_RANK], np.arange(flat.ranks + 1))
    w.add(layout.T_RANK_PTR, rank_ptr)
    w.add(layout.T_READY_PTR, np.concatenate([[0], np.cumsum(room)]))
    w.add(layout.T_ALTERNATIVES, parts["alternatives"])
    w.add(layout.T_PLANS, parts["plans"])
    w.add(layout.T_PHASES, parts["phases"])
    w.add(layout.T_STEPS, parts["steps"])
    w.add(layout.T_TREES, parts["trees"])
    w.add(layout.T_MEMBERS, parts["members"])
    w.add(layout.T_SIZES, parts["sizes"])
    w.add(layout.T_MESSAGE_ROWS, message_rows)
    w.add(layout.T_DIMS, parts["dims"])
    w.add(layout.T_CUSTOMS, customs.nodes)
    w.add(layout.T_CUSTOM_PTR, customs.ptr)
    w.add(layout.T_CUSTOM_SUCCESSOR, customs.successor)
    w.add(layout.T_CUSTOM_PREDECESSOR, customs.predecessor)
    w.add(layout.T_CUSTOM_BUCKETS, customs.buckets)
    w.add(layout.T_BUCKET_COUNTS, np.array(hash_order.BUCKETS))
    levels, queues = len(config.network.sizes), config.system.queues
    chunks = int(parts["plans"][:, layout.PLAN_CHUNKS].max(initial=1))
    places = min(-(-config.system.active_chunks // queues), chunks)
    network, links = _network(config)
    bus = parts["bus"][0].tolist()
    for field, value in (
        (layout.T_RANKS, flat.ranks),
        (layout.T_NETWORK, network),
        (layout.T_QUEUES, queues),
        (layout.T_PLACES, places),
        (layout.T_LEVELS, levels),
        (layout.T_STATIONS, levels * queues),
        (layout.T_CLASSES, message_rows.shape[1]),
        (layout.T_DIM_COUNT, levels),
        (layout.T_RENDEZVOUS, planner.small),
        (layout.T_CHOICES, planner.choices),
        (layout.T_RARE, _needs_rare_parts(planner, parts, nodes)),
        *zip(range(layout.T_BUS, layout.T_HEADER), bus, strict=True),
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
        indegree=table[:, layout.NODE_INDEGREE].copy(),
        rank_nodes=np.diff(rank_ptr),
        chunks=chunks,
        window=int(parts["phases"][:, layout.PHASE_WINDOW].max(initial=1)),
        places=places,
        members=len(parts["members"]),
        choices=planner.choices,
        rendezvous=planner.small,
        per_byte=np.array(planner.per_byte),
        custom_room=int(np.diff(customs.ptr).max(initial=1)),
    )
    return tables, rows


def _needs_rare_parts(planner: Planner, parts: dict[str, Ints], nodes: dict[str, Ints]) -> bool:
    """Whether a workload reaches what the usual simulator leaves out (`jit.rare`)."""
    algorithms = parts["phases"][:, layout.PHASE_ALGORITHM]
    return bool(
        np.isin(algorithms, (layout.TREE, layout.CUSTOM)).any()
        or (nodes["server"] >= 0).any()
        or planner.small >= 0
        or planner.per_byte
    )


def _network(config: Config) -> tuple[int, int]:
    """The kernel's code of the network, and its number of directed links."""
    ranks = config.network.ranks
    if config.backend == "unaware":
        return layout.UNAWARE, 0
    if config.network.topology[0] == "FullyConnected":
        return layout.AWARE_FULL, ranks * ranks
    ring = config.network.topology[0] == "Ring"
    return (layout.AWARE_RING if ring else layout.AWARE_SWITCH), 2 * ranks


def _permuted(flat: FlatNodes, order: Ints, place: Ints) -> tuple[Ints, Ints]:
    """Prerequisites for rows in a new order."""
    count = np.diff(flat.pred_ptr)[order]
    ptr = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
    index = np.repeat(flat.pred_ptr[:-1][order] - ptr[:-1], count) + np.arange(ptr[-1])
    return ptr, place[flat.pred[index]]
