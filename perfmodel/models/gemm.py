"""Time of matrix products from their sizes: tiles, waves, split K, memory.

A library cuts the result into tiles, gives each to a thread block, and a core (SM) works off the blocks; with
few tiles it also splits the sum over k among S blocks and adds the parts up. Which tile and which S it takes is
not known, so the formula takes the best: a soft minimum. With batch x m x n x k products of e B a number:

    blocks(T, S) = batch ceil(m / TM) ceil(n / TN) S
    waves        = alpha ceil(blocks / cores) + (1 - alpha) max(blocks / cores, 1)
    work(T, S)   = waves cores ( pnorm8(2 TM TN (k / S) / e, (TM + TN) (k / S) e / reach) + 2 TM TN fill / e + step )
    t(S)         = launch + pnorm4( min over T of work(T, S) / P, Q / (m B) )
                   + [S > 1] ( join + batch S m n 8 B / (2 m B) )
    t            = min over S of t(S)

A device whose file says what rate R its power sustains, and on which no coefficients were fitted, takes
pnorm8(work / P, 2 batch m n k / R) in the place of work / P: a FLOP has its energy, however well a tile fits.

P is the peak rate, B the memory's bandwidth, Q = batch (A h(A) + k n e + m n e'), A = m k e the bytes of one
activation matrix, h(A) = A / (A + kept): what the operation before left in the last-level cache need not be read
again. What a product moves beside its matrices, as where its result is added to one that is there, comes on top of Q.
All that a block does is counted in FLOP at its core's peak: rates inside a core grow with it, as they have from one
generation to the next (the reach into the last-level cache is 0.016 B/FLOP on A100 and on H100). That makes the
minimum over tiles a number of the product alone, so that a design costs five evaluations, not forty.

The structure (tiles, waves, split K) is that of NVIDIA's CUTLASS and cuBLAS: "Matrix multiplication background
user's guide", NVIDIA deep learning performance documentation, sections on tile and wave quantisation. The
coefficients are fitted, see hwdb/models.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax import Array

from perfmodel.models.smooth_extrema import overlap, soft_minimum
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import NUMBER_SIZE, STANDS_FOR

TILES = (
    *((16, 64), (32, 64), (64, 64), (64, 128)),
    *((128, 64), (128, 128), (128, 256), (256, 128)),
)
"""Rows and columns of a block's part of the result."""

COPIED = 4
"""Bytes that a core copies from memory beside its arithmetic, at least: NVIDIA, "Parallel thread execution ISA",
cp.async, whose sizes are 4, 8 and 16. Narrower pieces pass through registers."""

SPLITS = (1, 2, 4, 8, 16)
"""Among how many blocks the sum over k may be split."""


def number_sizes(dtype: str) -> tuple[float, float]:
    """Bytes of a number of the operands and of the result: narrow operands give 16-bit results [B].

    >>> number_sizes("fp8"), number_sizes("")
    ((1.0, 2.0), (2.0, 2.0))
    """
    size = NUMBER_SIZE.get(dtype, 2.0)
    return size, max(size, 2.0)


