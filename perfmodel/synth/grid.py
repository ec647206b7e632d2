"""Where the ranks of a training job sit, and which of them communicate."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from perfmodel.synth.layout import (
    CONTEXT,
    DATA,
    EXPERT,
    EXPERT_DATA,
    EXPERT_REPLICA,
    EXPERT_SHARD,
    EXPERT_TENSOR,
    MODEL,
    REPLICA,
    SHARD,
    TENSOR,
    TIED,
    Communicators,
    communicators,
)
from perfmodel.synth.settings import Settings


@dataclass(frozen=True)
class Grid:
    """Ranks of a job: `rank_order` names its dimensions, the first varies fastest.

    Within a stage, tensor is fastest, then context, then data; experts lie on the same ranks as expert-tensor
    fastest, then expert, then the replicas of an expert.
    """

    settings: Settings

    @cached_property
    def rank(self) -> NDArray[np.int32]:
        """[p, D, c, t] the rank at each position."""
        s = self.settings
        found = np.arange(s.ranks, dtype=np.int32)
        if s.rank_order.endswith("pipeline-data"):
            return (
                found.reshape(s.data, s.pipeline, s.context, s.tensor).transpose(1, 0, 2, 3).copy()
            )
        return found.reshape(s.pipeline, s.data, s.context, s.tensor)

    @cached_property
    def stage(self) -> NDArray[np.int32]:
        """[R] the stage of each rank."""
        found = np.zeros(self.settings.ranks, np.int32)
        found[self.rank] = np.arange(self.settings.pipeline)[:, None, None, None]
        return found

    def experts(self) -> NDArray[np.int32]:
        """[p, expert data, ep, et] the rank at each position of experts."""
        s = self.settings
        return self.rank.reshape(s.pipeline, -1, s.expert, s.expert_tensor)

    def of_stage(self, stage: int, index: int | None = None) -> NDArray[np.int32]:
        """The ranks of a stage, ascending; of one place of the expert groups, where that is given."""
        if index is None:
            return np.sort(self.rank[stage].ravel())
        return np.sort(self.experts()[stage, :, index].ravel())

    def first_of_stages(self) -> tuple[int, ...]:
        """The rank at the first position of every stage."""
        return tuple(int(r) for r in self.rank[:, 0, 0, 0])

    @cached_property
    def groups(self) -> dict[str, Communicators]:
        """The groups by label."""
        s, r = self.settings, self.rank
        x = self.experts()
        p, t = s.pipeline, s.tensor
        data = r.reshape(p, s.replicas, t).transpose(0, 2, 1)
        found = {
            TENSOR: r.reshape(-1, t),
            CONTEXT: r.transpose(0, 1, 3, 2).reshape(-1, s.context),
            DATA: data.reshape(-1, s.replicas),
            EXPERT: x.transpose(0, 1, 3, 2).reshape(-1, s.expert),
            EXPERT_TENSOR: x.reshape(-1, s.expert_tensor),
            EXPERT_DATA: x.transpose(0, 2, 3, 1).reshape(-1, s.expert_replicas),
            MODEL: r.transpose(1, 2, 0, 3).reshape(-1, p * t),
        }
        if s.sharding == "hybrid":
            parts = data.reshape(p, t, -1, s.shard_ranks)
            found[SHARD] = parts.reshape(-1, s.shard_ranks)
            found[REPLICA] = parts.transpose(0, 1, 3, 2).reshape(-1, parts.shape[2])
            shards = x.transpose(0, 2, 3, 1).reshape(
                p, s.expert, s.expert_tensor, -1, s.expert_shards
            )
            found[EXPERT_SHARD] = shards.reshape(-1, s.expert_shards)
            found[EXPERT_REPLICA] = shards.swapaxes(3, 4).reshape(-1, shards.shape[3])
        if p > 1:
            found[TIED] = np.stack([r[0].ravel(), r[-1].ravel()], axis=1)
        return {label: communicators(members, s.ranks) for label, members in found.items()}
