"""Operator statistics and differences, with numbers worked by hand."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.report.statistics import operator
from tests.handmade import coll, comp, write


@pytest.fixture
def graph(tmp_path):
    nodes = [
        comp(id=1, name="layer0.mlp", duration=10, flops=100),
        comp(id=2, name="layer1.mlp", duration=30, flops=100, deps=[1]),
        {"type": 4, "id": 3, "name": "aten::add", "duration": 5, "deps": [2], "is_cpu": 1},
        coll(id=4, name="sum", deps=[2]),
    ]
    return pm.load(write(tmp_path, [nodes, nodes]))


def test_calls_of_an_operator_count_together(graph):
    table = pm.statistics(graph, ranks=[0]).set_index("operator")
    row = table.loc["layer*.mlp"]
    assert (row.calls, row.flops) == (2, 200)
    assert (row.total_s, row.mean_s, row.min_s, row.max_s) == pytest.approx(
        (40e-6, 20e-6, 10e-6, 30e-6)
    )
    assert row.share == pytest.approx(40 / 45)
    assert np.isnan(table.loc["sum"].total_s)


def test_by_name_type_and_place(graph):
    assert len(pm.statistics(graph, "name")) == 4
    assert set(pm.statistics(graph, "type")["type"]) == {"COMP", "ALL_REDUCE"}
    assert pm.statistics(graph, where="host").operator.tolist() == ["aten::add"]
    with pytest.raises(pm.InputError, match="by: got"):
        pm.statistics(graph, "colour")


def test_a_prediction_has_times_for_all(graph):
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    table = pm.statistics(p)
    assert table.total_s.notna().all()
    assert table.total_s.sum() == pytest.approx(p.duration.sum())


def test_measured_against_predicted(graph):
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    table = pm.difference(graph, p).set_index("operator")
    assert table.loc["aten::add"].difference_s == pytest.approx(0)
    assert (table.calls_a == table.calls_b).all()


def test_what_only_one_has_differs_by_all_of_it(graph, tmp_path):
    other = pm.load(write(tmp_path / "b", [[comp(name="new", duration=7)]]))
    table = pm.difference(graph, other).set_index("operator")
    assert table.loc["new"].difference_s == pytest.approx(7e-6)
    assert table.loc["layer*.mlp"].difference_s == pytest.approx(-80e-6)
    assert table.loc["layer*.mlp"].ratio == 0


def test_signatures_and_numbers_go():
    assert (
        operator("void at::native::elementwise_kernel<128, 4>(int, float)")
        == "void at::native::elementwise_kernel"
    )
    assert operator("mb0.transformer.3.q", 1) == operator("mb7.x", 1)
