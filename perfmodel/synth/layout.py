"""Where ranks sit on a grid of parallel dimensions, and which ranks communicate along each of them."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

TENSOR, CONTEXT, DATA, PIPELINE = "tensor", "context", "data", "pipeline"
EXPERT, EXPERT_TENSOR, EXPERT_DATA = "expert", "expert_tensor", "expert_data"
EXPERT_SHARD, EXPERT_REPLICA = "expert_shard", "expert_replica"
SHARD, REPLICA, TIED, MODEL = "shard", "replica", "tied", "model"
"""Labels of the groups that a rank is in."""


@dataclass(frozen=True, eq=False)
class Communicators:
    """Groups of ranks, each rank in at most one of them.

    Attributes:
        members: [G, size] i32, the ranks of each group in ring order.
        of_rank: [R] i32, each rank's group, -1 where it is in none.
    """

    members: NDArray[np.int32]
    of_rank: NDArray[np.int32]

    @property
    def size(self) -> int:
        """Ranks in a group."""
        size: int = self.members.shape[1]
        return size


def communicators(members: NDArray[Any], ranks: int) -> Communicators:
    """Groups from a table of their members.

    Args:
        members: [G, size] the ranks of each group.
        ranks: R, ranks of the workload.
    """
    table = np.asarray(members, np.int32)
    of_rank = np.full(ranks, -1, np.int32)
    of_rank[table] = np.arange(len(table), dtype=np.int32)[:, None]
    return Communicators(table, of_rank)


@dataclass(frozen=True)
class Layout:
    """Ranks on a grid; the first dimension varies fastest.

    rank = i_0 + n_0 (i_1 + n_1 (i_2 + ...)) for the position (i_0, i_1, i_2, ...).

    Attributes:
        dimensions: name to size, innermost first.

    Example:
        >>> Layout({"tensor": 2, "data": 3}).along("data").members.tolist()
        [[0, 2, 4], [1, 3, 5]]
    """

    dimensions: dict[str, int]

    @property
    def ranks(self) -> int:
        """Number of ranks R."""
        return prod(self.dimensions.values())

    def stride(self, dimension: str) -> int:
        """Distance of neighbours along a dimension, in ranks."""
        names = list(self.dimensions)
        return prod(self.dimensions[name] for name in names[: names.index(dimension)])

    def along(self, dimension: str) -> Communicators:
        """The groups of ranks that differ in this dimension only."""
        rank = np.arange(self.ranks, dtype=np.int32)
        stride, size = self.stride(dimension), self.dimensions[dimension]
        first = rank[rank // stride % size == 0]
        return communicators(first[:, None] + stride * np.arange(size), self.ranks)

    def at(self, dimension: str, position: int) -> NDArray[np.int32]:
        """The ranks at one position of a dimension, ascending."""
        rank = np.arange(self.ranks, dtype=np.int32)
        there = rank // self.stride(dimension) % self.dimensions[dimension] == position
        ranks: NDArray[np.int32] = rank[there]
        return ranks
