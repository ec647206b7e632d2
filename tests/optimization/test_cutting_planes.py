"""What `optimize` stands on: batches, gradients, pieces, bounds from first-order conditions, projection."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.analysis import economics
from perfmodel.errors import InputError
from perfmodel.optimization.cutting_planes import descend, project
from perfmodel.optimization.epigraph import FEASIBLE, Effort, EpigraphProblem, Scale
from perfmodel.optimization.multipliers import weigh
from perfmodel.optimization.objective import VariedDesign, goal

PATHS = ("npu.peak_flops", "npu.memory_bandwidth", "network.0.bandwidth")
LOWER, UPPER = np.array([1e14, 5e11, 2e10]), np.array([4e15, 1e13, 2e12])
BUDGET = "npu.peak_flops / 1e15 + npu.memory_bandwidth / 3e12 + network.0.bandwidth / 4e11 <= 3"


@pytest.fixture(scope="module")
def compiled():
    graph = synth.training(
        {"layers": 3, "hidden": 512, "heads": 8}, data=2, tensor=2, micro_batches=2
    ).graph()
    return pm.compile(graph, pm.hardware("dgx-h100", ranks=4, models="roofline"))


def problem_of(compiled, objective="time", constraints=(BUDGET,), log=True, models=None):
    scale = Scale(LOWER, UPPER, log)
    work = economics.totals(compiled.graph, compiled.system)
    models = compiled.models if models is None else models
    design = VariedDesign(PATHS, compiled.system, models, economics.Economics(), work)
    wanted = goal(design, objective, list(constraints), jnp.asarray(scale.centre()))
    return EpigraphProblem(compiled, design, wanted, scale, Effort())


def designs(problem, count, seed=0):
    low, high = problem.bounds()
    return np.random.default_rng(seed).uniform(low, high, (count, len(low)))


@pytest.mark.parametrize("log", [True, False])
def test_a_batch_is_every_design_by_itself(compiled, log):
    problem = problem_of(compiled, log=log)
    z = designs(problem, 11)
    for row, point in zip(z, problem.evaluate(z)):
        system, models = problem.design.at(problem.scale.x(jnp.asarray(row)))
        alone = float(compiled.makespan(system, models))
        assert point.makespan == pytest.approx(alone, rel=1e-12)
        assert problem.unscaled(point.objective) == pytest.approx(alone, rel=1e-12)
        value, _ = problem.paths(point.y, [point.piece])
        assert value[0] == pytest.approx(0.0, abs=1e-12)  # a point lies on its own piece
    assert problem.effort.makespans == 11


def test_gradients_are_those_of_the_makespan(compiled):
    problem = problem_of(compiled)

    @jax.grad
    def slope(z):
        return jnp.log(compiled.makespan(*problem.design.at(problem.scale.x(z))))

    z = designs(problem, 8)
    for row, point in zip(z, problem.evaluate(z)):
        expected = np.asarray(slope(jnp.asarray(row)))
        assert problem.gradient(point) == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_no_piece_is_above_the_makespan_anywhere(compiled):
    problem = problem_of(compiled)
    problem.evaluate(designs(problem, 16, seed=1))
    pieces = list(problem.pieces.values())
    assert len(pieces) > 3
    for point in problem.evaluate(designs(problem, 32, seed=2)):
        value, _ = problem.paths(point.y, pieces)
        assert value.max() <= 1e-12


def test_padding_leaves_no_trace(compiled):
    problem = problem_of(compiled)
    (point,) = problem.evaluate(designs(problem, 1))
    one, slope = problem.paths(point.y, [point.piece])
    many, slopes = problem.paths(point.y, [point.piece] * 9)
    assert np.array_equal(np.repeat(one, 9), many)
    assert np.array_equal(np.repeat(slope, 9, axis=0), slopes)


@pytest.mark.parametrize("objective", ["time", "energy", "time * cost"])
def test_bounds_from_any_point_are_below_every_feasible_design(compiled, objective):
    problem = problem_of(compiled, objective)
    points = problem.evaluate(project(problem, designs(problem, 40))[0])
    feasible = [p.objective for p in points if p.excess <= FEASIBLE]
    assert len(feasible) == 40
    low, high = problem.bounds()
    pieces = list(problem.pieces.values())
    for point in points[:10]:
        ends = np.append(low, point.y[-1] - 5), np.append(high, point.y[-1] + 5)
        assert weigh(problem, point.y, pieces, ends).bound <= min(feasible) + 1e-12


def test_objective_and_bound_meet_at_the_optimum(compiled):
    problem = problem_of(compiled)
    told = []
    best, bound = descend(
        problem,
        project(problem, designs(problem, 4))[0],
        method="SLSQP",
        tolerance=1e-10,
        rounds=50,
        tell=told.append,
    )
    assert best.excess <= FEASIBLE
    assert bound - 1e-12 <= best.objective <= bound + 1e-6
    bounds = [step.bound for step in told if step.stage == "piece"]
    assert bounds == sorted(bounds) or max(bounds) - bounds[-1] < 1e-6 * bounds[-1]
    low, high = problem.bounds()
    ends = np.append(low, best.y[-1] - 5), np.append(high, best.y[-1] + 5)
    assert weigh(problem, best.y, list(problem.pieces.values()), ends).residual < 1e-4


def test_projection_finds_the_nearest_design_within_a_limit(compiled):
    problem = problem_of(compiled, constraints=["npu.peak_flops <= 1e15"])
    z = designs(problem, 8)
    found, excess = project(problem, z)
    assert excess <= FEASIBLE
    expected = np.column_stack([np.minimum(z[:, 0], math.log(1e15)), z[:, 1:]])
    assert found == pytest.approx(expected, abs=1e-5)


def test_limits_with_time_in_them_do_not_move_the_starts(compiled):
    problem = problem_of(compiled, constraints=["time <= 1e-9"])
    z = designs(problem, 3)
    assert np.array_equal(project(problem, z)[0], z)


@pm.record
class Saturating:
    """Arithmetic whose rate saturates: a sum of powers it is not, and no piece of it is convex in logarithms."""

    def time(self, flops, bytes, npu):
        rate = 1e15 * jnp.tanh(npu.peak_flops / 1e15) ** 3
        return jnp.minimum(flops / rate, 3 * flops / npu.peak_flops) + bytes / npu.memory_bandwidth


def test_costs_that_are_not_convex_still_end_at_the_best_of_a_grid(compiled):
    models = pm.Models(compute=Saturating())
    graph, system = compiled.graph, compiled.system
    best = pm.optimize(
        graph,
        system,
        bounds=dict(zip(PATHS, zip(LOWER, UPPER))),
        constraints=[BUDGET],
        models=models,
        schedule="frozen",
    )
    peak, memory = (
        a.ravel() for a in np.meshgrid(*(np.geomspace(*e, 60) for e in zip(LOWER[:2], UPPER[:2])))
    )
    link = np.minimum(4e11 * (3 - peak / 1e15 - memory / 3e12), UPPER[2])
    inside = link >= LOWER[2]
    grid = {path: v[inside] for path, v in zip(PATHS, (peak, memory, link))}
    table = pm.sweep(graph, system, pd.DataFrame(grid), models=models, schedule="frozen", threads=1)
    assert best.makespan <= float(table.makespan_s.min()) * 1.001


def test_a_makespan_of_nothing_is_refused(compiled):
    problem = problem_of(compiled)
    (point,) = problem.evaluate(designs(problem, 1))
    with pytest.raises(InputError, match="finite time > 0"):
        problem.point(point.z, 0.0, point.piece)


def test_held_variables_and_other_goals_share_what_is_known(compiled):
    problem = problem_of(compiled)
    held = problem.holding({"npu.peak_flops": 1e15})
    low, high = held.bounds()
    assert low[0] == high[0] == pytest.approx(math.log(1e15))
    assert problem.bounds()[0][0] < low[0]
    problem.evaluate(designs(problem, 2))
    assert held.pieces is problem.pieces
    wanted = goal(problem.design, "cost", None, jnp.asarray(problem.scale.centre()))
    other = problem.towards(wanted)
    (point,) = other.evaluate(designs(problem, 1))
    cost = economics.Cost().total(problem.design.at(problem.scale.x(jnp.asarray(point.z)))[0])
    assert other.unscaled(point.objective) == pytest.approx(float(cost), rel=1e-12)
    assert len(problem.along(compiled).pieces) == 0
