"""A child of a process that has computed says at once what it cannot do; one forked before computes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
CHILD = """
import os, sys, warnings
warnings.simplefilter("ignore")
import perfmodel as pm
from perfmodel import synth
graph = synth.collective("all_reduce", 2, 1 << 20).graph()
system = pm.hardware("dgx-h100", ranks=2)
compiled = None
if sys.argv[1] == "after":
    compiled = pm.compile(graph, system)
    pm.evaluate(compiled)
child = os.fork()
if child:
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
work = {
    "sweep": lambda: pm.sweep(graph, system, {"npu.peak_flops": [1e14, 1e15]}),
    "evaluate": lambda: pm.evaluate(compiled or pm.compile(graph, system)),
}
try:
    work[sys.argv[2]]()
except pm.InputError as error:
    print(error)
    os._exit(3)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system does not fork")
@pytest.mark.parametrize("verb", ["sweep", "evaluate"])
@pytest.mark.parametrize(("when", "status"), [("after", 3), ("before", 0)])
def test_a_forked_process_computes_or_says_that_it_cannot(when, status, verb):
    done = subprocess.run(
        [sys.executable, "-c", CHILD, when, verb],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == status, done.stderr
    assert ("spawn" in done.stdout) == (when == "after")
