"""Fit coefficients to measured durations of nodes and of whole steps, by gradient least squares.

Predicted durations come from the same models as everything else, their derivatives from JAX; `least_squares` has
the statistics. Whole steps are predicted along the critical path of the order of issue that fits the parameters:
they are scheduled anew after each fit until the order stays.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from perfmodel.calibration import measurements as observed
from perfmodel.calibration.calibration import Calibration
from perfmodel.calibration.fit_warnings import (
    above_one,
    check_device,
    check_stayed,
    left_open,
    measured_sizes,
)
from perfmodel.calibration.least_squares import (
    VANISHED,
    Fit,
    Predict,
    Priors,
    check_determined,
    cross_validate,
    solve,
)
from perfmodel.calibration.measurement_files import read_measurements
from perfmodel.calibration.measurement_tables import standard
from perfmodel.compiled import Compiled, compile, unpack
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import Models, models_of
from perfmodel.parameter_paths import check_path, parameter_units, with_parameters
from perfmodel.parameter_paths import parameters as parameters_of
from perfmodel.trace.pytorch.files import is_pytorch
from perfmodel.workload.graph import Graph

MeasuredStep = tuple[Graph, System, float]

RESCHEDULES = 5
"""How often whole steps are scheduled anew at the fitted parameters before their order is taken as it is."""


def calibrate(
    measurements: pd.DataFrame | str | Path | Sequence[pd.DataFrame | str | Path | MeasuredStep],
    system: System,
    parameters: str | Sequence[str] | Mapping[str, float | None] | None = None,
    *,
    models: Any = None,
    priors: Mapping[str, tuple[float, float]] | None = None,
    folds: int = 5,
    confidence: float = 0.95,
    seed: int = 0,
) -> Calibration:
    """Fit parameters of system and models to measured durations.

    Args:
        measurements: a table of measured nodes (columns: see `perfmodel.calibration.measurements`; or m, n, k and a
            time); the path of a file that `pm.read_measurements` takes (nccl-tests' output, a table, ...); or a list of
            such and of whole steps, each (graph, system, measured makespan in s).
        system: what the tables were measured on; the fit starts from its values, and the fitted go into it. The
            systems of whole steps keep their own other values.
        parameters: paths to fit, one path, or {path: start}; None starts from the value there is. A time that is 0
            starts at half the shortest measurement. By default every coefficient of the models that the measurements
            depend on.
        models: what turns work into time; the fit starts from their values.
        priors: {path: (median, sigma of the logarithm)}; 0.1 stands for about 10 %.
        folds: of the cross-validation; 0 or 1 for none.
        confidence: of the intervals.
        seed: of the assignment to folds.

    Warns:
        UserWarning: a coefficient that the measurements leave open (its 95 % interval spans more than a factor of
            10), or an efficiency above 1.

    Raises:
        InputError: a missing column, a duration that is missing or not positive, an unknown path (the nearest are
            offered), a start that is not positive, a parameter that the measurements do not determine, a fit that does
            not converge.

    Example: one operation of 1 TFLOP that takes 2 ms where the peak would allow 1 ms.
        >>> import pandas as pd
        >>> from perfmodel.machine.system import NPU, System
        >>> table = pd.DataFrame({"flops": [1e12], "bytes_B": [0.0], "duration_s": [2e-3]})
        >>> fit = calibrate(table, System(NPU(1e15, 1e12)), ["compute.efficiency"], folds=0)
        >>> round(fit.models.compute.efficiency, 6)
        0.5
    """
    models = _models(system, models, parameters)
    tables, steps, data = _sorted(measurements, system)
    nodes = [observed.read(table, system) for table in tables]
    duration = np.concatenate([*(n.duration for n in nodes), [float(s[2]) for s in steps]])
    if parameters is None:
        parameters = _depended_on(nodes, bool(steps), system, models)
    paths, start = _starts(parameters, system, models, duration)
    for _, other, _ in steps:
        for path in paths:
            check_path(path, parameters_of(other, models))
    prior = _priors({} if priors is None else priors, paths)
    if not 0 < confidence < 1:
        raise InputError(f"confidence: got {confidence}, expected a fraction between 0 and 1")
    theta, settled = np.log(start), not steps
    for _ in range(RESCHEDULES if steps else 1):
        whole = _predict_steps(steps, paths, theta, system, models)
        predict = _together([_predict_nodes(n, paths, system, models) for n in nodes] + whole)
        fit = solve(predict, duration, theta, prior)
        theta = fit.theta
        again = _predict_steps(steps, paths, theta, system, models)
        before, after = [np.array([p(theta)[0][0] for p in w]) for w in (whole, again)]
        settled = bool(np.allclose(before, after, rtol=0.0, atol=1e-9))
        if settled:
            break
    if steps:
        predict = _together([_predict_nodes(n, paths, system, models) for n in nodes] + again)
    units = parameter_units(system, models)
    check_determined(fit, predict, np.log(start), paths, prior)
    check_stayed(paths, fit, np.log(start), prior, units)
    still_open = left_open(paths, fit, prior, units, measured_sizes(nodes))
    if np.isfinite(fit.noise):
        for text in (*still_open, *above_one(paths, fit, prior, units)):
            warnings.warn(text, stacklevel=2)
    held_out = cross_validate(predict, duration, theta, prior, folds=folds, seed=seed)
    values = np.exp(theta)
    fitted, with_values = with_parameters(system, models, dict(zip(paths, map(float, values))))
    residuals = _residuals(tables, nodes, steps, duration, np.exp(predict(theta)[0]), held_out)
    return Calibration(
        _table(paths, fit, prior, start, confidence, units),
        fitted,
        with_values,
        residuals,
        _errors(residuals),
        fit.noise,
        settled,
        tuple(still_open),
        data,
    )


def _sorted(
    measurements: Any, system: System
) -> tuple[list[pd.DataFrame], list[MeasuredStep], str]:
    """Tables and whole steps apart, and what they are in words."""
    one = isinstance(measurements, pd.DataFrame | str | Path)
    given = [measurements] if one else list(measurements)
    tables: list[pd.DataFrame] = []
    steps: list[MeasuredStep] = []
    words: list[str] = []
    for k, item in enumerate(given):
        if isinstance(item, pd.DataFrame):
            tables.append(standard(item, "measurements", system.dtype))
            words.append("a table")
        elif isinstance(item, str | Path):
            if not (Path(item).exists() or is_pytorch(item)):
                raise InputError(
                    f"measurements: item {k} is the {type(item).__name__} {str(item)!r}, and there is no such file; "
                    "expected a DataFrame, a file or (graph, system, measured seconds)"
                )
            tables.append(read_measurements(item, dtype=system.dtype))
            check_device(tables[-1], system, str(item))
            words.append(Path(item).name)
        elif isinstance(item, tuple) and len(item) == 2 and isinstance(item[0], Compiled):
            graph, own, _ = unpack(item[0], None, None, "measurements")
            _check_duration(item[1], len(steps))
            steps.append((graph, own, item[1]))
        elif isinstance(item, tuple) and len(item) == 3 and isinstance(item[0], Graph):
            _check_duration(item[2], len(steps))
            steps.append(item)
        else:
            raise InputError(
                f"measurements: item {k} is {type(item).__name__}, expected a DataFrame, a file or "
                "(graph, system, measured seconds)"
            )
    if not given:
        raise InputError("measurements: none given")
    words = [f"{word}, {len(table)} rows" for word, table in zip(words, tables)]
    if steps:
        words.append(f"{len(steps)} whole steps")
    return tables, steps, "; ".join(words)


def _check_duration(seconds: float, step: int) -> None:
    if not (np.isfinite(seconds) and seconds > 0):
        raise InputError(f"measurements: step {step} took {seconds} s, expected more than 0")


def _depended_on(
    nodes: list[observed.NodeTimes], steps: bool, system: System, models: Any
) -> list[str]:
    """The coefficients of the models that the measurements depend on: times, and others that are not 0."""
    known, units = parameters_of(models), parameter_units(models)
    paths = tuple(path for path, value in known.items() if float(value) > 0 or units[path] == "s")
    if steps:
        return list(paths)
    start = np.log([float(known[path]) or 1e-6 for path in paths])
    slopes = [_predict_nodes(n, paths, system, models)(start)[1] for n in nodes]
    moved = np.max([np.abs(s).max(axis=0) for s in slopes], axis=0) > VANISHED
    found = [path for path, there in zip(paths, moved) if there]
    if not found:
        raise InputError(
            "parameters: the measurements depend on no coefficient of the models; say what to fit"
        )
    return found


def _models(system: System, models: Any, chosen: Any) -> Any:
    """Those given; else the bare ones, or the system's own where a coefficient of these is to be fitted."""
    if models is not None or system.models is None:
        return models_of(system, models)
    paths = [chosen] if isinstance(chosen, str) else list(chosen or ())
    known, bare = parameters_of(system, system.models), Models()
    own = any(path in known and path not in parameters_of(system, bare) for path in paths)
    return system.models if own else bare


def _starts(
    chosen: Any, system: System, models: Any, duration: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.float64]]:
    """Paths and start values, all positive."""
    known = parameters_of(system, models)
    units = parameter_units(system, models)
    chosen = [chosen] if isinstance(chosen, str) else chosen
    asked = dict(chosen) if isinstance(chosen, Mapping) else dict.fromkeys(chosen)
    if not asked:
        raise InputError("parameters: none given; expected paths such as compute.efficiency")
    start = []
    for path, value in asked.items():
        check_path(path, known)
        value = float(known[path] if value is None else value)
        if value == 0 and units[path] == "s":
            value = float(duration.min()) / 2
        if not (np.isfinite(value) and value > 0):
            raise InputError(
                f"parameters: {path} starts at {value:g}, expected a positive number; "
                "give one as {path: start}"
            )
        start.append(value)
    return tuple(asked), np.array(start)


