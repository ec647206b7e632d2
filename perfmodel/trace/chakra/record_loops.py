"""The compiled loops over a file's records."""

import numpy as np

from perfmodel.trace.chakra import attributes as at
from perfmodel.trace.chakra.attributes import read_attribute
from perfmodel.trace.chakra.wire import (
    CUT_FIELD,
    EMPTY_RECORDS,
    LENGTH,
    LONG_RECORD,
    MAX_RECORD,
    TOO_LARGE,
    VARINT,
    byte_at,
    reader,
    skip,
    tag,
    varint,
)

# Rows of the table: the attributes' (see attributes.py), and behind them the node's own.
TYPE, DURATION, NAME_AT, NAME_SIZE, NODE_AT, NODE_SIZE, DATA_END, CTRL_END = range(
    at.WIDTH, at.WIDTH + 8
)
WIDTH = CTRL_END + 1

# What the loops note: counts, traces of older formats, and where a fault lies.
NODES, DATA_DEPS, CTRL_DEPS, VARINT_FIELDS, LENGTH_FIELDS, OLD_ATTRIBUTES = range(6)
FAULT, RECORD_AT, FAULT_AT, FIELD, ATTRIBUTE = range(6, 11)
NOTES = 11


@reader(lambda base, start, end, note: (end - start) // 64)
def frame(base, start, end, note):
    """Count the records at `start..end` into `note` [int64, NOTES], looking at lengths only."""
    pos = start
    n = empty = fault = record = 0
    note[:] = 0
    while pos < end and fault == 0:
        record = pos
        size, pos = varint(base, pos, end)
        if pos < 0:
            fault = pos
        elif size > np.uint64(MAX_RECORD):
            fault = LONG_RECORD
        elif size > np.uint64(end - pos):
            fault = CUT_FIELD
        elif size == np.uint64(0) and empty > 0:
            fault = EMPTY_RECORDS
        else:
            empty += size == np.uint64(0)
            pos += np.int64(size)
            n += 1
    note[NODES] = n
    if fault < 0:
        note[FAULT], note[RECORD_AT], note[FAULT_AT] = fault, record, record


@reader(lambda base, start, end, *_: (end - start) // 2)
def walk(base, start, end, ids, starts, table, data_dep, ctrl_dep, note):
    """Read the n Node records at `start..end`, which `frame` found sound, into the arrays.

    ids, starts: uint64[n]; table: int64[WIDTH, n], -1 everywhere at first; data_dep, ctrl_dep:
    uint64, as long as the caller guesses. `note` [int64, NOTES] says how many there are; if that is
    more than there was room for, the rest is missing and the caller walks again.
    """
    pos = start
    n = n_data = n_ctrl = record = here = field = fault = 0
    code = np.int64(-1)
    lengths = varints = np.int64(0)
    note[:] = 0
    while pos < end:
        record = pos
        size, pos = varint(base, pos, end)
        stop = pos + np.int64(size)
        table[at.DIMS, n] = table[TYPE, n] = table[DURATION, n] = table[NAME_SIZE, n] = 0
        table[NAME_AT, n] = table[NODE_AT, n] = pos
        table[NODE_SIZE, n] = stop - pos
        while pos < stop:
            here = pos
            field, wire, pos = tag(base, pos, stop)
            if pos < 0:
                fault = pos
                break
            p, pos = skip(base, pos, stop, wire)
            if pos < 0:
                fault = pos
                break
            if wire == VARINT:
                if field < 60:
                    varints |= np.int64(1) << field
                if field > 7 or field == 2:
                    continue
                value, _ = varint(base, p, pos)
                if field == 1:
                    ids[n] = value
                elif field == 3:
                    table[TYPE, n] = np.int64(np.int32(np.uint32(value)))
                elif field == 6:
                    starts[n] = value
                elif field == 7:
                    if value > np.uint64(2**63 - 1):
                        fault = TOO_LARGE
                        break
                    table[DURATION, n] = np.int64(value)
            elif wire == LENGTH:
                if field < 60:
                    lengths |= np.int64(1) << field
                if field == 2:
                    table[NAME_AT, n] = p
                    table[NAME_SIZE, n] = pos - p
                elif field == 10:
                    fault, code, place, value_, extra = read_attribute(base, p, pos)
                    if fault < 0:
                        here = place
                        break
                    if code >= at.PG_NAME:
                        slot = at.PG_TEXT if code == at.PG_NAME else at.GROUP_TEXT
                        table[slot, n] = value_
                        table[slot + 1, n] = extra
                    elif code >= 0:
                        table[code, n] = value_
                        if code == at.INVOLVED_DIM:
                            table[at.DIMS, n] = extra
                elif field == 11 and p < pos and byte_at(base, p) == np.uint64(0x0A):
                    note[OLD_ATTRIBUTES] = 1
            if (field == 4 or field == 5) and wire in (VARINT, LENGTH):
                while p < pos:  # packed, or the one number of an unpacked field
                    here = p
                    value, p = varint(base, p, pos)
                    if p < 0:
                        fault = p
                        break
                    if field == 4:
                        if n_ctrl < len(ctrl_dep):
                            ctrl_dep[n_ctrl] = value
                        n_ctrl += 1
                    else:
                        if n_data < len(data_dep):
                            data_dep[n_data] = value
                        n_data += 1
                if fault < 0:
                    break
        if fault < 0:
            break
        table[DATA_END, n] = n_data
        table[CTRL_END, n] = n_ctrl
        n += 1
    note[NODES], note[DATA_DEPS], note[CTRL_DEPS] = n, n_data, n_ctrl
    note[VARINT_FIELDS], note[LENGTH_FIELDS] = varints, lengths
    if fault < 0:
        note[FAULT], note[RECORD_AT], note[FAULT_AT] = fault, record, here
        note[FIELD], note[ATTRIBUTE] = field, code


@reader(lambda base, table, group, runs: 2 * group.size)
def group_runs(base, table, group, runs):
    """Number the nodes' groups: `group` int32[n] = row of `runs` int64[n, 2] (start, size) or -1.

    pg_name comes before comm_group. The last 16 texts are remembered, so a rank with more groups
    may list one several times in `runs`. Returns the number of rows used.
    """
    used = 0
    for i in range(table.shape[1]):
        group[i] = -1
        slot = at.PG_TEXT
        if table[slot, i] < 0 or table[slot + 1, i] == 0:
            slot = at.GROUP_TEXT
        start, size = table[slot, i], table[slot + 1, i]
        if start < 0 or size == 0:
            continue
        for k in range(used - 1, max(used - 17, -1), -1):
            if runs[k, 1] != size:
                continue
            same = True
            if size < 0:
                same = runs[k, 0] == start
            else:
                for j in range(size):
                    if byte_at(base, runs[k, 0] + j) != byte_at(base, start + j):
                        same = False
                        break
            if same:
                group[i] = k
                break
        if group[i] < 0:
            runs[used, 0], runs[used, 1] = start, size
            group[i] = used
            used += 1
    return used
