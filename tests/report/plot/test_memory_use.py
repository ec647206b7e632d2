"""Memory of ranks, at its peak and over the step."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.report import plot


def test_memory_is_stacked_by_part_and_equal_ranks_share_a_bar(step):
    table = pm.memory(step)
    ax = plot.memory(table, capacity=80e9)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "rank 0 and 11 more",
        "rank 12 and 11 more",
    ]
    reach = max(b.get_x() + b.get_width() for b in ax.patches) * 1e9
    assert reach == pytest.approx(table.total_B.max())
    assert "GB" in ax.get_xlabel()
    some = plot.memory(table[table["rank"] < 14])
    assert len(some.get_yticklabels()) == 14


def test_the_area_of_memory_over_the_step_reaches_the_peak(step):
    table = pm.memory(step, 0)
    ax = plot.memory(table)
    outline = ax.collections[-1].get_paths()[0].vertices
    assert outline[:, 1].max() * 1e6 == pytest.approx(table.total_B.max())
    assert "MB" in ax.get_ylabel()
    high = plot.memory(table, capacity=1e9)
    assert high.get_ylim()[1] > 1.0  # GB: the line is in the picture
    assert "GB" in high.get_ylabel()
    labels = [c.get_label() for c in ax.collections]
    assert labels[0] == "weights"
    assert labels[-1] == "activations"


def test_memory_of_a_trace_shows_the_parts_that_it_tells_apart(step):
    table = pm.memory(step, 0).assign(gradients_B=np.nan, optimizer_B=np.nan)
    labels = [c.get_label() for c in plot.memory(table).collections]
    assert "gradients" not in labels
    with pytest.raises(pm.InputError, match="holds no bytes"):
        plot.memory(table.assign(**{part: np.nan for part in table if part.endswith("_B")}))
