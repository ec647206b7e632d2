"""Custom collectives: a Chakra trace of sends, receives and reductions per rank replaces the algorithm."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import costs, state
from perfmodel.astra.config import Config
from perfmodel.astra.plans import CustomFile, Planner
from perfmodel.errors import SystemFileError, TraceError
from perfmodel.trace import chakra
from perfmodel.vocabulary import NodeType

NATIVE_TAGS = 500_000_000
"""ASTRA-sim takes the tags of sends and receives modulo this."""


@dataclass(frozen=True, eq=False)
class Customs:
    """Nodes of all custom traces: `ptr` [P+1] by trace and position, edges as indices into `nodes`."""

    nodes: NDArray
    ptr: NDArray[np.int64]
    successor: NDArray[np.int64]
    predecessor: NDArray[np.int64]


def read_custom(config: Config, planner: Planner) -> Customs:
    """Read the traces that the system file names, positions 0, 1, ... as far as there are files.

    A path is relative to the working directory, as in ASTRA-sim, or else to the system file's folder.

    Raises:
        SystemFileError: a prefix without files. TraceError: a node that a custom collective cannot hold.
    """
    nodes: list[NDArray] = []
    ptr = [0]
    edges: list[tuple[NDArray, NDArray]] = []
    for prefix in dict.fromkeys(config.system.custom.values()):
        planner.custom_start[prefix] = len(ptr) - 1
        planner.custom_files[prefix] = []
        for path in _files(prefix, config):
            part, source, target, file = _read_one(path, planner, config)
            planner.custom_files[prefix].append(file)
            edges.append((source + ptr[-1], target + ptr[-1]))
            nodes.append(part)
            ptr.append(ptr[-1] + len(part))
    if not nodes:
        none = np.zeros(0, np.int64)
        return Customs(np.zeros((0, state.CUSTOM_W), np.int64), np.zeros(1, np.int64), none, none)
    table = np.concatenate(nodes)
    source = np.concatenate([s for s, _ in edges])
    target = np.concatenate([t for _, t in edges])
    table[:, state.CUSTOM_INDEGREE] = np.bincount(target, minlength=len(table))
    successor, ptr_out = _lists(source, target, len(table))
    table[:, state.CUSTOM_NEXT], table[:, state.CUSTOM_NEXT_END] = ptr_out[:-1], ptr_out[1:]
    predecessor, ptr_in = _lists(target, source, len(table))
    table[:, state.CUSTOM_BEFORE], table[:, state.CUSTOM_BEFORE_END] = ptr_in[:-1], ptr_in[1:]
    return Customs(table, np.array(ptr, np.int64), successor, predecessor)


def _lists(key: NDArray, value: NDArray, n: int):
    order = np.lexsort((value, key))
    ptr = np.concatenate([[0], np.cumsum(np.bincount(key, minlength=n))])
    return value[order].astype(np.int64), ptr


def _files(prefix: str, config: Config) -> list[Path]:
    for folder in (Path(), Path(config.system.source).parent):
        found: list[Path] = []
        while (path := folder / f"{prefix}.{len(found)}.et").is_file():
            found.append(path)
        if found:
            return found
    raise SystemFileError(
        f"{config.system.source}: custom implementation {prefix!r} has no file {prefix}.0.et, relative to "
        "the working directory or to this file"
    )


def _read_one(path: Path, planner: Planner, config: Config):
    """One position's nodes in ascending id, its edges, and its messages."""
    trace = chakra.read(path)
    order = np.argsort(trace.id, kind="stable")
    ids = trace.id[order]
    if len(ids) == 0 or (np.diff(ids) == 0).any():
        raise TraceError(f"{path}: a custom collective needs nodes, each with an id of its own")
    nodes = np.zeros((len(ids), state.CUSTOM_W), np.int64)
    nodes[:, [state.CUSTOM_ROW, state.CUSTOM_PEER]] = -1
    messages = []
    for i, k in enumerate(order.tolist()):
        where = f"{path}: node {trace.id[k]}"
        kind = int(trace.type[k])
        if kind == NodeType.COMP:
            nodes[i, state.CUSTOM_ACTION] = state.TIMER
            duration = int(trace.duration_us[k]) * 1000 or 1
            nodes[i, state.CUSTOM_ROW] = planner.rows.row(costs.FIXED, duration)
            continue
        if kind not in (NodeType.COMM_SEND, NodeType.COMM_RECV):
            raise TraceError(
                f"{where} has type {kind}; a custom collective holds SEND, RECV and COMP"
            )
        sends = kind == NodeType.COMM_SEND
        peer = int((trace.comm_dst if sends else trace.comm_src)[k])
        tag, size = int(trace.comm_tag[k]), int(trace.comm_size[k])
        if peer < 0 or tag < 0 or size <= 0:
            raise TraceError(
                f"{where} has peer {peer}, comm_tag {tag}, comm_size {size}; expected a position, a "
                "tag of 0 or more, and 1 byte or more"
            )
        messages.append((int(trace.id[k]), peer))
        nodes[i, state.CUSTOM_ACTION] = state.SEND if sends else state.RECV
        nodes[i, state.CUSTOM_PEER], nodes[i, state.CUSTOM_TAG] = peer, -1 - tag % NATIVE_TAGS
        nodes[i, state.CUSTOM_SIZE] = number = planner.size(size)
        if sends:
            everyone = np.arange(config.network.ranks)
            for offset in range(1, config.network.ranks):
                planner.use(number, everyone, np.roll(everyone, -offset))
    sources, targets = [], []
    for i, k in enumerate(order.tolist()):
        before = np.concatenate(
            [
                trace.data_dep[trace.data_ptr[k] : trace.data_ptr[k + 1]],
                trace.ctrl_dep[trace.ctrl_ptr[k] : trace.ctrl_ptr[k + 1]],
            ]
        )
        for dep in np.unique(before):
            place = int(np.searchsorted(ids, dep))
            if place >= len(ids) or ids[place] != dep:
                raise TraceError(
                    f"{path}: node {trace.id[k]} depends on node {dep}, which is not there"
                )
            sources.append(place)
            targets.append(i)
    edges = np.array(sources, np.int64), np.array(targets, np.int64)
    return nodes, *edges, CustomFile(path, tuple(messages))
