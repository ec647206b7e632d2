"""hwdb as tables: every figure of every accelerator, system, link, switch and memory, with unit, status and source."""

from __future__ import annotations

import difflib
from typing import Any

import pandas as pd

from perfmodel.errors import SystemFileError
from perfmodel.machine import hwdb, system_file
from perfmodel.machine.parts import KINDS as PARTS
from perfmodel.machine.parts import parts
from perfmodel.machine.system_figures import Fact

KINDS = ("system", "accelerator", *PARTS)
"""What stands in hwdb."""

GENERAL = ("npu.peak_flops", "npu.energy_per_flop")
"""Figures that a system has for its own dtype, left out where there is one for each dtype."""

COLUMNS = ["name", "kind", "figure", "value", "unit", "status", "source"]


def catalogue(name: str | None = None, *, kind: str | None = None) -> pd.DataFrame:
    """Every figure of hwdb, or of one name or one kind, a row each.

    Args:
        name: a system, an accelerator, a link, a switch or a memory of hwdb, or the path of a system file.
        kind: system, accelerator, link, switch or memory.

    Returns:
        name, kind, figure (a path such as npu.power; a peak rate's ends in its dtype, one with sparsity is of
        npu.sparse_peak_flops), value in SI, unit, status ("": as the source has it; derived, measured, weak, assumed,
        extrapolated), source. What is not known is not there.

    Raises:
        SystemFileError: no such name or kind.

    >>> table = catalogue("h100-sxm").set_index("figure")
    >>> float(table.value["npu.peak_flops.fp8"])
    1979000000000000.0
    """
    if kind is not None and kind not in KINDS:
        raise SystemFileError(f"kind {kind!r}: expected one of {', '.join(KINDS)}")
    known = parts()
    if name is None:
        chosen = [*hwdb.systems(), *hwdb.accelerators(), *known]
    else:
        chosen = [str(name)]
    rows: list[tuple[Any, ...]] = []
    for each in chosen:
        word, title, facts = _entry(each, known)
        if kind in (None, word):
            rows += [(title, word, f.path, f.value, f.unit, f.status, f.source) for f in facts]
    return pd.DataFrame(rows, columns=COLUMNS)


def _entry(name: str, known: dict[str, Any]) -> tuple[str, str, list[Fact]]:
    """Kind, name and figures of one entry."""
    if name in known:
        return known[name].kind, name, list(known[name].facts)
    try:
        description = system_file.read(name)
    except SystemFileError:
        near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
        if near:
            raise SystemFileError(
                f"{name!r}: no such name in hwdb; did you mean {' or '.join(near)}?"
            ) from None
        raise
    word = "system" if description.network else "accelerator"
    paths = [fact.path for fact in description.facts]
    facts = [
        f
        for f in description.facts
        if f.path not in GENERAL or f"{f.path}.{description.dtype}" not in paths
    ]
    return word, description.name, facts
