"""A host execution trace without times as work: what its operators compute, in the order in which they were called.

There is no Kineto trace that says when anything ran, so nothing is replayed. The innermost operators whose work is
known run one after the other on one stream, collectives on another; a collective waits for the operator before it,
and what is called after its `wait` waits for it (first in, first out). That is the step as a model would run it on an
accelerator that the host never holds up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace.pytorch.collectives import SEND_RECV, UNKNOWN, Collective, describe
from perfmodel.trace.pytorch.host_trace import HostTrace
from perfmodel.trace.pytorch.memory_changes import in_order_of_calls
from perfmodel.trace.pytorch.operators import OperatorWork, work_of
from perfmodel.trace.pytorch.waits import first_in_first_out
from perfmodel.vocabulary import NodeType

ISSUING = ("nccl:", "gloo:", "mpi:")
DEEPEST = 64
"""Calls in each other that a name shows."""

RESOURCES = ("stream compute", "stream communication")


def host_work(trace: HostTrace) -> dict[str, Any]:
    """The columns of one rank, as `read.Recording.ranks` has them, without times."""
    order = np.lexsort((trace.id, trace.record))
    place = {int(n): i for i, n in enumerate(trace.id.tolist())}
    parent = np.array([place.get(p, -1) for p in trace.parent.tolist()], np.int64)
    parent[parent == np.arange(len(parent))] = -1  # the root names itself
    work = _innermost(trace, parent)
    issued, waits = _communication(trace, parent)
    chosen = [i for i in order.tolist() if work[i] is not None or i in issued]
    n = len(chosen)
    collective = np.array([i in issued for i in chosen], bool)
    called = np.searchsorted(trace.record[order], trace.record[chosen]) if n else np.zeros(0)
    waited = np.searchsorted(trace.record[order], trace.record[sorted(waits)])
    kinds = [issued.get(i) for i in chosen]
    names = sorted({c.group or "world" for c in issued.values()})
    works = [None if i in issued else work[i] for i in chosen]
    edges = _edges(collective, np.asarray(called, float), np.asarray(waited, float))
    return {
        "id": np.array([trace.id[i] for i in chosen], np.uint64),
        "type": np.where(collective, int(NodeType.COMM_COLL), int(NodeType.COMP)).astype(np.int8),
        "name": tuple(_name(trace, parent, i) for i in chosen),
        "host": np.zeros(n, bool),
        "flops": np.array([w.flops if w else -1 for w in works], np.int64),
        "bytes": np.array([w.bytes if w else -1 for w in works], np.int64),
        "work": tuple(works),
        "duration": np.full(n, np.nan),
        "start": np.full(n, np.nan),
        "comm_type": np.array([c.kind if c else -1 for c in kinds], np.int32),
        "size": np.array([c.size if c else -1 for c in kinds], np.int64),
        "group": np.array([names.index(c.group or "world") if c else -1 for c in kinds], np.int32),
        "group_names": tuple(names),
        "resource": collective.astype(np.int32),
        "resources": RESOURCES,
        "edge_from": edges[0],
        "edge_to": edges[1],
        "edge_latency": np.zeros(len(edges[0])),
        "held": in_order_of_calls(trace, chosen),
    }


def members(trace: HostTrace) -> dict[str, tuple[int, ...]]:
    """Ranks by name of the communicators that the trace lists."""
    return {name: ranks for name, ranks in trace.process_groups.items() if ranks}


def _innermost(trace: HostTrace, parent: NDArray[np.int64]) -> list[OperatorWork | None]:
    """[n] work of the operators that hold no operator of known work; equal calls are looked at once."""
    seen: dict[Any, OperatorWork | None] = {}
    work: list[OperatorWork | None] = []
    for name, (shapes, types, values), (out_shapes, out_types, _) in zip(
        trace.names, trace.inputs, trace.outputs
    ):
        key = (name, repr((shapes, types, values if "conv" in name or "attention" in name else ())))
        if key not in seen:
            seen[key] = work_of(
                name, shapes, types, values, output_shapes=out_shapes, output_types=out_types
            )
        work.append(seen[key])
    outer = np.zeros(len(trace), bool)
    above = np.unique(parent[[i for i, w in enumerate(work) if w is not None]])
    while len(above := above[(above >= 0) & ~outer[above]]):  # damaged files may have circles
        outer[above] = True
        above = np.unique(parent[above])
    return [None if covered else w for w, covered in zip(work, outer.tolist())]


def _communication(
    trace: HostTrace, parent: NDArray[np.int64]
) -> tuple[dict[int, Collective], list[int]]:
    """{node: collective} of the calls that issue one, and the nodes that wait for one."""
    issued: dict[int, Collective] = {}
    holders = set()

    def said(i: int) -> dict[str, Any]:
        shapes, types, values = trace.inputs[i]
        extra = {k: v for k, v in trace.attributes[i].items() if v not in ("", None)}
        return {**extra, "Input Dims": shapes, "Input type": types, "Concrete Inputs": values}

    for i, name in enumerate(trace.names):
        if name.startswith(ISSUING):
            round_ = [(name, said(i))]
            if parent[i] >= 0:
                round_.append((trace.names[parent[i]], said(int(parent[i]))))
                holders.add(int(parent[i]))
            what = describe(name, {}, round_, trace.process_groups, trace.group_names)
            if what.kind not in (SEND_RECV, UNKNOWN) and what.size >= 0:
                issued[i] = what
    waits = [
        i for i, name in enumerate(trace.names) if name == "record_param_comms" and i not in holders
    ]
    return issued, waits


def _edges(
    collective: NDArray[np.bool_], called: NDArray[Any], waited: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """From, to: order on both streams, collectives after compute, compute after the waits for collectives."""
    compute, issue = np.flatnonzero(~collective), np.flatnonzero(collective)
    pairs = [(compute[:-1], compute[1:]), (issue[:-1], issue[1:])]
    before = np.searchsorted(compute, issue) - 1
    pairs.append((compute[before[before >= 0]], issue[before >= 0]))
    taken = first_in_first_out(called[issue], waited)
    source, moment = issue[taken[taken >= 0]], waited[taken >= 0]
    after = np.searchsorted(called[compute], moment)
    fits = after < len(compute)
    pairs.append((source[fits], compute[after[fits]]))
    return tuple(np.concatenate([p[k] for p in pairs]).astype(np.int64) for k in (0, 1))  # type: ignore[return-value]


def _name(trace: HostTrace, parent: NDArray[np.int64], node: int) -> str:
    """The call stack as a name."""
    parts: list[str] = []
    for _ in range(DEEPEST):
        if node < 0:
            break
        if trace.operator[node] and trace.names[node] != "record_param_comms":
            parts.append(trace.names[node].replace("/", "|").strip("# "))
        node = int(parent[node])
    return "/".join(reversed(parts))
