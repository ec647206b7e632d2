"""Traces as ASTRA-sim takes them: files by prefix and rank, groups by file, errors that name the place."""

import json
import warnings

import numpy as np
import pytest

from perfmodel import astra
from perfmodel.astra import event_run
from perfmodel.cli import main as cli
from perfmodel.errors import InputError, SystemFileError, TraceError
from perfmodel.prediction import predict
from perfmodel.trace import chakra
from tests import astra_reference as reference
from tests.astra_workload import SYSTEM, network

Node = chakra.Node


def attribute(node, name, value):
    found = node.attr.add(name=name)
    if isinstance(value, bool):
        found.bool_val = value
    elif isinstance(value, str):
        found.string_val = value
    elif isinstance(value, list):
        found.bool_list.values.extend(value)
    else:
        found.int64_val = value


def node(number, kind, deps=(), **attributes):
    made = Node(id=number, name=f"n{number}", type=kind, data_deps=list(deps))
    for name, value in attributes.items():
        attribute(made, name, value)
    return made


def write(folder, *ranks, name="t"):
    for rank, nodes in enumerate(ranks):
        chakra.write(folder / f"{name}.{rank}.et", chakra.GlobalMetadata(version="0.0.4"), nodes)
    return folder / name


def reduce(number, deps=(), **more):
    return node(number, 7, deps, comm_type=0, comm_size=4096, is_cpu_op=False, **more)


def test_a_missing_rank_is_named(tmp_path):
    prefix = write(tmp_path, [reduce(1)])
    with pytest.raises(TraceError, match=r"t\.1\.et: no such file; ranks 0 to 1 need one each"):
        astra.read_flat(prefix, 2)


def test_a_dependency_on_nothing_is_named(tmp_path):
    prefix = write(tmp_path, [reduce(1, (7,))])
    with pytest.raises(TraceError, match=r"node 1 depends on node 7, which is not in the file"):
        astra.read_flat(prefix, 1)


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([reduce(1, (2,)), reduce(2, (5,)), reduce(5, (1,)), reduce(7, (5,))], "nodes 1, 2, 5 dep"),
        ([reduce(1), reduce(4, (1, 4))], r"t\.0\.et: node 4 depends on itself"),
        ([reduce(k, ((k + 1) % 20,)) for k in range(20)], "6, 7 and 12 more depend on each other"),
    ],
)
def test_a_cycle_is_named(tmp_path, nodes, why):
    with pytest.raises(TraceError, match=why):
        astra.read_flat(write(tmp_path, nodes), 1)


def test_a_network_of_a_billion_ranks_fails_at_the_first_missing_file(tmp_path):
    with pytest.raises(TraceError, match=r"t\.1\.et: no such file"):
        astra.read_flat(write(tmp_path, [reduce(1)]), 10**9)


def test_load_takes_the_files_of_the_first_ranks_as_simulate_does(tmp_path):
    prefix = write(tmp_path, *[[reduce(1)]] * 4)
    with pytest.warns(UserWarning, match=r"t\.2\.et: the traces of 2 ranks, 2 to 3, are left out"):
        cycles = astra.simulate(prefix, SYSTEM, network(("Ring", 2))).cycles
    with pytest.warns(UserWarning, match=r"t\.2\.et: the traces of 2 ranks, 2 to 3, are left out"):
        inputs = astra.load(prefix, SYSTEM, network(("Ring", 2)), truncate=True)
    assert inputs[0].source == str(prefix)
    assert predict(*inputs).makespan == pytest.approx(max(cycles) / 1e9)
    with pytest.raises(TraceError, match=r"t\.4\.et: no such file; ranks 0 to 7 need one each"):
        astra.load(prefix, SYSTEM, network(("Ring", 8)))


def test_an_id_given_twice_is_named(tmp_path):
    prefix = write(tmp_path, [reduce(4), reduce(4)])
    with pytest.raises(TraceError, match="node id 4 is given twice"):
        astra.read_flat(prefix, 1)


def test_a_message_that_is_not_the_ranks_own_is_named(tmp_path):
    prefix = write(
        tmp_path, [node(1, 5, comm_src=1, comm_dst=1, comm_size=8, comm_tag=0)], [reduce(1)]
    )
    with pytest.raises(TraceError, match="names rank 1 as its own side"):
        astra.read_flat(prefix, 2)


