"""Residuals as plots: predicted / measured on a log axis over size, a panel per kind, coloured by number of GPUs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

MOST = 4000
"""Points of a panel; more are thinned out evenly."""


def figure(table: pd.DataFrame, column: str = "fitted"):
    """One figure of all kinds of a part; held-out rows filled, fitted rows open."""
    from matplotlib.figure import Figure

    kinds = list(dict.fromkeys(zip(table.device, table.kind)))
    wide = min(3, len(kinds))
    high = -(-len(kinds) // wide)
    drawing = Figure(figsize=(4.2 * wide, 2.9 * high), layout="constrained")
    axes = np.atleast_1d(drawing.subplots(high, wide, sharey=True, squeeze=False)).ravel()
    counts = sorted(table.ranks.unique())
    colours = {n: f"C{k % 10}" for k, n in enumerate(counts)}
    for axis, (device, kind) in zip(axes, kinds):
        rows = table[(table.device == device) & (table.kind == kind)]
        rows = rows.iloc[:: max(1, len(rows) // MOST)]
        for (n, seen), part in rows.groupby(["ranks", "seen"]):
            ratio = part[column] / part.seconds
            face = "none" if seen else colours[n]
            axis.scatter(part["size"], ratio, s=8, facecolors=face, edgecolors=colours[n], lw=0.5)
        axis.axhline(1.0, color="black", lw=0.8)
        axis.set(xscale="log", yscale="log", title=f"{device}: {kind}", ylim=(0.2, 5.0))
        axis.set_yticks([0.25, 0.5, 1, 2, 4], ["1/4", "1/2", "1", "2", "4"])
        axis.minorticks_off()
    for axis in axes[len(kinds) :]:
        axis.axis("off")
    drawing.supxlabel("size (products: FLOP, attention: length, else B)")
    drawing.supylabel("predicted / measured")
    handles = [axes[0].scatter([], [], s=12, color=colours[n], label=f"{n} GPUs") for n in counts]
    handles.append(
        axes[0].scatter([], [], s=12, facecolors="none", edgecolors="grey", label="seen by the fit")
    )
    drawing.legend(handles=handles, loc="outside lower right", ncols=len(handles), fontsize=7)
    return drawing


def write(table: pd.DataFrame, folder: Path) -> list[Path]:
    """One file per part and model."""
    paths = []
    for part, rows in table.groupby("part", sort=False):
        for column in ("fitted", "roofline"):
            path = folder / f"{str(part).replace(' ', '_')}_{column}.png"
            figure(rows, column).savefig(path, dpi=110)
            paths.append(path)
    return paths
