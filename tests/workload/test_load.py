"""Joining ranks into a graph: what is accepted, what is refused, and how the message reads."""

from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.analysis.inspection import inspect_trace
from perfmodel.workload.load import examine
from tests.handmade import coll, comp, recv, send, write


def codes(folder: Path, **options) -> set[str]:
    _, problems = examine(folder, **options)
    return {p.code for p in problems.found}


def test_equal_ranks_share_one_program_and_keep_their_names(tmp_path):
    nodes = [comp(name="a"), coll(deps=[0], group="1")]
    other = [comp(name="b", id=7), coll(deps=[7], id=9, group="2")]
    folder = write(tmp_path, [nodes, nodes, other, other], {"1": [0, 1], "2": [2, 3]})
    graph = pm.load(folder)
    assert len(graph.programs) == 1
    assert list(graph.nodes.name) == ["a", "node1"] * 2 + ["b", "node1"] * 2
    assert list(graph.nodes.node_id) == [0, 1, 0, 1, 7, 9, 7, 9]
    assert list(graph.nodes.group)[1::2] == ["1", "1", "2", "2"]


def test_all_problems_are_reported_at_once_with_rank_node_and_remedy(tmp_path):
    folder = write(
        tmp_path,
        [
            [{"type": 4}, coll(group="3"), send(5), recv(1)],
            [comp(deps=[4]), coll(size=-1)],
        ],
    )
    with pytest.raises(pm.TraceError) as error:
        pm.load(folder)
    text = str(error.value)
    for part in (
        "rank 0 node 0: compute has neither",
        "unknown group '3'",
        "--group 3=0,1",
        "rank 0 node 2: sends to or receives from a rank that is missing",
        "rank 1 node 0: data dependency on [4]",
        "rank 1 node 1: collective has no comm_size",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("ranks", "code"),
    [
        ([[comp(id=1), comp(id=1)]], "duplicate-id"),
        ([[comp(deps=[1]), comp(deps=[0])]], "cycle"),
        ([[comp(deps=[0])]], "cycle"),
        ([[{"type": 9}]], "unknown-type"),
        ([[coll(kind="all_reduce") | {"comm_type": 12}]], "collective-type"),
        ([[{"type": 2}]], "no-size"),
        ([[send(1)], [comp()]], "unmatched"),
        ([[comp()], [recv(0)]], "unmatched"),
        ([[send(1, tag=1)], [recv(0, tag=2)]], "unmatched"),
        ([[send(1, size=8)], [recv(0, size=9)]], "size-mismatch"),
        ([[send(0)]], "self-message"),
        ([[send(-1)], [comp()]], "no-peer"),
        ([[coll()], [comp()]], "missing-member"),
        ([[coll(), coll()], [coll()]], "member-count"),
        ([[coll()], [coll("all_gather")]], "type-mismatch"),
        ([[coll()], [coll(size=5)]], "size-mismatch"),
    ],
)
def test_each_kind_of_wrong_trace_has_its_own_error(tmp_path, ranks, code):
    assert code in codes(write(tmp_path, ranks))


@pytest.mark.parametrize("number", [-1, 12])
def test_a_collective_of_no_known_type_is_counted_as_such(tmp_path, number):
    folder = write(tmp_path, [[coll(kind="all_reduce"), coll() | {"comm_type": number}]])
    assert "of no known type" in inspect_trace(folder).text()


def test_dangling_and_cyclic_data_edges_go_with_an_option(tmp_path):
    folder = write(tmp_path, [[comp(deps=[1]), comp(deps=[0, 9], ctrl=[0])]])
    assert {"cycle", "missing-dependency"} <= codes(folder)
    assert pm.load(folder, dependencies="control").ranks == 1


def test_an_unknown_group_can_be_given_or_taken_as_the_world(tmp_path):
    folder = write(tmp_path, [[coll(group="4")], [coll(group="4")]])
    assert "unknown-group" in codes(folder)
    assert pm.load(folder, group={"4": [0, 1]}).groups[1] == (0, 1)
    graph = pm.load(folder, unknown_group="world")
    assert graph.programs[0].groups[0, 0] == 0
    assert "taken as all ranks" in graph.warnings[0]


