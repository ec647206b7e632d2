"""The bulk engine's loops over vertices, for one tile of designs; see `bulk_cpu` for what they are for.

A row of a flat array begins at an unsigned place. Views of rows would cost more than the work on short rows (70 ns a
vertex instead of 5), and signed places would have to be tested for being negative. There is one simple loop per
function: only so does the compiler make each of them vector operations.
"""

from __future__ import annotations

import numpy as np

from perfmodel.compiled_code import machine_code

_kernel = machine_code(nogil=True)


@_kernel
def _sum_row(matrix, k, values, designs, at, out, place, width):
    """out[place :] [width] = row k of a sparse matrix times values [S x designs], designs from `at` on."""
    ptr, column, weight = matrix
    begin, end = ptr[k], ptr[k + np.uint64(1)]
    if begin == end:
        for d in range(width):
            out[place + d] = 0
        return
    first, w = column[begin] * designs + at, weight[begin]
    for d in range(width):
        out[place + d] = w * values[first + d]
    for e in range(begin + np.uint64(1), end):
        more, w = column[e] * designs + at, weight[e]
        for d in range(width):
            out[place + d] += w * values[more + d]


@machine_code(small=lambda matrix, *more: matrix[1].size * int(more[-1]), nogil=True)
def product(matrix, values, designs, at, out, width):
    """out [K x width] = a sparse matrix [K, S] times values [S x designs], designs from `at` on."""
    for k in range(np.uint64(matrix[0].size - 1)):
        _sum_row(matrix, k, values, designs, at, out, k * width, width)


@_kernel
def _add(window, out, a, table, c, width):
    for d in range(width):
        window[out + d] = window[a + d] + table[c + d]


@_kernel
def _later_and_add(window, out, a, b, table, c, width):
    for d in range(width):
        x, y = window[a + d], window[b + d]
        window[out + d] = (x if x > y else y) + table[c + d]


@_kernel
def _later_and_note(window, out, a, b, table, c, chosen, at, width):
    for d in range(width):
        x, y = window[a + d], window[b + d]
        chosen[at + d] = y > x
        window[out + d] = (y if y > x else x) + table[c + d]


@_kernel
def _keep_later(window, out, a, width):
    for d in range(width):
        x, y = window[a + d], window[out + d]
        window[out + d] = x if x > y else y


@_kernel
def _copy(target, out, source, a, width):
    for d in range(width):
        target[out + d] = source[a + d]


@_kernel
def _note_later(chosen, at, window, a, out, k, width):
    number = chosen.dtype.type(k)
    for d in range(width):
        chosen[at + d] = number if window[a + d] > window[out + d] else chosen[at + d]


@_kernel
def _fill(array, at, value, width):
    for d in range(width):
        array[at + d] = value


@_kernel
def _hold_strictly(held, window, a, b, c, factor, width):
    for d in range(width):
        x, y = window[b + d], window[c + d]
        held[d] &= np.uint8(window[a + d] * factor < (x if x > y else y))


@_kernel
def _hold(held, window, a, b, c, factor, width):
    for d in range(width):
        x, y = window[b + d], window[c + d]
        held[d] &= np.uint8(window[a + d] * factor <= (x if x > y else y))


@_kernel
def _compare(checks, v, held, window, width):
    """The comparisons of which vertex v is the last."""
    ptr, a, b, c, factor, strict = checks
    for k in range(ptr[v], ptr[v + np.uint64(1)]):
        x, y, z = a[k] * width, b[k] * width, c[k] * width
        if strict[k]:
            _hold_strictly(held, window, x, y, z, factor[k], width)
        else:
            _hold(held, window, x, y, z, factor[k], width)


