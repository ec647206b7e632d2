"""Chakra traces as JSON: four forms in, one out.

| form | written by | shape |
| --- | --- | --- |
| jsonizer | chakra_jsonizer | protobuf's JSON of the metadata and of each node, one object after the other |
| document | this package | `{"format": "chakra", "metadata": {...}, "nodes": [...]}` of the same objects |
| feeder | Chakra's feeder v1 reads it | `{"workload_graph": [{"Id": 1, "NodeType": 4, "runtime": 5, ...}]}` |
| STAGE | STAGE's JSON back end | `{"nodes": [{"id": 1, "node_type": "comp_node", "num_ops": ...}]}` |

Each is turned into the bytes of an .et file, so that everything else reads one format. In protobuf's JSON names are in
lowerCamelCase, 64-bit numbers are texts and numbers that are 0 are left out.

Source: protobuf.dev, "ProtoJSON Format"; mlcommons/chakra, src/feeder/JSON and src/jsonizer; astra-sim/stage.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from google.protobuf import json_format

from perfmodel.errors import TraceError
from perfmodel.json_text import check_held
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.rank_trace import COLLECTIVES

FORMAT = "chakra"
_NODE_KEYS = frozenset(
    ("id", "name", "type", "ctrlDeps", "dataDeps", "durationMicros", "startTimeMicros", "attr")
)
_STAGE_TYPES = {
    "invalid_node": 0,
    "metadata_node": 1,
    "mem_load_node": 2,
    "mem_store_node": 3,
    "comp_node": 4,
    "comm_send_node": 5,
    "comm_recv_node": 6,
    "coll_comm_node": 7,
    "comm_coll_node": 7,
}
_KINDS = {
    "is_cpu_op": "bool_val",
    "num_ops": "int64_val",
    "tensor_size": "uint64_val",
    "comm_size": "int64_val",
    "comm_type": "int64_val",
    "comm_priority": "int32_val",
    "comm_src": "int32_val",
    "comm_dst": "int32_val",
    "comm_tag": "int32_val",
}
_EXPECTED = (
    "Expected a Chakra trace as JSON: chakra_jsonizer's text, feeder JSON (workload_graph), STAGE's JSON (nodes with"
    " node_type), or a document of this package."
)


def to_records(data: bytes, source: str) -> tuple[list[bytes], str] | None:
    """The messages of a JSON file (metadata first, then the nodes, serialised) and the form it is in.

    None for JSON that is no Chakra trace.

    Raises:
        TraceError: the JSON is cut or damaged, or a value is not what its key asks for.
    """
    values = _values(data, source)
    first = next(values)
    if isinstance(first, dict):
        if isinstance(first.get("workload_graph"), list):
            return [
                _metadata("feeder JSON"),
                *_nodes(first["workload_graph"], _feeder, source),
            ], "feeder JSON"
        nodes = first.get("nodes")
        if first.get("format") == FORMAT and isinstance(nodes, list):
            head = _parse(schema.GlobalMetadata, first.get("metadata") or {}, f"{source}: metadata")
            return [head.SerializeToString(), *_nodes(nodes, _proto, source)], "a JSON document"
        if (
            isinstance(nodes, list)
            and nodes
            and isinstance(nodes[0], dict)
            and "node_type" in nodes[0]
        ):
            return [
                _metadata("STAGE JSON", stage=True),
                *_nodes(nodes, _stage, source),
            ], "STAGE's JSON"
        if _is_message(first):
            return _jsonizer(first, values, source), "chakra_jsonizer's text"
    return None


def document(metadata: Any | None, nodes: Iterable[Any]) -> str:
    """A trace's messages as one JSON document (see `to_records`), a line for each node."""
    head = json_format.MessageToDict(metadata) if metadata is not None else {}
    lines = ",\n".join(json.dumps(json_format.MessageToDict(node)) for node in nodes)
    return f'{{"format": "{FORMAT}", "metadata": {json.dumps(head)}, "nodes": [\n{lines}\n]}}\n'


def _values(data: bytes, source: str) -> Iterator[Any]:
    """The JSON values that stand one after the other in a file."""
    check_held(data, source, kind=TraceError)
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TraceError(f"{source}: byte {error.start}: is no UTF-8 text. {_EXPECTED}") from error
    decode, pos, end = json.JSONDecoder().raw_decode, 0, len(text)
    while True:
        while pos < end and text[pos] in " \t\r\n,":
            pos += 1
        if pos >= end:
            return
        try:
            value, pos = decode(text, pos)
        except json.JSONDecodeError as error:
            raise TraceError(
                f"{source}: line {error.lineno}, column {error.colno}: is no JSON ({error.msg})."
                " The file is damaged or cut off: copy it again."
            ) from error
        except (ValueError, RecursionError) as error:
            raise TraceError(
                f"{source}: is no JSON that can be read ({error}). {_EXPECTED}"
            ) from error
        yield value


def _is_message(value: dict[str, Any]) -> bool:
    """Whether an object can be the first of chakra_jsonizer's: metadata, or a node."""
    return bool(_NODE_KEYS & value.keys()) or bool(value.keys() & {"version"}) or value == {}


