"""The command line as a stranger meets it: exit status, messages, outputs."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.cli import main
from tests.handmade import coll, comp, send, write

ROOT = Path(__file__).resolve().parents[1]
GPT = str(ROOT / "traces" / "gpt_dp2_tp2_pp2")


def call(capsys, *arguments: str) -> tuple[int, str, str]:
    status = 0
    try:
        main(list(arguments))
    except SystemExit as stop:
        status = int(stop.code or 0)
    out, err = capsys.readouterr()
    return status, out, err


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


def test_tables_and_timelines_are_written_by_ending(capsys, tmp_path):
    for name in ("t.csv", "t.parquet", "t.json"):
        status, _, _ = call(capsys, "run", GPT, "-o", str(tmp_path / name))
        assert status == 0
    assert len(pd.read_csv(tmp_path / "t.csv")) == len(pd.read_parquet(tmp_path / "t.parquet"))
    status, _, _ = call(capsys, "timeline", GPT, "-o", str(tmp_path / "p.json"))
    assert status == 0
    assert json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.json", "t.csv", "t.json", "t.parquet"]


def test_sweep_takes_ranges_lists_units_and_choices(capsys):
    status, out, _ = call(
        capsys,
        "sweep",
        GPT,
        "--vary",
        "npu.peak_flops=1e14:1e15:3",
        "--vary",
        "network.0.bandwidth=100 GB/s,4e11",
        "--vary",
        "network.algorithm=ring,direct",
        "--json",
    )
    table = pd.DataFrame(json.loads(out))
    assert status == 0
    assert len(table) == 12
    assert sorted(set(table["npu.peak_flops"])) == [1e14, 5.5e14, 1e15]
    graph = pm.load(GPT)
    row = table.iloc[-1]
    system, models = pm.with_parameters(
        pm.hardware("dgx-h100", ranks=8),
        pm.Models().replace(network=type(pm.Models().network)(algorithm=row["network.algorithm"])),
        {k: row[k] for k in ("npu.peak_flops", "network.0.bandwidth")},
    )
    assert row.makespan_s == pytest.approx(pm.predict(graph, system, models).makespan, rel=1e-12)


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
        (["sweep", GPT, "--vary", "npu.peak_flops=1:5"], ["LOW:HIGH:COUNT"]),
        (["sweep", GPT, "--vary", "npu.peak_flops=nan"], ["npu.peak_flops", "nan"]),
        (["sweep", GPT, "--vary", "network.0.bandwidth=0"], ["network.0.bandwidth", "row 0"]),
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
        [sys.executable, "-m", "perfmodel.cli", "run", GPT, "--json"],
        capture_output=True,
        text=True,
        check=True,
        timeout=120,
        cwd=ROOT,
    )
    assert np.isfinite(json.loads(done.stdout)["makespan_s"])
    assert done.stderr == ""
