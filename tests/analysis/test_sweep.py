"""Sweeps: the same as one prediction per point; choices; interruption; what is refused."""

from __future__ import annotations

import time

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import compiled as compiled_module
from perfmodel import synth
from perfmodel.analysis.designs import designs_of
from perfmodel.models.cost import Models
from tests.analysis.varied import ROOT, VARIED


def one_by_one(graph, system, table, models=None):
    """A prediction per point, each with its own schedule."""
    return [
        pm.predict(graph, *pm.with_parameters(system, models or Models(), dict(row)))
        for row in table.to_dict("records")
    ]


def test_a_sweep_is_one_prediction_per_point(graph, system):
    table = pm.sweep(graph, system, VARIED, schedule="own")
    assert len(table) == 8
    for k, p in enumerate(one_by_one(graph, system, table[list(VARIED)])):
        assert table.makespan_s[k] == pytest.approx(p.makespan, rel=1e-12)
        mine = pm.breakdown(p)
        assert table.compute_s[k] > 0
        parts = table.loc[k, ["compute_s", "memory_s", "communication_s", "waiting_s", "host_s"]]
        assert parts.sum() == pytest.approx(p.makespan, rel=1e-9)
        assert mine.makespan_s.iloc[0] == pytest.approx(table.makespan_s[k], rel=1e-12)


def test_a_frozen_sweep_is_one_evaluation_per_point_of_the_reference_order(graph, system):
    compiled = pm.compile(graph, system)
    table = pm.sweep(graph, system, VARIED, schedule="frozen")
    assert set(table.schedule) == {"frozen"}
    for k, row in enumerate(table[list(VARIED)].to_dict("records")):
        here, models = pm.with_parameters(system, Models(), row)
        assert table.makespan_s[k] == pytest.approx(
            pm.evaluate(compiled, here, models).makespan, rel=1e-12
        )


def test_the_schedule_column_says_whose_order_it_was():
    graph = _reordering()
    system = pm.hardware("dgx-h100", ranks=2, models="roofline")
    points = {"network.0.bandwidth": [450e9, 1e9, 1e8]}
    own = pm.sweep(graph, system, points, schedule="own")
    frozen = pm.sweep(graph, system, points, schedule="frozen")
    assert own.schedule.tolist()[0] == "frozen"  # the reference design itself
    assert "own" in set(own.schedule)
    for k, p in enumerate(one_by_one(graph, system, own[["network.0.bandwidth"]])):
        assert own.makespan_s[k] == pytest.approx(p.makespan, rel=1e-12)
    same = own.schedule == "frozen"
    np.testing.assert_allclose(own.makespan_s[same], frozen.makespan_s[same], rtol=1e-12)
    assert not np.allclose(own.makespan_s[~same], frozen.makespan_s[~same], rtol=1e-6)


def _reordering():
    """Which of two reductions goes first depends on whether the link is busy until both are ready."""
    from perfmodel.synth import Role, Steps, Work, Workload
    from perfmodel.synth.steps import WORLD

    steps = Steps()
    steps.collective("busy", "all_reduce", 10**8, WORLD)
    early = steps.compute("early", Work(10**12, 10**6))
    late = steps.compute("late", Work(10**13, 10**6))
    urgent = steps.collective("urgent", "all_reduce", 10**8, WORLD, [late])
    steps.collective("other", "all_reduce", 10**10, WORLD, [early])
    steps.compute("end", Work(10**12, 10**6), [urgent])
    return Workload("reordering", (Role(steps, np.arange(2)),)).graph()


def test_points_may_be_a_table_or_lists_and_keep_their_order(graph, system):
    lists = pm.sweep(graph, system, VARIED)
    table = designs_of(VARIED).frame().iloc[::-1]
    reversed_rows = pm.sweep(graph, system, table)
    assert reversed_rows[list(VARIED)].equals(table.reset_index(drop=True))
    np.testing.assert_array_equal(reversed_rows.makespan_s[::-1], lists.makespan_s)


def test_the_size_of_parts_changes_nothing(graph, system):
    points = pm.sample({p: tuple(v) for p, v in VARIED.items()}, 40, method="latin-hypercube")
    whole = pm.sweep(graph, system, points)
    for part in (1, 7, 39):
        pd.testing.assert_frame_equal(pm.sweep(graph, system, points, part=part), whole)


