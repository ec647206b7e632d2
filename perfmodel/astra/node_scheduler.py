"""The simulator's schedule with an event for every node instead of every message, as compiled code.

Unaware of congestion, a collective of one phase is a max-plus matrix: from the moments at which its members join to
the moments at which they end, all of which come after the last join. See `node_program` for what is read, and for
what this is limited to.

Where two nodes of a rank end at one moment, the simulator goes by the order of registration; how much of that is known
here, and where it matters, `equal_moments` says. A design on which it could make a difference is given up (nan), as is
one that deadlocks or in which members of a collective disagree about it.
"""

from __future__ import annotations

import numpy as np

from perfmodel.astra import layout as c
from perfmodel.astra.collective_matrices import matrices, run_module, trace_module
from perfmodel.astra.equal_moments import always_first, certainly_after
from perfmodel.compiled_code import machine_code
from perfmodel.schedule.heaps import pop_key, pop_registered, push_key, push_registered

TIMER, SEND, RECV, COLLECTIVE, MEMORY = c.TIMER, c.SEND, c.RECV, c.COLLECTIVE, c.MEMORY
RECEIVE = c.RECEIVE


@machine_code(nogil=True)
def new_state(nodes, ranks, slots, instances, messages, counters, numbers):
    """Arrays that a schedule writes; `numbers` is how many entries the matrices have."""
    return (
        np.zeros(nodes, np.int32),  # waits: prerequisites left
        np.zeros(nodes, np.int32),  # heaps of ready nodes
        np.full(nodes, -1, np.int32),  # came: the node whose end a node was issued at
        np.zeros(nodes),  # finish
        np.zeros(nodes),  # since: when what ends a node was registered, nan where that is not known
        np.zeros(nodes, np.int32),  # slot of a collective's instance
        np.zeros(4 * ranks, np.int32),  # heap sizes
        np.zeros(4 * ranks, np.bool_),  # busy units
        np.zeros(ranks, np.int32),  # moment: a rank's moments so far
        np.zeros(ranks),  # began: time of its present moment
        np.zeros(ranks, np.int32),  # ends: nodes that ended in it, not issued at the end before
        np.full(ranks, -1, np.int32),  # before: the node that ended last
        np.full(nodes, -1, np.int32),  # earlier: the node that ended before it in its moment
        np.zeros(ranks, np.bool_),  # ordered: what its ends did holds in this order only
        np.full(4 * ranks, -1, np.int32),  # taken: node issued on each unit in it
        np.zeros(4 * ranks, np.int64),  # issued: nodes of each unit so far
        np.full(slots, -1, np.int32),  # node_of: who joined an instance, by member
        np.zeros(slots),  # joined: when
        np.zeros(instances, np.int32),  # how many have joined
        np.zeros(instances, np.int64),  # tag of the instance's first chunk
        np.zeros(instances, np.int32),  # module
        np.zeros(counters, np.int32),  # calls of each member of each ring
        np.zeros(counters, np.int64),  # chunks of each group on each rank
        np.zeros(ranks, np.int64),  # stream: chunks of a rank
        np.zeros(messages, np.bool_),  # arrived
        np.full(messages, -1, np.int32),  # receive that waits for a message
        np.full(messages, -1, np.int32),  # send that it comes from
        np.zeros(messages, np.int32),  # sends of a key so far (at the key's first message)
        np.zeros(messages, np.int32),  # receives of a key so far
        np.full(messages, -1, np.int32),  # moment of the last receive of a key
        np.full(nodes, -1, np.int32),  # message of a send or receive
        np.zeros(numbers),  # matrices
        np.zeros(numbers),  # latest
    )


