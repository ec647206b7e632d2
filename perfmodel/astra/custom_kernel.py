"""Custom collectives of the compiled simulator: a small trace of sends, receives and reductions per rank.

Nodes run as soon as their prerequisites are done, without limit on resources; the chunk ends with the last. Nodes
that become ready at one moment start in the order in which a hash table of libstdc++ holds them (see `hash_order`).
"""

from numba import int64, uint64, void

from perfmodel.astra import layout as c
from perfmodel.astra.event_recorder import add_edge, begin_vertex
from perfmodel.astra.jit import compiled, rare
from perfmodel.astra.messages import cost_of, post, send
from perfmodel.astra.timers import set_timer

GOES_ON = -2


@compiled
def trace_of(t, m, k):
    """Number of the trace that a chunk runs on its rank."""
    position = t[t[c.T_NODES] + m[k + c.CHUNK_NODE] * c.NODE_W + c.NODE_POSITION]
    return t[m[k + c.CHUNK_PHASE] + c.PHASE_STEPS] + position


@compiled
def range_of(t, m, k):
    """First and last node (exclusive) of the trace that a chunk runs on its rank."""
    place = t[c.T_CUSTOM_PTR] + trace_of(t, m, k)
    return t[place], t[place + 1]


@rare(void)
def begin_custom(t, m, f, now, k, cause):
    """Issue the nodes without prerequisites, which come first in the trace's table, in their order."""
    rank = m[k + c.CHUNK_RANK]
    low, high = range_of(t, m, k)
    waits = m[c.CUSTOM_STATE] + rank * m[c.CUSTOM_ROOM] * 2
    record = m[c.RANKS] + rank * m[c.RANK_WORDS]
    m[record + c.RANK_CUSTOM_DONE] = 0
    m[record + c.RANK_CUSTOM_BUCKETS] = t[t[c.T_CUSTOM_BUCKETS] + trace_of(t, m, k)]
    for i in range(low, high):
        node = t[c.T_CUSTOMS] + i * c.CUSTOM_W
        m[waits + 2 * (i - low)] = t[node + c.CUSTOM_INDEGREE]
    for i in range(low, high):
        if t[t[c.T_CUSTOMS] + i * c.CUSTOM_W + c.CUSTOM_INDEGREE] == 0:
            issue_custom(t, m, f, now, k, i, cause)


@compiled
def issue_custom(t, m, f, now, k, i, cause):
    """Start one node; `cause` is the vertex of the phase's start, for nodes without prerequisites."""
    rank = m[k + c.CHUNK_RANK]
    node = t[c.T_CUSTOMS] + i * c.CUSTOM_W
    low, _ = range_of(t, m, k)
    waits = m[c.CUSTOM_STATE] + rank * m[c.CUSTOM_ROOM] * 2
    action = t[node + c.CUSTOM_ACTION]
    row = t[node + c.CUSTOM_ROW]
    v = begin_vertex(m, row if action == c.TIMER else -1)
    add_edge(m, v, cause)
    for e in range(t[node + c.CUSTOM_BEFORE], t[node + c.CUSTOM_BEFORE_END]):
        before = t[t[c.T_CUSTOM_PREDECESSOR] + e]
        add_edge(m, v, m[waits + 2 * (before - low) + 1])
    peer = t[node + c.CUSTOM_PEER]
    group = t[m[k + c.CHUNK_PHASE] + c.PHASE_LIST]
    if group >= 0 and peer >= 0:
        peer = t[t[c.T_MEMBERS] + group + peer]
    tag = t[node + c.CUSTOM_TAG]
    size = t[node + c.CUSTOM_SIZE]
    if action == c.TIMER:
        set_timer(m, f, rank, now + cost_of(m, f, row), c.CUSTOM_ENDS, k, i, v)
    elif action == c.SEND:
        send(t, m, f, now, tag, rank, peer, size, c.BY_CUSTOM, k, i, v)
    else:
        post(t, m, f, now, tag, peer, rank, size, c.BY_CUSTOM, k, i, v)


