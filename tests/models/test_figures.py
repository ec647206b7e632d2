"""One registry of figures: own ones in one place, prices at the catalogue's rates, costs that depend on time."""

import numpy as np
import pytest

import perfmodel as pm

BOUNDS = {"npu.peak_flops": (2e14, 2e15), "network.0.bandwidth": (1e11, 9e11)}


@pm.record
class WithCarbon:
    """The public figures, and the carbon of a step's energy."""

    base: pm.economics.Economics = pm.economics.Economics()
    per_joule: float = pm.number("kg/J", default=1e-7)
    own_figures = (pm.economics.Figure("carbon", "carbon_g", "kg", 1000.0),)

    def figure(self, name, system, makespan, totals):
        if name == "carbon":
            return self.per_joule * self.base.figure("energy", system, makespan, totals)
        return self.base.figure(name, system, makespan, totals)


@pm.record
class Rented:
    """A machine that is paid by the second."""

    base: pm.economics.Economics = pm.economics.Economics()
    per_second: float = pm.number("$/s", default=0.01)

    def figure(self, name, system, makespan, totals):
        if name == "cost":
            return self.per_second * system.npu.peak_flops / 1e15 * makespan
        return self.base.figure(name, system, makespan, totals)


@pytest.fixture(scope="module")
def compiled():
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    return pm.compile(graph, pm.hardware("dgx-h100", ranks=8), "roofline")


def test_a_figure_of_ones_own_is_known_to_sweep_optimize_pareto_and_plots(compiled):
    mine = WithCarbon()
    table = pm.sweep(compiled, {"npu.peak_flops": [5e14, 1e15]}, economics=mine)
    np.testing.assert_allclose(table["carbon_g"], table["energy_J"] * 1e-7 * 1000, rtol=1e-12)
    best = pm.optimize(compiled, bounds=BOUNDS, economics=mine, objective="carbon")
    front = pm.pareto(
        compiled, bounds=BOUNDS, economics=mine, objectives=("time", "carbon"), points=3
    )
    assert best.objective * 1000 <= front["carbon_g"].min() * (1 + 1e-5)
    limited = pm.optimize(
        compiled, bounds=BOUNDS, economics=mine, constraints={"carbon": best.objective * 1.1}
    )
    assert limited.makespan <= best.makespan
    axes = pm.plot.pareto(front, x="carbon_g", y="makespan_s")
    assert "carbon" in axes.get_xlabel()


def test_a_cost_that_depends_on_time_can_be_a_limit(compiled):
    cheapest = pm.optimize(compiled, bounds=BOUNDS, economics=Rented(), objective="cost")
    limit = 1.05 * cheapest.objective
    best = pm.optimize(compiled, bounds=BOUNDS, economics=Rented(), constraints={"cost": limit})
    cost = Rented().figure("cost", best.system, best.makespan, None)
    assert cost <= limit * (1 + 1e-6)
    assert best.makespan <= cheapest.makespan


def test_a_design_costs_the_same_from_wherever_one_starts():
    graph = pm.load("traces/gpt_dp2_tp2_pp2")
    system = pm.hardware("dgx-h100", ranks=8)
    moved, _ = pm.with_parameters(system, pm.Models(), {"npu.peak_flops": 4e15})
    point = {"npu.peak_flops": [2e15]}
    one, other = (
        pm.sweep(graph, start, point, models="roofline", economics=True)
        for start in (system, moved)
    )
    for column in ("power_W", "cost_usd", "area_mm2", "energy_J"):
        assert one[column][0] == pytest.approx(other[column][0], rel=1e-12)


@pytest.mark.parametrize(
    "figure",
    [
        pm.economics.Figure("time", "t_s", "s"),
        pm.economics.Figure("x", "cost_usd", "$"),
        pm.economics.Figure("a b", "ab", "1"),
        "carbon",
    ],
)
def test_names_that_are_taken_or_no_figures_are_refused(figure, compiled):
    class Wrong:
        def figure(self, name, system, makespan, totals):
            return 1.0

    Wrong.own_figures = (figure,)
    with pytest.raises(pm.InputError, match="own_figures"):
        pm.sweep(compiled, {"npu.peak_flops": [1e15]}, economics=Wrong())
