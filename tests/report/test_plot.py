"""Plots show the numbers of their tables, in units that read well, and refuse tables of other things."""

import sys
from itertools import pairwise

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.report import plot
from perfmodel.report.plot import canvas
from perfmodel.report.plot.roof import compute_costs
from perfmodel.report.plot.schedules import stretches
from perfmodel.report.plot.studies import not_dominated

matplotlib = pytest.importorskip("matplotlib")


@pytest.fixture(scope="module", autouse=True)
def without_windows():
    matplotlib.use("Agg")


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    matplotlib.pyplot.close("all")


@pytest.fixture(scope="module")
def system() -> pm.System:
    return pm.hardware("dgx-h100", models="roofline")


@pytest.fixture(scope="module")
def graph() -> pm.Graph:
    return synth.training(
        {"layers": 2, "hidden": 1024, "heads": 8, "vocabulary": 1024},
        sequence=256,
        micro_batches=3,
        data=2,
        tensor=2,
        pipeline=2,
    ).graph()


@pytest.fixture(scope="module")
def prediction(graph, system) -> pm.Prediction:
    return pm.predict(graph, system)


@pytest.fixture(scope="module")
def swept(graph, system) -> pd.DataFrame:
    points = {
        "npu.peak_flops": np.geomspace(1e14, 1e16, 5),
        "network.0.bandwidth": [1e11, 4e11, 1.6e12],
    }
    return pm.sweep(graph, system, points)


def boxes(collection) -> np.ndarray:
    """[n, 4] left, right, bottom, top of a collection's rectangles."""
    corners = [path.vertices[:4] for path in collection.get_paths()]
    return np.array([[*c[:, 0][[0, 1]], *c[:, 1][[0, 2]]] for c in corners])


def by_label(ax) -> dict:
    return {c.get_label(): c for c in ax.collections}


def rendered(ax) -> None:
    """Draw it: warnings are errors, so text that does not fit or a missing glyph shows here."""
    ax.figure.canvas.draw()


def legend_texts(ax) -> list[str]:
    return [text.get_text() for text in ax.get_legend().get_texts()]


# timeline and critical path


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


@pytest.fixture(scope="module")
def step() -> pm.Prediction:
    sizes = {"layers": 4, "hidden": 256, "heads": 4, "inner": 512, "vocabulary": 512}
    work = synth.training(sizes, pipeline=2, data=12, micro_batches=4, sequence=128)
    return pm.predict(work.graph(), pm.hardware("dgx-h100", ranks=24))


def test_memory_is_stacked_by_part_and_equal_ranks_share_a_bar(step):
    table = pm.memory(step)
    ax = plot.memory(table, capacity=80e9)
    assert [t.get_text() for t in ax.get_yticklabels()] == [
        "rank 0 and 11 more",
        "rank 12 and 11 more",
    ]
    reach = max(b.get_x() + b.get_width() for b in ax.patches) * 1e9
    assert reach == pytest.approx(table.total_B.max())
    assert "GB" in ax.get_xlabel()
    some = plot.memory(table[table["rank"] < 14])
    assert len(some.get_yticklabels()) == 14


def test_the_area_of_memory_over_the_step_reaches_the_peak(step):
    table = pm.memory(step, 0)
    ax = plot.memory(table)
    outline = ax.collections[-1].get_paths()[0].vertices
    assert outline[:, 1].max() * 1e6 == pytest.approx(table.total_B.max())
    assert "MB" in ax.get_ylabel()
    high = plot.memory(table, capacity=1e9)
    assert high.get_ylim()[1] > 1.0  # GB: the line is in the picture
    assert "GB" in high.get_ylabel()
    labels = [c.get_label() for c in ax.collections]
    assert labels[0] == "weights"
    assert labels[-1] == "activations"


def test_memory_of_a_trace_shows_the_parts_that_it_tells_apart(step):
    table = pm.memory(step, 0).assign(gradients_B=np.nan, optimizer_B=np.nan)
    labels = [c.get_label() for c in plot.memory(table).collections]
    assert "gradients" not in labels
    with pytest.raises(pm.InputError, match="holds no bytes"):
        plot.memory(table.assign(**{part: np.nan for part in table if part.endswith("_B")}))


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


