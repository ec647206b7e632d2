"""Native collective algorithms as state machines of one chunk on one rank.

Ring, direct and halving-doubling share one frame: slots fill after the endpoint delay (and the reduction where
the packet reduces), a filled slot sends one message and posts its receive, a receive refills a slot, and the
phase ends when all messages are out and the window's slots are full. The double binary tree goes up and down a
tree. `filled` returns the vertex at which the phase ended, or `GOES_ON`.

Source: ASTRA-sim's Ring, AllToAll, HalvingDoubling, DoubleBinaryTreeAllReduce and PacketBundle at 518bd51.
"""

from numba import int64, void

from perfmodel.astra import layout as c
from perfmodel.astra.event_recorder import (
    add_edge,
    add_vertex,
    begin_vertex,
    drain_cells,
    new_cell,
    note_order,
    pop_cell,
    push_cell,
)
from perfmodel.astra.jit import compiled, rare
from perfmodel.astra.messages import cost_of, hash_of, post, send
from perfmodel.astra.shared_bus import request_packet
from perfmodel.astra.timers import set_timer

GOES_ON = -2


@compiled
def rank_of(t, m, k, place):
    """The rank of a member of a chunk's present phase."""
    phase = m[k + c.CHUNK_PHASE]
    stride = t[phase + c.PHASE_STRIDE]
    if stride > 0:
        return m[k + c.CHUNK_BASE] + place * stride
    return t[t[c.T_MEMBERS] + t[phase + c.PHASE_LIST] + place]


