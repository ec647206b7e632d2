"""What traces from the wild need before they are a graph, on small ones by hand and on the reported cases."""

import json

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.workload.load import examine
from tests.handmade import coll, comp, recv, send, write


def codes(folder, **options):
    _, found = examine(folder, **options)
    return {(p.level, p.code) for p in found.found}


HOST = {"is_cpu": 1, "num_ops": -1, "tensor_size": -1}


def kernels(*, start: bool):
    """A launch and its kernel, four times: forward, backward, all-reduce, optimizer."""
    nodes = []
    for k, (duration, begin) in enumerate(((1000, 12), (2000, 1012), (500, 3012), (300, 3512))):
        nodes.append(
            comp(
                id=2 * k,
                duration=10,
                start=10 * k if start else 0,
                deps=[2 * k - 2] if k else [],
                **HOST,
            )
        )
        make = coll if k == 2 else comp
        kernel = make(
            id=2 * k + 1,
            duration=duration,
            start=begin if start else 0,
            deps=[2 * k],
            is_cpu=0,
            stream=20 if k == 2 else 7,
        )
        nodes.append(kernel)
    return nodes


RECORDED = pm.Models(prefer="recorded")


def test_waits_between_streams_come_from_start_times(tmp_path):
    with_start = write(tmp_path / "a", [kernels(start=True)] * 2)
    assert ("warning", "inferred-edges") in codes(with_start)
    p = pm.predict(pm.load(with_start), pm.hardware("dgx-h100"), RECORDED)
    assert p.makespan == pytest.approx(3.81e-3)


def test_without_start_times_overlap_is_an_upper_bound_and_said_to_be(tmp_path):
    without = write(tmp_path / "b", [kernels(start=False)] * 2)
    graph = pm.load(without)
    assert "collectives wait for no kernel (1 of 1)" in graph.warnings[0]
    p = pm.predict(graph, pm.hardware("dgx-h100"), RECORDED)
    assert p.makespan == pytest.approx(3.31e-3)


def test_operators_on_the_cpu_typed_as_collectives_are_host_work(tmp_path):
    nodes = [
        coll(size=-1, id=0, name="c10d::allreduce_", is_cpu=1, duration=20) | {"comm_type": -1},
        coll(id=1, deps=[0], is_cpu=0),
    ]
    folder = write(tmp_path, [nodes, nodes])
    assert ("warning", "host-collective") in codes(folder)
    assert list(pm.load(folder).nodes.type) == ["COMP", "ALL_REDUCE"] * 2


def test_a_kernel_s_name_says_which_collective_it_is(tmp_path):
    name = "ncclDevKernel_ReduceScatter_Sum_bf16_RING_LL(ncclDevKernelArgsStorage<4096ul>)"
    nodes = [coll(name=name, duration=9) | {"comm_type": -1}]
    graph = pm.load(write(tmp_path, [nodes, nodes]))
    assert graph.nodes.type[0] == "REDUCE_SCATTER"
    assert "as what their names say" in graph.warnings[0]


def test_communication_typed_as_compute_is_said(tmp_path):
    nodes = [comp(name="ncclDevKernel_Broadcast_RING_LL", duration=40)]
    graph = pm.load(write(tmp_path, [nodes, nodes]))
    assert "the network does not matter" in graph.warnings[0]


def test_missing_control_dependencies_are_left_out_with_a_warning_and_data_ones_are_errors(
    tmp_path,
):
    assert ("warning", "missing-dependency") in codes(write(tmp_path / "a", [[comp(ctrl=[9])]]))
    assert ("error", "missing-dependency") in codes(write(tmp_path / "b", [[comp(deps=[9])]]))
    assert ("error", "missing-dependency") in codes(tmp_path / "a", simulator=True)
    with pytest.raises(pm.TraceError, match="left out"):
        pm.load(tmp_path / "a", strict=True)


def test_cyclic_control_edges_go_where_the_data_edges_have_no_cycle(tmp_path):
    nodes = [comp(ctrl=[1]), comp(deps=[0], ctrl=[1])]
    folder = write(tmp_path / "a", [nodes])
    assert ("warning", "cyclic-control") in codes(folder)
    assert len(pm.load(folder)) == 2
    assert ("error", "cycle") in codes(
        write(tmp_path / "b", [[comp(deps=[1], ctrl=[1]), comp(deps=[0])]])
    )
    assert ("error", "cycle") in codes(write(tmp_path / "c", [[comp(ctrl=[1]), comp(ctrl=[0])]]))


def test_messages_without_peers_are_paired_where_one_pairing_is_possible(tmp_path):
    ranks = [[send(-1, size=8), send(-1, size=16)], [recv(-1, size=8)], [recv(-1, size=16)]]
    graph = pm.load(write(tmp_path, ranks))
    assert graph.nodes.peer.tolist() == [1, 2, 0, 0]
    assert "the only way possible" in graph.warnings[0]


