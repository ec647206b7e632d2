"""Real recordings replayed: what the rules together reach, and that none of them can be left out."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from time import process_time

import numpy as np
import pytest

from perfmodel.trace.pytorch.read import Recording, read
from perfmodel.trace.pytorch.timeline import (
    HOST,
    INTO_COLLECTIVE,
    LAUNCH,
    OUT_OF_COLLECTIVE,
    STREAM,
)
from perfmodel.vocabulary import NodeType
from tests.pytorch_oracle import replay

SPAN, START, NCCL = 0.005, 50e-6, 0.02
"""What a replay must hold: each rank's span (relative), mean error of kernel starts [s], mean time in NCCL
(relative)."""


@cache
def recording(folder: Path) -> Recording:
    return read(folder)


@pytest.fixture(params=["megatron_tp8", "dlrm_8gpu"])
def eight(request, shared) -> Recording:
    return recording(shared / "reference/pytorch" / request.param)


def errors(found: Recording, **options) -> tuple[float, float, float]:
    """Worst rank's error of the span, mean error of kernel starts [s], error of the mean time in NCCL."""
    span, start, measured, replayed = [], [], [], []
    for c, f, (begun, over) in zip(found.ranks, found.figures, replay(found, **options)):
        gpu, collective = ~c["host"], c["type"] == NodeType.COMM_COLL
        whole = c["end"].max() - f.offset
        span.append(abs(over.max() - f.offset - whole) / whole)
        start.append(np.abs(begun - c["start"])[gpu].mean())
        measured.append((c["end"] - c["start"])[collective].sum())
        replayed.append((over - begun)[collective].sum())
    return (
        max(span),
        float(np.mean(start)),
        abs(sum(replayed) / max(sum(measured), 1e-30) - 1) if sum(measured) else 0.0,
    )


def holds(found: tuple[float, float, float]) -> bool:
    return found[0] <= SPAN and found[1] <= START and found[2] <= NCCL


def test_all_ranks_of_a_real_step_are_replayed(eight):
    span, start, nccl = errors(eight)
    assert span <= 0.002
    assert start <= 20e-6
    assert nccl <= 0.005


def test_operators_are_linked_and_collectives_matched(eight):
    assert all(f.operators_linked >= 0.99 for f in eight.figures)
    assert all(f.time_attributed >= 0.98 for f in eight.figures)
    assert eight.matched == 1.0


def without(kind: int):
    return {"drop": lambda rank, columns: columns["edge_kind"] == kind}


RULES = {
    "launch to kernel": without(LAUNCH),
    "order in a stream": without(STREAM),
    "compute to NCCL": without(INTO_COLLECTIVE),
    "NCCL to compute": without(OUT_OF_COLLECTIVE),
    "host waits": without(HOST),
    "matching NCCL over ranks": {"meet": False},
}


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_left_out_shows(shared, rule):
    folder = shared / "reference/pytorch"
    found = [
        errors(recording(folder / name), **RULES[rule]) for name in ("megatron_tp8", "dlrm_8gpu")
    ]
    assert not all(map(holds, found))


def test_the_host_s_gaps_left_out_show(shared):
    """Only operators take time, as Chakra's converter has it: Megatron comes out 8 % short."""
    whole = recording(shared / "reference/pytorch/megatron_tp8")
    bare = [
        {**c, "duration": np.where(np.array([n == "host" for n in c["name"]]), 0.0, c["duration"])}
        for c in whole.ranks
    ]
    found = Recording(**{**vars(whole), "ranks": bare})
    ends = [over.max() for _, over in replay(found)]
    assert max(ends) / max(c["end"].max() for c in whole.ranks) < 0.95


@pytest.mark.parametrize("host", [True, False])
def test_one_rank_of_two_is_replayed_with_its_recorded_collectives(shared, host):
    folder = shared / "reference/pytorch"
    device = folder / "kineto_only/nccl_data.json.gz"
    trace = [(folder / "resnet_host_et/resnet_1gpu_1.0.3.json.gz", device)] if host else device
    found = read(trace, step="all")
    span, start, _ = errors(found)
    assert span <= 1e-5
    assert start <= 5e-6
    assert [f.code for f in found.findings] == ["absent-ranks"]
    assert found.figures[0].operators_linked == 1.0


def test_one_step_of_three_can_be_chosen(shared):
    device = shared / "reference/pytorch/kineto_only/nccl_data.json.gz"
    spans = [read(device, step=n).ranks[0]["end"].max() for n in (4, 5, 6)]
    assert spans == pytest.approx([0.22244, 0.21973, 0.22494], rel=1e-3)
    assert read(device).figures[0].step == "ProfilerStep#6"


def test_a_host_trace_of_another_run_is_refused(shared):
    from perfmodel.errors import TraceError

    folder = shared / "reference/pytorch"
    pair = (
        folder / "resnet_host_et/resnet_1.1.0.json.gz",
        folder / "kineto_only/nccl_data.json.gz",
    )
    with pytest.raises(TraceError, match="is not the host trace of"):
        read([pair])


def test_both_ranks_of_a_gloo_step_on_cpus_are_replayed(shared):
    found = recording(shared / "cases/recorded_cpu_ddp")
    for c, f, (_, over) in zip(found.ranks, found.figures, replay(found)):
        assert over.max() - f.offset == pytest.approx(c["end"].max() - f.offset, rel=1e-3)
    assert found.matched == 1.0


def test_ranks_can_start_together(shared):
    together = read(shared / "reference/pytorch/megatron_tp8", offsets_from="none")
    assert max(over.max() for _, over in replay(together)) == pytest.approx(0.6266, rel=0.002)


@pytest.mark.parametrize(
    "name",
    [
        "amd_mi250_minitoy",
        "critical_path_alexnet",
        "critical_path_simple_add",
        "cuda_event_sync",
        "cuda_event_sync_multi_stream",
    ],
)
def test_every_kineto_trace_is_replayed(shared, name):
    found = read(shared / f"reference/pytorch/kineto_only/{name}.json.gz")
    span, start, _ = errors(found)
    assert span <= 5e-4
    assert start <= 100e-6


def test_no_edge_is_refuted_by_the_recorded_times(eight):
    """An edge's source was over before its target began, but for clocks of whole microseconds."""
    for c in eight.ranks:
        assert (c["start"][c["edge_to"]] - c["end"][c["edge_from"]]).min() >= -1.01e-6


def test_reading_takes_at_most_a_second_per_twenty_thousand_events(shared):
    """Kineto's events of 8 ranks, host traces beside them; processor time, so that other work does not count."""
    folder = shared / "reference/pytorch/megatron_tp8"
    events = 115_000
    before = process_time()
    assert len(read(folder).ranks) == 8
    assert process_time() - before < events / 20_000
