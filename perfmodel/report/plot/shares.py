"""Where the time goes, as stacked bars."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.report.plot.canvas import (
    COLOURS,
    CRITICAL,
    axes_for,
    check_columns,
    legend_beside,
    scale_of,
    short,
    tidy,
)

PARTS = {
    "compute_s": "compute",
    "exposed_memory_s": "memory",
    "memory_s": "memory",
    "exposed_communication_s": "communication",
    "communication_s": "communication",
    "waiting_s": "waiting",
    "host_s": "host",
    "idle_s": "idle",
}
"""Columns that stack to a bar, in that order."""

LABELS = ("component", "type", "group")
"""Columns that name the bars, the longest bar first; other tables keep their order."""

EACH = 16
"""Up to so many ranks are shown one by one; of more, equal ones share a bar."""


def breakdown(table: pd.DataFrame, *, top: int = 24, ax: Any = None) -> Any:
    """Stacked bars of compute, memory, communication and waiting, one per row.

    Equal ranks share a bar where there are more than 16. Of components, types and groups the `top` longest are
    shown and the rest is added up; a mark says how much of the critical path they are.

    Args:
        table: from `perfmodel.breakdown`, by whatever it was asked for; from `perfmodel.compare`, of which the
            categories are shown; from `whatif.table`; or a part of a sweep's table whose index names its rows.
        top: most bars to draw.
        ax: axes to draw into.

    Raises:
        InputError: no column of a breakdown.
    """
    check_columns(table, (), "perfmodel.breakdown")
    if {"section", "item", "a_s", "b_s"} <= set(table.columns):
        table = _compared(table)
    parts = [c for c in PARTS if c in table.columns]
    if not parts:
        raise InputError(
            f"plot: none of the columns {', '.join(PARTS)} is in the table; expected the table of "
            "perfmodel.breakdown"
        )
    marks = "critical_path_s" in table.columns
    columns = [*parts, "critical_path_s"] if marks else parts
    bars, note = _rows(table, columns, top)
    ax = axes_for(ax, 8, 1.4 + 0.3 * len(bars))
    factor, spelling = scale_of(bars[parts].sum(axis=1), "s")
    left = np.zeros(len(bars))
    for column in parts:
        width = bars[column].to_numpy(float) / factor
        if not width.any():
            continue
        word = PARTS[column]
        label = column.removesuffix("_s").replace("_", " ")
        ax.barh(range(len(bars)), width, left=left, color=COLOURS[word], label=label, height=0.75)
        left += width
    if marks:
        ax.plot(
            bars["critical_path_s"].to_numpy(float) / factor,
            range(len(bars)),
            linestyle="",
            marker="D",
            markersize=5,
            markeredgecolor="white",
            color=CRITICAL,
            label="on the critical path",
        )
    ax.set_yticks(range(len(bars)), bars.index)
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(bars) - 0.5, -0.5)
    ax.set_xlim(left=0)
    ax.set_xlabel(f"{'busy time of all ranks' if marks else 'time'} [{spelling}]")
    ax.set_title("Breakdown" + note)
    tidy(ax, grid="x")
    legend_beside(ax)
    return ax


def _compared(table: pd.DataFrame) -> pd.DataFrame:
    """A bar each for the two predictions of a comparison."""
    parts = table[table["section"] == "category"].set_index("item")[["a_s", "b_s"]]
    if not len(parts):
        raise InputError(
            "plot: the comparison has no categories; expected perfmodel.compare(..., by=['category'])"
        )
    return parts.rename(index="{}_s".format, columns={"a_s": "a", "b_s": "b"}).T


def _rows(table: pd.DataFrame, columns: list[str], top: int) -> tuple[pd.DataFrame, str]:
    """The bars, named by their index, and what the title adds."""
    if "rank" in table.columns:
        return _ranks(table, columns, top)
    label = next((c for c in LABELS if c in table.columns), None)
    if label:
        bars = table.set_index(label)[columns]
        busy = bars[[c for c in columns if c in PARTS]].sum(axis=1).to_numpy(float)
        bars = bars.iloc[np.argsort(-busy, kind="stable")]
    elif "scenario" in table.columns:
        bars = table.set_index("scenario")[columns]
    elif len(table) == 1 and isinstance(table.index, pd.RangeIndex):
        bars = table[columns].set_axis(["critical path"])
    else:
        bars = table[columns]
    bars.index = pd.Index([short(str(name)) for name in bars.index])
    note = f" by {label}" if label else ""
    if len(bars) <= top:
        return bars, note
    head, rest = bars.iloc[: top - 1], bars.iloc[top - 1 :]
    other = rest.sum().rename(f"{len(rest)} others").to_frame().T
    return pd.concat([head, other]), note


def _ranks(table: pd.DataFrame, columns: list[str], top: int) -> tuple[pd.DataFrame, str]:
    if len(table) <= EACH:
        return table.set_index("rank")[columns].rename(index="rank {}".format), " by rank"
    found = table.groupby(columns, sort=False)["rank"].agg(["first", "size"]).reset_index()
    found.index = pd.Index(
        [
            f"rank {first}" + (f" and {size - 1:,} equal" if size > 1 else "")
            for first, size in zip(found["first"], found["size"])
        ]
    )
    if len(found) <= top:
        return found[columns], " by rank"
    used = found[[c for c in columns if c != "idle_s"]].sum(axis=1)
    busiest = used.sort_values(ascending=False, kind="stable").index[:top]
    return found.loc[busiest, columns], f" of the busiest {top} of {len(found):,} distinct ranks"