def test_a_group_of_two_settles_the_peer(tmp_path):
    ranks = [
        [send(-1, group="1")],
        [recv(-1, group="1")],
        [send(-1, group="2")],
        [recv(-1, group="2")],
    ]
    folder = write(tmp_path, ranks, {"1": [0, 1], "2": [2, 3]})
    assert pm.load(folder).nodes.peer.tolist() == [1, 0, 3, 2]


def test_where_more_pairings_are_possible_replay_is_offered(tmp_path):
    ranks = [
        [send(-1, duration=5)],
        [send(-1, duration=5)],
        [recv(-1, duration=7)],
        [recv(-1, duration=7)],
    ]
    folder = write(tmp_path, ranks)
    with pytest.raises(pm.TraceError, match="--messages replay"):
        pm.load(folder)
    graph = pm.load(folder, messages="replay")
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    assert p.makespan == pytest.approx(7e-6)


def test_sizes_that_the_trace_lacks_can_be_given(tmp_path):
    folder = write(
        tmp_path, [[coll(size=-1, name="grad0"), coll(size=-1, name="other", deps=[0])]] * 2
    )
    with pytest.raises(pm.TraceError, match="--size NAME=BYTES"):
        pm.load(folder)
    graph = pm.load(folder, sizes={"grad*": 1024, "*": 8})
    assert graph.nodes.size_B.tolist() == [1024, 8] * 2


def test_unknown_groups_of_two_pytorch_ranks_are_those_ranks(shared):
    graph = pm.load(shared / "reference/chakra/pytorch_2rank")
    assert graph.group_names[1:] == ("1", "2")
    assert graph.groups[1:] == ((0, 1), (0, 1))
    assert any("the only way possible" in text for text in graph.warnings)


@pytest.mark.parametrize("case", ["all", "subset", "float"])
def test_group_zero(shared, case):
    folder = shared / "cases/group_zero" / case
    graph = pm.load(folder)
    system = pm.hardware("dgx-h100", models="roofline")
    ring = pm.predict(
        pm.synth.collective("all_reduce", 2 if case != "all" else 4, 2**20).graph(), system
    )
    if case == "all":
        assert graph.warnings == ()
        return
    p = pm.predict(graph, system, RECORDED)
    assert p.makespan == pytest.approx(2 * ring.makespan + 100e-6, rel=1e-6)
    text = "\n".join(graph.warnings)
    assert "ASTRA-sim stops at this entry" in text
    assert ("'0.0' is read as '0'" in text) == (case == "float")


def test_group_zero_stops_the_simulator(tmp_path):
    write(tmp_path, [[coll(group="0")]] * 2, {"0": [0, 1]})
    with pytest.raises(pm.InputError, match="ASTRA-sim stops at this entry"):
        pm.chakra.read_groups(tmp_path / "comm_groups.json", simulator=True)
    assert json.loads((tmp_path / "comm_groups.json").read_text()) == {"0": [0, 1]}


def test_stage_s_work_counts_both_operands_and_twice_the_products(shared):
    folder = shared / "cases/stage_bytes"
    own, _ = examine(folder)
    simulator, _ = examine(folder, simulator=True)
    p, q = own.programs[0], simulator.programs[0]
    comp_ = p.type == 4
    assert 3.6 < p.bytes[comp_].sum() / q.bytes[comp_].sum() < 3.8
    assert set(np.unique(p.flops[comp_] / q.flops[comp_])) == {1.0, 2.0}
    product = next(
        k
        for k, name in enumerate(own.labels[0].names)
        if name == "mb0.transformer.0.mha.qkv@0_COMP"
    )
    assert p.bytes[product] == 262144 + 393216 + 786432
    assert p.flops[product] == 2 * 402653184


def test_start_times_that_contradict_the_dependencies_are_a_finding(tmp_path):
    from perfmodel.analysis.inspection import inspect_trace

    good = [
        comp(id=0, start=5, duration=10, num_ops=-1),
        comp(id=1, start=16, duration=10, deps=[0]),
    ]
    late = [comp(id=0, start=5, duration=10), comp(id=1, start=500, duration=10, deps=[0])]
    found = {p.code for p in inspect_trace(write(tmp_path / "a", [good])).findings}
    assert "start-times" not in found
    report = inspect_trace(write(tmp_path / "b", [late]))
    (finding,) = [p for p in report.findings if p.code == "start-times"]
    assert "takes 0.000505 s" in finding.message
    assert "make 2e-05 s of it (-96.0%)" in finding.message


def test_inspecting_for_astra_sim_says_that_it_stops_at_dangling_edges(tmp_path):
    from perfmodel.analysis.inspection import inspect_trace

    folder = write(tmp_path, [[comp(ctrl=[9])]])
    assert inspect_trace(folder).good
    report = inspect_trace(folder, astra_sim=True)
    assert not report.good
    assert "stops at load" in report.text()