def test_zero_whole_microseconds_mean_half_a_microsecond_and_are_counted(tmp_path):
    folder = write(tmp_path, [[{"type": 4, "duration": 7}, {"type": 4}, {"type": 4}]])
    graph = pm.load(folder)
    assert list(graph.programs[0].duration) == [7e-6, 0.5e-6, 0.5e-6]
    assert "2 nodes record 0 whole" in graph.warnings[0]
    assert pm.load(folder, zero_duration=2e-7).programs[0].duration[1] == 2e-7
    with pytest.raises(pm.TraceError, match="0 whole microseconds"):
        pm.load(folder, strict=True)


def test_messages_pair_by_source_destination_tag_and_order(tmp_path):
    folder = write(
        tmp_path,
        [
            [send(1, tag=5, name="s0"), send(1, tag=5, name="s1", size=64), send(1, tag=6)],
            [recv(0, tag=6), recv(0, tag=5), recv(0, tag=5, size=64)],
        ],
    )
    sender, receiver = pm.load(folder).programs
    assert list(sender.partner[0]) == [1, 2, 0]
    assert list(receiver.partner[0]) == [2, 0, 1]


def test_collectives_pair_by_name_where_names_agree_and_by_order_where_they_do_not(tmp_path):
    first = [coll(name="x", size=8), coll(name="y", size=16, deps=[0])]
    second = [coll(name="y", size=16), coll(name="x", size=8)]
    graph = pm.load(write(tmp_path / "named", [first, second]))
    assert bool(graph.by_name[0])
    assert [list(p.match) for p in graph.programs] == [[0, 1], [1, 0]]
    third = [coll(name="z", size=8), coll(name="w", size=16, deps=[0])]
    assert not pm.load(write(tmp_path / "ordered", [first, third])).by_name[0]


def test_resources_are_recorded_streams_and_threads_where_the_trace_has_them(tmp_path):
    nodes = [
        {"type": 4, "duration": 5, "is_cpu": 1, "stream": 0, "tid": 3},
        {"type": 4, "duration": 5, "is_cpu": 0, "stream": 7, "tid": 3},
        coll(is_cpu=0, stream=20, tid=3),
    ]
    graph = pm.load(write(tmp_path, [nodes]))
    assert list(graph.nodes.resource) == ["thread 3", "stream 7", "stream 20"]


def test_plain_nodes_share_a_compute_and_a_communication_unit(tmp_path):
    nodes = [comp(), coll(), comp(is_cpu=1), {"type": 2, "tensor_size": 8}, {"type": 1}]
    graph = pm.load(write(tmp_path, [nodes]))
    assert list(graph.nodes.resource) == ["compute", "communication", "cpu", "communication", ""]


def test_a_table_of_some_ranks_has_their_node_numbers(tmp_path):
    graph = pm.load(write(tmp_path, [[comp(), comp()]] * 3))
    table = graph.table([2])
    assert list(table.index) == [4, 5]
    with pytest.raises(pm.InputError, match="no rank 3"):
        graph.table([3])


def test_flat_arrays_repeat_every_rank(tmp_path):
    folder = write(tmp_path, [[comp(), send(1, deps=[0])], [recv(0, id=4), comp(deps=[4], id=5)]])
    flat = pm.load(folder).flat
    assert list(flat.rank) == [0, 0, 1, 1]
    assert list(flat.peer) == [-1, 1, 0, -1]
    assert list(flat.pred_ptr) == [0, 0, 1, 1, 2]
    assert list(flat.pred) == [0, 2]


def test_options_with_unknown_values_are_refused(tmp_path):
    folder = write(tmp_path, [[comp()]])
    for option in ({"dependencies": "x"}, {"unknown_group": "x"}, {"zero_duration": np.nan}):
        with pytest.raises(pm.InputError):
            pm.load(folder, **option)


