"""Writing a trace into a folder that holds others, and being interrupted at it."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

import perfmodel as pm
from perfmodel import synth

GPT = synth.training({"layers": 2, "hidden": 256, "heads": 4}, sequence=64, data=2, tensor=2)
SMALL = synth.collective("all_reduce", 2, 1024)


class Stop(BaseException):
    """Like a signal: no error that somebody catches."""


@pytest.mark.parametrize("at", range(1, 14))
def test_an_interrupted_write_never_leaves_fewer_ranks_that_load(tmp_path, monkeypatch, at):
    """Stopped before the at-th file takes its name: the old trace, the new one, or none that loads."""
    SMALL.write(tmp_path)
    old, rename, count = pm.load(tmp_path).digest, os.replace, [0]

    def stop(source, target):
        count[0] += 1
        if count[0] == at:
            raise Stop
        rename(source, target)

    monkeypatch.setattr(os, "replace", stop)
    with contextlib.suppress(Stop):
        GPT.write(tmp_path, overwrite=True)
    monkeypatch.setattr(os, "replace", rename)
    if (tmp_path / "t.0.et").exists():
        assert pm.load(tmp_path).digest in (old, pm.load(GPT.write(tmp_path / "x")).digest)
    else:
        with pytest.raises(pm.TraceError, match=r"rank 0|no trace there"):
            pm.load(tmp_path)
    assert not [p for p in tmp_path.iterdir() if p.name.endswith(".partial")]


def test_overwriting_leaves_another_traces_group_file(tmp_path):
    GPT.write(tmp_path, prefix="a")
    before, groups = pm.load(tmp_path / "a").digest, (tmp_path / "comm_groups.json").read_bytes()
    other = synth.training({"layers": 2, "hidden": 256, "heads": 4}, sequence=64, data=4, tensor=2)
    other.write(tmp_path, prefix="b")
    assert (tmp_path / "comm_groups.json").read_bytes() == groups
    assert pm.load(tmp_path / "a").digest == before
    assert pm.load(tmp_path / "b").digest == pm.load(other.write(tmp_path / "alone")).digest
    SMALL.write(tmp_path, prefix="b", overwrite=True)
    assert pm.load(tmp_path / "b").ranks == 2
    assert pm.load(tmp_path / "a").digest == before
    other.write(tmp_path, prefix="a", overwrite=True)
    assert pm.load(tmp_path / "a").digest == pm.load(tmp_path / "alone").digest
    assert pm.load(tmp_path / "b").ranks == 2


def test_what_a_killed_call_has_left_is_recognised(tmp_path):
    left = tmp_path / f".stage.{'0' * 16}.partial"
    left.mkdir()
    (left / "t.0.et").write_bytes(b"half")
    os.utime(left, (0, 0))
    SMALL.write(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.0.et", "t.1.et"]


@pytest.mark.parametrize(
    "prefix", ["", ".", "..", "a/b", "-x", ".t", "a\nb", "x" * 300, "a\0", None]
)
def test_a_prefix_that_is_no_beginning_of_a_name_is_refused(tmp_path, prefix):
    with pytest.raises(pm.InputError, match="prefix: "):
        SMALL.write(tmp_path / "new", prefix=prefix)
    assert not (tmp_path / "new").exists()


def test_a_link_with_a_ranks_name_is_replaced(tmp_path):
    victim = Path(tmp_path / "victim")
    victim.write_text("years of work")
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "t.0.et").symlink_to(victim)
    SMALL.write(tmp_path / "t", overwrite=True)
    assert victim.read_text() == "years of work"
    assert pm.load(tmp_path / "t").ranks == 2
