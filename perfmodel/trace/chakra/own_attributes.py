"""Attributes of our own in .et files, beside those that every tool knows; others pass over them.

They are looked for in files whose metadata have the attribute `perfmodel`.

| attribute | kind | meaning |
| --- | --- | --- |
| perfmodel_kind, perfmodel_dtype | text | what the work is and in which numbers (vocabulary.OPERATIONS, DTYPES) |
| perfmodel_dimensions | int64 list | the kind's dimensions, -1 for an unknown one (vocabulary.DIMENSIONS) |
| perfmodel_resource | text | what the node occupies ("stream 7"); empty for nothing |
| perfmodel_duration, perfmodel_start | double | recorded duration and start [s], where whole us do not say it |
| perfmodel_latency | double list | time between the end of each of data_deps and the start [s] |

The metadata attribute `perfmodel_recorded` holds what is known of a recording (workload.recorded), as JSON.
"""

from __future__ import annotations

from collections.abc import Sequence

from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.wire import length_prefix

MARK = "perfmodel"
"""Metadata attribute of files that have attributes of our own; its value is their version."""
VERSION = "1"
RECORDED = "perfmodel_recorded"
KIND, DIMENSIONS, DTYPE, RESOURCE, DURATION, START, LATENCY = (
    f"perfmodel_{word}"
    for word in ("kind", "dimensions", "dtype", "resource", "duration", "start", "latency")
)
NAMES = (KIND, DIMENSIONS, DTYPE, RESOURCE, DURATION, START, LATENCY)


def attribute(name: str, value: str | float | Sequence[float]) -> bytes:
    """The bytes of one attribute in a Node, tag and length included.

    value: a text, a float [double], whole numbers [int64 list], or numbers with a float among them [double list]
    """
    message = schema.AttributeProto(name=name)
    if isinstance(value, str):
        message.string_val = value
    elif isinstance(value, float):
        message.double_val = value
    elif any(isinstance(number, float) for number in value):
        message.double_list.values.extend(value)
    else:
        message.int64_list.values.extend(value)
    payload: bytes = message.SerializeToString()
    return b"\x52" + length_prefix(len(payload)) + payload
