"""How many evaluations an optimum takes: exact pieces of the makespan against multi-start Nelder-Mead.

    python tests/benchmarks/optimizers.py

Both minimise the same objective within the same bounds and budget to the same tolerance. Nelder-Mead sees no
constraints: its variables are the logarithms of the parameters up to a common factor, and each point is scaled onto
the budget, where the optimum lies (one variable less to search, in its favour). A run counts as successful where it
ends within `TOLERANCE` of the best known; the evaluations are those of all starts.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import pandas as pd
from scipy.optimize import minimize

import perfmodel as pm
from perfmodel import synth
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.synth import Communicators, Layout, Role, Steps, Work, Workload

TOLERANCE = 1e-6
STARTS = 8


@dataclass(frozen=True)
class Case:
    """A graph, a machine, parameters within bounds that share a budget: sum of weights x parameters <= 1."""

    name: str
    graph: pm.Graph
    system: System
    bounds: dict[str, tuple[float, float]]
    weights: dict[str, float]

    @property
    def constraint(self) -> str:
        """The budget as `optimize` takes it."""
        return " + ".join(f"{weight!r} * {path}" for path, weight in self.weights.items()) + " <= 1"


def four_dimensions() -> Case:
    """LIBRA's machine (4 x 8 x 4 x 32, a training step with all-reduces over its dimensions), 1000 GB/s to share."""
    sizes = (4, 8, 4, 32)
    layout = Layout({f"d{k}": n for k, n in enumerate(sizes)})
    steps = Steps()
    for layer in range(6):
        kernel = steps.compute(f"layer {layer}", Work(10**12, 10**9))
        for k in range(4):
            steps.collective(f"reduce {layer} {k}", "all_reduce", 10**8 >> 2 * k, f"d{k}", [kernel])
    groups: dict[str, Communicators] = {name: layout.along(name) for name in layout.dimensions}
    role = Role(steps, np.arange(layout.ranks, dtype=np.int32), groups)
    topologies = ("ring", "fully-connected", "ring", "switch")
    network = tuple(Dimension(1e11, 1e-6, t, n) for t, n in zip(topologies, sizes))
    paths = [f"network.{k}.bandwidth" for k in range(4)]
    return Case(
        "4 parameters",
        Workload("layers on LIBRA's machine", (role,)).graph(),
        System(NPU(4e14, 3e12, 80e9), network),
        dict.fromkeys(paths, (1e9, 1e12)),
        dict.fromkeys(paths, 1e-12),
    )


def twelve_parameters() -> Case:
    """A GPT step on 64 ranks: peak rate, memory bandwidth, five dimensions' bandwidths and latencies, at a price."""
    work = synth.training(
        {"layers": 8, "hidden": 2048, "heads": 16}, data=4, tensor=4, pipeline=4, micro_batches=4
    )
    network = tuple(Dimension(1e11, 1e-6, "switch", n) for n in (2, 2, 4, 2, 2))
    bounds = {"npu.peak_flops": (1e13, 1e16), "npu.memory_bandwidth": (1e11, 1e14)}
    weights = {"npu.peak_flops": 0.3 / 1e15, "npu.memory_bandwidth": 0.2 / 3e12}
    for k in range(5):
        bounds[f"network.{k}.bandwidth"] = (1e9, 1e13)
        weights[f"network.{k}.bandwidth"] = 0.1 / 2e11
    for k in range(5):
        bounds[f"network.{k}.latency"] = (1e-8, 1e-4)
    return Case(
        "12 parameters", work.graph(), System(NPU(1e15, 3e12, 80e9), network), bounds, weights
    )


def by_pieces(case: Case) -> tuple[float, int, int]:
    """(objective, evaluations of whole graphs, all evaluations) of `optimize`."""
    found = pm.optimize(
        case.graph,
        case.system,
        bounds=case.bounds,
        constraints=[case.constraint],
        schedule="frozen",
        starts=STARTS,
        tolerance=TOLERANCE,
    )
    return found.objective, found.effort.makespans, found.evaluations


def by_simplex(case: Case, seed: int = 0) -> tuple[list[float], int]:
    """(objective of every start, evaluations) of Nelder-Mead."""
    compiled = pm.compile(case.graph, case.system)
    paths = list(case.bounds)
    ends = np.log(np.array(list(case.bounds.values())))
    weight = np.array([case.weights.get(path, 0.0) for path in paths])
    jitted = makespan_of(compiled, paths)
    count = 0

    def objective(z: np.ndarray) -> float:
        nonlocal count
        count += 1
        x = np.exp(np.clip(z, *ends.T))
        spent = weight @ x
        x = np.where(weight > 0, np.clip(x / spent, *np.exp(ends.T)), x)
        over = max(weight @ x - 1, 0.0)
        return float(np.log(jitted(x))) + 100 * over

    rng = np.random.default_rng(seed)
    found = []
    for _ in range(STARTS):
        result = minimize(
            objective,
            rng.uniform(*ends.T),
            method="Nelder-Mead",
            options={
                "fatol": TOLERANCE,
                "xatol": 1e-3,
                "maxfev": 20_000,
                "adaptive": True,
            },
        )
        found.append(float(np.exp(result.fun)))
    return found, count


def makespan_of(compiled, paths):
    """x -> makespan [s], along the frozen order, by the host's engine."""
    from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator

    evaluator = Evaluator(compiled)
    options = EvaluationOptions(schedule="frozen", breakdown=False, threads=1)

    def makespan(x: np.ndarray) -> float:
        costs = evaluator.costs(tuple(paths), x[:, None])
        return float(evaluator.makespans(costs, options, paths=False)[0][0])

    return makespan


def compare(cases: list[Case]) -> pd.DataFrame:
    """One row per case."""
    rows = []
    for case in cases:
        begin = perf_counter()
        objective, makespans, evaluations = by_pieces(case)
        middle = perf_counter()
        found, simplex = by_simplex(case)
        end = perf_counter()
        rows.append(
            {
                "case": case.name,
                "pieces_objective_s": objective,
                "pieces_makespans": makespans,
                "pieces_evaluations": evaluations,
                "pieces_time_s": middle - begin,
                "simplex_objective_s": min(found),
                "simplex_excess": min(found) / objective - 1,
                "simplex_evaluations": simplex,
                "simplex_time_s": end - middle,
                "fewer": simplex / evaluations,
                "fewer_makespans": simplex / makespans,
            }
        )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    print(compare([four_dimensions(), twelve_parameters()]).T.to_string())
    sys.exit(0)
