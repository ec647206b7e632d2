"""The reference runs of ASTRA-sim for the tests: cases, configurations and traces, unpacked once."""

from __future__ import annotations

import atexit
import json
import shutil
import tempfile
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perfmodel.astra import Lowered, event_run, lower, read_config, read_flat

HERE = Path(__file__).resolve().parent
EXAMPLES = HERE / "data" / "astra" / "cases.zip"
ARCHIVE = HERE / "data" / "astra" / "reference.zip"
SHARED = HERE.parents[1] / "shared" / "reference"

Case = dict[str, Any]


@cache
def _unpacked(archive: Path) -> Path:
    """An archive's content; every name in it stays below the folder."""
    place = Path(tempfile.mkdtemp(prefix="astra-reference-"))
    atexit.register(shutil.rmtree, place, ignore_errors=True)
    with zipfile.ZipFile(archive) as found:
        for name in found.namelist():
            assert (place / name).resolve().is_relative_to(place.resolve()), name
        found.extractall(place)
    return place


def folder() -> Path:
    """The reference runs with their configurations and traces."""
    return _unpacked(ARCHIVE)


def examples() -> Path:
    """Inputs that the simulator takes in its own way, a folder each with what it printed."""
    return _unpacked(EXAMPLES)


def modes() -> Path:
    """Random runs with custom collectives, the rendezvous protocol and the shared bus, a folder each."""
    return _unpacked(EXAMPLES.with_name("modes.zip"))


def cases(name: str) -> list[Case]:
    """A file of the archive with one JSON object a line."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        return [json.loads(line) for line in archive.read(name).splitlines()]


def key(case: Case) -> str:
    """A case for people."""
    names = ("trace", "system", "network", "remote_memory", "backend")
    return "-".join(str(case[name]) for name in names if name in case)


def trace(name: str) -> Path:
    """Folder of a trace; skips where it belongs to the reference data that stays outside."""
    place = folder() / "traces" / name
    if not place.is_dir():
        place = SHARED / "astra-sim" / "traces" / name
        if not place.is_dir():
            pytest.skip(f"trace {name} is not carried along, and there is no {SHARED}")
    return place


@cache
def flat(name: str, ranks: int):
    """A trace's nodes; read once."""
    groups = trace(name) / "comm_groups.json"
    return read_flat(trace(name) / "t", ranks, groups if groups.is_file() else None)


def config(case: Case):
    """The configuration of a case."""
    place = folder()
    memory = case.get("remote_memory")
    return read_config(
        place / "system" / f"{case['system']}.json",
        place / "network" / f"{case['network']}.yml",
        place / "remote_memory" / f"{memory}.json" if memory else None,
        backend=case["backend"],
    )


def lowered(case: Case) -> Lowered:
    """A case, ready to run."""
    found = config(case)
    return lower(flat(case["trace"], found.network.ranks), found)


def longest(cost, pred_ptr, pred, row) -> tuple[np.ndarray, np.ndarray]:
    """Start and finish of every vertex by a plain loop over edges from smaller to larger numbers."""
    finish: list[float] = []
    start: list[float] = []
    ptr, before, duration = pred_ptr.tolist(), pred.tolist(), [*cost.tolist(), 0.0]
    for v, r in enumerate(row.tolist()):
        begin = max([finish[p] for p in before[ptr[v] : ptr[v + 1]]], default=0.0)
        start.append(begin)
        finish.append(begin + duration[r])
    return np.array(start), np.array(finish)


def custom_collective(backend: str) -> list[float]:
    """Cycles by rank of the custom all-reduce of the facts; skips where its trace is absent."""
    prefix = SHARED / "chakra" / "custom_collective" / "custom_allreduce"
    if not prefix.parent.is_dir():
        pytest.skip(f"there is no {prefix.parent}")
    system = json.loads((folder() / "system" / "ring_s4_a1.json").read_text())
    system |= {
        "preferred-dataset-splits": 1,
        "local-mem-bw": 50,
        "all-reduce-implementation-custom": [str(prefix)],
    }
    config = read_config(system, folder() / "network" / "ring8.yml", backend=backend)
    lowered = lower(flat("all_reduce_8_1M", 8), config)
    return event_run.run(lowered, lowered.costs()).rank_end.tolist()
