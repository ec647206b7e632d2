"""Other designs than the one that a graph was compiled at: bulk engines, own schedules, derivatives."""

import random

import jax
import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine.reduction import reduce
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.schedule.frozen_graph import times
from tests import oracle
from tests.oracle_case import (
    Case,
    assert_close,
    cases,
    compile_eagerly,
    costs_eagerly,
    evaluate_eagerly,
    repeatable,
)

DESIGNS = 7
seeds = st.integers(0, 2**32)

pytestmark = pytest.mark.filterwarnings(
    "ignore:.*above 1. a fraction of a rate"
)  # random efficiencies


def designs(case: Case, seed: int) -> list[tuple]:
    """The case's own design and others, every parameter multiplied by something between 1/5 and 5."""
    draw = random.Random(seed)
    known = parameters(case.system, case.models)
    result = [(case.system, case.models)]
    for _ in range(DESIGNS - 1):
        values = {path: value * 5 ** draw.uniform(-1, 1) for path, value in known.items()}
        result.append(with_parameters(case.system, case.models, values))
    return result


def table(compiled, chosen: list[tuple]) -> np.ndarray:
    """[S, D] costs of every design."""
    columns = [costs_eagerly(compiled, system, models) for system, models in chosen]
    return np.stack(columns, axis=1)


@given(cases(chained=True), seeds)
@repeatable(50)
def test_the_reduced_graph_has_the_makespan_of_the_whole_one_on_every_design(case, seed):
    compiled = compile_eagerly(case.graph, case.system, case.models)
    costs = table(compiled, designs(case, seed))
    whole = engine.plan(reduce(compiled.events, len(costs), merge=False))
    e = compiled.events
    expected = [times(e.pred_ptr, e.pred, e.cost, c.copy())[1].max() for c in costs.T]
    found = engine.makespans(compiled.plan, costs, threads=1, tile=4)[0]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose(engine.makespans(whole, costs, threads=1)[0], expected, rtol=1e-12)
    event(f"reduced: {len(compiled.reduced) < len(compiled.events)}")
    found, counts = engine.makespans(compiled.plan, costs, threads=1, tile=4, paths=True)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    np.testing.assert_allclose((counts * costs).sum(axis=0), expected, rtol=1e-12)
    assert (counts >= 0).all()


@given(cases(chained=True, by_name=True), seeds)
@repeatable(50)
def test_the_frozen_order_on_another_design_gives_the_oracles_longest_path(case, seed):
    assert case.times is not None
    system, models = designs(case, seed)[1]
    p = evaluate_eagerly(compile_eagerly(case.graph, case.system, case.models), system, models)
    expected = oracle.longest_path(case.nodes, case.times, *case.costs(system, models))
    assert_close(p.start, expected.start, expected.makespan)
    assert_close(p.finish, expected.finish, expected.makespan)


@given(cases(), seeds)
@repeatable(80)
def test_every_designs_own_schedule_is_the_oracles_at_that_design(case, seed):
    if case.times is None:
        return
    compiled = compile_eagerly(case.graph, case.system, case.models)
    chosen = designs(case, seed)
    costs = table(compiled, chosen)
    makespan, differs, counts = compiled.own(costs, paths=True, threads=1)
    expected = [case.at(*design) for design in chosen]
    assert_close(
        makespan, [np.nan if times is None else times.makespan for times in expected], case.scale
    )
    assert not differs[0]
    alive = ~np.isnan(makespan)
    assert_close((counts * costs).sum(axis=0)[alive], makespan[alive], case.scale)
    kept = case.times.order, case.times.call
    changed = [times is not None and (times.order, times.call) != kept for times in expected]
    event(f"order changed: {any(changed)}")
    for d, design in enumerate(chosen):
        if alive[d] and (other := another_record(case, design)) is not None:
            event(f"another record is the quickest: {other}")
            assert differs[d] == (changed[d] or other)


