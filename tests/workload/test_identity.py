"""Equal things have equal hashes in every process; different ones do not."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

import perfmodel as pm
from perfmodel.workload.identity import identity

ROOT = Path(__file__).resolve().parents[2]


def test_one_bit_of_a_number_and_one_label_count():
    system = pm.hardware("dgx-h100", ranks=8)
    same = pm.hardware("dgx-h100", ranks=8)
    assert identity(system) == identity(same)
    peak = float(system.npu.peak_flops)
    moved, _ = pm.with_parameters(system, None, {"npu.peak_flops": np.nextafter(peak, np.inf)})
    assert identity(moved) != identity(system)
    assert identity(replace(system, name="x")) != identity(system)
    assert identity(pm.Models()) == identity(pm.Models())
    assert identity(pm.Models(prefer="recorded")) != identity(pm.Models())
    assert identity([]) != identity([[]]) != identity(["", ""]) != identity([""])
    assert identity(1) != identity(1.0) != identity(np.float64(1))
    assert identity(max) == identity(max) != identity(min)
    assert identity(lambda x: x + 1) != identity(lambda x: x * 1)


def test_a_hash_is_the_same_in_another_process():
    code = (
        "import perfmodel as pm; from perfmodel import synth; from perfmodel.workload.identity import identity;"
        "print(identity((pm.hardware('dgx-h100', ranks=8), pm.Models())),"
        "synth.training({'layers': 1, 'hidden': 256, 'heads': 4}, sequence=64).graph().digest)"
    )
    here = {
        subprocess.run(
            [sys.executable, "-c", code],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    }
    assert len(here) == 1
