"""Costs of plain numbers take no compilation, and are those that JAX computes."""

from __future__ import annotations

import jax
import numpy as np

import perfmodel.pytree  # noqa: F401  (switches JAX to 64-bit numbers)
from perfmodel.astra.costs import ARRIVAL, FIXED, HOLD, MESSAGE, REDUCTION, ROOFLINE, RowTable


def table():
    """A row of most kinds."""
    rows = RowTable()
    rows.row(FIXED, 12.5)
    rows.row(ROOFLINE, 1e9, 3e6)
    rows.row(REDUCTION, 12345.0)
    rows.row(HOLD, 999.0)
    rows.row(ARRIVAL, 999.0)
    rows.row(MESSAGE, 65537.0, 0.0, 3.0)
    return rows.finish()[0]


def parameters(kind):
    """Hardware, its numbers as `kind` makes them."""
    known = {
        "npu.peak_flops": 1e14 / 3,
        "npu.memory_bandwidth": 2e12 / 7,
        "endpoint_delay": 1e-8,
        "network.0.bandwidth": 5e10 / 3,
        "network.0.latency": 5e-7 / 3,
    }
    return {path: kind(value) for path, value in known.items()}


def test_plain_numbers_and_jax_agree_to_the_bit():
    plain = table().evaluate(parameters(float), truncate=False)
    with jax.disable_jit():
        traced = table().evaluate(parameters(jax.numpy.asarray), truncate=False)
    assert isinstance(plain, np.ndarray)
    assert isinstance(traced, jax.Array)
    assert plain.tobytes() == np.asarray(traced).tobytes()


def test_a_rate_of_infinity_costs_nothing_without_a_warning():
    infinite = parameters(float) | {"npu.peak_flops": np.inf, "npu.memory_bandwidth": np.inf}
    assert (table().evaluate(infinite, truncate=False)[:4] >= 0).any()


def test_designs_are_columns_for_plain_arrays_too():
    wide = parameters(lambda value: np.array([value, 2 * value]))
    found = table().evaluate(wide, truncate=False)
    assert found.shape == (6, 2)
    here = table().evaluate(parameters(float), truncate=False)
    assert found[:, 0].tobytes() == here.tobytes()
