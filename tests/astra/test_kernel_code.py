"""The simulator's machine code: parts are compiled once, by themselves, and one process runs what another has kept."""

import json

import pytest

from perfmodel import compiled_code
from perfmodel.astra import kernel
from tests.astra import test_random_runs as random
from tests.test_compiled_later import printed

NUMBER = next(n for n, run in enumerate(random.RUNS) if run["cycles"])
RUN = f"""
import json
from perfmodel.astra import event_run, jit, kernel
from tests.astra import test_random_runs as random

kernel.PLAIN = kernel.allowance._steps = 0  # so that it is compiled
lowered = random.lowered_run(random.RUNS[{NUMBER}])
run = event_run.run(lowered, lowered.costs())
own = [made.fndesc.mangled_name for made in jit._made]
defined = [{{f.name for f in made.library.get_defined_functions()}} for made in jit._made]
print(json.dumps({{
    "cycles": run.rank_end.tolist(),
    "parts": len(own),
    "different": len(set(own)),
    "alone": all(names & set(own) == {{name}} for name, names in zip(own, defined)),
    "loaded": sum(kernel.machine.stats.cache_hits.values()),
}}))
"""


@pytest.fixture(scope="module")
def processes(tmp_path_factory):
    """What two processes say, of which the second finds what the first has kept."""
    folder = tmp_path_factory.mktemp("kept")
    return [json.loads(printed(RUN, folder, PERFMODEL_COMPILE="now")) for _ in range(2)]


def test_each_part_is_compiled_once_and_by_itself(processes):
    first, _ = processes
    assert first["parts"] == first["different"] > 50
    assert first["alone"]


def test_another_process_runs_what_one_has_kept_without_compiling_a_part(processes):
    first, second = processes
    assert (first["loaded"], second["loaded"]) == (0, 1)
    assert second["parts"] == 0
    assert first["cycles"] == second["cycles"] == random.RUNS[NUMBER]["cycles"]


def test_what_is_kept_belongs_to_the_sources_of_all_parts(monkeypatch):
    seen = []
    monkeypatch.setattr(compiled_code, "_hash_of", lambda file: seen.append(file) or "")
    compiled_code.source_key.__wrapped__(kernel.machine)
    names = {file.rsplit("/", 1)[-1].removesuffix(".py") for file in seen}
    assert names >= {
        *("jit", "kernel", "nodes", "stations", "algorithms", "messages", "timers"),
        *("event_recorder", "custom_kernel", "shared_bus"),
    }
