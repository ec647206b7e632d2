"""Memory of every rank by part, and of one rank over the step."""

from __future__ import annotations

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.prediction import Prediction
from perfmodel.workload.graph import Graph
from perfmodel.workload.training_step import ACTIVATIONS, PARTS, TrainingStep


def memory(prediction: Prediction, rank: int | None = None) -> pd.DataFrame:
    """What ranks hold in memory: at the peak of each, or of one rank over the step.

    Args:
        prediction: of a graph that knows what its ranks hold (`synth.training`).
        rank: one rank's memory over time.

    Returns:
        rank, weights_B, gradients_B, optimizer_B, activations_B, kv_cache_B, buffers_B, total_B; with a rank one row
        for every change of it, with the time since the beginning of the step instead of the rank, time_s.

    Raises:
        InputError: the graph does not know; no such rank.

    Example:
        >>> import perfmodel as pm
        >>> work = pm.synth.training("llama-3-8b", tensor=8)
        >>> p = pm.predict(work.graph(), pm.hardware("dgx-h100"))
        >>> bool(memory(p).total_B.max() > 16e9)
        True
    """
    step = known(prediction.graph)
    names = [f"{part}_B" for part in PARTS]
    if rank is None:
        parts = step.memory[step.kind]
        table = pd.DataFrame(parts, columns=names)
        table.insert(0, "rank", np.arange(len(parts)))
        table["total_B"] = parts.sum(axis=1)
        return table
    if not 0 <= rank < len(step.kind):
        raise InputError(f"rank: got {rank}, expected 0 to {len(step.kind) - 1}.")
    mine = step.change_kind == step.kind[rank]
    node, change = step.change_node[mine], step.change[mine]
    tasks = prediction.compiled.tasks_of(rank)
    start, finish = prediction.task_start[tasks], prediction.task_finish[tasks]
    time = np.where(change > 0, start[node], finish[node])
    order = np.lexsort((change, time))  # at one moment what is given back comes first
    time, held = time[order], np.cumsum(change[order])
    parts = np.repeat(step.memory[step.kind[rank]][None], len(time) + 1, axis=0)
    parts[:, ACTIVATIONS] = np.concatenate([[0.0], held])
    table = pd.DataFrame(parts, columns=names)
    table.insert(0, "time_s", np.concatenate([[0.0], time]))
    table["total_B"] = parts.sum(axis=1)
    return table


def known(graph: Graph) -> TrainingStep:
    """What the graph does for a model.

    Raises:
        InputError: it does not know.
    """
    if graph.step is None:
        raise InputError(
            f"{graph.source}: does not say which model it trains, so that its tokens, FLOP and memory are not known."
            " Make the graph with synth.training(...).graph(), or load one that was saved from there (pm.save)."
        )
    return graph.step
