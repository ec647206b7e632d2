"""Messages of the compiled simulator: pairing of sends with receives, and the two networks.

A send and a receive belong together when tag, source, target and size agree, the k-th with the k-th. Unaware of
congestion, a message takes its cost and disturbs nobody. Aware, every directed link is a server that takes
messages in the order in which they reach it and holds each for its serialisation time; a message is stored and
forwarded hop by hop.
"""

from numba import int64, uint64, void

from perfmodel.astra import layout as c
from perfmodel.astra.event_recorder import add_vertex, mark, mix, note_order
from perfmodel.astra.jit import compiled, rare
from perfmodel.astra.timers import give_back, push_event, take

RENDEZVOUS = 1 << 60
"""Flipped in the tags of the small messages with which receivers ask for others."""


@compiled
def cost_of(m, f, row):
    """Duration of a row of the cost table [ns]; -1 is no cost."""
    return f[m[c.COSTS] + row] if row >= 0 else 0.0


@compiled
def hash_of(tag, source, target, size):
    """Mixes what identifies a message."""
    x = uint64(tag) * uint64(0x9E3779B97F4A7C15) + uint64(source) * uint64(0xC2B2AE3D27D4EB4F)
    x ^= uint64(target) * uint64(0x165667B19E3779F9) + uint64(size) * uint64(0xD6E8FEB86659FD93)
    return int64(mix(x) >> uint64(2))


@compiled
def pair(m, tag, source, target, size, sending):
    """The message that a send (1) or a receive (0) belongs to: the first that waits for it, else a new one."""
    link = m[c.BUCKETS] + (hash_of(tag, source, target, size) & m[c.BUCKET_MASK])
    k = m[link]
    while k > 0:
        if (
            m[k + c.MESSAGE_TAG] == tag
            and m[k + c.MESSAGE_SOURCE] == source
            and m[k + c.MESSAGE_TARGET] == target
            and m[k + c.MESSAGE_SIZE] == size
            and m[k + c.MESSAGE_SENT] != sending
        ):
            m[link] = m[k + c.NEXT]
            return k
        link = k + c.NEXT
        k = m[link]
    k = take(m, c.MESSAGES)
    m[link] = k
    m[k + c.NEXT] = 0
    m[k + c.MESSAGE_TAG] = tag
    m[k + c.MESSAGE_SOURCE] = source
    m[k + c.MESSAGE_TARGET] = target
    m[k + c.MESSAGE_SIZE] = size
    m[k + c.MESSAGE_SENT] = sending
    m[k + c.MESSAGE_ARRIVED] = 0
    m[k + c.MESSAGE_SENDER] = c.NOBODY
    m[k + c.MESSAGE_SENDER_ITEM] = 0
    m[k + c.MESSAGE_SENDER_EXTRA] = 0
    m[k + c.MESSAGE_SENDER_NAME] = -1
    m[k + c.MESSAGE_RECEIVER] = c.NOBODY
    m[k + c.MESSAGE_POSTED] = -1
    return k


@compiled
def send(t, m, f, now, tag, source, target, size, sender, item, extra, cause):
    """A rank sends; `sender` with `item` and `extra` says whom to tell when the message has arrived.

    With the rendezvous protocol the message waits for a small one from its receiver.
    """
    if t[c.T_RENDEZVOUS] < 0:
        send_now(t, m, f, now, tag, source, target, size, sender, item, extra, cause)
        return
    h = shake_hands(m, tag, source, target, size, sender, item, extra)
    small = t[c.T_RENDEZVOUS]
    post_now(m, f, now, tag ^ RENDEZVOUS, target, source, small, c.BY_SEND, h, 0, cause)


@compiled
def post(t, m, f, now, tag, source, target, size, receiver, item, extra, cause):
    """A rank waits for a message; with the rendezvous protocol it sends a small one for it first."""
    if t[c.T_RENDEZVOUS] < 0:
        post_now(m, f, now, tag, source, target, size, receiver, item, extra, cause)
        return
    h = shake_hands(m, tag, source, target, size, receiver, item, extra)
    small = t[c.T_RENDEZVOUS]
    send_now(t, m, f, now, tag ^ RENDEZVOUS, target, source, small, c.BY_RECEIVE, h, 0, cause)


