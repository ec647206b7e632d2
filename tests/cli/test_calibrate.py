"""`perfmodel calibrate` and what its file is good for: --models of every command that predicts."""

import json

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from tests.calibration.test_nccl_tests import line, run
from tests.cli.calling import GPT, call

SIZES = [1 << k for k in range(12, 30)]
FACTOR = 2 * 7 / 8
ALL_REDUCE = [line(s, 30.0 + FACTOR * s / (0.75 * 450e9) * 1e6, FACTOR) for s in SIZES]


@pytest.fixture
def ours(capsys, tmp_path):
    """A file of models, fitted to what nccl-tests printed."""
    (tmp_path / "log.txt").write_text(run(lines=ALL_REDUCE))
    status, out, err = call(
        capsys, "calibrate", str(tmp_path / "log.txt"), "--save", str(tmp_path / "ours.toml")
    )
    assert (status, err.splitlines()[-1].split(": ")[1]) == (
        0,
        f"written; use it with --models {tmp_path}/ours.toml",
    )
    assert "network.efficiency" in out
    return str(tmp_path / "ours.toml")


def makespan(capsys, *words):
    status, out, err = call(capsys, *words, "--json")
    assert status == 0, err
    return json.loads(out)["makespan_s"]


def test_the_file_is_taken_by_the_commands_that_predict(capsys, ours):
    graph, system = pm.load(GPT), pm.hardware("dgx-h100")
    fitted = pm.read_models(ours).over(system.models)
    expected = pm.predict(graph, system, fitted).makespan
    bare = pm.predict(graph, system, pm.Models()).makespan
    assert expected > 1.001 * bare
    assert makespan(capsys, "run", GPT, "--models", ours) == pytest.approx(expected, rel=1e-12)
    assert makespan(capsys, "run", GPT, "--models", "roofline") == pytest.approx(bare, rel=1e-12)
    status, out, _ = call(capsys, "sensitivity", GPT, "--models", ours, "--json")
    assert status == 0
    assert "network.efficiency" in {row["parameter"] for row in json.loads(out)}
    words = ["--vary", "npu.peak_flops=1e15,2e15", "--models", ours, "--json"]
    rows = json.loads(call(capsys, "sweep", GPT, *words)[1])
    assert len(rows) == 2
    bound = ["--bound", "npu.peak_flops=5e14:1e15", "--starts", "1", "--models", ours]
    assert call(capsys, "optimize", GPT, *bound)[0] == 0
    assert call(capsys, "compare", GPT, "dgx-b200", "--models", ours)[0] == 0
    assert call(capsys, "timeline", GPT, "--models", ours)[0] == 0


def test_a_table_of_matrix_products_is_taken_as_it_is(capsys, tmp_path):
    random = np.random.default_rng(0)
    m, n, k = (2 ** random.integers(8, 14, 60) for _ in range(3))
    work = 2.0 * m * n * k
    moved = 2.0 * (m * k + k * n + m * n)
    seconds = np.maximum(work / (0.7 * 989e12), moved / (0.8 * 3.35e12)) + 4e-6
    table = pd.DataFrame({"m": m, "n": n, "k": k, "dtype": "bfloat16", "latency_ms": seconds * 1e3})
    table.to_csv(tmp_path / "gemm.csv", index=False)
    words = ["calibrate", str(tmp_path / "gemm.csv"), "--system", "h100-sxm", "--json"]
    found = {r["parameter"]: r["value"] for r in json.loads(call(capsys, *words)[1])}
    assert found["compute.efficiency"] == pytest.approx(0.7, rel=1e-6)
    assert found["compute.memory_efficiency"] == pytest.approx(0.8, rel=1e-6)
    assert found["compute.overhead"] == pytest.approx(4e-6, rel=1e-6)


