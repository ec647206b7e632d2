"""ASTRA mode against a build of the simulator, on fresh random runs: `python -m tests.astra_build UNAWARE AWARE`.

UNAWARE and AWARE are the two analytical binaries of astra-sim 518bd51. Every run has a random workload (compute,
collectives of the world and of groups, messages, remote memory, custom collectives) on a random system (algorithms,
dimensions, chunks, queues, rendezvous protocol, shared bus, scaled delays), by its seed. Compared are cycles and
exposed cycles of every rank, and what is printed, line by line. Runs that it does not finish are counted apart.

    python -m tests.astra_build UNAWARE AWARE --count 1000 --first 0
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import subprocess
import tempfile
import warnings
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmodel import astra
from perfmodel.astra import console
from perfmodel.errors import InputError
from perfmodel.trace import chakra

KINDS = {"all-reduce": 0, "all-gather": 2, "all-to-all": 6, "reduce-scatter": 7}
RESULT = re.compile(r"sys\[(\d+)\] finished, (\d+) cycles, exposed communication (\d+)")
TIME = re.compile(r"^\[[^]]*\] ")
UNSIGNED = ("comm_src", "comm_dst", "comm_tag")


def node(number: int, kind: int, deps: list[int], ctrl: list[int], **attributes: Any) -> Any:
    """A node with data and control dependencies."""
    made = chakra.Node(id=number, name=f"n{number}", type=kind)
    made.data_deps.extend(deps)
    made.ctrl_deps.extend(ctrl)
    made.duration_micros = attributes.pop("duration", 0)
    for name, value in attributes.items():
        found = made.attr.add(name=name)
        if isinstance(value, bool):
            found.bool_val = value
        elif isinstance(value, str):
            found.string_val = value
        elif isinstance(value, list):
            found.bool_list.values.extend(value)
        elif name in UNSIGNED:
            found.uint32_val = value
        else:
            found.uint64_val = value
    return made


def write(path: Path, nodes: list[Any]) -> None:
    chakra.write(path, chakra.GlobalMetadata(version="0.0.4"), nodes)


def split(rng: random.Random, deps: list[int]) -> tuple[list[int], list[int]]:
    """Dependencies as data and control ones."""
    cut = rng.randint(0, len(deps))
    return deps[:cut], deps[cut:]


@dataclass
class Workload:
    """Nodes by rank while they are made; communication of a rank is mostly in one order, so that runs end."""

    rng: random.Random
    ranks: int
    same_ids: bool
    serial: bool

    def __post_init__(self) -> None:
        self.nodes: list[list[Any]] = [[] for _ in range(self.ranks)]
        self.next_id = [self.rng.randint(0, 5) for _ in range(self.ranks)]
        self.last: list[int | None] = [None] * self.ranks
        self.step = 0

    def add(self, rank: int, kind: int, **attributes: Any) -> None:
        rng, before = self.rng, [n.id for n in self.nodes[rank]][-6:]
        deps = rng.sample(before, min(len(before), rng.choice([0, 1, 1, 1, 2])))
        number = self.step if self.same_ids else self.next_id[rank]
        self.next_id[rank] = max(self.next_id[rank], number) + rng.choice([1, 1, 2])
        if kind >= 5 and self.serial:
            last = self.last[rank]
            deps += [last] if last is not None and last not in deps else []
            self.last[rank] = number
        self.nodes[rank].append(node(number, kind, *split(rng, deps), **attributes))


def custom_files(rng: random.Random, folder: Path, ranks: int) -> None:
    """A custom collective: matching messages in rounds, many ready at once, any ids in any order."""
    rounds = rng.randint(1, 4)
    messages = [
        (k, *rng.sample(range(ranks), 2), rng.choice([100, 5000, 65536]), rng.randint(0, 3))
        for k in range(rounds)
        for _ in range(rng.randint(1, 3 * ranks))
    ]
    folder.mkdir()
    for rank in range(ranks):
        items = [(k, 5, b, size, tag) for k, a, b, size, tag in messages if a == rank]
        items += [(k, 6, a, size, tag) for k, a, b, size, tag in messages if b == rank]
        items += [(rng.randrange(rounds), 4, 0, 0, 0) for _ in range(rng.randint(1, 3))]
        items.sort(key=lambda item: item[0])
        ids = rng.sample(range(max(len(items), rng.choice([60, 400, 2**40]))), len(items))
        nodes = []
        for number, (k, kind, peer, size, tag) in zip(ids, items, strict=True):
            earlier = [i for i, item in zip(ids, items, strict=True) if item[0] < k]
            deps = rng.sample(earlier, min(len(earlier), rng.choice([0, 1, 1, 2, 3])))
            more: dict[str, Any] = {"comm_size": size, "comm_tag": tag}
            more |= {"comm_src": rank, "comm_dst": peer}
            if kind == 6:
                more |= {"comm_src": peer, "comm_dst": rank}
            more = {"is_cpu_op": False, "duration": rng.randint(0, 3)} if kind == 4 else more
            nodes.append(node(number, kind, *split(rng, deps), **more))
        if rng.random() < 0.5:
            rng.shuffle(nodes)
        write(folder / f"c.{rank}.et", nodes)


def algorithm(rng: random.Random, size: int, kind: str) -> str:
    """An algorithm that the simulator can run on so many members."""
    names = ["ring", "direct", "direct1", "direct2", "direct9"]
    if size & (size - 1) == 0:
        names += ["halvingDoubling"] * (kind != "all-to-all")
        names += ["doubleBinaryTree"] * (kind == "all-reduce")
    return rng.choice(names)


def system_of(rng: random.Random, sizes: list[int], *, custom: bool) -> dict[str, Any]:
    """A random system file."""
    system: dict[str, Any] = {
        "scheduling-policy": rng.choice(["LIFO", "FIFO", "EXPLICIT"]),
        "endpoint-delay": rng.choice([10, 37, 1.7, 500]),
        "active-chunks-per-dimension": rng.choice([1, 1, 2, 4]),
        "preferred-dataset-splits": 1 if custom else rng.choice([1, 2, 4, 8]),
        "collective-optimization": rng.choice(["baseline", "localBWAware"]),
        "local-mem-bw": rng.choice([50, 1600, 333.3]),
        "roofline-enabled": rng.choice([1, 1, 0, False]),
        "peak-perf": rng.choice([100, 312, 7.7]),
    }
    given = sizes if rng.random() < 0.8 else sizes[:1]
    for kind in KINDS:
        names = [algorithm(rng, size, kind) for size in given]
        system[f"{kind}-implementation"] = ["oneRing"] if rng.random() < 0.05 else names
    if rng.random() < 0.25:
        system |= {"model-shared-bus": 1, "L": rng.choice([0, 5, 20]), "o": rng.choice([0, 3, 10])}
        system |= {"g": rng.choice([0, 30, 100]), "G": rng.choice([0, 0.01, 0.5])}
    return system


def make(rng: random.Random, place: Path) -> tuple[int, bool, list[str], dict[str, Any]]:
    """Write a run's inputs. Returns its ranks, whether it is aware of congestion, its flags, the same as arguments."""
    aware = rng.random() < 0.5
    count = 1 if aware else rng.choice([1, 1, 2, 3])
    sizes = [rng.choice([3, 4, 4, 8] if count == 1 else [2, 2, 3, 4]) for _ in range(count)]
    ranks = 1
    for size in sizes:
        ranks *= size
    network = {
        "topology": [rng.choice(["Ring", "Switch", "FullyConnected"]) for _ in sizes],
        "npus_count": sizes,
        "bandwidth": [rng.choice([50.0, 100.0, 400.0, 7.3]) for _ in sizes],
        "latency": [rng.choice([500.0, 20.0, 1234.5]) for _ in sizes],
    }
    custom = rng.random() < 0.35
    system = system_of(rng, sizes, custom=custom)
    if custom:
        custom_files(rng, place / "alg", ranks)
        system[f"{rng.choice(list(KINDS))}-implementation-custom"] = ["alg/c"]
    groups: dict[str, list[int]] = {}
    if rng.random() < (0.1 if custom else 0.5):
        groups = {str(k + 1): rng.sample(range(ranks), rng.randint(2, ranks)) for k in range(2)}
    memory = {"memory-type": "NO_MEMORY_EXPANSION"}
    if rng.random() < 0.1:
        memory = {"memory-type": "MEMORY_POOL", "remote-mem-latency": 100, "remote-mem-bw": 10}
    work = Workload(rng, ranks, rng.random() < 0.4, rng.random() < 0.9)
    for _ in range(rng.randint(2, 14)):
        work.step += 1
        _add_step(rng, work, groups, "POOL" in memory["memory-type"])
    for rank, nodes in enumerate(work.nodes):
        if not nodes:
            work.add(rank, 4, is_cpu_op=False, num_ops=10**6, tensor_size=1000, duration=1)
        write(place / f"t.{rank}.et", nodes)
    for name, data in (
        ("system.json", system),
        ("network.yml", network),
        ("mem.json", memory),
        ("groups.json", groups),
    ):
        (place / name).write_text(json.dumps(data))
    queues, scale = rng.choice([1, 1, 2, 4]), rng.choice([1.0, 1.0, 2.0, 0.55])
    rendezvous = rng.random() < 0.25
    flags = [f"--num-queues-per-dim={queues}", f"--injection-scale={scale}"]
    flags.append(f"--rendezvous-protocol={'true' if rendezvous else 'false'}")
    return (
        ranks,
        aware,
        flags,
        {"queues": queues, "injection_scale": scale, "rendezvous": rendezvous},
    )


