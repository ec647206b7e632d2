"""The time of one operation, or of many of one kind: what the models say, without a graph.

pm.operation_time(system, "gemm", m=4096, n=4096, k=[1024, 8192])
pm.operation_time(system, "all_reduce", size=2**30, ranks=16)
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.errors import InputError
from perfmodel.machine.placement import hops, span
from perfmodel.machine.system import System
from perfmodel.models.cost import Operation, models_of
from perfmodel.models.cost import operation_time as kernel_time
from perfmodel.models.gemm import number_sizes
from perfmodel.vocabulary import COLLECTIVES, DIMENSIONS, DTYPES, OPERATIONS

KINDS = (*OPERATIONS, *COLLECTIVES, "send")
"""What can be asked for."""

DEFAULTS: dict[str, dict[str, Any]] = {
    "gemm": {"batch": 1, "dtype": "bf16"},
    "attention": {"causal": 1, "dtype": "bf16"},
    "other": {"dtype": ""},
    "send": {"ranks": 2},
    "barrier": {"size": 0},
}
"""Sizes that may be left out, by kind."""


def operation_time(
    system: System, kind: str, models: Any = None, **sizes: ArrayLike | str
) -> NDArray[np.float64]:
    """How long operations of one kind take on a system.

    Args:
        system: rates, and the network that grows to the ranks of a collective.
        kind: "gemm" (m, n, k, batch=1, dtype="bf16"); "attention" (batch, heads, kv_heads, query, key, head_size,
            causal=1, dtype="bf16"); "elementwise", "norm", "reduction", "embedding", "optimizer" (bytes [B]);
            "other" (flops, bytes [B]); a collective such as "all_reduce" (size [B] of one member's input, its own
            part included; ranks: how many take part, whole nodes first); "send" (size [B]; ranks=2: from the first
            of so many to the last).
        models: what turns work into time; by default the system's own.
        sizes: as the kind says, numbers or arrays that broadcast.

    Returns:
        [s], of the shape that the sizes broadcast to.

    Raises:
        InputError: an unknown kind, a size that is missing, unknown, negative or no number, a number format that the
            device lacks, ranks that the system cannot have.

    >>> from perfmodel.machine.system import NPU
    >>> from perfmodel.models.cost import Models
    >>> system = System(NPU(peak_flops=1e12, memory_bandwidth=1e12))
    >>> operation_time(system, "other", Models(), flops=[1e9, 2e9], bytes=0).tolist()
    [0.001, 0.002]
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=3, cutoff=0.5)
        raise InputError(f"operation {kind!r}: expected one of {', '.join(near or KINDS)}")
    chosen = models_of(system, models)
    given = _given(kind, sizes)
    dtype = given.pop("dtype", "")
    if dtype and dtype not in DTYPES:
        raise InputError(f"{kind}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}")
    arrays = {name: _numbers(kind, name, value) for name, value in given.items()}
    shape = np.broadcast_shapes(*(a.shape for a in arrays.values()))
    flat = {name: np.broadcast_to(a, shape).ravel() for name, a in arrays.items()}
    if kind in OPERATIONS:
        return _kernels(system, kind, chosen, flat, dtype).reshape(shape)
    result = np.zeros(math.prod(shape))
    for count, rows in _by_ranks(kind, flat["ranks"]):
        size = jnp.asarray(flat["size"][rows])
        result[rows] = _communication(system, kind, chosen, size, count)
    return result.reshape(shape)


def _given(kind: str, sizes: dict[str, Any]) -> dict[str, Any]:
    """The sizes with defaults, none missing, none too many."""
    if kind in DIMENSIONS:
        wanted: tuple[str, ...] = (*DIMENSIONS[kind], "dtype")
    elif kind == "other":
        wanted = ("flops", "bytes", "dtype")
    else:
        wanted = ("bytes",) if kind in OPERATIONS else ("size", "ranks")
    given = {**DEFAULTS.get(kind, {}), **sizes}
    missing = [name for name in wanted if name not in given]
    extra = [name for name in given if name not in wanted]
    if missing or extra:
        wrong = f"{', '.join(missing)} missing" if missing else f"{', '.join(extra)} unknown"
        raise InputError(f"{kind}: {wrong}; its sizes are {', '.join(wanted)}")
    return given


def _numbers(kind: str, name: str, value: Any) -> NDArray[np.float64]:
    try:
        numbers = np.asarray(value, float)
    except (TypeError, ValueError):
        raise InputError(f"{kind}: {name} is {value!r}, expected numbers") from None
    wrong = numbers[~(np.isfinite(numbers) & (numbers >= 0))]
    if wrong.size:
        raise InputError(
            f"{kind}: {name} is {wrong.flat[0]:g}, expected a finite number, 0 or more"
        )
    return numbers


def _kernels(
    system: System, kind: str, models: Any, flat: dict[str, Any], dtype: str
) -> NDArray[np.float64]:
    rows = next(iter(flat.values())).size
    none = jnp.zeros(rows)
    columns = {name: jnp.asarray(values) for name, values in flat.items()}
    work = {"flops": none, "bytes": none, **columns}
    size, result = number_sizes(dtype)
    if kind == "gemm":
        work["flops"] = 2.0 * work["batch"] * work["m"] * work["n"] * work["k"]
        b, m, n, k = (work[name] for name in DIMENSIONS["gemm"])
        work["bytes"] = b * (size * (m * k + k * n) + result * m * n)
    if kind == "attention":
        b, h, g, q, s, d, causal = (work[name] for name in DIMENSIONS["attention"])
        half = jnp.where(causal > 0, 0.5 * q, 0.0)
        work["flops"] = 4.0 * b * h * d * q * jnp.maximum(s - half, 1.0)
        work["bytes"] = 2.0 * size * b * d * (h * q + g * s)
    operation = Operation(**work, dtype="" if dtype == system.dtype else dtype)
    return np.asarray(kernel_time(models.compute, kind, operation, system.npu), float)


def _by_ranks(kind: str, ranks: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    for count in np.unique(ranks):
        if count != int(count) or count < (2 if kind == "send" else 1):
            raise InputError(f"{kind}: ranks is {count:g}, expected a whole number of them")
        yield int(count), np.flatnonzero(ranks == count)


def _communication(system: System, kind: str, models: Any, size: Any, count: int) -> Any:
    if not system.network:
        raise InputError(f"{kind}: system {system.name} has no network to communicate over")
    inner = math.prod(max(d.built, d.size) for d in system.network[:-1])
    enough = system if count <= system.ranks else system.resized(-(-count // inner) * inner)
    if kind == "send":
        route = hops(0, count - 1, enough.network)
        return models.network.point_to_point(size, route, enough.network)
    group = span(range(count), enough.sizes)
    return models.network.collective(kind, size, group, enough.network)
