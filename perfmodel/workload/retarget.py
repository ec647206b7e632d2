"""A workload on more or fewer ranks: replicas of the model added, or taken away.

The communicator groups of a training job are of two kinds. *Data parallel* ones join the replicas of a model: gradients
are summed and shards of parameters are collected in them; they grow with the number of replicas. All others (tensor,
pipeline, expert groups) and all messages belong to one replica: every new replica gets its own.

What follows from that, with a factor f = new / old number of replicas:

- an all-reduce, a reduce-scatter, a broadcast keep their size, which is that of the whole gradient;
- what a rank hands to an all-gather is its shard: size / f;
- where a data parallel group has all-gathers, parameters are sharded: the optimizer's work is divided by f;
- all other work stays, so that the batch per rank stays and the global batch grows by f.

A replica is a connected part of the ranks under the groups and messages of the second kind. New replicas are copies of
all ranks, numbered behind the old ones; fewer ranks are the first replicas.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array, csgraph

from perfmodel.errors import InputError
from perfmodel.vocabulary import COLLECTIVES, OPERATIONS, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program
from perfmodel.workload.rescale import forgotten, rescale

_GRADIENTS = re.compile(
    r"grad(ient)?s?[._]?(all_?reduce|reduce_?scatter)|weight_grad|ddp|fsdp|zero", re.IGNORECASE
)
_FORWARD = re.compile(r"(^|[._/])(fwd|forward)([._/]|$)", re.IGNORECASE)
_DATA = re.compile(
    r"(^|[\W_\d])(data|parameters|gradients?|ddp|fsdp|zero|dp)([\W_\d]|$)", re.IGNORECASE
)
_OPTIMIZER = re.compile(
    r"optim|adam|sgd_?step|grad(ient)?s?[._]?(norm|clip)|clip_grad", re.IGNORECASE
)
"""Names of work on the shards: the optimizer's, and the norm of the gradients."""
_SHARDS = (COLLECTIVES.index("all_gather"), COLLECTIVES.index("gather"))


Change = tuple[int, int]
"""An old number and the new one."""


