"""Saved graphs: the same graph again, and never a stale or damaged one."""

from __future__ import annotations

import json
import os
import warnings
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.workload.graph import Graph


def write(folder: Path, size: int = 1024) -> Path:
    """A small trace of messages, groups and kernels."""
    work = synth.training(
        {"layers": 2, "hidden": size, "heads": 4},
        sequence=128,
        data=2,
        tensor=2,
        pipeline=2,
        micro_batches=2,
    )
    return work.write(folder, overwrite=True)


@pytest.fixture
def trace(tmp_path) -> Path:
    return write(tmp_path / "trace")


@pytest.fixture
def saved(trace, tmp_path) -> Path:
    pm.save(pm.load(trace), tmp_path / "graph.npz")
    return tmp_path / "graph.npz"


def assert_equal(a: Graph, b: Graph) -> None:
    """Every array, name and figure of two graphs."""
    for name in ("groups", "group_names", "source", "warnings", "digest"):
        assert getattr(a, name) == getattr(b, name), name
    for name in ("program", "row", "by_name", "label"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert len(a.programs) == len(b.programs)
    for one, other in zip(a.programs, b.programs):
        for field in fields(one):
            mine, its = getattr(one, field.name), getattr(other, field.name)
            np.testing.assert_array_equal(mine, its, err_msg=field.name)
            if isinstance(mine, np.ndarray):
                assert mine.dtype == its.dtype, field.name
    assert len(a.labels) == len(b.labels)
    for one, other in zip(a.labels, b.labels):
        np.testing.assert_array_equal(one.node_id, other.node_id)
        np.testing.assert_array_equal(one.tag, other.tag)
        assert one.names == other.names


def test_a_saved_graph_comes_back_as_it_was(trace, saved):
    graph, again = pm.load(trace), pm.load(saved)
    assert_equal(again, graph)
    assert again.origin == graph.origin
    system = pm.hardware("dgx-h100", ranks=8)
    assert pm.predict(again, system).makespan == pm.predict(graph, system).makespan


def test_opening_does_not_read_the_trace(trace, saved, monkeypatch):
    from perfmodel.trace import chakra

    def fail(*_):
        raise AssertionError("the trace was read")

    monkeypatch.setattr(chakra, "decode", fail)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pm.load(saved).ranks == 8


def test_a_graph_whose_files_are_gone_still_opens(trace, saved):
    before = pm.load(trace)
    for file in trace.parent.glob("*.et"):
        file.unlink()
    assert_equal(pm.load(saved), before)


def test_a_changed_trace_is_noticed_and_read_anew_with_the_same_options(tmp_path):
    trace = write(tmp_path / "trace")
    pm.save(pm.load(trace, dependencies="data"), tmp_path / "graph.npz")
    write(tmp_path / "trace", size=2048)
    expected = pm.load(trace, dependencies="data")
    with pytest.warns(UserWarning, match=r"graph.npz: .*t\.0\.et has changed since; read anew"):
        again = pm.load(tmp_path / "graph.npz")
    assert_equal_but_source(again, expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert_equal_but_source(pm.load(tmp_path / "graph.npz"), expected)


def assert_equal_but_source(a: Graph, b: Graph) -> None:
    """Read from a list of files instead of a prefix, a graph names another source."""
    from dataclasses import replace

    assert_equal(replace(a, source=""), replace(b, source=""))


def test_one_changed_byte_of_equal_length_is_noticed(trace, saved):
    file = trace.parent / "t.3.et"
    raw = bytearray(file.read_bytes())
    at = raw.rindex(b"optimizer")
    raw[at : at + 9] = b"OPTIMIZER"
    file.write_bytes(raw)
    with pytest.warns(UserWarning, match=r"t\.3\.et has changed since"):
        again = pm.load(saved)
    assert "step.OPTIMIZER" in again.labels[again.label[3]].names


def test_a_file_that_was_only_touched_is_not_read_again(trace, saved):
    for file in trace.parent.glob("*.et"):
        os.utime(file, ns=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pm.load(saved).ranks == 8


@pytest.mark.parametrize("kind", ["truncated", "one byte", "empty", "text"])
def test_a_damaged_file_is_noticed_and_written_again(trace, saved, kind):
    before, raw = pm.load(saved), bytearray(saved.read_bytes())
    middle = raw.index(b"p0.flops") + 200
    raw[middle] ^= 0xFF
    damaged = {
        "truncated": raw[: len(raw) // 2],
        "one byte": raw,
        "empty": b"",
        "text": b"no archive",
    }
    saved.write_bytes(damaged[kind])
    with pytest.warns(UserWarning, match=r"graph.npz: is damaged .*; read anew"):
        again = pm.load(saved)
    assert_equal_but_source(again, before)
    assert_equal_but_source(pm.load(saved), before)


def test_every_byte_matters_or_does_no_harm(trace, saved):
    before, raw = pm.load(saved), saved.read_bytes()
    choice = np.random.default_rng(0)
    for at in choice.integers(0, len(raw), 60):
        changed = bytearray(raw)
        changed[at] ^= 1 << int(choice.integers(8))
        saved.write_bytes(changed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # most are noticed; padding between members is not read
            assert_equal_but_source(pm.load(saved), before)
        saved.write_bytes(raw)


def test_damage_with_nothing_to_read_from_is_an_error(tmp_path):
    graph = synth.collective("all_reduce", 4, 1024).graph()
    path = tmp_path / "made.npz"
    pm.save(graph, path)
    assert_equal(pm.load(path), graph)
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(pm.TraceError, match=r"made.npz: is damaged .*; save it again"):
        pm.load(path)


def test_a_graph_opens_without_its_note(trace, saved):
    before = pm.load(saved)
    saved.with_name("graph.npz.json").unlink()
    assert_equal(pm.load(saved), before)


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", '{"format": "other"}', '{"format": 3, "files": 1, "options": 2}']
)
def test_a_note_that_is_none_is_an_error(saved, text):
    saved.with_name("graph.npz.json").write_text(text)
    with pytest.raises(pm.TraceError, match=r"graph.npz.json: is no note of a saved graph"):
        pm.load(saved)


def test_a_note_cannot_pass_other_options_to_the_reader(trace, saved):
    note = saved.with_name("graph.npz.json")
    content = json.loads(note.read_text())
    content["options"] |= {"strict": True, "surprise": 1}
    content["files"][0][1:3] = ["0" * 64, 1]  # stale
    note.write_text(json.dumps(content))
    with pytest.warns(UserWarning, match="has changed since"):
        assert pm.load(saved).ranks == 8


def test_an_archive_of_something_else_is_an_error(tmp_path):
    np.savez(tmp_path / "other.npz", a=np.arange(3))
    with pytest.raises(pm.TraceError, match=r"other.npz: is damaged"):
        pm.load(tmp_path / "other.npz")


def test_a_single_array_under_the_name_of_an_archive_is_an_error(tmp_path):
    with open(tmp_path / "array.npz", "wb") as file:
        np.save(file, np.arange(3))
    with pytest.raises(pm.TraceError, match=r"array.npz: is damaged \(no archive\)"):
        pm.load(tmp_path / "array.npz")


def test_objects_are_never_unpickled(tmp_path):
    np.savez(tmp_path / "objects.npz", header=np.array([{"a": 1}], dtype=object))
    with pytest.raises(pm.TraceError, match=r"objects.npz: is damaged .*allow_pickle"):
        pm.load(tmp_path / "objects.npz")


def test_another_ending_and_an_absent_file_are_errors(trace, tmp_path):
    with pytest.raises(pm.InputError, match=r"ends in \.npz"):
        pm.save(pm.load(trace), tmp_path / "graph.bin")
    with pytest.raises(pm.TraceError, match=r"nowhere.npz: no such file"):
        pm.load(tmp_path / "nowhere.npz")


def test_saving_leaves_no_partial_files(saved):
    names = sorted(p.name for p in saved.parent.iterdir() if p.is_file())
    assert names == ["graph.npz", "graph.npz.json"]
