"""The operations that formulas are made of, in NumPy: what each gives, and how its derivative goes backwards.

A formula of costs is a program of JAX's primitives (a jaxpr). For a few designs XLA takes seconds to compile what NumPy
works off in milliseconds. An array here is one of the program with one axis more, the last one: the designs, or 1 where
all are alike. An axis of the program's along which all numbers are equal may be 1 long.

`PRIMITIVES` says of each operation its value, and what it pulls back: from the derivative with respect to its result
those with respect to its operands, by JAX's own conventions (at a tie of a maximum half to each side). A formula with
any other operation is left to XLA.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

Params = Mapping[str, Any]
Shapes = tuple[tuple[int, ...], ...]


class Use(NamedTuple):
    """One use of an operation: its parameters, and the shapes of its operands and of its result, without designs."""

    params: Params
    operands: Shapes
    result: tuple[int, ...]


@dataclass(frozen=True)
class Primitive:
    """An operation.

    Attributes:
        value: (use, operands) -> result.
        pull: (use, k, derivative, result, operands) -> the derivative with respect to operand k, of any shape that
            adds up to the operand's; None where it is 0 for all operands.
    """

    value: Callable[[Use, Sequence[Any]], Any]
    pull: Callable[[Use, int, Any, Any, Sequence[Any]], Any] | None = None


def add_up(derivative: Any, like: Any) -> Any:
    """Sum over the axes along which an operand was one number, all but the last one."""
    extra = derivative.ndim - like.ndim
    if extra:
        derivative = derivative.sum(axis=tuple(range(extra)))
    thin = tuple(k for k, n in enumerate(like.shape[:-1]) if n == 1 and derivative.shape[k] != 1)
    return derivative.sum(axis=thin, keepdims=True) if thin else derivative


def _elementwise(function: Callable[..., Any], *pulls: Callable[..., Any]) -> Primitive:
    """Of a function of numbers; pulls: (derivative, result, *operands) -> that of each operand."""

    def value(use: Use, operands: Sequence[Any]) -> Any:
        return function(*operands)

    def pull(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
        return pulls[k](derivative, result, *operands)

    return Primitive(value, pull if pulls else None)


def _larger(derivative: Any, result: Any, mine: Any, other: Any) -> Any:
    """Of a maximum or a minimum: all to the one that it is, half to each where both are."""
    return derivative * np.where(mine == result, np.where(other == result, 0.5, 1.0), 0.0)


def _full(x: Any, shape: tuple[int, ...]) -> Any:
    return x if x.shape[:-1] == shape else np.broadcast_to(x, (*shape, x.shape[-1]))


def _widest(arrays: Sequence[Any], shapes: Shapes) -> list[Any]:
    designs = max(x.shape[-1] for x in arrays)
    return [np.broadcast_to(x, (*shape, designs)) for x, shape in zip(arrays, shapes)]


def _structural(value: Callable[[Use, Any], Any], back: Callable[[Use, Any], Any]) -> Primitive:
    """Moves the numbers of one operand, of its full shape."""
    return Primitive(
        lambda use, operands: value(use, _full(operands[0], use.operands[0])),
        lambda use, k, derivative, result, operands: back(use, _full(derivative, use.result)),
    )


def _put(use: Use, derivative: Any) -> Any:
    whole = np.zeros((*use.operands[0], derivative.shape[-1]))
    whole[_cut(use)] = derivative
    return whole


def _cut(use: Use) -> tuple[slice, ...]:
    p = use.params
    strides = p["strides"] or (1,) * len(p["start_indices"])
    return tuple(map(slice, p["start_indices"], p["limit_indices"], strides))


def _broadcast(use: Use, operands: Sequence[Any]) -> Any:
    x = operands[0]
    shape = [1] * len(use.result)
    for k, n in zip(use.params["broadcast_dimensions"], x.shape):
        shape[k] = n
    return x.reshape(*shape, x.shape[-1])


def _same_numbers(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
    return derivative.reshape(*operands[k].shape[:-1], derivative.shape[-1])


def _reduction(
    function: Callable[..., Any], weight: Callable[[Any, Any, tuple[int, ...]], Any]
) -> Primitive:
    """Over some axes; `weight` (operand, result with those axes, axes): how much of it each number is."""

    def value(use: Use, operands: Sequence[Any]) -> Any:
        return function(_full(operands[0], use.operands[0]), axis=tuple(use.params["axes"]))

    def pull(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
        axes = tuple(use.params["axes"])
        whole = _full(operands[0], use.operands[0])
        kept = np.expand_dims(_full(result, use.result), axes)
        share = weight(whole, kept, axes)
        return np.expand_dims(_full(derivative, use.result), axes) * share

    return Primitive(value, pull)


def _extreme(whole: Any, kept: Any, axes: tuple[int, ...]) -> Any:
    found = (whole == kept).astype(float)
    return found / found.sum(axis=axes, keepdims=True)


def _together(use: Use, operands: Sequence[Any]) -> Any:
    return np.concatenate(_widest(operands, use.operands), axis=use.params["dimension"])


def _part(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
    axis = use.params["dimension"]
    start = sum(shape[axis] for shape in use.operands[:k])
    where = [slice(None)] * axis + [slice(start, start + use.operands[k][axis])]
    return _full(derivative, use.result)[tuple(where)]


def _stack(use: Use, operands: Sequence[Any]) -> Any:
    return np.stack(_widest(operands, use.operands), axis=use.params["axis"])


def _row(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
    return _full(derivative, use.result).take(k, axis=use.params["axis"])


def _power(derivative: Any, result: Any, x: Any, y: Any) -> Any:
    return derivative * y * np.power(x, np.where(y == 0, 1.0, y - 1.0))


def _exponent(derivative: Any, result: Any, x: Any, y: Any) -> Any:
    return derivative * result * np.log(np.where(x == 0, 1.0, x))


def _convert(use: Use, operands: Sequence[Any]) -> Any:
    return operands[0].astype(use.params["new_dtype"], copy=False)


def _whole_power(use: Use, k: int, derivative: Any, result: Any, operands: Sequence[Any]) -> Any:
    y = use.params["y"]
    return derivative * (y * _integer_power(operands[0], y - 1))


def _integer_power(x: Any, y: int) -> Any:
    return 1.0 / np.power(x, -y) if y < 0 else np.power(x, y)


PRIMITIVES: dict[str, Primitive] = {
    "add": _elementwise(np.add, lambda d, r, x, y: d, lambda d, r, x, y: d),
    "add_any": _elementwise(np.add, lambda d, r, x, y: d, lambda d, r, x, y: d),
    "sub": _elementwise(np.subtract, lambda d, r, x, y: d, lambda d, r, x, y: -d),
    "mul": _elementwise(np.multiply, lambda d, r, x, y: d * y, lambda d, r, x, y: d * x),
    "div": _elementwise(np.divide, lambda d, r, x, y: d / y, lambda d, r, x, y: -d * (r / y)),
    "neg": _elementwise(np.negative, lambda d, r, x: -d),
    "max": _elementwise(np.maximum, _larger, lambda d, r, x, y: _larger(d, r, y, x)),
    "min": _elementwise(np.minimum, _larger, lambda d, r, x, y: _larger(d, r, y, x)),
    "abs": _elementwise(np.abs, lambda d, r, x: d * np.sign(x)),
    "square": _elementwise(np.square, lambda d, r, x: d * (2.0 * x)),
    "sqrt": _elementwise(np.sqrt, lambda d, r, x: d * (0.5 / r)),
    "rsqrt": _elementwise(lambda x: 1.0 / np.sqrt(x), lambda d, r, x: d * (-0.5 * r / x)),
    "exp": _elementwise(np.exp, lambda d, r, x: d * r),
    "exp2": _elementwise(np.exp2, lambda d, r, x: d * (np.log(2.0) * r)),
    "log": _elementwise(np.log, lambda d, r, x: d / x),
    "log1p": _elementwise(np.log1p, lambda d, r, x: d / (1.0 + x)),
    "expm1": _elementwise(np.expm1, lambda d, r, x: d * (r + 1.0)),
    "tanh": _elementwise(np.tanh, lambda d, r, x: d * (1.0 - r * r)),
    "logistic": _elementwise(
        lambda x: 1.0 / (1.0 + np.exp(-x)), lambda d, r, x: d * (r * (1.0 - r))
    ),
    "pow": _elementwise(np.power, _power, _exponent),
    "integer_pow": Primitive(
        lambda use, operands: _integer_power(operands[0], use.params["y"]), _whole_power
    ),
    "select_n": _elementwise(
        lambda which, off, on: np.where(which, on, off),
        lambda d, r, which, off, on: np.zeros_like(d),
        lambda d, r, which, off, on: np.where(which, 0.0, d),
        lambda d, r, which, off, on: np.where(which, d, 0.0),
    ),
    "floor": _elementwise(np.floor),
    "ceil": _elementwise(np.ceil),
    "sign": _elementwise(np.sign),
    "stop_gradient": _elementwise(lambda x: x),
    "copy": _elementwise(lambda x: x, lambda d, r, x: d),
    "eq": _elementwise(np.equal),
    "ne": _elementwise(np.not_equal),
    "lt": _elementwise(np.less),
    "le": _elementwise(np.less_equal),
    "gt": _elementwise(np.greater),
    "ge": _elementwise(np.greater_equal),
    "and": _elementwise(np.bitwise_and),
    "or": _elementwise(np.bitwise_or),
    "not": _elementwise(np.bitwise_not),
    "is_finite": _elementwise(np.isfinite),
    "convert_element_type": Primitive(_convert, lambda use, k, d, r, operands: d),
    "broadcast_in_dim": Primitive(_broadcast, _same_numbers),
    "reshape": _structural(
        lambda use, x: x.reshape(*use.result, x.shape[-1]),
        lambda use, d: d.reshape(*use.operands[0], d.shape[-1]),
    ),
    "squeeze": _structural(
        lambda use, x: x.reshape(*use.result, x.shape[-1]),
        lambda use, d: d.reshape(*use.operands[0], d.shape[-1]),
    ),
    "transpose": _structural(
        lambda use, x: x.transpose(*use.params["permutation"], x.ndim - 1),
        lambda use, d: d.transpose(*np.argsort(use.params["permutation"]), d.ndim - 1),
    ),
    "slice": _structural(lambda use, x: x[_cut(use)], _put),
    "reduce_sum": _reduction(np.sum, lambda whole, kept, axes: np.ones((*whole.shape[:-1], 1))),
    "reduce_max": _reduction(np.max, _extreme),
    "reduce_min": _reduction(np.min, _extreme),
    "concatenate": Primitive(_together, _part),
    "stack": Primitive(_stack, _row),
}
"""By JAX's names."""

INLINED = ("jit", "pjit", "closed_call", "core_call")
"""Operations that are a program of their own, in the place of which its steps stand."""


def known(name: str, params: Params, operands: Sequence[Any]) -> Primitive | None:
    """The operation of that name, None where NumPy does not know it in this form."""
    found = PRIMITIVES.get(name)
    if name == "select_n" and (len(operands) != 3 or np.dtype(operands[0].dtype) != np.bool_):
        return None
    if name == "reshape" and params.get("dimensions") is not None:
        return None
    if name == "integer_pow" and not np.issubdtype(operands[0].dtype, np.floating):
        return None
    return found
