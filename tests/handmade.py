"""Small traces written out by hand, for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.trace import chakra
from perfmodel.vocabulary import COLLECTIVES, NodeType

DEFAULTS: dict[str, Any] = {
    "num_ops": -1,
    "tensor_size": -1,
    "comm_size": -1,
    "comm_type": -1,
    "comm_src": -1,
    "comm_dst": -1,
    "comm_tag": -1,
    "stream": -1,
    "tid": -1,
    "is_cpu": -1,
    "involved_dim": -1,
    "involved_dims": 0,
}


def comp(flops: int = 10**9, size: int = 10**6, **more: Any) -> dict:
    """A compute node with work."""
    return {"type": NodeType.COMP, "num_ops": flops, "tensor_size": size, **more}


def coll(kind: str = "all_reduce", size: int = 2**20, **more: Any) -> dict:
    """A collective."""
    return {
        "type": NodeType.COMM_COLL,
        "comm_type": COLLECTIVES.index(kind),
        "comm_size": size,
        **more,
    }


def send(to: int, size: int = 2**20, tag: int = 0, **more: Any) -> dict:
    """A message out."""
    return {"type": NodeType.COMM_SEND, "comm_dst": to, "comm_size": size, "comm_tag": tag, **more}


def recv(source: int, size: int = 2**20, tag: int = 0, **more: Any) -> dict:
    """A message in."""
    return {
        "type": NodeType.COMM_RECV,
        "comm_src": source,
        "comm_size": size,
        "comm_tag": tag,
        **more,
    }


def write(
    folder: Path, ranks: list[list[dict]], groups: dict[str, list[int]] | None = None
) -> Path:
    """Files `t.<rank>.et` from node dictionaries: attributes, and deps, ctrl, id, name, group, duration."""
    folder.mkdir(parents=True, exist_ok=True)
    for rank, nodes in enumerate(ranks):
        columns: dict[str, Any] = {
            key: [n.get(key, value) for n in nodes] for key, value in DEFAULTS.items()
        }
        names = [n.get("name", f"node{k}") for k, n in enumerate(nodes)]
        group_names = sorted({n["group"] for n in nodes if "group" in n})
        trace = chakra.build(
            names,
            [int(n["type"]) for n in nodes],
            id=[n.get("id", k) for k, n in enumerate(nodes)],
            data_deps=_links([n.get("deps", []) for n in nodes]),
            ctrl_deps=_links([n.get("ctrl", []) for n in nodes]),
            duration_us=[n.get("duration", 0) for n in nodes],
            start_us=[n.get("start", 0) for n in nodes],
            group=[group_names.index(n["group"]) if "group" in n else -1 for n in nodes],
            group_names=group_names,
            **columns,
        )
        (folder / f"t.{rank}.et").write_bytes(chakra.encode(trace))
    if groups:
        (folder / "comm_groups.json").write_text(json.dumps(groups))
    return folder


def _links(lists: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    ptr = np.concatenate([[0], np.cumsum([len(x) for x in lists])])
    return ptr, np.array([i for x in lists for i in x], np.uint64)
