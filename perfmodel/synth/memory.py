"""Memory of a rank by part, from formulas: what a layer keeps for its backward pass, states, buffers.

Activations of a layer for T tokens of a rank, in bytes with e bytes a number (ep: e, or 1 and 1/2 for inputs of fp8 and
fp4 products); a part before the bar is divided by t with sequence parallelism only, one after it always:

    norms' inputs 2 e h, products' inputs 2 ep h, dropout masks 2 h
    | queries e a dq, keys and values e k (dq + dv), projection's input ep a dv
    | activation's input e f (gated 2 e f), its product ep f
    | attention: flash 4 a (sums of exponentials); unfused (2 e + 1) a s scores, their dropout, its mask (e a s without;
      4 in the place of an e where softmax is not fused)
    | experts: for each routed row 2 ep h, the activation's input and product, and its result e h; router 4 E

    GPT, 16 bits: T h (10 + 24 / t + 5 a s / (h t)), with sequence parallelism and selective recomputation 34 T h / t
    Llama: T (8 h + 4 a d + 4 k d + 6 f + 4 a), all over t with sequence parallelism

(Korthikanti et al. 2022, arXiv:2205.05198, equations 2 and 4, table 2). A layer that is computed again whole keeps its
input, e T h. A stage keeps a chunk's activations from its forward pass to its backward pass: as many at a time as the
schedule's order has it, p (1 + (p - 1) / (p v)) stages' worth on the first stage of an interleaved pipeline. Where
gradients of inputs (I) and of weights (W) are passes of their own, products' inputs and the gradients of their results
stay from the end of I to the end of W, 32 T h of GPT (Qi et al. 2023, arXiv:2401.10241, section 2.2's M_W).

Buffers are everything else that a rank holds at its peak: logits and their gradient, the working set of a layer that is
computed again, layers gathered whole, messages, and what libraries take (`reserved`, a stated number).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from perfmodel.synth.experts import Experts
from perfmodel.synth.grid import Grid
from perfmodel.synth.kernels import LayerKernels
from perfmodel.synth.model_states import held, stage_held, state_bytes
from perfmodel.synth.schedules import order
from perfmodel.synth.settings import BYTES, Settings
from perfmodel.workload.training_step import PARTS

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class RankMemory:
    """Memory of a rank at its peak, by part [B]."""

    weights: float
    gradients: float
    optimizer: float
    activations: float
    kv_cache: float
    buffers: float

    @property
    def total(self) -> float:
        """All parts together."""
        total: float = sum(getattr(self, part) for part in PARTS)
        return total


def layer_activations(s: Settings, layer: int, *, whole: bool = False) -> float:
    """Bytes that a layer keeps of one micro-batch on a rank.

    Args:
        whole: it is computed again whole, and keeps its input only.
    """
    m, T, e = s.model, s.tokens, s.number
    if whole:
        return e * T * m.hidden / s.split
    again, split, inputs = s.recomputed, s.split, BYTES[s.dtype]
    h, a = m.hidden, m.heads
    if "alternate" in again:
        return _alternate(s, layer)
    norm = 0.0 if "norm" in again else inputs * h
    between: float = 2 * e * h + 2 * norm + 2 * h * s.dropout
    kv = s.tensor * LayerKernels(s).kv_heads
    if m.latent:
        attention: float = e * a * (2 * m.query_key_size + m.value_width)
        between += e * (2 * (m.query_rank + m.latent_rank) + m.rope_size)
    else:
        attention = e * (a * m.query_key_size + kv * (m.query_key_size + m.value_width))
    attention += inputs * a * m.value_width
    if s.attention == "flash":
        attention += 4 * a
    elif "attention" not in again:
        scores = (e if s.fused_softmax else 4) + ((e + 1) if s.dropout else 0)
        attention += scores * a * s.sequence
    inner = m.shared_experts * m.expert_inner if m.has_experts(layer) else m.inner
    feed = T * _dense(s, inner) / s.tensor
    if m.has_experts(layer):
        feed += _experts(s)
    return T * (between / split + attention / s.tensor) + feed


def _alternate(s: Settings, layer: int) -> float:
    """Bytes that stay where every second product is computed again.

    The layer's input and the mlp's result, 2 e h; queries, values, attention's result with its sums of exponentials;
    the first of the mlp's products (with experts, what they keep but for the activation's product).
    """
    m, T, e = s.model, s.tokens, s.number
    kv = s.tensor * LayerKernels(s).kv_heads
    attention = e * (m.heads * (m.query_key_size + m.value_width) + kv * m.value_width)
    attention += 4 * m.heads
    kept = T * (2 * e * m.hidden / s.split + attention / s.tensor)
    return kept + (_experts(s) if m.has_experts(layer) else T * e * m.inner / s.tensor)


def _dense(s: Settings, inner: int) -> float:
    """Bytes a token of an mlp's activation input and product."""
    e, inputs, again = s.number, BYTES[s.dtype], s.recomputed
    if "mlp" in again:
        return 0.0
    product = 0.0 if "activation" in again else inputs
    return inner * ((2 * e if s.model.gated else e) + product)


