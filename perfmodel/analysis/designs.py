"""Design points as columns of values, from a table or a product of lists, checked.

A data frame is made of them where somebody asks for one: importing pandas takes half as long as importing JAX.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.workload.identity import identity

if TYPE_CHECKING:
    import pandas as pd

    Points: TypeAlias = pd.DataFrame | Mapping[str, Sequence[Any]]


@dataclass(frozen=True, eq=False)
class Designs:
    """Some design points.

    Attributes:
        columns: name -> [D] values: numbers, or texts and other objects; NumPy's arrays, or pandas' own.
        rows: [D] the points' numbers in the table that they are of.
    """

    columns: Mapping[str, Any]
    rows: NDArray[np.int64]

    @classmethod
    def of_frame(cls, frame: pd.DataFrame) -> Designs:
        """The rows of a data frame, whose index are their numbers."""
        twice = frame.columns[frame.columns.duplicated()]
        if len(twice):
            raise InputError(f"points: column {twice[0]} stands twice")
        columns = {
            name: column.to_numpy() if isinstance(column.dtype, np.dtype) else column.array
            for name, column in frame.items()
        }
        return cls(columns, frame.index.to_numpy())

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def identity(self) -> str:
        """A hash of names, values and numbers of the points."""
        values = {
            c: np.asarray(v, float) if is_numeric(v) else list(v) for c, v in self.columns.items()
        }
        return identity((values, self.rows))

    def some(self, which: slice | NDArray[np.intp]) -> Designs:
        """Points of these by their places among these."""
        return Designs({c: v[which] for c, v in self.columns.items()}, self.rows[which])

    def with_columns(self, columns: Mapping[str, Any]) -> Designs:
        """The same points with other values in some columns."""
        return replace(self, columns={**self.columns, **columns})

    def numbers(self, names: Sequence[str]) -> NDArray[np.float64]:
        """[P, D] the values of columns of numbers."""
        values = np.empty((len(names), len(self)))
        for k, name in enumerate(names):
            values[k] = np.asarray(self.columns[name], float)
        return values

    def alike(self, names: Sequence[str]) -> Iterator[tuple[dict[str, Any], Designs]]:
        """(names, points) for each combination of values that some columns have, in the order of its first point.

        Raises:
            InputError: a value that is neither text nor number.
        """
        if not names:
            yield {}, self
            return
        first: dict[tuple[Any, ...], int] = {}
        try:
            keys = zip(*(self.columns[name].tolist() for name in names))
            number = np.array([first.setdefault(key, len(first)) for key in keys])
        except TypeError:
            raise InputError(f"points: expected names in {', '.join(names)}") from None
        for key, k in first.items():
            yield dict(zip(names, key)), self.some(np.flatnonzero(number == k))

    def frame(self, more: Mapping[str, Any] | None = None) -> pd.DataFrame:
        """A data frame of the columns, and of more columns of such values; its index are the numbers of the rows."""
        import pandas as pd

        index: Any = self.rows
        if len(index) and index[-1] - index[0] == len(index) - 1 and (np.diff(index) == 1).all():
            index = pd.RangeIndex(int(index[0]), int(index[-1]) + 1)
        return pd.DataFrame({**self.columns, **(more or {})}, index)

    def figures_in(self, frame: pd.DataFrame) -> dict[str, NDArray[Any]]:
        """The columns of a data frame of these points that they do not have themselves."""
        return {name: frame[name].to_numpy() for name in frame if name not in self.columns}


def is_numeric(values: Any) -> bool:
    """Whether a column is one of real numbers."""
    return values.dtype.kind in "iuf"


def designs_of(points: Points) -> Designs:
    """The points, checked.

    Args:
        points: a data frame (its rows are the points), or a mapping of lists (their Cartesian product, the last
            column running fastest).

    Raises:
        InputError: no points, no columns, or a value that is missing, not finite, or not positive where it is a
            number.

    Example:
        >>> len(designs_of({"npu.peak_flops": [1e12, 2e12], "network.0.latency": [1e-6]}))
        2
    """
    pandas = sys.modules.get("pandas")  # without it, nobody has a frame
    if pandas is not None and isinstance(points, pandas.DataFrame):
        designs = Designs.of_frame(points.reset_index(drop=True))
    elif isinstance(points, Mapping):
        designs = _product({str(k): _listed(v) for k, v in points.items()})
    else:
        raise InputError(
            f"points: got {type(points).__name__}, expected a DataFrame or {{parameter path: list of values}}"
        )
    columns = designs.columns
    if not columns or not len(designs):
        raise InputError("points: the space is empty; give at least one column with one value")
    numeric = [name for name, values in columns.items() if is_numeric(values)]
    for name, values in columns.items():
        if values.dtype.kind in "bc":
            raise InputError(f"points: {name} holds {values[0]!r}, expected real numbers")
        if not is_numeric(values) and (missing := _first_missing(values)) is not None:
            raise InputError(f"points: {name} is missing in row {missing}")
    values = designs.numbers(numeric)
    for k, row in np.argwhere(~(np.isfinite(values) & (values >= 0))):
        raise InputError(
            f"points: {numeric[k]} is {columns[numeric[k]][row]} in row {row}; expected a finite number >= 0"
        )
    return designs


def _product(lists: Mapping[str, Any]) -> Designs:
    """The Cartesian product of lists, the last one running fastest."""
    count = math.prod(map(len, lists.values()))
    columns, before = {}, 1
    for name, values in lists.items():
        after = count // (before * len(values)) if count else 0
        columns[name] = np.tile(np.repeat(values, after), before)
        before *= len(values)
    return Designs(columns, np.arange(count))


def _listed(values: Any) -> NDArray[Any]:
    """Values as an array: of numbers where all of them are such, else of objects."""
    if isinstance(values, str) or not np.iterable(values):
        values = [values]
    values = list(values)
    if all(isinstance(v, Real) and not isinstance(v, bool | np.bool_) for v in values):
        found = np.array(values)
        if is_numeric(found):
            return found
    elif all(isinstance(v, bool | np.bool_) for v in values) or any(
        isinstance(v, complex | np.complexfloating) for v in values
    ):
        return np.array(values)
    return np.fromiter(values, object, len(values))


def _first_missing(values: Any) -> int | None:
    """The first row without a value."""
    if hasattr(values, "isna"):
        missing = np.flatnonzero(values.isna())
        return int(missing[0]) if len(missing) else None
    absent = (k for k, v in enumerate(values) if v is None or (isinstance(v, float) and v != v))
    return next(absent, None)


def joined(parts: Sequence[Designs], figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Columns of all points in the order of their rows, from those of each part.

    What some parts do not have is no number there.
    """
    order = np.argsort(np.concatenate([part.rows for part in parts]))
    sizes = [len(part) for part in parts]
    columns = {}
    for name in dict.fromkeys(name for found in figures for name in found):
        pieces = [found.get(name) for found in figures]
        there = np.result_type(*(piece for piece in pieces if piece is not None))
        whole = there if all(p is not None for p in pieces) or there.kind == "f" else object
        values = [np.full(n, np.nan, whole) if p is None else p for p, n in zip(pieces, sizes)]
        columns[name] = np.concatenate(values).astype(whole, copy=False)[order]
    return columns
