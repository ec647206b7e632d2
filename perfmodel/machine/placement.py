"""Where ranks are in a network: addresses, how a group lies in it, hops between two ranks."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from perfmodel.errors import InputError
from perfmodel.machine.system import Dimension


class Span(NamedTuple):
    """How a group lies in the network: members in every dimension, and hops between neighbours.

    `stride` matters on rings only: 1 where the members are a whole ring, k where every k-th NPU of
    a ring is one, 2 for a part of a ring that does not close (its ends meet by folding).
    """

    members: tuple[int, ...]
    stride: tuple[int, ...]


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
        gap[..., k] = d.shape.hops(gap[..., k], d.size)
    return np.atleast_2d(gap)


def hops(src: int, dst: int, network: tuple[Dimension, ...]) -> tuple[int, ...]:
    """Hops from one rank to another, per dimension.

    >>> hops(0, 3, (Dimension(1e9, 1e-6, "ring", 4), Dimension(1e9, 1e-6, "switch", 2)))
    (1, 0)
    """
    return tuple(int(h) for h in hops_table(src, dst, network)[0])
