"""The command line as a stranger meets it: exit status, messages, outputs."""

import gzip
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.vocabulary import NodeType
from tests.cli.calling import GPT, ROOT, call
from tests.handmade import coll, comp, recv, send, write


def test_run_prints_the_same_step_time_as_predict(capsys):
    status, out, _ = call(capsys, "run", GPT, "--json")
    result = json.loads(out)
    graph = pm.load(GPT)
    expected = pm.predict(graph, pm.hardware("dgx-h100", ranks=graph.ranks))
    assert status == 0
    assert result["makespan_s"] == expected.makespan
    assert len(result["breakdown"]) == 8
    assert set(result) >= {"makespan_s", "breakdown", "critical_path"}
    assert sum(r["on_path_s"] for r in result["critical_path"]) == pytest.approx(expected.makespan)


def test_run_for_people_names_trace_system_time_and_path(capsys):
    _, out, _ = call(capsys, "run", GPT)
    for part in ("8 ranks", "dgx-h100", "step time", "critical path", "exposed_communication_s"):
        assert part in out


def test_parameters_can_be_set_with_units(capsys):
    fast = json.loads(call(capsys, "run", GPT, "--json", "--set", "npu.peak_flops=2 PFLOP/s")[1])
    plain = json.loads(call(capsys, "run", GPT, "--json", "--set", "npu.peak_flops=2e15")[1])
    assert fast["makespan_s"] == plain["makespan_s"]
    assert fast["makespan_s"] < json.loads(call(capsys, "run", GPT, "--json")[1])["makespan_s"]


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["run", "nowhere"], ["nowhere", "no trace there"]),
        (["run", GPT, "--system", "dgx-h1000"], ["dgx-h1000", "dgx-h100"]),
        (
            ["run", GPT, "--set", "npu.peak_flop=1"],
            ["npu.peak_flop", "did you mean npu.peak_flops"],
        ),
        (["run", GPT, "--set", "network.0.latency=3 GB/s"], ["network.0.latency", "GB/s"]),
        (["run", GPT, "-o", "x.xlsx"], [".xlsx", ".parquet"]),
        (["sweep", GPT, "--vary", "npu.peak_flops=5:1:3"], ["LOW <= HIGH"]),
        (["sweep", GPT, "--vary", "npu.peak_flops=1:5"], ["LOW:HIGH:COUNT", "needs --sample"]),
        (["sweep", GPT, "--vary", "npu.peak_flops=1e14:1e15:3:log:x"], ["LOW:HIGH:COUNT:log"]),
        (["sweep", GPT, "--vary", "system=dgx-h100,,dgx-b200"], ["names is empty"]),
        (["sweep", GPT, "--vary", "npu.peak_flops=nan"], ["npu.peak_flops", "nan"]),
        (["sweep", GPT, "--vary", "network.0.bandwidth=0"], ["network.0.bandwidth", "got 0"]),
        (["run", GPT, "--algorithm", "magic"], ["magic"]),
        (["optimize", GPT, "--bound", "npu.peak_flops=3"], ["PATH=LOW:HIGH"]),
        (["calibrate", "none.csv", "--fit", "compute.efficiency"], ["none.csv"]),
        (["convert", "none.et", "x.et"], ["none.et"]),
    ],
)
def test_wrong_input_is_one_message_and_status_1(capsys, tmp_path, monkeypatch, arguments, parts):
    monkeypatch.chdir(tmp_path)
    status, out, err = call(capsys, *arguments)
    assert status == 1
    assert out == ""
    assert "Traceback" not in err
    for part in parts:
        assert part in err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", [["run"], ["run", GPT, "--nope"], ["nope"], ["sweep", GPT]])
def test_wrong_usage_is_status_2(capsys, arguments):
    assert call(capsys, *arguments)[0] == 2


def test_inspect_lists_contents_and_findings(capsys, tmp_path):
    status, out, _ = call(capsys, "inspect", GPT)
    assert status == 0
    assert "ALL_REDUCE" in out.upper()
    assert "nothing wrong" in out
    folder = write(tmp_path, [[comp(), coll(group="9")], [send(0)]])
    status, out, _ = call(capsys, "inspect", str(folder), "--json")
    found = json.loads(out)
    assert status == 1
    assert not found["good"]
    assert {f["code"] for f in found["findings"]} >= {"unknown-group"}


def test_inspect_takes_a_saved_graph(capsys, tmp_path):
    saved = tmp_path / "g.npz"
    pm.save(pm.load(GPT), saved)
    status, out, err = call(capsys, "inspect", str(saved))
    assert status == 0, err
    assert "nothing wrong with it" in out