def test_an_unknown_group_is_named(tmp_path):
    prefix = write(tmp_path, [reduce(1, pg_name="3")])
    groups = tmp_path / "groups.json"
    groups.write_text('{"1": [0]}')
    with pytest.raises(TraceError, match=r"node 1 is of communicator group '3'.*known are \['1'\]"):
        astra.read_flat(prefix, 1, groups)
    assert astra.read_flat(prefix, 1, _file(tmp_path, '{"3": [0]}')).groups == ((0,), (0,))


def _file(folder, text):
    path = folder / "other.json"
    path.write_text(text)
    return path


def test_a_group_file_named_empty_is_none_and_group_0_is_everyone(tmp_path):
    prefix = write(tmp_path, [reduce(1, pg_name="0")], [reduce(1)])
    flat = astra.read_flat(prefix, 2, "empty")
    assert flat.groups == ((0, 1),)
    assert flat.group.tolist() == [0, 0]


@pytest.mark.parametrize("name", ["01", " 1", "+1", "1a"])
def test_a_group_is_known_by_the_number_that_its_name_begins_with(tmp_path, name):
    prefix = write(tmp_path, [reduce(1, pg_name=name)], [reduce(1, pg_name="1")])
    assert astra.read_flat(prefix, 2, _file(tmp_path, '{"1": [1, 0]}')).group.tolist() == [1, 1]


def test_load_knows_a_group_by_its_number_too(tmp_path):
    prefix = write(tmp_path, *[[reduce(1, pg_name="01")]] * 2, [reduce(1, pg_name="")])
    groups = _file(tmp_path, '{"1": [1, 0]}')
    inputs = astra.load(prefix, SYSTEM, network(("Ring", 3)), comm_group=groups)
    assert (0, 1) in {tuple(sorted(group)) for group in inputs[0].groups}


def test_a_prefix_that_is_also_a_folder_loads(tmp_path):
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    prefix.mkdir()
    inputs = astra.load(prefix, SYSTEM, network(("Ring", 2)), truncate=True)
    cycles = astra.simulate(prefix, SYSTEM, network(("Ring", 2))).cycles
    assert predict(*inputs).makespan == pytest.approx(max(cycles) / 1e9)


def test_an_event_at_time_0_is_said_to_abort_the_simulator(tmp_path):
    prefix = write(tmp_path, [node(1, 4, num_ops=10, tensor_size=10)])
    with pytest.warns(UserWarning, match="an event at time 0, on which ASTRA-sim aborts"):
        assert astra.simulate(prefix, SYSTEM, network(("Ring", 1))).cycles == [0]


def test_files_of_a_custom_collective_beyond_its_members_are_not_read(tmp_path):
    ring = custom_ring(tmp_path, 2, 100)
    (tmp_path / "mine.2.et").write_bytes(b"")
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    with pytest.warns(UserWarning, match=r"mine': its messages have .* \(4096 B\) has no effect"):
        astra.simulate(prefix, system, network(("Ring", 2)))


def test_single_nodes_may_run_a_custom_collective_of_their_own(tmp_path):
    custom_ring(tmp_path, 2, 10_000)
    (tmp_path / "nodes.yml").write_text(f"2: {tmp_path / 'mine'}\n")
    system = {**SYSTEM, "per-node-custom-implementation": str(tmp_path / "nodes.yml")}
    prefix = write(tmp_path, *[[reduce(1), reduce(2, (1,))]] * 2)
    config = astra.read_config(system, network(("Ring", 2)))
    lowered = astra.lower(astra.read_flat(prefix, 2), config)
    run = event_run.run(lowered, lowered.costs())
    assert (run.finish - run.issue)[1::2].tolist() == [
        int(500 + 10_000 / (50 * 2**30 / 1e9)) + 1
    ] * 2


def differing_in_a_group(tmp_path, own):
    """Three collectives of one named group, of which node `own` has an implementation of its own; one of another."""
    custom_ring(tmp_path, 2, 10_000)
    (tmp_path / "nodes.yml").write_text(f"{own}: {tmp_path / 'mine'}\n")
    system = {**SYSTEM, "per-node-custom-implementation": str(tmp_path / "nodes.yml")}
    groups = _file(tmp_path, '{"1": [0, 1], "2": [1, 0]}')
    nodes = [
        reduce(1, pg_name="1"),
        reduce(2, (1,), pg_name="1"),
        reduce(3, (2,), pg_name="1"),
        reduce(4, (3,), pg_name="2"),
    ]
    flat = astra.read_flat(write(tmp_path, nodes, nodes), 2, groups)
    return flat, astra.lower(flat, astra.read_config(system, network(("Ring", 2))))


