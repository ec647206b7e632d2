"""The event-driven list schedule as compiled code.

Binary heaps in plain arrays: one of events by time, one per resource of ready nodes by id. See `list_schedule` for what
it means.
"""

import numpy as np

from perfmodel.compiled_code import elements, machine_code
from perfmodel.schedule.heaps import pop_event, pop_key, push_event, push_key
from perfmodel.vocabulary import NodeType

SAME_MOMENT = 1e-12
"""Relative distance below which two times are one moment."""

RECV = int(NodeType.COMM_RECV)
SEND = int(NodeType.COMM_SEND)
COLL = int(NodeType.COMM_COLL)


@machine_code(small=lambda cost, program, *_: elements(program), nogil=True)
def simulate(cost, program, state, expected, sequence):
    """One schedule; `state` is written, see `new_state`.

    Returns (makespan, last node, differs from `expected`, length of the sequence, nodes finished); fewer finished
    nodes than there are mean deadlock.
    """
    start, finish, ready_from, came_from, waiting, order, instance, join_last, join_row = state
    (
        kind,
        priority,
        row,
        resource,
        place,
        succ_ptr,
        succ,
        pred_ptr,
        join,
        match,
        caller,
        members,
        recorded,
        partner,
        callers,
        more_ptr,
        more,
    ) = program
    n = kind.size
    instances = members.size
    resources = place.size - 1
    recording = sequence.size > 0
    checking = expected.size > 0
    tracing = came_from.size > 0
    differs = False
    steps = 0
    heap_time = np.empty(n + instances + 1)
    heap_code = np.empty(n + instances + 1, np.int64)
    events = 0
    queue_key = np.empty(n, np.int64)  # one binary heap per resource, at its place
    queue_size = np.zeros(resources, np.int64)
    running = np.zeros(resources, np.bool_)
    free = np.zeros(resources)
    free_from = np.full(resources, -1, np.int64)
    issued = np.zeros(resources, np.int64)
    touched = np.empty(resources + 1, np.int64)
    is_touched = np.zeros(resources, np.bool_)
    touches = 0
    joined = np.zeros(instances, np.int64)
    join_time = np.zeros(instances)
    join_last[:] = -1
    join_row[:] = -1
    join_first = np.full(instances, -1, np.int64)
    join_recorded = np.zeros(instances, np.bool_)
    next_member = np.full(n if instances else 0, -1, np.int32)
    calls = np.zeros(callers, np.int64)
    joining = np.empty(resources + 1, np.int64)  # collectives issued at this moment
    joins = 0
    by_issue = False  # some collectives pair up by order of issue
    for v in range(n):
        by_issue |= kind[v] == COLL and join[v] >= 0 and match[v] < 0
    arrived = np.zeros(n, np.bool_)
    finished = 0
    makespan = 0.0
    last = -1
    fresh = np.empty(n + 1, np.int32)  # nodes whose prerequisites are done
    fresh_count = 0
    for v in range(n):
        waiting[v] = pred_ptr[v + 1] - pred_ptr[v]
        start[v] = 0.0
        if tracing:
            ready_from[v] = -1
        if waiting[v] == 0:
            fresh[fresh_count] = v
            fresh_count += 1
    now = 0.0
    while True:
        # every node of this moment is done: queue what became ready
        for k in range(fresh_count):
            v = fresh[k]
            r = resource[v]
            if r >= 0:
                push_key(queue_key, place[r], queue_size[r], (np.int64(priority[v]) << 32) | v)
                queue_size[r] += 1
                if not is_touched[r]:
                    is_touched[r] = True
                    touched[touches] = r
                    touches += 1
            else:
                if tracing:
                    came_from[v] = ready_from[v]
                if kind[v] == RECV:
                    s = partner[v]
                    if arrived[s]:
                        if tracing and finish[s] > start[v]:
                            came_from[v] = s
                        push_event(heap_time, heap_code, events, max(start[v], finish[s]), v)
                        events += 1
                        if recording:
                            sequence[steps] = v
                            steps += 1
                    else:
                        arrived[v] = True  # posted
                else:
                    if recording:
                        sequence[steps] = v
                        steps += 1
                    c = row[v]  # of the latency of an edge, or of a run
                    end = start[v] + (cost[c] if c >= 0 else 0.0)
                    for e in range(more_ptr[v], more_ptr[v + 1]):
                        end += cost[more[e]]
                    push_event(heap_time, heap_code, events, end, v)
                    events += 1
        fresh_count = 0
        # idle resources take the lowest id
        for k in range(touches):
            r = touched[k]
            is_touched[r] = False
            if running[r] or queue_size[r] == 0:
                continue
            base = place[r]
            v = queue_key[base] & 0xFFFFFFFF
            pop_key(queue_key, base, queue_size[r])
            queue_size[r] -= 1
            running[r] = True
            if tracing:
                by_resource = free_from[r] >= 0 and free[r] >= start[v]
                came_from[v] = free_from[r] if by_resource else ready_from[v]
            start[v] = max(free[r], start[v])
            at = base + issued[r]
            issued[r] += 1
            if checking and expected[at] != v:
                differs = True
            order[at] = v
            if recording:
                sequence[steps] = v
                steps += 1
            if kind[v] != COLL or join[v] < 0:
                c = row[v]
                push_event(heap_time, heap_code, events, start[v] + (cost[c] if c >= 0 else 0.0), v)
                events += 1
            else:
                joining[joins] = (np.int64(priority[v]) << 32) | v
                joins += 1
        # a rank that issues several at one moment does so by ascending id, whatever the resource
        if joins > 1 and by_issue:
            joining[:joins].sort()
        for k in range(joins):
            v = joining[k] & 0xFFFFFFFF
            j = match[v]
            if j < 0:
                j = calls[caller[v]]
                calls[caller[v]] += 1
            j += join[v]
            instance[v] = j
            joined[j] += 1
            next_member[v] = join_first[j]
            join_first[j] = v
            if join_last[j] < 0 or start[v] > join_time[j]:
                join_time[j] = start[v]
                join_last[j] = v
            c = row[v]
            if c >= 0:
                o = join_row[j]
                # a replayed collective lasts what its quickest member recorded; a record beats a model
                replayed = join_recorded[j]
                if (
                    o < 0
                    or (recorded[v] and not replayed)
                    or (recorded[v] and cost[c] < cost[o])
                    or (not replayed and cost[c] > cost[o])
                ):
                    join_row[j] = c
                    join_recorded[j] = recorded[v]
            if joined[j] == members[j]:
                c = join_row[j]
                end = join_time[j] + (cost[c] if c >= 0 else 0.0)
                push_event(heap_time, heap_code, events, end, n + j)
                events += 1
                if recording:
                    sequence[steps] = n + j
                    steps += 1
        joins = 0
        touches = 0
        if events == 0:
            break
        now = heap_time[0]
        limit = now + SAME_MOMENT * now
        while events > 0 and heap_time[0] <= limit:
            time, code = heap_time[0], heap_code[0]
            pop_event(heap_time, heap_code, events)
            events -= 1
            v = code if code < n else join_first[code - n]
            while v >= 0:
                finish[v] = time
                finished += 1
                if time > makespan or last < 0:
                    makespan = time
                    last = v
                r = resource[v]
                if r >= 0:
                    running[r] = False
                    free[r] = time
                    free_from[r] = v
                    if not is_touched[r]:
                        is_touched[r] = True
                        touched[touches] = r
                        touches += 1
                for e in range(succ_ptr[v], succ_ptr[v + 1]):
                    w = succ[e]
                    if tracing and (time > start[w] or ready_from[w] < 0):
                        ready_from[w] = v
                    start[w] = max(start[w], time)
                    waiting[w] -= 1
                    if waiting[w] == 0:
                        fresh[fresh_count] = w
                        fresh_count += 1
                if kind[v] == SEND:
                    arrived[v] = True
                    w = partner[v]
                    if arrived[w]:  # posted before
                        if tracing and time > start[w]:
                            came_from[w] = v
                        push_event(heap_time, heap_code, events, max(start[w], time), w)
                        events += 1
                        if recording:
                            sequence[steps] = w
                            steps += 1
                v = next_member[v] if code >= n else -1
    return makespan, last, differs, steps, finished


