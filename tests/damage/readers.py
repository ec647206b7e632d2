"""Every reader of the package, with sound files for it, and what reading gives as a text that can be compared.

A reader takes a folder in which its files lie, one of them damaged.
"""

from __future__ import annotations

import gzip
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

import pandas as pd

from tests.damage import more_readers
from tests.damage.reader import Reader

ROOT = Path(__file__).resolve().parents[2]
SHARED = ROOT.parent / "shared"

GOAL = b"""num_ranks 2
rank 0 {
l1: calc 1000 cpu 0
l2: send 1024b to 1 tag 5
l2 requires l1
}
rank 1 {
l1: recv 1024b from 0 tag 5
l2: calc 500 cpu 1
l2 requires l1
}
"""
MLP = b"""DATA
2
layer0\t-1\t1000\tNONE\t0\t1000\tNONE\t0\t1000\tALLREDUCE\t1048576\t10
layer1\t-1\t2000\tNONE\t0\t2000\tNONE\t0\t2000\tALLREDUCE\t2097152\t10
"""
GROUPS = b'{"1": [0, 1], "2": [2, 3], "all": [0, 1, 2, 3]}'
CSV = b"""collective,size_B,ranks,flops,bytes_B,duration_s
all_reduce,1048576,8,,,1e-4
,,,1e12,1e9,2e-3
all_gather,4096,2,,,1e-5
"""


def _load(**options) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        import perfmodel as pm

        return pm.load(folder / options["name"], **options.get("more", {})).digest

    return read


def _inspect(folder: Path) -> str:
    from perfmodel.analysis.inspection import inspect_trace

    return inspect_trace(folder).text()


def _archive(folder: Path) -> str:
    import perfmodel as pm

    return pm.load(folder / "graph.npz").digest


def _part(folder: Path) -> str:
    from perfmodel.analysis.designs import Designs
    from perfmodel.analysis.sweep_store import Damaged, claim
    from perfmodel.errors import InputError

    note = json.loads(_sweep()["_sweep.json"])
    try:
        store = claim(folder, {k: v for k, v in note.items() if k not in ("format", "place")})
        frame = store.read(0, Designs.of_frame(pd.read_parquet(folder / "points.pq")))
    except Damaged as error:
        raise InputError(f"a part of a sweep: {error}") from None
    return frame.to_csv()


def _messages(folder: Path) -> str:
    from perfmodel.trace import chakra

    return str(sum(len(str(message)) for message in chakra.messages(folder / "t.0.et")))


def _groups(folder: Path) -> str:
    from perfmodel.trace import chakra

    return repr(chakra.read_groups(folder / "groups.json"))


def _system(folder: Path) -> str:
    import perfmodel as pm

    system = pm.hardware(folder / "machine.toml")
    return repr(pm.parameters(system))


def _models(folder: Path) -> str:
    from perfmodel.models.model_file import read_models

    return repr(read_models(folder / "models.toml"))


def _astra(folder: Path) -> str:
    from perfmodel.astra.config import read_config

    return repr(read_config(folder / "system.json", folder / "network.yml", folder / "memory.json"))


def _measurements(name: str) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        import perfmodel as pm
        from perfmodel.calibration.measurement_files import read_measurements
        from perfmodel.calibration.measurements import read as check

        table = read_measurements(folder / name)
        check(table, pm.hardware("dgx-h100", ranks=16))
        return table.to_csv()

    return read


def _words(folder: Path) -> str:
    """Texts that people type: an expression, a figure with its unit."""
    from perfmodel import units
    from perfmodel.optimization.expression import parse, parse_relation

    lines = (folder / "words").read_bytes().decode("utf-8", "replace").split("\n")
    lines = [*lines, "", "", ""][:3]
    return repr((parse(lines[0]).names, parse_relation(lines[1])[1], units.parse_any(lines[2])))


@cache
def _trace() -> dict[str, bytes]:
    """A small trace of groups, messages and kernels, as its files."""
    from perfmodel import synth

    with tempfile.TemporaryDirectory() as name:
        synth.training(
            {"layers": 1, "hidden": 256, "heads": 4}, sequence=64, tensor=2, pipeline=1, data=2
        ).write(name)
        return {path.name: path.read_bytes() for path in Path(name).iterdir()}


@cache
def _saved() -> dict[str, bytes]:
    """A saved graph, without a note: there is nothing to read it anew from."""
    import perfmodel as pm
    from perfmodel import synth

    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "graph.npz"
        pm.save(
            synth.training(
                {"layers": 1, "hidden": 256, "heads": 4}, sequence=64, pipeline=1
            ).graph(),
            path,
        )
        return {"graph.npz": path.read_bytes()}


