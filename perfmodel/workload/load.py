"""Trace files of all ranks in, one checked `Graph` out.

Every rank's nodes become a program in positions instead of ids; ranks with equal programs share one; sends and
receives pair up by (source, destination, tag, order of ids); collectives pair up by name where all members of a
group have the same names, else by order of issue, which the schedule decides. All problems are reported at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from operator import index
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.errors import InputError, one_line, quoted
from perfmodel.findings import Findings
from perfmodel.trace import chakra
from perfmodel.workload.archive import is_saved, restore
from perfmodel.workload.chakra_columns import DEPENDENCIES, chakra_columns
from perfmodel.workload.graph import Graph
from perfmodel.workload.join import join
from perfmodel.workload.program import Origin

SUB_MICROSECOND = 0.5e-6
"""What a recorded duration of 0 whole microseconds stands for [s]."""


def load(
    trace: str | Path | Sequence[str | Path],
    *,
    groups: str | Path | Mapping[str, Sequence[int]] | None = None,
    group: Mapping[str, Sequence[int]] | None = None,
    unknown_group: str | None = None,
    dependencies: str | None = None,
    zero_duration: float | None = None,
    strict: bool = False,
) -> Graph:
    """Load a Chakra trace of all ranks.

    Args:
        trace: a prefix ("dir/t" for dir/t.0.et, dir/t.1.et, ...), a folder, a list of files, or a graph written by
            `save` (read anew from its files where they have changed, or where options are given that are not the
            saved ones; options that are not given are then the saved ones).
        groups: the communicator group file, or its content; by default the one found beside the trace.
        group: further groups, {name: ranks}.
        unknown_group: "error" (by default), or "world" to let groups that nobody defines be all ranks.
        dependencies: which edges count: "both" (by default), "data" or "control".
        zero_duration: what a recorded duration of 0 whole microseconds means [s], `SUB_MICROSECOND` by default.
        strict: warnings are errors.

    Returns:
        The checked graph.

    Raises:
        TraceError: anything wrong with the trace, all of it in one message.
        InputError: an option with an unknown value.

    Example:
        >>> import perfmodel as pm
        >>> pm.load("traces/all_reduce_4")
        Graph('traces/all_reduce_4': 4 ranks, 4 nodes, 1 distinct programs, 1 groups)
    """
    given: dict[str, Any] = {
        "groups": groups,
        "group": group or None,
        "unknown_group": unknown_group,
        "dependencies": dependencies,
        "zero_duration": zero_duration,
    }
    options = {name: value for name, value in given.items() if value is not None}
    if is_saved(trace):
        return restore(
            Path(str(trace)),
            lambda files, kept: load(files, **kept, strict=strict),
            options,
            strict=strict,
        )
    graph, problems = examine(trace, **options)
    problems.check(strict=strict)
    return graph


def examine(
    trace: str | Path | Sequence[str | Path],
    *,
    groups: str | Path | Mapping[str, Sequence[int]] | None = None,
    group: Mapping[str, Sequence[int]] | None = None,
    unknown_group: str = "error",
    dependencies: str = "both",
    zero_duration: float = SUB_MICROSECOND,
    lenient: frozenset[str] = frozenset(),
) -> tuple[Graph, Findings]:
    """As `load`, but give back what was found instead of raising; where there are errors the graph is to look at only.

    Errors whose code is in `lenient` are taken as warnings, for callers who have their own rules.
    """
    if dependencies not in DEPENDENCIES:
        raise InputError(f"dependencies: got {dependencies!r}, expected one of {DEPENDENCIES}")
    if unknown_group not in ("error", "world"):
        raise InputError(f'unknown_group: got {unknown_group!r}, expected "error" or "world"')
    if not (isinstance(zero_duration, Real) and 0 < zero_duration < np.inf):
        raise InputError(f"zero_duration: got {zero_duration!r}, expected a positive time [s]")
    trace = _named(trace)
    files, beside = chakra.find(trace)
    others = chakra.siblings(files)
    source = one_line(str(trace) if isinstance(trace, str | Path) else f"{trace[0]} and others")
    traces, origins = _read(files)
    options: dict[str, Any] = {}
    group_file = None
    if isinstance(groups, Mapping):
        named = options["groups"] = _members("groups", groups)
    else:
        chosen = groups if groups is not None else beside
        named = chakra.read_groups(chosen) if chosen is not None else {}
        if chosen is not None:
            group_file = (str(Path(chosen).resolve()), chakra.hash_of(chosen))
            if groups is not None:
                options["groups"] = group_file[0]
    if group:
        options["group"] = _members("group", group)
        named = named | options["group"]
    problems = Findings(source, lenient)
    if others:
        problems.add(
            "error",
            "missing-rank",
            f"{files[0][1]} is one of several ranks; {others[0].name}"
            + (f" and {len(others) - 1} more files are" if len(others) > 1 else " is")
            + " left out",
            remedy=f"Give the prefix {str(others[0]).rsplit('.', 2)[0]}, or a copy of the file in a folder of its own",
        )
    recorded = any((t.duration_us > 0).any() for t in traces)
    columns = [
        chakra_columns(
            r,
            t,
            problems,
            ranks=len(traces),
            dependencies=dependencies,
            recorded=recorded,
            zero_duration=zero_duration,
        )
        for r, t in enumerate(traces)
    ]
    joined = join(columns, named, problems, unknown_group=unknown_group)
    graph = Graph(**joined, source=source)
    options |= {
        "unknown_group": unknown_group,
        "dependencies": dependencies,
        "zero_duration": zero_duration,
    }
    return replace(graph, origin=Origin(origins, options, group_file)), problems


def _named(trace: Any) -> Any:
    """What names a trace: a path, or a list of paths."""
    if isinstance(trace, str | Path):
        return trace
    if isinstance(trace, Sequence | set | frozenset) and not isinstance(trace, bytes):
        listed = list(trace)
        if all(isinstance(path, str | Path) for path in listed):
            return listed
    raise InputError(f"trace: got {trace!r:.60}, expected a prefix, a folder, or a list of files")


def _members(name: str, groups: Mapping[Any, Any]) -> dict[str, tuple[int, ...]]:
    """Groups by name, checked to be lists of distinct ranks."""
    found: dict[str, tuple[int, ...]] = {}
    for key, members in groups.items():
        try:
            ranks = tuple(index(rank) for rank in members)
        except TypeError:
            raise InputError(f"{name}: {quoted(key)} is {members!r:.60}, expected ranks") from None
        if not ranks or len(set(ranks)) < len(ranks):
            raise InputError(f"{name}: {quoted(key)} has no rank, or one twice")
        found[str(key)] = ranks
    return found


def _read(files: Sequence[tuple[int, Path]]) -> tuple[list, tuple[tuple[str, str], ...]]:
    """Decode the files, byte-equal ones once; and their names and hashes."""
    seen: dict[str, object] = {}
    traces, origins = [], []
    for _, path in files:
        raw = chakra.content(path)
        key = hashlib.sha256(raw).hexdigest()
        if key not in seen:
            seen[key] = chakra.decode(raw, str(path))
        traces.append(seen[key])
        origins.append((str(Path(path).resolve()), key))
    return traces, tuple(origins)