def test_several_files_are_fitted_together(capsys, tmp_path):
    for k, part in enumerate((ALL_REDUCE[:9], ALL_REDUCE[9:])):
        (tmp_path / f"{k}.log").write_text(run(lines=part))
    files = [str(tmp_path / f"{k}.log") for k in range(2)]
    rows = json.loads(call(capsys, "calibrate", *files, "--json")[1])
    assert [row["parameter"] for row in rows] == ["network.efficiency", "network.overhead"]


def test_what_the_output_does_not_tell_is_said_by_options(capsys, tmp_path):
    rows = [line(s, 30.0 + s / 4e5, 7 / 8, redop="none") for s in SIZES]
    (tmp_path / "log.txt").write_text(run(lines=rows))
    status, _, err = call(capsys, "calibrate", str(tmp_path / "log.txt"))
    assert status == 1
    assert "--collective" in err
    words = ["calibrate", str(tmp_path / "log.txt"), "--collective"]
    assert call(capsys, *words, "all_gather")[0] == 0
    status, _, err = call(capsys, *words, "allgather")
    assert status == 1
    assert "all_gather" in err
    status, _, err = call(capsys, *words, "all_gather", "--ranks", "4")
    assert status == 1
    assert "4 ranks" in err


def test_what_is_left_open_is_shown_but_not_written(capsys, tmp_path):
    (tmp_path / "log.txt").write_text(run(lines=ALL_REDUCE[:2]))
    target = tmp_path / "x.toml"
    status, out, err = call(capsys, "calibrate", str(tmp_path / "log.txt"), "--save", str(target))
    assert status == 1
    assert "network.efficiency" in out
    assert "not written" in err
    assert not target.exists()


@pytest.mark.parametrize(
    ("words", "status", "texts"),
    [
        (["run", GPT, "--models", "nope.toml"], 1, ["nope.toml", "no such file"]),
        (["run", GPT, "--models", ""], 2, ["is empty"]),
        (["run", GPT, "--models", "README.md"], 1, ["README.md", "not a TOML file"]),
        (
            ["run", GPT, "--set", "compute.efficiency=1.7"],
            1,
            ["got 1.7", "1 at most", "npu.peak_flops"],
        ),
        (["run", GPT, "--set", "network.efficiency=170 %"], 1, ["got 170 %", "1 at most"]),
        (["sweep", GPT, "--vary", "compute.efficiency=0.5,1.2"], 1, ["got 1.2", "1 at most"]),
        (["run", GPT, "--dtype", "bf61"], 1, ["'bf61'", "did you mean bf16"]),
        (["calibrate"], 2, ["MEASUREMENTS"]),
        (["calibrate", "README.md"], 1, ["README.md"]),
        (["calibrate", "README.md", "--save", "x.csv"], 1, ["x.csv", ".toml"]),
    ],
)
def test_wrong_words_get_one_clear_message(capsys, words, status, texts):
    found, _, err = call(capsys, *words)
    assert found == status, err
    assert "Traceback" not in err
    assert all(text in err for text in texts), err


def test_an_algorithm_goes_with_models_that_know_it(capsys, ours):
    ring = makespan(capsys, "run", GPT, "--models", ours, "--algorithm", "ring")
    assert ring > 0
    assert makespan(capsys, "run", GPT, "--models", ours, "--algorithm", "auto") == pytest.approx(
        makespan(capsys, "run", GPT, "--models", ours), rel=1e-12
    )


def test_the_coefficients_that_the_system_has_anyway_are_told_beside_the_fit(capsys, tmp_path):
    (tmp_path / "log.txt").write_text(run(lines=ALL_REDUCE))
    _, out, _ = call(capsys, "calibrate", str(tmp_path / "log.txt"))
    assert (
        "without this fit: the coefficients that dgx-h100 has anyway (h100-sxm) are off by" in out
    )
    _, out, _ = call(capsys, "calibrate", str(tmp_path / "log.txt"), "--models", "roofline")
    assert "without this fit" not in out
