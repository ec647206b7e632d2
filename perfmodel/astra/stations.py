"""Queue stations of the compiled simulator: where the chunks of collectives wait for their phases.

A (rank, dimension, queue) is a station with a fixed number of places that serves chunks in the order in which
they join.
"""

from perfmodel.astra import layout as c
from perfmodel.astra.algorithms import begin_phase
from perfmodel.astra.custom_kernel import begin_custom
from perfmodel.astra.event_recorder import add_vertex, mark, note_order
from perfmodel.astra.jit import compiled
from perfmodel.astra.timers import take

FAMILY = 1 << 40
"""Distance between the message tags of communicator groups; ASTRA-sim's is 1,000,000 chunks."""


@compiled
def enqueue(t, m, k):
    """A chunk joins the queue of its phase."""
    route = m[k + c.CHUNK_ROUTE + m[k + c.CHUNK_STEP]]
    number = m[k + c.CHUNK_RANK] * t[c.T_STATIONS] + (route >> 2)
    station = m[c.STATIONS] + number * c.STATION_W
    m[k + c.CHUNK_STATION] = station
    m[k + c.CHUNK_DIRECTION] = -1 if route & 2 else 1
    m[k + c.NEXT] = 0
    if m[c.RECORD] == 1:
        mark(m, c.MARK_JOIN, number, m[k + c.CHUNK_JOINED])
    if m[station + c.STATION_NODE] != m[k + c.CHUNK_NODE]:
        m[station + c.STATION_NODE] = m[k + c.CHUNK_NODE]
        m[station + c.STATION_STARTS] = 0
        m[station + c.STATION_LEAVES] = 0
    if m[station + c.STATION_HEAD] == 0:
        m[station + c.STATION_HEAD] = k
    else:
        m[m[station + c.STATION_TAIL] + c.NEXT] = k
    m[station + c.STATION_TAIL] = k


@compiled
def leave_vertex(t, m, station, number):
    """Where the vertex is kept of the chunk that left a station as number `number`."""
    places = t[c.T_PLACES]
    return m[c.LEAVES] + (station - m[c.STATIONS]) // c.STATION_W * places + number % places


@compiled
def start_waiting(t, m, f, now, station):
    """Start waiting chunks while the station has places.

    Start number s needs the place that leave number s - places gave back.
    """
    places = t[c.T_PLACES]
    while m[station + c.STATION_HEAD] > 0 and m[station + c.STATION_RUNNING] < places:
        k = m[station + c.STATION_HEAD]
        m[station + c.STATION_HEAD] = m[k + c.NEXT]
        m[station + c.STATION_RUNNING] += 1
        starts = m[station + c.STATION_STARTS]
        m[station + c.STATION_STARTS] = starts + 1
        cause = m[k + c.CHUNK_JOINED]
        if m[c.RECORD] == 1 and starts >= places:
            freed = m[leave_vertex(t, m, station, starts - places)]
            if freed != cause:
                cause = add_vertex(m, -1, cause, freed)
        item = m[k + c.CHUNK_TAG] * 16 + m[k + c.CHUNK_STEP]
        note_order(m, c.START_ORDER + station - m[c.STATIONS], starts, item)
        if t[m[k + c.CHUNK_PHASE] + c.PHASE_ALGORITHM] == c.CUSTOM:
            begin_custom(t, m, f, now, k, cause)
        else:
            begin_phase(t, m, f, now, k, cause)


