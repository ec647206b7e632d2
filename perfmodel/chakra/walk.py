"""The compiled loop over a file's records."""

import numpy as np

from perfmodel.chakra import attributes as at
from perfmodel.chakra.wire import (
    CUT_FIELD,
    EMPTY_RECORDS,
    LENGTH,
    LONG_RECORD,
    MAX_RECORD,
    TOO_LARGE,
    VARINT,
    byte_at,
    compiled,
    skip,
    tag,
    varint,
)

# Rows of the table: the attributes' (see attributes.py), and behind them the node's own.
TYPE, DURATION, NAME_AT, NAME_SIZE, NODE_AT, NODE_SIZE, DATA_END, CTRL_END = range(
    at.WIDTH, at.WIDTH + 8
)
WIDTH = CTRL_END + 1

# What the counting pass notes, and where a fault lies.
NODES, DATA_DEPS, CTRL_DEPS, VARINT_FIELDS, LENGTH_FIELDS, OLD_ATTRIBUTES = range(6)
FAULT, RECORD_AT, FAULT_AT, FIELD, ATTRIBUTE = range(6, 11)
NOTES = 11


@compiled
def walk(base, start, end, fill, ids, starts, table, data_dep, ctrl_dep, note):
    """Walk the Node records from `start` on; count into `note`, and `fill` the arrays if asked to.

    Records lie at `start..end` from the address `base`. ids, starts: uint64[n];
    table: int64[WIDTH, n], -1 everywhere at first; data_dep, ctrl_dep: uint64; note: int64[NOTES].
    The first pass takes empty arrays.
    """
    pos = start
    n = n_data = n_ctrl = empty = 0
    lengths = varints = np.int64(0)
    note[:] = 0
    fault = field = here = 0
    code = -1
    while pos < end:
        record = here = pos
        size, pos = varint(base, pos, end)
        if pos < 0:
            fault = pos
            break
        if size > np.uint64(MAX_RECORD):
            fault = LONG_RECORD
            break
        if size > np.uint64(end - pos):
            fault = CUT_FIELD
            break
        stop = pos + np.int64(size)
        empty += pos == stop
        if empty > 1:
            fault = EMPTY_RECORDS
            break
        if fill:
            table[at.DIMS, n] = table[TYPE, n] = table[DURATION, n] = table[NAME_SIZE, n] = 0
            table[NAME_AT, n] = table[NODE_AT, n] = pos
            table[NODE_SIZE, n] = stop - pos
        while pos < stop:
            here = pos
            field, wire, pos = tag(base, pos, stop)
            if pos < 0:
                fault = pos
                break
            if wire == VARINT:
                value, pos = varint(base, pos, stop)
                if pos < 0:
                    fault = pos
                    break
                if field < 60:
                    varints |= 1 << field
                if field == 4:
                    if fill:
                        ctrl_dep[n_ctrl] = value
                    n_ctrl += 1
                elif field == 5:
                    if fill:
                        data_dep[n_data] = value
                    n_data += 1
                elif not fill:
                    continue
                elif field == 1:
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
                continue
            p, pos = skip(base, pos, stop, wire)
            if pos < 0:
                fault = pos
                break
            if wire != LENGTH:
                continue
            if field < 60:
                lengths |= 1 << field
            if field == 10:
                if fill:
                    fault, code, at_fault, value, extra = at.read_attribute(base, p, pos)
                    if fault < 0:
                        here = at_fault
                        break
                    if code >= at.PG_NAME:
                        slot = at.PG_TEXT if code == at.PG_NAME else at.GROUP_TEXT
                        table[slot, n] = value
                        table[slot + 1, n] = extra
                    elif code >= 0:
                        table[code, n] = value
                        if code == at.INVOLVED_DIM:
                            table[at.DIMS, n] = extra
            elif field == 4 or field == 5:
                while p < pos:
                    here = p
                    value, p = varint(base, p, pos)
                    if p < 0:
                        fault = p
                        break
                    if field == 4:
                        if fill:
                            ctrl_dep[n_ctrl] = value
                        n_ctrl += 1
                    else:
                        if fill:
                            data_dep[n_data] = value
                        n_data += 1
                if fault < 0:
                    break
            elif field == 2 and fill:
                table[NAME_AT, n] = p
                table[NAME_SIZE, n] = pos - p
            elif field == 11 and p < pos and byte_at(base, p) == 0x0A:
                note[OLD_ATTRIBUTES] = 1
        if fault < 0:
            break
        field = 0
        if fill:
            table[DATA_END, n] = n_data
            table[CTRL_END, n] = n_ctrl
        n += 1
    note[NODES], note[DATA_DEPS], note[CTRL_DEPS] = n, n_data, n_ctrl
    note[VARINT_FIELDS], note[LENGTH_FIELDS] = varints, lengths
    if fault < 0:
        note[FAULT], note[RECORD_AT], note[FAULT_AT] = fault, record, here
        note[FIELD], note[ATTRIBUTE] = field, code


@compiled
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
