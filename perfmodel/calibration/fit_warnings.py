"""What is to be said of fitted parameters: those that the measurements leave open, and those that make no sense."""

from __future__ import annotations

import re
import warnings
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from perfmodel.calibration.least_squares import FURTHEST, Fit, Floats, Priors
from perfmodel.calibration.measurements import NodeTimes
from perfmodel.errors import InputError
from perfmodel.machine.system import System

OPEN = 10.0
"""A coefficient whose 95 % interval spans more than this factor counts as left open by the measurements."""


_DEVICE = re.compile(r"V100|A100|H100|H200|GH200|GB200|GB300|B200|B300|L40S|MI\d{3}[AX]?", re.I)


def check_device(table: pd.DataFrame, system: System, source: str) -> None:
    """Warn where a file says that another device was measured than the system has."""
    if "device" not in table or not system.accelerator:
        return
    for device in table["device"].dropna().unique():
        said = _DEVICE.search(str(device))
        if said and said[0].lower() not in system.accelerator:
            warnings.warn(
                f"{source}: was measured on {device}, but the system is {system.name} with {system.accelerator}",
                stacklevel=3,
            )


def _said(path: str, fit: Fit, prior: Priors, unit: str, k: int) -> str:
    """A parameter's value with its interval, in words."""
    low, high = fit.intervals(prior, 0.95)
    unit = "" if unit == "1" else f" {unit}"
    return f"{path} is {np.exp(fit.theta[k]):.3g}{unit}, 95 % interval {low[k]:.3g} to {high[k]:.3g}{unit}"


def _remedy(path: str) -> str:
    return f"fit fewer coefficients, or give a prior, priors={{{path!r}: (median, sigma)}}"


def check_stayed(
    paths: Sequence[str], fit: Fit, start: Floats, prior: Priors, units: Mapping[str, str]
) -> None:
    """Raise InputError for a parameter that ran away to where nothing depends on it any more."""
    for k, path in enumerate(paths):
        if fit.theta[k] > start[k] + FURTHEST - 1.0 and not prior.there[k]:
            unit = "" if units[path] == "1" else f" {units[path]}"
            raise InputError(
                f"parameters: {path} ran away to {np.exp(fit.theta[k]):.3g}{unit}: the measurements do not determine "
                f"it; {_remedy(path)}"
            )


def measured_sizes(nodes: Sequence[NodeTimes]) -> dict[str, tuple[float, float]]:
    """Unit -> the least and the largest that was measured."""
    found: dict[str, list[float]] = {"B": [], "FLOP": []}
    for each in nodes:
        for (_, key), rows in zip(each.keys, each.rows):
            columns = ("FLOP", "B") if key[0] == "compute" else ("B",)
            for unit, column in zip(columns, rows.T):
                some = column[column > 0]
                found[unit] += [some.min(), some.max()] if len(some) else []
    return {unit: (min(values), max(values)) for unit, values in found.items() if values}


def left_open(
    paths: Sequence[str],
    fit: Fit,
    prior: Priors,
    units: Mapping[str, str],
    sizes: Mapping[str, tuple[float, float]],
) -> list[str]:
    """What is to be said of coefficients that the measurements leave open."""
    found = []
    low, high = fit.intervals(prior, 0.95)
    for k, path in enumerate(paths):
        said = _said(path, fit, prior, units[path], k)
        if not np.isfinite(low[k]) and not prior.there[k]:
            found.append(
                f"{path} has no interval: as many parameters as measurements; measure more, or {_remedy(path)}."
            )
        elif high[k] > OPEN * low[k]:
            found.append(f"{said}: the measurements leave it open; {_remedy(path)}.")
        elif units[path] in sizes and not prior.there[k]:
            least, most = sizes[units[path]]
            if not least / OPEN <= np.exp(fit.theta[k]) <= OPEN * most:
                found.append(
                    f"{said}, beyond what was measured ({least:.3g} to {most:.3g} {units[path]}): the measurements "
                    f"leave it open; {_remedy(path)}."
                )
    return found


def above_one(paths: Sequence[str], fit: Fit, prior: Priors, units: Mapping[str, str]) -> list[str]:
    """What is to be said of efficiencies that make no sense."""
    return [
        f"{_said(path, fit, prior, units[path], k)}: above 1, so the formula is not what happens or the measurements "
        f"leave it open; {_remedy(path)}."
        for k, path in enumerate(paths)
        if np.exp(fit.theta[k]) > 1 + 1e-6 and units[path] == "1" and path.endswith("efficiency")
    ]