def test_all_kinds_of_problems_are_reported_at_once(tmp_path):
    first = [comp(deps=[9]), coll(group="7"), coll(size=8), send(1, tag=3), send(1, tag=4, size=5)]
    second = [comp(), coll(group="7"), coll(kind="all_gather", size=8), recv(0, tag=4, size=9)]
    folder = write(tmp_path, [first, second])
    assert codes(folder) == {
        "missing-dependency",
        "unknown-group",
        "type-mismatch",
        "unmatched",
        "size-mismatch",
    }


def test_members_whose_names_differ_must_have_the_same_types_and_sizes(tmp_path):
    def ranks(*second):
        return [
            [coll(name="a0", size=8), coll(name="b0", kind="all_gather", size=4, deps=[0])],
            [coll(name="a1", **second[0]), coll(name="b1", deps=[0], **second[1])],
        ]

    whole, other = {"size": 8}, {"kind": "all_gather", "size": 4}
    assert codes(write(tmp_path / "same", ranks(whole, other))) == set()
    assert codes(write(tmp_path / "turned", ranks(other, whole))) == set()
    assert codes(write(tmp_path / "size", ranks({"size": 9}, other))) == {"size-mismatch"}
    assert codes(write(tmp_path / "type", ranks(whole, whole))) == {"type-mismatch"}


def test_calls_of_different_type_that_meet_in_the_order_of_issue_are_named(tmp_path):
    turned = [
        [coll(name="a0", size=8), coll(name="b0", kind="all_gather", size=4, deps=[0])],
        [coll(name="b1", kind="all_gather", size=4), coll(name="a1", size=8, deps=[0])],
    ]
    graph = pm.load(write(tmp_path, turned))
    message = (
        r"2 collectives of different type .* rank 0 node 0 \('a0'\) with rank 1 node 0 \('b1'\)"
    )
    with pytest.warns(UserWarning, match=message):
        pm.predict(graph, pm.hardware("dgx-h100", ranks=2))


def test_a_cycle_is_named_without_what_lies_behind_it(tmp_path):
    nodes = [comp(), comp(deps=[0, 2]), comp(deps=[1]), comp(deps=[2]), comp(deps=[4])]
    _, problems = examine(write(tmp_path, [nodes]))
    (found,) = problems.found
    assert found.nodes == (4,)
    assert found.message == "depends on itself (and 1 more such cycles)"
    _, problems = examine(write(tmp_path / "two", [nodes[:4]]))
    assert problems.found[0].nodes == (1, 2)


def test_a_file_whose_other_ranks_are_left_out_is_refused(tmp_path):
    folder = write(tmp_path, [[coll()], [coll()], [coll()]])
    with pytest.raises(pm.TraceError, match=r"t\.1\.et and 1 more files are left out.*prefix"):
        pm.load(folder / "t.0.et")
    with pytest.raises(pm.TraceError, match=r"t\.2\.et is left out"):
        pm.load([folder / "t.0.et", folder / "t.1.et"])
    assert pm.load(sorted(folder.glob("*.et"))).ranks == 3


def test_a_recorded_send_needs_no_size_and_a_collective_of_0_us_lasts_half_a_microsecond(tmp_path):
    message = [[send(1, size=-1) | {"duration": 30}], [recv(0, size=-1)]]
    system = pm.hardware("dgx-h100", ranks=2)
    sent = pm.predict(pm.load(write(tmp_path / "a", message)), system)
    assert sent.makespan == pytest.approx(30e-6, rel=1e-15)
    calls = [coll(size=-1) | {"duration": 9}, coll(size=-1, deps=[0]) | {"duration": 0}]
    graph = pm.load(write(tmp_path / "b", [calls, calls]))
    assert "1 nodes record 0 whole" in graph.warnings[0]
    assert pm.predict(graph, system).makespan == pytest.approx(9.5e-6)


def test_a_recorded_member_counts_whatever_its_rank(tmp_path):
    recorded, modelled = coll(size=10**9) | {"duration": 3000}, coll(size=10**9)
    times = []
    for name, ranks in (("a", [recorded, modelled]), ("b", [modelled, recorded])):
        graph = pm.load(write(tmp_path / name, [[r] for r in ranks]))
        models = pm.Models(prefer="recorded")
        times.append(pm.predict(graph, pm.hardware("dgx-h100", ranks=2), models).makespan)
    assert times == [3e-3, 3e-3]


