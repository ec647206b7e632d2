"""The timeline file against the timeline table, and against what the Trace Event Format asks for."""

import gzip
import json
import re
from collections import defaultdict
from itertools import chain, pairwise
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.report import timeline_file as trace_events
from perfmodel.report.timeline_file import lanes

NANOSECOND = 1e-3  # in the format's microseconds


@pytest.fixture(scope="module")
def prediction() -> pm.Prediction:
    work = synth.training(
        {"layers": 4, "hidden": 256, "heads": 4, "vocabulary": 512},
        sequence=128,
        micro_batches=3,
        data=2,
        tensor=2,
        pipeline=2,
    )
    return pm.predict(work.graph(), pm.hardware("dgx-h100"))


@pytest.fixture(scope="module")
def document(prediction, tmp_path_factory) -> dict:
    path = tmp_path_factory.mktemp("timeline") / "t.json"
    pm.write_timeline(prediction, path)
    return json.loads(path.read_text())


def of_phase(document: dict, phase: str) -> list[dict]:
    return [e for e in document["traceEvents"] if e["ph"] == phase]


def nodes_of(document: dict, prediction) -> dict[tuple[int, int], dict]:
    """Complete events of the ranks by rank and node id."""
    chosen = [
        e
        for e in of_phase(document, "X")
        if e["pid"] < prediction.graph.ranks and e["cat"] != "waiting"
    ]
    found = {(e["pid"], e["args"]["node_id"]): e for e in chosen}
    assert len(found) == len(chosen)
    return found


def thread_names(document: dict) -> dict[tuple[int, int], str]:
    named = [e for e in of_phase(document, "M") if e["name"] == "thread_name"]
    return {(e["pid"], e["tid"]): e["args"]["name"] for e in named}


def test_every_event_has_the_fields_that_the_format_requires_of_its_phase(document):
    assert document["displayTimeUnit"] in ("ms", "ns")
    required = {"X": {"dur", "cat"}, "s": {"id", "cat"}, "f": {"id", "cat", "bp"}, "M": {"args"}}
    assert {e["ph"] for e in document["traceEvents"]} == set(required)
    for event in document["traceEvents"]:
        assert {"ph", "pid", "tid", "ts", "name"} | required[event["ph"]] <= set(event)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        assert event["ts"] >= 0
        assert event.get("dur", 0) >= 0


def test_every_row_of_the_timeline_table_is_an_event_with_its_times(document, prediction):
    table = pm.timeline(prediction)
    events = nodes_of(document, prediction)
    assert len(events) == len(table)
    for row in table.itertuples():
        event = events[row.rank, row.node_id]
        assert event["name"] == row.name
        assert event["ts"] == pytest.approx(row.start_s * 1e6, abs=NANOSECOND)
        assert event["ts"] + event["dur"] == pytest.approx(row.finish_s * 1e6, abs=NANOSECOND)
        assert event["args"]["type"] == row.type
        assert event["args"]["slack_us"] == pytest.approx(row.slack_s * 1e6, abs=1e-9)
        assert event["args"]["critical"] == row.critical
        assert ("critical" in event["cat"].split(",")) == row.critical


def test_sizes_and_groups_are_those_of_the_graph(document, prediction):
    events = nodes_of(document, prediction)
    for row in prediction.graph.nodes.itertuples():
        args = events[row.rank, row.node_id]["args"]
        for key, value in (
            ("flops_FLOP", row.flops),
            ("bytes_B", row.bytes_B),
            ("size_B", row.size_B),
            ("peer", row.peer),
        ):
            assert args.get(key, -1) == value
        assert args.get("group", "") == (row.group or ("world" if "group" in args else ""))


