"""Kineto and host traces read by hand: columns, nesting, joining, choosing a step, finding files."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError, TraceError
from perfmodel.trace.pytorch.files import find, is_pytorch
from perfmodel.trace.pytorch.host_trace import host_trace
from perfmodel.trace.pytorch.kineto import KERNEL, OPERATOR, RUNTIME, device_trace
from perfmodel.trace.pytorch.nesting import ancestors, parents, paths
from perfmodel.trace.pytorch.operator_links import link
from perfmodel.trace.pytorch.read import read
from perfmodel.trace.pytorch.step_window import choose
from tests.trace.pytorch.made import (
    call,
    device,
    document,
    event,
    kernel,
    launch,
    node,
    operator,
    step,
)


def test_events_become_columns_in_seconds_after_the_first():
    d = device(
        operator("aten::mm", 1_700_000_000_000_010.5, 20, External_id=3, Record_function_id=2),
        launch(9, 1_700_000_000_000_015, 4),
        kernel(9, 1_700_000_000_000_030, 7),
        {"ph": "M", "name": "process_name", "ts": 0},
        baseTimeNanoseconds=5,
    )
    assert d.base == 5 + 1000 * 1_700_000_000_000_010
    assert sorted(d.category.tolist()) == [OPERATOR, RUNTIME, KERNEL]
    at = int(np.flatnonzero(d.category == OPERATOR)[0])
    assert (d.start[at], d.end[at]) == pytest.approx((0.5e-6, 20.5e-6), abs=1e-12)
    assert (d.external[at], d.record[at], d.correlation[at]) == (3, 2, -1)
    assert d.stream[d.category == KERNEL].tolist() == [7]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"nothing": 1}, "no list of records"),
        ({"traceEvents": [1]}, "no list of records"),
        ({"traceEvents": []}, "holds no event"),
        (document({**operator("a", 0, 1), "ts": "soon"}), "missing or no number"),
        (document({**operator("a", 0, 1), "ts": float("nan")}), "is not finite"),
        (document(operator("a", 0, -1)), "is negative"),
    ],
)
def test_a_damaged_kineto_document_is_named(wrong, message):
    with pytest.raises(TraceError, match=message):
        device_trace(wrong, "made.json")


def plain_parents(thread, start, end):
    """The latest event begun before on the same thread that is not over: quadratic and obvious."""
    found = []
    for i in range(len(start)):
        open_ = [j for j in range(i) if thread[j] == thread[i] and end[j] > start[i]]
        found.append(open_[-1] if open_ else -1)
    return found


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_parents_are_the_innermost_open_events(seed):
    """Properly nested calls on two threads, as a stack makes them."""
    rng = random.Random(seed)
    rows = []

    def fill(thread, begin, end, depth):
        t = begin
        while t + 2 < end and depth < 4 and rng.random() < 0.8:
            a = t + rng.randint(1, 3)
            b = a + rng.randint(1, max(1, (end - a) // 2))
            if b >= end:
                break
            rows.append((thread, a, b))
            fill(thread, a, b, depth + 1)
            t = b

    fill(0, 0, 60, 0)
    fill(1, 0, 60, 0)
    rows.sort(key=lambda r: (r[0], r[1], -r[2]))
    thread = np.array([r[0] for r in rows], np.int32)
    start, end = (np.array([r[i] for r in rows], float) for i in (1, 2))
    found = parents(thread, start, end)
    assert found.tolist() == plain_parents(thread, start, end)
    chosen = np.array([rng.random() < 0.5 for _ in rows], bool)
    for i, j in enumerate(ancestors(found, chosen).tolist()):
        k = found[i]
        while k >= 0 and not chosen[k]:
            k = found[k]
        assert j == k
    names = np.array([f"e{i}" for i in range(len(rows))], object)
    for i, text in enumerate(paths(found, names, chosen)):
        stack, k = [], i
        while k >= 0:
            stack += [names[k]] if chosen[k] else []
            k = found[k]
        assert text == "/".join(reversed(stack))


def pair(shift: int | None, records: bool):
    """Twenty operators in both traces; External id is rf_id + shift, or nothing joins them but their order."""
    rng = random.Random(4)
    names = [f"aten::op{rng.randint(0, 6)}" for _ in range(20)]
    host = host_trace(
        {"schema": "1.1.0", "nodes": [node(i + 5, n, record=i + 1) for i, n in enumerate(names)]},
        "host.json",
    )
    events = [
        operator(
            n,
            10 * i,
            5,
            **({"External_id": i + 1 + shift} if shift is not None else {}),
            **({"Record_function_id": i + 1} if records else {}),
        )
        for i, n in enumerate(names)
    ]
    return host, device(*events), names


@pytest.mark.parametrize(
    ("shift", "records", "rule"),
    [(2, True, "Record function id"), (-7, False, "External id"), (None, False, "names in order")],
)
def test_operators_are_joined_by_the_best_number_there_is(shift, records, rule):
    host, events, names = pair(shift, records)
    found = link(host, events)
    assert (found.rule, found.share) == (rule, 1.0)
    assert [host.names[i] for i in found.node] == names
    assert found.node.tolist() == list(range(20))


def test_names_in_order_survive_a_gap():
    rng = random.Random(9)
    names = [f"aten::op{rng.randint(0, 20)}" for _ in range(400)]
    fewer = device(*(operator(n, 10 * i, 5) for i, n in enumerate(names) if i != 77))
    longer = host_trace(
        {
            "schema": "1.0.1",
            "nodes": [
                {"id": i, "name": n, "parent": 1, "rf_id": i + 1, "tid": 1}
                for i, n in enumerate(names)
            ],
        },
        "host.json",
    )
    found = link(longer, fewer)
    assert found.share == 1.0
    assert found.node.tolist() == [i for i in range(400) if i != 77]


def test_old_and_new_schemas_give_the_same_columns():
    old = {
        "name": "aten::mm",
        "id": 4,
        "rf_id": 3,
        "parent": 2,
        "tid": 1,
        "inputs": [[1, 2, 0, 6, 4, "cpu"]],
        "input_shapes": [[2, 3]],
        "input_types": ["Tensor(float)"],
        "outputs": [],
        "output_shapes": [],
        "output_types": [],
    }
    new = node(
        4,
        "aten::mm",
        2,
        3,
        inputs={"values": [[1, 2, 0, 6, 4, "cpu"]], "shapes": [[2, 3]], "types": ["Tensor(float)"]},
    )
    one, two = (
        host_trace({"schema": s, "nodes": [n]}, "h") for s, n in (("1.0.1", old), ("1.1.0", new))
    )
    for field in ("id", "parent", "record", "thread"):
        assert getattr(one, field).tolist() == getattr(two, field).tolist()
    assert (one.names, one.inputs, one.outputs) == (two.names, two.inputs, two.outputs)


def test_process_groups_are_read_from_the_node_that_lists_them():
    text = '[{"pg_name": "0", "ranks": [], "group_size": 4}, {"pg_name": "tp", "ranks": [0, 2]}]'
    listed = node(
        3,
        "## process_group:init ##",
        inputs={"values": [text], "shapes": [[]], "types": ["String"]},
    )
    found = host_trace({"schema": "1.1.0", "nodes": [listed, node(4, "aten::mm")]}, "h")
    assert found.process_groups == {"0": (0, 1, 2, 3), "tp": (0, 2)}
    assert found.operator.tolist() == [False, True]


def steps_of(*numbers: int):
    return [
        e
        for i, n in enumerate(numbers)
        for e in (step(n, 100 * i, 100), operator("aten::mm", 100 * i + 1, 50))
    ]


def test_the_last_step_that_all_ranks_have_is_taken():
    a, b = device(*steps_of(3, 4, 5)), device(*steps_of(3, 4))
    assert [w.label for w in choose([a, b])] == ["ProfilerStep#4"] * 2
    assert choose([a], "all")[0].label == "ProfilerStep#3 to #5"
    assert choose([a], 3)[0].end == pytest.approx(100e-6)
    with pytest.raises(TraceError, match=r"has no ProfilerStep#5. Steps in it: 3, 4"):
        choose([a, b], 5)
    with pytest.raises(InputError, match="step: got 'first'"):
        choose([a], "first")


def test_a_step_without_operators_is_no_step():
    assert choose([device(*steps_of(1), step(2, 100, 1))])[0].label == "ProfilerStep#1"


def write(path, content, packed=False):
    raw = json.dumps(content).encode()
    path.write_bytes(gzip.compress(raw) if packed else raw)
    return path


def run(rank=None, **head):
    info = {"distributedInfo": {"rank": rank, "world_size": 2}} if rank is not None else {}
    return document(*steps_of(1), **info, **head)


HOSTS = {
    "schema": "1.1.0",
    "nodes": [node(2, "ProfilerStep#1", record=1), node(3, "aten::mm", record=2)],
}


def test_files_are_told_apart_by_content_and_joined_by_rank(tmp_path):
    write(tmp_path / "b.json.gz", run(1), packed=True)
    write(tmp_path / "a.json", run(0))
    write(tmp_path / "host_0.json", HOSTS)
    write(tmp_path / "host_1.json", HOSTS)
    write(tmp_path / "notes.json", {"what": "ever"})
    found = find(tmp_path)
    assert [(f.rank, Path(f.device.path).name, Path(f.host.path).name) for f in found] == [
        (0, "a.json", "host_0.json"),
        (1, "b.json.gz", "host_1.json"),
    ]
    assert is_pytorch(tmp_path)
    assert [f.rank for f in find([tmp_path / "b.json.gz", tmp_path / "a.json"])] == [0, 1]
    assert [f.rank for f in find([(tmp_path / "host_1.json", tmp_path / "b.json.gz")])] == [1]
    assert [f.rank for f in find(tmp_path, ranks=[1])] == [1]


def test_the_last_number_of_a_name_is_the_rank_where_the_file_does_not_say(tmp_path):
    write(tmp_path / "v2_rank3.json", run())
    write(tmp_path / "v2_rank1.json", run())
    assert [f.rank for f in find(tmp_path)] == [1, 3]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.json": run(0), "b.json": run(0)}, "second device trace of rank 0"),
        ({"a.json": run(0), "b.json": run(1), "host_7.json": HOSTS}, "holds no times"),
        ({}, "holds no trace"),
    ],
)
def test_what_cannot_be_a_run_is_refused(tmp_path, files, message):
    for name, content in files.items():
        write(tmp_path / name, content)
    with pytest.raises(TraceError, match=message):
        find(tmp_path)


def outcome(pair, folder: str) -> str:
    """ "read", or "refused" with a message that names the file."""
    try:
        read([pair])
    except InputError as error:
        return "refused" if folder in str(error) else f"says only {error}"
    return "read"


def test_damaged_files_give_one_clear_error_each(tmp_path):
    """Bytes struck out, doubled or changed anywhere in a device and a host trace."""
    rng = random.Random(7)
    device_bytes = json.dumps(run(0)).encode()
    host_bytes = json.dumps(HOSTS).encode()
    a, b = tmp_path / "a.json", tmp_path / "host_0.json"
    outcomes = set()
    for _ in range(300):
        for path, raw in ((a, device_bytes), (b, host_bytes)):
            damaged = bytearray(raw)
            for _ in range(rng.randint(0, 3)):
                at = rng.randrange(len(damaged))
                kind = rng.randrange(3)
                if kind == 0:
                    damaged[at] = rng.randrange(256)
                elif kind == 1:
                    del damaged[at : at + rng.randint(1, 40)]
                else:
                    damaged[at:at] = damaged[at : at + rng.randint(1, 40)]
            path.write_bytes(bytes(damaged))
        outcomes.add(outcome((b, a), str(tmp_path)))
    assert outcomes == {"read", "refused"}


def test_calls_and_annotations_alone_are_a_trace_of_host_time():
    only = device(call("cudaFree", 3, 4), event("user_annotation", "forward", 0, 10))
    assert choose([only])[0].label == "whole file"


def rank_of(number, collectives, *, group=(), world=2, base=0):
    """A rank whose main thread launches collectives [(start, length)] on stream 24."""
    events = [step(1, 0, 9000), operator("aten::mm", 0.5, 1)]
    for k, (start, length) in enumerate(collectives):
        events += [
            operator(
                "record_param_comms",
                start - 20,
                15,
                **({"Concrete Inputs": ["", "1", group[k], "0"]} if group else {}),
            ),
            launch(k + 1, start - 10, 3),
            kernel(k + 1, start, length, 24, "ncclDevKernel_AllReduce_Sum_f32(ncclDevComm*)"),
        ]
    return document(
        *events, distributedInfo={"rank": number, "world_size": world}, baseTimeNanoseconds=base
    )


def both(tmp_path, *documents, **options):
    for i, content in enumerate(documents):
        write(tmp_path / f"rank{i}.json", content)
    return read(tmp_path, **options)


def test_collectives_meet_n_th_with_n_th_in_each_communicator(tmp_path):
    """Two communicators that are known by addresses alone, other ones on each rank."""
    found = both(
        tmp_path,
        rank_of(0, [(100, 50), (200, 60), (300, 70)], group=("900000", "800000", "900000")),
        rank_of(1, [(110, 40), (210, 50), (310, 60)], group=("7000000", "6000000", "7000000")),
    )
    assert found.groups == {"communicator 1": (0, 1), "communicator 2": (0, 1)}
    assert found.matched == 1.0
    for c in found.ranks:
        names = [c["group_names"][g] for g in c["group"][c["type"] == 7]]
        assert names == ["communicator 1", "communicator 2", "communicator 1"]


def test_members_that_the_times_refute_are_not_taken_to_meet(tmp_path):
    found = both(tmp_path, rank_of(0, [(100, 50)]), rank_of(1, [(5000, 50)]))
    assert [f.code for f in found.findings] == ["refuted-members"]
    assert found.matched == 0.0


def test_clocks_can_be_set_by_the_collectives(tmp_path):
    """The second machine's clock is 5 ms ahead: by the clocks they never meet, by their ends they start together."""
    one, two = (
        rank_of(0, [(100, 50), (300, 50)]),
        rank_of(1, [(120, 30), (310, 40)], base=5_000_000),
    )
    found = both(tmp_path, one, two, offsets_from="collectives")
    assert found.matched == 1.0
    assert [f.offset for f in found.figures] == pytest.approx([0.0, 0.0], abs=1e-9)
    assert [f.offset for f in both(tmp_path, one, two).figures] == pytest.approx([0.0, 5e-3])


def test_a_communicator_used_unequally_keeps_its_record(tmp_path):
    found = both(tmp_path, rank_of(0, [(100, 50), (300, 50)]), rank_of(1, [(110, 40)]))
    assert [f.code for f in found.findings] == ["uneven-collectives"]
    assert "2 on rank 0, 1 on rank 1" in found.findings[0].message


def test_fewer_ranks_than_a_communicator_names_keep_their_record(tmp_path):
    found = both(tmp_path, rank_of(0, [(100, 50)], world=4), rank_of(1, [(110, 40)], world=4))
    assert [f.code for f in found.findings] == ["absent-ranks"]
    assert set(found.groups.values()) == {(0,), (1,)}
