"""`Graph.from_ranks`: the entrance for readers and generators, and what it carries: kinds, latencies, host work."""

from dataclasses import replace

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.machine.system import NPU, Dimension, System
from perfmodel.schedule import tasks
from perfmodel.vocabulary import COLLECTIVES, DTYPES, OPERATIONS, NodeType
from perfmodel.workload import join
from perfmodel.workload.columns import RankColumns
from tests.benchmarks.unlike import unlike_ranks

SYSTEM = System(
    NPU(1e12, 1e12, dtype_ratios=(("bf16", 1.0), ("fp8", 2.0))),
    (Dimension(1e9, 1e-6, "switch", 2),),
    dtype="bf16",
)
COMP, SEND, RECV, COLL = (
    NodeType.COMP,
    NodeType.COMM_SEND,
    NodeType.COMM_RECV,
    NodeType.COMM_COLL,
)


def one_rank(**columns):
    return pm.Graph.from_ranks([RankColumns(**columns)])


def alone(system=SYSTEM):
    return System(system.npu, (), dtype="bf16")


def test_files_and_columns_give_the_same_graph():
    graph = pm.load("traces/all_reduce_4")
    ranks = [
        RankColumns(id=[1], type=[COLL], name=["all_reduce"], comm_type=[0], size=[2**20])
        for _ in range(4)
    ]
    size = int(graph.programs[0].size[0])
    ranks = [
        RankColumns(
            id=graph.labels[0].node_id,
            type=[COLL],
            name=graph.labels[0].names,
            comm_type=[0],
            size=[size],
        )
    ] * 4
    made = pm.Graph.from_ranks(ranks)
    system = pm.hardware("dgx-h100")
    assert pm.predict(made, system).makespan == pm.predict(graph, system).makespan
    assert made.nodes.equals(graph.nodes)


def test_an_edge_may_take_time():
    graph = one_rank(
        id=[1, 2],
        type=[COMP, COMP],
        duration=[1.0, 2.0],
        resource=[0, 1],
        resources=("thread 1", "stream 7"),
        edge_from=[0, 0],
        edge_to=[1, 1],
        edge_latency=[0.25, 0.5],
    )
    p = pm.predict(graph, alone())
    assert p.makespan == 3.5
    assert p.start.tolist() == [0.0, 1.5]
    assert p.slack.tolist() == [0.0, 0.0]
    assert pm.critical_path(p)["node_id"].tolist() == [1, 2]


@pytest.mark.parametrize("seed", range(20))
def test_latencies_are_what_nodes_of_that_length_on_resources_of_their_own_are(seed):
    rng = np.random.default_rng(seed)
    n = 12
    edges = [(a, b) for b in range(n) for a in range(b) if rng.random() < 0.3]
    source, target = (np.array(part, int) for part in zip(*edges))
    latency = np.where(rng.random(len(edges)) < 0.5, rng.random(len(edges)), 0.0)
    lasts, units = rng.random(n), rng.integers(0, 3, n)
    slow = np.flatnonzero(latency)
    resources = ("a", "b", "c", *(f"edge {k}" for k in slow))
    short = one_rank(
        id=np.arange(1, n + 1),
        type=[COMP] * n,
        duration=lasts,
        resource=units,
        resources=("a", "b", "c"),
        edge_from=source,
        edge_to=target,
        edge_latency=latency,
    )
    between = n + np.arange(len(slow))
    quick = latency == 0
    long = one_rank(
        id=np.arange(1, n + len(slow) + 1),
        type=[COMP] * (n + len(slow)),
        duration=[*lasts, *latency[slow]],
        resource=[*units, *(3 + np.arange(len(slow)))],
        resources=resources,
        edge_from=[*source[quick], *source[slow], *between],
        edge_to=[*target[quick], *between, *target[slow]],
    )
    here, there = pm.predict(short, alone()), pm.predict(long, alone())
    assert here.makespan == pytest.approx(there.makespan, rel=1e-12)
    np.testing.assert_allclose(here.start, there.start[:n], rtol=1e-12)
    with pytest.warns(UserWarning, match="no node answers to npu.peak_flops"):
        swept = pm.sweep(short, alone(), {"npu.peak_flops": [1e12, 2e12]})
    np.testing.assert_allclose(swept["makespan_s"], here.makespan, rtol=1e-12)


