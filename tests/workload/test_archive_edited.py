"""Saved graphs that somebody has edited: read anew where that is possible, else one clear error, never a crash."""

from __future__ import annotations

import io
import json
import resource
import struct
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest

import perfmodel as pm
from perfmodel import synth
from perfmodel.vocabulary import NodeType


@pytest.fixture(scope="module")
def trace(tmp_path_factory) -> Path:
    work = synth.training(
        {"layers": 2, "hidden": 256, "heads": 4},
        sequence=64,
        data=2,
        tensor=2,
        pipeline=2,
        micro_batches=2,
    )
    return work.write(tmp_path_factory.mktemp("trace") / "t")


@pytest.fixture
def saved(trace, tmp_path) -> Path:
    """A saved graph whose files are gone as far as its note knows."""
    pm.save(pm.load(trace), tmp_path / "graph.npz")
    (tmp_path / "graph.npz.json").unlink()
    return tmp_path / "graph.npz"


def edited(path: Path, **changes: np.ndarray | None) -> None:
    """Write the archive anew with some members exchanged, added, or (None) left out."""
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files}
    arrays |= changes
    np.savez(path, **{name: array for name, array in arrays.items() if array is not None})


def members(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as archive:
        return {name: archive[name] for name in archive.files}


def refused(path: Path, message: str = "is damaged") -> None:
    with pytest.raises(pm.TraceError, match=message):
        pm.load(path)


@pytest.mark.parametrize(
    "name",
    [
        "pred", "pred_ptr", "priority", "slot", "match", "resource", "type", "p2p", "ranks", "groups",
        "peer", "partner", "comm_type", "flops", "size", "duration", "scale",
    ],
)  # fmt: skip
@pytest.mark.parametrize("value", [2**30, -(2**30), 7777])
def test_a_number_that_leads_out_of_its_array_is_found_before_anything_runs(saved, name, value):
    array = members(saved)[f"p0.{name}"].copy()
    kind = np.iinfo(array.dtype) if array.dtype.kind == "i" else np.finfo(array.dtype)
    value = -abs(value) if name in ("flops", "size", "duration", "scale") else value
    array.reshape(-1)[array.size // 2] = np.clip(value, kind.min, kind.max)
    edited(saved, **{f"p0.{name}": array})
    refused(saved, name)


@pytest.mark.parametrize("name", ["program", "row", "label", "group_member", "group_size"])
def test_tables_of_ranks_and_groups_are_checked_too(saved, name):
    array = members(saved)[name].copy()
    array[-1] = 1 << 20
    edited(saved, **{name: array})
    refused(saved)


def test_a_cycle_a_broken_pair_and_a_missing_member_are_found(saved):
    arrays = members(saved)
    ptr, pred = arrays["p0.pred_ptr"], arrays["p0.pred"].copy()
    first = int(np.flatnonzero(np.diff(ptr))[0])
    pred[ptr[first]] = len(ptr) - 2  # waits for the last node
    edited(saved, **{"p0.pred": pred})
    refused(saved, "cycle")
    edited(saved, **{"p0.pred": arrays["p0.pred"], "p0.partner": arrays["p0.partner"][:, ::-1]})
    refused(saved, "partner")
    groups = arrays["p0.groups"].copy()
    groups[0, -1] = 0
    edited(saved, **{"p0.partner": arrays["p0.partner"], "p0.groups": groups})
    refused(saved, "groups")


@pytest.mark.parametrize(("kind", "given"), [(NodeType.COMM_RECV, 0), (NodeType.COMM_COLL, -1)])
def test_a_receive_that_holds_a_resource_and_a_collective_that_holds_none_are_found(
    saved, kind, given
):
    arrays = members(saved)
    held = np.where(arrays["p0.type"] == kind, given, arrays["p0.resource"])
    edited(saved, **{"p0.resource": held.astype(np.int32)})
    refused(saved, "resource")


def test_other_types_shapes_and_members_are_refused(saved):
    arrays = members(saved)
    for change in (
        {"p0.flops": arrays["p0.flops"].astype(np.int32)},
        {"p0.flops": arrays["p0.flops"][:-1]},
        {"p0.groups": np.asfortranarray(arrays["p0.groups"].repeat(2, 1))},
        {"l0.names": np.frombuffer(b"[" * 100_000, np.uint8)},
        {"l0.names": np.frombuffer(b'["a", 3]', np.uint8)},
        {"header": np.frombuffer(b"{}", np.uint8)},
        {"header": np.frombuffer(json.dumps({"format": 3}).encode(), np.uint8)},
        {"p0.flops": None},
        {"p9.flops": arrays["p0.flops"]},
    ):
        edited(saved, **{**{name: arrays.get(name) for name in change}, **change})
        refused(saved)
        edited(saved, **{name: arrays.get(name) for name in change})
    assert pm.load(saved).ranks == 8


def test_members_that_nothing_needs_are_not_read(saved):
    with zipfile.ZipFile(saved, "a", zipfile.ZIP_DEFLATED) as archive:
        sink = io.BytesIO()
        np.save(sink, np.zeros(1 << 20))
        for k in range(200):  # 1.7 GB unpacked
            archive.writestr(f"extra{k}.npy", sink.getvalue())
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(saved)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # KiB


@pytest.mark.parametrize("flag", [0x1, 0x8, 0x40, 0x2000])
def test_encrypted_and_unknown_zip_members_are_refused(saved, flag):
    raw = bytearray(saved.read_bytes())
    at = raw.rindex(b"PK\x01\x02")
    struct.pack_into("<H", raw, at + 8, flag)
    saved.write_bytes(raw)
    refused(saved)


@pytest.mark.parametrize(
    "note",
    [
        "[" * 100_000,
        '{"format": "perfmodel-graph-2", "files": [["a", "b", 1e999, 1]], "group_file": [], "options": {}}',
        '{"format": "perfmodel-graph-2", "files": [["a\\u0000", "b", 1, 1]], "group_file": [], "options": {}}',
        '{"format": "perfmodel-graph-2", "files": 3, "group_file": [], "options": {}}',
        '{"format": "perfmodel-graph-2", "files": [], "group_file": [], "options": 3}',
        "\xff",
    ],
)
def test_odd_notes_are_one_error(saved, note):
    saved.with_name("graph.npz.json").write_text(note, encoding="latin1")
    refused(saved, "is no note of a saved graph")


def test_random_edits_of_any_byte_never_crash_and_open_as_a_sound_graph_or_not_at_all(saved):
    raw = saved.read_bytes()
    choice = np.random.default_rng(1)
    digest = pm.load(saved).digest
    for _ in range(60):
        changed = bytearray(raw)
        for at in choice.integers(0, len(raw), int(choice.integers(1, 5))):
            changed[at] = int(choice.integers(256))
        saved.write_bytes(changed)
        try:
            assert pm.load(saved).digest == digest
        except pm.TraceError:
            continue


def test_options_given_on_loading_count(trace, tmp_path):
    pm.save(pm.load(trace), tmp_path / "g.npz")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = pm.load(tmp_path / "g.npz", dependencies="data")
        assert again.digest == pm.load(trace, dependencies="data").digest
        assert pm.load(tmp_path / "g.npz").digest == pm.load(trace).digest
    (tmp_path / "g.npz.json").unlink()
    with pytest.raises(pm.TraceError, match="saved with another value of dependencies"):
        pm.load(tmp_path / "g.npz", dependencies="control")


def test_strict_counts_on_a_saved_graph(tmp_path):
    graph = pm.synth.collective("all_reduce", 2, 1024).graph()
    from dataclasses import replace

    pm.save(replace(graph, warnings=("warning: odd",)), tmp_path / "g.npz")
    assert pm.load(tmp_path / "g.npz").warnings == ("warning: odd",)
    with pytest.raises(pm.TraceError, match="warning: odd"):
        pm.load(tmp_path / "g.npz", strict=True)


def test_a_changed_group_file_is_noticed(trace, tmp_path):
    folder = tmp_path / "copy"
    folder.mkdir()
    for file in trace.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    pm.save(pm.load(folder), tmp_path / "g.npz")
    groups = json.loads((folder / "comm_groups.json").read_text())
    name = next(iter(groups))
    groups[name] = groups[name][::-1]
    (folder / "comm_groups.json").write_text(json.dumps(groups))
    with pytest.warns(UserWarning, match=r"comm_groups\.json has changed since"):
        again = pm.load(tmp_path / "g.npz")
    assert again.digest == pm.load(folder).digest


def test_compressed_traces_that_were_only_touched_are_not_read_again(trace, tmp_path):
    import gzip
    import os

    folder = tmp_path / "packed"
    folder.mkdir()
    for file in trace.parent.iterdir():
        packed = file.suffix == ".et"
        raw = file.read_bytes()
        (folder / (file.name + ".gz" * packed)).write_bytes(gzip.compress(raw) if packed else raw)
    pm.save(pm.load(folder), tmp_path / "g.npz")
    for file in folder.iterdir():
        os.utime(file, ns=(1, 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert pm.load(tmp_path / "g.npz").ranks == 8
