"""The roofline, and memory by bandwidth and latency."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.machine.system import NPU, RemoteMemory, hardware
from perfmodel.models.compute import Roofline
from perfmodel.models.memory import Bandwidth
from perfmodel.parameter_paths import parameters, with_parameters

jax.config.update("jax_enable_x64", True)

positive = st.floats(1e-3, 1e3)


def test_the_slower_of_arithmetic_and_traffic_decides():
    npu = NPU(100.0, 10.0, 1.0)
    time = Roofline().time(jnp.array([200.0, 10.0, 0.0]), jnp.array([1.0, 30.0, 0.0]), npu)
    assert time.tolist() == [2.0, 3.0, 0.0]


def test_efficiencies_and_overhead_count_by_hand():
    model = Roofline(efficiency=0.5, memory_efficiency=0.25, overhead=1.0)
    assert model.time(200.0, 0.0, NPU(100.0, 10.0)).item() == 200 / 50 + 1
    assert model.time(0.0, 30.0, NPU(100.0, 10.0)).item() == 30 / 2.5 + 1


def test_the_a100s_ridge_lies_at_153_flop_per_byte():
    """312 TFLOP/s and 2.039 TB/s: below 153 FLOP/B the memory bounds."""
    npu = hardware("a100-sxm-80").npu
    bytes = jnp.array([1e9, 1e9])
    time = Roofline().time(jnp.array([152e9, 154e9]), bytes, npu)
    assert time[0] == 1e9 / npu.memory_bandwidth
    assert time[1] > 1e9 / npu.memory_bandwidth


@given(positive, positive, positive, positive)
@settings(deadline=None)
def test_twice_the_rates_take_half_the_time(flops, bytes, peak, bandwidth):
    slow = Roofline().time(flops, bytes, NPU(peak, bandwidth))
    fast = Roofline().time(flops, bytes, NPU(2 * peak, 2 * bandwidth))
    assert fast == pytest.approx(slow / 2)


@given(positive, positive)
@settings(deadline=None)
def test_attainable_performance_is_the_roof_of_the_paper(flops, bytes):
    """min(peak, bandwidth x intensity), the paper's own form."""
    npu = NPU(70.0, 3.0)
    rate = flops / Roofline().time(flops, bytes, npu)
    assert rate == pytest.approx(min(70.0, 3.0 * flops / bytes))


def test_local_and_remote_memory_by_hand():
    model = Bandwidth(efficiency=0.5, latency=1.0)
    assert model.local(10.0, NPU(1.0, 4.0)) == 1.0 + 10.0 / 2.0
    assert model.remote(10.0, RemoteMemory(bandwidth=5.0, latency=3.0)) == 3.0 + 2.0


@pytest.mark.parametrize("work", [(3e15, 1e9), (1e12, 5e12)])
def test_gradients_agree_with_central_differences(work):
    system, model = hardware("dgx-h100"), Roofline(0.6, 0.8, 1e-5)

    def time(values):
        here, chosen = with_parameters(system, model, values)
        local = Bandwidth(efficiency=0.9, latency=1e-6).local(work[1], here.npu)
        return chosen.time(*work, here.npu) + local

    paths = ["npu.peak_flops", "npu.memory_bandwidth", "efficiency", "memory_efficiency"]
    known = parameters(system, model)
    at = {path: known[path] for path in paths}
    gradient = jax.grad(time)(at)
    for path, value in at.items():
        step = 1e-6 * value
        up, down = ({**at, path: value + s} for s in (step, -step))
        numeric = (time(up) - time(down)) / (2 * step)
        np.testing.assert_allclose(gradient[path], numeric, rtol=1e-6, atol=1e-12 / value)
