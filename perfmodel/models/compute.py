"""Time of computation: the roofline.

Reference: S. Williams, A. Waterman, D. Patterson, "Roofline: an insightful visual performance model
for multicore architectures", Communications of the ACM 52(4), 2009.
"""

from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.machine.system import NPU
from perfmodel.pytree import number, record


@record
class Roofline:
    """An operation takes as long as its slower half: arithmetic, or moving its bytes.

    t = max(W / (e P), Q / (m B)) + o

    with W the work [FLOP], P the peak rate [FLOP/s], Q the bytes moved [B], B the memory bandwidth
    [B/s], e and m the fractions of the two rates that are reached, o a time per operation [s].
    """

    efficiency: Any = number("1", most=1.0, default=1.0)
    memory_efficiency: Any = number("1", most=1.0, default=1.0)
    overhead: Any = number("s", default=0.0)

    def time(self, flops: Array, bytes: Array, npu: NPU) -> Array:
        """[rows] seconds of operations with `flops` [rows] FLOP and `bytes` [rows] B moved.

        At the ridge, where both halves take the same time, the derivative is the mean of theirs.

        >>> Roofline().time(2e12, 1e9, NPU(peak_flops=1e15, memory_bandwidth=1e12)).item() * 1e3
        2.0
        """
        arithmetic = flops / (npu.peak_flops * self.efficiency)
        traffic = bytes / (npu.memory_bandwidth * self.memory_efficiency)
        seconds: Array = jnp.maximum(arithmetic, traffic) + self.overhead
        return seconds
