"""Lines and heat maps of sweeps."""

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.report import plot
from tests.report.plot.drawn import legend_texts, rendered


def test_sweep_lines_hold_the_tables_values_in_the_units_of_the_axes(swept):
    ax = plot.sweep_lines(swept, "npu.peak_flops", hue="network.0.bandwidth")
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "makespan over npu.peak_flops"
    assert legend_texts(ax) == ["100 GB/s", "400 GB/s", "1.6 TB/s"]
    factor = {"makespan [ms]": 1e-3, "makespan [us]": 1e-6}[ax.get_ylabel()]
    assert ax.get_xlabel() == "npu.peak_flops [PFLOP/s]"
    for line, (_, rows) in zip(ax.lines, swept.groupby("network.0.bandwidth"), strict=True):
        np.testing.assert_allclose(line.get_xdata() * 1e15, rows["npu.peak_flops"])
        np.testing.assert_allclose(line.get_ydata() * factor, rows["makespan_s"])
    rendered(ax)
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    assert {"0.1", "1", "10"} <= set(ticks)


def test_an_axis_over_many_decades_has_a_prefix_on_every_tick():
    table = pd.DataFrame({"npu.peak_flops": np.geomspace(1e12, 1e18, 7)})
    table["makespan_s"] = 1e12 / table["npu.peak_flops"]
    ax = plot.sweep_lines(table, "npu.peak_flops")
    rendered(ax)
    assert {"1 TFLOP/s", "1 PFLOP/s"} <= {t.get_text() for t in ax.get_xticklabels()}
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["makespan_s"])


def test_choices_stand_on_the_axis_in_the_order_of_the_table():
    table = pd.DataFrame({"system": ["b", "a"], "makespan_s": [1.0, 2.0]})
    ax = plot.sweep_lines(table, "system")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.0, 2.0])


@pytest.mark.parametrize("draw", [plot.sweep_lines, plot.sweep_heatmap])
def test_rows_that_fall_on_one_place_are_an_error_that_names_what_varies(swept, draw):
    arguments = ["npu.peak_flops"]
    if draw is plot.sweep_heatmap:
        arguments.append("limited_by")
    with pytest.raises(pm.InputError, match=r"network\.0\.bandwidth vary, too"):
        draw(swept, *arguments)


def test_the_heat_map_has_a_cell_per_design_and_a_hole_where_there_is_none(swept):
    some = swept.drop(index=swept.index[4])
    ax = plot.sweep_heatmap(some, "npu.peak_flops", "network.0.bandwidth")
    cells = ax.collections[0].get_array()
    assert cells.shape == (3, 5)
    assert np.ma.getmaskarray(cells).sum() == 1
    factor = 1e-3 if "ms" in ax.figure.axes[1].get_ylabel() else 1e-6
    place = swept["npu.peak_flops"].rank(method="dense").astype(int) - 1
    row = swept["network.0.bandwidth"].rank(method="dense").astype(int) - 1
    for k in some.index:
        assert cells[row[k], place[k]] * factor == pytest.approx(swept["makespan_s"][k])
    assert ax.get_ylabel() == "network.0.bandwidth [TB/s]"
    assert len(ax.texts) == 14
    rendered(ax)


def test_a_heat_map_of_texts_has_a_colour_for_each_and_a_legend(swept):
    some = swept.drop(index=swept.index[4])
    ax = plot.sweep_heatmap(some, "npu.peak_flops", "network.0.bandwidth", z="limited_by")
    words = legend_texts(ax)
    assert sorted(words) == sorted(some["limited_by"].unique())
    mesh = ax.collections[0]
    cells = mesh.get_array()
    assert np.ma.getmaskarray(cells).sum() == 1
    place = swept["npu.peak_flops"].rank(method="dense").astype(int) - 1
    row = swept["network.0.bandwidth"].rank(method="dense").astype(int) - 1
    colour = {
        text: patch.get_facecolor() for text, patch in zip(words, ax.get_legend().get_patches())
    }
    assert len(set(colour.values())) == len(words)
    for k in some.index:
        cell = mesh.cmap(mesh.norm(cells[row[k], place[k]]))
        assert cell == pytest.approx(colour[swept["limited_by"][k]])
    assert len(ax.figure.axes) == 1
    rendered(ax)


def test_a_line_of_texts_is_refused_and_the_heat_map_named(swept):
    match = (
        r"limited_by holds texts.*sweep_heatmap\(table, 'npu\.peak_flops', 'network\.0\.bandwidth'"
    )
    with pytest.raises(pm.InputError, match=match):
        plot.sweep_lines(swept, "npu.peak_flops", "limited_by", hue="network.0.bandwidth")


def test_many_texts_and_one_and_none_are_coloured_too():
    table = pd.DataFrame({"a": np.arange(12.0), "b": "only", "z": [f"word {k}" for k in range(12)]})
    ax = plot.sweep_heatmap(table, "a", "b", z="z")
    assert len({p.get_facecolor() for p in ax.get_legend().get_patches()}) == 12
    one = plot.sweep_heatmap(table.assign(z=["same"] * 11 + [None]), "a", "b", z="z")
    assert legend_texts(one) == ["same"]
    rendered(ax)
    rendered(one)
    with pytest.raises(pm.InputError, match="z holds no value"):
        plot.sweep_heatmap(table.assign(z=pd.Series([None] * 12, dtype=object)), "a", "b", z="z")


def test_a_fine_heat_map_has_few_ticks_and_no_numbers_in_its_cells():
    x, y = np.meshgrid(np.linspace(1e14, 1e15, 30), np.linspace(1e12, 2e12, 25))
    table = pd.DataFrame({"npu.peak_flops": x.ravel(), "npu.memory_bandwidth": y.ravel()})
    table["makespan_s"] = 1e12 / table["npu.peak_flops"]
    ax = plot.sweep_heatmap(table, "npu.peak_flops", "npu.memory_bandwidth")
    assert len(ax.get_xticks()) <= 10
    assert not ax.texts
