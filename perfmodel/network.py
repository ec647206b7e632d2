"""Time of communication: alpha-beta on every network dimension, and where ranks are in it.

A network model is an object with two methods, `collective` and `point_to_point`, as `AlphaBeta`.
Operations that use a link at the same time do not slow each other down; only groups that interleave
in one ring dimension do (`collective.coefficients`).
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import ArrayLike, NDArray

from perfmodel.collective import ALGORITHMS, choose, coefficients, phases
from perfmodel.errors import InputError
from perfmodel.hardware import Dimension
from perfmodel.kinds import COLLECTIVES
from perfmodel.record import number, record, static


class Span(NamedTuple):
    """How a group lies in the network: members in every dimension, and hops between neighbours.

    `stride` matters on rings only: 1 where the members are a whole ring, k where every k-th NPU of
    a ring is one, 2 for a part of a ring that does not close (its ends meet by folding).
    """

    members: tuple[int, ...]
    stride: tuple[int, ...]


@record
class AlphaBeta:
    """Latency and bandwidth of every hop, by the rounds of an algorithm per dimension.

    Attributes:
        algorithm: "auto", a name in `collective.ALGORITHMS`, or a tuple of such, one per dimension.
        efficiency: fraction of every bandwidth that is reached [1].
        overhead: time per operation, whatever its size [s].

    Raises:
        InputError: an unknown algorithm.
    """

    algorithm: str | tuple[str, ...] = static(default="auto")
    efficiency: Any = number("1", default=1.0)
    overhead: Any = number("s", default=0.0)

    def __post_init__(self):
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
            hops: per dimension, from `hops`; the message takes one link of a dimension at a time.
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
        return self.overhead + latency + size * slowest / self.efficiency

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


def coordinates(ranks: ArrayLike, sizes: Sequence[int]) -> NDArray[np.int64]:
    """[..., K] address of each rank, mixed radix, dimension 0 fastest.

    >>> coordinates([5, 9], (4, 4)).tolist()
    [[1, 1], [1, 2]]
    """
    left = np.asarray(ranks, np.int64)
    total = math.prod(sizes)
    if left.size and (left.min() < 0 or left.max() >= total):
        worst = int(left.max() if left.max() >= total else left.min())
        raise InputError(f"rank {worst}: the network has {total} NPUs, 0 to {total - 1}")
    address = np.empty((*left.shape, len(sizes)), np.int64)
    for k, size in enumerate(sizes):
        left, address[..., k] = np.divmod(left, size)
    return address


def span(members: Sequence[int] | NDArray[np.integer], sizes: Sequence[int]) -> Span:
    """How a group of ranks lies in a network with these sizes.

    A group that is a product of one set of coordinates per dimension is described exactly. Any
    other counts as one flat group of all its members in the outermost dimension that it touches,
    which is the slowest in the usual machine: a conservative stand-in, not a bound.

    >>> span((0, 1, 4, 5), (4, 2)), span((0, 2), (4, 2)).stride
    (Span(members=(2, 2), stride=(1, 1)), (2, 1))
    """
    address = np.unique(coordinates(members, sizes), axis=0)
    sets = [np.unique(address[:, k]) for k in range(len(sizes))]
    counts = tuple(len(s) for s in sets)
    if math.prod(counts) == len(address):
        return Span(counts, tuple(_stride(s, n) for s, n in zip(sets, sizes)))
    outermost = max(k for k, n in enumerate(counts) if n > 1)
    flat = tuple(len(address) if k == outermost else 1 for k in range(len(sizes)))
    return Span(flat, (1,) * len(sizes))


def _stride(places: NDArray[np.int64], size: int) -> int:
    """Longest hop between neighbours, the members in ring order, or folded if that is shorter."""
    if len(places) < 2:
        return 1
    folded = np.concatenate([places[::2], places[1::2][::-1]])
    return int(min(_longest(places, size), _longest(folded, size)))


def _longest(order: NDArray[np.int64], size: int) -> int:
    gap = np.abs(order - np.roll(order, 1))
    return int(np.minimum(gap, size - gap).max())


def hops_table(src: ArrayLike, dst: ArrayLike, network: tuple[Dimension, ...]) -> NDArray[np.int64]:
    """[m, K] hops of each pair of ranks, `src` and `dst` [m] or one of them a number.

    On a ring the shorter way round; through a switch or between connected NPUs 1.
    """
    sizes = tuple(d.size for d in network)
    gap = np.abs(coordinates(src, sizes) - coordinates(dst, sizes))
    for k, d in enumerate(network):
        away = gap[..., k]
        ring = d.topology == "ring"
        gap[..., k] = np.minimum(away, d.size - away) if ring else np.minimum(away, 1)
    return np.atleast_2d(gap)


def hops(src: int, dst: int, network: tuple[Dimension, ...]) -> tuple[int, ...]:
    """Hops from one rank to another, per dimension.

    >>> hops(0, 3, (Dimension(1e9, 1e-6, "ring", 4), Dimension(1e9, 1e-6, "switch", 2)))
    (1, 0)
    """
    return tuple(int(h) for h in hops_table(src, dst, network)[0])
