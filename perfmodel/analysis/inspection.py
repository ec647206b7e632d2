"""What is in a trace, and everything wrong with it."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.findings import Finding, Findings, texts
from perfmodel.vocabulary import COLLECTIVES, TYPE_NAMES, NodeType
from perfmodel.workload.archive import is_saved
from perfmodel.workload.graph import Graph
from perfmodel.workload.load import examine, load
from perfmodel.workload.readers import SUB_MICROSECOND

CONTRADICTION = 0.02
"""A step time that differs by this part from what recorded start times say is contradicted by them."""
ANEW = "Write the trace anew without it: perfmodel convert TRACE TARGET"


@dataclass(frozen=True)
class Inspection:
    """Contents and findings; `good` where nothing stops a prediction."""

    source: str
    graph: Graph | None
    findings: tuple[Finding, ...]
    good: bool

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        found = [
            {
                "level": p.level,
                "code": p.code,
                "rank": p.rank,
                "nodes": list(p.nodes),
                "message": p.message,
                "remedy": p.remedy,
            }
            for p in self.findings
        ]
        return {
            "source": self.source,
            "good": self.good,
            **(contents(self.graph) if self.graph else {}),
            "findings": found,
        }

    def text(self) -> str:
        """For people."""
        lines = [self.source]
        if self.graph:
            facts = contents(self.graph)
            lines.append(f"  ranks              {facts['ranks']}")
            lines.append(f"  nodes              {facts['nodes']:,}")
            lines.append(f"  distinct programs  {facts['programs']}")
            for word in ("types", "collectives", "groups", "resources"):
                for key, value in facts[word].items():
                    lines.append(f"  {word:<18} {key}: {value}")
            for key in ("flops", "compute_bytes_B", "communication_B", "recorded_s"):
                lines.append(f"  {key:<18} {facts[key]:.6g}")
        found = f"{len(self.findings)} finding{'s' * (len(self.findings) != 1)}"
        lines.append(found if self.findings else "nothing wrong with it")
        lines += [f"  {text}" for text in texts(self.findings)]
        return "\n".join(lines)


def inspect_trace(
    trace: Any, *, strict: bool = False, astra_sim: bool = False, **options: Any
) -> Inspection:
    """Read, join and check a trace without predicting anything.

    Beyond `load`'s checks, the schedule is tried with every operation taking equal time, so that ranks that wait
    for each other are found too.

    Args:
        trace, options: as for `load`; of a saved graph what was found when it was read are its warnings.
        strict: warnings count as errors.
        astra_sim: also what ASTRA-sim would stop at or pass over in silence.
    """
    if is_saved(trace):
        graph, problems = load(trace, **options), Findings(str(trace))
        for text in graph.warnings:
            problems.add("warning", "saved", text)
    else:
        graph, problems = examine(trace, **options)
    findings = list(problems.found)
    if not problems.errors():
        stuck = _deadlock(graph)
        findings += stuck
        if not any(p.level == "error" for p in stuck):
            findings += _contradicted(graph)
        if astra_sim:
            findings += [
                replace(
                    p,
                    level="error",
                    message=f"in ASTRA-sim: {p.message}; it stops at load",
                    remedy=ANEW,
                )
                for p in problems.found
                if p.code == "missing-dependency"
            ]
            from perfmodel.astra.findings import findings as of_astra

            findings += of_astra(graph)
    bad = any(strict or p.level == "error" for p in findings)
    return Inspection(problems.source, graph, tuple(findings), not bad)


def _deadlock(graph: Graph) -> list[Finding]:
    """The schedule of equal durations on a flat network, for its deadlocks and for collectives that do not fit."""
    from perfmodel.machine.system import NPU, Dimension, System
    from perfmodel.schedule.list_schedule import different_calls, list_schedule
    from perfmodel.schedule.tasks import build

    flat = System(NPU(1.0, 1.0), (Dimension(1.0, 1.0, "switch", graph.ranks),), name="flat")
    try:
        tasks = build(graph, flat)
        schedule = list_schedule(graph, tasks, np.ones(len(tasks.work)))
    except InputError as error:
        text = str(error).removeprefix(f"{graph.source}: ")
        return [Finding("error", "deadlock", None, (), text)]
    text = different_calls(graph, tasks, schedule).removeprefix(f"{graph.source}: ")
    return [Finding("warning", "different-calls", None, (), text)] if text else []


def _contradicted(graph: Graph) -> list[Finding]:
    """Whether recorded start times tell another step time than recorded durations and dependencies make."""
    recorded = [
        (labels.start, graph.programs[graph.program[rank]].duration)
        for rank, labels in enumerate(graph.labels[k] for k in graph.label)
        if len(labels.start) and np.isfinite(labels.start).any()
    ]
    if len(recorded) < graph.ranks:
        return []
    for p in graph.programs:
        quiet = np.isin(p.type, (NodeType.METADATA, NodeType.INVALID, NodeType.COMM_RECV))
        if (np.isnan(p.duration) & ~quiet).any():
            return []  # not all of the step is recorded
    from perfmodel.machine.system import NPU, Dimension, System
    from perfmodel.models.cost import Models
    from perfmodel.prediction import predict

    first = min(float(np.nanmin(start)) for start, _ in recorded)
    last = max(float(np.nanmax(start + np.nan_to_num(duration))) for start, duration in recorded)
    flat = System(NPU(1.0, 1.0), (Dimension(1.0, 1.0, "switch", graph.ranks),), name="flat")
    made = predict(graph, flat, Models(prefer="recorded")).makespan
    if abs(made - (last - first)) <= CONTRADICTION * (last - first) + SUB_MICROSECOND * len(graph):
        return []
    text = (
        f"recorded start times say that the step takes {last - first:.6g} s; recorded durations and dependencies make"
        f" {made:.6g} s of it ({made / (last - first) - 1:+.1%})"
    )
    remedy = (
        "Dependencies are missing or too many; give the PyTorch files that the trace was made from"
    )
    return [Finding("warning", "start-times", None, (), text, remedy)]


def contents(graph: Graph) -> dict[str, Any]:
    """Counts and totals over all ranks; a message counts once, where it is sent."""
    types: dict[str, int] = {}
    collectives: dict[str, int] = {}
    groups: dict[str, int] = {}
    resources: dict[str, int] = {}
    totals = dict.fromkeys(("flops", "compute_bytes_B", "communication_B", "recorded_s"), 0.0)
    for p in graph.programs:
        times = len(p.ranks)
        for value, count in zip(*np.unique(p.type, return_counts=True)):
            name = TYPE_NAMES.get(int(value), str(value))
            types[name] = types.get(name, 0) + int(count) * times
        for value, count in zip(*np.unique(p.comm_type[p.slot >= 0], return_counts=True)):
            known = 0 <= value < len(COLLECTIVES)
            name = COLLECTIVES[value] if known else "of no known type"
            collectives[name] = collectives.get(name, 0) + int(count) * times
        for word in p.resources:
            resources[word] = resources.get(word, 0) + times
        totals["flops"] += _sum(p.flops) * times
        totals["compute_bytes_B"] += _sum(p.bytes[p.type == NodeType.COMP]) * times
        totals["communication_B"] += _sum(p.size[p.type != NodeType.COMM_RECV]) * times
        totals["recorded_s"] += float(np.nansum(p.duration)) * times
    used = np.unique(np.concatenate([p.groups.ravel() for p in graph.programs]))
    for g in used:
        size = len(graph.groups[g])
        key = f"of {size} rank{'s' * (size != 1)}"
        groups[key] = groups.get(key, 0) + 1
    return {
        "ranks": graph.ranks,
        "nodes": len(graph),
        "programs": len(graph.programs),
        "types": types,
        "collectives": collectives,
        "groups": groups,
        "resources": {k: f"{v} (over all ranks)" for k, v in resources.items()},
        **totals,
    }


def _sum(values: NDArray[np.int64]) -> float:
    """The sum of those present (-1 marks absent ones), in floats: integers would overflow."""
    return float(np.maximum(values, 0).sum(dtype=float))