def test_a_number_format_of_its_own_has_its_own_peak():
    fp8, bf16 = DTYPES.index("fp8"), DTYPES.index("bf16")
    graph = one_rank(id=[1, 2, 3], type=[COMP] * 3, flops=[10**12] * 3, dtype=[-1, bf16, fp8])
    p = pm.predict(graph, alone())
    assert p.duration.tolist() == [1.0, 1.0, 0.5]
    swept = pm.sweep(graph, alone(), {"npu.peak_flops": [2e12]})
    assert swept["makespan_s"].tolist() == [1.25]
    missing = one_rank(id=[1], type=[COMP], flops=[1], dtype=[DTYPES.index("fp4")])
    with pytest.raises(pm.InputError, match=r"dtype 'fp4': .* it has bf16, fp8"):
        pm.predict(missing, alone())


@pm.record
class KnowsProducts:
    """A model that times products by their sizes and everything else from FLOP."""

    def time(self, flops, bytes, npu):
        return flops / npu.peak_flops

    def gemm(self, work, npu):
        return work.batch * work.m * work.n * work.k * 1e-9


def test_a_model_is_asked_by_kind_and_falls_back_to_flop_and_bytes():
    gemm, attention = OPERATIONS.index("gemm"), OPERATIONS.index("attention")
    graph = one_rank(
        id=[1, 2, 3],
        type=[COMP] * 3,
        flops=[7, 10**12, 10**12],
        kind=[gemm, attention, 0],
        dimensions=[[2, 10, 20, 30], [1, 8, 8, 64, 64, 64, 1], []],
    )
    p = pm.predict(graph, alone(), pm.Models(compute=KnowsProducts()))
    assert p.duration.tolist() == pytest.approx([12000e-9, 1.0, 1.0])


def test_host_work_is_a_category_of_its_own():
    graph = one_rank(
        id=[1, 2],
        type=[COMP] * 2,
        duration=[1.0, 2.0],
        host=[True, False],
        edge_from=[0],
        edge_to=[1],
    )
    p = pm.predict(graph, alone())
    path = pm.breakdown(p, by="critical_path").iloc[0]
    assert (path.host_s, path.compute_s) == (1.0, 2.0)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"id": [1, 1], "type": [COMP] * 2, "flops": [1, 1]}, "rank 0 node 1: node id occurs more"),
        ({"id": [1], "type": [COMP]}, "compute has neither num_ops"),
        ({"id": [1], "type": [9], "flops": [1]}, "unknown node type"),
        ({"id": [1], "type": [SEND], "size": [8], "peer": [0]}, "its own rank"),
        ({"id": [1], "type": [COLL], "comm_type": [0]}, "no comm_size"),
        ({"id": [1], "type": [COLL], "comm_type": [99], "size": [1]}, "no valid comm_type"),
        (
            {
                "id": [1, 2],
                "type": [COMP] * 2,
                "flops": [1, 1],
                "edge_from": [0, 1],
                "edge_to": [1, 0],
            },
            "depend on each other in a cycle",
        ),
        (
            {
                "id": [1],
                "type": [COLL],
                "comm_type": [0],
                "size": [1],
                "group": [0],
                "group_names": ("g",),
            },
            "unknown group 'g'",
        ),
    ],
)
def test_what_is_wrong_is_said_with_rank_and_node(columns, said):
    with pytest.raises(pm.InputError, match=said):
        one_rank(**columns)


@pytest.mark.parametrize(
    ("columns", "said"),
    [
        ({"type": [COMP, COMP]}, r"type has shape \(2,\), expected \(1,\)"),
        ({"flops": [0.5]}, "flops holds numbers that are no int64"),
        ({"flops": ["many"]}, "flops holds 'many', expected numbers"),
        ({"edge_from": [0], "edge_to": [7]}, "edge_to holds 7, expected numbers from 0 to 0"),
        ({"edge_from": [0], "edge_to": [0], "edge_latency": [-1.0]}, "no finite number"),
        ({"resource": [0]}, "resource holds 0"),
        ({"group": [2], "group_names": ("a",)}, "group holds 2, expected numbers from -1 to 0"),
        ({"name": ["a", "b"]}, "name has 2 entries, id has 1"),
        ({"dimensions": [[1] * 9]}, "more than 7 sizes"),
    ],
)
def test_columns_that_do_not_fit_together_are_refused(columns, said):
    given = {"id": [1], "type": [COMP], **columns}
    with pytest.raises(pm.InputError, match=said):
        RankColumns(**given)


