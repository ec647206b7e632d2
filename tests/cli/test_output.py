"""What commands print and write: tables for people and programs, files by their endings."""

import gzip
import json
import re

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.cli.output import json_text, write_table
from tests.cli.calling import GPT, call
from tests.handmade import coll, comp, write


def test_tables_and_timelines_are_written_by_ending(capsys, tmp_path):
    for name in ("t.csv", "t.parquet", "t.json"):
        status, _, _ = call(capsys, "run", GPT, "-o", str(tmp_path / name))
        assert status == 0
    assert len(pd.read_csv(tmp_path / "t.csv")) == len(pd.read_parquet(tmp_path / "t.parquet"))
    status, _, _ = call(capsys, "timeline", GPT, "-o", str(tmp_path / "p.json"))
    assert status == 0
    assert json.loads((tmp_path / "p.json").read_text())["traceEvents"]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["p.json", "t.csv", "t.json", "t.parquet"]


def test_a_printed_table_shortens_long_texts(capsys, tmp_path):
    name = "begin" + "x" * 400 + "end"
    folder = write(tmp_path, [[comp(name=name)]])
    _, out, _ = call(capsys, "run", str(folder))
    assert max(len(line) for line in out.splitlines()) < 200
    (row,) = [line for line in out.splitlines() if "beginx" in line]
    assert "x...x" in row
    assert "xend" in row
    assert name in call(capsys, "run", str(folder), "--json")[1]


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


def test_one_of_a_thing_is_singular(capsys, tmp_path):
    pair = [[comp(), coll()], [comp(), coll()]]
    _, out, _ = call(capsys, "run", str(write(tmp_path / "a", pair)))
    assert "(1 more rank is equal" in out
    _, out, _ = call(capsys, "inspect", str(write(tmp_path / "b", [[comp(size=-1)]])))
    assert "\n1 finding\n" in out


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
