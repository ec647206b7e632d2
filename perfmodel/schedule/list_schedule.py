"""Event-driven list schedule: which operation each resource runs next, decided by time.

Each resource (a rank's compute unit, communication unit, host; or a recorded stream or thread) runs one operation
at a time. Whenever operations finish, every idle resource takes the ready operation with the lowest node id.
Receives need no resource: they finish when posted and their message has arrived. A collective occupies its
resource on every member from its own issue on, and finishes on all members one cost after the last has joined.

Times closer than one part in 10^12 count as one moment, so that rounding never decides. The same kernel gives a
design its own schedule (`own_schedules`) and, recording, the order that `order_edges.freeze` turns into edges: the
longest path over those edges equals the schedule's times at that design.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled_code import machine_code
from perfmodel.errors import DeadlockError
from perfmodel.machine.system import System
from perfmodel.models.cost_blocks import check_costs
from perfmodel.schedule.contraction import Contraction, one_by_one
from perfmodel.schedule.list_scheduler import RECV, new_state, simulate
from perfmodel.schedule.tasks import Tasks
from perfmodel.vocabulary import OFFLOAD, describe
from perfmodel.workload.edges import reverse
from perfmodel.workload.graph import Graph


@dataclass(frozen=True, eq=False)
class Schedule:
    """What the list schedule did at one design, for the n tasks of the representative ranks.

    Attributes:
        start, finish: [n] f64 [s]; order: [n] i32, tasks by resource in order of issue.
        sequence: [V] i32, tasks and (from n on) instances of collectives, in the order in which their times
            became known.
        instance: [n] i32, the instance that each collective joined, -1 for others; instance_cost: cost rows.
        makespan: [s].
    """

    start: NDArray[np.float64]
    finish: NDArray[np.float64]
    order: NDArray[np.int32]
    sequence: NDArray[np.int32]
    instance: NDArray[np.int32]
    instance_cost: NDArray[np.int32]
    makespan: float

    def order_only(self) -> Schedule:
        """Without the times and what only freezing takes, which large graphs have no room for."""
        none, nobody = np.zeros(0), np.zeros(0, np.int32)
        return replace(self, start=none, finish=none, sequence=nobody)


def program_of(runs: Contraction) -> tuple[Any, ...]:
    """The arrays that the kernel reads, in its order."""
    tasks = runs.tasks
    succ_ptr, succ = reverse(tasks.pred_ptr, tasks.pred)
    return (
        tasks.type,
        tasks.priority,
        tasks.cost,
        tasks.resource,
        _places(tasks.resource, tasks.resources),
        succ_ptr,
        succ,
        tasks.pred_ptr,
        tasks.join,
        tasks.match,
        tasks.caller,
        tasks.members,
        tasks.recorded,
        tasks.partner,
        int(tasks.caller.max(initial=-1)) + 1,
        runs.more_ptr,
        runs.more,
    )


@machine_code(small=True)
def _places(resource: NDArray[Any], resources: int) -> NDArray[Any]:
    """[resources + 1] where each resource's tasks begin when they stand by resource; those without one are left out."""
    place = np.zeros(resources + 1, np.int64)
    for r in resource:
        if r >= 0:
            place[r + 1] += 1
    for r in range(resources):
        place[r + 1] += place[r]
    return place


def list_schedule(
    graph: Graph,
    tasks: Tasks,
    cost: NDArray[np.float64],
    program: tuple[Any, ...] | None = None,
) -> Schedule:
    """Schedule the tasks at one design.

    Args:
        graph: for messages.
        tasks: n tasks.
        cost: [S] f64, duration of each distinct cost [s].
        program: `program_of` the tasks one by one, where that is at hand.

    Raises:
        DeadlockError: ranks wait for each other; names them and their nodes.
    """
    check_costs(cost, tasks.work)
    n = len(tasks)
    program = program_of(one_by_one(tasks)) if program is None else program
    state = new_state(n, len(tasks.members), 0)
    sequence = np.zeros(n + len(tasks.members), np.int32)
    nothing = np.zeros(0, np.int32)
    makespan, _, _, steps, finished = simulate(cost, program, state, nothing, sequence)
    if finished < n:
        known = set(sequence[:steps].tolist())
        text = _diagnose(graph, tasks, known, instance=state[6], waiting=state[4])
        raise DeadlockError(*text.split("\n"))
    start, finish, order, instance, join_row = (state[k] for k in (0, 1, 5, 6, 8))
    return Schedule(start, finish, order, sequence, instance, join_row, makespan)


