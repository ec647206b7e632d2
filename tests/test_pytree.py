"""Records are known to JAX whether they were made before it was imported or after."""

from __future__ import annotations

import subprocess
import sys

import pytest

PUBLIC = """
import perfmodel as pm

@pm.record
class Point:
    x: float = pm.number("m")
    label: str = pm.static(default="")

import jax

assert jax.tree.leaves(Point(2.0, "here")) == [2.0]
assert jax.tree.leaves(pm.System(Point(3.0))) == [3.0]
assert jax.numpy.asarray(1.0).dtype == "float64"
"""

EARLY = """
import sys
from perfmodel.machine.system import hardware
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.pytree import number, record

@record
class Early:
    x: float = number("m")

system = hardware("dgx-h100")
found = parameters(system)
assert "jax" not in sys.modules

from perfmodel.models.cost import Models
import jax

assert jax.tree.leaves(system) == list(found.values())
assert jax.tree.leaves(Early(2.0)) == [2.0]
assert jax.numpy.asarray(1.0).dtype == "float64"
changed, _ = with_parameters(system, Models(), {"npu.peak_flops": 1e15})
assert parameters(changed) == {**found, "npu.peak_flops": 1e15}
"""


@pytest.mark.parametrize("script", [PUBLIC, EARLY])
def test_records_are_known_to_jax(script):
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
