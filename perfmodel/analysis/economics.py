"""What a machine costs, draws, occupies, and what energy a step takes: the public module `pm.economics`.

    from perfmodel import economics
    economics.figures(system, p.makespan, economics.totals(graph, system))

The models are those of `models.cost_power_area`; here they meet a workload.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from perfmodel.analysis.design_blocks import BLOCK, call_padded
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
from perfmodel.models.host_formula import HostFormula, UnknownPrimitive
from perfmodel.parameter_paths import with_parameters
from perfmodel.pytree import content
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
    economics = models_for(compiled.system, economics)
    names = (*paths, MAKESPAN)
    given = np.concatenate(
        [np.asarray(values, float).reshape(len(paths), len(makespan)), [makespan]]
    )
    key = ("economics", names, content(economics))
    formula = compiled.functions.get(key)
    if formula is None:
        formula = _formula(compiled, names, economics)
        if key[-1] is not None:
            compiled.functions[key] = formula
    designs = range(0, len(makespan), BLOCK)
    table = np.concatenate([formula(given[:, at : at + BLOCK]) for at in designs], axis=1)
    return {f.column: row for f, row in zip(_asked(economics), table, strict=True)}


MAKESPAN = "makespan"
"""What the makespan is called among the parameters of the figures."""


def _asked(economics: Any) -> list[Figure]:
    """The figures that a table does not have anyway."""
    return [f for f in figures_of(economics).values() if f.name != "time"]


def _formula(
    compiled: Any, names: tuple[str, ...], economics: Any
) -> Callable[[NDArray[np.float64]], NDArray[np.float64]]:
    """[K, D] the figures that are asked for, from [P, D] values of the named parameters, the last one the makespan.

    NumPy evaluates them, without compiling anything; XLA where a model takes what NumPy does not know.
    """
    work = totals(compiled.graph, compiled.system)

    def one(*values: Any) -> jax.Array:
        given = dict(zip(names[:-1], values))
        system, _ = with_parameters(compiled.system, compiled.models, given)
        found = figures(system, values[-1], work, economics=economics)
        return jnp.stack([jnp.asarray(found[f.column], float) for f in _asked(economics)])

    point = [1.0] * len(names)
    try:
        host = HostFormula(names, point, jax.make_jaxpr(one)(*point))
        return lambda values: host.values(dict(zip(names, values)))
    except UnknownPrimitive:
        batched = jax.jit(jax.vmap(lambda values: one(*values), in_axes=1, out_axes=1))
        return lambda values: call_padded(batched, values)
