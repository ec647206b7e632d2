"""Kernels by kind: what answers for which work, the roofline with a rounded corner, memory-bound kernels."""

from types import SimpleNamespace

import jax.numpy as jnp
import numpy as np
import pytest

from perfmodel.models.kernels import Kernels, RoundedRoofline, Traffic
from tests.models.gradients import check_gradient
from tests.models.test_attention import FITTED as FLASH
from tests.models.test_gemm import FITTED as TILES
from tests.models.test_gemm import Device

BASE = RoundedRoofline(3e-6, 0.77, 0.8, 5e6, 1e4)
TRAFFIC = Traffic(launch=2e-6, elementwise=0.87, norm=0.73)
KERNELS = Kernels((TILES,), FLASH, TRAFFIC, BASE)


def test_work_by_flop_and_bytes_by_hand():
    """3 s of arithmetic and 4 s of traffic, rounded by the fourth power: (81 + 256)^(1/4) = 4.2846 s."""
    plain = RoundedRoofline(0.0, 1.0, 1.0, 0.0, 0.0)
    t = plain.time(jnp.array([3e15]), jnp.array([4e12]), Device()).item()
    assert t == pytest.approx(337**0.25)


def test_nothing_to_do_takes_a_launch_and_what_starting_is_worth():
    t = BASE.time(jnp.zeros(1), jnp.zeros(1), Device()).item()
    assert 3e-6 < t < 3.1e-6


def test_memory_bound_kernels_by_hand():
    """1 GB at 87 % of 1 TB/s takes 1.1494 ms, a norm at 73 % 1.3699 ms, and 2 us to start."""
    work = SimpleNamespace(bytes=jnp.array([1e9]))
    for name in ("elementwise", "embedding", "optimizer"):
        assert getattr(KERNELS, name)(work, Device()).item() == pytest.approx(2e-6 + 1e-3 / 0.87)
    for name in ("norm", "reduction"):
        assert getattr(KERNELS, name)(work, Device()).item() == pytest.approx(2e-6 + 1e-3 / 0.73)


def test_a_dtype_without_coefficients_takes_its_relative_s():
    sizes = {"batch": 1.0, "m": 512.0, "n": 512.0, "k": 512.0}
    arrays = {name: jnp.array([value]) for name, value in sizes.items()}
    times = {
        dtype: KERNELS.gemm(
            SimpleNamespace(**arrays, bytes=jnp.zeros(1), dtype=dtype), Device()
        ).item()
        for dtype in ("bf16", "fp16", "fp8")
    }
    assert times["bf16"] == times["fp16"] == TILES.time(*arrays.values(), Device()).item()
    assert times["fp8"] < times["bf16"]  # smaller operands


def test_attention_with_more_than_twice_the_forward_flop_is_a_backward_pass():
    sizes = dict(
        batch=1.0, heads=8.0, kv_heads=8.0, query=2048.0, key=2048.0, head_size=128.0, causal=1.0
    )
    arrays = {name: jnp.array([value]) for name, value in sizes.items()}
    forward = 2.0 * 8 * 128 * 2048 * 2048
    times = [
        KERNELS.attention(
            SimpleNamespace(**arrays, flops=jnp.array([f * forward]), dtype="bf16"), Device()
        ).item()
        for f in (-1.0, 1.0, 2.0, 2.5, 5.0)
    ]
    assert times[0] == times[1] == times[2] < times[3] == times[4]


def test_derivatives_equal_central_differences():
    rng = np.random.default_rng(0)
    flops, moved = (jnp.asarray(np.exp(rng.uniform(12, 30, 30))) for _ in range(2))

    def time(base, traffic, peak_flops, memory_bandwidth):
        npu = Device(peak_flops, memory_bandwidth)
        return base.time(flops, moved, npu) + traffic.time(moved, npu, sums=True)

    check_gradient(time, BASE, TRAFFIC, 989e12, 3.35e12)


def test_a_product_moves_what_it_has_beside_its_matrices():
    """A product bound by memory: 1 GB more at 81 % of the bandwidth; fewer bytes than the matrices' change nothing."""
    sizes = {"batch": 1.0, "m": 16.0, "n": 65536.0, "k": 16384.0}
    arrays = {name: jnp.array([value]) for name, value in sizes.items()}
    matrices = 2.0 * (16 * 16384 + 16384 * 65536 + 16 * 65536)

    def seconds(moved: float) -> float:
        work = SimpleNamespace(**arrays, bytes=jnp.array([moved]), dtype="bf16")
        return KERNELS.gemm(work, Device()).item()

    assert seconds(0.0) == seconds(matrices) == TILES.time(*arrays.values(), Device()).item()
    more = 1e9 / (Device().memory_bandwidth * TILES.memory_efficiency)
    assert seconds(matrices + 1e9) - seconds(matrices) == pytest.approx(more, rel=0.02)
