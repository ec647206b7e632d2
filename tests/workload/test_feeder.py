"""Nodes of a rank one after the other, as Chakra's feeder hands them out."""

import pytest

import perfmodel as pm
from tests.handmade import coll, comp, recv, send, write


@pytest.fixture
def graph(tmp_path):
    first = [
        comp(id=5, name="a"),
        comp(id=3, deps=[5], name="b"),
        comp(id=4, name="c"),
        send(1, id=9, deps=[3, 4], tag=2),
    ]
    other = [recv(0, id=1, tag=2), comp(id=2, deps=[1])]
    return pm.load(write(tmp_path, [first, other]))


def test_free_nodes_come_by_ascending_id(graph):
    assert [node.id for node in pm.Feeder(graph, 0)] == [4, 5, 3, 9]


def test_a_node_says_all_that_the_trace_has(graph):
    feeder = pm.Feeder(graph, 0)
    node = feeder.node(9)
    assert (node.type, node.peer, node.tag, node.waits_for, node.collective) == (
        "COMM_SEND",
        1,
        2,
        (5 - 2, 4),
        "",
    )
    group = pm.load("traces/all_reduce_4")
    assert pm.Feeder(group, 2).take().group == (0, 1, 2, 3)


def test_what_waits_is_free_when_all_it_waits_for_is_done(graph):
    feeder = pm.Feeder(graph, 0)
    one, two = feeder.take(), feeder.take()
    assert feeder.take() is None
    feeder.finish(two.id)
    three = feeder.take()
    assert (one.id, two.id, three.id, len(feeder)) == (4, 5, 3, 3)
    feeder.finish(three.id)
    assert feeder.take() is None
    feeder.finish(one.id)
    assert feeder.take().id == 9
    with pytest.raises(pm.InputError, match="was not taken"):
        feeder.finish(4)
    with pytest.raises(pm.InputError, match="no rank 2"):
        pm.Feeder(graph, 2)


def test_a_collective_names_its_kind(tmp_path):
    graph = pm.load(write(tmp_path, [[coll("all_gather")], [coll("all_gather")]]))
    assert pm.Feeder(graph).take().collective == "all_gather"
