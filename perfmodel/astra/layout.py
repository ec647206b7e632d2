"""The simulator's memory: how tables and run-time records are laid out in two flat arrays of 64-bit words.

`t` holds what a workload and a configuration fix, `m` what a run changes; `f` is `m` seen as float64. A record
is addressed by the position of its first word, a field by record + field, as in ``m[chunk + CHUNK_SENT]``; 0 is
no record, -1 no vertex, node or row. The compiled kernel so has three arguments instead of a hundred arrays,
which keeps its compile time at seconds. Pools have a fixed size: a run that exhausts one stops and says which,
and the host repeats it with more room.
"""

# Resources of a rank; receives are not limited.
CPU, COMPUTE, COMMUNICATION, RECEIVE = range(4)

# What issuing a node does. A node that is stuck never ends.
TIMER, SKIP, MEMORY, SEND, RECV, COLLECTIVE, STUCK = range(7)

# Algorithms of a phase.
RING, DIRECT, HALVING, TREE, CUSTOM = range(5)

# Queues of a dimension that phases take in turn: all, the lower half, the upper half.
ALL_QUEUES, LOWER_QUEUES, UPPER_QUEUES = range(3)

# Global events.
BATCH, ARRIVAL, LINK_FREE, LATE_RECEIVE = range(4)

# A rank's own timers.
(
    NODE_ENDS,
    SERVER_FREE,
    FILLED,
    BEFORE_REDUCTION,
    CUSTOM_ENDS,
    BUS_SENT,
    BUS_RECEIVED,
    BUS_PROCESSED,
) = range(8)

# Who is told of a message; with the rendezvous protocol also a send that waits, and a receive that asks.
NOBODY, BY_NODE, BY_CHUNK, BY_CUSTOM, BY_SEND, BY_RECEIVE = range(6)

# A packet on the shared bus: it goes to the NPU (else to the memory), and it is sent back.
TO_NPU, SENT_BACK = 1, 2

# Sides of a rank's two buses; states of a side; what a request of the outer bus does after the inner one.
NPU_SIDE, MEMORY_SIDE, INNER_NPU_SIDE, INNER_MEMORY_SIDE = range(4)
SIDE_FREE, SIDE_SENDING, SIDE_RECEIVING = range(3)
THEN_DELIVER, THEN_SEND, THEN_PROCESS = range(3)

# Roles in a double binary tree.
LEAF, INNER, TOP = range(3)

# Networks: message times that do not interfere, or links.
UNAWARE, AWARE_FULL, AWARE_SWITCH, AWARE_RING = range(4)

# What a decision in the order of events is about, in the digest.
(
    UNIT_ORDER,
    LINK_ORDER,
    START_ORDER,
    LEAVE_ORDER,
    SERVER_ORDER,
    PAIR_ORDER,
    FILL_ORDER,
    EXTRA_ORDER,
    BUS_ORDER,
) = (k << 40 for k in range(1, 10))

# What a mark in a recording is about (see `record.mark`): who joins a queue station, leaves it, reaches a link.
MARK_JOIN, MARK_LEAVE, MARK_LINK, MARKS = range(4)

MAX_PHASES = 8
"""Phases of one collective: at most two a dimension less one, in at most four dimensions."""

# --- t: header (positions of the tables, and sizes) ---
(
    T_RANKS,
    T_NETWORK,
    T_QUEUES,
    T_PLACES,
    T_LEVELS,
    T_STATIONS,
    T_NODES,
    T_SUCCESSOR_PTR,
    T_SUCCESSOR,
    T_PREDECESSOR_PTR,
    T_PREDECESSOR,
    T_RANK_PTR,
    T_READY_PTR,
    T_ALTERNATIVES,
    T_PLANS,
    T_PHASES,
    T_STEPS,
    T_TREES,
    T_MEMBERS,
    T_SIZES,
    T_MESSAGE_ROWS,
    T_CLASSES,
    T_DIMS,
    T_DIM_COUNT,
    T_CUSTOMS,
    T_CUSTOM_PTR,
    T_CUSTOM_SUCCESSOR,
    T_CUSTOM_PREDECESSOR,
    T_CUSTOM_BUCKETS,
    T_BUCKET_COUNTS,
    T_CHOICES,
    T_RENDEZVOUS,
    T_RARE,
    T_BUS,
    T_BUS_LATENCY,
    T_BUS_OVERHEAD,
    T_BUS_GAP,
    T_BUS_REDUCTION,
    T_BUS_OVERHEAD_ROW,
    T_BUS_GAP_ROW,
    T_HEADER,
) = range(41)

NODE_FIELDS = [
    "rank",
    "unit",
    "action",
    "row",
    "plan",
    "member",
    "position",
    "peer",
    "tag",
    "size",
    "server",
    "indegree",
]
(
    NODE_RANK,
    NODE_UNIT,
    NODE_ACTION,
    NODE_ROW,
    NODE_PLAN,
    NODE_MEMBER,
    NODE_POSITION,
    NODE_PEER,
    NODE_TAG,
    NODE_SIZE,
    NODE_SERVER,
    NODE_INDEGREE,
    NODE_W,
) = range(13)

