"""Workloads as graphs and as files: the same thing twice, for any number of ranks."""

import hashlib
import inspect
import re
import shlex
import time
from dataclasses import fields
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

import perfmodel as pm
from perfmodel import synth
from perfmodel.cli import synth as commands_synth
from perfmodel.synth import Communicators, Layout, Role, Steps, Work, Workload
from perfmodel.synth.assemble import pair
from perfmodel.synth.layout import communicators
from perfmodel.workload import trace_files
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Program

TRACES = Path(__file__).resolve().parents[2] / "traces"
SMALL = {"layers": 4, "hidden": 64, "heads": 4, "vocabulary": 96, "positions": 32, "sequence": 32}
MIXTURE = SMALL | {"experts": 8, "top_k": 2}

WORKLOADS = {
    "one rank": synth.training(SMALL),
    "three dimensions": synth.training(
        SMALL, data=2, tensor=2, pipeline=2, micro_batches=3, sequence_parallel=True, gap=0.0
    ),
    "more than ten layers": synth.training(SMALL | {"layers": 24}, data=2, pipeline=2),
    "equal stages": synth.training(SMALL, pipeline=4, data=3),
    "recomputed": synth.training(SMALL, tensor=2, recompute="full"),
    "pairs": synth.training(SMALL, pipeline=2),
    "interleaved": synth.training(SMALL, pipeline=2, virtual=2, micro_batches=2),
    "sharded": synth.training(SMALL, data=3, sharding=3, gap=0.0),
    "experts": synth.training(MIXTURE, data=4, expert=2, gap=0.0),
    "experts over all ranks": synth.training(MIXTURE, data=4, expert=4),
    "launched": synth.training(SMALL, host_forward=1e-3, host_backward=2e-3),
    "collective": synth.collective("reduce_scatter", 3, 999, repeat=2),
    "barrier": synth.collective("barrier", 3, 0),
    "data parallel": synth.data_parallel(5, 40),
}


WORKLOADS |= {
    "attention and streams": synth.training(
        SMALL | {"kv_heads": 2}, data=2, tensor=2, overlap=True, micro_batches=2
    ),
    "host times that are no whole microseconds": synth.training(SMALL, host_forward=1.5e-7),
    "fp8, offloaded": synth.training(SMALL, dtype="fp8", data=2, offload="optimizer"),
    "uneven experts": synth.training(MIXTURE, data=4, expert=2, skew=1.5),
    "passes side by side": synth.training(
        SMALL, pipeline=2, virtual=2, schedule="dualpipe-v", micro_batches=6
    ),
}


def assert_equal(a: Graph, b: Graph) -> None:
    """Two graphs are the same but for where they came from."""
    assert len(a.programs) == len(b.programs)
    for p, q in zip(a.programs, b.programs):
        for f in fields(Program):
            x, y = getattr(p, f.name), getattr(q, f.name)
            np.testing.assert_array_equal(x, y, err_msg=f.name)
            assert getattr(x, "dtype", None) == getattr(y, "dtype", None), f.name
            assert getattr(x, "shape", None) == getattr(y, "shape", None), f.name
    assert len(a.labels) == len(b.labels)
    for p, q in zip(a.labels, b.labels):
        for f in fields(Labels):
            np.testing.assert_array_equal(getattr(p, f.name), getattr(q, f.name), err_msg=f.name)
    for name in ("program", "row", "label", "by_name"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)
    assert a.groups == b.groups
    assert a.group_names == b.group_names
    assert a.digest == b.digest  # and so what the step does for its model


