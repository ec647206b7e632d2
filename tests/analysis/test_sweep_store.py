"""The folder of a sweep: what is damaged, foreign or half there is not believed, and costs no point."""

from __future__ import annotations

import json
import os
import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis.designs import Designs
from perfmodel.analysis.sweep_store import Damaged, claim

POINTS = {"npu.peak_flops": [2e14, 3e15], "network.0.bandwidth": [5e10, 1e11, 2e11, 4e11]}


@pytest.fixture(scope="module")
def graph():
    return synth.training({"layers": 1, "hidden": 256, "heads": 4}, sequence=64, data=2).graph()


@pytest.fixture(scope="module")
def system(graph):
    return pm.hardware("dgx-h100", ranks=graph.ranks)


def swept(graph, system, folder, points=None, **options):
    return pm.sweep(graph, system, points or POINTS, output=folder, part=2, **options)


def part(folder: Path, k: int) -> Path:
    return folder / f"part-{k:06d}.parquet"


def test_one_flipped_bit_anywhere_is_found_and_the_part_evaluated_again(graph, system, tmp_path):
    expected = swept(graph, system, tmp_path)
    raw = part(tmp_path, 1).read_bytes()
    choice = np.random.default_rng(0)
    store = claim(tmp_path, _described(tmp_path))
    for at in [*choice.integers(0, len(raw), 200), 0, len(raw) - 1]:
        changed = bytearray(raw)
        changed[at] ^= 1 << int(choice.integers(8))
        part(tmp_path, 1).write_bytes(changed)
        with pytest.raises(Damaged):
            store.read(1, Designs.of_frame(expected.iloc[2:4][list(POINTS)]))
    with pytest.warns(UserWarning, match=r"part-000001\.parquet: .*; evaluated again"):
        again = swept(graph, system, tmp_path)
    pd.testing.assert_frame_equal(again, expected, check_exact=True)
    assert part(tmp_path, 1).read_bytes() == raw


def _described(folder: Path) -> dict:
    """What the note says that the sweep depends on."""
    note = json.loads((folder / "_sweep.json").read_text())
    return {key: value for key, value in note.items() if key not in ("format", "place")}


@pytest.mark.parametrize("damage", ["other sweep", "other part", "empty", "no rows", "rewritten"])
def test_a_part_that_is_not_this_ones_is_evaluated_again(graph, system, tmp_path, damage):
    expected = swept(graph, system, tmp_path / "a")
    victim = part(tmp_path / "a", 2)
    if damage == "other sweep":
        other = {**POINTS, "npu.peak_flops": [1e14, 1e15]}
        swept(graph, system, tmp_path / "b", other)
        shutil.copy(part(tmp_path / "b", 2), victim)
    elif damage == "other part":
        shutil.copy(part(tmp_path / "a", 1), victim)
    elif damage == "empty":
        victim.write_bytes(b"")
    elif damage == "no rows":
        pd.read_parquet(victim).iloc[:0].to_parquet(victim)
    else:
        pd.read_parquet(victim).assign(makespan_s=1.0).to_parquet(victim)
    with pytest.warns(UserWarning, match="evaluated again"):
        pd.testing.assert_frame_equal(swept(graph, system, tmp_path / "a"), expected)


@pytest.mark.filterwarnings("ignore:.*no node answers")
def test_two_workloads_without_a_file_do_not_share_a_folder(system, tmp_path):
    one, two = (synth.collective("all_reduce", 2, size).graph() for size in (1 << 20, 1 << 24))
    assert one.digest != two.digest
    swept(one, system, tmp_path)
    with pytest.raises(pm.InputError, match="its graph differ"):
        swept(two, system, tmp_path)
    slower = pm.whatif.scale(one, 2.0)
    assert slower.digest != one.digest
    with pytest.raises(pm.InputError, match="its graph differ"):
        swept(slower, system, tmp_path)


def test_equal_workloads_have_equal_digests_however_they_were_made(tmp_path):
    work = synth.training({"layers": 1, "hidden": 256, "heads": 4}, sequence=64, data=2)
    made, again = work.graph(), work.graph()
    assert made.digest == again.digest
    read = pm.load(work.write(tmp_path / "t"))
    pm.save(read, tmp_path / "t.npz")
    assert pm.load(tmp_path / "t.npz").digest == read.digest


def test_a_folder_that_was_claimed_but_not_named_is_taken(graph, system, tmp_path):
    (tmp_path / f"._sweep.json.{'a' * 16}.partial").write_text("{")
    assert len(swept(graph, system, tmp_path)) == 8


def test_a_link_in_the_place_of_a_temporary_file_leads_nowhere(graph, system, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    folder = tmp_path / "sweep"
    folder.mkdir()
    swept(graph, system, folder)
    part(folder, 0).unlink()
    for name in (".part-000000.parquet.tmp", "._sweep.json.tmp"):
        (folder / name).symlink_to(victim)
    part(folder, 0).symlink_to(victim)
    with pytest.warns(UserWarning, match="evaluated again"):
        swept(graph, system, folder)
    assert victim.read_text() == "years of work"
    assert not part(folder, 0).is_symlink()


def test_parts_reach_the_disk_before_they_take_their_names(graph, system, tmp_path, monkeypatch):
    order: list[str] = []
    sync, rename = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda handle: (order.append("sync"), sync(handle))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (order.append("name"), rename(a, b))[1])
    swept(graph, system, tmp_path)
    assert order.count("name") == 5  # the note and four parts
    assert all(order[at - 1] == "sync" for at, what in enumerate(order) if what == "name")


def test_two_sweeps_into_one_folder_at_once_do_each_other_no_harm(graph, system, tmp_path):
    expected = pm.sweep(graph, system, POINTS)
    results: list[pd.DataFrame] = []
    threads = [
        threading.Thread(target=lambda: results.append(swept(graph, system, tmp_path)))
        for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for result in results:
        pd.testing.assert_frame_equal(result, expected)


def test_a_design_without_a_finite_time_says_so_and_the_others_are_there(graph, system):
    points = {"compute.efficiency": [0.5, 0.0, 1.0], "npu.peak_flops": [1e15, 2e15]}
    table = pm.sweep(graph, system, points, economics=True, batch_size=8)
    lacking = table["compute.efficiency"] == 0
    assert table.schedule[lacking].tolist() == ["infinite"] * 2
    assert table.limited_by[lacking].tolist() == ["none"] * 2
    assert np.isposinf(table.makespan_s[lacking]).all()
    alone = pm.sweep(
        graph, system, {**points, "compute.efficiency": [0.5, 1.0]}, economics=True, batch_size=8
    )
    pd.testing.assert_frame_equal(table[~lacking].reset_index(drop=True), alone)
    none = pm.sweep(graph, system, {"compute.efficiency": [0.0]})
    assert none.schedule.tolist() == ["infinite"]
