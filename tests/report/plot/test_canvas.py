"""Units, refusals, and axes that are given."""

import sys

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.report import plot
from perfmodel.report.plot import canvas

matplotlib = pytest.importorskip("matplotlib")


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("npu.peak_flops", "FLOP/s"),
        ("network.1.latency", "s"),
        ("compute.efficiency", "1"),
        ("makespan_s", "s"),
        ("cost_usd", "$"),
        ("throughput_per_s", "1/s"),
        ("limited_by", "1"),
    ],
)
def test_columns_have_the_units_of_the_records_or_of_their_suffix(column, unit):
    assert canvas.unit_of(column) == unit


@given(st.floats(1e-12, 1e6))
def test_scaled_times_read_between_one_and_a_thousand(value):
    factor, spelling = canvas.scale_of([0.0, value], "s")
    assert factor == {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12}[spelling]
    assert 0.999 <= value / factor < 1000 or spelling == "s"


def test_axes_are_logarithmic_for_geometric_values_only():
    assert canvas.is_logarithmic(np.geomspace(1, 100, 5))
    assert canvas.is_logarithmic([1, 2, 4, 8, 16])
    assert not canvas.is_logarithmic(np.linspace(1, 10, 10))
    assert not canvas.is_logarithmic([0.0, 1.0, 100.0])
    assert not canvas.is_logarithmic([1.0, 100.0])


def test_plots_draw_into_axes_that_are_given(prediction, swept):
    figure, (left, right) = matplotlib.pyplot.subplots(1, 2, layout="constrained")
    assert plot.breakdown(pm.breakdown(prediction), ax=left) is left
    assert plot.sweep_heatmap(swept, "npu.peak_flops", "network.0.bandwidth", ax=right) is right
    figure.canvas.draw()
    assert len(matplotlib.pyplot.get_fignums()) == 1


@pytest.mark.parametrize(
    ("draw", "source"),
    [
        (plot.timeline, "timeline"),
        (plot.critical_path, "critical_path"),
        (plot.breakdown, "breakdown"),
        (lambda t: plot.sweep_lines(t, "npu.peak_flops"), "sweep"),
        (lambda t: plot.sweep_heatmap(t, "npu.peak_flops", "x"), "sweep"),
        (plot.tornado, "sensitivity"),
        (plot.pareto, "pareto"),
        (plot.residuals, "calibrate"),
    ],
)
def test_other_tables_and_empty_ones_are_refused_by_name(draw, source):
    for wrong in (pd.DataFrame({"a": [1.0]}), pd.DataFrame(), 3.0):
        with pytest.raises(pm.InputError, match=rf"perfmodel\.{source}"):
            draw(wrong)


def test_a_missing_matplotlib_says_what_to_install(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(pm.InputError, match=r"pip install 'perfmodel\[plot\]'"):
        plot.breakdown(pm.breakdown(prediction))
