"""Matrix products by tiles: cases worked by hand, properties, derivatives, bulk."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models.gemm import TiledGemm
from perfmodel.pytree import number, record, static
from tests.models.gradients import check_gradient


@record
class Device:
    peak_flops: float = number("FLOP/s", default=1e15)
    memory_bandwidth: float = number("B/s", default=1e12)
    cores: float = number("1", default=100.0)


PLAIN = TiledGemm(
    launch=0.0, efficiency=1.0, memory_efficiency=1.0, fill=0.0, step=0.0, join=1.0,
    whole_waves=1.0, reach=1e9, kept=1e-9,
)  # fmt: skip
"""Nothing but tiles, waves and memory; splitting k costs a second."""

FITTED = TiledGemm(
    launch=2.4e-6, efficiency=0.82, memory_efficiency=0.81, fill=120.0, step=1e6, join=2.4e-6,
    whole_waves=0.3, reach=0.016, kept=1.3e7,
)  # fmt: skip


def rows(*values):
    return [jnp.array([float(v)]) for v in values]


def test_a_last_wave_with_one_tile_takes_as_long_as_a_full_one():
    """2,560 x 2,560 in 256 x 128 tiles: 200 of them, 2 waves on 100 cores; one more column of tiles makes 3.

    Smaller tiles have the same work when they fill their waves: 256 x 128, 128 x 256, 128 x 128 (400 tiles, 4 waves),
    128 x 64, 64 x 128 (800, 8), 64 x 64 (1,600, 16), 32 x 64 (3,200, 32), 16 x 64 (6,400, 64): all 8 equal.
    """
    npu = Device(memory_bandwidth=1e18)
    work = 2.0 * 2560 * 2560 * 4096
    equal = PLAIN.time(*rows(1, 2560, 2560, 4096), npu).item()
    assert equal == pytest.approx(work / 1e15 * 8 ** (-1 / 128), rel=1e-9)
    one_tile = Device(memory_bandwidth=1e18, cores=199.0)
    assert PLAIN.time(*rows(1, 2560, 2560, 4096), one_tile).item() > equal


def test_a_product_by_hand_in_one_tile_and_its_memory():
    """m = n = 16, k = 1000, 1 core: a tile of 16 x 64 is 2 x 16 x 64 x 1,000 FLOP, 2.048 ms at 1 GFLOP/s; memory 65 us.

    The next tile, 32 x 64, takes twice that, so the soft minimum leaves the first alone.
    """
    npu = Device(peak_flops=1e9, memory_bandwidth=1e9, cores=1.0)
    traffic = 2 * (16 * 1000 + 1000 * 16 + 16 * 16) / 1e9
    expected = ((2.048e-3) ** 4 + traffic**4) ** 0.25
    assert PLAIN.time(*rows(1, 16, 16, 1000), npu).item() == pytest.approx(expected, rel=1e-9)


def test_a_product_bound_by_memory_takes_its_traffic():
    npu = Device(memory_bandwidth=1e9)
    traffic = 2 * (64 * 4096 + 4096 * 4096 + 64 * 4096)
    assert PLAIN.time(*rows(1, 64, 4096, 4096), npu).item() == pytest.approx(
        traffic / 1e9, rel=1e-6
    )


def test_an_activation_in_the_cache_is_not_read_again():
    cached = FITTED.time(*rows(1, 8192, 64, 512), Device())
    cold = TiledGemm(
        *(getattr(FITTED, f) for f in list(FITTED.__dataclass_fields__)[:8]), kept=1e-6
    )
    assert cached.item() < cold.time(*rows(1, 8192, 64, 512), Device()).item()


def test_few_tiles_split_the_sum_over_k():
    """64 x 64 results of k = 100,000 on 100 cores: one tile keeps one core busy, 16 parts sixteen of them."""
    npu = Device()
    whole = FITTED.time(*rows(1, 64, 64, 100_000), npu).item()
    alone = FITTED.launch + FITTED.work(*rows(1, 64, 64, 100_000), (1,), 100.0, 2.0).item() / 1e15
    assert whole < alone / 3


def test_a_batch_is_as_many_tiles():
    npu = Device(memory_bandwidth=1e18)
    one = PLAIN.time(*rows(1, 2560, 2560, 512), npu)
    four = PLAIN.time(*rows(4, 2560, 2560, 512), npu)
    assert four.item() == pytest.approx(4 * one.item(), rel=1e-9)


@pytest.mark.parametrize("dtype", ["bf16", "fp8", "fp32"])
def test_more_of_anything_is_never_faster(dtype):
    """Along k, and in peak rate and bandwidth; along m and n a fuller tile may be better used."""
    k = jnp.asarray(np.geomspace(32, 65536, 60))
    one = jnp.ones_like(k)
    t = FITTED.time(one, 512 * one, 1024 * one, k, Device(), dtype)
    assert (jnp.diff(t) > 0).all()
    assert (FITTED.time(one, 512 * one, 1024 * one, k, Device(2e15, 2e12), dtype) < t).all()


def test_large_products_reach_the_efficiency():
    t = FITTED.time(*rows(1, 32768, 32768, 65536), Device(memory_bandwidth=1e14)).item()
    assert 2.0 * 32768**2 * 65536 / t / 1e15 == pytest.approx(FITTED.efficiency, rel=0.01)


@record
class Limited(Device):
    """A device whose power keeps up half of its peak in fp8."""

    sustained: tuple = static(default=(("fp8", 0.5),))


@pytest.mark.parametrize("dtype", ["fp8", "fp8_promoted"])
def test_a_large_product_takes_the_energy_of_its_flop_where_power_limits(dtype):
    large = rows(1, 8192, 8192, 8192)
    free, limited = (PLAIN.time(*large, d, dtype).item() for d in (Device(), Limited()))
    assert limited == pytest.approx(2 * 8192**3 / 0.5e15, rel=1e-2)
    assert free < 0.55 * limited
    small = rows(1, 256, 256, 256)
    free, limited = (FITTED.time(*small, d, dtype).item() for d in (Device(), Limited()))
    assert limited == pytest.approx(free, rel=1e-3)
    free, limited = (PLAIN.time(*large, d, "bf16").item() for d in (Device(), Limited()))
    assert limited == free


def test_a_relatives_coefficients_keep_within_the_power_of_the_device():
    system = pm.hardware("gb200-nvl72", ranks=8)
    n = 16384.0
    seconds = pm.operation_time(system, "gemm", m=n, n=n, k=n, dtype="fp8")
    assert 0.9 * 2559e12 < 2 * n**3 / float(seconds) < 2559e12
    own = pm.hardware("dgx-h100", ranks=8)
    assert own.npu.sustained == ()


def test_a_device_without_a_number_of_cores_takes_the_fitted_one_s():
    sizes = rows(1, 4096, 4096, 4096)
    fitted = FITTED.time(*sizes, Device(cores=132.0))
    assert (
        FITTED.time(*sizes, Device(cores=0.0)) == FITTED.time(*sizes, Device(cores=None)) == fitted
    )


def test_derivatives_equal_central_differences():
    rng = np.random.default_rng(0)
    m, n, k = (jnp.asarray(np.round(np.exp(rng.uniform(3, 9, 40)))) for _ in range(3))
    batch = jnp.asarray(rng.integers(1, 4, 40).astype(float))

    def time(coefficients, peak_flops, memory_bandwidth):
        return coefficients.time(batch, m, n, k, Device(peak_flops, memory_bandwidth, 132.0))

    check_gradient(time, FITTED, 989e12, 3.35e12)


def test_jit_and_vmap_give_the_same_numbers():
    m, n, k = (jnp.array([64.0, 4096.0, 8192.0]) for _ in range(3))
    time = jax.jit(jax.vmap(lambda peak: FITTED.time(jnp.ones(3), m, n, k, Device(peak))))
    alone = FITTED.time(jnp.ones(3), m, n, k, Device(5e14))
    assert np.allclose(time(jnp.array([1e15, 5e14]))[1], alone, rtol=1e-13)


def test_a_product_of_odd_rows_keeps_the_share_of_its_speed_that_is_known():
    """50,257 columns of 2 B begin at odd halves of 4 B; 50,258 do not. Without a figure both are as fast.

    Half the speed is twice the arithmetic, nearly all of this product's time.
    """
    slow = dataclasses.replace(FITTED, unaligned=0.5)

    def seconds(tiles, n):
        sizes = [jnp.array([x]) for x in (1.0, 4096.0, n, 4096.0)]
        return tiles.time(*sizes, Device()).item()

    assert seconds(slow, 50_258.0) == seconds(FITTED, 50_258.0)
    assert 1.95 < seconds(slow, 50_257.0) / seconds(FITTED, 50_257.0) < 2