# A collective as every rank sees it: `chunks` chunks, each through `count` phases from number `first`. Where nodes of
# one type in one group name different implementations, a rank runs them all by that of the one that it issues first:
# `choice` is the number of that decision (-1 for none), `variant` this plan's own implementation, and `alternatives`
# the place in the table of alternatives of the plans of this collective by each implementation.
(
    PLAN_CHUNKS,
    PLAN_FIRST,
    PLAN_COUNT,
    PLAN_FAMILY,
    PLAN_COUNTER,
    PLAN_CHOICE,
    PLAN_VARIANT,
    PLAN_ALTERNATIVES,
    PLAN_W,
) = range(9)

# One dimension of one collective. Members: base + j*stride, or the group's list at `list` where stride is 0.
PHASE_FIELDS = [
    "algorithm",
    "members",
    "stride",
    "list",
    "level",
    "queues",
    "sends",
    "window",
    "period",
    "reduces",
    "gated",
    "size",
    "row",
    "reduction",
    "steps",
    "tree",
    "counter",
]
(
    PHASE_ALGORITHM,
    PHASE_MEMBERS,
    PHASE_STRIDE,
    PHASE_LIST,
    PHASE_LEVEL,
    PHASE_QUEUES,
    PHASE_SENDS,
    PHASE_WINDOW,
    PHASE_PERIOD,
    PHASE_REDUCES,
    PHASE_GATED,
    PHASE_SIZE,
    PHASE_ROW,
    PHASE_REDUCTION,
    PHASE_STEPS,
    PHASE_TREE,
    PHASE_COUNTER,
    PHASE_W,
) = range(18)

# A step of halving-doubling: distance, message size, the reduction before the message (-1 for none), and the size of
# what crosses the shared bus before it.
STEP_DISTANCE, STEP_SIZE, STEP_REDUCTION, STEP_BUS_SIZE, STEP_W = range(5)

# A place in a double binary tree, by member; -1 where there is no neighbour.
TREE_ROLE, TREE_PARENT, TREE_LEFT, TREE_RIGHT, TREE_W = range(5)

# A node of a custom collective's trace; edges from `next` to `next_end` and from `before` to `before_end`.
CUSTOM_FIELDS = [
    "action",
    "row",
    "peer",
    "tag",
    "size",
    "indegree",
    "next",
    "next_end",
    "before",
    "before_end",
    "id",
]
(
    CUSTOM_ACTION,
    CUSTOM_ROW,
    CUSTOM_PEER,
    CUSTOM_TAG,
    CUSTOM_SIZE,
    CUSTOM_INDEGREE,
    CUSTOM_NEXT,
    CUSTOM_NEXT_END,
    CUSTOM_BEFORE,
    CUSTOM_BEFORE_END,
    CUSTOM_ID,
    CUSTOM_W,
) = range(12)

# One message size: cost rows on a link, bytes, cost rows on the outer and the inner bus, and of processing there.
(
    SIZE_HOLD,
    SIZE_ARRIVE,
    SIZE_BYTES,
    SIZE_BUS_HOLD,
    SIZE_BUS_ARRIVE,
    SIZE_INNER_HOLD,
    SIZE_INNER_ARRIVE,
    SIZE_PROCESS,
    SIZE_W,
) = range(9)

# A network dimension: extent, stride of ranks, whether a ring, first class of hops in the message rows.
DIM_EXTENT, DIM_STRIDE, DIM_RING, DIM_CLASS, DIM_W = range(5)

# --- m: header ---
(
    SEQUENCE,
    HEAP_SIZE,
    FULL,
    EVENTS,
    VERTICES,
    EDGES,
    DIGEST,
    RECORD,
    FINISHED,
    COSTS,
    HEAP,
    HEAP_END,
    BUCKETS,
    BUCKET_MASK,
    RANKS,
    RANK_WORDS,
    NODES,
    READY,
    DEFERRED,
    FAMILIES,
    CHOSEN,
    STATIONS,
    LEAVES,
    LINKS,
    SERVERS,
    CUSTOM_STATE,
    CUSTOM_ROOM,
    VERTEX_ROW,
    VERTEX_END,
    VERTEX_PTR,
    EDGE,
    EDGE_END,
    CUSTOM_READY,
    CUSTOM_CHAIN,
    CUSTOM_HEADS,
    JOURNAL,
    JOURNAL_SIZE,
    SIDES,
    BUS_PER_BYTE,
    AT_ZERO,
    BEGUN,
    LIMIT,
    HEADER_W,
) = range(43)

