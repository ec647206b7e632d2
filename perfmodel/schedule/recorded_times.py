"""Recorded times on other hardware: each is the model's time there, times what recording and model differ by here.

    time on a system = recorded time x model(system) / model(recorded device)

so that on the recorded device it is the recording, whatever the model makes of it, and elsewhere the model's ratio
counts. The factor recorded / model(recorded device) becomes the node's `scale`.

What has no ratio keeps its recorded time: the host's time, transfers to and from the host, collectives of unknown
size, barriers among them.
A kernel whose work nobody knows is taken to be bound by memory (most of those are fused elementwise kernels and
gathers): it moves as many bytes as the recorded device can in its time.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.machine.hwdb import accelerators, holders
from perfmodel.machine.system import Dimension, System
from perfmodel.models.fitted import hardware
from perfmodel.models.shared_costs import Costs
from perfmodel.schedule.tasks import build
from perfmodel.vocabulary import NodeType
from perfmodel.workload.graph import Graph, parted
from perfmodel.workload.program import Program, digest_of

_MEMORY = re.compile(r"-\d+$")


def recorded_system(name: str, ranks: int) -> System | None:
    """The machine of a recording: a system; or an accelerator in the first system of hwdb that is made of it.

    An accelerator that comes with more or less memory is looked for in systems made of its siblings, too (dgx-1v has
    v100-sxm-16; its network is that of a v100-sxm-32, too).

    Args:
        name: of a system or an accelerator.
        ranks: how many took part.

    Returns:
        None where no system in hwdb is made of the accelerator and can have the ranks.

    Raises:
        SystemFileError: no such name.
    """
    system = hardware(name)
    if ranks == 1 or system.network:
        return system.resized(ranks)
    stem = _MEMORY.sub("", name)
    family = [name, *(a for a in accelerators() if a != name and _MEMORY.sub("", a) == stem)]
    for holder in [h for member in family for h in holders(member)]:
        try:
            return replace(hardware(holder).resized(ranks), npu=system.npu)
        except InputError:
            continue
    return None


def on_hardware(graph: Graph, system: System, models: Any) -> tuple[Graph, dict[str, Any]]:
    """The graph to be scheduled, and what `tasks.build` is told of it.

    A recording whose device is known goes by ratios; one of an unknown device keeps its recorded times, as it does
    where the models prefer them.
    """
    recorded = graph.recorded
    if recorded is None:
        return graph, {"prefer": models.prefer}
    if not recorded.device or models.prefer == "recorded":
        return graph, {"prefer": "recorded"}
    device = recorded_system(recorded.device, graph.ranks)
    if device is None:
        warnings.warn(
            f"{graph.source}: was recorded on {recorded.device}, of which no system in hwdb with {graph.ranks} ranks "
            'is made: collectives keep their recorded times on other hardware. Name a system: recorded_on="dgx-a100"',
            stacklevel=3,
        )
        lonely = Dimension(1.0, 1.0, "switch", graph.ranks)
        device = replace(hardware(recorded.device), network=(lonely,))
        graph = replace(graph, programs=tuple(map(_without_sizes, graph.programs)))
    own = models is system.models and device.models is not None
    return in_ratio(graph, device, device.models if own else models), {
        "prefer": "recorded",  # what has a ratio has no record any more
        "quickest": True,
    }


def _without_sizes(p: Program) -> Program:
    """Collectives and messages go by their record where they have one."""
    return replace(p, size=np.where(np.isnan(p.duration), p.size, -1))


def in_ratio(graph: Graph, device: System, models: Any) -> Graph:
    """The graph with every recorded time as a factor on the model's.

    Args:
        graph: a recording.
        device: what it was recorded on, of the graph's size.
        models: what turns work into time on that device.
    """
    asked = replace(graph, programs=tuple(_asked(p, device) for p in graph.programs))
    tasks = build(asked, device, merge_ranks=False)
    cost = np.append(np.asarray(Costs(tasks.work)(device, models), np.float64), 0.0)[tasks.cost]
    there = []
    for rank in range(graph.ranks):
        recorded = ~np.isnan(graph.programs[graph.program[rank]].duration)
        there.append(np.where(recorded, cost[slice(*graph.offset[rank : rank + 2])], 0.0))
    # ranks of one program may lie differently in the network of the recorded device
    graph = parted(graph, [digest_of({"seconds": seconds}) for seconds in there])
    programs = (_scaled(p, _asked(p, device), there[p.ranks[0]]) for p in graph.programs)
    return replace(graph, programs=tuple(programs))


def _asked(p: Program, device: System) -> Program:
    """A program whose recorded nodes are to be asked of the model, at a scale of 1."""
    recorded = ~np.isnan(p.duration)
    comp = (p.type == NodeType.COMP) & ~p.cpu
    memory = np.isin(p.type, (NodeType.MEM_LOAD, NodeType.MEM_STORE)) & (p.bytes >= 0)
    sized = np.isin(p.type, (NodeType.COMM_COLL, NodeType.COMM_SEND)) & (p.size >= 0)
    unknown = comp & recorded & (p.flops < 0) & (p.bytes < 0)
    moved = np.where(unknown, p.duration, 0.0) * float(np.asarray(device.npu.memory_bandwidth))
    changes: dict[str, Any] = {
        "flops": np.where(unknown, 0, p.flops),
        "bytes": np.where(unknown, np.maximum(moved, 1).astype(np.int64), p.bytes),
        "duration": np.where(comp | memory | sized, np.nan, p.duration),
        "scale": np.ones(len(p)),
    }
    return replace(p, **changes)


def _scaled(p: Program, asked: Program, model: NDArray[np.float64]) -> Program:
    """The asked program with factors; what the model has no time for goes back to its record."""
    relative = ~np.isnan(p.duration) & np.isnan(asked.duration) & (model > 0)
    factor = np.divide(p.duration, model, out=np.ones(len(p)), where=relative)
    return replace(
        p,
        flops=np.where(relative, asked.flops, np.where(np.isnan(p.duration), p.flops, -1)),
        bytes=np.where(relative, asked.bytes, np.where(np.isnan(p.duration), p.bytes, -1)),
        size=np.where(relative | np.isnan(p.duration), p.size, -1),
        duration=np.where(relative, np.nan, p.duration),
        scale=p.scale * factor,
    )
