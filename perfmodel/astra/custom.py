"""Custom collectives of the compiled simulator: a small trace of sends, receives and reductions per rank.

Nodes run as soon as their prerequisites are done, without limit on resources; the chunk ends with the last.
"""

from perfmodel.astra import state as c
from perfmodel.astra.compiled import compiled
from perfmodel.astra.messages import cost_of, post, send
from perfmodel.astra.record import add_edge, begin_vertex
from perfmodel.astra.timers import set_timer

GOES_ON = -2


@compiled
def range_of(t, m, k):
    """First and last node (exclusive) of the trace that a chunk runs on its rank."""
    position = t[t[c.T_NODES] + m[k + c.CHUNK_NODE] * c.NODE_W + c.NODE_POSITION]
    place = t[c.T_CUSTOM_PTR] + t[m[k + c.CHUNK_PHASE] + c.PHASE_STEPS] + position
    return t[place], t[place + 1]


@compiled
def begin_custom(t, m, f, now, k, cause):
    """Issue the nodes without prerequisites."""
    rank = m[k + c.CHUNK_RANK]
    low, high = range_of(t, m, k)
    waits = m[c.CUSTOM_STATE] + rank * m[c.CUSTOM_ROOM] * 2
    m[m[c.RANKS] + rank * m[c.RANK_WORDS] + c.RANK_CUSTOM_DONE] = 0
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
        post(m, f, now, tag, peer, rank, size, c.BY_CUSTOM, k, i, v)


@compiled
def end_custom(t, m, f, now, k, i, vertex):
    """A node has ended: issue what it made ready. Returns the vertex of the chunk's end, or `GOES_ON`."""
    rank = m[k + c.CHUNK_RANK]
    node = t[c.T_CUSTOMS] + i * c.CUSTOM_W
    low, high = range_of(t, m, k)
    waits = m[c.CUSTOM_STATE] + rank * m[c.CUSTOM_ROOM] * 2
    done = m[c.RANKS] + rank * m[c.RANK_WORDS] + c.RANK_CUSTOM_DONE
    m[waits + 2 * (i - low) + 1] = vertex
    m[done] += 1
    for e in range(t[node + c.CUSTOM_NEXT], t[node + c.CUSTOM_NEXT_END]):
        after = t[t[c.T_CUSTOM_SUCCESSOR] + e]
        m[waits + 2 * (after - low)] -= 1
        if m[waits + 2 * (after - low)] == 0:
            issue_custom(t, m, f, now, k, after, -1)
    if m[done] < high - low:
        return GOES_ON
    end = begin_vertex(m, -1)
    for j in range(low, high):
        other = t[c.T_CUSTOMS] + j * c.CUSTOM_W
        if t[other + c.CUSTOM_NEXT] == t[other + c.CUSTOM_NEXT_END]:
            add_edge(m, end, m[waits + 2 * (j - low) + 1])
    return end
