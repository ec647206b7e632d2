"""The shared bus between a rank and its memory: two sides that send to each other by the LogGP model.

A packet of a collective over all ranks is requested at one side of the outer bus and delivered at its other side; the
side of the NPU moves each request over an inner bus of the same kind to and from its memory. A side sends one request
at a time: o after the moment at which it may, or g after its last transmission. Sending takes G per byte, receiving
L + o more. A packet that reduces is processed where it arrives, and may be sent back.

Source: ASTRA-sim's MemBus, LogGP and MemMovRequest at 518bd51, with ``model-shared-bus``.
"""

from numba import int64, void

from perfmodel.astra import layout as c
from perfmodel.astra.event_recorder import add_vertex, note_order
from perfmodel.astra.jit import compiled, rare
from perfmodel.astra.messages import hash_of
from perfmodel.astra.timers import give_back, set_timer, take

PATIENCE = 8
"""Transmissions in a row after which a side lets the other one send, which has sent fewer."""


@compiled
def side_of(m, rank, number):
    """The record of one side of a rank's buses."""
    return m[c.SIDES] + (4 * rank + number) * c.SIDE_W


@compiled
def is_inner(m, side):
    """1 for the sides of an inner bus."""
    return ((side - m[c.SIDES]) // c.SIDE_W) % 4 // 2


@compiled
def partner_of(m, side):
    """The other side of a bus."""
    odd = ((side - m[c.SIDES]) // c.SIDE_W) % 2
    return side - c.SIDE_W if odd == 1 else side + c.SIDE_W


@compiled
def append(m, head, request):
    """Put a request at the end of the list whose head and tail are the words at `head` and after it."""
    m[request + c.NEXT] = 0
    if m[head] == 0:
        m[head] = request
    else:
        m[m[head + 1] + c.NEXT] = request
    m[head + 1] = request


@rare(void)
def request_packet(t, m, f, now, k, reduction, flags, size, vertex):
    """A chunk asks for a packet; `flags` say which way it goes, whether it reduces, and whether it is sent back."""
    rank = m[k + c.CHUNK_RANK]
    r = take(m, c.REQUESTS)
    m[r + c.REQUEST_CHUNK] = k
    m[r + c.REQUEST_REDUCTION] = reduction
    m[r + c.REQUEST_SIZE] = size
    m[r + c.REQUEST_PROCESSED] = 1 if reduction >= 0 else 0
    m[r + c.REQUEST_BACK] = 1 if flags & c.SENT_BACK else 0
    m[r + c.REQUEST_VERTEX] = vertex
    m[r + c.REQUEST_OUTER] = 0
    if flags & c.TO_NPU:
        request_read(t, m, f, now, side_of(m, rank, c.MEMORY_SIDE), r, vertex)
    else:
        m[r + c.REQUEST_AFTER] = c.THEN_SEND
        ask_inner(t, m, f, now, rank, c.INNER_MEMORY_SIDE, r, 0, vertex)


@compiled
def ask_inner(t, m, f, now, rank, number, outer, back, vertex):
    """Move an outer request over the inner bus, starting at one of its sides."""
    r = take(m, c.REQUESTS)
    m[r + c.REQUEST_CHUNK] = m[outer + c.REQUEST_CHUNK]
    m[r + c.REQUEST_SIZE] = m[outer + c.REQUEST_SIZE]
    m[r + c.REQUEST_PROCESSED] = 0
    m[r + c.REQUEST_BACK] = back
    m[r + c.REQUEST_VERTEX] = vertex
    m[r + c.REQUEST_OUTER] = outer
    m[r + c.REQUEST_AFTER] = m[outer + c.REQUEST_AFTER]
    request_read(t, m, f, now, side_of(m, rank, number), r, vertex)


@compiled
def request_read(t, m, f, now, side, r, cause):
    """Queue a request at a side, which sends it if it is free."""
    append(m, side + c.SIDE_SENDS, r)
    if m[side + c.SIDE_STATE] == c.SIDE_FREE:
        take_turn(t, m, f, now, side, cause)


@compiled
def take_turn(t, m, f, now, side, cause):
    """A free side sends its next request, or lets the partner go first."""
    if m[side + c.SIDE_STATE] != c.SIDE_FREE or m[side + c.SIDE_SENDS] == 0:
        return
    partner = partner_of(m, side)
    if (
        m[side + c.SIDE_READS] > PATIENCE
        and m[partner + c.SIDE_SENDS] > 0
        and m[partner + c.SIDE_READS] <= PATIENCE
    ):
        if m[partner + c.SIDE_STATE] == c.SIDE_FREE:
            transmit_next(t, m, f, now, partner, side, cause)
        return
    transmit_next(t, m, f, now, side, partner, cause)


@compiled
def transmit_next(t, m, f, now, side, partner, cause):
    """Send the first request of a side."""
    r = m[side + c.SIDE_SENDS]
    m[side + c.SIDE_SENDS] = m[r + c.NEXT]
    inner = is_inner(m, side)
    size = t[c.T_SIZES] + m[r + c.REQUEST_SIZE] * c.SIZE_W
    overhead = float(t[c.T_BUS_OVERHEAD])
    offset = overhead
    start = add_vertex(m, t[c.T_BUS_OVERHEAD_ROW], m[r + c.REQUEST_VERTEX], cause)
    if m[side + c.SIDE_BEFORE] == c.SIDE_SENDING:
        gap = float(t[c.T_BUS_GAP])
        since = now - f[side + c.SIDE_LAST]
        if overhead + since <= gap:
            offset = gap - since
        after = add_vertex(m, t[c.T_BUS_GAP_ROW], m[side + c.SIDE_VERTEX], -1)
        start = add_vertex(m, -1, start, after)
    chunk = m[r + c.REQUEST_CHUNK]
    tag = m[chunk + c.CHUNK_TAG] * 16 + m[chunk + c.CHUNK_STEP]
    item = hash_of(tag, m[r + c.REQUEST_AFTER], m[r + c.REQUEST_BACK], m[r + c.REQUEST_SIZE])
    note_order(m, c.BUS_ORDER + side - m[c.SIDES], m[side + c.SIDE_COUNT], item)
    m[side + c.SIDE_COUNT] += 1
    wire = f[m[c.BUS_PER_BYTE] + inner] * float(t[size + c.SIZE_BYTES] - 1)
    rank = (side - m[c.SIDES]) // c.SIDE_W // 4
    append(m, partner + c.SIDE_RECEIVES, r)
    m[partner + c.SIDE_BEFORE] = m[partner + c.SIDE_STATE]
    m[partner + c.SIDE_STATE] = c.SIDE_RECEIVING
    m[partner + c.SIDE_READS] = 0
    end = add_vertex(m, t[size + c.SIZE_BUS_ARRIVE + 2 * inner], start, -1)
    time = now + float(int(((offset + wire) + float(t[c.T_BUS_LATENCY])) + overhead))
    set_timer(m, f, rank, time, c.BUS_RECEIVED, partner, 0, end)
    m[side + c.SIDE_STATE] = c.SIDE_SENDING
    end = add_vertex(m, t[size + c.SIZE_BUS_HOLD + 2 * inner], start, -1)
    set_timer(m, f, rank, now + float(int(offset + wire)), c.BUS_SENT, side, 0, end)


@compiled
def process(t, m, f, now, side, cause):
    """A side that processes nothing starts with its next packet."""
    r = m[side + c.SIDE_WORK]
    if m[side + c.SIDE_BUSY] == 1 or r == 0:
        return
    m[side + c.SIDE_BUSY] = 1
    number = (side - m[c.SIDES]) // c.SIDE_W
    size = t[c.T_SIZES] + m[r + c.REQUEST_SIZE] * c.SIZE_W
    end = add_vertex(m, t[size + c.SIZE_PROCESS], m[r + c.REQUEST_VERTEX], cause)
    time = now + float(t[size + c.SIZE_BYTES] // 100 * t[c.T_BUS_REDUCTION] + 50)
    set_timer(m, f, number // 4, time, c.BUS_PROCESSED, side, 0, end)


@rare(int64)
def bus_event(t, m, f, now, kind, side, vertex):
    """What happens first when a transmission or the processing at a side is over.

    Returns the request whose packet is there, 0 for none; after its delivery `end_bus_event` does the rest.
    """
    m[side + c.SIDE_TALKED] = 0
    if kind == c.BUS_PROCESSED:
        r = m[side + c.SIDE_WORK]
        m[side + c.SIDE_WORK] = m[r + c.NEXT]
        m[side + c.SIDE_BUSY] = 0
        m[r + c.REQUEST_VERTEX] = vertex
        return route(t, m, f, now, side, r, vertex)
    f[side + c.SIDE_LAST] = now
    m[side + c.SIDE_VERTEX] = vertex
    m[side + c.SIDE_BEFORE] = m[side + c.SIDE_STATE]
    if kind == c.BUS_SENT:
        m[side + c.SIDE_STATE] = c.SIDE_FREE
        m[side + c.SIDE_READS] += 1
        return 0
    r = m[side + c.SIDE_RECEIVES]
    m[side + c.SIDE_RECEIVES] = m[r + c.NEXT]
    if m[side + c.SIDE_RECEIVES] == 0:
        m[side + c.SIDE_STATE] = c.SIDE_FREE
    m[r + c.REQUEST_VERTEX] = vertex
    if m[r + c.REQUEST_PROCESSED] == 0:
        return route(t, m, f, now, side, r, vertex)
    m[r + c.REQUEST_PROCESSED] = 0
    if at_npu(m, side):
        m[r + c.REQUEST_AFTER] = c.THEN_PROCESS
        rank = (side - m[c.SIDES]) // c.SIDE_W // 4
        ask_inner(t, m, f, now, rank, c.INNER_NPU_SIDE, r, 1, vertex)
    else:
        append(m, side + c.SIDE_WORK, r)
    process(t, m, f, now, side, vertex)
    return 0


@compiled
def at_npu(m, side):
    """Whether a side is that of the NPU on the outer bus, which moves requests over the inner one."""
    return ((side - m[c.SIDES]) // c.SIDE_W) % 4 == c.NPU_SIDE


@compiled
def route(t, m, f, now, side, r, vertex):
    """Where a request goes that needs no processing (any more): back, over the inner bus, or to its packet."""
    back = m[r + c.REQUEST_BACK]
    if at_npu(m, side):
        rank = (side - m[c.SIDES]) // c.SIDE_W // 4
        m[r + c.REQUEST_AFTER] = c.THEN_SEND if back == 1 else c.THEN_DELIVER
        m[r + c.REQUEST_BACK] = 0
        ask_inner(t, m, f, now, rank, c.INNER_NPU_SIDE, r, back, vertex)
        return 0
    if back == 1:
        m[r + c.REQUEST_BACK] = 0
        append(m, side + c.SIDE_SENDS, r)
        return 0
    if is_inner(m, side) == 0:
        return r
    return end_inner(t, m, f, now, side, r, vertex)


@compiled
def end_inner(t, m, f, now, side, r, vertex):
    """A request has crossed the inner bus: the outer one that it served goes on at the side of the NPU."""
    outer = m[r + c.REQUEST_OUTER]
    give_back(m, c.REQUESTS, r)
    m[side + c.SIDE_TALKED] = 1
    m[outer + c.REQUEST_VERTEX] = vertex
    npu = side_of(m, (side - m[c.SIDES]) // c.SIDE_W // 4, c.NPU_SIDE)
    if m[outer + c.REQUEST_AFTER] == c.THEN_DELIVER:
        return outer
    if m[outer + c.REQUEST_AFTER] == c.THEN_SEND:
        append(m, npu + c.SIDE_SENDS, outer)
    else:
        append(m, npu + c.SIDE_WORK, outer)
        process(t, m, f, now, npu, vertex)
    return 0


@rare(void)
def end_bus_event(t, m, f, now, kind, side, vertex):
    """After a delivery: the next packet is processed, and free sides send."""
    talked = m[side + c.SIDE_TALKED]
    if kind == c.BUS_PROCESSED:
        process(t, m, f, now, side, vertex)
    if talked == 1:
        rank = (side - m[c.SIDES]) // c.SIDE_W // 4
        take_turn(t, m, f, now, side_of(m, rank, c.NPU_SIDE), vertex)
    take_turn(t, m, f, now, side, vertex)
