"""Bytes that are no sound trace: each gives one clear error, soon, and in little memory."""

import gzip
import io
import os
import random
import signal
import subprocess
import sys
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perfmodel.errors import InputError, TraceError
from perfmodel.trace import chakra
from perfmodel.trace.chakra import inflate as gzip_in
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.attributes import NAMES
from perfmodel.trace.chakra.inflate import inflate
from perfmodel.trace.chakra.record_loops import (
    FAULT,
    NODES,
    NOTES,
    WIDTH,
    frame,
    group_runs,
    walk,
)
from perfmodel.trace.chakra.wire import address, varint
from tests.chakra_oracle import attribute, file_of, node


def sample() -> bytes:
    """A small trace with every shape of record the real ones have."""
    metadata = schema.GlobalMetadata(version="0.0.4")
    metadata.attr.add(name="schema", string_val="s")
    nodes = [
        node(
            attribute("is_cpu_op", "bool_val", False),
            attribute("num_ops", "int64_val", 2**40),
            attribute("tensor_size", "uint64_val", 2**33),
            attribute("inputs", "string_list", "a", "2048.0"),
            attribute("comm_tag", "sint32_val", 8),
            attribute("comm_size", "double_val", 3e9),
            attribute("involved_dim", "bool_list", True, False),
            attribute("pg_name", "string_val", str(k % 3)),
            id=2**k,
            name=f"layer.{k}",
            type=4 + k % 4,
            data_deps=[2**j for j in range(k)],
            ctrl_deps=[0],
            duration_micros=k,
        )
        for k in range(12)
    ]
    return file_of(*nodes, metadata=metadata.SerializeToString())


def mutate(data: bytes, rng: random.Random) -> bytes:
    """The bytes with a few flipped, a piece cut out or the end cut off, or a piece moved."""
    out = bytearray(data)
    for _ in range(rng.choice([1, 1, 1, 2, 5])):
        way = rng.randrange(5)
        a, b = sorted(rng.randrange(len(out) + 1) for _ in range(2))
        if way == 0 and out:
            out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
        elif way == 1 and out:
            out[rng.randrange(len(out))] = rng.choice([0, 1, 0x7F, 0x80, 0xFF])
        elif way == 2:
            del out[a : min(b, a + 40)]
        elif way == 3:
            del out[a:]
        else:
            piece = bytes(out[a : min(b, a + 40)])
            at = rng.randrange(len(out) + 1)
            out[at:at] = piece
    return bytes(out)


def survives(data: bytes) -> bool:
    """Whether the data loads; anything but an InputError that says something escapes."""
    trace, message = None, "t.0.et: ."
    try:
        trace = chakra.decode(data, "t.0.et")
    except InputError as error:
        message = str(error)
    assert message.startswith("t.0.et: ")
    assert message.endswith(".")
    if trace is None:
        return False
    assert len(trace) <= len(data)
    assert trace.data_ptr[-1] == len(trace.data_dep) <= len(data)
    assert len(trace.names()) == len(trace)
    return True


def test_2000_damaged_files_each_load_or_give_one_clear_error(shared: Path) -> None:
    rng = random.Random(20)
    reference = shared / "reference"
    originals = [
        sample(),
        (reference / "astra-sim/traces/stg_gpt_dp2tp2pp2/t.0.et").read_bytes(),
        (reference / "astra-sim/traces/all_reduce_4_1M/t.0.et").read_bytes(),
        (reference / "chakra/no_metadata/resnet50_DataParallel.0.et").read_bytes(),
        (reference / "chakra/pytorch_2rank/chakra_trace.0.et").read_bytes(),
    ]
    read(sample(), plain=False)  # compiling is not reading
    slowest, loaded = 0.0, 0
    for k in range(2000):
        data = mutate(originals[k % len(originals)], rng)
        begin = time.perf_counter()
        loaded += survives(data)
        slowest = max(slowest, time.perf_counter() - begin)
    assert slowest < 2
    assert 100 < loaded < 1900


def test_1000_damaged_copies_of_a_small_trace_load_or_give_one_clear_error() -> None:
    rng = random.Random(21)
    outcomes = [survives(mutate(sample(), rng)) for _ in range(1000)]
    assert any(outcomes)
    assert not all(outcomes)


def test_damaged_gzip_loads_or_gives_one_clear_error() -> None:
    rng = random.Random(22)
    data = gzip.compress(sample(), mtime=0)
    assert not all([survives(mutate(data, rng)) for _ in range(300)])


