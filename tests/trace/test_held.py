"""What a small file may take in memory: names, records, edges and JSON values are counted before they are made."""

from __future__ import annotations

import gzip

import numpy as np
import pytest

from perfmodel.errors import InputError, TraceError
from perfmodel.json_text import HELD, check_held, loads
from perfmodel.trace import chakra
from perfmodel.trace.chakra import reader


def trace(names: list[str], packed: bool = False) -> bytes:
    found = chakra.build(names, [4] * len(names), id=np.arange(len(names)), num_ops=1)
    raw = chakra.encode(found)
    return gzip.compress(raw) if packed else raw


def test_a_name_that_is_none_is_refused_with_its_node():
    assert chakra.decode(trace(["a" * 65_536]), "x.et").name(0) == "a" * 65_536
    with pytest.raises(
        TraceError, match=r"x\.et: node 1, name: has 65537 B. Expected at most 65536"
    ):
        chakra.decode(trace(["a", "b" * 65_537]), "x.et")


def test_names_that_pack_well_count_unpacked(monkeypatch):
    """100 names of 60 kB are 6 MB that a gzip of 30 kB holds, and 144 MB while they are read."""
    monkeypatch.setattr(reader, "HELD", 1e8)
    with pytest.raises(TraceError, match=r"6000000 B of names in a file of \d+ B would take"):
        chakra.decode(trace(["n" * 60_000] * 100, packed=True), "x.et")


def test_what_is_held_follows_the_size_of_the_file(monkeypatch):
    monkeypatch.setattr(reader, "HELD", 1e5)
    raw = trace(["node"] * 200)
    monkeypatch.setattr(reader, "HELD_PER_BYTE", 1)
    with pytest.raises(TraceError, match=r"200 nodes.* would take 0\.0 GB"):
        chakra.decode(raw, "x.et")
    monkeypatch.setattr(reader, "HELD_PER_BYTE", 100)
    assert len(chakra.decode(raw, "x.et")) == 200


def test_gzip_of_a_small_file_stops_at_its_own_limit(monkeypatch):
    from perfmodel.trace.chakra import inflate

    monkeypatch.setattr(inflate, "SMALL_LIMIT", 10_000)
    with pytest.raises(TraceError, match="at most 10000 B"):
        inflate.inflate(gzip.compress(bytes(5 * 2**20)), "x.et")


def test_json_values_are_counted_before_they_are_made():
    raw = b"[" + b"{}," * 8_000_000 + b"{}]"
    assert HELD < 240 * 8e6
    with pytest.raises(TraceError, match=r"x\.json: 24000004 B of JSON .* would take 2\.\d GB"):
        check_held(raw, "x.json", kind=TraceError)
    assert loads(b'\xef\xbb\xbf{"a": 1}', "x.json") == {"a": 1}
    for wrong in (b"{", b"[" * 100_000, b"\xff", b"1" * 5000):
        with pytest.raises(InputError, match="is no JSON"):
            loads(wrong, "x.json")
