"""Sweeps over a real cluster of processes on this machine, one of which is killed in the middle."""

from __future__ import annotations

import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import perfmodel as pm
from perfmodel.analysis import dask_cluster, sweep
from perfmodel.analysis.dask_cluster import _tasks, connect
from tests.analysis.clusters import Cluster

distributed = pytest.importorskip("distributed", reason="Dask is not installed")

ROOT = Path(__file__).resolve().parents[2]
BOX = {"npu.peak_flops": (1e14, 1e16), "network.0.bandwidth": (1e10, 1e12)}
BOTH = {"npu.peak_flops": [1e14, 1e15]}
PART = 64
SECONDS = 300
"""Longest that a sweep of this size may take here; one that hangs fails instead."""

# the cluster's own: workers that are killed leave sockets, and their ports may be taken
pytestmark = [
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::UserWarning:distributed"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def client() -> Iterator[Any]:
    with (
        distributed.LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=":0",
            silence_logs=50,
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def graph() -> pm.Graph:
    return pm.load(ROOT / "traces" / "gpt_dp2_tp2_pp2")


@pytest.fixture(scope="module")
def system(graph) -> pm.System:
    """With the bare models, which each process compiles in a moment: this is about who answers, not what."""
    return pm.hardware("dgx-h100", ranks=graph.ranks, models="roofline")


def within(seconds: float, work: Any) -> Any:
    """What `work` gives, or a failure when it takes longer."""
    result: list[Any] = []
    error: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work())
        except BaseException as e:
            error.append(e)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(seconds)
    assert not thread.is_alive(), f"not done after {seconds} s"
    if error:
        raise error[0]
    return result[0]


def test_a_cluster_gives_what_one_process_gives(client, graph, system):
    points = pm.sample(BOX, 512)
    here = pm.sweep(graph, system, points, part=PART)
    there = within(
        SECONDS, lambda: pm.sweep(graph, system, points, part=PART, client=client, progress=False)
    )
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)


def test_choices_go_to_workers_too(client, graph, system):
    points = {
        "system": ["dgx-h100", "dgx-a100"],
        "network.algorithm": ["ring", "direct"],
        "npu.peak_flops": [1e14, 1e15],
    }
    here = pm.sweep(graph, system, points)
    there = within(SECONDS, lambda: pm.sweep(graph, system, points, client=client))
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)


def test_one_graph_after_another_does_not_get_the_others_results(client, system):
    points = {"npu.peak_flops": [1e14, 1e15]}
    for name in ("gpt_dp2_tp2_pp2", "fsdp_8", "gpt_dp2_tp2_pp2"):
        graph = pm.load(ROOT / "traces" / name)
        here = pm.sweep(graph, system, points)
        there = within(
            SECONDS, lambda g=graph: pm.sweep(g, system, points, client=client, progress=False)
        )
        pd.testing.assert_frame_equal(there, here, rtol=1e-12)


def test_a_worker_that_is_killed_in_the_middle_costs_no_point(client, graph, system, tmp_path):
    points = pm.sample(BOX, 4096)
    here = pm.sweep(graph, system, points, part=PART)
    killed: list[int] = []

    def kill() -> None:
        """Once a few parts are there, one worker's process."""
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and len(list(tmp_path.glob("part-*.parquet"))) < 4:
            time.sleep(0.005)
        pid = next(iter(client.run(os.getpid).values()))
        os.kill(pid, signal.SIGKILL)
        killed.append(len(list(tmp_path.glob("part-*.parquet"))))

    killer = threading.Thread(target=kill, daemon=True)
    killer.start()
    there = within(
        SECONDS,
        lambda: pm.sweep(
            graph, system, points, part=PART, client=client, output=tmp_path, progress=False
        ),
    )
    killer.join(SECONDS)
    assert killed, "no worker was killed"
    assert killed[0] < 64, "the sweep was over before a worker was killed"
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)
    assert there.index.tolist() == list(range(4096))


def test_what_is_wrong_with_the_points_is_said_before_anything_is_sent(client, graph, system):
    with pytest.raises(pm.InputError, match=r"npu\.peak_flop"):
        pm.sweep(graph, system, {"npu.peak_flop": [1e15]}, client=client)


