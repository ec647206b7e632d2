"""Small workloads for the tests of ASTRA mode, written as lists of nodes."""

from __future__ import annotations

from typing import Any

import numpy as np

from perfmodel.astra import Lowered, lower, read_config
from perfmodel.astra.flat_nodes import FlatNodes

COLUMNS = {
    "node_id": (np.uint64, 0),
    "type": (np.int8, 4),
    "is_cpu": (np.bool_, False),
    "num_ops": (np.int64, -1),
    "tensor_size": (np.int64, -1),
    "duration_us": (np.int64, 0),
    "comm_type": (np.int32, -1),
    "comm_size": (np.int64, -1),
    "group": (np.int32, 0),
    "peer": (np.int32, -1),
    "tag": (np.int64, -1),
    "involved": (np.int32, -1),
}

SYSTEM = {
    "preferred-dataset-splits": 1,
    "local-mem-bw": 50,
    "peak-perf": 1,
    "roofline-enabled": 1,
    "collective-optimization": "localBWAware",
    **{
        f"{key}-implementation": ["ring"]
        for key in ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    },
}

Node = dict[str, Any]


def compute(node: int, microseconds: float, *deps: int, **more: Any) -> Node:
    """A compute node of so many microseconds at the peak of `SYSTEM` (1 TFLOP/s)."""
    return {
        "node_id": node,
        "num_ops": int(microseconds * 1e6),
        "tensor_size": 1,
        "deps": deps,
        **more,
    }


def collective(node: int, kind: int, size: int, *deps: int, **more: Any) -> Node:
    """A collective by its number: all-reduce 0, all-gather 2, all-to-all 6, reduce-scatter 7."""
    return {"node_id": node, "type": 7, "comm_type": kind, "comm_size": size, "deps": deps, **more}


def send(node: int, peer: int, size: int, *deps: int, tag: int = 0) -> Node:
    return {"node_id": node, "type": 5, "comm_size": size, "peer": peer, "tag": tag, "deps": deps}


def receive(node: int, peer: int, size: int, *deps: int, tag: int = 0) -> Node:
    return {"node_id": node, "type": 6, "comm_size": size, "peer": peer, "tag": tag, "deps": deps}


def workload(
    ranks: list[list[Node]], groups: dict[str, tuple[int, ...]] | None = None
) -> FlatNodes:
    """Nodes by rank, dependencies by node id, as the arrays that ASTRA mode takes."""
    values: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    rank, pred, pred_ptr = [], [], [0]
    for number, nodes in enumerate(ranks):
        row = {node["node_id"]: len(rank) + i for i, node in enumerate(nodes)}
        for node in nodes:
            rank.append(number)
            for name, (_, default) in COLUMNS.items():
                values[name].append(node.get(name, default))
            pred += [row[dep] for dep in node.get("deps", ())]
            pred_ptr.append(len(pred))
    named = groups or {}
    return FlatNodes(
        ranks=len(ranks),
        rank=np.array(rank, np.int32),
        pred_ptr=np.array(pred_ptr, np.int64),
        pred=np.array(pred, np.int32),
        groups=(tuple(range(len(ranks))), *named.values()),
        group_names=("0", *named),
        names=[],
        **{name: np.array(values[name], dtype) for name, (dtype, _) in COLUMNS.items()},
    )


def network(*dimensions: tuple[str, int], bandwidth: float = 50.0, latency: float = 500.0):
    """A network YAML as a mapping."""
    return {
        "topology": [name for name, _ in dimensions],
        "npus_count": [size for _, size in dimensions],
        "bandwidth": [bandwidth * (k + 1) for k in range(len(dimensions))],
        "latency": [latency + 10 * k for k in range(len(dimensions))],
    }


def prepare(
    ranks: list[list[Node]],
    *dimensions: tuple[str, int],
    groups: dict[str, tuple[int, ...]] | None = None,
    backend: str = "unaware",
    memory: dict[str, Any] | None = None,
    queues: int = 1,
    rendezvous: bool = False,
    **system: Any,
) -> Lowered:
    """A workload on a network, with keys of `SYSTEM` replaced (_ for -)."""
    data = SYSTEM | {key.replace("_", "-"): value for key, value in system.items()}
    made = network(*(dimensions or (("Ring", len(ranks)),)))
    config = read_config(data, made, memory, backend=backend, queues=queues, rendezvous=rendezvous)
    return lower(workload(ranks, groups), config)


def implementation(*names: str) -> dict[str, list[str]]:
    """The same algorithms for all collectives."""
    keys = ("all-reduce", "all-gather", "reduce-scatter", "all-to-all")
    return {f"{key}-implementation": list(names) for key in keys}
