"""Machine code on the disk is used only while nothing that is compiled into it has changed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numba
import numpy as np
import pytest
from numba.core.caching import IndexDataCacheFile

from perfmodel.compiled_code import machine_code

ROOT = Path(__file__).resolve().parents[1]
INNER = """
from perfmodel.compiled_code import machine_code
@machine_code
def step(x):
    return x + {step}
"""
MIDDLE = """
from perfmodel.compiled_code import machine_code
import made.constants as c
from made import inner
@machine_code
def twice(x):
    return later(x) * c.FACTOR
@machine_code
def later(x):
    return inner.step(x)
"""
CONSTANTS = "FACTOR = {factor}\n"
OUTER = """
import sys
from made.middle import twice
from perfmodel.compiled_code import machine_code
@machine_code(nogil=True)
def outer(x):
    return twice(x) + 1
print(outer(10), outer.stats.cache_hits[next(iter(outer.stats.cache_hits))] if outer.stats.cache_hits else 0)
"""


@pytest.fixture
def run(tmp_path):
    """A package of four files, of which one is run; writes them anew with other numbers."""

    def run(step: int, factor: int) -> tuple[int, int]:
        package = tmp_path / "made"
        package.mkdir(exist_ok=True)
        texts = {
            "__init__": "",
            "inner": INNER.format(step=step),
            "constants": CONSTANTS.format(factor=factor),
            "middle": MIDDLE,
            "outer": OUTER,
        }
        for name, text in texts.items():
            path = package / f"{name}.py"
            if not path.exists() or path.read_text() != text:
                path.write_text(text)
        done = subprocess.run(
            [sys.executable, "-m", "made.outer"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, "PYTHONPATH": f"{ROOT}:{tmp_path}", "PYTHONDONTWRITEBYTECODE": "1"},
        )
        assert done.returncode == 0, done.stderr
        value, hits = map(int, done.stdout.split())
        return value, hits

    return run


def test_a_change_in_what_is_called_or_named_elsewhere_compiles_anew(run):
    assert run(step=1, factor=2) == (23, 0)
    assert run(step=1, factor=2) == (23, 1)  # kept
    assert run(step=5, factor=2) == (31, 0)  # a function two calls away has changed
    assert run(step=5, factor=3) == (46, 0)  # a constant of another module
    assert run(step=5, factor=3) == (46, 1)


def test_code_that_an_index_names_by_mistake_is_not_run(run, tmp_path):
    """As where a process ends when it has written the index, which comes first, and not yet the code."""
    run(step=1, factor=2)
    old = {path: path.read_bytes() for path in tmp_path.rglob("*.nbc")}
    assert old
    assert run(step=5, factor=2) == (31, 0)
    for path, data in old.items():
        path.write_bytes(data)
    assert run(step=5, factor=2) == (31, 0)
    assert run(step=5, factor=2) == (31, 1)


def test_code_of_other_arguments_is_not_run(tmp_path, monkeypatch):
    """As where two processes take the same name for what they keep."""
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled = machine_code(twice)
    assert compiled(np.array([1.5])).tolist() == [3.0]
    (file,) = tmp_path.rglob("*.nbc")
    wrong = file.read_bytes()
    file.unlink()
    for index in tmp_path.rglob("*.nbi"):
        index.unlink()
    assert machine_code(twice)(np.array([3])).tolist() == [6]
    file.write_bytes(wrong)
    again = machine_code(twice)
    assert again(np.array([3])).tolist() == [6]
    assert not again.stats.cache_hits


def twice(numbers):
    return numbers * 2


def test_code_for_which_the_disk_has_no_room_is_run_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    compiled = machine_code(twice)

    def full(*arguments):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(IndexDataCacheFile, "_open_for_write", full)
    assert compiled(np.array([1.5])).tolist() == [3.0]
    assert not list(tmp_path.rglob("*.nb?"))


@pytest.mark.parametrize(
    "damage",
    [
        ("*.nbi", lambda data: data[: len(data) // 2]),
        ("*.nbi", lambda data: b""),
        ("*.nbi", lambda data: data.replace(b"numba.core.types", b"numba.gone.types")),
        ("*.nbc", lambda data: data[: len(data) // 2]),
        ("*.nbc", lambda data: b""),
    ],
)
def test_what_is_damaged_or_names_what_is_gone_is_compiled_anew(run, tmp_path, damage):
    kind, change = damage
    run(step=1, factor=2)
    files = list(tmp_path.rglob(kind))
    assert files
    changed = 0
    for file in files:
        data = file.read_bytes()
        file.write_bytes(change(data))
        changed += change(data) != data
    assert changed
    assert run(step=1, factor=2) == (23, 0)
    assert run(step=1, factor=2) == (23, 1)


@pytest.mark.parametrize(
    "other",
    [
        lambda table: table.T,
        lambda table: table[:, ::2],
        lambda table: np.broadcast_to(table[0], table.shape),  # nobody may write there
        lambda table: table[0],
    ],
)
def test_arrays_of_another_layout_do_not_compile_in_the_foreground(other):
    def total(table):
        result = 0.0
        for x in table.flat:
            result += x
        return result

    loop = machine_code(total, small=True)
    table = np.arange(12.0).reshape(3, 4)
    loop.allowance = SimpleNamespace(left=0)  # so that it is compiled
    assert loop(table) == 66
    assert len(loop.dispatcher.overloads) == 1
    loop.allowance = SimpleNamespace(left=1000, spend=lambda steps, arguments: None)
    assert loop(other(table)) == other(table).sum()
    assert len(loop.dispatcher.overloads) == 1
    assert loop(table + 1) == 78
    assert len(loop.dispatcher.overloads) == 1
