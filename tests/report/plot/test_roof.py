"""The roofline with compute nodes on it."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.report import plot
from perfmodel.report.plot.roof import compute_costs
from tests.report.plot.drawn import legend_texts, rendered


def test_roofline_markers_lie_on_or_under_the_roof_and_hold_all_compute_time(prediction, system):
    ax = plot.roofline(prediction)
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    roof = np.minimum(system.npu.peak_flops, points[:, 0] * system.npu.memory_bandwidth)
    np.testing.assert_allclose(points[:, 1], roof, rtol=1e-5)  # Roofline with efficiency 1
    costs = compute_costs(prediction)
    total = pm.breakdown(prediction, by="type").set_index("type")["compute_s"]["COMP"]
    assert costs["total_s"].sum() == pytest.approx(total)
    nodes = prediction.graph.nodes.query("type == 'COMP'")
    assert costs["nodes"].sum() == len(nodes)
    distinct = nodes[["flops", "bytes_B"]].drop_duplicates()
    assert len(costs[["flops", "bytes_B"]].drop_duplicates()) == len(distinct)
    shown = (costs["flops"] > 1) & (costs["bytes_B"] > 0)
    assert len(points) == shown.sum()
    rendered(ax)


def test_a_slower_model_puts_the_markers_below_the_roof(graph, system):
    half = pm.Models().replace(compute=type(pm.Models().compute)(0.5, 0.5))
    ax = plot.roofline(pm.predict(graph, system, half))
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    roof = np.minimum(system.npu.peak_flops, points[:, 0] * system.npu.memory_bandwidth)
    np.testing.assert_allclose(points[:, 1], roof / 2, rtol=1e-5)


def test_the_legend_of_the_roofline_counts_the_kernels_that_share_a_marker(prediction, system):
    costs = compute_costs(prediction)
    costs = costs[(costs["flops"] > 1) & (costs["bytes_B"] > 0)]
    first = costs.loc[costs["total_s"].idxmax()]
    nodes = prediction.graph.nodes.query("type == 'COMP'")
    alike = nodes[(nodes["flops"] == first["flops"]) & (nodes["bytes_B"] == first["bytes_B"])]
    distinct = alike["name"].str.replace(r"\d+", "*", regex=True).nunique()
    ax = plot.roofline(prediction)
    share = first["total_s"] / costs["total_s"].sum()
    more = f" and {distinct - 1} more" if distinct > 1 else ""
    assert legend_texts(ax)[0] == f"1  {first['name']}{more}: {share:.0%}"
    assert any(" more: " in text for text in legend_texts(ax))
    assert "share of the time" in ax.get_legend().get_title().get_text()
    rendered(ax)


def test_compute_without_bytes_has_no_place_on_the_roofline_and_the_title_says_so(system):
    graph = synth.collective("all_reduce", 2, 1024).graph()
    with pytest.raises(pm.InputError, match="no compute node"):
        plot.roofline(pm.predict(graph, system))


def test_nodes_that_only_move_bytes_do_not_stretch_the_roofline(step):
    """Zeroing gradients is written with one FLOP; its marker stood nine decades to the left of all others."""
    ax = plot.roofline(step)
    places = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    assert places.min() > 1e-3