def test_groups_are_given_by_name():
    def rank(r):
        return RankColumns(
            id=[1],
            type=[COLL],
            comm_type=[COLLECTIVES.index("all_gather")],
            size=[10**6],
            group=[0],
            group_names=(f"pair {r % 2}",),
        )

    graph = pm.Graph.from_ranks(
        [rank(r) for r in range(4)], groups={"pair 0": (0, 2), "pair 1": (1, 3)}
    )
    assert graph.groups[1:] == ((0, 2), (1, 3))
    assert len(graph.programs) == 1


def test_kinds_and_latencies_survive_saving(tmp_path):
    graph = one_rank(
        id=[1, 2],
        type=[COMP] * 2,
        flops=[10, 20],
        kind=[1, 0],
        dimensions=[[1, 2, 3, 4], []],
        dtype=[5, -1],
        start=[0.5, np.nan],
        edge_from=[0],
        edge_to=[1],
        edge_latency=[3.0],
    )
    pm.save(graph, tmp_path / "g.npz")
    again = pm.load(tmp_path / "g.npz")
    p, q = graph.programs[0], again.programs[0]
    for name in ("kind", "dimensions", "dtype", "pred_latency"):
        np.testing.assert_array_equal(getattr(p, name), getattr(q, name))
    np.testing.assert_array_equal(again.labels[0].start, [0.5, np.nan])


def test_ranks_checked_two_at_a_time_give_the_same_graph_and_the_same_errors(monkeypatch):
    good = unlike_ranks(5, 200)
    bad = [replace(rank, flops=np.full(200, -1), bytes=np.full(200, -1)) for rank in good]
    bad = [replace(rank, group_names=("who",), group=np.zeros(200, np.int32)) for rank in bad]
    found = []
    for many in (join.MANY, 0):
        monkeypatch.setattr(join, "MANY", many)
        with pytest.raises(pm.TraceError) as raised:
            pm.Graph.from_ranks(bad)
        found.append((pm.Graph.from_ranks(good).digest, str(raised.value)))
    assert found[0] == found[1]


def test_costs_of_programs_collected_two_at_a_time_are_the_same(monkeypatch):
    """Programs of other kinds of costs each, so that the kinds of the second come behind those of the first."""
    ranks = unlike_ranks(5, 200)
    ranks[3] = replace(ranks[3], bytes=ranks[2].bytes, flops=ranks[2].flops)
    ranks[4] = replace(ranks[4], host=np.arange(200) % 2 > 0)
    graph = pm.Graph.from_ranks(ranks)
    system = pm.hardware("dgx-h100", ranks=5)
    found = []
    for many in (tasks.MANY, 0):
        monkeypatch.setattr(tasks, "MANY", many)
        found.append(tasks.build(graph, system))
    one, other = found
    np.testing.assert_array_equal(one.cost, other.cost)
    assert len(one.work.blocks) == len(other.work.blocks) == 3
    for a, b in zip(one.work.blocks, other.work.blocks):
        assert (a.key, a.category) == (b.key, b.category)
        np.testing.assert_array_equal(a.rows, b.rows)


def test_a_receive_holds_no_resource_whatever_is_given():
    def ranks(receive):
        send = RankColumns(
            id=[1], type=[SEND], size=[10**6], peer=[1], resource=[0], resources=("stream 7",)
        )
        other = RankColumns(
            id=[1, 2],
            type=[RECV, COMP],
            duration=[np.nan, 1.0],
            peer=[0, -1],
            resource=[receive, 0],
            resources=("stream 7",),
        )
        return [send, other]

    held, free = (pm.Graph.from_ranks(ranks(receive)) for receive in (0, -1))
    assert held.programs[1].resource.tolist() == [-1, 0]
    assert held.digest == free.digest
    p = pm.predict(held, SYSTEM, "roofline")
    assert p.start[1:].tolist() == [0.0, 0.0]


def test_a_collective_needs_a_resource():
    one = RankColumns(
        id=[7], type=[COLL], comm_type=[0], size=[10**6], resource=[-1], resources=("a",)
    )
    with pytest.raises(pm.TraceError, match=r"node 7: collective has no resource.*Give it one"):
        pm.Graph.from_ranks([one, one])
