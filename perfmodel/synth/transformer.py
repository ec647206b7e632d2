"""Operations, bytes and parameters of a transformer's parts.

For b sequences of s tokens, hidden size h, feed-forward size f (4 h), vocabulary V, t-way tensor
parallelism and e bytes a number, one rank's forward pass of a part takes

    part               FLOP              bytes: inputs + weights + outputs
    product k -> n     2 b s k n         e (b s k + k n + b s n), with k or n divided by t
    attention core     4 b s^2 h / t     e 4 b s h / t: one fused kernel reads Q, K, V and writes the output
    norm               8 b s h           e 4 b s h: residual addition and layer norm in one kernel
    embedding          b s h             e 3 b s h: token and position rows in, their sum out
    loss               4 b s V / t       e 2 b s V / t: logits in, probabilities out

The products and the core are those of Narayanan et al. 2021 (SC '21, arXiv:2104.04473, appendix): with f = 4 h
a layer's forward pass is 24 b s h^2 + 4 b s^2 h, logits 2 b s h V, backward twice that. That attention needs no
traffic for scores is Dao et al. 2022 (arXiv:2205.14135). Norm, embedding and loss are counted here: per number
a norm adds the residual, sums, subtracts the mean, squares, sums, and multiplies, multiplies and adds to scale
and shift; the loss takes the maximum, subtracts, exponentiates and sums. Bias, GeLU and dropout ride on the
products' kernels. The backward pass of every part takes twice its operations and bytes; that of a product is
two products, one for its input and one for its weights.
"""

from __future__ import annotations

from dataclasses import dataclass

from perfmodel.synth.checks import divisible, whole
from perfmodel.synth.steps import Work

ADAM_FLOPS = 14
"""Operations of Adam on one parameter (Kingma and Ba 2015, algorithm 1): m 3, v 4, corrections 2, update 5."""

OPTIMIZER_STATE = 12
"""Bytes per parameter of master weight and both moments in float32 (Rajbhandari et al. 2020, ZeRO, section 3)."""


@dataclass(frozen=True)
class Kernel:
    """One kernel of a block.

    Attributes:
        name: last part of its nodes' names.
        forward: work of its forward pass.
        product: it multiplies by weights, so that its backward pass is two kernels.
    """

    name: str
    forward: Work
    product: bool = True


@dataclass(frozen=True)
class Block:
    """A norm, and kernels one after the other: attention, or the feed-forward network (mlp)."""

    name: str
    norm: Work
    kernels: tuple[Kernel, ...]


@dataclass(frozen=True)
class Transformer:
    """The sizes of a model on one rank; symbols as in the module's table.

    Attributes:
        hidden, heads, sequence, vocabulary: h, attention heads, s, V.
        micro_batch: b, sequences that go through at once.
        feed_forward: f.
        dtype_bytes: e of activations and weights [B].
        tensor: t.
        sequence_parallel: norms and embeddings hold s / t tokens each (Korthikanti et al. 2022).
    """

    hidden: int
    heads: int
    sequence: int
    vocabulary: int
    micro_batch: int
    feed_forward: int
    dtype_bytes: int = 2
    tensor: int = 1
    sequence_parallel: bool = False

    def __post_init__(self) -> None:
        sizes = {k: v for k, v in vars(self).items() if k != "sequence_parallel"}
        whole(**sizes)
        divisible("hidden", self.hidden, heads=self.heads)
        for name in ("heads", "feed_forward", "vocabulary"):
            divisible(name, getattr(self, name), tensor=self.tensor)
        if self.sequence_parallel:
            divisible("sequence", self.sequence, tensor=self.tensor)

    @property
    def tokens(self) -> int:
        """b s."""
        return self.micro_batch * self.sequence

    @property
    def activation(self) -> int:
        """Bytes of one layer's whole output, e b s h [B]."""
        return self.dtype_bytes * self.tokens * self.hidden

    @property
    def shards(self) -> int:
        """In how many parts ranks of a tensor group hold activations between blocks."""
        return self.tensor if self.sequence_parallel else 1

    def product(self, inputs: int, outputs: int, *, rows: int | None = None) -> Work:
        """rows (b s unless given) times inputs, times a weight matrix [inputs, outputs]."""
        m = self.tokens if rows is None else rows
        numbers = m * inputs + inputs * outputs + m * outputs
        return Work(2 * m * inputs * outputs, self.dtype_bytes * numbers)

    def elements(self, flops: int, numbers: int, *, count: int) -> Work:
        """Element-wise work: `flops` and `numbers` read or written, each `count` times."""
        return Work(flops * count, self.dtype_bytes * numbers * count)

    @property
    def norm(self) -> Work:
        """Residual addition and layer norm."""
        return self.elements(8, 4, count=self.tokens * self.hidden // self.shards)

    @property
    def attention(self) -> Block:
        """Norm, products to queries, keys and values, attention core, output projection."""
        h, t = self.hidden, self.tensor
        per_rank = self.tokens * h // t
        core = Work(4 * self.sequence * per_rank, self.dtype_bytes * 4 * per_rank)
        kernels = (
            Kernel("qkv", self.product(h, 3 * h // t)),
            Kernel("core", core, product=False),
            Kernel("projection", self.product(h // t, h)),
        )
        return Block("attention", self.norm, kernels)

    @property
    def mlp(self) -> Block:
        """Norm and the two products of the feed-forward network."""
        h, f = self.hidden, self.feed_forward // self.tensor
        return Block(
            "mlp",
            self.norm,
            (Kernel("up", self.product(h, f)), Kernel("down", self.product(f, h))),
        )

    @property
    def embedding(self) -> Work:
        """Look-up of tokens and positions."""
        return self.elements(1, 3, count=self.tokens * self.hidden // self.shards)

    @property
    def head(self) -> Block:
        """Last norm, and the product to logits."""
        logits = self.product(self.hidden, self.vocabulary // self.tensor)
        return Block("head", self.norm, (Kernel("logits", logits),))

    @property
    def loss(self) -> Work:
        """Softmax cross-entropy."""
        return self.elements(4, 2, count=self.tokens * self.vocabulary // self.tensor)

    @property
    def attention_parameters(self) -> int:
        """A rank's parameters of one attention block: 4 h^2 / t weights, 3 h / t + h biases, 2 h of the norm."""
        h, t = self.hidden, self.tensor
        return 4 * h * h // t + 3 * h // t + 3 * h

    @property
    def mlp_parameters(self) -> int:
        """A rank's parameters of one mlp block: 2 h f / t weights, f / t + h biases, 2 h of the norm."""
        h, f = self.hidden, self.feed_forward // self.tensor
        return 2 * h * f + f + 3 * h

    @property
    def layer_parameters(self) -> int:
        """A rank's parameters of one layer; 12 h^2 + 13 h for t = 1 and f = 4 h."""
        return self.attention_parameters + self.mlp_parameters

    @property
    def word_parameters(self) -> int:
        """A rank's parameters of the word embedding, V h / t."""
        return self.vocabulary // self.tensor * self.hidden

    @property
    def embedding_parameters(self) -> int:
        """A rank's parameters of word and position embeddings, V h / t + s h."""
        return self.word_parameters + self.sequence * self.hidden

    @property
    def norm_parameters(self) -> int:
        """Scale and shift of a norm, 2 h."""
        return 2 * self.hidden

    def optimizer(self, parameters: int, gradient_bytes: int) -> Work:
        """An Adam step: gradient and state in, state and weight out."""
        moved = gradient_bytes + 2 * OPTIMIZER_STATE + self.dtype_bytes
        return Work(ADAM_FLOPS * parameters, moved * parameters)
