"""The walk over libstdc++'s tables against a table written out element by element, and against the library."""

import random
import shutil
import subprocess
from itertools import pairwise

import numpy as np
import pytest

from perfmodel.astra.hash_order import BUCKETS, buckets_for, hash_of_text, walk
from tests.astra.hash_table import HashTable

IDS = [(4, 17, 30, 5), (0, 13, 26, 39), tuple(range(20)), (2**63, 1, 2**64 - 1)]


@pytest.mark.parametrize("ids", IDS)
def test_by_hand_known_orders(ids):
    table = HashTable()
    for number in ids:
        table.insert(number)
    assert [ids[k] for k in walk(ids).tolist()] == table.walk()


def test_new_buckets_come_first_and_new_elements_first_in_theirs():
    assert [(4, 5, 17)[k] for k in walk([4, 5, 17])] == [5, 17, 4]
    assert walk([]).tolist() == []


def test_random_tables_are_walked_as_the_written_out_one_with_what_was_in_it_before():
    rng = random.Random(1)
    for _ in range(300):
        before = rng.choice([0, 1, 13, 14, 30, 200])
        count = rng.choice([1, 2, 5, 13, 14, 29, 30, 64, 300])
        ids = rng.sample(range(rng.choice([count, 3 * count, 10**6])), count)
        table = HashTable()
        for number in range(before):
            table.insert(number * 1_000_003)
        for number in table.walk():
            table.erase(number)
        for number in ids:
            table.insert(number)
        assert [ids[k] for k in walk(ids, buckets_for(before)).tolist()] == table.walk()
        assert buckets_for(count, buckets_for(before)) == table.bucket_count


SOURCE = """
#include <functional>
#include <iostream>
#include <string>
#include <unordered_set>
int main() {
  size_t count;
  while (std::cin >> count) {
    std::unordered_set<unsigned long> table;
    for (size_t k = 0; k < count; k++) { unsigned long x; std::cin >> x; table.insert(x); }
    std::cout << table.bucket_count();
    for (auto x : table) std::cout << ' ' << x;
    std::cout << '\\n';
  }
  std::cout << std::hash<std::string>()("a tensor of 21 bytes!") << '\\n';
}
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="needs g++ with libstdc++")
def test_the_library_itself_walks_so(tmp_path):
    (tmp_path / "walk.cpp").write_text(SOURCE)
    subprocess.run(
        ["g++", "-O0", "-o", str(tmp_path / "walk"), str(tmp_path / "walk.cpp")], check=True
    )
    rng = np.random.default_rng(2)
    tables = [rng.permutation(4 * n)[:n].tolist() for n in (1, 7, 13, 14, 60, 1000)]
    text = "".join(f"{len(ids)} {' '.join(map(str, ids))}\n" for ids in tables)
    done = subprocess.run(
        [str(tmp_path / "walk")], input=text, capture_output=True, text=True, check=True
    )
    *lines, hashed = done.stdout.splitlines()
    for ids, line in zip(tables, lines, strict=True):
        count, *walked = map(int, line.split())
        assert count == buckets_for(len(ids))
        assert walked == [ids[k] for k in walk(ids).tolist()]
    assert int(hashed) == hash_of_text("a tensor of 21 bytes!")


def test_known_hashes_of_texts():
    assert hash_of_text("abc") == 3663726644998027833
    assert hash_of_text("12345678") == 10113836418918046885


def test_bucket_counts_are_primes_that_double():
    for size, after in pairwise(BUCKETS[:13]):
        assert after >= 2 * size
        assert all(after % k for k in range(2, int(after**0.5) + 1))
