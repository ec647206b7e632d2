"""Runs of tasks in the place of tasks: the same schedules to the bit, ties and tasks without duration included."""

import numpy as np
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.schedule import contraction
from perfmodel.schedule.own_schedules import OwnSchedules, digest_of
from perfmodel.vocabulary import NodeType
from perfmodel.workload.columns import RankColumns
from tests.handmade import coll, comp, write
from tests.oracle_case import cases, compile_eagerly, repeatable

SYSTEM = System(NPU(1e12, 1e12), (Dimension(1e9, 0.0, "switch", 2),), name="by hand")


def schedules(folder, *nodes) -> OwnSchedules:
    return pm.compile(pm.load(write(folder, [list(nodes)] * 2)), SYSTEM).own.schedules


def test_kernels_one_after_the_other_are_one_run(tmp_path):
    found = schedules(tmp_path, comp(1), comp(2, deps=[0]), comp(3, deps=[1]), comp(4, deps=[2]))
    assert len(found.tasks) == 4
    assert len(found) == 1
    assert (found.runs.tasks.resource == -1).all()
    assert len(found.runs.more) == 3


def test_kernels_that_contend_keep_their_resource(tmp_path):
    """The second and third follow the first in any order; the fourth follows both."""
    found = schedules(tmp_path, comp(1), comp(2, deps=[0]), comp(3, deps=[0]), comp(4, deps=[1, 2]))
    assert len(found) == 4
    assert (found.runs.tasks.resource >= 0).tolist() == [False, True, True, False]


def test_a_kernel_that_a_collective_waits_for_ends_its_run(tmp_path):
    found = schedules(
        tmp_path, comp(1), comp(2, deps=[0]), coll(deps=[1]), comp(3, deps=[1]), comp(4, deps=[3])
    )
    assert found.runs.run.tolist() == [0, 0, 1, 2, 2]


def test_an_implied_prerequisite_parts_no_run(tmp_path):
    found = schedules(tmp_path, comp(1), comp(2, deps=[0]), comp(3, deps=[0, 1]))
    assert len(found) == 1


def test_durations_of_a_run_are_added_one_after_the_other(tmp_path):
    found = schedules(tmp_path, comp(1), comp(2, deps=[0]), comp(3, deps=[1]))
    costs = np.array([[0.1], [0.2], [0.3]])
    assert found.makespans(costs)[0].item() == (0.1 + 0.2) + 0.3 != 0.1 + (0.2 + 0.3)
    assert found.makespans(costs, paths=True)[2].tolist() == [[1], [1], [1]]


def test_designs_on_which_a_run_ends_with_nothing_are_scheduled_by_task(tmp_path):
    found = schedules(tmp_path, comp(1), comp(2, deps=[0]), comp(3, deps=[1]))
    costs = np.array([[1.0, 1.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 0.0]])
    assert found.runs.stands(costs, costs.sum(axis=0)).tolist() == [True, True, False]
    assert found.makespans(costs)[0].tolist() == [3.0, 2.0, 1.0]


def test_graphs_that_are_too_large_stay_as_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(contraction, "MOST_TASKS", 3)
    nodes = comp(1), comp(2, deps=[0]), comp(3, deps=[1]), comp(4, deps=[2])
    assert len(schedules(tmp_path, *nodes)) == 4


@pytest.mark.filterwarnings("ignore:.*above 1. a fraction of a rate")
@given(st.one_of(cases(), cases(chained=True)), st.integers(0, 2**32))
@repeatable(100)
def test_runs_have_the_schedules_of_their_tasks(case, seed):
    """Small whole costs, zero among them, so that ties are everywhere, and any costs."""
    if case.times is None:
        return
    compiled = compile_eagerly(case.graph, case.system, case.models)
    found = compiled.own.schedules
    draw = np.random.default_rng(seed)
    whole = draw.integers(0, 4, (len(compiled.category), 8)).astype(float)
    costs = np.concatenate([whole, whole * draw.uniform(0.5, 2, whole.shape)], axis=1)
    makespan, differs, counts = found.makespans(costs, paths=True)
    expected, others, _ = found.by_task.makespans(costs, paths=True)
    np.testing.assert_array_equal(makespan, expected)
    np.testing.assert_array_equal(differs, others)
    ended = np.isfinite(makespan)
    np.testing.assert_allclose((counts * costs).sum(axis=0)[ended], makespan[ended], rtol=1e-12)
    again, digests = found.digests(costs, 1)
    np.testing.assert_array_equal(again, makespan)
    _, orders, instances = found.by_task.orders(costs, 1)
    for d in np.flatnonzero(ended):
        order, instance = found.runs.order(orders[d]), found.runs.instance(instances[d])
        assert digests[d] == digest_of(order, instance)
    event(f"fewer runs than tasks: {len(found) < len(found.tasks)}, others: {others.any()}")


def test_a_receive_that_waits_for_its_own_send_is_posted_when_that_has_ended():
    """Two equal ranks are one, and so are their messages. The second kernel waits for the send, the first one for the
    receive, which ends in the next pass of the same moment."""
    ranks = [
        RankColumns(
            id=[1, 2, 3, 4, 5],
            type=[NodeType.COMM_SEND, NodeType.COMM_RECV, *[NodeType.COMP] * 3],
            flops=[-1, -1, 1, 2, 3],
            bytes=[-1, -1, 1, 1, 1],
            size=[10**9, 10**9, -1, -1, -1],
            peer=[1 - rank, 1 - rank, -1, -1, -1],
            resource=[0, -1, 0, 0, 1],
            resources=("stream 7", "stream 8"),
            edge_from=[0, 1, 0, 3],
            edge_to=[1, 2, 3, 4],
        )
        for rank in range(2)
    ]
    compiled = pm.compile(pm.Graph.from_ranks(ranks), SYSTEM)
    assert len(compiled.representative) == 1
    found = compiled.own.schedules
    row = dict(zip(range(5), found.tasks.cost.tolist()))
    costs = np.zeros((len(compiled.category), 1))
    costs[[row[0], row[2], row[3], row[4]], 0] = 1.0, 2.0, 4.0, 8.0
    assert found.makespans(costs)[0].item() == 1.0 + 4.0 + 8.0
    assert found.by_task.makespans(costs)[0].item() == 1.0 + 4.0 + 8.0
