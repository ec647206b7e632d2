"""Traces with wrong values anywhere: each loads or gives one clear error."""

from __future__ import annotations

import copy
import json
import random

import pytest

from perfmodel.errors import InputError
from perfmodel.findings import Findings
from perfmodel.workload.pytorch_reader import read_pytorch
from perfmodel.workload.readers import LoadOptions
from tests.trace.pytorch.made import call, document, event, kernel, launch, node, operator, step

WRONG = [
    None, "", "x", -1, 0, 1, 7, 10**30, -(10**30), 1e308, -1e308, float("nan"), float("inf"), 0.5, True,
    [], [[]], {}, {"a": 1}, [1, "2", None], "[1, 2]", "[0, 1, 2]", "nccl:all_reduce", [["a"]], 2**62, 10**400,
]  # fmt: skip


def device(rank: int) -> dict:
    """A rank with everything that is read: steps, threads, waits, collectives, copies, a graph launch."""
    shapes = {
        "Input Dims": [[8, 4], [4, 6]],
        "Input type": ["float", "float"],
        "Concrete Inputs": ["", ""],
    }
    message = {
        "Collective name": "allreduce", "In msg nelems": 8, "dtype": "Float", "Process Group Name": "0",
        "Process Group Ranks": "[0, 1]", "Group size": 2,
    }  # fmt: skip
    return document(
        step(1, 0, 2000),
        operator("aten::mm", 5, 30, **shapes, **{"Record function id": 2, "External id": 5}), launch(1, 20),
        operator("record_param_comms", 60, 30), call("cudaStreamWaitEvent", 62, 1, correlation=90), launch(2, 70),
        launch(3, 150, 60, "cudaMemcpyAsync"), call("cudaStreamSynchronize", 230, 40, correlation=91),
        call("cudaDeviceSynchronize", 300, 40), call("cudaEventSynchronize", 400, 60), launch(4, 500, 9,
        "cudaGraphLaunch"), operator("aten::mul", 600, 700, thread=7), operator("aten::add", 1400, 20),
        event("user_annotation", "gloo:all_reduce", 1500, 90, thread=8, **{"Input Dims": [[9]], "Input type":
        ["float"]}), kernel(1, 30, 40), kernel(2, 80, 20, 24, "ncclDevKernel_AllReduce_Sum_f32", **message),
        kernel(3, 160, 40, category="gpu_memcpy", name="Memcpy DtoH (Device -> Pageable)", bytes=64),
        kernel(4, 510, 9), kernel(4, 512, 9, 20), kernel(4, 530, 9, 20), kernel(99, 700, 5),
        event("cuda_sync", "Stream Wait Event", 62, 1, pid=0, thread=24, stream=24, correlation=90, device=0,
              wait_on_stream=7, wait_on_cuda_event_record_corr_id=89),
        deviceProperties=[{"name": "NVIDIA A100-SXM4-80GB"}],
        distributedInfo={"rank": rank, "world_size": 2, "backend": "nccl",
                         "pg_config": [{"pg_name": "0", "ranks": [0, 1]}]},
        baseTimeNanoseconds=1000,
    )  # fmt: skip


def host() -> dict:
    """The host trace of the same run."""
    mm = {
        "values": [[1, 2, 0, 32, 4, "cuda:0"], []],
        "shapes": [[8, 4], [4, 6]],
        "types": ["Tensor(float)"] * 2,
    }
    listed = {
        "values": ['[{"pg_name": "0", "ranks": [], "group_size": 2}]'],
        "shapes": [[]],
        "types": ["String"],
    }
    names = [
        "ProfilerStep#1",
        "aten::mm",
        "record_param_comms",
        "aten::mul",
        "aten::add",
        "gloo:all_reduce",
    ]
    nodes = [node(k + 3, n, 1, k + 1, inputs=mm) for k, n in enumerate(names)]
    return {
        "schema": "1.1.0",
        "nodes": [node(2, "## process_group:init ##", inputs=listed), *nodes],
    }


def places(value, path=()):
    """Every place in a document."""
    if path:
        yield path
    items = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, part in items:
        yield from places(part, (*path, key))


def damaged(value, rng: random.Random):
    """A document with one to three values exchanged, left out or doubled."""
    result = copy.deepcopy(value)
    for _ in range(rng.randint(1, 3)):
        *way, last = rng.choice(list(places(result)))
        holder = result
        for key in way:
            holder = holder[key]
        kind = rng.randrange(4)
        if kind == 0 and isinstance(holder, dict):
            del holder[last]
        elif kind == 1 and isinstance(holder, list):
            holder.append(copy.deepcopy(holder[last]))
        else:
            holder[last] = copy.deepcopy(rng.choice(WRONG))
    return result


@pytest.mark.parametrize("seed", range(4))
def test_wrong_values_anywhere_load_or_give_one_clear_error(tmp_path, seed):
    rng = random.Random(seed)
    one, two, three = device(0), device(1), host()
    loaded = refused = 0
    for _ in range(60):
        with_host = rng.random() < 0.5
        files = {
            "a.json": damaged(one, rng),
            "b.json": damaged(two, rng) if rng.random() < 0.3 else two,
        }
        if with_host:
            files["host_0.json"] = damaged(three, rng)
        for name in ("host_0.json", *files):
            (tmp_path / name).unlink(missing_ok=True)
        for name, content in files.items():
            (tmp_path / name).write_text(json.dumps(content))
        try:
            read_pytorch(tmp_path, LoadOptions(), Findings("made"))
            loaded += 1
        except InputError as error:
            refused += len(str(error)) < 2000  # one clear message, not the file
    assert loaded > 5
    assert refused > 5


def test_the_whole_run_loads(tmp_path):
    for name, content in (("a.json", device(0)), ("b.json", device(1))):
        (tmp_path / name).write_text(json.dumps(content))
    found = read_pytorch(tmp_path, LoadOptions(), Findings("made"))
    assert found.recorded.collectives_matched == 1.0
    assert found.recorded.device == "a100-sxm-80"


def test_a_file_that_unpacks_without_end_is_refused(tmp_path):
    import gzip

    path = tmp_path / "bomb.json.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        file.write(b'{"schemaVersion": 1, "deviceProperties": [], "traceEvents": [')
        for _ in range(40):
            file.write(b" " * (1 << 22))
    with pytest.raises(InputError, match="bomb"):
        read_pytorch(path, LoadOptions(), Findings("made"))