def test_inspect_finds_ranks_that_wait_for_each_other(capsys, tmp_path):
    one = [coll(name="a"), coll(name="b", deps=[0])]
    two = [coll(name="b"), coll(name="a", deps=[0])]
    status, out, _ = call(capsys, "inspect", str(write(tmp_path, [one, two])))
    assert status == 1
    assert "deadlock" in out
    assert "rank 0 node 0" in out
    assert "rank 1 node 0" in out


def test_every_command_has_help_worth_reading(capsys):
    for name in [
        "run",
        "inspect",
        "timeline",
        "sweep",
        "sensitivity",
        "optimize",
        "calibrate",
        "compare",
        "convert",
        "synth",
        "systems",
        "astra-sim",
    ]:
        status, out, _ = call(capsys, name, "--help")
        assert status == 0
        assert len(out.splitlines()) > 5, name


def test_convert_keeps_every_byte_of_a_trace(capsys, tmp_path):
    source = Path(GPT) / "t.0.et"
    status, _, _ = call(capsys, "convert", str(source), str(tmp_path / "t.0.et"))
    assert status == 0
    assert (tmp_path / "t.0.et").read_bytes() == source.read_bytes()


def test_the_module_runs_as_a_process_without_progress_in_a_pipe():
    done = subprocess.run(
        [sys.executable, "-m", "perfmodel", "run", GPT, "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=ROOT,
    )
    assert np.isfinite(json.loads(done.stdout)["makespan_s"])
    assert done.stderr == ""


def test_convert_compresses_where_the_name_ends_in_gz(capsys, tmp_path):
    source = Path(GPT) / "t.0.et"
    for name in ("a.et.gz", "b.et.gz"):
        assert call(capsys, "convert", str(source), str(tmp_path / name))[0] == 0
    packed = (tmp_path / "a.et.gz").read_bytes()
    assert packed == (tmp_path / "b.et.gz").read_bytes()
    assert gzip.decompress(packed) == source.read_bytes()


@pytest.mark.parametrize("kind", ["training", "gpt", "moe", "collective", "data-parallel"])
def test_synth_names_a_missing_option_and_ends_with_status_2(capsys, tmp_path, kind):
    status, _, err = call(capsys, "synth", kind, "-o", str(tmp_path / "x"))
    assert status == 2
    assert "Missing argument" in err if kind == "training" else "Missing option" in err
    assert "None" not in err


def test_synth_needs_a_size_unless_for_a_barrier(capsys, tmp_path):
    words = ["synth", "collective", "--ranks", "2", "-o", str(tmp_path / "x"), "--kind"]
    status, _, err = call(capsys, *words, "all_reduce")
    assert status == 2
    assert "Missing option '--size'" in err
    status, _, err = call(capsys, *words, "all_reduce", "--size", "-1")
    assert status == 2
    assert "'--size': got -1, expected a whole number of bytes" in err
    assert call(capsys, *words, "barrier")[0] == 0
    assert pm.load(tmp_path / "x").nodes["size_B"].tolist() == [0, 0]


def test_synth_help_speaks_only_of_options_that_are_there(capsys):
    for kind in ("fsdp", "moe"):
        assert "--tensor" not in call(capsys, "synth", kind, "--help")[1]


def test_inspect_counts_a_message_once_and_bytes_of_compute_nodes_only(capsys, tmp_path):
    memory = {"type": NodeType.MEM_LOAD, "tensor_size": 7}
    one = [comp(flops=2**62, size=5), comp(flops=2**62), send(1, size=100), memory]
    two = [comp(flops=2**62, size=-1), recv(0, size=100), coll(size=10)]
    folder = write(tmp_path, [[*one, coll(size=10)], two])
    found = json.loads(call(capsys, "inspect", str(folder), "--json")[1])
    assert found["flops"] == 3 * 2.0**62
    assert found["compute_bytes_B"] == 5 + 10**6
    assert found["communication_B"] == 100 + 2 * 10


@pytest.mark.parametrize(
    "arguments", [["run", ""], ["inspect", " "], ["convert", "", "x"], ["compare", GPT, "--with="]]
)
def test_an_empty_name_of_a_trace_is_wrong_usage(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(write(tmp_path, [[comp()]]))
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert "is empty" in err


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (["=0,1"], "has no name"),
        (["a=0,1,0"], "rank 0 twice"),
        (["a=0,1", "a=2,3"], "'a' is defined twice"),
        (["a=0,x"], "is not NAME=RANK"),
    ],
)
def test_wrong_groups_are_wrong_usage(capsys, groups, message):
    status, _, err = call(capsys, "run", GPT, *(f"--group={text}" for text in groups))
    assert status == 2
    assert "--group" in err
    assert message in err