@machine_code(small=lambda n, instances, traced: 10, nogil=True)
def new_state(n, instances, traced):
    """The arrays that one schedule of n tasks, and of instances of collectives, writes.

    `traced`: n where the prerequisites that bound are asked for, else 0.
    """
    return (
        np.zeros(n),  # start; until a task has started, when its last prerequisite finished
        np.zeros(n),  # finish
        np.full(traced, -1, np.int32),  # ready_from: that prerequisite
        np.full(
            traced, -1, np.int32
        ),  # came_from: what the start (a receive: the finish) waited for
        np.zeros(n, np.int32),  # waiting: prerequisites left
        np.zeros(n, np.int32),  # order: each resource's nodes as they are issued, at its place
        np.full(n, -1, np.int32),  # instance that a collective joined
        np.full(instances, -1, np.int32),  # join_last: the member that joined last
        np.full(instances, -1, np.int32),  # join_row: the cost that the instance takes
    )


@machine_code(small=lambda costs, program, *_: costs.shape[1] * elements(program), nogil=True)
def orders_of_many(costs, program, makespan, order, instance):
    """Makespans (nan: deadlock), orders of issue and instances joined, a row for each column of `costs` [S, D]."""
    n, limited = program[0].size, order.shape[1]
    state = new_state(n, program[11].size, 0)
    nothing = np.zeros(0, np.int32)
    for d in range(costs.shape[1]):
        makespan[d], _, _, _, finished = simulate(
            costs[:, d].copy(), program, state, nothing, nothing
        )
        if finished < n:
            makespan[d] = np.nan
        order[d] = state[5][:limited]
        instance[d] = state[6]


@machine_code(small=lambda costs, program, *_: costs.shape[1] * elements(program), nogil=True)
def simulate_many(costs, program, expected, makespan, differs, counts):
    """Own schedules of the columns of `costs` [S, D]; path counts [S, D] where `counts` has rows.

    `expected` is (order, collectives, the instance that each of these joins there).
    """
    order, calls, joins = expected
    n = program[0].size
    row, join, members, more_ptr, more = (
        program[2],
        program[8],
        program[11],
        program[15],
        program[16],
    )
    state = new_state(n, members.size, n if counts.shape[0] else 0)
    came_from, instance, join_last, join_row = state[3], state[6], state[7], state[8]
    nothing = np.zeros(0, np.int32)
    for d in range(costs.shape[1]):
        makespan[d], v, differs[d], _, finished = simulate(
            costs[:, d].copy(), program, state, order, nothing
        )
        for k in range(calls.size):
            differs[d] |= instance[calls[k]] != joins[k]
        if finished < n:
            makespan[d] = np.nan
            continue
        while counts.shape[0] and v >= 0:
            c = row[v]
            if join[v] >= 0:
                c = join_row[instance[v]]
                v = join_last[instance[v]]
            if c >= 0:
                counts[c, d] += 1
            for e in range(more_ptr[v], more_ptr[v + 1]):
                counts[more[e], d] += 1
            v = came_from[v]
