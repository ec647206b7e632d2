"""Trace files as protobuf messages: everything that is in them, at protobuf's speed.

What `messages` yields, `write` writes: fields that the schema does not know stay, and the bytes
are the same where the producer wrote them in protobuf's usual order.
"""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from perfmodel.errors import TraceError
from perfmodel.files import whole_file
from perfmodel.trace.chakra import dialects, schema
from perfmodel.trace.chakra.inflate import LIMIT, inflate
from perfmodel.trace.chakra.reader import LARGEST_MESSAGE, content, decode, first_record
from perfmodel.trace.chakra.wire import MAX_RECORD, address, length_prefix, varint


def messages(path: str | Path, *, limit: int = LIMIT) -> Iterator[Any]:
    """GlobalMetadata (None where the file has none), then every Node, as protobuf messages.

    limit: most bytes a compressed file may grow to [B]
    Raises TraceError for a record that is cut or is no such message, and for older formats.
    """
    yield from messages_of(inflate(content(path), str(path), limit=limit), str(path))


def messages_of(data: bytes, source: str) -> Iterator[Any]:
    """As `messages`, of a file's content; older formats and JSON come as messages of today's."""
    data, form = dialects.to_current(data, source)
    metadata, pos = first_record(data, source)
    if not form and (metadata is None or dialects.has_old_metadata(metadata)):
        data = decode(data, source).data  # an older format would parse, with other meanings
        metadata, pos = first_record(data, source)
    yield None if metadata is None else _parse(schema.GlobalMetadata, metadata, source, 0, 0)
    number = int(metadata is not None)
    base, end = address(data), len(data)
    while pos < end:
        size, start = varint(base, pos, end)
        if start < 0 or size > min(end - start, MAX_RECORD):
            raise TraceError(
                f"{source}: byte {pos}, record {number}: the record's length is cut off or runs"
                " past the end. The file is damaged: write or copy it again."
            )
        stop = start + int(size)
        if size > LARGEST_MESSAGE:
            raise TraceError(
                f"{source}: byte {pos}, record {number}: has {int(size)} B. Expected at most"
                f" {LARGEST_MESSAGE}. The file is damaged: write or copy it again."
            )
        yield _parse(schema.Node, data[start:stop], source, pos, number)
        pos = stop
        number += 1


def write(path: str | Path, metadata: Any | None, nodes: Iterable[Any]) -> None:
    """Write a trace file from protobuf messages, at once or not at all; a name in ".gz" compresses.

    metadata: GlobalMetadata, or None for a file without; nodes: Node messages.
    """
    pieces = [] if metadata is None else [_record(metadata)]
    pieces.extend(_record(node) for node in nodes)
    write_bytes(path, b"".join(pieces))


def write_bytes(path: str | Path, data: bytes) -> None:
    """Put `data` at `path`, all of it or nothing; compressed where the name ends in ".gz"."""
    with whole_file(path) as file:
        file.write(data)


def _record(message: Any) -> bytes:
    payload: bytes = message.SerializeToString()
    return length_prefix(len(payload)) + payload


def _parse(kind: Any, payload: bytes, source: str, pos: int, number: int) -> Any:
    try:
        return kind.FromString(payload)
    except DecodeError as error:
        raise TraceError(
            f"{source}: byte {pos}, record {number}: is no {kind.DESCRIPTOR.name} message"
            f" ({error}). The file is damaged or no Chakra trace: write or copy it again."
        ) from error
