"""The event graph that a run records: what has to finish before what, in the order that this run took.

A vertex is added at the moment its time becomes known, after all that it waits for. Every constraint that can
bind at another design under the same order is an edge, not only the one that bound in this run. While nothing is
recorded all vertices are -1 and the functions return at once.

The order itself is condensed into a digest: the sum over all decisions (who is n-th at a resource) of a hash of
the decision, so that it does not depend on how unrelated events interleave.
"""

from numba import int64, uint64

from perfmodel.astra import layout as c
from perfmodel.astra.jit import compiled
from perfmodel.astra.timers import give_back, take


@compiled
def begin_vertex(m, row):
    """Add a vertex without edges; `row` is its cost, -1 for none. Returns it, -1 when nothing is recorded."""
    if m[c.RECORD] == 0:
        return -1
    v = m[c.VERTICES]
    if m[c.VERTEX_ROW] + v >= m[c.VERTEX_END]:
        m[c.FULL] = c.VERTEX_ROW
        return -1
    m[c.VERTICES] = v + 1
    m[m[c.VERTEX_ROW] + v] = row
    m[m[c.VERTEX_PTR] + v + 1] = m[c.EDGES]
    return v


@compiled
def add_edge(m, v, before):
    """Make the newest vertex wait for `before` (-1: nothing)."""
    if v < 0 or before < 0:
        return
    e = m[c.EDGES]
    if m[c.EDGE] + e >= m[c.EDGE_END]:
        m[c.FULL] = c.EDGE
        return
    m[c.EDGES] = e + 1
    m[m[c.EDGE] + e] = before
    m[m[c.VERTEX_PTR] + v + 1] = e + 1


@compiled
def add_vertex(m, row, before, also):
    """A vertex that waits for up to two others (-1: nothing)."""
    v = begin_vertex(m, row)
    add_edge(m, v, before)
    if also != before:
        add_edge(m, v, also)
    return v


@compiled
def log(m, entry):
    """Append to the journal: 2n for the issue of node n, 2n+1 for its end, -1-r for the end of rank r."""
    if m[c.RECORD] == 1:
        m[m[c.JOURNAL] + m[c.JOURNAL_SIZE]] = entry
        m[c.JOURNAL_SIZE] += 1


@compiled
def mark(m, kind, resource, vertex):
    """Note in the recording that a vertex is the next at a resource; see `state.MARKS`."""
    v = begin_vertex(m, -2 - (resource * c.MARKS + kind))
    add_edge(m, v, vertex)


@compiled
def new_cell(m, vertex, after):
    """A list cell that holds a vertex, before others; the others alone where there is no room (see `set_timer`)."""
    k = take(m, c.CELLS)
    if m[c.FULL] != 0:
        return after
    m[k + c.CELL_VERTEX] = vertex
    m[k + c.NEXT] = after
    return k


@compiled
def push_cell(m, chunk, vertex):
    """Append a vertex to a chunk's list of filled slots."""
    if m[c.RECORD] == 0:
        return
    k = new_cell(m, vertex, 0)
    if k == 0:
        return
    if m[chunk + c.CHUNK_HEAD] == 0:
        m[chunk + c.CHUNK_HEAD] = k
    else:
        m[m[chunk + c.CHUNK_TAIL] + c.NEXT] = k
    m[chunk + c.CHUNK_TAIL] = k


@compiled
def pop_cell(m, chunk):
    """The vertex of the slot that was filled first; -1 when nothing is recorded."""
    k = m[chunk + c.CHUNK_HEAD]
    if k == 0:
        return -1
    vertex = m[k + c.CELL_VERTEX]
    m[chunk + c.CHUNK_HEAD] = m[k + c.NEXT]
    give_back(m, c.CELLS, k)
    return vertex


@compiled
def drain_cells(m, v, place):
    """Make the newest vertex wait for all of a list, and empty the list."""
    while m[place] > 0:
        k = m[place]
        add_edge(m, v, m[k + c.CELL_VERTEX])
        m[place] = m[k + c.NEXT]
        give_back(m, c.CELLS, k)


@compiled
def mix(bits):
    """Scramble 64 bits."""
    bits ^= bits >> uint64(31)
    bits *= uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> uint64(29)
    return bits * uint64(0x94D049BB133111EB)


@compiled
def note_order(m, resource, position, item):
    """Fold into the digest that `item` is number `position` at `resource`."""
    x = uint64(resource) * uint64(0x9E3779B97F4A7C15)
    x ^= uint64(position) * uint64(0xC2B2AE3D27D4EB4F)
    x ^= uint64(item) * uint64(0x165667B19E3779F9)
    m[c.DIGEST] = int64(uint64(m[c.DIGEST]) + mix(x))
