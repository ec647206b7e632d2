"""GOAL schedules in and out."""

import pytest

import perfmodel as pm
from perfmodel.trace.goal import edges, is_goal, parse

TWO = """num_ranks 2
rank 0 { // sends
l1: calc 1000 cpu 0
l2: send 1024b to 1 tag 5
l2 requires l1
}
rank 1 {
l1: recv 1024b from 0 tag 5
l2: calc 500 cpu 1 /* elsewhere */
l3: calc 7
l3 requires l1
}
"""


def test_operations_and_dependencies_as_they_stand():
    a, b = parse(TWO, "x")
    assert (a.kind, a.amount, a.peer[1], a.tag[1], edges(a)) == (
        ["calc", "send"],
        [1000, 1024],
        1,
        5,
        [(1, 0)],
    )
    assert (b.kind, b.cpu, edges(b)) == (["recv", "calc", "calc"], [0, 1, 0], [(2, 0)])


def test_irequires_waits_for_what_the_other_waits_for():
    text = (
        "num_ranks 1\nrank 0 {\na: calc 1\nb: calc 2\nc: calc 3\nb requires a\nc irequires b\n}\n"
    )
    assert set(edges(parse(text, "x")[0])) == {(1, 0), (2, 0)}


def test_a_receive_from_anybody_is_taken_where_one_sender_is_possible():
    text = TWO.replace("from 0 tag 5", "from -1 tag -1")
    assert (parse(text, "x")[1].peer[0], parse(text, "x")[1].tag[0]) == (0, 5)
    three = text.replace("num_ranks 2", "num_ranks 3") + "rank 2 {\nsend 1024b to 1 tag 6\n}\n"
    with pytest.raises(pm.TraceError, match="2 senders or tags fit"):
        parse(three, "x")


def test_loads_as_a_graph_with_its_times(tmp_path):
    (tmp_path / "two.goal").write_text(TWO)
    graph = pm.load(tmp_path / "two.goal")
    assert (graph.ranks, len(graph)) == (2, 5)
    assert graph.nodes.duration_s.dropna().tolist() == pytest.approx([1e-6, 5e-7, 7e-9])
    system = pm.hardware("dgx-h100")
    message = pm.predict(graph, system).makespan - 1e-6 - 7e-9
    assert message > 0


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (TWO.replace("l2 requires l1", "l2 requires l9"), "line 5: label l9"),
        (TWO.replace("1024b to", "1024 to"), "line 4"),
        (TWO.rsplit("}", 1)[0], "is missing"),
        (TWO.replace("rank 1", "rank 0"), "line 7: rank 0 is there twice"),
        (TWO.replace("num_ranks 2", "num_ranks 3"), "rank 2 of 3 has no block"),
        (TWO.replace("l3: calc", "l2: calc"), "label l2 is there twice"),
        (TWO.replace("send 1024b to 1", "send 1024b to -1"), "line 4"),
    ],
)
def test_what_is_wrong_is_said_with_its_line(text, where):
    assert is_goal(text.encode())
    with pytest.raises(pm.TraceError, match=where):
        parse(text, "x.goal")


@pytest.mark.parametrize(
    "kind",
    [
        "all_reduce",
        "all_gather",
        "reduce_scatter",
        "all_to_all",
        "broadcast",
        "barrier",
        "reduce",
        "gather",
        "scatter",
    ],
)
@pytest.mark.parametrize("ranks", [2, 3, 8])
def test_a_collective_written_as_messages_pairs_up_and_moves_what_its_algorithm_says(
    tmp_path, kind, ranks
):
    size = 0 if kind == "barrier" else 840
    graph = pm.synth.collective(kind, ranks, size).graph()
    pm.write_goal(graph, tmp_path / "x.goal")
    back = pm.load(tmp_path / "x.goal")
    sent = back.nodes[back.nodes.type == "COMM_SEND"].size_B
    n = ranks
    expected = {
        "all_reduce": 2 * (n - 1) * size,
        "reduce_scatter": (n - 1) * size,
        "all_gather": n * (n - 1) * size,
        "all_to_all": (n - 1) * size,
        "broadcast": (n - 1) * size,
        "reduce": (n - 1) * size,
        "gather": (n - 1) * size,
        "scatter": (n - 1) * size // n,
        "barrier": n * (n - 1).bit_length(),
    }[kind]
    assert sent.sum() == expected
    assert pm.predict(back, pm.hardware("dgx-h100")).makespan > 0


def test_what_has_no_recorded_time_needs_a_prediction_s(tmp_path):
    graph = pm.synth.data_parallel(2, 10).graph()
    with pytest.raises(pm.InputError, match="no recorded duration"):
        pm.write_goal(graph, tmp_path / "x.goal")
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    pm.write_goal(graph, tmp_path / "x.goal", times=p.duration)
    back = pm.predict(pm.load(tmp_path / "x.goal"), pm.hardware("dgx-h100"))
    assert 0.5 * p.makespan < back.makespan < 3 * p.makespan
