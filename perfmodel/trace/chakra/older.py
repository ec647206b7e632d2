"""Chakra's wire formats of 2023, written anew in today's.

Three layouts came before the current one (0.0.4 = 1.0.0):

- v0.0.1 (January to June 2023, .eg): flat nodes; dependencies, work and communication are fields of
  the Node, node types begin at MEM_LOAD = 1;
- v0.0.2 (June, July): attributes with a type number and a field per type; types as in v0.0.1;
- v0.0.3 (July to October): METADATA = 1 among the types, booleans among the attributes, from
  5 August on unsigned numbers too; a metadata record from 2 August on.

All three have one list of dependencies, `parent`, which becomes data_deps. A run time is taken as
microseconds, as the field is called since: the schemas say no unit.

Source: the history of mlcommons/chakra's et_def.proto (df405e8, 2719463, 9d917e3, 7bab792).
"""

import struct
from collections.abc import Iterator
from typing import Any

from perfmodel.errors import TraceError
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.wire import (
    FIXED32,
    LENGTH,
    VARINT,
    address,
    fields,
    length_prefix,
    varint,
)

V0_0_1, V0_0_2, V0_0_3A, V0_0_3B = "v0.0.1", "v0.0.2", "v0.0.3", "v0.0.3 with unsigned numbers"

# Today's number of each old one: node types and collectives before METADATA and REDUCE came in.
_TYPES = {0: 0, 1: 2, 2: 3, 3: 4, 4: 5, 5: 6, 6: 7}
_COLLECTIVES_FLAT = {1: 0, 2: 6, 3: 2, 4: 7}  # v0.0.1, where 0 says nothing
_COLLECTIVES = {0: 0, 1: 6, 2: 2, 3: 7, 4: 5}

# Kind of value of each attribute type, by version; the value stands in field type + 4.
_KINDS = {
    V0_0_2: ("float", "int", "text", "floats", "ints", "texts"),
    V0_0_3A: ("bool", "float", "int", "text", "bools", "floats", "ints", "texts"),
    V0_0_3B: (
        "bool",
        "float",
        "uint",
        "int",
        "text",
        "bools",
        "floats",
        "uints",
        "ints",
        "texts",
    ),
}
_TARGET = {
    "bool": "bool_val",
    "float": "float_val",
    "int": "int64_val",
    "uint": "uint64_val",
    "text": "string_val",
    "bools": "bool_list",
    "floats": "float_list",
    "ints": "int64_list",
    "uints": "uint64_list",
    "texts": "string_list",
}
_RUN_TIMES = ("runtime", "simulated_run_time", "runtime_micros")
_LARGEST_ENUM = 2**31 - 1


def version_of(data: bytes, start: int, *, flat: bool) -> str:
    """Which of the old layouts the records from `start` on are in; `flat`: v0.0.1 is known.

    v0.0.2 and v0.0.3 differ in what an attribute's type number means: type 1 is a whole number in
    v0.0.2 and a float later, type 2 a text and later a whole number, type 3 a text in early v0.0.3
    and a whole number after.
    """
    if flat:
        return V0_0_1
    for payload_start, payload_end in _records(data, start):
        for field, wire, a, b in fields(data, payload_start, payload_end):
            if field != 11 or wire != LENGTH:
                continue
            kind, value_wire = 0, -1
            for number, inner, p, _ in fields(data, a, b):
                if number == 2 and inner == VARINT:
                    kind = int(varint(address(data), p, b)[0])
                elif number >= 4:
                    value_wire = inner
            verdict = {
                (1, VARINT): V0_0_2,
                (2, LENGTH): V0_0_2,
                (3, VARINT): V0_0_3B,
                (3, LENGTH): V0_0_3A,
                (4, VARINT): V0_0_2,
            }.get((kind, value_wire))
            if verdict:
                return verdict
    return V0_0_3A


def convert(data: bytes, start: int, version: str, metadata: bytes | None, source: str) -> bytes:
    """The file in today's layout, with a metadata record that names the version it came in.

    start: where the first Node's record begins; metadata: payload of v0.0.3's metadata record
    Raises TraceError for a record that is cut or holds a number out of range.
    """
    head = schema.GlobalMetadata()
    head.attr.add(name="converted_from", string_val=f"Chakra {version}")
    for field, wire, a, b in fields(metadata or b"", 0, len(metadata or b"")):
        if field == 1 and wire == LENGTH and version != V0_0_1:
            _attribute(metadata or b"", a, b, version, head.attr.add())
    pieces = [head.SerializeToString()]
    node_of = _flat_node if version == V0_0_1 else _typed_node
    for number, (a, b) in enumerate(_records(data, start)):
        try:
            pieces.append(node_of(data, a, b, version).SerializeToString())
        except (ValueError, TypeError, struct.error) as error:
            raise TraceError(
                f"{source}: byte {a}, record {number + (metadata is not None)}: is no Node of"
                f" Chakra's wire format {version} ({error}). The file is damaged: copy it again."
            ) from error
    return b"".join(length_prefix(len(piece)) + piece for piece in pieces)


def _records(data: bytes, start: int) -> Iterator[tuple[int, int]]:
    """Start and end of every record's content; stops at one that is cut (`frame` has reported it)."""
    base, end, pos = address(data), len(data), start
    while pos < end:
        size, after = varint(base, pos, end)
        if after < 0 or size > end - after:
            return
        pos = after + int(size)
        yield after, pos


