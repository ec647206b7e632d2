"""`perfmodel systems`, and what commands say of the system that they were given."""

import json

import pytest

import perfmodel as pm
from perfmodel.machine.system import systems
from tests.cli.calling import GPT, call
from tests.handmade import comp, write


def test_an_accelerator_in_the_place_of_a_system_is_answered_with_systems_that_hold_it(capsys):
    status, _, err = call(capsys, "run", GPT, "--system", "h100-sxm")
    assert status == 1
    assert err == (
        "perfmodel: system 'h100-sxm': is an accelerator without a network, for one rank; "
        "systems made of it: aws-p5, dgx-h100, gcp-a3-high, gcp-a3-mega, meta-24k-h100.\n"
    )
    _, _, err = call(capsys, "run", GPT, "--system", "qqqq")
    assert "there are: aws-p4d, " in err
    assert "tpu-v7x-slice. A file" in err
    assert "h100-sxm" not in err


def test_an_accelerator_is_a_system_for_one_rank(capsys, tmp_path):
    folder = str(write(tmp_path, [[comp(name="one")]]))
    status, out, _ = call(capsys, "run", folder, "--system", "h100-sxm")
    assert status == 0
    assert ": 1 rank, 1 node on h100-sxm" in out
    assert "1 of 1 node\n" in out


def test_systems_shows_units_and_no_nan_and_numbers_for_programs(capsys):
    status, out, _ = call(capsys, "systems")
    assert status == 0
    assert "989 TFLOP/s" in out
    assert "NaN" not in out
    rows = {row["system"]: row for row in json.loads(call(capsys, "systems", "--json")[1])}
    assert list(rows) == systems()
    assert rows["dgx-h100"]["npu.peak_flops"] == 989e12
    assert rows["dgx-h100"]["network.2.latency"] is None


def test_systems_of_a_name_lists_every_figure_with_unit_and_source(capsys):
    _, out, _ = call(capsys, "systems", "dgx-h100")
    assert "npu.peak_flops.fp8 1.98 PFLOP/s" in out
    assert "system.power" in out
    assert "] weak: base price of a node of 8" in out
    rows = json.loads(call(capsys, "systems", "dgx-h100", "--json")[1])
    figures = {row["figure"]: row for row in rows}
    assert figures["network.1.bandwidth"]["value"] == 50e9
    assert figures["network.1.bandwidth"]["unit"] == "B/s"
    of_all_dtypes = {f.path for f in pm.hardware("dgx-h100").facts} - {"npu.peak_flops"}
    assert of_all_dtypes == set(figures)
    assert all(row["source"] for row in rows)
    assert "one accelerator" in call(capsys, "systems", "h100-sxm")[1]
    assert "weak: an estimate" in out
    assert {row["status"] for row in rows} == {"", "derived", "measured", "weak"}
    status, _, err = call(capsys, "systems", "qqqq")
    assert status == 1
    assert "there are: " in err


@pytest.mark.parametrize(
    ("kind", "name", "shown"),
    [
        ("accelerator", "mi355x", "2.5 PFLOP/s"),
        ("link", "nvlink-5", "50 GB/s"),
        ("switch", "nvlink-switch-nvl72", "130 TB/s"),
        ("memory", "hbm3e", "1.23 TB/s"),
    ],
)
def test_systems_lists_other_kinds_and_every_figure_of_one_of_them(capsys, kind, name, shown):
    status, out, _ = call(capsys, "systems", "--kind", kind)
    assert status == 0
    assert shown in next(line for line in out.splitlines() if line.split()[:1] == [name])
    assert "NaN" not in out
    rows = {
        row[kind]: row for row in json.loads(call(capsys, "systems", "--kind", kind, "--json")[1])
    }
    assert name in rows
    _, out, _ = call(capsys, "systems", name)
    assert out.startswith(f"{name}")
    assert "[1] " in out


