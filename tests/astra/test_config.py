"""ASTRA-sim's configuration files: every key taken, refused with a reason, or named as ignored."""

import json

import pytest

from perfmodel.astra.algorithm_phases import Algorithm
from perfmodel.astra.config import (
    read_config,
    read_memory,
    read_network,
    read_system,
    warn_of_ignored,
)
from perfmodel.errors import SystemFileError
from tests import astra_reference as reference

SYSTEM = {"preferred-dataset-splits": 4, "all-reduce-implementation": ["ring"]}
NETWORK = {"topology": ["Ring"], "npus_count": [4], "bandwidth": [50.0], "latency": [500.0]}


def test_all_reference_configurations_are_read():
    place = reference.folder()
    for path in (place / "system").iterdir():
        system = read_system(path)
        assert system.memory_bandwidth == 1600e9
        assert system.peak_flops == 312e12
    assert read_system(place / "system" / "ring_s4_a1_delay37.json").endpoint_delay == 37
    assert read_system(place / "system" / "ring_d2_s4_a1_base.json").baseline
    network = read_network(place / "network" / "ring2_fc4_sw2.yml")
    assert network.topology == ("Ring", "FullyConnected", "Switch")
    assert network.sizes == (2, 4, 2)
    assert network.ranks == 16
    assert network.bandwidth == (250 * 2.0**30, 200 * 2.0**30, 50 * 2.0**30)
    assert network.latency == (20e-9, 50e-9, 500e-9)


def test_defaults_are_the_simulators():
    system = read_system({"preferred-dataset-splits": 1})
    assert (system.endpoint_delay, system.active_chunks) == (10, 1)
    assert not system.roofline
    assert not system.replay


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ring", Algorithm("ring")),
        ("oneRing", Algorithm("ring", -1, True)),
        ("direct", Algorithm("direct")),
        ("direct12", Algorithm("direct", 12)),
        ("oneDirect3", Algorithm("direct", 3, True)),
        ("halvingDoubling", Algorithm("halvingDoubling")),
        ("oneHalvingDoubling", Algorithm("halvingDoubling", -1, True)),
        ("doubleBinaryTree", Algorithm("doubleBinaryTree")),
    ],
)
def test_algorithms_are_read_by_name(text, expected):
    system = read_system({**SYSTEM, "all-to-all-implementation": [text]})
    assert system.algorithms["all-to-all"] == (expected,)


@pytest.mark.parametrize(
    "text",
    [
        *("Ring", "oneDoubleBinaryTree", "direct0", "direct-2", "tree", "", "directX", "one"),
        *("onering", "onedirect3", "direct٣"),
    ],
)
def test_unknown_algorithms_are_named(text):
    with pytest.raises(SystemFileError, match=r"all-reduce-implementation: .*expected ring, oneR"):
        read_system({**SYSTEM, "all-reduce-implementation": [text]})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("preferred-dataset-splits", 0, "expected a number, at least 1"),
        ("preferred-dataset-splits", 0.5, "expected a number, at least 1"),
        ("preferred-dataset-splits", None, "is None"),
        ("endpoint-delay", -1, "expected a number, at least 0"),
        ("endpoint-delay", "10", "is '10'; expected a number"),
        ("endpoint-delay", 10**30, "at most 2.14748e+09"),
        ("endpoint-delay", 10**400, "expected a number"),
        ("active-chunks-per-dimension", 0, "at least 1"),
        ("scheduling-policy", "SJF", "expected one of"),
        ("collective-optimization", "best", "expected one of"),
        ("peak-perf", float("nan"), "expected a number"),
        ("local-mem-bw", -3, "at least 0"),
        ("local-mem-bw", True, "expected a number"),
        ("model-shared-bus", "on", "expected a number"),
        ("local-mem-trace-filename", 3, "expected a text"),
        ("all-reduce-implementation", "ring", "expected a list of texts"),
        ("all-reduce-implementation", [], "expected a list of texts"),
        ("all-reduce-implementation-custom", ["a", "b"], "expected one prefix"),
        ("per-node-custom-implementation", "x.yml", "'x.yml' is no file"),
    ],
)
def test_a_wrong_value_in_the_system_file_names_file_key_and_remedy(tmp_path, key, value, why):
    path = tmp_path / "system.json"
    path.write_text(json.dumps({**SYSTEM, key: value}))
    with pytest.raises(SystemFileError) as caught:
        read_system(path)
    assert str(path) in str(caught.value)
    assert key in str(caught.value)
    assert why in str(caught.value)