def test_dimensions_left_out_are_a_warning(tmp_path):
    graph = pm.load(write(tmp_path, [[coll() | {"involved_dim": 0b01, "involved_dims": 2}]] * 2))
    assert "involved_dim" in graph.warnings[0]


def test_a_cut_group_file_of_the_traces_name_is_an_error(tmp_path):
    folder = write(tmp_path, [[coll(group="1")], [coll(group="1")]], {"1": [0, 1]})
    (folder / "comm_groups.json").rename(folder / "t.json")
    assert pm.load(folder).ranks == 2
    (folder / "t.json").write_text('{"1": [0,')
    with pytest.raises(pm.InputError, match=r"t\.json: is no JSON"):
        pm.load(folder)


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("npu.peak_flops", float("nan"), "a positive rate"),
        ("npu.peak_flops", 0.0, "a positive rate"),
        ("network.0.bandwidth", -1e9, "a positive rate"),
        ("network.1.latency", -1.0, "a number >= 0"),
        ("compute.overhead", float("nan"), "a number >= 0"),
    ],
)
def test_numbers_that_no_hardware_has_are_refused(tmp_path, path, value, expected):
    graph = pm.load(write(tmp_path, [[comp(), coll(deps=[0])]] * 16))
    at = pm.with_parameters(pm.hardware("dgx-h100", ranks=16), pm.Models(), {path: value})
    with pytest.raises(pm.InputError, match=f"parameter {path}: is .*expected {expected}"):
        pm.predict(graph, *at)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1.0])
def test_a_model_whose_durations_are_no_times_is_refused(tmp_path, seconds):
    @pm.record
    class Wrong:
        def time(self, flops, bytes, npu):
            return flops * 0.0 + seconds

    graph = pm.load(write(tmp_path, [[comp()]]))
    system, models = pm.hardware("dgx-h100", ranks=1), pm.Models(compute=Wrong())
    with pytest.raises(pm.InputError, match="duration of compute of"):
        pm.predict(graph, system, models)


def test_a_deadlock_between_equal_ranks_names_both(tmp_path):
    ranks = [[recv(1 - r), send(1 - r, deps=[0])] for r in (0, 1)]
    graph = pm.load(write(tmp_path, ranks))
    with pytest.raises(pm.DeadlockError) as error:
        pm.predict(graph, pm.hardware("dgx-h100", ranks=2))
    assert "rank 0 node 0 ('node0') waits for the message of rank 1 node 1" in str(error.value)
    assert "(1 more rank like it)" in str(error.value)


def test_groups_of_fifty_thousand_ranks_are_joined_in_time_that_grows_with_them():
    import time

    from perfmodel.findings import Findings
    from perfmodel.workload.groups import Groups

    ranks = 50_000
    named = {"a": tuple(range(ranks)), "b": tuple(range(0, ranks, 2))}
    problems = Findings("made")
    registry = Groups(named, ranks, "error", problems)
    begin = time.perf_counter()
    for rank in range(ranks):
        assert registry.find("a", rank, {}, [1]) == 1
        registry.find("b", rank - rank % 2, {}, [2])
    assert not problems.found
    assert time.perf_counter() - begin < 5  # 27 s and more when each rank looked through the group


def test_many_groups_on_one_rank_are_told_apart_in_time_that_grows_with_them():
    import time

    import numpy as np

    from perfmodel.workload.rank import by_slot

    n = 200_000
    slot = np.arange(n, dtype=np.int32) % 50_000
    begin = time.perf_counter()
    parts = by_slot(slot, np.arange(n)[::-1], 50_000)
    assert time.perf_counter() - begin < 5
    assert len(parts) == 50_000
    assert parts[7].tolist() == [150_007, 100_007, 50_007, 7]
    assert by_slot(slot[:0], slot[:0], 0) == []
    assert [p.tolist() for p in by_slot(np.array([-1, 0], np.int32), np.arange(2), 1)] == [[1]]
