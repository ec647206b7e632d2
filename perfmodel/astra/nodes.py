"""Nodes of the compiled simulator: issue, resources, memory servers, ends.

A rank tries its ready nodes in ascending id whenever something on it ends; each is issued if its resource (CPU,
compute, communication) is free, receives always.
"""

from numba import void

from perfmodel.astra import layout as c
from perfmodel.astra.event_recorder import (
    add_edge,
    add_vertex,
    begin_vertex,
    drain_cells,
    log,
    new_cell,
    note_order,
)
from perfmodel.astra.jit import compiled, rare
from perfmodel.astra.messages import cost_of, post, send
from perfmodel.astra.stations import begin_collective, enqueue, leave, start_waiting
from perfmodel.astra.timers import give_back, set_timer


@compiled
def rank_at(m, number):
    """The record of a rank."""
    return m[c.RANKS] + number * m[c.RANK_WORDS]


@compiled
def state_of(m, n):
    """What changes of a node."""
    return m[c.NODES] + n * c.NODE_STATE_W


@compiled
def push_ready(t, m, n):
    """Insert a node into the heap of its rank and resource."""
    node = t[c.T_NODES] + n * c.NODE_W
    number, unit = t[node + c.NODE_RANK], t[node + c.NODE_UNIT]
    heap = m[c.READY] + t[t[c.T_READY_PTR] + number * 4 + unit]
    count = rank_at(m, number) + c.RANK_READY + unit
    i = m[count]
    m[count] = i + 1
    while i > 0:
        up = (i - 1) >> 1
        if m[heap + up] < n:
            break
        m[heap + i] = m[heap + up]
        i = up
    m[heap + i] = n


@compiled
def pop_ready(t, m, number, unit):
    """Remove the lowest ready node of a rank and resource."""
    heap = m[c.READY] + t[t[c.T_READY_PTR] + number * 4 + unit]
    place = rank_at(m, number) + c.RANK_READY + unit
    count = m[place] - 1
    m[place] = count
    moved = m[heap + count]
    i = 0
    while 2 * i + 1 < count:
        child = 2 * i + 1
        if child + 1 < count and m[heap + child + 1] < m[heap + child]:
            child += 1
        if moved < m[heap + child]:
            break
        m[heap + i] = m[heap + child]
        i = child
    m[heap + i] = moved


@compiled
def issue_pass(t, m, f, now, number, trigger):
    """Try all nodes that are ready now in ascending id; `trigger` is the node that has just ended, or -1."""
    rank = rank_at(m, number)
    deferred = 0
    while True:
        best = -1
        chosen = 0
        for unit in range(4):
            free = unit == c.RECEIVE or m[rank + c.RANK_BUSY + unit] == 0
            if free and m[rank + c.RANK_READY + unit] > 0:
                n = m[m[c.READY] + t[t[c.T_READY_PTR] + number * 4 + unit]]
                if best < 0 or n < best:
                    best = n
                    chosen = unit
        if best < 0:
            break
        pop_ready(t, m, number, chosen)
        vertex = issue_vertex(t, m, best, trigger)
        f[state_of(m, best) + c.NODE_ISSUE] = now
        log(m, best * 2)
        if t[t[c.T_NODES] + best * c.NODE_W + c.NODE_ACTION] == c.SKIP:
            deferred = finish_node(t, m, f, now, best, vertex, deferred)
        else:
            if chosen != c.RECEIVE:
                m[rank + c.RANK_BUSY + chosen] = 1
            issue_node(t, m, f, now, best, vertex)
    for i in range(deferred):
        push_ready(t, m, m[m[c.DEFERRED] + i])