def retarget(
    graph: Graph,
    *,
    ranks: int | None = None,
    data: str | Sequence[str] | None = None,
    batch: Change | None = None,
    sequence: Change | None = None,
    dtype: tuple[str, str] | None = None,
) -> Graph:
    """The workload on another number of ranks, or with another batch, sequence or number format.

    Args:
        graph: stays as it is.
        ranks: how many; a multiple of the graph's, or a part of it that whole replicas make up.
        data: names of the data parallel groups, with wildcards; by default those whose collectives are named after
            gradients, else the only kind of group there is.
        batch, sequence: (old, new) sequences that a rank has at once, and tokens of each; where one changes the other
            has to be given too, (2048, 2048) for one that stays. See `rescale` for what follows from them.
        dtype: (old, new) format of the numbers, of `vocabulary.DTYPES`.

    Returns:
        A graph whose `warnings` say what was assumed.

    Raises:
        InputError: the ranks cannot be reached by whole replicas, which groups are data parallel is not clear, or work
            cannot be rescaled.

    Example:
        `retarget(pm.load("traces/dp4"), ranks=8)`; back with `ranks=4`.
    """
    if batch or sequence or dtype:
        growing, _ = data_groups(graph, data)
        graph = rescale(
            graph, growing, steps_parameters, batch=batch, sequence=sequence, dtype=dtype
        )
    elif ranks is None:
        raise InputError("retarget: nothing to change; give ranks, batch, sequence or dtype")
    if ranks is None:
        return graph
    if isinstance(ranks, bool) or not isinstance(ranks, int | np.integer) or ranks < 1:
        raise InputError(f"retarget: ranks: got {ranks!r}, expected a whole number from 1 on")
    growing, how = data_groups(graph, data)
    assumed = []
    if ranks > graph.ranks:
        if ranks % graph.ranks:
            raise InputError(
                f"{graph.source}: retarget: {ranks} ranks are no multiple of {graph.ranks}"
            )
        result = _grown(graph, ranks // graph.ranks, growing)
    elif ranks < graph.ranks:
        result = _shrunk(graph, int(ranks), growing)
    else:
        return graph
    if growing:
        names = ", ".join(sorted({graph.group_names[g] or "all ranks" for g in growing})[:5])
        assumed.append(f"data parallel groups {how}: {names}")
    else:
        assumed.append("there is no data parallel group: the replicas do not depend on each other")
    assumed.append("the batch per rank stays, so the global batch changes with the number of ranks")
    if _sharded(graph, growing):
        assumed.append(
            "parameters are sharded over them: all-gathers and the optimizer's work change with their size"
        )
    assumed += forgotten(graph)
    text = f"warning: made from {graph.ranks} ranks for {ranks} by retarget: " + "; ".join(assumed)
    kept = tuple(w for w in graph.warnings if "by retarget:" not in w)
    return replace(
        result,
        warnings=(*kept, text),
        source=f"{graph.source} on {ranks} ranks",
        origin=None,
        step=None,
        tensors=None,
    )


def data_groups(graph: Graph, data: str | Sequence[str] | None = None) -> tuple[set[int], str]:
    """Numbers of the data parallel groups, and how they were found (see `retarget`)."""
    used = {int(g) for p in graph.programs for g in np.unique(p.groups)}
    if data is not None:
        patterns = [data] if isinstance(data, str) else list(data)
        found = {
            g for g in used if any(fnmatchcase(_name(graph, g), pattern) for pattern in patterns)
        }
        unused = [x for x in patterns if not any(fnmatchcase(_name(graph, g), x) for g in used)]
        if unused:
            known = ", ".join(sorted(_name(graph, g) for g in used)[:8])
            raise InputError(
                f"{graph.source}: retarget: data: no group is named {unused[0]!r}; groups are {known}"
            )
        return found, "as told"
    alike = {g for g in used if _one_program(graph, g)}
    every = {g for g in used if len(graph.groups[g]) == graph.ranks}  # they span all replicas
    for found, how in (
        ({g for g in alike if _of_data(graph, g)}, "by their names or streams"),
        ({g for g in alike if _about_gradients(graph, g)}, "by the names of their collectives"),
    ):
        if found:
            return found | every, how
    kinds = {_shape(graph, g) for g in used}
    if not used or (len(kinds) == 1 and alike == used):
        return used, "as the only kind there is"
    names = ", ".join(sorted(_name(graph, g) for g in used)[:8])
    raise InputError(
        f"{graph.source}: retarget: it is not clear which groups are data parallel (of {names});"
        ' name them with data=["NAME", ...] (--data NAME)'
    )


def _name(graph: Graph, group: int) -> str:
    return graph.group_names[group] or "world"


def _one_program(graph: Graph, group: int) -> bool:
    return len({int(graph.program[r]) for r in graph.groups[group]}) == 1


def _shape(graph: Graph, group: int) -> tuple[int, ...]:
    """Size and distances of a group's ranks: equal for the groups of one kind."""
    members = np.sort(graph.groups[group])
    return (len(members), *np.diff(members).tolist())


def _calls(graph: Graph, group: int) -> tuple[Program, tuple[str, ...], NDArray[np.intp]]:
    """The program of the group's first member, its names, and the positions of its collectives in the group."""
    rank = graph.groups[group][0]
    program, row = graph.programs[graph.program[rank]], graph.row[rank]
    slots = np.flatnonzero(program.groups[row] == group)
    names = graph.labels[graph.label[rank]].names
    return program, names, np.flatnonzero(np.isin(program.slot, slots))


def _of_data(graph: Graph, group: int) -> bool:
    """Whether the group's name, or the stream of its collectives, says data parallel."""
    program, _, calls = _calls(graph, group)
    streams = {program.resources[k] for k in program.resource[calls].tolist() if k >= 0}
    return any(_DATA.search(text) for text in (graph.group_names[group], *streams))


def _about_gradients(graph: Graph, group: int) -> bool:
    """Whether its collectives are named after gradients, and none sums activations in the forward pass."""
    program, names, calls = _calls(graph, group)
    sums = ~np.isin(program.comm_type[calls], _SHARDS)
    if any(_FORWARD.search(names[k]) for k in calls[sums].tolist()):
        return False
    return any(_GRADIENTS.search(names[k]) for k in calls.tolist())


def _sharded(graph: Graph, growing: set[int]) -> bool:
    return any(_shards(p, _slots(graph, p, growing)).any() for p in graph.programs)


def _shards(program: Program, slots: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """[n] the all-gathers of data parallel groups."""
    in_group = np.append(slots, False)[program.slot]
    return in_group & np.isin(program.comm_type, _SHARDS)


def _slots(graph: Graph, program: Program, growing: set[int]) -> NDArray[np.bool_]:
    """[slots] whether a slot's groups are data parallel: on all of the program's ranks or on none."""
    inside = np.isin(program.groups, sorted(growing))
    mixed = np.flatnonzero(inside.any(0) != inside.all(0))
    if mixed.size:
        groups = [_name(graph, int(g)) for g in np.unique(program.groups[:, mixed[0]])[:4]]
        raise InputError(
            f"{graph.source}: retarget: equal ranks use groups {groups} for the same collectives, and some of them"
            " are data parallel; name all of them or none with data=[...]"
        )
    return np.asarray(inside.all(0), bool)


def _rescaled(graph: Graph, program: Program, growing: set[int], up: int, down: int) -> Program:
    """The program with data parallel groups of up / down times as many ranks."""
    shards = _shards(program, _slots(graph, program, growing))
    if not shards.any():
        return program
    rank = int(program.ranks[0])
    names = graph.labels[graph.label[rank]].names
    optimizer = steps_parameters(program, names)

    def less(values: NDArray[Any], where: NDArray[Any]) -> NDArray[Any]:
        """Divided by the factor, rounded up; -1 stays."""
        return np.where(where & (values > 0), -(-values * down // up), values)

    duration = np.where(optimizer, program.duration * (down / up), program.duration)
    return replace(
        program,
        size=less(program.size, shards),
        flops=less(program.flops, optimizer),
        bytes=less(program.bytes, optimizer),
        duration=duration,
    )


def steps_parameters(program: Program, names: Sequence[str]) -> NDArray[np.bool_]:
    """[n] compute nodes of the optimizer, by kind or name."""
    named = np.array([_OPTIMIZER.search(name) is not None for name in names], bool)
    comp = program.type == NodeType.COMP
    stepping: NDArray[np.bool_] = comp & (named | (program.kind == OPERATIONS.index("optimizer")))
    return stepping


def _grown(graph: Graph, factor: int, growing: set[int]) -> Graph:
    """`factor` copies of all ranks, one behind the other, joined in the growing groups."""
    n, many = graph.ranks, len(graph.groups)
    shift = np.arange(factor) * n
    number = np.zeros((factor, many), np.int32)  # group of each old one in each copy
    groups: list[tuple[int, ...]] = [tuple(range(n * factor))]
    names, by_name = [graph.group_names[0]], [bool(graph.by_name[0])]
    used = {int(g) for p in graph.programs for g in np.unique(p.groups)}
    for g in sorted(used):
        members = np.array(graph.groups[g])
        copies = [members + s for s in shift]
        if g in growing:
            if g == 0:
                continue  # all ranks, before and after; others of all ranks are communicators of their own
            copies = [np.concatenate(copies)]
        for j, ranks in enumerate(copies):
            number[j if g not in growing else slice(None), g] = len(groups)
            groups.append(tuple(int(r) for r in ranks))
            names.append(f"{_name(graph, g)}" + (f".{j}" if g not in growing and j else ""))
            by_name.append(bool(graph.by_name[g]))
    programs = []
    for p in graph.programs:
        p2 = _rescaled(graph, p, growing, factor, 1)
        programs.append(
            replace(
                p2,
                ranks=np.concatenate([p.ranks + s for s in shift]).astype(np.int32),
                groups=np.concatenate([number[j][p.groups] for j in range(factor)]).astype(
                    np.int32
                ),
                peer=np.concatenate([p.peer + s for s in shift]).astype(np.int32),
                partner=np.tile(p.partner, (factor, 1)),
            )
        )
    return _numbered(graph, programs, groups, names, by_name, np.tile(graph.label, factor))


def _shrunk(graph: Graph, ranks: int, growing: set[int]) -> Graph:
    """The first replicas, `ranks` ranks in all."""
    replica = _replicas(graph, growing)
    sizes = np.bincount(replica)
    whole = np.cumsum(sizes)
    if ranks not in whole:
        near = ", ".join(map(str, whole[:6]))
        raise InputError(
            f"{graph.source}: retarget: {ranks} ranks are no whole number of replicas of the model; possible are"
            f" {near}{', ...' if len(whole) > 6 else ''}"
        )
    keep = np.flatnonzero(replica <= int(np.searchsorted(whole, ranks)))
    place = np.full(graph.ranks, -1, np.int64)
    place[keep] = np.arange(len(keep))
    groups: list[tuple[int, ...]] = [tuple(range(ranks))]
    names, by_name = [graph.group_names[0]], [bool(graph.by_name[0])]
    number = np.zeros(len(graph.groups), np.int32)
    ratios = set()
    for g in sorted({int(g) for p in graph.programs for g in np.unique(p.groups)}):
        members = place[np.array(graph.groups[g])]
        left = members[members >= 0]
        if not len(left):
            continue
        if g in growing:
            ratios.add((len(left) / len(members), len(left), len(members)))
            if g == 0:
                continue
        number[g] = len(groups)
        groups.append(tuple(int(r) for r in left))
        names.append(graph.group_names[g] or "world")
        by_name.append(bool(graph.by_name[g]))
    if len({ratio for ratio, _, _ in ratios}) > 1:
        raise InputError(
            f"{graph.source}: retarget: on {ranks} ranks some data parallel groups would keep another part of their"
            " ranks than others; choose a number of ranks that keeps the same part of each"
        )
    _, up, down = next(iter(ratios), (1.0, 1, 1))
    programs = []
    label = graph.label[keep]
    for p in graph.programs:
        rows = np.flatnonzero(place[p.ranks] >= 0)
        if not len(rows):
            continue
        p2 = _rescaled(graph, p, growing, up, down)
        programs.append(
            replace(
                p2,
                ranks=place[p.ranks[rows]].astype(np.int32),
                groups=number[p.groups[rows]].astype(np.int32),
                peer=place[p.peer[rows]].astype(np.int32),
                partner=p.partner[rows],
            )
        )
    return _numbered(graph, programs, groups, names, by_name, label)


def _replicas(graph: Graph, growing: set[int]) -> NDArray[np.int64]:
    """[R] which replica of the model each rank belongs to, numbered by its first rank."""
    pairs: list[tuple[int, int]] = []
    for p in graph.programs:
        for row, rank in enumerate(p.ranks.tolist()):
            pairs += [(rank, int(peer)) for peer in np.unique(p.peer[row])]
    for g in {int(g) for p in graph.programs for g in np.unique(p.groups)} - growing:
        head, *others = graph.groups[g]
        pairs += [(head, other) for other in others]
    ends = np.array(pairs, np.int64).reshape(-1, 2)
    matrix = coo_array((np.ones(len(ends)), (ends[:, 0], ends[:, 1])), shape=(graph.ranks,) * 2)
    _, part = csgraph.connected_components(matrix, directed=False)
    found, first = np.unique(part, return_index=True)
    order = np.empty(len(found), np.int64)
    order[np.argsort(first)] = np.arange(len(found))
    component: NDArray[np.int64] = order[part]
    return component


def _numbered(
    graph: Graph,
    programs: Sequence[Program],
    groups: Sequence[tuple[int, ...]],
    names: Sequence[str],
    by_name: Sequence[bool],
    label: NDArray[Any],
) -> Graph:
    """The graph with its tables of programs and rows made anew."""
    ranks = sum(len(p.ranks) for p in programs)
    program, row = np.zeros(ranks, np.int32), np.zeros(ranks, np.int32)
    for k, p in enumerate(programs):
        program[p.ranks] = k
        row[p.ranks] = np.arange(len(p.ranks))
    used, numbers = np.unique(label, return_inverse=True)
    return replace(
        graph,
        programs=tuple(programs),
        program=program,
        row=row,
        groups=tuple(groups),
        group_names=tuple(names),
        by_name=np.array(by_name, bool),
        labels=tuple(graph.labels[k] for k in used.tolist()),
        label=numbers.astype(np.int32),
    )
