"""The simulator's machine code: parts are compiled once, by themselves, and one process runs what another has kept."""

import json
from collections import Counter

import pytest

from perfmodel import compiled_code
from perfmodel.astra import event_run, kernel, layout
from tests import astra_reference as reference
from tests.astra import test_mode_runs as modes
from tests.astra import test_random_runs as random
from tests.test_compiled_later import printed

NUMBER = next(n for n, run in enumerate(random.RUNS) if run["cycles"])
RUN = f"""
import json
from perfmodel.astra import event_run, jit, kernel
from tests.astra import test_random_runs as random

for allowance in kernel.allowances:
    allowance.spend(kernel.PLAIN)  # so that it is compiled
lowered = random.lowered_run(random.RUNS[{NUMBER}])
run = event_run.run(lowered, lowered.costs())
own = [made.fndesc.mangled_name for made in jit._made]
defined = [{{f.name for f in made.library.get_defined_functions()}} for made in jit._made]
print(json.dumps({{
    "cycles": run.rank_end.tolist(),
    "parts": [made.fndesc.qualname for made in jit._made],
    "alone": all(names & set(own) == {{name}} for name, names in zip(own, defined)),
    "loaded": sum(kernel.usual_machine.stats.cache_hits.values()),
}}))
"""
RARE = {
    *("begin_custom", "end_custom", "issue_custom", "chain_ready"),
    *("request_packet", "bus_event", "end_bus_event", "take_turn"),
    *("begin_tree", "fill_tree", "after_handshake"),
    *("begin_transfer", "free_server"),
}


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes say, of which the second finds what the first has kept."""
    folder = tmp_path_factory.mktemp("kept")
    return [json.loads(printed(RUN, folder, PERFMODEL_COMPILE="now")) for _ in range(2)]


def test_each_part_is_compiled_once_and_by_itself(processes):
    first, _ = processes
    assert len(first["parts"]) == len(set(first["parts"])) > 50
    assert first["alone"]


def test_rare_parts_are_not_compiled_for_a_workload_that_needs_none(processes):
    first, _ = processes
    assert {"send", "post", "begin_phase", "fill_direct", "enter_link"} <= set(first["parts"])
    assert not RARE & set(first["parts"])


def test_another_process_runs_what_one_has_kept_without_compiling_a_part(processes):
    first, second = processes
    assert (first["loaded"], second["loaded"]) == (0, 1)
    assert second["parts"] == []
    assert first["cycles"] == second["cycles"] == random.RUNS[NUMBER]["cycles"]


def test_what_is_kept_belongs_to_the_sources_of_all_parts(monkeypatch):
    seen = []
    monkeypatch.setattr(compiled_code, "_hash_of", lambda file: seen.append(file) or "")
    for machine in kernel.machines:
        seen.clear()
        compiled_code.source_key.__wrapped__(machine)
        names = {file.rsplit("/", 1)[-1].removesuffix(".py") for file in seen}
        assert names >= {
            *("jit", "kernel", "nodes", "stations", "algorithms", "messages", "timers"),
            *("event_recorder", "custom_kernel", "shared_bus"),
        }


@pytest.mark.parametrize("backend", ["unaware", "aware"])
@pytest.mark.parametrize("trace", ["llm_dp2tp2pp2", "stg_gpt_dp2tp2pp2"])
def test_steps_of_training_need_no_rare_part(trace, backend):
    case = {"trace": trace, "system": "ring_s4_a1", "network": "switch8", "backend": backend}
    assert reference.lowered(case).tables.words[layout.T_RARE] == 0


def workloads(monkeypatch):
    """Random workloads, some of which need rare parts."""
    for name in modes.RUNS:
        monkeypatch.chdir(modes.PLACE / name)
        yield modes.lowered_run(name)[1]
    yield from map(random.lowered_run, random.RUNS[::4])


def test_the_usual_simulator_refuses_workloads_that_need_rare_parts_and_no_others(monkeypatch):
    monkeypatch.setattr(kernel, "is_kept", lambda *_: True)
    refused = Counter()
    for lowered in workloads(monkeypatch):
        words = lowered.tables.words
        known, words[layout.T_RARE] = bool(words[layout.T_RARE]), 0
        try:
            event_run.run(lowered, lowered.costs())
        except RuntimeError as error:
            assert known
            part, _, reason = str(error).partition(": ")
            assert reason == "a part that was left out"
            refused[part] += 1
    assert set(refused) >= {
        *("begin_custom", "request_packet", "after_handshake", "begin_transfer", "begin_tree")
    }


ALGORITHMS = """
import json
from perfmodel.astra import event_run, kernel
from tests.astra_workload import collective, prepare

for allowance in kernel.allowances:
    allowance.spend(kernel.PLAIN)  # so that it is compiled
found = []
for name in {names}:
    ranks = [[collective(1, 0, 100_000)] for _ in range(4)]
    lowered = prepare(ranks, ("Switch", 4), all_reduce_implementation=[name])
    found.append(event_run.run(lowered, lowered.costs()).rank_end.tolist())
loaded = [sum(machine.stats.cache_hits.values()) for machine in kernel.machines]
print(json.dumps([found, loaded]))
"""


def test_what_two_processes_have_kept_runs_side_by_side_in_a_third(tmp_path):
    def run(*names):
        return json.loads(
            printed(ALGORITHMS.format(names=names), tmp_path, PERFMODEL_COMPILE="now")
        )

    (usual,), _ = run("ring")
    (rare,), _ = run("doubleBinaryTree")
    assert run("ring", "doubleBinaryTree", "ring") == [[usual, rare, usual], [1, 1]]
