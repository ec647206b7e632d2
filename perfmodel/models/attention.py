"""Time of fused attention (FlashAttention's scheme) from its sizes: prefill, decode, backward.

A block computes a tile of T = 128 queries of one head against all keys that they see; with h heads of size d, g
of them with keys and values of their own, b sequences, q queries and s keys each, causal or not:

    tiles   = ceil(q / T)
    keys    = sum over tiles of the keys that a tile sees: tiles s, or causal tiles (s - q) + T tiles (tiles + 1) / 2
    rows    = min(q, T)
    total   = 4 b h d rows (keys + fill tiles)            [FLOP] with the start and end of each block
    longest = 4 d rows (s + fill)                          [FLOP] of the longest block (none where q <= T: few
                                                           queries are worked off by many blocks, keys split)
    t       = launch + pnorm2( pnorm2(total / (e P), longest cores / (e P)), Q / (m B) )

Q = 2 b d (h q + g s) e B, queries and results once, keys and values once. Backward does 5 products instead of 2, at a
rate `backward` times that of forward, and moves inputs, results and their gradients: total and longest 5/2, Q 2 times
as much.

Sources: T. Dao, "FlashAttention-2", ICLR 2024, sections 3.1 to 3.3 (tiles, work of the two passes) and 4.1 (up to
73 % of an A100's peak forward, 63 % backward); T. Dao et al., "Flash-Decoding", 2023 (keys split among blocks).
Coefficients: hwdb/models. Measured for prefill only.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.models.gemm import cores_of, number_sizes
from perfmodel.models.smooth_extrema import overlap
from perfmodel.pytree import number, record, static

TILE = 128.0
"""Queries that a block works on."""

BACKWARD = 2.5
"""Products of the backward pass per product of the forward pass (5 and 2)."""


@record
class TiledAttention:
    """Fused attention by tiles of queries; see the module's text for the formula.

    Attributes:
        launch: time of a kernel that does nothing [s].
        efficiency: fraction e of the peak rate that long sequences reach [1].
        memory_efficiency: fraction m of the memory's bandwidth that is reached [1].
        fill: keys' worth of time that a block's start and end take [1].
        backward: rate of the backward pass over that of the forward pass [1].
        cores: of the device that the coefficients were fitted on, for devices that say no number.
    """

    launch: Any = number("s")
    efficiency: Any = number("1")
    memory_efficiency: Any = number("1")
    fill: Any = number("1")
    backward: Any = number("1", default=63 / 73)
    cores: float = static(default=132.0)

    def time(
        self,
        batch: Any,
        heads: Any,
        kv_heads: Any,
        query: Any,
        key: Any,
        head_size: Any,
        causal: Any,
        npu: Any,
        dtype: str = "bf16",
        backward: Any = 0.0,
    ) -> Array:
        """[rows] seconds of attention, all sizes [rows].

        Args:
            batch, heads, kv_heads, query, key, head_size: b, h, g, q, s, d.
            causal: 1 where a query sees the keys up to its own, the last query all of them; else 0.
            npu: peak_flops of that dtype, memory_bandwidth, cores (0: not known).
            dtype: of queries, keys and values.
            backward: 1 for the backward pass, else 0.
        """
        size, _ = number_sizes(dtype)
        tiles = jnp.ceil(query / TILE)
        rows = jnp.minimum(query, TILE)
        seen = tiles * jnp.maximum(key - query, 0.0) + rows * tiles * (tiles + 1.0) / 2.0
        keys = jnp.where(causal > 0, seen, tiles * key)
        passes = jnp.where(backward > 0, BACKWARD / self.backward, 1.0)
        product = 4.0 * head_size * rows * passes
        total = product * batch * heads * (keys + self.fill * tiles)
        longest = jnp.where(tiles > 1, product * (key + self.fill), 0.0)
        traffic = 2.0 * batch * head_size * (heads * query + kv_heads * key) * size
        traffic = traffic * jnp.where(backward > 0, 2.0, 1.0)
        rate = self.efficiency * npu.peak_flops
        work = overlap(total / rate, longest * cores_of(npu, self.cores) / rate, 1)
        seconds: Array = self.launch + overlap(
            work, traffic / (npu.memory_bandwidth * self.memory_efficiency), 1
        )
        return seconds


def forward_flops(
    batch: Any, heads: Any, query: Any, key: Any, head_size: Any, causal: Any
) -> Array:
    """[rows] FLOP of the forward pass, of causal attention the half that counts.

    >>> forward_flops(1.0, 1.0, 8.0, 8.0, 2.0, 1.0).item(), forward_flops(1.0, 1.0, 1.0, 8.0, 2.0, 1.0).item()
    (256.0, 64.0)
    """
    hidden = jnp.where(causal > 0, 0.5 * jnp.where(query > 1, query, 0.0), 0.0)
    flop: Array = 4.0 * batch * heads * head_size * query * jnp.maximum(key - hidden, 1.0)
    return flop
