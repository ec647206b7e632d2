"""ASTRA mode against the simulator on random workloads and configurations that the reference runs do not cover.

Windows, masks, several queues, shuffled groups, flat variants, 1 to 4 dimensions, remote memory, replay, ties,
nodes without work, ranks that deadlock: 582 runs of ASTRA-sim 518bd51, kept with their workloads.
"""

import gzip
import json

import numpy as np
import pytest

from perfmodel import astra
from perfmodel.astra import event_run
from tests import astra_reference as reference
from tests.astra_workload import prepare

ARCHIVE = reference.HERE / "data" / "astra" / "random.json.gz"
RUNS = json.loads(gzip.decompress(ARCHIVE.read_bytes()))
BLOCK = 20


def lowered_run(run):
    keys = dict(run["keys"])
    groups = {name: tuple(members) for name, members in keys.pop("groups").items()}
    dimensions = [(name, size) for name, size in run["dimensions"]]
    return prepare(run["nodes"], *dimensions, groups=groups, **keys)


def test_the_runs_cover_what_the_reference_runs_do_not():
    names = [
        name
        for run in RUNS
        for key, value in run["keys"].items()
        if key.endswith("implementation")
        for name in value
    ]
    assert {"direct1", "direct2", "oneRing", "oneDirect3", "oneHalvingDoubling"} <= set(names)
    assert {run["keys"]["queues"] for run in RUNS} == {1, 2, 3, 4}
    assert {len(run["dimensions"]) for run in RUNS} == {1, 2, 3, 4}
    assert {run["keys"]["backend"] for run in RUNS} == {"unaware", "aware"}
    masked = [
        n for run in RUNS for nodes in run["nodes"] for n in nodes if n.get("involved", -1) > 0
    ]
    assert len(masked) > 100
    assert sum(run["cycles"] is None for run in RUNS) == 60
    assert len(RUNS) == 582


@pytest.mark.parametrize("block", range(0, len(RUNS), BLOCK))
def test_random_runs_agree_to_the_cycle_and_hang_where_they_hang_there(block):
    for number, run in enumerate(RUNS[block : block + BLOCK], block):
        lowered = lowered_run(run)
        cost = lowered.costs()
        found = event_run.run(lowered, cost)
        if run["cycles"] is None:
            assert not found.ok, number
            assert "rank" in astra.diagnose(lowered, found), number
            continue
        assert found.rank_end.tolist() == run["cycles"], number
        assert astra.exposed(lowered, cost, found) == run["exposed"], number


@pytest.mark.parametrize("number", range(0, len(RUNS), 6))
def test_the_recorded_order_of_random_runs_gives_their_times(number):
    lowered = lowered_run(RUNS[number])
    cost = lowered.costs()
    run = event_run.run(lowered, cost, record=True)
    if not run.ok:
        return
    events = run.events
    start, finish = reference.longest(cost, events.pred_ptr, events.pred, events.cost)
    assert np.array_equal(start[events.node_first], run.issue)
    assert np.array_equal(finish[events.node_last], run.finish)
