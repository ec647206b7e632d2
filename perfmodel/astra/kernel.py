"""The message-level event simulator: all ranks, both backends, one compiled function.

Source: the rules of ASTRA-sim's analytical backends at 518bd51 (workload, system and network layers).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra import layout as c
from perfmodel.astra.algorithms import GOES_ON, filled, received, reduce
from perfmodel.astra.custom_kernel import end_custom
from perfmodel.astra.event_recorder import add_vertex, note_order
from perfmodel.astra.jit import compiled, link_parts, usual
from perfmodel.astra.messages import after_handshake, enter_link, free_link, hop, name_of
from perfmodel.astra.nodes import (
    check_finished,
    complete_node,
    end_phase,
    free_server,
    issue_pass,
    push_ready,
    state_of,
)
from perfmodel.astra.shared_bus import bus_event, end_bus_event
from perfmodel.astra.timers import drop_batch, give_back, pop_event
from perfmodel.compiled_code import (
    is_kept,
    machine_code,
    plain_of,
    said_while_it_takes,
)
from perfmodel.compiled_code.allowance import Allowance


@compiled
def begin(t, m, f):
    """Fill the ready heaps and let every rank issue its first nodes, in the order of ranks."""
    for number in range(t[c.T_RANKS]):
        pointer = t[c.T_RANK_PTR] + number
        for n in range(t[pointer], t[pointer + 1]):
            if m[state_of(m, n) + c.NODE_WAITS] == 0:
                push_ready(t, m, n)
    for number in range(t[c.T_RANKS]):
        issue_pass(t, m, f, 0.0, number, -1)
        check_finished(m, f, 0.0, number)


@compiled
def end_of_custom(t, m, f, now, k, i, vertex):
    """A node of a custom collective has ended, and perhaps the chunk with it."""
    end = end_custom(t, m, f, now, k, i, vertex)
    if end != GOES_ON:
        end_phase(t, m, f, now, k, end)


@compiled
def fire(t, m, f, now, k):
    """A timer is due."""
    kind = m[k + c.TIMER_KIND]
    item, vertex = m[k + c.TIMER_ITEM], m[k + c.TIMER_VERTEX]
    if kind == c.NODE_ENDS:
        complete_node(t, m, f, now, item, vertex)
    elif kind == c.BEFORE_REDUCTION:
        reduce(m, f, now, item, m[k + c.TIMER_EXTRA], vertex)
    elif kind == c.SERVER_FREE:
        free_server(t, m, f, now, item)
    elif kind == c.CUSTOM_ENDS:
        end_of_custom(t, m, f, now, item, m[k + c.TIMER_EXTRA], vertex)
    elif kind == c.FILLED:
        end_of_slot(t, m, f, now, item, m[k + c.TIMER_EXTRA], vertex)
    else:
        r = bus_event(t, m, f, now, kind, item, vertex)
        if r > 0:
            deliver(t, m, f, now, r)
        end_bus_event(t, m, f, now, kind, item, vertex)


@compiled
def end_of_slot(t, m, f, now, k, reduction, vertex):
    """A slot of a chunk is full, and its phase perhaps over."""
    end = filled(t, m, f, now, k, reduction, vertex)
    if end != GOES_ON:
        end_phase(t, m, f, now, k, end)


@compiled
def deliver(t, m, f, now, r):
    """A packet has crossed the shared bus."""
    k, reduction = m[r + c.REQUEST_CHUNK], m[r + c.REQUEST_REDUCTION]
    vertex = m[r + c.REQUEST_VERTEX]
    give_back(m, c.REQUESTS, r)
    if reduction >= 0:
        reduce(m, f, now, k, reduction, vertex)
    else:
        end_of_slot(t, m, f, now, k, reduction, vertex)


@compiled
def run_batch(t, m, f, now, b):
    """All timers of one rank that are due now, also those that are added meanwhile."""
    k = m[b + c.BATCH_HEAD]
    while k > 0:
        fire(t, m, f, now, k)
        after = m[k + c.NEXT]
        give_back(m, c.TIMERS, k)
        k = after
    drop_batch(m, b)


@compiled
def hand_over(t, m, f, now, k):
    """A message is there and asked for: its receiver goes on."""
    receiver, item, extra = m[k + c.MESSAGE_RECEIVER], m[k + c.MESSAGE_ITEM], m[k + c.MESSAGE_EXTRA]
    arrival, posted = m[k + c.MESSAGE_VERTEX], m[k + c.MESSAGE_POSTED]
    name = name_of(t, m, receiver, item, extra)
    if name != -1:
        note_order(m, c.PAIR_ORDER, name, m[k + c.MESSAGE_SENDER_NAME])
    give_back(m, c.MESSAGES, k)
    if receiver == c.BY_SEND:
        after_handshake(t, m, f, now, item, 0, add_vertex(m, -1, arrival, posted))
        return
    if receiver == c.BY_CHUNK:
        received(t, m, f, now, item, extra, arrival, posted)
        return
    end = add_vertex(m, -1, arrival, posted)
    if receiver == c.BY_NODE:
        complete_node(t, m, f, now, item, end)
    else:
        end_of_custom(t, m, f, now, item, extra, end)


@compiled
def arrive(t, m, f, now, k):
    """A message reaches a device: on to the next link, or it has arrived and tells its sender first."""
    if t[c.T_NETWORK] != c.UNAWARE and not hop(t, m, k):
        enter_link(t, m, f, now, k)
        return
    sender, item = m[k + c.MESSAGE_SENDER], m[k + c.MESSAGE_SENDER_ITEM]
    if sender == c.BY_NODE:
        complete_node(t, m, f, now, item, m[k + c.MESSAGE_VERTEX])
    elif sender == c.BY_CUSTOM:
        end_of_custom(t, m, f, now, item, m[k + c.MESSAGE_SENDER_EXTRA], m[k + c.MESSAGE_VERTEX])
    elif sender == c.BY_RECEIVE:
        after_handshake(t, m, f, now, item, 1, m[k + c.MESSAGE_VERTEX])
    if m[k + c.MESSAGE_RECEIVER] != c.NOBODY:
        hand_over(t, m, f, now, k)
    else:
        m[k + c.MESSAGE_ARRIVED] = 1


@compiled
def go_on(t, m, f):
    """Run until no event is left, a pool is full, or the limit of events reached, from where `m` stands."""
    if m[c.BEGUN] == 0:
        m[c.BEGUN] = 1
        begin(t, m, f)
    while m[c.HEAP_SIZE] > 0 and m[c.FULL] == 0 and m[c.EVENTS] < m[c.LIMIT]:
        event = m[c.HEAP]
        now = f[event + c.EVENT_TIME]
        kind = m[event + c.EVENT_KIND]
        item = m[event + c.EVENT_ITEM]
        pop_event(m, f)
        m[c.EVENTS] += 1
        if now == 0.0:
            m[c.AT_ZERO] = 1
        if kind == c.BATCH:
            run_batch(t, m, f, now, item)
        elif kind == c.ARRIVAL:
            arrive(t, m, f, now, item)
        elif kind == c.LINK_FREE:
            free_link(t, m, f, now, item)
        else:
            hand_over(t, m, f, now, item)


@machine_code(nogil=True, error_model="numpy")
def usual_machine(t, m, f):
    """The usual parts as one function, that is kept; its arguments are arrays."""
    link_parts()
    go_on(usual(t.ctypes), m.ctypes, f.ctypes)


@machine_code(nogil=True, error_model="numpy")
def whole_machine(t, m, f):
    """All parts as one function, for workloads that need rare ones."""
    link_parts()
    go_on(t.ctypes, m.ctypes, f.ctypes)


PLAIN = 100_000
"""Events that are handled as plain Python before the kernel is compiled: a third of the time that compiling takes."""

STRETCH = 1_000_000
"""Events that machine code handles at a time, about a second's: in between Python can be interrupted."""

