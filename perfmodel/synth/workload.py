"""A training step as rank programs: what every rank does, said once for all ranks that do the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from perfmodel.graph import Graph
from perfmodel.synth.layout import Communicators
from perfmodel.synth.steps import Steps


@dataclass(frozen=True, eq=False)
class Role:
    """Steps, and the ranks that do them.

    Attributes:
        steps: the nodes.
        ranks: [m] i32, ascending; any list of numbers will do.
        groups: label to groups; a collective takes the group that its own rank is in.
    """

    steps: Steps
    ranks: NDArray[np.int32]
    groups: Mapping[str, Communicators] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", np.asarray(self.ranks, np.int32))


@dataclass(frozen=True, eq=False)
class Workload:
    """A training step on R ranks.

    Attributes:
        name: what messages and tables call it.
        roles: what ranks do; every rank has one role.

    Example:
        >>> from perfmodel import synth
        >>> synth.collective("all_reduce", 4, 1024).graph()
        Graph('all_reduce of 1024 B on 4 ranks': 4 ranks, 4 nodes, 1 distinct programs, 1 groups)
    """

    name: str
    roles: tuple[Role, ...]

    @property
    def ranks(self) -> int:
        """Number of ranks R."""
        return sum(len(role.ranks) for role in self.roles)

    @property
    def nodes(self) -> int:
        """Number of nodes over all ranks."""
        return sum(len(role.ranks) * len(role.steps.nodes) for role in self.roles)

    def __repr__(self) -> str:
        return f"Workload({self.name!r}: {self.ranks:,} ranks, {self.nodes:,} nodes)"

    def graph(self) -> Graph:
        """The graph that `load` would make of the written files; its cost follows the roles, not the ranks.

        Raises:
            InputError: a send without its receive, or the reverse.
        """
        from perfmodel.synth.assemble import assemble

        return assemble(self)

    def write(self, folder: str | Path, *, prefix: str = "t", overwrite: bool = False) -> Path:
        """Write Chakra trace files, `<prefix>.<rank>.et`, and `comm_groups.json` where there are groups.

        Args:
            folder: where to; made if it is not there.
            prefix: what the files' names begin with.
            overwrite: replace a trace of the same prefix that is there already.

        Returns:
            The prefix's path, as `load` takes it.

        Raises:
            InputError: the folder cannot be made, or holds such a trace already.
        """
        from perfmodel.synth.files import write

        return write(self, Path(folder), prefix, overwrite=overwrite)
