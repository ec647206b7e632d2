"""Many designs: lines over one parameter, colours over two."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.report.plot.canvas import (
    SERIES,
    axes_for,
    check_columns,
    is_logarithmic,
    label_of,
    legend_beside,
    scale_of,
    scaled_axis,
    short,
    text_of,
    tidy,
    unit_of,
)

MARKED = 40
"""Up to so many points of a line have markers."""

WRITTEN = 64
"""Up to so many cells of a heat map have their value in them."""

TICKS = 10


def sweep_lines(
    table: pd.DataFrame, x: str, y: str = "makespan_s", *, hue: str | None = None, ax: Any = None
) -> Any:
    """One column over another, a line per value of a third. Axes are logarithmic where the values are.

    Args:
        table: from `perfmodel.sweep`.
        x, y: columns; `x` may hold choices (texts), too.
        hue: a column with a line for each of its values.
        ax: axes to draw into.

    Raises:
        InputError: missing columns; a `y` of texts; several values of y for one x and hue.
    """
    check_columns(table, [c for c in (x, y, hue) if c is not None], "perfmodel.sweep")
    if not pd.api.types.is_numeric_dtype(table[y]):
        raise InputError(
            f"plot: {y} holds texts such as {table[y].iloc[0]!r}, which a line cannot show; colour a heat map "
            f"by it: sweep_heatmap(table, {x!r}, {hue or 'another parameter'!r}, z={y!r})"
        )
    _check_single(table, [x, *([hue] if hue else [])], y)
    ax = axes_for(ax, 8, 4.5)
    texts = not pd.api.types.is_numeric_dtype(table[x])
    log_x = not texts and is_logarithmic(table[x])
    log_y = bool(is_logarithmic(table[y]) and table[y].max() > 20 * table[y].min())
    across = 1.0 if texts else scaled_axis(ax.xaxis, x, table[x], log=log_x)
    up = scaled_axis(ax.yaxis, y, table[y], log=log_y)
    place = {value: k for k, value in enumerate(dict.fromkeys(table[x]))} if texts else {}
    for colour, label, rows in _lines(table, hue):
        where = rows[x].map(place) if texts else rows[x] / across
        rows = rows.assign(where=where).sort_values("where")
        ax.plot(
            rows["where"],
            rows[y] / up,
            color=colour,
            linewidth=1.6,
            marker="o" if len(rows) <= MARKED else None,
            markersize=4,
            label=label,
        )
    if texts:
        ax.set_xticks(list(place.values()), [str(value) for value in place])
        ax.set_xlabel(label_of(x, ""))
    if not log_y:
        ax.set_ylim(bottom=0)
    ax.set_title(f"{label_of(y, '')} over {label_of(x, '')}")
    tidy(ax, grid="both")
    if hue:
        legend_beside(ax, title=label_of(hue, ""))
    return ax


def _lines(table: pd.DataFrame, hue: str | None) -> list[tuple[Any, str, pd.DataFrame]]:
    """Colour, label and rows of each line."""
    if hue is None:
        return [(SERIES[0], "", table)]
    values = _ordered(table[hue])
    if len(values) <= len(SERIES) and not pd.api.types.is_numeric_dtype(table[hue]):
        colours: Any = SERIES
    else:
        import matplotlib

        colours = matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, len(values)))
    return [(c, text_of(v, unit_of(hue)), table[table[hue] == v]) for c, v in zip(colours, values)]


def _check_single(table: pd.DataFrame, keys: list[str], y: str) -> None:
    """One row per place in the picture: what else varies is to be fixed first."""
    if not table.duplicated(keys).any():
        return
    results = {"schedule", "limited_by", y}
    varying = [
        c
        for c in table.columns
        if c not in keys and c not in results and "." in str(c) and table[c].nunique() > 1
    ]
    fix = varying[0] if varying else keys[0]
    raise InputError(
        f"plot: several rows have the same {' and '.join(keys)}"
        + (f"; {', '.join(varying)} vary, too" if varying else "")
        + f"; choose one value first, for example table[table[{fix!r}] == table[{fix!r}].iloc[0]]"
    )


def sweep_heatmap(
    table: pd.DataFrame, x: str, y: str, *, z: str = "makespan_s", ax: Any = None
) -> Any:
    """A column as colour over two others, one cell per design; designs that are not there stay white.

    Args:
        table: from `perfmodel.sweep`.
        x, y: columns across and up, numbers or choices.
        z: column to colour by; one of texts, such as limited_by, has a colour for each and a legend.
        ax: axes to draw into.

    Raises:
        InputError: missing columns; several rows for one cell.
    """
    check_columns(table, (x, y, z), "perfmodel.sweep")
    _check_single(table, [x, y], z)
    grid = table.pivot(index=y, columns=x, values=z)
    grid = grid.reindex(index=_ordered(table[y]), columns=_ordered(table[x]))
    ax = axes_for(ax, 8, 5)
    if pd.api.types.is_numeric_dtype(table[z]):
        _colour_numbers(ax, grid.to_numpy(float), z)
    else:
        _colour_texts(ax, grid, z)
    _ticks(ax.xaxis, x, grid.columns)
    _ticks(ax.yaxis, y, grid.index)
    ax.set_title(f"{label_of(z, '')} over {label_of(x, '')} and {label_of(y, '')}")
    return ax


def _colour_numbers(ax: Any, values: np.ndarray, z: str) -> None:
    """Cells from light to dark, with a bar, and their values in them where they are few."""
    log = bool(np.nanmin(values) > 0 and np.nanmax(values) > 20 * np.nanmin(values))
    factor, spelling = scale_of(values, unit_of(z))
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    mesh = ax.pcolormesh(
        *_edges(values.shape),
        np.ma.masked_invalid(values / factor),
        cmap="viridis_r",
        norm=LogNorm() if log else None,
    )
    bar = ax.figure.colorbar(mesh, ax=ax, label=label_of(z, spelling), pad=0.02)
    if log:
        bar.ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        bar.ax.yaxis.set_minor_formatter(NullFormatter())
    if values.size <= WRITTEN:
        _write_values(ax, mesh, values / factor)


def _colour_texts(ax: Any, grid: pd.DataFrame, z: str) -> None:
    """A colour for each text, in a legend, the most frequent first."""
    from matplotlib.colors import BoundaryNorm, ListedColormap
    from matplotlib.patches import Patch

    words = list(grid.stack().value_counts().index)
    if not words:
        raise InputError(f"plot: {z} holds no value")
    colours = _colours(len(words))
    number = {word: k for k, word in enumerate(words)}
    values = np.array([[number.get(v, -1) for v in row] for row in grid.to_numpy(object)])
    ax.pcolormesh(
        *_edges(values.shape),
        np.ma.masked_less(values, 0),
        cmap=ListedColormap(colours),
        norm=BoundaryNorm(np.arange(len(words) + 1) - 0.5, len(words)),
    )
    handles = [Patch(color=colour, label=short(str(word))) for colour, word in zip(colours, words)]
    legend_beside(ax, handles=handles, title=label_of(z, ""))


def _edges(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Where cells end, across and up; they are centred on whole numbers."""
    return np.arange(shape[1] + 1) - 0.5, np.arange(shape[0] + 1) - 0.5


