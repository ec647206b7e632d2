"""Chakra's wire formats of 2023, built by hand from their schemas, read as today's."""

import struct

import pytest

from perfmodel.errors import TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra.wire import length_prefix


def number(field: int, value: int) -> bytes:
    return length_prefix(field * 8) + length_prefix(value)


def text(field: int, value: str | bytes) -> bytes:
    data = value.encode() if isinstance(value, str) else value
    return length_prefix(field * 8 + 2) + length_prefix(len(data)) + data


def file_of(*records: bytes) -> bytes:
    return b"".join(length_prefix(len(r)) + r for r in records)


def attribute(name: str, kind: int, *values: bytes) -> bytes:
    return text(1, name) + number(2, kind) + b"".join(values)


def attributes(trace: chakra.RankTrace, i: int) -> dict:
    node = chakra.Node.FromString(trace.record(i))
    return {a.name: getattr(a, a.WhichOneof("value")) for a in node.attr}


def test_v0_0_1_numbers_its_types_from_mem_load_and_its_collectives_from_one():
    trace = chakra.decode(
        file_of(
            number(1, 0) + text(2, "load") + number(3, 1) + number(6, 4096) + number(5, 2),
            number(1, 1) + text(2, "matmul") + number(3, 3) + number(4, 0) + number(12, 2048) + number(7, 5),
            number(1, 2) + text(2, "gradient") + number(3, 6) + number(4, 0) + number(4, 1)
            + number(13, 4) + number(18, 1024) + number(15, 3) + number(14, 1) + number(14, 0),
            number(1, 3) + text(2, "send") + number(3, 4) + number(17, 1) + number(16, 0)
            + number(18, 8) + number(19, 9),
        ),
        "t.0.eg",
    )  # fmt: skip
    assert trace.form == "Chakra's wire format v0.0.1"
    assert trace.type.tolist() == [2, 4, 7, 5]
    assert trace.names() == ["load", "matmul", "gradient", "send"]
    assert trace.data_dep.tolist() == [0, 0, 1]
    assert (trace.tensor_size[0], trace.tensor_loc[0]) == (4096, 2)
    assert (trace.num_ops[1], trace.duration_us[1]) == (2048, 5)
    assert (trace.comm_type[2], trace.comm_size[2], trace.involved_dim[2]) == (7, 1024, 1)
    assert trace.group_names == ("3",)
    assert (trace.comm_dst[3], trace.comm_size[3], trace.comm_tag[3]) == (1, 8, 9)


@pytest.mark.parametrize(("kind", "today"), [(1, 0), (2, 6), (3, 2), (4, 7)])
def test_v0_0_1_collectives(kind, today):
    record = number(1, 1) + text(2, "c") + number(3, 6) + number(13, kind) + number(18, 4)
    assert chakra.decode(file_of(record), "x").comm_type[0] == today


def test_v0_0_1_is_known_by_its_ending_where_its_fields_do_not_say():
    record = number(1, 1) + text(2, "c") + number(3, 3) + number(7, 5)
    assert chakra.decode(file_of(record), "t.0.eg").type[0] == 4
    assert chakra.decode(file_of(record), "t.0.et").type[0] == 3


def test_v0_0_2_has_attributes_with_a_type_and_numbers_from_mem_load():
    trace = chakra.decode(
        file_of(
            number(1, 7) + text(2, "f") + number(3, 3) + text(11, attribute("runtime", 1, number(5, 12))),
            number(1, 8) + text(2, "r") + number(3, 6) + number(4, 7)
            + text(11, attribute("comm_type", 1, number(5, 3)))
            + text(11, attribute("comm_size", 1, number(5, 1 << 33)))
            + text(11, attribute("note", 2, text(6, "x"))),
        ),
        "x",
    )  # fmt: skip
    assert trace.form.endswith("v0.0.2")
    assert (trace.type.tolist(), trace.duration_us.tolist()) == ([4, 7], [12, 0])
    assert (trace.comm_type[1], trace.comm_size[1], trace.data_dep.tolist()) == (7, 1 << 33, [7])
    assert attributes(trace, 1)["note"] == "x"


def test_v0_0_3_has_metadata_among_its_types():
    early = chakra.decode(
        file_of(
            number(1, 1) + text(2, "c") + number(3, 7)
            + text(11, attribute("comm_type", 2, number(6, 4)))
            + text(11, attribute("comm_size", 2, number(6, 64)))
            + text(11, attribute("is_cpu_op", 0, number(4, 1)))
            + text(11, attribute("share", 1, b"\x2d" + struct.pack("<f", 0.5)))
            + text(11, attribute("pg_name", 3, text(7, "5")))
            + text(11, attribute("involved_dim", 4, number(8, 1), number(8, 1))),
        ),
        "x",
    )  # fmt: skip
    assert early.form.endswith("v0.0.3")
    assert (early.type[0], early.comm_type[0], early.comm_size[0]) == (7, 5, 64)
    assert (early.is_cpu[0], early.group_names, early.involved_dim[0]) == (1, ("5",), 3)
    assert attributes(early, 0)["share"] == 0.5


def test_late_v0_0_3_has_unsigned_numbers_and_metadata_with_attributes_at_field_1():
    late = chakra.decode(
        file_of(
            text(1, attribute("schema", 4, text(8, "1.0.1"))),
            number(1, 1) + text(2, "k") + number(3, 4)
            + text(11, attribute("runtime", 2, number(6, 30)))
            + text(11, attribute("num_ops", 3, number(7, 9))),
        ),
        "x",
    )  # fmt: skip
    assert late.form.endswith("unsigned numbers")
    assert (late.type[0], late.duration_us[0], late.num_ops[0]) == (4, 30, 9)
    assert late.schema == "1.0.1"


def test_messages_of_an_older_file_are_today_s():
    record = number(1, 1) + text(2, "c") + number(3, 3) + number(4, 0) + number(7, 5)
    metadata, node = chakra.messages_of(file_of(record), "x")
    assert metadata.attr[0].string_val == "Chakra v0.0.1"
    assert (node.type, node.duration_micros, list(node.data_deps)) == (4, 5, [0])


def test_a_number_out_of_range_in_an_older_file_is_said_with_its_record():
    record = number(1, 1) + text(2, "s") + number(3, 4) + number(17, 1 << 40)
    with pytest.raises(
        TraceError, match=r"x: byte 1, record 0: is no Node of Chakra's wire format v0\.0\.1"
    ):
        chakra.decode(file_of(record), "x")


@pytest.mark.parametrize(
    ("file", "nodes", "collectives"),
    [
        ("transformer_2stack.0.eg", 142, 40),
        ("transformer_2stack.3.eg", 142, 40),
        ("twoCompNodesDependent.0.eg", 2, 0),
    ],
)
def test_samples_of_v0_0_1(shared, file, nodes, collectives):
    trace = chakra.read(shared / "reference/chakra/v0_0_1" / file)
    assert len(trace) == nodes
    assert int((trace.type == 7).sum()) == collectives
    assert int((trace.type == 4).sum()) == nodes - collectives
    assert ((trace.comm_size[trace.type == 7]) > 0).all()
