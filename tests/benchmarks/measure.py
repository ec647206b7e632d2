"""How things are timed, and the table of what came out."""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared" / "reference" / "astra-sim" / "traces"

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """How much to measure.

    Attributes:
        quick: small sizes, that finish in minutes and measure nothing of worth.
        rounds: how often everything is timed; medians are taken.
        folder: for files; output: for tables and plots.
        tiny: sizes at which every line is printed and that is all: of a test, quick ones too.
    """

    quick: bool
    rounds: int
    folder: Path
    output: Path
    tiny: bool = False

    def size(self, full: int, quick: int, tiny: int | None = None) -> int:
        """One of three sizes; the quick one where there is none for tests."""
        if self.tiny and tiny is not None:
            return tiny
        return quick if self.quick else full

    def chosen(self, subjects: Iterable[T], *tiny: T) -> list[T]:
        """All subjects; of a test those that stand for the others, which run the same lines."""
        return [subject for subject in subjects if not self.tiny or subject in tiny]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        benchmark: the name that `--only` takes.
        what: what was measured, on what.
        measured, unit: the median.
        target: what was aimed at in the same unit, None for a line that only informs; at_least: or at most.
        note: what it was compared with, with its figures.
    """

    benchmark: str
    what: str
    measured: float
    unit: str
    target: float | None = None
    at_least: bool = True
    note: str = ""

    @property
    def ratio(self) -> float | None:
        """How far the target is met: 1 or more is met."""
        if self.target is None:
            return None
        if self.at_least:
            return self.measured / self.target
        return self.target / self.measured if self.measured else math.inf

    @property
    def met(self) -> str:
        """In words."""
        return "" if self.ratio is None else "yes" if self.ratio >= 1 else "no"

    def record(self) -> dict[str, Any]:
        """For a table."""
        bound = "at least" if self.at_least else "at most"
        return {
            "benchmark": self.benchmark,
            "what": self.what,
            "measured": self.measured,
            "unit": self.unit,
            "target": "" if self.target is None else f"{bound} {self.target:.4g}",
            "ratio": self.ratio,
            "met": self.met,
            "note": self.note,
        }


def alternate(rounds: int, *functions: Callable[[], Any], warm: bool = True) -> list[float]:
    """Median seconds of several functions, each called once a round in turn, so that all see the same machine.

    Args:
        rounds: how often each is timed.
        functions: what to time.
        warm: call each once before, uncounted: it compiles.
    """
    times: list[list[float]] = [[] for _ in functions]
    for function in functions if warm else ():
        function()
    gc.collect()
    for _ in range(rounds):
        for mine, function in zip(times, functions):
            begin = time.perf_counter()
            function()
            mine.append(time.perf_counter() - begin)
    return [statistics.median(mine) for mine in times]


def processor(function: Callable[[], Any]) -> tuple[Callable[[], Any], Callable[[], float]]:
    """The function, and what says the median of the processor seconds that its calls took, other processes included.

    Wall times say how long somebody waits on an idle machine; on a busy one processor time says more.
    """
    spent: list[float] = []

    def now() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    def run() -> Any:
        begin = now()
        result = function()
        spent.append(now() - begin)
        return result

    return run, lambda: statistics.median(spent)


def fresh(*arguments: str) -> dict[str, Any]:
    """Run a part of `tests.benchmarks.child` in a process of its own.

    Returns:
        What it printed (JSON on its last line), and `wall_s` of the whole process.
    """
    begin = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.child", *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    wall = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"benchmark process {arguments} failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "wall_s": wall}


def wall(command: Sequence[str]) -> float:
    """Seconds that a command takes from start to end."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - begin


def peak_memory() -> int:
    """Most memory that this process has had so far [B].

    From Linux's own note, which begins anew with the program; elsewhere what the process was started from may count.
    """
    status = Path("/proc/self/status")
    if status.exists():
        for line in status.read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine() -> dict[str, str]:
    """What the figures were measured on."""
    import jax

    load = ", ".join(f"{x:.2f}" for x in os.getloadavg()) if hasattr(os, "getloadavg") else "?"
    return {
        "processor": _processor(),
        "cores": str(cores()),
        "memory": f"{memory() / 2**30:.0f} GiB",
        "python": platform.python_version(),
        **{name: version(name) for name in ("numpy", "jax", "numba")},
        "jax devices": ", ".join(f"{d.platform} {d.device_kind}" for d in jax.devices()),
        "load average": load,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(x.split(":", 1)[1].strip() for x in lines if x.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def memory() -> int:
    """Of this machine [B]."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def trace(name: str, otherwise: str) -> tuple[Path, str]:
    """A reference trace and its name, or an example of this repository where that is absent."""
    if (SHARED / name).is_dir():
        return SHARED / name, name
    return ROOT / "traces" / otherwise, f"{otherwise} ({name} is absent)"


def temporary() -> tempfile.TemporaryDirectory:
    """A folder that goes with the benchmark."""
    return tempfile.TemporaryDirectory(prefix="perfmodel-benchmark-")
