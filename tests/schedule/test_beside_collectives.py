"""Kernels beside a collective take longer by the cores that it holds; worked by hand, off by default."""

import dataclasses

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.cost import Models
from perfmodel.schedule.beside_collectives import _covered, _united
from tests.handmade import coll, comp, write

SYSTEM = System(
    NPU(1e12, 1e12, cores=132.0), (Dimension(1e9, 0.0, "switch", 2),), name="by hand", dtype="bf16"
)


@pytest.fixture
def graph(tmp_path):
    """Two ranks: an all-reduce of 4 ms beside a kernel of 2 ms and one of 1 ms; then one of 3 ms alone."""
    ranks = [
        [
            coll(size=4_000_000),
            comp(flops=2_000_000_000),
            comp(flops=1_000_000_000, deps=[1]),
            comp(flops=3_000_000_000, deps=[0, 2]),
        ]
    ] * 2
    return pm.load(write(tmp_path, ranks))


def test_by_default_nothing_is_slowed(graph):
    assert pm.predict(graph, SYSTEM).duration[:4].tolist() == pytest.approx(
        [4e-3, 2e-3, 1e-3, 3e-3]
    )
    assert "channels" not in pm.parameters(SYSTEM, Models())


def test_kernels_beside_a_collective_have_the_other_cores(graph):
    """33 of 132 cores held: 4/3 of the time for the two that run beside it, together 4 ms."""
    p = pm.predict(graph, SYSTEM, Models(channels=33.0))
    expected = [4e-3, 2e-3 * 4 / 3, 1e-3 * 4 / 3, 3e-3]
    assert p.duration[:4].tolist() == pytest.approx(expected)
    assert p.makespan == pytest.approx(7e-3)


def test_a_kernel_that_is_beside_a_collective_for_a_part_of_its_time_is_slowed_so_much_less(
    tmp_path,
):
    """An all-reduce of 1 ms beside a kernel of 4 ms: 33 of 132 cores held a quarter of the time."""
    ranks = [[coll(size=1_000_000), comp(flops=4_000_000_000)]] * 2
    p = pm.predict(pm.load(write(tmp_path, ranks)), SYSTEM, Models(channels=33.0))
    assert p.duration[:2].tolist() == pytest.approx([1e-3, 4e-3 * 132 / (132 - 33 / 4)])


def test_kernels_beside_collectives_for_different_shares_are_one_kind_of_cost(tmp_path):
    """Each kind is compiled for itself: a formula per share took as many times as long."""
    ranks = [
        [
            coll(size=1_000_000),
            comp(flops=4_000_000_000),
            coll(size=2_000_000, deps=[1]),
            comp(flops=4_000_000_000, deps=[1]),
        ]
    ] * 2
    p = pm.predict(pm.load(write(tmp_path, ranks)), SYSTEM, Models(channels=33.0))
    slowed = [4e-3 * 132 / (132 - 33 * share) for share in (1 / 4, 1 / 2)]
    assert p.duration[[1, 3]].tolist() == pytest.approx(slowed)
    assert p.compiled.kinds.count(("compute", "other", "", "beside")) == 1


def test_the_channels_are_a_parameter_with_a_derivative(graph):
    compiled = pm.compile(graph, SYSTEM, Models(channels=66.0))
    table = pm.sweep(compiled, {"channels": [0.0, 33.0, 66.0]}, schedule="frozen", breakdown=False)
    assert table.makespan_s.tolist() == pytest.approx([7e-3, 7e-3, 9e-3])


@pytest.mark.parametrize(
    ("cores", "held"), [(25.0, 24.0), (24.0, 23.0), (4.0, 3.0), (1.0, 0.0), (0.5, 0.0)]
)
def test_a_collective_leaves_one_core_on_a_device_with_few(graph, cores, held):
    system = dataclasses.replace(SYSTEM, npu=dataclasses.replace(SYSTEM.npu, cores=cores))
    p = pm.predict(graph, system, Models(channels=24.0))
    assert p.duration[1:3] == pytest.approx(np.array([2e-3, 1e-3]) * cores / (cores - held))


def test_a_system_without_a_number_of_cores_is_refused(graph):
    bare = dataclasses.replace(SYSTEM, npu=NPU(1e12, 1e12))
    with pytest.raises(InputError, match=r"npu\.cores"):
        pm.predict(graph, bare, Models(channels=16.0))


def test_what_intervals_cover():
    begin, end = _united(np.array([5.0, 0.0, 1.0]), np.array([6.0, 2.0, 3.0]))
    assert (begin.tolist(), end.tolist()) == ([0, 5], [3, 6])
    at = np.array([-1.0, 0.0, 2.0, 4.0, 5.5, 9.0])
    assert _covered(at, begin, end).tolist() == [0, 0, 2, 3, 3.5, 4]
