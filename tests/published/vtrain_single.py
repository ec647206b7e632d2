"""vTrain's single node, six coefficients fitted to 75 of its 1,440 rows: `python -m tests.published vtrain-single`.

Models of hidden size 1024 and 2048 on 2 to 8 A100: their kernels wait for the host, which launches each in some tens of
microseconds. Nothing that is measured elsewhere says how long that takes, so it is fitted, with what it stands beside:

    host_kernel   the host's time to launch a kernel or a collective [s]
    gap           between two kernels [s]
    unaligned     share of its speed that a product keeps with 50,257 words, not padded, on one rank
    efficiency of products, of what moves memory, and of all-reduces   of the models in hwdb

The rows are fewer than they look: whatever data, pipeline, layers and micro-batches are, a step is a sum of one time of
a layer and one of the ends for each tensor size, micro-batch and hidden size, to 0.03 % where these are read off by
least squares. So there are 32 times of a layer, of which those that the host decides differ by 10 % either way (with
tensor 2, 3.33, 3.58 and 3.18 ms for micro-batches of 1, 2 and 4).

The host waits for the device before each layer, as Megatron-DeepSpeed's --synchronize-each-layer has it
(megatron/initialize.py; whether it was given is not said). This was chosen among three ways to wait by what is left of
the 75 rows: 3.9 % in the mean, where a host that never waits leaves 6.1 %, and one that waits before each pass, as the
timers in megatron/timers.py make it, 7.0 % (kernels launched by the layer; one by one, as here, 3.7 %). In the rows the
head's time stands whole beside what the host takes for layers: it does not run ahead while the head computes.

The rows of the fit are drawn by a fixed seed; errors are of the others, each on a graph of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import least_squares

import perfmodel as pm
from perfmodel.schedule.frozen_graph import times
from tests.published import steps

TIMES = {"host_kernel": 4e-5, "gap": 2e-6}
"""Settings of `synth.training` that are fitted, from here: a gap is less than a launch, a layer's host time several."""

HOST = {"host_waits": "layer"}
"""What is not fitted: how far ahead of the device the host is."""

PATHS = (
    "compute.tiles.0.efficiency",
    "compute.traffic.elementwise",
    "network.inside.0.efficiency",
    "compute.tiles.0.unaligned",
)
"""Coefficients that are fitted: of products, of what moves memory, of all-reduces, of products whose rows begin at no
multiple of 4 bytes."""

BOUNDS = (
    *((1e-6, 1e-3), (1e-7, 1e-4)),
    *((0.3, 1.0), (0.3, 1.0), (0.3, 1.0), (0.1, 1.0)),
)
"""Of the coefficients, in their order: a rate is reached in full at most."""

ROWS = 75


@dataclass(frozen=True)
class Row:
    """A measured step as a function of the coefficients."""

    measured: float
    compiled: pm.Compiled

    @classmethod
    def of(cls, job: steps.Job) -> Row:
        job = replace(job, settings=job.settings | HOST | TIMES)
        work = job.workload()
        system = pm.hardware(job.system, ranks=work.ranks)
        return cls(job.measured, pm.compile(work.graph(), system, models(job)))

    def predicted(self, values: NDArray[Any]) -> float:
        """Step time at coefficients in the order of `names` [s], issued as at the first ones."""
        c, count = self.compiled, len(TIMES)
        system, models = pm.with_parameters(
            c.system, c.models, dict(zip(PATHS, map(float, values[count:])))
        )
        cost = np.array(c.evaluate(system, models))
        launches = np.rint(self._recorded / TIMES["host_kernel"])
        cost[launches > 0] = launches[launches > 0] * values[0]
        cost[self._recorded == TIMES["gap"]] = values[1]
        return float(times(c.events.pred_ptr, c.events.pred, c.events.cost, cost)[1][-1])

    @property
    def _recorded(self) -> NDArray[np.float64]:
        """[S] duration of the costs that the workload says itself [s], 0 for others."""
        blocks = self.compiled.evaluate.work.blocks
        return np.concatenate(
            [b.rows[:, 0] if b.key == ("recorded",) else np.zeros(len(b.rows)) for b in blocks]
        )


def models(job: steps.Job) -> pm.Models:
    """The fitted ones, with a number for what they do not know: how fast unaligned products are, half as fast here."""
    found = steps.fitted(job)
    tiles = tuple(replace(t, unaligned=0.5) for t in found.compute.tiles)
    return found.replace(compute=replace(found.compute, tiles=tiles))


def names() -> list[str]:
    """The coefficients, in order."""
    return [*TIMES, *PATHS]


def chosen(count: int, rows: int = ROWS) -> NDArray[np.int64]:
    """Numbers of the rows that the fit sees."""
    found: NDArray[np.int64] = np.sort(np.random.default_rng(0).permutation(count)[:rows])
    return found


def fit(rows: Sequence[Row]) -> NDArray[np.float64]:
    """The coefficients that bring predictions closest to measurements, by robust least squares of log ratios."""
    known = pm.parameters(rows[0].compiled.system, rows[0].compiled.models)
    start = np.array([*TIMES.values(), *(float(known[path]) for path in PATHS)])

    def errors(logs: NDArray[Any]) -> NDArray[Any]:
        return np.array([np.log(row.predicted(np.exp(logs)) / row.measured) for row in rows])

    bounds = tuple(np.log(np.array(BOUNDS)).T)
    found = least_squares(
        errors,
        np.log(start),
        bounds=bounds,
        loss="soft_l1",
        f_scale=0.1,
        diff_step=1e-4,
        ftol=1e-3,
        max_nfev=12,
    )
    return np.asarray(np.exp(found.x))


def table(where: Path, say: Any = lambda text: None) -> pd.DataFrame:
    """A row a job: row, measured_s, predicted_s, error, and whether the fit saw it."""
    jobs = steps.vtrain(where, "single_node")
    mine = chosen(len(jobs))
    values = fit([Row.of(jobs[k]) for k in mine])
    for name, value in zip(names(), values):
        say(f"{name} = {value:.4g}")
    return pd.DataFrame(list(_rows(jobs, set(mine.tolist()), values, say)))


def _rows(
    jobs: Sequence[steps.Job], mine: set[int], values: NDArray[Any], say: Any
) -> Iterable[dict[str, Any]]:
    for k, job in enumerate(jobs):
        seconds = Row.of(job).predicted(values)
        error = seconds / job.measured - 1
        say(f"{job.row}: measured {job.measured:.4g} s, predicted {seconds:.4g} s, {error:+.1%}")
        yield {
            **{"table": job.table, "row": job.row, "system": job.system, "fitted": k in mine},
            **{"measured_s": job.measured, "predicted_s": seconds, "error": error},
        }