# breakdown


def widths(ax) -> np.ndarray:
    """[containers, bars] widths of the stacked bars."""
    return np.array([[bar.get_width() for bar in c] for c in ax.containers])


def test_the_bars_of_each_rank_add_up_to_the_makespan(prediction):
    ax = plot.breakdown(pm.breakdown(prediction))
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, prediction.makespan)
    assert [t.get_text() for t in ax.get_yticklabels()] == [f"rank {r}" for r in range(8)]
    assert "idle" in legend_texts(ax)
    rendered(ax)


def test_more_than_sixteen_ranks_share_a_bar_where_they_are_equal(prediction):
    table = pm.breakdown(prediction)
    many = pd.concat([table.assign(rank=table["rank"] + 8 * k) for k in range(4)])
    ax = plot.breakdown(many)
    texts = [t.get_text() for t in ax.get_yticklabels()]
    assert texts == ["rank 0 and 15 equal", "rank 4 and 15 equal"]


@pytest.mark.parametrize("by", ["component", "type", "group"])
def test_labelled_bars_are_busy_times_longest_first_with_critical_time_marked(prediction, by):
    table = pm.breakdown(prediction, by=by)
    ax = plot.breakdown(table)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    length = widths(ax).sum(axis=0) * factor
    busy = table[["compute_s", "memory_s", "communication_s", "waiting_s", "host_s"]].sum(axis=1)
    np.testing.assert_allclose(length, np.sort(busy)[::-1])
    names = [t.get_text() for t in ax.get_yticklabels()]
    marks = ax.lines[0].get_xdata() * factor
    on_path = table.set_index(by)["critical_path_s"]
    np.testing.assert_allclose(marks, on_path.loc[names])


def test_bars_beyond_the_top_are_added_up_not_dropped(prediction):
    table = pm.breakdown(prediction, by="component", depth=3, numbers=True)
    assert len(table) > 5
    ax = plot.breakdown(table, top=5)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    busy = (
        table[["compute_s", "memory_s", "communication_s", "waiting_s", "host_s"]].to_numpy().sum()
    )
    assert widths(ax).sum() * factor == pytest.approx(busy)
    assert ax.get_yticklabels()[-1].get_text() == f"{len(table) - 4} others"


def test_names_of_real_kernels_are_shortened_and_their_signs_are_text():
    names = ["void kernel<" + "float, " * 60 + ">$a$", "aten::mm$b"]
    table = pd.DataFrame({"component": names, "compute_s": [2.0, 1.0], "critical_path_s": 0.0})
    ax = plot.breakdown(table)
    rendered(ax)
    texts = [t.get_text() for t in ax.get_yticklabels()]
    assert all(len(t) < 50 for t in texts)
    assert texts[0].startswith("void kernel<")
    assert texts[1] == r"aten::mm\$b"


def test_the_critical_path_and_rows_of_a_sweep_are_bars_too(prediction, swept):
    ax = plot.breakdown(pm.breakdown(prediction, by="critical_path"))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["critical path"]
    ax = plot.breakdown(swept.head(3).set_axis(["a", "b", "c"]))
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b", "c"]
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, swept["makespan_s"].head(3))


def test_a_comparison_and_what_ifs_are_bars_that_add_up_to_their_makespans(
    graph, system, prediction
):
    other = pm.predict(graph, pm.hardware("dgx-a100"))
    ax = plot.breakdown(pm.compare(prediction, other))
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    expected = [prediction.makespan, other.makespan]
    np.testing.assert_allclose(widths(ax).sum(axis=0) * factor, expected)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["a", "b"]
    with pytest.raises(pm.InputError, match="category"):
        plot.breakdown(pm.compare(prediction, other, by=["type"]))
    table = pm.whatif.table(graph, system, {"slow": {"npu.peak_flops": 1e14}})
    ax = plot.breakdown(table)
    assert [t.get_text() for t in ax.get_yticklabels()] == ["baseline", "slow"]


