"""Boxes of design points, and points spread over them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel import units
from perfmodel.errors import InputError
from perfmodel.machine.system import NPU, Dimension, RemoteMemory

if TYPE_CHECKING:
    import pandas as pd


def bounds_of(bounds: Any, name: str = "bounds") -> dict[str, tuple[float, float]]:
    """A box {parameter path: (lowest, highest)} in SI; ends may be texts with a unit.

    Raises:
        InputError: no mapping of two numbers each, or a unit that does not fit the parameter.

    >>> bounds_of({"npu.peak_flops": ("1 PFLOP/s", 2e15)})
    {'npu.peak_flops': (1000000000000000.0, 2000000000000000.0)}
    """
    wrong = "expected {parameter path: (lowest, highest)}, two numbers each"
    if not isinstance(bounds, Mapping):
        raise InputError(f"{name}: got {type(bounds).__name__}, {wrong}")
    found: dict[str, tuple[float, float]] = {}
    for path, ends in bounds.items():
        try:
            low, high = ends
            if isinstance(ends, str):
                raise TypeError
            found[str(path)] = (_end(low, str(path), name), _end(high, str(path), name))
        except (TypeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{name}: {path} has {ends!r:.60}, {wrong}") from None
    return found


def _end(value: Any, path: str, name: str) -> float:
    """One end of an interval in SI."""
    if not isinstance(value, str):
        return float(value)
    try:
        number, unit = units.parse_any(value, where=path)
    except InputError as error:
        raise InputError(
            f"{name}: expected two numbers each, plain [SI] or with a unit; {error}"
        ) from None
    expected = _UNITS.get(path.rsplit(".", 1)[-1], unit)
    if unit != expected:
        raise InputError(f"{name}: {path}: got {value!r}, which measures {unit}, not {expected}")
    return number


_UNITS = {
    field.name: field.metadata["unit"]
    for kind in (NPU, Dimension, RemoteMemory)
    for field in fields(kind)
    if "unit" in field.metadata
}
"""Last word of a parameter path of a system -> its SI unit."""


def sample(
    bounds: Mapping[str, tuple[float, float]],
    count: int,
    *,
    method: str = "sobol",
    log: bool = True,
    seed: int = 0,
) -> pd.DataFrame:
    """Design points spread over a box.

    Args:
        bounds: {parameter path: (lowest, highest)} [SI], or texts with a unit.
        count: number of points (a power of two suits "sobol").
        method: "sobol" or "latin-hypercube" (`scipy.stats.qmc`).
        log: spread the logarithms evenly.
        seed: of the scrambling.

    Raises:
        InputError: unknown method, empty space, bounds out of order or not positive on a log scale.
    """
    if method not in ("sobol", "latin-hypercube"):
        raise InputError(f'method: got {method!r}, expected "sobol" or "latin-hypercube"')
    if not bounds or not isinstance(count, int | np.integer) or count < 1:
        raise InputError("sample: the space is empty; give bounds and a count of at least 1")
    box = bounds_of(bounds, "sample")
    low, high = (np.array(ends, float) for ends in zip(*box.values()))
    for name, a, b in zip(bounds, low, high):
        if not (np.isfinite(a) and np.isfinite(b) and a <= b and (a > 0 or not log)):
            raise InputError(
                f"sample: bounds of {name} are ({a:g}, {b:g}); expected lowest <= highest"
                + (", both positive on a log scale" if log else "")
            )
    import pandas as pd
    from scipy.stats import qmc  # importing it takes as long as importing JAX

    engine_type = qmc.Sobol if method == "sobol" else qmc.LatinHypercube
    unit = engine_type(len(bounds), rng=np.random.default_rng(seed))
    if method == "sobol":
        drawn = unit.random_base2(max(int(np.ceil(np.log2(count))), 0))[:count]
    else:
        drawn = unit.random(count)
    values = np.exp(np.log(low) + drawn * np.log(high / low)) if log else low + drawn * (high - low)
    return pd.DataFrame(values, columns=list(bounds))
