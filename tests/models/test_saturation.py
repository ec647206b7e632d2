"""Rates that only large operations reach: half at the half size, limits, and gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.machine.placement import Span
from perfmodel.machine.system import NPU, Dimension
from perfmodel.models.compute import Roofline
from perfmodel.models.network import AlphaBeta
from perfmodel.models.saturation import SaturatingAlphaBeta, SaturatingRoofline, stretched

RING = (Dimension(1e9, 0.0, "ring", 4),)
PAIR = Span((4,), (1,))


def test_the_half_size_takes_twice_as_long_as_at_the_full_rate():
    model = SaturatingAlphaBeta(half_size=3e6, sharpness=0.4)
    size = jnp.array([3e6])
    full = AlphaBeta().collective("all_gather", size, PAIR, RING)
    half = model.collective("all_gather", size, PAIR, RING)
    assert half[0] == pytest.approx(float(2 * full[0]), rel=1e-12)
    assert model.point_to_point(size, (1,), RING)[0] == pytest.approx(2 * 3e6 / 0.5e9, rel=1e-12)


def test_sharpness_one_is_a_constant_latency():
    sizes = jnp.array([1.0, 1e3, 1e9])
    assert np.allclose(stretched(sizes, 5e5, 1.0) - sizes, 5e5, rtol=1e-12)


def test_large_operations_reach_the_base_model_and_none_is_quicker():
    npu = NPU(1e12, 1e11)
    model = SaturatingRoofline(base=Roofline(overhead=1e-6), half_flops=1e6, half_bytes=1e3)
    flops, moved = np.geomspace(1e3, 1e16, 40), np.geomspace(1e2, 1e12, 40)
    base = Roofline(overhead=1e-6).time(flops, moved, npu)
    time = model.time(jnp.array(flops), jnp.array(moved), npu)
    assert (time >= base).all()
    assert time[-1] == pytest.approx(float(base[-1]), rel=1e-4)
    assert (np.diff(time) > 0).all()


def test_no_bytes_take_no_time_and_have_finite_gradients():
    def time(sharpness):
        model = SaturatingAlphaBeta(sharpness=sharpness)
        return model.collective("barrier", jnp.zeros(1), PAIR, RING)[0]

    assert time(0.5) == 0
    assert jax.grad(time)(0.5) == 0


def test_gradients_equal_central_differences():
    network = (Dimension(1e9, 1e-6, "switch", 4),)
    sizes = jnp.array([1e3, 1e6, 1e9])

    def time(values):
        model = SaturatingAlphaBeta(AlphaBeta(efficiency=values[0]), values[1], values[2])
        return model.collective("all_reduce", sizes, PAIR, network).sum()

    point = np.array([0.8, 2e6, 0.6])
    gradient = jax.grad(time)(jnp.array(point))
    for k, value in enumerate(point):
        step = 1e-5 * value * np.eye(3)[k]
        difference = (time(point + step) - time(point - step)) / (2e-5 * value)
        assert gradient[k] == pytest.approx(float(difference), rel=1e-7)


def test_its_coefficients_are_parameters_by_path():
    models = pm.Models(compute=SaturatingRoofline(), network=SaturatingAlphaBeta())
    names = pm.parameters(pm.hardware("dgx-h100"), models)
    assert {"compute.base.efficiency", "compute.half_flops", "network.half_size"} <= set(names)