def test_processes_are_ranks_and_threads_are_resources(document, prediction):
    names = {
        e["pid"]: e["args"]["name"] for e in of_phase(document, "M") if e["name"] == "process_name"
    }
    assert names == {**{r: f"rank {r}" for r in range(8)}, 8: "critical path"}
    threads = thread_names(document)
    events = nodes_of(document, prediction)
    for row in pm.timeline(prediction).itertuples():
        thread = threads[row.rank, events[row.rank, row.node_id]["tid"]]
        expected = row.resource or "receives"
        assert re.fullmatch(rf"{expected}( \d+)?", thread)
    assert {threads[e["pid"], e["tid"]] for e in of_phase(document, "X")} == set(threads.values())


def test_nothing_overlaps_on_a_thread_even_for_a_reader_that_truncates(document):
    by_thread = defaultdict(list)
    for e in of_phase(document, "X"):
        by_thread[e["pid"], e["tid"]].append((int(e["ts"] * 1000), int(e["dur"] * 1000)))
    for spans in by_thread.values():
        spans.sort()
        for (start, length), (following, _) in pairwise(spans):
            assert start + length <= following


def test_an_arrow_leads_from_every_send_to_its_receive_and_never_back_in_time(document, prediction):
    graph = prediction.graph
    starts = {e["id"]: e for e in of_phase(document, "s")}
    ends = {e["id"]: e for e in of_phase(document, "f")}
    sends = graph.nodes.query("type == 'COMM_SEND'")
    assert len(sends) > 0
    assert set(starts) == set(ends) == set(sends.index)
    events = nodes_of(document, prediction)
    by_place = {(e["pid"], e["tid"], e["ts"]): [] for e in [*starts.values(), *ends.values()]}
    for key, row in sends.iterrows():
        start, end = starts[key], ends[key]
        assert (start["pid"], end["pid"]) == (row["rank"], row["peer"])
        assert start["ts"] <= end["ts"]
        send = events[row["rank"], row["node_id"]]
        assert start["tid"] == send["tid"]
        assert send["ts"] <= start["ts"] <= send["ts"] + send["dur"]
        by_place[end["pid"], end["tid"], end["ts"]].append(row["tag"])
    receives = graph.nodes.query("type == 'COMM_RECV'")
    for row in receives.itertuples():
        event = events[row.rank, row.node_id]
        inside = [
            tags
            for (pid, tid, ts), tags in by_place.items()
            if (pid, tid) == (event["pid"], event["tid"])
            and event["ts"] <= ts <= event["ts"] + event["dur"]
        ]
        assert row.tag in chain.from_iterable(inside)


def test_the_critical_path_is_a_process_of_its_own_with_the_table_s_rows(document, prediction):
    table = pm.critical_path(prediction)
    events = [e for e in of_phase(document, "X") if e["pid"] == prediction.graph.ranks]
    assert [e["args"]["node_id"] for e in events] == list(table["node_id"])
    assert [e["args"]["rank"] for e in events] == list(table["rank"])
    assert [e["ts"] for e in events] == pytest.approx(list(table["start_s"] * 1e6), abs=NANOSECOND)
    last = max(e["ts"] + e["dur"] for e in events)
    assert last == pytest.approx(prediction.makespan * 1e6, abs=NANOSECOND)


def test_chosen_ranks_alone_are_written_with_arrows_where_both_ends_are(prediction, tmp_path):
    pm.write_timeline(prediction, tmp_path / "t.json", ranks=[0, 1, 1])
    document = json.loads((tmp_path / "t.json").read_text())
    assert {r for r, _ in nodes_of(document, prediction)} == {0, 1}
    assert not of_phase(document, "s")  # ranks 0 and 1 are of one pipeline stage
    pm.write_timeline(prediction, tmp_path / "t.json", ranks=[0, 4])
    document = json.loads((tmp_path / "t.json").read_text())
    assert len(of_phase(document, "s")) == len(of_phase(document, "f")) > 0