def take_version(version: str) -> None:
    """Have this process say that it runs another version."""
    dask_cluster.__version__ = version


def test_workers_with_another_version_are_an_error(client, graph, system):
    client.run(take_version, "0.0.1")
    try:
        with pytest.raises(pm.InputError, match=r"has perfmodel 0\.0\.1, and this process"):
            within(SECONDS, lambda: pm.sweep(graph, system, BOTH, client=client, progress=False))
    finally:
        client.run(take_version, pm.__version__)


@pm.record
class NoSpace:
    """A model whose evaluation fails with an error of the system."""

    def time(self, flops, bytes, npu):
        raise OSError(28, "No space left on device")


def test_an_error_of_the_workers_system_is_said_when_nothing_helps(client, graph, system):
    models = pm.Models(compute=NoSpace())
    with pytest.raises(
        pm.InputError, match=r"10 times, in the end: .*No space left on device.*0 of"
    ):
        within(
            SECONDS,
            lambda: pm.sweep(graph, system, BOTH, models=models, client=client, progress=False),
        )


@contextmanager
def interrupt(*_: Any) -> Iterator[Any]:
    """In the place of a progress bar: an interrupt with the first part that is done."""

    def shown(designs: int) -> None:
        raise KeyboardInterrupt

    yield shown


def test_after_an_interrupt_workers_begin_no_more_of_a_sweep(
    client, graph, system, tmp_path, monkeypatch
):
    monkeypatch.setattr(sweep, "_progress", interrupt)
    points = pm.sample(BOX, 4096)
    with pytest.raises(KeyboardInterrupt) as held:  # and with it all that the sweep had
        pm.sweep(graph, system, points, part=8, client=client, output=tmp_path)
    until = time.monotonic() + SECONDS
    while any(client.processing().values()):
        assert time.monotonic() < until
        time.sleep(0.1)
    assert held.tb is not None
    assert 0 < len(list(tmp_path.glob("part-*.parquet"))) < 512


def test_numbers_texts_and_rows_from_a_cluster_are_those_of_one_process_to_the_bit(
    client, graph, system
):
    count = 40
    points = pd.DataFrame(
        {
            "trace": pd.Categorical([str(ROOT / "traces" / t) for t in ("fsdp_8", "moe_8")] * 20),
            "network.algorithm": pd.array(["ring", "direct", "ring", "auto"] * 10, dtype="string"),
            "npu.peak_flops": pd.array([1e14, 2e14, 3e14, 1e15, 2e15] * 8, dtype="Float64"),
            "network.0.bandwidth": pd.array([10**11, 2 * 10**11] * 20, dtype="Int64"),
        }
    ).iloc[::-1]
    options = {"part": 3, "economics": True, "batch_size": 8, "models": pm.Models()}
    here = pm.sweep(graph, system, points, progress=False, **options)
    there = within(
        SECONDS,
        lambda: pm.sweep(graph, system, points, client=client, progress=False, **options),
    )
    pd.testing.assert_frame_equal(there, here, check_exact=True)
    assert len(there) == count
    assert there.attrs == here.attrs
    for name in here.columns[here.dtypes == "float64"]:
        assert there[name].to_numpy().tobytes() == here[name].to_numpy().tobytes(), name


def test_an_address_where_nobody_answers_is_an_error():
    with pytest.raises(pm.InputError, match=r"tcp://127\.0\.0\.1:9: no answer"):
        within(SECONDS, lambda: connect("tcp://127.0.0.1:9"))


def test_a_client_of_ours_logs_no_tracebacks_beside_the_one_message(caplog):
    import logging

    logging.getLogger("distributed.client").setLevel(logging.NOTSET)
    with pytest.raises(pm.InputError):
        within(SECONDS, lambda: connect("tcp://127.0.0.1:9"))
    assert not logging.getLogger("distributed.client").isEnabledFor(logging.ERROR)


def test_an_address_of_a_scheduler_connects(client):
    other = connect(client.scheduler.address)
    try:
        assert other.submit(lambda: 7, pure=False).result(timeout=30) == 7
    finally:
        other.close()


