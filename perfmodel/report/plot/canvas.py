"""What all plots share: matplotlib on demand, colours, and axes that read in human units."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from perfmodel import units
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, RemoteMemory
from perfmodel.models.compute import Roofline
from perfmodel.models.memory import Bandwidth
from perfmodel.models.network import AlphaBeta
from perfmodel.models.saturation import SaturatingAlphaBeta, SaturatingRoofline

COLOURS = {
    "compute": "#0072B2",
    "memory": "#E69F00",
    "communication": "#009E73",
    "waiting": "#BBBBBB",
    "host": "#CC79A7",
    "idle": "#E5E5E5",
}
CRITICAL = "#D55E00"
SERIES = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#999999")
"""Okabe and Ito (2008), Color Universal Design; yellow, which white paper swallows, is grey here."""

_RECORDS = (
    NPU,
    Dimension,
    RemoteMemory,
    Roofline,
    Bandwidth,
    AlphaBeta,
    SaturatingAlphaBeta,
    SaturatingRoofline,
)
_SUFFIXES = {
    "_s": "s",
    "_B": "B",
    "_FLOP": "FLOP",
    "_W": "W",
    "_J": "J",
    "_usd": "$",
    "_mm2": "mm²",
}
DECADES = 3.2
_EVENLY = 1.5
"""Steps whose ratios differ by less than this are steps of a logarithmic scale."""


def pyplot() -> Any:
    """matplotlib.pyplot, or what to install.

    Raises:
        InputError: matplotlib is not there.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise InputError(
            f"plots need matplotlib ({error}); install it with: pip install 'perfmodel[plot]'"
        ) from None
    return plt


def axes_for(ax: Any, width: float, height: float) -> Any:
    """The axes given, or those of a new figure of that size [inch]."""
    if ax is not None:
        return ax
    return pyplot().subplots(figsize=(width, height), layout="constrained")[1]


def check_columns(table: Any, wanted: Iterable[str], source: str) -> None:
    """Raise InputError unless the table has the columns and at least one row."""
    if not isinstance(table, pd.DataFrame):
        raise InputError(f"plot: got {type(table).__name__}, expected the DataFrame of {source}")
    missing = [c for c in wanted if c not in table.columns]
    if missing:
        raise InputError(
            f"plot: the table has no column {missing[0]!r}, expected the table of {source}; "
            f"it has {', '.join(map(str, table.columns)) or 'none'}"
        )
    if not len(table):
        raise InputError(f"plot: the table has no rows; expected the table of {source}")


@cache
def _parameter_units() -> dict[str, str]:
    """Unit of every number that hardware and models have, by field name."""
    return {
        f.name: f.metadata["unit"] for cls in _RECORDS for f in fields(cls) if "unit" in f.metadata
    }


def unit_of(column: str) -> str:
    """The SI unit of a table's column: of a parameter path by its last word, else by the column's suffix.

    >>> unit_of("network.0.bandwidth"), unit_of("makespan_s"), unit_of("throughput_per_s")
    ('B/s', 's', '1/s')
    """
    last = column.rsplit(".", 1)[-1]
    if last in _parameter_units():
        return _parameter_units()[last]
    if column.endswith("_per_s"):
        return "1/s"
    return next((unit for end, unit in _SUFFIXES.items() if column.endswith(end)), "1")


def scale_of(values: ArrayLike, unit: str) -> tuple[float, str]:
    """What to divide by, and the unit's spelling, so that the largest value reads well.

    >>> scale_of([0.0, 2.5e-3], "s"), scale_of([4.5e11], "B/s")
    ((0.001, 'ms'), (1000000000.0, 'GB/s'))
    """
    finite = np.abs(np.asarray(values, float))
    finite = finite[np.isfinite(finite)]
    largest = float(finite.max(initial=0.0))
    known = unit in ("s", "B", "B/s", "FLOP", "FLOP/s", "W", "J", "$")
    if not known or largest == 0:
        return 1.0, "" if unit == "1" else unit
    spelling = units.format(largest, unit).split(" ", 1)[1]
    return units.parse(f"1 {spelling}", unit), spelling


