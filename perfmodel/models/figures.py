"""The figures of a design, in one registry: what a sweep shows, an optimisation minimises or limits, a plot names.

A model of one's own adds one by naming it once, in its field or class attribute `own_figures`; its method `figure` is
then asked for it by that name.

    @pm.record
    class Carbon:
        base: pm.economics.Economics = pm.economics.Economics()
        per_joule: float = pm.number("kg/J", default=1e-7)
        own_figures = (pm.economics.Figure("carbon", "carbon_kg", "kg"),)

        def figure(self, name, system, makespan, totals):
            if name == "carbon":
                return self.per_joule * self.base.figure("energy", system, makespan, totals)
            return self.base.figure(name, system, makespan, totals)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from perfmodel.errors import InputError


@dataclass(frozen=True)
class Figure:
    """A quantity of a design.

    Attributes:
        name: what expressions, objectives and constraints call it.
        column: its column in tables, with its unit at the end ("carbon_kg").
        unit: SI, $ or kg, in which expressions have it.
        factor: how many of the column's units one of `unit` is.
    """

    name: str
    column: str
    unit: str
    factor: float = 1.0


FIGURES = {
    figure.name: figure
    for figure in (
        Figure("time", "makespan_s", "s"),
        Figure("cost", "cost_usd", "$"),
        Figure("power", "power_W", "W"),
        Figure("energy", "energy_J", "J"),
        Figure("area", "area_mm2", "m^2", 1e6),
    )
}
"""The figures that every set of models has. Whatever depends on the makespan is found by asking at two of them."""

ALSO_TIME = ("makespan", "makespan_s")
"""Other words for "time": those of predictions and tables."""


def figures_of(economics: Any = None) -> dict[str, Figure]:
    """The figures that a set of models answers, by name: those of everybody, and its own.

    Raises:
        InputError: one of its own that is no `Figure`, or has a name or column that is taken.

    >>> list(figures_of())
    ['time', 'cost', 'power', 'energy', 'area']
    """
    found = dict(FIGURES)
    for figure in getattr(economics, "own_figures", ()):
        if not isinstance(figure, Figure):
            raise InputError(
                f"own_figures: holds {figure!r:.60}, expected pm.economics.Figure(name, column, unit)"
            )
        taken = {*ALSO_TIME, *found, *(other.column for other in found.values())}
        if figure.name in taken or figure.column in taken or not figure.name.isidentifier():
            raise InputError(
                f"own_figures: {figure.name!r} with column {figure.column!r}: taken, or no plain name; "
                f"there are {', '.join(found)}"
            )
        found[figure.name] = figure
    return found
