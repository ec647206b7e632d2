"""What benchmarks run in a process of its own: `python -m tests.benchmarks.child PART ARGUMENTS`.

Prints figures as JSON on its last line.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path

import perfmodel as pm
from perfmodel import synth
from perfmodel.astra.models import system_of
from tests.benchmarks.designs import SYSTEM, points
from tests.benchmarks.measure import peak_memory
from tests.benchmarks.orders import REFERENCE
from tests.benchmarks.unlike import unlike_ranks


def ranks(count: int, nodes: int, designs: int, rounds: int) -> dict:
    """A data-parallel workload from nothing to its prediction, then sweeps of it."""
    graph = synth.data_parallel(count, nodes).graph()
    system = pm.hardware(SYSTEM, ranks=graph.ranks)
    makespan = pm.predict(graph, system).makespan
    cold = {"peak_B": peak_memory(), "makespan_s": makespan, "nodes": len(graph)}
    further = []
    for _ in range(rounds):
        begin = time.perf_counter()
        pm.sweep(graph, system, points(designs), schedule="frozen")
        further.append(time.perf_counter() - begin)
    return {**cold, "further_s": further}


def unlike(count: int, nodes: int) -> dict:
    """Random ranks in memory to the makespan, then to all derivatives, then other designs."""
    columns = unlike_ranks(count, nodes)
    base, begin = peak_memory(), time.perf_counter()
    wall, cpu = {}, {}
    last = [begin, time.process_time()]

    def done(stage: str) -> None:
        now = [time.perf_counter(), time.process_time()]
        wall[stage], cpu[stage] = now[0] - last[0], now[1] - last[1]
        last[:] = now

    graph = pm.Graph.from_ranks(columns)
    del columns  # as a reader does that hands its columns over
    done("graph")
    system = pm.hardware(SYSTEM, ranks=count, models="roofline")
    compiled = pm.compile(graph, system)
    done("order")
    pm.predict(compiled)
    done("makespan")
    pm.sensitivity(compiled)
    done("derivatives")
    cold = last[0] - begin
    further = []
    for peak in (1.1e15, 1.2e15, 1.3e15):
        started = time.perf_counter(), time.process_time()
        pm.predict(compiled, replace(system, npu=replace(system.npu, peak_flops=peak)))
        further.append((time.perf_counter() - started[0], time.process_time() - started[1]))
    seconds, processor = (statistics.median(mine) for mine in zip(*further))
    return {
        "nodes": len(graph),
        "edges": sum(len(p.pred) for p in graph.programs),
        "stage_s": wall,
        "cpu_s": cpu,
        "cold_s": cold,
        "further_s": seconds,
        "further_cpu_s": processor,
        "base_B": base,
        "peak_B": peak_memory(),
    }


def sweep(trace: str, designs: int, output: str) -> dict:
    """A long sweep, frozen, streamed to Parquet."""
    graph = pm.load(trace)
    system = pm.hardware(SYSTEM, ranks=graph.ranks)
    begin = time.perf_counter()
    pm.sweep(
        graph,
        system,
        points(designs),
        schedule="frozen",
        output=output,
        collect=False,
        progress=False,
    )
    return {"sweep_s": time.perf_counter() - begin, "peak_B": peak_memory()}


def astra(trace: str, count: int) -> dict:
    """The programs of a trace on more ranks, from the graph to a prediction in ASTRA mode."""
    given = sorted(Path(trace).glob("comm_group*.json"))
    loaded = pm.astra.load(
        f"{trace}/t",
        REFERENCE / "system" / "ring_s4_a1.json",
        REFERENCE / "network" / "switch16.yml",
        comm_group=given[0] if given else None,
    )
    graph, _, models = loaded
    wide = pm.retarget(graph, ranks=count, data=[str(k) for k in range(1, 9)])
    begin = time.perf_counter()
    setup = models.setup
    network = replace(setup.config.network, sizes=(count,))
    config = replace(setup.config, network=network)
    compiled = pm.compile(wide, system_of(config), replace(models, setup=type(setup)(config)))
    pm.evaluate(compiled)
    cold = time.perf_counter() - begin
    return {"cold_s": cold, "nodes": len(wide), "events": len(compiled.events)}


def main() -> None:
    """Run one part."""
    part, *rest = sys.argv[1:]
    if part == "ranks":
        result = ranks(*(int(word) for word in rest))
    elif part == "astra":
        result = astra(rest[0], int(rest[1]))
    elif part == "unlike":
        result = unlike(*(int(word) for word in rest))
    else:
        result = sweep(rest[0], int(rest[1]), rest[2])
    print(json.dumps(result))


if __name__ == "__main__":
    main()
