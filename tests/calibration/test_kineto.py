"""Kernels of a PyTorch recording become measurements: those whose work is theirs alone, and whole collectives."""

import json
import warnings

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.calibration.kineto import read_kineto
from tests.trace.pytorch.made import document, kernel, launch, operator

HALF = ["c10::Half", "c10::Half"]


def product(number, start, m, n, k, length, kernels=1):
    """aten::mm of [m, k] and [k, n], launching kernels that take `length` us together."""
    shapes = {"Input_Dims": [[m, k], [k, n]], "Input_type": HALF}
    events = [operator("aten::mm", start, 20 * kernels, External_id=number, **shapes)]
    for j in range(kernels):
        events.append(launch(10 * number + j, start + 1 + 10 * j, 4))
        events.append(kernel(10 * number + j, start + 40 + j * length, length / kernels))
    return events


def collective(number, start, length, nelems, world):
    """NCCL's kernel with the arguments that say all of it."""
    args = {
        "Collective name": "allreduce",
        "dtype": "Half",
        "In msg nelems": nelems,
        "Out msg nelems": nelems,
        "Group size": world,
        "Process Group Name": "0",
        "Process Group Ranks": str(list(range(world))),
    }
    found = kernel(
        10 * number, start + 30, length, stream=20, name="ncclDevKernel_AllReduce_Sum_f16_RING_LL"
    )
    found["args"] |= args
    return [
        operator("record_param_comms", start, 10, External_id=number),
        launch(10 * number, start + 1, 4),
        found,
    ]


def write(path, events, rank=0, world=1):
    ranks = {"pg_config": [{"pg_name": "0", "ranks": list(range(world))}]}
    info = {"rank": rank, "world_size": world, "backend": "nccl", **ranks}
    path.write_text(json.dumps(document(*events, distributedInfo=info)))
    return path


def test_a_kernel_has_the_kind_sizes_dtype_and_work_of_its_operator(tmp_path):
    events = product(1, 0, 256, 512, 128, 30) + product(2, 200, 64, 64, 64, 10)
    table = read_kineto(write(tmp_path / "t.json", events))
    row = table.iloc[0]
    assert (row.kind, row["dtype"]) == ("gemm", "fp16")
    assert (row.batch, row.m, row.n, row.k) == (1, 256, 512, 128)
    assert row.flops == 2 * 256 * 512 * 128
    assert row.bytes_B == 2 * (256 * 128 + 128 * 512 + 256 * 512)
    assert np.allclose(table.duration_s, [30e-6, 10e-6])


def test_an_operator_that_launches_several_kernels_is_left_out_and_said(tmp_path):
    events = product(1, 0, 256, 512, 128, 30) + product(2, 200, 64, 64, 64, 30, kernels=2)
    with pytest.warns(UserWarning, match="left out: 50 % of the time in kernels"):
        table = read_kineto(write(tmp_path / "t.json", events))
    assert len(table) == 1


def test_of_a_collective_the_least_time_over_its_members_counts(tmp_path):
    """Rank 1 comes last and does not wait."""
    for rank, length in enumerate((90, 25)):
        events = product(1, 0, 64, 64, 64, 10) + collective(2, 100, length, 1 << 20, 2)
        write(tmp_path / f"t.{rank}.json", events, rank, 2)
    table = read_kineto(tmp_path)
    row = table[table["collective"].notna()].iloc[0]
    assert (row["collective"], row.size_B, row.ranks) == ("all_reduce", 2 << 20, (0, 1))
    assert row.duration_s == pytest.approx(25e-6)
    assert len(table) == 3


def test_collectives_whose_other_members_are_not_there_are_left_out_and_said(tmp_path):
    events = product(1, 0, 64, 64, 64, 10) + collective(2, 100, 90, 1 << 20, 2)
    with pytest.warns(UserWarning, match="1 collectives are left out"):
        table = read_kineto(write(tmp_path / "t.json", events, 0, 2))
    assert "collective" not in table


def test_a_recording_without_shapes_is_refused(tmp_path):
    events = [operator("aten::mm", 0, 20, External_id=1), launch(10, 1, 4), kernel(10, 40, 30)]
    with pytest.raises(pm.InputError, match="record_shapes=True"):
        read_kineto(write(tmp_path / "t.json", events))


def test_calibrate_takes_a_recording_as_it_is(tmp_path):
    """Kernels at 60 % of an A100's peak and 3 us."""
    sizes = [512, 1024, 2048, 4096, 8192]
    events, start = [], 0
    for number, size in enumerate(sizes, 1):
        seconds = 2 * size**3 / (0.6 * 312e12) + 3e-6
        events += product(number, start, size, size, size, seconds * 1e6)
        start += 100 + seconds * 2e6
    path = write(tmp_path / "t.json", events)
    fit = pm.calibrate(
        path,
        pm.hardware("a100-sxm-80"),
        ["compute.efficiency", "compute.overhead"],
        models=pm.Models(),
    )
    assert fit.models.compute.efficiency == pytest.approx(0.6, rel=1e-5)
    assert fit.models.compute.overhead == pytest.approx(3e-6, rel=1e-3)


def test_a_real_step_tells_how_far_its_products_are_from_the_peak(shared):
    """Megatron, tensor parallel over 8 A100: facts/pytorch.md has 253 TFLOP/s in the median for mm."""
    folder = shared / "reference" / "pytorch" / "megatron_tp8"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        table = read_kineto(folder)
    products = table[(table.kind == "gemm") & (table.batch == 1)]
    assert (products.flops / products.duration_s).median() == pytest.approx(253e12, rel=0.03)
    meetings = table[table["collective"].notna()]
    assert len(meetings) == 84
    assert set(meetings.ranks) == {tuple(range(8))}
    assert meetings.duration_s.sum() == pytest.approx(50e-3, rel=0.05)