# Pools: head of the list of records given back, next unused record, end, words of a record, a spare record.
POOL_FREE, POOL_NEXT, POOL_END, POOL_WIDTH, POOL_SPARE, POOL_W = range(6)
TIMERS, BATCHES, MESSAGES, CHUNKS, CELLS, HANDSHAKES, REQUESTS = (
    HEADER_W + POOL_W * k for k in range(7)
)
M_HEADER = HEADER_W + POOL_W * 7

EVENT_TIME, EVENT_SEQUENCE, EVENT_KIND, EVENT_ITEM, EVENT_W = range(5)

# Records of pools start with NEXT, which also links those given back.
NEXT = 0
_, TIMER_KIND, TIMER_ITEM, TIMER_EXTRA, TIMER_VERTEX, TIMER_W = range(6)
_, BATCH_TIME, BATCH_RANK, BATCH_HEAD, BATCH_TAIL, BATCH_W = range(6)
_, CELL_VERTEX, CELL_W = range(3)
(
    _,
    HANDSHAKE_TAG,
    HANDSHAKE_SOURCE,
    HANDSHAKE_TARGET,
    HANDSHAKE_SIZE,
    HANDSHAKE_KIND,
    HANDSHAKE_ITEM,
    HANDSHAKE_EXTRA,
    HANDSHAKE_W,
) = range(9)
(
    _,
    REQUEST_CHUNK,
    REQUEST_REDUCTION,
    REQUEST_SIZE,
    REQUEST_PROCESSED,
    REQUEST_BACK,
    REQUEST_AFTER,
    REQUEST_OUTER,
    REQUEST_VERTEX,
    REQUEST_W,
) = range(10)
(
    _,
    MESSAGE_TAG,
    MESSAGE_SOURCE,
    MESSAGE_TARGET,
    MESSAGE_SIZE,
    MESSAGE_SENT,
    MESSAGE_ARRIVED,
    MESSAGE_AT,
    MESSAGE_SENDER,
    MESSAGE_SENDER_ITEM,
    MESSAGE_SENDER_EXTRA,
    MESSAGE_SENDER_NAME,
    MESSAGE_RECEIVER,
    MESSAGE_ITEM,
    MESSAGE_EXTRA,
    MESSAGE_QUEUED,
    MESSAGE_VERTEX,
    MESSAGE_POSTED,
    MESSAGE_W,
) = range(19)
(
    _,
    CHUNK_TAG,
    CHUNK_NODE,
    CHUNK_RANK,
    CHUNK_PHASE,
    CHUNK_STEP,
    CHUNK_STEPS,
    CHUNK_INDEX,
    CHUNK_BASE,
    CHUNK_STATION,
    CHUNK_DIRECTION,
    CHUNK_TREE,
    CHUNK_INSERTED,
    CHUNK_SENT,
    CHUNK_RECEIVED,
    CHUNK_FREE,
    CHUNK_FILLS,
    CHUNK_JOINED,
    CHUNK_GATE,
    CHUNK_HEAD,
    CHUNK_TAIL,
    CHUNK_POSTS,
    CHUNK_ROUTE,
) = range(23)
CHUNK_W = CHUNK_ROUTE + MAX_PHASES

# What changes of a node.
NODE_WAITS, NODE_NEXT, NODE_ISSUE, NODE_FINISH, NODE_FIRST, NODE_LAST, NODE_STATE_W = range(7)

# A rank; from RANK_TURNS on three counters a dimension, then four a dimension for trees.
(
    RANK_END,
    RANK_STREAM,
    RANK_DONE,
    RANK_NODES,
    RANK_BATCHES,
    RANK_FINISHED,
    RANK_LEFT,
    RANK_CELLS,
    RANK_CUSTOM_DONE,
    RANK_CUSTOM_BUCKETS,
    RANK_BUSY,
) = range(11)
RANK_VERTEX = RANK_BUSY + 4
RANK_LAST = RANK_VERTEX + 4
RANK_ISSUED = RANK_LAST + 4
RANK_READY = RANK_ISSUED + 4
RANK_TURNS = RANK_READY + 4

(
    STATION_RUNNING,
    STATION_HEAD,
    STATION_TAIL,
    STATION_NODE,
    STATION_STARTS,
    STATION_LEAVES,
    STATION_TIED,
    STATION_LEFT,
    STATION_W,
) = range(9)
SAME_MOMENT = 1e-12
"""Relative distance below which two chunks leave a station together."""

# Links and memory servers.
SERVER_BUSY, SERVER_HEAD, SERVER_TAIL, SERVER_VERTEX, SERVER_COUNT, SERVER_W = range(6)

# A side of a bus; lists have a head and a tail.
(
    SIDE_STATE,
    SIDE_BEFORE,
    SIDE_LAST,
    SIDE_BUSY,
    SIDE_READS,
    SIDE_SENDS,
    _,
    SIDE_RECEIVES,
    _,
    SIDE_WORK,
    _,
    SIDE_VERTEX,
    SIDE_COUNT,
    SIDE_TALKED,
    SIDE_W,
) = range(15)
