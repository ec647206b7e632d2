"""Tables printed without pandas look as those that pandas prints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel.cli.output import text_of
from perfmodel.cli.text_table import chosen, rows_of, text_table

LONG = "a name that is much longer than what fits into a column of a table for people"
COLUMNS = {
    "rank": np.arange(5),
    "node_id": [7, -12, 0, 3, 10**12],
    "name": ["mlp", "", "größer", LONG, "tab\tand\nline"],
    "start_s": np.array([0.1234567891, 1e-9, -3.5, np.nan, np.inf]),
    "share": [1.0, 0.0, 1 / 3, 2e20, 100000.0],
    "critical": np.array([True, False, True, True, False]),
    "t": [1, 2, 3, 4, 5],
}


@pytest.mark.parametrize("rows", [range(5), [3, 1], [2]])
@pytest.mark.parametrize("names", [list(COLUMNS), ["name"], ["start_s", "t"], ["t", "name"]])
def test_a_table_is_the_one_that_pandas_prints(rows, names):
    columns = chosen({name: COLUMNS[name] for name in names}, rows)
    assert text_table(columns) == text_of(pd.DataFrame(columns))


def test_no_rows_are_said():
    assert text_table({"a": [], "b": []}) == text_of(pd.DataFrame({"a": []})) == "(no rows)"


def test_rows_are_those_of_pandas():
    columns = {name: values for name, values in COLUMNS.items() if name != "start_s"}
    rows = rows_of(columns)
    assert rows == pd.DataFrame(columns).to_dict(orient="records")
    assert type(rows[0]["rank"]) is int
