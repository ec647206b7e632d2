"""The time of one operation: what is asked for, arrays in and out, defaults, refusals."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.cost import Models

PLAIN = System(
    NPU(1e15, 1e12, 8e10, dtype_ratios=(("bf16", 1.0), ("fp8", 2.0))),
    (Dimension(100e9, 1e-6, "switch", 8), Dimension(10e9, 5e-6, "switch", 1)),
    name="plain",
    grows=True,
    dtype="bf16",
)


def test_a_product_on_the_bare_roofline_by_hand():
    """2 x 4096^3 FLOP at 1 PFLOP/s, 137.4 us; at fp8 half."""
    sizes = {"m": 4096, "n": 4096, "k": 4096}
    t = pm.operation_time(PLAIN, "gemm", Models(), **sizes)
    assert t.shape == ()
    assert t == pytest.approx(2 * 4096**3 / 1e15)
    assert pm.operation_time(PLAIN, "gemm", Models(), dtype="fp8", **sizes) == pytest.approx(t / 2)
    assert pm.operation_time(PLAIN, "gemm", Models(), batch=3, **sizes) == pytest.approx(3 * t)


def test_sizes_broadcast_and_the_result_has_their_shape():
    t = pm.operation_time(PLAIN, "gemm", m=[[128], [256]], n=[64, 128, 256], k=512)
    assert t.shape == (2, 3)
    assert (np.diff(t, axis=0) > 0).all()


def test_causal_attention_is_half_of_full():
    sizes = dict(batch=1, heads=16, kv_heads=16, query=8192, key=8192, head_size=128)
    full, causal = (pm.operation_time(PLAIN, "attention", causal=c, **sizes) for c in (0, 1))
    assert full == pytest.approx(4 * 16 * 8192**2 * 128 / 1e15)
    assert causal == pytest.approx(full / 2)


def test_memory_bound_kernels_take_their_bytes():
    for kind in ("elementwise", "norm", "reduction", "embedding", "optimizer"):
        assert pm.operation_time(PLAIN, kind, bytes=2e9) == pytest.approx(2e-3)


def test_a_collective_fills_whole_nodes_first():
    """Halving and doubling of 1 GB: 3 + 3 hops in a node of 8; of 2 nodes also 2 hops with an eighth of it."""
    inside = 6 * 1e-6 + 2 * 7 / 8 * 1e9 / 100e9
    t = pm.operation_time(PLAIN, "all_reduce", size=1e9, ranks=[8, 16])
    assert t[0] == pytest.approx(inside)
    assert t[1] == pytest.approx(inside + 2 * 5e-6 + 1e9 / 8 / 10e9)
    assert pm.operation_time(PLAIN, "all_reduce", size=1e9, ranks=1) == 0.0


def test_a_message_goes_from_the_first_rank_to_the_last():
    near, far = pm.operation_time(PLAIN, "send", size=1e9, ranks=[2, 9])
    assert near == pytest.approx(1e-6 + 1e9 / 100e9)
    assert far == pytest.approx(5e-6 + 1e9 / 10e9)


def test_it_agrees_with_a_prediction_of_the_same_collective(tmp_path):
    system = pm.hardware("dgx-h100", ranks=8)
    graph = pm.synth.collective("all_reduce", ranks=8, size=2**26)
    graph.write(tmp_path / "one")
    p = pm.predict(pm.load(tmp_path / "one"), system)
    assert p.makespan == pytest.approx(pm.operation_time(system, "all_reduce", size=2**26, ranks=8))


@pytest.mark.parametrize(
    ("kind", "sizes", "message"),
    [
        ("gem", {"m": 1}, "expected one of gemm"),
        ("gemm", {"m": 1, "n": 1}, "k missing"),
        ("gemm", {"m": 1, "n": 1, "k": 1, "q": 2}, "q unknown"),
        ("gemm", {"m": -1, "n": 1, "k": 1}, "m is -1"),
        ("gemm", {"m": "many", "n": 1, "k": 1}, "expected numbers"),
        ("gemm", {"m": 1, "n": 1, "k": 1, "dtype": "bf8"}, "expected one of fp64"),
        ("gemm", {"m": 1, "n": 1, "k": 1, "dtype": "fp4"}, "fp4"),
        ("all_reduce", {"size": 1}, "ranks missing"),
        ("all_reduce", {"size": 1, "ranks": 2.5}, "ranks is 2.5"),
        ("send", {"size": 1, "ranks": 1}, "ranks is 1"),
    ],
)
def test_what_cannot_be_asked_is_refused(kind, sizes, message):
    with pytest.raises(InputError, match=message):
        pm.operation_time(PLAIN, kind, **sizes)


def test_models_by_a_wrong_name_are_refused():
    with pytest.raises(InputError, match="roofline"):
        pm.operation_time(PLAIN, "elementwise", "rooflin", bytes=1)
