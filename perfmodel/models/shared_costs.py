"""Distinct costs at plain numbers, by formulas that all graphs share.

A function of one graph holds the sizes of its work as constants, so that every new graph, be it the same model spread
over ranks in another way, would have it traced anew. Here a kind of cost (the key of a `CostBlock`, with the classes
and labels of what answers for it) is traced once for a process, with sizes and coefficients as arguments and the
rows filled up to a power of two; NumPy evaluates it (`host_formula`). The graph's own function answers where JAX
traces or a number is an array; it is also the one that is evaluated where a class is not the package's: that may be
changed in place.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from typing import Any

import jax
import numpy as np
from jax import Array
from numpy.typing import NDArray

from perfmodel.machine.system import NPU, System
from perfmodel.models.cost import Models, block_time, durations
from perfmodel.models.cost_blocks import BESIDE, CostBlock, DistinctCosts
from perfmodel.models.host_formula import HostFormula, JoinedFormula, UnknownPrimitive
from perfmodel.parameter_paths import parameters
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
        self._formulas: dict[Hashable, HostFormula | None] = {}

    def __call__(self, system: System, models: Any) -> Any:
        """[S] durations [s]: an array of JAX where a number is traced or an array, else one of NumPy."""
        if not _plain(jax.tree.leaves((system, models))):
            return self.own(system, models)
        host = self.host(system, models)
        if host is None:
            return self.own(system, models)
        return host.values(parameters(system, models))[:, 0]

    def host(self, system: System, models: Any) -> HostFormula | JoinedFormula | None:
        """The costs as formulas on the host, at a design of plain numbers; None where NumPy cannot evaluate them."""
        if type(models) is not Models:
            return self._alone(system, models)
        known: dict[tuple[Any, ...], tuple[Any, ...] | None] = {}
        parts: list[tuple[HostFormula | None, NDArray[np.float64]]] = []
        for place, block in enumerate(self.work.blocks):
            scale = np.broadcast_to(block.scale, (len(block.rows),))
            if block.key[0] == "recorded":
                parts.append((None, block.rows[:, 0] * scale))
                continue
            part = (block.key[0], BESIDE in block.key)
            if part not in known:
                known[part] = _apart(_needed(*part, system, models))
            if (tree := known[part]) is None:
                return self._alone(system, models)
            formula = self._of_block(place, *tree)
            if formula is None:
                return self._alone(system, models)
            parts.append((formula, scale))
        return JoinedFormula(parts)

    def _of_block(
        self, place: int, shape: Hashable, structure: Any, numbers: dict[str, float]
    ) -> HostFormula | None:
        """The formula of the rows of a block, which are filled up with the last of them."""
        block = self.work.blocks[place]
        answering = _Answering(block.key, shape, structure)
        key = place, answering  # two blocks may be of one kind, in different categories
        if key not in self._formulas:
            n = len(block.rows)
            size = max(FEWEST, 1 << (n - 1).bit_length())
            rows = np.concatenate([block.rows, np.repeat(block.rows[-1:], size - n, axis=0)])
            program = _program(answering, rows.shape, len(numbers))
            try:
                formula = HostFormula(tuple(numbers), list(numbers.values()), program, rows)
            except UnknownPrimitive:
                self._formulas[key] = None
            else:
                self._formulas[key] = formula
        found = self._formulas[key]
        return found and found.at(list(numbers.values()))

    def _alone(self, system: System, models: Any) -> HostFormula | None:
        """The graph's own function."""
        structure = jax.tree.structure((system, models))
        if structure not in self._formulas:
            self._formulas[structure] = HostFormula.traced(self.own, system, models)
        found = self._formulas[structure]
        return found and found.at([float(v) for v in parameters(system, models).values()])


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


def _apart(tree: Any) -> tuple[Hashable, Any, dict[str, float]] | None:
    """Shape, structure and numbers by path of a tree (system, models); None where a class is not the package's."""
    numbers, structure = jax.tree.flatten(tree)
    shape = content(jax.tree.unflatten(structure, [0.0] * len(numbers)))
    if shape is None or not all(_ours(kind) for kind in _classes(shape)):
        return None
    return shape, structure, {path: float(v) for path, v in parameters(*tree).items()}


def _classes(shape: Any) -> Iterator[type]:
    """The classes in what `pytree.content` says of a tree."""
    if isinstance(shape, tuple):
        kind, _, parts = shape
        yield kind
        for _, part in parts:
            yield from _classes(part)


def _ours(kind: type) -> bool:
    return kind.__module__ == "builtins" or kind.__module__.startswith("perfmodel.")


@lru_cache(maxsize=1024)
def _program(answering: _Answering, rows: tuple[int, ...], numbers: int) -> Any:
    """The jaxpr of (numbers, rows) -> [rows] durations of one block before scaling [s]."""

    def seconds(*values: Any) -> Array:
        system, models = jax.tree.unflatten(answering.structure, list(values[:-1]))
        block = CostBlock(answering.key, values[-1], values[-1][:, 0], 0)
        return jax.numpy.broadcast_to(block_time(block, system, models), rows[:1])

    return jax.make_jaxpr(seconds)(*[1.0] * numbers, np.zeros(rows))