@pytest.mark.parametrize("work", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_the_graph_is_what_load_makes_of_the_written_files_without_a_warning(work, tmp_path):
    graph = work.graph()
    loaded = pm.load(work.write(tmp_path / "trace"), strict=True)
    assert_equal(graph, loaded)
    assert loaded.warnings == ()
    assert graph.ranks == work.ranks
    assert len(graph) == work.nodes


@pytest.mark.parametrize("work", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_an_archive_of_the_graph_is_the_graph(work, tmp_path):
    graph = work.graph()
    pm.save(graph, tmp_path / "saved.npz")
    assert_equal(graph, pm.load(tmp_path / "saved.npz"))


@pytest.mark.parametrize(
    "name",
    ["three dimensions", "sharded", "uneven experts", "collective", "attention and streams"],
)
def test_graph_and_files_are_predicted_alike_by_the_fitted_models(name, tmp_path):
    work = WORKLOADS[name]
    system = pm.hardware("dgx-h100")
    direct, loaded = work.graph(), pm.load(work.write(tmp_path))
    for models in (None, pm.Models()):  # the system's own, fitted ones, and the bare roofline
        one, other = (pm.predict(graph, system, models) for graph in (direct, loaded))
        assert one.makespan == other.makespan > 0
        np.testing.assert_array_equal(one.start, other.start)
        np.testing.assert_array_equal(one.finish, other.finish)
        assert one.models == other.models


def test_products_of_a_written_trace_are_timed_by_their_shapes():
    graph = pm.load(TRACES / "gpt_dp2_tp2_pp2")
    system = pm.hardware("dgx-h100")
    p = pm.predict(graph, system)
    program = graph.programs[0]
    (node,) = np.flatnonzero([n == "mb0.fwd.layer0.mlp.up" for n in graph.labels[0].names])
    batch, m, n, k = program.dimensions[node, :4].tolist()
    assert (m, n, k) == (2048, 4 * 4096 // 2, 4096)
    time = pm.operation_time(system, "gemm", m=m, n=n, k=k, batch=batch, dtype="bf16")
    assert p.finish[node] - p.start[node] == pytest.approx(float(time), rel=1e-12)
    assert "gemm bf16" in {answer.work for answer in p.models}


def test_files_of_a_step_know_its_memory_and_utilization(tmp_path):
    work = WORKLOADS["three dimensions"]
    system = pm.hardware("dgx-h100")
    direct, loaded = (
        pm.predict(graph, system) for graph in (work.graph(), pm.load(work.write(tmp_path)))
    )
    pd.testing.assert_frame_equal(pm.memory(direct), pm.memory(loaded))
    pd.testing.assert_frame_equal(pm.throughput(direct), pm.throughput(loaded))


def test_files_of_different_steps_that_were_mixed_are_one_error(tmp_path):
    prefix = synth.training(SMALL, data=2).write(tmp_path)
    synth.training(SMALL, data=2, micro_batch=2).write(tmp_path / "other")
    (tmp_path / "other" / "t.1.et").rename(tmp_path / "t.1.et")
    with pytest.raises(pm.InputError, match="ranks disagree about the step"):
        pm.load(prefix)


def test_writing_costs_what_the_distinct_programs_cost(tmp_path, monkeypatch):
    made = []
    whole = trace_files.tabulate
    monkeypatch.setattr(trace_files, "tabulate", lambda *a: made.append(1) or whole(*a))
    synth.training(SMALL, data=16, pipeline=2).write(tmp_path)
    assert len(made) == 2


def test_ranks_are_laid_out_tensor_first_then_data_then_pipeline():
    t, d, p = 2, 3, 4
    layout = Layout({"tensor": t, "data": d, "pipeline": p})
    rank = np.arange(t * d * p).reshape(p, d, t)
    assert layout.ranks == rank.size
    expected = {
        "tensor": rank.reshape(-1, t),
        "data": np.moveaxis(rank, 1, 2).reshape(-1, d),
        "pipeline": np.moveaxis(rank, 0, 2).reshape(-1, p),
    }
    for dimension, members in expected.items():
        found = layout.along(dimension)
        assert found.size == members.shape[1]
        assert sorted(map(tuple, found.members)) == sorted(map(tuple, members))
        for r in rank.ravel():
            assert r in found.members[found.of_rank[r]]
    np.testing.assert_array_equal(layout.at("pipeline", 2), rank[2].ravel())
    np.testing.assert_array_equal(layout.at("data", 1), rank[:, 1].ravel())


def test_the_groups_in_use_are_those_of_the_layout():
    graph = synth.training(SMALL, data=2, tensor=2, pipeline=2, clip=False).graph()
    assert sorted(graph.groups[1:]) == sorted(
        [
            *[(0, 1), (2, 3), (4, 5), (6, 7)],  # tensor
            *[(0, 2), (1, 3), (4, 6), (5, 7)],  # data
            *[(0, 4), (1, 5), (2, 6), (3, 7)],  # first and last stage
        ]
    )
    assert graph.groups[0] == tuple(range(8))


def test_a_group_of_all_ranks_is_the_world_and_needs_no_group_file(tmp_path):
    work = synth.training(MIXTURE, data=4, expert=4, clip=False)
    assert work.graph().groups == ((0, 1, 2, 3),)
    work.write(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [f"t.{r}.et" for r in range(4)]


def test_stages_that_do_the_same_share_a_program_but_keep_their_names():
    graph = synth.training(SMALL, pipeline=4, data=3).graph()
    assert len(graph.programs) == 3  # first, two in the middle, last
    middle = graph.programs[1]
    assert middle.ranks.tolist() == [3, 4, 5, 6, 7, 8]
    assert (middle.peer - middle.ranks[:, None] == [-3, 3, 3, -3]).all()
    assert len(graph.labels) == 4
    assert "mb0.fwd.layer2.mlp.up" in graph.labels[graph.label[6]].names


def test_65536_ranks_cost_what_their_programs_cost():
    graph = synth.data_parallel(65_536, 10_000).graph()
    assert len(graph) == 655_360_000
    assert [len(p) for p in graph.programs] == [10_000]
    sizes = {"layers": 8, "hidden": 512, "heads": 8}
    stages = synth.training(sizes, data=1024, tensor=8, pipeline=8, micro_batches=16).graph()
    assert stages.ranks == 65_536
    assert len(stages.programs) == 8
    size = sum(
        getattr(p, f.name).nbytes
        for p in stages.programs
        for f in fields(Program)
        if f.name != "resources"
    )
    # 64 messages per rank at most, two tables of int32, and small change
    assert size < 65_536 * 64 * 8 * 1.1


def test_peers_and_partners_name_each_other():
    graph = synth.training(SMALL, data=2, tensor=2, pipeline=4, micro_batches=3).graph()
    for rank in range(graph.ranks):
        p, row = graph.programs[graph.program[rank]], graph.row[rank]
        for position, peer, partner in zip(p.p2p, p.peer[row], p.partner[row]):
            q, other = graph.programs[graph.program[peer]], graph.row[peer]
            back = np.flatnonzero(q.p2p == partner)
            assert q.peer[other, back] == rank
            assert q.partner[other, back] == position
            assert {int(p.type[position]), int(q.type[partner])} == {5, 6}
            assert p.size[position] == q.size[partner]


BAD = [
    (synth.training, {"model": SMALL | {"hidden": 66}}, "hidden: got 66, which heads = 4"),
    (synth.training, {"model": SMALL | {"layers": True}}, "layers: got True"),
    (synth.training, {"model": SMALL, "data": -1}, "data: got -1"),
    (synth.training, {"model": SMALL | {"hidden": 2**40}, "attention": "flash"}, "64-bit number"),
    (synth.collective, {"kind": "allreduce", "ranks": 2, "size": 1}, "kind: got 'allreduce'"),
    (synth.collective, {"kind": "all_reduce", "ranks": 2, "size": 0}, "size: got 0"),
    (synth.collective, {"kind": "barrier", "ranks": 2, "size": 8}, "barrier carries no data"),
    (synth.data_parallel, {"ranks": 2, "nodes_per_rank": 3}, "nodes_per_rank: got 3"),
]


@pytest.mark.parametrize(("generator", "parameters", "message"), BAD)
def test_numbers_that_do_not_fit_are_named_with_what_would(generator, parameters, message):
    with pytest.raises(pm.InputError, match=message):
        generator(**parameters).graph()


def two_roles(first: Steps, second: Steps) -> Workload:
    """Rank 0 and rank 1 do different things."""
    return Workload("pair", (Role(first, np.array([0])), Role(second, np.array([1]))))


def test_a_message_that_nobody_takes_is_an_error_that_names_it():
    sender, idle = Steps(), Steps()
    sender.send("hello", 8, 1, tag=3)
    idle.compute("nap", Work(1, 1))
    with pytest.raises(pm.InputError, match=r"rank 0 node 1 \('hello'\): rank 1 has no receive"):
        two_roles(sender, idle).graph()
    lost = Steps()
    lost.send("off the edge", 8, 5, tag=0)
    with pytest.raises(pm.InputError, match="rank 5 has no receive"):
        two_roles(lost, idle).graph()
    waiting = Steps()
    waiting.receive("wait", 8, -1, tag=3)
    with pytest.raises(pm.InputError, match="rank 0 has no send"):
        two_roles(idle, waiting).graph()


def test_a_hundred_thousand_messages_pair_up_in_a_second():
    sender, receiver = Steps(), Steps()
    for tag in range(50_000):
        sender.send("give", 8, 1, tag=tag)
        receiver.receive("take", 8, -1, tag=49_999 - tag)
    roles = two_roles(sender, receiver).roles
    begin = time.process_time()
    given, taken = pair(roles, 2, "pair")
    assert time.process_time() - begin < 1.0
    assert (given[0] == np.arange(50_000)[::-1]).all()
    assert (taken == given).all()


def test_a_receive_beside_messages_that_pair_up_is_the_one_that_is_named():
    sender, receiver = Steps(), Steps()
    sender.send("first", 8, 1, tag=0)
    receiver.receive("take", 8, -1, tag=0)
    receiver.receive("more", 8, -1, tag=1)
    with pytest.raises(pm.InputError, match=r"rank 1 node 2 \('more'\): rank 0 has no send"):
        two_roles(sender, receiver).graph()


def test_messages_of_one_tag_pair_up_in_order():
    sender, receiver = Steps(), Steps()
    for i in range(3):
        sender.send(f"s{i}", 8 + i, 1, tag=0)
    receiver.compute("first", Work(1, 1))
    for i in range(3):
        receiver.receive(f"r{i}", 8 + i, -1, tag=0)
    graph = two_roles(sender, receiver).graph()
    assert graph.programs[0].partner.tolist() == [[1, 2, 3]]
    assert graph.programs[1].partner.tolist() == [[0, 1, 2]]


def test_every_rank_needs_exactly_one_role():
    steps = Steps()
    steps.compute("work", Work(1, 1))
    for ranks in ([[0], [2]], [[0, 1], [1]]):
        roles = tuple(Role(steps, np.array(r)) for r in ranks)
        with pytest.raises(pm.InputError, match="Give every rank one role"):
            Workload("odd", roles).graph()


def test_a_workload_of_ones_own_needs_steps_and_ranks_only(tmp_path):
    steps = Steps()
    work = steps.compute("work", Work(10, 20))
    steps.collective("sum", "all_reduce", 64, "odd or even", after=[work, None])
    groups = {"odd or even": communicators([[0, 2], [1, 3]], 4)}
    assert isinstance(groups["odd or even"], Communicators)
    own = Workload("own", (Role(steps, np.arange(4), groups),))
    graph = own.graph()
    assert graph.groups[1:] == ((0, 2), (1, 3))
    assert_equal(graph, pm.load(own.write(tmp_path, prefix="own")))


def test_writing_over_another_trace_must_be_asked_for_and_leaves_nothing_of_it(tmp_path):
    WORKLOADS["three dimensions"].write(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(pm.InputError, match="holds a trace already"):
        WORKLOADS["sharded"].write(tmp_path)
    assert pm.load(tmp_path).ranks == 8
    WORKLOADS["sharded"].write(tmp_path, overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "notes.txt",
        *(f"t.{r}.et" for r in range(3)),
    ]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(pm.InputError, match="cannot be made a folder"):
        WORKLOADS["sharded"].write(tmp_path / "file")
    with pytest.raises(pm.InputError, match="prefix: got 'a/b'"):
        WORKLOADS["sharded"].write(tmp_path, prefix="a/b")


def readme_commands() -> dict[str, list[str]]:
    """The arguments after `perfmodel synth` of every trace in traces/, by its folder."""
    text = (TRACES / "README.md").read_text()
    found = [shlex.split(c)[2:] for c in re.findall(r"`(perfmodel synth [^`]+ -o [^`]+)`", text)]
    return {arguments[-1].removeprefix("traces/"): arguments for arguments in found}


def digests(folder: Path) -> dict[str, str]:
    """Hash of every file in a folder."""
    return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}


def test_every_folder_of_traces_says_how_it_was_made():
    assert set(readme_commands()) == {f.name for f in TRACES.iterdir() if f.is_dir()}


@pytest.mark.parametrize("name", readme_commands())
def test_the_commands_in_the_readme_make_the_traces_byte_for_byte(name, tmp_path):
    arguments = [*readme_commands()[name][:-1], str(tmp_path / name)]
    result = CliRunner().invoke(commands_synth.synth, arguments, standalone_mode=False)
    assert result.exception is None
    assert digests(tmp_path / name) == digests(TRACES / name)


@pytest.mark.parametrize("name", readme_commands())
def test_the_traces_load_strictly_and_take_time(name):
    graph = pm.load(TRACES / name, strict=True)
    p = pm.predict(graph, pm.hardware("dgx-h100"))
    assert p.makespan > 0
    assert (p.finish >= p.start).all()
    size = sum(f.stat().st_size for f in (TRACES / name).iterdir())
    assert size < 400_000


GENERATORS = [synth.training, synth.collective, synth.data_parallel]


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
def test_every_parameter_of_a_generator_is_documented_and_an_option(generator):
    command = commands_synth.synth.commands[generator.__name__.replace("_", "-")]
    options = {p.name: p for p in command.params}
    for name, parameter in inspect.signature(generator).parameters.items():
        assert name in generator.__doc__
        assert options[name].required == (parameter.default is inspect.Parameter.empty)
        if name != "model":  # an argument
            assert len(options[name].help) > 10
    page = CliRunner().invoke(command, ["--help"]).output
    assert "--output" in page
    assert command.get_short_help_str(200) in " ".join(page.split())


def test_the_command_line_takes_sizes_with_units_and_refuses_odd_ones(tmp_path):
    def run(*size: str):
        arguments = ["collective", "--kind", "all_gather", "--ranks", "2", "-o", str(tmp_path)]
        return CliRunner().invoke(
            commands_synth.synth, [*arguments, "--overwrite", "--size", *size]
        )

    assert run("1.5 KiB").exit_code == 0
    assert pm.load(tmp_path).nodes["size_B"].tolist() == [1536, 1536]
    assert run("2048").exit_code == 0
    for wrong, message in (("1.5 B", "whole number"), ("9 bananas", "bananas"), ("x", "'x'")):
        result = run(wrong)
        assert result.exit_code == 2
        assert message in result.output


def test_the_command_line_reports_wrong_numbers_in_one_line(tmp_path, capsys):
    from perfmodel.cli.main import main

    words = "synth training layers=4,hidden=64,heads=4 --tensor 3"
    with pytest.raises(SystemExit) as stop:
        main([*words.split(), "-o", str(tmp_path / "new")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error == (
        "perfmodel: tensor: got 3, expected a divisor of the model's heads = 4. 2 and 4 fit.\n"
    )
    assert not (tmp_path / "new").exists()


def test_an_archive_keeps_what_files_have_no_words_for(tmp_path):
    file = tmp_path / "step.npz"
    words = "training layers=4,hidden=64,heads=4 --data 2 -o"
    arguments = [*words.split(), str(file)]
    assert CliRunner().invoke(commands_synth.synth, arguments).exit_code == 0
    graph = pm.load(file)
    assert (graph.programs[0].kind > 0).any()
    assert graph.step is not None
    assert graph.step.tokens == 2 * 2048
    again = CliRunner().invoke(commands_synth.synth, arguments)
    assert "--overwrite" in str(again.exception)
    from perfmodel.cli.run import run

    page = CliRunner().invoke(run, [str(file), "--system", "dgx-h100"]).output
    assert "MFU" in page
    assert "fits with" in page
