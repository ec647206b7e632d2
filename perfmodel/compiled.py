"""A graph made ready for any rates: what depends on the graph and on the network's shape, done once.

`compile` merges equal ranks, schedules at the reference design and freezes the order as edges. What depends on rates
comes after it and is cheap, differentiable and batched.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel.display import as_html
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine import longest_path
from perfmodel.engine.cells import Cell, Cells, Orders, checks_of, reduced_with
from perfmodel.engine.chains import Chains
from perfmodel.engine.reduction import Reduced, reduce
from perfmodel.errors import InputError
from perfmodel.forking import check_process
from perfmodel.machine.system import System
from perfmodel.models.cost import models_of
from perfmodel.models.large_table import LargeTable, evaluate_of
from perfmodel.parameter_paths import check_values
from perfmodel.pytree import content
from perfmodel.schedule.beside_collectives import beside_collectives
from perfmodel.schedule.certificate import Checks
from perfmodel.schedule.frozen_graph import Events
from perfmodel.schedule.list_orders import ListOrders
from perfmodel.schedule.list_schedule import (
    different_calls,
    list_schedule,
    offload_to_nowhere,
)
from perfmodel.schedule.order_edges import freeze
from perfmodel.schedule.recorded_times import on_hardware
from perfmodel.schedule.tasks import Tasks, build
from perfmodel.vocabulary import NodeType
from perfmodel.workload.edges import reverse
from perfmodel.workload.graph import Graph


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
        category: [S] i8, category of each distinct cost (`vocabulary.CATEGORIES`).
        evaluate: (system, models) -> [S] costs in `unit`, pure JAX.
        own: every design's own schedule, (costs [S, D], paths=bool) -> makespan [D], order differs [D], path counts
            [S, D] of those that differ; and what it takes to certify an order.
        partner: [n] i32, the send that feeds each receive, -1 else.
        unit: seconds per unit of the costs.
        batched: `evaluate` takes arrays of designs itself and is not traced (whole nanoseconds).
        smooth: what to differentiate where `evaluate` cannot be; None where it can.
        merge_ranks: whether one rank stands for all equal ones.
        notice: what compiling noticed and went on with, for a warning; empty where there was nothing.
        functions: jitted functions of this graph by what they are, kept for the next call.
        kinds: what there are costs of (`cost_blocks.CostBlock.key`).
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
    own: Orders
    partner: NDArray[np.int32]
    unit: float = 1.0
    batched: bool = False
    smooth: Callable[[System, Any], Any] | None = None
    merge_ranks: bool = True
    notice: str = ""
    functions: dict[Any, Any] = field(default_factory=dict)
    kinds: tuple[tuple[Hashable, ...], ...] = ()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickled as what it was compiled from: machine code and jitted functions belong to one process."""
        return _compile_again, (self.graph, self.system, self.models, self.merge_ranks)

    def __repr__(self) -> str:
        return (
            f"Compiled({self.graph.source!r} on {self.system.name or 'a system'}: {self.graph.ranks} ranks "
            f"in {len(self.representative)} classes, {len(self.events):,} events, {len(self.category)} distinct costs)"
        )

    def _repr_html_(self) -> str:
        return as_html(
            "Compiled graph",
            {
                "workload": self.graph.source,
                "system": self.system.name,
                "ranks": f"{self.graph.ranks:,} in {len(self.representative):,} classes",
                "events": f"{len(self.events):,}",
                "distinct costs": f"{len(self.category):,}",
            },
        )

    @cached_property
    def checked(self) -> tuple[Events, Checks] | None:
        """What a design has to pass so that the order certainly is its own, on the frozen graph with what that needs.

        None where no design can be certified.
        """
        return checks_of(self.events, self.own.decided())

    @cached_property
    def chains(self) -> Chains:
        """The frozen graph by chains, for one design after the other where there are very many costs."""
        return Chains.of(self.events, len(self.category))

    @property
    def large(self) -> LargeTable | None:
        """The table of costs where there are so many that they are evaluated by stretches."""
        return self.evaluate if isinstance(self.evaluate, LargeTable) else None

    @property
    def forced(self) -> bool:
        """The order holds on every design, dependencies leave no other."""
        return self.settled is not None and self.settled.checks.forced

    @cached_property
    def settled(self) -> Cell | None:
        """The order with what a design has to pass, where no times are to be compared; None where some are.

        Then what passes has the makespan of the frozen order to the last bit: the reduced graph is the same.
        """
        if self.checked is None:
            return None
        graph, checks = self.checked
        if len(checks):
            _, checks = reduced_with(graph, checks, len(self.category))
        if len(checks) or len(checks.rows):
            return None
        return Cell(self.plan if checks.forced else engine.plan(self.reduced, checks), checks)

    @cached_property
    def cells(self) -> Cells:
        """The orders of other designs that were found to pay."""
        return Cells(self.own, len(self.events), self.settled)

    @cached_property
    def levels(self) -> longest_path.Levels:
        """The frozen graph cut for the JAX longest path."""
        return longest_path.cut(self.events.pred_ptr, self.events.pred, self.events.cost)

    @cached_property
    def tails(self) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
        """The frozen graph backwards (pred_ptr, pred, cost): longest path from each vertex to the end."""
        return _backwards(self.events)

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
        models: what turns work into time, by default the system's own, else the bare roofline; "roofline" for that.
        merge_ranks: let one rank stand for all equal ones (exact).

    Raises:
        InputError: the system cannot have the graph's ranks; a parameter or a duration that is negative or no number.
        DeadlockError: ranks wait for each other.
    """
    check_process()
    check_kinds(graph, system)
    models = models_of(system, models)
    system = system.resized(graph.ranks)
    check_values(system, models)
    if hasattr(models, "lower"):
        lowered: Compiled = models.lower(graph, system)
        return lowered
    scheduled, how = on_hardware(graph, system, models)
    tasks = build(scheduled, system, merge_ranks=merge_ranks, **how)
    evaluate = evaluate_of(tasks.work)
    schedule = list_schedule(graph, tasks, np.asarray(evaluate(system, models), np.float64))
    if getattr(models, "channels", None) is not None and graph.recorded is None:
        alone, tasks = tasks, beside_collectives(tasks, schedule)
        if tasks is not alone:
            evaluate = evaluate_of(tasks.work)
            schedule = list_schedule(graph, tasks, np.asarray(evaluate(system, models), np.float64))
    said = (different_calls(graph, tasks, schedule), offload_to_nowhere(graph, system))
    notice = "\n".join(filter(None, said))
    if notice:
        warnings.warn(notice, stacklevel=2)
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
        own=ListOrders(graph, tasks, schedule.order_only()),
        partner=_feeding(tasks),
        merge_ranks=merge_ranks,
        notice=notice,
        kinds=tuple(block.key for block in tasks.work.blocks),
    )


def _compile_again(graph: Graph, system: System, models: Any, merge_ranks: bool) -> Compiled:
    return compile(graph, system, models, merge_ranks=merge_ranks)


KEPT = 8
"""Compiled graphs that are kept for the next call with the same content."""

KEPT_EVENTS = 10_000_000
"""Events that those may have together: large graphs are let go sooner."""

_kept: list[tuple[Hashable, Compiled]] = []
"""Lately used ones, the last one last, with what system and models they were compiled for."""


def recall(
    graph: Graph, system: System, models: Any = None, *, merge_ranks: bool = True
) -> Compiled:
    """`compile`, or what it lately gave for the same content: nothing is scheduled or traced twice.

    Args:
        as for `compile`.
    """
    check_kinds(graph, system)
    models = models_of(system, models)
    key = content((system.resized(graph.ranks), models, merge_ranks))
    if key is not None:
        for k, (other, compiled) in enumerate(_kept):
            if other == key and _same(graph, compiled.graph):
                _kept.append(_kept.pop(k))
                if compiled.notice:
                    warnings.warn(compiled.notice, stacklevel=2)
                return compiled
    compiled = compile(graph, system, models, merge_ranks=merge_ranks)
    keep(compiled)
    return compiled


def keep(compiled: Compiled) -> None:
    """Let later calls with the same content find this compiled graph."""
    key = content((compiled.system, compiled.models, compiled.merge_ranks))
    if key is None:
        return
    _kept[:] = [
        (other, c) for other, c in _kept if other != key or not _same(compiled.graph, c.graph)
    ]
    _kept.append((key, compiled))
    while len(_kept) > KEPT or (
        len(_kept) > 1 and sum(len(c.events) for _, c in _kept) > KEPT_EVENTS
    ):
        _kept.pop(0)


def _same(graph: Graph, other: Graph) -> bool:
    """Whether two graphs say the same and are called the same."""
    if graph is other:
        return True
    alike = (graph.ranks, len(graph), graph.source) == (other.ranks, len(other), other.source)
    return alike and graph.digest == other.digest


def unpack(
    graph: Graph | Compiled, system: System | None, models: Any, what: str
) -> tuple[Graph, System, Any]:
    """Graph, system and models of a verb's arguments: (graph, system, models), or a compiled graph alone.

    Raises:
        InputError: a compiled graph with another system or models beside it; a graph without a system.
    """
    if isinstance(graph, Compiled):
        if system is not None or models is not None:
            raise InputError(
                f"{what}: a compiled graph brings its system and models; leave them out, or give the graph"
            )
        keep(graph)
        return graph.graph, graph.system, graph.models
    if system is None:
        raise InputError(f"{what}: the system is missing; give (graph, system) or a compiled graph")
    return graph, system, models


def workload_of(graph: Graph | Compiled) -> Graph:
    """The graph itself, or that of a compiled one."""
    return graph.graph if isinstance(graph, Compiled) else graph


def check_kinds(graph: Any, system: Any) -> None:
    """Raise InputError for a workload or a system that is something else: a name, a path, the other of the two."""
    for name, value, kind, source in (
        ("graph", graph, Graph, "pm.load"),
        ("system", system, System, "pm.hardware"),
    ):
        if not isinstance(value, kind):
            raise InputError(
                f"{name}: got {type(value).__name__} {value!r:.60}, expected a {kind.__name__} from {source}(...)"
            )


def _feeding(tasks: Tasks) -> NDArray[np.int32]:
    receives = tasks.type == NodeType.COMM_RECV
    return np.where(receives, tasks.partner, -1)


def _backwards(events: Events) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[Any]]:
    """The same graph with every edge turned round, numbered from the end."""
    n = len(events)
    ptr, succ = reverse(events.pred_ptr, events.pred)
    degree = np.diff(ptr)[::-1]
    new_ptr = np.concatenate([[0], np.cumsum(degree)]).astype(np.int64)
    begin = ptr[:-1][::-1]
    at = np.repeat(begin - new_ptr[:-1], degree) + np.arange(len(succ))
    return new_ptr, (n - 1 - succ[at]).astype(np.int32), events.cost[::-1].copy()
