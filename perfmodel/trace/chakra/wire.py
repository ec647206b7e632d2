"""Protobuf's wire format, read from bytes that nobody vouches for.

A message is a run of fields: a varint tag = number x 8 + wire type, then a varint (0), 8 bytes (1),
a length and that many bytes (2), or 4 bytes (5). Wire types 3 and 4 (groups) ended with proto2 and
occur in no Chakra trace; 6 and 7 never existed.

Every compiled reader takes `(base, pos, end)`: the address of the bytes (`address`) and two
offsets from it. It reads nothing outside `pos..end` and returns the position after what it read,
or a negative code of `FAULTS`. Bare addresses, because an array as an argument costs two atomic
reference counts a call, which made reading three times slower.

Compiling the readers takes six seconds, in which Python reads some megabytes: until that much has been read on a
machine, they run as the Python that they are written in (`reader`), on whole numbers of Python's own.

Source: protobuf.dev, "Encoding".
"""

import ctypes
import math
import operator
import struct
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Any

import numba
import numpy as np
from llvmlite import ir
from numba.extending import intrinsic

from perfmodel.compiled_code import Loop, machine_code, plain_of
from perfmodel.compiled_code.allowance import Allowance

VARINT, FIXED64, LENGTH, GROUP, GROUP_END, FIXED32 = 0, 1, 2, 3, 4, 5
MAX_RECORD = 2**31 - 1  # protobuf's own limit on a message [B]

CUT_VARINT, LONG_VARINT, CUT_FIELD, BAD_GROUP, BAD_WIRE, BAD_FIELD = -1, -2, -3, -4, -5, -6
LONG_RECORD, EMPTY_RECORDS = -7, -8
NO_NUMBER, NOT_FINITE, NOT_WHOLE, NEGATIVE, TOO_LARGE, MANY_VALUES, MANY_DIMS = range(-26, -19)
FAULTS = {
    CUT_VARINT: "a number is cut off",
    LONG_VARINT: "a number has more than 64 bits",
    CUT_FIELD: "a length runs past the end",
    BAD_GROUP: "there is a group (wire type 3 or 4), which no Chakra schema has",
    BAD_WIRE: "there is a field of wire type 6 or 7, which does not exist",
    BAD_FIELD: "there is a field number outside 1..536870911",
    LONG_RECORD: "a record is longer than 2 GiB, protobuf's limit",
    EMPTY_RECORDS: "there is a second empty record (all would be nodes with id 0)",
    NO_NUMBER: "is no number",
    NOT_FINITE: "is not finite",
    NOT_WHOLE: "is not a whole number",
    NEGATIVE: "is negative",
    TOO_LARGE: "is too large",
    MANY_VALUES: "has several values",
    MANY_DIMS: "has more than 31 dimensions",
}


compiled = machine_code(nogil=True)
"""How the loops here are compiled."""

PLAIN_STEPS = 2_000_000
"""Steps of a microsecond that a reader takes as Python: about a third of what compiling takes."""


class ByteLoop(Loop):
    """A loop whose first argument is the address of bytes."""

    def __init__(self, function: Any, steps: Callable[..., int]):
        super().__init__(compiled(function), steps)
        self.allowance = Allowance(self.dispatcher, PLAIN_STEPS)

    @cached_property
    def plain(self) -> Callable[..., Any]:
        """The reader as Python, and what it calls as well."""
        inside = plain_of(self.py_func, STAND_INS)
        return lambda base, *rest: inside(ctypes.cast(base, _BYTES), *rest)


_BYTES = ctypes.POINTER(ctypes.c_ubyte)


def reader(steps: Callable[..., int]) -> Callable[[Any], ByteLoop]:
    """A decorator of functions of (base, ...), that are compiled when that is worth it.

    Args:
        steps: the arguments -> about how many microseconds a call takes in Python.
    """
    return lambda function: ByteLoop(function, steps)


one_step = reader(lambda *_: 1)
"""Of what reads a field."""


def address(data: bytes) -> int:
    """Where the bytes lie; the caller keeps them alive while compiled code reads there."""
    return int(np.frombuffer(data, np.uint8).__array_interface__["data"][0])


def _load(bits: int) -> Any:
    """An intrinsic (base, pos) -> the number of `bits` bits there, in native byte order."""

    @intrinsic
    def load(typing_context, base, pos):
        def generate(context, builder, signature, arguments):
            kind = ir.IntType(bits)
            place = builder.inttoptr(builder.add(*arguments), kind.as_pointer())
            return builder.zext(builder.load(place, align=1), ir.IntType(64))

        return numba.uint64(numba.int64, numba.int64), generate

    return load


