"""What a machine costs, draws, occupies, and what energy a step takes: the public module `pm.economics`.

    from perfmodel import economics
    economics.figures(system, p.makespan, economics.totals(graph, system))

The models are those of `models.cost_power_area`; here they meet a workload.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from perfmodel.models.cost_power_area import (
    Area,
    Cost,
    Economics,
    Link,
    Links,
    Power,
    TotalWork,
    anchored,
    basis,
    figures,
    models_for,
)
from perfmodel.models.figures import FIGURES, Figure, figures_of
from perfmodel.parameter_paths import with_parameters
from perfmodel.schedule.total_work import totals

__all__ = [
    "FIGURES",
    "Area",
    "Cost",
    "Economics",
    "Figure",
    "Link",
    "Links",
    "Power",
    "TotalWork",
    "anchored",
    "basis",
    "columns",
    "figures",
    "totals",
]


def columns(
    compiled: Any,
    paths: Sequence[str],
    values: NDArray[Any],
    makespan: NDArray[Any],
    *,
    economics: Economics | None = None,
) -> dict[str, NDArray[np.float64]]:
    """The figures of many designs, for the tables of sweeps.

    Args:
        compiled: a compiled graph (`pm.compile`).
        paths: P parameter paths; values: [P, D] their values.
        makespan: [D] s.
        economics: the models; by default the public ones, anchored to the system.

    Returns:
        cost_usd, power_W, energy_J, area_mm2, and the models' own figures, each [D].
    """
    work = totals(compiled.graph, compiled.system)
    economics = models_for(compiled.system, economics)

    def one(values: jax.Array, makespan: jax.Array) -> dict[str, Any]:
        system, _ = with_parameters(
            compiled.system, compiled.models, dict(zip(paths, values, strict=True))
        )
        return figures(system, makespan, work, economics=economics)

    table = jax.vmap(one, in_axes=(1, 0))(jnp.asarray(values, float), jnp.asarray(makespan))
    designs = len(makespan)
    return {
        f.column: np.broadcast_to(np.asarray(table[f.column], np.float64), (designs,))
        for f in figures_of(economics).values()
        if f.name != "time"
    }
