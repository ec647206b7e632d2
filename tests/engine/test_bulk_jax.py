"""The JAX engine for accelerators, on CPU devices."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from scipy import sparse

import perfmodel as pm
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine import bulk_jax
from perfmodel.engine.bulk_jax import makespans, windowed
from perfmodel.engine.reduction import Reduced
from perfmodel.schedule.certificate import Checks

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
    expected = engine.makespans(compiled.plan, costs)[0]
    np.testing.assert_allclose(
        makespans(windowed(compiled.reduced), costs, batch=16)[0], expected, rtol=1e-13
    )
    single = makespans(windowed(compiled.reduced), costs, dtype=np.float32)[0]
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, rtol=1e-4)


@pytest.mark.parametrize("name", TRACES)
def test_both_engines_find_the_same_critical_paths_at_ties_too(name):
    compiled, costs = designs(name, 37)
    tied = np.random.default_rng(1).integers(0, 3, costs.shape).astype(float)
    for table in (costs, tied):
        expected, counts = engine.makespans(compiled.plan, table, paths=True)
        found, often = makespans(windowed(compiled.reduced), table, batch=16, paths=True)
        np.testing.assert_allclose(found, expected, rtol=1e-13)
        np.testing.assert_array_equal(often, counts)


@pytest.mark.parametrize("seed", range(3))
def test_both_engines_agree_on_random_graphs_comparisons_and_ties(seed):
    choice = np.random.default_rng(seed)
    vertices, distinct = 60, 9
    pred = [
        np.unique(choice.integers(0, v, choice.integers(0, min(v, 9) + 1)))
        for v in range(1, vertices)
    ]
    pred = [np.zeros(0, int), *pred, np.arange(vertices)]
    reduced = Reduced(
        np.append(choice.integers(0, 12, vertices), 0).astype(np.int32),
        np.cumsum([0, *map(len, pred)]).astype(np.int64),
        np.concatenate(pred).astype(np.int32),
        sparse.csr_array(
            choice.integers(0, 3, (12, distinct)).astype(float) * (np.arange(12) > 0)[:, None]
        ),
    )
    a, b, c = choice.integers(0, vertices, (3, 15))
    strict = choice.random(15) < 0.5
    # such as hold on some designs: few at a time
    for few in np.array_split(np.arange(15), 5):
        checks = Checks(
            a[few],
            b[few],
            c[few],
            np.where(strict[few], 1.25, 1.0),
            strict[few],
            np.zeros(0, int),
            np.zeros((0, 2), int),
        )
        costs = choice.integers(0, 4, (distinct, 23)).astype(float)
        held, sure = np.empty(23, np.uint8), np.empty(23, np.uint8)
        expected, counts = engine.makespans(
            engine.plan(reduced, checks), costs, held=held, paths=True
        )
        found, often = makespans(windowed(reduced, checks), costs, batch=8, held=sure, paths=True)
        np.testing.assert_array_equal(found, expected)
        np.testing.assert_array_equal(often, counts)
        np.testing.assert_array_equal(sure, held)


def test_the_window_is_smaller_than_the_graph():
    compiled, _ = designs("gpt_dp2_tp2_pp2", 1)
    plan = windowed(compiled.reduced)
    assert plan.rows < len(compiled.reduced) / 2


EXCHANGES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def shared_by_two() -> None:
    """What a process with two devices runs."""
    compiled, costs = designs("moe_8", 22)
    plan = windowed(compiled.reduced)
    assert len(jax.devices()) == 2
    one, paths_of_one = makespans(plan, costs, devices=jax.devices()[:1], paths=True)
    two, paths_of_two = makespans(plan, costs, paths=True)
    np.testing.assert_array_equal(two, one)
    np.testing.assert_array_equal(paths_of_two, paths_of_one)
    columns = bulk_jax.split_over(jax.devices())
    given = bulk_jax.laid_out(plan, columns), jax.device_put(costs, columns)
    lowered = bulk_jax.run.lower(*given, rows=plan.rows, columns=columns, paths=True)
    program = lowered.compile().as_text()
    assert not [word for word in EXCHANGES if word in program]


def test_designs_are_shared_by_several_devices_which_exchange_nothing():
    subprocess.run(
        [
            sys.executable,
            "-c",
            "from tests.engine.test_bulk_jax import shared_by_two; shared_by_two()",
        ],
        cwd=ROOT,
        check=True,
        timeout=600,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "PYTHONPATH": str(ROOT),
        },
    )
