"""Files of made steps as Chakra's own tools read them: decoded by protobuf, node by node, and fed in order.

The rules are those of Chakra's first feeder, which reads one type of each attribute and takes another one for nothing,
and of the one that ASTRA-sim links, which stops at what is missing.
"""

import json
from collections import Counter, defaultdict

import pytest

from perfmodel import synth
from perfmodel.trace import chakra

SIZES = {"layers": 4, "hidden": 64, "heads": 4, "kv_heads": 2, "vocabulary": 96, "inner": 128}
TYPES = {
    "is_cpu_op": "bool_val",
    "num_ops": "int64_val",
    "tensor_size": "uint64_val",
    "comm_type": "int64_val",
    "comm_size": "int64_val",
    "comm_src": "int32_val",
    "comm_dst": "int32_val",
    "comm_tag": "int32_val",
    "pg_name": "string_val",
}
MEM_LOAD, MEM_STORE, COMP, SEND, RECV, COLL = range(2, 8)
NEEDED = {
    MEM_LOAD: {"tensor_size"},
    MEM_STORE: {"tensor_size"},
    COMP: {"num_ops", "tensor_size"},
    SEND: {"comm_size", "comm_dst", "comm_tag"},
    RECV: {"comm_size", "comm_src", "comm_tag"},
    COLL: {"comm_size", "comm_type"},
}


@pytest.mark.parametrize(
    "spread",
    [
        {"data": 2, "tensor": 2, "pipeline": 2, "micro_batches": 4},
        {"data": 4, "sharding": 3},
        {"data": 2, "offload": "optimizer", "recompute": "full"},
        {"tensor": 2, "pipeline": 2, "virtual": 2, "micro_batches": 4, "schedule": "dualpipe-v"},
        {"tensor": 2, "sequence_parallel": True, "dtype": "fp8", "host_forward": 1e-3},
    ],
    ids=str,
)
def test_every_node_has_what_chakras_feeders_read_in_the_type_that_they_read(spread, tmp_path):
    work = synth.training(SIZES, sequence=32, **spread)
    work.write(tmp_path)
    files, group_file = chakra.find(tmp_path)
    groups = json.loads(group_file.read_text()) if group_file else {}
    messages = defaultdict(lambda: ([], []))
    collectives = defaultdict(dict)
    for rank, path in files:
        metadata, *nodes = chakra.messages(path)
        assert metadata.version == "1.0.0"
        feed(nodes)
        for node in nodes:
            found = {a.name: getattr(a, a.WhichOneof("value")) for a in node.attr}
            types = {a.name: a.WhichOneof("value") for a in node.attr}
            assert len(found) == len(node.attr)
            assert all(types[name] == wanted for name, wanted in TYPES.items() if name in types)
            replayed = node.type == COMP and found["is_cpu_op"] and node.duration_micros
            assert replayed or NEEDED[node.type] <= found.keys()
            assert node.type < SEND or not found["is_cpu_op"]
            group = found.get("pg_name", "")
            assert not group or (group.isdigit() and rank in groups[group])
            if node.type == COLL:
                seen = collectives[group].setdefault(rank, Counter())
                seen[node.name, found["comm_type"], found["comm_size"]] += 1
            elif node.type in (SEND, RECV):
                ends = (rank, found["comm_dst"]) if node.type == SEND else (found["comm_src"], rank)
                messages[*ends, found["comm_tag"]][node.type == RECV].append(found["comm_size"])
    assert all(sorted(sent) == sorted(received) for sent, received in messages.values())
    for group, by_rank in collectives.items():
        assert by_rank.keys() == set(groups[group] if group else range(len(files)))
        assert len({frozenset(seen.items()) for seen in by_rank.values()}) == 1


def feed(nodes) -> None:
    """Hand nodes out as their data dependencies are done; all of them have to come."""
    assert len({node.id for node in nodes}) == len(nodes)
    waits = {node.id: set(node.data_deps) for node in nodes}
    assert all(len(waits[node.id]) == len(node.data_deps) for node in nodes)
    assert all(wanted <= waits.keys() for wanted in waits.values())
    assert all(set(node.ctrl_deps) <= waits.keys() for node in nodes)
    done: set[int] = set()
    while free := [id for id, wanted in waits.items() if wanted <= done]:
        done.update(free)
        for id in free:
            del waits[id]
    assert not waits
