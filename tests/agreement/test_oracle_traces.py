"""The package against the oracle on real traces and on the examples that come with it."""

from dataclasses import replace
from pathlib import Path

import pytest

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, RemoteMemory, System
from tests import oracle, oracle_costs
from tests.oracle_case import assert_close

EXAMPLES = Path(__file__).resolve().parents[2] / "traces"
STAGE = ("stg_gpt_dp2tp2pp2", "stg_llama_fsdp8", "llm_dp2tp2pp2", "fuzz0", "mem1")
NPU_ = NPU(312e12, 2e12)


def machine(ranks: int) -> System:
    """Nodes of up to four on a ring, joined by a switch, with remote memory."""
    inner = next(n for n in (4, 2, 1) if ranks % n == 0)
    return System(
        NPU_,
        (Dimension(200e9, 5e-7, "ring", inner), Dimension(25e9, 3e-6, "switch", ranks // inner)),
        RemoteMemory(50e9, 1e-6),
        name="ring and switch",
    )


def compare(graph, models=None) -> None:
    """Start and finish of all nodes, merged, and ranks one by one."""
    models = models or pm.Models()
    system = machine(graph.ranks)
    nodes = oracle.nodes_of(graph)
    costs = oracle_costs.costs(graph, nodes, system, models)
    times = oracle.schedule(nodes, *costs)
    for merge_ranks in (True, False):
        p = pm.evaluate(pm.compile(graph, system, models, merge_ranks=merge_ranks))
        assert_close(p.start, times.start, times.makespan, graph.source)
        assert_close(p.finish, times.finish, times.makespan, graph.source)
        assert p.makespan == pytest.approx(times.makespan, rel=1e-9)
        path = pm.critical_path(p)
        assert path["on_path_s"].sum() == pytest.approx(times.makespan, rel=1e-9)
    again = oracle.longest_path(nodes, times, *costs)
    assert again.finish == times.finish


@pytest.mark.parametrize("name", STAGE)
def test_reference_traces_take_what_the_oracle_says(shared, name):
    compare(pm.load(shared / "reference" / "astra-sim" / "traces" / name))


@pytest.mark.parametrize("prefer", ["work", "recorded"])
def test_the_recorded_pytorch_pair_takes_what_the_oracle_says(shared, prefer):
    folder = shared / "reference" / "chakra" / "pytorch_2rank"
    compare(pm.load(folder, group={"2": [0, 1]}), replace(pm.Models(), prefer=prefer))


@pytest.mark.parametrize(
    "folder", sorted(p for p in EXAMPLES.iterdir() if p.is_dir()), ids=lambda p: p.name
)
def test_example_traces_take_what_the_oracle_says(folder):
    compare(pm.load(folder))
