"""Sweeps into a folder: interrupted, resumed, and never into one that holds something else."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.models.cost import Models
from tests.analysis.varied import ROOT, VARIED


def test_a_folder_of_parquet_holds_the_sweep(graph, system, tmp_path):
    expected = pm.sweep(graph, system, VARIED)
    folder = tmp_path / "sweep"
    table = pm.sweep(graph, system, VARIED, output=folder, part=3)
    pd.testing.assert_frame_equal(table, expected)
    files = sorted(folder.glob("*.parquet"))
    assert [len(pd.read_parquet(f)) for f in files] == [3, 3, 2]
    assert pm.sweep(graph, system, VARIED, output=folder, part=3, collect=False) is None
    assert not list(folder.glob("*.tmp"))


def test_the_folder_is_a_parquet_data_set_for_other_readers_too(graph, system, tmp_path):
    table = pm.sweep(graph, system, VARIED, output=tmp_path, part=3)
    (tmp_path / ".part-000009.parquet.tmp").write_bytes(b"cut off")
    there = pd.read_parquet(tmp_path)
    pd.testing.assert_frame_equal(there.sort_index(), table)
    (tmp_path / "part-000001.parquet").write_bytes(b"damaged")
    with pytest.warns(UserWarning, match=r"part-000001\.parquet: carries no checksum; evaluated"):
        again = pm.sweep(graph, system, VARIED, output=tmp_path, part=3)
    pd.testing.assert_frame_equal(again, table)


def test_parts_that_are_there_are_not_evaluated_again(graph, system, tmp_path, monkeypatch):
    from perfmodel.analysis import sweep as module

    expected = pm.sweep(graph, system, VARIED, output=tmp_path, part=2)
    files = sorted(tmp_path.glob("*.parquet"))
    files[1].unlink()
    times = {f: f.stat().st_mtime_ns for f in files if f.exists()}
    seen = []
    evaluate = module.evaluate_part

    def counting(compiled, work, part):
        seen.extend(part.rows)
        return evaluate(compiled, work, part)

    monkeypatch.setattr(module, "evaluate_part", counting)
    again = pm.sweep(graph, system, VARIED, output=tmp_path, part=2)
    assert seen == [2, 3]
    pd.testing.assert_frame_equal(again, expected)
    assert times == {f: f.stat().st_mtime_ns for f in times}


KILLED = """
import sys, time
import perfmodel as pm
from perfmodel import compiled as compiled_module
from perfmodel.analysis.sweep_store import Store
write = Store.write
def slowly(store, part, result):
    write(store, part, result)
    print(store.path(part), flush=True)
    time.sleep(0.05)
Store.write = slowly
graph = pm.load("traces/gpt_dp2_tp2_pp2")
points = pm.sample({"npu.peak_flops": (1e14, 1e16), "network.0.bandwidth": (1e10, 1e12)}, 256)
system = pm.hardware("dgx-h100", ranks=8, models="roofline")
pm.sweep(graph, system, points, output=sys.argv[1], part=8, collect=False)
"""


def test_a_sweep_that_was_killed_resumes_without_losing_or_repeating_a_point(
    graph, system, tmp_path
):
    folder = tmp_path / "sweep"
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    with process.stdout:
        for _ in range(5):  # five parts are there
            assert process.stdout.readline(), "the sweep ended early"
        process.send_signal(signal.SIGKILL)
        process.wait(timeout=60)
    done = sorted(folder.glob("part-*.parquet"))
    assert 5 <= len(done) < 32
    before = {f: (f.stat().st_mtime_ns, len(pd.read_parquet(f))) for f in done}
    assert {count for _, count in before.values()} == {8}
    points = pm.sample({"npu.peak_flops": (1e14, 1e16), "network.0.bandwidth": (1e10, 1e12)}, 256)
    resumed = pm.sweep(graph, system, points, output=folder, part=8)
    assert before == {f: (f.stat().st_mtime_ns, 8) for f in done}
    assert resumed.index.tolist() == list(range(256))
    pd.testing.assert_frame_equal(resumed, pm.sweep(graph, system, points))


def test_a_partial_file_of_a_killed_sweep_does_no_harm(graph, system, tmp_path):
    expected = pm.sweep(graph, system, VARIED, output=tmp_path, part=3)
    (tmp_path / "part-000001.parquet").unlink()
    partial = tmp_path / f".part-000001.parquet.{'0' * 16}.partial"
    partial.write_bytes(b"half a file")
    again = pm.sweep(graph, system, VARIED, output=tmp_path, part=3)
    pd.testing.assert_frame_equal(again, expected)
    assert partial.exists()  # perhaps another process is still at it
    os.utime(partial, (0, 0))
    pm.sweep(graph, system, VARIED, output=tmp_path, part=3)
    assert not partial.exists()


@pytest.mark.parametrize(
    ("change", "differing"),
    [
        ({"points": {"npu.peak_flops": [1e15]}}, "points"),
        ({"schedule": "frozen"}, "options"),
        ({"part": 5}, "part"),
        ({"models": Models(prefer="recorded")}, "models"),
        ({"batch_size": 3}, "options"),
    ],
)
def test_another_sweeps_folder_is_refused(graph, system, tmp_path, change, differing):
    pm.sweep(graph, system, VARIED, output=tmp_path, part=4, collect=False)
    arguments = {"points": VARIED, "part": 4, **change}
    points = arguments.pop("points")
    with pytest.raises(pm.InputError, match=rf"holds another sweep \(its .*{differing}"):
        pm.sweep(graph, system, points, output=tmp_path, **arguments)


def test_another_systems_or_graphs_folder_is_refused(graph, system, tmp_path):
    pm.sweep(graph, system, VARIED, output=tmp_path, collect=False)
    faster, _ = pm.with_parameters(system, Models(), {"npu.memory_bandwidth": 1e13})
    with pytest.raises(pm.InputError, match="its system differ"):
        pm.sweep(graph, faster, VARIED, output=tmp_path)
    other = pm.load(ROOT / "traces" / "fsdp_8")
    with pytest.raises(pm.InputError, match="its graph"):
        pm.sweep(other, system, VARIED, output=tmp_path)


def test_a_folder_with_something_else_in_it_is_refused(graph, system, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(pm.InputError, match="is not empty and holds no sweep"):
        pm.sweep(graph, system, VARIED, output=tmp_path)
    (tmp_path / "thesis.tex").unlink()
    (tmp_path / "_sweep.json").write_text("{broken")
    with pytest.raises(pm.InputError, match="holds another sweep"):
        pm.sweep(graph, system, VARIED, output=tmp_path)
    assert (tmp_path / "_sweep.json").read_text() == "{broken"


def test_a_folder_of_another_version_is_refused(graph, system, tmp_path, monkeypatch):
    from perfmodel.analysis import sweep as module

    pm.sweep(graph, system, VARIED, output=tmp_path)
    monkeypatch.setattr(module, "__version__", "0.0.9")
    with pytest.raises(pm.InputError, match=r"holds another sweep \(its version differ"):
        pm.sweep(graph, system, VARIED, output=tmp_path)
