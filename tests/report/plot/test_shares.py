"""Breakdowns as stacked bars."""

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.report import plot
from tests.report.plot.drawn import legend_texts, rendered


def widths(ax) -> np.ndarray:
    """[containers, bars] widths of the stacked bars."""
    return np.array([[bar.get_width() for bar in c] for c in ax.containers])


def test_the_bars_of_each_rank_add_up_to_the_makespan(prediction):
    ax = plot.breakdown(pm.breakdown(prediction))
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, prediction.makespan)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"rank {r}" for r in range(8)]
    assert "idle" in legend_texts(ax)
    rendered(ax)


def test_more_than_sixteen_ranks_share_a_bar_where_they_are_equal(prediction):
    table = pm.breakdown(prediction)
    many = pd.concat([table.assign(rank=table["rank"] + 8 * k) for k in range(4)])
    ax = plot.breakdown(many)
    texts = [t.get_text() for t in ax.get_yticklabels()]
    assert texts == ["rank 0 and 15 equal", "rank 4 and 15 equal"]


@pytest.mark.parametrize("by", ["component", "type", "group"])
def test_labelled_bars_are_busy_times_longest_first_with_critical_time_marked(prediction, by):
    table = pm.breakdown(prediction, by=by)
    ax = plot.breakdown(table)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    length = widths(ax).sum(axis=0) * factor
    busy = table[["compute_s", "memory_s", "communication_s", "waiting_s", "host_s"]].sum(axis=1)
    np.testing.assert_allclose(length, np.sort(busy)[::-1])
    names = [t.get_text() for t in ax.get_yticklabels()]
    marks = ax.lines[0].get_xdata() * factor
    on_path = table.set_index(by)["critical_path_s"]
    np.testing.assert_allclose(marks, on_path.loc[names])


def test_bars_beyond_the_top_are_added_up_not_dropped(prediction):
    table = pm.breakdown(prediction, by="component", depth=3, numbers=True)
    assert len(table) > 5
    ax = plot.breakdown(table, top=5)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    busy = (
        table[["compute_s", "memory_s", "communication_s", "waiting_s", "host_s"]].to_numpy().sum()
    )
    assert widths(ax).sum() * factor == pytest.approx(busy)
    assert ax.get_yticklabels()[-1].get_text() == f"{len(table) - 4} others"


def test_names_of_real_kernels_are_shortened_and_their_signs_are_text():
    names = ["void kernel<" + "float, " * 60 + ">$a$", "aten::mm$b"]
    table = pd.DataFrame({"component": names, "compute_s": [2.0, 1.0], "critical_path_s": 0.0})
    ax = plot.breakdown(table)
    rendered(ax)
    texts = [t.get_text() for t in ax.get_yticklabels()]
    assert all(len(t) < 50 for t in texts)
    assert texts[0].startswith("void kernel<")
    assert texts[1] == r"aten::mm\$b"


def test_the_critical_path_and_rows_of_a_sweep_are_bars_too(prediction, swept):
    ax = plot.breakdown(pm.breakdown(prediction, by="critical_path"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["critical path"]
    ax = plot.breakdown(swept.head(3).set_axis(["a", "b", "c"]))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, swept["makespan_s"].head(3))


def test_a_comparison_and_what_ifs_are_bars_that_add_up_to_their_makespans(
    graph, system, prediction
):
    other = pm.predict(graph, pm.hardware("dgx-a100"))
    ax = plot.breakdown(pm.compare(prediction, other))
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    expected = [prediction.makespan, other.makespan]
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, expected)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(pm.InputError, match="category"):
        plot.breakdown(pm.compare(prediction, other, by=["type"]))
    table = pm.whatif.table(graph, system, {"slow": {"npu.peak_flops": 1e14}})
    ax = plot.breakdown(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["baseline", "slow"]
