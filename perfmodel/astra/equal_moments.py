"""Nodes of a rank that end at one moment: in which order they do in the simulator, and where that decides nothing.

There, events of one time run in the order of their registration. What the end of a node issues ends after it, also
where it takes no time, as a receive does that finds its message there. Of messages, what was sent first arrives first.
When the last message of a collective was sent is not known here. Of two orders that are possible, mostly both leave
the same: the node that a unit takes has the lowest id, and is ready wherever another one is.
"""

from __future__ import annotations

from perfmodel.astra import layout as c
from perfmodel.compiled_code import machine_code

TIMER, MEMORY = c.TIMER, c.MEMORY


@machine_code(nogil=True)
def always_first(x, left, last, earlier, unit_of, succ_ptr, succ):
    """Whether a unit takes x before all that is left in its heap, whichever order a moment's nodes ended in.

    It does where x has the lowest id, and waited in this moment for no node that the other one did not wait for, but
    for the one that had the unit.
    """
    for y in left:
        if y < x:
            return False
        end = last
        while end >= 0:
            for_x, for_y = False, False
            for e in range(succ_ptr[end], succ_ptr[end + 1]):
                for_x |= succ[e] == x
                for_y |= succ[e] == y
            if for_x and not for_y and unit_of[end] != unit_of[x]:
                return False
            end = earlier[end]
    return True


@machine_code(nogil=True)
def certainly_after(n, before, came, since, action, tolerance):
    """Whether a node that ends in the moment of another one certainly ends after it in the simulator.

    It does where it was issued when that one ended. Where times are the simulator's to the bit, so does what was
    registered later; but a rank's timers of one moment run together where the first of them was registered.
    """
    if came[n] == before:
        return True
    if before < 0 or tolerance > 0.0 or not since[before] < since[n]:
        return False
    timer = action[n] == TIMER or action[n] == MEMORY
    return not timer or action[before] == TIMER or action[before] == MEMORY