@pytest.mark.parametrize("own", [1, 2])
def test_in_a_named_group_the_first_issued_decides_for_all_of_its_type(tmp_path, own):
    flat, lowered = differing_in_a_group(tmp_path, own)
    cost = lowered.costs()
    run = event_run.run(lowered, cost, record=True)
    plain = astra.lower(flat, astra.read_config(SYSTEM, network(("Ring", 2))))
    native = event_run.run(plain, plain.costs())
    builtin = (native.finish - native.issue)[:4].tolist()
    custom = int(500 + 10_000 / (50 * 2**30 / 1e9)) + 1
    took = [custom] * 3 if own == 1 else builtin[:3]
    assert builtin[0] != custom
    for rank in (0, 1):
        assert (run.finish - run.issue)[4 * rank : 4 * rank + 4].tolist() == [*took, builtin[3]]
    assert astra.along(lowered, run, cost).rank_end.tolist() == run.rank_end.tolist()


def test_a_group_of_one_rank_cannot_run_both_implementations(tmp_path):
    write(tmp_path, [node(999, 4)], name="mine")
    (tmp_path / "nodes.yml").write_text(f"2: {tmp_path / 'mine'}\n")
    system = {**SYSTEM, "per-node-custom-implementation": str(tmp_path / "nodes.yml")}
    nodes = [reduce(1, pg_name="1"), reduce(2, (1,), pg_name="1")]
    groups = _file(tmp_path, '{"1": [0]}')
    flat = astra.read_flat(write(tmp_path, nodes, [reduce(1)]), 2, groups)
    with pytest.raises(SystemFileError, match=r"rank 0, node \d .* of one rank"):
        astra.lower(flat, astra.read_config(system, network(("Ring", 2))))


def test_a_group_file_that_is_none_is_an_error(tmp_path):
    prefix = write(tmp_path, [reduce(1)])
    with pytest.raises(InputError, match="other"):
        astra.read_flat(prefix, 1, _file(tmp_path, "[1, 2]"))


def test_dependencies_of_both_kinds_count_once(tmp_path):
    late = node(9, 4, (2, 2, 5), num_ops=10, tensor_size=10)
    late.ctrl_deps.extend([5, 2])
    first = node(5, 4, num_ops=10, tensor_size=10)
    second = node(2, 4, num_ops=10, tensor_size=10)
    flat = astra.read_flat(write(tmp_path, [late, first, second]), 1)
    assert flat.pred_ptr.tolist() == [0, 2, 2, 2]
    assert sorted(flat.pred.tolist()) == [1, 2]


def test_a_masked_dimension_comes_from_the_trace(tmp_path):
    prefix = write(tmp_path, *[[reduce(1, involved_dim=[False, True])]] * 4)
    assert astra.read_flat(prefix, 4).involved.tolist() == [2] * 4


def test_a_trace_of_another_size_than_the_network_is_refused(tmp_path):
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    config = astra.read_config(SYSTEM, network(("Ring", 2)))
    astra.lower(astra.read_flat(prefix, 2), config)
    with pytest.raises(SystemFileError, match="makes 2 ranks, the trace has 1"):
        astra.lower(astra.read_flat(prefix, 1), config)


def custom_ring(folder, ranks, size, name="mine"):
    """A ring all-gather of one message a rank, as a trace: send k needs receive k-1."""
    files = []
    for r in range(ranks):
        nodes = []
        for k in range(ranks - 1):
            before = (10 * k - 5,) if k else ()
            to, source = (r + 1) % ranks, (r - 1) % ranks
            nodes.append(node(10 * k, 5, before, comm_dst=to, comm_size=size, comm_tag=k))
            nodes.append(node(10 * k + 5, 6, before, comm_src=source, comm_size=size, comm_tag=k))
        nodes.append(node(999, 4, (10 * (ranks - 2) + 5,)))
        files.append(nodes)
    return write(folder, *files, name=name)