@settings(max_examples=500, deadline=None)
@given(st.binary(max_size=200))
def test_random_bytes_load_or_give_one_clear_error(data: bytes) -> None:
    survives(data)


def test_the_sample_itself_loads() -> None:
    assert survives(sample())


def test_every_cut_of_a_trace_is_an_error_but_between_records() -> None:
    data = sample()
    base, ends, pos = address(data), set(), 0
    while pos < len(data):
        size, start = varint(base, pos, len(data))
        pos = start + int(size)
        ends.add(pos)
    first = min(ends)
    for cut in range(len(data)):
        assert survives(data[:cut]) == (cut in ends and cut > first), cut


def test_bytes_outside_the_given_range_are_never_read() -> None:
    data = b"\x80" * 9 + b"\x01"
    base = address(data)
    for end in range(10):
        assert varint(base, 0, end)[1] == -1  # cut off, though the number goes on behind `end`
    assert varint(base, 0, 10) == (2**63, 10)
    longer = b"\xff" * 9 + b"\x02"
    assert varint(address(longer), 0, 10)[1] == -2
    longest = b"\x80" * 30
    assert varint(address(longest), 0, 30)[1] == -2


def read(data: bytes, *, plain: bool) -> list[np.ndarray]:
    """All that the loops over a file's records say of some bytes."""
    count, fill, group_of = (x.plain if plain else x.dispatcher for x in (frame, walk, group_runs))
    base, note = address(data), np.zeros(NOTES, np.int64)
    count(base, 0, len(data), note)
    n = int(note[NODES])
    found = [note.copy()]
    if note[FAULT] or not n:
        return found
    ids, starts, table = np.zeros(n, "u8"), np.zeros(n, "u8"), np.full((WIDTH, n), -1)
    links = np.zeros((2, 64), "u8")
    fill(base, 0, len(data), ids, starts, table, *links, note)
    found += [note, ids, starts, table, links]
    if not note[FAULT]:
        group, runs = np.zeros(n, np.int32), np.zeros((n, 2), np.int64)
        found += [np.array(group_of(base, table, group, runs)), group, runs]
    return found


def kinds_of_value() -> bytes:
    """A trace in which every attribute has a value of every kind, sound or not."""
    values = {
        "double_val": [3e9, 1.5, -2.0, float("inf"), float("nan"), 1e300],
        "float_val": [3.0, 0.5, -1.0, float("inf")],
        "int32_val": [7, -1], "int64_val": [2**63 - 1, -(2**63)],
        "uint32_val": [2**32 - 1], "uint64_val": [2**64 - 1, 3],
        "sint32_val": [-(2**31), 5], "sint64_val": [-(2**63), 2**62],
        "fixed32_val": [2**32 - 1], "fixed64_val": [2**64 - 1, 9],
        "sfixed32_val": [-5], "sfixed64_val": [-(2**63), 8], "bool_val": [True, False],
        "string_val": ["12", "-7", "+3.0", "3.5", "", "99999999999999999999", "a/b", ".0", "/9"],
    }  # fmt: skip
    kinds = [(kind, (value,)) for kind, found in values.items() for value in found]
    kinds += [
        ("int64_list", (5,)), ("sint32_list", (-3, 4)), ("double_list", (2.0, 0.0, 3.0)),
        ("fixed32_list", (1,) * 32), ("bool_list", (True, False, True)), ("string_list", ("12",)),
        ("string_list", ("a", "4")), ("uint64_list", ()),
    ]  # fmt: skip
    nodes = [
        node(attribute(name, kind, *value), id=k, name=f"n{k}", type=4, duration_micros=2**62)
        for name in NAMES
        for k, (kind, value) in enumerate(kinds)
    ]
    return b"".join(file_of(one)[1:] for one in nodes)


def test_python_and_machine_code_read_the_same_from_sound_and_damaged_bytes() -> None:
    rng, original = random.Random(29), sample()
    inputs = [original, *(mutate(original, rng) for _ in range(400))]
    all_kinds = kinds_of_value()
    pos = 0
    while pos < len(all_kinds):  # one record at a time: a fault ends a file
        size, start = varint(address(all_kinds), pos, len(all_kinds))
        inputs.append(all_kinds[pos : start + size])
        pos = start + size
    sound = 0
    for data in inputs:
        plain, machine = read(data, plain=True), read(data, plain=False)
        assert len(plain) == len(machine)
        assert all(np.array_equal(a, b) for a, b in zip(plain, machine)), data
        sound += len(plain) > 6
    assert 200 < sound < len(inputs) - 100


