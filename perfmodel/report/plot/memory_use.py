"""What ranks hold in memory: each at its peak, or one over the step."""

from __future__ import annotations

from typing import Any

import pandas as pd

from perfmodel.errors import InputError
from perfmodel.report.plot.canvas import (
    CRITICAL,
    SERIES,
    axes_for,
    check_columns,
    legend_beside,
    scale_of,
    tidy,
)

PARTS = ("weights_B", "gradients_B", "optimizer_B", "kv_cache_B", "buffers_B", "activations_B")
"""From below: what stays, and on top what comes and goes."""

EACH = 16
"""Up to so many ranks are shown one by one; of more, equal ones share a bar."""


def memory(table: pd.DataFrame, *, capacity: float | None = None, ax: Any = None) -> Any:
    """Memory by part, stacked: a bar for every rank at its peak, or an area over the step.

    Equal ranks share a bar where there are more than 16. Parts that the table does not tell apart, or that nobody
    has, are left out.

    Args:
        table: from `perfmodel.memory`, of all ranks or of one.
        capacity: of a rank, drawn as a line [B].
        ax: axes to draw into.

    Raises:
        InputError: columns that are missing; nothing is known.
    """
    check_columns(table, (*PARTS, "total_B"), "perfmodel.memory")
    parts = [part for part in PARTS if table[part].notna().any() and table[part].any()]
    if not parts:
        raise InputError(
            "plot: the table holds no bytes; perfmodel.memory has some of ranks that use memory"
        )
    factor, spelling = scale_of([*table["total_B"].dropna(), capacity or 0.0], "B")
    over_time = "time_s" in table.columns
    draw = _areas if over_time else _bars
    ax = draw(table, parts, factor, ax)
    if capacity is not None:
        line = ax.axhline if over_time else ax.axvline
        line(capacity / factor, color=CRITICAL, linewidth=1.4, label="capacity")
    if over_time:
        ax.set_ylim(0, 1.05 * max(table["total_B"].max(), capacity or 0.0) / factor)
    label, grid = f"memory [{spelling}]", "y" if over_time else "x"
    (ax.set_ylabel if over_time else ax.set_xlabel)(label)
    tidy(ax, grid=grid)
    legend_beside(ax)
    return ax


def _areas(table: pd.DataFrame, parts: list[str], factor: float, ax: Any) -> Any:
    """Steps: what is held from each row's time on."""
    ax = axes_for(ax, 9, 4)
    seconds, spelling = scale_of([table["time_s"].max()], "s")
    time = table["time_s"].to_numpy(float) / seconds
    low = 0.0 * time
    for part, colour in zip(parts, _colours(parts)):
        high = low + table[part].fillna(0.0).to_numpy(float) / factor
        ax.fill_between(time, low, high, step="post", color=colour, linewidth=0, label=_word(part))
        low = high
    ax.set_xlim(0, time[-1] or 1.0)
    ax.set_xlabel(f"time [{spelling}]")
    ax.set_title("Memory over the step")
    return ax


def _bars(table: pd.DataFrame, parts: list[str], factor: float, ax: Any) -> Any:
    names = table["rank"].astype(str)
    if len(table) > EACH:
        alike = table.groupby([table[part].fillna(-1.0) for part in parts], sort=False)["rank"]
        first, count = alike.transform("min"), alike.transform("size")
        table = table[table["rank"] == first]
        names = names[table.index] + [
            f" and {n - 1} more" if n > 1 else "" for n in count[table.index]
        ]
    ax = axes_for(ax, 8, 1.4 + 0.3 * len(table))
    left = 0.0 * table["total_B"].fillna(0.0).to_numpy(float)
    for part, colour in zip(parts, _colours(parts)):
        width = table[part].fillna(0.0).to_numpy(float) / factor
        ax.barh(range(len(table)), width, left=left, color=colour, label=_word(part), height=0.75)
        left += width
    ax.set_yticks(range(len(table)), [f"rank {name}" for name in names])
    ax.tick_params(axis="y", length=0)
    ax.invert_yaxis()
    ax.set_title("Memory at the peak")
    return ax


def _colours(parts: list[str]) -> list[str]:
    own = dict(zip(PARTS, (SERIES[0], SERIES[5], SERIES[2], SERIES[3], SERIES[7], SERIES[4])))
    return [own[part] for part in parts]


def _word(part: str) -> str:
    return part.removesuffix("_B").replace("_", " ")