def _experts(s: Settings) -> float:
    """Bytes of the rows that a rank's experts keep, of the most loaded rank."""
    x = Experts(LayerKernels(s))
    most = max(1.0, float(x.loads().max()))
    rows = x.sent * most * s.expert_tensor
    inner = x.inner
    e, inputs = s.number, BYTES[s.dtype]
    row = inputs * s.model.hidden + _dense(s, inner) + e * s.model.hidden
    return rows * row + 4 * s.model.experts * x.tokens


def chunk_activations(s: Settings, place: int) -> float:
    """Bytes that a chunk keeps of one micro-batch."""
    layers = s.layers_of_places[place]
    whole = s.whole_layers(len(layers))
    total = sum(layer_activations(s, n, whole=k < whole) for k, n in enumerate(layers))
    return total * (1 - s.offload.get("activations", 0.0))


def layer_owed(s: Settings, layer: int) -> float:
    """Bytes that a layer keeps of one micro-batch for its weights' gradients once its inputs' are there.

    Of every product the input and the gradient of the result, in the products' own type.
    """
    m, T, k = s.model, s.tokens, LayerKernels(s)
    h, values = m.hidden, m.heads * m.value_width
    kv = s.tensor * k.kv_heads
    between, split = 2.0 * h, float(values)  # into and out of attention; into the projection
    if m.latent:
        between += 2 * (m.query_rank + m.latent_rank) + m.rope_size
        split += m.heads * (m.query_key_size + m.nope_size + m.value_size)
    else:
        split += m.heads * m.query_key_size + kv * (m.query_key_size + m.value_width)
    inner = m.shared_experts * m.expert_inner if m.has_experts(layer) else m.inner
    between += (
        2 * h if inner else h
    )  # into and out of the mlp; into the router, which shared experts share
    split += (3 if m.gated else 2) * inner
    total = T * (between / s.split + split / s.tensor)
    if m.has_experts(layer):
        x = Experts(k)
        rows = x.sent * max(1.0, float(x.loads().max())) * s.expert_tensor
        total += rows * (2 * h + (3 if m.gated else 2) * x.inner) + x.tokens * m.experts
    return BYTES[s.dtype] * total


