"""What is written is what was read: messages with everything in them, columns, and the schema."""

import gzip
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from google.protobuf import descriptor_pool
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError, TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra import writer as writer_module
from tests.chakra_oracle import attribute, file_of, node, row, rows, rows_of

CANONICAL = (  # producers that write as protobuf does today; others write id 0 out
    "chakra/pytorch_2rank/chakra_trace.0.et",
    "chakra/old_pytorch/chakra.0.et",
    "chakra/no_metadata/resnet50_DataParallel.3.et",
    "chakra/custom_collective/custom_allreduce.5.et",
    "chakra/resnet_dp/Resnet50_DataParallel.0.et",
    "astra-sim/traces/stg_gpt_dp2tp4pp2/t.7.et",
)


@pytest.mark.parametrize("name", CANONICAL)
def test_a_trace_read_and_written_is_the_same_file(shared: Path, tmp_path: Path, name: str) -> None:
    original = shared / "reference" / name
    metadata, *nodes = chakra.messages(original)
    chakra.write(tmp_path / "t.0.et", metadata, nodes)
    assert (tmp_path / "t.0.et").read_bytes() == original.read_bytes()


def test_every_reference_trace_written_again_holds_the_same_messages(
    shared: Path, tmp_path: Path
) -> None:
    files = sorted((shared / "reference").rglob("*.et"))[::7]
    for file in files:
        first = list(chakra.messages(file))
        chakra.write(tmp_path / "t.0.et", first[0], first[1:])
        assert list(chakra.messages(tmp_path / "t.0.et")) == first
    assert len(files) > 80


def test_unknown_fields_survive_reading_and_writing(tmp_path: Path) -> None:
    known = node(attribute("num_ops", "int64_val", 9), name="a", type=4).SerializeToString()
    unknown = b"\x5a\x02\x08\x01\xc0\x3e\x05"
    inner = b"\x52\x0b\x0a\x01x\x48\x05\x8a\x02\x03\x0a\x01y"  # any_val 33, once proposed
    data = file_of(known + inner + unknown, metadata=b"\x0a\x01v\xc0\x3e\x07")
    (tmp_path / "t.0.et").write_bytes(data)
    metadata, *nodes = chakra.messages(tmp_path / "t.0.et")
    chakra.write(tmp_path / "u.0.et", metadata, nodes)
    assert (tmp_path / "u.0.et").read_bytes() == data


def test_a_file_without_metadata_stays_without(tmp_path: Path) -> None:
    (tmp_path / "t.0.et").write_bytes(file_of(node(type=4), metadata=None))
    metadata, *nodes = chakra.messages(tmp_path / "t.0.et")
    assert metadata is None
    chakra.write(tmp_path / "u.0.et", metadata, nodes)
    assert (tmp_path / "u.0.et").read_bytes() == (tmp_path / "t.0.et").read_bytes()


def test_messages_of_damaged_and_old_files_are_errors(tmp_path: Path) -> None:
    file = tmp_path / "t.0.et"
    good = file_of(node(type=4))
    for data, complaint in [
        (good[:-1], "record 1: the record's length"),
        (good + b"\x80", "record 2: the record's length"),
        (good + b"\x02\x12\x05", "record 2: is no Node message"),
    ]:
        file.write_bytes(data)
        with pytest.raises(TraceError, match=complaint):
            list(chakra.messages(file))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "t.0.et"
    chakra.write(file, schema.GlobalMetadata(version="1"), [node()])
    before = file.read_bytes()

    def broken():
        yield node()
        raise RuntimeError("producer")

    with pytest.raises(RuntimeError, match="producer"):
        chakra.write(file, None, broken())
    with pytest.raises(TypeError):
        chakra.write_bytes(file, "text")
    assert file.read_bytes() == before
    assert os.listdir(tmp_path) == ["t.0.et"]


def test_a_written_file_has_the_rights_any_new_file_has(tmp_path: Path) -> None:
    chakra.write_bytes(tmp_path / "a", b"")
    (tmp_path / "b").touch()
    assert (tmp_path / "a").stat().st_mode == (tmp_path / "b").stat().st_mode


