"""Trace files from messages, and their columns the slow way: protobuf and one Python loop.

It shares with the package the schema only, which a test holds against the `.proto`.
"""

import math
import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.protobuf_messages import length_prefix

NUMBERS = (
    "num_ops",
    "tensor_size",
    "comm_size",
    "comm_type",
    "comm_src",
    "comm_dst",
    "comm_tag",
    "tensor_loc",
)
COLUMNS = (
    "id",
    "type",
    "name",
    "data_deps",
    "ctrl_deps",
    "start_us",
    "duration_us",
    "is_cpu",
    *NUMBERS,
    "stream",
    "tid",
    "involved_dim",
    "involved_dims",
    "group",
)


def file_of(*nodes, metadata=b""):
    """The bytes of a trace file; nodes are messages or their bytes."""
    payloads = [n if isinstance(n, bytes) else n.SerializeToString() for n in nodes]
    records = payloads if metadata is None else [metadata, *payloads]
    return b"".join(length_prefix(len(record)) + record for record in records)


def attribute(name, kind, *found):
    """An attribute of a kind: the values of a list, or one value."""
    message = schema.AttributeProto(name=name)
    if kind.endswith("_list"):
        getattr(message, kind).SetInParent()
        getattr(message, kind).values.extend(found)
    else:
        setattr(message, kind, *found)
    return message


def node(*attributes, id=7, **fields):
    return schema.Node(id=id, attr=attributes, **fields)


def values(attribute: Any) -> list[Any]:
    """What an attribute holds, as a list; empty where its oneof is unset."""
    kind = attribute.WhichOneof("value")
    if kind is None:
        return []
    value = getattr(attribute, kind)
    return list(value.values) if kind.endswith("_list") else [value]


def number(attribute: Any) -> int | None:
    """The one whole number of an attribute, None for none; ValueError where it holds no such."""
    found = values(attribute)
    if not found:
        return None
    if len(found) > 1:
        raise ValueError("several")
    value = found[0]
    if isinstance(value, bytes):
        value = value.decode()
    if isinstance(value, str):
        match = re.fullmatch(r"([+-]?[0-9]+)(\.0*)?", value, re.ASCII)
        if not match:
            raise ValueError("no number")
        value = int(match[1])
    if isinstance(value, float):
        if not math.isfinite(value) or value != int(value):
            raise ValueError("not whole")
        value = int(value)
    if not -(2**63) <= value < 2**63:
        raise ValueError("too large")
    return int(value)


def row(node: Any) -> dict[str, Any]:
    """One node as a dict of `COLUMNS`; group as text or None."""
    out: dict[str, Any] = dict.fromkeys((*NUMBERS, "is_cpu", "stream", "tid", "involved_dim"), -1)
    out |= {"id": node.id, "type": node.type, "name": node.name, "involved_dims": 0}
    out |= {"data_deps": list(node.data_deps), "ctrl_deps": list(node.ctrl_deps)}
    out |= {"start_us": node.start_time_micros, "duration_us": node.duration_micros}
    groups = {"pg_name": None, "comm_group": None}
    for attribute in node.attr:
        name, found = attribute.name, values(attribute)
        if not found:
            continue
        if name == "involved_dim":
            out["involved_dim"] = sum(1 << d for d, flag in enumerate(found) if flag)
            out["involved_dims"] = len(found)
        elif name in groups and isinstance(found[0], str | bytes):
            text = found[0]
            groups[name] = text.decode() if isinstance(text, bytes) else text
        elif name in groups:
            groups[name] = str(number(attribute))
        elif name in ("stream", "tid"):
            out[name] = max(number(attribute), -1)
        elif name == "is_cpu_op":
            out["is_cpu"] = int(number(attribute) != 0)
        elif name in NUMBERS:
            out[name] = number(attribute)
    out["group"] = groups["pg_name"] or groups["comm_group"] or None
    return out


def rows(nodes: Iterable[Any]) -> list[dict[str, Any]]:
    return [row(node) for node in nodes]


def rows_of(trace: Any) -> list[dict[str, Any]]:
    """The same from a RankTrace."""
    columns = {name: getattr(trace, name).tolist() for name in COLUMNS if name in vars(trace)}
    columns["name"] = trace.names()
    for side in ("data", "ctrl"):
        ptr = getattr(trace, f"{side}_ptr").tolist()
        dep = getattr(trace, f"{side}_dep").tolist()
        columns[f"{side}_deps"] = [dep[a:b] for a, b in pairwise(ptr)]
    columns["group"] = [None if g < 0 else trace.group_names[g] for g in columns["group"]]
    assert columns.keys() == set(COLUMNS)
    return [dict(zip(columns, values)) for values in zip(*columns.values())]
