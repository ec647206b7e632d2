"""What the oracle's tests share: a random case, the oracle's answer, and the package's without compiling JAX twice."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import jax
import numpy as np
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

import perfmodel as pm
from tests import oracle, oracle_costs, random_graphs


def repeatable(examples: int) -> settings:
    """The same examples on every run and machine."""
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


@dataclass(repr=False)
class Case:
    """A workload on a system, and what the oracle says: `times` is None for a deadlock."""

    workload: random_graphs.Workload
    graph: Any
    system: Any
    models: Any
    nodes: oracle.Nodes
    times: oracle.Times | None

    def __repr__(self) -> str:
        dimensions = [(d.topology, d.size) for d in self.system.network]
        return f"Case({self.graph!r} on {dimensions}, {self.models!r})"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """What hypothesis shows of a failing case."""
        printer.text(repr(self))

    @property
    def scale(self) -> float:
        """The makespan [s], 1 s where nothing takes time: what absolute errors are compared with."""
        return (self.times.makespan if self.times else 0.0) or 1.0

    def costs(self, system: Any, models: Any) -> tuple[list[float], list[bool]]:
        """The oracle's costs at other rates."""
        return oracle_costs.costs(self.graph, self.nodes, system, models)

    def at(self, system: Any, models: Any) -> oracle.Times | None:
        """The oracle's schedule at other rates."""
        return schedule(self.nodes, *self.costs(system, models))


def load(workload: random_graphs.Workload) -> Any:
    """The graph of a workload, by way of its files."""
    with tempfile.TemporaryDirectory() as folder:
        return pm.load(workload.write(Path(folder)))


def schedule(nodes: oracle.Nodes, cost: list[float], replayed: list[bool]) -> oracle.Times | None:
    """The oracle's schedule, None for a deadlock."""
    try:
        return oracle.schedule(nodes, cost, replayed)
    except oracle.Deadlock:
        return None


def case_of(workload: random_graphs.Workload, system: Any, models: Any) -> Case:
    """A workload, loaded and solved by the oracle."""
    graph = load(workload)
    nodes = oracle.nodes_of(graph)
    times = schedule(nodes, *oracle_costs.costs(graph, nodes, system, models))
    return Case(workload, graph, system, models, nodes, times)


@st.composite
def cases(draw, **shape: Any) -> Case:
    """Random cases; `shape` as for `random_graphs.shapes`."""
    chosen = draw(random_graphs.shapes(**shape))
    system, models = draw(random_graphs.systems(chosen.ranks)), draw(random_graphs.models())
    return case_of(random_graphs.workload(chosen), system, models)


def costs_eagerly(compiled: Any, system: Any, models: Any) -> np.ndarray:
    """[S] the package's costs, its formulas evaluated one operation at a time."""
    with jax.disable_jit():
        return np.asarray(compiled.evaluate(system, models))


def compile_eagerly(
    graph: Any, system: Any, models: Any = None, *, merge_ranks: bool = True
) -> Any:
    """As `pm.compile`; the costs of its own design are evaluated once, one operation at a time.

    Hundreds of small graphs would spend minutes in compiling each one's formulas.
    """
    with jax.disable_jit():
        return pm.compile(graph, system, models, merge_ranks=merge_ranks)


def evaluate_eagerly(compiled: Any, system: Any = None, models: Any = None) -> Any:
    """As `pm.evaluate`, but for the compilation of the costs; the longest path is compiled."""
    system = compiled.system if system is None else system
    models = compiled.models if models is None else models
    cost = costs_eagerly(compiled, system, models)
    return pm.evaluate(replace(compiled, evaluate=lambda *_: cost), system, models)


def assert_close(
    actual: Sequence[float] | np.ndarray, expected: Sequence[float], scale: float, what: str = ""
) -> None:
    """Equal to 1e-9 of each value, or to rounding (1e-12) of the whole."""
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-12 * scale, err_msg=what)