def _add_step(
    rng: random.Random, work: Workload, groups: dict[str, list[int]], memory: bool
) -> None:
    """Compute, a transfer, a message or a collective."""
    what, rank = rng.random(), rng.randrange(work.ranks)
    if what < 0.35:
        figures = {"num_ops": rng.randint(10**6, 10**10), "tensor_size": rng.randint(1, 10**8)}
        work.add(rank, 4, is_cpu_op=False, duration=rng.randint(1, 50), **figures)
    elif what < 0.45 and memory:
        work.add(rank, rng.choice([2, 3]), is_cpu_op=False, tensor_size=rng.randint(1, 10**6))
    elif what < 0.6:
        source, target = rng.sample(range(work.ranks), 2)
        figures = {"comm_size": rng.choice([1, 1000, 10**6]), "comm_tag": rng.choice([0, 0, 1, 7])}
        for r, kind in ((source, 5), (target, 6)):
            work.add(r, kind, is_cpu_op=False, comm_src=source, comm_dst=target, **figures)
    else:
        group = rng.choice(["", *groups])
        size = rng.choice([100, 4096, 10**6, 33333])
        more = {"comm_type": rng.choice(list(KINDS.values())), "comm_size": size}
        for r in groups.get(group, range(work.ranks)):
            work.add(r, 7, is_cpu_op=False, **more, **({"pg_name": group} if group else {}))


