"""Formulas on the host: traced by JAX once, for all parameters, then evaluated and differentiated by NumPy.

What a formula of costs says of some designs takes NumPy milliseconds; XLA would first compile it for seconds, anew for
every choice of parameters that vary. Many designs are XLA's (`HostFormula.suits`). Derivatives go backwards through the
steps of the trace, one pass for all parameters: the reverse mode of A. Griewank and A. Walther, "Evaluating
derivatives", 2nd edition, 2008, section 3.2. Values agree with XLA's to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from copy import copy
from functools import cached_property
from typing import Any, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from perfmodel.models.host_primitives import INLINED, Primitive, Use, add_up, known
from perfmodel.parameter_paths import parameters, with_parameters

HOST_DESIGNS = 512
"""Designs that are the host's at most: from some thousand on a compiled formula has paid within one sweep."""

HOST_WORK = 2e7
"""Numbers that a formula may make on the host, over all designs and steps: a tenth of a second with derivatives."""


class FormulaStep(NamedTuple):
    """One operation: reads some places, writes one."""

    primitive: Primitive
    use: Use
    reads: tuple[int, ...]
    writes: int


class _PreparedRun(NamedTuple):
    """What stands in the places before a run; the steps left, and after each the places that are read no more."""

    places: list[Any]
    steps: list[FormulaStep]
    done: list[list[int]]


class UnknownPrimitive(Exception):
    """The formula has an operation that NumPy does not know."""


