"""Formulas for the work of operators: what one call computes, reads and writes.

FLOP of matrix products, convolutions and attention are counted as PyTorch's own `torch.utils.flop_counter` counts them:
two for a multiplication and an addition, no discount for a causal mask, backward attention as five products. (It counts
the weight gradient of a convolution in groups as many times too often as there are groups, and takes the heads of
`_flash_attention_forward` for the length; here both are right.) Elementwise operators, reductions, norms and optimizer
steps count one per element of their largest tensor; what decides there are the bytes: every input read once, the output
written once.

Each formula takes a `Call` and raises a LookupError, ValueError or ArithmeticError where the call does not have the
arguments that it reads.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.trace.pytorch.tensors import Tensor, numbers, truth

Arguments = Sequence[Tensor | list[Tensor] | None]


@dataclass(frozen=True)
class OperatorWork:
    """What one call does.

    Attributes:
        kind: "gemm", "attention", "elementwise", "reduction", "norm", "embedding" or "optimizer".
        flops, bytes: FLOP and B read and written.
        dimensions: sizes in the order of `vocabulary.DIMENSIONS[kind]` (gemm: batch, m, n, k; attention: batch,
            heads, kv_heads, query, key, head_size, causal).
        dtype: element type of what is computed ("fp32", "bf16", ...), "" unknown.
    """

    kind: str
    flops: int
    bytes: int
    dimensions: tuple[int, ...] = ()
    dtype: str = ""


@dataclass(frozen=True)
class Call:
    """One call: arguments, their values as the trace has them, and outputs where the host trace names them."""

    inputs: Arguments
    values: Sequence[Any]
    outputs: Arguments

    def tensor(self, index: int) -> Tensor:
        """An argument that has to be a tensor."""
        found = self.inputs[index] if index < len(self.inputs) else None
        if not isinstance(found, Tensor):
            raise LookupError
        return found

    def value(self, index: int) -> Any:
        """The value of an argument, None where the trace does not say."""
        return self.values[index] if index < len(self.values) else None

    @property
    def read(self) -> int:
        """Bytes of all tensors put in."""
        return sum(t.bytes for t in _flat(self.inputs))

    @property
    def written(self) -> int | None:
        """Bytes of all tensors put out, None where the trace does not say."""
        return sum(t.bytes for t in _flat(self.outputs)) if self.outputs else None


def _flat(found: Arguments) -> list[Tensor]:
    return [t for a in found for t in (a if isinstance(a, list) else [a] if a is not None else [])]


def _product(
    call: Call, a: Tensor, b: Tensor, size: tuple[int, int, int, int], extra: int = 0
) -> OperatorWork:
    """A product of `batch` matrices [m, k] and [k, n]."""
    batch, m, n, k = size
    width = a.bytes // max(a.elements, 1)
    out = batch * m * n * width
    written = call.written if call.written is not None else out
    return OperatorWork(
        "gemm",
        2 * batch * m * n * k,
        a.bytes + b.bytes + extra + written,
        (batch, m, n, k),
        a.dtype or b.dtype,
    )


def mm(first: int) -> Callable[[Call], OperatorWork]:
    """[m, k] times [k, n], perhaps batched, from an argument on; arguments before it are added."""

    def formula(call: Call) -> OperatorWork:
        a, b = call.tensor(first), call.tensor(first + 1)
        *batch, m, k = a.shape
        *other, inner, n = b.shape
        if inner != k or batch != other:
            raise ValueError
        added = sum(call.tensor(i).bytes for i in range(first))
        return _product(call, a, b, (math.prod(batch), m, n, k), added)

    return formula


def mv(first: int) -> Callable[[Call], OperatorWork]:
    def formula(call: Call) -> OperatorWork:
        a, b = call.tensor(first), call.tensor(first + 1)
        m, k = a.shape if len(a.shape) == 2 else (1, a.shape[0])
        return _product(call, a, b, (1, m, 1, k), sum(call.tensor(i).bytes for i in range(first)))

    return formula


def linear(call: Call) -> OperatorWork:
    a, weight = call.tensor(0), call.tensor(1)
    n, k = weight.shape
    return _product(call, a, weight, (1, a.elements // k, n, k), call.read - a.bytes - weight.bytes)


def matmul(call: Call) -> OperatorWork:
    a, b = call.tensor(0), call.tensor(1)
    if len(b.shape) <= 2:  # the leading dimensions of the first become rows
        k, n = b.shape if len(b.shape) == 2 else (b.shape[0], 1)
        return _product(call, a, b, (1, a.elements // k, n, k))
    m, k = a.shape[-2:] if len(a.shape) > 1 else (1, a.shape[0])
    batch = _broadcast([a.shape[:-2], b.shape[:-2]])
    return _product(call, a, b, (math.prod(batch), m, b.shape[-1], k))


def _broadcast(shapes: Sequence[Sequence[int]]) -> list[int]:
    rank = max(map(len, shapes), default=0)
    padded = [[1] * (rank - len(s)) + list(s) for s in shapes]
    return [max(sizes) if 0 not in sizes else 0 for sizes in zip(*padded)]


def _conv_flops(outer: Sequence[int], weight: Sequence[int], batch: int) -> int:
    """2 x places x filter x batch x channels in x channels out."""
    return 2 * batch * math.prod(outer) * math.prod(weight)


def _as_product(
    batch: int, outer: int, weight: Sequence[int], groups: int
) -> tuple[int, int, int, int]:
    """A convolution as `groups` products of [batch x places, filter] and [filter, channels out]."""
    return groups, batch * outer, weight[0] // groups, math.prod(weight[1:])


def convolution(
    stride: int, padding: int, dilation: int, groups: int, transposed: int | None = None
) -> Callable[[Call], OperatorWork]:
    """A convolution whose settings stand at these arguments."""

    def formula(call: Call) -> OperatorWork:
        x, weight = call.tensor(0), call.tensor(1)
        turned = transposed is not None and truth(call.value(transposed))
        if turned:
            outer: Sequence[int] = x.shape[2:]
        elif call.outputs and isinstance(call.outputs[0], Tensor):
            outer = call.outputs[0].shape[2:]
        else:
            outer = _places(call, x, weight, stride, padding, dilation)
        count = call.value(groups)
        number = int(count) if count not in (None, "") else x.shape[1] // weight.shape[1]
        written = call.written
        if written is None:
            width = x.bytes // max(x.elements, 1)
            written = width * x.shape[0] * weight.shape[0] * math.prod(outer)
        return OperatorWork(
            "gemm",
            _conv_flops(outer, weight.shape, x.shape[0]),
            x.bytes + weight.bytes + written,
            _as_product(x.shape[0], math.prod(outer), weight.shape, max(number, 1)),
            x.dtype,
        )

    return formula


def _places(
    call: Call, x: Tensor, weight: Tensor, stride: int, padding: int, dilation: int
) -> list[int]:
    """Sizes of a convolution's output without batch and channels."""
    places = []
    for axis in range(len(x.shape) - 2):
        s, p, d = (_at(numbers(call.value(i)), axis) for i in (stride, padding, dilation))
        reach = d * (weight.shape[2 + axis] - 1) + 1
        places.append((x.shape[2 + axis] + 2 * p - reach) // s + 1)
    return places


def _at(values: list[int] | None, axis: int) -> int:
    if values is None:
        raise ValueError
    return values[axis] if len(values) > 1 else values[0]


def convolution_backward(call: Call) -> OperatorWork:
    """Gradients of input and weight, each as large as the forward pass; the bias's is a reduction."""
    gradient, x, weight = (call.tensor(i) for i in range(3))
    turned = truth(call.value(7))
    outer = x.shape[2:] if turned else gradient.shape[2:]
    forward = _conv_flops(outer, weight.shape, x.shape[0])
    wanted = call.value(10)
    mask = wanted if isinstance(wanted, list) else None
    if isinstance(wanted, str) and wanted.startswith("["):
        mask = [truth(word.strip()) for word in wanted.strip("[]").split(",")]
    count = sum(map(bool, mask[:2])) if mask else 2
    groups = (
        int(call.value(9)) if call.value(9) not in (None, "") else x.shape[1] // weight.shape[1]
    )
    written = call.written if call.written is not None else x.bytes + weight.bytes
    batch, m, n, k = _as_product(x.shape[0], math.prod(outer), weight.shape, max(groups, 1))
    return OperatorWork(
        "gemm", count * forward, call.read + written, (count * batch, m, n, k), gradient.dtype
    )


def attention(
    q: int, *, heads_last: bool = False, backward: bool = False, causal: int | None = None
) -> Callable[[Call], OperatorWork]:
    """Attention of query, key and value that stand from argument `q` on: [batch, heads, length, size], or the two
    middle ones swapped."""

    def formula(call: Call) -> OperatorWork:
        query, key, value = (call.tensor(q + i) for i in range(3))
        if (
            len(query.shape) == 3
        ):  # sequences packed one after another: their lengths are not in the shapes
            raise ValueError
        b, h, s, d = _heads(query, heads_last)
        _, kv, t, _ = _heads(key, heads_last)
        *_, dv = value.shape
        scores, outcome = 2 * b * h * s * t * d, 2 * b * h * s * t * dv
        flops = 3 * scores + 2 * outcome if backward else scores + outcome
        width = query.bytes // max(query.elements, 1)
        written = call.written if call.written is not None else width * b * h * s * dv
        masked = int(truth(call.value(causal))) if causal is not None else 0
        return OperatorWork(
            "attention", flops, call.read + written, (b, h, kv, s, t, d, masked), query.dtype
        )

    return formula


def _heads(tensor: Tensor, heads_last: bool) -> tuple[int, int, int, int]:
    a, b, c, d = tensor.shape
    return (a, c, b, d) if heads_last else (a, b, c, d)


def streaming(
    kind: str, *, in_place: bool = False, like: int | None = None
) -> Callable[[Call], OperatorWork]:
    """An operator that reads its inputs and writes its output once; one FLOP per element of the largest."""

    def formula(call: Call) -> OperatorWork:
        tensors = _flat(call.inputs)
        if not tensors:
            if not call.written:
                raise ValueError
            return OperatorWork(kind, 0, call.written, (), _dtype(_flat(call.outputs)))
        written = call.written
        if written is None:
            if in_place:
                first = call.inputs[0]
                written = sum(t.bytes for t in (first if isinstance(first, list) else [first]) if t)
            elif like is not None:
                written = call.tensor(like).bytes
            else:
                shape = _broadcast([t.shape for t in tensors])
                width = (
                    max(t.bytes // max(t.elements, 1) for t in tensors if t.elements)
                    if any(t.elements for t in tensors)
                    else 0
                )
                written = math.prod(shape) * width
        largest = max(t.elements for t in [*tensors, *_flat(call.outputs)])
        return OperatorWork(kind, largest, call.read + written, (), _dtype(tensors))

    return formula


def writing(call: Call) -> OperatorWork:
    """fill_, zero_: only writes its first argument."""
    first = call.tensor(0)
    return OperatorWork("elementwise", 0, first.bytes, (), first.dtype)


def copy(call: Call) -> OperatorWork:
    target, source = call.tensor(0), call.tensor(1)
    return OperatorWork("elementwise", 0, target.bytes + source.bytes, (), target.dtype)


def reduction(call: Call) -> OperatorWork:
    first = call.tensor(0)
    written = call.written if call.written is not None else 0
    return OperatorWork("reduction", first.elements, first.bytes + written, (), first.dtype)


def embedding(call: Call) -> OperatorWork:
    """Rows of a table [rows, size] by number: those rows are read and written, the table's others are not touched."""
    table = call.tensor(0)
    index = [t for t in _flat(call.inputs)[1:] if t.dtype == ""]
    if not index:
        raise LookupError
    width = table.bytes // max(table.elements, 1)
    chosen = max(t.elements for t in index) * math.prod(table.shape[1:]) * width
    return OperatorWork("embedding", 0, 2 * chosen + sum(t.bytes for t in index), (), table.dtype)


def _dtype(tensors: Sequence[Tensor]) -> str:
    return next((t.dtype for t in tensors if t.dtype), "")


def optimizer(call: Call) -> OperatorWork:
    """Fused steps read parameters, gradients and states, and write all but the gradients."""
    lists = [a for a in call.inputs if isinstance(a, list) and a]
    sizes = [sum(t.bytes for t in held) for held in lists]
    if not sizes:
        raise ValueError
    elements = sum(t.elements for t in lists[0])
    written = sum(sizes) - (sizes[1] if len(sizes) > 1 else 0)
    return OperatorWork("optimizer", elements, sum(sizes) + written, (), _dtype(lists[0]))