def _jsonizer(first: dict[str, Any], rest: Iterator[Any], source: str) -> list[bytes]:
    is_node = bool(_NODE_KEYS - {"attr"} & first.keys())
    found = (
        []
        if is_node
        else [_parse(schema.GlobalMetadata, first, f"{source}: object 1").SerializeToString()]
    )
    if is_node:
        found += [
            _metadata("chakra_jsonizer"),
            _proto(first, f"{source}: object 1").SerializeToString(),
        ]
    for k, value in enumerate(rest, 2):
        found.append(_proto(value, f"{source}: object {k}").SerializeToString())
    return found


def _nodes(values: list[Any], build: Callable[[Any, str], Any], source: str) -> Iterator[bytes]:
    for k, value in enumerate(values):
        where = f"{source}: node {k + 1} of the list"
        if not isinstance(value, dict):
            raise TraceError(f"{where}: is {_short(value)}, expected an object. {_EXPECTED}")
        try:
            yield build(value, where).SerializeToString()
        except TraceError:
            raise
        except (TypeError, ValueError, OverflowError) as error:
            raise TraceError(f"{where}: {error}. Correct the program that wrote it.") from error


def _proto(value: Any, where: str) -> Any:
    return _parse(schema.Node, value, where)


def _parse(kind: Any, value: Any, where: str) -> Any:
    if not isinstance(value, dict):
        raise TraceError(f"{where}: is {_short(value)}, expected an object. {_EXPECTED}")
    try:
        return json_format.ParseDict(value, kind())
    except (json_format.ParseError, ValueError, TypeError, RecursionError, AttributeError) as error:
        raise TraceError(
            f"{where}: is no {kind.DESCRIPTOR.name} in protobuf's JSON ({_short(str(error), 160)})."
            " The file is damaged or of an unknown schema."
        ) from error


def _metadata(form: str, *, stage: bool = False) -> bytes:
    head = schema.GlobalMetadata()
    if stage:
        head.attr.add(name="schema", string_val="symbolic_tensor_network")
    head.attr.add(name="converted_from", string_val=form)
    payload: bytes = head.SerializeToString()
    return payload


def _feeder(value: dict[str, Any], where: str) -> Any:
    """A node of feeder JSON; `ctrlDeps`, which the feeder passes over, are kept."""
    node = schema.Node(id=_whole(value, "Id", where), name=_text(value.get("Name", "")))
    node.type = _whole(value, "NodeType", where)
    node.data_deps.extend(_ids(value, "data_deps", where))
    node.ctrl_deps.extend(_ids(value, "ctrlDeps", where))
    if value.get("runtime") is not None:
        node.duration_micros = _whole(value, "runtime", where)
    _attributes(node, value, where)
    return node


def _stage(value: dict[str, Any], where: str) -> Any:
    """A node of STAGE's JSON."""
    word = str(value.get("node_type")).lower()
    if word not in _STAGE_TYPES:
        raise TraceError(
            f"{where}: node_type is {_short(word)}, expected one of {', '.join(_STAGE_TYPES)}."
        )
    node = schema.Node(
        id=_whole(value, "id", where), name=_text(value.get("name", "")), type=_STAGE_TYPES[word]
    )
    node.data_deps.extend(_ids(value, "data_deps", where))
    node.ctrl_deps.extend(_ids(value, "ctrl_deps", where))
    given = {k: v for k, v in value.items() if v is not None}
    if isinstance(given.get("comm_type"), str):
        name = given["comm_type"].upper()
        if name not in COLLECTIVES:
            raise TraceError(
                f"{where}: comm_type is {_short(name)}, expected one of {', '.join(COLLECTIVES)}."
            )
        given["comm_type"] = COLLECTIVES.index(name)
    if "tensor_size" not in given and "y_tensor_size" in given:
        given["tensor_size"] = given["y_tensor_size"]
    _attributes(node, given, where)
    if given.get("comm_group") not in (None, ""):
        node.attr.add(name="pg_name", string_val=_text(given["comm_group"]))
    if isinstance(given.get("op_type"), str):
        node.attr.add(name="op_type", string_val=given["op_type"])
    for side in ("inputs", "outputs"):
        if isinstance(given.get(side), list):
            texts = [
                _text(t)
                for pair in given[side]
                for t in (pair if isinstance(pair, list) else [pair])
            ]
            node.attr.add(name=side).string_list.values.extend(texts)
    return node


def _attributes(node: Any, value: dict[str, Any], where: str) -> None:
    for name, kind in _KINDS.items():
        if value.get(name) is None:
            continue
        if kind == "bool_val":
            node.attr.add(name=name, bool_val=bool(value[name]))
        else:
            node.attr.add(name=name, **{kind: _whole(value, name, where)})


def _whole(value: dict[str, Any], key: str, where: str) -> int:
    number = value.get(key, 0 if key in ("Id", "id") else None)
    if isinstance(number, str) and number.strip().lstrip("-").isdigit() and len(number) < 32:
        number = int(number)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise TraceError(f"{where}: {key} is {_short(number)}, expected a whole number from 0 on.")
    return number


def _ids(value: dict[str, Any], key: str, where: str) -> list[int]:
    ids = value.get(key) or []
    if not isinstance(ids, list) or not all(type(i) is int and 0 <= i < 2**64 for i in ids):
        raise TraceError(f"{where}: {key} is {_short(ids)}, expected a list of node ids.")
    return ids


def _text(value: Any) -> str:
    return value if isinstance(value, str) else str(value)


def _short(value: Any, most: int = 60) -> str:
    text = value if isinstance(value, str) else repr(value)
    text = " ".join(text.split())
    return text if len(text) <= most else text[: most - 3] + "..."