class HostFormula:
    """A formula of some parameters as steps in NumPy.

    Attributes:
        names: [P] parameter paths. point: [P] their values where nothing else is said.
        rows: S, numbers that it gives.
    """

    def __init__(
        self, names: tuple[str, ...], point: Sequence[float], program: Any, *given: NDArray[Any]
    ):
        """Of a closed jaxpr with P scalars and perhaps arrays in, which are given, and one array [S] out.

        Raises:
            UnknownPrimitive: an operation that NumPy does not know.
        """
        self.names, self.point = names, np.asarray(point, float)
        self._values: list[Any] = [None] * len(names)
        self._steps: list[FormulaStep] = []
        places: dict[Any, int] = dict(zip(program.jaxpr.invars, range(len(names))))
        for variable, array in zip(program.jaxpr.invars[len(names) :], given):
            places[variable] = self._constant(array)
        with np.errstate(all="ignore"):
            (self._result,) = self._inline(program.jaxpr, program.consts, places)
        (self.rows,) = program.out_avals[0].shape
        self._drop_unused()
        self._kept: dict[frozenset[str], _PreparedRun] = {}
        self._dependent: dict[frozenset[str], NDArray[np.bool_]] = {}

    @classmethod
    def traced(
        cls, evaluate: Callable[[Any, Any], Any], system: Any, models: Any
    ) -> HostFormula | None:
        """Of (system, models) -> [S]; None where NumPy cannot evaluate it, or a parameter holds several numbers."""
        here = parameters(system, models)
        if any(np.ndim(value) for value in here.values()):
            return None
        names = tuple(here)

        def formula(*values: Any) -> Any:
            return evaluate(*with_parameters(system, models, dict(zip(names, values))))

        point = [float(value) for value in here.values()]
        try:
            return cls(names, point, jax.make_jaxpr(formula)(*point))
        except UnknownPrimitive:
            return None

    def at(self, point: Sequence[float]) -> HostFormula:
        """The same steps at other values of the parameters."""
        if np.array_equal(self.point, point):
            return self
        other = copy(self)
        other.point, other._kept = np.asarray(point, float), {}
        return other

    def among(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """Those that are parameters of this formula."""
        return {name: value for name, value in given.items() if name in self.names}

    @cached_property
    def work(self) -> int:
        """Numbers that all steps make for one design."""
        return sum(math.prod(step.use.result) for step in self._steps)

    def suits(self, designs: int) -> bool:
        """Whether so many designs are the host's."""
        return designs <= HOST_DESIGNS and designs * self.work <= HOST_WORK

    def values(self, given: Mapping[str, Any]) -> NDArray[np.float64]:
        """[S, D] what the formula gives.

        Args:
            given: parameters that are not as at the point, [D] each (or one number).
        """
        designs = max((np.size(v) for v in given.values()), default=1)
        with np.errstate(all="ignore"):
            places, run = self._start(given)
            for step, done in zip(run.steps, run.done):
                places[step.writes] = _value(step, places)
                for place in done:
                    places[place] = None
        return np.array(np.broadcast_to(places[self._result], (self.rows, designs)), np.float64)

    def pull(
        self, given: Mapping[str, Any], weights: NDArray[Any], wanted: Sequence[str]
    ) -> NDArray[np.float64]:
        """[W, D] derivatives of the weighted sum of the formula's numbers with respect to some parameters.

        Args:
            given: as for `values`; weights: [S, D]; wanted: parameter paths.
        """
        depends = self._depends(frozenset(wanted))
        with np.errstate(all="ignore"):
            places, run = self._start(given)
            for step in run.steps:
                places[step.writes] = _value(step, places)
            slopes = {self._result: add_up(weights.astype(float), places[self._result])}
            for step in reversed(self._steps):
                slope = slopes.pop(step.writes, None)
                pull = step.primitive.pull
                if slope is None or pull is None:
                    continue
                reads = [places[k] for k in step.reads]
                for k, place in enumerate(step.reads):
                    if depends[place]:
                        part = pull(step.use, k, slope, places[step.writes], reads)
                        part = add_up(part, places[place])
                        slopes[place] = slopes[place] + part if place in slopes else part
        none = np.zeros(weights.shape[1])
        found = [slopes.get(self.names.index(name), none) for name in wanted]
        return np.stack([np.broadcast_to(x, none.shape) for x in found])

    def _inline(self, jaxpr: Any, consts: Sequence[Any], places: dict[Any, int]) -> list[int]:
        """Append the steps of a program, those of programs in it in their places; the places of its results."""
        for variable, value in zip(jaxpr.constvars, consts):
            places[variable] = self._constant(value)

        def place(atom: Any) -> int:
            return self._constant(atom.val) if hasattr(atom, "val") else places[atom]

        for equation in jaxpr.eqns:
            name, params = equation.primitive.name, equation.params
            reads = [place(atom) for atom in equation.invars]
            if name in INLINED:
                inner = params.get("jaxpr", params.get("call_jaxpr"))
                results = self._inline(
                    inner.jaxpr, inner.consts, dict(zip(inner.jaxpr.invars, reads))
                )
                places.update(zip(equation.outvars, results))
                continue
            shapes = [atom.aval for atom in equation.invars]
            primitive = known(name, params, shapes)
            if primitive is None or len(equation.outvars) != 1:
                raise UnknownPrimitive(name)
            use = Use(params, tuple(a.shape for a in shapes), equation.outvars[0].aval.shape)
            places[equation.outvars[0]] = self._append(primitive, use, tuple(reads))
        return [place(atom) for atom in jaxpr.outvars]

    def _constant(self, value: Any) -> int:
        self._values.append(np.asarray(value)[..., None])
        return len(self._values) - 1

    def _append(self, primitive: Primitive, use: Use, reads: tuple[int, ...]) -> int:
        """The place of a step's result; a constant where it reads nothing else."""
        number = len(self._values)
        given = [self._values[k] for k in reads]
        if all(value is not None for value in given):
            self._values.append(primitive.value(use, given))
        else:
            self._values.append(None)
            self._steps.append(FormulaStep(primitive, use, reads, number))
        return number

    def _drop_unused(self) -> None:
        used = {self._result}
        for step in reversed(self._steps):
            if step.writes in used:
                used.update(step.reads)
        self._steps = [step for step in self._steps if step.writes in used]
        self._values = [v if k in used else None for k, v in enumerate(self._values)]

    def _depends(self, names: frozenset[str]) -> NDArray[np.bool_]:
        """Which places depend on any of some parameters."""
        if names not in self._dependent:
            found = np.zeros(len(self._values), bool)
            found[: len(self.names)] = [name in names for name in self.names]
            for step in self._steps:
                found[step.writes] = found[list(step.reads)].any()
            self._dependent[names] = found
        return self._dependent[names]

    def _start(self, given: Mapping[str, Any]) -> tuple[list[Any], _PreparedRun]:
        """The places before a run, and what is left to do: the steps that depend on what is given."""
        names = frozenset(given)
        if names not in self._kept:
            self._kept[names] = self._prepared(names)
        run = self._kept[names]
        places = list(run.places)
        for name, value in given.items():
            places[self.names.index(name)] = np.atleast_1d(np.asarray(value, float))
        return places, run

    def _prepared(self, names: frozenset[str]) -> _PreparedRun:
        depends = self._depends(names)
        places = list(self._values)
        for k, value in enumerate(self.point):
            places[k] = np.array([value])
        for step in self._steps:
            if not depends[step.writes]:
                places[step.writes] = _value(step, places)
        steps = [step for step in self._steps if depends[step.writes]]
        last = {place: k for k, step in enumerate(steps) for place in step.reads}
        done: list[list[int]] = [[] for _ in steps]
        for place, k in last.items():
            if depends[place] and place != self._result:
                done[k].append(place)
        return _PreparedRun(places, steps, done)


def _value(step: FormulaStep, places: list[Any]) -> Any:
    return step.primitive.value(step.use, [places[k] for k in step.reads])


class JoinedFormula:
    """Formulas one after the other, each of some of the parameters and for the first rows that it gives.

    Attributes:
        work: numbers that all steps make for one design.
    """

    def __init__(self, parts: Sequence[tuple[HostFormula | None, NDArray[Any]]]):
        """Of formulas with factors, [S] each: all rows that count; no formula: the factors themselves."""
        self._parts = parts
        self.work = sum(formula.work for formula, _ in parts if formula)

    def suits(self, designs: int) -> bool:
        """As `HostFormula.suits`."""
        return designs <= HOST_DESIGNS and designs * self.work <= HOST_WORK

    def values(self, given: Mapping[str, Any]) -> NDArray[np.float64]:
        """As `HostFormula.values`."""
        designs = max((np.size(v) for v in given.values()), default=1)
        rows = sum(len(factor) for _, factor in self._parts)
        found = np.empty((rows, designs))
        at = 0
        for formula, factor in self._parts:
            here = found[at : at + len(factor)]
            here[:] = factor[:, None]
            if formula is not None:
                here *= formula.values(formula.among(given))[: len(factor)]
            at += len(factor)
        return found

    def pull(
        self, given: Mapping[str, Any], weights: NDArray[Any], wanted: Sequence[str]
    ) -> NDArray[np.float64]:
        """As `HostFormula.pull`."""
        found = np.zeros((len(wanted), weights.shape[1]))
        at = 0
        for formula, factor in self._parts:
            here = weights[at : at + len(factor)] * factor[:, None]
            at += len(factor)
            if formula is None:
                continue
            mine = [k for k, name in enumerate(wanted) if name in formula.names]
            if mine:
                filled = np.zeros((formula.rows, weights.shape[1]))
                filled[: len(factor)] = here
                names = [wanted[k] for k in mine]
                found[mine] += formula.pull(formula.among(given), filled, names)
        return found