# roofline


def test_roofline_markers_lie_on_or_under_the_roof_and_hold_all_compute_time(prediction, system):
    ax = plot.roofline(prediction)
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    roof = np.minimum(system.npu.peak_flops, points[:, 0] * system.npu.memory_bandwidth)
    np.testing.assert_allclose(points[:, 1], roof, rtol=1e-5)  # Roofline with efficiency 1
    costs = compute_costs(prediction)
    total = pm.breakdown(prediction, by="type").set_index("type")["compute_s"]["COMP"]
    assert costs["total_s"].sum() == pytest.approx(total)
    nodes = prediction.graph.nodes.query("type == 'COMP'")
    assert costs["nodes"].sum() == len(nodes)
    distinct = nodes[["flops", "bytes_B"]].drop_duplicates()
    assert len(costs[["flops", "bytes_B"]].drop_duplicates()) == len(distinct)
    shown = (costs["flops"] > 1) & (costs["bytes_B"] > 0)
    assert len(points) == shown.sum()
    rendered(ax)


def test_a_slower_model_puts_the_markers_below_the_roof(graph, system):
    half = pm.Models().replace(compute=type(pm.Models().compute)(0.5, 0.5))
    ax = plot.roofline(pm.predict(graph, system, half))
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    roof = np.minimum(system.npu.peak_flops, points[:, 0] * system.npu.memory_bandwidth)
    np.testing.assert_allclose(points[:, 1], roof / 2, rtol=1e-5)


def test_the_legend_of_the_roofline_counts_the_kernels_that_share_a_marker(prediction, system):
    costs = compute_costs(prediction)
    costs = costs[(costs["flops"] > 1) & (costs["bytes_B"] > 0)]
    first = costs.loc[costs["total_s"].idxmax()]
    nodes = prediction.graph.nodes.query("type == 'COMP'")
    alike = nodes[(nodes["flops"] == first["flops"]) & (nodes["bytes_B"] == first["bytes_B"])]
    distinct = alike["name"].str.replace(r"\d+", "*", regex=True).nunique()
    ax = plot.roofline(prediction)
    share = first["total_s"] / costs["total_s"].sum()
    more = f" and {distinct - 1} more" if distinct > 1 else ""
    assert legend_texts(ax)[0] == f"1  {first['name']}{more}: {share:.0%}"
    assert any(" more: " in text for text in legend_texts(ax))
    assert "share of the time" in ax.get_legend().get_title().get_text()
    rendered(ax)


def test_compute_without_bytes_has_no_place_on_the_roofline_and_the_title_says_so(system):
    graph = synth.collective("all_reduce", 2, 1024).graph()
    with pytest.raises(pm.InputError, match="no compute node"):
        plot.roofline(pm.predict(graph, system))


# sweeps


def test_nodes_that_only_move_bytes_do_not_stretch_the_roofline(step):
    """Zeroing gradients is written with one FLOP; its marker stood nine decades to the left of all others."""
    ax = plot.roofline(step)
    places = np.concatenate([c.get_offsets()[:, 0] for c in ax.collections])
    assert places.min() > 1e-3


def test_sweep_lines_hold_the_tables_values_in_the_units_of_the_axes(swept):
    ax = plot.sweep_lines(swept, "npu.peak_flops", hue="network.0.bandwidth")
    assert ax.get_xscale() == "log"
    assert ax.get_title() == "makespan over npu.peak_flops"
    assert legend_texts(ax) == ["100 GB/s", "400 GB/s", "1.6 TB/s"]
    factor = {"makespan [ms]": 1e-3, "makespan [us]": 1e-6}[ax.get_ylabel()]
    assert ax.get_xlabel() == "npu.peak_flops [PFLOP/s]"
    for line, (_, rows) in zip(ax.lines, swept.groupby("network.0.bandwidth"), strict=True):
        np.testing.assert_allclose(line.get_xdata() * 1e15, rows["npu.peak_flops"])
        np.testing.assert_allclose(line.get_ydata() * factor, rows["makespan_s"])
    rendered(ax)
    ticks = [t.get_text() for t in ax.get_xticklabels()]
    assert {"0.1", "1", "10"} <= set(ticks)