def test_a_name_that_ends_in_gz_is_compressed_and_equal_predictions_give_equal_files(
    prediction, document, tmp_path
):
    for name in ("a.json.gz", "b.json.gz"):
        pm.write_timeline(prediction, tmp_path / name)
    packed = (tmp_path / "a.json.gz").read_bytes()
    assert packed == (tmp_path / "b.json.gz").read_bytes()
    assert json.loads(gzip.decompress(packed)) == document


def test_a_failure_halfway_leaves_the_old_file_and_nothing_else(prediction, tmp_path, monkeypatch):
    target = tmp_path / "t.json"
    target.write_text("old")

    def fail(*_):
        raise RuntimeError("disk")

    monkeypatch.setattr(trace_events, "_rank_events", fail)
    with pytest.raises(RuntimeError, match="disk"):
        pm.write_timeline(prediction, target)
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("t.csv", r"t.csv: cannot be written as .csv; use .json, .json.gz"),
        ("timeline", "cannot be written as a file without an ending; use .json"),
        ("none/t.json", "none/t.json: cannot be written: there is no folder"),
        ("", "'': is no file to write"),
    ],
)
def test_a_timeline_that_cannot_be_written_is_named_with_the_reason(
    prediction, tmp_path, monkeypatch, name, complaint
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(pm.InputError, match=complaint):
        pm.write_timeline(prediction, name)
    assert list(tmp_path.iterdir()) == []


def test_too_many_nodes_for_a_viewer_ask_for_some_ranks(prediction, tmp_path, monkeypatch):
    monkeypatch.setattr(trace_events, "MAX_NODES", len(prediction.graph) - 1)
    with pytest.raises(pm.InputError, match=r"choose some ranks, for example ranks=\[0\]"):
        pm.write_timeline(prediction, tmp_path / "t.json")
    pm.write_timeline(prediction, tmp_path / "t.json", ranks=[3])


@pytest.mark.parametrize(
    ("ranks", "message"), [([8], "no rank 8"), ([-1], "no rank"), ([], "no ranks")]
)
def test_ranks_that_are_not_there_are_named(prediction, tmp_path, ranks, message):
    with pytest.raises(pm.InputError, match=message):
        pm.write_timeline(prediction, tmp_path / "t.json", ranks=ranks)
    assert not list(tmp_path.iterdir())


def test_an_endless_prediction_is_refused(prediction, tmp_path):
    endless = SimpleNamespace(
        graph=prediction.graph, compiled=prediction.compiled, makespan=float("inf")
    )
    with pytest.raises(pm.InputError, match="inf s"):
        pm.write_timeline(endless, tmp_path / "t.json")


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 20), st.integers(0, 5)), min_size=1)
)
def test_lanes_hold_no_overlap_and_are_as_many_as_are_busy_at_once(intervals):
    label = np.array([name for name, _, _ in intervals], dtype=object)
    start = np.array([a for _, a, _ in intervals])
    finish = start + np.array([n for _, _, n in intervals])
    thread, names = lanes(label, start, finish)
    for word in set(label):
        mine = [k for k in range(len(label)) if label[k] == word]
        used = {thread[k] for k in mine}
        assert {names[t].split()[0] for t in used} == {word}
        busy = max(sum(start[k] <= t < finish[k] for k in mine) for t in range(26))
        moments = [start[k] for k in mine if start[k] == finish[k]]
        inside = [1 + sum(start[k] < t < finish[k] for k in mine) for t in moments]
        assert len(used) == max(busy, *inside, 1)
        for t in used:
            spans = sorted((start[k], finish[k]) for k in mine if thread[k] == t)
            assert all(a[1] <= b[0] for a, b in pairwise(spans))


@given(st.integers(0, 2**52))
def test_microseconds_give_a_truncating_reader_the_same_nanoseconds(value):
    (written,) = trace_events._microseconds(np.array([value]))
    assert int(written * 1000) == value or value > 2**50
    assert written == pytest.approx(value / 1000, rel=1e-15)
