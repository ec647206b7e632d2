"""Tornado, Pareto front and residuals."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.report import plot
from perfmodel.report.plot.studies import not_dominated
from tests.report.plot.drawn import legend_texts, rendered


def test_the_tornado_reaches_from_the_lower_to_the_higher_makespan_largest_on_top(
    graph, system, prediction
):
    table = pm.sensitivity(graph, system, tornado=True)
    ax = plot.tornado(table)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    assert ax.lines[0].get_xdata()[0] * factor == pytest.approx(prediction.makespan)
    names = [t.get_text().split("\n")[0] for t in ax.get_yticklabels()]
    rows = table.set_index("parameter").loc[names]
    for container, column in zip(ax.containers, ("low_s", "high_s"), strict=True):
        reached = [(bar.get_x() + bar.get_width()) * factor for bar in container]
        np.testing.assert_allclose(reached, rows[column])
    swing = (rows["high_s"] - rows["low_s"]).abs().to_numpy()
    assert (np.diff(swing) <= 0).all()
    absent = table[~table["parameter"].isin(names)]
    np.testing.assert_allclose(absent["low_s"], absent["high_s"], rtol=1e-8)
    assert f"{len(absent)} further parameters" in ax.get_xlabel()
    rendered(ax)


def test_the_tornado_says_by_how_much_parameters_were_moved(graph, system):
    table = pm.sensitivity(graph, system, tornado=0.25)
    said = plot.tornado(table, fraction=0.25)
    assert legend_texts(said) == ["-25 %", "+25 %"]
    assert said.get_title() == "Makespan with each parameter alone 25 % lower or higher"
    table.attrs["tornado"] = 0.05
    assert legend_texts(plot.tornado(table)) == ["-5 %", "+5 %"]
    table.attrs.clear()
    assert legend_texts(plot.tornado(table)) == ["-10 %", "+10 %"]
    rendered(said)


def test_a_sensitivity_table_without_tornado_is_refused_with_the_option_named(graph, system):
    with pytest.raises(pm.InputError, match=r"no column 'low_s'.*tornado=True"):
        plot.tornado(pm.sensitivity(graph, system))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_not_dominated_is_what_the_definition_says(pairs):
    points = np.array(pairs, float)
    expected = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert not_dominated(points).tolist() == expected


def test_the_front_holds_the_points_that_none_beats(swept):
    table = swept.assign(
        cost_usd=1e-11 * swept["npu.peak_flops"] + swept["network.0.bandwidth"] / 1e9
    )
    ax = plot.pareto(table)
    assert ax.get_ylabel().startswith("makespan")
    steps = ax.lines[0]
    front = not_dominated(table[["cost_usd", "makespan_s"]].to_numpy())
    assert len(steps.get_xdata()) == front.sum()
    assert sum(len(c.get_offsets()) for c in ax.collections) == len(table)
    coloured = plot.pareto(table, hue="network.0.bandwidth")
    assert coloured.figure.axes[1].get_ylabel() == "network.0.bandwidth [TB/s]"
    rendered(coloured)


def test_residuals_show_every_measurement_by_kind_with_its_error():
    table = pd.DataFrame(
        {
            "collective": ["all_reduce", "all_gather", None],
            "kind": ["collective", "collective", "compute"],
            "duration_s": [1e-3, 2e-3, 1e-6],
            "predicted_s": [1.1e-3, 1.5e-3, 1e-6],
        }
    )
    table["error"] = table["predicted_s"] / table["duration_s"] - 1
    ax = plot.residuals(table)
    texts = legend_texts(ax)
    assert texts == [
        "all_reduce: median 10.0 %",
        "all_gather: median 25.0 %",
        "compute: median 0.0 %",
    ]
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(points, [[1e-3, 10], [2e-3, -25], [1e-6, 0]], atol=1e-9)
    low, high = ax.get_ylim()
    assert low < -25
    assert high > 25
    rendered(ax)
