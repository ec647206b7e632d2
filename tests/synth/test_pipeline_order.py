"""Collectives of a tensor group run in the order in which its ranks launch them, also where one rank is slow."""

from __future__ import annotations

import pytest

import perfmodel as pm
from perfmodel import synth

SIZES = {"layers": 4, "hidden": 1024, "heads": 16, "vocabulary": 32_000, "sequence": 512}
PIPELINE = {"tensor": 2, "pipeline": 2, "micro_batches": 4}


@pytest.mark.parametrize("models", ["roofline", None])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"data": 2},
        {"overlap": False},
        {"virtual": 2},
        {"schedule": "gpipe"},
        {"schedule": "zero-bubble"},
        {"recompute": "full"},
        {"sequence_parallel": True},
    ],
    ids=str,
)
def test_a_slow_rank_makes_a_pipeline_slower_and_no_deadlock(settings, models):
    graph = synth.training(SIZES, **PIPELINE, **settings).graph()
    system = pm.hardware("dgx-h100", ranks=graph.ranks, models=models)
    usual = pm.predict(graph, system).makespan
    for factor in (1.05, 1.5, 3.0):
        for rank in range(graph.ranks):
            slow = pm.predict(pm.whatif.straggler(graph, rank, factor), system)
            assert slow.makespan >= usual


def test_what_a_stage_gathers_of_a_message_waits_for_the_collective_launched_before():
    graph = synth.training(SIZES, **PIPELINE).graph()
    program = graph.programs[graph.program[-1]]  # of the last stage
    names = graph.labels[graph.label[-1]].names
    collectives = [v for v, name in enumerate(names) if name.endswith(("all_gather", "all_reduce"))]
    gathers = [v for v in collectives if names[v].endswith("fwd.receive.all_gather")]
    assert len(gathers) == PIPELINE["micro_batches"]
    for v in gathers[1:]:
        before = max(u for u in collectives if u < v)
        assert before in program.pred[program.pred_ptr[v] : program.pred_ptr[v + 1]]
