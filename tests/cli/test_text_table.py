"""Tables for people look as those that pandas prints."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from perfmodel.cli.output import text_of
from perfmodel.cli.text_table import LONGEST_TEXT, chosen, rows_of, text_table
from perfmodel.errors import one_line

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
    table = pd.DataFrame(columns)
    assert text_table(columns) == text_of(table) == by_pandas(table)


def by_pandas(table, **options):
    shortened = table.map(lambda v: one_line(v, LONGEST_TEXT) if isinstance(v, str) else v)
    return shortened.to_string(index=False, float_format=lambda x: f"{x:.6g}", **options)


def test_what_is_no_number_can_be_left_empty():
    table = pd.DataFrame({"a": ["x", "y"], "b": [1.0, np.nan], "c": [None, 2], "d": ["z", None]})
    assert text_of(table, missing="") == by_pandas(table, na_rep="")


def test_no_rows_are_said():
    assert text_table({"a": [], "b": []}) == text_of(pd.DataFrame({"a": []})) == "(no rows)"


def test_rows_are_those_of_pandas():
    columns = {name: values for name, values in COLUMNS.items() if name != "start_s"}
    rows = rows_of(columns)
    assert rows == pd.DataFrame(columns).to_dict(orient="records")
    assert type(rows[0]["rank"]) is int
