"""ASTRA-sim's inputs and exact semantics, and what it leaves silent as a diagnosis.

A run that ends there without a fault has the same cycles here. Where the simulator aborts after, or instead of, its
results (nodes other than compute and communication in its statistics, an event at time 0, the double free at its
exit), the run goes on here. Not predictable is PER_NODE_MEMORY_EXPANSION: after each transfer the simulator reads the
request whose memory it has given back. Most runs go on as a plain queue, which is what is computed here; others stop
there, depending on what the heap holds.

simulate: cycles and exposed communication of every rank, as the simulator prints them
load: the same inputs as (graph, system, models), to sweep, differentiate and explain
read_config, read_flat: configuration files and traces as the simulator takes them
lower: a workload on a configuration, to run and re-cost at any design (`Lowered`)
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.astra import event_run
from perfmodel.astra.config import Config, read_config, warn_of_ignored
from perfmodel.astra.custom_files import warn_of_sizes
from perfmodel.astra.deadlock import diagnose, require_finished
from perfmodel.astra.event_run import EventGraph, Run, along
from perfmodel.astra.lower import Lowered, lower
from perfmodel.astra.traces import read_flat, warn_of_left_out
from perfmodel.vocabulary import describe

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.astra.models import AstraModels, load

__all__ = [
    "AstraModels",
    "Config",
    "EventGraph",
    "Lowered",
    "Result",
    "Run",
    "along",
    "diagnose",
    "exposed",
    "load",
    "lower",
    "read_config",
    "read_flat",
    "simulate",
]


def __getattr__(name: str) -> Any:
    """What needs JAX is imported when it is asked for: a plain run does without."""
    if name not in ("AstraModels", "load"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from perfmodel.astra import models

    return getattr(models, name)


@dataclass(frozen=True, eq=False)
class Result:
    """What ASTRA-sim prints, and what is behind it.

    Attributes:
        cycles: end of each rank [ns]. exposed: cycles less the GPU compute time of the rank [ns].
        run: issue and end of every node. lowered: the workload it was computed from.
    """

    cycles: list[int]
    exposed: list[int]
    run: Run
    lowered: Lowered

    def nodes(self) -> pd.DataFrame:
        """A row per node in the order rank, position in the file: issue and end [ns]."""
        flat = self.lowered.flat
        import pandas as pd

        kinds = zip(flat.type.tolist(), flat.comm_type.tolist(), strict=True)
        return pd.DataFrame(
            {
                "rank": flat.rank,
                "node_id": flat.node_id,
                "name": flat.names if flat.names else "",
                "type": [describe(kind, collective) for kind, collective in kinds],
                "issue_ns": self.run.issue.astype(np.int64),
                "finish_ns": self.run.finish.astype(np.int64),
            }
        )


def simulate(
    prefix: str | Path,
    system: str | Path,
    network: str | Path,
    remote_memory: str | Path | None = None,
    comm_group: str | Path | None = None,
    backend: str = "unaware",
    *,
    queues: int = 1,
    injection_scale: float = 1.0,
    rendezvous: bool = False,
) -> Result:
    """Cycles as ASTRA-sim's analytical backends print them.

    Events are simulated to learn the order of everything; the cycles are the longest path over that order, the same
    graph that `load` gives to sweeps and gradients.

    Args:
        prefix: traces are ``<prefix>.<rank>.et`` for all ranks of the network.
        system, network, remote_memory, comm_group: the simulator's configuration files.
        backend: "unaware" or "aware" of congestion.
        queues, injection_scale, rendezvous: ``--num-queues-per-dim``, ``--injection-scale``, ``--rendezvous-protocol``.

    Raises:
        TraceError, SystemFileError: input that the simulator refuses, or would get silently wrong.
        DeadlockError: the run never ends; names the ranks and nodes that wait for each other.
    """
    config = read_config(
        system,
        network,
        remote_memory,
        backend=backend,
        queues=queues,
        injection_scale=injection_scale,
        rendezvous=rendezvous,
    )
    warn_of_ignored(config)
    warn_of_left_out(prefix, config.network.ranks)
    lowered = lower(read_flat(prefix, config.network.ranks, comm_group), config)
    warn_of_sizes(lowered.flat, config)
    cost = lowered.costs()
    run = event_run.run(lowered, cost, record=True)
    require_finished(lowered, run)
    if run.at_zero:
        warnings.warn(
            "an event at time 0, on which ASTRA-sim aborts (an assertion of its event queue): work that takes less "
            "than 1 ns, or endpoint-delay 0, before anything else has happened",
            UserWarning,
            stacklevel=2,
        )
    if config.system.bus is None:  # whose graph may be 1 ns off
        run = along(lowered, run, cost)
    return Result([int(end) for end in run.rank_end], exposed(lowered, cost, run), run, lowered)


def exposed(lowered: Lowered, cost: np.ndarray, run: Run) -> list[int]:
    """Cycles of each rank without the GPU time of its nodes [ns].

    Replayed nodes of all types count as GPU time with ``replay-only``, so that the difference can fall below
    zero; ASTRA-sim prints it as an unsigned number of 64 bits, and so does this.
    """
    time = np.where(lowered.counted, np.append(cost, 0.0)[lowered.node_row], 0.0)
    busy = np.bincount(lowered.flat.rank, weights=time, minlength=lowered.flat.ranks)
    return [int(end - gpu) % 2**64 for end, gpu in zip(run.rank_end, busy, strict=True)]