def another_record(case: Case, design: tuple) -> bool | None:
    """Whether a collective replays another record than on the case's own design; None where ties leave it open."""
    assert case.times is not None
    here, _ = case.costs(case.system, case.models)
    there, replayed = case.costs(*design)
    found: bool | None = False
    for members in case.times.calls.values():
        records = [v for v in members if replayed[v]]
        if not records:
            continue
        quickest = min(here[v] for v in records)
        taken = [v for v in records if here[v] == quickest]
        slower = {there[v] > min(there[u] for u in records) for v in taken}
        if slower == {True}:
            return True
        if len(slower) > 1:
            found = None
    return found


@given(cases(), seeds)
@repeatable(80)
def test_an_order_that_is_called_forced_is_every_designs_own(case, seed):
    if case.times is None:
        return
    compiled = compile_eagerly(case.graph, case.system, case.models)
    event(f"forced: {compiled.forced}")
    if not compiled.forced:
        return
    for system, models in designs(case, seed):
        times = case.at(system, models)
        assert times is not None
        assert times.order == case.times.order
        frozen = evaluate_eagerly(compiled, system, models).makespan
        assert frozen == pytest.approx(times.makespan, rel=1e-9)


@given(cases(chained=True, by_name=True, ranks=4, events=10), seeds)
@repeatable(12)
def test_gradients_are_the_oracles_central_differences_away_from_ties(case, seed):
    assert case.times is not None
    compiled = compile_eagerly(case.graph, case.system, case.models)
    system, models = designs(case, seed)[1]
    known = {
        path: value for path, value in parameters(system, models).items() if 0 < value < np.inf
    }

    def makespan(values: dict) -> jax.Array:
        return compiled.makespan(*with_parameters(system, models, values))

    gradient = jax.jit(jax.grad(makespan))(known)

    def oracles(path: str, value: float) -> float:
        costs = case.costs(*with_parameters(system, models, {path: value}))
        return oracle.longest_path(case.nodes, case.times, *costs).makespan

    here = float(oracles(next(iter(known)), next(iter(known.values()))))
    for path, value in known.items():
        step = 1e-5 * value
        up, down = oracles(path, value + step), oracles(path, value - step)
        if abs((up - here) - (here - down)) > 1e-3 * abs(up - down) + 1e-13 * here:
            event("tie")
            continue
        slope = (up - down) / (2 * step)
        scale = here / value
        assert float(gradient[path]) == pytest.approx(slope, rel=1e-6, abs=1e-9 * scale), path


@given(cases(chained=True), seeds)
@repeatable(60)
def test_an_edge_added_to_the_frozen_graph_never_helps(case, seed):
    compiled = compile_eagerly(case.graph, case.system, case.models)
    events, draw = compiled.events, random.Random(seed)
    cost = costs_eagerly(compiled, case.system, case.models)
    before = times(events.pred_ptr, events.pred, events.cost, cost)[1].max()
    if len(events) < 3:
        return
    u, v = sorted(draw.sample(range(len(events) - 1), 2))
    pred = np.insert(events.pred, events.pred_ptr[v], u)
    ptr = events.pred_ptr + (np.arange(len(events.pred_ptr)) > v)
    after = times(ptr, pred, events.cost, cost)[1].max()
    assert after >= before * (1 - 1e-15)
    event(f"longer: {after > before}")


@given(cases(chained=True, by_name=True), seeds)
@repeatable(60)
def test_an_edge_added_to_the_oracles_frozen_graph_never_helps(case, seed):
    assert case.times is not None
    draw = random.Random(seed)
    order = sorted(range(len(case.nodes)), key=lambda v: case.times.finish[v])
    later = [v for v in order if case.times.start[v] > 0]
    if not later:
        return
    v = draw.choice(later)
    u = draw.choice([u for u in order if case.times.finish[u] <= case.times.start[v]] or [v])
    if u == v:
        return
    costs = case.costs(*designs(case, seed)[1])
    before = oracle.longest_path(case.nodes, case.times, *costs)
    after = oracle.longest_path(case.nodes, case.times, *costs, extra=[(u, v)])
    assert all(b >= a for a, b in zip(before.finish, after.finish))