byte_at = _load(8)
word4_at = _load(32)
word8_at = _load(64)


@compiled
def double_of(bits):
    """The double that 64 bits are."""
    return np.uint64(bits).view(np.float64)


@compiled
def single_of(bits):
    """The single that the lower 32 bits are, as a double."""
    return np.float64(np.uint32(bits).view(np.float32))


class WholeNumbers:
    """NumPy's names for words, of Python's whole numbers; `np` where a reader runs as Python."""

    uint64 = int
    isfinite, floor = math.isfinite, math.floor

    @staticmethod
    def uint32(value: int) -> int:
        return value & (1 << 32) - 1

    @staticmethod
    def int32(value: int) -> int:
        return (value & (1 << 32) - 1 ^ 1 << 31) - (1 << 31)

    @staticmethod
    def int64(value: Any) -> int:
        return (int(value) & (1 << 64) - 1 ^ 1 << 63) - (1 << 63)


def _number_at(size: int) -> Callable[[Any, int], int]:
    return lambda base, pos: int.from_bytes(bytes(base[pos : pos + size]), sys.byteorder)


STAND_INS = {
    "np": WholeNumbers,
    "byte_at": operator.getitem,
    "word4_at": _number_at(4),
    "word8_at": _number_at(8),
    "double_of": lambda bits: struct.unpack("=d", struct.pack("=Q", bits))[0],
    "single_of": lambda bits: struct.unpack("=f", struct.pack("=I", bits & (1 << 32) - 1))[0],
}
"""What readers that run as Python do with bytes and words."""


@one_step
def varint(base, pos, end):
    """The unsigned number at `pos` and the position after it.

    >>> data = b"\\xac\\x02"
    >>> varint(address(data), 0, 2)
    (300, 2)
    """
    value = shift = np.uint64(0)
    while pos < end:
        byte = byte_at(base, pos)
        pos += 1
        if shift == np.uint64(63) and byte > np.uint64(1):
            return value, LONG_VARINT
        value |= (byte & np.uint64(127)) << shift
        if byte < np.uint64(128):
            return value, pos
        shift += np.uint64(7)
    return value, CUT_VARINT


@one_step
def tag(base, pos, end):
    """Field number, wire type, and the position after the tag."""
    if pos < end and byte_at(base, pos) < np.uint64(128):
        value = byte_at(base, pos)
        pos += 1
    else:
        value, pos = varint(base, pos, end)
        if pos < 0:
            return 0, 0, pos
    field = np.int64(value >> np.uint64(3))
    if field < 1 or field >= 1 << 29:
        return 0, 0, BAD_FIELD
    return field, np.int64(value & np.uint64(7)), pos


@one_step
def skip(base, pos, end, wire):
    """Start of the content and position after the field whose tag ends at `pos`."""
    if wire == LENGTH:
        if pos < end and byte_at(base, pos) < np.uint64(128):
            size = byte_at(base, pos)
            start = pos + 1
        else:
            size, start = varint(base, pos, end)
            if start < 0:
                return pos, start
        if size > np.uint64(end - start):
            return pos, CUT_FIELD
        return start, start + np.int64(size)
    if wire == VARINT:
        return pos, varint(base, pos, end)[1]
    if wire == FIXED64 or wire == FIXED32:  # noqa: SIM109 (numba is faster on this)
        after = pos + (8 if wire == FIXED64 else 4)
        return pos, (after if after <= end else CUT_FIELD)
    return pos, (BAD_WIRE if wire > FIXED32 else BAD_GROUP)


def fields(data: bytes, pos: int, end: int) -> Iterator[tuple[int, int, int, int]]:
    """Field number, wire type, start and end of the content of each field, from Python.

    Stops at the first fault: for looking at a record that may be anything.
    """
    base = address(data)
    while pos < end:
        field, wire, pos = tag(base, pos, end)
        if pos < 0:
            return
        start, pos = skip(base, pos, end, wire)
        if pos < 0:
            return
        yield field, wire, start, pos


def length_prefix(size: int) -> bytes:
    """`size` as a varint.

    >>> length_prefix(300).hex()
    'ac02'
    """
    out = bytearray()
    while size > 127:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)