@record
class TiledGemm:
    """Matrix products by tiles; see the module's text for the formula.

    Attributes:
        launch: time of a kernel that does nothing [s].
        efficiency: fraction e of the peak rate that full tiles reach [1].
        memory_efficiency: fraction m of the memory's bandwidth that is reached [1].
        fill: steps along k that a tile's start and end take [1].
        step: what a block costs beside its tile [FLOP].
        join: time of adding up split sums, beside their bytes [s].
        whole_waves: alpha, 1 where the last wave takes as long as a full one, 0 where cores share its work [1].
        reach: bytes from the last-level cache per FLOP of a core's peak [B/FLOP].
        kept: bytes of an activation of which half is found in the last-level cache [B].
        unaligned: fraction of its speed that a product keeps of which a size makes rows begin at no multiple of 4
            bytes, the least that a core copies while it computes [1]; None where it was not measured, and it keeps all.
        dtype: whose operands the coefficients are for.
        cores: of the device that they were fitted on, for devices that say no number.
    """

    launch: Any = number("s")
    efficiency: Any = number("1")
    memory_efficiency: Any = number("1")
    fill: Any = number("1")
    step: Any = number("FLOP")
    join: Any = number("s")
    whole_waves: Any = number("1")
    reach: Any = number("B/FLOP")
    kept: Any = number("B")
    unaligned: Any = number("1", default=None)
    dtype: str = static(default="bf16")
    cores: float = static(default=132.0)

    def time(
        self,
        batch: Any,
        m: Any,
        n: Any,
        k: Any,
        npu: Any,
        dtype: str = "bf16",
        *,
        more: Any = 0.0,
    ) -> Array:
        """[rows] seconds of `batch` products of m x k with k x n, all [rows].

        Args:
            batch: products of one launch, of a batched or a grouped GEMM.
            npu: peak_flops of that dtype, memory_bandwidth, cores (0: not known), and what its power sustains.
            dtype: of the operands.
            more: bytes moved beside the matrices [B].
        """
        size, result = number_sizes(dtype)
        bandwidth = npu.memory_bandwidth * self.memory_efficiency
        activation = m * k * size
        traffic = more + batch * (
            activation * (activation / (activation + self.kept)) + k * n * size + m * n * result
        )
        works = self.work(batch, m, n, k, SPLITS, cores_of(npu, self.cores), size)
        if self.unaligned is not None:
            pieces = [jnp.asarray(d) * (size / COPIED) for d in (m, n, k)]
            left = sum(jnp.ceil(x) - x for x in pieces)
            works = works / jnp.where(left > 0, self.unaligned, 1.0)
        share = sustained_share(npu, dtype)
        options = []
        for parts, work in zip(SPLITS, works):
            arithmetic = work / npu.peak_flops
            if share is not None:
                arithmetic = overlap(
                    arithmetic, 2.0 * batch * m * n * k / (share * npu.peak_flops), 3
                )
            seconds = self.launch + overlap(arithmetic, traffic / bandwidth, 2)
            if parts > 1:
                seconds = seconds + self.join + batch * (parts * 4.0) * m * n / bandwidth
            options.append(seconds)
        return soft_minimum(options)

    def work(
        self,
        batch: Any,
        m: Any,
        n: Any,
        k: Any,
        splits: Sequence[int],
        cores: Any,
        size: float,
    ) -> Array:
        """[splits, rows] FLOP at the device's peak that the best tile takes, the sum over k split among so many blocks.

        All tiles and splits are one array [tiles, splits, rows]: a few operations to trace and to compile.
        """
        high, wide = np.array(TILES, float).T.reshape(2, -1, 1, 1)
        parts = np.array(splits, float).reshape(-1, 1)
        blocks = batch * (jnp.ceil(m / high) * jnp.ceil(n / wide)) * parts / cores
        waves = self.whole_waves * jnp.ceil(blocks) + (1.0 - self.whole_waves) * jnp.maximum(
            blocks, 1.0
        )
        arithmetic = 2.0 * high * wide / self.efficiency
        operands = (high + wide) * size / self.reach
        block = k / parts * overlap(arithmetic, operands, 3) + arithmetic * self.fill + self.step
        return soft_minimum(waves * cores * block)


def sustained_share(npu: Any, dtype: str) -> float | None:
    """Share of the peak rate of a dtype that the device can keep up, where its file says so (`machine.system.NPU`)."""
    known = dict(getattr(npu, "sustained", ()))
    return known.get(dtype, known.get(STANDS_FOR.get(dtype, dtype)))


def cores_of(npu: Any, otherwise: float) -> Any:
    """The device's number of cores (SMs), or another where it says none (None or 0)."""
    cores = getattr(npu, "cores", None)
    return otherwise if cores is None else jnp.where(jnp.asarray(cores) > 0, cores, otherwise)
