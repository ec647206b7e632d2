"""Attributes of a node: those the model reads, whatever kind of value they were written as.

An attribute is a name and one of 30 kinds of value: 15 scalars at the odd field numbers 3..31 and
the lists of the same scalars one number above. Producers disagree on the kind (a size is int64,
uint64 or uint32; a flag is bool or int32; a group is text or a number), so every kind is taken for
every attribute: scalars, lists of one element, decimal text. An attribute without a value, or with
an empty list, counts as absent.

Source: the Chakra schema 0.0.4; kinds by producer in mlcommons/chakra and astra-sim/stage.
"""

import numpy as np

from perfmodel.trace.chakra.wire import (
    CUT_FIELD,
    FIXED32,
    FIXED64,
    LENGTH,
    MANY_DIMS,
    MANY_VALUES,
    NEGATIVE,
    NO_NUMBER,
    NOT_FINITE,
    NOT_WHOLE,
    TOO_LARGE,
    VARINT,
    byte_at,
    compiled,
    double_of,
    single_of,
    skip,
    tag,
    varint,
    word4_at,
    word8_at,
)

NAMES = (
    "is_cpu_op",
    "num_ops",
    "tensor_size",
    "comm_size",
    "comm_type",
    "comm_src",
    "comm_dst",
    "comm_tag",
    "stream",
    "tid",
    "tensor_loc",
    "involved_dim",
    "pg_name",
    "comm_group",
)
(
    IS_CPU,
    NUM_OPS,
    TENSOR_SIZE,
    COMM_SIZE,
    COMM_TYPE,
    COMM_SRC,
    COMM_DST,
    COMM_TAG,
    STREAM,
    TID,
    TENSOR_LOC,
    INVOLVED_DIM,
    PG_NAME,
    COMM_GROUP,
) = range(len(NAMES))
DIMS = len(NAMES)  # number of entries of involved_dim
PG_TEXT = DIMS + 1
GROUP_TEXT = PG_TEXT + 2  # start and size of the text, or a number and size -1
WIDTH = GROUP_TEXT + 2  # columns that attributes take in the reader's table

LARGEST = np.full(len(NAMES), 2**63 - 1)
LARGEST[COMM_TYPE] = 2**31 - 1
LARGEST[TENSOR_LOC] = 127
MAX_DIMS = 31

# Names are told apart by length and one letter, then compared as two words that may overlap.
_SHORTEST, _LONGEST = 3, 12
_CODE = np.full((_LONGEST + 1, 128), -1, np.int64)
_FIRST = np.zeros(len(NAMES), np.uint64)
_LAST = np.zeros(len(NAMES), np.uint64)
for _code, _name in enumerate(NAMES):
    _text = _name.encode()
    _word = "u8" if len(_text) >= 8 else "u4" if len(_text) >= 4 else "u1"
    _FIRST[_code] = np.frombuffer(_text, _word, 1)[0]
    _LAST[_code] = np.frombuffer(_text[-np.dtype(_word).itemsize :], _word, 1)[0]
    _letter = _text[min(5, len(_text) - 1)]
    assert _CODE[len(_text), _letter] == -1, f"{_name} needs another letter"
    _CODE[len(_text), _letter] = _code
assert sum(len(name) < 4 for name in NAMES) == 1, "short names are told apart by three letters"


@compiled
def name_code(base, pos, end):
    """Index into `NAMES` of the text at `pos..end`, or -1."""
    size = end - pos
    if size < _SHORTEST or size > _LONGEST:
        return -1
    letter = byte_at(base, pos + min(5, size - 1))
    if letter > np.uint64(127):
        return -1
    code = np.int64(_CODE[size, np.int64(letter)])
    if code < 0:
        return -1
    if size >= 8:
        first, last = word8_at(base, pos), word8_at(base, end - 8)
    elif size >= 4:
        first, last = word4_at(base, pos), word4_at(base, end - 4)
    else:
        first, last = byte_at(base, pos), byte_at(base, end - 1)
        if byte_at(base, pos + 1) != np.uint64(ord("i")):
            return -1
    return code if first == _FIRST[code] and last == _LAST[code] else -1


@compiled
def wire_of(kind):
    """Wire type of a scalar kind."""
    if kind == 3 or kind == 21 or kind == 25:
        return FIXED64
    if kind == 5 or kind == 19 or kind == 23:
        return FIXED32
    if kind == 29 or kind == 31:
        return LENGTH
    return VARINT


@compiled
def _whole(value):
    """A float as (status, int64)."""
    if not np.isfinite(value):
        return NOT_FINITE, 0
    if value != np.floor(value):
        return NOT_WHOLE, 0
    if abs(value) >= 2.0**63:
        return TOO_LARGE, 0
    return 0, np.int64(value)


