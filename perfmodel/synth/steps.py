"""What one rank does in a training step, written down node by node.

A rank's computation is one stream: every compute node waits for the one before it. Communication waits
only for what it is told to, so that it overlaps computation wherever the data allow.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from perfmodel.errors import InputError
from perfmodel.vocabulary import COLLECTIVES, NodeType

LARGEST = 2**63 - 1
WORLD = "world"
"""Label of the group of all ranks."""


@dataclass(frozen=True)
class Work:
    """What a kernel does: operations [FLOP], and bytes of its inputs, weights and outputs [B].

    >>> Work(6, 2) * 2 + Work(1, 1)
    Work(flops=13, bytes=5)
    """

    flops: int
    bytes: int

    def __mul__(self, factor: int) -> "Work":
        return Work(self.flops * factor, self.bytes * factor)

    def __add__(self, other: "Work") -> "Work":
        return Work(self.flops + other.flops, self.bytes + other.bytes)


class Step(NamedTuple):
    """One node; -1 marks an absent integer.

    after: positions of the nodes it waits for, ascending;  group: label of a collective's group
    offset: the peer's rank minus one's own, 0 where there is no peer
    """

    name: str
    type: NodeType
    after: tuple[int, ...]
    flops: int = -1
    bytes: int = -1
    comm_type: int = -1
    size: int = -1
    group: str = ""
    offset: int = 0
    tag: int = 0


class Steps:
    """The nodes of a rank program in the making, in program order.

    Every method adds a node and returns its position, which later nodes wait for. An `after` of None
    means nothing to wait for.

    Example:
        >>> steps = Steps()
        >>> gradient = steps.compute("bwd", Work(2, 2))
        >>> steps.collective("grad_all_reduce", "all_reduce", 1024, WORLD, after=[gradient])
        1
    """

    def __init__(self) -> None:
        self.nodes: list[Step] = []
        self.last: int | None = None
        """The compute node added last."""

    def compute(self, name: str, work: Work, after: Iterable[int | None] = ()) -> int:
        """A kernel; it waits for the kernel before it, too."""
        waits = _positions((*after, self.last))
        self.last = self._add(Step(name, NodeType.COMP, waits, flops=work.flops, bytes=work.bytes))
        return self.last

    def collective(
        self, name: str, kind: str, size: int, group: str, after: Iterable[int | None] = ()
    ) -> int:
        """A collective over the rank's group of that label.

        Args:
            name: equal on all members of the group.
            kind: one of `vocabulary.COLLECTIVES`.
            size: bytes that one rank hands in: the shard of an all-gather, else the whole buffer [B].
            group: label of a group of its role, or `WORLD`.
            after: what it waits for.
        """
        number = COLLECTIVES.index(kind)
        return self._add(
            Step(
                name,
                NodeType.COMM_COLL,
                _positions(after),
                comm_type=number,
                size=size,
                group=group,
            )
        )

    def send(
        self, name: str, size: int, offset: int, *, tag: int, after: Iterable[int | None] = ()
    ) -> int:
        """A message of `size` bytes to the rank `offset` further on."""
        waits = _positions(after)
        return self._add(Step(name, NodeType.COMM_SEND, waits, size=size, offset=offset, tag=tag))

    def receive(
        self, name: str, size: int, offset: int, *, tag: int, after: Iterable[int | None] = ()
    ) -> int:
        """A message of `size` bytes from the rank `offset` further on, posted when `after` are done."""
        waits = _positions(after)
        return self._add(Step(name, NodeType.COMM_RECV, waits, size=size, offset=offset, tag=tag))

    def _add(self, step: Step) -> int:
        largest = max(step.flops, step.bytes, step.size)
        if largest > LARGEST:
            raise InputError(
                f"{step.name}: {largest:.3g} FLOP or B do not fit a trace's 64-bit number."
                " Make the model smaller, or spread it over more ranks."
            )
        self.nodes.append(step)
        return len(self.nodes) - 1


def _positions(after: Iterable[int | None]) -> tuple[int, ...]:
    return tuple(sorted({a for a in after if a is not None}))