def test_a_missing_number_of_splits_is_refused():
    with pytest.raises(SystemFileError, match="preferred-dataset-splits is None"):
        read_system({"all-reduce-implementation": ["ring"]})


@pytest.mark.parametrize(
    ("key", "value", "why"),
    [
        ("topology", ["Torus"], "expected one of"),
        ("topology", "Ring", "expected a list"),
        ("npus_count", [0], "positive whole number"),
        ("npus_count", [2.5], "positive whole number"),
        ("npus_count", [True], "positive whole number"),
        ("bandwidth", [0.0], "expected a number, above 0"),
        ("latency", [-1.0], "at least 0"),
        ("latency", [1e17], r"at most 9\.0072e\+15"),
        ("bandwidth", ["50GB"], "expected a number, above 0"),
        ("bandwidth", ["1_000"], "expected a number, above 0"),
        ("npus_count", ["4.0"], "positive whole number"),
        ("latency", [1.0, 2.0], "lists of different lengths"),
        ("bandwidth", None, "expected a list"),
    ],
)
def test_a_wrong_value_in_the_network_file_is_named(key, value, why):
    with pytest.raises(SystemFileError, match=why):
        read_network({**NETWORK, key: value})


def test_numbers_that_yaml_takes_for_texts_are_numbers(tmp_path):
    path = tmp_path / "network.yml"
    path.write_text("topology: [Ring]\nnpus_count: ['4']\nbandwidth: [1e3]\nlatency: [\"500\"]\n")
    network = read_network(path)
    assert (network.sizes, network.bandwidth) == ((4,), (1000 * 2.0**30,))
    assert network.latency == (500e-9,)


def test_a_key_given_twice_is_refused(tmp_path):
    path = tmp_path / "file"
    path.write_text('{"L": 1, "preferred-dataset-splits": 1, "L": 1}')
    for read in (read_system, read_memory):
        with pytest.raises(SystemFileError, match=r"file: the key 'L' is given twice"):
            read(path)
    path.write_text("latency: [5]\nbandwidth: [50]\nlatency: [6]\n")
    with pytest.raises(SystemFileError, match=r"file: the key 'latency' is given twice"):
        read_network(path)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ({"memory-type": "DISK"}, "expected one of"),
        ({"memory-type": "MEMORY_POOL"}, "below 1 B/ns"),
        ({"memory-type": "MEMORY_POOL", "remote-mem-bw": 0.7}, "below 1 B/ns"),
        ({"memory-type": "PER_NODE_MEMORY_EXPANSION", "remote-mem-bw": 1}, "num-nodes is None"),
    ],
)
def test_a_wrong_remote_memory_is_named(data, why):
    with pytest.raises(SystemFileError, match=why):
        read_memory(data)


def test_remote_memory_keeps_whole_nanoseconds_and_bytes():
    memory = read_memory(
        {"memory-type": "MEMORY_POOL", "remote-mem-latency": 10.9, "remote-mem-bw": 3.9}
    )
    assert (memory.latency, memory.bandwidth) == (10e-9, 3e9)


def test_no_memory_file_is_no_remote_memory():
    assert read_memory(None).type == "NO_MEMORY_EXPANSION"


@pytest.mark.parametrize(
    ("system", "network", "keys", "why"),
    [
        (SYSTEM, NETWORK, {"backend": "slow"}, "expected 'unaware' or 'aware'"),
        (SYSTEM, NETWORK, {"queues": 0}, "num-queues-per-dim is 0"),
        (
            SYSTEM,
            {key: value * 2 for key, value in NETWORK.items()},
            {"backend": "aware"},
            "2 dimensions; the congestion-aware backend takes one",
        ),
        (
            {**SYSTEM, "all-reduce-implementation": ["ring", "ring"]},
            NETWORK,
            {},
            "has 2 entries, .* 1 dimensions",
        ),
    ],
)
def test_files_that_do_not_fit_together_are_refused(system, network, keys, why):
    with pytest.raises(SystemFileError, match=why):
        read_config(system, network, **keys)


def test_memory_nodes_have_to_cover_all_ranks():
    memory = {
        "memory-type": "PER_NODE_MEMORY_EXPANSION",
        "remote-mem-bw": 1,
        "num-nodes": 1,
        "num-npus-per-node": 2,
    }
    with pytest.raises(SystemFileError, match="cover 2 ranks, the network has 4"):
        read_config(SYSTEM, NETWORK, memory)


