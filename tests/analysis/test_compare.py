"""Two predictions side by side: differences that add up, worked by hand."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from tests.handmade import coll, comp, write

SLOW = System(NPU(1e12, 1e12), (Dimension(1e11, 0.0, "switch", 2),))
FAST = System(NPU(4e12, 1e12), (Dimension(5e10, 0.0, "switch", 2),))


@pytest.fixture
def graph(tmp_path):
    line = [comp(4 * 10**9, 0, name="f0.mlp"), coll(size=10**8, name="sum", deps=[0])]
    return pm.load(write(tmp_path, [line] * 2))


def test_a_quicker_npu_and_a_slower_network_worked_by_hand(graph):
    table = pm.compare((graph, SLOW), (graph, FAST)).set_index(["section", "item"])
    total = table.loc["makespan", "makespan"]
    # 4 ms + 1 ms against 1 ms + 2 ms
    assert total.a_s == pytest.approx(5e-3, rel=1e-12)
    assert total.b_s == pytest.approx(3e-3, rel=1e-12)
    assert total.ratio == pytest.approx(0.6, rel=1e-12)
    assert total.share == 1
    compute = table.loc["category", "compute"]
    assert compute.difference_s == pytest.approx(-3e-3, rel=1e-12)
    assert compute.share == pytest.approx(1.5, rel=1e-12)
    assert table.loc[("type", "ALL_REDUCE"), "difference_s"] == pytest.approx(1e-3, rel=1e-12)
    assert table.loc[("component", "f*"), "ratio"] == pytest.approx(0.25, rel=1e-12)
    assert np.isnan(table.loc[("category", "memory"), "ratio"])


def test_predictions_and_pairs_and_models_may_be_given(graph):
    a = pm.predict(graph, SLOW)
    models = pm.Models(compute=pm.Models().compute.__class__(efficiency=0.5))
    table = pm.compare(a, (graph, SLOW, models), by=["category"])
    assert table.difference_s[0] == pytest.approx(4e-3, rel=1e-12)
    assert list(table.section) == ["makespan"] + ["category"] * 4
    assert table["item"][1] == "compute"


def test_equal_predictions_differ_in_nothing(graph):
    table = pm.compare((graph, SLOW), (graph, SLOW))
    assert (table.difference_s == 0).all()
    assert table.share.isna().all()


def test_every_section_adds_up_to_the_makespans_on_a_reference_trace(shared):
    graph = pm.load(shared / "reference/astra-sim/traces/llm_dp2tp2pp2")
    slow = pm.whatif.straggler(graph, 3, 1.7)
    table = pm.compare(
        (graph, pm.hardware("dgx-a100", ranks=8)),
        (slow, pm.hardware("dgx-h100", ranks=8)),
        by=["category", "type", "component", "group"],
        depth=2,
    )
    total = table.iloc[0]
    for _, part in table.iloc[1:].groupby("section"):
        assert part.a_s.sum() == pytest.approx(total.a_s, rel=1e-9)
        assert part.b_s.sum() == pytest.approx(total.b_s, rel=1e-9)
        assert part.share.sum() == pytest.approx(1, rel=1e-9)
        assert part.difference_s.abs().is_monotonic_decreasing


def test_other_things_and_sections_are_refused(graph):
    with pytest.raises(pm.InputError, match="b is Graph"):
        pm.compare((graph, SLOW), graph)
    with pytest.raises(pm.InputError, match="'layer', expected some of category"):
        pm.compare((graph, SLOW), (graph, SLOW), by=["layer"])
