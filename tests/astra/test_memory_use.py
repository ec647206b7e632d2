"""The use of local memory: a small run by hand, sorting as the library does it, and what is refused."""

import json
import random
import shutil
import subprocess

import pytest

from perfmodel import astra
from perfmodel.astra import memory_use
from perfmodel.errors import TraceError
from tests.astra.test_traces import node, write
from tests.astra_workload import SYSTEM, network


def compute(number, deps=(), *, reads=(), writes=()):
    """1 us of compute that reads and writes tensors."""
    made = node(number, 4, deps, num_ops=10**6, tensor_size=10**4)
    for name, pairs in (("inputs", reads), ("outputs", writes)):
        texts = [text for tensor, size in pairs for text in (tensor, str(size))]
        made.attr.add(name=name).string_list.values.extend(texts)
    return made


def written(tmp_path, *ranks):
    """Events by rank, and the peaks."""
    prefix = write(tmp_path, *ranks)
    result = astra.simulate(prefix, SYSTEM, network(("Ring", len(ranks))))
    files = [tmp_path / f"t.{rank}.et" for rank in range(len(ranks))]
    peaks = memory_use.write_memory_use(result.lowered, result.run, files, tmp_path)
    events = [
        json.loads((tmp_path / f"local_mem_trace.{rank}.json").read_text())["traceEvents"]
        for rank in range(len(ranks))
    ]
    return events, peaks


CHAIN = [
    compute(1, reads=[("w", 2048), ("none", 0)], writes=[("a", "4096.0")]),
    compute(2, (1,), reads=[("a", 4096), ("w", 2048)], writes=[("b", 1024)]),
    compute(3, (2,), reads=[("b", 1024)]),
]


def test_tensors_take_memory_from_their_write_to_their_last_read(tmp_path):
    events, peaks = written(tmp_path, CHAIN)
    use = [(e["ts"], e["args"]["Memory_MB"] * 2**20) for e in events[0] if e["ph"] == "C"]
    # w and a from 0, b from 1 us; a and w end with node 2, b with node 3
    assert use == [(0.0, 6144.0), (1.0, 7168.0), (2.0, 1024.0), (3.0, 0.0)]
    assert peaks == {0: "7.00 KB"}
    lives = {
        e["args"]["tensor_name"]: e["args"]["lifetime_ns"] for e in events[0] if e["ph"] == "X"
    }
    assert lives == {"w": 2000, "a": 2000, "b": 2000}


def test_every_read_and_write_is_a_pair_of_events(tmp_path):
    events, _ = written(tmp_path, CHAIN)
    spans = [(e["name"], e.get("cat"), e["ph"], e.get("ts")) for e in events[0]]
    assert ("a", "tensorRead", "B", 1.0) in spans
    assert ("a", "tensorRead", "E", 2.0) in spans
    assert ("w", "tensorWrite", "E", 0.01) in spans  # nobody wrote it: 0 to 10 ns
    numbers = {e["name"]: e["tid"] for e in events[0] if e.get("cat") == "tensorLifetime"}
    assert sorted(numbers.values()) == [0, 1, 2]


def test_each_rank_has_a_file_and_a_peak(tmp_path):
    events, peaks = written(tmp_path, CHAIN, [compute(1, writes=[("x", 100)])])
    assert peaks == {0: "7.00 KB", 1: "100.00 B"}
    assert {e["pid"] for e in events[1]} == {1, 1_000_001, 2_000_001, 3_000_001}


@pytest.mark.parametrize(
    ("nodes", "why"),
    [
        ([node(1, 4, num_ops=10**6, tensor_size=10**4)], "node 1 .*has no attribute inputs"),
        ([compute(1, reads=[("a", "big")])], "inputs is no list of tensors and sizes in turn"),
        (
            [compute(1, writes=[("a", 1)]), compute(2, (1,), writes=[("a", 1)])],
            "'a', which is there",
        ),
    ],
)
def test_what_the_simulator_stops_at_is_named(tmp_path, nodes, why):
    with pytest.raises(TraceError, match=why):
        written(tmp_path, nodes)


def before(a, b):
    return a[0] > b[0]


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 40, 200, 1000])
def test_sorting_sorts(count):
    rng = random.Random(count)
    items = [(rng.randrange(5 if count % 2 else 1000), k) for k in range(count)]
    found = memory_use._sorted(items, before)
    assert sorted(found) == sorted(items)
    assert [item[0] for item in found] == sorted((item[0] for item in items), reverse=True)


SOURCE = """
#include <algorithm>
#include <iostream>
#include <utility>
#include <vector>
int main() {
  size_t count;
  while (std::cin >> count) {
    std::vector<std::pair<int, int>> items(count);
    for (size_t k = 0; k < count; k++) { std::cin >> items[k].first; items[k].second = k; }
    std::sort(items.begin(), items.end(), [](auto& a, auto& b) { return a.first > b.first; });
    for (auto& item : items) std::cout << item.second << ' ';
    std::cout << '\\n';
  }
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ with libstdc++")
def test_equal_items_stand_as_the_library_leaves_them(tmp_path):
    (tmp_path / "sort.cpp").write_text(SOURCE)
    build = ["g++", "-std=c++17", "-O0", "-o", str(tmp_path / "sort"), str(tmp_path / "sort.cpp")]
    subprocess.run(build, check=True)
    rng = random.Random(4)
    lists = [
        [rng.randrange(rng.choice([1, 3, 20, 1000])) for _ in range(n)]
        for n in (1, 15, 16, 17, 33, 100, 392, 1000)
    ]
    text = "".join(f"{len(values)} {' '.join(map(str, values))}\n" for values in lists)
    done = subprocess.run(
        [str(tmp_path / "sort")], input=text, capture_output=True, text=True, check=True
    )
    for values, line in zip(lists, done.stdout.splitlines(), strict=True):
        items = [(value, k) for k, value in enumerate(values)]
        assert [k for _, k in memory_use._sorted(items, before)] == list(map(int, line.split()))


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0.00 B"),
        (1023, "1023.00 B"),
        (1536, "1.50 KB"),
        (2**30, "1.00 GB"),
        (2**50, "1024.00 TB"),
    ],
)
def test_sizes_have_the_simulators_units(size, text):
    assert memory_use._size(size) == text
