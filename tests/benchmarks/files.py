"""Reading trace files, opening saved graphs, and a cold `perfmodel --help`."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Iterator

import perfmodel as pm
from perfmodel import synth
from perfmodel.trace import chakra
from tests.benchmarks.measure import Row, Settings, alternate, temporary, wall


def rows(settings: Settings) -> Iterator[Row]:
    """All lines about files."""
    with temporary() as folder:
        workload = synth.training(
            {"layers": settings.size(32, 8, 2), "hidden": 4096, "heads": 32},
            data=settings.size(4, 2),
            tensor=4,
            pipeline=settings.size(4, 2),
            micro_batches=settings.size(8, 2),
        )
        prefix = workload.write(folder)
        files = chakra.find(prefix)[0]
        content = {hashlib.sha256(p.read_bytes()).digest(): p for _, p in files}
        raw = [p.read_bytes() for p in content.values()]
        nodes = sum(len(chakra.decode(data, "rank")) for data in raw)
        saved = f"{folder}/graph.npz"
        pm.save(pm.load(prefix), saved)
        decode, load, again = alternate(
            settings.rounds,
            lambda: [chakra.decode(data, "rank") for data in raw],
            lambda: pm.load(prefix),
            lambda: pm.load(saved),
        )
    sizes = f"{sum(map(len, raw)) / 1e6:.0f} MB of {workload.name}"
    yield Row(
        "reading",
        f"reading .et: {len(raw)} distinct of {workload.ranks} files, {nodes:,} nodes, one core",
        nodes / decode,
        "nodes/s",
        5e5,
        note=sizes,
    )
    yield Row(
        "reading",
        f"the same from file to graph: read, join, check ({workload.nodes:,} nodes)",
        workload.nodes / load,
        "nodes/s",
        note=f"{load:.3f} s",
    )
    yield Row(
        "reading",
        "the same from a saved graph",
        load / again,
        "x faster",
        20.0,
        note=f"{again * 1e3:.1f} ms against {load * 1e3:.0f} ms",
    )
    yield from _help(settings)


def _help(settings: Settings) -> Iterator[Row]:
    command = [sys.executable, "-m", "perfmodel", "--help"]
    (seconds,) = alternate(settings.rounds, lambda: wall(command), warm=not settings.quick)
    yield Row("cold", "`perfmodel --help`", seconds, "s", 1.0, at_least=False)
