"""Launches, waits and threads on traces of a few events, by hand. Times in us."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel.trace.pytorch import host_time as host
from perfmodel.trace.pytorch.launches import launches
from perfmodel.trace.pytorch.step_window import choose
from perfmodel.trace.pytorch.timeline import HOST, LAUNCH, STREAM, WAIT, timeline
from perfmodel.trace.pytorch.waits import first_in_first_out
from tests.trace.pytorch.made import call, device, event, kernel, launch, operator, step

NCCL = "ncclDevKernel_AllReduce_Sum_f32_RING_LL(ncclDevComm*)"


def line_of(*events):
    d = device(step(1, 0, 1000), operator("aten::mm", 0.5, 1), *events)
    return timeline(d, choose([d])[0])


def edges(line, *kinds):
    """{(from, to): latency [us]} with host nodes as ("thread", end [us]) and GPU events as ("stream", start [us])."""
    h = len(line.host)

    def label(i, end):
        if i < h:
            return ("host", round(float((line.host.end if end else line.host.start)[i]) * 1e6, 3))
        return ("gpu", round(float(line.work.start[i - h]) * 1e6, 3))

    return {
        (label(u, True), label(v, False)): round(float(late) * 1e6, 3)
        for u, v, late, kind in zip(line.edge_from, line.edge_to, line.edge_latency, line.edge_kind)
        if kind in kinds
    }


def test_a_kernel_starts_a_latency_after_its_launch_and_a_gap_after_the_one_before():
    """Three launches into an idle stream 10 us before, one queued 2 us behind the kernel before it."""
    events = []
    for i, t in enumerate((100, 200, 300)):
        events += [launch(i + 1, t), kernel(i + 1, t + 10, 30)]
    events += [launch(4, 310), kernel(4, 342, 20)]
    line = line_of(*events)
    assert np.median(line.work.latency) == pytest.approx(10e-6)
    assert line.work.gap == pytest.approx(2e-6)
    assert edges(line, LAUNCH) == {
        (("host", t), ("gpu", s)): 10.0 for t, s in ((100, 110), (200, 210), (300, 310), (310, 342))
    }
    assert edges(line, STREAM) == {
        (("gpu", a), ("gpu", b)): 2.0 for a, b in ((110, 210), (210, 310), (310, 342))
    }


def test_a_kernel_without_its_launch_call_keeps_the_order_in_the_stream():
    line = line_of(
        launch(1, 100), kernel(1, 110, 30), kernel(99, 141, 5), launch(2, 400), kernel(2, 410, 5)
    )
    assert (line.work.call < 0).sum() == 1
    assert (("gpu", 110), ("gpu", 141)) in edges(line, STREAM)
    assert all(target != ("gpu", 141) for _, target in edges(line, LAUNCH))


def test_a_blocked_launch_delays_its_kernel_as_recorded():
    events = [
        e
        for i, t in enumerate((100, 200, 300))
        for e in (launch(i + 1, t), kernel(i + 1, t + 10, 5))
    ]
    line = line_of(*events, launch(9, 400, 300), kernel(9, 702, 5))
    assert edges(line, LAUNCH)[("host", 400), ("gpu", 702)] == 302.0


def test_work_from_before_the_step_keeps_the_stream_busy():
    d = device(
        launch(1, -50),
        kernel(1, -40, 90),
        step(1, 0, 200),
        operator("aten::mm", 1, 50),
        launch(2, 10),
        kernel(2, 52, 5),
    )
    work = launches(d, choose([d])[0])
    assert len(work) == 1
    assert [round(t * 1e6) for t in work.busy.values()] == [
        100
    ]  # 50 us after the step's start; the file begins at -50


def collective(correlation, at, *, start, length, waits=True):
    """One NCCL launch as PyTorch makes it, and its kernel on stream 24."""
    return [
        operator("c10d::allreduce_", at, 40),
        operator("record_param_comms", at + 1, 38),
        call("cudaEventRecord", at + 2, 1),
        call("cudaStreamWaitEvent", at + 4, 1),
        event("user_annotation", "nccl:all_reduce", at + 6, 30),
        launch(correlation, at + 10, 5, "cudaLaunchKernelExC"),
        kernel(correlation, start, length, 24, NCCL),
    ]


def test_without_cuda_sync_collectives_wait_for_compute_and_compute_for_them():
    line = line_of(
        launch(1, 100),
        kernel(1, 110, 60),
        *collective(2, 120, start=172, length=100),
        operator("record_param_comms", 180, 10),
        call("cudaStreamWaitEvent", 183, 1),
        launch(3, 200),
        kernel(3, 274, 10),
    )
    waits = line.stream_waits
    begun = np.round(line.work.start * 1e6).astype(int)
    assert {(begun[s], begun[t]) for s, t in zip(waits.source, waits.target)} == {
        (110, 172),
        (172, 274),
    }


def test_waits_take_the_oldest_collective_of_their_own_thread():
    """Two waits of the reducer in no operator: the first for the first collective, the second for the second."""
    line = line_of(
        launch(1, 50),
        kernel(1, 60, 10),
        *collective(2, 100, start=120, length=200),
        *collective(3, 200, start=322, length=100),
        call("cudaStreamWaitEvent", 300, 1),
        call("cudaStreamWaitEvent", 305, 1),
        launch(4, 310),
        kernel(4, 424, 10),
    )
    sources = sorted(
        round(float(line.work.start[s]) * 1e6)
        for s, t in zip(line.stream_waits.source, line.stream_waits.target)
        if round(float(line.work.start[t]) * 1e6) == 424
    )
    assert sources == [120, 322]


def test_a_wait_that_the_times_refute_is_left_out_and_counted():
    line = line_of(
        launch(1, 50),
        kernel(1, 60, 10),
        *collective(2, 100, start=120, length=200),
        call("cudaStreamWaitEvent", 200, 1),
        launch(3, 210),
        kernel(3, 220, 10),
    )
    assert line.stream_waits.refuted == 1


def test_a_recorded_wait_names_its_event():
    """Stream 20 waits for what stream 7 had been given before the record call, not for what came after it."""
    line = line_of(
        launch(1, 100),
        kernel(1, 110, 100),
        call("cudaEventRecord", 120, 1, correlation=50),
        launch(2, 130),
        kernel(2, 212, 100),
        call("cudaStreamWaitEvent", 140, 1, correlation=51),
        event(
            "cuda_sync",
            "Stream Wait Event",
            140,
            1,
            pid=0,
            thread=20,
            stream=20,
            correlation=51,
            device=0,
            wait_on_stream=7,
            wait_on_cuda_event_record_corr_id=50,
        ),
        launch(3, 150),
        kernel(3, 213, 5, stream=20),
    )
    assert list(edges(line, WAIT)) == [(("gpu", 110), ("gpu", 213))]


def test_first_in_first_out_against_a_queue():
    rng = np.random.default_rng(0)
    for _ in range(200):
        arrivals = np.sort(rng.random(rng.integers(0, 6)))
        departures = np.sort(rng.random(rng.integers(0, 6)))
        waiting, taken, n = [], [], 0
        for t in departures:
            while n < len(arrivals) and arrivals[n] < t:
                waiting.append(n)
                n += 1
            taken.append(waiting.pop(0) if waiting else -1)
        assert first_in_first_out(arrivals, departures).tolist() == taken


def test_the_host_waits_for_the_stream_of_its_last_launch():
    """The call returns at 215, 5 us after the kernel's end; another stream that is still busy does not matter."""
    line = line_of(
        launch(9, 20),
        kernel(9, 30, 900, stream=20),
        launch(1, 100),
        kernel(1, 110, 100),
        call("cudaStreamSynchronize", 120, 95),
        operator("aten::add", 300, 10),
    )
    assert edges(line, HOST) == {(("gpu", 110), ("host", 215)): 5.0}
    waiting = line.host.kind == host.CALL
    assert line.host.duration[waiting] == pytest.approx([5e-6])


