"""A training step as rank programs: what every rank does, said once for all ranks that do the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from perfmodel.errors import InputError
from perfmodel.synth.assemble import assemble
from perfmodel.synth.files import write
from perfmodel.synth.memory import table
from perfmodel.synth.operations import step_flops
from perfmodel.synth.role import Role
from perfmodel.synth.settings import Settings
from perfmodel.workload.graph import Graph
from perfmodel.workload.training_step import TrainingStep

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, eq=False)
class Workload:
    """A training step on R ranks.

    Attributes:
        name: what messages and tables call it.
        programs: what ranks do, every rank in one role; or a function that makes the roles when they are needed.
        settings: of a transformer's step, what it was made from; step: what it does for the model.

    Example:
        >>> from perfmodel import synth
        >>> synth.collective("all_reduce", 4, 1024).graph()
        Graph('all_reduce of 1024 B on 4 ranks': 4 ranks, 4 nodes, 1 distinct programs, 1 groups)
    """

    name: str
    programs: tuple[Role, ...] | Callable[[], tuple[Role, ...]]
    settings: Settings | None = None
    step: Callable[[], TrainingStep] | None = None

    @cached_property
    def roles(self) -> tuple[Role, ...]:
        """What ranks do."""
        return self.programs() if callable(self.programs) else tuple(self.programs)

    @property
    def ranks(self) -> int:
        """Number of ranks R."""
        if self.settings is not None:
            return self.settings.ranks
        return sum(len(role.ranks) for role in self.roles)

    @property
    def nodes(self) -> int:
        """Number of nodes over all ranks."""
        return sum(len(role.ranks) * len(role.columns) for role in self.roles)

    @property
    def parameters(self) -> int:
        """Parameters of the model."""
        return self._settings.model.parameters

    @property
    def active_parameters(self) -> int:
        """Parameters that a token meets."""
        return self._settings.model.active_parameters

    @property
    def tokens(self) -> int:
        """Tokens of a step over all ranks."""
        return self._settings.sequences * self._settings.sequence

    @property
    def flops(self) -> float:
        """The model's FLOP in a step, forward and backward, over all ranks; what is computed again does not count."""
        return step_flops(self._settings)

    @property
    def hardware_flops(self) -> float:
        """`flops`, and what is computed again."""
        return step_flops(self._settings, again=True)

    @property
    def memory(self) -> pd.DataFrame:
        """Memory at the peak of each rank, by part: rank, weights_B, ..., total_B (see `perfmodel.memory`)."""
        return table(self._settings)

    @property
    def _settings(self) -> Settings:
        if self.settings is None:
            raise InputError(
                f"{self.name}: has no model, so that it has no parameters, FLOP or memory of one. Make it with"
                " synth.training."
            )
        return self.settings

    def __repr__(self) -> str:
        if self.settings is not None and "roles" not in vars(self):
            return f"Workload({self.name!r}: {self.ranks:,} ranks)"
        return f"Workload({self.name!r}: {self.ranks:,} ranks, {self.nodes:,} nodes)"

    def graph(self) -> Graph:
        """The graph that `load` would make of the written files; its cost follows the roles, not the ranks.

        Raises:
            InputError: a send without its receive, or the reverse; a job too large for memory.
        """
        return assemble(self.name, self.roles, self.step() if self.step else None)

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
            InputError: the folder cannot be made, or holds such a trace already; a send without its receive.
        """
        return write(self.graph(), Path(folder), prefix, overwrite=overwrite)