def test_an_axis_over_many_decades_has_a_prefix_on_every_tick():
    table = pd.DataFrame({"npu.peak_flops": np.geomspace(1e12, 1e18, 7)})
    table["makespan_s"] = 1e12 / table["npu.peak_flops"]
    ax = plot.sweep_lines(table, "npu.peak_flops")
    rendered(ax)
    assert {"1 TFLOP/s", "1 PFLOP/s"} <= {t.get_text() for t in ax.get_xticklabels()}
    np.testing.assert_allclose(ax.lines[0].get_ydata(), table["makespan_s"])


def test_choices_stand_on_the_axis_in_the_order_of_the_table():
    table = pd.DataFrame({"system": ["b", "a"], "makespan_s": [1.0, 2.0]})
    ax = plot.sweep_lines(table, "system")
    assert [t.get_text() for t in ax.get_xticklabels()] == ["b", "a"]
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.0, 2.0])


@pytest.mark.parametrize("draw", [plot.sweep_lines, plot.sweep_heatmap])
def test_rows_that_fall_on_one_place_are_an_error_that_names_what_varies(swept, draw):
    arguments = ["npu.peak_flops"]
    if draw is plot.sweep_heatmap:
        arguments.append("limited_by")
    with pytest.raises(pm.InputError, match=r"network\.0\.bandwidth vary, too"):
        draw(swept, *arguments)


def test_the_heat_map_has_a_cell_per_design_and_a_hole_where_there_is_none(swept):
    some = swept.drop(index=swept.index[4])
    ax = plot.sweep_heatmap(some, "npu.peak_flops", "network.0.bandwidth")
    cells = ax.collections[0].get_array()
    assert cells.shape == (3, 5)
    assert np.ma.getmaskarray(cells).sum() == 1
    factor = 1e-3 if "ms" in ax.figure.axes[1].get_ylabel() else 1e-6
    place = swept["npu.peak_flops"].rank(method="dense").astype(int) - 1
    row = swept["network.0.bandwidth"].rank(method="dense").astype(int) - 1
    for k in some.index:
        assert cells[row[k], place[k]] * factor == pytest.approx(swept["makespan_s"][k])
    assert ax.get_ylabel() == "network.0.bandwidth [TB/s]"
    assert len(ax.texts) == 14
    rendered(ax)


def test_a_heat_map_of_texts_has_a_colour_for_each_and_a_legend(swept):
    some = swept.drop(index=swept.index[4])
    ax = plot.sweep_heatmap(some, "npu.peak_flops", "network.0.bandwidth", z="limited_by")
    words = legend_texts(ax)
    assert sorted(words) == sorted(some["limited_by"].unique())
    mesh = ax.collections[0]
    cells = mesh.get_array()
    assert np.ma.getmaskarray(cells).sum() == 1
    place = swept["npu.peak_flops"].rank(method="dense").astype(int) - 1
    row = swept["network.0.bandwidth"].rank(method="dense").astype(int) - 1
    colour = {
        text: patch.get_facecolor() for text, patch in zip(words, ax.get_legend().get_patches())
    }
    assert len(set(colour.values())) == len(words)
    for k in some.index:
        cell = mesh.cmap(mesh.norm(cells[row[k], place[k]]))
        assert cell == pytest.approx(colour[swept["limited_by"][k]])
    assert len(ax.figure.axes) == 1
    rendered(ax)


def test_a_line_of_texts_is_refused_and_the_heat_map_named(swept):
    match = (
        r"limited_by holds texts.*sweep_heatmap\(table, 'npu\.peak_flops', 'network\.0\.bandwidth'"
    )
    with pytest.raises(pm.InputError, match=match):
        plot.sweep_lines(swept, "npu.peak_flops", "limited_by", hue="network.0.bandwidth")


