"""Predictions against published steps and peaks; `python -m tests.published` prints all rows."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from tests.published import memory, steps, vtrain_single
from tests.published.where import folder


def test_the_published_peaks_of_memory_are_met_within_12_per_cent_in_the_mean():
    table = memory.errors([*memory.torchtitan(), *memory.bridge()])
    assert len(table) == 25
    assert table.error.abs().mean() <= 0.12


def test_megatrons_22_billion_on_8_gpus_takes_what_it_takes_with_nothing_fitted_to_steps():
    jobs = [job for job in steps.megatron_table_5() if job.model == "megatron-22b"]
    assert steps.errors(jobs).error.abs().max() <= 0.09


def test_one_factor_fitted_to_the_other_rows_is_that_of_the_table():
    table = pd.DataFrame({"measured_s": [2.0, 4.0, 6.0], "predicted_s": [1.0, 2.0, 3.0]})
    assert steps.leave_one_out(table).abs().max() == pytest.approx(0.0)


def test_the_factor_of_the_smallest_job_is_one_for_each_system():
    table = pd.DataFrame(
        {
            "system": ["a", "a", "b", "b"],
            "ranks": [16, 8, 8, 64],
            "measured_s": [2.2, 2.0, 3.0, 3.0],
            "predicted_s": [1.0, 1.0, 1.0, 1.2],
        }
    )
    found = steps.smallest_first(table)
    assert found.index.tolist() == [0, 3]
    assert found.tolist() == pytest.approx([2.0 / 2.2 - 1, 0.2])


@pytest.mark.skipif(folder() is None, reason="shared/reference/measured is not here")
def test_the_newer_round_of_mlperf_runs_in_fp4_where_nvidia_ran_it():
    jobs = {job.system: job.settings for job in steps.mlperf_405b(folder(), "v5.1")}
    assert {name: s["dtype"] for name, s in jobs.items()} == {
        **{"dgx-b200": "fp8", "gb200-nvl72": "fp4", "gb300-nvl72": "fp4"}
    }


def test_a_row_of_the_fit_is_the_step_at_its_coefficients():
    settings = {"tensor": 2, "micro_batches": 2, "sequence": 256, "recompute": "full"}
    job = steps.Job("", "", "dgx-a100", 1.0, steps.gpt(4, 256, 4, 1024), settings)
    row = vtrain_single.Row.of(job)
    known = pm.parameters(row.compiled.system, row.compiled.models)
    first = [*vtrain_single.TIMES.values(), *(float(known[p]) for p in vtrain_single.PATHS)]
    same = replace(job, settings=settings | vtrain_single.HOST | vtrain_single.TIMES)
    assert row.predicted(np.array(first)) == pytest.approx(
        same.predicted(vtrain_single.models(same))
    )
    slower = replace(same, settings=same.settings | {"host_kernel": 2e-4})
    first[0] = 2e-4
    assert row.predicted(np.array(first)) == pytest.approx(
        slower.predicted(vtrain_single.models(slower))
    )


def test_the_fit_sees_75_rows_and_no_row_twice():
    chosen = vtrain_single.chosen(1440)
    assert len(set(chosen.tolist())) == 75
    assert 0 <= chosen.min() < chosen.max() < 1440
    assert all(low < high for low, high in vtrain_single.BOUNDS)
    assert len(vtrain_single.BOUNDS) == len(vtrain_single.names()) <= 7
