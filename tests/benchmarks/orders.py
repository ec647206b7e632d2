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
from tests.agreement import orders_stress
from tests.benchmarks.designs import SYSTEM, Subject
from tests.benchmarks.measure import SHARED, Row, Settings, alternate, cores

REFERENCE = SHARED.parent
ORDERED, FREE = "GPT in program order", "GPT, receives on a stream"
FUZZ = tuple(f"fuzz{k}" for k in range(1, 6))
TRACES = Path(__file__).resolve().parents[2] / "traces"

AGAINST_SIMULATION: dict[tuple[str, str, str], float | None] = {
    ("stg_llama_fsdp8", "unaware", "switch8"): 20.0,
    ("stg_llama_fsdp8", "unaware", "ring8"): None,
    ("stg_gpt_dp2tp2pp2", "unaware", "switch8"): None,
    ("stg_gpt_dp2tp4pp2", "unaware", "switch16"): 15.0,
    ("stg_gpt_dp2tp4pp2", "unaware", "ring16"): None,
    **{(trace, "unaware", "switch8"): 15.0 for trace in FUZZ},
    ("fuzz1", "unaware", "ring8"): None,
    ("llm_dp8", "aware", "switch8"): None,
    ("llm_tp8", "aware", "switch8"): None,
    ("llm_dp2tp2pp2", "aware", "switch8"): 50.0,
    ("llm_dp2tp2pp2", "aware", "ring8"): None,
}
"""Traces in ASTRA mode, their backend and network, and how often the default sweep should be as fast as simulation."""

OWN_AGAINST_SIMULATION = ("stg_llama_fsdp8", "stg_gpt_dp2tp2pp2", "stg_gpt_dp2tp4pp2", *FUZZ)
"""Traces with many orders in own mode."""

OWN_AGAINST_FROZEN = ("gpt_dp2_tp2_pp2", "moe_8", "fsdp_8", "GPT on 128 ranks", ORDERED)
"""Traces with few or one in own mode, two of which the benchmark makes."""


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about orders."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _program_order(settings)
        yield from _own_mode(settings)
        if REFERENCE.is_dir():
            yield from _astra(settings)


