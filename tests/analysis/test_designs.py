"""Design points as columns, with and without a data frame."""

from __future__ import annotations

from itertools import product

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.analysis.designs import Designs, designs_of, joined


def test_lists_become_their_product_the_last_column_running_fastest():
    lists = {"a": [1, 2], "system": ["x", "y", "z"], "b": [0.5, 3]}
    designs = designs_of(lists)
    rows = list(zip(*(values.tolist() for values in designs.columns.values())))
    assert rows == list(product(*lists.values()))
    expected = pd.DataFrame(list(product(*lists.values())), columns=list(lists))
    pd.testing.assert_frame_equal(designs.frame(), expected)


@pytest.mark.parametrize(
    "column",
    [
        np.array([1.0, 2.0, 3.0], np.float32),
        np.array([1, 2, 3], np.int8),
        pd.array([1, 2, 3], dtype="Int64"),
        pd.Categorical(["u", "v", "u"]),
        pd.array(["u", "v", "w"], dtype="str"),
        np.array(["1 us", 2.0, "3 us"], object),
    ],
)
def test_a_frame_comes_back_as_it_was_whatever_its_columns_are(column):
    frame = pd.DataFrame({"a": column, "b": [3.0, 4.0, 5.0]}, index=[7, 3, 5])
    pd.testing.assert_frame_equal(designs_of(frame).frame(), frame.reset_index(drop=True))
    pd.testing.assert_frame_equal(Designs.of_frame(frame).frame(), frame)


def test_points_with_the_same_names_are_together_in_the_order_of_their_first_ones():
    designs = designs_of({"b": [1.0, 2.0], "system": ["y", "x"]})
    groups = [(names, part.rows.tolist()) for names, part in designs.alike(["system"])]
    assert groups == [({"system": "y"}, [0, 2]), ({"system": "x"}, [1, 3])]
    assert [part.rows.tolist() for _, part in designs.alike([])] == [[0, 1, 2, 3]]


def test_a_name_that_is_none_is_one_clear_error(graph, system):
    with pytest.raises(pm.InputError, match="expected names in system"):
        pm.sweep(graph, system, {"system": [["dgx-h100"]]})


def test_figures_of_parts_are_joined_by_row_and_what_a_part_lacks_is_no_number():
    parts = [Designs({}, np.array([0, 3])), Designs({}, np.array([2, 1]))]
    figures = [
        {"t": np.array([1.0, 4.0]), "fits": np.array([True, False]), "u": np.array([5.0, 8.0])},
        {"t": np.array([3.0, 2.0], np.float32), "names": np.array(["c", "b"], object)},
    ]
    frames = [pd.DataFrame(f, part.rows) for part, f in zip(parts, figures, strict=True)]
    expected = pd.concat(frames).sort_index()
    pd.testing.assert_frame_equal(pd.DataFrame(joined(parts, figures)), expected)


def test_points_are_told_apart_by_what_they_say_and_not_by_how_it_is_kept():
    texts, numbers = ["ring", "tree", "ring"], [1, 2, 3]
    plain = designs_of(pd.DataFrame({"a": np.array(texts, object), "b": np.array(numbers, float)}))
    for column in (texts, pd.array(texts, "string"), pd.Categorical(texts)):
        other = designs_of(pd.DataFrame({"a": column, "b": pd.array(numbers, "Int64")}))
        assert other.identity == plain.identity
    for changed in (
        plain.with_columns({"a": np.array(["ring", "treer", "ing"], object)}),
        plain.with_columns({"b": np.array([1.0, 2.0, np.nextafter(3.0, 4.0)])}),
        plain.some(slice(0, 2)),
        plain.some(np.array([1, 0, 2])),
    ):
        assert changed.identity != plain.identity
