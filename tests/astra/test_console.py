"""What `perfmodel astra-sim` prints and writes, against what the simulator prints and writes, line by line."""

import gzip
import json
import re

import pytest

from perfmodel import astra
from perfmodel.astra import console
from perfmodel.cli.main import cli
from tests import astra_reference as reference
from tests.astra.test_traces import node, reduce, write
from tests.astra_workload import SYSTEM, network

OUTPUT = reference.SHARED / "astra-sim" / "output"
RUNS = {
    "all_reduce_4": ("unaware", "all_reduce_4_1M", "ring_s4_a1", "ring4", None),
    "llm_dp2tp2pp2": ("unaware", "llm_dp2tp2pp2", "ring_s4_a1", "ring8", None),
    "fuzz0_aware": ("aware", "fuzz0", "ring_s4_a1", "switch8", None),
    "fuzz7": ("unaware", "fuzz7", "ring_d2_s4_a1", "sw4_ring2", None),
    "mem1": ("unaware", "mem1", "ring_s4_a1", "ring8", "pool"),
    "stg_llama_track": ("unaware", "stg_llama_fsdp8", None, "ring8", None),
}
TIME = re.compile(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}\] ")


def untimed(text):
    """Lines without the time, which each of them begins with."""
    lines = text.splitlines()
    assert all(TIME.match(line) for line in lines)
    return [TIME.sub("", line, count=1) for line in lines]


@pytest.mark.filterwarnings("ignore:without effect")
@pytest.mark.parametrize("name", RUNS)
def test_lines_and_files_are_the_simulators(name, tmp_path, monkeypatch, capsys):
    if not OUTPUT.is_dir():
        pytest.skip(f"there is no {OUTPUT}")
    backend, trace, system, net, memory = RUNS[name]
    place, groups = reference.folder(), reference.trace(trace) / "comm_groups.json"
    system = place / "system" / f"{system}.json" if system else OUTPUT / "track_local_mem.json"
    flags = [
        f"--workload-configuration={reference.trace(trace) / 't'}",
        f"--system-configuration={system}",
        f"--network-configuration={place / 'network' / net}.yml",
        f"--backend={backend}",
    ]
    if memory:
        flags.append(f"--remote-memory-configuration={place / 'remote_memory' / memory}.json")
    if groups.is_file():
        flags.append(f"--comm-group-configuration={groups}")
    monkeypatch.chdir(tmp_path)
    cli.main(["astra-sim", *flags], standalone_mode=False)
    printed = untimed(capsys.readouterr().out)
    assert printed == untimed((OUTPUT / name / "stdout.txt").read_text())
    logged = untimed((tmp_path / "log" / "log.log").read_text())
    assert logged == untimed(gzip.decompress((OUTPUT / name / "log.log.gz").read_bytes()).decode())
    errors = [line for line in printed if "] [critical]" in line]
    assert untimed((tmp_path / "log" / "err.log").read_text()) == errors
    use = OUTPUT / name / "local_mem_trace.0.json.gz"
    if use.is_file():
        assert (tmp_path / "local_mem_trace.0.json").read_bytes() == gzip.decompress(
            use.read_bytes()
        )
        assert len(list(tmp_path.glob("local_mem_trace.*.json"))) == 8


def lines_of(tmp_path, *ranks, dimensions=(("Ring", 2),), backend="unaware", groups=None, **system):
    """Lines of a small run."""
    prefix = write(tmp_path, *ranks)
    made = SYSTEM | {key.replace("_", "-"): value for key, value in system.items()}
    result = astra.simulate(prefix, made, network(*dimensions), None, groups, backend)
    return list(console.lines(result.lowered, result.run, result.exposed))


def compute(number, deps=(), microseconds=1, **more):
    work = {"num_ops": microseconds * 10**6, "tensor_size": 10**4}
    return node(number, 4, deps, **(work | more))


def test_statistics_by_hand(tmp_path):
    """2 us of compute at 1 TFLOP/s, then 1 us that overlaps with 3 us of an all-reduce."""
    ranks = [[compute(1, microseconds=2), compute(2, (1,)), reduce(3, (1,))]] * 2
    texts = [line.text for line in lines_of(tmp_path, *ranks) if "sys[1]" in line.text]
    wire = 10 + 2 * (int(500 + 2048 / (50 * 2**30 / 1e9)) + 10) + 3 * int(2048 / 50)
    assert texts[:5] == [
        f"sys[1] finished, {2000 + wire} cycles, exposed communication {wire - 1000} cycles.",
        "sys[1]. Post statistics processing start.",
        "sys[1]. Post statistics processing end.",
        f"sys[1], Wall time: {2000 + wire}",
        "sys[1], Comm time: " + str(wire),
    ]
    assert "sys[1], GPU time: 3000" in texts
    assert "sys[1], Total compute-communication overlap: 1000" in texts
    assert "sys[1], Compute bound percentage: 99.967%" in texts  # of 3001 ns
    assert f"sys[1], Average operation intensity: {(2000 * 200 + 1000 * 100) / 3001:.3f}" in texts


