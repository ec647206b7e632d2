"""ASTRA mode against the simulator in its other modes: custom collectives, rendezvous, shared bus, scaled delays.

120 runs of a build of ASTRA-sim 518bd51 on random workloads and systems, kept with their inputs.
"""

import json

import pytest

from perfmodel import astra
from perfmodel.astra import event_run
from tests import astra_reference as reference

PLACE = reference.modes()
RUNS = sorted(path.name for path in PLACE.iterdir())
BLOCK = 20


def lowered_run(name):
    expected = json.loads((PLACE / name / "expected.json").read_text())
    keys = ("backend", "queues", "injection_scale", "rendezvous")
    config = astra.read_config(
        "system.json", "network.yml", "mem.json", **{key: expected[key] for key in keys}
    )
    flat = astra.read_flat("t", config.network.ranks, "groups.json")
    return expected, astra.lower(flat, config)


def test_the_runs_cover_the_modes(monkeypatch):
    seen = {"custom": 0, "per_node": 0, "rendezvous": 0, "bus": 0, "aware": 0, "scaled": 0}
    for name in RUNS:
        system = json.loads((PLACE / name / "system.json").read_text())
        expected = json.loads((PLACE / name / "expected.json").read_text())
        seen["custom"] += any(key.endswith("-custom") for key in system)
        seen["per_node"] += "per-node-custom-implementation" in system
        seen["bus"] += int(system.get("model-shared-bus", 0)) == 1
        seen["rendezvous"] += expected["rendezvous"]
        seen["aware"] += expected["backend"] == "aware"
        seen["scaled"] += expected["injection_scale"] != 1
    assert len(RUNS) == 120
    assert all(count >= 10 for count in seen.values()), seen


@pytest.mark.parametrize("block", range(0, len(RUNS), BLOCK))
def test_runs_in_other_modes_agree_to_the_cycle(block, monkeypatch):
    for name in RUNS[block : block + BLOCK]:
        monkeypatch.chdir(PLACE / name)
        expected, lowered = lowered_run(name)
        cost = lowered.costs()
        run = event_run.run(lowered, cost, record=True)
        assert run.rank_end.tolist() == expected["cycles"], name
        assert astra.exposed(lowered, cost, run) == expected["exposed"], name
        path = astra.along(lowered, run, cost)
        assert path.rank_end.tolist() == run.rank_end.tolist(), name