def test_a_synchronous_copy_holds_the_host():
    line = line_of(
        launch(1, 100, 60, "cudaMemcpyAsync"),
        kernel(1, 110, 40, name="Memcpy DtoH (Device -> Pageable)", category="gpu_memcpy"),
    )
    assert edges(line, HOST) == {(("gpu", 110), ("host", 160)): 10.0}


def test_the_main_thread_waits_for_a_worker_that_it_woke():
    """Main is silent from 100 to 700 inside "backward"; the worker runs from 120 to 690."""
    line = line_of(
        operator("aten::add", 50, 50),
        event("user_annotation", "backward", 60, 700),
        operator("aten::mul", 120, 570, thread=7),
        operator("aten::div", 700, 20),
    )
    threads = {line.device.threads[t][1]: t for t in np.unique(line.host.thread)}
    woken = [
        (int(line.host.thread[u]), int(line.host.thread[v]), round(late * 1e6, 3))
        for u, v, late in zip(line.host.wake_from, line.host.wake_to, line.host.wake_latency)
    ]
    assert sorted(woken) == sorted(
        [(threads[100], threads[7], 20.0), (threads[7], threads[100], 10.0)]
    )
    assert line.host.duration.sum() == pytest.approx(
        (100 + 570 + 300) * 1e-6
    )  # 100 to 700 is nobody's own


def test_a_long_operator_beside_a_working_thread_is_no_wait():
    line = line_of(
        operator("aten::mm", 50, 800),
        operator("aten::mul", 120, 300, thread=7),
        operator("aten::div", 900, 20),
    )
    mine = line.host.thread == line.window.main
    assert line.host.duration[mine].sum() == pytest.approx(1000e-6)


def test_kernels_of_a_cuda_graph_follow_their_streams_and_their_times():
    """One launch call, four kernels on two streams; the last on stream 20 waits for the second on stream 7."""
    line = line_of(
        launch(5, 50),
        kernel(5, 60, 10),
        launch(6, 80),
        kernel(6, 90, 10),
        launch(1, 100, 5, "cudaGraphLaunch"),
        kernel(1, 110, 50),
        kernel(1, 161, 50),
        kernel(1, 111, 20, stream=20),
        kernel(1, 213, 20, stream=20),
    )
    assert (("gpu", 161), ("gpu", 213)) in edges(line, WAIT)
    assert len(edges(line, WAIT)) == 1
