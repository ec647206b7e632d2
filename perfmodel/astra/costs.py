"""Durations of everything that takes time in ASTRA-sim, in bulk: one formula per kind of row.

A row is work only (bytes, operations, hops); hardware comes in as parameters, so that the same rows serve any
design and can be differentiated. The unit inside is the nanosecond, ASTRA-sim's cycle. With `truncate` every
duration is cut to whole nanoseconds where ASTRA-sim cuts it, with its order of operations in double precision;
NumPy computes these, because a compiler that fuses a multiplication into an addition changes the last bit.

Source: ASTRA-sim's Workload, Roofline, PacketBundle at 518bd51; network-analytical v2.2.1; memory 641cce8.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

FIXED, DELAY, ROOFLINE, ENDPOINT, REDUCTION, MESSAGE, HOLD, ARRIVAL, REMOTE = range(9)


class RowTable:
    """Gives every distinct piece of work a row number while a workload is lowered."""

    def __init__(self) -> None:
        self._rows: dict[tuple[int, float, float, float], int] = {}

    def __len__(self) -> int:
        return len(self._rows)

    def row(self, kind: int, a: float = 0.0, b: float = 0.0, c: float = 0.0) -> int:
        """The number of the row with this work."""
        return self._rows.setdefault((kind, a, b, c), len(self._rows))

    def finish(self) -> tuple[CostTable, NDArray[np.int32]]:
        """The table, rows grouped by kind, and the new number of each row (the last entry, -1, for -1)."""
        work = np.array(list(self._rows), np.float64).reshape(-1, 4)
        order = np.lexsort((np.arange(len(work)), work[:, 2] * (work[:, 0] == MESSAGE), work[:, 0]))
        number = np.empty(len(work) + 1, np.int32)
        number[order] = np.arange(len(work), dtype=np.int32)
        number[-1] = -1
        return CostTable(work[order]), number


@dataclass(frozen=True, eq=False)
class CostTable:
    """Work of S rows, grouped by kind.

    Attributes:
        work: [S, 4] f64, kind and its up to three quantities:
            FIXED, DELAY (of messages): duration [ns]. ROOFLINE: operations [FLOP], bytes [B]. ENDPOINT: none.
            REDUCTION, HOLD, ARRIVAL, REMOTE: bytes [B]. MESSAGE: bytes [B], dimension, hops.
    """

    work: NDArray[np.float64]

    def __len__(self) -> int:
        return len(self.work)

    def evaluate(self, parameters: Mapping[str, Any], *, truncate: bool) -> Any:
        """Durations of all rows [ns].

        Args:
            parameters: path -> value in SI, scalars or arrays [D] (NumPy or JAX).
            truncate: whole nanoseconds as ASTRA-sim computes them (NumPy), else a smooth function: NumPy for plain
                numbers, for which JAX would compile one operation after the other, JAX for its own.

        Returns:
            f64 [S], or [S, D] where a parameter is an array.
        """
        plain = truncate or all(isinstance(v, _PLAIN) for v in parameters.values())
        xp: Any = np if plain else _jax_numpy()
        values = {path: xp.asarray(value, dtype=xp.float64) for path, value in parameters.items()}
        wide = any(value.ndim for value in values.values())
        quiet: Any = None if truncate else "ignore"  # as JAX is
        blocks = []
        for kind, dimension, rows in self._blocks():
            columns = [rows[:, k, None] if wide else rows[:, k] for k in (1, 2, 3)]
            with np.errstate(divide=quiet, over=quiet, under=quiet, invalid=quiet):
                block = _FORMULAS[kind](xp, values, columns, dimension, truncate)
            designs = next((v.shape[0] for v in values.values() if v.ndim), 1)
            shape = (len(rows), designs) if wide else (len(rows),)
            blocks.append(xp.broadcast_to(block, shape))
        if not blocks:
            return xp.zeros((0,))
        return xp.concatenate(blocks)

    def categories(self, category: Mapping[int, int], default: int) -> NDArray[np.int8]:
        """[S] i8, the category of each row by its kind, `default` for kinds that are not listed."""
        kinds = self.work[:, 0].astype(int).tolist()
        return np.array([category.get(kind, default) for kind in kinds], np.int8)

    def _blocks(self) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
        kind = self.work[:, 0]
        dimension = np.where(kind == MESSAGE, self.work[:, 2], -1)
        cuts = np.flatnonzero((np.diff(kind) != 0) | (np.diff(dimension) != 0)) + 1
        for rows in np.split(self.work, cuts):
            if len(rows):
                yield int(rows[0, 0]), int(rows[0, 2]), rows


_PLAIN = (int, float, np.ndarray, np.generic)


def _jax_numpy() -> Any:
    """Imported when it is asked for: runs in whole nanoseconds do without."""
    import jax.numpy

    import perfmodel.pytree  # noqa: F401  (switches JAX to 64-bit numbers)

    return jax.numpy


def _decimal(value: Any) -> Any:
    """A figure that was divided or multiplied by 1e9 on its way to SI, as it was written (15 digits)."""
    return np.vectorize(lambda x: float(f"{x:.15g}"), otypes=[np.float64])(value)


def _nanoseconds(xp: Any, seconds: Any, truncate: bool) -> Any:
    return _decimal(seconds * 1e9) if truncate else seconds * 1e9


def _whole(xp: Any, value: Any, truncate: bool) -> Any:
    return xp.trunc(value) if truncate else value


def _fixed(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    return xp.asarray(work[0])


def _roofline(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """time = operations / min(bandwidth * operations / bytes, peak)."""
    operations, size = work[0], work[1]
    attainable = xp.minimum(
        values["npu.memory_bandwidth"] * (operations / size), values["npu.peak_flops"]
    )
    return _whole(xp, operations / attainable * 1e9, truncate)


def _endpoint(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    delay = _nanoseconds(xp, values["endpoint_delay"], truncate)
    return _whole(xp, delay + 0.0 * work[0], truncate)


def _reduction(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """Local reduction: one write and two reads of the message."""
    return 3.0 * _whole(xp, work[0] / values["npu.memory_bandwidth"] * 1e9, truncate)


def _message(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """Unaware of congestion: hops * latency + bytes / bandwidth."""
    latency = _nanoseconds(xp, values[f"network.{dimension}.latency"], truncate)
    per_nanosecond = values[f"network.{dimension}.bandwidth"] / 1e9
    return _whole(xp, work[2] * latency + work[0] / per_nanosecond, truncate)


def _hold(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """How long a message keeps a link."""
    return _whole(xp, work[0] / (values["network.0.bandwidth"] / 1e9), truncate)


def _arrival(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """From the start on a link to the arrival at its end."""
    latency = _nanoseconds(xp, values["network.0.latency"], truncate)
    return _whole(xp, latency + work[0] / (values["network.0.bandwidth"] / 1e9), truncate)


def _remote(
    xp: Any, values: Mapping[str, Any], work: Sequence[Any], dimension: int, truncate: bool
) -> Any:
    """Remote memory: latency + bytes / bandwidth, both kept as whole numbers by ASTRA-sim."""
    latency = _nanoseconds(xp, values["remote_memory.latency"], truncate)
    per_nanosecond = values["remote_memory.bandwidth"] / 1e9
    if truncate:
        latency, per_nanosecond = np.trunc(latency), np.trunc(_decimal(per_nanosecond))
    return latency + _whole(xp, work[0] / per_nanosecond, truncate)


_FORMULAS: dict[int, Callable[..., Any]] = {
    FIXED: _fixed,
    DELAY: _fixed,
    ROOFLINE: _roofline,
    ENDPOINT: _endpoint,
    REDUCTION: _reduction,
    MESSAGE: _message,
    HOLD: _hold,
    ARRIVAL: _arrival,
    REMOTE: _remote,
}
