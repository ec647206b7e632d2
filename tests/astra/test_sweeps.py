"""ASTRA mode at other designs than the one that a trace was lowered at."""

from functools import cache

import jax
import numpy as np
import pytest

from perfmodel.astra import event_run, lower, read_config
from perfmodel.errors import InputError
from tests import astra_reference as reference

jax.config.update("jax_enable_x64", True)

POINTS = reference.cases("sweeps/cases.jsonl")
TRACES = sorted({point["trace"] for point in POINTS})
FIGURES = ("peak_perf_tflops", "local_mem_bw_gbps", "bandwidth_gbps", "latency_ns")


def points(trace):
    return [point for point in POINTS if point["trace"] == trace]


def inputs(trace):
    """System and network of the median design of a trace's sweep."""
    rows = points(trace)
    peak, memory, bandwidth, latency = (float(np.median([r[f] for r in rows])) for f in FIGURES)
    system = reference.folder() / "system" / "ring_s4_a1.json"
    base = reference.config(
        {"system": system.stem, "network": "switch8", "backend": "unaware"}
    ).system
    data = {
        "preferred-dataset-splits": base.splits,
        "endpoint-delay": base.endpoint_delay,
        "collective-optimization": "localBWAware",
        "peak-perf": peak,
        "local-mem-bw": memory,
        "roofline-enabled": 1,
        **{f"{key}-implementation": ["ring"] for key in base.algorithms},
    }
    network = {
        "topology": ["Switch"],
        "npus_count": [rows[0]["npus"]],
        "bandwidth": [bandwidth],
        "latency": [latency],
    }
    return data, network


@cache
def median(trace):
    """A trace lowered at the median design of its sweep."""
    ranks = points(trace)[0]["npus"]
    return lower(reference.flat(trace, ranks), read_config(*inputs(trace)))


def designs(trace):
    peak, memory, bandwidth, latency = (
        np.array([point[figure] for point in points(trace)]) for figure in FIGURES
    )
    return {
        "npu.peak_flops": peak * 1e12,
        "npu.memory_bandwidth": memory * 1e9,
        "network.0.bandwidth": bandwidth * 2.0**30,
        "network.0.latency": latency * 1e-9,
    }


def test_there_are_336_points_of_7_traces():
    assert (len(POINTS), len(TRACES)) == (336, 7)


@pytest.mark.parametrize("trace", TRACES)
def test_own_schedules_agree_at_every_point(trace):
    lowered = median(trace)
    ends, _ = event_run.run_many(lowered, lowered.costs(designs(trace)))
    assert ends.T.tolist() == [point["cycles"] for point in points(trace)]


@pytest.mark.parametrize("trace", TRACES)
def test_the_recorded_order_is_exact_wherever_the_digest_is_equal(trace):
    lowered = median(trace)
    cost = lowered.costs(designs(trace))
    ends, digests = event_run.run_many(lowered, cost)
    run = event_run.run(lowered, lowered.costs(), record=True)
    kept = np.flatnonzero(digests == np.uint64(run.digest))[:6]
    other = int(np.argmin(ends.max(0)))
    events = event_run.run(lowered, cost[:, other], record=True).events
    for graph, design in [(run.events, d) for d in kept] + [(events, other)]:
        _, finish = reference.longest(cost[:, design], graph.pred_ptr, graph.pred, graph.cost)
        by_rank = [finish[graph.node_last[lowered.flat.rank == r]].max() for r in range(len(ends))]
        assert by_rank == ends[:, design].tolist()


def test_without_truncation_little_changes():
    error = []
    for trace in TRACES:
        if trace.startswith("stg_") and not reference.SHARED.is_dir():
            pytest.skip("the bounds are of all traces, some of which ../shared has")
        lowered = median(trace)
        whole, _ = event_run.run_many(lowered, lowered.costs(designs(trace)))
        smooth, _ = event_run.run_many(
            lowered, np.asarray(lowered.costs(designs(trace), truncate=False))
        )
        error += np.abs(smooth.max(0) / whole.max(0) - 1).tolist()
    assert np.median(error) < 5e-5
    assert np.quantile(error, 0.95) < 5e-4
    assert max(error) < 5e-3


def test_one_design_at_a_time_and_many_are_the_same():
    lowered = median("fuzz3")
    values = {path: value[:5] for path, value in designs("fuzz3").items()}
    many, digests = event_run.run_many(lowered, lowered.costs(values), threads=2)
    for d in range(5):
        run = event_run.run(
            lowered, lowered.costs({path: value[d] for path, value in values.items()})
        )
        assert run.rank_end.tolist() == many[:, d].tolist()
        assert run.digest == int(digests[d])


def test_the_digest_does_not_depend_on_recording_and_tells_orders_apart():
    lowered = median("fuzz3")
    cost = lowered.costs()
    assert event_run.run(lowered, cost).digest == event_run.run(lowered, cost, record=True).digest
    _, digests = event_run.run_many(lowered, lowered.costs(designs("fuzz3")))
    assert len(set(digests.tolist())) > 10


def test_smooth_costs_can_be_differentiated_in_every_parameter():
    lowered = median("llm_pp8")
    cost = lowered.costs()
    graph = event_run.run(lowered, cost, record=True).events

    def total(values):
        return lowered.costs(values, truncate=False)[graph.cost[graph.cost >= 0]].sum()

    values = dict(lowered.parameters)
    gradient = jax.grad(total)(values)
    for path, value in values.items():
        step = max(abs(value), 1e-9) * 1e-6
        up, down = total({**values, path: value + step}), total({**values, path: value - step})
        numeric = float(up - down) / (2 * step)
        assert float(gradient[path]) == pytest.approx(numeric, rel=1e-4)


def test_a_parameter_that_the_system_does_not_have_is_named():
    with pytest.raises(InputError, match=r"unknown parameter 'network\.1\.latency'"):
        median("llm_pp8").costs({"network.1.latency": 1e-6})


def test_a_negative_or_infinite_duration_is_refused():
    lowered = median("llm_pp8")
    with pytest.raises(InputError, match="negative or not finite"):
        event_run.run(lowered, -lowered.costs())
    with pytest.raises(InputError, match=r"expected \d+ rows"):
        event_run.run(lowered, np.ones(3))
