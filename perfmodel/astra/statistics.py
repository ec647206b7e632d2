"""The statistics that ASTRA-sim prints when a rank ends: time by kind of node, overlap, utilisations.

Sums and the order of lines follow the walk over the simulator's hash table of nodes, which are put in as they are
issued.

Source: ASTRA-sim's Statistics at 518bd51.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from perfmodel.astra.event_run import Run
from perfmodel.astra.hash_order import walk
from perfmodel.astra.lower import Lowered
from perfmodel.vocabulary import NodeType

CPU, GPU, COMM, REMOTE, _, INVALID = range(6)
LABELS = {
    CPU: "CPU time",
    GPU: "GPU time",
    COMM: "Comm time",
    REMOTE: "Remote mem time",
    INVALID: "Invalid time",
}


@dataclass(frozen=True, eq=False)
class Rooflines:
    """The roofline of every node, [N] by row; nan where a node has none.

    Attributes:
        intensity: [FLOP/B]. attainable: [FLOP/s]. seconds: [s]. compute, memory: utilisation, from 0 to 1.
    """

    intensity: NDArray[np.float64]
    attainable: NDArray[np.float64]
    seconds: NDArray[np.float64]
    compute: NDArray[np.float64]
    memory: NDArray[np.float64]


def rooflines(lowered: Lowered) -> Rooflines:
    """What the simulator computes of the nodes that it costs by roofline, in its order of operations."""
    flat, system = lowered.flat, lowered.config.system
    which = (flat.type == NodeType.COMP) & ~flat.is_cpu & (flat.tensor_size > 0)
    which &= system.roofline and not system.replay
    operations = np.where(which, flat.num_ops, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        intensity = operations / np.where(which, flat.tensor_size, np.nan)
        attainable = np.minimum(system.memory_bandwidth * intensity, system.peak_flops)
        return Rooflines(
            intensity,
            attainable,
            operations / attainable,
            attainable / system.peak_flops,
            (attainable / intensity) / system.memory_bandwidth,
        )


class Statistics:
    """The lines of every rank of a run."""

    def __init__(self, lowered: Lowered, run: Run):
        self.lowered, self.run, self.rooflines = lowered, run, rooflines(lowered)
        flat = lowered.flat
        kind = np.full(len(flat.type), COMM)
        kind[flat.type == NodeType.COMP] = GPU
        kind[(flat.type == NodeType.COMP) & flat.is_cpu] = CPU
        kind[(flat.type == NodeType.MEM_LOAD) | (flat.type == NodeType.MEM_STORE)] = REMOTE
        kind[flat.type <= NodeType.METADATA] = INVALID
        self.kind = kind
        rows = run.issued(lowered)
        self.rows = rows[np.argsort(flat.rank[rows], kind="stable")]
        self.first = np.searchsorted(flat.rank[self.rows], np.arange(flat.ranks + 1))

    def of(self, rank: int) -> Iterator[str]:
        """The lines of a rank; an empty one where the simulator gives up, as beside compute and communication."""
        rows = self.rows[self.first[rank] : self.first[rank + 1]]
        rows = rows[walk(self.lowered.flat.node_id[rows])]
        start, end = self.run.issue[rows], self.run.finish[rows]
        kinds = self.kind[rows]
        seen = kinds[np.sort(np.unique(kinds, return_index=True)[1])]
        for _ in range(2):  # a table of kinds is copied into another one
            seen = seen[walk(seen)]
        time = {int(k): _covered(start[kinds == k], end[kinds == k]) for k in seen}
        wall = int(end.max())
        if set(time) - {GPU, COMM}:
            yield ""
            return
        yield f"Wall time: {wall}"
        for k, value in time.items():
            yield f"{LABELS[k]}: {value}"
        overlap = (time[GPU] + time[COMM] - wall) % 2**64 if len(time) == 2 else 0
        if overlap > 0:
            yield f"Total compute-communication overlap: {overlap}"
        if self.lowered.config.system.roofline:
            yield from self._utilisations(rows[(kinds == CPU) | (kinds == GPU)])

    def _utilisations(self, rows: NDArray[np.int64]) -> Iterator[str]:
        """Means over the time of compute nodes, to which the simulator adds 1 ns."""
        duration = self.run.finish[rows] - self.run.issue[rows]
        total = 1 + duration.sum()
        lines = self.rooflines
        bound = duration[lines.attainable[rows] >= self.lowered.config.system.peak_flops].sum()
        yield f"Compute bound percentage: {bound / total * 100:.3f}%"
        for name, values, scale, unit in (
            ("compute utilization", lines.compute, 100, "%"),
            ("memory utilization", lines.memory, 100, "%"),
            ("operation intensity", lines.intensity, 1, ""),
        ):
            known = ~np.isnan(values[rows])
            weighted = np.cumsum(values[rows][known] * duration[known])
            mean = (weighted[-1] if len(weighted) else 0.0) / total
            yield f"Average {name}: {mean * scale:.3f}{unit}"


def _covered(start: NDArray[np.float64], end: NDArray[np.float64]) -> int:
    """Time in which at least one interval runs [ns].

    >>> _covered(np.array([0.0, 2.0, 9.0]), np.array([5.0, 7.0, 10.0]))
    8
    """
    order = np.lexsort((end, start))
    start, latest = start[order], np.maximum.accumulate(end[order])
    begins = np.flatnonzero(np.append(True, start[1:] > latest[:-1]))
    ends = np.append(latest[begins[1:] - 1], latest[-1])
    return int((ends - start[begins]).sum())
