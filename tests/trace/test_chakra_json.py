"""The JSON forms of a Chakra trace: four in, one out."""

import gzip
import json

import pytest

from perfmodel.errors import TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import json_forms

FEEDER = {
    "workload_graph": [
        {"Id": 5, "Name": "a", "NodeType": 4, "runtime": 7, "is_cpu_op": True, "data_deps": []},
        {"Id": 6, "Name": "b", "NodeType": 7, "data_deps": [5], "ctrlDeps": [9], "comm_type": 2, "comm_size": 64},
        {"Id": 8, "Name": "s", "NodeType": 5, "comm_size": 4, "comm_dst": 1, "comm_src": 0, "comm_tag": 3},
    ],
    "ngpus": 2,
}  # fmt: skip
JSONIZER = """{
  "attr": [ { "name": "schema", "stringVal": "symbolic_tensor_network" } ]
}{
  "name": "first", "type": "COMP_NODE", "durationMicros": "3",
  "attr": [ { "name": "num_ops", "int64Val": "9007199254740993" } ]
}{ "id": "4294967296", "name": "g", "type": "COMM_COLL_NODE", "dataDeps": ["0"],
  "attr": [ { "name": "pg_name", "stringVal": "4" }, { "name": "comm_type", "int64Val": "2" } ] }
"""
STAGE = {
    "nodes": [
        {"id": 1, "name": "m", "node_type": "comp_node", "num_ops": 8, "y_tensor_size": 16, "op_type": "M",
         "inputs": ["x", "4.0"], "outputs": ["y", "16.0"], "data_deps": [], "ctrl_deps": [2]},
        {"id": 2, "name": "r", "node_type": "COLL_COMM_NODE", "comm_type": "all_reduce", "comm_size": 16,
         "comm_group": "3", "data_deps": [1]},
    ]
}  # fmt: skip


def read(value, name="x.json") -> chakra.RankTrace:
    text = value if isinstance(value, str) else json.dumps(value)
    return chakra.decode(text.encode(), name)


def test_feeder_json():
    t = read(FEEDER)
    assert t.form == "feeder JSON"
    assert (t.id.tolist(), t.type.tolist(), t.names()) == ([5, 6, 8], [4, 7, 5], ["a", "b", "s"])
    assert (t.duration_us.tolist(), t.is_cpu.tolist()) == ([7, 0, 0], [1, -1, -1])
    assert (t.data_dep.tolist(), t.ctrl_dep.tolist()) == ([5], [9])
    assert (t.comm_type[1], t.comm_size[1], t.comm_dst[2], t.comm_tag[2]) == (2, 64, 1, 3)


def test_jsonizer_s_objects_one_after_the_other():
    t = read(JSONIZER)
    assert t.form == "chakra_jsonizer's text"
    assert (t.id.tolist(), t.type.tolist()) == ([0, 1 << 32], [4, 7])
    assert (t.num_ops[0], t.duration_us[0], t.schema) == (2**53 + 1, 3, "symbolic_tensor_network")
    assert (t.group_names, t.data_dep.tolist()) == (("4",), [0])


def test_stage_s_json():
    t = read(STAGE)
    assert t.form == "STAGE's JSON"
    assert (t.type.tolist(), t.num_ops[0], t.tensor_size[0]) == ([4, 7], 8, 16)
    assert (t.comm_type[1], t.comm_size[1], t.group_names, t.schema) == (
        0,
        16,
        ("3",),
        "symbolic_tensor_network",
    )


def test_a_document_holds_all_that_a_file_has():
    records = list(chakra.messages_of(JSONIZER.encode(), "x"))
    text = json_forms.document(records[0], records[1:])
    assert len(json.loads(text)["nodes"]) == 2
    assert [m.SerializeToString() for m in chakra.messages_of(text.encode(), "y")] == [
        m.SerializeToString() for m in records
    ]


@pytest.mark.parametrize(
    "file", ["pytorch_2rank/chakra_trace.0.et", "custom_collective/custom_allreduce.0.et"]
)
def test_samples_to_a_document_and_back(shared, file):
    records = list(chakra.messages(shared / "reference/chakra" / file))
    text = json_forms.document(records[0], records[1:])
    back = list(chakra.messages_of(text.encode(), "x"))
    assert [m.SerializeToString() for m in back] == [m.SerializeToString() for m in records]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        (JSONIZER[:-30], "x.json: line 7, column"),
        (JSONIZER.replace('"COMP_NODE"', '"CAMP_NODE"'), "object 2: is no Node"),
        (JSONIZER.replace('"9007199254740993"', '"many"'), "object 2: is no Node"),
        (JSONIZER + "[1]", "object 4: is"),
        (json.dumps(FEEDER).replace('"Id": 5', '"Id": -5'), "node 1 of the list: Id is -5"),
        (json.dumps(FEEDER).replace('"NodeType": 4', '"NodeType": null'), "NodeType is None"),
        (json.dumps(FEEDER).replace("[5]", '["5"]'), "node 2 of the list: data_deps"),
        (json.dumps(FEEDER).replace("64", "1e400"), "comm_size is inf"),
        (json.dumps(STAGE).replace("comp_node", "camp_node"), "node_type is camp_node"),
        ('{"workload_graph": [7]}', "node 1 of the list: is 7"),
        ("[" * 100_000, "is no JSON"),
        ('{"nodes": 1}', "JSON of no known trace format"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text, complaint):
    with pytest.raises(TraceError, match=complaint.replace("[", r"\[")):
        read(text)


@pytest.mark.parametrize(
    ("file", "nodes", "collectives", "form"),
    [
        ("feeder_json/chakra.0.json.gz", 3664, 21, "feeder JSON"),
        ("feeder_json/small_chakra.0.json", 7, 3, "feeder JSON"),
        ("jsonizer/j0_0.json.gz", 3294, 802, "chakra_jsonizer's text"),
    ],
)
def test_samples(shared, file, nodes, collectives, form):
    trace = chakra.read(shared / "reference/chakra" / file)
    assert (len(trace), int((trace.type == 7).sum()), trace.form) == (nodes, collectives, form)


def test_gzip_is_seen_by_content():
    assert len(chakra.decode(gzip.compress(json.dumps(FEEDER).encode()), "x.json")) == 3
