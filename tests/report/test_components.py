"""Components of a timeline, collapsed and expanded."""

import json

import pytest

import perfmodel as pm
from perfmodel.report.components import component_spans
from tests.handmade import comp, write

RECORDED = pm.Models(prefer="recorded")


@pytest.fixture
def prediction(tmp_path):
    names = ["fwd.l0.a", "fwd.l0.b", "fwd.l1.a", "bwd.l1.a", "fwd.l0.a"]
    nodes = [
        comp(id=k, name=name, duration=10, deps=[k - 1] if k else [], flops=-1, size=-1)
        for k, name in enumerate(names)
    ]
    return pm.predict(pm.load(write(tmp_path, [nodes])), pm.hardware("dgx-h100"), RECORDED)


def test_a_component_is_a_run_of_nodes_with_the_same_first_parts(prediction):
    table = component_spans(prediction, 1)
    rows = [
        (r.component, r.nodes, round(r.start_s * 1e6), round(r.finish_s * 1e6))
        for r in table.itertuples()
    ]
    assert rows == [("fwd", 3, 0, 30), ("bwd", 1, 30, 40), ("fwd", 1, 40, 50)]


def test_deeper_levels_lie_inside(prediction):
    table = component_spans(prediction, 3)
    for level in (2, 3):
        for row in table[table.level == level].itertuples():
            outer = table[
                (table.level == level - 1)
                & (table.start_s <= row.start_s)
                & (table.finish_s >= row.finish_s)
            ]
            assert row.component.startswith(tuple(outer.component))
    for level in (1, 2, 3):
        here = table[table.level == level]
        assert here.busy_s.sum() == pytest.approx(prediction.makespan)
        assert (here.finish_s.to_numpy()[:-1] <= here.start_s.to_numpy()[1:] + 1e-15).all()


def test_a_timeline_has_them_nested_on_a_thread_of_their_own(prediction, tmp_path):
    pm.write_timeline(prediction, tmp_path / "t.json", depth=2)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    names = [e["name"] for e in events if e.get("cat") == "component"]
    assert names == ["fwd", "fwd.l0", "fwd.l1", "bwd", "bwd.l1", "fwd", "fwd.l0"]
    pm.write_timeline(prediction, tmp_path / "u.json")
    assert "components" not in (tmp_path / "u.json").read_text()


@pytest.mark.parametrize("depth", [0, 17])
def test_depths_out_of_range(prediction, depth):
    with pytest.raises(pm.InputError, match="depth"):
        component_spans(prediction, depth)
