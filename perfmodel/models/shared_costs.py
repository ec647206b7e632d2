"""Distinct costs at plain numbers, by compiled functions that all graphs share.

A function of one graph holds the sizes of its work as constants, so that every new graph, be it the same model spread
over ranks in another way, has it compiled anew: a second for what then takes a microsecond. Here a kind of cost (the
key of a `CostBlock`, with the classes and labels of what answers for it) is compiled once for a process, with sizes
and coefficients as arguments and the rows filled up to a power of two. The graph's own function answers where JAX
traces or a number is an array, and where a class is not the package's: it may be changed in place.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from perfmodel.machine.system import NPU, System
from perfmodel.models.cost import BESIDE, CostBlock, DistinctCosts, Models, block_time, durations
from perfmodel.pytree import content

FEWEST = 8
"""Rows that a shared function takes at least."""

NOBODY = NPU(1.0, 1.0)
"""In the place of an accelerator where none is asked."""


@dataclass(frozen=True)
class _Answering:
    """What answers for a kind of cost, apart from its numbers.

    Attributes:
        key: of the block.
        shape: classes and labels of the tree (system, models).
        structure: how JAX puts the tree together from its numbers.
    """

    key: tuple[Hashable, ...]
    shape: Hashable
    structure: Any = field(compare=False)


class Costs:
    """The distinct costs of a graph as a function of a system and models."""

    def __init__(self, work: DistinctCosts):
        self.work = work
        self.own = jax.jit(partial(durations, work))

    def __call__(self, system: System, models: Any) -> Any:
        """[S] durations [s]: an array of JAX where a number is traced or an array, else one of NumPy."""
        if type(models) is not Models or not _plain(jax.tree.leaves((system, models))):
            return self.own(system, models)
        known: dict[tuple[Any, ...], tuple[Hashable, Any, NDArray[np.float64]] | None] = {}
        parts = []
        for block in self.work.blocks:
            scale = np.broadcast_to(block.scale, (len(block.rows),))
            if block.key[0] == "recorded":
                parts.append(block.rows[:, 0] * scale)
                continue
            part = (block.key[0], BESIDE in block.key)
            if part not in known:
                known[part] = _apart(_needed(*part, system, models))
            if (tree := known[part]) is None:
                return self.own(system, models)
            parts.append(_block(block, *tree) * scale)
        return np.concatenate(parts) if parts else np.zeros(0)


def _plain(numbers: list[Any]) -> bool:
    return all(isinstance(x, int | float) for x in numbers)


def _needed(kind: Hashable, beside: bool, system: System, models: Models) -> tuple[System, Models]:
    """What a kind of cost depends on, and nothing that it does not: names, and sizes of dimensions of switches."""
    if kind == "compute":
        channels = models.channels if beside else None
        return System(system.npu), Models(compute=models.compute, channels=channels)
    if kind == "memory":
        alone = System(system.npu, remote_memory=system.remote_memory)
        return alone, Models(memory=models.memory)
    network = tuple(replace(d, size=1, built=0) if d.shape.switched else d for d in system.network)
    return System(NOBODY, network), Models(network=models.network)


def _apart(tree: Any) -> tuple[Hashable, Any, NDArray[np.float64]] | None:
    """Shape, structure and numbers of a tree; None where a class in it is not the package's."""
    numbers, structure = jax.tree.flatten(tree)
    shape = content(jax.tree.unflatten(structure, [0.0] * len(numbers)))
    if shape is None or not all(_ours(kind) for kind in _classes(shape)):
        return None
    return shape, structure, np.array(numbers, np.float64)


def _classes(shape: Any) -> Iterator[type]:
    """The classes in what `pytree.content` says of a tree."""
    if isinstance(shape, tuple):
        kind, _, parts = shape
        yield kind
        for _, part in parts:
            yield from _classes(part)


def _ours(kind: type) -> bool:
    return kind.__module__ == "builtins" or kind.__module__.startswith("perfmodel.")


def _block(
    block: CostBlock, shape: Hashable, structure: Any, numbers: NDArray[np.float64]
) -> NDArray[np.float64]:
    """[rows] durations of one block before scaling [s]."""
    n = len(block.rows)
    size = max(FEWEST, 1 << (n - 1).bit_length())
    rows = np.concatenate([block.rows, np.repeat(block.rows[-1:], size - n, axis=0)])
    with jax.ensure_compile_time_eval():  # now, even where what calls is being traced
        found = _seconds(_Answering(block.key, shape, structure), rows, numbers)
    return np.asarray(found, np.float64)[:n]


@partial(jax.jit, static_argnums=0)
def _seconds(
    answering: _Answering, rows: NDArray[np.float64], numbers: NDArray[np.float64]
) -> Array:
    """[rows] durations of one block before scaling [s], traced once for what answers and a number of rows."""
    system, models = jax.tree.unflatten(answering.structure, list(numbers))
    block = CostBlock(answering.key, rows, rows[:, 0], 0)
    return jax.numpy.broadcast_to(block_time(block, system, models), (len(rows),))