def _colours(count: int) -> list[Any]:
    """So many that can be told apart, or as well as can be."""
    if count <= len(SERIES):
        return list(SERIES[:count])
    import matplotlib

    return list(matplotlib.colormaps["viridis"](np.linspace(0.0, 0.88, count)))


def _ordered(column: pd.Series) -> list[Any]:
    """Numbers by size, choices as they come."""
    distinct = list(dict.fromkeys(column))
    return sorted(distinct) if pd.api.types.is_numeric_dtype(column) else distinct


def _write_values(ax: Any, mesh: Any, values: np.ndarray) -> None:
    """Each cell's value, in white where the cell is dark."""
    for (row, column), value in np.ndenumerate(values):
        if np.isfinite(value):
            red, green, blue, _ = mesh.cmap(mesh.norm(value))
            dark = 0.299 * red + 0.587 * green + 0.114 * blue < 0.5
            ax.text(
                column,
                row,
                f"{value:.3g}",
                ha="center",
                va="center",
                fontsize=8,
                color="white" if dark else "black",
            )


def _ticks(axis: Any, column: str, values: pd.Index) -> None:
    """At most TICKS labels, in one unit where that reads well."""
    chosen = np.arange(0, len(values), -(-len(values) // TICKS))
    unit = unit_of(column)
    numeric = pd.api.types.is_numeric_dtype(values)
    if numeric and np.abs(values).max() <= 1000 * max(np.abs(values).min(), 1e-300):
        factor, spelling = scale_of(values, unit)
        texts = [f"{values[k] / factor:.3g}" for k in chosen]
    else:
        spelling = ""
        texts = [text_of(values[k], unit) for k in chosen]
    axis.set_ticks(chosen, texts)
    axis.set_label_text(label_of(column, spelling))
