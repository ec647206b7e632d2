"""The distinct costs of a graph under a set of models: one bulk evaluation per kind of cost.

`Models` is where a user's own compute, memory or network model goes. A model is a small frozen dataclass,
made with `pm.record` so that its coefficients are parameters, with these methods
(all pure, over arrays of jax.numpy; seconds out):

* compute: ``time(flops, bytes, npu)``, [rows] FLOP and B moved. A model that knows more of a kind of operation has a
  method of the kind's name (`vocabulary.OPERATIONS`), such as ``gemm(work, npu)`` or ``attention(work, npu)``, that
  is asked instead, with an `Operation`. ``npu.peak_flops`` is the peak of the operation's own number format;
* memory: ``local(bytes, npu)`` and ``remote(bytes, remote_memory)``, [rows] B;
* network: ``collective(kind, size, group, network)`` with kind a text such as "all_reduce", size [rows] B of one
  member's input and group a `machine.placement.Span` (members and stride per dimension), and
  ``point_to_point(size, hops, network)`` with hops a count per dimension. ``network`` is the tuple of
  `machine.system.Dimension`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import field, replace
from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, System
from perfmodel.models.compute import Roofline
from perfmodel.models.cost_blocks import CostBlock, DistinctCosts
from perfmodel.models.memory import Bandwidth
from perfmodel.models.network import AlphaBeta
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import DIMENSIONS


@record
class Models:
    """What turns work into time.

    Attributes:
        compute, memory, network: see the module's text.
        prefer: "work" or "recorded", which of the two counts where a node has both.
        channels: cores that a collective holds while it runs: kernels beside it (`schedule.beside_collectives`) have
            only the others, at least one, and take cores / (cores - channels) times as long, those that are beside it
            for a share of their time so much less. None, the default of the bare models, leaves them alone; the fitted
            ones of A100 and H100 bring the 24 that NCCL takes there. 0 where collectives need no core. Recordings,
            whose kernels were beside their collectives already, keep their times.
    """

    compute: Any = field(default_factory=Roofline)
    memory: Any = field(default_factory=Bandwidth)
    network: Any = field(default_factory=AlphaBeta)
    prefer: str = static(default="work")
    channels: Any = number("1", default=None)

    def replace(self, **changes: Any) -> Models:
        """A copy with some parts exchanged."""
        return replace(self, **changes)


def models_of(system: System, models: Any) -> Any:
    """The models that count: those given, "roofline" for the bare ones, or (None) the system's own where it has some.

    Raises:
        InputError: a text that names no models.
    """
    if models is None:
        return Models() if system.models is None else system.models
    if not isinstance(models, str):
        return models
    if models != "roofline":
        raise InputError(
            f'models {models!r}: expected "roofline", None for the system\'s own, or an object such as pm.Models(); '
            "a set of coefficients or a file of models is an option of pm.hardware(..., models=...)"
        )
    return Models()


def models_meant(system: System, models: Any, paths: Iterable[Any]) -> Any:
    """`models`; where none are given and a path names what only the bare models have, those.

    So a sweep of compute.efficiency or of network.algorithm is one of the roofline and of alpha and beta, whose
    coefficients these are, also on a system with fitted models.
    """
    own, bare = system.models, Models()
    named = any(_has(bare, str(p)) and not _has(own, str(p)) for p in paths)
    return bare if models is None and named else models


def _has(node: Any, path: str) -> bool:
    """Whether a path leads to something in a tree of records and tuples."""
    for word in path.split("."):
        if isinstance(node, tuple):
            if not (word.isdigit() and int(word) < len(node)):
                return False
            node = node[int(word)]
        elif word in getattr(type(node), "__dataclass_fields__", {}):
            node = getattr(node, word)
        else:
            return False
    return True


@record
class Operation:
    """Kernels of one kind and number format: a column per figure, [rows] each.

    Attributes:
        flops, bytes: work [FLOP] and bytes moved [B], 0 where the trace does not say.
        batch, m, n, k: of a "gemm"; batch, heads, kv_heads, query, key, head_size, causal: of "attention"
            (`vocabulary.DIMENSIONS`); None for other kinds.
        dtype: number format, "" for the system's own.
    """

    flops: Any
    bytes: Any
    batch: Any = None
    m: Any = None
    n: Any = None
    k: Any = None
    heads: Any = None
    kv_heads: Any = None
    query: Any = None
    key: Any = None
    head_size: Any = None
    causal: Any = None
    dtype: str = static(default="")


def operation_time(model: Any, kind: str, operation: Operation, npu: NPU) -> Array:
    """[rows] seconds of operations of one kind: the model's method of that name, else its time from FLOP and bytes.

    Args:
        model: a compute model.
        kind: one of `vocabulary.OPERATIONS`.
        operation: the columns; npu: the accelerator at the system's number format.

    Raises:
        InputError: the accelerator has no such number format.
    """
    npu = npu.of_dtype(operation.dtype)
    if method := getattr(model, kind, None):
        seconds: Array = method(operation, npu)
        return seconds
    seconds = model.time(operation.flops, operation.bytes, npu)
    return seconds


def _stretch(npu: NPU, models: Models, share: Array) -> Any:
    """[rows] how much longer kernels take with only the cores that a collective leaves, for a share of their time."""
    tiles: tuple[Any, ...] = getattr(models.compute, "tiles", ())
    if npu.cores is None and not tiles:
        raise InputError(
            "models.channels: the system says no number of cores, of which a collective could hold some; give npu.cores"
        )
    cores = npu.cores if npu.cores is not None else tiles[0].cores
    held = jnp.minimum(models.channels, jnp.maximum(cores - 1.0, 0.0))
    return cores / (cores - share * held)


def block_time(block: CostBlock, system: System, models: Models) -> Array:
    """[rows] duration of one block's costs [s], before scaling."""
    kind, *detail = block.key
    rows = jnp.asarray(block.rows)
    if kind == "compute":
        word, dtype, *beside = map(str, detail)
        sizes = {name: rows[:, 2 + k] for k, name in enumerate(DIMENSIONS.get(word, ()))}
        operation = Operation(rows[:, 0], rows[:, 1], **sizes, dtype=dtype)
        seconds: Array = operation_time(models.compute, word, operation, system.npu)
        return seconds * _stretch(system.npu, models, rows[:, -1]) if beside else seconds
    if kind == "recorded":
        return rows[:, 0]
    if kind == "memory":
        if detail[0] == "local":
            seconds = models.memory.local(rows[:, 0], system.npu)
            return seconds
        seconds = models.memory.remote(rows[:, 0], system.remote_memory)
        return seconds
    if kind == "collective":
        seconds = models.network.collective(detail[0], rows[:, 0], detail[1], system.network)
        return seconds
    if kind == "point_to_point":
        seconds = models.network.point_to_point(rows[:, 0], detail[0], system.network)
        return seconds
    raise AssertionError(f"no such kind of cost: {kind}")


def durations(work: DistinctCosts, system: System, models: Models) -> Array:
    """[S] duration of every distinct cost [s].

    Args:
        work: the table of distinct costs.
        system: rates; leaves may be tracers or scalars.
        models: what turns work into time.
    """
    parts = [
        jnp.broadcast_to(block_time(b, system, models), (len(b.rows),)) * jnp.asarray(b.scale)
        for b in work.blocks
    ]
    return jnp.concatenate(parts) if parts else jnp.zeros(0)
