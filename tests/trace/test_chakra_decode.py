"""The compiled reader against protobuf, on real files, on every kind, and on random messages."""

import gzip
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.attributes import LARGEST, NAMES
from perfmodel.trace.chakra.protobuf_messages import length_prefix
from tests.chakra_oracle import NUMBERS, attribute, file_of, node, number, row, rows, rows_of

KINDS = [f.name for f in schema.AttributeProto.DESCRIPTOR.oneofs_by_name["value"].fields]
SCALARS = [kind for kind in KINDS if kind.endswith("_val")]


def decode_one(*attributes, **fields):
    (found,) = rows_of(chakra.decode(file_of(node(*attributes, **fields)), "t.0.et"))
    return found


def plain(kind, value):
    """`value` in the Python type of a kind."""
    base = kind.rsplit("_", 1)[0]
    types = {"double": float, "float": float, "bool": bool, "string": str}
    return str(value).encode() if base == "bytes" else types.get(base, int)(value)


def test_every_reference_trace_decodes_like_protobuf_field_by_field(shared: Path) -> None:
    files = sorted((shared / "reference").rglob("*.et"))
    assert len(files) > 600
    nodes = 0
    for file in files:
        metadata, *messages = chakra.messages(file)
        trace = chakra.read(file)
        assert rows_of(trace) == rows(messages), file
        assert trace.metadata == (None if metadata is None else metadata.SerializeToString())
        assert trace.version == ("" if metadata is None else metadata.version)
        nodes += len(trace)
    assert nodes > 40_000


def test_each_node_keeps_its_record_and_the_trace_its_schema(shared: Path) -> None:
    file = shared / "reference/chakra/pytorch_2rank/chakra_trace.0.et"
    trace = chakra.read(file)
    _, *messages = chakra.messages(file)
    for i in range(0, len(trace), 100):
        assert schema.Node.FromString(trace.record(i)) == messages[i]
    assert trace.schema == "1.1.1-chakra.0.0.4"
    assert len(trace.digest) == 64
    assert trace.comm_size.max() == 2**32


