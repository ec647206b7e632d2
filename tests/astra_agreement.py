"""Prints how far ASTRA mode agrees with the simulator's runs: `python -m tests.astra_agreement [--ways]`.

With `--ways` each way of answering is held against the simulator by itself, and the default sweep with each of them
switched on and off.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import Iterator
from unittest import mock

import jax
import numpy as np
from _pytest.outcomes import Skipped

import perfmodel as pm
from perfmodel import astra
from perfmodel.analysis.evaluation import ANSWERS, EvaluationOptions, Evaluator
from perfmodel.astra import event_run
from perfmodel.astra.models import AstraOrders, frozen_events
from perfmodel.engine import cells
from tests import astra_reference as reference
from tests.agreement.ways import answers, false_answers
from tests.astra import test_sweeps as at

jax.config.update("jax_enable_x64", True)


BACKENDS = ("unaware", "aware")
PARTS = ("compute", "memory", "communication", "waiting", "host")


def agreement(cases: list[reference.Case]) -> tuple[int, int, int, int]:
    """Cases that were compared, with equal cycles of the longest path, with equal exposed time, and skipped."""
    equal = exposed = compared = skipped = 0
    for case in cases:
        try:
            lowered = reference.lowered(case)
        except Skipped:
            skipped += 1
            continue
        cost = lowered.costs()
        run = event_run.run(lowered, cost, record=True)
        run = astra.along(lowered, run, cost) if run.ok else run
        compared += 1
        equal += run.rank_end.tolist() == case["cycles"]
        exposed += run.ok and astra.exposed(lowered, cost, run) == case["exposed"]
    return compared, equal, exposed, skipped


def longest_paths(cases: list[reference.Case]) -> tuple[int, int]:
    """Cases whose recorded order was evaluated by a plain loop, and those with the simulator's times of all nodes."""
    compared = equal = 0
    for case in cases:
        try:
            lowered = reference.lowered(case)
        except Skipped:
            continue
        cost = lowered.costs()
        run = event_run.run(lowered, cost, record=True)
        events = run.events
        start, finish = reference.longest(cost, events.pred_ptr, events.pred, events.cost)
        compared += 1
        equal += bool(
            (start[events.node_first] == run.issue).all()
            and (finish[events.node_last] == run.finish).all()
        )
    return compared, equal


def diagnoses(cases: list[reference.Case]) -> tuple[int, int]:
    """Runs that never end there, and those that end in a diagnosis here."""
    found = compared = 0
    for case in cases:
        try:
            lowered = reference.lowered(case)
        except Skipped:
            continue
        compared += 1
        found += astra.diagnose(lowered, event_run.run(lowered, lowered.costs())).startswith(
            "the workload never ends"
        )
    return compared, found


def custom() -> str:
    """The custom collective of the facts: 90,174 cycles on every rank in both backends."""
    try:
        ends = {backend: reference.custom_collective(backend) for backend in BACKENDS}
    except Skipped as reason:
        return f"skipped ({reason})"
    return ", ".join(f"{backend} {sorted(set(found))}" for backend, found in ends.items())


def medians() -> Iterator[tuple[str, astra.Lowered]]:
    """The swept traces that are there, lowered at their median designs."""
    for trace in at.TRACES:
        with contextlib.suppress(Skipped):
            yield trace, at.median(trace)


def frozen() -> tuple[int, int, np.ndarray]:
    """Points that keep the median design's order, those of them with equal cycles of the longest path, and how far
    the frozen order is off at the others."""
    kept = equal = 0
    error: list[float] = []
    for trace, lowered in medians():
        run = event_run.run(lowered, lowered.costs(), record=True)
        cost = lowered.costs(at.designs(trace))
        digests = event_run.run_many(lowered, cost)[1]
        for d, point in enumerate(at.points(trace)):
            path = astra.along(lowered, run, cost[:, d])
            same = path.rank_end.tolist() == point["cycles"]
            if digests[d] == np.uint64(run.digest):
                kept, equal = kept + 1, equal + same
            else:
                error.append(abs(path.rank_end.max() / max(point["cycles"]) - 1))
    return kept, equal, np.array(error)


def sweeps() -> tuple[int, int, np.ndarray]:
    """Points, equal with own schedules, relative error of smooth costs."""
    count = equal = 0
    error: list[float] = []
    for trace, lowered in medians():
        cost = lowered.costs(at.designs(trace))
        ends, _ = event_run.run_many(lowered, cost)
        smooth, _ = event_run.run_many(
            lowered, np.asarray(lowered.costs(at.designs(trace), truncate=False))
        )
        cycles = np.array([point["cycles"] for point in at.points(trace)]).T
        count += ends.shape[1]
        equal += int((ends == cycles).all(axis=0).sum())
        error += np.abs(smooth.max(0) / ends.max(0) - 1).tolist()
    return count, equal, np.array(error)


def by_way(lowered: astra.Lowered, costs: np.ndarray, cycles: np.ndarray, seen: Counter) -> None:
    """Count in `seen` what each way knows of some designs, and how much of that are the simulator's cycles.

    Args:
        costs: [S, D] of a workload's own design and others. cycles: [D] the simulator's.
    """
    run = event_run.run(lowered, costs[:, 0], record=True)
    orders = AstraOrders(lowered, run, np.ascontiguousarray(costs[:, 0]), truncate=True)
    _, digests = event_run.run_many(lowered, costs)
    others = np.unique(digests, return_index=True)[1][:4] if len(cycles) > 1 else []
    for answer in answers(orders, frozen_events(run.events), costs, others):
        false = false_answers(answer, costs, cycles, exact=True)
        seen[answer.way, "known"] += int(answer.known.sum())
        seen[answer.way, "false"] += len(false)
        for line in false[:3]:
            print("   ", line)