@compiled
def begin_phase(t, m, f, now, k, cause):
    """A chunk gets its place in the queue of its phase and starts."""
    phase = m[k + c.CHUNK_PHASE]
    for field in (c.CHUNK_INSERTED, c.CHUNK_SENT, c.CHUNK_RECEIVED, c.CHUNK_FREE, c.CHUNK_FILLS):
        m[k + field] = 0
    for field in (c.CHUNK_HEAD, c.CHUNK_TAIL, c.CHUNK_POSTS):
        m[k + field] = 0
    m[k + c.CHUNK_GATE] = -1
    stride = t[phase + c.PHASE_STRIDE]
    rank = m[k + c.CHUNK_RANK]
    if stride > 0:
        index = (rank // stride) % t[phase + c.PHASE_MEMBERS]
        m[k + c.CHUNK_BASE] = rank - index * stride
    else:
        index = t[t[c.T_NODES] + m[k + c.CHUNK_NODE] * c.NODE_W + c.NODE_MEMBER]
    m[k + c.CHUNK_INDEX] = index
    if t[phase + c.PHASE_ALGORITHM] == c.TREE:
        begin_tree(t, m, f, now, k, cause)
        return
    for _ in range(t[phase + c.PHASE_WINDOW]):
        insert(t, m, f, now, k, cause, -1)


@compiled
def insert(t, m, f, now, k, before, also):
    """Start to fill a slot; `before` and `also` are what it waited for."""
    phase = m[k + c.CHUNK_PHASE]
    j = m[k + c.CHUNK_INSERTED]
    m[k + c.CHUNK_INSERTED] = j + 1
    reduces = t[phase + c.PHASE_REDUCES]
    period, window = t[phase + c.PHASE_PERIOD], t[phase + c.PHASE_WINDOW]
    size = t[phase + c.PHASE_SIZE]
    reduction = -1
    if t[phase + c.PHASE_ALGORITHM] == c.HALVING:
        step = t[c.T_STEPS] + (t[phase + c.PHASE_STEPS] + j) * c.STEP_W
        reduction = t[step + c.STEP_REDUCTION]
        size = t[step + c.STEP_BUS_SIZE]
    elif reduces > 0 and j % period >= window and (reduces == 2 or (j // period) % 2 == 0):
        reduction = t[phase + c.PHASE_REDUCTION]
    flags = 0
    if j % period >= window:
        flags = c.TO_NPU | c.SENT_BACK if period - j % period > window else c.TO_NPU
    fill(t, m, f, now, k, reduction, flags, size, before, also)


@compiled
def fill(t, m, f, now, k, reduction, flags, size, before, also):
    """The endpoint delay or the shared bus, and after it the reduction, if any."""
    phase = m[k + c.CHUNK_PHASE]
    row = t[phase + c.PHASE_ROW]
    if t[c.T_BUS] == 1 and t[phase + c.PHASE_STRIDE] > 0:
        vertex = add_vertex(m, -1, before, also)
        request_packet(t, m, f, now, k, reduction, flags, size, vertex)
        return
    vertex = add_vertex(m, row, before, also)
    kind = c.FILLED if reduction < 0 else c.BEFORE_REDUCTION
    set_timer(m, f, m[k + c.CHUNK_RANK], now + cost_of(m, f, row), kind, k, reduction, vertex)


@compiled
def reduce(m, f, now, k, reduction, vertex):
    """The endpoint delay is over, the local reduction begins."""
    after = add_vertex(m, reduction, vertex, -1)
    end = now + cost_of(m, f, reduction)
    set_timer(m, f, m[k + c.CHUNK_RANK], end, c.FILLED, k, reduction, after)


@compiled
def exchange(t, m, f, now, k, cause):
    """Use a filled slot: send the next message and post the receive it is paired with."""
    phase = m[k + c.CHUNK_PHASE]
    algorithm = t[phase + c.PHASE_ALGORITHM]
    n = t[phase + c.PHASE_MEMBERS]
    size = t[phase + c.PHASE_SIZE]
    index = m[k + c.CHUNK_INDEX]
    q = m[k + c.CHUNK_SENT]
    m[k + c.CHUNK_SENT] = q + 1
    m[k + c.CHUNK_FREE] -= 1
    if algorithm == c.HALVING:
        step = t[c.T_STEPS] + (t[phase + c.PHASE_STEPS] + q) * c.STEP_W
        distance = t[step + c.STEP_DISTANCE]
        size = t[step + c.STEP_SIZE]
        target = (index + (distance if (index // distance) % 2 == 0 else -distance)) % n
        source = target
    else:
        offset = m[k + c.CHUNK_DIRECTION]
        if algorithm == c.DIRECT:
            offset *= 1 + q % (n - 1)
        target = (index + offset) % n
        source = (index - offset) % n
    there = rank_of(t, m, k, target)
    here = rank_of(t, m, k, source)
    rank = m[k + c.CHUNK_RANK]
    tag = m[k + c.CHUNK_TAG]
    send(t, m, f, now, tag, rank, there, size, c.NOBODY, 0, 0, cause)
    post(t, m, f, now, tag, here, rank, size, c.BY_CHUNK, k, q, cause)


@compiled
def filled(t, m, f, now, k, reduction, vertex):
    """A slot is full, with `reduction` (a row, -1 for none) as the last that it took."""
    phase = m[k + c.CHUNK_PHASE]
    m[k + c.CHUNK_FILLS] += 1
    algorithm = t[phase + c.PHASE_ALGORITHM]
    if algorithm == c.TREE:
        return fill_tree(t, m, f, now, k, vertex)
    m[k + c.CHUNK_FREE] += 1
    if algorithm == c.DIRECT:
        if fills_again(t, phase):
            note_fill(m, k, reduction)
        return fill_direct(t, m, f, now, k, vertex)
    sends = t[phase + c.PHASE_SENDS]
    if m[k + c.CHUNK_SENT] < sends:
        exchange(t, m, f, now, k, vertex)
    if m[k + c.CHUNK_SENT] == sends and m[k + c.CHUNK_FREE] == 1:
        return vertex
    return GOES_ON


@compiled
def fill_direct(t, m, f, now, k, vertex):
    """A slot of `direct` is full. An all-reduce's second round opens with the first fill after all receives."""
    phase = m[k + c.CHUNK_PHASE]
    sends = t[phase + c.PHASE_SENDS]
    window = t[phase + c.PHASE_WINDOW]
    others = t[phase + c.PHASE_MEMBERS] - 1
    push_cell(m, k, vertex)
    if t[phase + c.PHASE_GATED] == 1 and sends - m[k + c.CHUNK_SENT] <= others:
        if m[k + c.CHUNK_RECEIVED] < others:
            return GOES_ON
        if m[k + c.CHUNK_GATE] == -1:
            open_gate(m, k, vertex)
        for _ in range(window):
            if m[k + c.CHUNK_SENT] < sends and m[k + c.CHUNK_FREE] > 0:
                slot = pop_cell(m, k)
                exchange(t, m, f, now, k, add_vertex(m, -1, m[k + c.CHUNK_GATE], slot))
    elif m[k + c.CHUNK_SENT] < sends:
        exchange(t, m, f, now, k, pop_cell(m, k))
    if m[k + c.CHUNK_SENT] == sends and m[k + c.CHUNK_FREE] == window:
        end = begin_vertex(m, -1)
        drain_cells(m, end, k + c.CHUNK_HEAD)
        return end
    return GOES_ON


@compiled
def open_gate(m, k, vertex):
    """The moment from which the second round may send: after all first-round receives, at this fill."""
    gate = begin_vertex(m, -1)
    add_edge(m, gate, vertex)
    drain_cells(m, gate, k + c.CHUNK_POSTS)
    m[k + c.CHUNK_GATE] = gate if gate >= 0 else -2
    note_order(
        m,
        c.FILL_ORDER + m[k + c.CHUNK_RANK],
        m[k + c.CHUNK_FILLS],
        m[k + c.CHUNK_TAG] * 16 + m[k + c.CHUNK_STEP],
    )


@compiled
def received(t, m, f, now, k, q, arrival, posted):
    """Message number q of a chunk is received."""
    phase = m[k + c.CHUNK_PHASE]
    m[k + c.CHUNK_RECEIVED] += 1
    algorithm = t[phase + c.PHASE_ALGORITHM]
    if algorithm == c.TREE:
        role = t[t[c.T_TREES] + m[k + c.CHUNK_TREE] * c.TREE_W + c.TREE_ROLE]
        reduction = -1 if role == c.LEAF else t[phase + c.PHASE_REDUCTION]
        back = role == c.TOP or (role == c.INNER and m[k + c.CHUNK_RECEIVED] > 1)
        flags = c.TO_NPU | c.SENT_BACK if back else c.TO_NPU
        size = t[phase + c.PHASE_SIZE]
        fill(t, m, f, now, k, reduction, flags, size, arrival, posted)
        return
    if algorithm == c.DIRECT:
        if fills_again(t, phase):
            note_receive(m, k, q)
        if t[phase + c.PHASE_GATED] == 1 and m[k + c.CHUNK_GATE] < 0 and m[c.RECORD] == 1:
            m[k + c.CHUNK_POSTS] = new_cell(m, arrival, m[k + c.CHUNK_POSTS])
            m[k + c.CHUNK_POSTS] = new_cell(m, posted, m[k + c.CHUNK_POSTS])
    insert(t, m, f, now, k, arrival, posted)


@compiled
def fills_again(t, phase):
    """Whether slots of `direct` send again after a receive: then it matters which of them is full first."""
    gated = t[phase + c.PHASE_GATED] == 1
    return gated or t[phase + c.PHASE_WINDOW] < t[phase + c.PHASE_MEMBERS] - 1


@compiled
def note_receive(m, k, q):
    """The order in which messages refill slots decides which of them reduce and what they send on."""
    received = m[k + c.CHUNK_RECEIVED]
    item = hash_of(m[k + c.CHUNK_TAG], m[k + c.CHUNK_STEP], received, q)
    note_order(m, c.FILL_ORDER + m[k + c.CHUNK_RANK], received, item)


@compiled
def note_fill(m, k, reduction):
    """A slot whose packet reduces nothing may be full before one that began earlier and reduces."""
    fills = m[k + c.CHUNK_FILLS]
    reduces = 1 if reduction >= 0 else 0
    item = hash_of(m[k + c.CHUNK_TAG], m[k + c.CHUNK_STEP] + c.MAX_PHASES, fills, reduces)
    note_order(m, c.FILL_ORDER + m[k + c.CHUNK_RANK], fills, item)


@compiled
def post_from(t, m, f, now, k, member, cause):
    """Wait for a neighbour in the tree."""
    size = t[m[k + c.CHUNK_PHASE] + c.PHASE_SIZE]
    source = rank_of(t, m, k, member)
    rank = m[k + c.CHUNK_RANK]
    post(t, m, f, now, m[k + c.CHUNK_TAG], source, rank, size, c.BY_CHUNK, k, 0, cause)


@compiled
def send_to(t, m, f, now, k, member, cause):
    """Send the chunk to a neighbour in the tree."""
    size = t[m[k + c.CHUNK_PHASE] + c.PHASE_SIZE]
    target = rank_of(t, m, k, member)
    rank = m[k + c.CHUNK_RANK]
    send(t, m, f, now, m[k + c.CHUNK_TAG], rank, target, size, c.NOBODY, 0, 0, cause)


@rare(void)
def begin_tree(t, m, f, now, k, cause):
    """Leaves start; inner members wait for both children, the top for its only one."""
    phase = m[k + c.CHUNK_PHASE]
    backwards = m[k + c.CHUNK_ROUTE + m[k + c.CHUNK_STEP]] & 1
    place = t[phase + c.PHASE_TREE] + m[k + c.CHUNK_INDEX]
    place += backwards * t[phase + c.PHASE_MEMBERS]
    m[k + c.CHUNK_TREE] = place
    tree = t[c.T_TREES] + place * c.TREE_W
    if t[tree + c.TREE_ROLE] == c.LEAF:
        fill(t, m, f, now, k, -1, 0, t[phase + c.PHASE_SIZE], cause, -1)
        return
    if t[tree + c.TREE_LEFT] >= 0:
        post_from(t, m, f, now, k, t[tree + c.TREE_LEFT], cause)
    if t[tree + c.TREE_RIGHT] >= 0:
        post_from(t, m, f, now, k, t[tree + c.TREE_RIGHT], cause)


@rare(int64)
def fill_tree(t, m, f, now, k, vertex):
    """What a member of the tree does when its n-th delay (and reduction) is over."""
    tree = t[c.T_TREES] + m[k + c.CHUNK_TREE] * c.TREE_W
    role = t[tree + c.TREE_ROLE]
    fills = m[k + c.CHUNK_FILLS]
    if role == c.TOP:
        send_to(t, m, f, now, k, max(t[tree + c.TREE_LEFT], t[tree + c.TREE_RIGHT]), vertex)
        return vertex
    if role == c.LEAF and fills == 2:
        return vertex
    if role == c.INNER and fills == 1:
        m[k + c.CHUNK_GATE] = vertex
        return GOES_ON
    if role == c.INNER and fills == 3:
        send_to(t, m, f, now, k, t[tree + c.TREE_LEFT], vertex)
        send_to(t, m, f, now, k, t[tree + c.TREE_RIGHT], vertex)
        return vertex
    up = vertex if role == c.LEAF else add_vertex(m, -1, m[k + c.CHUNK_GATE], vertex)
    send_to(t, m, f, now, k, t[tree + c.TREE_PARENT], up)
    post_from(t, m, f, now, k, t[tree + c.TREE_PARENT], up)
    return GOES_ON
