"""Every design its own order: the default sweep against the simulation of every design, and against the frozen engine.

Both sides are timed from a compiled graph and parameters to the figures of a sweep, in the same run. Designs are spread
over a factor of 36, latencies over 150 (`spread`).
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis.evaluation import ANSWERS, EvaluationOptions, Evaluator
from perfmodel.engine import bulk_cpu
from perfmodel.synth.role import Role
from perfmodel.vocabulary import NodeType
from tests.benchmarks.designs import SYSTEM, Subject
from tests.benchmarks.measure import SHARED, Row, Settings, alternate, cores

REFERENCE = SHARED.parent
FUZZ = tuple(f"fuzz{k}" for k in range(1, 6))
TRACES = Path(__file__).resolve().parents[2] / "traces"


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about orders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _program_order(settings)
        yield from _own_mode(settings)
        if REFERENCE.is_dir():
            yield from _astra(settings)


def spread(compiled: Any, count: int, seed: int = 0) -> pd.DataFrame:
    """Designs around the one that a graph was compiled at."""
    bounds = {}
    for path, value in pm.parameters(compiled.system, compiled.models).items():
        wide = np.sqrt(150.0 if "latency" in path else 36.0)
        rate = path.startswith("network") or path in ("npu.peak_flops", "npu.memory_bandwidth")
        if rate and 0 < float(value) < np.inf:
            bounds[path] = (float(value) / wide, float(value) * wide)
    return pm.sample(bounds, count, method="latin-hypercube", seed=seed)


def astra(folder: Path, network: str | dict, backend: str = "unaware", **more: Any) -> Evaluator:
    """A trace in ASTRA mode with the reference's `ring_s4_a1`, compiled."""
    groups = folder / "comm_groups.json"
    groups = (
        groups if groups.is_file() else next(iter(sorted(folder.glob("comm_group*.json"))), None)
    )
    where = REFERENCE / "network" / f"{network}.yml" if isinstance(network, str) else network
    loaded = pm.astra.load(
        folder / "t",
        REFERENCE / "system" / "ring_s4_a1.json",
        where,
        comm_group=groups,
        backend=backend,
        **more,
    )
    return Evaluator(pm.compile(*loaded))


def against(
    settings: Settings, e: Evaluator, what: str, target: float | None, *, count: int, few: int
) -> Row:
    """The default sweep of many designs against the simulation of a few, designs a second."""
    table = spread(e.compiled, count)
    paths, values = tuple(table.columns), table.to_numpy(float).T
    default = EvaluationOptions(threads=cores())
    simulated = EvaluationOptions("simulated", threads=cores())
    who: list[np.ndarray] = []

    def sweep() -> None:
        e.compiled.__dict__.pop("cells", None)  # nothing is known of the designs
        who.append(e.figures(paths, values, default)["schedule"])

    here, there = alternate(
        settings.rounds, sweep, lambda: e.figures(paths, values[:, :few], simulated)
    )
    share = np.bincount(who[-1], minlength=len(ANSWERS)) / count
    said = ", ".join(f"{part:.0%} {name}" for name, part in zip(ANSWERS, share) if part > 0)
    return Row(
        "orders",
        f"{what}, {count:,} designs, default sweep against the simulation of every design",
        (count / here) / (few / there),
        "x",
        target,
        note=f"{count / here:,.0f}/s against {few / there:,.0f}/s; answered by {said}",
    )


