"""One compiled object for every verb: taken everywhere, compiled once, pickled, shown in a few lines."""

import itertools
import pickle

import jax
import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import compiled as module
from perfmodel.workload.graph import Graph

BOUNDS = {"network.0.bandwidth": (50e9, 900e9), "npu.peak_flops": (1e14, 2e15)}
SUM = {"network.0.bandwidth / 9e11 + npu.peak_flops / 2e15": 1.0}


@pytest.fixture(scope="module")
def graph():
    return pm.load("traces/gpt_dp2_tp2_pp2")


@pytest.fixture(scope="module")
def system():
    return pm.hardware("dgx-h100", ranks=8, models="roofline")


@pytest.fixture
def compiled(graph, system):
    return pm.compile(graph, system, pm.Models())


@pytest.fixture
def compilations():
    """A function that counts XLA's compilations since it was last called."""
    seen: list[str] = []

    def listen(event: str, duration: float, **_: object) -> None:
        if event.endswith("backend_compile_duration"):
            seen.append(event)

    jax.monitoring.register_event_duration_secs_listener(listen)

    def count() -> int:
        found = len(seen)
        seen.clear()
        return found

    yield count
    seen.append("unused from here on")


VERBS = {
    "predict": lambda *a: pm.predict(*a).makespan,
    "sweep": lambda *a: pm.sweep(*a, {"npu.peak_flops": [1e15, 2e15]}),
    "sensitivity": lambda *a: pm.sensitivity(*a, second=True),
    "optimize": lambda *a: pm.optimize(*a, bounds=BOUNDS, constraints=SUM).parameters,
    "pareto": lambda *a: pm.pareto(*a, bounds=BOUNDS, points=2),
    "timeline": lambda *a: pm.timeline(a[0] if len(a) == 1 else pm.predict(*a)),
    "breakdown": lambda *a: pm.breakdown(a[0] if len(a) == 1 else pm.predict(*a)),
    "compare": lambda *a: pm.compare(a[0] if len(a) == 1 else a, a[0] if len(a) == 1 else a),
    "jitter": lambda *a: pm.whatif.jitter(*a, sigma=0.1, draws=10),
    "table": lambda *a: pm.whatif.table(*a, scenarios={"more": {"npu.peak_flops": 2e15}}),
    "scale": lambda *a: pm.whatif.scale(a[0], 2.0).nodes,
    "straggler": lambda *a: pm.whatif.straggler(a[0], 0, 2.0).nodes,
}


def same(a, b):
    if isinstance(a, pd.DataFrame):
        pd.testing.assert_frame_equal(a, b)
    else:
        assert a == b


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_takes_it_in_the_place_of_graph_and_system(verb, graph, system, compiled):
    same(VERBS[verb](compiled), VERBS[verb](graph, compiled.system))


def test_calibrate_takes_it_in_its_steps(graph, system, compiled):
    measured = 1.5 * pm.predict(compiled).makespan
    both = [
        pm.calibrate([step], system, parameters=["compute.efficiency"], models=pm.Models())
        for step in ((compiled, measured), (graph, compiled.system, measured))
    ]
    same(both[0].parameters, both[1].parameters)


@pytest.mark.parametrize("verb", ["predict", "sweep", "sensitivity", "optimize", "timeline"])
def test_a_second_call_compiles_nothing(verb, compiled, compilations):
    VERBS[verb](compiled)
    compilations()
    VERBS[verb](compiled)
    assert compilations() == 0


def test_equal_content_is_compiled_once_and_other_content_anew(graph, system):
    first = module.recall(graph, system, pm.Models())
    assert module.recall(pm.load("traces/gpt_dp2_tp2_pp2"), system, pm.Models()) is first
    faster, _ = pm.with_parameters(system, pm.Models(), {"npu.peak_flops": 5e15})
    assert module.recall(graph, faster, pm.Models()) is not first
    assert module.recall(pm.whatif.scale(graph, 2.0), system, pm.Models()) is not first


