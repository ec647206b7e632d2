"""Custom collectives: a Chakra trace of sends, receives and reductions per rank replaces the algorithm."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import costs, layout
from perfmodel.astra.algorithm_phases import KEYS
from perfmodel.astra.collective_plans import CustomFile, Planner
from perfmodel.astra.config import Config
from perfmodel.astra.flat_nodes import FlatNodes
from perfmodel.astra.hash_order import buckets_for, walk
from perfmodel.errors import SystemFileError, TraceError
from perfmodel.trace import chakra
from perfmodel.vocabulary import NodeType

NATIVE_TAGS = 500_000_000
"""ASTRA-sim takes the tags of sends and receives modulo this."""


@dataclass(frozen=True, eq=False)
class CustomNodes:
    """Nodes of all custom traces: `ptr` [P+1] by trace and position, edges as indices into `nodes`.

    Nodes without prerequisites come first, in the order in which they start. `buckets` [P] of the table of ready
    nodes once these were in it; successors are in the order in which they are put into that table.
    """

    nodes: NDArray[np.int64]
    ptr: NDArray[np.int64]
    buckets: NDArray[np.int64]
    successor: NDArray[np.int64]
    predecessor: NDArray[np.int64]


def custom_of(
    flat: FlatNodes, rows: NDArray[np.int64], config: Config
) -> tuple[list[str], NDArray[np.int64]]:
    """Which custom collective each node of `rows` names: prefixes, and [n] an index into them, -1 for none."""
    system = config.system
    prefixes = list(dict.fromkeys([*system.custom.values(), *system.per_node.values()]))
    found = np.full(len(rows), -1, np.int64)
    for kind, key in KEYS.items():
        if key in system.custom:
            found[flat.comm_type[rows] == kind] = prefixes.index(system.custom[key])
    node = flat.node_id[rows].astype(np.int32)  # as ASTRA-sim narrows it
    for number, prefix in system.per_node.items():
        found[node == number] = prefixes.index(prefix)
    return prefixes, found


def choices(
    kind: NDArray[np.int64], group: NDArray[np.int64], custom: NDArray[np.int64]
) -> dict[tuple[int, int], list[int]]:
    """(Type, group) of collectives of a named group that name different implementations, and these, ascending.

    ASTRA-sim's `CommunicatorGroup` keeps one implementation a type: a rank runs them all by the first that it issues.

    Args:
        kind, group, custom: [n] by collective, the last an index of a custom implementation or -1.
    """
    found: dict[tuple[int, int], list[int]] = {}
    for k, g, c in np.unique(np.stack([kind, group, custom]), axis=1).T.tolist():
        if g > 0:
            found.setdefault((k, g), []).append(c)
    return {key: variants for key, variants in found.items() if len(variants) > 1}


def warn_of_sizes(flat: FlatNodes, config: Config) -> None:
    """Say that custom collectives move what their files say, whatever size the workload gives them."""
    if config.system.replay or not (config.system.custom or config.system.per_node):
        return
    rows = np.flatnonzero(flat.type == NodeType.COMM_COLL)
    prefixes, found = custom_of(flat, rows, config)
    for k, prefix in enumerate(prefixes):
        sizes = np.unique(flat.comm_size[rows[found == k]]).tolist()
        if sizes:
            shown = ", ".join(map(str, sizes[:3])) + (", ..." if len(sizes) > 3 else "")
            warnings.warn(
                f"custom collective {prefix!r}: its messages have the sizes in its files; comm_size of the "
                f"workload's nodes ({shown} B) has no effect on them",
                UserWarning,
                stacklevel=3,
            )


def read_custom(config: Config, planner: Planner, members: Mapping[str, int]) -> CustomNodes:
    """Read the traces of custom collectives.

    A path is relative to the working directory, as in ASTRA-sim, or else to the system file's folder.

    Args:
        members: how many positions of each prefix are used; further files are not looked at.

    Raises:
        SystemFileError: a prefix without files. TraceError: a node that a custom collective cannot hold.
    """
    nodes = [np.zeros((0, layout.CUSTOM_W), np.int64)]
    edges = [np.zeros((2, 0), np.int64)]
    ptr, buckets = [0], []
    for prefix, count in members.items():
        planner.custom_start[prefix] = len(ptr) - 1
        planner.custom_files[prefix] = []
        for path in _files(prefix, count, config):
            trace = chakra.read(path)
            graph = start_order(trace.id, *_prerequisites(trace, path))
            part, messages = _nodes(trace, graph.order, path, planner, config)
            planner.custom_files[prefix].append(CustomFile(path, messages))
            edges.append(np.stack([graph.source, graph.target]) + ptr[-1])
            buckets.append(graph.buckets)
            nodes.append(part)
            ptr.append(ptr[-1] + len(part))
    table, (source, target) = np.concatenate(nodes), np.concatenate(edges, axis=1)
    table[:, layout.CUSTOM_INDEGREE] = np.bincount(target, minlength=len(table))
    ptr_out = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=len(table)))])
    table[:, layout.CUSTOM_NEXT], table[:, layout.CUSTOM_NEXT_END] = ptr_out[:-1], ptr_out[1:]
    ptr_in = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=len(table)))])
    table[:, layout.CUSTOM_BEFORE], table[:, layout.CUSTOM_BEFORE_END] = ptr_in[:-1], ptr_in[1:]
    predecessor = source[np.lexsort((source, target))]
    return CustomNodes(
        table, np.array(ptr, np.int64), np.array(buckets, np.int64), target, predecessor
    )


@dataclass(frozen=True, eq=False)
class StartOrder:
    """In which order the nodes of a custom trace start that are ready at one moment.

    Attributes:
        order: [n] positions in the file: those without prerequisites in the order in which they start, then the rest.
        source, target: [e] edges as places in `order`; the targets of a source in the order in which they are put into
            the table of ready nodes.
        buckets: of that table after the first nodes.
    """

    order: NDArray[np.int64]
    source: NDArray[np.int64]
    target: NDArray[np.int64]
    buckets: int


def start_order(
    ids: NDArray[np.uint64], ptr: NDArray[np.int64], before: NDArray[np.int64]
) -> StartOrder:
    """The order that follows from the simulator's hash tables.

    Prerequisites of a node form a set, nodes and prerequisites a map by id in the order of the file, the nodes of that
    map without prerequisites the set of ready nodes; the nodes that wait for one form a set in the order of the file.

    Args:
        ids: [n] in the order of the file; before: prerequisites of node i are ``before[ptr[i]:ptr[i+1]]``, positions in
            the order of the file's data and control dependencies, each once.
    """
    n = len(ids)
    waiting: list[list[int]] = [[] for _ in range(n)]
    known: dict[int, None] = {}
    for i in range(n):
        needs = before[ptr[i] : ptr[i + 1]]
        known[i] = None
        for k in _walk(ids, needs):
            known[k] = None
            waiting[k].append(i)
    seen = np.fromiter(known, np.int64, n)
    seen = seen[walk(ids[seen])]
    free = np.diff(ptr) == 0
    roots = seen[free[seen]]
    order = np.concatenate([roots[walk(ids[roots])], np.flatnonzero(~free)])
    place = np.empty(n, np.int64)
    place[order] = np.arange(n)
    after = [_walk(ids, np.array(waiting[k], np.int64)) for k in order.tolist()]
    source = np.repeat(np.arange(n), [len(part) for part in after])
    target = place[np.array([k for part in after for k in part], np.int64)]
    return StartOrder(order, source, target, buckets_for(len(roots)))


def _walk(ids: NDArray[np.uint64], chosen: NDArray[np.int64]) -> list[int]:
    """Positions in the order in which a table is walked into which they are put in the given order."""
    places: list[int] = (chosen[walk(ids[chosen])] if len(chosen) > 1 else chosen).tolist()
    return places


def _files(prefix: str, count: int, config: Config) -> list[Path]:
    for folder in (Path(), Path(config.system.source).parent):
        paths = [folder / f"{prefix}.{k}.et" for k in range(count)]
        found = list(takewhile(Path.is_file, paths))
        if found:
            return found
    raise SystemFileError(
        f"{config.system.source}: custom implementation {prefix!r} has no file {prefix}.0.et, relative to "
        "the working directory or to this file"
    )


def _prerequisites(
    trace: chakra.RankTrace, path: Path
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Offsets and positions in the file of what each node waits for, in the order of the file, each once."""
    place = {node: i for i, node in enumerate(trace.id.tolist())}
    if len(place) < len(trace):
        raise TraceError(f"{path}: a custom collective needs nodes, each with an id of its own")
    ptr, found = [0], []
    for i, node in enumerate(trace.id.tolist()):
        data = trace.data_dep[trace.data_ptr[i] : trace.data_ptr[i + 1]]
        control = trace.ctrl_dep[trace.ctrl_ptr[i] : trace.ctrl_ptr[i + 1]]
        for other in dict.fromkeys([*data.tolist(), *control.tolist()]):
            if other not in place:
                raise TraceError(f"{path}: node {node} depends on node {other}, which is not there")
            found.append(place[other])
        ptr.append(len(found))
    return np.array(ptr, np.int64), np.array(found, np.int64)


