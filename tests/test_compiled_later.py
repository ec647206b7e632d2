"""What is due to be compiled is compiled by a process that nobody waits for, and found by the next command."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numba
import numpy as np
import pytest

from perfmodel.compiled_code.later import WHEN, description, example

RUN = """
import numpy as np
from perfmodel.compiled_code.allowance import Allowance
from perfmodel.workload import edges

loop = edges.reverse
loop.allowance = Allowance(loop.dispatcher, 200)
ptr, pred = np.arange(21), np.zeros(20, np.int32)
for _ in range({calls}):  # of 41 steps each
    loop(ptr, pred)
print(len(loop.dispatcher.overloads))
"""


def printed(program: str, folder: Path, given: str = "", **environment: str) -> str:
    """What a process prints that runs a program and keeps its machine code in a folder; `given` is its input."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", program],
        input=given,
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        env={
            **os.environ,
            "PYTHONPATH": str(Path(__file__).parents[1]),
            "NUMBA_CACHE_DIR": str(folder),
            **environment,
        },
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def compiled_after(calls: int, folder: Path, **environment: str) -> int:
    """How often a process has compiled a loop, or loaded it, that it has called so often."""
    return int(printed(RUN.format(calls=calls), folder, **{WHEN: "later", **environment}))


def kept(folder: Path) -> bool:
    """Whether there is machine code of the loop."""
    return any("reverse" in file.name for file in folder.rglob("*.nbc"))


def test_a_loop_that_is_due_is_compiled_when_the_process_has_ended(tmp_path):
    assert compiled_after(1, tmp_path) == 0
    assert compiled_after(1, tmp_path) == 0  # more than a quarter of 200 steps are done by now
    for _ in range(600):
        if kept(tmp_path):
            break
        time.sleep(0.1)
    assert kept(tmp_path)
    assert compiled_after(1, tmp_path) == 1


def test_a_process_whose_own_work_is_worth_it_compiles_itself(tmp_path):
    assert compiled_after(6, tmp_path) == 1


def test_with_now_it_compiles_what_all_processes_have_made_due(tmp_path):
    for expected in (0, 1):
        assert compiled_after(3, tmp_path, **{WHEN: "now"}) == expected
    assert kept(tmp_path)


COMPILE = """
import fcntl, sys
from perfmodel.compiled_code.__main__ import main

def flock(file, how):
    raise {error}

if {replace}:
    fcntl.flock = flock
main()
"""


@pytest.mark.parametrize(
    ("error", "compiles"),
    [
        ("OSError(37, 'No locks available')", True),
        ("OSError(95, 'Operation not supported')", True),
        ("BlockingIOError(11, 'another process compiles it')", False),
        (None, True),
    ],
)
def test_a_file_system_without_locks_keeps_nobody_from_compiling(tmp_path, error, compiles):
    ptr, pred = np.arange(21), np.zeros(20, np.int32)
    wanted = [["perfmodel.workload.edges", "reverse", [description(ptr), description(pred)]]]
    program = COMPILE.format(error=error, replace=error is not None)
    printed(program, tmp_path, given=json.dumps(wanted))
    assert kept(tmp_path) == compiles


FLAT = np.zeros((4, 6))
FROZEN = np.zeros(3)
FROZEN.flags.writeable = False


@pytest.mark.parametrize(
    "argument",
    [
        *(True, 3, 2.5, None, np.int32(3), np.float32(1), (), (1, (2.0, np.zeros(3, np.int32)))),
        *(FLAT, FLAT.T, FLAT[:, ::2], FLAT[0, ::2], FLAT[::2, 0], np.zeros((0, 3), bool), FROZEN),
    ],
)
def test_an_example_has_the_type_of_what_was_described(argument):
    assert numba.typeof(example(description(argument))) == numba.typeof(argument)


def test_what_no_loop_takes_is_an_error():
    with pytest.raises(TypeError, match="compiled loops take"):
        description("text")