def test_a_model_class_that_was_defined_again_is_another_model(graph, system):
    def defined(factor):
        @pm.record
        class Mine:
            def time(self, flops, bytes, npu):
                return factor * flops / npu.peak_flops

        return pm.Models(compute=Mine())

    one, two = (pm.predict(graph, system, defined(f)).makespan for f in (1.0, 3.0))
    assert two > one


def test_no_more_than_a_few_are_kept(system):
    for size in range(1, 2 * module.KEPT):
        pm.predict(pm.synth.collective("all_reduce", 8, size << 20).graph(), system, pm.Models())
    assert len(module._kept) <= module.KEPT


@pytest.mark.parametrize("order", list(itertools.permutations(("jit", "grad", "vmap", "evaluate"))))
def test_jit_grad_vmap_and_evaluate_work_in_every_order(order, system):
    graph = pm.synth.collective("all_reduce", 8, 1 << 20).graph()
    c = pm.compile(graph, system, pm.Models())

    def makespan(bandwidth):
        changed, models = pm.with_parameters(c.system, c.models, {"network.0.bandwidth": bandwidth})
        return c.makespan(changed, models)

    calls = {
        "jit": lambda: jax.jit(makespan)(450e9),
        "grad": lambda: jax.grad(makespan)(450e9),
        "vmap": lambda: jax.vmap(makespan)(np.array([450e9, 900e9])),
        "evaluate": lambda: pm.evaluate(c).makespan,
    }
    found = {name: np.asarray(calls[name]()) for name in order}
    step = 1e-4 * 450e9
    slope = float(makespan(450e9 + step) - makespan(450e9 - step)) / (2 * step)
    assert found["jit"] == pytest.approx(found["evaluate"], rel=1e-12)
    assert found["vmap"][0] == pytest.approx(found["evaluate"], rel=1e-12)
    assert found["grad"].item() == pytest.approx(slope, rel=1e-6)


def test_it_and_a_prediction_are_pickled(compiled):
    p = pm.predict(compiled)
    again, predicted = pickle.loads(pickle.dumps((compiled, p)))
    assert pm.predict(again).makespan == p.makespan == predicted.makespan
    pd.testing.assert_frame_equal(pm.timeline(predicted), pm.timeline(p))


def test_objects_show_themselves_in_a_few_lines(graph, compiled):
    best = pm.optimize(compiled, bounds=BOUNDS)
    shown = [graph, compiled, compiled.system, pm.predict(compiled), best]
    shown.append(
        pm.calibrate(
            [(compiled, 3 * pm.predict(compiled).makespan)],
            compiled.system,
            parameters=["compute.efficiency"],
            models=pm.Models(),
        )
    )
    for thing in shown:
        text = repr(thing)
        assert len(text) < 2000, type(thing)
        assert text.count("\n") < 25, type(thing)
        assert thing._repr_html_().startswith("<table"), type(thing)
    assert "gpt_dp2_tp2_pp2" in repr(compiled)
    assert "ms" in repr(pm.predict(compiled))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda c, g, s: pm.sweep(c), "the points are missing"),
        (lambda c, g, s: pm.sweep(g, s), "the points are missing"),
        (lambda c, g, s: pm.sweep(g), "the system is missing"),
        (lambda c, g, s: pm.sensitivity(c, s), "brings its system and models"),
        (lambda c, g, s: pm.optimize(c, bounds=BOUNDS, models=pm.Models()), "brings its system"),
        (lambda c, g, s: pm.predict(g), "the system is missing"),
    ],
)
def test_too_much_or_too_little_is_said(call, said, compiled, graph, system):
    with pytest.raises(pm.InputError, match=said):
        call(compiled, graph, system)


def test_a_compiled_graph_is_evaluated_at_another_system(compiled):
    faster, models = pm.with_parameters(compiled.system, compiled.models, {"npu.peak_flops": 5e15})
    assert pm.predict(compiled, faster, models).makespan < pm.predict(compiled).makespan
    assert isinstance(compiled.graph, Graph)