@compiled
def shake_hands(m, tag, source, target, size, kind, item, extra):
    """Remember what to do after the small message."""
    h = take(m, c.HANDSHAKES)
    m[h + c.HANDSHAKE_TAG] = tag
    m[h + c.HANDSHAKE_SOURCE] = source
    m[h + c.HANDSHAKE_TARGET] = target
    m[h + c.HANDSHAKE_SIZE] = size
    m[h + c.HANDSHAKE_KIND] = kind
    m[h + c.HANDSHAKE_ITEM] = item
    m[h + c.HANDSHAKE_EXTRA] = extra
    return h


@rare(void)
def after_handshake(t, m, f, now, h, receives, cause):
    """The small message is there: the message itself is sent (0) or waited for (1)."""
    tag, size = m[h + c.HANDSHAKE_TAG], m[h + c.HANDSHAKE_SIZE]
    source, target = m[h + c.HANDSHAKE_SOURCE], m[h + c.HANDSHAKE_TARGET]
    kind, item = m[h + c.HANDSHAKE_KIND], m[h + c.HANDSHAKE_ITEM]
    extra = m[h + c.HANDSHAKE_EXTRA]
    give_back(m, c.HANDSHAKES, h)
    if receives == 1:
        post_now(m, f, now, tag, source, target, size, kind, item, extra, cause)
    else:
        send_now(t, m, f, now, tag, source, target, size, kind, item, extra, cause)


@compiled
def name_of(t, m, who, item, extra):
    """What tells a sender or receiver apart in the digest, wherever its record lies: -1 where it is no node."""
    if who == c.BY_NODE:
        return item
    if who == c.BY_CUSTOM:
        return name_of_custom(t, m, item, extra)
    return -1


@rare(int64)
def name_of_custom(t, m, k, i):
    """The name of a node of a custom collective."""
    return hash_of(m[k + c.CHUNK_TAG], m[k + c.CHUNK_STEP], m[k + c.CHUNK_RANK], i)


@compiled
def send_now(t, m, f, now, tag, source, target, size, sender, item, extra, cause):
    """A message leaves its sender."""
    k = pair(m, tag, source, target, size, 1)
    m[k + c.MESSAGE_SENT] = 1
    m[k + c.MESSAGE_SENDER] = sender
    m[k + c.MESSAGE_SENDER_ITEM] = item
    m[k + c.MESSAGE_SENDER_EXTRA] = extra
    m[k + c.MESSAGE_SENDER_NAME] = name_of(t, m, sender, item, extra)
    if t[c.T_NETWORK] == c.UNAWARE:
        row = unaware_row(t, source, target, size)
        m[k + c.MESSAGE_VERTEX] = add_vertex(m, row, cause, -1)
        push_event(m, f, now + cost_of(m, f, row), c.ARRIVAL, k)
    else:
        m[k + c.MESSAGE_AT] = source
        m[k + c.MESSAGE_VERTEX] = cause
        enter_link(t, m, f, now, k)


@compiled
def post_now(m, f, now, tag, source, target, size, receiver, item, extra, cause):
    """A rank waits for a message. One that is there already is received at the end of this moment."""
    k = pair(m, tag, source, target, size, 0)
    m[k + c.MESSAGE_RECEIVER] = receiver
    m[k + c.MESSAGE_ITEM] = item
    m[k + c.MESSAGE_EXTRA] = extra
    m[k + c.MESSAGE_POSTED] = cause
    if m[k + c.MESSAGE_ARRIVED] == 1:
        push_event(m, f, now, c.LATE_RECEIVE, k)


