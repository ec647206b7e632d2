"""How the NPUs of one network dimension are joined: one object per kind, with everything that follows from it.

A new kind is a class with these five answers, and a line in `TOPOLOGIES`; system files and models then know it.

What a round of a collective costs is a latency times `hops` and bytes times `load`: `load` is how many times a member's
bytes occupy the bandwidth that the NPU has in the dimension.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

EVERYONE = 0
"""The distance of a round in which each member sends to all others."""


class Topology(Protocol):
    """What a kind of dimension answers.

    Attributes:
        switched: NPUs are joined by switches, which have a price and may reduce.
        extends: NPUs can be added without other switches or links per NPU.
        refused: algorithms of collectives whose edges are no links here.
    """

    switched: bool
    extends: bool
    refused: tuple[str, ...]

    def links(self, size: int) -> int:
        """Links of an NPU that share its bandwidth, where `size` NPUs are joined."""

    def hops(self, gap: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        """Hops between two places that are `gap` apart."""

    def round(
        self, distance: int, n: int, busy: int, *, links: int, stride: int, size: int
    ) -> tuple[float, float]:
        """Hops and load of a round among n members.

        Args:
            distance: to the member that many places on, or EVERYONE.
            busy: links of an NPU that the algorithm uses, 0: all to members.
            links: that an NPU has; stride: hops between neighbouring members; size: NPUs in the dimension.
        """

    def algorithm(self, kind: str, n: int) -> str:
        """The algorithm that "auto" stands for, of a collective among n members."""


class Ring:
    """Each NPU has a link to either side.

    A message of a round occupies all its hops. Members that are not neighbours share links with others that
    communicate at the same time, and members that do not close the ring go back over the same links: both cost a
    factor `stride`.
    """

    switched: bool = False
    extends: bool = True
    refused: tuple[str, ...] = ("tree",)

    def links(self, size: int) -> int:
        return 2

    def hops(self, gap: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        return np.minimum(gap, size - gap)

    def round(
        self, distance: int, n: int, busy: int, *, links: int, stride: int, size: int
    ) -> tuple[float, float]:
        ways = 1 if n == 2 and 2 * stride < size else 2
        if distance == EVERYONE:
            total = sum(min(d, n - d) for d in range(1, n))
            hops, mean = float(stride * (n // 2)), stride * total / (n - 1)
        else:
            hops = mean = float(stride * min(distance, n - distance))
        return hops, mean * 2 / min(busy or ways, ways)

    def algorithm(self, kind: str, n: int) -> str:
        return "direct" if kind == "all_to_all" else "ring"


class Switch:
    """A switch takes all of an NPU's bandwidth to any one peer."""

    switched: bool = True
    extends: bool = False
    refused: tuple[str, ...] = ()

    def links(self, size: int) -> int:
        return 1

    def hops(self, gap: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        return np.minimum(gap, 1)

    def round(
        self, distance: int, n: int, busy: int, *, links: int, stride: int, size: int
    ) -> tuple[float, float]:
        return 1.0, 1.0

    def algorithm(self, kind: str, n: int) -> str:
        if kind == "all_to_all":
            return "direct"
        if kind not in ("all_reduce", "reduce_scatter", "reduce_scatter_block", "all_gather"):
            return "tree"
        return "ring" if n & (n - 1) else "halving-doubling"


class FullyConnected:
    """A link to every other NPU, each with its part of the bandwidth; a round keeps those to its peers busy."""

    switched: bool = False
    extends: bool = False
    refused: tuple[str, ...] = ()

    def links(self, size: int) -> int:
        return max(1, size - 1)

    def hops(self, gap: NDArray[np.int64], size: int) -> NDArray[np.int64]:
        return np.minimum(gap, 1)

    def round(
        self, distance: int, n: int, busy: int, *, links: int, stride: int, size: int
    ) -> tuple[float, float]:
        return 1.0, links / min(busy or n - 1, n - 1, links)

    def algorithm(self, kind: str, n: int) -> str:
        return "direct"


TOPOLOGIES: dict[str, Topology] = {
    "ring": Ring(),
    "switch": Switch(),
    "fully-connected": FullyConnected(),
}
"""By the names that system files have."""
