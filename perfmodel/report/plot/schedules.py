"""When and where things run: the timeline of ranks, and the critical path through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.report.plot.canvas import (
    COLOURS,
    CRITICAL,
    axes_for,
    category_of_types,
    check_columns,
    legend_beside,
    scale_of,
    tidy,
)

HEIGHT = 0.8
"""Of a bar, in lanes."""

VISIBLE = 1 / 1500
"""Fraction of the time shown that is about a pixel: narrower gaps in an outline are closed."""

MOST_LANES = 400
"""More lanes than this are thinner than a line of pixels."""

RECEIVES = "receives"


def timeline(table: pd.DataFrame, *, ranks: Sequence[int] | None = None, ax: Any = None) -> Any:
    """Bars by rank and resource, coloured by what the time goes to, the critical path outlined.

    A receive is a thin bar from when it was posted to when its message was there; it has no outline, as the path comes
    to it with the message, which is outlined where it was sent. Nodes that hold no resource and
    take no time (metadata) have no lane. The outline is on the ranks that `perfmodel.timeline` marks: of equal
    ranks, one.

    Args:
        table: from `perfmodel.timeline`.
        ranks: some ranks only (all by default).
        ax: axes to draw into.

    Raises:
        InputError: columns that are missing, a rank that is not there, more lanes than a picture holds.
    """
    columns = ("rank", "type", "resource", "start_s", "finish_s", "critical")
    check_columns(table, columns, "perfmodel.timeline")
    if ranks is not None:
        absent = sorted(set(ranks) - set(table["rank"]))
        if absent:
            raise InputError(f"plot: rank {absent[0]} is not in the table")
        table = table[table["rank"].isin(list(ranks))]
    category = category_of_types(table["type"])
    table = table[category != ""].assign(category=category[category != ""])
    table["lane"] = np.where(table["resource"] == "", RECEIVES, table["resource"])
    lanes = _lanes(table)
    if len(lanes) > MOST_LANES:
        raise InputError(
            f"plot: {len(lanes)} lanes are more than a picture holds (limit {MOST_LANES}); "
            "choose some ranks, for example ranks=[0, 1]"
        )
    ax = axes_for(ax, 10, min(1.4 + 0.27 * len(lanes), 14))
    last = float(table["finish_s"].max())
    factor, spelling = scale_of([last], "s")
    place = pd.Series(range(len(lanes)), index=pd.MultiIndex.from_tuples(lanes))
    middle = place.loc[list(zip(table["rank"], table["lane"]))].to_numpy(float)
    thin = np.where(table["lane"] == RECEIVES, 0.4, 1.0) * HEIGHT
    start, finish = (table[c].to_numpy(float) / factor for c in ("start_s", "finish_s"))
    kinds = table["category"].to_numpy()
    if "waiting_s" in table and (table["waiting_s"] > 0).any():
        waits = table["waiting_s"].to_numpy(float) / factor
        some = waits > 0
        from_there = start + waits
        _bars(ax, from_there, finish, middle, thin, kinds, last / factor)
        words = np.full(int(some.sum()), "waiting", object)
        _bars(ax, start[some], from_there[some], middle[some], thin[some], words, last / factor)
    else:
        _bars(ax, start, finish, middle, thin, kinds, last / factor)
    critical = table["critical"].to_numpy(bool) & (table["lane"] != RECEIVES).to_numpy()
    if critical.any():
        _outline(ax, start[critical], finish[critical], middle[critical], last / factor)
    _label_lanes(ax, lanes)
    ax.set_xlim(0, last / factor or 1.0)
    ax.set_xlabel(f"time [{spelling}]")
    ax.set_title("Timeline")
    tidy(ax, grid="x")
    legend_beside(ax)
    return ax


def _lanes(table: pd.DataFrame) -> list[tuple[int, str]]:
    """(rank, lane) from top to bottom: compute first, receives and then all other names by the alphabet."""
    order = ("compute", "cpu", "thread", "stream", "communication", RECEIVES)

    def key(lane: tuple[int, str]) -> tuple[int, int, str, str]:
        rank, word = lane
        kind, _, number = word.partition(" ")
        return rank, order.index(kind) if kind in order else len(order), kind, number.zfill(12)

    return sorted(set(zip(table["rank"].tolist(), table["lane"])), key=key)


def _bars(
    ax: Any,
    start: NDArray[Any],
    finish: NDArray[Any],
    middle: NDArray[Any],
    height: NDArray[Any],
    category: NDArray[Any],
    span: float,
) -> None:
    """One collection of rectangles per category; wide bars are set apart by a white line."""
    from matplotlib.collections import PolyCollection

    for word in [w for w in COLOURS if (category == w).any()]:
        mine = category == word
        wide = (finish[mine] - start[mine]) > span / 150
        edges = np.where(wide, "white", COLOURS[word])
        ax.add_collection(
            PolyCollection(
                rectangles(start[mine], finish[mine], middle[mine], height[mine]),
                facecolors=COLOURS[word],
                edgecolors=list(edges),
                linewidths=0.3,
                label=word,
            ),
            autolim=False,
        )


def rectangles(
    start: NDArray[Any], finish: NDArray[Any], middle: NDArray[Any], height: NDArray[Any]
) -> list[NDArray[np.float64]]:
    """n bars, each [4, 2] corners."""
    low, high = middle - height / 2, middle + height / 2
    corners = [(start, low), (finish, low), (finish, high), (start, high)]
    return list(np.stack([np.stack(corner, axis=-1) for corner in corners], axis=1))


def _outline(
    ax: Any, start: NDArray[Any], finish: NDArray[Any], middle: NDArray[Any], span: float
) -> None:
    """A frame around each stretch of the critical path on a lane."""
    from matplotlib.collections import PolyCollection

    frames = []
    for lane in np.unique(middle):
        mine = middle == lane
        for a, b in stretches(start[mine], finish[mine], span * VISIBLE):
            frames.append((a, b, lane))
    a, b, lane = np.array(frames).T
    ax.add_collection(
        PolyCollection(
            rectangles(a, b, lane, np.full(len(a), HEIGHT + 0.06)),
            facecolors="none",
            edgecolors=CRITICAL,
            linewidths=1.1,
            label="critical path",
            zorder=3,
        ),
        autolim=False,
    )


def stretches(start: NDArray[Any], finish: NDArray[Any], gap: float) -> list[tuple[float, float]]:
    """Intervals joined where they touch, but for a gap.

    >>> stretches(np.array([0.0, 2.0, 1.0]), np.array([1.0, 3.0, 1.5]), 0.1)
    [(0.0, 1.5), (2.0, 3.0)]
    """
    joined: list[tuple[float, float]] = []
    for a, b in sorted(zip(start.tolist(), finish.tolist())):
        if joined and a <= joined[-1][1] + gap:
            joined[-1] = (joined[-1][0], max(b, joined[-1][1]))
        else:
            joined.append((a, b))
    return joined


def _label_lanes(ax: Any, lanes: list[tuple[int, str]]) -> None:
    """Every lane by name where there is room, else every rank, else some ranks."""
    first = [k for k, (rank, _) in enumerate(lanes) if k == 0 or lanes[k - 1][0] != rank]
    if len(lanes) <= 48:
        ticks = list(range(len(lanes)))
        texts = [f"rank {r}  {w}" if k in first else w for k, (r, w) in enumerate(lanes)]
    else:
        ticks = first[:: -(-len(first) // 40)]
        texts = [f"rank {lanes[k][0]}" for k in ticks]
    ax.set_yticks(ticks, texts)
    ax.tick_params(axis="y", length=0, labelsize=8)
    ax.set_ylim(len(lanes) - 0.5, -0.5)
    for k in first[1:]:
        ax.axhline(k - 0.5, color="#DDDDDD", linewidth=0.6, zorder=0)


def critical_path(table: pd.DataFrame, *, ax: Any = None) -> Any:
    """The critical path through time and ranks: where it is, what it does there, and each kind's share.

    Args:
        table: from `perfmodel.critical_path`.
        ax: axes to draw into.
    """
    columns = ("rank", "type", "start_s", "finish_s", "on_path_s", "waiting_s")
    check_columns(table, columns, "perfmodel.critical_path")
    ranks = sorted(set(table["rank"]))
    ax = axes_for(ax, 10, min(1.6 + 0.4 * len(ranks), 12))
    total = float(table["finish_s"].max())
    factor, spelling = scale_of([total], "s")
    lane = table["rank"].map({rank: k for k, rank in enumerate(ranks)}).to_numpy(float)
    finish = table["finish_s"].to_numpy(float) / factor
    start = finish - table["on_path_s"].to_numpy(float) / factor
    waited = table["waiting_s"].to_numpy(float) / factor
    category = category_of_types(table["type"])
    category[category == ""] = "waiting"
    ax.step(
        np.stack([start, finish], axis=1).ravel(),
        np.repeat(lane, 2),
        where="post",
        color=CRITICAL,
        linewidth=0.8,
        zorder=0,
    )
    height = np.full(len(table), HEIGHT)
    _bars(ax, start, finish, lane, height, category, total / factor)
    waits = waited > 0
    if waits.any():
        waiting = np.full(int(waits.sum()), "waiting", dtype=object)
        before = start[waits] - waited[waits]
        _bars(ax, before, start[waits], lane[waits], height[waits], waiting, total / factor)
    ax.set_yticks(range(len(ranks)), [f"rank {rank}" for rank in ranks])
    ax.tick_params(axis="y", length=0)
    ax.set_ylim(len(ranks) - 0.5, -0.5)
    ax.set_xlim(0, total / factor or 1.0)
    ax.set_xlabel(f"time [{spelling}]")
    ax.set_title(f"Critical path: {len(table)} nodes, {total / factor:.4g} {spelling}")
    tidy(ax, grid="x")
    seconds = table["on_path_s"].groupby(category).sum()
    seconds["waiting"] = seconds.get("waiting", 0.0) + table["waiting_s"].sum()
    _legend_with_shares(ax, seconds, total)
    return ax


def _legend_with_shares(ax: Any, seconds: pd.Series, total: float) -> None:
    from matplotlib.patches import Patch

    words = [w for w in ("compute", "memory", "communication", "waiting") if seconds.get(w, 0) > 0]
    handles = [
        Patch(color=COLOURS[w], label=f"{w} {seconds[w] / total:.1%}" if total else w)
        for w in words
    ]
    legend_beside(ax, handles=handles)