@compiled
def decimal(base, pos, end):
    """Decimal text as (status, int64): a sign, digits, and zeros after a point ("2048.0")."""
    sign = byte_at(base, pos) if pos < end else np.uint64(0)
    negative = sign == np.uint64(ord("-"))
    if negative or sign == np.uint64(ord("+")):
        pos += 1
    value = np.uint64(0)
    digits = 0
    fraction = False
    while pos < end:
        digit = byte_at(base, pos)
        pos += 1
        if digit < np.uint64(ord("0")) or digit > np.uint64(ord("9")):
            if fraction or digits == 0 or digit != np.uint64(ord(".")):
                return NO_NUMBER, 0
            fraction = True
        elif fraction:
            if digit != np.uint64(ord("0")):
                return NOT_WHOLE, 0
        else:
            if value > np.uint64((2**63 - 1) // 10):
                return TOO_LARGE, 0
            value = value * np.uint64(10) + (digit - np.uint64(ord("0")))
            digits += 1
    if digits == 0:
        return NO_NUMBER, 0
    if value > np.uint64(2**63 - 1):
        return TOO_LARGE, 0
    return 0, (-np.int64(value) if negative else np.int64(value))


@compiled
def scalar(base, pos, end, kind):
    """One value of a kind that is no text, as (status, int64, position after it)."""
    wire = wire_of(kind)
    if wire == VARINT:
        raw, after = varint(base, pos, end)
        if after < 0:
            return after, 0, after
    else:
        after = pos + (8 if wire == FIXED64 else 4)
        if after > end:
            return CUT_FIELD, 0, CUT_FIELD
        raw = np.uint64(0)
        for i in range(after - pos):
            raw |= byte_at(base, pos + i) << np.uint64(8 * i)
    if kind == 3:
        status, value = _whole(double_of(raw))
        return status, value, after
    if kind == 5:
        status, value = _whole(single_of(raw))
        return status, value, after
    if kind == 27:
        return 0, np.int64(raw != np.uint64(0)), after
    if kind == 7 or kind == 23:
        return 0, np.int64(np.int32(np.uint32(raw))), after
    if kind == 11 or kind == 19:
        return 0, np.int64(np.uint32(raw)), after
    if kind == 15 or kind == 17:
        if kind == 15:
            raw = np.uint64(np.uint32(raw))
        return 0, np.int64(raw >> np.uint64(1)) ^ -np.int64(raw & np.uint64(1)), after
    if (kind == 13 or kind == 21) and raw > np.uint64(2**63 - 1):
        return TOO_LARGE, 0, after
    return 0, np.int64(raw), after


@compiled
def list_value(base, pos, end, number):
    """The list at field `number` of an attribute, whose last run of such fields starts at `pos`.

    Returns (status, number of values, the last one, bit mask of the nonzero ones, start and end of
    the last one if the list is of text). A list cut into several fields is one list, and numbers
    may be packed or not: protobuf's rules.
    """
    kind = number - 1
    element = wire_of(kind)
    count = last = mask = text = text_end = np.int64(0)
    while pos < end:
        field, wire, pos = tag(base, pos, end)
        inner, pos = skip(base, pos, end, wire)
        while field == number and wire == LENGTH and inner < pos:
            place, packing, p = tag(base, inner, pos)
            if p < 0:
                return p, count, last, mask, text, text_end
            p, inner = skip(base, p, pos, packing)
            if inner < 0:
                return inner, count, last, mask, text, text_end
            if place != 1 or (packing != element and packing != LENGTH):
                continue
            if element == LENGTH:
                count += 1
                text, text_end = p, inner
                continue
            while p < inner:
                status, last, p = scalar(base, p, inner, kind)
                if status != 0:
                    return status, count, last, mask, text, text_end
                if last != 0 and count < MAX_DIMS:
                    mask |= np.int64(1) << count
                count += 1
    return 0, count, last, mask, text, text_end


@compiled
def read_attribute(base, pos, end):
    """The attribute at `pos..end`, if the model reads it.

    Returns (0 or a fault, code in `NAMES` or -1, place of the fault, value, extra), where
    involved_dim: bit mask, number of entries;  a group: start and size of its text, or its number
    and -1;  all others: the number, 0. Code -1 means that there is nothing to keep.
    An attribute that occurs twice in a node counts with the last value it is given.
    """
    code = np.int64(-1)
    number = run = start = stop = np.int64(0)
    p = pos
    while p < end:
        here = p
        field, wire, p = tag(base, p, end)
        if p < 0:
            return p, np.int64(-1), here, 0, 0
        inner, p = skip(base, p, end, wire)
        if p < 0:
            return p, np.int64(-1), here, 0, 0
        if field == 1 and wire == LENGTH:
            code = name_code(base, inner, p)
        elif 3 <= field <= 32 and wire == (wire_of(field) if field % 2 else LENGTH):
            if field != number:
                number, run = field, here
            start, stop = inner, p
    if code < 0 or number == 0:
        return 0, np.int64(-1), pos, 0, 0
    kind = number if number % 2 else number - 1
    is_text = wire_of(kind) == LENGTH
    is_group = code >= PG_NAME
    status, count, value, mask = 0, np.int64(1), np.int64(0), np.int64(0)
    if number % 2 == 0:
        status, count, value, mask, start, stop = list_value(base, run, end, number)
    elif not is_text:
        status, value, _ = scalar(base, start, stop, kind)
        mask = np.int64(value != 0)
    if status == 0 and count == 0:
        return 0, np.int64(-1), pos, 0, 0
    if is_text and code == INVOLVED_DIM:
        status = NO_NUMBER
    elif status == 0 and is_text and not is_group:
        status, value = decimal(base, start, stop)
    if status == 0 and code == INVOLVED_DIM:
        return (MANY_DIMS if count > MAX_DIMS else 0), code, run, mask, count
    if status == 0 and count > 1:
        status = MANY_VALUES
    if status != 0:
        return status, code, run, 0, 0
    if is_group and is_text:
        return 0, code, run, start, stop - start
    if code in (STREAM, TID):
        return 0, code, run, max(value, np.int64(-1)), 0
    if value < 0:
        return NEGATIVE, code, run, 0, 0
    if value > LARGEST[code]:
        return TOO_LARGE, code, run, 0, 0
    if code == IS_CPU:
        value = min(value, np.int64(1))
    return 0, code, run, value, (-1 if is_group else 0)
