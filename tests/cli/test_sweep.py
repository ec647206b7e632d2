"""`perfmodel sweep`: ranges, samples, choices, and options that do not go together."""

import json

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from tests.cli.calling import GPT, call, rows_of


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


def test_a_sweep_may_simulate_every_design(capsys):
    words = ("sweep", GPT, "--vary", "network.0.bandwidth=100e9,450e9", "--json")
    status, out, err = call(capsys, *words, "--schedule", "simulated")
    assert status == 0, err
    simulated, default = json.loads(out), json.loads(call(capsys, *words)[1])
    assert [row["makespan_s"] for row in simulated] == pytest.approx(
        [row["makespan_s"] for row in default], rel=1e-12
    )


@pytest.mark.parametrize("method", ["sobol", "latin-hypercube"])
def test_a_sample_is_drawn_from_ranges_as_the_library_draws_it(capsys, method):
    words = ["--sample", "4", "--sampling", method, "--vary", "npu.peak_flops=1e14:1e15"]
    table = rows_of(capsys, "sweep", GPT, *words, "--vary", "network.0.bandwidth=1e10:1e12:9:log")
    bounds = {"npu.peak_flops": (1e14, 1e15), "network.0.bandwidth": (1e10, 1e12)}
    expected = pm.sample(bounds, 4, method=method)
    for path in bounds:
        assert table[path].tolist() == pytest.approx(expected[path].tolist(), rel=1e-12)


def test_a_sample_is_combined_with_every_name(capsys):
    words = ["--vary", "npu.peak_flops=1e14:1e15", "--vary", "network.algorithm=ring, direct"]
    words += ["--vary", "system=dgx-h100, dgx-b200", "--sample", "2"]
    table = rows_of(capsys, "sweep", GPT, *words)
    assert len(table) == 2 * 2 * 2
    assert set(table["system"]) == {"dgx-h100", "dgx-b200"}
    assert set(table["network.algorithm"]) == {"ring", "direct"}
    assert table["npu.peak_flops"].nunique() == 2
    assert table["makespan_s"].notna().all()


def test_a_sample_from_0_on_is_spread_linearly(capsys):
    words = ["--vary", "network.0.latency=0:1 us", "--sample", "8"]
    drawn = rows_of(capsys, "sweep", GPT, *words)["network.0.latency"]
    assert sorted(np.floor(drawn * 8e6)) == list(range(8))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sample", "4", "--vary", "npu.peak_flops=1e15,2e15,4e15"], "--sample needs LOW:HIGH"),
        (["--sample", "4", "--vary", "npu.peak_flops=1e14:1e15:3:x"], "--sample needs LOW:HIGH"),
        (["--sample", "4", "--vary", "system=dgx-h100"], "draws from ranges"),
        (["--sampling", "sobol", "--vary", "npu.peak_flops=1e15"], "give --sample"),
        (
            ["--vary", "npu.peak_flops=1e15", "--vary", "npu.peak_flops=2e15"],
            "flops is given twice",
        ),
        (
            ["--vary", "npu.peak_flops=1e15", "--set", "compute.half=1", "--set", "compute.half=2"],
            "compute.half is given twice",
        ),
        (
            ["--vary", "system=dgx-h100,dgx-b200", "--set", "network.0.bandwidth=1e11"],
            "--set network.0.bandwidth would be lost",
        ),
    ],
)
def test_options_of_a_sweep_that_do_not_go_together_are_wrong_usage(capsys, arguments, message):
    status, out, err = call(capsys, "sweep", GPT, *arguments)
    assert status == 2
    assert out == ""
    assert message in err


def test_models_may_be_set_where_systems_vary(capsys):
    words = ["sweep", GPT, "--vary", "system=dgx-h100,dgx-b200"]
    plain = rows_of(capsys, *words, "--models", "roofline")["makespan_s"]
    slower = rows_of(capsys, *words, "--set", "compute.efficiency=0.5")["makespan_s"]
    assert (slower > plain).all()


def test_a_scheduler_without_a_name_is_an_error_and_no_sweep_in_this_process(capsys):
    vary = ("--vary", "npu.peak_flops=1e14,1e15")
    status, out, err = call(capsys, "sweep", GPT, "--system", "dgx-h100", *vary, "--scheduler", "")
    assert (status, out) == (1, "")
    assert err.startswith("perfmodel: scheduler : no answer (missing port number")
