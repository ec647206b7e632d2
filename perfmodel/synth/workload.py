"""A training step as rank programs: what every rank does, said once for all ranks that do the same."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from perfmodel.synth.assemble import assemble
from perfmodel.synth.files import write
from perfmodel.synth.role import Role
from perfmodel.workload.graph import Graph


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
        return assemble(self.name, self.roles)

    def write(self, folder: str | Path, *, prefix: str = "t", overwrite: bool = False) -> Path:
        """Write Chakra trace files, `<prefix>.<rank>.et`, and `comm_groups.json` where there are groups.

        Where that file belongs to another trace in the folder, the groups are in `<prefix>.json`.

        Args:
            folder: where to; made if it is not there.
            prefix: what the files' names begin with.
            overwrite: replace a trace of the same prefix that is there already.

        Returns:
            The prefix's path, as `load` takes it.

        Raises:
            InputError: the folder cannot be made, or holds such a trace already.
        """
        return write(self.name, self.roles, Path(folder), prefix, overwrite=overwrite)
