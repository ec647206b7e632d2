"""The JAX engine for accelerators, on CPU devices."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine.bulk_jax import makespans, window

ROOT = Path(__file__).resolve().parents[2]
TRACES = ("gpt_dp2_tp2_pp2", "fsdp_8", "moe_8", "all_reduce_4")


def designs(name: str, count: int):
    graph = pm.load(ROOT / "traces" / name)
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=graph.ranks))
    cost = np.asarray(compiled.evaluate(compiled.system, compiled.models))
    factors = np.random.default_rng(0).uniform(0.2, 5.0, (len(cost), count))
    return compiled, cost[:, None] * factors


@pytest.mark.parametrize("name", TRACES)
def test_both_engines_agree(name):
    compiled, costs = designs(name, 37)
    expected = engine.makespans(compiled.plan, costs)
    np.testing.assert_allclose(
        makespans(window(compiled.reduced), costs, batch=16), expected, rtol=1e-13
    )
    single = makespans(window(compiled.reduced), costs, dtype=np.float32)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4)


def test_the_window_is_smaller_than_the_graph():
    compiled, _ = designs("gpt_dp2_tp2_pp2", 1)
    plan = window(compiled.reduced)
    assert plan.rows < len(compiled.reduced) / 2


def test_designs_are_shared_by_several_devices():
    code = (
        "import sys; sys.path.insert(0, '.'); import numpy as np, jax\n"
        "from tests.engine.test_bulk_jax import designs\n"
        "from perfmodel.engine.bulk_jax import window, makespans\n"
        "c, costs = designs('moe_8', 21)\n"
        "one = makespans(window(c.reduced), costs, devices=jax.devices()[:1])\n"
        "two = makespans(window(c.reduced), costs)\n"
        "assert len(jax.devices()) == 2 and (one == two).all()\n"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        check=True,
        timeout=200,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(ROOT),
        },
    )