def certificates(settings: Settings) -> Iterator[Row]:
    """How many answers are false, over all traces, modes and backends, truncated and not; none may be."""
    wanted = settings.size(200_000, 2_000, 2)
    total = orders_stress.Found("all")
    for found in orders_stress.several(wanted, seed=0, batch=min(wanted, orders_stress.BATCH)):
        total.add(found)
    yield Row(
        "certificates",
        f"false answers by certificate or by nodes, of {total.designs:,} designs, all traces, modes and backends",
        len(total.false),
        "answers",
        0,
        at_least=False,
        note=f"{total.certified:,} certified, {total.by_node:,} by nodes, against the event simulation of each; "
        "half of the designs have costs full of ties",
    )


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
        settings.rounds,
        sweep,
        lambda: e.figures(paths, values[:, :few], simulated),
        warm=not settings.tiny,
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
    many = settings.size(16_384, 256, 8)
    counts = {
        ("stg_gpt_dp2tp4pp2", "switch16"): many // 2,
        ("stg_gpt_dp2tp4pp2", "ring16"): many // 2,
        ("llm_dp2tp2pp2", "switch8"): settings.size(65_536, 256, 8),
    }
    stand_for = ("fuzz1", "unaware", "switch8"), ("llm_dp2tp2pp2", "aware", "switch8")
    for subject in settings.chosen(AGAINST_SIMULATION, *stand_for):
        (trace, backend, network), target = subject, AGAINST_SIMULATION[subject]
        count = counts.get((trace, network), many)
        e = astra(REFERENCE / "traces" / trace, network, backend)
        few = settings.size(64, 8, 2)
        what = f"{trace}, {backend}, {network}"
        yield against(settings, e, what, target, count=count, few=few)
    e = astra(REFERENCE / "traces" / "stg_gpt_dp2tp4pp2", "switch16")
    count = settings.size(100_000, 1024, 8)
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
    """A GPT of data 4 x tensor 4 x pipeline 2; a network of one dimension, switch and ring, and own mode.

    In program order a message is received where the program asks for it, and dependencies leave no other order. As the
    generator has it, messages arrive on a stream of their own: a few orders, told apart by certificates.
    """
    if not REFERENCE.is_dir():
        return
    workload = synth.training(
        {"layers": settings.size(16, 4, 2), "hidden": 4096, "heads": 32},
        data=4,
        tensor=4,
        pipeline=2,
        micro_batches=settings.size(8, 8, 2),
    )
    ordered, free = settings.folder / "program_order", settings.folder / "streams"
    roles = tuple(in_program_order(role) for role in workload.roles)
    synth.Workload(workload.name, roles).write(ordered)
    workload.write(free)
    network = {"npus_count": [32], "bandwidth": [50.0], "latency": [500.0]}
    subjects = [(name, topology) for name in (ORDERED, FREE) for topology in ("Switch", "Ring")]
    for name, topology in settings.chosen(subjects, (ORDERED, "Ring"), (FREE, "Switch")):
        e = astra(ordered if name == ORDERED else free, network | {"topology": [topology]})
        if name == ORDERED and not e.compiled.forced:
            raise RuntimeError(f"{name}: some decisions are open")
        for breakdown, target in ((False, 0.5), (True, 0.3)):
            aim = target if name == ORDERED else None
            yield _against_the_engine(settings, e, f"{name}, {topology.lower()}", breakdown, aim)
    aware = astra(ordered, network | {"topology": ["Switch"]}, "aware")
    what = "GPT in program order, 32 ranks, aware, switch"
    yield against(
        settings, aware, what, None, count=settings.size(4096, 64, 4), few=settings.size(4, 4, 1)
    )


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
    count = settings.size(131_072, 1024, 8)
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
    count = settings.size(65_536, 512, 8)
    for trace in settings.chosen(OWN_AGAINST_FROZEN, "moe_8", ORDERED):
        if trace == ORDERED and not REFERENCE.is_dir():
            continue
        graph = _own_graph(settings, trace)
        e = Evaluator(pm.compile(graph, pm.hardware(SYSTEM, ranks=graph.ranks)))
        table = spread(e.compiled, count)
        paths, values = tuple(table.columns), table.to_numpy(float).T
        for breakdown in (True, False):
            own, frozen = (
                EvaluationOptions(schedule, breakdown=breakdown, threads=cores())
                for schedule in ("own", "frozen")
            )
            here, there = alternate(
                settings.rounds,
                lambda e=e, p=paths, v=values, o=own: e.figures(p, v, o),
                lambda e=e, p=paths, v=values, o=frozen: e.figures(p, v, o),
                warm=not settings.tiny,
            )
            yield Row(
                "orders",
                f"{trace}, own mode, {count:,} designs: default sweep "
                f"{'with' if breakdown else 'without'} the breakdown, against the frozen one",
                there / here,
                "x",
                0.7,
                note=f"{count / here:,.0f}/s against {count / there:,.0f}/s; nothing open: {e.compiled.forced}",
            )
    for trace in settings.chosen(OWN_AGAINST_SIMULATION, "fuzz1"):
        if (SHARED / trace).is_dir():
            e = Subject.of(trace, "").evaluator
            many = settings.size(16_384, 512, 8)
            few = settings.size(1024, 64, 2)
            yield against(settings, e, f"{trace}, own mode", None, count=many, few=few)


def _own_graph(settings: Settings, name: str) -> pm.Graph:
    if name == ORDERED:  # as `_program_order` has written it
        return pm.load(settings.folder / "program_order")
    if name != "GPT on 128 ranks":
        return pm.load(TRACES / name)
    sizes = {"layers": settings.size(32, 4), "hidden": 4096, "heads": 32}
    return synth.training(sizes, data=4, tensor=8, pipeline=4, micro_batches=8).graph()
