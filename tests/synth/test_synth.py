"""Workloads as graphs and as files: the same thing twice, for any number of ranks."""

import hashlib
import inspect
import re
import shlex
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.cli import synth as commands_synth
from perfmodel.synth import Communicators, Layout, Role, Steps, Work, Workload
from perfmodel.synth.layout import communicators
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Labels, Program

TRACES = Path(__file__).resolve().parents[2] / "traces"
SMALL = {"layers": 4, "hidden": 64, "heads": 4, "sequence": 32, "vocabulary": 96}

WORKLOADS = {
    "gpt on one rank": synth.gpt(**SMALL),
    "gpt in three dimensions": synth.gpt(
        **SMALL, data=2, tensor=2, pipeline=2, micro_batches=3, sequence_parallel=True
    ),
    "gpt with more than ten layers": synth.gpt(**SMALL | {"layers": 24}, data=2, pipeline=2),
    "gpt with equal stages": synth.gpt(**SMALL, pipeline=4, data=3),
    "gpt that recomputes": synth.gpt(**SMALL, tensor=2, recompute="full"),
    "gpt in pairs": synth.gpt(**SMALL, pipeline=2),
    "fsdp": synth.fsdp(**SMALL, ranks=3),
    "moe": synth.moe(**SMALL, experts=4, ranks=4, expert_parallel=2, moe_every=2),
    "moe over all ranks": synth.moe(**SMALL, experts=8, ranks=4),
    "collective": synth.collective("reduce_scatter", 3, 999, repeat=2),
    "barrier": synth.collective("barrier", 3, 0),
    "data parallel": synth.data_parallel(5, 40),
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


@pytest.mark.parametrize("work", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_the_graph_is_what_load_makes_of_the_written_files_without_a_warning(work, tmp_path):
    graph = work.graph()
    loaded = pm.load(work.write(tmp_path / "trace"), strict=True)
    assert_equal(graph, loaded)
    assert loaded.warnings == ()
    assert graph.ranks == work.ranks
    assert len(graph) == work.nodes


@pytest.mark.parametrize(
    "name", ["gpt in three dimensions", "fsdp", "moe", "collective", "data parallel"]
)
def test_graph_and_files_are_predicted_alike(name, tmp_path):
    work = WORKLOADS[name]
    system = pm.hardware("dgx-h100")
    direct = pm.predict(work.graph(), system)
    loaded = pm.predict(pm.load(work.write(tmp_path)), system)
    assert direct.makespan == loaded.makespan > 0
    np.testing.assert_array_equal(direct.start, loaded.start)
    np.testing.assert_array_equal(direct.finish, loaded.finish)


@st.composite
def gpts(draw) -> Workload:
    """Any small GPT whose numbers fit together."""
    tensor, pipeline = draw(st.sampled_from([1, 2, 3])), draw(st.integers(1, 4))
    return synth.gpt(
        layers=pipeline * draw(st.integers(1, 3)),
        hidden=tensor * 8,
        heads=tensor * draw(st.sampled_from([1, 2])),
        sequence=tensor * 4,
        vocabulary=tensor * 10,
        micro_batch=draw(st.integers(1, 3)),
        micro_batches=draw(st.integers(1, 6)),
        data=draw(st.integers(1, 3)),
        tensor=tensor,
        pipeline=pipeline,
        sequence_parallel=draw(st.booleans()),
        recompute=draw(st.sampled_from(["none", "selective", "full"])),
    )


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(work=gpts())
def test_any_gpt_that_fits_together_loads_back_equal(work, tmp_path_factory):
    graph = work.graph()
    assert_equal(graph, pm.load(work.write(tmp_path_factory.mktemp("any")), strict=True))
    for labels in graph.labels:
        assert len(set(labels.names)) == len(labels.names)


@settings(max_examples=8, deadline=None)
@given(work=gpts(), slow=st.sampled_from(["1 TB/s", "1 MB/s", "1 kB/s"]))
def test_no_gpt_stops_in_a_deadlock_whatever_the_network(work, slow, tmp_path_factory):
    system = tmp_path_factory.mktemp("system") / "flat.toml"
    system.write_text(
        '[npu]\npeak_flops = "1 TFLOP/s"\nmemory_bandwidth = "1 TB/s"\n'
        'memory_capacity = "80 GB"\nsource = "made up"\n'
        f'[[network]]\ntopology = "switch"\nsize = "any"\nbandwidth = "{slow}"\n'
        'latency = "1 us"\n'
    )
    p = pm.predict(work.graph(), pm.hardware(system, ranks=work.ranks))
    per_rank = [role.steps.nodes for role in work.roles]
    least = max(sum(s.flops for s in nodes if s.flops > 0) for nodes in per_rank) / 1e12
    assert np.isfinite(p.makespan)
    assert p.makespan >= least * (1 - 1e-12)


@pytest.mark.parametrize("work", WORKLOADS.values(), ids=WORKLOADS.keys())
def test_the_order_of_computation_on_a_rank_is_fixed_and_every_wait_points_back(work):
    for role in work.roles:
        before = None
        for position, step in enumerate(role.steps.nodes):
            assert all(p < position for p in step.after)
            if step.type == NodeType.COMP:
                assert before is None or before in step.after
                before = position


def ancestors(steps: Steps, position: int) -> set[str]:
    """Names of all nodes that must be done before this one."""
    found, todo = set(), [position]
    while todo:
        for p in steps.nodes[todo.pop()].after:
            if p not in found:
                found.add(p)
                todo.append(p)
    return {steps.nodes[p].name for p in found}


def test_communication_overlaps_the_weights_gradients_and_gradients_overlap_the_backward_pass():
    steps = synth.gpt(**SMALL, tensor=2, data=2).roles[0].steps
    name = [step.name for step in steps.nodes]

    def independent(a: str, b: str) -> bool:
        first, second = sorted((name.index(a), name.index(b)))
        return name[first] not in ancestors(steps, second)

    layer = "mb0.bwd.layer2"
    assert independent(f"{layer}.mlp.all_reduce", f"{layer}.mlp.up.weight_gradient")
    assert not independent(f"{layer}.mlp.all_reduce", f"{layer}.mlp.up.input_gradient")
    assert not independent(f"{layer}.mlp.all_reduce", f"{layer}.mlp.norm")
    assert independent("step.layer2.grad_all_reduce", "mb0.bwd.layer1.attention.qkv.input_gradient")
    assert not independent("step.layer2.grad_all_reduce", f"{layer}.attention.qkv.weight_gradient")
    assert not independent("step.layer2.grad_all_reduce", "step.optimizer")
    assert not independent("mb0.fwd.layer0.mlp.all_reduce", "mb0.fwd.layer1.attention.norm")


def test_a_stages_last_gradient_goes_out_before_its_reduction_where_both_are_ready():
    steps = synth.gpt(**SMALL, data=2, pipeline=2).roles[1].steps
    name = [step.name for step in steps.nodes]
    assert name.index("mb0.bwd.send") < name.index("step.layer2.grad_all_reduce")


def test_the_tied_embedding_is_summed_when_a_rank_owes_nobody_anything():
    for role in synth.gpt(**SMALL, data=2, tensor=2, pipeline=2, micro_batches=3).roles:
        steps = role.steps
        name = [step.name for step in steps.nodes]
        before = ancestors(steps, name.index("step.tied.grad_all_reduce"))
        assert {n for n in name if n.endswith("bwd.send")} <= before
        assert {n for n in name if n.endswith("grad_all_reduce")} - before == {
            "step.tied.grad_all_reduce"
        }


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


def test_the_groups_of_a_gpt_are_those_of_the_layout():
    graph = synth.gpt(**SMALL, data=2, tensor=2, pipeline=2).graph()
    assert sorted(graph.groups[1:]) == sorted(
        [
            *[(0, 1), (2, 3), (4, 5), (6, 7)],  # tensor
            *[(0, 2), (1, 3), (4, 6), (5, 7)],  # data
            *[(0, 4), (1, 5), (2, 6), (3, 7)],  # first and last stage
        ]
    )
    assert graph.groups[0] == tuple(range(8))


def test_a_group_of_all_ranks_is_the_world_and_needs_no_group_file(tmp_path):
    work = synth.moe(**SMALL, experts=4, ranks=4)
    assert work.graph().groups == ((0, 1, 2, 3),)
    work.write(tmp_path)
    assert sorted(f.name for f in tmp_path.iterdir()) == [f"t.{r}.et" for r in range(4)]


def test_stages_that_do_the_same_share_a_program_but_keep_their_names():
    graph = synth.gpt(**SMALL, pipeline=4, data=3).graph()
    assert len(graph.programs) == 3  # first, two in the middle, last
    middle = graph.programs[1]
    assert middle.ranks.tolist() == [3, 4, 5, 6, 7, 8]
    assert (middle.peer - middle.ranks[:, None] == [-3, 3, 3, -3]).all()
    assert len(graph.labels) == 4
    assert "mb0.fwd.layer2.mlp.up" in graph.labels[graph.label[6]].names


def test_a_128_rank_gpt_is_four_programs():
    work = synth.gpt(
        layers=32, hidden=4096, heads=32, data=4, tensor=8, pipeline=4, micro_batches=8
    )
    graph = work.graph()
    assert graph.ranks == 128
    assert len(graph.programs) == 4
    assert [len(p.ranks) for p in graph.programs] == [32] * 4
    assert 1000 < len(graph) / 128 < 3000


def test_65536_ranks_cost_what_their_programs_cost():
    graph = synth.data_parallel(65_536, 10_000).graph()
    assert len(graph) == 655_360_000
    assert [len(p) for p in graph.programs] == [10_000]
    stages = synth.gpt(
        layers=8, hidden=512, heads=8, data=1024, tensor=8, pipeline=8, micro_batches=16
    ).graph()
    assert stages.ranks == 65_536
    assert len(stages.programs) == 8
    size = sum(
        getattr(p, f.name).nbytes
        for p in stages.programs
        for f in fields(Program)
        if f.name != "resources"
    )
    # 128 messages per rank at most, two tables of int32, and small change
    assert size < 65_536 * 64 * 8 * 1.1


def test_peers_and_partners_name_each_other():
    graph = synth.gpt(**SMALL, data=2, tensor=2, pipeline=4, micro_batches=3).graph()
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
    (synth.gpt, SMALL | {"layers": 5, "pipeline": 2}, "layers: got 5, which pipeline = 2"),
    (synth.gpt, SMALL | {"hidden": 66}, "hidden: got 66, which heads = 4 .* 64 and 68 fit"),
    (synth.gpt, SMALL | {"tensor": 8}, "heads: got 4, which tensor = 8 .* 8 fits"),
    (synth.gpt, SMALL | {"tensor": 2, "vocabulary": 97}, "vocabulary: got 97"),
    (synth.gpt, SMALL | {"tensor": 2, "feed_forward": 97}, "feed_forward: got 97"),
    (
        synth.gpt,
        SMALL | {"tensor": 2, "sequence": 31, "sequence_parallel": True},
        "sequence: got 31",
    ),
    (synth.gpt, SMALL | {"micro_batches": 0}, "micro_batches: got 0, .* at least 1"),
    (synth.gpt, SMALL | {"data": -1}, "data: got -1"),
    (synth.gpt, SMALL | {"hidden": 64.5}, "hidden: got 64.5, expected a whole number"),
    (synth.gpt, SMALL | {"layers": True}, "layers: got True"),
    (synth.gpt, SMALL | {"dtype_bytes": 0}, "dtype_bytes: got 0"),
    (synth.gpt, SMALL | {"gradient_bytes": 0}, "gradient_bytes: got 0"),
    (synth.gpt, SMALL | {"recompute": "some"}, "recompute: got 'some', expected one of none"),
    (synth.gpt, SMALL | {"hidden": 2**40}, "do not fit a trace's 64-bit number"),
    (synth.fsdp, SMALL | {"ranks": 1}, "ranks: got 1, .* at least 2"),
    (synth.moe, SMALL | {"ranks": 4, "experts": 6}, "experts: got 6, which expert_parallel = 4"),
    (
        synth.moe,
        SMALL | {"ranks": 5, "experts": 4, "expert_parallel": 2},
        "ranks: got 5, which expert_parallel = 2",
    ),
    (synth.moe, SMALL | {"ranks": 2, "experts": 2, "top_k": 3}, "top_k: got 3"),
    (
        synth.moe,
        SMALL | {"ranks": 2, "experts": 2, "capacity_factor": float("nan")},
        "capacity_factor: got nan",
    ),
    (synth.moe, SMALL | {"ranks": 2, "experts": 2, "moe_every": 9}, "moe_every: got 9"),
    (synth.collective, {"kind": "allreduce", "ranks": 2, "size": 1}, "kind: got 'allreduce'"),
    (synth.collective, {"kind": "all_reduce", "ranks": 2, "size": 0}, "size: got 0"),
    (synth.collective, {"kind": "barrier", "ranks": 2, "size": 8}, "barrier carries no data"),
    (synth.data_parallel, {"ranks": 2, "nodes_per_rank": 3}, "nodes_per_rank: got 3"),
]


@pytest.mark.parametrize(("generator", "parameters", "message"), BAD)
def test_numbers_that_do_not_fit_are_named_with_what_would(generator, parameters, message):
    with pytest.raises(pm.InputError, match=message):
        generator(**parameters)


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
    WORKLOADS["gpt in three dimensions"].write(tmp_path)
    (tmp_path / "notes.txt").write_text("kept")
    with pytest.raises(pm.InputError, match="holds a trace already"):
        WORKLOADS["fsdp"].write(tmp_path)
    assert pm.load(tmp_path).ranks == 8
    WORKLOADS["fsdp"].write(tmp_path, overwrite=True)
    assert sorted(f.name for f in tmp_path.iterdir()) == [
        "notes.txt",
        *(f"t.{r}.et" for r in range(3)),
    ]


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(pm.InputError, match="cannot be made a folder"):
        WORKLOADS["fsdp"].write(tmp_path / "file")
    with pytest.raises(pm.InputError, match="prefix: got 'a/b'"):
        WORKLOADS["fsdp"].write(tmp_path, prefix="a/b")


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
    assert size < 300_000


GENERATORS = [synth.gpt, synth.fsdp, synth.moe, synth.collective, synth.data_parallel]


@pytest.mark.parametrize("generator", GENERATORS, ids=lambda g: g.__name__)
def test_every_parameter_of_a_generator_is_documented_and_an_option(generator):
    command = commands_synth.synth.commands[generator.__name__.replace("_", "-")]
    options = {p.name: p for p in command.params}
    for name, parameter in inspect.signature(generator).parameters.items():
        assert name in generator.__doc__
        assert options[name].required == (parameter.default is inspect.Parameter.empty)
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

    words = "synth gpt --layers 3 --hidden 64 --heads 4 --pipeline 2"
    with pytest.raises(SystemExit) as stop:
        main([*words.split(), "-o", str(tmp_path / "new")])
    assert stop.value.code == 1
    error = capsys.readouterr().err
    assert error == ("perfmodel: layers: got 3, which pipeline = 2 does not divide. 2 and 4 fit.\n")
    assert not (tmp_path / "new").exists()
