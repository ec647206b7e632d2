"""The commands on traces: convert, retarget, export, stats, difference, bundle, reproduce."""

import json
import zipfile

import numpy as np
import pytest

import perfmodel as pm
from perfmodel.cli.main import main
from perfmodel.workload.load import examine
from tests.handmade import coll, comp, recv, send, write
from tests.trace.test_text_workload import MLP

GPT = "traces/gpt_dp2_tp2_pp2"


def call(capsys, *arguments):
    """Exit status, standard output and standard error of a command."""
    try:
        main([str(a) for a in arguments])
        status = 0
    except SystemExit as stop:
        status = stop.code or 0
    out, err = capsys.readouterr()
    return status, out, err


@pytest.fixture
def trace(tmp_path):
    nodes = [
        comp(id=1, name="a.x", duration=3, is_cpu=1),
        comp(id=2, name="a.y", deps=[1], is_cpu=0, stream=7, ctrl=[99]),
        coll(id=3, name="sum", deps=[2], group="5"),
    ]
    other = [*nodes, recv(0, id=4, deps=[3])]
    return write(tmp_path / "in", [[*nodes, send(1, id=4, deps=[3])], other], {"5": [0, 1]})


def test_a_trace_is_written_anew_without_dangling_edges(capsys, trace, tmp_path):
    status, _, err = call(capsys, "convert", trace, tmp_path / "out" / "w")
    assert status == 0, err
    graph, found = examine(tmp_path / "out")
    assert found.found == []
    before = pm.load(trace)
    assert graph.nodes.drop(columns="group").equals(before.nodes.drop(columns="group"))
    assert sorted(f.name for f in (tmp_path / "out").iterdir()) == ["w.0.et", "w.1.et", "w.json"]


@pytest.mark.parametrize("ending", [".et.gz", ".json", ".json.gz"])
def test_other_endings_hold_the_same(capsys, trace, tmp_path, ending):
    assert call(capsys, "convert", trace, tmp_path / "o" / f"w{ending}")[0] == 0
    assert (tmp_path / "o" / f"w.0{ending}").is_file()
    assert pm.load(tmp_path / "o" / "w").nodes.equals(pm.load(trace).nodes)


def test_what_is_there_is_not_replaced_unasked(capsys, trace, tmp_path):
    arguments = ("convert", trace, tmp_path / "o" / "w")
    assert call(capsys, *arguments)[0] == 0
    status, _, err = call(capsys, *arguments)
    assert status == 1
    assert "--overwrite" in err
    assert call(capsys, *arguments, "--overwrite")[0] == 0


def test_one_file_keeps_all_but_dangling_edges_and_gets_metadata(capsys, trace, tmp_path):
    _, *nodes = pm.chakra.messages(trace / "t.0.et")
    nodes[0].inputs.values = "kept"
    pm.chakra.write(tmp_path / "a.et", None, nodes)
    status, _, err = call(capsys, "convert", tmp_path / "a.et", tmp_path / "b.et")
    assert status == 0
    assert "1 dependencies on nodes that are not in the file" in err
    head, *after = pm.chakra.messages(tmp_path / "b.et")
    assert head.version == "1.0.0"
    assert after[0].inputs.values == "kept"
    assert list(after[1].ctrl_deps) == []
    assert call(capsys, "convert", tmp_path / "b.et", tmp_path / "c.json")[0] == 0
    assert len(json.loads((tmp_path / "c.json").read_text())["nodes"]) == len(nodes)


def test_text_workloads_are_converted_and_ask_for_what_they_lack(capsys, tmp_path):
    (tmp_path / "mlp.txt").write_text(MLP)
    status, _, err = call(capsys, "convert", tmp_path / "mlp.txt", tmp_path / "t.0.et")
    assert status == 1
    assert "--ranks N" in err
    status, _, err = call(
        capsys, "convert", tmp_path / "mlp.txt", tmp_path / "t.0.et", "--ranks", 4
    )
    assert status == 0, err
    a = pm.load(tmp_path / "mlp.txt", ranks=4)
    b = pm.load(tmp_path / "t")
    system = pm.hardware("dgx-h100")
    np.testing.assert_array_equal(pm.predict(a, system).finish, pm.predict(b, system).finish)


def test_goal_takes_predicted_times_where_none_are_recorded(capsys, tmp_path):
    status, _, err = call(capsys, "convert", GPT, tmp_path / "g.goal.gz", "--system", "dgx-a100")
    assert status == 0
    assert "dgx-a100 predicts" in err
    assert pm.load(tmp_path / "g.goal.gz").ranks == 8


