"""Equal rows of a table."""

import numpy as np
import pytest

from perfmodel.schedule.distinct_rows import distinct_rows


@pytest.mark.parametrize("values", [2, 5, 10**9])
@pytest.mark.parametrize("width", [1, 3])
def test_rows_are_put_together_again_from_the_distinct_ones(values, width):
    rows = np.random.default_rng(values).integers(0, values, (500, width)).astype(float)
    distinct, number = distinct_rows(rows)
    np.testing.assert_array_equal(distinct[number], rows)
    assert len(distinct) == len(np.unique(rows, axis=0))
    first = [int(np.flatnonzero(number == k)[0]) for k in range(len(distinct))]
    assert first == sorted(first)


def test_nothing_has_no_distinct_rows_and_both_zeros_are_one():
    assert [len(part) for part in distinct_rows(np.zeros((0, 2)))] == [0, 0]
    assert len(distinct_rows(np.array([[0.0], [-0.0]]))[0]) == 1