def test_a_name_that_ends_in_gz_is_compressed_and_equal_content_gives_equal_files(
    tmp_path: Path,
) -> None:
    nodes = [node(type=4, name="a" * 1000)]
    for name in ("t.0.et", "a.et.gz", "b.et.gz"):
        chakra.write(tmp_path / name, schema.GlobalMetadata(version="1"), nodes)
    packed = (tmp_path / "a.et.gz").read_bytes()
    assert packed == (tmp_path / "b.et.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "t.0.et").read_bytes()
    assert list(chakra.messages(tmp_path / "a.et.gz"))[1:] == nodes


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "'': is no file to write"),
        ("none/t.0.et", "none/t.0.et: cannot be written: there is no folder"),
        ("folder", "folder: is a folder"),
        ("/dev/null", "/dev/null: is no regular file"),
        ("a" * 300, "a: cannot be written: File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, complaint: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=complaint):
        chakra.write_bytes(name, b"")
    assert os.listdir(tmp_path) == ["folder"]


def message(trace: chakra.RankTrace, i: int) -> schema.Node:
    """Node i of built columns as protobuf would make it."""
    out = schema.Node(
        id=int(trace.id[i]),
        name=trace.name(i),
        type=int(trace.type[i]),
        ctrl_deps=trace.ctrl_dep[trace.ctrl_ptr[i] : trace.ctrl_ptr[i + 1]].tolist(),
        data_deps=trace.data_dep[trace.data_ptr[i] : trace.data_ptr[i + 1]].tolist(),
        start_time_micros=int(trace.start_us[i]),
        duration_micros=int(trace.duration_us[i]),
    )
    kinds = {
        "is_cpu_op": "bool_val",
        "num_ops": "int64_val",
        "tensor_size": "uint64_val",
        "comm_size": "int64_val",
        "comm_type": "int64_val",
        "comm_src": "int32_val",
        "comm_dst": "int32_val",
        "comm_tag": "int32_val",
        "stream": "int64_val",
        "tid": "int64_val",
        "tensor_loc": "int32_val",
    }
    for name, kind in kinds.items():
        value = int(getattr(trace, "is_cpu" if name == "is_cpu_op" else name)[i])
        if value >= 0:
            out.attr.append(attribute(name, kind, value))
    if trace.involved_dim[i] >= 0:
        flags = [bool(trace.involved_dim[i] >> d & 1) for d in range(trace.involved_dims[i])]
        out.attr.append(attribute("involved_dim", "bool_list", *flags))
    if trace.group[i] >= 0:
        out.attr.append(attribute("pg_name", "string_val", trace.group_names[trace.group[i]]))
    return out


@st.composite
def traces(draw):
    """Columns of a few nodes, any of them left out."""
    n = draw(st.integers(1, 6))

    def column(largest, lowest=-1):
        return draw(st.lists(st.integers(lowest, largest), min_size=n, max_size=n))

    def links():
        sizes = draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
        ids = st.integers(0, 2**64 - 1)
        found = draw(st.lists(ids, min_size=sum(sizes), max_size=sum(sizes)))
        return np.cumsum([0, *sizes]), np.array(found, np.uint64)

    dims = column(31, 1)
    return chakra.build(
        draw(st.lists(st.text(st.characters(codec="utf-8")), min_size=n, max_size=n)),
        column(7, 0),
        id=[2**k * draw(st.integers(1, 2**40)) for k in range(n)],
        data_deps=links(),
        ctrl_deps=draw(st.just(None)) if draw(st.booleans()) else links(),
        start_us=column(2**64 - 1, 0),
        duration_us=column(2**63 - 1, 0),
        is_cpu=column(1),
        num_ops=column(2**63 - 1),
        tensor_size=column(2**63 - 1),
        comm_size=column(2**40),
        comm_type=column(9),
        comm_src=column(2**31 - 1),
        comm_dst=column(300),
        tensor_loc=column(127),
        involved_dim=[draw(st.integers(-1, 2**d - 1)) for d in dims],
        involved_dims=dims,
        group=column(1),
        group_names=["1", draw(st.sampled_from(["2", "mesh", "é" * 70]))],
        version=draw(st.sampled_from(["", "1.0.0"])),
        schema=draw(st.sampled_from(["", "made"])),
    )


@settings(max_examples=300, deadline=None)
@given(traces())
def test_encoded_columns_are_the_bytes_protobuf_writes_and_decode_to_themselves(
    trace: chakra.RankTrace,
) -> None:
    data = chakra.encode(trace)
    messages = [message(trace, i) for i in range(len(trace))]
    assert data == file_of(*messages, metadata=trace.metadata)
    again = chakra.decode(data, "x")
    assert rows_of(again) == rows(messages)
    assert (again.version, again.schema) == (trace.version, trace.schema)
    assert chakra.encode(again) == data


def test_a_read_trace_encodes_to_the_same_columns(shared: Path) -> None:
    folder = shared / "reference/astra-sim/traces"
    for name in ("stg_gpt_dp2tp2pp2/t.3.et", "fuzz4/t.1.et", "mem2/t.0.et"):
        trace = chakra.read(folder / name)
        assert rows_of(chakra.decode(chakra.encode(trace), "x")) == rows_of(trace)


def test_build_fills_what_is_left_out_with_absent() -> None:
    trace = chakra.build(["a", "b"], 4)
    (first, second) = rows_of(trace)
    assert first == row(schema.Node(name="a", type=4))
    assert second == row(schema.Node(id=1, name="b", type=4))


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"num_ops": [1, 2, 3]}, "column num_ops has shape"),
        ({"num_ops": [1, 2.5]}, "column num_ops holds what is no int64"),
        ({"num_ops": np.array([1.0, 2.0])}, "column num_ops holds what is no int64"),
        ({"num_ops": [1, 2**63]}, "column num_ops holds what is no int64"),
        ({"id": [1, -2]}, "column id holds what is no uint64"),
        ({"comm_type": [1, 2**31]}, "column comm_type holds what is no int32"),
        ({"flops": 1}, "unknown column flops"),
        ({"data_deps": ([0, 1], [5])}, "data_deps need ptr"),
        ({"data_deps": ([0, 2, 1], [5])}, "data_deps need ptr"),
        ({"ctrl_deps": ([0, 1, 2], [5])}, "ctrl_deps need ptr"),
    ],
)
def test_columns_that_do_not_fit_are_an_error(columns: dict, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint):
        chakra.build(["a", "b"], 4, **columns)


