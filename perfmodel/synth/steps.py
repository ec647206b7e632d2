"""What a rank does, node by node, in program order.

A rank's computation is one stream: every compute node waits for the one before it. Communication waits
only for what it is told to, so that it overlaps computation wherever the data allow.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from perfmodel.errors import InputError
from perfmodel.vocabulary import COLLECTIVES, NodeType

LARGEST = 2**63 - 1
WORLD = "world"
"""Label of the group of all ranks."""

COMPUTE = "compute"
COMMUNICATION = "communication"
HOST = "cpu"


@dataclass(frozen=True)
class Work:
    """What a kernel does: operations [FLOP], bytes of its inputs, weights and outputs [B], kind, shape and type.

    kind, dimensions, dtype: as in `vocabulary.OPERATIONS`, `DIMENSIONS`, `DTYPES`; "" is the system's own type.

    >>> Work(6, 2) * 2 + Work(1, 1)
    Work(flops=13, bytes=5, kind='other', dimensions=(), dtype='')
    """

    flops: int
    bytes: int
    kind: str = "other"
    dimensions: tuple[int, ...] = ()
    dtype: str = ""

    def __mul__(self, factor: int) -> Work:
        """So many times the operations and bytes; a shape does not survive it."""
        return Work(self.flops * factor, self.bytes * factor)

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)


class Does(Protocol):
    """What a kernel does: the attributes of `Work`."""

    @property
    def flops(self) -> int: ...
    @property
    def bytes(self) -> int: ...
    @property
    def kind(self) -> str: ...
    @property
    def dimensions(self) -> tuple[int, ...]: ...
    @property
    def dtype(self) -> str: ...


class Step(NamedTuple):
    """One node; -1 marks an absent integer.

    after: positions of the nodes it waits for, ascending;  group: label of a collective's group
    offset: the peer's rank minus one's own, 0 where there is no peer
    kind, dimensions, dtype: of a compute node, as in `Work`
    resource: the stream it occupies; "" is the unit of its type (compute or communication)
    host: runs on the host;  duration: seconds that it takes on any device, nan for work that a model times [s]
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
    kind: str = "other"
    dimensions: tuple[int, ...] = ()
    dtype: str = ""
    resource: str = ""
    host: bool = False
    duration: float = float("nan")


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

    def compute(self, name: str, work: Does, after: Iterable[int | None] = ()) -> int:
        """A kernel; it waits for the kernel before it, too."""
        waits = _positions((*after, self.last))
        self.last = self._add(
            Step(
                name,
                NodeType.COMP,
                waits,
                flops=work.flops,
                bytes=work.bytes,
                kind=work.kind,
                dimensions=work.dimensions,
                dtype=work.dtype,
            )
        )
        return self.last

    def collective(
        self,
        name: str,
        kind: str,
        size: int,
        group: str,
        after: Iterable[int | None] = (),
        *,
        resource: str = "",
    ) -> int:
        """A collective over the rank's group of that label.

        Args:
            name: equal on all members of the group.
            kind: one of `vocabulary.COLLECTIVES`.
            size: bytes that one rank hands in: the shard of an all-gather, else the whole buffer [B].
            group: label of a group of its role, or `WORLD`.
            after: what it waits for.
            resource: the stream it occupies.
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
                resource=resource,
            )
        )

    def send(
        self,
        name: str,
        size: int,
        offset: int,
        *,
        tag: int,
        after: Iterable[int | None] = (),
        resource: str = "",
    ) -> int:
        """A message of `size` bytes to the rank `offset` further on."""
        return self._add(
            Step(
                name,
                NodeType.COMM_SEND,
                _positions(after),
                size=size,
                offset=offset,
                tag=tag,
                resource=resource,
            )
        )

    def receive(
        self, name: str, size: int, offset: int, *, tag: int, after: Iterable[int | None] = ()
    ) -> int:
        """A message of `size` bytes from the rank `offset` further on, posted when `after` are done."""
        waits = _positions(after)
        return self._add(Step(name, NodeType.COMM_RECV, waits, size=size, offset=offset, tag=tag))

    def memory(
        self,
        name: str,
        kind: NodeType,
        size: int,
        after: Iterable[int | None] = (),
        *,
        resource: str,
    ) -> int:
        """A load from or a store to remote memory, of `size` bytes."""
        return self._add(Step(name, kind, _positions(after), bytes=size, resource=resource))

    def host(self, name: str, duration: float, after: Iterable[int | None] = ()) -> int:
        """The host's own time for something, for example to launch kernels [s]."""
        return self._add(Step(name, NodeType.COMP, _positions(after), host=True, duration=duration))

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
