"""When the parts of a model run: nodes of a rank collapsed to the components that their names tell.

A component at level d is a run of nodes, in order of start, whose names agree in their first d parts ("fwd.layer0.mlp"
has three); a component at level d + 1 lies inside one at level d. What overlaps the next component is cut at its start,
so that the components of a level lie one behind the other and viewers can nest them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.prediction import Prediction
from perfmodel.report.tables import component
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import check_ranks

DEEPEST = 16
"""More levels than this no name has and no viewer shows."""


def component_spans(
    prediction: Prediction, depth: int, ranks: Sequence[int] | None = None
) -> pd.DataFrame:
    """Where each component begins and ends, on every level down to `depth`.

    Args:
        prediction: from `predict`.
        depth: how many parts of a name at most make a component, 1 to 16.
        ranks: some ranks only.

    Returns:
        A row each: rank, level, component, start_s, finish_s, nodes, busy_s (the sum of its nodes' times, which may
        be longer than the span where they overlap).

    Raises:
        InputError: depth out of range, or no such rank.
    """
    if not 1 <= depth <= DEEPEST:
        raise InputError(f"depth: got {depth}, expected 1 to {DEEPEST} parts of a name")
    graph = prediction.graph
    rows: list[tuple[Any, ...]] = []
    for rank in check_ranks(graph, ranks):
        program = graph.programs[graph.program[rank]]
        names = graph.labels[graph.label[rank]].names
        tasks = prediction.compiled.tasks_of(rank)
        start, finish = prediction.task_start[tasks], prediction.task_finish[tasks]
        timed = ~np.isin(program.type, (NodeType.METADATA, NodeType.INVALID)) & (finish > start)
        order = np.flatnonzero(timed)
        order = order[np.lexsort((order, start[order]))]
        chosen = [names[k] for k in order.tolist()]
        for level, first, last, begin, end in spans(chosen, start[order], finish[order], depth):
            busy = float((finish[order[first:last]] - start[order[first:last]]).sum())
            rows.append(
                (rank, level, component(chosen[first], level), begin, end, last - first, busy)
            )
    columns = ["rank", "level", "component", "start_s", "finish_s", "nodes", "busy_s"]
    return pd.DataFrame(rows, columns=columns)


def spans(
    names: Sequence[str], start: NDArray[np.float64], finish: NDArray[np.float64], depth: int
) -> list[tuple[int, int, int, float, float]]:
    """(level, first, behind the last, begin, end) of each component of nodes in order of start.

    >>> spans(["a.x", "a.y", "b"], np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.5, 3.0]), 2)
    [(1, 0, 2, 0.0, 2.0), (2, 0, 1, 0.0, 1.0), (2, 1, 2, 1.0, 2.0), (1, 2, 3, 2.0, 3.0), (2, 2, 3, 2.0, 3.0)]
    """
    known = {
        name: [component(name, level) for level in range(1, depth + 1)]
        for name in dict.fromkeys(names)
    }
    found: list[tuple[int, int, int, float, float]] = []

    def cut(level: int, first: int, last: int, limit: float) -> None:
        at = first
        while at < last:
            word = known[names[at]][level - 1]
            end = at + 1
            while end < last and known[names[end]][level - 1] == word:
                end += 1
            bound = min(float(start[end]) if end < last else limit, limit)
            stop = min(float(finish[at:end].max()), bound)
            found.append((level, at, end, float(start[at]), stop))
            if level < depth:
                cut(level + 1, at, end, stop)
            at = end

    cut(1, 0, len(names), float("inf"))
    return found