def text_of(value: Any, unit: str) -> str:
    """One value for people.

    >>> text_of(4.5e11, "B/s"), text_of(0.25, "1"), text_of("ring", "1")
    ('450 GB/s', '0.25', 'ring')
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, int | float | np.number):
        return str(value)
    factor, spelling = scale_of([float(value)], unit)
    return f"{float(value) / factor:.4g} {spelling}".rstrip()


def short(name: str, most: int = 40) -> str:
    """A name that fits beside a plot: its middle left out, and no dollar sign read as mathematics.

    >>> short("a" * 30 + "b" * 30, 11), short("x$y$")
    ('aaaaa…bbbbb', 'x\\\\$y\\\\$')
    """
    if len(name) > most:
        name = name[: most // 2] + "…" + name[-(most - most // 2 - 1) :]
    return name.replace("$", r"\$")


def label_of(column: str, spelling: str) -> str:
    """An axis label: the column without its unit's suffix, and the unit shown.

    >>> label_of("makespan_s", "ms"), label_of("npu.peak_flops", "TFLOP/s"), label_of("share", "")
    ('makespan [ms]', 'npu.peak_flops [TFLOP/s]', 'share')
    """
    words = column
    if "." not in column:
        endings = ("_per_s", *_SUFFIXES)
        end = next((e for e in endings if column.endswith(e)), "")
        words = column.removesuffix(end).replace("_", " ")
    return f"{words} [{spelling}]" if spelling else words


def is_logarithmic(values: ArrayLike) -> bool:
    """Whether positive values span more than a factor of 8 in steps of about one ratio, or 50 in any."""
    distinct = np.unique(np.asarray(values, float))
    if len(distinct) < 3 or distinct[0] <= 0 or not np.isfinite(distinct).all():
        return False
    ratios = distinct[1:] / distinct[:-1]
    even = ratios.max() < ratios.min() ** _EVENLY
    spread = distinct[-1] / distinct[0]
    return bool(spread > 50 or (spread > 8 and even))


def scaled_axis(axis: Any, column: str, values: ArrayLike, *, log: bool) -> float:
    """Label an axis in human units; beyond some decades each tick has its own prefix.

    Returns:
        What values are divided by before they are drawn.
    """
    unit = unit_of(column)
    factor, spelling = scale_of(values, unit)
    if log:
        from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

        decades = float(np.ptp(np.log10(np.asarray(values, float))))
        if decades > DECADES:
            factor, spelling = 1.0, ""
        axis._set_axes_scale("log")
        axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if decades < 2.5 else (1.0,)))
        axis.set_major_formatter(
            FuncFormatter(lambda v, _: f"{v:g}" if spelling else text_of(v, unit))
        )
        axis.set_minor_formatter(NullFormatter())
    axis.set_label_text(label_of(column, spelling))
    return factor


def category_of_types(types: pd.Series) -> NDArray[np.object_]:
    """[n] category of each node by its type's name; "" for nodes that take no time.

    >>> list(category_of_types(pd.Series(["COMP", "MEM_LOAD", "ALL_REDUCE", "METADATA"])))
    ['compute', 'memory', 'communication', '']
    """
    words = {
        "COMP": "compute",
        "MEM_LOAD": "memory",
        "MEM_STORE": "memory",
        "METADATA": "",
        "INVALID": "",
    }
    return np.array([words.get(t, "communication") for t in types], dtype=object)


def tidy(ax: Any, *, grid: str = "") -> None:
    """No box around, a faint grid behind."""
    ax.spines[["top", "right"]].set_visible(False)
    if grid:
        ax.grid(axis=grid, color="#DDDDDD", linewidth=0.6)
        ax.set_axisbelow(True)


def legend_beside(ax: Any, **options: Any) -> None:
    """A legend right of the axes, where it hides nothing."""
    settings = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "frameon": False, **options}
    ax.legend(**settings)
