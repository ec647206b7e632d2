"""Designs in blocks, so small that the costs of a block and their derivatives stay in the cache of one core."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel.engine.bulk import Devices
from perfmodel.engine.bulk_jax import split_over
from perfmodel.threads import in_threads

BLOCK = 8192
"""Designs at a time, on the host."""

FEWEST = 1024
"""Designs that a thread gets at least: handing over fewer takes longer than it saves."""

MOST_COSTS = 1 << 26
"""Costs of all designs that are evaluated together: a table of 0.5 GB, of which there are a few."""

_LOOPS = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""Sums over the rows of a table as loops of the function's own."""


def in_blocks(
    function: Callable[[slice], dict[str, NDArray[Any]]], designs: int, threads: int
) -> dict[str, NDArray[Any]]:
    """[D] columns by name, from a function of a stretch of the designs."""
    width = _share(designs, threads)
    blocks = [slice(at, min(at + width, designs)) for at in range(0, designs, width)]
    if len(blocks) < 2:
        return function(slice(0, designs))
    found: list[dict[str, NDArray[Any]]] = [{} for _ in blocks]

    def work(numbers: range) -> None:
        for k in numbers:
            found[k] = function(blocks[k])

    in_threads(work, [range(k, len(blocks), threads) for k in range(min(threads, len(blocks)))])
    return _end_to_end(found)


def in_tables(
    function: Callable[[slice], dict[str, NDArray[Any]]], designs: int, costs: int
) -> dict[str, NDArray[Any]]:
    """[D] columns by name, from a function of a stretch of the designs; so many at a time that there is room.

    Args:
        costs: distinct ones of a design.
    """
    most = max(MOST_COSTS // max(costs, 1), 1)
    width = 1 << (most.bit_length() - 1)  # designs are padded to a power of two
    if designs <= width:
        return function(slice(0, designs))
    found = [function(slice(at, min(at + width, designs))) for at in range(0, designs, width)]
    return _end_to_end(found)


def _end_to_end(parts: list[dict[str, NDArray[Any]]]) -> dict[str, NDArray[Any]]:
    """[D] columns of all parts, of which each has the same ones."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def call_padded(
    function: Any, *arrays: NDArray[Any], devices: Devices = (), threads: int = 1
) -> NDArray[np.float64]:
    """Call a batched function on arrays [., D], the designs padded to a power of two: few shapes, few compilations.

    Devices get equal shares of the designs; on the host, threads share blocks of them.
    """
    designs = arrays[0].shape[1]
    size = _power_of_two(designs)
    if devices:
        size += -size % len(devices)
    else:
        size = min(size, _share(designs, threads))

    def begin(at: int) -> Any:
        block: list[Any] = [a[:, at : at + size] for a in arrays]
        width = block[0].shape[1]
        if width < size:
            block = [np.pad(a, ((0, 0), (0, size - width)), mode="edge") for a in block]
        if devices:
            block = [jax.device_put(a, split_over(devices)) for a in block]
        return function(*block)

    first = begin(0)  # which compiles; then it goes on beside the others
    if designs <= size:
        return np.asarray(first, np.float64)[:, :designs]
    result = np.empty((len(first), designs))

    def work(starts: range) -> None:
        for at in starts:
            result[:, at : at + size] = np.asarray(begin(at))[:, : designs - at]

    parts = [range(k * size, designs, threads * size) for k in range(1, threads + 1)]
    in_threads(work, [part for part in parts if part])
    result[:, :size] = np.asarray(first)
    return result


class CompiledOnce:
    """A jitted function that threads may call: the first one to come with arrays of some shapes compiles for them.

    JAX would have each of those that come meanwhile compile the same.
    """

    def __init__(self, function: Callable[..., Any]):
        self._function, self._ready, self._lock = function, set[Any](), threading.Lock()

    def __call__(self, *arrays: Any) -> Any:
        shapes = tuple([a.shape for a in arrays])
        if shapes in self._ready:
            return self._function(*arrays)
        with self._lock:
            found = self._function(*arrays)
            self._ready.add(shapes)
        return found


def _share(designs: int, threads: int) -> int:
    """Designs at a time, so that each thread has some: few different numbers, since each is compiled for."""
    return min(max(_power_of_two(-(-designs // threads)), FEWEST), BLOCK)


def _power_of_two(number: int) -> int:
    return 1 << max(number - 1, 0).bit_length()


def jit_sums(function: Callable[..., Any]) -> Any:
    """`jax.jit` of a function that sums up over the rows of tables of few rows.

    XLA's CPU compiler hands such sums to a library of kernels where it can; for tables of tens of rows these take twice
    as long as loops.
    """
    return jax.jit(function, compiler_options=dict(_known_options()))


@cache
def _known_options() -> Mapping[str, str]:
    """What this version of XLA can be told of it."""
    try:
        jax.jit(lambda x: x, compiler_options=_LOOPS).lower(0.0).compile()
    except RuntimeError:  # "No such compile option"
        return {}
    return _LOOPS
