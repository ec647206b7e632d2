"""Communicator groups while ranks are joined: names in the trace to numbers in the graph."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from perfmodel.errors import one_line, quoted
from perfmodel.findings import Findings

_NUMBER = re.compile(r"0*(\d+)(?:\.0+)?")


class Groups:
    """Names of groups to numbers; group 0 is the world."""

    def __init__(
        self, named: Mapping[str, tuple[int, ...]], ranks: int, unknown: str, problems: Findings
    ):
        self.named, self.ranks, self.unknown, self.problems = named, ranks, unknown, problems
        self.members: list[tuple[int, ...]] = [tuple(range(ranks))]
        self.names: list[str] = [""]
        self.index: dict[tuple[Any, ...], int] = {}
        self.sets: list[frozenset[int]] = [frozenset(self.members[0])]
        self.number_of_named: dict[str, int] = {}
        self.undefined: set[int] = set()
        self.read_as: set[str] = set()
        self.missing: dict[str, list[tuple[int, list[int]]]] = {}

    def check_members(self, name: str, members: tuple[int, ...]) -> None:
        outside = [m for m in members if not 0 <= m < self.ranks]
        if outside:
            self.problems.add(
                "error",
                "missing-rank",
                f"group {quoted(name)} lists rank {outside[0]}, but the trace has ranks 0 to {self.ranks - 1}",
                remedy="Add the missing ranks' files, or give the right group file with --groups",
            )

    def find(self, name: str, rank: int, own: Mapping[str, Any], nodes: list[int]) -> int:
        """The group called `name` on this rank; `own` are the rank's process groups."""
        if name not in self.named and name not in own:
            name = self._whole(name)
        if name in ("", "0") and name not in self.named:
            return 0
        if name in self.named:
            if name not in self.number_of_named:
                self.number_of_named[name] = self._of_file(name)
            number = self.number_of_named[name]
        elif name in own:
            members = own[name] if own[name] is not None else self.members[0]
            self.check_members(name, members)
            number = self._number(name, members)
        else:
            self.missing.setdefault(name, []).append((rank, nodes))
            if self.unknown == "world":
                return 0
            number = self._number(name, self.members[0])
            self.undefined.add(number)
        if rank not in self.sets[number]:
            self.problems.add(
                "error",
                "not-a-member",
                f"uses group {quoted(name)} = {short(self.members[number])}, which does not list it",
                rank=rank,
                nodes=nodes,
                remedy="Correct the group file",
            )
        return number

    def _whole(self, name: str) -> str:
        """A name such as "1.0" or "01" as the number that ASTRA-sim reads in it; others stay."""
        match = _NUMBER.fullmatch(name)
        if match is None or match[1] == name:
            return name
        if name not in self.read_as:
            self.read_as.add(name)
            self.problems.add(
                "warning",
                "group-name",
                f"group {quoted(name)} is read as {match[1]!r}, as ASTRA-sim reads it",
            )
        return match[1]

    def _of_file(self, name: str) -> int:
        """The number of a group that the file or the caller defines; "0" may be other ranks than all."""
        members = self.named[name]
        if name == "0" and frozenset(members) == self.sets[0]:
            return 0
        if name == "0":
            self.problems.add(
                "warning",
                "group-zero",
                f"group '0' is taken as the group file has it, {short(tuple(members))}; ASTRA-sim stops at this entry"
                " of the file",
                remedy="Give the group another number where the trace is for both",
            )
        return self._number(name, members)

    def _number(self, name: str, members: tuple[int, ...]) -> int:
        key = (name, members)
        if key not in self.index:
            self.index[key] = len(self.members)
            self.members.append(tuple(members))
            self.sets.append(frozenset(members))
            self.names.append(name)
        return self.index[key]

    def report(self) -> None:
        """Note the groups that nobody defines."""
        for name, places in self.missing.items():
            rank, nodes = places[0]
            users = len(places)
            text = f"unknown group {quoted(name)}" + (f" (on {users} ranks)" if users > 1 else "")
            if self.unknown == "world":
                self.problems.add(
                    "warning",
                    "unknown-group",
                    text + ", taken as all ranks",
                    rank=rank,
                    nodes=nodes,
                )
            else:
                self.problems.add(
                    "error",
                    "unknown-group",
                    text + f"; known are {short(tuple(self.named)) or 'none'}",
                    rank=rank,
                    nodes=nodes,
                    remedy=f"Name its ranks with --group {one_line(name, 80)}=0,1,..., give a group file with --groups,"
                    " or say --unknown-group world",
                )
        self.missing = {}


def short(items: tuple[Any, ...], limit: int = 8) -> str:
    text = ", ".join(one_line(str(item), 80) for item in items[:limit])
    return f"[{text}{', ...' if len(items) > limit else ''}]" if items else ""
