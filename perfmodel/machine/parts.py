"""Links, switches and memories of hwdb: what machines are made of, each figure with its unit and its source.

They stand in hwdb/parts, one file a kind and one table a part. Accelerators name their links (`[[npu.link]]`), systems
the link and the switch of a dimension; figures that both have agree (a test holds them together).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfmodel.machine.hwdb import find_hwdb
from perfmodel.machine.system_figures import Fact, check_keys, figure, mark, toml

KINDS = {"link": "links.toml", "switch": "switches.toml", "memory": "memories.toml"}
"""Kind of part -> its file."""

FIGURES = {
    "bandwidth": "B/s",
    "reached_bandwidth": "B/s",
    "lane_bandwidth": "B/s",
    "lanes": "1",
    "links": "1",
    "chips": "1",
    "ports": "1",
    "total_bandwidth": "B/s",
    "bisection_bandwidth": "B/s",
    "latency": "s",
    "capacity": "B",
    "power": "W",
    "price": "$",
    "price_per_capacity": "$/B",
    "energy_per_byte": "J/B",
}
"""Figure of a part -> unit."""


@dataclass(frozen=True)
class Part:
    """A link, a switch or a memory: name, kind, title for people, and its figures."""

    name: str
    kind: str
    title: str
    facts: tuple[Fact, ...]

    def fact(self, path: str) -> Fact | None:
        """The figure of that name; None if not known."""
        return next((f for f in self.facts if f.path == path), None)


def parts(kind: str | None = None) -> dict[str, Part]:
    """The parts of hwdb by name, of one kind or of all.

    >>> parts("link")["nvlink-4"].fact("bandwidth").value
    25000000000.0
    """
    found = {}
    for word, name in KINDS.items():
        if kind in (None, word):
            path = find_hwdb() / "parts" / name
            for part, table in toml(path).items():
                found[part] = _part(part, word, table, f"{path}: {part}")
    return found


def _part(name: str, kind: str, table: Any, where: str) -> Part:
    check_keys(table, ("title", "source", "status", *FIGURES), where)
    default = mark(table, where)
    facts = tuple(
        figure(key, table[key], unit, default, where)
        for key, unit in FIGURES.items()
        if key in table
    )
    return Part(name, kind, str(table.get("title", name)), facts)
