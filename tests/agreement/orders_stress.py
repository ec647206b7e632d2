"""Certified designs and designs scheduled by nodes against the event simulation, on as many as asked for.

`python -m tests.agreement.orders_stress [DESIGNS] [--seed N] [--only TEXT]` goes over all traces of this repository
and of the reference data, in own and in ASTRA mode, both backends, whole nanoseconds and not, and prints a line for
each, and the number of false answers, which has to be 0. Half of the designs are drawn as parameters over wide
ranges, half as tables of costs that are small whole numbers (zero among them), so that ties are everywhere.
"""

from __future__ import annotations

import argparse
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import perfmodel as pm
from perfmodel.analysis.evaluation import Evaluator
from perfmodel.compiled import Compiled
from perfmodel.engine.cells import cell_of, checks_of, frozen_at
from perfmodel.errors import DeadlockError, InputError
from perfmodel.schedule.list_orders import ListOrders

HERE = Path(__file__).resolve().parents[2]
REFERENCE = HERE.parent / "shared" / "reference" / "astra-sim"
SAME = 1e-9
"""Relative distance up to which two makespans are equal; whole nanoseconds have to be equal."""

BATCH = 96
"""Designs of a subject at a time."""


@dataclass
class Found:
    """What came out for a subject.

    Attributes:
        designs, ended: how many, and how many of them end. certified, by_node: answered without simulation.
        false: answered otherwise than the simulation, or though it does not end.
    """

    name: str
    designs: int = 0
    ended: int = 0
    certified: int = 0
    by_node: int = 0
    false: list[str] = field(default_factory=list)

    def add(self, other: Found) -> None:
        """Count another's designs as well."""
        self.designs += other.designs
        self.ended += other.ended
        self.certified += other.certified
        self.by_node += other.by_node
        self.false += other.false

    def __str__(self) -> str:
        return (
            f"{self.name}: {self.designs} designs, {self.certified / max(self.designs, 1):.0%} certified, "
            f"{self.by_node / max(self.designs, 1):.0%} by nodes, {len(self.false)} false"
        )


def subjects(only: str = "", seed: int | None = None) -> Iterator[tuple[str, Compiled]]:
    """(name, compiled) of every trace, mode and configuration that can be compiled; shuffled where a seed is given."""
    recipes = list(_recipes())
    if seed is not None:
        np.random.default_rng(seed).shuffle(recipes)
    for name, make in recipes:
        if only in name:
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    yield name, pm.compile(*make())
            except (DeadlockError, InputError):
                continue


def _recipes() -> Iterator[tuple[str, Callable[[], tuple]]]:
    traces = [*sorted((HERE / "traces").iterdir())]
    if REFERENCE.is_dir():
        traces += sorted((REFERENCE / "traces").iterdir())
    for folder in traces:
        if not folder.is_dir():
            continue
        ranks = len(list(folder.glob("t.*.et")))
        yield (
            f"own {folder.name}",
            lambda f=folder, r=ranks: (
                pm.load(f),
                pm.hardware("dgx-h100", ranks=r),
            ),
        )
        if not REFERENCE.is_dir():
            continue
        for network in sorted((REFERENCE / "network").glob("*.yml")):
            if _ranks_of(network.stem) != ranks:
                continue
            for system in sorted((REFERENCE / "system").glob("*.json")):
                for backend in ("unaware", "aware"):
                    for truncate in (False, True):
                        name = f"{backend} {folder.name} {system.stem} {network.stem} {'whole' * truncate}"
                        yield (
                            name,
                            lambda f=folder, s=system, n=network, b=backend, w=truncate: (
                                pm.astra.load(
                                    f / "t",
                                    s,
                                    n,
                                    comm_group=_groups(f),
                                    remote_memory=_memory(f),
                                    backend=b,
                                    truncate=w,
                                )
                            ),
                        )


def _groups(folder: Path) -> Path | None:
    return folder / "comm_groups.json" if (folder / "comm_groups.json").is_file() else None


def _memory(folder: Path) -> Path | None:
    return REFERENCE / "remote_memory" / "per_npu.json" if folder.name.startswith("mem") else None


def _ranks_of(network: str) -> int:
    """
    >>> _ranks_of("ring2_fc4_sw2"), _ranks_of("switch8")
    (16, 8)
    """
    return int(np.prod([int("".join(filter(str.isdigit, word))) for word in network.split("_")]))


