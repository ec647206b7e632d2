"""Sweeps over the workers of a Dask cluster.

Workers get the graph once and compile it themselves. A task is a run of parts that may be repeated anywhere. Workers
write the parts where they see the sweep's folder, and the process that asked only counts; elsewhere they send the rows
back. A lost worker costs time, never a point; where all that held the graph are lost, it is sent out again.

Dask sends functions as code: whoever can reach the scheduler can run anything as its user, and the asker runs what
comes back. The scheduler has to be trusted, as have all that can reach it.
"""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import cache
from typing import Any, cast

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel import __version__
from perfmodel.analysis.design_parts import SweepWork, evaluate_part
from perfmodel.analysis.designs import Designs
from perfmodel.analysis.sweep_store import Store
from perfmodel.errors import InputError

RETRIES = 10
"""How often a task is tried again after its worker was lost, and the graph is sent out again."""

TASKS = 16
"""Tasks per worker, until few parts are left."""

LAST = 2
"""Tasks per worker that what is left is divided into in the end, so that all end at about the same time."""

MMAP_THRESHOLD, TRIM_THRESHOLD = -3, -1
"""Numbers of two parameters of glibc's `mallopt`."""

PATIENCE = 60
"""Seconds to wait for a worker where there is none."""

CONNECT_TIMEOUT = 10
"""Seconds to wait for a scheduler."""

_EVALUATORS: dict[str, dict[tuple[Any, ...], Any]] = {}
"""On a worker: the evaluators of the latest token."""


def connect(address: str) -> Any:
    """A client of the scheduler at this address.

    Raises:
        InputError: Dask is not installed, or nothing answers there.
    """
    try:
        from distributed import Client
    except ImportError:
        raise InputError("Dask is not installed; install perfmodel[dask]") from None
    # what it logs when a scheduler is lost are tracebacks; one message says it
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)
    try:
        return cast(Any, Client)(address, timeout=CONNECT_TIMEOUT)
    except (OSError, ValueError, TimeoutError) as error:
        raise InputError(f"scheduler {address}: no answer ({error}); is it running?") from None


def results(
    client: Any,
    work: SweepWork,
    parts: list[Designs],
    todo: list[int],
    store: Store | None,
) -> Iterator[tuple[int, dict[str, NDArray[Any]] | None]]:
    """(number, figures) of the parts to do, in the order in which they arrive; None for those that a worker wrote.

    Args:
        client: a `distributed.Client`.
        work: what goes to every worker once.
        parts: all parts; todo: the numbers of those to evaluate.
        store: the sweep's folder, if it has one.

    Raises:
        InputError: the scheduler or all workers are gone; it says how many parts are there.
    """
    left = dict.fromkeys(todo)
    why = ""
    for _ in range(RETRIES):
        try:
            for k, figures in _round(client, work, parts, list(left), store):
                if figures is not None and store is not None:
                    store.write(k, parts[k].frame(figures))
                del left[k]
                yield k, figures
            return
        except _Lost as lost:
            why = str(lost)
            there = _there(parts, left, store)
            if client.status != "running" or not _wait_for_workers(client):
                raise InputError(_stopped(why, there, store)) from None
    raise InputError(_stopped(f"{RETRIES} times, in the end: {why}", there, store))


class _Lost(Exception):
    """What is asked for will not come: workers, data or the scheduler are gone."""


def _there(parts: list[Designs], left: dict[int, None], store: Store | None) -> str:
    """How many parts are there: in the folder also those that workers wrote and did not report any more."""
    count = len(parts) - sum(store is None or not store.path(k).exists() for k in left)
    return f"{count} of {len(parts)} parts are there"


def _stopped(why: str, there: str, store: Store | None) -> str:
    kept = f" in {store.folder}" if store else ", and are lost without a folder (output)"
    again = "run it again, it goes on there" if store else "run it again, with a folder"
    return f"the cluster stopped answering ({why}): {there}{kept}; {again}"