def chunk_owed(s: Settings, place: int) -> float:
    """Bytes that a chunk keeps of one micro-batch for its weights' gradients once its inputs' are there."""
    total = sum(layer_owed(s, n) for n in s.layers_of_places[place])
    e, T, m = s.number, s.tokens, s.model
    if place == 0:  # the gradient of what was looked up
        total += e * T * m.hidden / s.split
    if place == s.places - 1:  # logits' gradient, and what they were made of
        total += e * T * (m.hidden / s.split + -(-m.vocabulary // s.tensor))
    return total


def pass_changes(s: Settings, stage: int) -> list[dict[str, float]]:
    """By chunk of a stage and by kind of pass: by how many bytes activations grow with it."""
    places = s.places_of(stage)
    before, owed = ([size(s, at) for at in places] for size in (chunk_activations, chunk_owed))
    return [{"F": a, "B": -a, "I": w - a, "W": -w} for a, w in zip(before, owed)]


def kept(s: Settings, stage: int) -> NDArray[np.float64]:
    """[passes] bytes of activations on a stage while each pass of its order runs."""
    passes = order(
        s.schedule,
        stage,
        stages=s.pipeline,
        micro_batches=s.micro_batches,
        virtual=s.virtual,
    )
    changes = pass_changes(s, stage)
    after = np.cumsum([changes[item.chunk][item.kind] for item in passes])
    held_then: NDArray[np.float64] = np.maximum(after, np.concatenate([[0.0], after[:-1]]))
    return held_then


def rank_memory(s: Settings, stage: int) -> RankMemory:
    """A rank's peak by part, on a stage."""
    states = np.zeros(3)
    mine = stage_held(s, stage)
    for count, ranks in ((mine.dense, s.state_ranks), (mine.expert, s.expert_shards)):
        each = state_bytes(s, ranks if s.sharding else 1)
        states += count * np.array([each.weights, each.gradients, each.optimizer])
    weights, gradients, optimizer = states
    optimizer *= 1 - s.offload.get("optimizer", 0.0)
    activations = float(kept(s, stage).max())
    buffers = working_set(s, stage) + s.reserved
    buffers += s.fragmentation * (activations + working_set(s, stage))
    return RankMemory(weights, gradients, optimizer, activations, 0.0, buffers)


def working_set(s: Settings, stage: int) -> float:
    """Bytes that are held for a short time, the most of any moment: at the loss, or in a layer's backward pass.

    At the loss: logits and their gradient in 16 bits where it is fused; else logits, a copy in fp32, log-softmax and
    gradient, and over a tensor group shifted logits and exponentials, too. In a layer: gradients as large as what it
    keeps, and what it keeps itself where it is computed again; with sequence parallelism the gathered input and
    gradient. Whole weights of two layers and gradients of one where parameters are sharded.
    """
    found = 0.0
    places = s.places_of(stage)
    T, e, m = s.tokens, s.number, s.model
    if s.places - 1 in places:
        each = 2 * e if s.fused_loss else e + 12 + 8 * (s.tensor > 1)
        found = T * -(-m.vocabulary // s.tensor) * each
    for where in places:
        layers = s.layers_of_places[where]
        whole = s.whole_layers(len(layers))
        for k, n in enumerate(layers):
            kept = layer_activations(s, n)
            gathered = 2 * e * T * m.hidden * (s.split > 1)
            found = max(found, kept * (2 if k < whole else 1) + gathered)
    if s.sharded and s.reshard:
        found += max((_gathered(s, where) for where in places), default=0.0)
    return found


def _gathered(s: Settings, place: int) -> float:
    """Two whole layers' weights, and one's gradients in the types that are computed and reduced."""
    counts = [held(s, f"layer{n}", place) for n in s.layers_of_places[place]]
    biggest = max((sum(c) for c in counts), default=0)
    return biggest * (2 * BYTES[s.gather_dtype] + s.number + BYTES[s.gradient_dtype])


def table(s: Settings) -> pd.DataFrame:
    """One row per rank, as `perfmodel.memory` gives it: rank and the bytes of each part."""
    import pandas as pd

    stage = Grid(s).stage
    each = [rank_memory(s, r) for r in range(s.pipeline)]
    parts = np.array([[getattr(found, part) for part in PARTS] for found in each])[stage]
    frame = pd.DataFrame(parts, columns=[f"{part}_B" for part in PARTS])
    frame.insert(0, "rank", np.arange(s.ranks))
    frame["total_B"] = parts.sum(axis=1)
    return frame
