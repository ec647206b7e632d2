"""Measured durations, a row each, as costs that the models can predict.

A table may mix four kinds of rows; the columns that a row fills say which it is:

* `collective`, `size_B`, `ranks`: a collective of that kind in lower case, `size_B` one member's input as in a
  trace (of an all-gather what one rank gives, not what it gets), `ranks` how many take part (0 to ranks - 1), or
  a tuple of ranks;
* `memory`, `size_B`: a load or store of "local" or "remote" memory;
* `flops`, `bytes_B` (or `bytes`): an operation's work and the bytes that it moves; where known also `kind`
  (`vocabulary.OPERATIONS`), `dtype`, and the sizes of the kind (`vocabulary.DIMENSIONS`, such as batch, m, n, k);
* `size_B` alone: a message from rank `source` to `target` (columns that may be left out: from 0 to 1).

All have `duration_s`.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
import pandas as pd
from jax import Array
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.placement import hops, span
from perfmodel.machine.system import System
from perfmodel.models.cost import block_time
from perfmodel.models.cost_blocks import CostBlock
from perfmodel.vocabulary import (
    COLLECTIVES,
    COMMUNICATION,
    COMPUTE,
    DIMENSIONS,
    DTYPES,
    MEMORY,
    OPERATIONS,
)

CATEGORY = {
    "compute": COMPUTE,
    "memory": MEMORY,
    "collective": COMMUNICATION,
    "point_to_point": COMMUNICATION,
}


SHORTEST, LONGEST = 1e-12, 1e9
"""What a duration may be [s]."""

LARGEST = 1e30
"""What FLOP and bytes may be."""

LARGEST_GROUP = 1 << 20
"""Ranks that may take part."""


@dataclass(frozen=True, eq=False)
class NodeTimes:
    """m measured durations by block of equal kind.

    Attributes:
        keys: (ranks of the system that a block needs, `cost_blocks.CostBlock` key) of each block.
        rows: [rows, 1 or 2] the work of each block.
        place: row of the table of each row of the blocks, in their order.
        duration: [m] measured [s], in the table's order.
    """

    keys: tuple[tuple[int, tuple[Hashable, ...]], ...]
    rows: tuple[NDArray[np.float64], ...]
    place: NDArray[np.int64]
    duration: NDArray[np.float64]

    @property
    def kinds(self) -> list[str]:
        """[m] what each row measured."""
        words = np.empty(len(self.duration), dtype=object)
        words[self.place] = [
            str(key[0]) for (_, key), rows in zip(self.keys, self.rows) for _ in range(len(rows))
        ]
        return list(words)


def predicted(
    keys: tuple[tuple[int, tuple[Hashable, ...]], ...],
    rows: Sequence[Array],
    system: System,
    models: Any,
) -> Array:
    """[m] durations of the rows of all blocks, in their order [s]; pure JAX in rows, system and models."""
    parts = []
    for (ranks, key), work in zip(keys, rows):
        block = CostBlock(key, work, np.ones(1), CATEGORY[str(key[0])])  # type: ignore[arg-type]
        time = block_time(block, system.resized(ranks), models)
        parts.append(jnp.broadcast_to(time, (work.shape[0],)))
    return jnp.concatenate(parts)


def read(table: pd.DataFrame, system: System) -> NodeTimes:
    """Check a table of measurements.

    Args:
        table: m rows; see the module's text.
        system: what was measured; grows to the ranks of a collective where its file lets it.

    Raises:
        InputError: a missing column, a value that is missing, negative or not finite, an unknown collective, ranks
            that the system does not have.
    """
    if not len(table):
        raise InputError("measurements: the table is empty; expected one row per measurement")
    duration = _numbers(table, "duration_s", np.ones(len(table), bool), positive=True)
    beyond = (duration < SHORTEST) | (duration > LONGEST)
    if beyond.any():
        row = int(np.flatnonzero(beyond)[0])
        raise InputError(
            f"measurements: row {row}: duration_s is {duration[row]:g}, expected {SHORTEST:g} to {LONGEST:g} s"
        )
    blocks = list(_blocks(table, system))
    return NodeTimes(
        tuple(key for key, _, _ in blocks),
        tuple(work for _, _, work in blocks),
        np.concatenate([place for _, place, _ in blocks]),
        duration,
    )


def _blocks(
    table: pd.DataFrame, system: System
) -> Iterator[tuple[Any, NDArray[Any], NDArray[Any]]]:
    """(key, places [rows] in the table, work [rows, 1 or 2]) of every block, kind by kind."""
    kind = _kinds(table)
    chosen = kind == "compute"
    if chosen.any():
        yield from _kernels(table, chosen, system)
    if chosen.all():
        return
    size = _numbers(table, "size_B", ~chosen)
    if (kind == "collective").any() and "ranks" not in table:
        raise InputError("measurements: collectives need the column ranks, how many take part")
    columns = {
        "memory": (("memory",), _memory),
        "collective": (("collective", "ranks", "per_node"), _collective),
        "point_to_point": (("source", "target", "per_node"), _message),
    }
    for word, (names, key_of) in columns.items():
        for places, values in _alike(table, kind == word, names):
            key = key_of(values, int(places[0]), system)
            yield key, places, size[places][:, None]


def _kernels(
    table: pd.DataFrame, chosen: NDArray[Any], system: System
) -> Iterator[tuple[Any, NDArray[Any], NDArray[Any]]]:
    """The blocks of kernels, by kind and dtype: FLOP, bytes, and the sizes of the kind."""
    moved = "bytes_B" if "bytes_B" in table else "bytes"
    work = np.column_stack([_numbers(table, name, chosen) for name in ("flops", moved)])
    for places, values in _alike(table, chosen, ("kind", "dtype")):
        word, dtype = values.get("kind") or "other", values.get("dtype") or ""
        row = int(places[0])
        if word not in OPERATIONS:
            near = difflib.get_close_matches(str(word), OPERATIONS, n=2, cutoff=0.4) or OPERATIONS
            raise InputError(
                f"measurements: row {row}: kind is {word!r}, expected one of {', '.join(near)}"
            )
        if dtype:
            if dtype not in DTYPES:
                raise InputError(
                    f"measurements: row {row}: dtype is {dtype!r}, expected one of {', '.join(DTYPES)}"
                )
            try:
                system.npu.of_dtype(dtype)
            except InputError as error:
                raise InputError(f"measurements: row {row}: {error}") from None
        mine = np.zeros(len(table), bool)
        mine[places] = True
        sizes = [_numbers(table, name, mine)[places] for name in DIMENSIONS.get(word, ())]
        yield (
            (system.ranks, ("compute", word, dtype)),
            places,
            np.column_stack([work[places], *sizes]),
        )


def _alike(
    table: pd.DataFrame, chosen: NDArray[Any], names: tuple[str, ...]
) -> Iterator[tuple[NDArray[Any], dict[str, Any]]]:
    """(places, {name: value}) of the rows chosen that have the same values in the columns named."""
    places = np.flatnonzero(chosen)
    if not len(places):
        return
    columns = {name: table[name].iloc[places].tolist() for name in names if name in table}
    groups: dict[Any, list[int]] = {}
    cells = zip(*([_hashable(v) for v in column] for column in columns.values()), strict=True)
    for place, values in zip(places, cells if columns else [()] * len(places)):
        groups.setdefault(values, []).append(int(place))
    for values, found in groups.items():
        yield np.array(found), dict(zip(columns, values))


def _hashable(value: Any) -> Any:
    """A cell as a key: lists are tuples, and no number is None."""
    if isinstance(value, list | np.ndarray):
        return tuple(value)
    return None if isinstance(value, float) and math.isnan(value) else value


def _kinds(table: pd.DataFrame) -> NDArray[Any]:
    """[m] what each row measured."""

    def filled(*names: str) -> NDArray[np.bool_]:
        there = [table[name].notna().to_numpy() for name in names if name in table]
        return np.logical_or.reduce(there) if there else np.zeros(len(table), bool)

    kind = np.select(
        [
            filled("collective"),
            filled("memory"),
            filled("flops", "bytes", "bytes_B"),
            filled("size_B"),
        ],
        ["collective", "memory", "compute", "point_to_point"],
        "",
    )
    if (kind == "").any():
        row = int(np.flatnonzero(kind == "")[0])
        raise InputError(
            f"measurements: row {row} says not what was measured; expected flops and bytes_B (or m, "
            f"n and k), or size_B with or without collective; the columns are {', '.join(map(str, table))}"
        )
    return kind


def _numbers(
    table: pd.DataFrame, name: str, chosen: NDArray[Any], *, positive: bool = False
) -> NDArray[np.float64]:
    """[m] a column of finite numbers, where chosen 0 or more, or more than 0."""
    if name not in table:
        near = difflib.get_close_matches(name, [str(c) for c in table], n=2, cutoff=0.4)
        raise InputError(
            f"measurements: no column {name}"
            + (f"; did you mean {' or '.join(near)}?" if near else "")
            + f" The columns are {', '.join(map(str, table))}"
        )
    values: NDArray[np.float64] = pd.to_numeric(table[name], errors="coerce").to_numpy(float)
    wrong = chosen & ~(np.isfinite(values) & ((values > 0) if positive else (values >= 0)))
    large = chosen & ~wrong & (values > LARGEST)
    if large.any():
        row = int(np.flatnonzero(large)[0])
        raise InputError(
            f"measurements: row {row}: {name} is {values[row]:g}, expected {LARGEST:g} at most"
        )
    if wrong.any():
        row = int(np.flatnonzero(wrong)[0])
        expected = (
            "more than 0; leave out rows that were not measured"
            if positive
            else "0 or more (give 0 where there is no such work)"
        )
        raise InputError(
            f"measurements: row {row}: {name} is {table[name].iloc[row]!r}, expected a finite number "
            f"of {expected}"
        )
    return values


def _memory(values: dict[str, Any], row: int, system: System) -> tuple[int, tuple[Any, ...]]:
    word = str(values["memory"])
    if word not in ("local", "remote"):
        raise InputError(
            f'measurements: row {row}: memory is {word!r}, expected "local" or "remote"'
        )
    if word == "remote" and system.remote_memory is None:
        raise InputError(f"measurements: row {row}: system {system.name} has no remote memory")
    return system.ranks, ("memory", word)


def _collective(values: dict[str, Any], row: int, system: System) -> tuple[int, tuple[Any, ...]]:
    word = str(values["collective"]).lower()
    if word not in COLLECTIVES:
        near = difflib.get_close_matches(word, COLLECTIVES, n=2, cutoff=0.4)
        raise InputError(
            f"measurements: row {row}: collective is {word!r}, expected one of "
            f"{', '.join(near or COLLECTIVES)}"
        )
    members = _members(values["ranks"], values.get("per_node"), row, system)
    fitting = _sized(system, int(members.max()) + 1)
    return fitting.ranks, ("collective", word, span(members, fitting.sizes))


def _members(ranks: Any, per_node: Any, row: int, system: System) -> NDArray[np.int64]:
    """The ranks of a group, from their number (and how many of a node take part) or their list."""
    wrong = f"measurements: row {row}: ranks is {ranks!r}, expected"
    if isinstance(ranks, tuple):
        members = np.array([_whole(rank, "ranks", row) for rank in ranks], np.int64)
    else:
        count = _whole(ranks, "ranks", row)
        if count > LARGEST_GROUP:
            raise InputError(f"{wrong} {LARGEST_GROUP} at most")
        members = _placed(np.arange(count), per_node, row, system)
    if len(members) < 2 or len(np.unique(members)) < len(members):
        raise InputError(f"{wrong} 2 or more different ones")
    return members


def _placed(
    members: NDArray[np.int64], per_node: Any, row: int, system: System
) -> NDArray[np.int64]:
    """The ranks that stand for `members` where only `per_node` NPUs of each node take part."""
    of_node = _whole(per_node, "per_node", row) if per_node is not None else 0
    if not of_node or len(system.network) < 2:
        return members
    inner = max(system.network[0].built, system.network[0].size)
    if of_node >= inner or len(members) <= of_node:
        return members
    return members // of_node * inner + members % of_node


def _whole(value: Any, name: str, row: int) -> int:
    if isinstance(value, (int, float, np.number)) and value >= 0 and value == int(value):
        return int(value)
    raise InputError(f"measurements: row {row}: {name} is {value!r}, expected a whole number")


def _message(values: dict[str, Any], row: int, system: System) -> tuple[int, tuple[Any, ...]]:
    source, target = (
        _whole(default if values.get(name) is None else values[name], name, row)
        for name, default in (("source", 0), ("target", 1))
    )
    if source == target:
        raise InputError(f"measurements: row {row}: a message of rank {source} to itself")
    if max(source, target) > LARGEST_GROUP:
        raise InputError(
            f"measurements: row {row}: a message to rank {max(source, target)}, expected {LARGEST_GROUP} at most"
        )
    pair = _placed(np.array([source, target]), values.get("per_node"), row, system)
    fitting = _sized(system, int(pair.max()) + 1)
    return fitting.ranks, ("point_to_point", hops(int(pair[0]), int(pair[1]), fitting.network))


def _sized(system: System, ranks: int) -> System:
    """The system itself where it has the ranks, else grown to them, inner dimensions full."""
    if not system.network:
        raise InputError(f"measurements: system {system.name} has no network to communicate over")
    if ranks <= system.ranks:
        return system
    inner = math.prod(max(d.built, d.size) for d in system.network[:-1])
    return system.resized(-(-ranks // inner) * inner)
