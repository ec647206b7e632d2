"""What if: some nodes quicker or slower, other work, another group, a slow rank, jitter.

Each function takes a graph and returns another one (hardware what-ifs are `pm.sweep` and parameters); `table`
predicts several side by side.

    faster = pm.whatif.scale(graph, 0.5, where={"name": "*attention*"})
    pm.whatif.table(graph, system, {"attention 2 x faster": faster,
                                    "rank 3 slow": lambda g: pm.whatif.straggler(g, 3, 1.2),
                                    "double bandwidth": {"network.0.bandwidth": 9e11}})
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace as with_fields
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.compiled import Compiled, recall, unpack, workload_of
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine.reduction import reduce
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import models_meant, models_of
from perfmodel.parameter_paths import with_parameters
from perfmodel.prediction import Prediction, predict
from perfmodel.report.path_and_ranks import path_breakdown
from perfmodel.vocabulary import CATEGORIES, NodeType
from perfmodel.workload.edit import MembersOf, Where, change
from perfmodel.workload.edit import regroup as regroup_graph
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program

__all__ = ["jitter", "makespans", "regroup", "replace", "scale", "straggler", "table"]

BATCH = 16_000_000
"""Numbers in one table of costs [vertices, draws]."""

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95, 0.99)

Scenario = Graph | Callable[[Graph], Graph] | Mapping[str, float]


def scale(
    graph: Graph | Compiled,
    factor: float,
    *,
    where: Where = None,
    ranks: Sequence[int] | None = None,
) -> Graph:
    """The graph with the durations of some nodes multiplied.

    A collective lasts as long as its slowest member says (replayed recorded durations: its quickest), so a factor
    below 1 must be applied on all members. A message is paid for by its send; on a receive a factor does nothing.
    The factor includes latencies and overheads, and multiplies those of earlier calls.

    Args:
        graph: stays as it is; of a compiled graph, its workload.
        factor: 0 or more.
        where: None (all nodes), {column of `Graph.table`: value, list, or glob pattern}, or a function of a rank's
            table that returns a truth value per row.
        ranks: only on these.

    Raises:
        InputError: a factor that is negative or not finite, an unknown column or rank, or no node chosen.

    Example: `scale(graph, 0.5, where={"type": "ALL_REDUCE", "group": "tp*"})`.
    """
    if not (np.isfinite(factor) and factor >= 0):
        raise InputError(f"factor: got {factor}, expected a finite number of 0 or more")

    def edit(program: Program, chosen: NDArray[np.bool_]) -> Program:
        return with_fields(program, scale=np.where(chosen, program.scale * factor, program.scale))

    return change(workload_of(graph), where, ranks, edit)


def straggler(graph: Graph | Compiled, rank: int, factor: float) -> Graph:
    """The graph with compute and memory operations of one rank `factor` times as long.

    Raises:
        InputError: no such rank, or a factor that is negative or not finite.
    """
    own = [t.name for t in (NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE)]
    return scale(graph, factor, where={"type": own}, ranks=[rank])


def replace(
    graph: Graph | Compiled,
    *,
    where: Where,
    ranks: Sequence[int] | None = None,
    flops: int | None = None,
    bytes: int | None = None,
    size: int | None = None,
    duration: float | None = None,
) -> Graph:
    """The graph with other work in some nodes.

    Args:
        graph: stays as it is.
        where, ranks: which nodes, as for `scale`.
        flops, bytes: of compute and (bytes) memory nodes [FLOP], [B].
        size: of collectives and messages [B].
        duration: recorded [s]; counts where a node has no work, or with `Models(prefer="recorded")`.

    Raises:
        InputError: nothing to replace, a value that is negative, or one that some chosen node cannot have.
    """
    given = {"flops": flops, "bytes": bytes, "size": size, "duration": duration}
    values = {k: v for k, v in given.items() if v is not None}
    if not values:
        raise InputError("replace: nothing to replace; give flops, bytes, size or duration")
    for name, value in values.items():
        if not (np.isfinite(value) and value >= 0 and (name == "duration" or value == int(value))):
            raise InputError(f"replace: {name} is {value}, expected a number of 0 or more")

    def edit(program: Program, chosen: NDArray[np.bool_]) -> Program:
        for name in values:
            wrong = chosen & ~np.isin(program.type, _HAVE[name])
            if wrong.any():
                kind = NodeType(int(program.type[np.flatnonzero(wrong)[0]])).name
                raise InputError(
                    f"{workload_of(graph).source}: where: chooses a {kind} node, which has no {name}; "
                    'choose further, for example by "type"'
                )
        changed: dict[str, Any] = {
            name: np.where(chosen, value, getattr(program, name)).astype(
                getattr(program, name).dtype
            )
            for name, value in values.items()
        }
        return with_fields(program, **changed)

    return change(workload_of(graph), where, ranks, edit)


_COMMUNICATE = (NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL)
_MEMORY = (NodeType.MEM_LOAD, NodeType.MEM_STORE)
_HAVE = {
    "flops": (NodeType.COMP,),
    "bytes": (NodeType.COMP, *_MEMORY),
    "size": _COMMUNICATE,
    "duration": (NodeType.COMP, *_MEMORY, *_COMMUNICATE),
}


def regroup(graph: Graph | Compiled, members: MembersOf, *, where: Where) -> Graph:
    """The graph with some collectives among other ranks; see `workload.edit.regroup`."""
    return regroup_graph(workload_of(graph), members, where=where)


def makespans(
    graph: Graph | Compiled,
    system: System | None = None,
    sigma: float | Mapping[str, float] = 0.0,
    *,
    draws: int = 1000,
    seed: int = 0,
    models: Any = None,
    threads: int = 2,
) -> NDArray[np.float64]:
    """[draws] makespans with every operation's duration multiplied by a random factor of its own [s].

    The factors are lognormal with mean 1: exp(sigma z - sigma^2 / 2), z standard normal, independent; one for all
    members of a collective. So the mean of the operations stays, and what the makespan gains is the price of
    waiting for the slowest. The order of issue is that of the undisturbed design.

    Args:
        graph, system, models: as for `predict`; a compiled graph brings system and models.
        sigma: standard deviation of the logarithm (0.05: about 5 %), of all operations or by category
            ({"compute": 0.05, "communication": 0.2}; others do not vary).
        draws: how many.
        seed: of the random numbers.
        threads: of the engine.

    Raises:
        InputError: a sigma that is negative or not finite, an unknown category, no draws, or models that lower
            the graph in their own way.
    """
    if draws < 1:
        raise InputError(f"draws: got {draws}, expected 1 or more")
    if hasattr(models, "lower"):
        raise InputError(f"jitter: {type(models).__name__} is not evaluated node by node")
    graph, system, models = unpack(graph, system, models, "whatif.makespans")
    compiled = recall(graph, system, models, merge_ranks=False)
    cost = np.asarray(compiled.evaluate(compiled.system, compiled.models), np.float64)
    timed = np.flatnonzero(compiled.events.cost >= 0)
    row = compiled.events.cost[timed]
    own = np.full(len(compiled.events), -1, np.int32)
    own[timed] = np.arange(len(timed))
    plan = engine.plan(reduce(with_fields(compiled.events, cost=own), len(timed)))
    spread = _sigma(sigma)[compiled.category[row]]
    random = np.random.default_rng(seed)
    size = max(1, BATCH // max(len(timed), 1))
    parts = []
    for at in range(0, draws, size):
        z = random.standard_normal((min(size, draws - at), len(timed))).T
        factor = np.exp(spread[:, None] * z - spread[:, None] ** 2 / 2)
        parts.append(engine.makespans(plan, cost[row][:, None] * factor, threads=threads)[0])
    return np.concatenate(parts) * compiled.unit


def _sigma(sigma: float | Mapping[str, float]) -> NDArray[np.float64]:
    """[categories] standard deviation of the logarithm."""
    given = dict(sigma) if isinstance(sigma, Mapping) else dict.fromkeys(CATEGORIES[:3], sigma)
    for word, value in given.items():
        if word not in CATEGORIES[:3]:
            raise InputError(f"sigma: no category {word!r}; there are {', '.join(CATEGORIES[:3])}")
        if not (np.isfinite(value) and value >= 0):
            raise InputError(f"sigma: got {value}, expected a finite number of 0 or more")
    return np.array([given.get(word, 0.0) for word in CATEGORIES], float)


def jitter(
    graph: Graph | Compiled,
    system: System | None = None,
    sigma: float | Mapping[str, float] = 0.0,
    draws: int = 1000,
    seed: int = 0,
    *,
    models: Any = None,
    quantiles: Sequence[float] = QUANTILES,
) -> pd.DataFrame:
    """Quantiles of the makespan when durations vary at random; see `makespans` for the model.

    Returns:
        One row per quantile: quantile, makespan_s, change (against the undisturbed makespan).

    Raises:
        InputError: as `makespans`; a quantile outside 0 to 1.
    """
    levels = np.asarray(quantiles, float)
    if not len(levels) or not ((levels >= 0) & (levels <= 1)).all():
        raise InputError(f"quantiles: got {list(quantiles)}, expected numbers from 0 to 1")
    graph, system, models = unpack(graph, system, models, "whatif.jitter")
    drawn = makespans(graph, system, sigma, draws=draws, seed=seed, models=models)
    seconds = np.quantile(drawn, levels)
    undisturbed = predict(graph, system, models).makespan
    change = seconds / undisturbed - 1 if undisturbed else np.zeros(len(levels))
    return pd.DataFrame({"quantile": levels, "makespan_s": seconds, "change": change})


def table(
    graph: Graph | Compiled,
    system: System | None = None,
    scenarios: Mapping[str, Scenario] | None = None,
    *,
    models: Any = None,
) -> pd.DataFrame:
    """Several what-ifs side by side.

    Args:
        graph, system, models: the baseline; a compiled graph brings system and models.
        scenarios: by name another graph, a function of the graph that returns one, or {parameter path: value}.

    Returns:
        One row per scenario, the baseline first: scenario, makespan_s, change (relative to the baseline), compute_s,
        memory_s, communication_s, waiting_s (of the critical path).

    Raises:
        InputError: a scenario of another type, an unknown parameter.
    """
    graph, system, models = unpack(graph, system, models, "whatif.table")
    named = [path for s in (scenarios or {}).values() if isinstance(s, Mapping) for path in s]
    models = models_meant(system, models, named)
    rows = [("baseline", predict(graph, system, models))]
    for name, scenario in (scenarios or {}).items():
        rows.append((name, _predict(graph, system, models, name, scenario)))
    first = rows[0][1].makespan
    result = [
        {
            "scenario": name,
            "makespan_s": p.makespan,
            "change": p.makespan / first - 1 if first else 0.0,
            **{f"{word}_s": seconds for word, seconds in path_breakdown(p).items()},
        }
        for name, p in rows
    ]
    return pd.DataFrame(result)


def _predict(
    graph: Graph, system: System, models: Any, name: str, scenario: Scenario
) -> Prediction:
    if isinstance(scenario, Mapping):
        models = models_of(system, models)
        return predict(graph, *with_parameters(system, models, scenario))
    other = scenario(graph) if callable(scenario) else scenario
    if not isinstance(other, Graph):
        raise InputError(
            f"scenario {name!r}: got {type(other).__name__}, expected a graph, a function that returns "
            "one, or {parameter path: value}"
        )
    return predict(other, system, models)
