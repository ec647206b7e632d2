"""Every way of answering a design gives what the simulation of it gives, on random graphs, both modes and backends."""

import itertools
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import assume, event, given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.analysis.evaluation import Evaluator
from perfmodel.errors import DeadlockError, InputError
from tests import random_graphs
from tests.agreement.test_oracle_designs import designs, table
from tests.agreement.ways import answers, false_answers
from tests.astra_workload import SYSTEM, implementation, network
from tests.oracle_case import cases, compile_eagerly, repeatable

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*above 1. a fraction of a rate"),  # random efficiencies
    pytest.mark.filterwarnings("ignore:without effect in ASTRA-sim"),
]

seeds = st.integers(0, 2**32)


def tied(distinct: int, count: int, seed: int) -> np.ndarray:
    """[S, D] small whole numbers, zero among them: ties are everywhere."""
    choice = np.random.default_rng(seed)
    return choice.integers(0, choice.choice([2, 3, 10], count), (distinct, count)).astype(float)


def check(compiled, costs, *, exact: bool) -> set[str]:
    """The ways that knew some design; none of them is false."""
    costs = np.ascontiguousarray(costs)
    simulated = compiled.own(costs, threads=1)[0]
    ended = np.flatnonzero(np.isfinite(simulated))
    ways = set()
    for answer in answers(compiled.own, compiled.events, costs, ended[-3:]):
        assert false_answers(answer, costs, simulated, exact=exact) == []
        ways |= {answer.way} if answer.known.any() else set()
    return ways


@given(cases(), seeds)
@repeatable(40)
def test_every_way_gives_the_simulations_makespans_in_own_mode(case, seed):
    assume(case.times is not None)
    compiled = compile_eagerly(case.graph, case.system, case.models)
    costs = table(compiled, designs(case, seed))
    for way in check(compiled, costs, exact=False):
        event(way)
    ties = tied(len(costs), 8, seed)
    if compiled.graph.programs and not any(
        np.isfinite(p.duration).any() for p in compiled.graph.programs
    ):
        check(compiled, ties, exact=False)


def for_the_simulator(workload: random_graphs.Workload) -> random_graphs.Workload:
    """The same with the work and the collectives that ASTRA-sim takes."""
    for operation in itertools.chain(*workload.ranks):
        had = operation.attributes
        if operation.type == random_graphs.COMP:
            had |= {"num_ops": max(had.get("num_ops", 0), 10**5), "tensor_size": 10**4}
        if operation.type == random_graphs.COLLECTIVE:
            kind, size = had["comm_type"], had["comm_size"]
            had |= {"comm_type": (0, 2, 6, 7)[kind % 4], "comm_size": max(size, 10**5)}
    return workload


@pytest.mark.parametrize("backend", ["unaware", "aware"])
@pytest.mark.parametrize("truncate", [True, False])
def test_every_way_gives_the_simulations_makespans_in_astra_mode(backend, truncate):
    seen = set()

    @given(random_graphs.shapes(ranks=6, recorded="none", streams=False), seeds)
    @repeatable(25)
    def each(shape, seed):
        algorithm = ("ring", "direct")[seed % 2]
        with tempfile.TemporaryDirectory() as folder:
            prefix = for_the_simulator(random_graphs.workload(shape)).write(Path(folder))
            try:
                compiled = pm.compile(
                    *pm.astra.load(
                        prefix,
                        SYSTEM
                        | implementation(algorithm)
                        | {"preferred-dataset-splits": 1 + seed % 4},
                        network((("Ring", "Switch")[seed % 3 > 0], shape.ranks)),
                        comm_group=Path(folder) / "comm_group.json",
                        backend=backend,
                        truncate=truncate,
                    )
                )
            except (DeadlockError, InputError) as error:
                event(str(error).split(")")[-1][:80])
                return
        known = pm.parameters(compiled.system, compiled.models)
        choice = np.random.default_rng(seed)
        values = np.array([float(v) for v in known.values()])[:, None]

        costs = Evaluator(compiled).costs(
            tuple(known), values * np.exp(choice.uniform(-2, 2, (len(values), 8)))
        )
        both = np.concatenate([costs, tied(len(costs), 8, seed)], axis=1)
        seen.update(check(compiled, both, exact=truncate))

    each()
    assert {"frozen", "certificate", "cell"} <= seen
