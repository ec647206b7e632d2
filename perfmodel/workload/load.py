"""Trace files of all ranks in, one checked `Graph` out.

Every rank's nodes become a program in positions instead of ids; ranks with equal programs share one; sends and
receives pair up by (source, destination, tag, order of ids); collectives pair up by name where all members of a
group have the same names, else by order of issue, which the schedule decides. All problems are reported at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError, one_line
from perfmodel.findings import Findings
from perfmodel.trace.pytorch.files import is_pytorch
from perfmodel.workload.archive import is_saved, restore
from perfmodel.workload.graph import Graph
from perfmodel.workload.join import join
from perfmodel.workload.program import Origin
from perfmodel.workload.pytorch_reader import read_pytorch
from perfmodel.workload.readers import LoadOptions, Trace, reader_of
from perfmodel.workload.recorded import Recorded


def load(
    trace: Trace,
    *,
    groups: str | Path | Mapping[str, Sequence[int]] | None = None,
    group: Mapping[str, Sequence[int]] | None = None,
    unknown_group: str | None = None,
    dependencies: str | None = None,
    zero_duration: float | None = None,
    ranks: int | Sequence[int] | None = None,
    tensor: int | None = None,
    passes: int | None = None,
    tick: float | None = None,
    sizes: Mapping[str, float] | None = None,
    messages: str | None = None,
    recorded_on: str | None = None,
    step: int | str | None = None,
    offsets: str | None = None,
    strict: bool = False,
) -> Graph:
    """Load a trace of all ranks: Chakra in all its formats, PyTorch's traces, a text workload, a GOAL schedule.

    Args:
        trace: a prefix ("dir/t" for dir/t.0.et, dir/t.1.et, ...), a folder, a list of files, one file of all ranks, or
            a graph written by `save` (read anew from its files where they have changed, or where options are given that
            are not the saved ones; options that are not given are then the saved ones). Of PyTorch: Kineto's device
            traces with or without host execution traces, plain or packed, of one or all ranks, told apart by content;
            also as pairs (host trace, device trace).
        groups: the communicator group file, or its content; by default the one found beside the trace.
        group: further groups, {name: ranks}.
        unknown_group: "error" (by default), or "world" to let groups that nobody defines be all ranks.
        dependencies: which edges count: "both" (by default), "data" or "control".
        zero_duration: what a recorded duration of 0 whole microseconds means [s], 0.5e-6 by default.
        ranks, tensor, passes, tick: of a text workload: how many ranks run it, how many of them share a layer (the
            model parallel group), how many training steps (1), and the unit of its times (1e-9) [s].
        sizes: sizes of collectives and sends that record none, {name, with wildcards: bytes} [B].
        messages: sends and receives that name no peer are paired where only one pairing is possible ("pair", the
            default); "replay" lets those that remain take their recorded time.
        recorded_on: accelerator or system that the times were recorded on ("a100-sxm-80"); by default what PyTorch's
            traces say. On other hardware every recorded time is taken times model(there) / model(recorded device).
        step: of a PyTorch run: "last" (by default: the last whole ProfilerStep), "all", "file", or the number of one.
            `ranks` of such a run: only these, or the first so many; they are numbered anew from 0.
        offsets: of a PyTorch run, when the ranks start: "recorded" (by default), "none" (together), or "collectives"
            (clocks set so that collectives end together).
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
        "ranks": ranks,
        "tensor": tensor,
        "passes": passes,
        "tick": tick,
        "sizes": sizes or None,
        "messages": messages,
        "recorded_on": recorded_on,
        "step": step,
        "offsets": offsets,
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
    trace: Trace, *, lenient: frozenset[str] = frozenset(), **options: Any
) -> tuple[Graph, Findings]:
    """As `load`, but give back what was found instead of raising; where there are errors the graph is to look at only.

    Args:
        lenient: codes of errors that are taken as warnings, for callers who have their own rules.
        options: as for `load`, and `simulator` (see `LoadOptions`).
    """
    chosen = LoadOptions(**options)
    trace = _named(trace)
    first = trace if isinstance(trace, str | Path) else [*trace, ""][0]
    source = str(first if isinstance(first, str | Path) else first[0])
    source = one_line(source if isinstance(trace, str | Path) else f"{source} and others")
    findings = Findings(source, lenient)
    read = read_pytorch if is_pytorch(trace) else reader_of(trace)
    loaded = read(trace, chosen, findings)
    ranks = chosen.ranks if isinstance(chosen.ranks, int | None) else len(chosen.ranks)
    if ranks not in (None, len(loaded.columns)):
        findings.add(
            "error",
            "ranks",
            f"has {len(loaded.columns)} ranks, and {ranks} were asked for",
            remedy="A text workload runs on any number (--ranks); other traces are retargeted (perfmodel retarget)",
        )
    joined = join(loaded.columns, loaded.groups, findings, unknown_group=chosen.unknown_group)
    graph = Graph(**joined, source=source)
    origin = Origin(loaded.files, chosen.kept(), loaded.group_file)
    recorded = loaded.recorded
    if recorded is None and chosen.recorded_on:
        recorded = Recorded(device=chosen.recorded_on, ranks=tuple(range(graph.ranks)))
    return replace(graph, origin=origin, recorded=recorded, step=loaded.step), findings


def _named(trace: Any) -> Any:
    """What names a trace: a path, or a list of paths, or of pairs of paths."""
    if isinstance(trace, str | Path):
        return trace
    if isinstance(trace, Sequence | set | frozenset) and not isinstance(trace, bytes):
        listed = list(trace)
        if all(isinstance(path, str | Path) for path in listed):
            return listed
        if all(
            isinstance(p, tuple | list) and all(isinstance(f, str | Path) for f in p)
            for p in listed
        ):
            return [tuple(pair) for pair in listed]
    raise InputError(f"trace: got {trace!r:.60}, expected a prefix, a folder, or a list of files")
