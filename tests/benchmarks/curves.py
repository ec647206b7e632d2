"""Scaling curves: time over nodes, ranks and designs, as tables and as pictures."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis.evaluation import EvaluationOptions
from perfmodel.engine import bulk_cpu as engine
from tests.benchmarks.designs import SYSTEM, Subject, points
from tests.benchmarks.engines import layered
from tests.benchmarks.measure import Settings, alternate, cores

Curve = tuple[str, str, pd.DataFrame]


def curves(settings: Settings) -> Iterator[Curve]:
    """(name, title, table); a table's first column is what grows, the others are rates or times."""
    yield "nodes", "Engine on random graphs, 50 wide, in-degree 2, 1,024 designs", _nodes(settings)
    yield (
        "ranks",
        "Data-parallel workload, 1,000 nodes a rank, from the generator",
        _ranks(settings),
    )
    yield (
        "pipelines",
        "GPT, 4 layers a stage, data 2 x tensor 4 x pipeline 1 to 32, 8 micro-batches",
        _pipelines(settings),
    )
    yield "designs", "Designs of one trace, from parameters to makespans", _designs(settings)


def _sizes(low: int, high: int) -> list[int]:
    """Powers of four."""
    return [4**k for k in range(16) if low <= 4**k <= high]


def _nodes(settings: Settings) -> pd.DataFrame:
    lines = []
    for levels in _sizes(16, settings.size(65_536, 64, 16)):
        reduced = layered(levels, 50)
        costs = np.random.default_rng(0).random((reduced.combination.shape[1], 1024))
        (laid_out,) = alternate(settings.rounds, lambda r=reduced: engine.plan(r))
        line = {"nodes": len(reduced), "lay_out_s": laid_out}
        plan = engine.plan(reduced)
        for dtype in ("float32", "float64"):
            (seconds,) = alternate(
                settings.rounds,
                lambda p=plan, c=costs, d=dtype: engine.makespans(p, c, dtype=d, threads=cores()),
            )
            line[f"{dtype}_node_designs_per_s"] = len(reduced) * 1024 / seconds
        lines.append(line)
    return pd.DataFrame(lines)


def _ranks(settings: Settings) -> pd.DataFrame:
    lines = []
    for ranks in _sizes(4, settings.size(65_536, 64, 4)):
        workload = synth.data_parallel(ranks, 1000)
        graph, system = workload.graph(), pm.hardware(SYSTEM, ranks=ranks)
        table = points(settings.size(1000, 1000, 8))
        make, predict, sweep = alternate(
            settings.rounds,
            workload.graph,
            lambda g=graph, s=system: pm.predict(g, s),
            lambda g=graph, s=system, t=table: pm.sweep(g, s, t, schedule="frozen"),
        )
        lines.append(
            {
                "ranks": ranks,
                "graph_s": make,
                "predict_s": predict,
                "sweep_of_1000_designs_s": sweep,
            }
        )
    return pd.DataFrame(lines)


def _pipelines(settings: Settings) -> pd.DataFrame:
    """Stages are different programs, so that the distinct ranks grow with the ranks."""
    lines = []
    for stages in (2**k for k in range(settings.size(6, 2, 1))):
        workload = synth.training(
            {"layers": 4 * stages, "hidden": 1024, "heads": 16},
            data=2,
            tensor=4,
            pipeline=stages,
            micro_batches=8,
        )
        graph = workload.graph()
        system = pm.hardware(SYSTEM, ranks=graph.ranks)
        make, schedule, reduce = alternate(
            settings.rounds,
            workload.graph,
            lambda g=graph, s=system: pm.compile(g, s),
            lambda g=graph, s=system: pm.compile(g, s).plan,
        )
        lines.append(
            {
                "nodes": len(graph),
                "graph_s": make,
                "schedule_s": schedule,
                "reduction_s": max(reduce - schedule, 0.0),
            }
        )
    return pd.DataFrame(lines)


def _designs(settings: Settings) -> pd.DataFrame:
    other = "all_reduce_4" if settings.tiny else "gpt_dp2_tp2_pp2"
    subject = Subject.of("nothing" if settings.tiny else "stg_gpt_dp2tp4pp2", other)
    e = subject.evaluator
    lines = []
    for count in _sizes(1, settings.size(262_144, 64, 1)):
        paths, values = subject.values(points(count))
        line: dict[str, float] = {"designs": count}
        for schedule in ("frozen", "own"):
            if schedule == "own" and count > 65_536:
                continue
            options = EvaluationOptions(schedule, breakdown=False, threads=cores())
            (seconds,) = alternate(
                settings.rounds,
                lambda o=options, p=paths, v=values: e.makespans(e.costs(p, v), o, paths=False),
            )
            line[f"{schedule}_designs_per_s"] = count / seconds
        lines.append(line)
    return pd.DataFrame(lines)


def write(settings: Settings) -> list[str]:
    """All curves into the output folder: CSV, and PNG where matplotlib is installed."""
    written = []
    for name, title, table in curves(settings):
        path = settings.output / f"scaling_{name}.csv"
        table.to_csv(path, index=False)
        written.append(path.name)
        try:
            from matplotlib.figure import Figure
        except ImportError:
            continue
        rates = [c for c in table.columns if c.endswith("_per_s")]
        times = [c for c in table.columns[1:] if c not in rates]
        panels = [(unit, columns) for unit, columns in (("s", times), ("1/s", rates)) if columns]
        figure = Figure(figsize=(5.5 * len(panels), 4.2), layout="constrained")
        figure.suptitle(title, fontsize=10)
        for axes, (unit, columns) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            for column in columns:
                label = column.removesuffix("_per_s").removesuffix("_s").replace("_", " ")
                axes.loglog(table.iloc[:, 0], table[column], marker="o", label=label)
            axes.set(xlabel=table.columns[0], ylabel=f"[{unit}]")
            axes.grid(alpha=0.3)
            axes.legend()
        figure.savefig(path.with_suffix(".png"), dpi=120)
        written.append(path.with_suffix(".png").name)
    return written
