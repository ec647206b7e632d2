"""The sizes of a transformer, its parameters by part, and the operations of a token.

A layer has attention and a feed-forward network (mlp), dense or of experts. With h hidden size, a heads of d
numbers, k key-value heads, f inner size, V vocabulary, E experts of inner size fe, of which a token visits `top`:

    part               parameters
    attention          h d (a + 2 k) + a d h, biases d (a + 2 k) + h, query-key norm 2 d, sinks a
    latent attention   h rq + rq + rq a (dn + dr) + h (rk + dr) + rk + rk a (dn + dv) + a dv h
    mlp                2 h f, gated 3 h f; biases f + h, gated 2 f + h
    experts            E times an mlp of fe, router E h (+ E), shared experts 3 h fe each
    norm               h, with a shift 2 h; two a layer (Gemma 2: four), one before the head
    embedding, head    V h each, one for both where they are tied; learned positions times h

Sources: Narayanan et al. 2021 (arXiv:2104.04473), equation 2 (which leaves out the last norm's 2 h); the models'
own reports, whose published counts the presets reproduce (`synth.presets`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

from perfmodel.errors import InputError
from perfmodel.synth.parameter_checks import one_of, whole

NORMS = ("layer", "rms")


class Count(NamedTuple):
    """Parameters of a part, by what parallel ranks do with them.

    split: divided over the tensor-parallel ranks;  whole: every tensor-parallel rank has them all
    expert: divided over the expert-parallel (and expert-tensor-parallel) ranks
    """

    split: int = 0
    whole: int = 0
    expert: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.split + self.whole + self.expert

    def plus(self, other: Count) -> Count:
        """Both parts together."""
        return Count(*(a + b for a, b in zip(self, other)))


@dataclass(frozen=True)
class Sizes:
    """A transformer's sizes; symbols as in the module's table.

    Attributes:
        layers, hidden, heads: L, h, a.
        kv_heads: k, a unless given.
        head_size: d, h / a unless given.
        inner: f, 4 h unless given.
        vocabulary: V.
        gated: the mlp multiplies a second product by the activation of the first (SwiGLU, GeGLU).
        tied: embedding and head have the same weights.
        positions: rows of learned positions; 0 for none (rotary).
        norm: "layer" (scale and shift) or "rms" (scale).
        layer_norms: norms in a layer.
        query_key_norm: a norm of d numbers on queries and one on keys.
        qkv_bias, output_bias, mlp_bias: biases of the products.
        sinks: a learned logit for every head.
        experts, top_k, shared_experts, expert_inner: E, top, experts that every token visits, fe.
        router_bias: a number for every expert beside the router's weights.
        dense_layers: so many first layers have a dense mlp.
        experts_every: after those, every so many layers have experts, the last of so many each time.
        query_rank, latent_rank, nope_size, rope_size, value_size: rq, rk, dn, dr, dv of latent attention (DeepSeek).
        window, window_every: tokens that a windowed layer looks back to; every so many layers are windowed.
        sequence: tokens of the sequences that it was trained on.
        name: what tables call it.
    """

    layers: int
    hidden: int
    heads: int
    kv_heads: int = 0
    head_size: int = 0
    inner: int = 0
    vocabulary: int = 51_200
    gated: bool = False
    tied: bool = True
    positions: int = 2048
    norm: str = "layer"
    layer_norms: int = 2
    query_key_norm: bool = False
    qkv_bias: bool = True
    output_bias: bool = True
    mlp_bias: bool = True
    sinks: bool = False
    experts: int = 0
    top_k: int = 0
    shared_experts: int = 0
    expert_inner: int = 0
    router_bias: bool = False
    dense_layers: int = 0
    experts_every: int = 1
    query_rank: int = 0
    latent_rank: int = 0
    nope_size: int = 0
    rope_size: int = 0
    value_size: int = 0
    window: int = 0
    window_every: int = 0
    sequence: int = 2048
    name: str = "transformer"

    def __post_init__(self) -> None:
        whole(layers=self.layers, hidden=self.hidden, heads=self.heads, vocabulary=self.vocabulary)
        one_of("norm", self.norm, NORMS)
        if not self.head_size and self.hidden % self.heads:
            raise InputError(
                f"hidden: got {self.hidden}, which heads = {self.heads} does not divide."
                " Give head_size, or sizes that divide."
            )
        for name, value in (
            ("kv_heads", self.heads),
            ("head_size", self.hidden // self.heads),
            ("inner", 4 * self.hidden),
        ):
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        if self.experts and not self.expert_inner:
            object.__setattr__(self, "expert_inner", self.inner)
        whole(kv_heads=self.kv_heads, head_size=self.head_size, inner=self.inner)
        whole(sequence=self.sequence, layer_norms=self.layer_norms)
        if self.heads % self.kv_heads:
            raise InputError(
                f"kv_heads: got {self.kv_heads}, expected a divisor of heads = {self.heads}."
            )
        whole(experts_every=self.experts_every)
        if self.experts:
            whole(experts=self.experts, top_k=self.top_k, expert_inner=self.expert_inner)
            if self.top_k > self.experts:
                raise InputError(
                    f"top_k: got {self.top_k}, expected at most the number of experts, {self.experts}."
                )
        elif self.top_k or self.shared_experts or self.dense_layers:
            raise InputError(
                f"{self.name}: top_k = {self.top_k}, shared_experts = {self.shared_experts} and dense_layers ="
                f" {self.dense_layers} say something about experts, but experts = 0. Give experts."
            )

    @property
    def latent(self) -> bool:
        """Latent attention: keys and values come from a short vector a token."""
        return self.latent_rank > 0

    @property
    def query_key_size(self) -> int:
        """Numbers of a head's query and key, d or dn + dr."""
        return self.nope_size + self.rope_size if self.latent else self.head_size

    @property
    def value_width(self) -> int:
        """Numbers of a head's value, d or dv."""
        return self.value_size if self.latent else self.head_size

    @property
    def norm_parameters(self) -> int:
        """Of one norm of the hidden size."""
        return self.hidden * (2 if self.norm == "layer" else 1)

    def has_experts(self, layer: int) -> bool:
        """Whether the layer's mlp is experts."""
        after = layer - self.dense_layers
        return self.experts > 0 and after >= 0 and (after + 1) % self.experts_every == 0

    def windowed(self, layer: int) -> bool:
        """Whether the layer looks back over `window` tokens only."""
        return self.window > 0 and layer % max(self.window_every, 1) == 0

    # parameters

    @property
    def attention(self) -> Count:
        """One attention block with its norms."""
        h, a, k, d = self.hidden, self.heads, self.kv_heads, self.head_size
        norms = self.layer_norms * self.norm_parameters // 2
        if self.latent:
            rq, rk, dr = self.query_rank, self.latent_rank, self.rope_size
            split = a * self.query_key_size * (rq or h) + rk * a * (
                self.nope_size + self.value_size
            )
            split += a * self.value_size * h
            return Count(split, (h * rq + rq) + h * (rk + dr) + rk + norms)
        split = h * d * (a + 2 * k) + a * d * h + self.qkv_bias * d * (a + 2 * k) + self.sinks * a
        return Count(split, self.output_bias * h + self.query_key_norm * 2 * d + norms)

    @property
    def mlp(self) -> Count:
        """A dense feed-forward network with its norms."""
        products = 3 if self.gated else 2
        split = products * self.hidden * self.inner + self.mlp_bias * (products - 1) * self.inner
        norms = (self.layer_norms - self.layer_norms // 2) * self.norm_parameters
        return Count(split, self.mlp_bias * self.hidden + norms)

    @property
    def expert_parameters(self) -> int:
        """One expert."""
        products, f = (3 if self.gated else 2), self.expert_inner
        return products * self.hidden * f + self.mlp_bias * ((products - 1) * f + self.hidden)

    @property
    def mixture(self) -> Count:
        """A feed-forward network of experts, with router and norms."""
        norms = (self.layer_norms - self.layer_norms // 2) * self.norm_parameters
        router = self.experts * self.hidden + self.router_bias * self.experts
        return Count(
            self.shared_experts * self.expert_parameters,
            router + norms,
            self.experts * self.expert_parameters,
        )

    def layer(self, layer: int) -> Count:
        """One layer."""
        return self.attention.plus(self.mixture if self.has_experts(layer) else self.mlp)

    @property
    def embedding(self) -> Count:
        """Rows of tokens, and of learned positions."""
        return Count(self.vocabulary * self.hidden, self.positions * self.hidden)

    @property
    def head(self) -> Count:
        """The last norm, and the head's own weights where it has any."""
        own = 0 if self.tied else self.vocabulary * self.hidden
        return Count(own, self.norm_parameters)

    @property
    def parameters(self) -> int:
        """All of the model's parameters.

        >>> Sizes(layers=1, hidden=4, heads=2, vocabulary=10, positions=8).parameters  # 12 h^2 + 13 h + (V + s) h + 2 h
        324
        """
        return sum(self.layer(n).total for n in range(self.layers)) + (
            self.embedding.total + self.head.total
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that a token meets: of a layer's experts, `top_k`."""
        idle = (self.experts - self.top_k) * self.expert_parameters
        return self.parameters - idle * sum(self.has_experts(n) for n in range(self.layers))

    # operations

    def layer_products(self, layer: int) -> int:
        """Weights of the products that a token goes through in a layer; each takes 2 FLOP forward."""
        h, a, k, d = self.hidden, self.heads, self.kv_heads, self.head_size
        if self.latent:
            rq, rk, dn, dr, dv = (
                self.query_rank,
                self.latent_rank,
                self.nope_size,
                self.rope_size,
                self.value_size,
            )
            attention = h * rq + (rq or h) * a * (dn + dr) + h * (rk + dr) + rk * a * (dn + dv)
            attention += a * dv * h
        else:
            attention = h * d * (2 * a + 2 * k)
        products = 3 if self.gated else 2
        if not self.has_experts(layer):
            return attention + products * h * self.inner
        visited = self.top_k + self.shared_experts
        return attention + visited * products * h * self.expert_inner + self.experts * h

    def up_products(self, layer: int) -> int:
        """Of those weights, the ones that lead from hidden to inner size."""
        wide = (2 if self.gated else 1) * self.hidden
        if not self.has_experts(layer):
            return wide * self.inner
        return wide * self.expert_inner * (self.top_k + self.shared_experts)

    def alternate_products(self, layer: int) -> int:
        """Of those weights, keys' and the projection's, and half of a gated mlp's first ones."""
        attention = self.hidden * self.head_size * (self.kv_heads + self.heads)
        half = self.gated and not self.has_experts(layer)
        return attention + (self.up_products(layer) // 2 if half else 0)

    def attended(self, layer: int, sequence: int, *, causal: bool) -> float:
        """Tokens that a token looks at, on average: s, half of it with a causal mask, less with a window."""
        if self.windowed(layer) and self.window < sequence:
            w = self.window
            return w - w * w / (2 * sequence) if causal else float(w)
        return sequence / 2 if causal else float(sequence)

    def core_flops(self, layer: int, sequence: int, *, causal: bool) -> float:
        """FLOP of scores and of weighted values, forward, for one token of one layer.

        2 a (d_query_key + d_value) times the tokens that it looks at; 4 a d s for all s tokens.
        """
        width = self.heads * (self.query_key_size + self.value_width)
        return 2 * width * self.attended(layer, sequence, causal=causal)

    def token_flops(self, sequence: int, *, causal: bool) -> float:
        """FLOP of a token in a training step, forward and backward (twice that), nothing computed again."""
        layers = sum(
            2 * self.layer_products(n) + self.core_flops(n, sequence, causal=causal)
            for n in range(self.layers)
        )
        return 3.0 * (layers + 2 * self.vocabulary * self.hidden)


def sizes_of(given: Mapping[str, Any]) -> Sizes:
    """Sizes from a record of them, with the fields of `Sizes` for keys.

    Raises:
        InputError: an unknown key, or one that is missing.
    """
    known = [f.name for f in fields(Sizes)]
    wrong = [key for key in given if key not in known]
    if wrong:
        raise InputError(f"model: {wrong[0]!r} is no size of a model. Sizes: {', '.join(known)}.")
    missing = [key for key in ("layers", "hidden", "heads") if key not in given]
    if missing:
        raise InputError(
            f"model: {missing[0]!r} is missing. Give at least layers, hidden and heads."
        )
    return Sizes(**given)
