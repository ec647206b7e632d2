"""What is wrong with an input, collected so that everything is reported at once."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError, one_line

SHOWN_IDS = 5
SHOWN_PROBLEMS = 20


@dataclass(frozen=True)
class Finding:
    """One finding: where it is, what was found, and the way out."""

    level: str
    code: str
    rank: int | None
    nodes: tuple[int, ...]
    message: str
    remedy: str = ""

    def __str__(self) -> str:
        where = "" if self.rank is None else f"rank {self.rank}"
        if self.nodes:
            shown = ", ".join(map(str, self.nodes[:SHOWN_IDS]))
            more = len(self.nodes) - SHOWN_IDS
            plural = "nodes" if len(self.nodes) > 1 else "node"
            where += f" {plural} {shown}" + (f" and {more} more" if more > 0 else "")
        text = f"{self.level}: {where.strip()}{': ' if where else ''}{self.message}"
        text += f". {self.remedy}" if self.remedy else ""
        return "\n".join(map(one_line, text.split("\n")))


def warning(code: str, message: str, *, rank: int | None = None, remedy: str = "") -> Finding:
    """A finding that stops nothing, about a rank or (None) about all of them."""
    return Finding("warning", code, rank, (), message, remedy)


def texts(problems: Iterable[Finding]) -> list[str]:
    """A line for each finding; the same on several ranks once, under the first of them."""
    alike: dict[tuple[Any, ...], list[Finding]] = {}
    for p in problems:
        alike.setdefault((p.level, p.code, p.message, p.remedy), []).append(p)
    lines: list[str] = []
    for (first, *others), ranks in ((same, {p.rank for p in same}) for same in alike.values()):
        more = f" (the same on {len(ranks) - 1} more rank{'s' if len(ranks) > 2 else ''})"
        if others and len(ranks) == 1:  # on one rank each of them says something
            lines += map(str, (first, *others))
        else:
            lines.append(str(first) + (more if others else ""))
    return lines


@dataclass
class Findings:
    """The findings about one input; errors whose code is in `lenient` count as warnings."""

    source: str
    lenient: frozenset[str] = frozenset()
    found: list[Finding] = field(default_factory=list)

    def add(
        self,
        level: str,
        code: str,
        message: str,
        *,
        rank: int | None = None,
        nodes: Iterable[int] = (),
        remedy: str = "",
    ) -> None:
        """Note one finding; `nodes` are node ids."""
        ids = tuple(int(n) for n in nodes)
        level = "warning" if code in self.lenient else level
        self.found.append(Finding(level, code, rank, ids, message, remedy))

    def errors(self, *, strict: bool = False) -> list[Finding]:
        """The findings that stop the work; warnings too where `strict`."""
        return [p for p in self.found if strict or p.level == "error"]

    def warnings(self) -> list[Finding]:
        """The findings that do not stop it."""
        return [p for p in self.found if p.level == "warning"]

    def check(self, *, strict: bool = False) -> None:
        """Raise one `TraceError` that holds every error."""
        errors = self.errors(strict=strict)
        if errors:
            found = texts(errors)
            lines = [f"  {text}" for text in found[:SHOWN_PROBLEMS]]
            if len(found) > SHOWN_PROBLEMS:
                lines.append(f"  and {len(found) - SHOWN_PROBLEMS} more")
            count = f"{len(errors)} problem{'s' if len(errors) > 1 else ''}"
            raise TraceError(f"{self.source}: {count}", *"\n".join(lines).split("\n"))


class RankFindings:
    """Findings about one rank, by a mask of its nodes."""

    def __init__(self, rank: int, ids: NDArray[np.uint64], findings: Findings):
        self.rank, self.ids, self.findings = rank, ids, findings

    def error(self, code: str, where: NDArray[np.bool_], message: str, remedy: str = "") -> None:
        """Stop the work where any node is marked."""
        self._add("error", code, where, message, remedy)

    def warning(self, code: str, where: NDArray[np.bool_], message: str, remedy: str = "") -> None:
        """Say so where any node is marked, and go on."""
        self._add("warning", code, where, message, remedy)

    def _add(
        self, level: str, code: str, where: NDArray[np.bool_], message: str, remedy: str
    ) -> None:
        if np.any(where):
            self.findings.add(
                level, code, message, rank=self.rank, nodes=self.ids[where], remedy=remedy
            )