def test_choices_are_compiled_once_each_and_give_their_own_predictions(graph, system):
    points = {
        "network.algorithm": ["ring", "direct"],
        "system": ["dgx-h100", "dgx-a100"],
        "npu.peak_flops": [2e14, 3e15],
    }
    table = pm.sweep(graph, system, points)
    assert len(table) == 8
    assert table["network.algorithm"].tolist() == ["ring"] * 4 + ["direct"] * 4
    for k, row in enumerate(table.to_dict("records")):
        from perfmodel.models.network import AlphaBeta

        models = Models(network=AlphaBeta(algorithm=row["network.algorithm"]))
        here, models = pm.with_parameters(
            pm.hardware(row["system"], ranks=8), models, {"npu.peak_flops": row["npu.peak_flops"]}
        )
        assert table.makespan_s[k] == pytest.approx(
            pm.predict(graph, here, models).makespan, rel=1e-12
        )


def test_another_trace_is_a_choice_like_another_system(graph, system):
    points = {
        "trace": [str(ROOT / "traces" / name) for name in ("moe_8", "all_reduce_4")],
        "system": ["dgx-h100", "dgx-a100"],
        "network.0.bandwidth": [1e11, 4e11],
    }
    table = pm.sweep(graph, system, points, models=Models())
    assert len(table) == 8
    for row in table.to_dict("records"):
        trace = pm.load(row["trace"])
        here = pm.hardware(row["system"], ranks=trace.ranks)
        values = {"network.0.bandwidth": row["network.0.bandwidth"]}
        expected = pm.predict(trace, *pm.with_parameters(here, Models(), values)).makespan
        assert row["makespan_s"] == pytest.approx(expected, rel=1e-12)


def test_a_chosen_system_keeps_the_dtype(graph):
    table = pm.sweep(graph, pm.hardware("dgx-h100", ranks=8, dtype="fp8"), {"system": ["dgx-b200"]})
    there = pm.predict(graph, pm.hardware("dgx-b200", ranks=8, dtype="fp8"))
    assert table.makespan_s[0] == pytest.approx(there.makespan, rel=1e-12)


def test_a_trace_that_is_not_there_is_refused_before_any_work(graph, system):
    with pytest.raises(pm.InputError, match="nowhere"):
        pm.sweep(graph, system, {"trace": ["nowhere/t"], "npu.peak_flops": [1e15]})


def test_what_limits_a_design_is_the_parameter_with_the_largest_elasticity(graph, system):
    points = {"npu.peak_flops": [1e13, 1e17], "network.0.latency": [1e-9, 1e-2]}
    table = pm.sweep(graph, system, points, schedule="frozen")
    compiled = pm.compile(graph, system)
    for row in table.to_dict("records"):
        here = pm.with_parameters(system, Models(), {path: row[path] for path in points})[0]
        centre = pm.evaluate(compiled, here).makespan
        gain = {}
        for path, value in pm.parameters(here).items():
            if np.isfinite(value) and value > 0:
                moved = pm.with_parameters(here, Models(), {path: float(value) * (1 + 1e-6)})[0]
                gain[path] = abs(pm.evaluate(compiled, moved).makespan / centre - 1)
        assert row["limited_by"] == max(gain, key=lambda path: gain[path])
    assert table.limited_by.nunique() > 1


def test_throughput_is_samples_over_time(graph, system):
    table = pm.sweep(graph, system, VARIED, batch_size=64, breakdown=False)
    np.testing.assert_allclose(table.throughput_per_s * table.makespan_s, 64, rtol=1e-14)
    assert "limited_by" not in table


def test_single_precision_is_close(graph, system):
    exact = pm.sweep(graph, system, VARIED, schedule="frozen")
    single = pm.sweep(graph, system, VARIED, schedule="frozen", dtype=np.float32)
    np.testing.assert_allclose(single.makespan_s, exact.makespan_s, rtol=1e-5)


def test_every_chosen_system_has_its_own_prices_and_optimize_agrees(graph, system):
    names = ["dgx-a100", "mi300x-8", "dgx-h100"]
    table = pm.sweep(graph, system, {"system": names}, economics=True)
    for k, name in enumerate(names):
        own = pm.hardware(name, ranks=graph.ranks)
        alone = pm.sweep(graph, own, {"npu.peak_flops": [own.npu.peak_flops]}, economics=True)
        for column in ("cost_usd", "power_W", "energy_J", "area_mm2"):
            assert table[column][k] == pytest.approx(alone[column][0], rel=1e-12)
    peak = own.npu.peak_flops
    best = pm.optimize(
        graph,
        own,
        bounds={"npu.peak_flops": (peak / 2, peak)},
        objective="time",
        starts=2,
        constraints={"cost": float(table.cost_usd[2]) * 1.0000001},
    )
    assert best.parameters["npu.peak_flops"] == pytest.approx(peak, rel=1e-6)