@rare(int64)
def end_custom(t, m, f, now, k, i, vertex):
    """A node has ended: issue what it made ready. Returns the vertex of the chunk's end, or `GOES_ON`."""
    rank = m[k + c.CHUNK_RANK]
    node = t[c.T_CUSTOMS] + i * c.CUSTOM_W
    low, high = range_of(t, m, k)
    waits = m[c.CUSTOM_STATE] + rank * m[c.CUSTOM_ROOM] * 2
    record = m[c.RANKS] + rank * m[c.RANK_WORDS]
    m[waits + 2 * (i - low) + 1] = vertex
    m[record + c.RANK_CUSTOM_DONE] += 1
    count = 0
    for e in range(t[node + c.CUSTOM_NEXT], t[node + c.CUSTOM_NEXT_END]):
        after = t[t[c.T_CUSTOM_SUCCESSOR] + e]
        m[waits + 2 * (after - low)] -= 1
        if m[waits + 2 * (after - low)] == 0:
            m[m[c.CUSTOM_READY] + count] = after
            count += 1
    chain_ready(t, m, record + c.RANK_CUSTOM_BUCKETS, count)
    j = m[m[c.CUSTOM_CHAIN]]
    while j > 0:
        issue_custom(t, m, f, now, k, m[m[c.CUSTOM_READY] + j - 1], -1)
        j = m[m[c.CUSTOM_CHAIN] + j]
    if m[record + c.RANK_CUSTOM_DONE] < high - low:
        return GOES_ON
    end = begin_vertex(m, -1)
    for j in range(low, high):
        other = t[c.T_CUSTOMS] + j * c.CUSTOM_W
        if t[other + c.CUSTOM_NEXT] == t[other + c.CUSTOM_NEXT_END]:
            add_edge(m, end, m[waits + 2 * (j - low) + 1])
    return end


@compiled
def chain_ready(t, m, place, count):
    """Chain the first `count` nodes of the ready list as the simulator's table holds them.

    The table is empty before; the word at `place` is its number of buckets. Node j of the list, from 1, has link j;
    link 0 is the head of the chain and 0 its end.
    """
    m[m[c.CUSTOM_CHAIN]] = 0
    for j in range(1, count + 1):
        if j > m[place]:
            grow(t, m, place, j - 1)
        insert_link(t, m, m[place], j)
    clear_buckets(t, m, m[place], count)


@compiled
def bucket_of(t, m, buckets, j):
    """Where the table keeps which link is before the first of node j's bucket, plus 1; 0 where it is empty."""
    node = t[c.T_CUSTOMS] + m[m[c.CUSTOM_READY] + j - 1] * c.CUSTOM_W
    return m[c.CUSTOM_HEADS] + int64(uint64(t[node + c.CUSTOM_ID]) % uint64(buckets))


@compiled
def insert_link(t, m, buckets, j):
    """Insert node j at the front of its bucket, which comes first of all where it was empty."""
    chain = m[c.CUSTOM_CHAIN]
    place = bucket_of(t, m, buckets, j)
    before = m[place] - 1
    if before >= 0:
        m[chain + j] = m[chain + before]
        m[chain + before] = j
        return
    after = m[chain]
    m[chain + j] = after
    m[chain] = j
    m[place] = 1
    if after > 0:
        m[bucket_of(t, m, buckets, after)] = j + 1


@compiled
def grow(t, m, place, count):
    """Give the table its next number of buckets, and insert its `count` nodes anew in the order of the chain."""
    clear_buckets(t, m, m[place], count)
    size = t[c.T_BUCKET_COUNTS]
    while t[size] <= m[place]:
        size += 1
    m[place] = t[size]
    chain = m[c.CUSTOM_CHAIN]
    j = m[chain]
    m[chain] = 0
    while j > 0:
        after = m[chain + j]
        insert_link(t, m, m[place], j)
        j = after


@compiled
def clear_buckets(t, m, buckets, count):
    """Empty the buckets of the first `count` nodes."""
    for j in range(1, count + 1):
        m[bucket_of(t, m, buckets, j)] = 0