@cache
def _sweep() -> dict[str, bytes]:
    """A sweep of one part, with its points."""
    from perfmodel.analysis.sweep_store import claim

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "s"
        points = pd.DataFrame({"npu.peak_flops": [1e14 + 1e12 * k for k in range(50)]})
        store = claim(folder, {"graph": ["made"], "part": 50})
        store.write(0, points.assign(makespan_s=1.5, schedule="frozen"))
        points.to_parquet(folder / "points.pq")
        return {path.name: path.read_bytes() for path in folder.iterdir()}


def _table(kind: str) -> bytes:
    import io

    table = pd.read_csv(io.BytesIO(CSV))
    sink = io.BytesIO()
    table.to_parquet(sink)
    return sink.getvalue()


def readers() -> dict[str, Reader]:
    """Every reader by name; those with real files only where these are."""
    trace, astra = _trace(), ROOT / "notebooks" / "astra_sim"
    models = sorted((ROOT / "hwdb" / "models").glob("*.toml"))
    found = {
        "chakra": Reader(trace, "t.1.et", _load(name="t")),
        "chakra packed, then damaged": Reader(
            {**_without(trace, "t.1.et"), "t.1.et.gz": gzip.compress(trace["t.1.et"], 6, mtime=0)},
            "t.1.et.gz",
            _load(name="t"),
        ),
        "chakra damaged, then packed": Reader(trace, "t.1.et", _load(name="t"), packed=True),
        "chakra inspected": Reader(trace, "t.0.et", _inspect),
        "chakra as messages": Reader(trace, "t.0.et", _messages),
        "group file beside a trace": Reader(trace, "comm_groups.json", _load(name="t")),
        "group file": Reader({"groups.json": GROUPS}, "groups.json", _groups),
        "saved graph": Reader(_saved(), "graph.npz", _archive),
        "member of a saved graph": Reader(_saved(), "graph.npz", _archive, member="*"),
        "part of a sweep": Reader(_sweep(), "part-000000.parquet", _part),
        "note of a sweep": Reader(_sweep(), "_sweep.json", _part),
        "GOAL": Reader({"x.goal": GOAL}, "x.goal", _load(name="x.goal")),
        "text workload": Reader({"x.txt": MLP}, "x.txt", _load(name="x.txt", more={"ranks": 4})),
        "system file": Reader(
            {"machine.toml": (ROOT / "hwdb" / "dgx-h100.toml").read_bytes()},
            "machine.toml",
            _system,
        ),
        "ASTRA system": Reader(_configuration(astra), "system.json", _astra),
        "ASTRA network": Reader(_configuration(astra), "network.yml", _astra),
        "ASTRA memory": Reader(_configuration(astra), "memory.json", _astra),
        "measurements, CSV": Reader({"m.csv": CSV}, "m.csv", _measurements("m.csv")),
        "measurements, Parquet": Reader(
            {"m.parquet": _table("parquet")}, "m.parquet", _measurements("m.parquet")
        ),
        "words": Reader(
            {"words": b"npu.peak_flops + 2 * (a.b - 3.5e2) / c\na + b <= 5\n3.35 TB/s\n"},
            "words",
            _words,
        ),
    }
    if models:
        found["models"] = Reader({"models.toml": models[0].read_bytes()}, "models.toml", _models)
    return found | more_readers.readers() | _real()


def _without(files: Mapping[str, bytes], name: str) -> dict[str, bytes]:
    return {key: value for key, value in files.items() if key != name}


def _configuration(folder: Path) -> dict[str, bytes]:
    memory = b'{"memory-type": "PER_NPU_MEMORY_EXPANSION", "remote-mem-latency": 100, "remote-mem-bw": 50}'
    names = ("system.json", "network.yml")
    return {**{name: (folder / name).read_bytes() for name in names}, "memory.json": memory}


def _real() -> dict[str, Reader]:
    """Traces of other producers, where the reference data are."""
    from perfmodel.workload import readers as known

    found = {}
    for name, folder, damaged in (
        ("wire format 0.0.1", "reference/chakra/v0_0_1", "twoCompNodesDependent.0.eg"),
        ("feeder JSON", "reference/chakra/feeder_json", "small_chakra.0.json"),
        ("kernels of a device", "cases/recorded_cpu_ddp", "device.0.json"),
        ("operators of a host", "cases/recorded_cpu_ddp", "host.0.json"),
    ):
        place = SHARED / folder
        if not (place / damaged).is_file():
            continue
        if "cases" in folder and not hasattr(known, "read_pytorch"):
            continue
        both = [damaged] if "cases" not in folder else ["device.0.json", "host.0.json"]
        files = {file: (place / file).read_bytes() for file in both}
        single = damaged if len(both) == 1 else "."
        found[name] = Reader(files, damaged, _load(name=single, more={}))
    return found


def scratch() -> str:
    """Where files are put: in memory where the system has such a place."""
    return "/dev/shm" if os.path.isdir("/dev/shm") else tempfile.gettempdir()