GUARDED = """
import ctypes, mmap, random, sys
import numpy as np
from perfmodel.trace.chakra.record_loops import FAULT, NODES, NOTES, WIDTH, frame, walk
from tests.trace.test_chakra_damage import mutate, sample

PAGE = mmap.PAGESIZE
area = mmap.mmap(-1, 17 * PAGE)
base = ctypes.addressof(ctypes.c_char.from_buffer(area))
libc = ctypes.CDLL(None, use_errno=True)
assert libc.mprotect(ctypes.c_void_p(base + 16 * PAGE), PAGE, 0) == 0  # reading there is fatal
rng, original, sound = random.Random(23), sample(), 0
for turn in range(3300):
    frame_, walk_ = (x.dispatcher if turn < 3000 else x.plain for x in (frame, walk))
    data = mutate(original, rng)
    if rng.random() < 0.5:  # damage inside a record that stays whole
        data = bytes([*original[: len(original) - 40], *mutate(original[-40:], rng)[:40]])
    place = 16 * PAGE - len(data)
    area[place : 16 * PAGE] = data
    note = np.zeros(NOTES, np.int64)
    frame_(base + place, 0, len(data), note)
    n = int(note[NODES])
    if note[FAULT] or n == 0:
        continue
    ids, starts, table = np.zeros(n, "u8"), np.zeros(n, "u8"), np.full((WIDTH, n), -1)
    room = np.zeros(3, "u8")  # too little, so that writing is bounded, too
    walk_(base + place, 0, len(data), ids, starts, table, room[:2], room[:2], note)
    assert room[2] == 0
    sound += 1
if len(sys.argv) > 1:
    ctypes.string_at(base + 16 * PAGE, 1)
print("sound", sound)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs mprotect")
@pytest.mark.parametrize("and_then_overrun", [False, True])
def test_nothing_behind_the_last_byte_is_read(and_then_overrun: bool) -> None:
    here = Path(__file__).parent
    env = {**os.environ, "PYTHONPATH": str(here.parents[1])}
    command = [sys.executable, "-c", GUARDED, *(["overrun"] if and_then_overrun else [])]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    if and_then_overrun:  # the guard works: a single byte too far ends the process
        assert done.returncode == -signal.SIGSEGV
    else:
        assert done.returncode == 0, done.stderr
        assert int(done.stdout.split()[1]) > 500


@pytest.mark.parametrize(
    ("payload", "complaint"),
    [
        (
            b"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f",
            "field id: a number has more than 64 bits",
        ),
        (b"\x08\x80", "field id: a number is cut off"),
        (b"\x12\x05ab", "field name: a length runs past the end"),
        (b"\x2a\x02\x01\x80", "field data_deps: a number is cut off"),
        (b"\x0b\x0c", "field id: there is a group"),
        (b"\x0e", "field id: there is a field of wire type 6 or 7"),
        (b"\x00\x01", "a field number outside"),
        (b"\x52\x03\x0a\x05a", "field attr: a length runs past the end"),
        (b"\x52\x09\x0a\x07num_ops\x48\x80", "a number is cut off"),
    ],
)
def test_a_damaged_record_is_named_with_byte_record_and_field(
    payload: bytes, complaint: str
) -> None:
    data = file_of(b"\x08\x05", payload)
    with pytest.raises(TraceError) as caught:
        chakra.decode(data, "t.0.et")
    assert "record 2 (at byte 4)" in str(caught.value)
    assert complaint in str(caught.value)


def test_a_length_past_the_end_says_how_much_is_left() -> None:
    with pytest.raises(
        TraceError, match=r"record 1 \(at byte 1\): the record says 100 B.* 2 B left"
    ):
        chakra.decode(b"\x00\x64\x08\x01", "x")
    with pytest.raises(TraceError, match="longer than 2 GiB"):
        chakra.decode(b"\x00\xff\xff\xff\xff\x7f\x08\x01", "x")
    with pytest.raises(TraceError, match=r"record 0 .*: the record says 127 B.* 0 B left"):
        chakra.decode(b"\x7f", "x")


def test_millions_of_records_with_nothing_in_them_are_refused_before_memory_is_taken() -> None:
    record = b"\x02\x08\x05"
    assert survives(b"\x00" + record * 1000)
    with pytest.raises(TraceError, match="2097152 records in 6291457 B"):
        chakra.decode(b"\x00" + record * 2**21, "x")


def test_an_empty_file_and_one_without_nodes_are_errors(tmp_path: Path) -> None:
    (tmp_path / "t.0.et").write_bytes(b"")
    with pytest.raises(TraceError, match=r"t\.0\.et: is empty"):
        chakra.read(tmp_path / "t.0.et")
    with pytest.raises(TraceError, match="holds no node"):
        chakra.decode(b"\x07\x0a\x050.0.4", "x")
    with pytest.raises(TraceError, match="is empty"):
        chakra.decode(gzip.compress(b""), "x")


def test_a_path_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="No such file"):
        chakra.read(tmp_path / "none.et")
    with pytest.raises(TraceError, match="directory"):
        chakra.read(tmp_path)


def test_metadata_that_does_not_parse_is_an_error() -> None:
    with pytest.raises(TraceError, match=r"record 0 \(metadata, 2 B\): is no GlobalMetadata"):
        chakra.decode(b"\x02\x0a\x05" + file_of(node(), metadata=None), "x")


def test_gzip_that_is_cut_or_damaged_is_an_error() -> None:
    packed = gzip.compress(sample())
    for cut in range(3, len(packed)):
        with pytest.raises(TraceError, match="gzip data"):
            chakra.decode(packed[:cut], "x")
    with pytest.raises(TraceError, match="incorrect data check"):
        chakra.decode(packed[:-8] + b"0000" + packed[-4:], "x")
    with pytest.raises(TraceError, match="gzip data is damaged"):
        chakra.decode(packed + b"garbage", "x")
    assert survives(packed + bytes(100))


def test_gzip_grows_to_its_limit_and_no_further(monkeypatch: pytest.MonkeyPatch) -> None:
    data = sample()
    assert len(chakra.decode(gzip.compress(data), "x", limit=len(data))) == 12
    with pytest.raises(TraceError, match=f"at most {len(data) - 1} B"):
        chakra.decode(gzip.compress(data), "x", limit=len(data) - 1)
    monkeypatch.setattr(gzip_in, "FREE", 2**20)
    bomb = gzip.compress(bytes(2**24))
    with pytest.raises(TraceError, match="400 times"):
        inflate(bomb, "x")


def test_gzip_members_are_joined() -> None:
    data = np.random.default_rng(0).bytes(5 * 2**20)  # more than one step of unpacking
    parts = [data[:100], data[100:4000000], data[4000000:]]
    assert inflate(b"".join(map(gzip.compress, parts)), "x") == data
    buffer = io.BytesIO()
    with gzip.GzipFile("name.et", "wb", fileobj=buffer) as file:  # a header with a name in it
        file.write(data)
    assert inflate(buffer.getvalue(), "x") == data
    assert inflate(zlib.compress(data), "x") == zlib.compress(data)


def test_a_group_file_is_no_trace(shared: Path) -> None:
    with pytest.raises(
        TraceError, match="is JSON of no known trace format, which is no Chakra trace"
    ):
        chakra.read(shared / "reference/chakra/pytorch_2rank/comm_group.json")


@pytest.mark.parametrize(
    ("data", "format"),
    [
        (b'{"schema": "1.1.1", "nodes": []}', "PyTorch host execution trace"),
        (b'\n {"traceEvents": []}', "Kineto"),
        (b'{"nodes": [{"y_tensor_size": 1}]}', "JSON of no known trace format"),
        (b'{"schema": "1", "nodes": [{"exclusive_dur": 1}]}', "chakra_trace_link"),
        (b"PK\x03\x04..", "zip archive"),
        (b"\x28\xb5\x2f\xfd..", "zstd"),
        (b"version https://git-lfs.github.com/spec/v1\noid 1", "Git LFS pointer"),
    ],
)
def test_files_of_other_programs_are_refused_by_name(data: bytes, format: str) -> None:
    with pytest.raises(TraceError, match=format):
        chakra.decode(data, "x")


def test_a_record_that_begins_like_json_is_no_json() -> None:
    for first in b"{[":
        name = "n" * (first - 6)
        payload = schema.Node(id=1, name=name, type=4).SerializeToString()
        assert len(payload) == first
        trace = chakra.decode(file_of(payload, metadata=None), "x")
        assert trace.names() == [name]
