"""Tables for people from columns, printed without waiting for pandas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from perfmodel.errors import one_line

LONGEST_TEXT = 60
"""Longer texts in a printed table are shortened, so that its rows can be read."""

NO_ROWS = "(no rows)"


def text_table(columns: Mapping[str, Sequence[Any]], *, missing: str = "NaN") -> str:
    """Columns beside each other, right-justified; numbers with six significant digits, long texts shortened.

    `missing` stands for what is no number.

    >>> print(text_table({"name": ["gemm", "sum"], "time_s": [0.25, 1e-7]}))
    name  time_s
    gemm    0.25
     sum   1e-07
    """
    if not any(len(values) for values in columns.values()):
        return NO_ROWS
    return "\n".join(map(" ".join, zip(*(_lines(n, v, missing) for n, v in columns.items()))))


def rows_of(columns: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A dictionary per row, of Python's own numbers."""
    values = (v.tolist() if isinstance(v, np.ndarray) else v for v in columns.values())
    return [dict(zip(columns, row)) for row in zip(*values)]


def chosen(columns: Mapping[str, Sequence[Any]], rows: Iterable[int]) -> dict[str, list[Any]]:
    """Some rows, in that order."""
    numbers = list(rows)
    return {name: [values[k] for k in numbers] for name, values in columns.items()}


def _lines(name: str, values: Sequence[Any], missing: str) -> list[str]:
    """A column's header and cells, all of one width."""
    cells = [_cell(value, missing) for value in values]
    head = name if any(isinstance(value, str) for value in values) else f" {name}"
    width = max(map(len, (head, *cells)))
    return [text.rjust(width) for text in (head, *cells)]


def _cell(value: Any, missing: str) -> str:
    if isinstance(value, str):
        return one_line(value, LONGEST_TEXT)
    if isinstance(value, float | np.floating):
        return missing if np.isnan(value) else f"{value:.6g}"
    return str(value)
