"""Equal things have equal hashes in every process; different ones do not."""

from __future__ import annotations

import importlib.util
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
    assert identity(lambda x: x + 1) != identity(lambda x: x + 2)


def somebodys(folder: Path, factor: str) -> type:
    """A class of models as a user's file has it."""
    file = folder / f"file{factor}.py"
    file.write_text(f"""
import perfmodel as pm

@pm.record
class Ours:
    size: float = pm.number("1", default=0.8)

    def time(self, flops, bytes, npu):
        "What it takes."
        return [x for x in {factor} * flops if self.size]
""")
    spec = importlib.util.spec_from_file_location("ours", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.Ours


def test_what_the_methods_of_somebodys_own_model_do_counts(tmp_path):
    one, same, other = (somebodys(tmp_path, factor)() for factor in ("2.0", "2.0", "3.0"))
    assert type(one) is not type(same)
    assert identity(one) == identity(same) != identity(other)


def test_a_hash_is_the_same_in_another_process():
    code = (
        "import perfmodel as pm; from perfmodel import synth; from perfmodel.workload.identity import identity;"
        "print(identity((pm.hardware('dgx-h100', ranks=8), pm.Models())),"
        "synth.training({'layers': 1, 'hidden': 256, 'heads': 4}, sequence=64).graph().digest,"
        "identity(lambda word: word in {'a', 'b', 'c', 'd'}))"
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
