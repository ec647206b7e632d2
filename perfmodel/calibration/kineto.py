"""The kernels of a PyTorch recording as measurements: Kineto's device traces, with or without host traces.

A kernel counts where the operator that launched it is known with its shapes, and launched no other kernel: its kind,
dimensions, number format, FLOP and bytes are the operator's. Copies within the device count by their bytes. Of a
collective the least recorded time over its members counts, because the others waited in it for the last; so it counts
only where all members' traces are given.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from perfmodel.errors import InputError
from perfmodel.trace.pytorch.attribution import COPY
from perfmodel.trace.pytorch.read import Recording, read
from perfmodel.vocabulary import COLLECTIVES, DIMENSIONS


def read_kineto(trace: str | Path) -> pd.DataFrame:
    """A row per kernel of known work, and one per collective whose members are all there.

    Args:
        trace: a Kineto file, a folder or a prefix of those of several ranks; host execution traces may lie beside.

    Returns:
        Of kernels kind, its dimensions (`vocabulary.DIMENSIONS`), dtype ("": not known), flops, bytes_B, duration_s,
        name; of collectives collective, size_B (one member's input), ranks (a tuple), duration_s.

    Warns:
        UserWarning: how much of the device's time is left out, and why.

    Raises:
        TraceError: files that are damaged or none of PyTorch's.
        InputError: nothing that can be measured against.
    """
    recording = read(trace, step="file")
    rows = [row for columns in recording.ranks for row in _kernels(columns)]
    rows += _collectives(recording)
    if not rows:
        raise InputError(
            f"{trace}: no kernel whose work is known; record with record_shapes=True, or give the host execution "
            "traces of the same run beside the device traces"
        )
    table = pd.DataFrame(rows)
    total = sum(
        float(c["duration"][~c["host"] & (c["comm_type"] < 0)].sum()) for c in recording.ranks
    )
    known = float(table["duration_s"][table["kind"].notna()].sum()) if "kind" in table else 0.0
    if known < 0.95 * total:
        warnings.warn(
            f"{trace}: kernels of unknown work, or of operators that launch several, are left out: "
            f"{100 * (1 - known / total):.0f} % of the time in kernels",
            stacklevel=2,
        )
    lone = sum(int((c["comm_type"] >= 0).sum()) for c in recording.ranks)
    if lone and "collective" not in table:
        warnings.warn(
            f"{trace}: its {lone} collectives are left out, because the traces of their other members are not given: "
            "recorded times hold the wait for the others",
            stacklevel=2,
        )
    return table


def _kernels(columns: dict[str, Any]) -> list[dict[str, Any]]:
    """The kernels of one rank whose work is theirs alone."""
    rows = []
    duration, flops, moved = columns["duration"], columns["flops"], columns["bytes"]
    for i, work in enumerate(columns["work"]):
        copies = columns["source"][i] == COPY and moved[i] > 0
        alone = work is not None and flops[i] == work.flops and moved[i] == work.bytes
        if not (copies or alone) or not duration[i] > 0:
            continue
        kind = work.kind if alone else "other"
        sizes = dict(zip(DIMENSIONS.get(kind, ()), work.dimensions)) if alone else {}
        rows.append(
            {
                "kind": kind,
                **{name: float(size) for name, size in sizes.items()},
                "dtype": work.dtype if alone else "",
                "flops": float(flops[i]),
                "bytes_B": float(moved[i]),
                "duration_s": float(duration[i]),
                "name": columns["name"][i],
            }
        )
    return rows


def _collectives(recording: Recording) -> list[dict[str, Any]]:
    """The collectives whose members are all there: the n-th of a group on one rank is the n-th on the others."""
    calls: dict[tuple[str, int], list[tuple[int, int, float]]] = {}
    for columns in recording.ranks:
        met: dict[str, int] = {}
        for i in np.flatnonzero((columns["comm_type"] >= 0) & ~columns["host"]):
            group = columns["group_names"][columns["group"][i]]
            met[group] = met.get(group, -1) + 1
            call = (
                int(columns["comm_type"][i]),
                int(columns["size"][i]),
                float(columns["duration"][i]),
            )
            calls.setdefault((group, met[group]), []).append(call)
    names = {number: name for name, number in _numbers().items()}
    rows = []
    for (group, _), found in calls.items():
        members = tuple(recording.numbers[place] for place in recording.groups[group])
        kinds = {kind for kind, _, _ in found}
        if len(members) < 2 or len(found) < len(members) or len(kinds) > 1:
            continue
        kind, size = found[0][0], max(size for _, size, _ in found)
        least = min(seconds for _, _, seconds in found)
        if size > 0 and least > 0 and kind in names:
            rows.append(
                {
                    "collective": names[kind],
                    "size_B": float(size),
                    "ranks": members,
                    "duration_s": least,
                }
            )
    return rows


def _numbers() -> dict[str, int]:
    """Our word of a collective -> Chakra's number."""
    return {name: number for number, name in enumerate(COLLECTIVES)}