@compiled
def leave(t, m, f, now, station, node, tag, vertex, others):
    """A chunk gives its place back, which other chunks of the collective may wait for.

    Whichever of several that leave together is the first is no decision.
    """
    m[station + c.STATION_RUNNING] -= 1
    if m[station + c.STATION_NODE] != node:
        return
    leaves = m[station + c.STATION_LEAVES]
    m[station + c.STATION_LEAVES] = leaves + 1
    if m[c.RECORD] == 1:
        m[leave_vertex(t, m, station, leaves)] = vertex
    if t[c.T_PLACES] > 1 and others > 0:
        if m[c.RECORD] == 1:
            mark(m, c.MARK_LEAVE, (station - m[c.STATIONS]) // c.STATION_W, vertex)
        if leaves == 0 or now > f[station + c.STATION_LEFT] * (1.0 + c.SAME_MOMENT):
            f[station + c.STATION_LEFT] = now
            m[station + c.STATION_TIED] = leaves
        note_order(m, c.LEAVE_ORDER + station - m[c.STATIONS], m[station + c.STATION_TIED], tag)


@compiled
def plan_of(t, m, number, plan):
    """The plan by which a rank runs a collective: where implementations differ, that of the first issued."""
    if t[plan + c.PLAN_CHOICE] < 0:
        return plan
    chosen = m[c.CHOSEN] + number * t[c.T_CHOICES] + t[plan + c.PLAN_CHOICE]
    if m[chosen] == 0:
        m[chosen] = t[plan + c.PLAN_VARIANT] + 1
    alternative = t[plan + c.PLAN_ALTERNATIVES] + m[chosen] - 1
    return t[c.T_PLANS] + t[t[c.T_ALTERNATIVES] + alternative] * c.PLAN_W


@compiled
def begin_collective(t, m, f, now, n, cause):
    """Cut a collective into chunks and queue them for their first phase."""
    node = t[c.T_NODES] + n * c.NODE_W
    number = t[node + c.NODE_RANK]
    plan = plan_of(t, m, number, t[c.T_PLANS] + t[node + c.NODE_PLAN] * c.PLAN_W)
    rank = m[c.RANKS] + number * m[c.RANK_WORDS]
    phase = t[c.T_PHASES] + t[plan + c.PLAN_FIRST] * c.PHASE_W
    family = t[plan + c.PLAN_FAMILY]
    counter = m[c.FAMILIES] + t[plan + c.PLAN_COUNTER] + t[node + c.NODE_MEMBER]
    m[rank + c.RANK_LEFT] = t[plan + c.PLAN_CHUNKS]
    m[rank + c.RANK_CELLS] = 0
    for _ in range(t[plan + c.PLAN_CHUNKS]):
        k = take(m, c.CHUNKS)
        if m[c.FULL] != 0:
            return
        m[k + c.CHUNK_NODE] = n
        m[k + c.CHUNK_RANK] = number
        m[k + c.CHUNK_PHASE] = phase
        m[k + c.CHUNK_STEP] = 0
        m[k + c.CHUNK_STEPS] = t[plan + c.PLAN_COUNT]
        m[k + c.CHUNK_JOINED] = cause
        m[k + c.CHUNK_TAG] = m[rank + c.RANK_STREAM]
        m[rank + c.RANK_STREAM] += 1
        if family >= 0:
            m[k + c.CHUNK_TAG] = (family + 1) * FAMILY + m[counter]
            m[counter] += 1
        for i in range(t[plan + c.PLAN_COUNT]):
            m[k + c.CHUNK_ROUTE + i] = next_route(t, m, rank, phase + i * c.PHASE_W)
        enqueue(t, m, k)
        start_waiting(t, m, f, now, m[k + c.CHUNK_STATION])


@compiled
def next_route(t, m, rank, phase):
    """The queue, direction and tree that a chunk's phase gets: queues and trees are taken in turn.

    Returns (level * queues + queue) * 4 + backwards * 2 + tree.
    """
    queues = t[c.T_QUEUES]
    half = queues // 2
    level = t[phase + c.PHASE_LEVEL]
    kind = t[phase + c.PHASE_QUEUES]
    turn = rank + c.RANK_TURNS + 3 * level + kind
    taken = m[turn]
    queue, backwards = taken, 0
    if t[phase + c.PHASE_ALGORITHM] == c.CUSTOM:
        queue = 0
    elif kind == c.ALL_QUEUES:
        backwards = 1 if queues > 1 and queue >= half else 0
        m[turn] = (taken + 1) % queues
    elif kind == c.LOWER_QUEUES:
        m[turn] = taken + 1 if taken + 1 < half else 0
    else:
        queue, backwards = half + taken, 1
        m[turn] = taken + 1 if half + taken + 1 < queues else 0
    tree = 0
    if t[phase + c.PHASE_ALGORITHM] == c.TREE:
        place = rank + c.RANK_TURNS + 3 * t[c.T_LEVELS] + t[phase + c.PHASE_COUNTER]
        tree = m[place] & 1
        m[place] += 1
    return (level * queues + queue) * 4 + backwards * 2 + tree
