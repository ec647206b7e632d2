"""Waiting for others is told apart from communication, and what is recorded from what a parameter decides."""

import json

import matplotlib as mpl
import numpy as np
import pytest

import perfmodel as pm
from perfmodel.vocabulary import NodeType
from perfmodel.workload.columns import RankColumns

mpl.use("Agg")


@pytest.fixture(scope="module")
def late():
    """Four ranks compute, reduce 44 MiB and compute again; rank 1 arrives 200 ms late; all durations recorded.

    The shape of a data-parallel step with a straggler: forward 55 ms, backward 93 ms (rank 1: 293 ms), optimizer
    10 ms.
    """

    def rank(backward):
        return RankColumns(
            id=[1, 2, 3, 4],
            type=[NodeType.COMP, NodeType.COMP, NodeType.COMM_COLL, NodeType.COMP],
            name=["forward", "backward", "gradients", "optimizer"],
            duration=[0.055, backward, np.nan, 0.010],
            comm_type=[-1, -1, 0, -1],
            size=[-1, -1, 44 << 20, -1],
            edge_from=[0, 1, 2],
            edge_to=[1, 2, 3],
        )

    return pm.Graph.from_ranks([rank(0.293 if r == 1 else 0.093) for r in range(4)], source="late")


@pytest.fixture(scope="module")
def prediction(late):
    return pm.predict(late, pm.hardware("dgx-a100"), "roofline")


def test_ranks_wait_for_the_straggler_and_all_communicate_as_long(prediction):
    table = pm.breakdown(prediction).set_index("rank")
    wire = prediction.makespan - 0.358
    assert table["waiting_s"].to_list() == pytest.approx([0.2, 0.0, 0.2, 0.2], abs=1e-12)
    assert table["exposed_communication_s"].to_list() == pytest.approx([wire] * 4, rel=1e-9)
    parts = [
        "compute_s",
        "exposed_memory_s",
        "exposed_communication_s",
        "waiting_s",
        "host_s",
        "idle_s",
    ]
    assert table[parts].sum(axis=1).to_list() == pytest.approx([prediction.makespan] * 4)


def test_who_came_last_and_what_it_cost_the_others(prediction):
    row = pm.breakdown(prediction, by="collective").iloc[0]
    assert (row["name"], row.last_rank, row.collectives) == ("gradients", 1, 1)
    assert row.waiting_s == pytest.approx(3 * 0.2)
    assert row.last_arrival_s == pytest.approx(0.348)
    assert row.wire_s == pytest.approx(prediction.makespan - 0.358, rel=1e-9)


def test_tables_by_component_keep_the_wait_out_of_communication(prediction):
    table = pm.breakdown(prediction, by="component").set_index("component")
    wire = 4 * (prediction.makespan - 0.358)
    assert table.loc["gradients", "communication_s"] == pytest.approx(wire, rel=1e-9)
    assert table.loc["gradients", "waiting_s"] == pytest.approx(0.6)


def test_timelines_show_waiting_as_waiting(prediction, tmp_path):
    table = pm.timeline(prediction)
    waits = table[table["name"] == "gradients"]["waiting_s"].to_list()
    assert waits == pytest.approx([0.2, 0.0, 0.2, 0.2], abs=1e-12)
    pm.write_timeline(prediction, tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    drawn = [e for e in events if e.get("cat") == "waiting"]
    assert [e["pid"] for e in drawn] == [0, 2, 3]
    assert [e["dur"] for e in drawn] == pytest.approx([0.2e6] * 3)
    axes = pm.plot.timeline(table)
    assert "waiting" in {text.get_text() for text in axes.get_legend().get_texts()}


def test_what_is_recorded_limits_the_step_and_a_parameter_without_effect_is_named(late):
    system = pm.hardware("dgx-a100")
    with pytest.warns(UserWarning, match=r"no node answers to npu\.peak_flops"):
        table = pm.sweep(late, system, {"npu.peak_flops": [312e12, 3120e12]}, models="roofline")
    assert table["limited_by"].to_list() == ["recorded", "recorded"]
    slow = pm.sweep(late, system, {"network.0.bandwidth": [1e6, 300e9]}, models="roofline")
    assert slow["limited_by"].to_list() == ["network.0.bandwidth", "recorded"]


def test_the_host_limits_where_its_work_is_the_longest():
    one = RankColumns(
        id=[1, 2],
        type=[NodeType.COMP] * 2,
        duration=[3.0, 1.0],
        host=[True, False],
        edge_from=[0],
        edge_to=[1],
    )
    graph = pm.Graph.from_ranks([one])
    system = pm.hardware("dgx-a100")
    row = pm.breakdown(pm.predict(graph, system, "roofline")).iloc[0]
    assert (row.host_s, row.compute_s, row.idle_s) == pytest.approx((3.0, 1.0, 0.0))
    with pytest.warns(UserWarning, match="no node answers"):
        swept = pm.sweep(graph, system, {"npu.peak_flops": [1e12, 2e12]}, models="roofline")
    assert set(swept["limited_by"]) == {"host"}
