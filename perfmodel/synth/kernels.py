"""The kernels of a transformer's parts on one rank: operations, bytes, shape and type of each.

For T tokens of the rank, T' = T / t of them between blocks with sequence parallelism (else T), e bytes a number,
products of a layer in their own type:

    kernel              kind         forward FLOP     forward bytes        backward
    product m k n       gemm         2 m n k          e (m k + k n + m n)  one for the input, one for the weights
    attention, flash    attention    2 a (dq+dv) T x / t     e T a (dq+dv) / t + keys, values     2.5 x: scores again
    attention, unfused  gemm + ...   4 a d T s / t    scores a s T / t numbers: softmax 2 passes, dropout 2.5
    norm                norm         8 T' h           2 e T' h             4 e T' h
    residual            elementwise  2 T' h           3 e T' h, with dropout 3.5    2.5 (2 without dropout)
    activation          elementwise  8 T f / t        2 e T f / t, gated 3           3, gated 5
    bias gradient       reduction    -                -                    e T n / t
    embedding           embedding    T' h             3 e T' h             6 e T' h
    loss, fused         reduction    4 T V / t        2 e T V / t          2 e T V / t
    loss, in fp32       reduction    4 T V / t        18 T V / t           14 T V / t
    cast, fp8 and fp4   elementwise  -                2 + ep T k / t       gradients 2 + 2 ep T n / t, inputs 2 ep T k
    optimizer           optimizer    14 P             gradient and state in, state and weight out; gradients are read
                                                      for their norm, scaled (in and out), and set to zero

x: tokens that a token attends to; ep: bytes of a product's narrow numbers. Norms and activations write what follows
them in narrow numbers themselves; the input of the projection, and every gradient, take a kernel that casts, and
the transposed copies that Hopper's products of weights' gradients want are written with the gradient, and from
the kept input. What tensor-parallel ranks gather for a narrow product is narrow; sums are 16 bits wide. Products
of gradients in fp8 promote their partial sums (`vocabulary.DTYPES`). Sources: Narayanan et al. 2021
(arXiv:2104.04473) for products; Dao et al. 2022 (arXiv:2205.14135) for attention without traffic of scores;
Korthikanti et al. 2022 (arXiv:2205.05198) for what a layer of Megatron-LM reads and writes; Kingma and Ba 2015 for
Adam's 14 operations; NVIDIA Transformer Engine at 0004dbd, pytorch/module/base.py and linear.py (casts, transposes,
gathered numbers, split accumulators), for narrow numbers. Element-wise operations are counted one by one; they
decide nothing where memory is the limit.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from perfmodel.synth.settings import BYTES, Settings
from perfmodel.synth.sizes import Sizes
from perfmodel.vocabulary import STANDS_FOR

ADAM_FLOPS = 14
"""Operations of Adam on one parameter (Kingma and Ba 2015, algorithm 1): m 3, v 4, corrections 2, update 5."""

FLASH_BACKWARD = 2.5
"""Products of the fused backward pass over those of the forward pass: 5 over 2 (Dao et al. 2022, algorithm 4)."""


def width(dtype: str) -> float:
    """Bytes of a number of that type [B]."""
    return BYTES[STANDS_FOR.get(dtype, dtype)]


@dataclass(frozen=True)
class Kernel:
    """One kernel.

    Attributes:
        name: last part of its node's name.
        kind: one of `vocabulary.OPERATIONS`.
        flops, bytes: work [FLOP], [B].
        dimensions: as `vocabulary.DIMENSIONS` names them for the kind.
        dtype: type of its numbers.
    """

    name: str
    kind: str
    flops: int
    bytes: int
    dimensions: tuple[int, ...] = ()
    dtype: str = ""

    def cut(self, share: int, of: int) -> tuple[Kernel, Kernel]:
        """`share` of `of` equal parts, and the rest: of a product's rows, or of an attention's keys."""
        place = 1 if self.kind == "gemm" else 4
        flops, moved = self.flops * share // of, self.bytes * share // of
        first, second = list(self.dimensions), list(self.dimensions)
        if self.dimensions:
            first[place] = max(self.dimensions[place] * share // of, 1)
            second[place] = max(self.dimensions[place] - first[place], 1)
        return (
            replace(self, flops=flops, bytes=moved, dimensions=tuple(first)),
            replace(
                self,
                flops=self.flops - flops,
                bytes=self.bytes - moved,
                dimensions=tuple(second),
            ),
        )


def parts(product: Kernel, share: int, of: int) -> Kernel:
    """`share` of `of` equal parts of a product's rows, each a product of its own that reads all of the weights.

    They run on several streams, so that one part's waves fill the gaps of another's last: as one batch.
    """
    batch, m, n, k = product.dimensions
    rows = max(m // of, 1)
    found = gemm(product.name, rows, n, k, dtype=product.dtype, batch=batch * share)
    return replace(found, flops=product.flops * share // of)


def gemm(name: str, m: int, n: int, k: int, *, dtype: str, batch: int = 1) -> Kernel:
    """A product of [m, k] and [k, n] matrices, `batch` of them; results have 16 bits at least."""
    e = width(dtype)
    out = max(e, 2)
    moved = batch * (e * (m * k + k * n) + out * m * n)
    return Kernel(name, "gemm", 2 * batch * m * n * k, int(moved), (batch, m, n, k), dtype)


Some = tuple[Kernel, ...]


@dataclass(frozen=True)
class LayerPart:
    """A piece of a block between two points where its input is needed again.

    Attributes:
        forward: kernels in order.
        input_gradient: kernels of the backward pass that lead to the gradient of the input, in order.
        weight_gradient: kernels that nobody in the pass waits for.
    """

    forward: tuple[Kernel, ...]
    input_gradient: tuple[Kernel, ...]
    weight_gradient: tuple[Kernel, ...] = ()


@dataclass(frozen=True)
class LayerKernels:
    """The kernels of a model on one rank of a job."""

    settings: Settings

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
        return LayerPart(forward, gradient, weights)

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

        forward = [bmm("scores", n, n, d), self.passes("softmax", "reduction", scores, 2, 5)]
        back = [bmm("values.input_gradient", n, n, d), bmm("values.weight_gradient", n, d, n)]
        if more:
            forward.append(self.passes("dropout", "elementwise", scores, 2.5, 2))
            back.append(self.passes("dropout.gradient", "elementwise", scores, 2.5, 1))
        forward.append(bmm("values", n, d, n))
        back.append(self.passes("softmax.gradient", "reduction", scores, 3, 4))
        back += [bmm("scores.input_gradient", n, d, n), bmm("scores.weight_gradient", n, d, n)]
        return LayerPart(tuple(forward), tuple(back))

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
        numbers = self.between * self.model.hidden
        times = 3 if self.model.positions else 2
        return LayerPart(
            (self.passes("lookup", "embedding", numbers, times),),
            (self.passes("lookup.gradient", "embedding", numbers, 2 * times),),
        )

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
        (8), and a copy of 16 bits (6).
        """
        s = self.settings
        numbers = s.tokens * self.vocabulary
        forward, backward = (2.0, 2.0) if s.fused_loss else (18 / s.number, 14 / s.number)
        return LayerPart(
            (self.passes("loss", "reduction", numbers, forward, 4),),
            (self.passes("loss.gradient", "reduction", numbers, backward, 4),),
        )
