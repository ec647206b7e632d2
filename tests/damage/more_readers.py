"""Readers of files that other programs write: PyTorch's traces, benchmarks' outputs, models' sizes; and of bundles."""

from __future__ import annotations

import gzip
import json
import tempfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path

from tests.calibration.test_nccl_tests import line, run
from tests.damage.reader import Reader
from tests.handmade import coll, comp, recv, send, write
from tests.trace.pytorch.test_damage import device, host

SIMAI = b"""HYBRID_TRANSFORMER_FWD_IN_BCKWD model_parallel_NPU_group: 2 ep: 1 pp: 1 vpp: 2 ga: 2 all_gpus: 4 \
checkpoints: 1 1 checkpoint_initiates: 1 2
3
embedding\t-1\t1000\tALLREDUCE\t4096\t500\tNONE\t0\t500\tNONE\t0\t10
layer\t-1\t2000\tALLGATHER\t8192\t2000\tREDUCESCATTER\t8192\t2000\tALLREDUCE\t65536\t10
loss\t-1\t100\tNONE\t0\t100\tALLTOALL_EP\t512\t1\tNONE\t0\t1
"""
PRODUCTS = b"""m,n,k,batch,dtype,latency_med_ms,note
4096,512,128,1,bf16,0.02,=1+1
1024,1024,1024,8,fp8,0.5,
64,64,64,1,half,0.001,x
"""
MODEL = {
    "model_type": "mixtral", "hidden_size": 256, "num_attention_heads": 4, "num_key_value_heads": 2,
    "num_hidden_layers": 2, "intermediate_size": 512, "vocab_size": 1000, "max_position_embeddings": 128,
    "num_local_experts": 4, "num_experts_per_tok": 2, "tie_word_embeddings": False, "attention_bias": False,
    "sliding_window": 64, "_name_or_path": "small",
}  # fmt: skip


def _digest(*names: str, **more) -> Callable[[Path], str]:
    """Loads one file, or several as the files of one run, or the folder where there is no name."""

    def read(folder: Path) -> str:
        import perfmodel as pm

        files = [folder / name for name in names]
        return pm.load(files if len(files) > 1 else files[0] if files else folder, **more).digest

    return read


def _pair(folder: Path) -> str:
    import perfmodel as pm

    pairs = [(folder / f"host_{rank}.json", folder / f"{rank}.json") for rank in (0, 1)]
    graph = pm.load(pairs)
    return f"{graph.digest} {pm.replay(graph).to_csv()}"


def _measured(name: str, **more) -> Callable[[Path], str]:
    def read(folder: Path) -> str:
        import perfmodel as pm
        from perfmodel.calibration.measurement_files import read_measurements
        from perfmodel.calibration.measurements import read as check

        table = read_measurements(folder / name, **more)
        check(table, pm.hardware("dgx-h100", ranks=16))
        return table.to_csv()

    return read


def _model(folder: Path) -> str:
    """Layers of a damaged model may be millions: its sizes are read, and built where they are small."""
    from perfmodel import synth
    from perfmodel.synth.configuration import configuration

    sizes = configuration(folder / "config.json")
    if sizes.layers > 8 or (sizes.experts or 0) > 64:
        return repr(sizes)
    return synth.training(folder / "config.json", sequence=64).graph().digest


def _bundle(folder: Path) -> str:
    from perfmodel.cli.bundle_file import reproduce_bundle

    return reproduce_bundle(str(folder / "b.zip")).text()


def _simulated(folder: Path) -> str:
    from perfmodel.astra import simulate

    found = simulate(
        folder / "t",
        folder / "system.json",
        folder / "network.yml",
        comm_group=folder / "groups.json",
    )
    return f"{found.cycles} {found.exposed}"


@cache
def _kineto() -> dict[str, bytes]:
    """Two ranks with their host traces."""
    numbers = {node["name"]: node["attrs"][0]["value"] for node in host()["nodes"]}
    files = {}
    for rank in (0, 1):
        recorded = device(rank)
        for event in recorded["traceEvents"]:
            if event["name"] in numbers:
                event["args"]["Record function id"] = numbers[event["name"]]
        files[f"{rank}.json"] = json.dumps(recorded).encode()
        files[f"host_{rank}.json"] = json.dumps(host()).encode()
    return files


def _only(files: Mapping[str, bytes], *names: str) -> dict[str, bytes]:
    return {name: files[name] for name in names}


@cache
def _documents() -> dict[str, bytes]:
    """A trace of two ranks as JSON documents of this package."""
    import perfmodel as pm
    from perfmodel.workload.trace_files import write_trace

    with tempfile.TemporaryDirectory() as name:
        ranks = [
            [comp(10**9, 100, id=0), send(1, 64, tag=1, deps=[0], id=1), coll(deps=[0], id=2)],
            [comp(10**9, 100, id=0), recv(0, 64, tag=1, deps=[0], id=1), coll(deps=[1], id=2)],
        ]
        graph = pm.load(write(Path(name) / "t", ranks))
        place = Path(name) / "json"
        place.mkdir()
        write_trace(graph, place / "t", ending=".json")
        return {path.name: path.read_bytes() for path in place.iterdir()}