@machine_code(nogil=True)
def simulate(cost, program, modules, layout, state, room, tolerance, counts):
    """One design: (its makespan, nan where it is given up; a digest of the order on all units).

    `counts` [S], where it has entries, gets the path counts.
    """
    (
        rank_of,
        unit_of,
        action,
        row,
        succ_ptr,
        succ,
        indegree,
        heap_ptr,
        key_of,
        module_of,
        member_of,
        ring_of,
        call_of,
        tag_of,
        chunks_of,
        instance_ptr,
        slot_ptr,
        ring_members,
        ranks,
    ) = program
    matrix_ptr, symmetry = layout
    (
        waits,
        heap,
        came,
        finish,
        since,
        slot_of,
        heap_size,
        busy,
        moment,
        began,
        ends,
        before,
        earlier,
        ordered,
        taken,
        issued,
        node_of,
        joined,
        present,
        instance_tag,
        instance_module,
        calls,
        tags,
        stream,
        arrived,
        waiting,
        sender,
        sends,
        receives,
        last_post,
        message,
        matrix,
        latest,
    ) = state
    at, other, event_time, event_since, event_code, choice = room
    nodes = rank_of.size
    matrices(cost, modules, matrix_ptr, symmetry, matrix, latest, at, other)
    for n in range(nodes):
        waits[n] = indegree[n]
        came[n] = -1
    heap_size[:] = 0
    busy[:] = False
    moment[:] = 0
    began[:] = 0.0
    ends[:] = 0
    before[:] = -1
    ordered[:] = False
    taken[:] = -1
    issued[:] = 0
    digest = np.uint64(0)
    present[:] = 0
    calls[:] = 0
    tags[:] = 0
    stream[:] = 0
    arrived[:] = False
    waiting[:] = -1
    sends[:] = 0
    receives[:] = 0
    last_post[:] = -1
    for n in range(nodes):
        if waits[n] == 0:
            h = rank_of[n] * 4 + unit_of[n]
            heap[heap_ptr[h] + heap_size[h]] = n  # ascending: a heap
            heap_size[h] += 1
    events = 0
    for r in range(ranks):
        event_time[events], event_since[events], event_code[events] = 0.0, 0.0, -1 - r
        events += 1
    done = 0
    makespan, last = 0.0, -1
    while events > 0:
        now, code = event_time[0], event_code[0]
        pop_registered(event_time, event_since, event_code, events)
        events -= 1
        pending = code
        while True:
            n = pending
            pending = -1
            r = -1 - n if n < 0 else rank_of[n]
            base = r * 4
            opened = False  # whether a moment of the rank begins
            if n >= 0:
                if now > began[r] * (1.0 + tolerance):
                    if ends[r] > 1:
                        for u in range(3):
                            ready = heap_ptr[base + u]
                            left = heap[ready : ready + heap_size[base + u]]
                            x = taken[base + u]
                            if x >= 0 and not always_first(
                                x, left, before[r], earlier, unit_of, succ_ptr, succ
                            ):
                                return np.nan, digest
                    opened = True
                    moment[r] += 1
                    began[r] = now
                    ends[r] = 0
                    ordered[r] = False
                    for u in range(3):
                        taken[base + u] = -1
                done += 1
                finish[n] = now
                if now >= makespan:
                    makespan, last = now, n
                if unit_of[n] != RECEIVE:
                    busy[base + unit_of[n]] = False
                for e in range(succ_ptr[n], succ_ptr[n + 1]):
                    w = succ[e]
                    waits[w] -= 1
                    if waits[w] == 0:
                        h = base + unit_of[w]
                        push_key(heap, heap_ptr[h], heap_size[h], w)
                        heap_size[h] += 1
            first = ends[r] == 0
            if first or not certainly_after(n, before[r], came, since, action, tolerance):
                ends[r] += 1
                if ends[r] > 1 and ordered[r]:
                    return np.nan, digest
            if n >= 0:
                earlier[n] = -1 if opened else before[r]
            before[r] = n
            for u in range(4):
                h = base + u
                while heap_size[h] > 0 and not busy[h]:
                    v = heap[heap_ptr[h]]
                    pop_key(heap, heap_ptr[h], heap_size[h])
                    heap_size[h] -= 1
                    came[v] = n
                    if u != RECEIVE:
                        busy[h] = True
                        if taken[h] >= 0:
                            if ends[r] > 1:
                                return np.nan, digest
                            ordered[r] = True
                        taken[h] = v
                        x = np.uint64(h) * np.uint64(0x9E3779B97F4A7C15)
                        x ^= np.uint64(issued[h]) * np.uint64(0xC2B2AE3D27D4EB4F)
                        x ^= np.uint64(v) * np.uint64(0x165667B19E3779F9)
                        x = (x ^ (x >> np.uint64(31))) * np.uint64(0xBF58476D1CE4E5B9)
                        digest += (x ^ (x >> np.uint64(29))) * np.uint64(0x94D049BB133111EB)
                        issued[h] += 1
                    act = action[v]
                    since[v] = now
                    if act in (TIMER, MEMORY, SEND):
                        end = now + cost[row[v]]
                        push_registered(event_time, event_since, event_code, events, end, now, v)
                        events += 1
                    if act == SEND:
                        k = key_of[v]
                        q = k + sends[k]
                        sends[k] += 1
                        message[v] = q
                        sender[q] = v
                    elif act == RECV:
                        k = key_of[v]
                        if receives[k] > 0 and last_post[k] == moment[r]:
                            if ends[r] > 1:
                                return np.nan, digest
                            ordered[r] = True
                        last_post[k] = moment[r]
                        q = k + receives[k]
                        receives[k] += 1
                        message[v] = q
                        waiting[q] = v
                        if arrived[q]:
                            push_registered(
                                event_time, event_since, event_code, events, now, now, v
                            )
                            events += 1
                            if finish[sender[q]] == now:
                                since[v] = np.nan
                    elif act == COLLECTIVE:
                        ring = ring_of[v]
                        count = calls[call_of[v]]
                        calls[call_of[v]] = count + 1
                        tag = tags[tag_of[v]] if tag_of[v] >= 0 else stream[r]
                        if tag_of[v] >= 0:
                            tags[tag_of[v]] += chunks_of[v]
                        stream[r] += chunks_of[v]
                        j = instance_ptr[ring] + count
                        members = ring_members[ring]
                        slot = slot_ptr[ring] + count * members
                        if present[j] == 0:
                            instance_tag[j], instance_module[j] = tag, module_of[v]
                        elif instance_tag[j] != tag or instance_module[j] != module_of[v]:
                            return np.nan, digest
                        node_of[slot + member_of[v]] = v
                        slot_of[v] = slot
                        joined[slot + member_of[v]] = now
                        present[j] += 1
                        if present[j] == members:
                            k = module_of[v]
                            m = matrix_ptr[k]
                            if m >= 0:
                                alike = True
                                for i in range(members):
                                    alike &= joined[slot + i] == now
                                for i in range(members):
                                    if alike:
                                        end = now + latest[m + i]
                                    else:
                                        end = 0.0
                                        for q in range(members):
                                            x = joined[slot + q] + matrix[m + i * members + q]
                                            end = x if x > end else end
                                    other[i] = end
                            else:
                                for i in range(members):
                                    at[i] = joined[slot + i]
                                run_module(cost, modules, k, at, other)
                                for i in range(members):
                                    other[i] = at[i]
                            for i in range(members):
                                member = node_of[slot + i]
                                since[member] = np.nan
                                push_registered(
                                    event_time,
                                    event_since,
                                    event_code,
                                    events,
                                    other[i],
                                    now,
                                    member,
                                )
                                events += 1
            if n >= 0 and action[n] == SEND:
                q = message[n]
                arrived[q] = True
                pending = waiting[q]
                if pending >= 0:  # posted before, else nobody knows which of the two came first
                    since[pending] = since[n] if since[pending] < now else np.nan
            if pending < 0:
                break
    if done < nodes:
        return np.nan, digest
    if counts.size:
        n = last
        while n >= 0:
            act = action[n]
            if act == RECV:
                s, posted = sender[message[n]], came[n]
                n = s if posted < 0 or finish[s] > finish[posted] else posted
                continue
            if act == COLLECTIVE:
                slot = slot_of[n]
                for i in range(ring_members[ring_of[n]]):
                    at[i] = joined[slot + i]
                member = trace_module(cost, modules, module_of[n], at, member_of[n], choice, counts)
                n = came[node_of[slot + member]]
                continue
            counts[row[n]] += 1
            n = came[n]
    return makespan, digest


@machine_code(nogil=True)
def simulate_many(
    costs, program, modules, layout, sizes, most, tolerance, makespan, digest, counts
):
    """The designs of costs [S, D] one after the other; `counts` [D, S], where it has columns, gets the path counts."""
    nodes, ranks, slots, instances, messages, counters, numbers = sizes
    state = new_state(nodes, ranks, slots, instances, messages, counters, numbers)
    room = (
        np.empty(most[0]),
        np.empty(most[0]),
        np.empty(nodes + ranks + 1),
        np.empty(nodes + ranks + 1),
        np.empty(nodes + ranks + 1, np.int32),
        np.empty(most[1], np.bool_),
    )
    for d in range(costs.shape[1]):
        makespan[d], digest[d] = simulate(
            costs[:, d].copy(), program, modules, layout, state, room, tolerance, counts[d]
        )
