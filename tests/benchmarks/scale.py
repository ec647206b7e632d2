"""Scale: very many ranks, a million designs, several workers."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq

import perfmodel as pm
from perfmodel.analysis.sweep import PART
from tests.benchmarks.designs import SYSTEM, points
from tests.benchmarks.measure import ROOT, Row, Settings, fresh, memory, temporary, trace


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about scale."""
    yield from _ranks(settings)
    yield from _million(settings)
    yield from _workers(settings)


def _ranks(settings: Settings) -> Iterator[Row]:
    ranks, nodes = settings.size(65_536, 1024, 16), settings.size(10_000, 100)
    designs = settings.size(1000, 100, 8)
    # the runs without sweeps are the cold ones
    rounds = settings.size(settings.rounds, settings.rounds, 0)
    runs = [fresh("ranks", str(ranks), str(nodes), "1", "0") for _ in range(rounds)]
    swept = fresh("ranks", str(ranks), str(nodes), str(designs), str(settings.rounds))
    runs = runs or [swept]
    what = f"{ranks:,} ranks x {nodes:,} nodes from the generator"
    peak = max(run["peak_B"] for run in [*runs, swept]) / 1e9
    cold = statistics.median(run["wall_s"] for run in runs)
    further = statistics.median(swept["further_s"])
    note = "the whole process: start, imports, graph, schedule, prediction"
    yield Row("ranks", f"{what}: cold", cold, "s", 60.0, at_least=False, note=note)
    yield Row("ranks", f"{what}: peak memory", peak, "GB", 8.0, at_least=False)
    yield Row("ranks", f"{what}: further {designs:,} designs", further, "s", 5.0, at_least=False)


GROWING = ((15_625, 500), (62_500, 1_000), (2_500_000, 2_000))
"""Nodes of each of 16 ranks that have nothing in common, in full and quick; the last are to meet the targets."""

ROOM = 20e9
"""Memory of a machine from which on it runs the largest of them [B]."""


