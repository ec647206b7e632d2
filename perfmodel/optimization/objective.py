"""What an optimisation wants: an objective and limits, from the user's words to functions of JAX.

Everything is a function of the parameters' values x [P] and of the makespan t [s], which the optimiser treats as one
more variable.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from perfmodel.errors import InputError
from perfmodel.models.cost_power_area import Economics, TotalWork
from perfmodel.models.figures import ALSO_TIME, figures_of
from perfmodel.optimization.expression import Expression, parse, parse_relation
from perfmodel.parameter_paths import check_path, parameters, with_parameters

Objective = str | Mapping[str, float] | Callable[..., Any]
Constraints = Mapping[str, Any] | Sequence[Any] | str | Callable[..., Any]


@dataclass(frozen=True)
class VariedDesign:
    """Where figures are taken: the parameters that vary, and all that is fixed."""

    paths: tuple[str, ...]
    system: Any
    models: Any
    economics: Economics
    totals: TotalWork
    memory: float | None = None
    """Bytes of the rank that holds most, where the graph knows [B]."""

    def spelled(self, text: str) -> str:
        """A text with what depends on the memory held spelt out: peak_memory_B, and memory_margin_B.

        >>> VariedDesign((), None, None, None, None, memory=5e9).spelled("memory_margin_B >= 1e9")
        '(npu.memory_capacity - 5000000000) >= 1e9'
        """
        if self.memory is None:
            return text
        peak = f"{self.memory:.17g}"
        text = re.sub(r"\bmemory_margin_B\b", f"(npu.memory_capacity - {peak})", text)
        return re.sub(r"\bpeak_memory_B\b", peak, text)

    def at(self, x: Array) -> tuple[Any, Any]:
        """System and models at parameter values x [P]."""
        return with_parameters(self.system, self.models, dict(zip(self.paths, x, strict=True)))

    @property
    def figures(self) -> dict[str, str]:
        """Word in an expression -> figure; the makespan has the names of predictions and tables, too."""
        return {name: name for name in figures_of(self.economics)} | dict.fromkeys(
            ALSO_TIME, "time"
        )

    def names(self) -> dict[str, Any]:
        """What expressions may use."""
        return {**parameters(self.system, self.models), **dict.fromkeys(self.figures)}

    def value(self, expression: Expression, x: Array, t: Any) -> Any:
        """An expression of parameters [SI] and figures [s, $, W, J, m^2].

        >>> import perfmodel as pm
        >>> design = VariedDesign((), pm.hardware("dgx-h100"), pm.Models(), Economics(), TotalWork(0, 0, 0))
        >>> design.value(parse("time + makespan + makespan_s"), jnp.ones(0), 2.0)
        6.0
        """
        system, models = self.at(x)
        known, words = parameters(system, models), self.figures
        figures = {
            name: self.economics.figure(words[name], system, t, self.totals)
            for name in expression.names
            if name in words
        }
        return expression.value({**known, **figures})


@dataclass(frozen=True)
class Limit:
    """left <= right or left == right, as a residual of order one that must be <= 0 or == 0.

    Attributes:
        name: as the user said it.
        left, right: (x, t) -> number, in the user's units.
        residual: (x, t) -> number; ln(left / right) where both sides are positive throughout (convex in the
            logarithms where the left side is a posynomial and the right one a monomial), else (left - right) / scale.
        per_unit: (x, t) -> by how much the residual falls where `right` grows by 1; negative for ">=".
        equal: an equality.
        timed: the makespan plays a part.
        sign: as the user said it.
    """

    name: str
    left: Callable[..., Any]
    right: Callable[..., Any]
    residual: Callable[..., Any]
    per_unit: Callable[..., Any]
    equal: bool
    timed: bool
    sign: str


@dataclass(frozen=True)
class Goal:
    """An objective (x, t) -> number, whether it is positive throughout, and the limits.

    `said` are the words that they were read from; None where some are functions, which cannot be compared.
    """

    objective: Callable[..., Any]
    positive: bool
    limits: tuple[Limit, ...]
    said: str | None = None


def goal(
    design: VariedDesign, objective: Objective, constraints: Constraints | None, centre: Array
) -> Goal:
    """Read objective and constraints (see `optimize`); `centre` [P] is a point within the bounds.

    Raises:
        InputError: unknown names, texts that cannot be read, weights that are no positive numbers.
    """
    all_said = relations(constraints)
    limits = [_limit(design, said, centre) for said in all_said]
    plain = all(isinstance(said, str) for said in all_said)
    words = repr((objective, all_said)) if plain else None
    if callable(objective):
        return Goal(_called(design, objective), False, tuple(limits))
    if isinstance(objective, str):
        expression = _checked(design, parse(design.spelled(objective)), "objective")
        return Goal(
            lambda x, t: design.value(expression, x, t), expression.positive, tuple(limits), words
        )
    if not isinstance(objective, Mapping) or not objective:
        raise InputError(
            f"objective: got {objective!r}, expected a text, weights {{text: number}}, or a function"
        )
    parts = []
    for text, weight in objective.items():
        if not (_is_number(weight) and weight > 0):
            raise InputError(
                f"objective: the weight of {text!r} is {weight!r}, expected a number > 0"
            )
        read = parse(design.spelled(text))
        parts.append((_checked(design, read, "objective"), float(weight)))

    def weighted(x: Array, t: Any) -> Any:
        return sum(weight * design.value(part, x, t) for part, weight in parts)

    return Goal(weighted, all(part.positive for part, _ in parts), tuple(limits), words)


def relations(constraints: Constraints | None) -> list[Any]:
    """All constraints as texts with a relation, or functions.

    >>> import numpy as np
    >>> relations({"cost": np.int64(3), "time": (np.float32(0.5), None)})
    ['cost <= 3', 'time >= 0.5']
    """
    if constraints is None:
        return []
    if isinstance(constraints, str) or callable(constraints):
        return [constraints]
    if not isinstance(constraints, Mapping):
        return list(constraints)
    said: list[Any] = []
    for text, limit in constraints.items():
        low, high = limit if isinstance(limit, tuple) and len(limit) == 2 else (None, limit)
        ends = [end for end in (low, high) if end is not None]
        if not ends or not all(map(_is_number, ends)):
            raise InputError(
                f"constraint {text!r}: the limit is {limit!r}, expected a number (at most) or a pair "
                "(at least, at most) with None for an open end"
            )
        if low is not None and high is not None and low > high:
            raise InputError(f"constraint {text!r}: at least {low:g} is more than at most {high:g}")
        if low is not None and low == high:
            said.append(f"{text} == {_number(low)}")
            continue
        if low is not None:
            said.append(f"{text} >= {_number(low)}")
        if high is not None:
            said.append(f"{text} <= {_number(high)}")
    return said


def _is_number(value: Any) -> bool:
    """Whether it is a finite real number, of Python or NumPy.

    >>> import numpy as np
    >>> [_is_number(value) for value in (np.int64(3), 0.5, True, float("inf"), "3")]
    [True, True, False, False, False]
    """
    return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)


def _number(value: float) -> str:
    return f"{float(value):.17g}"


def _limit(design: VariedDesign, said: Any, centre: Array) -> Limit:
    if callable(said):
        function = _called(design, said)
        name = getattr(said, "__name__", "constraint")
        scale = max(abs(float(function(centre, 1.0))), 1e-300)
        return Limit(
            name,
            function,
            lambda x, t: 0.0,
            lambda x, t: function(x, t) / scale,
            lambda x, t: 1 / scale,
            False,
            True,
            "<=",
        )
    if not isinstance(said, str):
        raise InputError(
            f"constraint {said!r}: expected a text such as 'cost <= 1e6', or a function"
        )
    first, sign, second = parse_relation(design.spelled(said))
    for side in (first, second):
        _checked(design, side, f"constraint {said!r}")

    def value(side: Expression) -> Callable[..., Any]:
        return lambda x, t: design.value(side, x, t)

    down = -1.0 if sign == ">=" else 1.0
    left, right = value(first), value(second)
    ends = float(left(centre, 1.0)), float(right(centre, 1.0))
    if not all(map(math.isfinite, ends)):
        raise InputError(f"constraint {said!r}: its sides are {ends[0]:g} and {ends[1]:g}")
    longer = float(left(centre, 2.0)), float(right(centre, 2.0))
    timed = longer != ends
    if first.positive and second.positive and min(ends) > 0:
        residual = _logarithmic(left, right, down)
        per_unit = _per_right(right, down)
    else:
        scale = max(map(abs, ends)) or 1.0
        residual = _scaled(left, right, down / scale)
        per_unit = _constant(down / scale)
    return Limit(said.strip(), left, right, residual, per_unit, sign == "==", timed, sign)


def _logarithmic(left: Any, right: Any, down: float) -> Callable[..., Any]:
    return lambda x, t: down * (jnp.log(left(x, t)) - jnp.log(right(x, t)))


def _per_right(right: Any, down: float) -> Callable[..., Any]:
    return lambda x, t: down / right(x, t)


def _scaled(left: Any, right: Any, factor: float) -> Callable[..., Any]:
    return lambda x, t: factor * (left(x, t) - right(x, t))


def _constant(value: float) -> Callable[..., Any]:
    return lambda x, t: value


def _called(design: VariedDesign, function: Callable[..., Any]) -> Callable[..., Any]:
    """The user's (system, models, makespan) -> number as a function of (x, t).

    >>> import perfmodel as pm
    >>> nowhere = VariedDesign((), pm.hardware("dgx-h100"), pm.Models(), None, None)
    >>> jax.jit(_called(nowhere, lambda s, m, t: float(t)))(jnp.ones(0), 1.0)  # doctest: +ELLIPSIS
    Traceback (most recent call last):
    perfmodel.errors.InputError: <lambda>: cannot be differentiated...compute with jax.numpy...
    """
    name = getattr(function, "__name__", "function")

    def call(x: Array, t: Any) -> Any:
        try:
            result = function(*design.at(x), t)
        except jax.errors.JAXTypeError as error:
            raise InputError(
                f"{name}: cannot be differentiated, as it makes a Python or NumPy value of what JAX traces; "
                "compute with jax.numpy (jnp.log, jnp.maximum, jnp.where), without float(), int(), math, "
                f"numpy and if ({str(error).splitlines()[0]})"
            ) from None
        if jnp.ndim(result):
            raise InputError(
                f"{name}: returns an array of shape {jnp.shape(result)}, expected one number"
            )
        return result

    return call


def _checked(design: VariedDesign, expression: Expression, where: str) -> Expression:
    """The expression, if all its names are known."""
    known = design.names()
    for name in expression.names:
        try:
            check_path(name, known)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
    return expression