@compiled
def issue_vertex(t, m, n, trigger):
    """The vertex of a node's issue: after its prerequisites, the last user of its resource, and the pass.

    The pass counts where the node became ready without one (after a node that is skipped).
    """
    node = t[c.T_NODES] + n * c.NODE_W
    number, unit = t[node + c.NODE_RANK], t[node + c.NODE_UNIT]
    rank = rank_at(m, number)
    limited = unit != c.RECEIVE
    v = begin_vertex(m, t[node + c.NODE_ROW] if t[node + c.NODE_ACTION] == c.TIMER else -1)
    extra = trigger >= 0 and not (limited and m[rank + c.RANK_LAST + unit] == trigger)
    pointer = t[c.T_PREDECESSOR_PTR] + n
    for e in range(t[pointer], t[pointer + 1]):
        before = t[t[c.T_PREDECESSOR] + e]
        add_edge(m, v, m[state_of(m, before) + c.NODE_LAST])
        extra = extra and before != trigger
    if extra:
        add_edge(m, v, m[state_of(m, trigger) + c.NODE_LAST])
        note_order(m, c.EXTRA_ORDER, n, trigger)
    if limited:
        add_edge(m, v, m[rank + c.RANK_VERTEX + unit])
        issued = m[rank + c.RANK_ISSUED + unit]
        m[rank + c.RANK_ISSUED + unit] = issued + 1
        note_order(m, c.UNIT_ORDER + number * 4 + unit, issued, n)
    m[state_of(m, n) + c.NODE_FIRST] = v
    return v


@compiled
def issue_node(t, m, f, now, n, vertex):
    """Start a node that takes time."""
    node = t[c.T_NODES] + n * c.NODE_W
    action = t[node + c.NODE_ACTION]
    rank = t[node + c.NODE_RANK]
    peer, tag, size = t[node + c.NODE_PEER], t[node + c.NODE_TAG], t[node + c.NODE_SIZE]
    if action == c.TIMER:
        time = now + cost_of(m, f, t[node + c.NODE_ROW])
        set_timer(m, f, rank, time, c.NODE_ENDS, n, 0, vertex)
    elif action == c.SEND:
        send(t, m, f, now, tag, rank, peer, size, c.BY_NODE, n, 0, vertex)
    elif action == c.RECV:
        post(t, m, f, now, tag, peer, rank, size, c.BY_NODE, n, 0, vertex)
    elif action == c.MEMORY:
        ask_server(t, m, f, now, n, vertex)
    elif action == c.COLLECTIVE:
        begin_collective(t, m, f, now, n, vertex)


@compiled
def ask_server(t, m, f, now, n, vertex):
    """A memory node: at once where every rank has its own memory, else one at a time per server."""
    node = t[c.T_NODES] + n * c.NODE_W
    row = t[node + c.NODE_ROW]
    if t[node + c.NODE_SERVER] < 0:
        end = add_vertex(m, row, vertex, -1)
        time = now + cost_of(m, f, row)
        set_timer(m, f, t[node + c.NODE_RANK], time, c.NODE_ENDS, n, 0, end)
        return
    server = m[c.SERVERS] + t[node + c.NODE_SERVER] * c.SERVER_W
    if m[server + c.SERVER_BUSY] == 0:
        begin_transfer(t, m, f, now, n, server)
        return
    m[state_of(m, n) + c.NODE_NEXT] = -1
    if m[server + c.SERVER_HEAD] < 0:
        m[server + c.SERVER_HEAD] = n
    else:
        m[state_of(m, m[server + c.SERVER_TAIL]) + c.NODE_NEXT] = n
    m[server + c.SERVER_TAIL] = n


@rare(void)
def begin_transfer(t, m, f, now, n, server):
    """A memory server starts to serve a node; the node ends before the server is free."""
    node = t[c.T_NODES] + n * c.NODE_W
    row, rank = t[node + c.NODE_ROW], t[node + c.NODE_RANK]
    end = add_vertex(m, row, m[state_of(m, n) + c.NODE_FIRST], m[server + c.SERVER_VERTEX])
    note_order(m, c.SERVER_ORDER + server - m[c.SERVERS], m[server + c.SERVER_COUNT], n)
    m[server + c.SERVER_COUNT] += 1
    m[server + c.SERVER_BUSY] = 1
    m[server + c.SERVER_VERTEX] = end
    time = now + cost_of(m, f, row)
    set_timer(m, f, rank, time, c.NODE_ENDS, n, 0, end)
    set_timer(m, f, rank, time, c.SERVER_FREE, server, 0, end)


@rare(void)
def free_server(t, m, f, now, server):
    """A memory server turns to the node that waits longest.

    With PER_NODE_MEMORY_EXPANSION ASTRA-sim reads a request here that it has given back. Mostly that is harmless; where
    the memory was used anew meanwhile (the end of a rank writes much) it reads anything: no rule says what comes then.
    """
    m[server + c.SERVER_BUSY] = 0
    n = m[server + c.SERVER_HEAD]
    if n >= 0:
        m[server + c.SERVER_HEAD] = m[state_of(m, n) + c.NODE_NEXT]
        begin_transfer(t, m, f, now, n, server)