def _astra(settings: Settings) -> Iterator[Row]:
    many = settings.size(16_384, 256)
    for trace, network, backend, target, count in (
        ("stg_llama_fsdp8", "switch8", "unaware", 20.0, many),
        ("stg_llama_fsdp8", "ring8", "unaware", None, many),
        ("stg_gpt_dp2tp2pp2", "switch8", "unaware", None, many),
        ("stg_gpt_dp2tp4pp2", "switch16", "unaware", 15.0, many // 2),
        ("stg_gpt_dp2tp4pp2", "ring16", "unaware", None, many // 2),
        *((trace, "switch8", "unaware", 15.0, many) for trace in FUZZ),
        ("fuzz1", "ring8", "unaware", None, many),
        ("llm_dp8", "switch8", "aware", None, many),
        ("llm_tp8", "switch8", "aware", None, many),
        ("llm_dp2tp2pp2", "switch8", "aware", 50.0, settings.size(65_536, 256)),
        ("llm_dp2tp2pp2", "ring8", "aware", None, many),
    ):
        e = astra(REFERENCE / "traces" / trace, network, backend)
        few = settings.size(64, 8)
        what = f"{trace}, {backend}, {network}"
        yield against(settings, e, what, target, count=count, few=few)
    e = astra(REFERENCE / "traces" / "stg_gpt_dp2tp4pp2", "switch16")
    count = settings.size(100_000, 1024)
    table = spread(e.compiled, count)
    paths, values = tuple(table.columns), table.to_numpy(float).T
    options = EvaluationOptions("frozen", breakdown=False, threads=cores())
    (seconds,) = alternate(settings.rounds, lambda: e.figures(paths, values, options))
    yield Row(
        "orders",
        f"stg_gpt_dp2tp4pp2 in ASTRA mode, frozen, {count:,} designs from a compiled graph",
        count / seconds,
        "designs/s",
        1e6,
    )


def _program_order(settings: Settings) -> Iterator[Row]:
    """A GPT of data 4 x tensor 4 x pipeline 2; a network of one dimension, switch and ring.

    In program order a message is received where the program asks for it, and dependencies leave no other order. As the
    generator has it, messages arrive on a stream of their own: a few orders, told apart by certificates.
    """
    if not REFERENCE.is_dir():
        return
    layers = settings.size(16, 4)
    workload = synth.training(
        {"layers": layers, "hidden": 4096, "heads": 32},
        data=4,
        tensor=4,
        pipeline=2,
        micro_batches=8,
    )
    ordered, free = settings.folder / "program_order", settings.folder / "streams"
    roles = tuple(in_program_order(role) for role in workload.roles)
    synth.Workload(workload.name, roles).write(ordered)
    workload.write(free)
    for folder, name in ((ordered, "GPT in program order"), (free, "GPT, receives on a stream")):
        for topology in ("Switch", "Ring"):
            network = {
                "topology": [topology],
                "npus_count": [32],
                "bandwidth": [50.0],
                "latency": [500.0],
            }
            e = astra(folder, network)
            if folder == ordered and not e.compiled.forced:
                raise RuntimeError(f"{name}: some decisions are open")
            for breakdown, target in ((False, 0.5), (True, 0.3)):
                aim = target if folder == ordered else None
                yield _against_the_engine(
                    settings, e, f"{name}, {topology.lower()}", breakdown, aim
                )
    aware = astra(ordered, network | {"topology": ["Switch"]}, "aware")
    what = "GPT in program order, 32 ranks, aware, switch"
    yield against(settings, aware, what, None, count=settings.size(4096, 64), few=4)


def in_program_order(role: Role) -> Role:
    """The same program, in which a receive is posted when the kernel before it in the program has ended."""
    nodes = role.columns
    kernel = np.where(nodes.type == NodeType.COMP, np.arange(len(nodes)), -1)
    before = np.maximum.accumulate(np.concatenate([[-1], kernel[:-1]]))
    late = np.flatnonzero((nodes.type == NodeType.COMM_RECV) & (before >= 0))
    edges = np.concatenate(
        [
            np.stack([np.repeat(np.arange(len(nodes)), np.diff(nodes.pred_ptr)), nodes.pred]),
            np.stack([late, before[late]]),
        ],
        axis=1,
    )
    target, pred = np.unique(edges, axis=1)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(target, minlength=len(nodes)))])
    return replace(role, steps=replace(nodes, pred_ptr=ptr, pred=pred, latency=np.zeros(len(pred))))


def _against_the_engine(
    settings: Settings, e: Evaluator, what: str, breakdown: bool, target: float | None
) -> Row:
    """All of a default sweep's figures against costs and the engine alone."""
    count = settings.size(131_072, 1024)
    table = spread(e.compiled, count)
    paths, values = tuple(table.columns), table.to_numpy(float).T
    default = EvaluationOptions(breakdown=breakdown, threads=cores())

    def engine() -> None:
        bulk_cpu.makespans(e.compiled.plan, e.costs(paths, values), threads=cores())

    here, there = alternate(settings.rounds, lambda: e.figures(paths, values, default), engine)
    return Row(
        "orders",
        f"{what}, 32 ranks, ASTRA unaware, {count:,} designs: default sweep "
        f"{'with' if breakdown else 'without'} the breakdown, against the frozen engine",
        there / here,
        "x",
        target,
        note=f"{count / here:,.0f}/s against {count / there:,.0f}/s; nothing open: {e.compiled.forced}",
    )


def _own_mode(settings: Settings) -> Iterator[Row]:
    count = settings.size(65_536, 512)
    layers = settings.size(32, 4)
    made = synth.training(
        {"layers": layers, "hidden": 4096, "heads": 32},
        data=4,
        tensor=8,
        pipeline=4,
        micro_batches=8,
    )
    graphs = {name: pm.load(TRACES / name) for name in ("gpt_dp2_tp2_pp2", "moe_8", "fsdp_8")}
    graphs[f"GPT of {layers} layers on 128 ranks"] = made.graph()
    for trace, graph in graphs.items():
        e = Evaluator(pm.compile(graph, pm.hardware(SYSTEM, ranks=graph.ranks)))
        table = spread(e.compiled, count)
        paths, values = tuple(table.columns), table.to_numpy(float).T
        default = EvaluationOptions(threads=cores())
        frozen = EvaluationOptions("frozen", threads=cores())
        here, there = alternate(
            settings.rounds,
            lambda e=e, p=paths, v=values, o=default: e.figures(p, v, o),
            lambda e=e, p=paths, v=values, o=frozen: e.figures(p, v, o),
        )
        yield Row(
            "orders",
            f"{trace}, own mode, {count:,} designs: default sweep against the frozen one",
            there / here,
            "x",
            0.7,
            note=f"{count / here:,.0f}/s; nothing open: {e.compiled.forced}",
        )
    for trace in ("stg_llama_fsdp8", "stg_gpt_dp2tp2pp2", "stg_gpt_dp2tp4pp2", *FUZZ):
        if (SHARED / trace).is_dir():
            e = Subject.of(trace, "").evaluator
            many = settings.size(16_384, 512)
            few = settings.size(1024, 64)
            yield against(settings, e, f"{trace}, own mode", None, count=many, few=few)