@pytest.mark.parametrize("backend", ["unaware", "aware"])
def test_a_custom_collective_of_our_own_takes_its_messages_time(tmp_path, backend):
    ring = custom_ring(tmp_path, 4, 10_000)
    prefix = write(tmp_path, *[[reduce(1), reduce(2, (1,))]] * 4)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    config = astra.read_config(system, network(("Ring", 4)), backend=backend)
    lowered = astra.lower(astra.read_flat(prefix, 4), config)
    run = event_run.run(lowered, lowered.costs(), record=True)
    once = 3 * int(500 + 10_000 / (50 * 2**30 / 1e9)) + 1
    assert run.finish.tolist() == [once, 2 * once] * 4
    events = run.events
    cost = lowered.costs()
    start, finish = reference.longest(cost, events.pred_ptr, events.pred, events.cost)
    assert (finish[events.node_last] == run.finish).all()
    assert (start[events.node_first] == run.issue).all()


def test_a_custom_collective_in_a_group_maps_places_to_members(tmp_path):
    ring = custom_ring(tmp_path, 2, 10_000)
    other = node(1, 4, num_ops=10, tensor_size=10)
    nodes = [[reduce(1, pg_name="1") if r in (1, 3) else other] for r in range(4)]
    prefix = write(tmp_path, *nodes)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    config = astra.read_config(system, network(("Ring", 4)))
    flat = astra.read_flat(prefix, 4, _file(tmp_path, '{"1": [1, 3]}'))
    lowered = astra.lower(flat, config)
    run = event_run.run(lowered, lowered.costs())
    wire = int(2 * 500 + 10_000 / (50 * 2**30 / 1e9))
    assert run.finish[[1, 3]].tolist() == [wire + 1, wire + 1]


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node(1, 7, comm_type=0, comm_size=8)], "has type 7"),
        ([node(1, 5, comm_dst=9, comm_size=8, comm_tag=0)], "names peer 9"),
        ([node(1, 5, comm_dst=1, comm_size=0, comm_tag=0)], "comm_size 0"),
        ([node(1, 4), node(2, 4, (8,))], "depends on node 8"),
        ([node(1, 4), node(1, 4)], "needs nodes, each with an id of its own"),
    ],
)
def test_what_a_custom_collective_cannot_hold_is_named(tmp_path, nodes, why):
    bad = write(tmp_path, nodes, nodes, name="bad")
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(bad)]}
    config = astra.read_config(system, network(("Ring", 2)))
    with pytest.raises(TraceError, match=why):
        astra.lower(astra.read_flat(prefix, 2), config)


def test_a_custom_collective_needs_a_file_for_each_member(tmp_path):
    system = {
        **SYSTEM,
        "all-reduce-implementation-custom": [str(custom_ring(tmp_path, 2, 100))],
        "all-gather-implementation-custom": [str(custom_ring(tmp_path, 4, 100, "other"))],
    }
    prefix = write(tmp_path, *[[reduce(1)]] * 4)
    config = astra.read_config(system, network(("Ring", 4)))
    with pytest.raises(TraceError, match=r"rank 0, node 1 .* on 4 members, but .*mine\.2\.et is"):
        astra.lower(astra.read_flat(prefix, 4), config)


def test_a_custom_collective_sends_within_its_group(tmp_path):
    ring = custom_ring(tmp_path, 4, 100)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    nodes = [reduce(1, pg_name="1")]
    other = [node(1, 4, num_ops=10, tensor_size=10)]
    prefix = write(tmp_path, nodes, nodes, other, other)
    flat = astra.read_flat(prefix, 4, _file(tmp_path, '{"1": [0, 1]}'))
    config = astra.read_config(system, network(("Ring", 4)))
    with pytest.raises(TraceError, match=r"rank 0, node 1 .*mine\.0\.et: node 5 names peer 3"):
        astra.lower(flat, config)


def test_a_custom_collective_whose_messages_do_not_match_is_named(tmp_path):
    nodes = [
        [node(0, kind, comm_dst=1 - r, comm_src=1 - r, comm_size=8, comm_tag=0)]
        for r, kind in enumerate((6, 6))
    ]
    ring = write(tmp_path, *nodes, name="mine")
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    config = astra.read_config(system, network(("Ring", 2)))
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    lowered = astra.lower(astra.read_flat(prefix, 2), config)
    text = astra.diagnose(lowered, event_run.run(lowered, lowered.costs()))
    assert "waits for a message from rank 1 that is never sent although all 2 members" in text
    assert "do not match in peer, tag and size" in text
    assert "halvingDoubling" not in text