def _priors(priors: Any, paths: tuple[str, ...]) -> Priors:
    """Means and standard deviations of the logarithms; inf where there is no prior."""
    mean, sigma = np.zeros(len(paths)), np.full(len(paths), np.inf)
    form = f"{{{paths[0]!r}: (median, sigma of the logarithm)}}, both > 0; sigma 0.1 stands for about 10 %"
    if not isinstance(priors, Mapping):
        raise InputError(f"priors: got {priors!r}, expected {form}")
    for path, given in priors.items():
        check_path(path, dict.fromkeys(paths))
        try:
            median, spread = map(float, given)
        except (TypeError, ValueError):
            median = spread = np.nan
        if not (median > 0 and spread > 0 and np.isfinite(median) and np.isfinite(spread)):
            raise InputError(f"priors: {path} has {given!r}, expected {form}")
        k = paths.index(path)
        mean[k], sigma[k] = np.log(median), spread
    return Priors(mean, sigma)


@partial(jax.jit, static_argnames=("keys", "paths"))
def _log_node_times(
    theta: jax.Array, rows: Any, system: System, models: Any, *, keys: Any, paths: tuple[str, ...]
) -> tuple[jax.Array, jax.Array]:
    """ln t [m] of measured nodes in the order of their blocks, and its derivatives [m, P]."""

    def times(theta: jax.Array) -> jax.Array:
        moved = with_parameters(system, models, dict(zip(paths, jnp.exp(theta))))
        return jnp.log(observed.predicted(keys, rows, *moved))

    values, push = jax.linearize(times, theta)
    return values, jax.vmap(push, out_axes=1)(jnp.eye(len(paths)))


