"""Random workloads and systems for property tests, with hypothesis choosing their shape.

A workload is written event by event in one global order (an event is an operation on one rank, a collective on all
members of a group, a message, or any of these on all ranks alike), and each node waits only for earlier ones. With
`chained` collectives each waits for what comes before on its unit, so that the workload cannot deadlock; without,
members may issue them in different orders, and some workloads do deadlock. Files are written in Chakra's format, so
loading is tested along the way.
"""

from __future__ import annotations

import json
import random
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from hypothesis import strategies as st

from perfmodel.machine.system import NPU, Dimension, RemoteMemory, System
from perfmodel.models import cost
from perfmodel.models.compute import Roofline
from perfmodel.models.memory import Bandwidth
from perfmodel.models.network import AlphaBeta
from perfmodel.trace import chakra

METADATA, MEM_LOAD, MEM_STORE, COMP, SEND, RECV, COLLECTIVE = range(1, 8)
BARRIER = 9
COLUMNS = (
    "num_ops",
    "tensor_size",
    "comm_size",
    "comm_type",
    "comm_src",
    "comm_dst",
    "comm_tag",
    "stream",
    "tid",
)


@dataclass
class Operation:
    """One node: an id, a name, prerequisites (operations of the same rank), attributes by column of RankTrace."""

    id: int
    name: str
    type: int
    data: list[Operation]
    control: list[Operation]
    attributes: dict[str, int]
    group: str = ""


@dataclass
class Workload:
    """Operations by rank, in file order; groups by name."""

    ranks: list[list[Operation]]
    groups: dict[str, list[int]] = field(default_factory=dict)

    def write(self, folder: Path) -> str:
        """Write `t.<rank>.et` and the group file; returns the prefix."""
        for rank, operations in enumerate(self.ranks):
            (folder / f"t.{rank}.et").write_bytes(chakra.encode(trace_of(operations)))
        (folder / "comm_group.json").write_text(json.dumps(self.groups))
        return str(folder / "t")

    def renumbered(self) -> Workload:
        """The same with other ids in the same order, and other gaps."""
        result = []
        for operations in self.ranks:
            ids = {o.id: 3 * k + 11 for k, o in enumerate(sorted(operations, key=lambda o: o.id))}
            copies = {o.id: replace(o, id=ids[o.id]) for o in operations}
            for copy in copies.values():
                copy.data = [copies[o.id] for o in copy.data]
                copy.control = [copies[o.id] for o in copy.control]
            result.append([copies[o.id] for o in operations])
        return Workload(result, self.groups)


@dataclass(frozen=True)
class Shape:
    """What a workload looks like.

    Attributes:
        ranks, events: how many.
        alike: chance that an event happens on all ranks in the same way.
        chained: each collective waits for all that its rank does before on the same unit.
        by_name: members call a collective by one name; else each by its own.
        recorded: what has a duration: "none", "some" compute, or "all" (collectives replay it, too).
        streams: nodes carry recorded streams and threads.
        shuffled: file order and ids do not follow the order of dependencies.
        density: chance of each of a node's possible prerequisites.
        seed: for everything else.
    """

    ranks: int
    events: int
    alike: float
    chained: bool
    by_name: bool
    recorded: str
    streams: bool
    shuffled: bool
    density: float
    seed: int


def shapes(*, ranks: int = 8, events: int = 24, **fixed: bool | float) -> st.SearchStrategy:
    """Shapes of workloads with up to that many ranks and events; `fixed` holds some fields of `Shape`."""
    free = {
        "ranks": st.integers(2, ranks),
        "events": st.integers(2, events),
        "alike": st.sampled_from([0.0, 0.3, 0.8, 1.0]),
        "chained": st.booleans(),
        "by_name": st.booleans(),
        "recorded": st.sampled_from(["none", "some", "all"]),
        "streams": st.booleans(),
        "shuffled": st.booleans(),
        "density": st.sampled_from([0.05, 0.2, 0.5]),
        "seed": st.integers(0, 2**32),
    }
    return st.builds(Shape, **(free | {name: st.just(value) for name, value in fixed.items()}))


def workload(shape: Shape) -> Workload:
    """The workload of a shape."""
    return _Writer(shape).workload()


