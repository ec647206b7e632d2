"""Designs in blocks: the same figures whatever the blocks, and what limits a design from derivatives by hand."""

from __future__ import annotations

import time

import jax
import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.analysis import design_blocks
from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator
from perfmodel.threads import in_threads
from perfmodel.vocabulary import CATEGORIES
from tests.analysis.varied import ROOT, VARIED

PATHS = ("npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth", "network.0.latency")


@pytest.fixture(scope="module")
def evaluator() -> Evaluator:
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    return Evaluator(pm.compile(graph, pm.hardware("dgx-h100", ranks=graph.ranks)))


def designs(count: int) -> np.ndarray:
    """[P, count] values over factors of 20 to 100."""
    low, high = np.array([[2e14, 1e12, 2e10, 1e-7], [5e15, 2e13, 2e12, 1e-5]])
    share = np.random.default_rng(3).random((count, len(PATHS)))
    return (low * (high / low) ** share).T


@pytest.mark.parametrize("schedule", ["frozen", "own", "simulated"])
def test_figures_are_the_same_whatever_the_blocks(evaluator, schedule, monkeypatch):
    values = designs(23)
    values[2, 4] = 0.0  # no time at all: a bandwidth of nothing
    options = EvaluationOptions(schedule)
    whole = evaluator.figures(PATHS, values, options)
    monkeypatch.setattr(design_blocks, "BLOCK", 8)
    parts = evaluator.figures(PATHS, values, options)
    assert list(parts) == list(whole)
    for name, column in whole.items():
        np.testing.assert_allclose(parts[name], column, rtol=1e-12, err_msg=name)


def test_the_breakdown_is_that_of_path_counts_and_derivatives_one_by_one(evaluator):
    c, values = evaluator.compiled, designs(40)
    options = EvaluationOptions("frozen")
    figures = evaluator.figures(PATHS, values, options)
    costs = evaluator.costs(PATHS, values)
    _, _, counts = evaluator.makespans(costs, options, paths=True)
    wanted = tuple(pm.parameters(c.system))
    slope = evaluator.gradients(PATHS, values, counts, wanted)
    labels = evaluator.labels["limited_by"]
    for d in range(values.shape[1]):
        spent = counts[:, d] * costs[:, d] * c.unit
        for k, word in enumerate(CATEGORIES):
            if word != "waiting":
                assert figures[f"{word}_s"][d] == pytest.approx(spent[c.category == k].sum())
        at = {**pm.parameters(c.system), **dict(zip(PATHS, values[:, d]))}
        gain = [abs(slope[k, d] * float(at[w])) if slope[k, d] else 0 for k, w in enumerate(wanted)]
        gain += [spent[~evaluator.answering].sum()]
        assert labels[figures["limited_by"][d]] == [*wanted, "recorded"][int(np.argmax(gain))]
    assert len(set(figures["limited_by"].tolist())) > 1


def test_an_option_that_the_compiler_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(design_blocks, "_LOOPS", {"xla_cpu_no_such_option": ""})
    design_blocks._known_options.cache_clear()
    try:
        assert float(design_blocks.jit_sums(lambda x: x.sum())(np.ones((3, 2)))) == 6.0
    finally:
        design_blocks._known_options.cache_clear()


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_share_the_blocks_of_a_batched_function(threads, monkeypatch):
    monkeypatch.setattr(design_blocks, "BLOCK", 4)
    a, b = np.arange(42.0).reshape(2, 21), np.ones((1, 21))
    found = design_blocks.call_padded(lambda a, b: a[:1] + a[1:] * b, a, b, threads=threads)
    np.testing.assert_array_equal(found, a[:1] + a[1:])


@pytest.mark.parametrize(
    ("count", "threads", "widths"),
    [
        (1000, 2, [1000]),
        (4096, 1, [4096]),
        (4096, 2, [2048, 2048]),
        (3000, 2, [2048, 952]),
        (20_000, 2, [8192, 8192, 3616]),
    ],
)
def test_every_thread_has_a_block_where_designs_are_many_enough(count, threads, widths):
    """Blocks are of few different widths, since each is compiled for."""
    seen = {}

    def of(here):
        seen[here.start] = here.stop - here.start
        return {"place": np.arange(here.start, here.stop)}

    found = design_blocks.in_blocks(of, count, threads)
    assert [seen[at] for at in sorted(seen)] == widths
    np.testing.assert_array_equal(found["place"], np.arange(count))


def test_threads_that_come_together_compile_a_function_once():
    traced = []

    def doubled(x):
        traced.append(x.shape)
        time.sleep(0.2)  # so that the others come meanwhile
        return 2 * x

    function = design_blocks.CompiledOnce(jax.jit(doubled))
    found = {}
    in_threads(lambda k: found.update({k: np.asarray(function(np.full(4, k)))}), [1, 2, 3])
    assert {k: values.tolist() for k, values in found.items()} == {
        k: [2 * k] * 4 for k in (1, 2, 3)
    }
    assert traced == [(4,)]
    function(np.zeros(5))
    assert traced == [(4,), (5,)]


def test_blocks_of_a_first_sweep_compile_once(evaluator, monkeypatch):
    """A first sweep of some thousand designs took twice its processor time: each thread compiled the derivatives."""
    monkeypatch.setattr(design_blocks, "FEWEST", 16)
    monkeypatch.setattr("perfmodel.models.host_formula.HOST_DESIGNS", 0)
    here = Evaluator(evaluator.compiled)
    asked = []
    sums = design_blocks.jit_sums

    def counting(function):
        def slowly(*arrays):
            asked.append(arrays[0].shape)
            time.sleep(0.2)
            return function(*arrays)

        return sums(slowly)

    monkeypatch.setattr("perfmodel.analysis.evaluation.jit_sums", counting)
    here.figures(PATHS, designs(32), EvaluationOptions(threads=2))
    assert len(asked) == 1


def test_a_table_of_costs_has_room_for_some_designs_at_a_time(monkeypatch):
    monkeypatch.setattr(design_blocks, "MOST_COSTS", 700)
    asked = []

    def figures(here):
        asked.append((here.start, here.stop))
        return {"number": np.arange(20)[here]}

    assert design_blocks.in_tables(figures, 20, 100)["number"].tolist() == list(range(20))
    assert asked == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
    asked.clear()
    design_blocks.in_tables(figures, 4, 100)
    design_blocks.in_tables(figures, 3, 10**9)  # one at a time, however large it is
    design_blocks.in_tables(figures, 2, 0)
    assert asked == [(0, 4), (0, 1), (1, 2), (2, 3), (0, 2)]


def test_sweeps_of_many_costs_take_few_designs_at_a_time(monkeypatch):
    graph = pm.load(ROOT / "traces" / "gpt_dp2_tp2_pp2")
    compiled = pm.compile(graph, pm.hardware("dgx-h100", ranks=8, models="roofline"))
    whole = pm.sweep(compiled, VARIED)
    monkeypatch.setattr(design_blocks, "MOST_COSTS", 3 * len(compiled.category))
    widths = []
    makespans = Evaluator.makespans

    def seen(self, costs, *arguments, **keywords):
        widths.append(costs.shape[1])
        return makespans(self, costs, *arguments, **keywords)

    monkeypatch.setattr(Evaluator, "makespans", seen)
    pd.testing.assert_frame_equal(pm.sweep(compiled, VARIED), whole, rtol=1e-12)
    assert widths == [2, 2, 2, 2]
