"""Designs a second on real traces: frozen order, own schedules, derivatives, merged nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pandas as pd

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator
from perfmodel.engine import bulk_cpu as engine
from perfmodel.parameter_paths import parameters
from tests import oracle, oracle_costs
from tests.benchmarks.measure import Row, Settings, alternate, cores, trace

SYSTEM = "dgx-h100"
BOUNDS = {
    "npu.peak_flops": (2e14, 5e15),
    "npu.memory_bandwidth": (1e12, 2e13),
    "network.0.bandwidth": (2e10, 2e12),
    "network.0.latency": (1e-7, 1e-5),
}


def points(count: int) -> pd.DataFrame:
    """Designs over factors of 20 to 100."""
    return pm.sample(BOUNDS, count, method="latin-hypercube")


@dataclass
class Subject:
    """A trace, compiled; and the same one as the plain-Python oracle sees it."""

    name: str
    graph: Any
    evaluator: Evaluator

    @classmethod
    def of(cls, reference: str, otherwise: str, models: str | None = None) -> Subject:
        """From a reference trace, or an example of this repository; models None are the system's own, fitted ones."""
        path, name = trace(reference, otherwise)
        graph = pm.load(path)
        system = pm.hardware(SYSTEM, ranks=graph.ranks)
        return cls(name, graph, Evaluator(pm.compile(graph, system, models)))

    def in_python(self) -> Any:
        """One event-driven schedule in plain Python, ready to run."""
        nodes = oracle.nodes_of(self.graph)
        c = self.evaluator.compiled
        # bare models: the oracle knows no others, and a schedule takes as long whatever the costs come from
        cost, replayed = oracle_costs.costs(self.graph, nodes, c.system, pm.Models())
        return lambda: oracle.schedule(nodes, cost, replayed)

    def values(self, table: pd.DataFrame) -> tuple[tuple[str, ...], Any]:
        """Parameter paths and [P, D] values of a table of points."""
        return tuple(table.columns), table.to_numpy(float).T


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about designs."""
    yield from _frozen(settings)
    yield from _own(settings)
    yield from _merged(settings)


def _frozen(settings: Settings) -> Iterator[Row]:
    subject = Subject.of("stg_gpt_dp2tp4pp2", "gpt_dp2_tp2_pp2")
    e, count = subject.evaluator, settings.size(65_536, 1024, 8)
    table = points(count)
    paths, values = subject.values(table)
    options = EvaluationOptions("frozen", breakdown=False, threads=cores())
    explained = EvaluationOptions("frozen", breakdown=True, threads=cores())
    bulk, whole, python = alternate(
        settings.rounds,
        lambda: e.makespans(e.costs(paths, values), options, paths=False),
        lambda: e.figures(paths, values, explained),
        subject.in_python(),
    )
    per_node = python / len(subject.graph) * 1e6
    yield Row(
        "frozen",
        f"designs on {subject.name}, frozen: parameters to makespans, {count:,} at a time",
        count / bulk * python,
        "x Python",
        1e5,
        note=f"{count / bulk:,.0f}/s; one schedule in plain Python takes {per_node:.1f} us a node",
    )
    yield Row(
        "frozen",
        f"designs on {subject.name}, frozen: with the breakdown and what limits each",
        count / whole * python,
        "x Python",
        note=f"{count / whole:,.0f}/s; one schedule in plain Python takes {per_node:.1f} us a node",
    )
    bare = Subject.of("stg_gpt_dp2tp4pp2", "gpt_dp2_tp2_pp2", "roofline")
    yield _derivatives(settings, bare, "bare roofline", 2.0)
    yield _derivatives(settings, subject, "fitted models", None)


def _derivatives(settings: Settings, subject: Subject, models: str, target: float | None) -> Row:
    e, count = subject.evaluator, settings.size(1024, 1024, 8)
    c = e.compiled
    paths, values = subject.values(points(count))
    wanted = tuple(parameters(c.system, c.models))

    def value() -> Any:
        return engine.makespans(c.plan, e.costs(paths, values), threads=cores())[0]

    def value_and_gradient() -> Any:
        costs = e.costs(paths, values)
        makespan, counts = engine.makespans(c.plan, costs, threads=cores(), paths=True)
        return makespan, e.gradients(paths, values, counts, wanted)

    alone, both = alternate(settings.size(20, 20, 1) * settings.rounds, value, value_and_gradient)
    return Row(
        "derivatives",
        f"value and all {len(wanted)} derivatives, {models}, {count:,} designs of {subject.name}",
        both / alone,
        "x value",
        target,
        at_least=False,
        note=f"{both * 1e3:.2f} ms against {alone * 1e3:.2f} ms, from parameters",
    )


def _own(settings: Settings) -> Iterator[Row]:
    subject = Subject.of("stg_gpt_dp2tp2pp2", "gpt_dp2_tp2_pp2")
    e, count = subject.evaluator, settings.size(16_384, 64, 8)
    c = e.compiled
    paths, values = subject.values(points(count))
    differs = []

    def own() -> None:
        differs.append(c.own(e.costs(paths, values), threads=cores())[1].mean())

    seconds, python = alternate(settings.rounds, own, subject.in_python())
    per_node = python / len(subject.graph) * 1e6
    events = len(c.graph.program) and int(c.offset[-1])
    yield Row(
        "own",
        f"designs on {subject.name}, own schedules: parameters to makespans, {count:,} at a time",
        count / seconds * python,
        "x Python",
        1.5e3,
        note=f"{count / seconds:,.0f}/s, {cores() * seconds / count / events * 1e9:.0f} ns a node of "
        f"{events:,} merged ones and core; {differs[-1]:.0%} differ from the frozen order; Python "
        f"{per_node:.1f} us a node",
    )


def _merged(settings: Settings) -> Iterator[Row]:
    subject = Subject.of("stg_gpt_dp2tp4pp2", "gpt_dp2_tp2_pp2")
    yield _reduction(subject.name, subject.graph, subject.evaluator.compiled, 1 / 6)
    layers = settings.size(32, 8, 4)
    workload = synth.training(
        {"layers": layers, "hidden": 4096, "heads": 32},
        data=4,
        tensor=8,
        pipeline=4,
        micro_batches=8,
    )
    graph = workload.graph()
    compiled = pm.compile(graph, pm.hardware(SYSTEM, ranks=graph.ranks))
    name = f"GPT, {layers} layers, data 4 x tensor 8 x pipeline 4, 8 micro-batches"
    yield _reduction(name, graph, compiled, 1 / 30)


def _reduction(name: str, graph: Any, compiled: Any, target: float) -> Row:
    left = len(compiled.reduced)
    return Row(
        "merged",
        f"nodes left of {name}",
        left / len(graph),
        "of all",
        target,
        at_least=False,
        note=f"{left:,} of {len(graph):,}",
    )
