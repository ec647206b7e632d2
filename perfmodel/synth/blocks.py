"""The forward and backward passes of a transformer's layers and ends as steps: what runs, and what waits for what.

With context parallelism as a ring (Liu et al. 2023, arXiv:2310.01889) a rank passes keys and values on while it works
on those that it has: c - 1 of c parts of attention beside c - 1 hops, backward with the gradients beside them.
"""

from __future__ import annotations

from perfmodel.synth.kernel_record import Kernel, LayerPart
from perfmodel.synth.layout import CONTEXT
from perfmodel.synth.passes import After, Passes, around
from perfmodel.synth.routing import mixture, mixture_backward


class Blocks(Passes):
    """Steps that know the layers of a model on a rank."""

    # attention

    def attention(self, layer: int, after: After) -> After:
        """Norm, queries, core, projection, residual."""
        where, k = "attention", self.kernels
        last = self.run(where, k.norm().forward, after)
        first, *rest = k.queries()
        self.column(where, first.forward, [last])
        for part in rest:
            self.run(where, part.forward)
        arrived = self.core(where, layer)
        self.pending += arrived
        out = self.row(where, k.projection().forward)
        return [self.run(where, k.residual().forward, out)]

    def attention_backward(self, layer: int, after: After) -> After:
        """The way back; returns what yields the gradient of the block's input."""
        where, k, again = "attention", self.kernels, self.settings.recomputed
        if self.inputs:
            self.run(where, k.residual().input_gradient, after)
            if "alternate" in again:
                self.again(where, [self._keys_again(), *k.projection().forward])
        self.row_backward(where, k.projection())
        if self.inputs:
            if "attention" in again:
                self.label, kept = "recompute.", self.label
                self.pending += self.core(where, layer)
                self.label = kept
            self.pending += self.core_backward(where, layer)
        first, *rest = k.queries()
        for part in reversed(rest):
            self.plain_backward(where, part)
        return self._into_norm(where, first)

    def _keys_again(self) -> Kernel:
        """The keys' part of the product that leads to queries, keys and values."""
        m, (first, *_) = self.settings.model, self.kernels.queries()
        product = around(first.forward)[1]
        return product.cut(m.kv_heads, m.heads + 2 * m.kv_heads)[0]

    def _into_norm(self, where: str, first: LayerPart, after: After = ()) -> After:
        """Backward through a block's first product and its norm."""
        again = self.settings.recomputed
        if ("norm" in again or "alternate" in again) and self.inputs:
            self.again(where, self.kernels.norm().forward)
        found = self.column_backward(where, first, after)
        return [self.run(where, self.kernels.norm().input_gradient, found)] if self.inputs else []

    @property
    def keys_and_values(self) -> int:
        """Bytes of keys and values of the rank's tokens [B]."""
        s, m = self.settings, self.settings.model
        return s.number * s.tokens * self.kernels.kv_heads * (m.query_key_size + m.value_width)

    def _context(self, name: str, kind: str, size: int) -> int:
        return self.collective(name, kind, size, CONTEXT, [self.last], resource=CONTEXT)

    @property
    def heads_message(self) -> int:
        """Bytes of a rank's queries and outputs, half of what changes hands for all-to-all attention [B]."""
        s, m = self.settings, self.settings.model
        return s.number * s.tokens * m.heads * m.value_width // s.tensor

    def core(self, where: str, layer: int) -> After:
        """Scores and weighted values; returns what the next kernel has to wait for."""
        s, part = self.settings, self.kernels.core(layer)
        if s.context == 1:
            self.run(where, part.forward)
            return []
        if s.context_method == "all_to_all":
            queries = self.heads_message * s.model.query_key_size // s.model.value_width
            name = f"{where}.core.all_to_all"
            arrived = self._context(name, "all_to_all", queries + self.keys_and_values)
            self.run(where, part.forward, [arrived])
            return [self._context(f"{where}.heads.all_to_all", "all_to_all", self.heads_message)]
        name = f"{where}.core.all_gather"
        arrived = self._context(name, "all_gather", self.keys_and_values)
        if s.context_method == "all_gather":
            self.run(where, part.forward, [arrived])
            return []
        (kernel,) = part.forward
        beside, end = kernel.cut(s.context - 1, s.context)
        self.run(f"{where}.ring", [beside])
        self.run(where, [end], [arrived])
        return []

    def core_backward(self, where: str, layer: int) -> After:
        """Gradients of queries, keys and values; returns what the next kernel has to wait for."""
        s, part = self.settings, self.kernels.core(layer)
        if s.context == 1:
            self.run(where, part.input_gradient)
            return []
        whole = s.context * self.keys_and_values
        name = f"{where}.core.backward"
        if s.context_method == "all_to_all":
            arrived = self._context(f"{name}.heads.all_to_all", "all_to_all", self.heads_message)
            self.run(where, part.input_gradient, [arrived])
            queries = self.heads_message * s.model.query_key_size // s.model.value_width
            size = queries + self.keys_and_values
            return [self._context(f"{name}.all_to_all", "all_to_all", size)]
        arrived = self._context(f"{name}.all_gather", "all_gather", self.keys_and_values)
        if s.context_method == "all_gather":
            self.run(where, part.input_gradient, [arrived])
            return [self._context(f"{name}.reduce_scatter", "reduce_scatter", whole)]
        left = self._context(f"{name}.reduce_scatter", "reduce_scatter", whole)
        (kernel,) = part.input_gradient
        beside, end = kernel.cut(s.context - 1, s.context)
        self.run(f"{where}.ring", [beside])
        self.run(where, [end], [arrived, left])
        return []

    # feed-forward

    def mlp(self, after: After) -> After:
        """Norm, up, activation, down, residual."""
        where, k = "mlp", self.kernels
        last = self.run(where, k.norm().forward, after)
        out = self.dense(where, self._inner, [last])
        return [self.run(where, k.residual().forward, out)]

    @property
    def _inner(self) -> int:
        return self.settings.model.inner // self.settings.tensor

    def mlp_backward(self, after: After) -> After:
        """The way back through a dense mlp."""
        where, k = "mlp", self.kernels
        if self.inputs:
            self.run(where, k.residual().input_gradient, after)
        first = self.dense_backward(where, self._inner)
        return self._into_norm(where, first)

    # layers, ends

    def layer(self, layer: int, after: After) -> After:
        """A whole layer, forward."""
        after = self.attention(layer, after)
        if self.settings.model.has_experts(layer):
            return mixture(self, after)
        return self.mlp(after)

    def layer_backward(self, layer: int, after: After) -> After:
        """A whole layer, backward."""
        if self.settings.model.has_experts(layer):
            after = mixture_backward(self, after)
        else:
            after = self.mlp_backward(after)
        return self.attention_backward(layer, after)

    def embedding(self, after: After) -> After:
        """Look-up; tensor-parallel ranks have a part of the vocabulary each, and the parts are summed."""
        return self.reduce(
            "embedding", [self.run("embedding", self.kernels.embedding().forward, after)]
        )

    def embedding_backward(self, after: After) -> None:
        """The gradient of the embedding's rows."""
        after = self.gather("embedding.gradient", after) if self.inputs else ()
        if self.weights:
            self.run("embedding", self.kernels.embedding().input_gradient, after)

    def head(self, after: After) -> After:
        """Norm, logits, loss; with tensor parallelism three sums of 4 T bytes (Shoeybi et al. 2019, section 3)."""
        k, s = self.kernels, self.settings
        last = self.run("head", k.norm().forward, after)
        self.column("head", k.logits().forward, [last])
        found = self.run("head", k.loss().forward)
        if s.tensor > 1:
            for value in ("maximum", "target", "sum"):
                name = f"head.loss.{value}.all_reduce"
                found = self.in_tensor_group(name, "all_reduce", 4 * s.tokens, [found])
        return [found]

    def head_backward(self, after: After) -> After:
        """From the loss back to the gradient of the last layer's output."""
        if self.inputs:
            self.run("head", self.kernels.loss().input_gradient, after)
        found = self.column_backward("head", self.kernels.logits())
        norm = self.kernels.norm().input_gradient
        return [self.run("head", norm, found)] if self.inputs else []