def drawn(compiled: Compiled, designs: int, choice: np.random.Generator) -> NDArray[np.float64]:
    """[S, D] costs: half from parameters over factors of 36 and more, half small whole numbers full of ties."""
    half = designs // 2
    known = pm.parameters(compiled.system, compiled.models)
    wide = {p: float(v) for p, v in known.items() if 0 < float(v) < np.inf}
    paths = tuple(p for p in wide if p.startswith(("npu", "network", "endpoint", "remote")))
    scale = np.exp(choice.uniform(-2.5, 2.5, (len(paths), half)))
    values = np.array([wide[p] for p in paths])[:, None] * scale
    drawn = Evaluator(compiled).costs(paths, values)
    most = choice.choice([2, 3, 10, 1000], designs - half)
    least = choice.choice([0, 0, 1], designs - half)
    whole = choice.integers(least, least + most, (len(compiled.category), designs - half))
    return np.ascontiguousarray(np.concatenate([drawn, whole.astype(float)], axis=1))


def stress(name: str, compiled: Compiled, designs: int, seed: int, orders: int = 3) -> Found:
    """Compare every certified design, on the reference's order and on some designs' own, and every one by nodes."""
    choice = np.random.default_rng([seed, zlib.crc32(name.encode())])
    costs = drawn(compiled, designs, choice)
    simulated, _, _ = compiled.own(costs, threads=2)
    found = Found(name, designs, int(np.isfinite(simulated).sum()))
    exact = 0.0 if compiled.batched else SAME

    def compare(what: str, makespan: NDArray, sure: NDArray) -> None:
        same = np.abs(makespan - simulated) <= exact * simulated
        for d in np.flatnonzero(sure & ~same):
            found.false.append(f"{name}: {what}, design {d}: {makespan[d]!r} != {simulated[d]!r}")

    if isinstance(compiled.own, ListOrders):  # whose runs of tasks are another way of answering
        by_run, simulated = simulated, compiled.own.schedules.by_task.makespans(costs)[0]
        ends = np.isfinite(simulated)
        if not np.array_equal(by_run[ends], simulated[ends]) or np.isfinite(by_run[~ends]).any():
            found.false.append(f"{name}: runs of tasks give other makespans than the tasks")
    answered = np.zeros(designs, bool)
    frozen = [(compiled.events, compiled.own.decided())]
    for d in choice.choice(np.flatnonzero(np.isfinite(simulated)), orders):
        frozen.append(frozen_at(compiled.own, np.ascontiguousarray(costs[:, d])))
    for k, (events, decided) in enumerate(frozen):
        checked = checks_of(events, decided)
        if checked is None:
            continue
        cell = cell_of(*checked, len(costs))
        makespan, sure, counts = cell.answer(costs, paths=k == 0, threads=2)
        compare(f"order {k}", makespan, sure)
        if k == 0:
            compare(
                "path", (counts * costs).sum(axis=0), sure & (compiled.batched | (makespan > 0))
            )
        answered |= sure
    found.certified = int(answered.sum())
    quicker = compiled.own.nodes(costs, paths=True, threads=2)
    if quicker is not None:
        makespan, counts = quicker
        known = np.isfinite(makespan)
        compare("by nodes", makespan, known)
        compare("path by nodes", (counts * costs).sum(axis=0), known)
        found.by_node = int(known.sum())
    return found


def several(designs: int, seed: int, *, only: str = "", batch: int = BATCH) -> Iterator[Found]:
    """All subjects in a random order, again and again until there are enough designs."""
    seen, round_ = 0, 0
    while seen < designs:
        before = seen
        for name, compiled in subjects(only, seed + round_):
            found = stress(name, compiled, batch, seed + round_)
            seen += found.designs
            yield found
            if seen >= designs:
                return
        round_ += 1
        if seen == before:
            return


def main(arguments: list[str] | None = None) -> int:
    """Go over all subjects again and again until there are enough designs; gives the number of false answers."""
    parser = argparse.ArgumentParser(prog="python -m tests.agreement.orders_stress")
    parser.add_argument("designs", nargs="?", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="part of a subject's name")
    parser.add_argument("--batch", type=int, default=BATCH, help="designs of a subject at a time")
    chosen = parser.parse_args(arguments)
    total = Found("all")
    for found in several(chosen.designs, chosen.seed, only=chosen.only, batch=chosen.batch):
        total.add(found)
        print(found, flush=True)
        for line in found.false[:5]:
            print("   ", line, flush=True)
    print(
        f"{total.designs} designs, {total.certified} certified, {total.by_node} by nodes: {len(total.false)} false"
    )
    return len(total.false)


if __name__ == "__main__":
    sys.exit(main() > 0)
