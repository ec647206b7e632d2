"""Which ranks do the same."""

import numpy as np

from perfmodel.workload.program import LOOKED_AT, equal_ones


def test_collections_that_differ_in_one_entry_or_in_length_are_told_apart() -> None:
    values = np.arange(100 * LOOKED_AT)
    other = values.copy()
    other[101] += 1  # between the entries that are looked at first
    items = [{"a": values, "b": "x"}, {"a": other, "b": "x"}, {"a": values.copy(), "b": "x"}]
    items += [{"a": values[:-1], "b": "x"}, {"a": values, "b": "y"}, {"a": other, "b": "x"}]
    number, first = equal_ones(items)
    assert number.tolist() == [0, 1, 0, 2, 3, 1]
    assert first == [0, 1, 3, 4]
