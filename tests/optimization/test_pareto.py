"""Pareto fronts: against a closed form, against samples, and what is refused."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis import economics
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.optimization.pareto import undominated

SYSTEM = System(
    NPU(1e15, 3e12, 80e9),
    (Dimension(100e9, 0.0, "ring", 4), Dimension(100e9, 0.0, "switch", 8)),
)
BOUNDS = {f"network.{k}.bandwidth": (1e6, 1e15) for k in range(2)}


@pytest.fixture(scope="module")
def all_reduce():
    return synth.collective("all_reduce", 32, 1 << 30).graph()


@given(st.lists(st.tuples(*[st.integers(1, 6)] * 3), min_size=1, max_size=20))
def test_a_row_is_kept_where_no_other_is_as_good_and_better_somewhere(rows):
    values = np.array(rows, float)
    kept = undominated(values)
    for k, row in enumerate(rows):
        others = [other for j, other in enumerate(rows) if j != k]
        beaten = any(all(a <= b for a, b in zip(other, row)) and other != row for other in others)
        assert kept[k] == (not beaten and row not in rows[:k])


def test_time_against_a_price_of_bandwidth_is_a_hyperbola(all_reduce):
    """min sum v_k / b_k with sum b_k = B gives time x B = (sum of sqrt(v))^2 all along the front."""
    price = "network.0.bandwidth + network.1.bandwidth"
    front = pm.pareto(all_reduce, SYSTEM, bounds=BOUNDS, objectives=("time", price), points=6)
    volume = np.array([2 * 3 / 4, 2 * 7 / 8 / 4]) * 2**30
    inner = front.iloc[1:-1]
    assert len(inner) >= 4
    product = inner.makespan_s * inner[price]
    assert product.to_numpy() == pytest.approx(np.sqrt(volume).sum() ** 2, rel=1e-5)
    assert front[price].is_monotonic_increasing
    assert front.makespan_s.is_monotonic_decreasing
    assert front.own_makespan_s.to_numpy() == pytest.approx(front.makespan_s.to_numpy())


def test_no_sampled_design_beats_a_front_of_three_objectives(all_reduce):
    bounds = {f"network.{k}.bandwidth": (1e10, 1e12) for k in range(2)}
    bounds["npu.peak_flops"] = (1e14, 2e15)
    names = ["makespan_s", "cost_usd", "energy_J"]
    front = pm.pareto(
        all_reduce, SYSTEM, bounds=bounds, objectives=("time", "cost", "energy"), points=16
    )
    points = pm.sample(bounds, 512)
    with pytest.warns(UserWarning, match="no node answers to npu.peak_flops"):
        table = pm.sweep(all_reduce, SYSTEM, points, threads=1, breakdown=False)
    compiled = pm.compile(all_reduce, SYSTEM)
    figures = economics.columns(
        compiled, tuple(bounds), points.to_numpy().T, table.makespan_s.to_numpy()
    )
    sampled = pd.DataFrame({"makespan_s": table.makespan_s, **figures})[names].to_numpy()
    found = front[names].to_numpy()
    beats = (sampled[:, None] < found[None] * (1 - 1e-6)).all(axis=2)
    assert not beats.any()
    again, _ = pm.with_parameters(
        compiled.system, compiled.models, front.loc[1, list(bounds)].to_dict()
    )
    work = economics.totals(all_reduce, SYSTEM)
    expected = economics.figures(again, front.makespan_s[1], work)
    assert found[1] == pytest.approx([float(expected[name]) for name in names], rel=1e-9)


def test_choices_and_constraints_hold_along_the_front(all_reduce):
    bounds = {f"network.{k}.bandwidth": (1e10, 1e12) for k in range(2)}
    front = pm.pareto(
        all_reduce,
        SYSTEM,
        bounds=bounds,
        points=4,
        choices={"network.algorithm": ["ring", "auto"]},
        constraints=["network.0.bandwidth >= 2 * network.1.bandwidth"],
    )
    assert set(front["network.algorithm"]) <= {"ring", "auto"}
    ratio = front["network.0.bandwidth"] / front["network.1.bandwidth"]
    assert (ratio >= 2 * (1 - 1e-6)).all()


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"objectives": ("time",)}, "two or three"),
        ({"objectives": "time"}, "two or three"),
        ({"objectives": ("time", "time")}, "named twice"),
        ({"objectives": ("time", "tyme")}, "did you mean"),
        ({"objectives": ("time", "network.0.bandwidth - 1e20")}, "must be positive"),
        ({"points": 1}, "2 or more"),
        ({"bounds": {}}, "are empty"),
        ({"constraints": ["time <= 1e-9"]}, "meets them"),
    ],
)
def test_a_wrong_wish_is_one_clear_error(all_reduce, changed, message):
    wanted = {"bounds": {"network.0.bandwidth": (1e10, 1e12)}, **changed}
    with pytest.raises(InputError, match=message):
        pm.pareto(all_reduce, SYSTEM, **wanted)
