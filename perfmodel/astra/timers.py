"""Event queue, pools and timers of the compiled simulator.

Events run in the order (time, registration). A rank's own timers that are due at one moment form one batch that
runs at the place of the first registered of them; timers made for the current moment while their batch runs are
appended to it.
"""

from perfmodel.astra import layout as c
from perfmodel.astra.jit import compiled


@compiled
def take(m, pool):
    """A record of a pool: one that was given back, else the next unused one; a spare one when it is full."""
    k = m[pool + c.POOL_FREE]
    if k > 0:
        m[pool + c.POOL_FREE] = m[k]
        return k
    k = m[pool + c.POOL_NEXT]
    if k >= m[pool + c.POOL_END]:
        m[c.FULL] = pool
        return m[pool + c.POOL_SPARE]
    m[pool + c.POOL_NEXT] = k + m[pool + c.POOL_WIDTH]
    return k


@compiled
def give_back(m, pool, k):
    """Return a record to its pool."""
    m[k] = m[pool + c.POOL_FREE]
    m[pool + c.POOL_FREE] = k


@compiled
def push_event(m, f, time, kind, item):
    """Register an event."""
    n = m[c.HEAP_SIZE]
    heap = m[c.HEAP]
    if heap + (n + 1) * c.EVENT_W > m[c.HEAP_END]:
        m[c.FULL] = c.HEAP
        return
    m[c.HEAP_SIZE] = n + 1
    while n > 0:
        up = (n - 1) >> 1
        if f[heap + up * c.EVENT_W] <= time:
            break
        for word in range(c.EVENT_W):
            m[heap + n * c.EVENT_W + word] = m[heap + up * c.EVENT_W + word]
        n = up
    event = heap + n * c.EVENT_W
    f[event + c.EVENT_TIME] = time
    m[event + c.EVENT_SEQUENCE] = m[c.SEQUENCE]
    m[event + c.EVENT_KIND] = kind
    m[event + c.EVENT_ITEM] = item
    m[c.SEQUENCE] += 1


@compiled
def before(m, f, a, b):
    """Whether event a runs before event b."""
    if f[a] != f[b]:
        return f[a] < f[b]
    return m[a + c.EVENT_SEQUENCE] < m[b + c.EVENT_SEQUENCE]


@compiled
def pop_event(m, f):
    """Remove the first event; the caller has read it."""
    n = m[c.HEAP_SIZE] - 1
    m[c.HEAP_SIZE] = n
    heap = m[c.HEAP]
    moved = heap + n * c.EVENT_W
    i = 0
    while 2 * i + 1 < n:
        child = heap + (2 * i + 1) * c.EVENT_W
        if 2 * i + 2 < n and before(m, f, child + c.EVENT_W, child):
            child += c.EVENT_W
        if before(m, f, moved, child):
            break
        for word in range(c.EVENT_W):
            m[heap + i * c.EVENT_W + word] = m[child + word]
        i = (child - heap) // c.EVENT_W
    for word in range(c.EVENT_W):
        m[heap + i * c.EVENT_W + word] = m[moved + word]


@compiled
def set_timer(m, f, rank, time, kind, item, extra, vertex):
    """Register a timer of a rank, in the batch that is already due then, or in a new one.

    Where a pool is full, none: a spare record that stands in a list twice would make it endless.
    """
    k = take(m, c.TIMERS)
    if m[c.FULL] != 0:
        return
    m[k + c.NEXT] = 0
    m[k + c.TIMER_KIND] = kind
    m[k + c.TIMER_ITEM] = item
    m[k + c.TIMER_EXTRA] = extra
    m[k + c.TIMER_VERTEX] = vertex
    place = m[c.RANKS] + rank * m[c.RANK_WORDS] + c.RANK_BATCHES
    b = m[place]
    while b > 0 and f[b + c.BATCH_TIME] != time:
        b = m[b + c.NEXT]
    if b > 0:
        m[m[b + c.BATCH_TAIL] + c.NEXT] = k
        m[b + c.BATCH_TAIL] = k
        return
    b = take(m, c.BATCHES)
    if m[c.FULL] != 0:
        return
    f[b + c.BATCH_TIME] = time
    m[b + c.BATCH_RANK] = rank
    m[b + c.BATCH_HEAD] = k
    m[b + c.BATCH_TAIL] = k
    m[b + c.NEXT] = m[place]
    m[place] = b
    push_event(m, f, time, c.BATCH, b)


@compiled
def drop_batch(m, b):
    """Unlink a batch that has run."""
    k = m[c.RANKS] + m[b + c.BATCH_RANK] * m[c.RANK_WORDS] + c.RANK_BATCHES
    while m[k] != b:
        k = m[k] + c.NEXT
    m[k] = m[b + c.NEXT]
    give_back(m, c.BATCHES, b)