@pytest.mark.parametrize(
    "options", [{"batch_size": "a"}, {"dtype": "foo"}, {"economics": 3}], ids=str
)
def test_options_of_the_wrong_kind_are_one_clear_error(graph, system, options):
    with pytest.raises(pm.InputError, match=next(iter(options))):
        pm.sweep(graph, system, VARIED, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schedule": "best"}, "schedule: got 'best'"),
        ({"batch_size": 0}, "batch_size: got 0"),
        ({"batch_size": float("inf")}, "batch_size: got inf"),
        ({"dtype": np.int32}, "dtype: got int32"),
        ({"part": 0}, "part: got 0"),
        ({"threads": -1}, "threads: got -1"),
    ],
)
def test_options_that_make_no_sense_are_refused(graph, system, options, message):
    with pytest.raises(pm.InputError, match=message):
        pm.sweep(graph, system, VARIED, **options)


def test_a_long_sweep_does_not_grow_with_its_parts(graph, system, tmp_path):
    """A part's rows are gone once they are written."""
    import gc
    import tracemalloc

    points = pm.sample({p: tuple(v) for p, v in VARIED.items()}, 4096)
    peaks = []
    for count in (1024, 4096):
        folder = tmp_path / str(count)
        gc.collect()
        tracemalloc.start()
        pm.sweep(
            graph, system, points[:count], output=folder, part=256, collect=False, breakdown=False
        )
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    per_point = (peaks[1] - peaks[0]) / 3072
    assert per_point < 500  # the points themselves, not the tables of 16 parts


def test_progress_is_shown_where_asked_for(graph, system, capsys):
    pm.sweep(graph, system, VARIED, part=2, progress=True)
    assert "8.00/8.00" in capsys.readouterr().err
    pm.sweep(graph, system, VARIED, part=2, progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.filterwarnings("ignore:.*no node answers to")
def test_a_second_sweep_asks_for_the_labels_of_the_models_once_not_per_column(
    graph, system, monkeypatch
):
    from perfmodel.analysis import design_parts

    compiled = pm.compile(graph, system)
    table = pm.sample({path: (v, 2 * v) for path, v in few_parameters(system).items()}, 8)
    pm.sweep(compiled, table)
    asked = []
    labels = design_parts.choices
    monkeypatch.setattr(design_parts, "choices", lambda *a: asked.append(1) or labels(*a))
    pm.sweep(compiled, table)
    assert len(table.columns) > 4
    assert len(asked) <= 4


def few_parameters(system):
    """Those of a system that are numbers above 0."""
    known = pm.parameters(system)
    return {path: float(v) for path, v in known.items() if 0 < float(v) < np.inf}


class Clock:
    """A clock that runs at another speed with every look at it."""

    def __init__(self, seed):
        self.choice, self.now = np.random.default_rng(seed), 0.0

    def __call__(self):
        self.now += float(np.exp(self.choice.uniform(-12, 3)))
        return self.now


@pytest.mark.parametrize("breakdown", [True, False])
def test_a_part_is_the_same_to_the_last_bit_whatever_was_evaluated_before_and_however_long_it_took(
    system, tmp_path, monkeypatch, breakdown
):
    passes = {"pipeline": 2, "micro_batches": 4, "schedule": "dualpipe-v", "virtual": 2}
    sizes = {"layers": 4, "hidden": 4096, "heads": 32}
    graph = synth.training(sizes, data=2, tensor=2, **passes).graph()  # with many orders
    box = {"npu.peak_flops": (1e14, 1e16), "network.0.bandwidth": (1e10, 1e12)}

    def run(folder):
        pm.sweep(
            graph,
            system,
            pm.sample(box, 4096),
            output=folder,
            part=2048,
            breakdown=breakdown,
            threads=1,
        )
        return {path.name: path.read_bytes() for path in sorted(folder.glob("part-*"))}

    whole = run(tmp_path / "whole")
    table = pd.read_parquet(tmp_path / "whole")
    assert {"cell", "own"} <= set(table.schedule), "several ways of answering, else nothing is seen"
    for seed in range(3):
        monkeypatch.setattr(time, "perf_counter", Clock(seed))
        monkeypatch.setattr(compiled_module, "_kept", [])  # as in a fresh process
        folder = tmp_path / str(seed)
        run(folder)
        (folder / "part-000000.parquet").unlink()
        (folder / f"part-{seed % 2:06d}.parquet").unlink(missing_ok=True)
        monkeypatch.setattr(compiled_module, "_kept", [])
        assert run(folder) == whole, seed
