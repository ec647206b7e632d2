"""Graphs written as files and read back: nothing that costs time is lost."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.vocabulary import DTYPES, OPERATIONS, NodeType
from perfmodel.workload.columns import RankColumns


def back(graph, tmp_path, **options):
    pm.write_trace(graph, tmp_path / "w" / "t", overwrite=True, **options)
    return pm.load(tmp_path / "w")


def rich():
    """Work of every kind, dtypes, odd durations, resources of its own, edges with latency."""
    n = len(OPERATIONS) + 4
    kind = np.zeros(n, np.int8)
    kind[: len(OPERATIONS)] = np.arange(len(OPERATIONS))
    dimensions = np.full((n, 7), -1)
    dimensions[OPERATIONS.index("gemm"), :4] = (1, 2, 3, 4)
    dimensions[OPERATIONS.index("attention")] = (2, 8, 4, 128, 256, 64, 1)
    duration = np.full(n, np.nan)
    duration[-4:] = (1.25e-7, 3e-6, 0.0, 1 / 3)
    return RankColumns(
        id=np.arange(n) * 3 + 1,
        type=np.full(n, NodeType.COMP),
        name=tuple(f"node.{k}" for k in range(n)),
        host=np.arange(n) == n - 1,
        flops=np.where(np.isnan(duration), 10**9, -1),
        bytes=np.where(np.isnan(duration), 10**6, -1),
        kind=kind,
        dimensions=dimensions,
        dtype=np.arange(n) % (len(DTYPES) + 1) - 1,
        duration=duration,
        resource=np.arange(n) % 3,
        resources=("stream 7", "thread 2", "copy engine"),
        edge_from=np.arange(n - 1),
        edge_to=np.arange(1, n),
        edge_latency=np.arange(n - 1) * 1e-7,
    )


@pytest.mark.parametrize("ending", [".et", ".json.gz"])
def test_work_resources_and_times_come_back_exactly(tmp_path, ending):
    graph = pm.Graph.from_ranks([rich(), rich()], source="rich")
    again = back(graph, tmp_path, ending=ending)
    (p,), (q,) = graph.programs, again.programs
    for name in (
        "type",
        "cpu",
        "flops",
        "bytes",
        "kind",
        "dimensions",
        "dtype",
        "duration",
        "pred",
        "pred_latency",
    ):
        np.testing.assert_array_equal(getattr(p, name), getattr(q, name), err_msg=name)
    assert p.resources == q.resources
    assert p.resource.tolist() == q.resource.tolist()
    assert graph.labels[0].names == again.labels[0].names
    assert graph.digest == again.digest


def test_other_tools_see_resources_of_other_names_as_streams_of_their_own(tmp_path):
    (file,) = pm.write_trace(pm.Graph.from_ranks([rich()], source="rich"), tmp_path / "t")
    _, *nodes = pm.chakra.messages(file)
    streams = [
        {a.name: a.int64_val for a in node.attr if a.name in ("stream", "tid")} for node in nodes
    ]
    assert streams[:3] == [{"stream": 7}, {"tid": 2}, {"stream": 10}]


def with_text(file, name, text):
    """The file with another text in one of its metadata attributes."""
    metadata, *nodes = pm.chakra.messages(file)
    for attribute in metadata.attr:
        if attribute.name == name:
            attribute.string_val = text(attribute.string_val)
    pm.chakra.write(file, metadata, nodes)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("perfmodel", ("2", "3"), "got '3', expected '2'"),
        ("perfmodel_work", ('"gemm"', '"gemv"'), "kind 'gemv' is none of other, gemm"),
        ("perfmodel_work", ('"latency"', '"lateness"'), "unknown key 'lateness'"),
        ("perfmodel_work", ("[1e-07]", "[1e-07, 0]"), "latencies,"),
        ("perfmodel_work", ("[1e-07]", "[-1]"), "latency is no list of times"),
        ("perfmodel_work", ("[1, 2, 3, 4]", "[1, 2, 3, 4.5]"), "what is no size"),
        ("perfmodel_work", ("[{", "{"), "A newer version wrote the file, or it is damaged"),
        ("perfmodel_work", None, "is no row of the table in the metadata, which has 0"),
    ],
)
def test_a_damaged_table_of_work_is_one_clear_error(tmp_path, name, change, message):
    (file,) = pm.write_trace(pm.Graph.from_ranks([rich()], source="rich"), tmp_path / "t")
    with_text(file, name, lambda text: text.replace(*change) if change else "[]")
    with pytest.raises(pm.InputError, match=message):
        pm.load(tmp_path / "t")


def test_other_tools_see_whole_microseconds_and_no_kind(tmp_path):
    graph = pm.Graph.from_ranks([rich()], source="rich")
    (file,) = pm.write_trace(graph, tmp_path / "t")
    metadata, *nodes = pm.chakra.messages(file)
    assert metadata.version == "1.0.0"
    assert [n.duration_micros for n in nodes[-4:]] == [0, 3, 0, 333333]
    known = {a.name for n in nodes for a in n.attr if not a.name.startswith("perfmodel_")}
    assert known <= {"is_cpu_op", "num_ops", "tensor_size", "stream", "tid"}


@pytest.mark.parametrize(
    "case",
    [
        "kernels_are_leaves",
        "fresh_chakra_cpu_ddp",
        "stage_bytes",
        "nccl_typed_comp",
        "text_workload/simai.txt",
    ],
)
def test_what_was_repaired_needs_no_repair_again(shared, tmp_path, case):
    graph = pm.load(shared / "cases" / case)
    again = back(graph, tmp_path)
    assert not [w for w in again.warnings if "typed" not in w and "communication library" not in w]
    for prefer in ("work", "recorded"):
        a, b = (
            pm.predict(g, pm.hardware("dgx-h100"), pm.Models(prefer=prefer)) for g in (graph, again)
        )
        np.testing.assert_array_equal(a.finish, b.finish)


@pytest.mark.parametrize(
    "trace",
    ["cases/recorded_cpu_ddp", "reference/pytorch/kineto_only/critical_path_alexnet.json.gz"],
)
def test_pytorch_recordings_become_et_files_that_answer_the_same_on_any_hardware(
    shared, tmp_path, trace
):
    graph = pm.load(shared / trace)
    again = back(graph, tmp_path)
    assert again.recorded == graph.recorded
    for name in ("dgx-a100", "dgx-h100"):
        for prefer in ("work", "recorded"):
            a, b = (
                pm.predict(g, pm.hardware(name), pm.Models(prefer=prefer)) for g in (graph, again)
            )
            np.testing.assert_array_equal(a.finish, b.finish)
    for one, other in zip(graph.labels, again.labels):
        np.testing.assert_array_equal(one.start, other.start)


@pytest.mark.parametrize(
    "sample", ["custom_collective", "pytorch_2rank", "no_metadata", "v0_0_1/transformer_2stack"]
)
def test_samples_are_accepted_by_astra_sim_s_rules(shared, tmp_path, sample):
    from perfmodel.analysis.inspection import inspect_trace

    graph = pm.load(shared / "reference/chakra" / sample)
    pm.write_trace(graph, tmp_path / "t")
    report = inspect_trace(tmp_path / "t", astra_sim=True)
    assert report.good
    assert not [f for f in report.findings if "ASTRA-sim" in f.message and f.level == "error"]


def test_what_if_factors_are_refused(tmp_path):
    graph = pm.whatif.scale(pm.synth.data_parallel(2, 20).graph(), 0.5, where={"type": "COMP"})
    with pytest.raises(pm.InputError, match="what-if factors"):
        pm.write_trace(graph, tmp_path / "t")