@compiled
def unaware_row(t, source, target, size):
    """Cost row of a message: by the first dimension in which the addresses differ, its hops, and the size."""
    rows = t[c.T_MESSAGE_ROWS] + size * t[c.T_CLASSES]
    for k in range(t[c.T_DIM_COUNT]):
        dim = t[c.T_DIMS] + k * c.DIM_W
        extent = t[dim + c.DIM_EXTENT]
        a = (source // t[dim + c.DIM_STRIDE]) % extent
        b = (target // t[dim + c.DIM_STRIDE]) % extent
        if a != b:
            kind = t[dim + c.DIM_CLASS]
            if t[dim + c.DIM_RING] == 1:
                up = (b - a) % extent
                kind += min(up, extent - up) - 1
            return t[rows + kind]
    return -1


@compiled
def enter_link(t, m, f, now, k):
    """A message reaches its next link and takes it, or queues up."""
    number = next_link(t, m[k + c.MESSAGE_AT], m[k + c.MESSAGE_TARGET])
    link = m[c.LINKS] + number * c.SERVER_W
    if m[c.RECORD] == 1:
        mark(m, c.MARK_LINK, number, m[k + c.MESSAGE_VERTEX])
    if m[link + c.SERVER_BUSY] == 0:
        transmit(t, m, f, now, link, k)
        return
    m[k + c.MESSAGE_QUEUED] = 0
    if m[link + c.SERVER_HEAD] == 0:
        m[link + c.SERVER_HEAD] = k
    else:
        m[m[link + c.SERVER_TAIL] + c.MESSAGE_QUEUED] = k
    m[link + c.SERVER_TAIL] = k


@compiled
def transmit(t, m, f, now, link, k):
    """A link takes a message: it arrives after latency and serialisation, the link is free after the latter."""
    size = t[c.T_SIZES] + m[k + c.MESSAGE_SIZE] * c.SIZE_W
    arrive = t[size + c.SIZE_ARRIVE]
    hold = t[size + c.SIZE_HOLD]
    cause = m[k + c.MESSAGE_VERTEX]
    there = add_vertex(m, arrive, cause, m[link + c.SERVER_VERTEX])
    free = add_vertex(m, hold, cause, m[link + c.SERVER_VERTEX])
    identity = hash_of(
        m[k + c.MESSAGE_TAG],
        m[k + c.MESSAGE_SOURCE],
        m[k + c.MESSAGE_TARGET],
        m[k + c.MESSAGE_SIZE],
    )
    note_order(m, c.LINK_ORDER + link - m[c.LINKS], m[link + c.SERVER_COUNT], identity)
    m[link + c.SERVER_COUNT] += 1
    m[link + c.SERVER_BUSY] = 1
    m[link + c.SERVER_VERTEX] = free
    m[k + c.MESSAGE_VERTEX] = there
    push_event(m, f, now + cost_of(m, f, arrive), c.ARRIVAL, k)
    push_event(m, f, now + cost_of(m, f, hold), c.LINK_FREE, link)


@compiled
def free_link(t, m, f, now, link):
    """A link is free again and takes the message that waits longest."""
    m[link + c.SERVER_BUSY] = 0
    k = m[link + c.SERVER_HEAD]
    if k > 0:
        m[link + c.SERVER_HEAD] = m[k + c.MESSAGE_QUEUED]
        transmit(t, m, f, now, link, k)


@compiled
def next_link(t, at, target):
    """Number of the directed link that leads from a device towards a rank; the switch is device R."""
    ranks = t[c.T_RANKS]
    network = t[c.T_NETWORK]
    if network == c.AWARE_FULL:
        return at * ranks + target
    if network == c.AWARE_SWITCH:
        return at if at < ranks else ranks + target
    up = (target - at) % ranks
    return at if up <= ranks - up else ranks + at


@compiled
def hop(t, m, k):
    """A message reaches the end of a link; is it where it wanted to go?"""
    ranks = t[c.T_RANKS]
    network = t[c.T_NETWORK]
    at, target = m[k + c.MESSAGE_AT], m[k + c.MESSAGE_TARGET]
    if network == c.AWARE_FULL or at == ranks:
        at = target
    elif network == c.AWARE_SWITCH:
        at = ranks
    else:
        up = (target - at) % ranks
        at = (at + (1 if up <= ranks - up else -1)) % ranks
    m[k + c.MESSAGE_AT] = at
    return at == target