def _nodes(
    trace: chakra.RankTrace, order: NDArray[np.int64], path: Path, planner: Planner, config: Config
) -> tuple[NDArray[np.int64], tuple[tuple[int, int], ...]]:
    """One position's nodes in the given order, and its messages."""
    nodes = np.zeros((len(order), layout.CUSTOM_W), np.int64)
    nodes[:, [layout.CUSTOM_ROW, layout.CUSTOM_PEER]] = -1
    nodes[:, layout.CUSTOM_ID] = trace.id[order].view(np.int64)
    messages = []
    for i, k in enumerate(order.tolist()):
        where = f"{path}: node {trace.id[k]}"
        kind = int(trace.type[k])
        if kind == NodeType.COMP:
            nodes[i, layout.CUSTOM_ACTION] = layout.TIMER
            duration = int(trace.duration_us[k]) * 1000 or 1
            nodes[i, layout.CUSTOM_ROW] = planner.rows.row(costs.FIXED, duration)
            continue
        if kind not in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            raise TraceError(
                f"{where} has type {kind}; a custom collective holds SEND, RECV and COMP"
            )
        sending = kind == NodeType.COMM_SEND
        peer = int((trace.comm_dst if sending else trace.comm_src)[k])
        tag, size = int(trace.comm_tag[k]), int(trace.comm_size[k])
        if peer < 0 or tag < 0 or size <= 0:
            raise TraceError(
                f"{where} has peer {peer}, comm_tag {tag}, comm_size {size}; expected a position, a "
                "tag of 0 or more, and 1 byte or more"
            )
        messages.append((int(trace.id[k]), peer))
        nodes[i, layout.CUSTOM_ACTION] = layout.SEND if sending else layout.RECV
        nodes[i, layout.CUSTOM_PEER], nodes[i, layout.CUSTOM_TAG] = peer, -1 - tag % NATIVE_TAGS
        nodes[i, layout.CUSTOM_SIZE] = planner.size(size)
    everyone = np.arange(config.network.ranks)
    sends = nodes[:, layout.CUSTOM_ACTION] == layout.SEND
    for number in np.unique(nodes[sends, layout.CUSTOM_SIZE]).tolist():
        for offset in range(1, config.network.ranks):
            planner.use(number, everyone, np.roll(everyone, -offset))
    return nodes, tuple(messages)
