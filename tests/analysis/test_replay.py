"""PyTorch's traces through the package: load, replay, other hardware, the command line, saved graphs."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import pytest
from click.testing import CliRunner

import perfmodel as pm
from perfmodel.cli.main import cli
from perfmodel.models.cost import Models
from tests.trace.pytorch.made import document, event, kernel, launch, operator, step

A100 = [{"name": "NVIDIA A100-SXM4-80GB"}]


@cache
def loaded(path, **options):
    return pm.load(path, **options)


@pytest.fixture(params=["megatron_tp8", "dlrm_8gpu"])
def eight(request, shared):
    return loaded(shared / "reference/pytorch" / request.param)


def test_all_ranks_are_replayed_by_the_package_as_by_the_oracle(eight):
    table = pm.replay(eight)
    assert list(table.columns) == [
        "rank", "span_s", "replayed_s", "start_error_s", "communication_wait_s", "replayed_wait_s",
    ]  # fmt: skip
    assert table["rank"].tolist() == list(range(8))
    assert (table["replayed_s"] / table["span_s"] - 1).abs().max() <= 0.005
    assert table["start_error_s"].mean() <= 50e-6
    waits = table[["communication_wait_s", "replayed_wait_s"]].mean()
    assert waits.iloc[1] == pytest.approx(waits.iloc[0], rel=0.02)
    assert table.attrs["operators_linked"] >= 0.99
    assert table.attrs["collectives_matched"] == 1.0
    assert sum(table.attrs["time_by_source"].values()) == pytest.approx(1.0)


def test_megatron_s_step_is_launch_bound(shared):
    graph = loaded(shared / "reference/pytorch/megatron_tp8")
    assert graph.recorded.device == "a100-sxm-80"
    table = pm.replay(graph)
    assert table.attrs["launch_bound"]
    assert table.attrs["critical_path"]["host"] > 0.6


def test_on_its_own_device_a_recording_is_what_was_recorded(shared):
    """Whatever the models say there: recorded x model / model."""
    graph = loaded(shared / "reference/pytorch/megatron_tp8")
    system = pm.hardware("dgx-a100", ranks=8)
    recorded = pm.predict(graph, system, Models(prefer="recorded"))
    for models in (None, "roofline"):
        ratio = pm.predict(graph, system, models)
        assert ratio.makespan == pytest.approx(recorded.makespan, rel=1e-9)
        assert ratio.duration == pytest.approx(recorded.duration, rel=1e-6, abs=1e-9)


def gpu_bound(tmp_path, *, properties=A100, unknown=False):
    """A step of one rank: a product of 8192^3 numbers in half precision, 4 ms, launched 20 us after the start; then an
    addition of 4096 x 4096 numbers in single precision, 0.2 ms."""
    product = {"Input Dims": [[8192, 8192], [8192, 8192]], "Input type": ["c10::Half", "c10::Half"]}
    addition = {"Input Dims": [[4096, 4096], [4096, 4096]], "Input type": ["float", "float"]}
    events = [
        step(1, 0, 100),
        operator("my::product" if unknown else "aten::mm", 5, 30, **product), launch(1, 20),
        operator("aten::add", 40, 20, **addition), launch(2, 50),
        kernel(1, 30, 4000, name="ampere_fp16_s16816gemm"), kernel(2, 4032, 200, name="elementwise"),
    ]  # fmt: skip
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document(*events, deviceProperties=properties)))
    return path


def test_on_other_hardware_kernels_go_by_the_model_s_ratio(tmp_path):
    """Roofline: the product by peaks (312 to 2 x 2250 / 2 TFLOP/s dense), the addition by bandwidths."""
    graph = pm.load(gpu_bound(tmp_path))
    a, b = (pm.hardware(s, ranks=1) for s in ("dgx-a100", "dgx-b200"))
    p = pm.predict(graph, b, "roofline")
    nodes = graph.nodes
    length = dict(zip(nodes["name"], p.duration))
    flops = float(a.npu.peak_flops / b.npu.peak_flops)
    bandwidth = float(a.npu.memory_bandwidth / b.npu.memory_bandwidth)
    assert length["aten::mm/ampere_fp16_s16816gemm"] == pytest.approx(4e-3 * flops, rel=1e-9)
    assert length["aten::add/elementwise"] == pytest.approx(0.2e-3 * bandwidth, rel=1e-9)
    assert p.makespan < pm.predict(graph, a, "roofline").makespan / 2


def test_the_ratio_counts_in_sweeps_and_gradients(tmp_path):
    graph = pm.load(gpu_bound(tmp_path))
    system = pm.hardware("dgx-a100", ranks=1)
    peak = float(system.npu.peak_flops)
    points = {"npu.peak_flops": [peak, 2 * peak]}
    table = pm.sweep(graph, system, points, models=Models(), breakdown=False)
    first, second = table["makespan_s"]
    assert first - second == pytest.approx(2e-3, rel=1e-6)


def test_a_kernel_of_unknown_work_goes_by_bandwidth(tmp_path):
    graph = pm.load(gpu_bound(tmp_path, unknown=True))
    a, b = (pm.hardware(s, ranks=1) for s in ("dgx-a100", "dgx-b200"))
    p = pm.predict(graph, b, "roofline")
    length = dict(zip(graph.nodes["name"], p.duration))
    ratio = float(a.npu.memory_bandwidth / b.npu.memory_bandwidth)
    assert length["my::product/ampere_fp16_s16816gemm"] == pytest.approx(4e-3 * ratio, rel=1e-6)


def test_recorded_times_of_an_unknown_device_stay_with_a_warning(tmp_path):
    path = gpu_bound(tmp_path, properties=[{"name": "Something New"}])
    graph = pm.load(path)
    assert "'Something New' of the recording is not in hwdb" in graph.warnings[0]
    one, two = (
        pm.predict(graph, pm.hardware(s, ranks=1)).makespan for s in ("dgx-a100", "dgx-b200")
    )
    assert one == pytest.approx(two, rel=1e-12)
    with pytest.raises(pm.TraceError, match="Something New"):
        pm.load(path, strict=True)
    named = pm.load(path, recorded_on="a100-sxm-80")
    assert named.warnings == ()
    assert pm.predict(named, pm.hardware("dgx-b200", ranks=1)).makespan < one / 2


def test_compare_on_a_recording_gives_an_answer(tmp_path):
    graph = pm.load(gpu_bound(tmp_path))
    table = pm.compare(
        (graph, pm.hardware("dgx-a100", ranks=1)), (graph, pm.hardware("dgx-b200", ranks=1))
    )
    assert table["ratio"].iloc[0] < 0.5


def test_a_saved_recording_is_the_same(tmp_path):
    graph = pm.load(gpu_bound(tmp_path))
    pm.save(graph, tmp_path / "kept.npz")
    again = pm.load(tmp_path / "kept.npz")
    assert again.recorded == graph.recorded
    assert pm.replay(again).equals(pm.replay(graph))
    assert again.digest == graph.digest


def test_only_recordings_can_be_replayed():
    with pytest.raises(pm.InputError, match="no recorded start times"):
        pm.replay(pm.load("traces/all_reduce_4"))
    with pytest.raises(pm.InputError, match="no recorded start times"):
        pm.replay(pm.load("traces/all_reduce_4", recorded_on="a100-sxm-80"))


def test_commands_take_pytorch_s_traces(tmp_path):
    path = str(gpu_bound(tmp_path))
    replayed = CliRunner().invoke(cli, ["replay", path])
    assert replayed.exit_code == 0, replayed.output
    assert "operators linked" in replayed.output
    assert "recorded on a100-sxm-80" in replayed.output
    compared = CliRunner().invoke(
        cli, ["compare", path, "dgx-b200", "--system", "dgx-a100", "--json"]
    )
    assert compared.exit_code == 0, compared.output
    assert json.loads(compared.output)[0]["ratio"] < 0.5
    listed = CliRunner().invoke(cli, ["replay", path, "--json"])
    assert len(json.loads(listed.output)["ranks"]) == 1
    for command in (["inspect", path], ["run", path, "--system", "dgx-a100"], ["timeline", path]):
        assert CliRunner().invoke(cli, command).exit_code == 0
    wrong = CliRunner().invoke(cli, ["run", path, "--step", "9"])
    assert "has no ProfilerStep#9" in str(wrong.exception)


def test_every_pytorch_trace_at_hand_is_loaded(shared):
    """Nodes of each, and what is noticed: device traces as they were recorded, host traces alone as work."""
    folder = shared / "reference/pytorch"
    found = {}
    for path in [*sorted(folder.glob("kineto_only/*")), *sorted(folder.glob("*host_et*/*"))]:
        graph = loaded(path)
        codes = " ".join(
            "times" if "hold no times" in w else w.split(":")[0] for w in graph.warnings
        )
        found[path.name.removesuffix(".json.gz")] = (graph.ranks, len(graph), len(graph.warnings))
        assert pm.predict(graph, pm.hardware("dgx-a100", ranks=graph.ranks)).makespan > 0, codes
    assert {k: (r, w) for k, (r, _, w) in found.items()} == {
        "amd_mi250_minitoy": (1, 1),  # a device that hwdb does not name
        "critical_path_alexnet": (1, 0),
        "critical_path_simple_add": (1, 0),
        "cuda_event_sync": (1, 0),
        "cuda_event_sync_multi_stream": (1, 0),
        "nccl_data": (1, 1),  # one of two ranks
        "chakra_1.0.2": (2, 2),  # no times; one for both ranks
        "linear_et": (1, 1),
        "pt2_et": (1, 1),
        "resnet_1.1.0": (1, 1),
        "resnet_1gpu_1.0.3": (1, 1),
        "resnet_1gpu_1.1.1": (1, 1),
        "resnet_2gpu_1.1.0": (2, 2),
    }


def test_a_host_trace_alone_is_the_step_s_work(shared):
    """ResNet-50: 3 steps of 64 images... as many FLOP as PyTorch's shapes say: forward, and twice as many backward."""
    graph = loaded(shared / "reference/pytorch/resnet_host_et/resnet_2gpu_1.1.0.json.gz")
    program = graph.programs[0]
    assert np.isnan(program.duration).all()
    assert (program.flops > 0).sum() > 500
    assert (program.size >= 0).sum() == 21  # 15 all-reduces and 6 broadcasts


def test_event_categories_are_those_of_the_host_and_the_gpu(tmp_path):
    """`host` is a category of its own: 20 us before the first launch, then the GPU."""
    graph = pm.load(gpu_bound(tmp_path))
    path = pm.breakdown(pm.predict(graph, pm.hardware("dgx-a100", ranks=1)), by="critical_path")
    assert path["host_s"].iloc[0] > 20e-6 - 1e-9
    assert path["compute_s"].iloc[0] == pytest.approx(4.2e-3, rel=1e-6)


def test_a_trace_of_annotations_alone_is_host_time(tmp_path):
    path = tmp_path / "t.json"
    path.write_text(
        json.dumps(document(event("user_annotation", "work", 0, 500), deviceProperties=A100))
    )
    assert pm.predict(pm.load(path), pm.hardware("dgx-a100", ranks=1)).makespan == pytest.approx(
        500e-6
    )