def _predict_nodes(
    nodes: observed.NodeTimes, paths: tuple[str, ...], system: System, models: Any
) -> Predict:
    """ln t and its derivatives as a function of theta, in the table's order."""
    order = np.argsort(nodes.place)

    def predict(theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, slopes = _log_node_times(
            theta, nodes.rows, system, models, keys=nodes.keys, paths=paths
        )
        values = np.asarray(values)[order]
        if not np.isfinite(values).all():
            row = int(np.flatnonzero(~np.isfinite(values))[0])
            raise InputError(
                f"measurements: row {row}: the models predict no positive duration for it; "
                "fit an overhead or a latency, too, or leave the row out"
            )
        return values, np.asarray(slopes)[order]

    return predict


def _predict_steps(
    steps: list[MeasuredStep],
    paths: tuple[str, ...],
    theta: NDArray[np.float64],
    system: System,
    models: Any,
) -> list[Predict]:
    """The same for whole steps, each scheduled at `theta` and frozen there."""
    predictors: list[Predict] = []
    for graph, own, _ in steps:
        here = with_parameters(own, models, dict(zip(paths, map(float, np.exp(theta)))))
        compiled = compile(graph, *here)

        def log_time(theta: jax.Array, compiled: Compiled = compiled) -> jax.Array:
            values = dict(zip(paths, jnp.exp(theta)))
            moved = with_parameters(compiled.system, compiled.models, values)
            return jnp.log(compiled.makespan(*moved))

        both = jax.jit(jax.value_and_grad(log_time))

        def predict(
            theta: NDArray[np.float64], both: Any = both
        ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
            value, slope = both(theta)
            return np.atleast_1d(value), np.asarray(slope)[None]

        predictors.append(predict)
    return predictors


def _together(parts: list[Predict]) -> Predict:
    def predict(theta: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        values, slopes = zip(*(part(theta) for part in parts))
        return np.concatenate(values), np.concatenate(slopes)

    return predict


def _table(
    paths: tuple[str, ...],
    fit: Fit,
    prior: Priors,
    start: NDArray[np.float64],
    confidence: float,
    units: Mapping[str, str],
) -> pd.DataFrame:
    low, high = fit.intervals(prior, confidence)
    there = prior.there
    return pd.DataFrame(
        {
            "parameter": paths,
            "value": np.exp(fit.theta),
            "low": low,
            "high": high,
            "unit": [units[path] for path in paths],
            "start": start,
            "prior": np.where(there, np.exp(prior.mean), np.nan),
            "prior_sigma": np.where(there, prior.sigma, np.nan),
        }
    )


def _residuals(
    tables: list[pd.DataFrame],
    nodes: list[observed.NodeTimes],
    steps: list[MeasuredStep],
    duration: NDArray[np.float64],
    predicted: NDArray[np.float64],
    held_out: NDArray[np.float64],
) -> pd.DataFrame:
    parts = [t.reset_index(drop=True).assign(kind=n.kinds) for t, n in zip(tables, nodes)]
    if steps:
        named = [(graph.source, system.name, "step") for graph, system, _ in steps]
        parts.append(pd.DataFrame(named, columns=["graph", "system", "kind"]))
    table = pd.concat(parts, ignore_index=True)
    table["duration_s"] = duration
    table["predicted_s"] = predicted
    table["error"] = predicted / duration - 1
    table["held_out_error"] = held_out / duration - 1
    return table


def _errors(residuals: pd.DataFrame) -> pd.DataFrame:
    rows = {"in sample": residuals["error"].abs(), "held out": residuals["held_out_error"].abs()}
    return pd.DataFrame(
        {name: [r.median(), r.mean(), r.quantile(0.95), r.max()] for name, r in rows.items()},
        index=["median", "mean", "p95", "max"],
    ).T