def ways(finished: list[reference.Case]) -> None:
    """Print what each way says of the runs, and of the points of the sweeps."""
    seen: Counter = Counter()
    for case in finished:
        with contextlib.suppress(Skipped):
            lowered = reference.lowered(case)
            by_way(lowered, lowered.costs()[:, None], np.array([max(case["cycles"])]), seen)
    say_ways("runs", seen)
    seen = Counter()
    for trace, lowered in medians():
        cost = np.concatenate([lowered.costs()[:, None], lowered.costs(at.designs(trace))], axis=1)
        own = event_run.run(lowered, cost[:, 0]).rank_end.max()
        cycles = [own, *(max(point["cycles"]) for point in at.points(trace))]
        by_way(lowered, np.ascontiguousarray(cost), np.array(cycles, float), seen)
    say_ways("sweep points and medians", seen)
    switched()


def say_ways(what: str, seen: Counter) -> None:
    """A line for each way."""
    for way in dict.fromkeys(name for name, _ in seen):
        print(
            f"{what}, {way}: answers {seen[way, 'known']}, {seen[way, 'false']} of them are false"
        )


def switched() -> None:
    """Print how the default sweep agrees at the sweep points, with certificates and cells, and nodes, on and off."""
    compiled = {}
    for trace in at.TRACES:
        with contextlib.suppress(Skipped):
            folder = reference.trace(trace)
            groups = folder / "comm_groups.json"
            compiled[trace] = pm.compile(
                *astra.load(
                    folder / "t",
                    *at.inputs(trace),
                    comm_group=groups if groups.is_file() else None,
                    truncate=True,
                )
            )
    for certified, by_node, breakdown in itertools.product((True, False), repeat=3):
        equal = count = 0
        who: Counter = Counter()
        with contextlib.ExitStack() as patches:
            # 48 points are few: here cells are asked all the same, and cost nothing to build
            patches.enter_context(mock.patch.multiple(cells, FEWEST=4, BUILD_S=(0.0, 0.0)))
            if not certified:
                patches.enter_context(mock.patch.object(cells, "checks_of", return_value=None))
            if not by_node:
                patches.enter_context(mock.patch.object(AstraOrders, "program", None))
            for trace, c in compiled.items():
                values = at.designs(trace)
                table = np.stack(list(values.values()))
                fresh = pm.compile(c.graph, c.system, c.models)
                options = EvaluationOptions(breakdown=breakdown)
                found = Evaluator(fresh).figures(tuple(values), table, options)
                cycles = np.array([max(point["cycles"]) for point in at.points(trace)])
                parts = sum(found[f"{word}_s"] for word in PARTS) if breakdown else None
                same = np.rint(found["makespan_s"] * 1e9) == cycles
                same &= np.abs(found["makespan_s"] * 1e9 - cycles) < 1e-3
                if parts is not None:
                    same &= np.abs(parts * 1e9 - cycles) < 1e-3
                equal, count = equal + int(same.sum()), count + len(same)
                who.update(ANSWERS[k] for k in found["schedule"])
        print(
            f"default sweep, certificates and cells {'on' if certified else 'off'}, nodes "
            f"{'on' if by_node else 'off'}, breakdown {'on' if breakdown else 'off'}: equal in {equal} of {count}; "
            f"answered by {dict(who)}"
        )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.astra_agreement")
    parser.add_argument("--ways", action="store_true", help="each way of answering by itself")
    chosen = parser.parse_args()
    begin = time.perf_counter()
    runs = reference.cases("cases.jsonl")
    memory = reference.cases("memory_cases.jsonl")
    finished = [case for case in runs if case["finished"]]
    for backend in BACKENDS:
        compared, equal, exposed, skipped = agreement(
            [case for case in finished if case["backend"] == backend]
        )
        print(
            f"{backend}: cycles equal in {equal} of {compared}, exposed in {exposed}; skipped {skipped}"
        )
    print(f"all runs: {time.perf_counter() - begin:.1f} s, including the compilation")
    compared, equal, exposed, skipped = agreement([case for case in memory if case["finished"]])
    print(f"memory: cycles equal in {equal} of {compared}, exposed in {exposed}; skipped {skipped}")
    never = [case for case in runs + memory if not case["finished"]]
    crashed = [case for case in never if case.get("remote_memory") == "per_node"]
    compared, found = diagnoses([case for case in never if case not in crashed])
    print(f"never ending there: {found} of {compared} with a diagnosis here")
    print(f"crashed there on memory that it had given back: {len(crashed)}, which end here")
    compared, equal = longest_paths(finished)
    print(f"longest path over the recorded order: all nodes equal in {equal} of {compared}")
    print(f"custom collective, to be 90174 on every rank: {custom()}")
    count, equal, error = sweeps()
    print(f"sweep points, own schedules: equal in {equal} of {count}")
    kept, equal, off = frozen()
    print(
        f"sweep points, frozen at the median design: equal in {equal} of {kept} that keep its order; the other "
        f"{len(off)} are {np.median(off):.2%} off in the median, {off.max():.2%} at worst"
    )
    print(
        f"without truncation: {np.median(error):.4%} off in the median, "
        f"{np.quantile(error, 0.95):.4%} at the 95th percentile, {error.max():.4%} at worst"
    )
    if chosen.ways:
        ways(finished + [case for case in memory if case["finished"]])
    print(f"in total {time.perf_counter() - begin:.1f} s")


if __name__ == "__main__":
    main()