def _flat_node(data: bytes, start: int, end: int, version: str) -> Any:
    """A Node of v0.0.1."""
    node = schema.Node()
    base = address(data)
    dims: list[bool] = []
    for field, wire, a, b in fields(data, start, end):
        if field == 2 and wire == LENGTH:
            node.name = data[a:b].decode("utf-8", "replace")
            continue
        if wire not in (VARINT, LENGTH):
            continue
        for value in _varints(data, a, b):
            if field == 1:
                node.id = value
            elif field == 3:
                node.type = _renumbered(value, _TYPES)
            elif field == 4:
                node.data_deps.append(value)
            elif field == 7:
                node.duration_micros = value
            elif field == 13 and value in _COLLECTIVES_FLAT:
                node.attr.add(name="comm_type", int64_val=_COLLECTIVES_FLAT[value])
            elif field == 14:
                dims.append(bool(value))
            elif field == 15 and value:
                node.attr.add(name="pg_name", string_val=str(value))
            elif field in _NUMBERS:
                name, kind = _NUMBERS[field]
                node.attr.add(name=name, **{kind: value})
    del base
    if dims:
        node.attr.add(name="involved_dim").bool_list.values.extend(dims)
    return node


_NUMBERS = {
    5: ("tensor_loc", "int32_val"),
    6: ("tensor_size", "uint64_val"),
    12: ("num_ops", "int64_val"),
    16: ("comm_src", "int32_val"),
    17: ("comm_dst", "int32_val"),
    18: ("comm_size", "int64_val"),
    19: ("comm_tag", "int32_val"),
    20: ("comm_priority", "int32_val"),
}


def _typed_node(data: bytes, start: int, end: int, version: str) -> Any:
    """A Node of v0.0.2 or v0.0.3."""
    node = schema.Node()
    sides = {5: "values", 6: "shapes", 7: "types", 8: "values", 9: "shapes", 10: "types"}
    texts: dict[int, list[str]] = {}
    for field, wire, a, b in fields(data, start, end):
        if field == 2 and wire == LENGTH:
            node.name = data[a:b].decode("utf-8", "replace")
        elif field == 1 and wire == VARINT:
            node.id = _varints(data, a, b)[0]
        elif field == 3 and wire == VARINT:
            value = _varints(data, a, b)[0]
            node.type = _renumbered(value, _TYPES) if version == V0_0_2 else min(value, 2**31 - 1)
        elif field == 4 and wire in (VARINT, LENGTH):
            node.data_deps.extend(_varints(data, a, b))
        elif field in sides and wire == LENGTH:
            texts.setdefault(field, []).append(data[a:b].decode("utf-8", "replace"))
        elif field == 11 and wire == LENGTH:
            attribute = schema.AttributeProto()
            _attribute(data, a, b, version, attribute)
            kind = attribute.WhichOneof("value")
            if attribute.name in _RUN_TIMES and kind in ("int64_val", "uint64_val"):
                node.duration_micros = getattr(attribute, kind)
                continue
            if attribute.name == "comm_type" and kind in ("int64_val", "uint64_val"):
                attribute.int64_val = _renumbered(getattr(attribute, kind), _COLLECTIVES)
            node.attr.append(attribute)
    for field, found in texts.items():
        side = node.inputs if field < 8 else node.outputs
        setattr(side, sides[field], found[0] if len(found) == 1 else str(found))
    return node


def _attribute(data: bytes, start: int, end: int, version: str, out: Any) -> None:
    """An AttributeProto of v0.0.2 or v0.0.3 as today's."""
    kind = 0
    places: list[tuple[int, int, int, int]] = []
    for field, wire, a, b in fields(data, start, end):
        if field == 1 and wire == LENGTH:
            out.name = data[a:b].decode("utf-8", "replace")
        elif field == 2 and wire == VARINT:
            kind = _varints(data, a, b)[0]
        elif field >= 4:
            places.append((field, wire, a, b))
    kinds = _KINDS[version]
    if kind >= len(kinds):
        raise ValueError(f"attribute {out.name!r} has type {kind}, known are 0 to {len(kinds) - 1}")
    word = kinds[kind]
    values: list[Any] = []
    for field, wire, a, b in places:
        if field == kind + 4:
            values += _values(data, a, b, wire, word.rstrip("s"))
    if word.endswith("s"):
        getattr(out, _TARGET[word]).values.extend(values)
    elif values:
        setattr(out, _TARGET[word], values[-1])


def _values(data: bytes, start: int, end: int, wire: int, word: str) -> list[Any]:
    if word == "text":
        return [data[start:end].decode("utf-8", "replace")] if wire == LENGTH else []
    if word == "float":
        if wire not in (FIXED32, LENGTH):
            return []
        return list(struct.unpack(f"<{(end - start) // 4}f", data[start:end]))
    if wire not in (VARINT, LENGTH):
        return []
    found = _varints(data, start, end)
    if word == "bool":
        return [bool(value) for value in found]
    return [_signed(value) for value in found] if word == "int" else list(found)


def _varints(data: bytes, start: int, end: int) -> list[int]:
    """The numbers of a packed field, or the one of an unpacked field."""
    base, found = address(data), []
    while start < end:
        value, start = varint(base, start, end)
        if start < 0:
            raise ValueError("a number is cut off or has more than 64 bits")
        found.append(int(value))
    return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _renumbered(value: int, table: dict[int, int]) -> int:
    """Today's number; one that the old table does not know stays, far from any known one."""
    return table.get(value, min(1000 + value, _LARGEST_ENUM))