@cache
def _packed() -> dict[str, bytes]:
    """A bundle of a small prediction on a system and with models of one's own."""
    import perfmodel as pm
    from perfmodel.cli.bundle_file import write_bundle
    from perfmodel.cli.options import SYSTEM_KEYS

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        graph = pm.load(
            write(folder / "t", [[comp(10**12, 10**6, id=0), coll(deps=[0], id=1)]] * 2)
        )
        prediction = pm.predict(graph, pm.hardware("dgx-h100", ranks=2))
        write_bundle(
            str(folder / "b.zip"),
            prediction,
            dict.fromkeys(SYSTEM_KEYS)
            | {
                "system": "dgx-h100",
                "prefer": "work",
                "assignments": {"npu.peak_flops": "900 TFLOP/s"},
            },
        )
        return {"b.zip": (folder / "b.zip").read_bytes()}


@cache
def _astra() -> dict[str, bytes]:
    """A trace with a custom collective, and the simulator's configuration."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        custom = [[comp(0, 0, runtime=2, id=0), send(1, 64, tag=1, deps=[0], id=1)],
                  [recv(0, 64, tag=1, id=0)]]  # fmt: skip
        ranks = [
            [
                comp(flops, 100, id=0),
                coll("all_reduce", 2**16, deps=[0], id=1),
                coll("all_gather", 4096, group="1", id=2),
            ]
            for flops in (10**9, 10**8)
        ]
        found = {
            path.name.replace("t", letter, 1): path.read_bytes()
            for letter, traces in (("t", ranks), ("c", custom))
            for path in write(folder / letter, traces).glob("*.et")
        }
    system = {
        "scheduling-policy": "LIFO", "endpoint-delay": 10, "active-chunks-per-dimension": 1,
        "preferred-dataset-splits": 4, "all-reduce-implementation": ["ring"], "all-gather-implementation": ["ring"],
        "reduce-scatter-implementation": ["ring"], "all-to-all-implementation": ["ring"], "local-mem-bw": 3350,
        "peak-perf": 989, "roofline-enabled": 1,
    }  # fmt: skip
    found["system.json"] = json.dumps(system).encode()
    found["network.yml"] = (
        b"topology: [Ring]\nnpus_count: [2]\nbandwidth: [50.0]\nlatency: [500.0]\n"
    )
    found["groups.json"] = b'{"1": [0, 1]}'
    return found


def _nccl() -> bytes:
    lines = [line(size, size / 1e5 + 20, 1.75) for size in (1024, 2**20, 2**24)]
    return run("all_reduce", hosts=("node",) * 8, lines=lines).encode()


def readers() -> dict[str, Reader]:
    """Each by its name."""
    runs, astra = _kineto(), _astra()
    devices, one = _only(runs, "0.json", "1.json"), _only(runs, "0.json")
    packed = {"0.json.gz": gzip.compress(runs["0.json"], 6, mtime=0), "1.json": runs["1.json"]}
    return {
        "Kineto, one rank": Reader(one, "0.json", _digest("0.json")),
        "Kineto, two ranks": Reader(devices, "1.json", _digest()),
        "Kineto, packed": Reader(packed, "0.json.gz", _digest()),
        "Kineto beside host traces": Reader(runs, "1.json", _digest()),
        "Kineto of pairs": Reader(runs, "0.json", _pair),
        "host trace of pairs": Reader(runs, "host_1.json", _pair),
        "host trace alone": Reader(
            _only(runs, "host_0.json"), "host_0.json", _digest("host_0.json")
        ),
        "Chakra as JSON": Reader(_documents(), "t.1.json", _digest()),
        "text workload of SimAI": Reader({"x.txt": SIMAI}, "x.txt", _digest("x.txt")),
        "ASTRA run, trace": Reader(astra, "t.0.et", _simulated),
        "ASTRA run, system": Reader(astra, "system.json", _simulated),
        "ASTRA run, network": Reader(astra, "network.yml", _simulated),
        "ASTRA run, groups": Reader(astra, "groups.json", _simulated),
        "ASTRA run, custom collective": Reader(
            astra
            | {
                "system.json": astra["system.json"]
                .replace(
                    b'"all-reduce-implementation": ["ring"]',
                    b'"all-reduce-implementation-custom": ["c"]',
                )
                .replace(b'splits": 4', b'splits": 1')
            },
            "c.0.et",
            _simulated,
        ),
        "measurements, nccl-tests": Reader({"n.txt": _nccl()}, "n.txt", _measured("n.txt")),
        "measurements, products": Reader({"p.csv": PRODUCTS}, "p.csv", _measured("p.csv")),
        "measurements, Kineto": Reader(one, "0.json", _measured("0.json")),
        "a model's sizes": Reader(
            {"config.json": json.dumps(MODEL).encode()}, "config.json", _model
        ),
        "bundle": Reader(_packed(), "b.zip", _bundle),
        "manifest of a bundle": Reader(_packed(), "b.zip", _bundle, member="manifest.json"),
    }