plain = plain_of(go_on.py_func)
machines = (usual_machine, whole_machine)
"""By `layout.T_RARE`; so are the allowances."""
allowances = tuple(Allowance(machine, PLAIN) for machine in machines)


def simulate(t: NDArray[np.int64], m: NDArray[np.int64], f: NDArray[np.float64]) -> None:
    """Run until no event is left or a pool is full, as machine code or, for little work, as Python.

    Seconds of compiling are not worth a run of some thousand events. What plain Python has begun, machine code
    goes on with where it stands.

    Args:
        t, m, f: the words of the tables and of the state, and the state as numbers; see `layout`.
    """
    machine, allowance = machines[t[c.T_RARE]], allowances[t[c.T_RARE]]
    if not is_kept(machine, (t, m, f)) and allowance.left > 0:
        before = m[c.EVENTS]
        m[c.LIMIT] = before + allowance.left
        with np.errstate(over="ignore"):  # of hashes, that wrap around in machine code, too
            plain(t.data, m.data, f.data)  # whose items are Python's numbers
        allowance.spend(int(m[c.EVENTS] - before), (t, m, f))
    with said_while_it_takes():
        while m[c.BEGUN] == 0 or (m[c.HEAP_SIZE] > 0 and m[c.FULL] == 0):
            m[c.LIMIT] = m[c.EVENTS] + STRETCH
            machine(t, m, f)