def unlike(settings: Settings) -> Iterator[Row]:
    """Graphs in which nothing is alike, as they grow: 40 million nodes should take 60 s, 16 GB, and 0.2 s a design."""
    for full, quick in settings.chosen(GROWING, GROWING[-1]):
        last = (full, quick) == GROWING[-1]
        if last and not settings.quick and memory() < ROOM:
            what, note = "memory here, for 40,000,000 random nodes", "too little: not run"
            yield Row("unlike", what, memory() / 1e9, "GB", ROOM / 1e9, note=note)
            return
        rounds = 1 if last else settings.rounds
        runs = [fresh("unlike", "16", str(settings.size(full, quick))) for _ in range(rounds)]
        run = sorted(runs, key=lambda run: run["cold_s"])[len(runs) // 2]
        what = f"{run['nodes']:,} random nodes, {run['edges']:,} dependencies, no two ranks alike"
        cpu = run["cpu_s"]
        note = ", ".join(
            f"{stage} {run['stage_s'][stage]:.2f} s (processor {cpu[stage]:.2f} s)" for stage in cpu
        )
        aim = {"at_least": False, "note": note}
        yield Row("unlike", f"{what}: cold", run["cold_s"], "s", 60.0 if last else None, **aim)
        further = run["further_s"]
        aim["note"] = f"processor {run['further_cpu_s']:.3f} s"
        yield Row("unlike", f"{what}: another design", further, "s", 0.2 if last else None, **aim)
        aim["note"] = f"of it columns and what is imported {run['base_B'] / 1e9:.2f} GB"
        peak = run["peak_B"] / 1e9
        yield Row("unlike", f"{what}: peak memory", peak, "GB", 16.0 if last else None, **aim)


def _trace(settings: Settings) -> tuple[Path, str]:
    if settings.tiny:
        return ROOT / "traces" / "all_reduce_4", "all_reduce_4"
    return trace("stg_gpt_dp2tp4pp2", "gpt_dp2_tp2_pp2")


def _million(settings: Settings) -> Iterator[Row]:
    designs = settings.size(1_000_000, 40_000, 400)
    path, name = _trace(settings)
    runs = []
    for _ in range(settings.rounds):
        with temporary() as folder:
            runs.append(fresh("sweep", str(path), str(designs), folder))
            written = sum(pq.read_metadata(f).num_rows for f in Path(folder).glob("*.parquet"))
            if written != designs:
                raise RuntimeError(f"{written} of {designs} designs were written")
    what = f"sweep of {designs:,} designs on {name}, frozen, with breakdown, to Parquet"
    peak = max(run["peak_B"] for run in runs) / 1e9
    seconds = statistics.median(run["sweep_s"] for run in runs)
    yield Row("million", f"{what}: peak memory", peak, "GB", 2.0, at_least=False)
    note = f"{designs / seconds:,.0f} designs/s"
    yield Row("million", f"{what}: time", seconds, "s", note=note)


def _workers(settings: Settings) -> Iterator[Row]:
    """The same sweep on one worker and on two, each held to a core of its own; workers write their parts to a folder.

    Beside the ratio stands what processor time allows: a single worker works while the asker uses the other core, two
    share both cores with it, so that the ratio is at most 2 W / (W + A) for W and A seconds of two workers and asker.
    The asker is the benchmark's own process; it is also the scheduler. One cluster is there at a time, since one that
    waits works a little, too.
    """
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        return
    path, name = _trace(settings)
    graph = pm.load(path)
    system = pm.hardware(SYSTEM, ranks=graph.ranks)
    # whole parts: a worker compiles for a shorter one when it first meets it
    frozen = "frozen", settings.size(61 * PART, 2 * PART, 64)
    sweeps = settings.chosen((frozen, ("own", settings.size(6 * PART, 500))), frozen)
    spent: dict[tuple[str, int], list[list[float]]] = {}
    for _ in range(settings.rounds):
        for workers in (1, 2):
            with LocalCluster(**_cluster(workers)) as cluster, Client(cluster) as client:
                client.run(_one_core_each, sorted(client.scheduler_info()["workers"]))
                for schedule, count in sweeps:
                    table = points(count)
                    for _ in ("to compile", "to time"):
                        seconds = _swept(client, graph, system, table, schedule)
                    spent.setdefault((schedule, workers), []).append(seconds)
    for schedule, count in sweeps:
        alone, *_ = map(statistics.median, zip(*spent[schedule, 1]))
        together, asker, workers = map(statistics.median, zip(*spent[schedule, 2]))
        yield Row(
            "workers",
            f"two Dask workers of one core against one: {count:,} designs on {name}, {schedule}",
            alone / together,
            "x",
            1.7,
            note=f"{alone:.2f} s against {together:.2f} s; processor time {workers:.2f} s of two workers and "
            f"{asker:.2f} s of the asker, which shares the two cores: at most "
            f"{2 * workers / (workers + asker):.2f} x",
        )


def _swept(client: Any, graph: Any, system: Any, table: pd.DataFrame, schedule: str) -> list[float]:
    """Seconds that a sweep takes, and those of processor time of the asker and of the workers."""
    before = sum(client.run(time.process_time).values())
    with temporary() as folder:
        begin, asker = time.perf_counter(), time.process_time()
        pm.sweep(
            graph,
            system,
            table,
            schedule=schedule,
            client=client,
            progress=False,
            output=folder,
            collect=False,
        )
        wall, mine = time.perf_counter() - begin, time.process_time() - asker
    return [wall, mine, sum(client.run(time.process_time).values()) - before]


def _cluster(workers: int) -> dict[str, Any]:
    return {
        "n_workers": workers,
        "threads_per_worker": 1,
        "processes": True,
        "host": "127.0.0.1",
        "dashboard_address": ":0",
    }


def _one_core_each(addresses: list[str], dask_worker: Any = None) -> None:
    """On a worker: stay on the core with the worker's number."""
    if hasattr(os, "sched_setaffinity"):
        core = sorted(os.sched_getaffinity(0))[addresses.index(dask_worker.address)]
        for task in os.listdir("/proc/self/task"):
            os.sched_setaffinity(int(task), {core})
