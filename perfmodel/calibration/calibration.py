"""What a calibration found: fitted parameters, how far to trust them, and the file that keeps them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from perfmodel.display import as_html, as_text
from perfmodel.errors import InputError
from perfmodel.files import check_target
from perfmodel.machine.system import System
from perfmodel.models.cost import Models
from perfmodel.models.model_file import PARTS, write_models
from perfmodel.parameter_paths import parameters as parameters_of


@dataclass(frozen=True, eq=False)
class Calibration:
    """Fitted parameters, and how far to trust them.

    Attributes:
        parameters: a row each: parameter, value, low, high, unit, start, prior, prior_sigma (nan: none).
        system, models: with the fitted values.
        residuals: the measurements, a row each: what was given (of whole steps: graph and system), kind, measured
            duration_s, predicted_s, error (predicted / measured - 1), held_out_error (predicted by a fit without
            this row's fold).
        error: |error|, rows "in sample" and "held out", columns median, mean, p95, max.
        noise: relative standard deviation of a measurement, estimated.
        settled: whole steps are predicted in the order of issue that fits the fitted parameters.
        open: a sentence for every parameter that the measurements do not determine.
        data: what was measured, in words.
    """

    parameters: pd.DataFrame
    system: System
    models: Any
    residuals: pd.DataFrame
    error: pd.DataFrame
    noise: float
    settled: bool
    open: tuple[str, ...] = ()
    data: str = ""

    def _rows(self) -> dict[str, str]:
        fitted = {
            row.parameter: f"{row.value:.5g} {row.unit} ({row.low:.5g} to {row.high:.5g})"
            for row in self.parameters.itertuples()
        }
        errors = {
            str(name): f"mean {row['mean']:.1%}, median {row['median']:.1%}"
            for name, row in self.error.iterrows()
        }
        return {"measurements": self.data, **fitted, **errors}

    def __repr__(self) -> str:
        return as_text("Calibration", self._rows())

    def _repr_html_(self) -> str:
        return as_html("Calibration", self._rows())

    def save(self, path: str | Path, *, title: str = "", data: str = "") -> None:
        """Write the models as a file for `pm.hardware(..., models=path)` and the commands' `--models path`.

        Parts that are the bare default are left out, so that they stay what they are where the file is used.

        Args:
            path: the file, FILE.toml. title: what it is, data: what was measured, for people.

        Raises:
            InputError: a parameter that the measurements do not determine; one of the system, which belongs into a
                system file; a model of one's own, which a file cannot name.
        """
        check_target(path, (".toml",))
        if self.open:
            raise InputError(
                f"{path}: not written, for not all that was fitted is determined. {' '.join(self.open)}"
            )
        known = parameters_of(self.models)
        for name, value, unit in zip(*(self.parameters[c] for c in ("parameter", "value", "unit"))):
            if name not in known:
                raise InputError(
                    f"{path}: not written: {name} is the system's, so {value:.6g} {unit} belongs into a system file "
                    '([npu] accelerator = "..." takes the rest from hwdb); fit coefficients of the models only'
                )
        tested = "held out" if self.error.loc["held out"].notna().all() else "in sample"
        fit = {
            "coefficients": list(self.parameters["parameter"]),
            "low": [float(x) for x in self.parameters["low"]],
            "high": [float(x) for x in self.parameters["high"]],
            "data": data or self.data,
            "device": self.system.name,
            "measurements": len(self.residuals),
            "error_of": tested,
            "median_error": float(self.error.loc[tested, "median"]),
            "mean_error": float(self.error.loc[tested, "mean"]),
            "p95_error": float(self.error.loc[tested, "p95"]),
        }
        bare = Models()
        parts = [part for part in PARTS if getattr(self.models, part) != getattr(bare, part)]
        write_models(path, self.models, title=title or Path(path).stem, fits=[fit], parts=parts)