def test_many_texts_and_one_and_none_are_coloured_too():
    table = pd.DataFrame({"a": np.arange(12.0), "b": "only", "z": [f"word {k}" for k in range(12)]})
    ax = plot.sweep_heatmap(table, "a", "b", z="z")
    assert len({p.get_facecolor() for p in ax.get_legend().get_patches()}) == 12
    one = plot.sweep_heatmap(table.assign(z=["same"] * 11 + [None]), "a", "b", z="z")
    assert legend_texts(one) == ["same"]
    rendered(ax)
    rendered(one)
    with pytest.raises(pm.InputError, match="z holds no value"):
        plot.sweep_heatmap(table.assign(z=pd.Series([None] * 12, dtype=object)), "a", "b", z="z")


def test_a_fine_heat_map_has_few_ticks_and_no_numbers_in_its_cells():
    x, y = np.meshgrid(np.linspace(1e14, 1e15, 30), np.linspace(1e12, 2e12, 25))
    table = pd.DataFrame({"npu.peak_flops": x.ravel(), "npu.memory_bandwidth": y.ravel()})
    table["makespan_s"] = 1e12 / table["npu.peak_flops"]
    ax = plot.sweep_heatmap(table, "npu.peak_flops", "npu.memory_bandwidth")
    assert len(ax.get_xticks()) <= 10
    assert not ax.texts


# tornado, pareto, residuals


def test_the_tornado_reaches_from_the_lower_to_the_higher_makespan_largest_on_top(
    graph, system, prediction
):
    table = pm.sensitivity(graph, system, tornado=True)
    ax = plot.tornado(table)
    factor = 1e-3 if "ms" in ax.get_xlabel() else 1e-6
    assert ax.lines[0].get_xdata()[0] * factor == pytest.approx(prediction.makespan)
    names = [t.get_text().split("\n")[0] for t in ax.get_yticklabels()]
    rows = table.set_index("parameter").loc[names]
    for container, column in zip(ax.containers, ("low_s", "high_s"), strict=True):
        reached = [(bar.get_x() + bar.get_width()) * factor for bar in container]
        np.testing.assert_allclose(reached, rows[column])
    swing = (rows["high_s"] - rows["low_s"]).abs().to_numpy()
    assert (np.diff(swing) <= 0).all()
    absent = table[~table["parameter"].isin(names)]
    np.testing.assert_allclose(absent["low_s"], absent["high_s"], rtol=1e-8)
    assert f"{len(absent)} further parameters" in ax.get_xlabel()
    rendered(ax)


def test_the_tornado_says_by_how_much_parameters_were_moved(graph, system):
    table = pm.sensitivity(graph, system, tornado=0.25)
    said = plot.tornado(table, fraction=0.25)
    assert legend_texts(said) == ["-25 %", "+25 %"]
    assert said.get_title() == "Makespan with each parameter alone 25 % lower or higher"
    table.attrs["tornado"] = 0.05
    assert legend_texts(plot.tornado(table)) == ["-5 %", "+5 %"]
    table.attrs.clear()
    assert legend_texts(plot.tornado(table)) == ["-10 %", "+10 %"]
    rendered(said)


def test_a_sensitivity_table_without_tornado_is_refused_with_the_option_named(graph, system):
    with pytest.raises(pm.InputError, match=r"no column 'low_s'.*tornado=True"):
        plot.tornado(pm.sensitivity(graph, system))


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=30))
def test_not_dominated_is_what_the_definition_says(pairs):
    points = np.array(pairs, float)
    expected = [not any((q <= p).all() and (q < p).any() for q in points) for p in points]
    assert not_dominated(points).tolist() == expected


def test_the_front_holds_the_points_that_none_beats(swept):
    table = swept.assign(
        cost_usd=1e-11 * swept["npu.peak_flops"] + swept["network.0.bandwidth"] / 1e9
    )
    ax = plot.pareto(table)
    assert ax.get_ylabel().startswith("makespan")
    steps = ax.lines[0]
    front = not_dominated(table[["cost_usd", "makespan_s"]].to_numpy())
    assert len(steps.get_xdata()) == front.sum()
    assert sum(len(c.get_offsets()) for c in ax.collections) == len(table)
    coloured = plot.pareto(table, hue="network.0.bandwidth")
    assert coloured.figure.axes[1].get_ylabel() == "network.0.bandwidth [TB/s]"
    rendered(coloured)