def test_what_is_anonymised_has_no_name_and_the_key_has_all(capsys, trace, tmp_path):
    key = tmp_path / "key.json"
    status, out, _ = call(
        capsys, "convert", trace, tmp_path / "o" / "w", "--anonymise", "--key", key
    )
    assert status == 0
    assert "can still tell" in out
    data = b"".join(f.read_bytes() for f in (tmp_path / "o").iterdir())
    for name in (b"a.x", b"a.y", b"sum"):
        assert name not in data
    assert set(json.loads(key.read_text())["names"].values()) >= {"a.x", "a.y", "sum"}
    assert key.stat().st_mode & 0o77 == 0
    assert call(capsys, "convert", trace, tmp_path / "x" / "w", "--digits", 2)[0] == 2


def test_retarget_and_back(capsys, tmp_path):
    assert (
        call(capsys, "retarget", "traces/all_reduce_4", tmp_path / "m" / "t", "--ranks", 8)[0] == 0
    )
    status, _, err = call(capsys, "retarget", tmp_path / "m", tmp_path / "b" / "t", "--ranks", 4)
    assert status == 0
    assert "batch per rank stays" in err
    system = pm.hardware("dgx-h100")
    times = [
        pm.predict(pm.load(t), system).makespan for t in ("traces/all_reduce_4", tmp_path / "b")
    ]
    assert times[0] == times[1]
    assert call(capsys, "retarget", tmp_path / "m", tmp_path / "c" / "t")[0] == 2


def test_tables_and_graph_files(capsys, trace, tmp_path):
    status, out, _ = call(capsys, "stats", trace, "--json")
    assert status == 0
    assert {row["operator"] for row in json.loads(out)} >= {"a.x", "a.y", "sum"}
    status, out, _ = call(capsys, "difference", trace, "--json")
    assert status == 0
    assert json.loads(out)[0]["calls_a"] > 0
    assert call(capsys, "export", trace, tmp_path / "g.dot", "--collapse", 1)[0] == 0
    assert "a x2" in (tmp_path / "g.dot").read_text()


def test_a_bundle_reproduces_to_the_last_bit(capsys, trace, tmp_path):
    file = tmp_path / "b.zip"
    assert (
        call(
            capsys,
            "bundle",
            trace,
            "-o",
            file,
            "--system",
            "dgx-a100",
            "--set",
            "network.0.latency=3 us",
        )[0]
        == 0
    )
    status, out, err = call(capsys, "reproduce", file)
    assert status == 0, err
    assert "the numbers are the same" in out
    status, out, _ = call(capsys, "reproduce", file, "--json")
    assert json.loads(out)["same"]


def test_a_bundle_that_says_another_result_is_told_apart(capsys, trace, tmp_path):
    file, other = tmp_path / "b.zip", tmp_path / "c.zip"
    assert call(capsys, "bundle", trace, "-o", file)[0] == 0
    with zipfile.ZipFile(file) as a, zipfile.ZipFile(other, "w") as b:
        manifest = json.loads(a.read("manifest.json"))
        manifest["result"]["makespan_s"] = (1.5).hex()
        manifest["versions"]["numpy"] = "1.0"
        b.writestr("manifest.json", json.dumps(manifest))
        b.writestr("graph.npz", a.read("graph.npz"))
    status, out, _ = call(capsys, "reproduce", other)
    assert status == 1
    assert "not the same" in out
    assert "numpy was 1.0" in out


OPTIONS = {
    "missing": lambda options: options.pop("dtype"),
    "list": lambda options: options.update(used="all"),
    "a file outside": lambda options: options.update(system="/etc/hosts.toml"),
    "not packed": lambda options: options.update(models="models.toml"),
    "no text": lambda options: options.update(assignments={"npu.peak_flops": [1]}),
}


@pytest.mark.parametrize("fault", ["cut", "member", "hash", "number", "bomb", *OPTIONS])
def test_damaged_bundles_give_one_clear_error(capsys, trace, tmp_path, fault):
    file, other = tmp_path / "b.zip", tmp_path / "c.zip"
    assert call(capsys, "bundle", trace, "-o", file)[0] == 0
    if fault == "cut":
        other.write_bytes(file.read_bytes()[:-50])
    else:
        with zipfile.ZipFile(file) as a, zipfile.ZipFile(other, "w") as b:
            manifest = json.loads(a.read("manifest.json"))
            if fault == "number":
                manifest["result"]["makespan_s"] = "many"
            if fault in OPTIONS:
                OPTIONS[fault](manifest["options"])
            if fault == "bomb":
                b.writestr("system.toml", bytes(2**29 + 1), zipfile.ZIP_DEFLATED)
            b.writestr("manifest.json", json.dumps(manifest))
            b.writestr("graph.npz", a.read("graph.npz") + (b"x" if fault == "hash" else b""))
            if fault == "member":
                b.writestr("../evil", b"x")
    status, _, err = call(capsys, "reproduce", other)
    assert status == 1
    assert err.startswith("perfmodel: ")
    assert "Traceback" not in err
