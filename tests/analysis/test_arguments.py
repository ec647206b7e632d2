"""Arguments that are something else than they should be, and workloads in which nothing happens."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.trace import chakra


@pytest.fixture(scope="module")
def graph():
    return synth.collective("all_reduce", 2, 1 << 24).graph()


@pytest.fixture(scope="module")
def system():
    return pm.hardware("dgx-h100", ranks=2)


def test_a_workload_of_metadata_takes_no_time_in_every_verb(system, tmp_path):
    for rank in range(2):
        record = chakra.build(["m"], [1], id=np.array([1]))
        chakra.write_bytes(tmp_path / f"t.{rank}.et", chakra.encode(record))
    graph = pm.load(tmp_path)
    assert pm.predict(graph, system).makespan == 0
    for schedule in ("own", "frozen"):
        table = pm.sweep(
            graph, system, {"npu.peak_flops": [1e14, 1e15]}, schedule=schedule, batch_size=2
        )
        assert table.makespan_s.tolist() == [0, 0]
        assert table.limited_by.tolist() == ["none", "none"]
    with pytest.raises(pm.InputError, match="the makespan is 0 s"):
        pm.optimize(graph, system, bounds={"npu.peak_flops": (1e14, 1e15)})


def test_points_and_bounds_may_carry_units(graph, system):
    points = {"network.0.bandwidth": ["400 GB/s", 2e11], "network.0.latency": "2 us"}
    plain = {"network.0.bandwidth": [4e11, 2e11], "network.0.latency": [2e-6]}
    pd.testing.assert_frame_equal(pm.sweep(graph, system, points), pm.sweep(graph, system, plain))
    text, number = (
        pm.optimize(graph, system, bounds={"network.0.bandwidth": ends}).parameters
        for ends in (("10 GB/s", "1 TB/s"), (1e10, 1e12))
    )
    assert text == number
    box = {"npu.peak_flops": ("1 PFLOP/s", "2 PFLOP/s")}
    pd.testing.assert_frame_equal(pm.sample(box, 8), pm.sample({"npu.peak_flops": (1e15, 2e15)}, 8))
    here, _ = pm.with_parameters(system, None, {"network.0.latency": "3 us"})
    assert here.network[0].latency == 3e-6


@pytest.mark.parametrize(
    ("work", "message"),
    [
        (lambda g, s: pm.sweep(g, s, {"network.0.latency": ["2 GB"]}), r"holds '2 GB'.*measures B"),
        (lambda g, s: pm.sweep(g, s, {"npu.peak_flops": ["-1 FLOP/s"]}), "more than 0"),
        (lambda g, s: pm.sample({"network.0.bandwidth": ("1 GB", "2 GB")}, 4), "measures B, not"),
        (lambda g, s: pm.sample(["npu.peak_flops"], 4), "sample: got list"),
        (lambda g, s: pm.optimize(g, s, bounds=["npu.peak_flops"]), "bounds: got list"),
        (lambda g, s: pm.optimize(g, s, bounds={"npu.peak_flops": "12"}), "two numbers each"),
        (lambda g, s: pm.optimize(g, s, bounds={"npu.peak_flops": (None, 1e15)}), "two numbers"),
        (lambda g, s: pm.with_parameters(s, None, {"npu.peak_flops": None}), "got None"),
        (lambda g, s: pm.sweep("trace", s, {"npu.peak_flops": [1e15]}), "graph: got str 'trace'"),
        (lambda g, s: pm.sweep(g, "dgx-h100", {"npu.peak_flops": [1e15]}), "system: got str"),
        (lambda g, s: pm.predict(s, g), "graph: got System"),
        (lambda g, s: pm.predict(g, s, 3), "got int 3, expected a tree of parameters"),
        (lambda g, s: pm.save(None, "x.npz"), "save: got NoneType"),
        (lambda g, s: pm.whatif.scale(None, 2.0), "graph: got NoneType"),
        (lambda g, s: pm.load(None), "trace: got None"),
        (lambda g, s: pm.load(b"t"), "trace: got b't'"),
        (lambda g, s: pm.load([1, 2]), "trace: got"),
        (lambda g, s: pm.hardware("dgx-h100", dtype="bf61"), "bf16"),
        (lambda g, s: pm.hardware("dgx-h100", ranks=1.5), "1.5 ranks asked for"),
    ],
)
def test_what_is_of_the_wrong_kind_is_one_clear_error(graph, system, work, message):
    with pytest.raises(pm.InputError, match=message):
        work(graph, system)


def test_an_objective_may_have_thousands_of_terms(graph, system):
    terms = " + ".join(["npu.peak_flops * 1e-30"] * 3000)
    best = pm.optimize(
        graph, system, bounds={"network.0.bandwidth": (1e10, 1e12)}, objective=f"time + {terms}"
    )
    assert best.parameters["network.0.bandwidth"] == pytest.approx(1e12, rel=1e-6)


@pytest.mark.parametrize(("name", "given"), [("part", 1e4), ("part", 0), ("threads", 2.5)])
def test_what_counts_something_is_a_whole_number(graph, system, name, given):
    with pytest.raises(pm.InputError, match=f"^{name}: got {given!r}, expected a whole number"):
        pm.sweep(graph, system, {"network.0.bandwidth": [1e9]}, **{name: given})


@pytest.mark.parametrize(
    ("name", "given", "expected"),
    [
        ("breakdown", "no", "True or False"),
        ("collect", 0, "True or False"),
        ("client", "tcp://127.0.0.1:8786", "a distributed.Client"),
    ],
)
def test_what_is_no_switch_or_client_is_said(graph, system, name, given, expected):
    with pytest.raises(pm.InputError, match=f"^{name}: got {given!r}, expected {expected}"):
        pm.sweep(graph, system, {"network.0.bandwidth": [1e9]}, **{name: given})


def test_a_number_too_large_for_any_parameter_is_refused(graph, system):
    with pytest.raises(pm.InputError, match=r"network\.0\.bandwidth: got 1000"):
        pm.sweep(graph, system, {"network.0.bandwidth": [10**400]})