def after_parts(folder: Path, count: int, act: Any) -> threading.Thread:
    """Do something once so many parts are there."""

    def run() -> None:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and len(list(folder.glob("part-*.parquet"))) < count:
            time.sleep(0.005)
        act()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_workers_write_the_parts_and_the_asker_only_counts(client, graph, system, tmp_path):
    points = pm.sample(BOX, 512)
    here = pm.sweep(graph, system, points, part=PART)
    opened: list[str] = []

    def watch(event: str, arguments: tuple) -> None:
        if event == "open" and "part-" in str(arguments[0]) and str(arguments[1]) != "r":
            opened.append(str(arguments[0]))

    sys.addaudithook(watch)
    there = within(
        SECONDS,
        lambda: pm.sweep(graph, system, points, part=PART, client=client, output=tmp_path),
    )
    assert not [name for name in opened if name.endswith(".partial")]
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)


def test_all_workers_that_hold_the_graph_may_die(graph, system, tmp_path):
    points = pm.sample(BOX, 4096)
    here = pm.sweep(graph, system, points, part=PART)
    with Cluster(2) as cluster, distributed.Client(cluster.address) as asker:

        def kill() -> None:
            for pid in asker.run(os.getpid).values():
                os.kill(pid, signal.SIGKILL)  # their nannies start others, which hold nothing

        killer = after_parts(tmp_path, 4, kill)
        there = within(
            SECONDS,
            lambda: pm.sweep(
                graph, system, points, part=PART, client=asker, output=tmp_path, progress=False
            ),
        )
        killer.join(SECONDS)
    pd.testing.assert_frame_equal(there, here, rtol=1e-12)


@pytest.mark.parametrize("victim", ["scheduler", "workers"])
def test_a_cluster_that_is_gone_is_one_message_that_counts_the_parts(
    graph, system, tmp_path, monkeypatch, victim
):
    monkeypatch.setattr("perfmodel.analysis.dask_cluster.PATIENCE", 2)
    points = pm.sample(BOX, 16384)
    with Cluster(2, nanny=False) as cluster, distributed.Client(cluster.address) as asker:

        def kill() -> None:
            for process in [cluster.scheduler] if victim == "scheduler" else cluster.workers:
                process.kill()

        killer = after_parts(tmp_path, 4, kill)
        said = r"\d+ of 256 parts are there in .*; run it again"
        with pytest.raises(pm.InputError, match=said) as error:
            within(
                SECONDS,
                lambda: pm.sweep(
                    graph, system, points, part=PART, client=asker, output=tmp_path, progress=False
                ),
            )
        killer.join(SECONDS)
        assert "_parts" not in str(error.value)  # no key of a task, no paragraph of Dask's
        assert "\n" not in str(error.value)
        counted = int(re.search(r"(\d+) of 256", str(error.value))[1])
        there = len(list(tmp_path.glob("part-*.parquet")))
        # workers that lose their scheduler may end what they are at; those that are dead write nothing
        assert 4 <= counted <= there
        assert victim == "scheduler" or counted == there
    resumed = pm.sweep(graph, system, points, part=PART, output=tmp_path)
    pd.testing.assert_frame_equal(resumed, pm.sweep(graph, system, points, part=PART))


@pytest.mark.parametrize(("parts", "workers"), [(1, 1), (3, 4), (62, 2), (1000, 3)])
def test_tasks_hold_every_part_once_and_the_last_ones_are_short(parts, workers):
    tasks = list(_tasks(parts, workers))
    assert [at for task in tasks for at in task] == list(range(parts))
    lengths = [len(task) for task in tasks]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[-1] == 1


FAULTS = """
import resource
import numpy as np
from perfmodel.analysis.dask_cluster import keep_memory

def pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(50):
        np.ones(1 << 20, np.int8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(pages())
keep_memory()
pages()  # the first array may take new pages
print(pages())
"""


@pytest.mark.skipif(
    platform.libc_ver()[0] != "glibc",
    reason="MALLOC_TRIM_THRESHOLD_ and mallopt are glibc's: elsewhere nothing is to be undone",
)
def test_a_worker_takes_freed_memory_again_although_dask_has_it_given_back():
    done = subprocess.run(
        [sys.executable, "-c", FAULTS],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_TRIM_THRESHOLD_": "65536"},
    )
    fresh, again = map(int, done.stdout.split())
    assert fresh > 50 * 100  # every array of 1 MB is new pages
    assert again < 256  # not even one is
