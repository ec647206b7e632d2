"""Timelines and critical paths."""

from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.report import plot
from perfmodel.report.plot import canvas
from perfmodel.report.plot.schedules import stretches
from tests.report.plot.drawn import boxes, by_label, legend_texts, rendered


def test_the_timeline_has_a_bar_per_node_from_its_start_to_its_finish(prediction):
    table = pm.timeline(prediction)
    ax = plot.timeline(table)
    drawn = by_label(ax)
    kinds = canvas.category_of_types(table["type"])
    assert set(drawn) == {"compute", "communication", "waiting", "critical path"}
    assert ax.get_xlabel() in ("time [us]", "time [ms]")
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    for word in ("compute", "communication"):
        found = boxes(drawn[word])[:, :2]
        expected = table.loc[kinds == word, ["start_s", "finish_s"]].to_numpy() / factor
        expected[:, 0] += table.loc[kinds == word, "waiting_s"].to_numpy() / factor
        np.testing.assert_allclose(np.sort(found, axis=0), np.sort(expected, axis=0), atol=1e-9)
    rendered(ax)


def test_every_rank_and_resource_has_a_lane_and_bars_stay_on_it(prediction):
    table = pm.timeline(prediction, [0, 4])
    ax = plot.timeline(table)
    names = [text.get_text() for text in ax.get_yticklabels()]
    streams = {"data", "norm", "receives", "tensor", "tied"}
    assert (names[0], names[7]) == ("rank 0  compute", "rank 4  compute")
    assert set(names[1:7]) == streams | {"pipeline"}
    assert set(names[8:]) == streams | {"pipeline_back"}
    compute = boxes(by_label(ax)["compute"])
    middle = compute[:, 2:].mean(axis=1)
    for rank, lane in ((0, 0.0), (4, 7.0)):
        expected = (table["rank"].eq(rank) & table["type"].eq("COMP")).sum()
        assert np.isclose(middle, lane).sum() == expected
    assert (compute[:, 3] - compute[:, 2] < 1).all()


def test_lanes_of_any_name_stand_in_one_order_whatever_the_order_of_the_table():
    """Names that no reader gives a place of their own used to stand in the order of a hash table."""
    names = [f"{word} queue" for word in "hbkaemcfi"] + ["compute", "stream 10", "stream 9", ""]
    rows = [(r, "COMP", w, 0.0, 1.0, False) for r in (1, 0) for w in names]
    columns = ["rank", "type", "resource", "start_s", "finish_s", "critical"]
    table = pd.DataFrame(rows, columns=columns)
    expected = ["compute", "stream 9", "stream 10", "receives", *sorted(names[:9])]
    for order in (table, table[::-1], table.sample(frac=1, random_state=0)):
        axes = plot.timeline(order)
        labels = [t.get_text().removeprefix("rank 0  ") for t in axes.get_yticklabels()]
        assert labels[: len(names)] == expected


def test_the_outline_covers_the_critical_nodes_and_nothing_else(prediction):
    table = pm.timeline(prediction)
    ax = plot.timeline(table)
    frames = boxes(by_label(ax)["critical path"])
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    critical = table[table["critical"] & (table["resource"] != "")]  # but for receives
    assert 0 < len(critical) < table["critical"].sum()
    pixel = prediction.makespan / factor / 1000
    for row in critical.itertuples():
        inside = (frames[:, 0] <= row.start_s / factor + 1e-9) & (
            row.finish_s / factor - 1e-9 <= frames[:, 1]
        )
        assert inside.any()
    outlined = sum(b - a for a, b, *_ in frames)
    covered = 0.0
    for _, rows in critical.groupby(["rank", "resource"]):
        pairs = stretches(rows["start_s"].to_numpy(), rows["finish_s"].to_numpy(), 0.0)
        covered += sum(b - a for a, b in pairs) / factor
    assert covered <= outlined + 1e-9 <= covered + pixel * len(critical) + 1e-9


def test_some_ranks_of_a_timeline_can_be_shown_and_absent_ones_are_named(prediction):
    table = pm.timeline(prediction)
    ax = plot.timeline(table, ranks=[7])
    assert ax.get_yticklabels()[0].get_text() == "rank 7  compute"
    with pytest.raises(pm.InputError, match="rank 9 is not in the table"):
        plot.timeline(table, ranks=[7, 9])


def test_more_lanes_than_a_picture_holds_ask_for_some_ranks(prediction):
    one = pm.timeline(prediction, [0])
    many = pd.concat([one.assign(rank=r) for r in range(150)])
    with pytest.raises(pm.InputError, match=r"1050 lanes.*choose some ranks"):
        plot.timeline(many)
    ax = plot.timeline(many, ranks=range(50))
    assert len(ax.get_yticks()) <= 40
    rendered(ax)


def test_metadata_has_no_lane():
    table = pd.DataFrame(
        {
            "rank": 0,
            "type": ["METADATA", "COMP"],
            "resource": ["", "thread 3"],
            "start_s": 0.0,
            "finish_s": [0.0, 2.0],
            "critical": False,
        }
    )
    ax = plot.timeline(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["rank 0  thread 3"]


def test_the_critical_path_plot_adds_up_to_the_makespan(prediction):
    table = pm.critical_path(prediction)
    ax = plot.critical_path(table)
    drawn = by_label(ax)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    total = sum((boxes(c)[:, 1] - boxes(c)[:, 0]).sum() for c in drawn.values())
    assert total * factor == pytest.approx(prediction.makespan)
    shares = [float(t.rsplit(" ", 1)[1].rstrip("%")) for t in legend_texts(ax)]
    assert sum(shares) == pytest.approx(100, abs=0.11)
    ranks = [t.get_text() for t in ax.get_yticklabels()]
    assert ranks == [f"rank {r}" for r in sorted(set(table["rank"]))]
    rendered(ax)


def test_waiting_on_the_critical_path_is_shown_before_the_node_that_waits():
    table = pd.DataFrame(
        {
            "rank": [0, 1],
            "type": ["COMP", "COMP"],
            "start_s": [0.0, 3.0],
            "finish_s": [2.0, 4.0],
            "on_path_s": [2.0, 1.0],
            "waiting_s": [0.0, 1.0],
        }
    )
    ax = plot.critical_path(table)
    np.testing.assert_allclose(boxes(by_label(ax)["waiting"])[0, :2], [2.0, 3.0])
    assert legend_texts(ax) == ["compute 75.0%", "waiting 25.0%"]


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)), min_size=1), st.integers(0, 3))
def test_stretches_cover_what_their_intervals_cover_and_keep_wide_gaps(intervals, gap):
    start = np.array([a for a, _ in intervals])
    finish = start + np.array([n for _, n in intervals])
    joined = stretches(start, finish, gap)
    for a, b in zip(start, finish):
        assert any(x <= a and b <= y for x, y in joined)
    for (_, b), (a, _) in pairwise(joined):
        assert a - b > gap
