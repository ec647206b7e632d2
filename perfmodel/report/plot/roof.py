"""The roofline, with a trace's compute nodes on it.

Reference: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
for multicore architectures", Communications of the ACM 52(4), 2009.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel import units
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.prediction import Prediction
from perfmodel.report.plot.canvas import COLOURS, axes_for, legend_beside, short, text_of, tidy
from perfmodel.report.tables import component
from perfmodel.vocabulary import NodeType

NAMED = 6
"""So many nodes, those that take longest, are numbered and named in the legend."""

NEAR = 0.2
"""Points nearer than this, in decades, share a label."""

LARGEST = 500.0
"""Area of the largest marker [points^2]."""


def roofline(prediction: Prediction, *, system: System | None = None, ax: Any = None) -> Any:
    """Rate over arithmetic intensity, a marker per distinct compute node, its area its time over all ranks.

    Left of the ridge the memory limits a node, right of it the arithmetic. Nodes without FLOP or without bytes
    have no place on the axes; the title says how much time they take.

    Args:
        prediction: from `perfmodel.predict`.
        system: whose roof to draw, where the prediction was evaluated at other rates than it was compiled for.
        ax: axes to draw into.

    Raises:
        InputError: no compute node has both FLOP and bytes.
    """
    system = prediction.compiled.system if system is None else system
    nodes = compute_costs(prediction)
    works = nodes["flops"] > 1  # one is what generators write for none, as ASTRA-sim takes no 0
    shown = nodes[works & (nodes["bytes_B"] > 0) & (nodes["each_s"] > 0)]
    if not len(shown):
        raise InputError(
            f"{prediction.graph.source}: no compute node has FLOP, bytes and a duration; a roofline needs them"
        )
    shown = shown.sort_values("total_s", ascending=False, kind="stable")
    intensity = (shown["flops"] / shown["bytes_B"]).to_numpy(float)
    rate = (shown["flops"] / shown["each_s"]).to_numpy(float)
    ax = axes_for(ax, 9, 5)
    peak, memory = float(system.npu.peak_flops), float(system.npu.memory_bandwidth)
    ridge = peak / memory
    reach = np.array([min(intensity.min(), ridge) / 3, max(intensity.max(), ridge) * 3])
    ax.plot(
        [reach[0], ridge, reach[1]],
        [reach[0] * memory, peak, peak],
        color="black",
        linewidth=1.4,
        zorder=1,
    )
    area = np.maximum(LARGEST * (shown["total_s"] / shown["total_s"].max()).to_numpy(float), 12)
    for word, mine in (("memory", intensity < ridge), ("compute", intensity >= ridge)):
        if mine.any():
            ax.scatter(
                intensity[mine],
                rate[mine],
                s=area[mine],
                color=COLOURS[word],
                alpha=0.7,
                edgecolors="white",
                linewidths=0.6,
                zorder=2,
            )
    _name(ax, shown, intensity, rate)
    _scale(ax, reach, min(rate.min(), reach[0] * memory), peak)
    ax.annotate(
        units.format(peak, "FLOP/s"),
        (ridge, peak),
        xytext=(0, 5),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    ax.annotate(
        units.format(memory, "B/s"),
        (np.sqrt(reach[0] * ridge), np.sqrt(reach[0] * ridge) * memory),
        xytext=(-4, 6),
        textcoords="offset points",
        ha="right",
        fontsize=9,
    )
    hidden = float(nodes["total_s"].sum() - shown["total_s"].sum())
    title = f"Roofline of {system.name or 'the system'}"
    if hidden > 0:
        share = 100 * hidden / nodes["total_s"].sum()
        title += f"\n{share:.2g} % of the compute time is in nodes without FLOP or bytes, not shown"
    ax.set_title(title)
    return ax


def compute_costs(prediction: Prediction) -> pd.DataFrame:
    """The distinct compute nodes.

    Returns:
        flops, bytes_B, each_s (duration of one), nodes (over all ranks), total_s, name (of the first, numbers as "*"),
        names (how many different ones).
    """
    c, graph = prediction.compiled, prediction.graph
    count = np.bincount(c.rank_class, minlength=len(c.representative))
    parts = []
    for k, rank in enumerate(c.representative):
        program, labels = graph.programs[graph.program[rank]], graph.labels[graph.label[rank]]
        tasks = c.tasks_of(rank)
        lasts = prediction.task_finish[tasks] - prediction.task_start[tasks]
        chosen = np.flatnonzero(program.type == NodeType.COMP)
        parts.append(
            pd.DataFrame(
                {
                    "flops": program.flops[chosen],
                    "bytes_B": program.bytes[chosen],
                    "each_s": lasts[chosen],
                    "nodes": count[k],
                    "name": [component(labels.names[j], 99, numbers=False) for j in chosen],
                }
            )
        )
    nodes = pd.concat(parts, ignore_index=True)
    # start and finish are sums over the path before: equal durations differ by rounding
    nodes["about"] = [f"{value:.6g}" for value in nodes["each_s"]]
    keys = ["flops", "bytes_B", "about"]
    found = nodes.groupby(keys, sort=False).agg(
        each_s=("each_s", "mean"),
        nodes=("nodes", "sum"),
        name=("name", "first"),
        names=("name", "nunique"),
    )
    found["total_s"] = found["each_s"] * found["nodes"]
    return found.reset_index().drop(columns="about")


def _name(ax: Any, shown: pd.DataFrame, intensity: NDArray[Any], rate: NDArray[Any]) -> None:
    """Number the nodes that take longest and say in the legend what they are."""
    from matplotlib.lines import Line2D

    for spot, numbers in clusters(intensity[:NAMED], rate[:NAMED]):
        ax.annotate(
            ", ".join(str(k + 1) for k in numbers),
            spot,
            xytext=(0, -18),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=8,
        )
    handles = []
    whole = shown["total_s"].sum()
    for k, (_, row) in enumerate(shown.head(NAMED).iterrows()):
        others = f" and {row['names'] - 1} more" if row["names"] > 1 else ""
        label = f"{k + 1}  {short(row['name'])}{others}: {row['total_s'] / whole:.0%}"
        handles.append(Line2D([], [], linestyle="", label=label))
    for word, text in (("memory", "limited by memory"), ("compute", "limited by arithmetic")):
        handles.append(Line2D([], [], linestyle="", marker="o", color=COLOURS[word], label=text))
    title = "share of the time of all markers"
    legend_beside(ax, handles=handles, handlelength=1.0, fontsize=8, title=title)


def clusters(x: NDArray[Any], y: NDArray[Any]) -> list[tuple[tuple[float, float], list[int]]]:
    """Points that are too near each other for a label each: where the first is, and their numbers.

    >>> clusters(np.array([1.0, 1.1, 100.0]), np.array([1.0, 1.0, 1.0]))
    [((1.0, 1.0), [0, 1]), ((100.0, 1.0), [2])]
    """
    found: list[tuple[tuple[float, float], list[int]]] = []
    for k, spot in enumerate(zip(x.tolist(), y.tolist())):
        near = [
            numbers
            for other, numbers in found
            if np.abs(np.log10(np.divide(spot, other))).max() < NEAR
        ]
        if near:
            near[0].append(k)
        else:
            found.append((spot, [k]))
    return found


def _scale(ax: Any, reach: Any, lowest: float, peak: float) -> None:
    from matplotlib.ticker import FuncFormatter

    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlim(*reach)
    ax.set_ylim(lowest / 2, peak * 3)
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: text_of(value, "FLOP/s")))
    ax.set_xlabel("arithmetic intensity [FLOP/B]")
    ax.set_ylabel("rate reached")
    tidy(ax, grid="both")
