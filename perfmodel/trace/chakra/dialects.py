"""Which format a trace file is in, from its bytes.

Only the current wire format is read. The older ones and the JSON forms are recognised here and
refused by name, because most of them would otherwise decode into nonsense: v0.0.1 numbers the node
types differently, and its repeated fields are valid fields of the current Node. A reader for one
of them belongs where `refuse_...` is called in reader.py.

Source: the history of mlcommons/chakra's et_def.proto (df405e8, 2719463, 9d917e3, 7bab792,
a2b45c1).
"""

from functools import lru_cache
from typing import NamedTuple, NoReturn

from perfmodel.errors import TraceError
from perfmodel.trace.chakra.wire import LENGTH, fields


class Dialect(NamedTuple):
    """A format by name, and what a user can do with a file in it."""

    name: str
    remedy: str


_RECORDER = "Convert it with the tool that wrote it, in a version of October 2023 or later."
_CONVERT = "Convert it to .et first (chakra_trace_link, then chakra_converter)."

V0_0_1 = Dialect("Chakra's wire format v0.0.1 (January to June 2023, .eg)", _RECORDER)
V0_0_2 = Dialect("Chakra's wire format v0.0.2 or v0.0.3 (June to October 2023)", _RECORDER)

# Text that only one kind of JSON file holds, in the order of the question.
_JSON = (
    (b'"workload_graph"', Dialect("Chakra's feeder JSON", "Give the .et file it was made from.")),
    (b'"traceEvents"', Dialect("a Kineto (PyTorch profiler) trace, JSON", _CONVERT)),
    (b'"deviceProperties"', Dialect("a Kineto (PyTorch profiler) trace, JSON", _CONVERT)),
    (b'"y_tensor_size"', Dialect("STAGE's JSON form of a trace", "Let STAGE write .et files.")),
    (b'"dataDeps"', Dialect("chakra_jsonizer's text", "Give the .et file it was made from.")),
    (b'"durationMicros"', Dialect("chakra_jsonizer's text", "Give the .et file it was made from.")),
    (b'"int64Val"', Dialect("chakra_jsonizer's text", "Give the .et file it was made from.")),
    (b'"stringVal"', Dialect("chakra_jsonizer's text", "Give the .et file it was made from.")),
    (b'"exclusive_dur"', Dialect("chakra_trace_link's JSON", "Run chakra_converter on it.")),
    (b'"schema"', Dialect("a PyTorch host execution trace, JSON", _CONVERT)),
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


def refuse_other_files(data: bytes, source: str) -> None:
    """Raise TraceError for JSON, archives, and text: files that are no run of records."""
    for magic, dialect in _MAGIC:
        if data.startswith(magic):
            _refuse(source, dialect)
    if data[:256].lstrip()[:1] not in (b"{", b"[") or not _is_text(data[:_HEAD]):
        return
    head = data[:_HEAD]
    for mark, dialect in _JSON:
        if mark in head:
            _refuse(source, dialect)


def refuse_old_metadata(metadata: bytes, source: str) -> None:
    """Raise TraceError for metadata of v0.0.3: attributes at field 1, today the version's."""
    if _has_old_attributes(metadata):
        _refuse(source, V0_0_2)


@lru_cache(maxsize=64)
def _has_old_attributes(metadata: bytes) -> bool:
    for field, wire, start, end in fields(metadata, 0, len(metadata)):
        if field != 1 or wire != LENGTH:
            continue
        inner = list(fields(metadata, start, end))
        if inner and inner[-1][3] == end and inner[0][:2] == (1, LENGTH):
            return True
    return False


def refuse_old_format(
    source: str, varint_fields: int, length_fields: int, *, old_attributes: bool
) -> None:
    """Raise TraceError where the Nodes of a file without metadata use an older layout.

    varint_fields, length_fields: bit f is set if some Node has field f with that wire type.
    old_attributes: some Node has a message that begins with text at field 11.

    v0.0.1 writes dependencies (4) unpacked, a memory type at 5 and numbers at 8..20; today 4 and 5
    are packed and 8.. are messages. v0.0.2 and v0.0.3 have text at 6 and 7 (now numbers),
    attributes at 11.
    """
    if varint_fields & _bits(4, 5, *range(8, 21)):
        _refuse(source, V0_0_1)
    if old_attributes or length_fields & _bits(6, 7):
        _refuse(source, V0_0_2)


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
    raise TraceError(
        f"{source}: is {dialect.name}, which is not read."
        f" Expected a Chakra trace in the current format (0.0.4 = 1.0.0). {dialect.remedy}"
    )
