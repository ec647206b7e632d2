"""Time of communication: alpha-beta on every network dimension.

A network model is an object with two methods, `collective` and `point_to_point`, as `AlphaBeta`.
Operations that use a link at the same time do not slow each other down; only groups that interleave
in one ring dimension do (`collectives.coefficients`).
"""

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.errors import InputError
from perfmodel.machine.placement import Span
from perfmodel.machine.system import Dimension
from perfmodel.models.collectives import ALGORITHMS, choose, coefficients, phases
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import COLLECTIVES


@record
class AlphaBeta:
    """Latency and bandwidth of every hop, by the rounds of an algorithm per dimension.

    Attributes:
        algorithm: "auto", a name in `collectives.ALGORITHMS`, or a tuple of such, one per dimension.
        efficiency: fraction of every bandwidth that is reached [1].
        overhead: time per operation, whatever its size [s].

    Raises:
        InputError: an unknown algorithm.
    """

    algorithm: str | tuple[str, ...] = static(default="auto")
    efficiency: Any = number("1", most=1.0, default=1.0)
    overhead: Any = number("s", default=0.0)

    def __post_init__(self) -> None:
        chosen = (self.algorithm,) if isinstance(self.algorithm, str) else self.algorithm
        for name in chosen if isinstance(chosen, tuple | list) else (chosen,):
            if name != "auto" and name not in ALGORITHMS:
                raise InputError(
                    f"algorithm {name!r}: expected auto, {', '.join(ALGORITHMS)}, or a tuple"
                )

    def collective(
        self, kind: str, size: Array, group: Span, network: tuple[Dimension, ...]
    ) -> Array:
        """[rows] seconds of a collective.

        t = overhead + sum over dimensions k of a_k alpha_k + b_k S / (e B_k)

        Args:
            kind: a Chakra collective type in lower case, such as "all_reduce".
            size: [rows] B, the input of one member (a scatter's or broadcast's: of the root).
            group: members and strides by dimension; a group of one costs nothing.
            network: the dimensions, innermost first.

        Raises:
            InputError: an unknown kind, or an algorithm that does not fit members or dimensions.

        >>> link = Dimension(bandwidth=1e9, latency=1e-6, topology="ring", size=4)
        >>> AlphaBeta().collective("all_reduce", 4e9, Span((4,), (1,)), (link,))
        6.000006
        """
        if kind not in COLLECTIVES:
            raise InputError(f"collective {kind!r}: expected one of {', '.join(COLLECTIVES)}")
        time = 0.0 * size
        if math.prod(group.members) > 1:
            time = time + self.overhead
        for k, a, b in self._terms(kind, group, network):
            dimension = network[k]
            time = time + a * dimension.latency
            time = time + b * size / (dimension.bandwidth * self.efficiency)
        return time

    def point_to_point(
        self, size: Array, hops: tuple[int, ...], network: tuple[Dimension, ...]
    ) -> Array:
        """[rows] seconds of a message: t = overhead + sum of h_k alpha_k + S / (e min of C_k).

        C_k is the bandwidth of one link of a dimension, over those with h_k > 0 hops.

        Args:
            size: [rows] B.
            hops: per dimension, from `placement.hops`; the message takes one link of a dimension at a time.
            network: the dimensions, innermost first.

        Raises:
            InputError: no hop at all, a message of a rank to itself.

        >>> link = Dimension(bandwidth=2e9, latency=1e-6, topology="ring", size=4)
        >>> AlphaBeta().point_to_point(1e9, (2,), (link,)).item()
        1.000002
        """
        crossed = [(h, d) for h, d in zip(hops, network) if h > 0]
        if not crossed:
            raise InputError("a message of a rank to itself crosses no network")
        latency = sum(h * d.latency for h, d in crossed)
        slowest = jnp.stack([jnp.asarray(d.links / d.bandwidth) for _, d in crossed]).max()
        seconds: Array = self.overhead + latency + size * slowest / self.efficiency
        return seconds

    def _terms(
        self, kind: str, group: Span, network: tuple[Dimension, ...]
    ) -> list[tuple[int, float, float]]:
        """(dimension, a, b) of every dimension that the group spans; plain numbers."""
        sums: dict[int, list[float]] = {}
        for phase in phases(kind, group.members):
            k = phase.dimension
            dimension, n = network[k], group.members[k]
            a, b = coefficients(
                phase.kind,
                self._algorithm(phase.kind, k, n, network),
                n,
                topology=dimension.topology,
                links=dimension.links,
                stride=group.stride[k],
                size=dimension.size,
            )
            total = sums.setdefault(k, [0.0, 0.0])
            total[0] += a
            total[1] += b * phase.fraction
        return [(k, a, b) for k, (a, b) in sums.items()]

    def _algorithm(self, kind: str, k: int, n: int, network: tuple[Dimension, ...]) -> str:
        name = self.algorithm
        if not isinstance(name, str):
            if len(name) != len(network):
                raise InputError(
                    f"algorithm {name}: {len(name)} names for {len(network)} network dimensions"
                )
            name = name[k]
        return choose(kind, n, network[k].topology) if name == "auto" else name
