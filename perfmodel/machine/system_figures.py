"""How a figure stands in a file of hwdb or of one's own: a text with its unit, with a source and a status.

    power = "700 W"
    latency = { value = "0.6 us", source = "NVIDIA/nccl, src/graph/tuning.cc", status = "assumed" }

`source` and `status` of a section hold for its figures that have none of their own.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perfmodel import units
from perfmodel.errors import SystemFileError

LARGEST_FILE = 1 << 20
"""Bytes; those of hwdb have some kB."""

STATUS = {
    "": "as the source has it",
    "derived": "calculated from figures that the source names",
    "measured": "measured, not a data sheet's",
    "weak": "an estimate, a reseller's or the press's",
    "assumed": "another machine's, because none is published",
    "extrapolated": "beyond what its source covers",
}
"""How far a figure is to be trusted, and what that means."""

DOUBTFUL = ("weak", "assumed", "extrapolated")
"""The statuses that every result says of the figures it uses."""


@dataclass(frozen=True)
class Fact:
    """A figure as a file gives it: path, value in SI, its SI unit, who says so, how far to trust it (`STATUS`)."""

    path: str
    value: float
    unit: str
    source: str
    status: str = ""


Mark = tuple[str, str]
"""Source and status."""


def mark(table: Mapping[str, Any], where: str, outer: Mark = ("", "")) -> Mark:
    """Source and status of a section's figures that have none of their own.

    Args:
        table: the section, or one figure's table. where: file and section, for messages.
        outer: what holds around it.

    Raises:
        SystemFileError: no text, or a status that is none of `STATUS`.
    """
    source = text(table.get("source", outer[0]), f"{where}.source")
    status = text(table.get("status", outer[1]), f"{where}.status")
    if status not in STATUS:
        raise SystemFileError(
            f"{where}.status: got {status!r}, {offer(status, tuple(filter(None, STATUS)))}"
        )
    return source, status


def figure(path: str, entry: Any, unit: str, default: Mark, where: str) -> Fact:
    """One figure in SI.

    Args:
        path: what it is called. entry: as the file has it, None where it is missing.
        unit: SI unit. default: source and status where it has none. where: the file, for messages.

    Raises:
        SystemFileError: file and path, what was found, what was expected.
    """
    where = f"{where}: {path}"
    if isinstance(entry, dict):
        check_keys(entry, ("value", "source", "status"), where)
        default = mark(entry, where, default)
        entry = entry.get("value")
    return Fact(path, units.parse(entry, unit, where=where, zero=unit == "s"), unit, *default)


def toml(path: Path) -> dict[str, Any]:
    """A TOML file as Python has it; a byte-order mark at its head is passed over.

    Raises:
        SystemFileError: it cannot be read, or is too long, or no TOML.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SystemFileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise SystemFileError(f"{path}: more than {LARGEST_FILE} bytes, which is no system file")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise SystemFileError(f"{path}: not a TOML file: {error}") from error


def check_keys(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise SystemFileError(f"{where}: unknown key {key!r}; {offer(key, keys)}")


def offer(word: str, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def as_table(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise SystemFileError(f"{where}: got {entry!r}, expected a table")
    return entry


def table_list(entry: Any, where: str) -> list[Any]:
    if not isinstance(entry, list):
        raise SystemFileError(f"{where}: got one table, expected a list: write [[network]]")
    return entry


def text(entry: Any, where: str) -> str:
    if not isinstance(entry, str):
        raise SystemFileError(f"{where}: got {entry!r}, expected text")
    return entry