def test_residuals_show_every_measurement_by_kind_with_its_error():
    table = pd.DataFrame(
        {
            "collective": ["all_reduce", "all_gather", None],
            "kind": ["collective", "collective", "compute"],
            "duration_s": [1e-3, 2e-3, 1e-6],
            "predicted_s": [1.1e-3, 1.5e-3, 1e-6],
        }
    )
    table["error"] = table["predicted_s"] / table["duration_s"] - 1
    ax = plot.residuals(table)
    texts = legend_texts(ax)
    assert texts == [
        "all_reduce: median 10.0 %",
        "all_gather: median 25.0 %",
        "compute: median 0.0 %",
    ]
    points = np.concatenate([c.get_offsets() for c in ax.collections])
    np.testing.assert_allclose(points, [[1e-3, 10], [2e-3, -25], [1e-6, 0]], atol=1e-9)
    low, high = ax.get_ylim()
    assert low < -25
    assert high > 25
    rendered(ax)


# units, refusals, axes that are given


@pytest.mark.parametrize(
    ("column", "unit"),
    [
        ("npu.peak_flops", "FLOP/s"),
        ("network.1.latency", "s"),
        ("compute.efficiency", "1"),
        ("makespan_s", "s"),
        ("cost_usd", "$"),
        ("throughput_per_s", "1/s"),
        ("limited_by", "1"),
    ],
)
def test_columns_have_the_units_of_the_records_or_of_their_suffix(column, unit):
    assert canvas.unit_of(column) == unit


@given(st.floats(1e-12, 1e6))
def test_scaled_times_read_between_one_and_a_thousand(value):
    factor, spelling = canvas.scale_of([0.0, value], "s")
    assert factor == {"s": 1, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12}[spelling]
    assert 0.999 <= value / factor < 1000 or spelling == "s"


def test_axes_are_logarithmic_for_geometric_values_only():
    assert canvas.is_logarithmic(np.geomspace(1, 100, 5))
    assert canvas.is_logarithmic([1, 2, 4, 8, 16])
    assert not canvas.is_logarithmic(np.linspace(1, 10, 10))
    assert not canvas.is_logarithmic([0.0, 1.0, 100.0])
    assert not canvas.is_logarithmic([1.0, 100.0])


def test_plots_draw_into_axes_that_are_given(prediction, swept):
    figure, (left, right) = matplotlib.pyplot.subplots(1, 2, layout="constrained")
    assert plot.breakdown(pm.breakdown(prediction), ax=left) is left
    assert plot.sweep_heatmap(swept, "npu.peak_flops", "network.0.bandwidth", ax=right) is right
    figure.canvas.draw()
    assert len(matplotlib.pyplot.get_fignums()) == 1


@pytest.mark.parametrize(
    ("draw", "source"),
    [
        (plot.timeline, "timeline"),
        (plot.critical_path, "critical_path"),
        (plot.breakdown, "breakdown"),
        (lambda t: plot.sweep_lines(t, "npu.peak_flops"), "sweep"),
        (lambda t: plot.sweep_heatmap(t, "npu.peak_flops", "x"), "sweep"),
        (plot.tornado, "sensitivity"),
        (plot.pareto, "pareto"),
        (plot.residuals, "calibrate"),
    ],
)
def test_other_tables_and_empty_ones_are_refused_by_name(draw, source):
    for wrong in (pd.DataFrame({"a": [1.0]}), pd.DataFrame(), 3.0):
        with pytest.raises(pm.InputError, match=rf"perfmodel\.{source}"):
            draw(wrong)


def test_a_missing_matplotlib_says_what_to_install(prediction, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)
    with pytest.raises(pm.InputError, match=r"pip install 'perfmodel\[plot\]'"):
        plot.breakdown(pm.breakdown(prediction))