def there(binary: str, flags: list[str], place: Path) -> tuple[list[str], list[tuple[int, int]]]:
    """What a build prints, without the time, and (cycles, exposed) by rank as far as it gets."""
    files = {
        "workload": "t",
        "system": "system.json",
        "network": "network.yml",
        "remote-memory": "mem.json",
        "comm-group": "groups.json",
    }
    given = [f"--{name}-configuration={file}" for name, file in files.items()]
    with contextlib.suppress(subprocess.TimeoutExpired):
        done = subprocess.run(
            [binary, *given, *flags], cwd=place, capture_output=True, text=True, timeout=60
        )
        results = sorted(tuple(map(int, found)) for found in RESULT.findall(done.stdout))
        lines = [TIME.sub("", line) for line in done.stdout.splitlines()]
        return lines, [(cycles, exposed) for _, cycles, exposed in results]
    return [], []


def compare(seed: int, binaries: dict[bool, str]) -> str:
    """What became of the run of a seed."""
    with tempfile.TemporaryDirectory(prefix="astra-build-") as name:
        place = Path(name)
        ranks, aware, flags, keys = make(random.Random(seed), place)
        lines, expected = there(binaries[aware], flags, place)
        before = Path.cwd()
        os.chdir(place)
        try:
            inputs = ("t", "system.json", "network.yml", "mem.json", "groups.json")
            found = astra.simulate(*inputs, "aware" if aware else "unaware", **keys)
        except InputError as error:
            same = len(expected) < ranks
            return "does not end in either" if same else f"DIFFERENT: {type(error).__name__}"
        finally:
            os.chdir(before)
    if len(expected) < ranks:
        return "aborts there, ends here"
    if list(zip(found.cycles, found.exposed, strict=True)) != expected:
        return "DIFFERENT: cycles"
    printed = [
        TIME.sub("", line.printed(""))
        for line in console.lines(found.lowered, found.run, found.exposed)
        if line.level != "debug"
    ]
    return "equal" if printed[: len(lines)] == lines else "DIFFERENT: lines"


def main() -> None:
    """Compare, and count."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("unaware", help="the binary that is unaware of congestion")
    parser.add_argument("aware", help="the binary that is aware of it")
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--first", type=int, default=0, help="first seed")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    tally: Counter[str] = Counter()
    for seed in range(given.first, given.first + given.count):
        outcome = compare(seed, {False: given.unaware, True: given.aware})
        tally[outcome] += 1
        if outcome.startswith("DIFFERENT"):
            print(f"seed {seed}: {outcome}", flush=True)
    for outcome, count in tally.most_common():
        print(f"{count:6} {outcome}")


if __name__ == "__main__":
    main()
