"""A recording replayed on the device that it was recorded on: measured against replayed, rank by rank.

Host gaps, kernel durations, the ranks' start offsets and one pure cost per collective are what is recorded; that the
rest comes out again, above all the waiting, shows that nothing that waits was missed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.compiled import compile
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.models.cost import Models
from perfmodel.prediction import Prediction, evaluate
from perfmodel.report.path_and_ranks import path_breakdown
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph

COLUMNS = (
    "rank",
    "span_s",
    "replayed_s",
    "start_error_s",
    "communication_wait_s",
    "replayed_wait_s",
)

LAUNCH_BOUND = 0.5
"""A step is launch-bound where the host takes more than this share of its critical path."""


def replay(graph: Graph) -> pd.DataFrame:
    """How well a recording is understood: what was measured, and what comes out when only the waiting is predicted.

    Args:
        graph: from `load` of PyTorch's traces.

    Returns:
        One row per rank: rank (its number in the run), span_s (measured, from the rank's start to its last end),
        replayed_s (the same, replayed), start_error_s (mean distance of measured and replayed starts of GPU work; of
        the host's where there is none), communication_wait_s (measured time in collectives less their pure cost),
        replayed_wait_s.

        `attrs` of the table: step, operators_linked, time_attributed, collectives_matched (shares), time_by_source
        ({where a kernel's work is known from: share of the GPU's time}), critical_path ({category: s}) of the replay,
        launch_bound (the host takes more than half of the critical path).

    Raises:
        InputError: the graph is no recording.

    Example:
        >>> import perfmodel as pm
        >>> pm.replay(pm.load("traces/gpt_dp2_tp2_pp2"))
        Traceback (most recent call last):
        perfmodel.errors.InputError: traces/gpt_dp2_tp2_pp2: has no recorded start times to compare with; expected \
PyTorch's traces
    """
    recorded = graph.recorded
    whole = all(len(x.start) == len(x.names) and not np.isnan(x.start).any() for x in graph.labels)
    if recorded is None or not whole:
        raise InputError(
            f"{graph.source}: has no recorded start times to compare with; expected PyTorch's traces"
        )
    prediction = replayed(graph)
    rows = [_rank(prediction, r, recorded.ranks[r]) for r in range(graph.ranks)]
    table = pd.DataFrame(rows, columns=list(COLUMNS))
    seconds = path_breakdown(prediction)
    table.attrs.update(
        step=recorded.step,
        operators_linked=min(recorded.operators_linked, default=1.0),
        time_attributed=min(recorded.time_attributed, default=1.0),
        collectives_matched=recorded.collectives_matched,
        time_by_source=dict(recorded.time_by_source),
        critical_path=seconds,
        launch_bound=_has_gpu(graph)
        and seconds.get("host", 0.0) > LAUNCH_BOUND * prediction.makespan,
    )
    return table


def replayed(graph: Graph) -> Prediction:
    """A recording with its recorded durations, on a system whose rates then do not matter."""
    system = System(
        NPU(1e12, 1e12), (Dimension(1e9, 1e-6, "switch", graph.ranks),), name="recorded"
    )
    return evaluate(compile(graph, system, Models(prefer="recorded"), merge_ranks=False))


def _has_gpu(graph: Graph) -> bool:
    """Whether anything but the host computes."""
    return any(((p.type == NodeType.COMP) & ~p.cpu).any() for p in graph.programs)


def _rank(prediction: Prediction, rank: int, number: int) -> dict[str, float]:
    graph = prediction.graph
    program = graph.programs[graph.program[rank]]
    labels = graph.labels[graph.label[rank]]
    here = prediction.compiled.tasks_of(rank)
    start, finish = prediction.task_start[here], prediction.task_finish[here]
    length = np.nan_to_num(program.duration)
    begun = labels.start
    over = begun + length
    first = _first(program.cpu, begun, over)
    compared = ~program.cpu if (~program.cpu).any() else np.ones(len(program), bool)
    collective = program.type == NodeType.COMM_COLL
    pure = float(_pure(prediction, here)[collective].sum())
    return {
        "rank": number,
        "span_s": float(over.max() - first),
        "replayed_s": float(finish.max() - first),
        "start_error_s": float(np.abs(start - begun)[compared].mean()),
        "communication_wait_s": float(length[collective].sum()) - pure,
        "replayed_wait_s": float((finish - start)[collective].sum()) - pure,
    }


def _first(cpu: NDArray[np.bool_], begun: NDArray[Any], over: NDArray[Any]) -> float:
    """When the rank starts: the end of its first node, which holds the time that it starts after the others."""
    earliest = np.flatnonzero(cpu)[np.argmin(begun[cpu])] if cpu.any() else int(np.argmin(begun))
    return float(over[earliest] if cpu.any() else begun[earliest])


def _pure(prediction: Prediction, here: slice) -> NDArray[np.float64]:
    """[n] what each node's own cost is [s]; of a collective, that of the whole once all have come."""
    events = prediction.compiled.events
    row = events.cost[events.last[here]]
    return np.where(row >= 0, prediction.cost[np.maximum(row, 0)], 0.0)