def test_a_number_that_its_kind_cannot_hold_is_an_error() -> None:
    with pytest.raises(InputError, match="node 1, attribute comm_tag: 2147483648 cannot be writ"):
        chakra.encode(chakra.build(["a", "b"], 5, comm_tag=[0, 2**31]))
    with pytest.raises(InputError, match="attribute num_ops: -2 cannot be written"):
        chakra.encode(chakra.build(["a", "b"], 5, num_ops=[0, -2]))


def test_the_descriptor_is_what_the_compiler_makes_of_the_proto() -> None:
    pytest.importorskip("grpc_tools")
    folder = Path(schema.__file__).parent
    assert (folder / "et_def.binpb").read_bytes() == schema.compile_descriptor(folder)


def test_names_of_types_and_collectives_are_the_schemas() -> None:
    file = schema.Node.DESCRIPTOR.file
    types = file.enum_types_by_name["NodeType"].values
    assert [value.name.removesuffix("_NODE") for value in types] == list(chakra.NODE_TYPES)
    collectives = file.enum_types_by_name["CollectiveCommType"].values
    assert [value.name for value in collectives] == list(chakra.COLLECTIVES)


def test_the_schema_stays_out_of_protobufs_common_pool() -> None:
    with pytest.raises(KeyError):
        descriptor_pool.Default().FindFileByName("et_def.proto")


def test_attribute_kinds_of_the_writer_are_fields_of_the_schema() -> None:
    fields = schema.AttributeProto.DESCRIPTOR.fields_by_name
    assert set(writer_module._KINDS.values()) <= set(fields.keys())


def test_reading_works_where_no_compiled_code_can_be_kept(tmp_path: Path) -> None:
    package = Path(chakra.__file__).parents[2]
    script = (
        "import numba.core.caching as c\n"
        "def none(*a): raise RuntimeError('cannot cache function: no locator available')\n"
        "c.FunctionCache.__init__ = none\n"
        "from perfmodel.trace.chakra.wire import varint, address\n"
        "data = bytes([0xac, 2])\n"
        "print(varint(address(data), 0, 2))\n"
    )
    env = {**os.environ, "PYTHONPATH": str(package.parent)}
    out = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, cwd=tmp_path
    )
    assert out.stdout.strip() == "(300, 2)", out.stderr
