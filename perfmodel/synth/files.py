"""A workload as Chakra trace files in a folder: one per rank, and the communicator groups beside them.

What the files hold is in `workload.trace_files`; loaded again they are the workload's graph.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

from perfmodel.errors import InputError
from perfmodel.files import remove_leftovers, staging_folder, write_whole
from perfmodel.workload.graph import Graph
from perfmodel.workload.trace_files import RankEncoder

GROUPS = "comm_groups.json"
LONGEST_FILE_NAME = 250

_RANK_FILE = re.compile(r"(?P<prefix>.+)\.\d+\.et(\.gz)?", re.DOTALL)


def write(graph: Graph, folder: Path, prefix: str, *, overwrite: bool = False) -> Path:
    """Write a workload's files (see `Workload.write`).

    They are written aside and moved at the end, rank 0 last: an interrupted call leaves the trace that was there, or
    one without rank 0, which does not load, and never fewer ranks that do.
    """
    _check_prefix(prefix, graph.ranks)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made a folder ({error.strerror}).") from error
    there = _TraceFolder(folder, prefix)
    there.check(overwrite)
    encoder = RankEncoder(graph)
    with staging_folder(folder) as stage:
        for rank in range(graph.ranks):
            write_whole(stage / f"{prefix}.{rank}.et", encoder.encode(rank), durable=False)
        there.replace(stage, graph.ranks, encoder.group_file())
    remove_leftovers(folder)
    return folder / prefix


class _TraceFolder:
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

    def replace(self, stage: Path, ranks: int, groups: bytes) -> None:
        """Put the staged files in the place of the old ones; without rank 0 a trace does not load."""
        taken = self.groups_are_taken
        first = self.folder / f"{self.prefix}.0.et"
        first.unlink(missing_ok=True)
        for path in self.own:
            path.unlink(missing_ok=True)
        if taken:  # a file of its own, with nothing in it if there are no groups, comes before the common one
            write_whole(self.own_groups, groups or b"{}\n", durable=False)
        else:
            self.own_groups.unlink(missing_ok=True)
            if groups:
                write_whole(self.folder / GROUPS, groups, durable=False)
            else:
                (self.folder / GROUPS).unlink(missing_ok=True)
        for rank in reversed(range(ranks)):
            name = f"{self.prefix}.{rank}.et"
            os.replace(stage / name, self.folder / name)


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
