"""Points of a sweep: products, tables and samples, and those that make no sense."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm


@pytest.mark.parametrize(
    ("points", "message"),
    [
        (None, "expected a DataFrame"),
        ([{"npu.peak_flops": 1e15}], "expected a DataFrame"),
        (pd.DataFrame([[1.0, 2.0]], columns=["npu.peak_flops"] * 2), "stands twice"),
        ({"npu.peak_flops": [True]}, "real numbers"),
        ({"npu.peak_flops": [1e15 + 1j]}, "real numbers"),
        ({"network.algorithm": [1]}, "algorithm 1: expected auto"),
    ],
)
def test_points_of_the_wrong_kind_are_one_clear_error(graph, system, points, message):
    with pytest.raises(pm.InputError, match=message):
        pm.sweep(graph, system, points)


@pytest.mark.parametrize("bounds", [{"a": 1.0}, {"a": (1.0,)}, {"a": ("x", 2)}, {"a": (1, 2, 3)}])
def test_bounds_of_a_sample_are_two_numbers_each(bounds):
    with pytest.raises(pm.InputError, match="two numbers each"):
        pm.sample(bounds, 4)


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ({"npu.peak_flop": [1e15]}, r"npu\.peak_flop.*npu\.peak_flops"),
        ({"network.7.bandwidth": [1e9]}, r"network\.7\.bandwidth.*network\.0\.bandwidth"),
        ({}, "empty"),
        ({"npu.peak_flops": []}, "empty"),
        (pd.DataFrame({"npu.peak_flops": np.zeros(0)}), "empty"),
        ({"npu.peak_flops": [1e15, float("nan")]}, r"npu\.peak_flops is nan in row 1"),
        ({"npu.peak_flops": [float("inf")]}, r"npu\.peak_flops is inf in row 0"),
        ({"npu.peak_flops": [1e15, -1.0]}, r"npu\.peak_flops is -1\.0 in row 1"),
        (
            {"npu.peak_flops": [1e15, 0.0]},
            r"npu\.peak_flops is 0 in row 1; a rate must be positive",
        ),
        ({"npu.peak_flops": ["fast"]}, r"npu\.peak_flops holds 'fast', expected numbers"),
        ({"network.algorithm": ["ring", None]}, r"network\.algorithm is missing in row 1"),
        ({"network.algorithm": ["rings"]}, "rings"),
        ({"system": ["dgx-h1000"]}, "dgx-h1000"),
    ],
)
def test_points_that_make_no_sense_are_refused_before_any_work(graph, system, points, message):
    with pytest.raises(pm.InputError, match=message):
        pm.sweep(graph, system, points)


def test_samples_fill_the_box_evenly_and_again_the_same():
    box = {"a": (1.0, 100.0), "b": (1e-6, 1e-2)}
    for method in ("sobol", "latin-hypercube"):
        points = pm.sample(box, 64, method=method)
        pd.testing.assert_frame_equal(points, pm.sample(box, 64, method=method))
        assert not points.equals(pm.sample(box, 64, method=method, seed=1))
        for name, (low, high) in box.items():
            place = np.log(points[name] / low) / np.log(high / low)
            # one in each of 64 equal slices of the logarithm
            assert sorted(np.floor(place * 64)) == list(range(64))
    linear = pm.sample({"a": (0.0, 10.0)}, 32, log=False)
    assert sorted(np.floor(linear.a * 3.2)) == list(range(32))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (({}, 4), "empty"),
        (({"a": (1.0, 2.0)}, 0), "empty"),
        (({"a": (2.0, 1.0)}, 4), "bounds of a"),
        (({"a": (0.0, 1.0)}, 4), "both positive"),
        (({"a": (1.0, float("inf"))}, 4), "bounds of a"),
    ],
)
def test_boxes_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(pm.InputError, match=message):
        pm.sample(*arguments)
    with pytest.raises(pm.InputError, match="method: got 'grid'"):
        pm.sample({"a": (1.0, 2.0)}, 4, method="grid")
