"""One rank's timeline as columns of nodes: names, work, collectives, edges in positions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch import host_time as host
from perfmodel.trace.pytorch.attribution import Attribution, attribute
from perfmodel.trace.pytorch.collectives import Collective, describe
from perfmodel.trace.pytorch.host_trace import HostTrace
from perfmodel.trace.pytorch.kineto import (
    ANNOTATION,
    KERNEL,
    MEMCPY,
    MEMSET,
    MODULE,
    OPERATOR,
    STEP,
    Device,
)
from perfmodel.trace.pytorch.nesting import paths
from perfmodel.trace.pytorch.operator_links import OperatorLinks
from perfmodel.trace.pytorch.timeline import RankTimeline

HIDDEN = ("record_param_comms", "autograd::engine::evaluate_function: ")
"""Operators that would only lengthen names."""


@dataclass(frozen=True, eq=False)
class RankNodes:
    """n nodes of one rank: host nodes, then GPU events, in no particular order.

    Attributes:
        timeline, attribution: where they come from.
        name: [n] hierarchical names, outer parts first, joined by slashes.
        resource: [n] labels ("thread 1", "stream 7"), as numbers into `resources`.
        start, end, duration: [n] recorded times after the window's start, and what is the node's own [s].
        collective: {node: what it is} of NCCL kernels and host collectives.
    """

    timeline: RankTimeline
    attribution: Attribution
    name: NDArray[np.object_]
    resource: NDArray[np.int32]
    resources: tuple[str, ...]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    duration: NDArray[np.float64]
    collective: dict[int, Collective] = field(default_factory=dict)

    @property
    def hosts(self) -> int:
        """Number of host nodes; they come first."""
        return len(self.timeline.host)

    def __len__(self) -> int:
        return len(self.name)


def rank_nodes(
    timeline: RankTimeline, trace: HostTrace | None, links: OperatorLinks | None
) -> RankNodes:
    """Name a rank's nodes and say what they do.

    Args:
        timeline: of one rank; trace, links: its host trace and how the two are joined, None without.
    """
    device, work, time = timeline.device, timeline.work, timeline.host
    node = links.node if links is not None else None
    attribution = attribute(device, work, timeline.parent, trace, node)
    path = _paths(device, timeline.parent)
    gpu_names = _short_names(device)[device.name[work.event]]
    outer = np.where(
        work.call >= 0, path[np.maximum(timeline.parent[np.maximum(work.call, 0)], 0)], ""
    )
    outer = np.where((work.call >= 0) & (timeline.parent[np.maximum(work.call, 0)] >= 0), outer, "")
    names = np.concatenate([_host_names(device, time, path), _join(outer, gpu_names)])
    base = timeline.window.start
    resource, resources = _resources(device, time.thread, work.stream)
    nodes = RankNodes(
        timeline=timeline,
        attribution=attribution,
        name=names,
        resource=resource,
        resources=resources,
        start=np.concatenate([time.start, work.start]) - base,
        end=np.concatenate([time.end, work.end]) - base,
        duration=np.concatenate([time.duration, work.end - work.start]),
    )
    _find_collectives(nodes, trace, node)
    return nodes


def _paths(device: Device, parent: NDArray[np.int64]) -> NDArray[np.object_]:
    """[n] the call stack of each event as a name."""
    words = np.array([_word(n) for n in device.names] or [""], object)
    module = np.array([n.startswith("nn.Module: ") for n in device.names], bool)
    hidden = np.array([n.startswith(HIDDEN) or bool(STEP.match(n)) for n in device.names], bool)
    chosen = np.isin(device.category, (OPERATOR, ANNOTATION)) & ~hidden[device.name]
    chosen |= (device.category == MODULE) & module[device.name]
    return paths(parent, words[device.name], chosen)


def _word(name: str) -> str:
    """One part of a hierarchical name."""
    return name.removeprefix("nn.Module: ").replace("/", "|").strip("# ") or "?"


def _short_names(device: Device) -> NDArray[np.object_]:
    """[names] kernels without return types, templates and arguments.

    "void at::native::vectorized_elementwise_kernel<4, ...>(int, ...)" becomes "vectorized_elementwise_kernel".
    """
    gpu = np.isin(device.category, (KERNEL, MEMCPY, MEMSET))
    short = np.array([_word(n) for n in device.names] or [""], object)
    for i in np.unique(device.name[gpu]).tolist():
        text = device.names[i].replace("(anonymous namespace)::", "")
        if not text.startswith(("Memcpy", "Memset")):
            text = (
                text.split("<")[0].split("(")[0].split()[-1].split("::")[-1]
                if text.split("<")[0].split("(")[0].split()
                else text
            )
        short[i] = _word(text)
    return short


def _join(outer: NDArray[Any], inner: NDArray[Any]) -> NDArray[np.object_]:
    slash = np.where((outer != "") & (inner != ""), "/", "").astype(object)
    names: NDArray[np.object_] = outer.astype(object) + slash + inner.astype(object)
    return names


def _host_names(device: Device, time: host.HostTime, path: NDArray[Any]) -> NDArray[np.object_]:
    """[h] the call stack of the operator in which a host node lies; "host" outside of any."""
    name = np.where(
        time.event >= 0, path[np.maximum(time.event, 0)] if len(path) else "", ""
    ).astype(object)
    name[name == ""] = "host"
    name[time.kind == host.BEGIN] = "start"
    blocks = np.flatnonzero(time.kind == host.COLLECTIVE)
    for i in blocks.tolist():  # size tells apart those that two threads may take in either order
        shape = device.args[time.event[i]].get("Input Dims", "")
        name[i] = f"{name[i]} {shape}".rstrip()
    return name


def _resources(
    device: Device, threads: NDArray[Any], streams: NDArray[Any]
) -> tuple[NDArray[np.int32], tuple[str, ...]]:
    """[n] resource of each node, and labels: threads are numbered in order of size, streams keep their numbers."""
    order = {int(t): i for i, t in enumerate(np.unique(threads))}
    labels = [f"thread {i + 1}" for i in range(len(order))]
    several = len({device.threads[s][0] for s in np.unique(streams).tolist()}) > 1
    place = dict(order)
    for s in np.unique(streams).tolist():
        gpu, number = device.threads[s]
        place[s] = len(labels)
        labels.append(f"stream {number}" + (f" of device {gpu}" if several else ""))
    used = np.concatenate([threads, streams]).astype(np.int64)
    return np.array([place[t] for t in used.tolist()], np.int32), tuple(labels)


def _find_collectives(nodes: RankNodes, trace: HostTrace | None, node: NDArray[Any] | None) -> None:
    """Fill in which nodes are collectives."""
    line = nodes.timeline
    device, work, time = line.device, line.work, line.host
    groups = {**(trace.process_groups if trace is not None else {}), **device.process_groups}
    names_of = trace.group_names if trace is not None else {}

    def arguments(event: int) -> dict[str, Any]:
        args = dict(device.args[event])
        if trace is not None and node is not None and node[event] >= 0:
            at = int(node[event])
            shapes, types, values = trace.inputs[at]
            extra = {k: v for k, v in trace.attributes[at].items() if v not in ("", None)}
            said = {"Input Dims": shapes, "Input type": types, "Concrete Inputs": values}
            args = {**extra, **said, **args}
        return args

    def enclosing(event: int) -> list[tuple[str, dict[str, Any]]]:
        found = []
        while event >= 0:
            found.append((device.names[device.name[event]], arguments(event)))
            event = int(line.parent[event])
        return found

    for k in np.flatnonzero(work.collective).tolist():
        event, call = int(work.event[k]), int(work.call[k])
        round_ = enclosing(int(line.parent[call])) if call >= 0 else []
        name = device.names[device.name[event]]
        nodes.collective[nodes.hosts + k] = describe(
            name, device.args[event], round_, groups, names_of
        )
    for i in np.flatnonzero(time.kind == host.COLLECTIVE).tolist():
        event = int(time.event[i])
        name = device.names[device.name[event]]
        nodes.collective[i] = describe(name, {}, enclosing(event), groups, names_of)
