"""A host execution trace (ET) of PyTorch as columns: operators with shapes and types, without times.

`torch.profiler.ExecutionTraceObserver` writes one JSON record with a list of nodes. Schema 1.0.1 and before keep
everything in the node itself (`parent`, `rf_id`, `input_shapes`); from 1.0.2 on a node has `ctrl_deps`, `inputs`,
`outputs` and a list of attributes. Both become the same columns; they are told apart node by node.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError

ROOTS = ("[pytorch|profiler|execution_", "## process_group:init ##")
"""How names begin that stand for no operator: the process, its threads, the list of process groups."""

MOST_RANKS = 1 << 20
"""More ranks than this are no group size but damage."""


@dataclass(frozen=True, eq=False)
class HostTrace:
    """One rank's host trace: n operators and annotations in the file's order.

    Attributes:
        path, schema: of the file.
        id, parent, record, thread: [n] i64: node id, the enclosing node's, "rf_id", number of the thread.
        names: [n] of the operators.
        operator: [n] bool, stands for an operator or annotation (not for the process, a thread or the groups).
        inputs, outputs: n triples (shapes, types, values) each, as the file has them.
        attributes: n records of what else newer schemas say (collective_name, pg_name, dtype, ...).
        process_groups: {name: ranks}; no ranks: all.
        group_names: {number that stands for a group: its name}, in older traces.
    """

    path: str
    schema: str
    id: NDArray[np.int64]
    parent: NDArray[np.int64]
    record: NDArray[np.int64]
    thread: NDArray[np.int64]
    names: Sequence[str]
    operator: NDArray[np.bool_]
    inputs: Sequence[tuple[list[Any], list[Any], list[Any]]]
    outputs: Sequence[tuple[list[Any], list[Any], list[Any]]]
    attributes: Sequence[Mapping[str, Any]]
    process_groups: Mapping[str, tuple[int, ...]]
    group_names: Mapping[str, str]

    def __len__(self) -> int:
        return len(self.id)


def host_trace(document: Any, path: str) -> HostTrace:
    """Columns from a parsed host execution trace.

    Raises:
        TraceError: no list of nodes, or a node without id and name.
    """
    nodes = document.get("nodes") if isinstance(document, dict) else None
    if not isinstance(nodes, list) or not all(isinstance(n, dict) for n in nodes):
        raise TraceError(
            f'{path}: "nodes" is no list of records. Expected a trace of ExecutionTraceObserver.'
        )
    if not nodes:
        raise TraceError(f"{path}: has no nodes. Record it again.")
    attributes = [_attributes(n) for n in nodes]
    names = [str(n.get("name", "")) for n in nodes]
    try:
        ids = np.array([n["id"] for n in nodes], np.int64)
        parent = np.array([n.get("ctrl_deps", n.get("parent", -1)) for n in nodes], np.int64)
        record = np.array([a.get("rf_id", -1) for a in attributes], np.int64)
        thread = np.array([a.get("tid", -1) for a in attributes], np.int64)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise TraceError(
            f"{path}: a node's id, ctrl_deps (or parent), rf_id or tid is missing or no whole number ({error!r})."
        ) from error
    groups, group_names = _process_groups(nodes, names)
    return HostTrace(
        path=path,
        schema=str(document.get("schema", "")),
        id=ids,
        parent=parent,
        record=record,
        thread=thread,
        names=names,
        operator=np.array([not name.startswith(ROOTS) for name in names], bool),
        inputs=[_values(n, "input") for n in nodes],
        outputs=[_values(n, "output") for n in nodes],
        attributes=attributes,
        process_groups=groups,
        group_names=group_names,
    )


def _attributes(node: dict[str, Any]) -> Mapping[str, Any]:
    """What a node says beside its inputs and outputs; schema 1.0.1 has it in the node itself."""
    listed = node.get("attrs")
    if not isinstance(listed, list):
        return node
    named = (a for a in listed if isinstance(a, dict) and isinstance(a.get("name"), str))
    return {a["name"]: a.get("value") for a in named}


def _values(node: dict[str, Any], side: str) -> tuple[list[Any], list[Any], list[Any]]:
    """(shapes, types, values) of a node's inputs or outputs."""
    held = node.get(f"{side}s")
    if isinstance(held, dict):
        found = (held.get("shapes"), held.get("types"), held.get("values"))
    else:
        found = (node.get(f"{side}_shapes"), node.get(f"{side}_types"), held)
    return tuple(v if isinstance(v, list) else [] for v in found)  # type: ignore[return-value]


def _process_groups(
    nodes: list[Any], names: list[str]
) -> tuple[dict[str, tuple[int, ...]], dict[str, str]]:
    """{name: ranks} and {number: name} of the nodes that list the process groups."""
    groups: dict[str, tuple[int, ...]] = {}
    numbers: dict[str, str] = {}
    for node, name in zip(nodes, names):
        for text in _values(node, "input")[2] if name == ROOTS[1] else ():
            for entry in _entries(text):
                ranks, size = entry.get("ranks", ()), entry.get("group_size", 0)
                members = ranks.values() if isinstance(ranks, dict) else ranks
                listed = [r for r in members or () if isinstance(r, int)]
                every = range(size) if isinstance(size, int) and 0 < size <= MOST_RANKS else ()
                group = str(entry.get("pg_name", ""))
                groups[group] = tuple(listed) or tuple(every)
                if "backend_id" in entry:
                    numbers[str(entry["backend_id"])] = group
    return groups, numbers


def _entries(text: Any) -> list[dict[str, Any]]:
    """The records of a JSON text; none where it is something else."""
    try:
        found = json.loads(text)
    except (TypeError, ValueError, RecursionError):
        return []
    return [e for e in found if isinstance(e, dict)] if isinstance(found, list) else []
