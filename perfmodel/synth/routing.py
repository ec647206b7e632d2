"""A layer of experts as steps: route, send tokens out, compute, send them back, and the same backwards.

With expert-tensor parallelism the rows that arrive are gathered over the ranks that share an expert, and what they
computed is summed and scattered before it travels back. Tensor-parallel ranks without sequence parallelism each send
out a part of their common tokens, and gather the results.
"""

from __future__ import annotations

from dataclasses import replace

from perfmodel.synth.kernel_record import Kernel, LayerPart
from perfmodel.synth.layout import EXPERT, EXPERT_TENSOR
from perfmodel.synth.passes import After, Passes


def mixture(b: Passes, after: After) -> After:
    """The block forward, from the layer's middle to its output."""
    where, k, x = "moe", b.kernels, b.experts
    b.run(where, k.norm().forward, after)
    normed = b.last
    for part in (x.router(), x.choice(), x.permute()):
        b.run(where, part.forward)
    b.pending += _exchange(b, f"{where}.dispatch")
    b.run(where, x.sort().forward)
    b.pending += _gather_rows(b, f"{where}.experts")
    for part in (x.up(), x.activation(), x.down()):
        b.run(where, part.forward)
    b.pending += _reduce_rows(b, f"{where}.experts")
    b.run(where, renamed(x.sort().forward, "unsort"))
    b.pending += _exchange(b, f"{where}.combine")
    b.run(where, x.unpermute().forward)
    out: After = _whole_tokens(b, where)
    if b.settings.model.shared_experts:
        out = [*out, *b.dense(f"{where}.shared", shared_inner(b), [normed])]
    return [b.run(where, k.residual().forward, out)]


def mixture_backward(b: Passes, after: After) -> After:
    """The way back; returns what yields the gradient of the block's input."""
    where, k, x = "moe", b.kernels, b.experts
    if b.inputs:
        b.run(where, k.residual().input_gradient, after)
    shared: After = ()
    if b.settings.model.shared_experts:
        first = b.dense_backward(f"{where}.shared", shared_inner(b))
        shared = b.column_backward(f"{where}.shared", first)
    if b.inputs:
        b.run(where, x.unpermute().input_gradient)
        b.pending += _exchange(b, f"{where}.combine.gradient")
        b.run(where, renamed(x.sort().input_gradient, "unsort.gradient"))
        b.pending += _gather_rows(b, f"{where}.experts.backward")
        if {"activation", "mlp"} & set(b.settings.recomputed):
            if "mlp" in b.settings.recomputed:
                b.again(where, x.up().forward)
            b.again(where, x.activation().forward)
    b.plain_backward(where, x.down())
    if b.inputs:
        b.run(where, x.activation().input_gradient)
    _experts_backward(b, where, x.up())
    b.plain_backward(where, x.choice())
    b.plain_backward(where, x.router())
    if not b.inputs:
        return []
    found = _whole_tokens(b, f"{where}.gradient")
    return [b.run(where, k.norm().input_gradient, [*found, *shared])]


def _experts_backward(b: Passes, where: str, up: LayerPart) -> None:
    """Back through the first product; tokens travel home beside the weights' gradient."""
    x = b.experts
    home: After = ()
    if b.inputs:
        b.run(where, up.input_gradient)
        b.pending += _reduce_rows(b, f"{where}.experts.backward")
        b.run(where, x.sort().input_gradient)
        if b.pending:  # nothing to sort: the message itself waits for the sum
            home = _exchange(b, f"{where}.dispatch.gradient", b.pending)
            b.pending = []
        else:
            home = _exchange(b, f"{where}.dispatch.gradient")
    if b.weights:
        b.run(where, up.weight_gradient)
    if b.inputs:
        b.run(where, x.permute().input_gradient, home)


def shared_inner(b: Passes) -> int:
    """Inner size of the shared experts together, on a rank."""
    m = b.settings.model
    return m.shared_experts * m.expert_inner // b.settings.tensor


def renamed(kernels: tuple[Kernel, ...], name: str) -> list[Kernel]:
    """The same work under another name."""
    return [replace(kernel, name=name) for kernel in kernels]


def _exchange(b: Passes, name: str, after: After | None = None) -> list[int | None]:
    if b.settings.expert == 1:
        return list(after or [])
    waits = [b.last] if after is None else after
    return [
        b.collective(
            f"{name}.all_to_all",
            "all_to_all",
            b.experts.message,
            EXPERT,
            [*waits, *b.pending],
            resource=EXPERT,
        )
    ]


def _rows(b: Passes) -> int:
    """Bytes of the rows that this rank received [B]."""
    return b.settings.number * b.settings.model.hidden * b.experts.received


def _gather_rows(b: Passes, name: str) -> list[int | None]:
    if b.settings.expert_tensor == 1:
        return []
    waits = [b.last, *b.pending]
    b.pending = []
    return [
        b.collective(
            f"{name}.all_gather",
            "all_gather",
            _rows(b),
            EXPERT_TENSOR,
            waits,
            resource=EXPERT_TENSOR,
        )
    ]


def _reduce_rows(b: Passes, name: str) -> list[int | None]:
    if b.settings.expert_tensor == 1:
        return []
    size = _rows(b) * b.settings.expert_tensor
    name = f"{name}.reduce_scatter"
    return [
        b.collective(name, "reduce_scatter", size, EXPERT_TENSOR, [b.last], resource=EXPERT_TENSOR)
    ]


def _whole_tokens(b: Passes, where: str) -> list[int | None]:
    """Tensor-parallel ranks that hold all tokens collect the parts that each sent out."""
    s = b.settings
    if s.tensor == 1 or s.sequence_parallel:
        return [b.last]
    size = b.activation // s.tensor
    name = f"{where}.tokens.all_gather"
    return [b.in_tensor_group(name, "all_gather", size, [b.last])]
