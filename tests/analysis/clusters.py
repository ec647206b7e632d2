"""A Dask cluster as processes of its own, which can be killed one by one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


class Cluster:
    """A scheduler and workers as processes of their own, which can be killed one by one."""

    def __init__(self, workers: int, *, nanny: bool = True):
        self.scheduler = start("scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard")
        self.address = address_of(self.scheduler)
        self.nanny = nanny
        self.workers = [self.worker() for _ in range(workers)]

    def worker(self) -> subprocess.Popen:
        """One more worker."""
        choice = "--nanny" if self.nanny else "--no-nanny"
        return start("worker", self.address, "--nthreads", "1", choice, "--no-dashboard")

    def __enter__(self) -> Cluster:
        return self

    def __exit__(self, *_: Any) -> None:
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()
            if process.stderr is not None:
                process.stderr.close()


def start(what: str, *options: str) -> subprocess.Popen:
    """A process of Dask's command line."""
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + what, *options],
        stderr=subprocess.PIPE if what == "scheduler" else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def address_of(scheduler: subprocess.Popen) -> str:
    """Where a scheduler listens, as it says in its log."""
    assert scheduler.stderr is not None
    for line in scheduler.stderr:
        found = re.search(r"tcp://[\d.]+:\d+", line)
        if found:
            threading.Thread(target=scheduler.stderr.read, daemon=True).start()
            return found[0]
    raise AssertionError("the scheduler did not start")
