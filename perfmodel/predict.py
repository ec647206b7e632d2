"""The pipeline in one function: graph, system and models in, a `Prediction` out.

`compile` does what depends on the graph and on the network's shape: merge equal ranks, schedule at the reference
design, freeze the order as edges. What depends on rates comes after it and is cheap, differentiable and batched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel import engine, longest_path
from perfmodel.cost import Models, check_costs, durations
from perfmodel.events import Events, reverse
from perfmodel.graph import Graph
from perfmodel.hardware import System
from perfmodel.kinds import NodeType
from perfmodel.order import order_is_forced
from perfmodel.parameters import check_values
from perfmodel.reduce import Reduced, reduce
from perfmodel.schedule import different_calls, freeze, list_schedule, makespans
from perfmodel.tasks import Tasks, build

Own = Callable[..., tuple[NDArray[np.float64], NDArray[np.bool_], NDArray[Any]]]


class Lowering(Protocol):
    """Models that lower a graph in their own way (ASTRA-sim's messages) bring this method."""

    def lower(self, graph: Graph, system: System) -> Compiled: ...


@dataclass(frozen=True, eq=False)
class Compiled:
    """A graph on a network shape, scheduled at a reference design; ready for any rates.

    Attributes:
        graph, system, models: what was compiled; system is the reference design.
        rank_class: [R] i32, class of each rank; representative: [C] a rank of each class.
        offset: [C+1] i64, first task of each class; a class has as many tasks as its ranks have nodes.
        events: the frozen graph; `first` and `last` of every task.
        category: [S] i8, category of each distinct cost (`tasks.CATEGORIES`).
        evaluate: (system, models) -> [S] costs in `unit`, pure JAX.
        own: (costs [S, D], paths=bool) -> makespan [D], order differs [D], path counts [S, D] of those that differ:
            every design's own schedule.
        forced: the order holds on every design, dependencies leave no other.
        partner: [n] i32, the send that feeds each receive, -1 else.
        unit: seconds per unit of the costs.
        batched: `evaluate` takes arrays of designs itself and is not traced (whole nanoseconds).
        smooth: what to differentiate where `evaluate` cannot be; None where it can.
    """

    graph: Graph
    system: System
    models: Any
    rank_class: NDArray[np.int32]
    representative: NDArray[np.int32]
    offset: NDArray[np.int64]
    events: Events
    category: NDArray[np.int8]
    evaluate: Callable[[System, Any], jax.Array]
    own: Own
    forced: bool
    partner: NDArray[np.int32]
    unit: float = 1.0
    batched: bool = False
    smooth: Callable[[System, Any], Any] | None = None

    @cached_property
    def levels(self) -> longest_path.Levels:
        """The frozen graph cut for the JAX longest path."""
        return longest_path.cut(self.events.pred_ptr, self.events.pred, self.events.cost)

    @cached_property
    def tails(self) -> longest_path.Levels:
        """The frozen graph backwards: longest path from each vertex to the end."""
        ptr, pred, cost = _backwards(self.events)
        return longest_path.cut(ptr, pred, cost)

    @cached_property
    def reduced(self) -> Reduced:
        """The frozen graph after exact reduction."""
        return reduce(self.events, len(self.category))

    @cached_property
    def plan(self) -> engine.Plan:
        """The reduced graph laid out for the bulk engine."""
        return engine.plan(self.reduced)

    def tasks_of(self, rank: int) -> slice:
        """The tasks that stand for a rank's nodes."""
        c = self.rank_class[rank]
        return slice(int(self.offset[c]), int(self.offset[c + 1]))

    def makespan(self, system: System, models: Any) -> jax.Array:
        """The frozen longest path at other rates [s]: jit, vmap and grad work through it."""
        evaluate = self.smooth or self.evaluate
        return longest_path.makespan(self.levels, evaluate(system, models)) * self.unit


def compile(
    graph: Graph, system: System, models: Any = None, *, merge_ranks: bool = True
) -> Compiled:
    """Schedule a graph at a reference design and freeze the order.

    Args:
        graph: the workload.
        system: the reference design; resized to the graph's ranks where its file lets it grow.
        models: what turns work into time, `Models()` by default.
        merge_ranks: let one rank stand for all equal ones (exact).

    Raises:
        InputError: the system cannot have the graph's ranks; a parameter or a duration that is negative or no number.
        DeadlockError: ranks wait for each other.
    """
    models = Models() if models is None else models
    system = system.resized(graph.ranks)
    check_values(system, models)
    if hasattr(models, "lower"):
        return models.lower(graph, system)
    tasks = build(graph, system, prefer=models.prefer, merge_ranks=merge_ranks)
    evaluate = jax.jit(partial(durations, tasks.work))
    schedule = list_schedule(graph, tasks, np.asarray(evaluate(system, models), np.float64))
    if text := different_calls(graph, tasks, schedule):
        warnings.warn(text, stacklevel=2)
    events = freeze(tasks, schedule)
    return Compiled(
        graph=graph,
        system=system,
        models=models,
        rank_class=tasks.rank_class,
        representative=tasks.representative,
        offset=tasks.offset,
        events=events,
        category=tasks.work.category,
        evaluate=evaluate,
        own=partial(makespans, tasks, expected=schedule.order),
        forced=order_is_forced(tasks, schedule, events),
        partner=_feeding(tasks),
    )


def _feeding(tasks: Tasks) -> NDArray[np.int32]:
    receives = tasks.type == NodeType.COMM_RECV
    return np.where(receives, tasks.partner, -1)


def _backwards(events: Events):
    """The same graph with every edge turned round, numbered from the end."""
    n = len(events)
    ptr, succ = reverse(events.pred_ptr, events.pred)
    degree = np.diff(ptr)[::-1]
    new_ptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    begin = ptr[:-1][::-1]
    at = np.repeat(begin - new_ptr[:-1], degree) + np.arange(len(succ))
    return new_ptr, (n - 1 - succ[at]).astype(np.int32), events.cost[::-1].copy()


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one design makes of a graph.

    Attributes:
        compiled: the frozen graph and where it came from.
        cost: [S] f64, the distinct costs [s].
        task_start, task_finish: [n] f64, of every task [s].
        vertex_start, vertex_finish: [V] f64, of every vertex of the frozen graph [s].
        makespan: [s].
    """

    compiled: Compiled
    cost: NDArray[np.float64]
    vertex_start: NDArray[np.float64]
    vertex_finish: NDArray[np.float64]
    makespan: float

    @property
    def graph(self) -> Graph:
        """The workload."""
        return self.compiled.graph

    @cached_property
    def task_start(self) -> NDArray[np.float64]:
        """[n] start of every task [s]."""
        return self.vertex_start[self.compiled.events.first]

    @cached_property
    def task_finish(self) -> NDArray[np.float64]:
        """[n] finish of every task [s]."""
        return self.vertex_finish[self.compiled.events.last]

    @cached_property
    def task_slack(self) -> NDArray[np.float64]:
        """[n] how much later a task may start (a receive: its message arrive) without delaying the end [s].

        What rounding leaves, less than 1e-12 of the makespan, counts as none.
        """
        c = self.compiled
        tail = np.asarray(longest_path.times(c.tails, self.cost / c.unit)[1])[::-1] * c.unit
        slack = self.makespan - (self.vertex_start + tail)
        slack = np.where(slack > 1e-12 * self.makespan, slack, 0.0)
        return slack[np.where(c.partner >= 0, c.events.last, c.events.first)]

    def of_nodes(self, values: NDArray, ranks: list[int] | None = None) -> NDArray:
        """Values per task [n] spread to the nodes of some or all ranks, in node order."""
        chosen = range(self.graph.ranks) if ranks is None else ranks
        return np.concatenate([values[self.compiled.tasks_of(r)] for r in chosen])

    @property
    def start(self) -> NDArray[np.float64]:
        """[N] start of every node [s]."""
        return self.of_nodes(self.task_start)

    @property
    def finish(self) -> NDArray[np.float64]:
        """[N] finish of every node [s]."""
        return self.of_nodes(self.task_finish)

    @property
    def duration(self) -> NDArray[np.float64]:
        """[N] finish - start of every node [s]; in a collective this holds the wait for the others."""
        return self.finish - self.start

    @property
    def slack(self) -> NDArray[np.float64]:
        """[N] how much later a node may start (a receive: its message arrive) without delaying the end [s]."""
        return self.of_nodes(self.task_slack)

    @cached_property
    def path(self) -> list[int]:
        """Vertices of the critical path, first to last; at ties the predecessor with the lowest number."""
        e, finish = self.compiled.events, self.vertex_finish
        path: list[int] = []
        v = len(finish) - 1
        while v >= 0:
            path.append(v)
            before = e.pred[e.pred_ptr[v] : e.pred_ptr[v + 1]]
            v = int(before[np.argmax(finish[before])]) if len(before) else -1
        return path[:0:-1]  # without the end

    @cached_property
    def critical_tasks(self) -> list[tuple[int, int]]:
        """(task, vertex) along the critical path; a collective stands under the member that joined last."""
        owner = self.compiled.events.owner
        result: list[tuple[int, int]] = []
        for v in self.path:
            if owner[v] >= 0:
                result.append((int(owner[v]), v))
            elif result:  # the end of a collective: with the member that joined last
                result.append((result[-1][0], v))
        return result

    @property
    def critical(self) -> NDArray[np.int64]:
        """Numbers of the nodes on the critical path, first to last."""
        c = self.compiled
        nodes: list[int] = []
        for task, _ in self.critical_tasks:
            k = int(np.searchsorted(c.offset, task, side="right")) - 1
            node = int(self.graph.offset[c.representative[k]] + task - c.offset[k])
            if not nodes or nodes[-1] != node:
                nodes.append(node)
        return np.array(nodes, np.int64)


def predict(graph: Graph, system: System, models: Any = None) -> Prediction:
    """How long the graph takes on the system.

    Args:
        graph: the workload, from `load`.
        system: from `hardware`; grows to the graph's ranks where its file lets it.
        models: `Models(compute=..., memory=..., network=...)`.

    Returns:
        makespan, start, finish, duration, slack per node, critical path.

    Raises:
        InputError: the system cannot have the graph's ranks.
        DeadlockError: ranks wait for each other.

    Example:
        >>> import perfmodel as pm
        >>> p = pm.predict(pm.load("traces/all_reduce_4"), pm.hardware("dgx-h100"))
        >>> len(p.critical)
        1
    """
    return evaluate(compile(graph, system, models))


def evaluate(compiled: Compiled, system: System | None = None, models: Any = None) -> Prediction:
    """A compiled graph at its own rates, or at others with the order it was compiled with."""
    system = compiled.system if system is None else system
    models = compiled.models if models is None else models
    check_values(system, models)
    cost = np.asarray(compiled.evaluate(system, models), np.float64)
    check_costs(cost)
    start, finish = longest_path.times(compiled.levels, cost)
    unit = compiled.unit
    return Prediction(compiled, cost * unit, start * unit, finish * unit, float(finish[-1]) * unit)
