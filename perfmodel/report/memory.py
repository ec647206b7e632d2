"""Memory of every rank by part, and of one rank over the step.

Generators say what ranks hold (`synth.training`); of a trace it follows from the tensors that it names. There the parts
are two: what was there before the step, weights and all else that stays, and what came since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.compiled import Compiled
from perfmodel.errors import InputError
from perfmodel.prediction import Prediction, evaluate
from perfmodel.report.path_and_ranks import TableColumns
from perfmodel.workload.graph import Graph
from perfmodel.workload.tensor_memory import TensorMemory
from perfmodel.workload.training_step import ACTIVATIONS, PARTS, TrainingStep

if TYPE_CHECKING:
    import pandas as pd

WEIGHTS = PARTS.index("weights")


def memory(prediction: Prediction, rank: int | None = None) -> pd.DataFrame:
    """What ranks hold in memory: at the peak of each, or of one rank over the step.

    Args:
        prediction: of a graph that knows what its ranks hold: one of `synth.training`, or a trace that names tensors.
        rank: one rank's memory over time.

    Returns:
        rank, weights_B, gradients_B, optimizer_B, activations_B, kv_cache_B, buffers_B, total_B; with a rank one row
        for every change of it (and of a generated step one at its end), with the time since the beginning of the step
        instead of the rank, time_s.

        Of a trace weights_B is all that was there before the step (weights, and what there is of gradients and
        optimizer states), activations_B all that came since, and the other parts, which a trace does not tell apart,
        nan; so is everything on a rank whose trace names no tensors. What the figures come from and cannot see stands
        in `table.attrs["source"]`.

    Raises:
        InputError: the graph does not know; no such rank.

    Example:
        >>> import perfmodel as pm
        >>> work = pm.synth.training("llama-3-8b", tensor=8)
        >>> p = pm.predict(work.graph(), pm.hardware("dgx-h100"))
        >>> bool(memory(p).total_B.max() > 16e9)
        True
    """
    import pandas as pd

    columns, source = memory_parts(prediction, rank)
    table = pd.DataFrame(columns)
    if source:
        table.attrs["source"] = source
    return table


def memory_parts(prediction: Prediction, rank: int | None = None) -> tuple[TableColumns, str]:
    """The columns of `memory`, and what those of a trace come from and cannot see; made without pandas."""
    graph = prediction.graph
    if not knows_memory(graph):
        raise InputError(
            f"{graph.source}: nothing is known of its memory: it is no generator's (synth.training(...).graph()), and"
            " its trace names no tensors. Record host execution traces with Kineto's, or with profile_memory=True, or"
            " give nodes inputs and outputs"
        )
    if rank is not None and not 0 <= rank < graph.ranks:
        raise InputError(f"rank: got {rank}, expected 0 to {graph.ranks - 1}.")
    if graph.step is None and graph.tensors is not None:
        return _of_tensors(prediction, graph.tensors, rank)
    step = known(graph)
    if rank is None:
        parts = step.memory[step.kind]
        return _columns("rank", np.arange(len(parts)), parts), ""
    mine = step.change_kind == step.kind[rank]
    time, held = _curve(prediction, rank, step.change_node[mine], step.change[mine])
    if time[-1] < prediction.makespan:  # the optimizer comes after all activations are gone
        time, held = np.append(time, prediction.makespan), np.append(held, held[-1])
    parts = np.repeat(step.memory[step.kind[rank]][None], len(time), axis=0)
    parts[:, ACTIVATIONS] = held
    return _columns("time_s", time, parts), ""


def knows_memory(graph: Graph) -> bool:
    """Whether `memory` has an answer."""
    return graph.step is not None or graph.tensors is not None


def peak_memory(of: Prediction | Compiled) -> float | None:
    """Bytes of the rank that holds most [B]; None where nothing is known.

    Of tensors that is a matter of when nodes run: of a compiled graph at its own design.
    """
    if of.graph.step is not None:
        return of.graph.step.peak
    if of.graph.tensors is None:
        return None
    prediction = evaluate(of) if isinstance(of, Compiled) else of
    columns, _ = _of_tensors(prediction, of.graph.tensors, None)
    return float(np.nanmax(columns["total_B"]))


def known(graph: Graph) -> TrainingStep:
    """What the graph does for a model.

    Raises:
        InputError: it does not know.
    """
    if graph.step is None:
        raise InputError(
            f"{graph.source}: does not say which model it trains, so that its tokens and FLOP are not known."
            " Make the graph with synth.training(...).graph(), or load files that were written from there."
        )
    return graph.step


def _of_tensors(
    prediction: Prediction, tensors: TensorMemory, rank: int | None
) -> tuple[TableColumns, str]:
    if rank is not None:
        kind = int(tensors.kind[rank])
        if kind < 0:
            raise InputError(
                f"{prediction.graph.source}: rank {rank}: its trace names no tensors. Ranks that do:"
                f" {np.flatnonzero(tensors.kind >= 0)[:8].tolist()}"
            )
        own = tensors.kinds[kind]
        time, held = _curve(prediction, rank, own.node, own.change)
        return _columns("time_s", time, _two_parts(own.before, held)), own.source
    parts = np.full((len(tensors.kind), len(PARTS)), np.nan)
    seen: dict[tuple[int, int], NDArray[np.float64]] = {}
    for r, kind in enumerate(tensors.kind.tolist()):
        key = (kind, int(prediction.compiled.rank_class[r]))
        if kind >= 0 and key not in seen:
            own = tensors.kinds[kind]
            most = _curve(prediction, r, own.node, own.change)[1].max()
            seen[key] = _two_parts(own.before, np.array([most]))[0]
        if kind >= 0:
            parts[r] = seen[key]
    source = "; ".join(dict.fromkeys(kind.source for kind in tensors.kinds))
    return _columns("rank", np.arange(len(parts)), parts), source


def _two_parts(before: float, held: NDArray[np.float64]) -> NDArray[np.float64]:
    """[t, 6] parts: what was there, and what came since; the others are not told apart."""
    parts = np.full((len(held), len(PARTS)), np.nan)
    parts[:, WEIGHTS], parts[:, ACTIVATIONS] = before, held
    return parts


def _curve(
    prediction: Prediction, rank: int, node: NDArray[np.int64], change: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """[c + 1] times [s] from 0, and what is then held of what changes [B]."""
    tasks = prediction.compiled.tasks_of(rank)
    start, finish = prediction.task_start[tasks], prediction.task_finish[tasks]
    time = np.where(change > 0, start[node], finish[node])
    order = np.lexsort((change, time))  # at one moment what is given back comes first
    held = np.concatenate([[0.0], np.cumsum(change[order])])
    return np.concatenate([[0.0], time[order]]), held


def _columns(name: str, first: NDArray[Any], parts: NDArray[np.float64]) -> TableColumns:
    nothing = np.isnan(parts).all(axis=1)
    return {
        name: first,
        **{f"{part}_B": parts[:, k] for k, part in enumerate(PARTS)},
        "total_B": np.where(nothing, np.nan, np.nansum(parts, axis=1)),
    }
