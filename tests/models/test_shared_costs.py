"""Costs at plain numbers: what a graph's own function gives, and traced once for all graphs."""

import dataclasses

import jax
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.models.compute import Roofline
from perfmodel.models.cost_blocks import CostBlock, DistinctCosts
from perfmodel.models.shared_costs import Costs
from perfmodel.pytree import number, record
from perfmodel.schedule.tasks import build


def table(**settings):
    """The distinct costs of a small model's step."""
    work = pm.synth.training("gpt-3-125m", sequence=1024, attention="flash", **settings)
    system = pm.hardware("dgx-h100", ranks=work.ranks)
    return build(work.graph(), system).work, system


@pytest.mark.parametrize(
    "settings",
    [
        {"data": 2, "tensor": 4, "sharding": 1},
        {"data": 16, "sharding": 3, "dtype": "fp8"},
        {"pipeline": 4, "tensor": 4, "micro_batches": 4, "recompute": "full"},
        {"pipeline": 2, "offload": "optimizer"},
    ],
)
@pytest.mark.parametrize("channels", [None, 20.0])
def test_they_are_those_of_the_graphs_own_function(settings, channels):
    work, system = table(**settings)
    models = system.models.replace(channels=channels)
    costs = Costs(work)
    found = costs(system, models)
    assert isinstance(found, np.ndarray)
    assert found == pytest.approx(np.asarray(costs.own(system, models)), rel=1e-13, abs=0)


def test_another_layout_of_ranks_traces_no_kernel_again(monkeypatch):
    first, system = table(data=2)
    Costs(first)(system, system.models)
    traced = []
    model = type(system.models.compute)
    for name in ("gemm", "attention", "norm", "elementwise"):
        old = getattr(model, name)
        monkeypatch.setattr(model, name, lambda *a, old=old: traced.append(1) or old(*a))
    second, larger = table(data=16, micro_batch=2)
    assert len(larger.network) == 2
    Costs(second)(larger, larger.models)
    assert not traced


def test_two_blocks_of_one_kind_have_their_own_sizes():
    _, system = table(data=2)
    key = ("compute", "other", "bf16")
    one, two = (
        CostBlock(key, np.full((2, 2), size), np.ones(2), k) for k, size in enumerate((1e9, 5e12))
    )
    costs = Costs(DistinctCosts((one, two)))
    found = costs(system, system.models)
    assert found == pytest.approx(np.asarray(costs.own(system, system.models)), rel=1e-13)
    assert found[2] > 2 * found[0]


def test_numbers_that_change_change_the_costs():
    work, system = table(data=2)
    costs = Costs(work)
    faster, models = pm.with_parameters(system, system.models, {"npu.peak_flops": 1e17})
    assert costs(faster, models).sum() < costs(system, system.models).sum()
    assert costs(faster, models) == pytest.approx(np.asarray(costs.own(faster, models)), rel=1e-13)


@record
class Twice:
    """A model of one's own with the fields of the package's, and other times."""

    efficiency: float = number("1", default=1.0)
    memory_efficiency: float = number("1", default=1.0)
    overhead: float = number("s", default=0.0)

    def time(self, flops, bytes, npu):
        return 2.0 * Roofline(self.efficiency, self.memory_efficiency, self.overhead).time(
            flops, bytes, npu
        )


def test_a_model_of_ones_own_is_asked_itself_wherever_it_stands(monkeypatch):
    """Its class may have changed since another graph asked it."""
    work, system = table(data=2)
    costs = Costs(work)
    bare = pm.Models()
    ours = pm.Models(compute=Twice())
    one, two = (np.asarray(costs(system, m)) for m in (bare, ours))
    compute = np.concatenate([np.full(len(b.rows), b.key[0] == "compute") for b in work.blocks])
    assert two[compute] == pytest.approx(2 * one[compute])
    inside = pm.Models(compute=dataclasses.replace(system.models.compute, base=Twice()))
    other = DistinctCosts(
        (CostBlock(("compute", "other", ""), np.full((3, 2), 1e9), np.ones(3), 0),)
    )
    given = Costs(other)(system, inside)

    def thrice(self, flops, bytes, npu):
        return 3.0 * Roofline(self.efficiency, self.memory_efficiency, self.overhead).time(
            flops, bytes, npu
        )

    monkeypatch.setattr(Twice, "time", thrice)
    three = np.asarray(Costs(work)(system, ours))
    assert three[compute] == pytest.approx(3 * one[compute])
    assert Costs(other)(system, inside) == pytest.approx(1.5 * given)


def test_what_jax_traces_or_batches_takes_the_graphs_own_function():
    work, system = table(data=2)
    costs = Costs(work)

    def total(peak):
        return costs(*pm.with_parameters(system, system.models, {"npu.peak_flops": peak})).sum()

    peak = float(system.npu.peak_flops)
    slope = jax.grad(total)(peak)
    step = 1e-5 * peak
    assert slope == pytest.approx((total(peak + step) - total(peak - step)) / (2 * step), rel=1e-4)
    several = jax.vmap(total)(np.array([peak, 2 * peak]))
    assert several[0] == pytest.approx(total(peak))
    assert several[1] < several[0]
    constant = jax.jit(lambda x: x * total(peak))
    assert constant(1.0) == pytest.approx(total(peak))
