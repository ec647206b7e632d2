"""The kernels of a transformer's parts on one rank: operations, bytes, shape and type of each.

For T tokens of the rank, T' = T / t of them between blocks with sequence parallelism (else T), e bytes a number,
products of a layer in their own type:

    kernel              kind         forward FLOP     forward bytes        backward
    product m k n       gemm         2 m n k          e (m k + k n + m n)  one for the input, one for the weights
    attention, flash    attention    2 a (dq+dv) T x / t     e T a (dq+dv) / t + keys, values     2.5 x: scores again
    attention, unfused  gemm + ...   4 a d T s / t    scores a s T / t numbers: softmax 2 passes, dropout 2.5
    softmax, apart      5 kernels    -                scores 33 + 2 e bytes      36 + 2 e bytes, 5 kernels
    norm                norm         8 T' h           2 e T' h             4 e T' h
    residual            elementwise  2 T' h           3 e T' h, with dropout 3.5    2.5 (2 without dropout)
    activation          elementwise  8 T f / t        2 e T f / t, gated 3           3, gated 5
    bias gradient       reduction    -                -                    e T n / t
    sum of gradients    in the gemm  -                -                    2 eg k n in the place of e' k n
    the same, apart     elementwise  -                -                    (e + 2 eg) k n, autograd 3 e k n
    embedding           embedding    T' h             3 e T' h             6 e T' h, and e V h / t to set rows to zero
    loss, fused         reduction    4 T V / t        2 e T V / t          2 e T V / t
    loss, in fp32       reduction    4 T V / t        18 T V / t, 38 over t     14 T V / t
    cast, fp8 and fp4   elementwise  -                2 + ep T k / t       gradients 2 + 2 ep T n / t, inputs 2 ep T k
    optimizer           optimizer    14 P             gradient and state in, state and weight out; gradients are read
                                                      for their norm, scaled (in and out), and set to zero

x: tokens that a token attends to; ep: bytes of a product's narrow numbers, eg: of a gradient as it is summed, e': of a
product's result. Gradients of weights are added to those of the micro-batches before: within the product
(Megatron-LM's gradient_accumulation_fusion), by a kernel that adds to a buffer (there without it, and for what no
product makes, of which the embedding's counts here: a whole matrix in PyTorch, mostly zeros), or by PyTorch's
autograd, which takes the first as it is (torch/csrc/autograd/functions/accumulate_grad.h). Those of norms and, in the
fused case, of biases are under a thousandth of all. Norms and activations write what follows them in narrow numbers
themselves; the input of the projection, and every gradient, take a kernel that casts, and
the transposed copies that Hopper's products of weights' gradients want are written with the gradient, and from
the kept input. What tensor-parallel ranks gather for a narrow product is narrow; sums are 16 bits wide. Products
of gradients in fp8 promote their partial sums (`vocabulary.DTYPES`). Sources: Narayanan et al. 2021
(arXiv:2104.04473) for products; Megatron-LM's fused_softmax.py for where its softmax is more than one kernel; Dao et
al. 2022 (arXiv:2205.14135) for attention without traffic of scores;
Korthikanti et al. 2022 (arXiv:2205.05198) for what a layer of Megatron-LM reads and writes; Kingma and Ba 2015 for
Adam's 14 operations; NVIDIA Transformer Engine at 0004dbd, pytorch/module/base.py and linear.py (casts, transposes,
gathered numbers, split accumulators), for narrow numbers. Element-wise operations are counted one by one; they
decide nothing where memory is the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfmodel.synth.kernel_record import Kernel, LayerPart, Some, accumulating, gemm
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.sizes import Sizes

ADAM_FLOPS = 14
"""Operations of Adam on one parameter (Kingma and Ba 2015, algorithm 1): m 3, v 4, corrections 2, update 5."""

FLASH_BACKWARD = 2.5
"""Products of the fused backward pass over those of the forward pass: 5 over 2 (Dao et al. 2022, algorithm 4)."""


@dataclass(frozen=True)
class LayerKernels:
    """The kernels of a model on one rank of a job."""

    settings: Settings
    adding: bool = True
    """There are gradients already to which those of weights are added."""

    @property
    def model(self) -> Sizes:
        return self.settings.model

    @property
    def between(self) -> int:
        """T', tokens that a rank holds between blocks."""
        return self.settings.tokens // self.settings.split

    # building blocks

    def passes(self, name: str, kind: str, numbers: int, times: float, flops: int = 1) -> Kernel:
        """A kernel that moves `times` numbers and makes `flops` operations for each of `numbers`."""
        s = self.settings
        return Kernel(name, kind, flops * numbers, int(times * numbers * s.number), (), s.wide)

    def product(
        self,
        name: str,
        rows: int,
        inputs: int,
        outputs: int,
        *,
        bias: bool,
        wide: bool = False,
        cast: bool = False,
        summed: bool = False,
        batch: int = 1,
    ) -> LayerPart:
        """Rows times a weight matrix [inputs, outputs], and its two gradients.

        Args:
            wide: in the activations' type whatever the type of products.
            cast: the input comes in the activations' type from a kernel that does not cast it.
            summed: results are partial sums, so that where ranks hold a part of the tokens between blocks their
                gradient is cast in parts, gathered in narrow numbers, and transposed after that.
            batch: so many products, of `rows` each.
        """
        s = self.settings
        dtype = s.wide if wide else s.dtype
        careful = "fp8_promoted" if dtype == "fp8" else dtype
        back = f"{name}.input_gradient"
        forward: Some = (gemm(name, rows, outputs, inputs, dtype=dtype, batch=batch),)
        gradient: Some = (gemm(back, rows, inputs, outputs, dtype=careful, batch=batch),)
        last = f"{name}.weight_gradient"
        weights: Some = (gemm(last, outputs, inputs, rows, dtype=careful, batch=batch),)
        if dtype != s.wide:
            e, narrow = s.number, BYTES[dtype]
            taken, given = batch * rows * inputs, batch * rows * outputs
            if cast:
                forward = (self._cast(f"{name}.cast", taken, e + narrow), *forward)
            if summed and s.split > 1:
                gradient = (self._cast(f"{back}.cast", given // s.split, e + narrow), *gradient)
                taken += given
            else:
                gradient = (self._cast(f"{back}.cast", given, e + 2 * narrow), *gradient)
            weights = (self._cast(f"{last}.transpose", taken, 2 * narrow), *weights)
        if bias:
            given = batch * rows * outputs
            weights += (self.passes(f"{name}.bias_gradient", "reduction", given, 1),)
        if s.accumulates:
            weights = self._added(weights, batch * outputs * (inputs + bias), last)
        return LayerPart(forward, gradient, weights)

    def _added(self, kernels: Some, count: int, name: str) -> Some:
        """Kernels that make `count` gradients of weights, then these joined with those of micro-batches before."""
        if self.settings.accumulation != "fused":
            return (*kernels, *self._sum(name, count))
        size = int(BYTES[self.settings.gradient_dtype])
        return tuple(accumulating(k, size) if k.kind == "gemm" else k for k in kernels)

    def _sum(self, name: str, count: int) -> Some:
        """A kernel that adds so many gradients to those before; none for the first that autograd gets."""
        s = self.settings
        if not self.adding:
            return ()
        into = s.number if s.accumulation == "autograd" else BYTES[s.gradient_dtype]
        return (self._cast(f"{name}.add", count, s.number + 2 * into),)

    def _cast(self, name: str, numbers: int, each: float) -> Kernel:
        """Numbers from one type or order to another, so many bytes each."""
        return Kernel(name, "elementwise", numbers, int(each * numbers), (), self.settings.wide)

    def norm(self, name: str = "norm") -> LayerPart:
        """A norm of the hidden size."""
        numbers = self.between * self.model.hidden
        return LayerPart(
            (self.passes(name, "norm", numbers, 2, 8),),
            (self.passes(f"{name}.gradient", "norm", numbers, 4, 16),),
        )

    def residual(self, name: str = "residual") -> LayerPart:
        """Bias, dropout and residual addition in one kernel."""
        numbers = self.between * self.model.hidden
        more = 0.5 if self.settings.dropout else 0.0
        return LayerPart(
            (self.passes(name, "elementwise", numbers, 3 + more, 2),),
            (self.passes(f"{name}.gradient", "elementwise", numbers, 2 + more, 1),),
        )

    def activation(self, numbers: int, name: str = "activation") -> LayerPart:
        """The activation of an mlp's inner numbers."""
        gated = self.model.gated
        return LayerPart(
            (self.passes(name, "elementwise", numbers, 3 if gated else 2, 8),),
            (self.passes(f"{name}.gradient", "elementwise", numbers, 5 if gated else 3, 8),),
        )

    # attention

    def queries(self) -> list[LayerPart]:
        """From the block's input to queries, keys and values."""
        m, s = self.model, self.settings
        t, T, h, a = s.tensor, s.tokens, m.hidden, m.heads
        if not m.latent:
            width = m.head_size * (a + 2 * self.kv_heads * t) // t
            parts = [self.product("qkv", T, h, width, bias=m.qkv_bias)]
        else:
            rq, rk, dr = m.query_rank, m.latent_rank, m.rope_size
            up = m.nope_size + m.value_size
            parts = []
            if rq:
                parts += [self.product("query_down", T, h, rq, bias=False)]
                parts += [self._small_norm("query_norm", T * rq)]
            parts += [self.product("latent_down", T, h, rk + dr, bias=False)]
            parts += [self._small_norm("latent_norm", T * rk)]
            parts += [self.product("query_up", T, rq or h, a * m.query_key_size // t, bias=False)]
            parts += [self.product("latent_up", T, rk, a * up // t, bias=False)]
        turned = T * m.query_key_size * (a // t + self.kv_heads)
        if m.query_key_norm:
            parts.append(self._small_norm("query_key_norm", turned))
        if not m.positions:
            parts.append(
                LayerPart(
                    (self.passes("rotary", "elementwise", turned, 2, 3),),
                    (self.passes("rotary.gradient", "elementwise", turned, 2, 3),),
                )
            )
        return parts

    @property
    def kv_heads(self) -> int:
        """Key-value heads on a rank; at least one, which ranks then share."""
        return max(self.model.kv_heads // self.settings.tensor, 1)

    def _small_norm(self, name: str, numbers: int) -> LayerPart:
        return LayerPart(
            (self.passes(name, "norm", numbers, 2, 8),),
            (self.passes(f"{name}.gradient", "norm", numbers, 4, 16),),
        )

    def core(self, layer: int) -> LayerPart:
        """Scores and weighted values."""
        return self._flash(layer) if self.settings.attention == "flash" else self._unfused()

    def _flash(self, layer: int) -> LayerPart:
        m, s = self.model, self.settings
        a, k, b = m.heads // s.tensor, self.kv_heads, s.micro_batch
        size = (m.query_key_size + m.value_width) // 2
        seen = m.attended(layer, s.sequence, causal=True)
        c = s.context
        flops = round(2 * a * (m.query_key_size + m.value_width) * b * (s.sequence // c) * seen)
        queries = s.sequence // c
        if s.context_method == "all_to_all":  # all tokens, a part of the heads
            a, k, queries, c = a // c, max(k // c, 1), s.sequence, 1
        plain = c == 1 and not (m.windowed(layer) and m.window < s.sequence)
        keys = s.sequence if plain else round(seen)
        moved = b * (queries * a + s.sequence * k) * (m.query_key_size + m.value_width)
        shape = (b, a, k, queries, keys, size, int(plain))
        e = s.number
        return LayerPart(
            (Kernel("core", "attention", flops, e * moved, shape, s.wide),),
            (
                Kernel(
                    "core.gradient",
                    "attention",
                    round(FLASH_BACKWARD * flops),
                    round(FLASH_BACKWARD * e * moved),
                    shape,
                    s.wide,
                ),
            ),
        )

    def _unfused(self) -> LayerPart:
        m, s = self.model, self.settings
        pairs, n, d = s.micro_batch * m.heads // s.tensor, s.sequence, m.head_size
        scores, more = pairs * n * n, s.dropout

        def bmm(name: str, rows: int, columns: int, inner: int) -> Kernel:
            return gemm(name, rows, columns, inner, dtype=s.wide, batch=pairs)

        there, back_again = self._softmax(scores)
        forward = [bmm("scores", n, n, d), *there]
        back = [bmm("values.input_gradient", n, n, d), bmm("values.weight_gradient", n, d, n)]
        if more:
            forward.append(self.passes("dropout", "elementwise", scores, 2.5, 2))
            back.append(self.passes("dropout.gradient", "elementwise", scores, 2.5, 1))
        forward.append(bmm("values", n, d, n))
        back += back_again
        back += [bmm("scores.input_gradient", n, d, n), bmm("scores.weight_gradient", n, d, n)]
        return LayerPart(tuple(forward), tuple(back))

    def _softmax(self, scores: int) -> tuple[Some, Some]:
        """Scale, mask and softmax in one kernel and back in one, or each in its own, in fp32."""
        e = self.settings.number
        if self.settings.fused_softmax:
            there = self.passes("softmax", "reduction", scores, 2, 5)
            return (there,), (self.passes("softmax.gradient", "reduction", scores, 3, 4),)
        one = [("widen", e + 4), ("scale", 8), ("mask", 9), ("", 8), ("narrow", 4 + e)]
        two = [("widen", e + 4), ("", 12), ("mask", 8), ("scale", 8), ("narrow", 4 + e)]
        found = []
        for word, steps in (("softmax", one), ("softmax.gradient", two)):
            kernels = []
            for step, each in steps:
                name = f"{word}.{step}".rstrip(".")
                kernel = self._cast(name, scores, each)
                kernels.append(kernel if step else replace(kernel, kind="reduction"))
            found.append(tuple(kernels))
        return found[0], found[1]

    def projection(self) -> LayerPart:
        """Heads back to the hidden size."""
        m, s = self.model, self.settings
        size = m.heads * m.value_width // s.tensor
        bias = m.output_bias
        return self.product(
            "projection", s.tokens, size, m.hidden, bias=bias, cast=True, summed=True
        )

    # mlp

    def up(self, inner: int, rows: int, name: str = "up") -> LayerPart:
        """Hidden to inner size, twice that where gated."""
        m = self.model
        return self.product(name, rows, m.hidden, inner * (2 if m.gated else 1), bias=m.mlp_bias)

    def down(self, inner: int, rows: int, name: str = "down") -> LayerPart:
        """Inner to hidden size."""
        m = self.model
        return self.product(name, rows, inner, m.hidden, bias=m.mlp_bias, summed=True)

    # ends

    def embedding(self) -> LayerPart:
        """Look-up of tokens, and of positions where they are learned; dropout."""
        m, numbers = self.model, self.between * self.model.hidden
        times = 3 if m.positions else 2
        count = self.vocabulary * m.hidden + m.positions * m.hidden
        zero = self.passes("lookup.zero", "elementwise", count, 1)
        back: Some = (zero, self.passes("lookup.gradient", "embedding", numbers, 2 * times))
        if self.settings.accumulates:
            back = (*back, *self._sum("lookup", count))
        return LayerPart((self.passes("lookup", "embedding", numbers, times),), back)

    @property
    def vocabulary(self) -> int:
        """Rows of the vocabulary on a rank."""
        return -(-self.model.vocabulary // self.settings.tensor)

    def logits(self) -> LayerPart:
        """The product with the vocabulary, in 16 bits beside 8."""
        s = self.settings
        return self.product(
            "logits", s.tokens, self.model.hidden, self.vocabulary, bias=False, wide=True
        )

    def loss(self) -> LayerPart:
        """Softmax cross-entropy. Fused: logits in, twice; gradient over them.

        In fp32: a copy (2 + 4 bytes), two readings and a writing of log-softmax (12); backward reading and writing it
        (8), and a copy of 16 bits (6). Over a tensor group the steps of log-softmax are kernels: maximum (4), what is
        left (8), exponentials (8), their sum (4), softmax (8).
        """
        s = self.settings
        numbers = s.tokens * self.vocabulary
        forward, backward = 2.0, 2.0
        if not s.fused_loss:
            forward, backward = (38 if s.tensor > 1 else 18) / s.number, 14 / s.number
        return LayerPart(
            (self.passes("loss", "reduction", numbers, forward, 4),),
            (self.passes("loss.gradient", "reduction", numbers, backward, 4),),
        )
