"""ASTRA mode against runs of the simulator: every case, to the cycle."""

import json
from pathlib import Path

import numpy as np
import pytest

from perfmodel import astra
from perfmodel.astra import event_run
from perfmodel.errors import DeadlockError
from perfmodel.prediction import predict
from tests import astra_reference as reference

FOLDER = "load_prefix_is_also_a_folder"
RUNS = reference.cases("cases.jsonl")
MEMORY_RUNS = reference.cases("memory_cases.jsonl")
FINISHED = [case for case in RUNS + MEMORY_RUNS if case["finished"]]
NEVER_ENDING = [case for case in RUNS + MEMORY_RUNS if not case["finished"]]


def test_the_archive_holds_all_reference_runs():
    assert (len(RUNS), len(MEMORY_RUNS), len(NEVER_ENDING)) == (678, 24, 3)


@pytest.mark.parametrize("case", FINISHED, ids=reference.key)
def test_cycles_exposed_time_and_recorded_order_agree(case):
    lowered = reference.lowered(case)
    cost = lowered.costs()
    run = event_run.run(lowered, cost, record=True)
    assert run.rank_end.tolist() == case["cycles"]
    assert astra.exposed(lowered, cost, run) == case["exposed"]
    events = run.events
    start, finish = reference.longest(cost, events.pred_ptr, events.pred, events.cost)
    assert (start[events.node_first] == run.issue).all()
    assert (finish[events.node_last] == run.finish).all()
    path = astra.along(lowered, run, cost)
    assert path.rank_end.tolist() == case["cycles"]
    assert (path.issue == run.issue).all()
    assert (path.finish == run.finish).all()


CRASHED = [case for case in NEVER_ENDING if case.get("remote_memory") == "per_node"]
"""Runs in which the simulator read a request that it had given back."""


@pytest.mark.parametrize("case", CRASHED, ids=reference.key)
def test_runs_that_crashed_there_on_freed_memory_end_here(case):
    lowered = reference.lowered(case)
    assert event_run.run(lowered, lowered.costs()).ok


@pytest.mark.parametrize(
    "case", [case for case in NEVER_ENDING if case not in CRASHED], ids=reference.key
)
def test_runs_that_never_end_there_end_in_a_diagnosis_here(case):
    lowered = reference.lowered(case)
    run = event_run.run(lowered, lowered.costs())
    assert not run.ok
    with pytest.raises(DeadlockError, match=r"rank \d+: node \d+ .* waits for"):
        astra.deadlock.require_finished(lowered, run)


EXAMPLES = sorted(path.name for path in reference.examples().iterdir())


@pytest.mark.filterwarnings(
    "ignore:without effect|.*custom collective|.*is cut to|.*switches it on"
)
@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != FOLDER])
def test_inputs_that_were_refused_or_taken_otherwise_run_as_there(name, monkeypatch):
    place = reference.examples() / name
    expected = json.loads((place / "expected.json").read_text())
    monkeypatch.chdir(place)
    inputs = (
        expected["prefix"],
        "system.json",
        "network.yml",
        "mem.json" if expected["memory"] else None,
        "groups.json" if expected["groups"] else None,
        expected["backend"],
    )
    more = {
        "queues": expected["queues"],
        "injection_scale": 2.0 if "--injection-scale=2" in expected["flags"] else 1.0,
        "rendezvous": "--rendezvous-protocol=true" in expected["flags"],
    }
    result = astra.simulate(*inputs, **more)
    assert (result.cycles, result.exposed) == (expected["cycles"], expected["exposed"])
    loaded = astra.load(*inputs, truncate=True, **more)
    assert predict(*loaded).makespan == pytest.approx(max(expected["cycles"]) / 1e9, rel=1e-12)


@pytest.mark.filterwarnings("ignore:without effect")
def test_a_prefix_that_is_also_a_folder_loads(monkeypatch):
    monkeypatch.chdir(reference.examples() / FOLDER)
    place = reference.folder()
    files = (place / "system" / "ring_s4_a1.json", place / "network" / "ring8.yml")
    assert predict(*astra.load("all_reduce", *files, truncate=True)).makespan == 64_440e-9
    assert set(astra.simulate("all_reduce", *files).cycles) == {64_440}


@pytest.mark.filterwarnings("ignore:.*custom collective")
def test_a_stray_file_of_a_custom_collective_is_not_read(monkeypatch):
    place = reference.SHARED.parent / "cases" / "astra" / "custom_stray_file"
    if not place.is_dir():
        pytest.skip(f"there is no {place}")
    monkeypatch.chdir(place)
    result = astra.simulate("all_reduce", "system.json", "network.yml")
    expected = json.loads(Path("expected.json").read_text())["cycles"]
    assert result.cycles == expected
    loaded = astra.load("all_reduce", "system.json", "network.yml", truncate=True)
    assert predict(*loaded).makespan == pytest.approx(max(expected) / 1e9)  # without peak-perf


@pytest.mark.parametrize(
    "name", sorted(path.name for path in (reference.folder() / "node_times").iterdir())
)
def test_every_node_is_issued_and_ends_when_it_does_there(name):
    case = json.loads((reference.folder() / "node_times" / name).read_text())
    lowered = reference.lowered(case)
    run = event_run.run(lowered, lowered.costs())
    flat = lowered.flat
    for rank, nodes in enumerate(case["nodes"]):
        here = np.flatnonzero(flat.rank == rank)
        found = zip(flat.node_id[here], run.issue[here], run.finish[here])
        assert sorted(map(list, found)) == sorted(nodes)


@pytest.mark.parametrize("backend", ["unaware", "aware"])
def test_a_custom_collective_replaces_the_algorithm(backend):
    assert reference.custom_collective(backend) == [90_174] * 8


def test_simulate_takes_the_files_and_gives_whole_cycles():
    place = reference.folder()
    with pytest.warns(UserWarning, match="boost-mode"):
        result = astra.simulate(
            place / "traces" / "mem1" / "t",
            place / "system" / "ring_s4_a1.json",
            place / "network" / "ring8.yml",
            place / "remote_memory" / "pool.json",
        )
    case = next(c for c in MEMORY_RUNS if reference.key(c) == "mem1-ring_s4_a1-ring8-pool-unaware")
    assert (result.cycles, result.exposed) == (case["cycles"], case["exposed"])
    nodes = result.nodes()
    assert list(nodes.columns[-2:]) == ["issue_ns", "finish_ns"]
    assert nodes.groupby("rank")["finish_ns"].max().tolist() == case["cycles"]
