"""Which format a trace file is in, from its bytes, and the way from each to today's.

Today's wire format (0.0.4 = 1.0.0) is read as it is. The older ones (`older`) and the JSON forms (`json_forms`) are
turned into it first, because most of them would otherwise decode into nonsense: v0.0.1 numbers the node types
differently, and its repeated fields are valid fields of the current Node. What is no Chakra trace is refused by name.

Source: the history of mlcommons/chakra's et_def.proto (df405e8, 2719463, 9d917e3, 7bab792,
a2b45c1).
"""

from functools import lru_cache
from typing import NamedTuple, NoReturn

from perfmodel.errors import TraceError
from perfmodel.trace.chakra import json_forms, older
from perfmodel.trace.chakra.wire import LENGTH, VARINT, fields, length_prefix


class Dialect(NamedTuple):
    """A format by name, and what a user can do with a file in it."""

    name: str
    remedy: str


_PYTORCH = "Give all files of the PyTorch trace together: a folder, or a list."

# Text that only one kind of JSON file holds, in the order of the question.
_JSON = (
    (b'"traceEvents"', Dialect("a Kineto (PyTorch profiler) trace, JSON", _PYTORCH)),
    (b'"deviceProperties"', Dialect("a Kineto (PyTorch profiler) trace, JSON", _PYTORCH)),
    (
        b'"exclusive_dur"',
        Dialect(
            "chakra_trace_link's JSON",
            "Give the PyTorch files that it was made from, or run chakra_converter on it.",
        ),
    ),
    (b'"schema"', Dialect("a PyTorch host execution trace, JSON", _PYTORCH)),
    (b"", Dialect("JSON of no known trace format", "Give the .et files of the trace.")),
)
_MAGIC = (
    (b"PK\x03\x04", Dialect("a zip archive", "Unpack it first.")),
    (b"\x28\xb5\x2f\xfd", Dialect("zstd data", "Unpack it first (unzstd).")),
    (b"\xfd7zXZ\x00", Dialect("xz data", "Unpack it first (unxz).")),
    (b"BZh", Dialect("bzip2 data", "Unpack it first (bunzip2).")),
    (b"version https://git-lfs", Dialect("a Git LFS pointer", "Fetch the file (git lfs pull).")),
    (b"\x7fELF", Dialect("a program", "Give the .et files of the trace.")),
)
_HEAD = 65536  # bytes of a text file that are looked at


def to_current(data: bytes, source: str) -> tuple[bytes, str]:
    """The content as a run of records, and the name of the form it came in ("" for .et).

    Raises:
        TraceError: JSON that is damaged or no Chakra trace, an archive, or a text.
    """
    for magic, dialect in _MAGIC:
        if data.startswith(magic):
            _refuse(source, dialect)
    begins = data[:256].lstrip(b" \t\r\n\xef\xbb\xbf")[:1]
    if begins not in (b"{", b"[") or not _is_text(data[:_HEAD]):
        return data, ""
    found = json_forms.to_records(data, source)
    if found is not None:
        records, form = found
        return b"".join(length_prefix(len(record)) + record for record in records), form
    head = data[:_HEAD]
    for mark, dialect in _JSON:
        if mark in head:
            _refuse(source, dialect)
    return data, ""


@lru_cache(maxsize=64)
def has_old_metadata(metadata: bytes) -> bool:
    """Whether metadata are v0.0.3's: attributes at field 1, with a type number at 2."""
    for field, wire, start, end in fields(metadata, 0, len(metadata)):
        if field != 1 or wire != LENGTH:
            continue
        inner = list(fields(metadata, start, end))
        if inner and inner[-1][3] == end and inner[0][:2] == (1, LENGTH):
            return any((number, w) == (2, VARINT) for number, w, _, _ in inner) or len(inner) == 1
    return False


def old_version(
    data: bytes,
    start: int,
    *,
    varint_fields: int,
    length_fields: int,
    old_attributes: bool,
    old_metadata: bool,
    extension: str,
) -> str:
    """Which older layout the Nodes from `start` on are in, "" for today's.

    varint_fields, length_fields: bit f is set if some Node has field f with that wire type.
    old_attributes: some Node has a message that begins with text at field 11.
    extension: ".eg" is v0.0.1, where its fields do not say so.

    v0.0.1 writes dependencies (4) unpacked, a memory type at 5 and numbers at 8..20; today 4 and 5 are packed and 8..
    are messages. v0.0.2 and v0.0.3 have text at 6 and 7 (now numbers), attributes at 11.
    """
    if old_attributes or old_metadata or length_fields & _bits(6, 7):
        return older.version_of(data, start, flat=False)
    if varint_fields & _bits(5, *range(8, 21)) or extension == ".eg":
        return older.version_of(data, start, flat=True)
    if varint_fields & _bits(
        4
    ):  # proto2 never packs; only v0.0.1 has neither inputs nor attributes
        return older.version_of(data, start, flat=not length_fields & _bits(10))
    return ""


def _bits(*fields: int) -> int:
    return sum(1 << field for field in fields)


def _is_text(head: bytes) -> bool:
    """Whether these are the first bytes of a text file (UTF-8; the last character may be cut)."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head[:4096]):
        return False
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return True


def _refuse(source: str, dialect: Dialect) -> NoReturn:
    raise TraceError(f"{source}: is {dialect.name}, which is no Chakra trace. {dialect.remedy}")
