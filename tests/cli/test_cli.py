"""The command line as a stranger meets it: exit status, messages, outputs."""

import gzip
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.cli.main import main
from perfmodel.cli.output import json_text, write_table
from perfmodel.machine.system import systems
from perfmodel.vocabulary import NodeType
from tests.handmade import coll, comp, recv, send, write

ROOT = Path(__file__).resolve().parents[2]
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


def test_a_sweep_may_simulate_every_design(capsys):
    words = ("sweep", GPT, "--vary", "network.0.bandwidth=100e9,450e9", "--json")
    status, out, err = call(capsys, *words, "--schedule", "simulated")
    assert status == 0, err
    simulated, default = json.loads(out), json.loads(call(capsys, *words)[1])
    assert [row["makespan_s"] for row in simulated] == pytest.approx(
        [row["makespan_s"] for row in default], rel=1e-12
    )


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


def test_a_printed_table_shortens_long_texts(capsys, tmp_path):
    name = "begin" + "x" * 400 + "end"
    folder = write(tmp_path, [[comp(name=name)]])
    _, out, _ = call(capsys, "run", str(folder))
    assert max(len(line) for line in out.splitlines()) < 200
    (row,) = [line for line in out.splitlines() if "beginx" in line]
    assert "x...x" in row
    assert "xend" in row
    assert name in call(capsys, "run", str(folder), "--json")[1]


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
    ("arguments", "message"),
    [
        (["run", "T", "--timeline", "t.json", "-o", "bad.foo"], "bad.foo: cannot be written as"),
        (["run", "T", "--timeline", "t.csv"], "t.csv: cannot be written as .csv; use .json"),
        (["run", "T", "--timeline", "tl9", "-o", "t.csv"], "tl9: cannot be written as a file"),
        (["run", "T", "--timeline", "x.json", "-o", "./x.json"], "is to be written twice"),
        (["run", "T", "-o", "none/t.csv"], "none/t.csv: cannot be written: there is no folder"),
        (["run", "T", "-o", "folder"], "cannot be written as a file without an ending"),
        (["run", "T", "-o", ""], "'': is no file to write"),
        (["timeline", "T", "-o", "t.xlsx"], "use .json, .json.gz, .csv, .parquet"),
        (["convert", "T/t.0.et", "folder"], "folder: is a folder"),
        (["convert", "T/t.0.et", "none/a.et"], "none/a.et: cannot be written: there is no"),
        (["convert", "T/t.0.et", ""], "'': is no file to write"),
        (["sensitivity", "T", "--plot", "p.xls", "-o", "s.csv"], "p.xls: cannot be written"),
        (["optimize", "T", "--bound", "npu.peak_flops=1e15:2e15", "-o", "o.xls"], "o.xls: cannot"),
        (["sweep", "T", "--vary", "npu.peak_flops=1e15", "--folder", ""], "is no folder"),
        (["systems", "-o", "s.txt"], "s.txt: cannot be written as .txt"),
        (["synth", "collective", "--kind", "barrier", "--ranks", "2", "-o", ""], "is no folder"),
    ],
)
def test_outputs_that_cannot_be_written_are_named_before_any_work(
    capsys, tmp_path, monkeypatch, arguments, message
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    status, out, err = call(capsys, *[word.replace("T", GPT, 1) for word in arguments])
    assert status == 1
    assert out == ""
    assert message in err
    assert len(err.splitlines()) == 1
    assert [p.name for p in tmp_path.iterdir()] == ["folder"]


def test_timeline_prints_its_table_for_people_and_programs(capsys, tmp_path):
    folder = str(write(tmp_path / "t", [[comp(name="first"), comp(name="second")], [comp()]]))
    status, out, _ = call(capsys, "timeline", folder)
    assert status == 0
    assert "start_s" in out
    assert len(out.splitlines()) == 4
    rows = json.loads(call(capsys, "timeline", folder, "--rank", "0", "--json")[1])
    assert [row["name"] for row in rows] == ["first", "second"]
    assert call(capsys, "timeline", folder, "-o", str(tmp_path / "t.csv"))[0] == 0
    assert len(pd.read_csv(tmp_path / "t.csv")) == 3
    assert call(capsys, "timeline", folder, "-o", str(tmp_path / "t.json.gz"))[0] == 0
    assert json.loads(gzip.decompress((tmp_path / "t.json.gz").read_bytes()))["traceEvents"]


def test_the_number_of_printed_nodes_is_zero_or_more(capsys):
    status, out, _ = call(capsys, "run", GPT, "--nodes", "0")
    assert status == 0
    assert "longest" not in out
    assert "Empty" not in out
    assert re.search(
        r"longest on the critical path, 2 of \d+ nodes", call(capsys, "run", GPT, "--nodes", "2")[1]
    )
    status, _, err = call(capsys, "run", GPT, "--nodes", "-1")
    assert status == 2
    assert "--nodes" in err


@pytest.mark.parametrize(
    "arguments", [["run", ""], ["inspect", " "], ["convert", "", "x"], ["compare", GPT, "--with="]]
)
def test_an_empty_name_of_a_trace_is_wrong_usage(capsys, tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(write(tmp_path, [[comp()]]))
    status, out, err = call(capsys, *arguments)
    assert status == 2
    assert out == ""
    assert "is empty" in err


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


def test_one_of_a_thing_is_singular(capsys, tmp_path):
    pair = [[comp(), coll()], [comp(), coll()]]
    _, out, _ = call(capsys, "run", str(write(tmp_path / "a", pair)))
    assert "(1 more rank is equal" in out
    _, out, _ = call(capsys, "inspect", str(write(tmp_path / "b", [[comp(size=-1)]])))
    assert "\n1 finding\n" in out


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


def test_json_has_null_for_what_is_no_finite_number():
    table = {"a": [np.float64("nan"), np.inf, 1.5, np.int64(2)], "b": np.array([1.0, -np.inf])}
    text = json_text({**table, "c": (True, None, "NaN")})
    assert json.loads(text) == {
        "a": [None, None, 1.5, 2],
        "b": [1.0, None],
        "c": [True, None, "NaN"],
    }


def test_json_keeps_every_digit_of_small_and_large_numbers(capsys, tmp_path):
    graph = pm.load(GPT)
    expected = pm.sensitivity(graph, pm.hardware("dgx-h100", ranks=8))["derivative"].tolist()
    rows = json.loads(call(capsys, "sensitivity", GPT, "--json")[1])
    assert [row["derivative"] for row in rows] == expected
    file = tmp_path / "s.json"
    assert call(capsys, "sensitivity", GPT, "-o", str(file))[0] == 0
    assert [row["derivative"] for row in json.loads(file.read_text())] == expected


def test_records_have_null_for_what_is_missing_or_not_finite(tmp_path):
    table = pd.DataFrame({"a": [1e-300, np.nan, np.inf], "b": ["x", None, "NaN"], "c": [1, 2, 3]})
    write_table(table, str(tmp_path / "t.json"))
    assert json.loads((tmp_path / "t.json").read_text()) == [
        {"a": 1e-300, "b": "x", "c": 1},
        {"a": None, "b": None, "c": 2},
        {"a": None, "b": "NaN", "c": 3},
    ]
    write_table(table.head(0), str(tmp_path / "t.json"))
    assert json.loads((tmp_path / "t.json").read_text()) == []


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


def rows_of(capsys, *arguments: str) -> pd.DataFrame:
    status, out, err = call(capsys, *arguments, "--json")
    assert status == 0, err
    return pd.DataFrame(json.loads(out))


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
