"""Whole pipelines: a step is no longer than what its stages have to do, and gradients stand in nobody's way."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth

SIZES = {
    **{"layers": 16, "hidden": 8192, "heads": 64, "kv_heads": 8, "inner": 28_672},
    **{"vocabulary": 128_256, "gated": True, "tied": False, "positions": 0, "norm": "rms"},
    **{"qkv_bias": False, "output_bias": False, "mlp_bias": False, "sequence": 4096},
}
SPREADS = [
    {},
    {"sharding": 1},
    {"virtual": 2},
    {"virtual": 2, "sharding": 1, "rank_order": "tensor-context-pipeline-data"},
]


@pytest.mark.parametrize("spread", SPREADS, ids=str)
def test_a_step_on_4096_gpus_takes_the_busiest_stage_the_pipelines_fill_and_what_nothing_can_hide(
    spread,
):
    stages, micro_batches = 8, 16
    virtual = spread.get("virtual", 1)
    work = synth.training(
        SIZES,
        **spread,
        tensor=8,
        pipeline=stages,
        data=64,
        micro_batches=micro_batches,
        sequence_parallel=True,
        gap=0.0,
    )
    graph = work.graph()
    assert graph.ranks == 4096
    p = pm.predict(graph, pm.hardware("dgx-h100", ranks=4096), pm.Models())
    busy, one, alone = [], [], []
    for rank in p.compiled.representative.tolist():
        table = pm.timeline(p, [rank]).set_index("name")
        waits_for_nobody(p, rank)
        resource = graph.table([rank])["resource"].to_numpy()
        seconds = table["finish_s"].to_numpy() - table["start_s"].to_numpy()
        own = np.isin(resource, ["compute", "tensor"])
        busy.append(seconds[own].sum())
        passes = own & table.index.str.startswith("mb1.")
        messages = np.isin(resource, ["pipeline", "pipeline_back"])
        one.append(seconds[passes].sum() + 2 * virtual * seconds[messages].max())
        reductions = seconds[resource == "data"]
        last = own & table.index.str.startswith(f"mb{micro_batches - 1}.bwd")
        gathers = seconds[resource == "parameters"]
        first = gathers[:2].sum() if len(gathers) else 0.0
        alone.append(first + max(reductions[-1], reductions.sum() - seconds[last].sum()))
    norm = 2e-3  # one number over all ranks, and the wait for the last
    bound = max(busy) + (stages - 1) / virtual * max(one) + max(alone) + norm
    assert p.makespan <= bound
    assert p.makespan >= max(busy)


def waits_for_nobody(p: pm.Prediction, rank: int) -> None:
    """Every collective of the tensor group starts when what it needs is there and the one before it is over."""
    graph = p.graph
    program = graph.programs[graph.program[rank]]
    tasks = p.compiled.tasks_of(rank)
    start, finish = p.task_start[tasks], p.task_finish[tasks]
    mine = np.flatnonzero(program.resource == program.resources.index("tensor"))
    free = 0.0
    for k in mine[np.argsort(start[mine], kind="stable")]:
        waits = program.pred[program.pred_ptr[k] : program.pred_ptr[k + 1]]
        assert start[k] <= max(finish[waits].max(initial=0.0), free) + 1e-12
        free = finish[k]