def _round(
    client: Any,
    work: SweepWork,
    parts: list[Designs],
    todo: list[int],
    store: Store | None,
) -> Iterator[tuple[int, dict[str, NDArray[Any]] | None]]:
    """One attempt: the work is sent to all workers, and the parts that are left are asked for."""
    from distributed import CancelledError, KilledWorker, as_completed
    from distributed.comm.core import CommClosedError

    gone = (CancelledError, KilledWorker, CommClosedError, TimeoutError, OSError)
    futures: dict[Any, dict[int, Designs]] = {}
    try:
        if not _wait_for_workers(client):
            raise _Lost(f"no worker for {PATIENCE} s")
        counts = list(client.nthreads().values())
        work = replace(work, options=replace(work.options, threads=max(1, min(counts))))
        token = _token(work)
        payload = client.scatter((work, store, __version__), broadcast=True, hash=False)
        for task in _tasks(len(todo), len(counts)):
            mine = {todo[at]: parts[todo[at]] for at in task}
            future = client.submit(
                _parts, token, payload, mine, pure=False, retries=RETRIES, priority=-task.start
            )
            futures[future] = mine
        waiting = cast(Any, as_completed)(list(futures), with_results=False)
        for future in waiting:
            for k, answer in zip(futures[future], future.result()):
                yield k, None if answer is None else _unpacked(answer)
            del futures[future]
            future.release()
    except gone as error:
        # a cancelled task's error is a paragraph with the task's key
        raise _Lost(getattr(error, "reason", None) or f"{type(error).__name__}: {error}") from None
    finally:  # after an interrupt or an error workers begin no more of it
        for future in futures:
            future.release()


def _tasks(parts: int, workers: int) -> Iterator[range]:
    """Runs of consecutive parts, equally long until few are left: what remains then is divided again and again.

    Guided self-scheduling (Polychronopoulos and Kuck, IEEE Trans. Computers C-36, 1987), for parts that take about
    equally long.

    >>> [len(task) for task in _tasks(40, 2)]
    [2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1, 1]
    """
    longest, at = -(-parts // (TASKS * workers)), 0
    while at < parts:
        size = max(1, min(longest, (parts - at) // (LAST * workers)))
        yield range(at, at + size)
        at += size


def _token(work: SweepWork) -> str:
    """A name for what workers compile: equal for equal graphs with equal hardware and models, and else never."""
    import cloudpickle  # comes with Dask

    digests = {name: graph.digest for name, graph in work.graphs.items()}
    return hashlib.sha256(cloudpickle.dumps((digests, work.system, work.models))).hexdigest()


def _wait_for_workers(client: Any) -> bool:
    """Whether there is a worker, soon."""
    until = time.monotonic() + PATIENCE
    try:
        while not client.nthreads():
            if time.monotonic() > until:
                return False
            time.sleep(0.2)
    except (OSError, TimeoutError, RuntimeError):
        return False
    return True


def _parts(
    token: str, payload: tuple[SweepWork, Store | None, str], parts: dict[int, Designs]
) -> list[dict[str, Any] | None]:
    """Some parts, on a worker, which keeps its compiled graphs for the next; None for what it wrote itself.

    Raises:
        InputError: the asker has another version of this package, whose numbers are others.
    """
    work, store, version = payload
    if version != __version__:
        raise InputError(
            f"a worker on {platform.node()} has perfmodel {__version__}, and this process {version}; "
            "install the same version everywhere"
        )
    keep_memory()
    if token not in _EVALUATORS:
        _EVALUATORS.clear()
        _EVALUATORS[token] = {}
    writes = store is not None and store.is_here()
    answers: list[dict[str, Any] | None] = []
    for k, points in parts.items():
        figures = evaluate_part(_EVALUATORS[token], work, points)
        if store is not None and writes:
            store.write(k, points.frame(figures))
            answers.append(None)
        else:
            answers.append(_packed(figures))
    return answers


@cache
def keep_memory() -> None:
    """Have this process use memory again that it has freed, up to some 64 MB, where Dask had it given back at once.

    Dask starts workers with `MALLOC_TRIM_THRESHOLD_`, a variable of glibc: then every array of more than 128 kB is
    memory that the system has to find and to clear first, and a sweep of blocks of such arrays takes 1.6 times the
    processor time. These are the bounds that glibc comes to by itself without the variable.
    """
    if "MALLOC_TRIM_THRESHOLD_" in os.environ:
        with suppress(AttributeError, OSError):  # another C library
            mallopt = ctypes.CDLL(None).mallopt
            mallopt(MMAP_THRESHOLD, 1 << 25)
            mallopt(TRIM_THRESHOLD, 1 << 26)


def _packed(figures: Mapping[str, NDArray[Any]]) -> dict[str, Any]:
    """Figures with their texts as numbers: a third of the bytes to send."""
    return {name: pd.Categorical(v) if v.dtype == object else v for name, v in figures.items()}


def _unpacked(figures: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The figures again."""
    return {
        name: np.asarray(v, v.dtype if isinstance(v, np.ndarray) else object)
        for name, v in figures.items()
    }
