"""Attention by tiles of queries: worked by hand, decode, backward, derivatives."""

import jax.numpy as jnp
import numpy as np
import pytest

from perfmodel.models.attention import TiledAttention, forward_flops
from tests.models.gradients import check_gradient
from tests.models.test_gemm import Device

PLAIN = TiledAttention(launch=0.0, efficiency=1.0, memory_efficiency=1.0, fill=0.0)
FITTED = TiledAttention(launch=1.1e-5, efficiency=0.52, memory_efficiency=0.8, fill=380.0)


def rows(*values):
    return [jnp.array([float(v)]) for v in values]


def test_a_causal_prefill_by_hand():
    """b 2, h 8, s 512, d 64: 4 tiles see 128 (1 + 2 + 3 + 4) = 1,280 keys: 4 x 2 x 8 x 64 x 128 x 1,280 FLOP.

    The longest block sees all 512: 4 x 64 x 128 x 512 FLOP on one of 8 cores, as if all 8 did that much.
    """
    npu = Device(peak_flops=1e12, memory_bandwidth=1e18, cores=8.0)
    total = 4 * 2 * 8 * 64 * 128 * 1280 / 1e12
    longest = 8 * 4 * 64 * 128 * 512 / 1e12
    t = PLAIN.time(*rows(2, 8, 8, 512, 512, 64, 1), npu).item()
    assert t == pytest.approx((total**2 + longest**2) ** 0.5, rel=1e-9)


def test_without_a_mask_every_query_sees_every_key():
    npu = Device(peak_flops=1e12, memory_bandwidth=1e18, cores=1e-9)
    t = PLAIN.time(*rows(1, 4, 4, 256, 1024, 64, 0), npu).item()
    assert t == pytest.approx(4 * 4 * 64 * 256 * 1024 / 1e12, rel=1e-6)


def test_decoding_reads_the_keys_and_values_of_the_groups():
    """One query: 2 g s d numbers of the cache and 2 h d of query and result, whatever the number of cores."""
    npu = Device(peak_flops=1e18, memory_bandwidth=1e12)
    moved = 2 * 4 * 128 * (32 * 1 + 8 * 4096) * 2
    t = PLAIN.time(*rows(4, 32, 8, 1, 4096, 128, 1), npu).item()
    assert t == pytest.approx(moved / 1e12, rel=1e-6)


def test_queries_at_the_end_see_all_keys_before_them():
    """128 queries after 896 earlier keys: one tile that sees 1,024 keys."""
    npu = Device(peak_flops=1e12, memory_bandwidth=1e18)
    t = PLAIN.time(*rows(1, 1, 1, 128, 1024, 64, 1), npu).item()
    assert t == pytest.approx(4 * 64 * 128 * 1024 / 1e12, rel=1e-9)


def test_backward_takes_five_products_instead_of_two():
    npu = Device(memory_bandwidth=1e18)
    sizes = rows(1, 16, 16, 4096, 4096, 128, 1)
    once, back = (PLAIN.time(*sizes, npu, backward=b).item() for b in (0.0, 1.0))
    assert back == pytest.approx(2.5 * once / (63 / 73), rel=1e-9)  # FlashAttention-2, section 4.1


def test_the_forward_flop_are_half_where_causal():
    assert forward_flops(*rows(2, 3, 100, 100, 8, 0)).item() == 4 * 2 * 3 * 8 * 100 * 100
    assert forward_flops(*rows(2, 3, 100, 100, 8, 1)).item() == 2 * 2 * 3 * 8 * 100 * 100


def test_derivatives_equal_central_differences():
    rng = np.random.default_rng(0)
    q = jnp.asarray(rng.choice([1.0, 64.0, 300.0, 1024.0, 8192.0], 40))
    b, h, g = (jnp.asarray(rng.choice([1.0, 4.0, 8.0], 40)) for _ in range(3))

    def time(coefficients, peak_flops, memory_bandwidth, cores):
        npu = Device(peak_flops, memory_bandwidth, cores)
        return coefficients.time(b, h, g, q, 2 * q, 128.0 + 0 * q, q % 2, npu, backward=b % 2)

    check_gradient(time, FITTED, 989e12, 3.35e12, 132.0)
