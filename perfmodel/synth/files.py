"""A workload as Chakra trace files: one per rank, and the communicator groups beside them.

Files keep what Chakra has words for: operations and bytes, sizes, groups, peers, dependencies, streams by number.
Shapes and types of kernels, and the gap between them, stay behind; an archive (`perfmodel.save`) keeps those, too.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from perfmodel.errors import InputError
from perfmodel.files import remove_leftovers, staging_folder, write_whole
from perfmodel.synth.assemble import FIRST_ID, number_groups, slots_of
from perfmodel.synth.columns import UNITS
from perfmodel.synth.role import Role, ordered
from perfmodel.trace import chakra
from perfmodel.vocabulary import NodeType

VERSION = "1.0.0"
GROUPS = "comm_groups.json"
LONGEST_FILE_NAME = 250

_RANK_FILE = re.compile(r"(?P<prefix>.+)\.\d+\.et(\.gz)?", re.DOTALL)


def write(
    name: str, roles: Sequence[Role], folder: Path, prefix: str, *, overwrite: bool = False
) -> Path:
    """Write a workload's files (see `Workload.write`).

    They are written aside and moved at the end, rank 0 last: an interrupted call leaves the trace that was there, or
    one without rank 0, which does not load, and never fewer ranks that do.
    """
    table = number_groups(name, roles)
    ranks = sum(len(role.ranks) for role in roles)
    _check_prefix(prefix, ranks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}).") from error
    there = _Folder(folder, prefix)
    there.check(overwrite)
    names = table.names()
    with staging_folder(folder) as stage:
        for role, slots, groups in zip(ordered(name, roles), table.slots, table.of_role):
            trace, offset = _trace(role, slots, name), role.columns.offset
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
                file = stage / f"{prefix}.{rank}.et"
                write_whole(file, chakra.encode(mine), durable=False)
        text = ""
        if len(table.members) > 1:
            lines = [
                f'  "{n}": {list(members)}' for n, members in zip(names[1:], table.members[1:])
            ]
            text = "{\n" + ",\n".join(lines) + "\n}\n"
        there.replace(stage, ranks, text)
    remove_leftovers(folder)
    return folder / prefix


class _Folder:
    """A folder to write a trace into, which may hold others."""

    def __init__(self, folder: Path, prefix: str):
        self.folder, self.prefix = folder, prefix
        self.own: list[Path] = []
        self.others: set[str] = set()
        for path in folder.iterdir():
            name = _RANK_FILE.fullmatch(path.name)
            if name and name["prefix"] == prefix:
                self.own.append(path)
            elif name:
                self.others.add(name["prefix"])
        self.own_groups = folder / f"{prefix}.json"

    @property
    def groups_are_taken(self) -> bool:
        """Whether the group file of the common name belongs to another trace, one without a group file of its own."""
        without = [p for p in self.others if not (self.folder / f"{p}.json").is_file()]
        return (self.folder / GROUPS).exists() and bool(without)

    def check(self, overwrite: bool) -> None:
        """Raise InputError where a trace of this prefix, or a group file that nobody owns, may not be replaced."""
        old = sorted(path.name for path in self.own)
        if (self.folder / GROUPS).exists() and not self.groups_are_taken:
            old.append(GROUPS)
        if old and not overwrite:
            raise InputError(
                f"{self.folder}: holds a trace already ({old[0]} and {len(old) - 1} more files)."
                " Choose another folder, or say --overwrite."
            )

    def replace(self, stage: Path, ranks: int, groups: str) -> None:
        """Put the staged files in the place of the old ones; without rank 0 a trace does not load."""
        taken = self.groups_are_taken
        first = self.folder / f"{self.prefix}.0.et"
        first.unlink(missing_ok=True)
        for path in self.own:
            path.unlink(missing_ok=True)
        if taken:  # a file of its own, with nothing in it if there are no groups, comes before the common one
            write_whole(self.own_groups, (groups or "{}\n").encode(), durable=False)
        else:
            self.own_groups.unlink(missing_ok=True)
            if groups:
                write_whole(self.folder / GROUPS, groups.encode(), durable=False)
            else:
                (self.folder / GROUPS).unlink(missing_ok=True)
        for rank in reversed(range(ranks)):
            name = f"{self.prefix}.{rank}.et"
            os.replace(stage / name, self.folder / name)


def _trace(role: Role, slots: list[str], source: str) -> chakra.RankTrace:
    """Columns of a role's file before ranks differ, `group` being the slot."""
    nodes = role.columns
    message = (nodes.type == NodeType.COMM_SEND) | (nodes.type == NodeType.COMM_RECV)
    own = np.array([label in UNITS for label in nodes.resources] + [True])
    recorded = ~np.isnan(nodes.duration)
    return chakra.build(
        nodes.names,
        nodes.type,
        id=np.arange(FIRST_ID, FIRST_ID + len(nodes)),
        data_deps=(nodes.pred_ptr, (nodes.pred + FIRST_ID).astype(np.uint64)),
        group=slots_of(role, slots),
        is_cpu=nodes.host.astype(np.int8),
        num_ops=nodes.flops,
        tensor_size=nodes.bytes,
        duration_us=np.where(recorded, np.rint(np.nan_to_num(nodes.duration) * 1e6), 0).astype(
            np.int64
        ),
        comm_type=nodes.comm_type,
        comm_size=nodes.size,
        comm_tag=np.where(message, nodes.tag, -1),
        stream=np.where(own[nodes.resource], -1, nodes.resource),
        version=VERSION,
        source=source,
    )


def _without_world(slot: np.ndarray, groups: np.ndarray) -> np.ndarray:
    """Slots of the nodes, absent where the slot is the world: files name no group there."""
    if not len(groups):
        return slot
    return np.where((slot >= 0) & (groups[slot] == 0), -1, slot).astype(np.int32)


def _check_prefix(prefix: str, ranks: int) -> None:
    """Raise InputError unless files can begin with it and be found again."""
    good = isinstance(prefix, str) and prefix.isprintable() and not re.search(r"[/\\]", prefix)
    if not good or not prefix or prefix.startswith((".", "-")):
        raise InputError(
            f"prefix: got {prefix!r:.60}, expected the beginning of a file's name, which has no / and does not begin"
            ' with "." or "-".'
        )
    if len(os.fsencode(f"{prefix}.{ranks}.et")) > LONGEST_FILE_NAME:
        raise InputError(
            f"prefix: has {len(prefix)} characters. Names of files have {LONGEST_FILE_NAME} bytes at most."
        )