@compiled
def finish_node(t, m, f, now, n, vertex, deferred):
    """Mark a node as done. Successors that become ready go to the heaps, or to the list when deferred >= 0."""
    f[state_of(m, n) + c.NODE_FINISH] = now
    m[state_of(m, n) + c.NODE_LAST] = vertex
    m[rank_at(m, t[t[c.T_NODES] + n * c.NODE_W + c.NODE_RANK]) + c.RANK_DONE] += 1
    pointer = t[c.T_SUCCESSOR_PTR] + n
    for e in range(t[pointer], t[pointer + 1]):
        after = t[t[c.T_SUCCESSOR] + e]
        waits = state_of(m, after) + c.NODE_WAITS
        m[waits] -= 1
        if m[waits] == 0:
            if deferred < 0:
                push_ready(t, m, after)
            else:
                m[m[c.DEFERRED] + deferred] = after
                deferred += 1
    return deferred


@compiled
def complete_node(t, m, f, now, n, vertex):
    """A node ends: its resource is free, its rank issues what it can, and may be finished."""
    node = t[c.T_NODES] + n * c.NODE_W
    number, unit = t[node + c.NODE_RANK], t[node + c.NODE_UNIT]
    rank = rank_at(m, number)
    log(m, n * 2 + 1)
    if unit != c.RECEIVE:
        m[rank + c.RANK_BUSY + unit] = 0
        m[rank + c.RANK_VERTEX + unit] = vertex
        m[rank + c.RANK_LAST + unit] = n
    finish_node(t, m, f, now, n, vertex, -1)
    issue_pass(t, m, f, now, number, n)
    check_finished(m, f, now, number)


@compiled
def check_finished(m, f, now, number):
    """A rank whose nodes are all done is finished."""
    rank = rank_at(m, number)
    if m[rank + c.RANK_FINISHED] == 0 and m[rank + c.RANK_DONE] == m[rank + c.RANK_NODES]:
        m[rank + c.RANK_FINISHED] = 1
        f[rank + c.RANK_END] = now
        log(m, -1 - number)
        m[c.FINISHED] += 1


@compiled
def end_phase(t, m, f, now, k, vertex):
    """A chunk has ended a phase: on to the next one, or the chunk is done.

    With the last chunk the node ends and the rank issues its next work before the chunk leaves its place.
    """
    station = m[k + c.CHUNK_STATION]
    node = m[k + c.CHUNK_NODE]
    tag = m[k + c.CHUNK_TAG]
    if m[k + c.CHUNK_STEP] + 1 == m[k + c.CHUNK_STEPS]:
        others = m[rank_at(m, m[k + c.CHUNK_RANK]) + c.RANK_LEFT] - 1
        end_chunk(t, m, f, now, k, vertex)
        leave(t, m, f, now, station, node, tag, vertex, others)
        give_back(m, c.CHUNKS, k)
        start_waiting(t, m, f, now, station)
        return
    m[k + c.CHUNK_STEP] += 1
    m[k + c.CHUNK_PHASE] += c.PHASE_W
    m[k + c.CHUNK_JOINED] = vertex
    enqueue(t, m, k)
    joined = m[k + c.CHUNK_STATION]
    leave(t, m, f, now, station, node, tag, vertex, 1)
    start_waiting(t, m, f, now, station)
    start_waiting(t, m, f, now, joined)


@compiled
def end_chunk(t, m, f, now, k, vertex):
    """Count a chunk of the collective in flight; the last one ends the node."""
    rank = rank_at(m, m[k + c.CHUNK_RANK])
    if m[c.RECORD] == 1:
        m[rank + c.RANK_CELLS] = new_cell(m, vertex, m[rank + c.RANK_CELLS])
    m[rank + c.RANK_LEFT] -= 1
    if m[rank + c.RANK_LEFT] > 0:
        return
    end = begin_vertex(m, -1)
    drain_cells(m, end, rank + c.RANK_CELLS)
    complete_node(t, m, f, now, m[k + c.CHUNK_NODE], end)
