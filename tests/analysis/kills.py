"""Sweeps that are killed at random moments and resumed: bit for bit the uninterrupted result.

    python -m tests.analysis.kills --count 100 --dask 40 --seed 1

Each trial starts a sweep into a folder, ends a process by SIGKILL after a random while (plain: the sweep; with Dask:
the asker, a worker, all workers or the scheduler), in half of the trials damages some parts at random, and resumes.
Exit status 1 where the rows, or the bytes of the parts, are not those of a sweep that nobody disturbed. The undisturbed
sweep runs twice, as the first run after installation compiles its loops, and designs are answered in several ways.
"""

from __future__ import annotations

import argparse
import io
import os
import random
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd

import perfmodel as pm
from perfmodel.analysis.dask_cluster import connect
from tests.analysis.clusters import Cluster

ROOT = Path(__file__).resolve().parents[2]
BOX = {"npu.peak_flops": (1e14, 1e16), "network.0.bandwidth": (1e10, 1e12)}
PART = 1024
POINTS = 8192


def sweep(folder: Path, client: Any = None) -> pd.DataFrame:
    """The sweep of every trial."""
    graph = pm.load(ROOT / "traces" / "gpt_dp2_tp2_pp2")
    result = pm.sweep(
        graph,
        pm.hardware("dgx-h100", ranks=8),
        pm.sample(BOX, POINTS),
        output=folder,
        part=PART,
        threads=1,
        client=client,
        progress=False,
    )
    assert result is not None
    return result


def quietly(folder: Path) -> None:
    """The sweep, for its files."""
    sweep(folder)


def child(work: Callable[[], None]) -> int:
    """Do something in a process of its own. This one must not have computed before: JAX does not survive a fork."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        warnings.simplefilter("ignore")
        work()
        status = 0
    except pm.InputError as error:
        print(f"    {error}", flush=True)
        status = 3
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def wait(pid: int) -> int:
    """Exit status of a child, negative for a signal."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def some_moment(folder: Path, random_: random.Random, longest: float, pid: int) -> None:
    """Wait for a random while: before there are parts in one of five cases, else from the first part on.

    No longer than the process lives: on a busy machine Dask may lose its scheduler without anybody's help.
    """
    until = time.monotonic() + longest * (random_.random() if random_.random() < 0.2 else 20)
    wanted = random_.choice((1, random_.randrange(1, POINTS // PART)))
    there = os.WEXITED | os.WNOHANG | os.WNOWAIT
    while time.monotonic() < until and os.waitid(os.P_PID, pid, there) is None:
        if len(list(folder.glob("part-*.parquet"))) >= wanted:
            return
        time.sleep(0.002)


def kill_plain(folder: Path, random_: random.Random, longest: float) -> str:
    """Kill the sweep itself."""
    pid = child(lambda: quietly(folder))
    some_moment(folder, random_, longest, pid)
    os.kill(pid, signal.SIGKILL)
    wait(pid)
    return "sweep"


def kill_dask(folder: Path, random_: random.Random, longest: float) -> str:
    """Kill a part of a cluster; where the sweep goes on without it, let it."""
    victim = random_.choice(("asker", "one worker", "all workers", "scheduler"))

    def ask(address: str) -> None:
        with connect(address) as client:  # one message where the scheduler is gone by now
            sweep(folder, client)

    with Cluster(2) as cluster:
        pid = child(lambda: ask(cluster.address))
        some_moment(folder, random_, longest, pid)
        if victim == "asker":
            os.kill(pid, signal.SIGKILL)
        elif victim == "scheduler":
            cluster.scheduler.kill()
        else:
            for nanny in cluster.workers[: 1 if victim == "one worker" else 2]:
                for worker in children(nanny.pid):
                    os.kill(worker, signal.SIGKILL)
        status = wait(pid)
    assert victim == "asker" or status in (0, 3), f"{victim}: the sweep ended with {status}"
    return victim + (" (went on)" if status == 0 else "")


def children(pid: int) -> list[int]:
    """Processes that a process has started, but those that keep track of shared memory."""
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [
        int(other)
        for other in found
        if b"resource_tracker" not in Path(f"/proc/{other}/cmdline").read_bytes()
    ]


def damage(folder: Path, random_: random.Random) -> int:
    """Flip, cut, empty, exchange or remove some of the parts that are there."""
    parts = sorted(folder.glob("part-*.parquet"))
    chosen = random_.sample(parts, min(len(parts), random_.randint(1, 4)))
    sound = [path.read_bytes() for path in parts]
    for path in chosen:
        raw = bytearray(path.read_bytes())
        way = random_.choice(("flip", "cut", "empty", "exchange", "remove", "rewrite"))
        if way == "flip":
            raw[random_.randrange(len(raw))] ^= 1 << random_.randrange(8)
            path.write_bytes(raw)
        elif way == "cut":
            path.write_bytes(raw[: random_.randrange(len(raw))])
        elif way == "empty":
            path.write_bytes(b"")
        elif way == "exchange":
            path.write_bytes(random_.choice(sound))
        elif way == "remove":
            path.unlink()
        else:
            pd.read_parquet(io.BytesIO(sound[0])).assign(makespan_s=1.0).to_parquet(path)
    return len(chosen)


def same(folder: Path, expected: Path, what: str) -> None:
    """Raise AssertionError unless two folders hold the same parts, byte for byte."""
    for path in sorted(expected.glob("part-*.parquet")):
        assert (folder / path.name).read_bytes() == path.read_bytes(), (
            f"{what}: {path.name} differs"
        )
    assert len(list(folder.glob("part-*.parquet"))) == POINTS // PART, f"{what}: parts are missing"


def trial(
    number: int, kill: Callable[..., str], random_: random.Random, longest: float, expected: Path
) -> str:
    """One killed sweep, resumed; what was killed and damaged. Raises AssertionError where it differs."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "sweep"
        victim = kill(folder, random_, longest)
        there = len(list(folder.glob("part-*.parquet")))
        hurt = damage(folder, random_) if there and random_.random() < 0.5 else 0
        status = wait(child(lambda: quietly(folder)))
        assert status == 0, f"trial {number}: the resumed sweep ended with {status}"
        same(folder, expected, f"trial {number} ({victim})")
        return f"{victim}, {there:3} parts there, {hurt} damaged"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=10, help="kills, those with Dask included")
    parser.add_argument("--dask", type=int, default=0, help="how many of them with Dask")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    random_ = random.Random(options.seed)
    failures = 0
    victims: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as place:
        expected = Path(place) / "expected"
        begin = time.monotonic()
        assert wait(child(lambda: quietly(expected))) == 0
        longest = time.monotonic() - begin
        ways = pd.read_parquet(expected, columns=["schedule"]).schedule.value_counts().to_dict()
        print(f"undisturbed: {longest:.1f} s; {ways}", flush=True)
        assert len(ways) > 1, "only one way of answering, so that it cannot differ"
        again = Path(place) / "again"
        assert wait(child(lambda: quietly(again))) == 0
        same(again, expected, "undisturbed, once more")
        for number in range(options.count):
            kill = kill_dask if number < options.dask else kill_plain
            try:
                said = trial(number, kill, random_, longest, expected)
                victims[said.split(",")[0]] += 1
            except AssertionError as error:
                failures, said = failures + 1, f"FAILED: {error}"
            print(f"{number:4}  {said}", flush=True)
    print(f"{dict(victims)}; {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
