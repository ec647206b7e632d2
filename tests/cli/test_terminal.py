"""What reaches a terminal, a pipe or a spreadsheet: nothing that they would obey, and nothing lost in silence."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.errors import InputError, one_line, quoted
from perfmodel.trace import chakra

ROOT = Path(__file__).resolve().parents[2]
TRACE = ROOT / "traces" / "all_reduce_4"


def run(*arguments: object, **options) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "perfmodel", *map(str, arguments)],
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        **options,
    )


def trace(folder: Path, name: str, group: str = "") -> Path:
    """One rank with one node of that name, which takes 7 us."""
    found = chakra.build(
        [name, "all"],
        [4, 7],
        id=np.array([1, 2]),
        num_ops=[10**9, -1],
        tensor_size=[10, -1],
        comm_type=[-1, 0],
        comm_size=[-1, 8],
        group=[-1, 0 if group else -1],
        group_names=(group,) if group else (),
    )
    folder.mkdir(exist_ok=True, parents=True)
    chakra.write_bytes(folder / "t.0.et", chakra.encode(found))
    return folder


EVIL = "gemm\nperfmodel: all is well\x1b[2J\x07\u202e\x9b"


def test_names_cannot_forge_lines_or_send_escape_sequences(tmp_path):
    folder = trace(tmp_path / "evil\nname\x1b[1m", EVIL, group=EVIL)
    for command in ("run", "inspect", "timeline"):
        more = ["--unknown-group", "world"] if command != "inspect" else []
        done = run(command, folder, "--system", "h100-sxm", *more, capture_output=True) \
            if command != "inspect" else run(command, folder, capture_output=True)  # fmt: skip
        text = done.stdout + done.stderr
        assert all(c.isprintable() for c in text.replace("\n", "")), repr(text)
        assert not [line for line in text.splitlines() if line.startswith("perfmodel: all is well")]
        assert r"\x1b" in text or command == "timeline"


def test_endless_names_make_short_messages(tmp_path):
    folder = trace(tmp_path / "t", "n" * 60_000, group="g" * 60_000)
    done = run("run", folder, "--system", "h100-sxm", capture_output=True)
    assert done.returncode == 1
    assert len(done.stderr) < 5000
    assert "unknown group" in done.stderr
    assert len(str(InputError("x" * 10**7))) < 5000
    assert len(quoted("x" * 10**7)) < 100


@pytest.mark.parametrize("text", ["a\nb", "\x1b[31m", "\u2028", "\u202e", "\ud800", "\x00", "\x85"])
def test_a_line_obeys_nothing(text):
    shown = one_line(text)
    assert shown.isprintable()
    assert "\n" not in shown
    error = InputError(f"{text}: is wrong", "second line")
    assert str(error).count("\n") == 1
    assert str(error).endswith("second line")


def test_errors_survive_pickling():
    import copy

    error = pm.TraceError("one", "two")
    again = copy.copy(error)
    assert type(again) is pm.TraceError
    assert str(again) == "one\ntwo"


@pytest.mark.parametrize("name", ["=cmd|' /C calc'!A0", "@SUM(1)", "+1+1", "-1+1", "\t=1"])
def test_a_spreadsheet_runs_no_name(tmp_path, name):
    folder = trace(tmp_path / "t", name)
    done = run("run", folder, "--system", "h100-sxm", "-o", tmp_path / "x.csv", capture_output=True)
    assert done.returncode == 0, done.stderr
    with (tmp_path / "x.csv").open(newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert "'" + name in cells
    numbers = [cell for cell in cells if cell[:1] in "=+@\t-" and cell]
    assert all(_is_number(cell) for cell in numbers)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def test_a_closed_pipe_is_no_error(tmp_path):
    command = f"{sys.executable} -m perfmodel timeline {ROOT / 'traces' / 'gpt_dp2_tp2_pp2'}"
    done = subprocess.run(
        ["bash", "-c", f"{command} | head -1; echo ${{PIPESTATUS[0]}}"],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize("where", [">&-", "> /dev/full"])
def test_output_that_is_lost_is_said(where):
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m perfmodel inspect {TRACE} {where}"],
        stderr=subprocess.PIPE,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 1
    assert "standard output" in done.stderr


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("NUMBA_DISABLE_JIT", "1", "NUMBA_DISABLE_JIT is set in the environment"),
        ("PERFMODEL_COMPILE", "never", "PERFMODEL_COMPILE is 'never' in the environment; expected"),
        ("JAX_PLATFORMS", "nowhere", "none of the platforms that JAX_PLATFORMS names ('nowhere')"),
    ],
)
def test_an_environment_in_which_nothing_can_be_computed_is_one_message(name, value, said):
    command = [sys.executable, "-m", "perfmodel", "sweep", str(TRACE)]
    done = subprocess.run(
        [*command, "--system", "dgx-h100", "--vary", "network.0.latency=0,1e-6"],
        env={**os.environ, name: value},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert said in done.stderr
    assert "Traceback" not in done.stderr