def _diagnose(
    graph: Graph, tasks: Tasks, known: set[int], *, instance: np.ndarray, waiting: np.ndarray
) -> str:
    """Who waits for whom when nothing moves any more.

    Args:
        known: tasks that have started and instances (from n on) that have completed.
        instance, waiting: [n] instance joined, number of prerequisites that have not ended.
    """
    n = len(tasks)
    lines = []
    for c, rank in enumerate(tasks.representative):
        stuck = []
        p = graph.programs[graph.program[rank]]
        for v in range(int(tasks.offset[c]), int(tasks.offset[c + 1])):
            position = v - int(tasks.offset[c])
            if instance[v] >= 0 and n + int(instance[v]) not in known:
                group = graph.groups[p.groups[graph.row[rank], p.slot[position]]]
                what = describe(p.type[position], p.comm_type[position])
                stuck.append(
                    f"{graph.name(rank, position)} has started {what} on ranks "
                    f"{list(group)[:8]} and waits for members that have not"
                )
            elif tasks.type[v] == RECV and v not in known and waiting[v] == 0:
                k, row = int(np.flatnonzero(p.p2p == position)[0]), graph.row[rank]
                other, back = int(p.peer[row, k]), int(p.partner[row, k])
                stuck.append(
                    f"{graph.name(rank, position)} waits for the message of {graph.name(other, back)}"
                )
        alike = int((tasks.rank_class == c).sum()) - 1
        like = f" ({alike} more rank{'s' if alike > 1 else ''} like it)" if alike else ""
        lines += [text + like for text in stuck[:2]]
    shown = "\n  ".join(lines[:12])
    return (
        f"{graph.source}: deadlock, these operations wait for each other:\n  {shown}\n"
        "Ranks issue their collectives in different orders, or a message is sent only after one that waits for "
        "it. Add the missing dependency, or order the nodes the same way on all ranks"
    )


def different_calls(graph: Graph, tasks: Tasks, schedule: Schedule) -> str:
    """What to say of collectives that order of issue pairs up though type or size differ; empty where none do."""
    calls = np.flatnonzero((schedule.instance >= 0) & (tasks.match < 0))
    calls = calls[np.argsort(schedule.instance[calls], kind="stable")]
    last: tuple[int, tuple[str, int, int]] | None = None
    found: dict[int, str] = {}
    for v in calls.tolist():
        c, position = tasks.place(v)
        rank, j = int(tasks.representative[c]), int(schedule.instance[v])
        p = graph.programs[graph.program[rank]]
        call = (graph.name(rank, position), int(p.comm_type[position]), int(p.size[position]))
        if last is None or last[0] != j:
            last = (j, call)
        elif call[1:] != last[1][1:]:
            found.setdefault(j, f"{last[1][0]} with {call[0]}")
    if not found:
        return ""
    return (
        f"{graph.source}: {len(found)} collectives of different type or size meet in the order of issue, the first "
        f"{next(iter(found.values()))}; they are taken to last as long as the longer one. Give them the same names on "
        "all ranks, or order them the same way"
    )


def offload_to_nowhere(graph: Graph, system: System) -> str:
    """What to say of a workload that sends data away on a system that has nowhere to send it; empty elsewhere."""
    offloads = any(OFFLOAD in p.resources for p in graph.programs)
    if not offloads or system.remote_memory is not None:
        return ""
    return (
        f"{graph.source}: sends data to remote memory and back (offload), which {system.name or 'the system'} does not"
        " have: it moves as fast as local memory here, and takes almost no time. Give the system's file [remote_memory]"
        " with the bandwidth and latency of the way to it"
    )
