"""The smooth pieces of a function with maxima in it.

max(f, g) is smooth but where f = g, and there an optimiser that sees one slope at a time goes back and forth.
`BranchingFunction` splits a function of JAX into `value_and_choices(x)`, which also says which argument of every
maximum, minimum and `where` was taken, and `piece(x, choices)`, the same function with those choices held: smooth,
equal to the function where the choices are its own, and not above it anywhere where it grows with each of its maxima.

The function's jaxpr is run with those primitives exchanged; what hides in loops stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

_CALLS = ("jit", "pjit", "closed_call", "core_call", "remat", "checkpoint")

Choices = list[Array]
"""One boolean or integer array per maximum, minimum and `where`, in the order in which the function meets them."""


class BranchingFunction:
    """A function of one array, open to its choices."""

    def __init__(self, function: Callable[[Array], Array], example: Array):
        self._jaxpr = jax.make_jaxpr(function)(example)

    def value_and_choices(self, x: Array) -> tuple[Array, Choices]:
        """The function's value, and which choices led to it."""
        made: Choices = []

        def choose(own: Array) -> Array:
            made.append(own)
            return own

        return self._run(x, choose), made

    def piece(self, x: Array, choices: Choices) -> Array:
        """The function with its choices held."""
        held: Iterator[Array] = iter(choices)
        return self._run(x, lambda own: next(held))

    def _run(self, x: Array, choose: Callable[[Array], Array]) -> Array:
        result: Array
        (result,) = _run(self._jaxpr.jaxpr, self._jaxpr.consts, [x], choose)
        return result


def _run(jaxpr: Any, consts: Sequence[Any], arguments: Sequence[Any], choose: Any) -> list[Any]:
    """Evaluate a jaxpr with every choice handed to `choose`."""
    known: dict[Any, Any] = {}

    def read(atom: Any) -> Any:
        return atom.val if hasattr(atom, "val") else known[atom]

    known.update(zip(jaxpr.constvars, consts, strict=True))
    known.update(zip(jaxpr.invars, arguments, strict=True))
    for step in jaxpr.eqns:
        inputs = [read(atom) for atom in step.invars]
        name, inner = step.primitive.name, step.params.get("jaxpr")
        if name in _CALLS and hasattr(inner, "consts"):
            outputs = _run(inner.jaxpr, inner.consts, inputs, choose)
        elif name in _CHOOSING:
            outputs = [_CHOOSING[name](choose, step.params, *inputs)]
        else:
            bound = step.primitive.get_bind_params(step.params)
            functions, parameters = bound if isinstance(bound, tuple) else ((), bound)  # until 0.9
            outputs = step.primitive.bind(*functions, *inputs, **parameters)
            if not step.primitive.multiple_results:
                outputs = [outputs]
        known.update(zip(step.outvars, outputs, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _maximum(choose: Any, _: Any, a: Array, b: Array) -> Array:
    return jnp.where(choose(jnp.asarray(a >= b)), a, b)


def _minimum(choose: Any, _: Any, a: Array, b: Array) -> Array:
    return jnp.where(choose(jnp.asarray(a <= b)), a, b)


def _select(choose: Any, _: Any, which: Array, *cases: Array) -> Array:
    return jax.lax.select_n(choose(jnp.asarray(which)), *cases)


def _reduced(find: Callable[..., Array]) -> Callable[..., Array]:
    def reduce(choose: Any, parameters: Any, a: Array) -> Array:
        axes = parameters["axes"]
        kept = [k for k in range(a.ndim) if k not in axes]
        rows = jnp.transpose(a, (*kept, *axes)).reshape([a.shape[k] for k in kept] + [-1])
        place = choose(find(rows, axis=-1))
        return jnp.take_along_axis(rows, place[..., None], axis=-1)[..., 0]

    return reduce


_CHOOSING: dict[str, Callable[..., Array]] = {
    "max": _maximum,
    "min": _minimum,
    "select_n": _select,
    "reduce_max": _reduced(jnp.argmax),
    "reduce_min": _reduced(jnp.argmin),
}