def test_a_custom_collective_without_files_is_named(tmp_path):
    system = {**SYSTEM, "all-reduce-implementation-custom": ["nowhere"]}
    config = astra.read_config(system, network(("Ring", 2)))
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    with pytest.raises(SystemFileError, match="'nowhere' has no file"):
        astra.lower(astra.read_flat(prefix, 2), config)


def test_a_custom_collective_of_several_chunks_is_refused(tmp_path):
    ring = custom_ring(tmp_path, 2, 100)
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(ring)]}
    config = astra.read_config(system | {"preferred-dataset-splits": 4}, network(("Ring", 2)))
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    with pytest.raises(SystemFileError, match=r"preferred-dataset-splits 4 makes 4 chunks.*to 1"):
        astra.lower(astra.read_flat(prefix, 2), config)


def test_a_custom_prefix_may_stand_relative_to_the_system_file(tmp_path, monkeypatch):
    (tmp_path / "config").mkdir()
    (tmp_path / "elsewhere").mkdir()
    custom_ring(tmp_path / "config", 2, 100)
    path = tmp_path / "config" / "system.json"
    path.write_text(json.dumps({**SYSTEM, "all-reduce-implementation-custom": ["mine"]}))
    monkeypatch.chdir(tmp_path / "elsewhere")
    config = astra.read_config(path, network(("Ring", 2)))
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    lowered = astra.lower(astra.read_flat(prefix, 2), config)
    assert np.isfinite(event_run.run(lowered, lowered.costs()).rank_end).all()


@pytest.fixture
def flags(tmp_path):
    """Arguments of `perfmodel astra-sim` for a small run."""
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    system = {**SYSTEM, "endpoint-delay": 10}
    for name, data in (("system", system), ("network", network(("Ring", 2)))):
        (tmp_path / name).write_text(json.dumps(data))
    return [
        "astra-sim",
        f"--workload-configuration={prefix}",
        f"--system-configuration={tmp_path / 'system'}",
        f"--network-configuration={tmp_path / 'network'}",
    ]


@pytest.mark.parametrize(
    "flag",
    [
        "--injection-scale=1.0",
        *(f"--rendezvous-protocol={text}" for text in ("false", "f", "0")),
    ],
)
def test_flags_at_their_defaults_are_taken(flags, capsys, flag):
    assert status_of([*flags, "--quiet", flag]) == 0
    assert capsys.readouterr().out.startswith("sys[0] finished, ")


def test_flags_without_effect_are_named_in_one_line(flags, capsys):
    given = ["--compute-scale=2", "--comm-scale=0.5", "--colour=red"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert status_of([*flags, "--quiet", *given]) == 0
    output = capsys.readouterr()
    said = output.err + "".join(str(found.message) for found in caught)
    assert output.out.startswith("sys[0] finished, ")
    assert "without effect in ASTRA-sim: --compute-scale, --comm-scale, --colour=red" in said


def test_a_flag_that_is_no_boolean_is_refused(flags, capsys):
    assert status_of([*flags, "--rendezvous-protocol=maybe"]) == 2
    assert "expected true or false" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--injection-scale=2", "--rendezvous-protocol"])
def test_flags_reach_the_simulation(flags, capsys, flag):
    assert status_of([*flags, "--quiet"]) == 0
    plain = capsys.readouterr().out
    assert status_of([*flags, "--quiet", flag]) == 0
    assert capsys.readouterr().out != plain


def test_ignored_keys_are_named_once_with_a_timeline_too(flags, capsys, tmp_path):
    (tmp_path / "system").write_text(json.dumps({**SYSTEM, "boost-mode": 0}))
    flags = [*flags, "--quiet"]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert status_of([*flags, f"--timeline={tmp_path / 'run.json'}"]) == 0
    said = capsys.readouterr().err + "".join(str(found.message) for found in caught)
    assert said.count("boost-mode") == 1


def status_of(arguments):
    try:
        cli.main(arguments)
    except SystemExit as stop:
        return stop.code or 0
    return 0
