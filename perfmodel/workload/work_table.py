"""What nodes of an .et file have that Chakra has no words for, said once for all nodes that have the same.

A file's metadata hold the table as JSON, a line of it for each row; a node holds the number of its row:

    [{"kind": "gemm", "dimensions": [1, 2048, 4096, 4096], "dtype": "bf16", "resource": "compute", "latency": [2e-06]},
     {"resource": "tensor"}]

| key | meaning | where it is absent |
| --- | --- | --- |
| kind, dtype | what the work is and in which numbers (vocabulary.OPERATIONS, DTYPES) | other; the system's |
| dimensions | the kind's dimensions, -1 for an unknown one (vocabulary.DIMENSIONS) | unknown |
| resource | what the node occupies ("stream 7"); empty for nothing | what its type, stream and thread say |
| latency | least time between the end of each of data_deps and the start [s] | 0 |

A training step has some tens of rows for hundreds or millions of nodes, so that its files stay small.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.vocabulary import DTYPES, MOST_DIMENSIONS, OPERATIONS
from perfmodel.workload.program import Program

KEYS = ("kind", "dimensions", "dtype", "resource", "latency")


@dataclass(frozen=True, eq=False)
class WorkTable:
    """r rows.

    Attributes:
        kind, dtype: [r] i8;  dimensions: [r, 7] i64, as in `Program`.
        resource: of each row, None where the usual one is meant, "" for none.
        latency: of each row, a time for each of data_deps [s], None where all are 0.
    """

    kind: NDArray[np.int8]
    dimensions: NDArray[np.int64]
    dtype: NDArray[np.int8]
    resource: tuple[str | None, ...]
    latency: tuple[tuple[float, ...] | None, ...]

    def __len__(self) -> int:
        return len(self.kind)

    def text(self) -> str:
        """As JSON."""
        rows: list[dict[str, Any]] = []
        for k, resource in enumerate(self.resource):
            row: dict[str, Any] = {}
            if self.kind[k] > 0:
                row["kind"] = OPERATIONS[self.kind[k]]
            known = np.flatnonzero(self.dimensions[k] >= 0)
            if len(known):
                row["dimensions"] = self.dimensions[k, : known[-1] + 1].tolist()
            if self.dtype[k] >= 0:
                row["dtype"] = DTYPES[self.dtype[k]]
            if resource is not None:
                row["resource"] = resource
            late = self.latency[k]
            if late is not None:
                row["latency"] = list(late)
            rows.append(row)
        return json.dumps(rows)

    @staticmethod
    def of_text(text: str) -> WorkTable:
        """Back from `text`.

        Raises:
            ValueError: it says what this version does not know, or is damaged.
        """
        rows = json.loads(text)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise ValueError("is no list of rows")
        dimensions = np.full((len(rows), MOST_DIMENSIONS), -1, np.int64)
        for k, row in enumerate(rows):
            if unknown := [key for key in row if key not in KEYS]:
                raise ValueError(f"row {k} has an unknown key {unknown[0]!r:.60}")
            sizes = _numbers(row, "dimensions", k, MOST_DIMENSIONS)
            if not all(type(size) is int and -1 <= size < 2**63 for size in sizes):
                raise ValueError(f"row {k}: dimensions hold what is no size")
            dimensions[k, : len(sizes)] = sizes
        resource = tuple(row.get("resource") for row in rows)
        if wrong := [word for word in resource if not isinstance(word, str | None)]:
            raise ValueError(f"resource {wrong[0]!r:.60} is no text")
        return WorkTable(
            kind=_words(rows, "kind", OPERATIONS, 0),
            dimensions=dimensions,
            dtype=_words(rows, "dtype", DTYPES, -1),
            resource=resource,
            latency=tuple(_times(row, k) for k, row in enumerate(rows)),
        )


def tabulate(
    program: Program, usual: tuple[NDArray[Any], tuple[str, ...]]
) -> tuple[WorkTable, NDArray[np.int64]]:
    """The table of a program, and [n] the row of each node, -1 for nodes that need none.

    Args:
        program: n nodes.
        usual: [n] resource and labels, as a reader of the file has them without the table. Where the program's are
            others, every node's row says its own, and rows stand in the order of the program's resources.
    """
    n = len(program)
    own = np.array([*program.resources, ""], dtype=object)[program.resource]
    others = np.array([*usual[1], ""], dtype=object)[usual[0]]
    named = bool((own != others).any() or program.resources != usual[1])
    resource = np.where(program.resource < 0, len(program.resources), program.resource)
    times: dict[bytes, int] = {}
    late = np.full(n, -1, np.int64)
    ptr, latency = program.pred_ptr, program.pred_latency
    slow = np.zeros(n, bool)
    slow[np.repeat(np.arange(n), np.diff(ptr))[latency != 0]] = True
    for i in np.flatnonzero(slow).tolist():
        late[i] = times.setdefault(latency[ptr[i] : ptr[i + 1]].tobytes(), len(times))
    keys = np.column_stack(
        [
            resource if named else np.zeros(n, np.int64),
            program.kind,
            program.dtype,
            late,
            program.dimensions,
        ]
    ).astype(np.int64)
    found, first, row = np.unique(keys, axis=0, return_index=True, return_inverse=True)
    order = np.lexsort((first, found[:, 0]))
    nothing = np.array([0 if not named else len(program.resources), 0, -1, -1])
    empty = (found[:, :4] == nothing).all(axis=1) & (found[:, 4:] < 0).all(axis=1)
    if not named or not (others[program.resource < 0] != "").any():
        order = order[~empty[order]]
    number = np.full(len(found), -1, np.int64)
    number[order] = np.arange(len(order))
    chosen = found[order]
    labels = [*program.resources, ""]
    lists = [tuple(np.frombuffer(raw).tolist()) for raw in times]
    table = WorkTable(
        kind=chosen[:, 1].astype(np.int8),
        dimensions=chosen[:, 4:],
        dtype=chosen[:, 2].astype(np.int8),
        resource=tuple(labels[k] if named else None for k in chosen[:, 0].tolist()),
        latency=tuple(lists[k] if k >= 0 else None for k in chosen[:, 3].tolist()),
    )
    return table, number[row.reshape(-1)]


def _words(
    rows: Sequence[Mapping[str, Any]], key: str, known: tuple[str, ...], absent: int
) -> NDArray[np.int8]:
    """[r] numbers of the rows' words."""
    numbers = np.full(len(rows), absent, np.int8)
    for k, row in enumerate(rows):
        if key in row:
            if row[key] not in known:
                raise ValueError(f"{key} {row[key]!r:.60} is none of {', '.join(known)}")
            numbers[k] = known.index(row[key])
    return numbers


def _numbers(row: Mapping[str, Any], key: str, k: int, most: int) -> list[Any]:
    values = row.get(key, [])
    if not isinstance(values, list) or len(values) > most:
        raise ValueError(f"row {k}: {key} is no list of at most {most} numbers")
    return values


def _times(row: Mapping[str, Any], k: int) -> tuple[float, ...] | None:
    if "latency" not in row:
        return None
    values = row["latency"]
    if not isinstance(values, list) or not all(
        type(x) in (int, float) and 0 <= x < float("inf") for x in values
    ):
        raise ValueError(f"row {k}: latency is no list of times")
    return tuple(map(float, values))
