"""Answers: what matters, what cannot be had together, how well a calibration fits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.report.plot.canvas import (
    COLOURS,
    CRITICAL,
    SERIES,
    axes_for,
    check_columns,
    is_logarithmic,
    label_of,
    legend_beside,
    scale_of,
    scaled_axis,
    text_of,
    tidy,
    unit_of,
)


def tornado(table: pd.DataFrame, *, top: int = 12, fraction: float = 0.1, ax: Any = None) -> Any:
    """How the makespan answers to each parameter alone, lower and higher; the largest swing on top.

    Args:
        table: from `perfmodel.sensitivity(..., tornado=True)`.
        top: most parameters to show; those without effect are left out and counted below the axis.
        fraction: by which the table's parameters were moved, where `tornado` of `perfmodel.sensitivity` was not
            True; a table that says so itself, `table.attrs["tornado"]`, is believed.
        ax: axes to draw into.

    Raises:
        InputError: columns that are missing.
    """
    source = "perfmodel.sensitivity(..., tornado=True)"
    check_columns(table, ("parameter", "value", "unit", "low_s", "high_s"), source)
    percent = f"{100 * float(table.attrs.get('tornado', fraction)):.3g} %"
    swing = (table["high_s"] - table["low_s"]).abs()
    base = _base(table)
    effect = np.maximum((table["low_s"] - base).abs(), (table["high_s"] - base).abs())
    order = swing.sort_values(ascending=False, kind="stable").index
    chosen = table.loc[[k for k in order if effect[k] > 1e-9 * base][:top]]
    ax = axes_for(ax, 8, 1.8 + 0.36 * max(len(chosen), 1))
    factor, spelling = scale_of([table["low_s"].max(), table["high_s"].max()], "s")
    place = np.arange(len(chosen))
    for column, colour, label in (
        ("low_s", SERIES[1], f"-{percent}"),
        ("high_s", SERIES[0], f"+{percent}"),
    ):
        width = (chosen[column].to_numpy(float) - base) / factor
        ax.barh(place, width, left=base / factor, color=colour, height=0.7, label=label)
    ax.axvline(base / factor, color="black", linewidth=1.0)
    ax.set_yticks(place, [_named(row) for row in chosen.itertuples()])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(chosen) - 0.5, -0.5)
    left_out = len(table) - len(chosen)
    note = f"\n{left_out} further parameters change it less or not at all" if left_out else ""
    ax.set_xlabel(f"makespan [{spelling}]{note}")
    ax.set_title(f"Makespan with each parameter alone {percent} lower or higher")
    tidy(ax, grid="x")
    legend_beside(ax, title="parameter")
    return ax


def _named(row: Any) -> str:
    return f"{row.parameter}\n{text_of(row.value, row.unit)}"


def _base(table: pd.DataFrame) -> float:
    """The makespan itself, T = p dT/dp / elasticity of any parameter that has one.

    Without any, no parameter moves it, and all rows hold it.
    """
    if {"derivative", "elasticity"} <= set(table.columns):
        matters = table[(table["elasticity"] != 0) & np.isfinite(table["value"])]
        if len(matters):
            row = matters.loc[matters["elasticity"].abs().idxmax()]
            return float(row["value"] * row["derivative"] / row["elasticity"])
    return float(table[["low_s", "high_s"]].median(axis=None))


def pareto(
    table: pd.DataFrame,
    x: str = "cost_usd",
    y: str = "makespan_s",
    *,
    hue: str | None = None,
    ax: Any = None,
) -> Any:
    """Two things to be kept small against each other: all points, those that none beats in both joined by steps.

    Args:
        table: from `perfmodel.pareto`, or any table with two columns to be kept small.
        x, y: the columns.
        hue: a column to colour the points by, such as a third objective.
        ax: axes to draw into.
    """
    check_columns(table, [c for c in (x, y, hue) if c], "perfmodel.pareto")
    ax = axes_for(ax, 8, 4.8)
    log_x, log_y = is_logarithmic(table[x]), is_logarithmic(table[y])
    across = scaled_axis(ax.xaxis, x, table[x], log=log_x)
    up = scaled_axis(ax.yaxis, y, table[y], log=log_y)
    points = np.stack([table[x].to_numpy(float) / across, table[y].to_numpy(float) / up], axis=1)
    front = points[not_dominated(points)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    ax.step(front[:, 0], front[:, 1], where="post", color=CRITICAL, linewidth=1.4, label="front")
    if hue is None:
        beaten = ~not_dominated(points)
        if beaten.any():
            ax.scatter(
                *points[beaten].T,
                s=10,
                alpha=0.6,
                linewidths=0,
                color=COLOURS["idle"],
                label="beaten in both",
            )
        ax.scatter(*front.T, s=28, color=CRITICAL, zorder=3)
    else:
        factor, spelling = scale_of(table[hue], unit_of(hue))
        marks = ax.scatter(*points.T, s=34, c=table[hue] / factor, cmap="viridis", zorder=3)
        ax.figure.colorbar(marks, ax=ax, label=label_of(hue, spelling), pad=0.02)
    ax.set_title(f"{label_of(y, '')} against {label_of(x, '')}")
    tidy(ax, grid="both")
    if hue is None:
        legend_beside(ax)
    return ax


def not_dominated(points: NDArray[Any]) -> NDArray[np.bool_]:
    """[n] whether no other point is as low in both columns and lower in one.

    >>> not_dominated(np.array([[1.0, 3.0], [2.0, 2.0], [2.0, 4.0], [2.0, 2.0]])).tolist()
    [True, True, False, True]
    """
    order = np.lexsort((points[:, 1], points[:, 0]))
    result = np.zeros(len(points), bool)
    lowest = np.inf
    last: tuple[float, float] | None = None
    for k in order:
        here = (float(points[k, 0]), float(points[k, 1]))
        result[k] = here[1] < lowest or here == last
        if here[1] < lowest:
            lowest, last = here[1], here
    return result


def residuals(calibration: Any, *, ax: Any = None) -> Any:
    """Predicted over measured durations, a marker per measurement, the band of 10 % around equality.

    Args:
        calibration: from `perfmodel.calibrate`, or its table `residuals`.
        ax: axes to draw into.

    Raises:
        InputError: columns that are missing.
    """
    table = getattr(calibration, "residuals", calibration)
    columns = ("duration_s", "predicted_s", "error", "kind")
    check_columns(table, columns, "perfmodel.calibrate(...).residuals")
    measured = table["duration_s"].to_numpy(float)
    if not (np.isfinite(measured) & (measured > 0)).all():
        raise InputError("plot: duration_s holds values that are not positive")
    ax = axes_for(ax, 8, 4.8)
    log = is_logarithmic(measured)
    across = scaled_axis(ax.xaxis, "duration_s", measured, log=log)
    label = table["kind"].astype(str)
    if "collective" in table.columns:
        label = label.where(table["collective"].isna(), table["collective"].astype(str))
    error = 100 * table["error"].to_numpy(float)
    for colour, word in zip(SERIES * len(label), dict.fromkeys(label)):
        mine = (label == word).to_numpy()
        median = np.median(np.abs(error[mine]))
        ax.scatter(
            measured[mine] / across,
            error[mine],
            s=22,
            color=colour,
            label=f"{word}: median {median:.1f} %",
            alpha=0.85,
        )
    ax.axhspan(-10, 10, color="#EEEEEE", zorder=0)
    ax.axhline(0, color="black", linewidth=1.0, zorder=1)
    largest = max(12.0, 1.1 * float(np.abs(error).max()))
    ax.set_ylim(-largest, largest)
    ax.set_xlabel("measured " + ax.get_xlabel())
    ax.set_ylabel("predicted - measured [%]")
    ax.set_title("Residuals of the calibration; within 10 % in grey")
    tidy(ax, grid="x")
    legend_beside(ax)
    return ax