@pytest.mark.parametrize("name", [*NUMBERS, "is_cpu_op"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_number_is_read_from_every_kind(name: str, kind: str) -> None:
    value = 1 if kind.startswith("bool") else 73
    column = "is_cpu" if name == "is_cpu_op" else name
    found = decode_one(attribute(name, kind, plain(kind, value)))
    assert found[column] == (1 if name == "is_cpu_op" else value)


@pytest.mark.parametrize("kind", KINDS)
def test_a_group_is_read_from_every_kind(kind: str) -> None:
    assert decode_one(attribute("pg_name", kind, plain(kind, 1)))["group"] == "1"


@pytest.mark.parametrize("kind", [k for k in KINDS if not k.startswith(("string", "bytes"))])
def test_dimensions_are_read_from_lists_of_every_number(kind: str) -> None:
    if kind.endswith("_val"):
        found = decode_one(attribute("involved_dim", kind, plain(kind, 1)))
        assert (found["involved_dim"], found["involved_dims"]) == (1, 1)
    else:
        flags = [plain(kind, flag) for flag in (1, 0, 1, 0)]
        found = decode_one(attribute("involved_dim", kind, *flags))
        assert (found["involved_dim"], found["involved_dims"]) == (0b0101, 4)


@pytest.mark.parametrize(
    ("kind", "smallest"),
    [
        ("int32_val", -(2**31)),
        ("int64_val", -(2**63)),
        ("sint32_val", -(2**31)),
        ("sint64_val", -(2**63)),
        ("sfixed32_val", -1),
        ("sfixed64_val", -(2**63)),
        ("double_val", -5.0),
        ("float_val", -5.0),
        ("string_val", "-12"),
    ],
)
def test_negative_numbers_are_read_as_such(kind: str, smallest: float) -> None:
    assert decode_one(attribute("stream", kind, smallest))["stream"] == -1
    with pytest.raises(TraceError, match=r"node 7, attribute comm_size: is negative"):
        decode_one(attribute("comm_size", kind, smallest))


@pytest.mark.parametrize(
    ("kind", "found", "complaint"),
    [
        ("double_val", [math.nan], "is not finite"),
        ("float_val", [math.inf], "is not finite"),
        ("double_val", [0.5], "is not a whole number"),
        ("double_val", [2.0**63], "is too large"),
        ("uint64_val", [2**63], "is too large"),
        ("fixed64_val", [2**64 - 1], "is too large"),
        ("string_val", ["9223372036854775808"], "is too large"),
        ("string_val", ["99999999999999999999"], "is too large"),
        ("string_val", ["12 B"], "is no number"),
        ("string_val", [""], "is no number"),
        ("string_val", ["-"], "is no number"),
        ("string_val", ["1.5"], "is not a whole number"),
        ("string_val", ["1.0.0"], "is no number"),
        ("bytes_val", [b"\xff1"], "is no number"),
        ("int64_list", [1, 2], "has several values"),
        ("string_list", ["1", "2"], "has several values"),
    ],
)
def test_what_is_no_count_is_an_error_that_names_node_attribute_and_value(
    kind: str, found: list, complaint: str
) -> None:
    with pytest.raises(TraceError) as caught:
        decode_one(attribute("num_ops", kind, *found))
    message = str(caught.value)
    assert "record 1 (at byte 1), node 7, attribute num_ops: " + complaint in message
    assert message.startswith("t.0.et: byte ")
    assert f"got {kind}" in message
    assert "Expected" in message


@pytest.mark.parametrize(("name", "most"), [("comm_type", 2**31 - 1), ("tensor_loc", 127)])
def test_a_number_beyond_its_column_is_an_error(name: str, most: int) -> None:
    assert decode_one(attribute(name, "int64_val", most))[name] == most
    with pytest.raises(TraceError, match=f"attribute {name}: is too large .* at most {most}"):
        decode_one(attribute(name, "int64_val", most + 1))


def test_a_duration_beyond_int64_is_an_error() -> None:
    with pytest.raises(TraceError, match="node 7, field duration_micros: is too large"):
        decode_one(duration_micros=2**63)


def test_text_with_zeros_behind_the_point_is_a_whole_number() -> None:
    assert decode_one(attribute("tensor_size", "string_val", "+2048.00"))["tensor_size"] == 2048
    assert decode_one(attribute("tensor_size", "string_val", str(2**63 - 1)))["tensor_size"] == (
        2**63 - 1
    )


def test_an_attribute_without_a_value_is_absent() -> None:
    empty = [schema.AttributeProto(name=name) for name in NAMES]
    empty += [attribute(name, "int64_list") for name in NAMES]
    found = decode_one(*empty)
    assert {found[name] for name in (*NUMBERS, "is_cpu", "stream", "tid")} == {-1}
    assert (found["group"], found["involved_dim"], found["involved_dims"]) == (None, -1, 0)


def test_of_an_attribute_given_twice_the_last_value_counts() -> None:
    two = [attribute("num_ops", "int64_val", 1), attribute("num_ops", "string_val", "2")]
    assert decode_one(*two)["num_ops"] == 2
    assert decode_one(*two, schema.AttributeProto(name="num_ops"))["num_ops"] == 2


def test_pg_name_comes_before_comm_group_and_an_empty_text_is_no_group() -> None:
    group = attribute("comm_group", "int32_val", 3)
    assert decode_one(group)["group"] == "3"
    assert decode_one(attribute("pg_name", "string_val", "8"), group)["group"] == "8"
    assert decode_one(attribute("pg_name", "string_val", ""), group)["group"] == "3"
    assert decode_one(attribute("pg_name", "string_val", ""))["group"] is None


def test_many_groups_of_one_rank_are_told_apart() -> None:
    texts = [str(k % 50) for k in range(200)]
    data = file_of(*(node(attribute("pg_name", "string_val", t), id=1) for t in texts))
    trace = chakra.decode(data, "x")
    assert trace.group_names == tuple(str(k) for k in range(50))
    assert [trace.group_names[g] for g in trace.group] == texts


def test_a_list_of_over_31_dimensions_is_an_error() -> None:
    assert decode_one(attribute("involved_dim", "bool_list", *[True] * 31))["involved_dim"] == (
        2**31 - 1
    )
    with pytest.raises(TraceError, match="involved_dim: has more than 31 dimensions"):
        decode_one(attribute("involved_dim", "bool_list", *[True] * 32))
    with pytest.raises(TraceError, match="involved_dim: is no number"):
        decode_one(attribute("involved_dim", "string_list", "1", "0"))


def test_protobuf_merges_what_a_writer_split_and_so_does_the_reader() -> None:
    dims = [attribute("involved_dim", "bool_list", flag) for flag in (True, False, True)]
    merged = b"".join(d.SerializeToString() for d in dims)
    scalars = [attribute("num_ops", "int64_val", 5), attribute("num_ops", "uint32_val", 6)]
    last = b"".join(s.SerializeToString() for s in scalars)
    switched = (
        attribute("tensor_size", "int64_list", 1).SerializeToString()
        + attribute("tensor_size", "uint64_list", 2).SerializeToString()
        + attribute("tensor_size", "int64_list", 3).SerializeToString()
    )
    payload = b"".join(
        b"\x52" + length_prefix(len(text)) + text for text in (merged, last, switched)
    )
    split = b"\x08\x01\x22\x01\x05\x22\x01\x06\x2a\x00" + payload + b"\x28\x09\x08\x02"
    message = schema.Node.FromString(split)
    (found,) = rows_of(chakra.decode(file_of(split), "x"))
    assert found == row(message)
    assert (found["involved_dim"], found["num_ops"], found["tensor_size"]) == (0b101, 6, 3)
    assert (found["id"], found["ctrl_deps"], found["data_deps"]) == (2, [5, 6], [9])


def test_unpacked_numbers_in_a_list_are_read() -> None:
    value = b"\x0a\x07num_ops" + bytes([8 * 10 + 2, 2]) + b"\x08\x2a"
    (found,) = rows_of(chakra.decode(file_of(b"\x52" + bytes([len(value)]) + value), "x"))
    assert found["num_ops"] == 42


def test_unknown_fields_and_wrong_wire_types_are_passed_over() -> None:
    unknown = (
        b"\x5a\x02\x08\x01"  # field 11, a message (proposed: storage)
        b"\xc0\x3e\x05"  # field 1000, a varint
        b"\xc5\x3e\x01\x02\x03\x04"  # field 1000, 4 bytes
        b"\xc1\x3e\x01\x02\x03\x04\x05\x06\x07\x08"
        b"\x0a\x01\x63"  # id as text
        b"\x15\x01\x02\x03\x04"  # name as 4 bytes
    )
    known = node(attribute("num_ops", "int64_val", 9), name="a", type=4).SerializeToString()
    (found,) = rows_of(chakra.decode(file_of(unknown + known), "x"))
    assert found == row(schema.Node.FromString(known))


def test_node_types_that_the_schema_does_not_know_are_kept() -> None:
    for number_ in (8, 10, 300, -1):
        assert decode_one(type=number_)["type"] == number_


def test_names_that_are_no_utf8_are_shown_with_a_replacement() -> None:
    trace = chakra.decode(file_of(b"\x08\x01\x12\x03a\xffb"), "x")
    assert trace.names() == ["a\ufffdb"]


def test_an_empty_record_is_metadata_at_the_start_and_a_node_later() -> None:
    trace = chakra.decode(b"\x00" + file_of(node(id=3), metadata=None) + b"\x00", "x")
    assert trace.metadata == b""
    assert trace.id.tolist() == [3, 0]
    assert trace.type.tolist() == [0, 0]
    with pytest.raises(TraceError, match="second empty record"):
        chakra.decode(b"\x00" + file_of(node(id=3), metadata=None) + b"\x00\x00", "x")


def test_a_file_may_begin_with_a_node() -> None:
    first = schema.Node(name="first", type=4)  # id 0 is not written: begins with the name
    for begin in (first, node(id=1, name="a"), node(id=1), schema.Node(name="only a name")):
        trace = chakra.decode(file_of(begin, node(id=9), metadata=None), "x")
        assert trace.metadata is None
        assert rows_of(trace)[0] == row(begin)


def test_metadata_is_told_from_a_node_by_its_attributes() -> None:
    metadata = schema.GlobalMetadata(version="1.0.0")
    metadata.attr.add(name="schema", string_val="x1")
    metadata.attr.add(name="pid", uint64_val=5)
    for keep in ("version", "attr"):
        part = schema.GlobalMetadata()
        part.MergeFrom(metadata)
        part.ClearField("version" if keep == "attr" else "attr")
        trace = chakra.decode(file_of(node(), metadata=part.SerializeToString()), "x")
        assert trace.metadata == part.SerializeToString()
        assert (trace.version, trace.schema) == (part.version, "x1" if part.attr else "")


def test_gzip_is_recognised_by_content() -> None:
    data = file_of(node(name="a"))
    packed = gzip.compress(data)
    trace = chakra.decode(packed, "x")
    assert rows_of(trace) == rows_of(chakra.decode(data, "x"))
    assert trace.digest == chakra.decode(data, "x").digest


names = st.sampled_from([*NAMES, "inputs", "op_type", "comm_sizes", "num_opt", "tie", "", "é"])
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
u64 = st.integers(0, 2**64 - 1)


@st.composite
def attributes(draw):
    """An attribute of any name and kind; those the model reads mostly hold a sensible value."""
    name, kind = draw(names), draw(st.sampled_from(KINDS))
    base = kind.rsplit("_", 1)[0]
    most = 126
    value = {
        "double": st.integers(0, most).map(float),
        "float": st.integers(0, most).map(float),
        "bool": st.booleans(),
        "string": st.integers(0, most).map(str),
        "bytes": st.integers(0, most).map(lambda n: str(n).encode()),
    }.get(base, st.integers(0, most))
    if name == "involved_dim" and base in ("string", "bytes"):
        kind = "bool_list"
        value = st.booleans()
    if kind.endswith("_val"):
        return attribute(name, kind, draw(value))
    length = 5 if name == "involved_dim" or name not in NAMES else 1
    return attribute(name, kind, *draw(st.lists(value, max_size=length)))


@st.composite
def nodes(draw):
    """A node with anything in it that the current schema allows."""
    message = schema.Node(
        id=draw(u64),
        name=draw(texts),
        type=draw(st.integers(0, 12)),
        ctrl_deps=draw(st.lists(u64, max_size=4)),
        data_deps=draw(st.lists(u64, max_size=4)),
        start_time_micros=draw(u64),
        duration_micros=draw(st.integers(0, 2**63 - 1)),
        attr=draw(st.lists(attributes(), max_size=6)),
    )
    if draw(st.booleans()):
        message.inputs.values = draw(texts)
        message.outputs.shapes = draw(texts)
    return message


@settings(max_examples=300, deadline=None)
@given(st.lists(nodes(), min_size=1, max_size=8))
def test_random_messages_decode_like_protobuf(messages: list) -> None:
    data = file_of(*messages)
    if data.endswith(b"\x00\x00"):  # two empty records are refused, see above
        return
    assert rows_of(chakra.decode(data, "x")) == rows(messages)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(NUMBERS),
    st.one_of(
        st.tuples(st.sampled_from(["double_val", "float_val"]), st.floats(width=32)),
        st.tuples(st.sampled_from(["int64_val", "sint64_val", "sfixed64_val"]), st.integers(-9, 9)),
        st.tuples(st.sampled_from(["uint64_val", "fixed64_val"]), u64),
        st.tuples(st.just("string_val"), st.text("0123456789.+-", max_size=22)),
    ),
)
def test_a_random_value_is_read_exactly_or_refused(name: str, given_: tuple) -> None:
    message = attribute(name, *given_)
    largest = LARGEST[NAMES.index(name)]
    try:
        expected = number(message)
    except ValueError:
        expected = None
    if expected is not None and 0 <= expected <= largest:
        assert decode_one(message)[name] == expected
    else:
        with pytest.raises(TraceError, match=f"node 7, attribute {name}: is "):
            decode_one(message)


def test_columns_have_the_types_the_trace_promises() -> None:
    trace = chakra.decode(file_of(node(attribute("num_ops", "int32_val", 5))), "x")
    expected = {
        np.uint64: ("id", "start_us", "data_dep", "ctrl_dep"),
        np.int32: ("type", "name_size", "comm_type", "involved_dim", "group", "node_size"),
        np.int8: ("is_cpu", "tensor_loc", "involved_dims"),
        np.int64: (
            *("name_offset", "node_offset", "data_ptr", "ctrl_ptr", "duration_us", "num_ops"),
            *("tensor_size", "comm_size", "comm_src", "comm_dst", "comm_tag", "stream", "tid"),
        ),
    }
    for kind, columns in expected.items():
        for column in columns:
            assert getattr(trace, column).dtype == kind, column
