"""How long one waits: second sweeps on a compiled graph, cold commands, and the first run after installation.

Cold commands run in processes of their own, which find and leave Python's bytecode of this package as an installed one
has it, whatever the environment says (`PYTHONDONTWRITEBYTECODE`). For the first runs after installation all that was
compiled is put into a folder of its own that is empty before each run (`NUMBA_CACHE_DIR`, JAX's likewise).
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import perfmodel as pm
from perfmodel import synth
from tests.benchmarks.designs import SYSTEM
from tests.benchmarks.measure import ROOT, SHARED, Row, Settings, alternate, fresh, processor, wall
from tests.benchmarks.orders import REFERENCE, TRACES, astra, spread

SMALL, MANY = 64, 4096
"""Designs of a sweep that somebody waits for, and of a larger one."""

JAX = [sys.executable, "-c", "import jax"]


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about waiting."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from _second_sweeps(settings)
    yield from _cold(settings)
    yield from _first(settings)
    if REFERENCE.is_dir():
        yield from _many_ranks(settings)


def _second_sweeps(settings: Settings) -> Iterator[Row]:
    graph = pm.load(TRACES / "gpt_dp2_tp2_pp2")
    subjects = {"gpt_dp2_tp2_pp2, own mode": pm.compile(graph, _system(graph))}
    if REFERENCE.is_dir():
        subjects["llm_dp8, ASTRA aware"] = astra(SHARED / "llm_dp8", "switch8", "aware").compiled
    if REFERENCE.is_dir() and not settings.tiny:  # a test runs the same lines with the others
        name = "stg_gpt_dp2tp2pp2"
        graph = pm.load(SHARED / name)
        subjects[f"{name}, own mode"] = pm.compile(graph, _system(graph))
        subjects[f"{name}, ASTRA unaware"] = astra(SHARED / name, "switch8").compiled
    for what, compiled in subjects.items():
        yield _second(settings, compiled, what, settings.size(SMALL, SMALL, 4), 0.030)
    work = synth.training(
        {"layers": settings.size(16, 4, 4), "hidden": 4096, "heads": 32},
        data=4,
        tensor=4,
        pipeline=4,
        micro_batches=settings.size(8, 4, 2),
    )
    compiled = pm.compile(work.graph(), _system(work.graph()))
    yield _second(
        settings, compiled, "a GPT on 64 ranks, own mode", settings.size(MANY, 64, 4), 0.15
    )


def _system(graph: Any) -> Any:
    return pm.hardware(SYSTEM, ranks=graph.ranks)


def _second(settings: Settings, compiled: Any, what: str, designs: int, target: float) -> Row:
    points = spread(compiled, designs)
    begin = time.perf_counter()
    pm.sweep(compiled, points)
    first = time.perf_counter() - begin
    again, spent = processor(lambda: pm.sweep(compiled, points))
    (seconds,) = alternate(settings.rounds, again)
    return Row(
        "latency",
        f"second sweep of {designs:,} designs of {what}, from a compiled graph",
        seconds,
        "s",
        target,
        at_least=False,
        note=f"{spent():.3f} s of processor time; the first one took {first:.2f} s",
    )


def _commands(settings: Settings) -> list[tuple[str, list[str]]]:
    """What somebody does first: words, and the command."""
    commands = [*_all_commands(settings)]
    return settings.chosen(commands, commands[0], commands[-1])


def _all_commands(settings: Settings) -> Iterator[tuple[str, list[str]]]:
    command = [sys.executable, "-m", "perfmodel"]
    name = "all_reduce_4" if settings.tiny else "gpt_dp2_tp2_pp2"
    example = str(ROOT / "traces" / name)
    yield f"`run traces/{name}`", [*command, "run", example, "--system", "dgx-h100"]
    vary = ["--vary", "npu.peak_flops=500e12,1000e12", "--vary", "network.0.bandwidth=1e11,4e11"]
    yield (
        f"`sweep traces/{name}` of 4 designs",
        [*command, "sweep", example, "--system", "dgx-h100", *vary],
    )
    if not REFERENCE.is_dir():
        return
    trace = SHARED / ("all_reduce_16_64K" if settings.tiny else "stg_gpt_dp2tp4pp2")
    yield f"`run` on {trace.name}", [*command, "run", str(trace), "--system", "dgx-h100"]
    files = {
        "workload": trace / "t",
        "system": REFERENCE / "system" / "ring_s4_a1.json",
        "network": REFERENCE / "network" / "switch16.yml",
        "comm-group": trace / "comm_groups.json",
    }
    if not files["comm-group"].exists():  # a trace of one group
        del files["comm-group"]
    options = [f"--{what}-configuration={path}" for what, path in files.items()]
    yield f"`astra-sim` on {trace.name}", [*command, "astra-sim", *options, "--quiet"]


def _cold(settings: Settings) -> Iterator[Row]:
    """With what was compiled before: beyond the time of importing JAX in the same minutes."""
    for what, command in _commands(settings):
        cold, spent = processor(lambda command=command: _quiet(command))
        jax, jax_spent = processor(lambda: wall(JAX))
        here, jax_s = alternate(
            settings.rounds,
            cold,
            jax,
            warm=not settings.quick,
        )
        yield Row(
            "latency",
            f"cold {what}, beyond importing jax",
            here - jax_s,
            "s",
            1.0,
            at_least=False,
            note=f"{here:.2f} s, `import jax` {jax_s:.2f} s; of processor time {spent():.2f} and {jax_spent():.2f} s",
        )


def _first(settings: Settings) -> Iterator[Row]:
    """With nothing compiled; once, or thrice: these take long."""
    for what, command in _commands(settings):
        first, spent = processor(lambda command=command: _fresh(command))
        (seconds,) = alternate(min(settings.rounds, 3), first, warm=False)
        yield Row(
            "latency",
            f"first {what} after installation",
            seconds,
            "s",
            8.0,
            at_least=False,
            note=f"{spent():.2f} s of processor time",
        )


def _quiet(command: list[str], **environment: str) -> None:
    inherited = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(
        command,
        cwd=ROOT,
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**inherited, "PYTHONPATH": str(ROOT), **environment},
    )


def _fresh(command: list[str]) -> None:
    with tempfile.TemporaryDirectory(prefix="perfmodel-first-") as folder:
        _quiet(
            command,
            NUMBA_CACHE_DIR=str(Path(folder) / "numba"),
            JAX_COMPILATION_CACHE_DIR=str(Path(folder) / "jax"),
            PERFMODEL_COMPILE="now",  # the folder goes: nobody writes into it afterwards
        )


def _many_ranks(settings: Settings) -> Iterator[Row]:
    """The programs of a 16-rank trace laid out on 128 ranks, from columns to a prediction in ASTRA mode."""
    ranks = settings.size(128, 32)
    trace = SHARED / "stg_gpt_dp2tp4pp2"
    runs = [fresh("astra", str(trace), str(ranks)) for _ in range(settings.rounds)]
    seconds = sorted(run["cold_s"] for run in runs)[len(runs) // 2]
    yield Row(
        "latency",
        f"{trace.name} laid out on {ranks} ranks, ASTRA unaware: cold, from the graph to a prediction",
        seconds,
        "s",
        3.0,
        at_least=False,
        note=f"{runs[0]['nodes']:,} nodes; {runs[0]['events']:,} events; compiled loops from the disk",
    )
