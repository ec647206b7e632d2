"""Threads of this process that share out work, started once: starting them takes longer than a small piece of work."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import numpy as np

T = TypeVar("T")


def in_threads(work: Callable[[T], object], parts: Sequence[T]) -> None:
    """`work(part)` for every part at the same time; the calling thread takes the first one."""
    waiting = [_helpers(len(parts) - 1).submit(work, part) for part in parts[1:]]
    if parts:
        work(parts[0])
    for future in waiting:
        future.result()


def even_slices(count: int, threads: int) -> list[slice]:
    """`count` things in as many stretches as there are threads, none of them empty.

    >>> even_slices(5, 2), even_slices(1, 2)
    ([slice(0, 2, None), slice(2, 5, None)], [slice(0, 1, None)])
    """
    edges = np.linspace(0, count, max(min(threads, count), 1) + 1).astype(int).tolist()
    return [slice(a, b) for a, b in pairwise(edges)]


@functools.cache
def _helpers(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_helpers.cache_clear)  # threads do not survive a fork
