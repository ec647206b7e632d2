"""A workload that may be given away: what it costs stays, what it is called goes.

Names of nodes, groups and resources, node ids, tags, the source and the warnings are replaced; types, work, sizes,
recorded durations and dependencies stay, and with them the makespan on every design. New names keep the order of the
old ones, as collectives of a group pair up by sorted names, and new ids the order of the old ones, as ready nodes are
tried in ascending id. A key that leads back is returned beside the graph and is in none of the written files.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.vocabulary import COLLECTIVES, OPERATIONS, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Program

_RESOURCES = ("compute", "communication", "cpu", "stream", "thread", "host", "memory", "network")
"""First words of resource labels that say nothing but what kind of unit it is."""


@dataclass(frozen=True)
class Anonymised:
    """The graph without names, the key to it, and what can still be inferred.

    Attributes:
        graph: to be given away.
        key: new name to old name, for "names", "groups", "resources" and, by rank, "ids"; stays with the owner.
        report: a line for each thing that a reader of the graph can still tell.
    """

    graph: Graph
    key: dict[str, Any]
    report: tuple[str, ...]


def anonymise(graph: Graph, *, digits: int | None = None) -> Anonymised:
    """Take the names out of a graph.

    Args:
        graph: stays as it is.
        digits: round sizes, FLOP, bytes and recorded durations to so many significant digits, 1 to 15; without it
            they stay, and the makespan is exactly the same on every design. With it, within 0.5 * 10^(1 - digits) of
            each node's time.

    Raises:
        InputError: digits out of range.
    """
    if digits is not None and (isinstance(digits, bool) or not 1 <= digits <= 15):
        raise InputError(f"anonymise: digits: got {digits!r}, expected 1 to 15")
    known = sorted({name for labels in graph.labels for name in labels.names})
    width = len(str(len(known)))
    name_of = {old: f"n{k:0{width}}" for k, old in enumerate(known, 1)}
    tags = np.unique(np.concatenate([labels.tag for labels in graph.labels]))
    labels, ids = [], []
    for old in graph.labels:
        order = np.argsort(old.node_id, kind="stable")
        new_id = np.empty(len(order), np.uint64)
        new_id[order] = np.arange(1, len(order) + 1, dtype=np.uint64)
        labels.append(
            Labels(new_id, np.searchsorted(tags, old.tag), tuple(name_of[n] for n in old.names))
        )
        ids.append({str(new): int(was) for new, was in zip(new_id.tolist(), old.node_id.tolist())})
    group_of = {
        name: str(k) for k, name in enumerate(dict.fromkeys(n for n in graph.group_names if n), 1)
    }
    resource_of: dict[str, str] = {}
    programs = tuple(_unnamed(p, resource_of, digits) for p in graph.programs)
    result = replace(
        graph,
        programs=programs,
        labels=tuple(labels),
        group_names=tuple(group_of.get(name, "") for name in graph.group_names),
        source="anonymised",
        warnings=(),
        origin=None,
        recorded=replace(graph.recorded, name="", step="") if graph.recorded else None,
        step=None,  # its figures tell the model apart
    )
    key = {
        "source": graph.source,
        "names": {new: old for old, new in name_of.items()},
        "groups": {new: old for old, new in group_of.items()},
        "resources": {new: old for old, new in resource_of.items()},
        "tags": {str(k): int(t) for k, t in enumerate(tags)},
        "ids": {
            f"ranks {np.flatnonzero(graph.label == k).tolist()}": table
            for k, table in enumerate(ids)
        },
    }
    return Anonymised(result, key, tuple(_report(result, digits)))


def _unnamed(program: Program, known: dict[str, str], digits: int | None) -> Program:
    numbers: Counter[str] = Counter(new.split()[0] for new in known.values())
    for label in program.resources:
        if label not in known:
            word = label.split()[0].lower() if label.split() else "unit"
            word = word if word in _RESOURCES else "unit"
            known[label] = label if label in _RESOURCES else f"{word} {numbers[word]}"
            numbers[word] += 1
    resources = tuple(known[label] for label in program.resources)
    if digits is None:
        return replace(program, resources=resources)
    return replace(
        program,
        resources=resources,
        flops=_rounded(program.flops, digits),
        bytes=_rounded(program.bytes, digits),
        size=_rounded(program.size, digits),
        duration=_rounded(program.duration, digits),
    )


def _rounded(values: NDArray[Any], digits: int) -> NDArray[Any]:
    """To so many significant digits; 0, absent values and the type stay."""
    numbers = values.astype(float)
    some = np.isfinite(numbers) & (numbers > 0)
    power = np.floor(np.log10(np.where(some, numbers, 1.0))) - (digits - 1)
    with np.errstate(invalid="ignore"):
        step = 10.0**power
        near = np.rint(numbers / step) * step
    if values.dtype.kind == "i":
        near = np.rint(np.where(some, near, 0.0))
        return np.where(some, np.maximum(near, 1), values).astype(values.dtype)
    return np.where(some, near, values)


def _report(graph: Graph, digits: int | None) -> list[str]:
    """What a reader of the graph can still tell, with the figures that tell it."""
    sizes = Counter(len(set(g)) for k, g in enumerate(graph.groups) if _used(graph, k))
    lines = [
        f"{graph.ranks} ranks run {len(graph.programs)} different programs of {_span(map(len, graph.programs))} nodes"
    ]
    if sizes:
        text = ", ".join(f"{count} of {size} ranks" for size, count in sorted(sizes.items()))
        lines.append(f"communicator groups ({text}) tell the degrees of parallelism")
    reduced = max(
        (
            int(p.size[p.comm_type == COLLECTIVES.index("all_reduce")].clip(0).sum())
            for p in graph.programs
        ),
        default=0,
    )
    if reduced:
        lines.append(
            f"all-reduces of a rank add up to {reduced:,} B: with 2 B a gradient, at most {reduced // 2:,} parameters"
        )
    flops = max(float(p.flops.clip(0).sum()) for p in graph.programs)
    if flops:
        lines.append(
            f"the busiest rank computes {flops:.6g} FLOP a step: about 6 x parameters x tokens of a transformer"
        )
    repeats = max((_repeats(p) for p in graph.programs), default=1)
    if repeats > 1:
        lines.append(f"the same work comes back {repeats} times on a rank: layers or micro-batches")
    kinds = sorted({OPERATIONS[k] for p in graph.programs for k in np.unique(p.kind) if k > 0})
    if kinds:
        lines.append(
            f"kinds of operations ({', '.join(kinds)}) and their dimensions tell layer widths and head counts"
        )
    recorded = sum(int(np.isfinite(p.duration).sum()) for p in graph.programs)
    if recorded:
        device = graph.recorded.device if graph.recorded else ""
        lines.append(
            f"recorded durations ({recorded:,} nodes of the different programs) tell the device they ran on"
            + (f"; it is named, as other hardware is judged by it: {device}" if device else "")
        )
    messages = any((p.type == NodeType.COMM_SEND).any() for p in graph.programs)
    if messages:
        lines.append("sizes and peers of messages tell pipeline stages")
    lines.append(
        "sizes, FLOP and durations are exact"
        if digits is None
        else f"sizes, FLOP and durations have {digits} digits; dimensions are exact"
    )
    lines.append("names, module paths, shapes as text, node ids, tags and file names are not in it")
    return lines


def _used(graph: Graph, group: int) -> bool:
    return any((p.groups == group).any() for p in graph.programs)


def _repeats(program: Program) -> int:
    """How often the most frequent piece of work with FLOP comes."""
    counts = Counter(program.flops[program.flops > 0].tolist())
    return math.gcd(*counts.values()) if len(counts) > 1 else max(counts.values(), default=1)


def _span(numbers: Iterable[int]) -> str:
    found = sorted(numbers)
    return f"{found[0]:,}" if found[0] == found[-1] else f"{found[0]:,} to {found[-1]:,}"
