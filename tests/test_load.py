"""Joining ranks into a graph: what is accepted, what is refused, and how the message reads."""

from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.load import examine
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


def test_dangling_and_cyclic_control_edges_go_with_an_option(tmp_path):
    folder = write(tmp_path, [[comp(ctrl=[1]), comp(deps=[0], ctrl=[9])]])
    assert {"cycle", "missing-dependency"} <= codes(folder)
    assert pm.load(folder, dependencies="data").ranks == 1


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
    assert "2 compute nodes" in graph.warnings[0]
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