@pytest.mark.parametrize("value", [False, None, "0", [], {}])
def test_a_switch_is_on_unless_it_is_the_number_0_and_that_is_said(value):
    config = read_config({**SYSTEM, "roofline-enabled": value, "replay-only": 0.0}, NETWORK)
    assert (config.system.roofline, config.system.replay) == (True, False)
    with pytest.warns(UserWarning, match="roofline-enabled is .*, which switches it on"):
        warn_of_ignored(config)


def test_whole_numbers_are_cut_and_the_endpoint_delay_is_scaled():
    system = read_system(
        {**SYSTEM, "endpoint-delay": 5.9, "active-chunks-per-dimension": True}, injection_scale=1.7
    )
    assert (system.endpoint_delay, system.active_chunks) == (8, 1)  # trunc(5 * 1.7)
    assert system.notes == ("<system configuration>: endpoint-delay is 5.9, which is cut to 5",)
    assert (
        read_system(SYSTEM, injection_scale=3.0).endpoint_delay == 10
    )  # the default is not scaled


def test_the_bus_is_kept_in_single_precision_and_whole_nanoseconds():
    figures = {"model-shared-bus": 1, "L": 5.9, "o": 3, "g": 2, "G": 0.01}
    bus = read_system({**SYSTEM, **figures}).bus
    assert (bus.latency, bus.overhead, bus.gap, bus.reduction_delay) == (5, 3, 2, 1)
    assert bus.gap_per_byte == 0.009999999776482582
    off = read_system({**SYSTEM, **figures, "model-shared-bus": 2})
    assert off.bus is None
    assert len(off.ignored) == 4


def test_implementations_by_node_come_from_a_yaml_file(tmp_path):
    (tmp_path / "nodes.yml").write_text('1: alg/a\n"7": alg/b\n')
    path = tmp_path / "system.json"
    path.write_text(json.dumps({**SYSTEM, "per-node-custom-implementation": "nodes.yml"}))
    assert read_system(path).per_node == {1: "alg/a", 7: "alg/b"}
    (tmp_path / "nodes.yml").write_text("x: alg/a\n")
    with pytest.raises(SystemFileError, match=r"nodes\.yml: 'x': 'alg/a'; expected a node id"):
        read_system(path)


def test_a_byte_order_mark_is_passed_over(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(SYSTEM).encode())
    assert read_system(path).splits == 4
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(NETWORK).encode())
    assert read_network(path).ranks == 4


def test_remote_memory_without_a_type_is_none():
    assert read_memory({"remote-mem-latency": 100}).type == "NO_MEMORY_EXPANSION"


def test_keys_without_effect_are_named_once():
    system = {**SYSTEM, "boost-mode": 0, "prefered-splits": 3, "L": 0}
    config = read_config(system, {**NETWORK, "colour": 1})
    assert [text.split(": ")[1] for text in config.ignored] == [
        "L",
        "boost-mode",
        "prefered-splits",
        "colour",
    ]
    with pytest.warns(UserWarning, match="without effect .*boost-mode"):
        warn_of_ignored(config)


@pytest.mark.parametrize("text", ["", "[1, 2]", "{", "\x00", "[" * 100_000])
def test_a_file_that_is_no_configuration_is_one_clear_error(tmp_path, text):
    path = tmp_path / "file"
    path.write_text(text)
    for read in (read_system, read_network, read_memory):
        with pytest.raises(SystemFileError, match=r"file"):
            read(path)
    with pytest.raises(SystemFileError, match="cannot be read"):
        read_system(tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "line 1: an alias"),
        ('npus_count: !!int ""\n', "line 1: the tag"),
        ("npus_count: !!python/object:os.system x\n", "line 1: the tag"),
        ("topology: " + "[" * 30 + "]" * 30 + "\n", "more than 20 deep"),
        ("topology: [" + "Ring, " * 20000 + "Ring]\n", "at most 65536"),
        ("topology: [" + "Ring, " * 200000 + "Ring]\n", "more than 1048576 B"),
        ("npus_count: 2001-99-99\n", "not YAML"),
        ("? [a]\n: b\n", "not"),
    ],
    ids=["alias", "tag", "object", "deep", "long", "longer", "date", "key"],
)
def test_yaml_that_says_more_than_a_configuration_is_refused(tmp_path, text, message):
    import time

    from perfmodel.astra.config import read_network

    path = tmp_path / "network.yml"
    path.write_text(text)
    begin = time.perf_counter()
    with pytest.raises(SystemFileError, match=message):
        read_network(path)
    assert time.perf_counter() - begin < 5


def test_an_endless_device_is_no_configuration(tmp_path):
    from perfmodel.astra.config import read_system

    with pytest.raises(SystemFileError, match="is no file"):
        read_system("/dev/zero")
