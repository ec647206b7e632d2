"""What one design makes of a graph: start, finish and slack of every node, the makespan, the critical path."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled import Compiled, recall, unpack
from perfmodel.display import as_html, as_text, seconds
from perfmodel.forking import check_process
from perfmodel.machine.system import System
from perfmodel.models.cost import models_of
from perfmodel.models.cost_blocks import check_costs
from perfmodel.models.fitted import Answer, answers
from perfmodel.parameter_paths import check_values
from perfmodel.schedule.frozen_graph import times
from perfmodel.vocabulary import CATEGORIES
from perfmodel.workload.graph import Graph

ROUNDING = 1e-12
"""Relative differences below this are rounding, not time."""


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one design makes of a graph.

    Attributes:
        compiled: the frozen graph and where it came from.
        at: the system and the models that answered.
    """

    compiled: Compiled
    at: tuple[System, Any]

    @cached_property
    def makespan(self) -> float:
        """How long the graph takes [s].

        Of a graph of very many distinct costs without the times of its nodes, which only come when they are asked for.
        """
        c = self.compiled
        if c.large is None:
            return float(self.vertex_finish[-1])
        makespan = c.chains.makespan(c.large, *self.at)
        if np.isnan(makespan):
            check_costs(np.asarray(c.evaluate(*self.at), np.float64))  # says which one
            return float("inf")  # each is a number, their sum is beyond all of them
        return makespan * c.unit

    @cached_property
    def _evaluated(self) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
        c, e = self.compiled, self.compiled.events
        cost = np.asarray(c.evaluate(*self.at), np.float64)
        check_costs(cost)
        start, finish = times(e.pred_ptr, e.pred, e.cost, cost)
        if c.unit != 1.0:
            cost, start, finish = cost * c.unit, start * c.unit, finish * c.unit
        if (
            c.large is not None
        ):  # the makespan's sums are associated otherwise: what ends with the end ends then
            np.copyto(finish, self.makespan, where=finish >= min(finish[-1], self.makespan))
            np.minimum(start, self.makespan, out=start)
        return cost, start, finish

    @property
    def cost(self) -> NDArray[np.float64]:
        """[S] the distinct costs [s]."""
        return self._evaluated[0]

    @property
    def vertex_start(self) -> NDArray[np.float64]:
        """[V] start of every vertex of the frozen graph [s]."""
        return self._evaluated[1]

    @property
    def vertex_finish(self) -> NDArray[np.float64]:
        """[V] finish of every vertex of the frozen graph [s]."""
        return self._evaluated[2]

    @property
    def models(self) -> tuple[Answer, ...]:
        """Which coefficients answered for what, with their published errors: `pandas.DataFrame(p.models)`."""
        return answers(*self.at, self.compiled.kinds)

    def _rows(self) -> dict[str, str]:
        shares = {k: v / (self.makespan or 1.0) for k, v in self.seconds_by_category.items() if v}
        parts = sorted(shares.items(), key=lambda item: -item[1])
        return {
            "workload": self.graph.source,
            "system": f"{self.compiled.system.name}, {self.graph.ranks:,} ranks",
            "critical path": ", ".join(f"{word} {share:.1%}" for word, share in parts),
        }

    def __repr__(self) -> str:
        return as_text(f"Prediction: {seconds(self.makespan)}", self._rows())

    def _repr_html_(self) -> str:
        return as_html(f"Prediction: {seconds(self.makespan)}", self._rows())

    @cached_property
    def seconds_by_category(self) -> dict[str, float]:
        """Seconds of the critical path by category; they add up to the makespan."""
        e, c = self.compiled.events, self.compiled
        spent = dict.fromkeys(CATEGORIES, 0.0)
        for v in self.path:
            row = e.cost[v]
            if row >= 0:
                spent[CATEGORIES[c.category[row]]] += float(self.cost[row])
        rest = self.makespan - sum(spent.values())
        if rest > ROUNDING * self.makespan:
            spent["waiting"] += rest
        return spent

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
    def task_waiting(self) -> NDArray[np.float64]:
        """[n] how long a task waits in a collective, from its own start until the last member has joined [s].

        0 for everything else, and in ASTRA-sim's mode, where a collective is messages.
        """
        e = self.compiled.events
        last, number, members = np.unique(e.last, return_inverse=True, return_counts=True)
        joined = np.full(len(last), -np.inf)
        np.maximum.at(joined, number, self.task_start)
        shared = (members > 1)[number]
        return np.where(shared, joined[number] - self.task_start, 0.0)

    @cached_property
    def task_slack(self) -> NDArray[np.float64]:
        """[n] how much later a task may start (a receive: its message arrive) without delaying the end [s].

        What rounding leaves, less than 1e-12 of the makespan, counts as none.
        """
        c = self.compiled
        tail = times(*c.tails, self.cost / c.unit)[1][::-1] * c.unit
        slack = self.makespan - (self.vertex_start + tail)
        slack = np.where(slack > 1e-12 * self.makespan, slack, 0.0)
        return slack[np.where(c.partner >= 0, c.events.last, c.events.first)]

    def of_nodes(self, values: NDArray[Any], ranks: list[int] | None = None) -> NDArray[Any]:
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
        """(task, vertex) along the critical path.

        A collective stands under the member that joined last, the latency of an edge under the node before it.
        """
        owner, nodes = self.compiled.events.owner, self.compiled.offset[-1]
        result: list[tuple[int, int]] = []
        for v in self.path:
            if 0 <= owner[v] < nodes:
                result.append((int(owner[v]), v))
            elif result:
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


def predict(
    graph: Graph | Compiled, system: System | None = None, models: Any = None
) -> Prediction:
    """How long the graph takes on the system.

    Args:
        graph: the workload, from `load`; or a compiled graph, alone or with another system and models.
        system: from `hardware`; grows to the graph's ranks where its file lets it.
        models: `Models(compute=..., memory=..., network=...)`; by default the system's own.

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
    if isinstance(graph, Compiled):
        return evaluate(graph, system, models)
    return evaluate(recall(*unpack(graph, system, models, "predict")))


def evaluate(compiled: Compiled, system: System | None = None, models: Any = None) -> Prediction:
    """A compiled graph at its own rates, or at others with the order it was compiled with."""
    check_process()
    system = compiled.system if system is None else system
    models = compiled.models if models is None else models_of(system, models)
    check_values(system, models)
    prediction = Prediction(compiled, (system, models))
    _ = prediction.makespan  # what is wrong with the costs is said here
    return prediction


def prediction_of(given: Prediction | Compiled) -> Prediction:
    """The prediction itself, or that of a compiled graph at its own design."""
    return evaluate(given) if isinstance(given, Compiled) else given