def test_systems_offers_names_near_a_wrong_one_of_any_kind(capsys):
    status, _, err = call(capsys, "systems", "nvlink4")
    assert status == 1
    assert "nvlink-4" in err
    _, _, err = call(capsys, "systems", "h100-smx")
    assert "h100-sxm" in err
    _, _, err = call(capsys, "systems", "dgx_h100")
    assert "did you mean dgx-h100" in err
    assert call(capsys, "systems", "--kind", "cable")[0] == 2


def test_systems_knows_files_with_one_peak_rate_for_all_dtypes(capsys, tmp_path):
    (tmp_path / "mine.toml").write_text(
        '[npu]\npeak_flops = "1 TFLOP/s"\nmemory_bandwidth = "1 TB/s"\nmemory_capacity = "1 GB"\n'
    )
    rows = json.loads(call(capsys, "systems", str(tmp_path / "mine.toml"), "--json")[1])
    assert [row["figure"] for row in rows] == [
        "npu.peak_flops",
        "npu.memory_bandwidth",
        "npu.memory_capacity",
    ]


@pytest.mark.parametrize(
    ("assignment", "wanted"),
    [
        ("npu.peak_flops=nan", "more than 0"),
        ("npu.peak_flops=inf", "more than 0"),
        ("network.0.bandwidth=0", "more than 0"),
        ("network.0.bandwidth=0 GB/s", "more than 0"),
        ("network.0.latency=-1e-6", "0 or more"),
        ("network.0.latency=-1 us", "0 or more"),
        ("npu.memory_capacity=nan", "0 or more"),
    ],
)
def test_a_parameter_that_no_hardware_has_is_refused_by_its_path(capsys, assignment, wanted):
    status, _, err = call(capsys, "run", GPT, "--set", assignment)
    assert status == 1
    assert assignment.partition("=")[0] in err
    assert wanted in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    "assignment",
    ["network.0.latency=0", "network.0.latency=0 us", "npu.memory_capacity=inf"],
)
def test_no_latency_and_endless_memory_are_fine(capsys, assignment):
    assert call(capsys, "run", GPT, "--json", "--set", assignment)[0] == 0


def test_doubtful_figures_are_said_beside_every_result(capsys):
    status, _, err = call(capsys, "run", GPT, "--system", "mi300x-8")
    assert status == 0
    assert "mi300x-8: network.0.latency 600 ns is assumed (as NVLink's" in err
    _, _, err = call(capsys, "run", GPT, "--system", "mi300x-8", "--set", "network.0.latency=1 us")
    assert "assumed" not in err
    _, _, err = call(capsys, "run", GPT)
    assert err == ""


def test_prices_and_powers_say_what_they_rest_on(capsys):
    words = ["sweep", GPT, "--vary", "npu.peak_flops=1e15,2e15", "--economics"]
    _, _, err = call(capsys, *words)
    assert "cost: scaled to npu.price = 28000 $ (weak: " in err
    assert "power and energy: scaled to npu.power = 700 W" in err
    _, _, err = call(capsys, *words, "--system", "tpu-v4-slice")
    assert "cost: extrapolated: no price of tpu-v4-slice is known" in err
    bound = ["optimize", GPT, "--bound", "npu.peak_flops=5e14:1e15", "--starts", "1"]
    _, _, err = call(capsys, *bound, "--budget", "power=5 kW")
    assert err.startswith("perfmodel: power: scaled to npu.power")
    assert "cost" not in err


def test_jobs_may_use_a_part_of_a_rack(capsys):
    words = ["run", GPT, "--system", "gb200-nvl72", "--json"]
    half = json.loads(call(capsys, *words, "--used", "4")[1])["makespan_s"]
    assert half > json.loads(call(capsys, *words)[1])["makespan_s"]
    status, _, err = call(capsys, *words, "--used", "73")
    assert status == 1
    assert "joins 72" in err
    assert call(capsys, *words, "--used", "many")[0] == 2