@_kernel
def _finish(
    graph, checks, matrix, values, designs, at, table, tabulated, window, chosen, held, width
):
    """One tile: fill the window; the last vertex's slot then holds the makespans [width].

    `table` [K x width] holds the combined costs, or, where they are not tabulated, the one that is needed now.
    `chosen` [V x width], where it is not empty, notes which predecessor was last (the first of equals).
    `held` [width], where it is not empty, stays 1 where all comparisons of the certificate hold.
    """
    cost, ptr, slot_in, slot = graph
    zero, one, two = np.uint64(0), np.uint64(1), np.uint64(2)
    choosing, judging, asked = chosen.size > 0, held.size > 0, checks[0]
    for v in range(np.uint64(cost.size)):
        begin = ptr[v]
        end = ptr[v + one]
        out, c, choice = slot[v] * width, cost[v] * width, v * width
        if not tabulated:
            c = zero * width
            _sum_row(matrix, cost[v], values, designs, at, table, c, width)
        if end - begin == two:
            a, b = slot_in[begin] * width, slot_in[begin + one] * width
            if choosing:
                _later_and_note(window, out, a, b, table, c, chosen, choice, width)
            else:
                _later_and_add(window, out, a, b, table, c, width)
        elif end - begin == one:
            _add(window, out, slot_in[begin] * width, table, c, width)
        elif end == begin:
            _copy(window, out, table, c, width)
        else:
            if choosing:
                _fill(chosen, choice, zero, width)
            _copy(window, out, window, slot_in[begin] * width, width)
            for e in range(begin + one, end):
                a = slot_in[e] * width
                if choosing:
                    _note_later(chosen, choice, window, a, out, e - begin, width)
                _keep_later(window, out, a, width)
            _add(window, out, out, table, c, width)
        if judging and asked[v] < asked[v + one]:
            _compare(checks, v, held, window, width)


@_kernel
def _trace_back(graph, chosen, on, counts, width):
    """`counts` [K x width] += how often each combined cost stands on each design's critical path.

    `on` [slots x width] is 0, and 0 again afterwards. A slot holds a vertex's byte from the last vertex that needs
    it back to the vertex itself, the same stretch for which it holds the finish time on the way forward.
    """
    cost, ptr, slot_in, slot = graph
    one, two = np.uint64(1), np.uint64(2)
    vertices = np.uint64(cost.size)
    _fill(on, slot[vertices - one] * width, one, width)
    for back in range(vertices):
        v = vertices - one - back
        mine, choice = slot[v] * width, v * width
        if not _any(on, mine, width):
            continue
        _count(counts, cost[v] * width, on, mine, width)
        begin, end = ptr[v], ptr[v + one]
        if end - begin == one:
            _pass_on(on, slot_in[begin] * width, mine, width)
        elif end - begin == two:
            first, second = slot_in[begin] * width, slot_in[begin + one] * width
            _pass_to_second(on, second, mine, chosen, choice, width)
            _pass_to_first(on, first, mine, chosen, choice, width)
        else:
            for e in range(begin, end):
                _pass_where(on, slot_in[e] * width, mine, chosen, choice, e - begin, width)
        _fill(on, mine, np.uint64(0), width)


@_kernel
def _any(on, mine, width):
    some = np.uint8(0)
    for d in range(width):
        some |= on[mine + d]
    return some != 0


@_kernel
def _count(counts, at, on, mine, width):
    for d in range(width):
        counts[at + d] += on[mine + d]


@_kernel
def _pass_on(on, to, mine, width):
    for d in range(width):
        on[to + d] |= on[mine + d]


@_kernel
def _pass_to_second(on, to, mine, chosen, choice, width):
    for d in range(width):
        on[to + d] |= on[mine + d] & np.uint8(chosen[choice + d])


@_kernel
def _pass_to_first(on, to, mine, chosen, choice, width):
    for d in range(width):
        on[to + d] |= on[mine + d] & np.uint8(~chosen[choice + d])


@_kernel
def _pass_where(on, to, mine, chosen, choice, k, width):
    for d in range(width):
        on[to + d] |= on[mine + d] & np.uint8(chosen[choice + d] == k)


@_kernel
def _longer(held, values, a, least, makespan, at, width):
    for d in range(width):
        held[d] &= np.uint8(values[a + d] > least * makespan[at + d])


@_kernel
def _no_longer(held, values, a, b, width):
    for d in range(width):
        held[d] &= np.uint8(values[a + d] <= values[b + d])