def test_idle_time_wraps_the_overlap_as_there(tmp_path):
    """Rank 1 waits 5 us for a message while nothing runs."""
    one = [compute(1, microseconds=5), node(2, 5, (1,), comm_dst=1, comm_size=8, comm_tag=0)]
    two = [
        compute(1),
        node(2, 6, (1,), comm_src=0, comm_size=8, comm_tag=0),
        compute(3, (2,)),
    ]
    texts = [line.text for line in lines_of(tmp_path, one, two)]
    assert not any("sys[1], Total" in text for text in texts)  # 2000 + 4500 - 6500
    gap = [compute(1), compute(2, (1,), is_cpu_op=True)]
    assert console.GIVES_UP in [line.text for line in lines_of(tmp_path, gap, gap)]


def test_ranks_stand_in_the_order_in_which_they_end(tmp_path):
    ranks = [[compute(1, microseconds=k)] for k in (3, 1, 2, 1)]
    texts = [line.text for line in lines_of(tmp_path, *ranks, dimensions=(("Ring", 4),))]
    ends = [int(text[4]) for text in texts if "finished" in text]
    assert ends == [1, 3, 2, 0]


def test_rings_of_a_flat_algorithm_and_of_dimensions(tmp_path):
    system = {
        "all_reduce_implementation": ["ring", "doubleBinaryTree"],
        "all_gather_implementation": ["oneRing"],
    }
    ranks = [[compute(1)]] * 8
    found = lines_of(tmp_path, *ranks, dimensions=(("Ring", 4), ("Ring", 2)), **system)
    rings = [line.text for line in found if line.logger == console.RING]
    assert [re.findall(r"ring: (\d+) index.*offset: (\d+)", text)[0] for text in rings] == [
        ("4", "1"),  # all-reduce; a tree says nothing
        ("4", "1"),  # reduce-scatter, given in one dimension
        ("8", "1"),  # all-gather over all
        ("4", "1"),  # all-to-all
    ]


def test_with_trace_enabled_issue_and_end_of_every_node_are_logged(tmp_path):
    ranks = [[compute(1), reduce(2, (1,))], [reduce(2)]]
    found = [line.text for line in lines_of(tmp_path, *ranks, trace_enabled=1)]
    events = [text.split(",")[0] for text in found if "node->id=" in text]
    assert sorted(events) == ["callback"] * 3 + ["issue"] * 3
    first = next(text for text in found if text.startswith("issue,sys->id=1"))
    assert re.fullmatch("issue,sys->id=1, tick=0, node->id=2, node->name=.*, node->type=7", first)


def test_a_full_log_is_moved_aside(tmp_path, monkeypatch):
    monkeypatch.setattr(console, "LARGEST_LOG", 100)
    monkeypatch.setattr(console, "MOST_LOGS", 2)
    for _ in range(5):
        console.write_log(tmp_path / "log" / "log.log", ["x" * 39] * 2)
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "log").iterdir()}
    assert sizes == {"log.log": 80, "log.1.log": 80, "log.2.log": 80}


def test_a_quiet_run_has_result_lines_only_and_no_files(tmp_path, monkeypatch, capsys):
    prefix = write(tmp_path, *[[reduce(1)]] * 2)
    for name, data in (("system", SYSTEM), ("network", network(("Ring", 2)))):
        (tmp_path / name).write_text(json.dumps(data))
    monkeypatch.chdir(tmp_path)
    flags = [
        f"--workload-configuration={prefix}",
        "--system-configuration=system",
        "--network-configuration=network",
    ]
    cli.main(["astra-sim", *flags, "--quiet"], standalone_mode=False)
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in lines] == ["sys[0] finished", "sys[1] finished"]
    assert not (tmp_path / "log").exists()
    cli.main(["astra-sim", *flags, "--logging-folder=mine"], standalone_mode=False)
    assert capsys.readouterr().out.count("finished") == 2
    assert sorted(path.name for path in (tmp_path / "mine").iterdir()) == ["err.log", "log.log"]


def test_numbers_are_written_with_as_few_digits_as_tell_them_apart():
    values = [312e12, 95.82151010730539, 2.5e-5, 1.0, 1e16, 0.1]
    assert [console._number(value) for value in values] == [
        *("312000000000000", "95.82151010730539", "2.5e-05", "1", "1e+16", "0.1")
    ]
