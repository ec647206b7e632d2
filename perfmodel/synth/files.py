"""A workload as Chakra trace files: one per rank, and the communicator groups beside them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perfmodel.errors import InputError
from perfmodel.synth.assemble import FIRST_ID, number_groups
from perfmodel.synth.role import Role, ordered
from perfmodel.synth.steps import WORLD, Steps
from perfmodel.trace import chakra
from perfmodel.vocabulary import NodeType

VERSION = "1.0.0"
GROUPS = "comm_groups.json"


def write(
    name: str, roles: Sequence[Role], folder: Path, prefix: str, *, overwrite: bool = False
) -> Path:
    """Write a workload's files (see `Workload.write`)."""
    table = number_groups(name, roles)
    _make_room(folder, prefix, overwrite)
    names = table.names()
    for role, slots, groups in zip(ordered(name, roles), table.slots, table.of_role):
        trace, offset = _trace(role.steps, slots, name)
        send = (trace.type == NodeType.COMM_SEND) & (offset != 0)
        receive = (trace.type == NodeType.COMM_RECV) & (offset != 0)
        for rank, row in zip(role.ranks.tolist(), groups):
            mine = replace(
                trace,
                comm_dst=np.where(send, rank + offset, -1),
                comm_src=np.where(receive, rank + offset, -1),
                group=_without_world(trace.group, row),
                group_names=tuple(names[g] for g in row),
            )
            chakra.write_bytes(folder / f"{prefix}.{rank}.et", chakra.encode(mine))
    if len(table.members) > 1:
        lines = [f'  "{name}": {list(ranks)}' for name, ranks in zip(names[1:], table.members[1:])]
        text = "{\n" + ",\n".join(lines) + "\n}\n"
        chakra.write_bytes(folder / GROUPS, text.encode())
    return folder / prefix


def _trace(steps: Steps, slots: list[str], source: str) -> tuple[chakra.RankTrace, np.ndarray]:
    """Columns of a role's file before ranks differ, `group` being the slot; and [n] peer offsets."""
    nodes = steps.nodes
    place = {label: index for index, label in enumerate(slots)}
    world = place.get(WORLD, -1)
    message = [s.type in (NodeType.COMM_SEND, NodeType.COMM_RECV) for s in nodes]
    ptr = np.cumsum([0, *(len(s.after) for s in nodes)])
    after = np.array([p + FIRST_ID for s in nodes for p in s.after], np.uint64)
    trace = chakra.build(
        [s.name for s in nodes],
        [int(s.type) for s in nodes],
        id=np.arange(FIRST_ID, FIRST_ID + len(nodes)),
        data_deps=(ptr, after),
        group=[place.get(s.group, world) if s.group else -1 for s in nodes],
        is_cpu=0,
        num_ops=[s.flops for s in nodes],
        tensor_size=[s.bytes for s in nodes],
        comm_type=[s.comm_type for s in nodes],
        comm_size=[s.size for s in nodes],
        comm_tag=[s.tag if m else -1 for s, m in zip(nodes, message)],
        version=VERSION,
        source=source,
    )
    return trace, np.array([s.offset for s in nodes], np.int64)


def _without_world(slot: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Slots of the nodes, absent where the slot is the world: files name no group there."""
    if not len(groups):
        return slot
    return np.where((slot >= 0) & (groups[slot] == 0), -1, slot).astype(np.int32)


def _make_room(folder: Path, prefix: str, overwrite: bool) -> None:
    """Make the folder, and take away a trace of the same prefix if it may be replaced."""
    if not prefix or re.search(r"[/\\]", prefix):
        raise InputError(f"prefix: got {prefix!r}, expected the beginning of a file's name.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}).") from error
    own = re.compile(re.escape(prefix) + r"\.\d+\.et")
    old = [f for f in folder.iterdir() if own.fullmatch(f.name) or f.name == GROUPS]
    if old and not overwrite:
        raise InputError(
            f"{folder}: holds a trace already ({sorted(f.name for f in old)[0]} and"
            f" {len(old) - 1} more files). Choose another folder, or say --overwrite."
        )
    for file in old:
        file.unlink()
