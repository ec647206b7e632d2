"""The commands that answer what should change: sensitivity, optimize, calibrate, compare."""

import json

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from tests.cli.calling import GPT, ROOT, call, rows_of


def test_optimize_says_what_it_chose_and_how_good_it_can_get(capsys):
    words = ["optimize", GPT, "--bound", "npu.peak_flops=5e14:1e15", "--starts", "1"]
    words += ["--choose", "system=dgx-a100, dgx-h100"]
    found = json.loads(call(capsys, *words, "--json")[1])
    assert found["choices"] == {"system": "dgx-h100"}
    assert found["bound"] <= found["objective"] * (1 + 1e-9)
    assert found["own_makespan_s"] == pytest.approx(found["makespan_s"], rel=1e-6)
    out = call(capsys, *words)[1]
    assert "chosen: system = dgx-h100" in out
    assert "nothing below" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--bound", "npu.peak_flops=1e14:2e14"], "npu.peak_flops is given twice"),
        (["--choose", "system=dgx-a100", "--choose", "system=dgx-h100"], "system is given twice"),
        (["--choose", "system=dgx-a100", "--set", "npu.memory_bandwidth=1e12"], "would be lost"),
    ],
)
def test_options_of_optimize_that_do_not_go_together_are_wrong_usage(capsys, arguments, message):
    words = ["optimize", GPT, "--bound", "npu.peak_flops=1e14:1e15", *arguments]
    status, _, err = call(capsys, *words)
    assert status == 2
    assert message in err


def test_a_budget_takes_units(capsys):
    words = ["optimize", GPT, "--starts", "1", "--bound", "network.0.bandwidth=1e10:1e12", "--json"]
    found = json.loads(call(capsys, *words, "--budget", "network.0.bandwidth=100 GB/s")[1])
    assert found["parameters"]["network.0.bandwidth"] == pytest.approx(1e11, rel=1e-6)
    status, _, err = call(capsys, *words, "--budget", "network.0.bandwidth=100 GB")
    assert status == 1
    assert "--budget network.0.bandwidth" in err


def test_compare_takes_two_names_and_says_which_is_which(capsys):
    old = call(capsys, "compare", GPT, "--with", "dgx-b200", "--json")[1]
    assert call(capsys, "compare", GPT, "dgx-b200", "--json")[1] == old
    status, out, _ = call(capsys, "compare", GPT, "dgx-b200")
    assert status == 0
    assert out.splitlines()[0] == f"a: {GPT} on dgx-h100"
    assert out.splitlines()[1] == f"b: {GPT} on dgx-b200"
    four = str(ROOT / "traces" / "all_reduce_4")
    assert f"b: {four} on dgx-h100" in call(capsys, "compare", GPT, four)[1]


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["T"], 2, "is missing"),
        (["T", "dgx-b200", "--with", "dgx-a100"], 2, "given twice"),
        (["dgx-h100", "dgx-b200"], 2, "compare TRACE dgx-b200 --system dgx-h100"),
        (["T", "dgx-b2000"], 1, "did you mean dgx-b200"),
        (["T", "nowhere"], 1, "nowhere: no trace there"),
    ],
)
def test_compare_says_what_it_cannot_compare(capsys, tmp_path, monkeypatch, words, status, message):
    monkeypatch.chdir(tmp_path)
    found, out, err = call(capsys, "compare", *[word.replace("T", GPT, 1) for word in words])
    assert (found, out) == (status, "")
    assert message in err


def test_sensitivity_and_optimize_take_a_frozen_order(capsys):
    words = ["--schedule", "frozen", "--json"]
    graph = pm.load(GPT)
    expected = pm.sensitivity(
        graph, pm.hardware("dgx-h100", ranks=8), schedule="frozen", moves=True
    )
    table = rows_of(capsys, "sensitivity", GPT, "--moves", *words)
    assert table["lower"].dropna().tolist() == expected["lower"].dropna().tolist()
    bound = ["--bound", "npu.peak_flops=5e14:1e15", "--starts", "1"]
    assert call(capsys, "optimize", GPT, *bound, *words)[0] == 0
    assert call(capsys, "optimize", GPT, *bound, "--schedule", "none")[0] == 2


def test_calibrate_writes_residuals_and_prints_no_nan(capsys, tmp_path):
    flops = np.array([1e11, 2e11, 4e11, 8e11, 1.6e12, 3.2e12])
    noise = np.array([1.01, 0.99, 1.02, 0.98, 1.0, 1.01])
    measured = pd.DataFrame({"flops": flops, "bytes_B": 0.0, "duration_s": flops / 5e14 * noise})
    measured.to_csv(tmp_path / "m.csv", index=False)
    words = ["calibrate", str(tmp_path / "m.csv"), "--fit", "compute.efficiency"]
    status, out, _ = call(capsys, *words, "--residuals", str(tmp_path / "r.csv"))
    assert status == 0
    assert "NaN" not in out
    residuals = pd.read_csv(tmp_path / "r.csv")
    assert residuals["duration_s"].tolist() == pytest.approx(measured["duration_s"].tolist())
    assert {"predicted_s", "error", "held_out_error"} <= set(residuals)
    twice = ["--residuals", str(tmp_path / "x.csv"), "-o", str(tmp_path / "x.csv")]
    assert call(capsys, *words, *twice)[0] == 1


def test_compare_says_whether_each_step_fits_and_by_how_much(capsys):
    code, out, _ = call(capsys, "compare", GPT, "dgx-a100-40", "--system", "dgx-h100")
    assert code == 0
    assert "a: memory fits with " in out
    assert "b: memory fits with " in out
    assert not any(line.split()[1:2] == ["fits"] for line in out.splitlines())