class _Writer:
    """Writes the events of one workload."""

    def __init__(self, shape: Shape):
        self.shape = shape
        self.random = random.Random(shape.seed)
        self.lines: list[list[Operation]] = [[] for _ in range(shape.ranks)]
        self.groups = self._groups()
        self.messages = 0

    def _groups(self) -> dict[str, list[int]]:
        """Partitions of the ranks into blocks and into every k-th, and a few arbitrary groups."""
        n = self.shape.ranks
        groups: dict[str, list[int]] = {}
        self.partitions: list[list[str]] = [[""]]
        for k in [k for k in range(2, n) if n % k == 0]:
            blocks = [list(range(b, b + n // k)) for b in range(0, n, n // k)]
            strided = [list(range(s, n, k)) for s in range(k)]
            for partition in (blocks, strided):
                names = [str(len(groups) + 1 + i) for i in range(k)]
                groups |= dict(zip(names, partition))
                self.partitions.append(names)
        for _ in range(2):
            size = self.random.randint(1, n)
            groups[str(len(groups) + 1)] = sorted(self.random.sample(range(n), size))
        return groups

    def workload(self) -> Workload:
        for event in range(self.shape.events):
            self._event(event)
        for rank, line in enumerate(self.lines):
            if not line or self.shape.recorded != "none":  # one record makes a trace a recorded one
                self._add(
                    [rank], "last", COMP, {"num_ops": 10**6, "tensor_size": 10**4, "duration_us": 7}
                )
            self._number(line)
        return Workload(self.lines, self.groups)

    def _number(self, line: list[Operation]) -> None:
        """Ids with gaps; unless shuffled, ids and file follow the order of dependencies."""
        choice = random.Random(self.shape.seed)  # equal lines are shuffled alike
        ids = choice.sample(range(5 * len(line)), len(line))
        ids = ids if self.shape.shuffled else sorted(ids)
        for operation, number in zip(line, ids):
            operation.id = number
        if self.shape.shuffled:
            choice.shuffle(line)

    def _event(self, event: int) -> None:
        everywhere = self.random.random() < self.shape.alike
        n = self.shape.ranks
        ranks = list(range(n)) if everywhere else [self.random.randrange(n)]
        kind = self.random.choices(
            [self._compute, self._memory, self._metadata, self._message, self._collective],
            weights=[8, 3, 1, 4, 5],
        )[0]
        kind(ranks, event)

    def _add(
        self, ranks: list[int], name: str, type: int, attributes: dict[str, int], group: str = ""
    ) -> list[Operation]:
        """The same node on all of these ranks, with prerequisites at the same distances."""
        distances, control, unit = self._like(name)
        attributes = {**attributes, **unit}
        if type != COMP:
            attributes["is_cpu"] = 0
        added = []
        for rank in ranks:
            line = self.lines[rank]
            chosen = [(line[-d], c) for d, c in zip(distances, control) if d <= len(line)]
            operation = Operation(
                -1,
                name,
                type,
                [o for o, c in chosen if not c],
                [o for o, c in chosen if c],
                dict(attributes),
                group,
            )
            line.append(operation)
            added.append(operation)
        return added

    def _like(self, name: str) -> tuple[list[int], list[bool], dict[str, int]]:
        """Prerequisites (how far back, control or data) and unit of the nodes of one event on any rank."""
        choice = random.Random(f"{self.shape.seed} {name}")
        distances = [d for d in range(1, 8) if choice.random() < self.shape.density]
        control = [choice.random() < 0.3 for _ in distances]
        unit = {"is_cpu": int(choice.random() < 0.2)}
        if self.shape.streams:
            unit |= {"stream": choice.randrange(3), "tid": choice.randrange(2)}
        return distances, control, unit

    def _duration(self) -> int:
        return self.random.choice([1, 2, 5, 10, 50, 100])

    def _compute(self, ranks: list[int], event: int) -> None:
        attributes = {
            "num_ops": self.random.choice([0, 10**6, 3 * 10**7, 10**8]),
            "tensor_size": self.random.choice([10**4, 10**6, 10**7]),
        }
        if self.random.random() < 0.1:
            del attributes["tensor_size"]
        if self.shape.recorded != "none" and self.random.random() < 0.5:
            if self.random.random() < 0.5:
                attributes = {}
            if self.random.random() < 0.9:
                attributes["duration_us"] = self._duration()
        self._add(ranks, f"op{event}", COMP, attributes)

    def _memory(self, ranks: list[int], event: int) -> None:
        attributes = {"tensor_size": self.random.choice([0, 10**5, 10**6, 10**7])}
        if self.random.random() < 0.3:
            attributes["tensor_loc"] = 1
        if self.shape.recorded == "all" and self.random.random() < 0.3:
            attributes = {"duration_us": self._duration()}
        self._add(ranks, f"mem{event}", self.random.choice([MEM_LOAD, MEM_STORE]), attributes)

    def _metadata(self, ranks: list[int], event: int) -> None:
        self._add(ranks, f"note{event}", METADATA, {})

    def _message(self, ranks: list[int], event: int) -> None:
        """A message from each of the ranks to the one so many places on."""
        shift = self.random.randint(1, self.shape.ranks - 1)
        size = self.random.choice([10**4, 10**6, 10**7])
        self.messages += 1
        tag = self.messages if self.shape.shuffled else self.random.randrange(3)
        attributes = {"comm_size": size, "comm_tag": tag}
        for send, rank in zip(self._add(ranks, f"send{event}", SEND, attributes), ranks):
            send.attributes["comm_dst"] = (rank + shift) % self.shape.ranks
        for rank in ranks:
            target = (rank + shift) % self.shape.ranks
            (receive,) = self._add([target], f"recv{event}", RECV, attributes)
            receive.attributes["comm_src"] = rank

    def _collective(self, ranks: list[int], event: int) -> None:
        """On one group, or on all groups of a partition."""
        partition = self.random.choice(self.partitions)
        if len(ranks) == 1:
            partition = [self.random.choice([*self.groups, "", *partition])]
        kind = self.random.randrange(10)
        attributes = {
            "comm_type": kind,
            "comm_size": -1 if kind == BARRIER else self.random.choice([0, 10**5, 10**6, 10**7]),
        }
        if self.shape.recorded == "all":
            attributes = {"comm_type": 0, "duration_us": self._duration()}
        # a name that repeats pairs up in ascending ids
        name = "coll" if self.random.random() < 0.5 and not self.shape.shuffled else f"coll{event}"
        for group in partition:
            members = self.groups.get(group, list(range(self.shape.ranks)))
            added = self._add(members, name, COLLECTIVE, attributes, group)
            for rank, operation in zip(members, added):
                self._settle(rank, operation)

    def _settle(self, rank: int, operation: Operation) -> None:
        """What differs among the members, and the chain of collectives."""
        if not self.shape.by_name:
            operation.name += f".{rank}"
        if self.shape.recorded == "all":
            operation.attributes["duration_us"] += self.random.randrange(2)
        if not self.shape.chained:
            return
        # what was written before on the unit must be over, or it waits there for this one; by order of issue,
        # calls of two streams would meet in other pairs than they were written in
        line = self.lines[rank]
        unit = self._unit(operation)
        mine = [o for o in line[:-1] if self._unit(o) == unit]
        mine += [] if self.shape.by_name else [o for o in line[:-1] if o.type == COLLECTIVE]
        known = {id(o) for o in operation.data + operation.control}
        operation.control += list({id(o): o for o in mine if id(o) not in known}.values())

    def _unit(self, operation: Operation) -> tuple[str, int]:
        """The resource that an operation holds."""
        if operation.type in (RECV, METADATA):
            return ("none", id(operation))
        if self.shape.streams:
            kind = "tid" if operation.attributes["is_cpu"] else "stream"
            return (kind, operation.attributes[kind])
        return ("compute" if operation.type == COMP else "communication", 0)


def trace_of(operations: list[Operation]) -> chakra.RankTrace:
    """One rank's operations as the columns of its file."""

    def links(lists: list[list[Operation]]) -> tuple[np.ndarray, np.ndarray]:
        ptr = np.cumsum([0] + [len(deps) for deps in lists])
        return ptr, np.array([o.id for deps in lists for o in deps], np.uint64)

    def column(name: str, default: int) -> list[int]:
        return [o.attributes.get(name, default) for o in operations]

    names = sorted({o.group for o in operations} - {""})
    return chakra.build(
        [o.name for o in operations],
        [o.type for o in operations],
        id=np.array([o.id for o in operations], np.uint64),
        data_deps=links([o.data for o in operations]),
        ctrl_deps=links([o.control for o in operations]),
        duration_us=column("duration_us", 0),
        is_cpu=column("is_cpu", 0),
        tensor_loc=column("tensor_loc", -1),
        group=[names.index(o.group) if o.group else -1 for o in operations],
        group_names=names,
        **{name: column(name, -1) for name in COLUMNS},
    )


def _factorings(ranks: int) -> list[tuple[int, ...]]:
    """Sizes of one to three dimensions whose product is the number of ranks."""
    found = [(ranks,)]
    for a in range(2, ranks):
        if ranks % a == 0:
            found += [(a, *rest) for rest in _factorings(ranks // a) if len(rest) < 3]
    return found


@st.composite
def systems(draw, ranks: int) -> System:
    """A system for that many ranks; rates of few digits, so that ties occur."""
    rates = st.sampled_from([1e10, 2.5e10, 4e10, 1e11])
    network = tuple(
        Dimension(
            draw(rates),
            draw(st.sampled_from([0.0, 1e-6, 5e-6])),
            draw(st.sampled_from(["ring", "switch", "fully-connected"])),
            size,
            draw(st.sampled_from([0, size + 2])),
        )
        for size in draw(st.sampled_from(_factorings(ranks)))
    )
    remote = RemoteMemory(draw(rates), 2e-6) if draw(st.booleans()) else None
    npu = NPU(draw(st.sampled_from([1e12, 3e12])), draw(st.sampled_from([1e11, 7e11])))
    return System(npu, network, remote, name="random")


@st.composite
def models(draw) -> cost.Models:
    """The package's models with other coefficients, algorithms and preference."""
    part = st.sampled_from([1.0, 0.5, 0.9])
    time = st.sampled_from([0.0, 1e-6])
    return cost.Models(
        compute=Roofline(draw(part), draw(part), draw(time)),
        memory=Bandwidth(draw(part), draw(time)),
        network=AlphaBeta(
            algorithm=draw(st.sampled_from(["auto", "ring", "direct"])),
            efficiency=draw(part),
            overhead=draw(time),
        ),
        prefer=draw(st.sampled_from(["work", "recorded"])),
    )
