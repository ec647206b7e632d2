"""Kernels and the collectives of a tensor-parallel group as steps: products whose rows are gathered or results summed.

With tensor parallelism the ranks of a group hold partial results, which are summed (Shoeybi et al. 2019,
arXiv:1909.08053); with sequence parallelism each holds a part of the tokens between blocks, so that the sum is a
reduce-scatter and the way back an all-gather (Korthikanti et al. 2022, arXiv:2205.05198, section 4.2.2: the input is
gathered again for the weights' gradient, beside the input's gradient). Where tensor-parallel collectives overlap,
a product runs in t parts as its rows arrive or leave: t - 1 of them beside the collective, one before or after it
(Transformer Engine's ring exchange).

Streams: one for computation and one for every communicator, named like its group.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from perfmodel.synth.experts import Experts
from perfmodel.synth.kernel_record import Kernel, LayerPart, parts, width
from perfmodel.synth.kernels import LayerKernels
from perfmodel.synth.layout import TENSOR
from perfmodel.synth.steps import Step, Steps
from perfmodel.vocabulary import NodeType

After = Sequence[int | None]

LOSS = (24, 11)
"""Small kernels of a loss that is not fused, forward and backward, beside the one that stands for it: targets that
other ranks have, maxima, sums, the mean over tokens (Megatron-LM's mpu/cross_entropy.py and loss_func)."""


class Passes(Steps):
    """Steps that know the kernels of a model on a rank.

    Args:
        kernels: of the model on this rank.
        experts: of its layers that have them.
        mode: of a backward pass, "B" for both halves, "I" for inputs' gradients, "W" for weights' gradients.
    """

    def __init__(self, kernels: LayerKernels, experts: Experts, mode: str = "B") -> None:
        super().__init__()
        self.kernels, self.experts, self.settings = kernels, experts, kernels.settings
        self.inputs, self.weights = mode in "BI", mode in "BW"
        self.prefix = 0
        self.prefixes: list[int] = []
        self.label = ""
        self.pending: list[int | None] = []
        """What the next kernel waits for, too."""
        self.launched: list[int | None] = []
        """What the tensor group's next collective is launched after."""
        self.launching = False
        """The host launches what is added."""
        self.waited: After = ()
        """What the host waits for before it launches anything: its launch before, too."""

    def _add(self, step: Step) -> int:
        each = self.settings.host_kernel
        if each and self.launching and _launched(step):
            step = self._launches(step, f"{step.name}.launch", each)
        self.prefixes.append(self.prefix)
        return super()._add(step._replace(name=self.label + step.name) if self.label else step)

    def _launches(self, step: Step, name: str, duration: float) -> Step:
        """The step as it waits for the host to launch it, which takes that long [s]."""
        launched = self.host(name, duration, self.waited)
        self.waited = [launched]
        return step._replace(after=tuple(sorted({*step.after, launched})))

    def run(self, where: str, kernels: Iterable[Kernel], after: After = ()) -> int | None:
        """Kernels one after the other; returns the last."""
        for kernel in kernels:
            self.compute(f"{where}.{kernel.name}", kernel, [*after, *self.pending])
            self.pending, after = [], ()
        return self.last

    def launch(
        self, steps: Callable[[], After], duration: float, *, more: int = 0, waits: bool = True
    ) -> list[int | None]:
        """A layer, or the head, as the host launches it.

        Each of its kernels and collectives cannot start before the host has launched it, nor the last one before the
        host's own time for the layer has passed.

        Args:
            steps: adds what it consists of; returns what yields its output, of which its last node is one.
            duration: for the layer [s].
            more: kernels that the host launches for one that stands for several.
            waits: the host waits for all kernels before, where it does so at every layer.

        Returns:
            What yields its output.
        """
        s = self.settings
        if s.host_waits == "layer" and waits:
            self.waited = [*self.waited, self.last]
        self.launching = True
        x = list(steps())
        self.launching = False
        duration += s.host_kernel * more
        if not duration:
            return x
        last, prefix = self.nodes.pop(), self.prefixes.pop()
        self.nodes.append(self._launches(last, "launch", duration))
        self.prefixes.append(prefix)
        self.last = len(self.nodes) - 1
        return [self.last]

    # tensor parallelism

    @property
    def activation(self) -> int:
        """Bytes of a block's whole output, e T h [B]."""
        s = self.settings
        return s.number * s.tokens * s.model.hidden

    @property
    def ring(self) -> bool:
        """Collectives of the tensor group run beside parts of their products."""
        return self.settings.split > 1 and "tensor" in self.settings.overlap

    def in_tensor_group(self, name: str, kind: str, size: int, after: After) -> int:
        """A collective of the tensor group; it also waits for what it has to be launched after."""
        after, self.launched = [*after, *self.launched], []
        return self.collective(name, kind, size, TENSOR, after, resource=TENSOR)

    def gather(self, where: str, after: After, product: Kernel | None = None) -> After:
        """Collect all tokens where each rank holds a part of them; else there is nothing to do.

        `product`: what they are gathered for, whose numbers they then have.
        """
        s = self.settings
        if s.split == 1:
            return after
        e = s.number if product is None else width(product.dtype)
        size = int(e * s.tokens * s.model.hidden) // s.tensor
        name = f"{where}.all_gather"
        return [self.in_tensor_group(name, "all_gather", size, after)]

    def reduce(self, where: str, after: After) -> After:
        """Sum the group's partial results; nothing to do for a group of one."""
        if self.settings.tensor == 1:
            return after
        kind = "reduce_scatter" if self.settings.sequence_parallel else "all_reduce"
        name = f"{where}.{kind}"
        return [self.in_tensor_group(name, kind, self.activation, after)]

    def column(
        self, where: str, kernels: Sequence[Kernel], after: After, gathered: str = ""
    ) -> None:
        """A product of gathered rows, with what comes before it and after it; `gathered`: what they are called."""
        before, product, behind = around(kernels)
        if before:
            after = [self.run(where, before, after)]
        arrived = self.gather(gathered or where, after, product)
        if self.ring:
            t = self.settings.tensor
            self.run(f"{where}.ring", [parts(product, t - 1, t)], after)
            product = parts(product, 1, t)
        self.run(where, [product, *behind], arrived)

    def row(self, where: str, kernels: Sequence[Kernel]) -> After:
        """A product whose results are summed; returns what to wait for."""
        if not self.ring:
            return self.reduce(where, [self.run(where, kernels)])
        before, product, _ = around(kernels)
        t = self.settings.tensor
        arrived = self.reduce(where, [self.run(where, [*before, parts(product, 1, t)])])
        return [*arrived, self.run(f"{where}.ring", [parts(product, t - 1, t)])]

    def row_backward(self, where: str, part: LayerPart, after: After = ()) -> None:
        """Backward through a product whose results were summed: gather the gradient, then the product."""
        if self.inputs:
            gathered = f"{where}.backward"
            self.column(where, part.input_gradient, after or [self.last], gathered)
        if self.weights:
            self.run(where, part.weight_gradient)

    def column_backward(self, where: str, part: LayerPart, after: After = ()) -> After:
        """Backward through a product of gathered rows; the sum of its input's gradient may run beside the weights'."""
        stored: After = ()
        found: After = after
        if self.weights and part.weight_gradient:
            product = around(part.weight_gradient)[1]
            stored = self.gather(f"{where}.input", [self.last], product)
        beside = "sums" in self.settings.overlap
        if self.inputs:
            last = self.run(where, part.input_gradient, after if beside else [*after, *stored])
            found = self.reduce(f"{where}.backward", [last]) if beside else after
        if self.weights:
            self.run(where, part.weight_gradient, stored)
        if self.inputs and not beside:
            found = self.reduce(f"{where}.backward", [self.last])
        return found

    def plain_backward(self, where: str, part: LayerPart, after: After = ()) -> None:
        """Backward through kernels without communication."""
        if self.inputs:
            self.run(where, part.input_gradient, after)
        if self.weights:
            self.run(where, part.weight_gradient)

    def again(self, where: str, kernels: Iterable[Kernel]) -> None:
        """Kernels of the forward pass that run once more."""
        kept, self.label = self.label, "recompute."
        self.run(where, kernels)
        self.label = kept

    # feed-forward

    def dense(self, where: str, inner: int, after: After) -> After:
        """The two products of an mlp of so many inner numbers on the rank."""
        k, rows = self.kernels, self.settings.tokens
        self.column(where, k.up(inner, rows).forward, after)
        self.run(where, k.activation(rows * inner).forward)
        return self.row(where, k.down(inner, rows).forward)

    def dense_backward(self, where: str, inner: int) -> LayerPart:
        """Back through down and activation; returns the first product, which is left to do."""
        k, rows, again = self.kernels, self.settings.tokens, self.settings.recomputed
        if self.inputs and "mlp" in again:
            kept, self.label = self.label, "recompute."
            self.column(where, k.up(inner, rows).forward, [self.last])
            self.label = kept
        if self.inputs and "alternate" in again:
            product = around(k.up(inner, rows).forward)[1]
            self.again(where, [product.cut(1, 2)[0]] if self.settings.model.gated else [])
        if self.inputs and {"mlp", "activation", "alternate"} & set(again):
            self.again(where, k.activation(rows * inner).forward)
        self.row_backward(where, k.down(inner, rows))
        if self.inputs:
            self.run(where, k.activation(rows * inner).input_gradient)
        return k.up(inner, rows)


def around(kernels: Sequence[Kernel]) -> tuple[list[Kernel], Kernel, list[Kernel]]:
    """Kernels before, the product, and kernels after it."""
    at = next(k for k, kernel in enumerate(kernels) if kernel.kind == "gemm")
    return list(kernels[:at]), kernels[at], list(kernels[at + 1 :])


def _launched(node: Step) -> bool:
    """Whether the host launches it: a kernel or a collective."""
    return not node.host and node.type in (NodeType.COMP, NodeType.COMM_COLL)
