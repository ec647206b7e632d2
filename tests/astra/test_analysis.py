"""What people do with a sweepable graph, on ASTRA-sim's inputs."""

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.analysis.inspection import inspect_trace
from tests import astra_reference as reference
from tests.handmade import coll, comp, write

pytestmark = pytest.mark.filterwarnings("ignore:without effect in ASTRA-sim")


def inputs(truncate=False):
    place = reference.folder()
    return pm.astra.load(
        place / "traces" / "all_reduce_8_1M" / "t",
        place / "system" / "ring_s4_a1.json",
        place / "network" / "ring8.yml",
        truncate=truncate,
    )


@pytest.mark.parametrize("truncate", [False, True])
def test_a_bandwidth_is_optimised_in_whole_nanoseconds_too(truncate):
    graph, system, models = inputs(truncate)
    best = pm.optimize(
        graph, system, models=models, bounds={"network.0.bandwidth": (1e9, 1e11)}, starts=2
    )
    assert best.parameters["network.0.bandwidth"] == pytest.approx(1e11, rel=1e-9)
    at = pm.with_parameters(system, models, best.parameters)
    assert best.makespan == pytest.approx(pm.predict(graph, *at).makespan, rel=5e-3)  # truncation


def test_factors_that_the_mode_does_not_model_are_refused():
    graph, system, models = inputs()
    for other in (pm.whatif.scale(graph, 2.0), pm.whatif.scale(graph, 0.5, ranks=[3])):
        with pytest.raises(pm.InputError, match="not modelled in ASTRA-sim mode"):
            pm.predict(other, system, models)


def test_a_truncating_prediction_ends_with_the_cycles_of_simulate():
    graph, system, models = inputs(truncate=True)
    place = reference.folder()
    cycles = pm.astra.simulate(
        place / "traces" / "all_reduce_8_1M" / "t",
        place / "system" / "ring_s4_a1.json",
        place / "network" / "ring8.yml",
    ).cycles
    assert pm.predict(graph, system, models).makespan == max(cycles) * 1e-9
    table = pm.sweep(graph, system, {"network.0.latency": [0.0, 5e-7]}, models=models)
    assert np.isfinite(table.makespan_s).all()


def test_inspect_finds_what_the_simulator_leaves_silent(tmp_path):
    calls = [
        coll(group="1"),
        comp(flops=5, size=0),
        comp(flops=0, size=8),
        coll(kind="barrier", size=0),
        coll() | {"is_cpu": 1},
    ]
    folder = write(tmp_path, [calls, [*calls[1:]]], {"1": [0]})
    report = inspect_trace(folder, astra_sim=True)
    found = {(p.code, p.rank): p.nodes for p in report.findings if p.code.startswith("astra")}
    assert found == {
        ("astra-group-of-one", 0): (0,),
        ("astra-no-size", 0): (1,),
        ("astra-no-operations", 0): (2,),
        ("astra-collective", 0): (3,),
        ("astra-cpu-communication", 0): (4,),
        ("astra-no-size", 1): (0,),
        ("astra-no-operations", 1): (1,),
        ("astra-collective", 1): (2,),
        ("astra-cpu-communication", 1): (3,),
    }
    assert report.good
    assert not inspect_trace(folder, astra_sim=True, strict=True).good
    assert not [p for p in inspect_trace(folder).findings if p.code.startswith("astra")]
