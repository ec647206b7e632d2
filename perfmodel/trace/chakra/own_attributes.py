"""Attributes of our own in .et files, beside those that every tool knows; others pass over them.

They are looked for in files whose metadata have the attribute `perfmodel`, which says their version.

| attribute of a node | kind | meaning |
| --- | --- | --- |
| perfmodel_work | int64 | its row in the file's table of work, resources and latencies (workload.work_table) |
| perfmodel_duration, perfmodel_start | double | recorded duration and start [s], where whole us do not say it |

| attribute of the metadata | meaning |
| --- | --- |
| perfmodel_work | the table, as JSON |
| perfmodel_recorded | what is known of a recording (workload.recorded), as JSON |
| perfmodel_step | what the step does for a model, and this rank holds in memory (workload.training_step), as JSON |
"""

from __future__ import annotations

from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.wire import length_prefix

MARK = "perfmodel"
"""Metadata attribute of files that have attributes of our own; its value is their version."""
VERSION = "2"
RECORDED, STEP = "perfmodel_recorded", "perfmodel_step"
WORK, DURATION, START = (f"perfmodel_{word}" for word in ("work", "duration", "start"))
NAMES = (WORK, DURATION, START)


def attribute(name: str, value: int | float) -> bytes:
    """The bytes of one attribute in a Node, tag and length included: an int64 or a double."""
    message = schema.AttributeProto(name=name)
    if isinstance(value, float):
        message.double_val = value
    else:
        message.int64_val = value
    payload: bytes = message.SerializeToString()
    return b"\x52" + length_prefix(len(payload)) + payload
