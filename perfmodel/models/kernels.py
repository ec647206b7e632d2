"""Compute kernels by kind, with fitted coefficients: matrix products, attention, and what moves memory.

`Kernels` is a compute model (see `perfmodel.models.cost`) with a method for every kind of work: a node that says its
kind and sizes is timed by them, any other by FLOP and bytes through a roofline with rounded corner:

    t = launch + pnorm4( (W + w) / (e P), (Q + q) / (m B) )

with w and q the work and traffic that a kernel's start and end are worth. Norms, softmax, elementwise kernels,
embeddings and optimizers take launch + Q / (m B): S. Lym et al., "DeLTA", ISPASS 2019, and S. Lee et al., "NeuSight",
ASPLOS 2025, measure such kernels to be bound by memory.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.models.attention import BACKWARD, TiledAttention, forward_flops
from perfmodel.models.gemm import TiledGemm, number_sizes
from perfmodel.models.smooth_extrema import overlap
from perfmodel.pytree import number, record
from perfmodel.vocabulary import STANDS_FOR

RELATED = {
    "fp16": "bf16",
    "tf32": "bf16",
    "fp32": "bf16",
    "fp64": "bf16",
    "int8": "fp8",
    "fp4": "fp8",
    **STANDS_FOR,
}
"""Whose coefficients a dtype without own ones takes, where there are some; else bf16's."""


@record
class RoundedRoofline:
    """Work by FLOP and bytes; see the module's text.

    Attributes:
        launch: time of a kernel that does nothing [s].
        efficiency, memory_efficiency: fractions e, m of the two rates that are reached [1].
        start_flops, start_bytes: w [FLOP] and q [B].
    """

    launch: Any = number("s")
    efficiency: Any = number("1")
    memory_efficiency: Any = number("1")
    start_flops: Any = number("FLOP")
    start_bytes: Any = number("B")

    def time(self, flops: Any, bytes: Any, npu: Any) -> Array:
        """[rows] seconds of operations with `flops` [rows] FLOP and `bytes` [rows] B moved."""
        arithmetic = (flops + self.start_flops) / (npu.peak_flops * self.efficiency)
        traffic = (bytes + self.start_bytes) / (npu.memory_bandwidth * self.memory_efficiency)
        seconds: Array = self.launch + overlap(arithmetic, traffic, 2)
        return seconds


@record
class Traffic:
    """Kernels that read and write memory once, with hardly any arithmetic.

    Attributes:
        launch: time of a kernel that does nothing [s].
        elementwise, norm: fractions of the memory's bandwidth that one pass over the numbers reaches, and kernels
            that first need a sum over a row (norms, softmax, other reductions) [1].
    """

    launch: Any = number("s")
    elementwise: Any = number("1")
    norm: Any = number("1")

    def time(self, bytes: Any, npu: Any, *, sums: bool = False) -> Array:
        """[rows] seconds of kernels that move `bytes` [rows] B; `sums`: along rows first."""
        fraction = self.norm if sums else self.elementwise
        seconds: Array = self.launch + bytes / (npu.memory_bandwidth * fraction)
        return seconds


@record
class Kernels:
    """Kernels of a device by kind.

    Attributes:
        tiles: matrix products, one set of coefficients per dtype of the operands.
        flash: attention. traffic: kernels bound by memory. base: everything else.
    """

    tiles: tuple[TiledGemm, ...]
    flash: TiledAttention
    traffic: Traffic
    base: RoundedRoofline

    def time(self, flops: Any, bytes: Any, npu: Any) -> Array:
        """[rows] seconds of operations of which only FLOP and bytes moved are known."""
        return self.base.time(flops, bytes, npu)

    def answered_by(self, kind: str, dtype: str) -> str:
        """Path of the coefficients that answer for a kind of operation and a number format."""
        if kind == "gemm":
            return f"tiles.{answering(dtype, tuple(t.dtype for t in self.tiles))}"
        parts = {"attention": "flash", "other": "base", "": "base"}
        return parts.get(kind, "traffic")

    def gemm(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of matrix products (batched, grouped); `work` has bytes, batch, m, n, k and dtype.

        Bytes over those of the three matrices are moved, too.
        """
        tiles = self.gemm_coefficients(work.dtype)
        size, result = number_sizes(work.dtype)
        b, m, n, k = work.batch, work.m, work.n, work.k
        more = jnp.maximum(work.bytes - b * (size * (m * k + k * n) + result * m * n), 0.0)
        return tiles.time(b, m, n, k, npu, work.dtype, more=more)

    def gemm_coefficients(self, dtype: str) -> TiledGemm:
        """The coefficients that answer for a dtype."""
        return self.tiles[answering(dtype, tuple(t.dtype for t in self.tiles))]

    def attention(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of attention; a node with more than twice the forward FLOP is a backward pass."""
        sizes = (work.batch, work.heads, work.kv_heads, work.query, work.key, work.head_size)
        b, h, _, q, s, d = sizes
        once = forward_flops(b, h, q, s, d, work.causal)
        backward = jnp.where(work.flops > 0.9 * BACKWARD * once, 1.0, 0.0)
        return self.flash.time(*sizes, work.causal, npu, work.dtype, backward)

    def elementwise(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of kernels that treat every number for itself."""
        return self.traffic.time(work.bytes, npu)

    def norm(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of norms and softmax."""
        return self.traffic.time(work.bytes, npu, sums=True)

    def reduction(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of sums along rows."""
        return self.traffic.time(work.bytes, npu, sums=True)

    def embedding(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of table look-ups."""
        return self.traffic.time(work.bytes, npu)

    def optimizer(self, work: Any, npu: Any) -> Array:
        """[rows] seconds of optimizer steps."""
        return self.traffic.time(work.bytes, npu)


def answering(dtype: str, fitted: tuple[str, ...]) -> int:
    """Place among the fitted dtypes of the one that answers for `dtype`: itself, its relative, bf16, or the first.

    >>> answering("int8", ("bf16", "fp8")), answering("tf32", ("bf16", "fp8"))
    (1, 0)
    """
    for name in (dtype, RELATED.get(dtype, "bf16"), "bf16"):
        if name in fitted:
            return fitted.index(name)
    return 0
