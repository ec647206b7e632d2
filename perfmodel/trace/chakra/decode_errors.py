"""What a fault in a trace file means: where it is, what is there, what was expected, what to do."""

from itertools import islice

import numpy as np
from google.protobuf.message import DecodeError

from perfmodel.errors import TraceError
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.attributes import LARGEST, NAMES
from perfmodel.trace.chakra.record_loops import ATTRIBUTE, FAULT, FAULT_AT, FIELD, NODES, RECORD_AT
from perfmodel.trace.chakra.wire import (
    CUT_FIELD,
    FAULTS,
    MANY_DIMS,
    MAX_RECORD,
    NO_NUMBER,
    TOO_LARGE,
    address,
    fields,
    varint,
)

NODE_FIELDS = {
    1: "id",
    2: "name",
    3: "type",
    4: "ctrl_deps",
    5: "data_deps",
    6: "start_time_micros",
    7: "duration_micros",
    8: "inputs",
    9: "outputs",
    10: "attr",
}
LARGEST_ATTRIBUTE = 2**20
"""Bytes of an attribute that is shown in a message."""

_DAMAGED = "The file is damaged, cut off or no Chakra trace: write or copy it again."
_PRODUCER = "Correct the program that wrote the trace."


def trace_error(data: bytes, source: str, note: np.ndarray, *, has_metadata: bool) -> TraceError:
    """The error for what `record_loops.walk` noted (see there)."""
    fault, record, here, field = (int(note[k]) for k in (FAULT, RECORD_AT, FAULT_AT, FIELD))
    where = f"{source}: byte {here}, record {int(note[NODES]) + has_metadata} (at byte {record})"
    if field == 0 and fault == CUT_FIELD:
        size, start = varint(address(data), record, len(data))
        what = f"the record says {size} B, the file has {len(data) - start} B left"
        return TraceError(f"{where}: {what}. {_DAMAGED}")
    if field == 0:
        return TraceError(f"{where}: {FAULTS[fault]}. {_DAMAGED}")
    if not NO_NUMBER <= fault <= MANY_DIMS:
        name = NODE_FIELDS.get(field, f"number {field}")
        return TraceError(f"{where}, field {name}: {FAULTS[fault]}. {_DAMAGED}")
    node, attribute = _look_up(data, record, here)
    if field != 10:
        return TraceError(
            f"{where}, node {node}, field {NODE_FIELDS[field]}: {FAULTS[fault]}."
            f" Expected at most {2**63 - 1}. {_PRODUCER}"
        )
    code = int(note[ATTRIBUTE])
    return TraceError(
        f"{where}, node {node}, attribute {NAMES[code]}: {FAULTS[fault]} (got {attribute})."
        f" Expected {_expected(code, fault)}. {_PRODUCER}"
    )


_MANY_FIELDS = 100_000
"""As many fields of a record are looked at for a message."""


def _expected(code: int, fault: int) -> str:
    if fault == MANY_DIMS:
        return "one flag per network dimension, at most 31"
    if fault == TOO_LARGE:
        return f"at most {LARGEST[code]}"
    return "one whole number that is not negative"


def _look_up(data: bytes, record: int, here: int) -> tuple[int, str]:
    """Id of the node whose record is at `record`, and its attribute around byte `here` as text."""
    size, start = varint(address(data), record, len(data))
    node, text = 0, "bytes that do not decode"
    found = fields(data, start, start + min(int(size), MAX_RECORD))
    for field, wire, a, b in islice(found, _MANY_FIELDS):
        if field == 1 and wire == 0:
            node = int(varint(address(data), a, b)[0])
        elif field == 10 and a <= here < b:
            if b - a > LARGEST_ATTRIBUTE:
                return node, f"{b - a} B"
            try:
                attribute = schema.AttributeProto.FromString(data[a:b])
            except DecodeError:
                continue
            kind = attribute.WhichOneof("value")
            value = str(getattr(attribute, kind)).replace("\n", " ").strip()
            text = f"{kind} {value[:60]}"
    return node, text
