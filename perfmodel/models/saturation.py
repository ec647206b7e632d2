"""Models whose rates are reached by large operations only, for calibration to measurements.

The fraction of a rate that an operation of size S reaches is

    e(S) = e / (1 + (h / S)^g),        so that        S / e(S) = (S + h^g S^(1 - g)) / e

with h the size that reaches half of e, and g how sharply it does: g = 1 is the constant "n 1/2" of R. Hockney and
C. Jesshope, "Parallel Computers 2", 1988, section 1.3 (a latency in other words); measured curves rise more gently.
"""

from dataclasses import field
from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.machine.placement import Span
from perfmodel.machine.system import NPU, Dimension
from perfmodel.models.compute import Roofline
from perfmodel.models.network import AlphaBeta
from perfmodel.pytree import number, record


def stretched(size: Array, half: Any, sharpness: Any) -> Array:
    """S (1 + (h / S)^g), the size that takes as long at the full rate; h at size 0 if g = 1, else 0.

    >>> stretched(jnp.array([1e6]), 1e6, 0.5).tolist()
    [2000000.0]
    """
    some = jnp.where(size > 0, size, 1.0)
    return jnp.where(size > 0, some * (1.0 + (half / some) ** sharpness), 0.0)


@record
class SaturatingAlphaBeta:
    """`AlphaBeta` whose bandwidths are reached by large collectives and messages only.

    Attributes:
        base: efficiency of large sizes, overhead, algorithm.
        half_size: h, the input of one member that reaches half of that [B].
        sharpness: g.
    """

    base: AlphaBeta = field(default_factory=AlphaBeta)
    half_size: Any = number("B", default=1e6)
    sharpness: Any = number("1", default=0.5)

    def collective(
        self, kind: str, size: Array, group: Span, network: tuple[Dimension, ...]
    ) -> Array:
        """[rows] seconds of a collective of `size` [rows] B; see `AlphaBeta.collective`."""
        return self.base.collective(kind, self._stretched(size), group, network)

    def point_to_point(
        self, size: Array, hops: tuple[int, ...], network: tuple[Dimension, ...]
    ) -> Array:
        """[rows] seconds of a message of `size` [rows] B; see `AlphaBeta.point_to_point`."""
        return self.base.point_to_point(self._stretched(size), hops, network)

    def _stretched(self, size: Array) -> Array:
        return stretched(jnp.asarray(size), self.half_size, self.sharpness)


@record
class SaturatingRoofline:
    """`Roofline` whose rates are reached by large operations only.

    Attributes:
        base: efficiencies of large operations, overhead.
        half_flops: the work that reaches half of the arithmetic's efficiency [FLOP].
        half_bytes: the traffic that reaches half of the memory's [B].
        sharpness: g of both.
    """

    base: Roofline = field(default_factory=Roofline)
    half_flops: Any = number("FLOP", default=1e9)
    half_bytes: Any = number("B", default=1e6)
    sharpness: Any = number("1", default=0.5)

    def time(self, flops: Array, bytes: Array, npu: NPU) -> Array:
        """[rows] seconds of operations with `flops` [rows] FLOP and `bytes` [rows] B moved."""
        work = stretched(jnp.asarray(flops), self.half_flops, self.sharpness)
        traffic = stretched(jnp.asarray(bytes), self.half_bytes, self.sharpness)
        return self.base.time(work, traffic, npu)