@_kernel
def _last(held, lasting, values, row, place, makespan, at, width):
    """Whether the costs of one tile, each `row` long, from `place` on, are as long as they must be."""
    longer, taken, other, least = lasting
    for k in range(np.uint64(longer.size)):
        _longer(held, values, longer[k] * row + place, least[0], makespan, at, width)
    for k in range(np.uint64(taken.size)):
        _no_longer(held, values, taken[k] * row + place, other[k] * row + place, width)


@_kernel
def _add_times(sums, counts, at, weight, width):
    for d in range(width):
        sums[d] += weight * counts[at + d]


@_kernel
def _put(target, out, source, width):
    for d in range(width):
        target[out + d] = source[d]


@_kernel
def _gather(target, out, source, a, designs, at, width):
    for d in range(width):
        target[out + d] = source[a + designs[at + d]]


@_kernel
def _scatter(target, out, source, designs, at, width):
    for d in range(width):
        target[out + designs[at + d]] = source[d]


@_kernel
def _spread(spread, combined, often, counts, columns, designs, at, width):
    """Path counts of distinct costs, the columns of one tile, from those of the combined costs [K x width]."""
    ptr, column, weight = spread
    zero, one = np.uint64(0), np.uint64(1)
    for k in range(np.uint64(ptr.size - 1)):
        _fill(often, zero, zero, width)
        for e in range(ptr[k], ptr[k + one]):
            if weight[e] == 1:
                _count(often, zero, combined, column[e] * width, width)
            else:
                _add_times(often, combined, column[e] * width, weight[e], width)
        if designs.size > 0:
            _scatter(counts, k * columns, often, designs, at, width)
        else:
            _put(counts, k * columns + at, often, width)


@machine_code(small=lambda graph, *more: graph[2].size * int(more[5]) // int(more[7]), nogil=True)
def answer(
    graph,
    checks,
    lasting,
    matrix,
    spread,
    costs,
    total,
    first,
    step,
    tile,
    designs,
    room,
    tabulated,
    chosen,
    combined,
    makespan,
    held,
    counts,
):
    """Every `step`-th tile of the `total` designs, from the first one on.

    Args:
        graph, checks, lasting, matrix, spread: of a plan. tile: designs in each.
        costs: [S x columns]; designs: [total] the columns that are meant, empty where those are all, in order.
        room: for one tile, what is in it means nothing: the window, the table of combined costs, gathered costs
            (where there are `designs`), bytes of 0 for the way back, and a row of path counts.
        chosen, combined: likewise for the way back, [V x tile] and [K x tile]; empty where no paths are asked for.
        makespan: [total] is written; held: [total] is written where it is not empty.
        counts: [S x columns] path counts, written at the columns that are meant.
    """
    window, table, gathered, on, often = room
    zero, one = np.uint64(0), np.uint64(1)
    rows = np.uint64(spread[0].size - 1)
    columns = np.uint64(costs.size) // rows if rows > zero else zero
    last = graph[3][graph[3].size - 1]
    at = first * tile
    while at < total:
        width = min(tile, total - at)
        judged = held[at : at + width]
        _fill(judged, zero, one, np.uint64(judged.size))
        values, place, row = costs, at, columns
        if designs.size > 0:
            for k in range(rows):
                _gather(gathered, k * width, costs, k * columns, designs, at, width)
            values, place, row = gathered, zero, width
        if tabulated:
            product(matrix, values, row, place, table, width)
        _finish(
            graph,
            checks,
            matrix,
            values,
            row,
            place,
            table,
            tabulated,
            window,
            chosen,
            judged,
            width,
        )
        _copy(makespan, at, window, last * width, width)
        if judged.size > 0:
            _last(judged, lasting, values, row, place, makespan, at, width)
        if chosen.size > 0:
            _fill(combined, zero, zero, np.uint64(combined.size))
            _trace_back(graph, chosen, on, combined, width)
            _spread(spread, combined, often, counts, columns, designs, at, width)
        at += step * tile
