"""Ranks that do the same: what they do, said once for all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.synth.columns import Columns, columns
from perfmodel.synth.layout import Communicators
from perfmodel.synth.steps import Steps


@dataclass(frozen=True, eq=False)
class Role:
    """Steps, and the ranks that do them.

    Attributes:
        steps: the nodes, as `Steps` or as columns.
        ranks: [m] i32, ascending; any list of numbers will do.
        groups: label to groups; a collective takes the group that its own rank is in.
    """

    steps: Steps | Columns
    ranks: NDArray[np.int32]
    groups: Mapping[str, Communicators] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ranks", np.asarray(self.ranks, np.int32))

    @cached_property
    def columns(self) -> Columns:
        """The nodes as arrays."""
        return self.steps if isinstance(self.steps, Columns) else columns(self.steps.nodes)


def ordered(name: str, roles: Sequence[Role]) -> list[Role]:
    """Roles by their first rank; every rank must have exactly one."""
    in_order = sorted(roles, key=lambda role: int(role.ranks[0]))
    ranks = np.sort(np.concatenate([role.ranks for role in roles]))
    if not np.array_equal(ranks, np.arange(len(ranks))):
        raise InputError(
            f"{name}: the ranks of its roles are not 0 to {len(ranks) - 1}, each once."
            " Give every rank one role."
        )
    return in_order
