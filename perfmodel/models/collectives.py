"""Collective operations as numbers: hops of latency and bytes per byte, by kind and algorithm.

Every algorithm here is a sequence of rounds. In a round each member sends a fixed fraction of the
collective's size to one member, or to all others at once. So its time on one network dimension is

    t = a alpha + b S / B

with S the input of one member [B], alpha the latency of a hop [s], B the bandwidth of an NPU [B/s],
and two numbers a, b that follow from the kind, the algorithm, the number of members and the
topology alone. They are computed here, on the host; nothing in them depends on a rate.

What a dimension makes of a round that sends v S bytes over a distance d of members:
    switch           a = 1, b = v.
    fully connected  a = 1, b = v (N - 1) / links: of the N - 1 links of an NPU only those to the
                     peers of the round are busy.
    ring             a = h, b = v h 2 / links: an NPU has two links, and the message occupies all
                     h = stride min(d, n - d) of its hops. (Members that are not neighbours share
                     links with others that communicate at the same time, and members that do not
                     close the ring go back over the same links: both cost a factor `stride`.)

References:
    [T] R. Thakur, R. Rabenseifner, W. Gropp, "Optimization of collective communication operations
        in MPICH", Int. J. High Performance Computing Applications 19(1), 2005.
    [C] E. Chan, M. Heimlich, A. Purkayastha, R. van de Geijn, "Collective communication: theory,
        practice, and experience", Concurrency and Computation 19(13), 2007.
    [P] P. Patarasuk, X. Yuan, "Bandwidth optimal all-reduce algorithms for clusters of
        workstations", J. Parallel and Distributed Computing 69(2), 2009.
    [S] P. Sanders, J. Speck, J. L. Träff, "Two-tree algorithms for full bandwidth broadcast,
        reduction and scan", Parallel Computing 35(12), 2009.
"""

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from perfmodel.errors import InputError
from perfmodel.machine.topology import EVERYONE, TOPOLOGIES

ALL_LINKS = 0


class Round(NamedTuple):
    """`repeat` rounds in each of which a member sends `volume` S bytes.

    Attributes:
        repeat: how many such rounds follow each other.
        distance: to the member that many places on, or to EVERYONE else at once, in equal parts.
        volume: bytes that a member sends (at a root: receives), per byte of S.
        links: links of an NPU that the round keeps busy, or ALL_LINKS to the group's members.
    """

    repeat: int
    distance: int
    volume: float
    links: int = ALL_LINKS


Rounds = tuple[Round, ...]


def _ring(kind: str, n: int) -> Rounds:
    """Neighbours pass parts on [P]; a broadcast is a pipeline, here of very many chunks.

    Pairwise exchange for all-to-all: in round k with the member k places on [T].
    """
    if kind == "all_to_all":
        return tuple(Round(1, k, 1 / n, 1) for k in range(1, n))
    repeat, volume = {
        "reduce_scatter": (n - 1, 1 / n),
        "all_gather": (n - 1, 1.0),
        "all_reduce": (2 * (n - 1), 1 / n),
        "broadcast": (n - 1, 1 / (n - 1)),
        "reduce": (n - 1, 1 / (n - 1)),
        "gather": (n - 1, 1.0),
        "scatter": (n - 1, 1 / n),
        "barrier": (2 * (n - 1), 0.0),
    }[kind]
    return (Round(repeat, 1, volume),)


def _halving_doubling(kind: str, n: int) -> Rounds:
    """Recursive halving and doubling, the largest part exchanged with the nearest partner [T].

    All-reduce is reduce-scatter and all-gather; broadcast is scatter and all-gather; reduce is
    reduce-scatter and gather. All-to-all is Bruck's: log2 n rounds of half the size [T].
    """
    if n & (n - 1):
        raise InputError(
            f'{kind} among {n} members by "halving-doubling": the number of members must be a '
            'power of two; use algorithm="auto" or "ring"'
        )
    steps = range(n.bit_length() - 1)
    halve = tuple(Round(1, 1 << k, 0.5 ** (k + 1), 1) for k in steps)
    double = tuple(Round(1, 1 << k, n * 0.5 ** (k + 1), 1) for k in reversed(steps))
    return {
        "reduce_scatter": halve,
        "scatter": halve,
        "all_gather": double,
        "gather": double,
        "all_reduce": halve + _scaled(double, 1 / n),
        "broadcast": halve + _scaled(double, 1 / n),
        "reduce": halve + _scaled(double, 1 / n),
        "all_to_all": tuple(Round(1, 1 << k, 0.5, 1) for k in steps),
        "barrier": tuple(Round(1, 1 << k, 0.0, 1) for k in steps),
    }[kind]


def _tree(kind: str, n: int) -> Rounds:
    """Two binary trees of ceil(log2 n) levels, each with half the data, of very many chunks [S].

    Gather and scatter are binomial trees [C]. A tree has nothing to offer to all-gather,
    reduce-scatter and all-to-all, which go as in a ring.
    """
    levels = math.ceil(math.log2(n))
    if kind in ("all_gather", "reduce_scatter", "all_to_all"):
        return _ring(kind, n)
    return {
        "all_reduce": (Round(2 * levels, 1, 1 / levels, 2),),
        "broadcast": (Round(levels, 1, 1 / levels, 2),),
        "reduce": (Round(levels, 1, 1 / levels, 2),),
        "gather": (Round(levels, 1, (n - 1) / levels, 1),),
        "scatter": (Round(levels, 1, (n - 1) / n / levels, 1),),
        "barrier": (Round(2 * levels, 1, 0.0, 2),),
    }[kind]


def _direct(kind: str, n: int) -> Rounds:
    """Everyone sends to everyone at once: one round each for reduce-scatter and all-gather.

    Broadcast is scatter and all-gather, reduce is reduce-scatter and gather [C].
    """
    parts = Round(1, EVERYONE, (n - 1) / n)
    whole = Round(1, EVERYONE, float(n - 1))
    return {
        "reduce_scatter": (parts,),
        "scatter": (parts,),
        "all_to_all": (parts,),
        "all_gather": (whole,),
        "gather": (whole,),
        "all_reduce": (parts, parts),
        "broadcast": (parts, parts),
        "reduce": (parts, parts),
        "barrier": (Round(1, EVERYONE, 0.0),),
    }[kind]


ALGORITHMS: dict[str, Callable[[str, int], Rounds]] = {
    "ring": _ring,
    "halving-doubling": _halving_doubling,
    "tree": _tree,
    "direct": _direct,
}


def _scaled(rounds: Rounds, factor: float) -> Rounds:
    return tuple(r._replace(volume=r.volume * factor) for r in rounds)


def choose(kind: str, members: int, topology: str) -> str:
    """The algorithm that "auto" stands for; each topology has its own answer (`machine.topology`).

    Neighbours in a ring, everyone at once where all are connected. Through a switch all-reduce,
    reduce-scatter and all-gather go by halving and doubling where the number of members is a power
    of two, else in a ring; what has a root, and a barrier, by trees. All-to-all is direct anywhere.

    >>> choose("all_reduce", 8, "switch"), choose("all_reduce", 6, "switch")
    ('halving-doubling', 'ring')
    """
    return TOPOLOGIES[topology].algorithm(kind, members)


@lru_cache(maxsize=4096)
def coefficients(
    kind: str, algorithm: str, n: int, *, topology: str, links: int, stride: int, size: int
) -> tuple[float, float]:
    """The numbers a and b of t = a alpha + b S / B, for n >= 2 members of one dimension.

    Args:
        kind: a Chakra collective type in lower case.
        algorithm: a name in ALGORITHMS.
        n: members of the group in this dimension.
        topology, links, size: of the dimension; links of one NPU in it, NPUs in it.
        stride: hops between neighbouring members (1 unless the topology is a ring).

    Raises:
        InputError: halving and doubling without a power of two; a tree on a ring.

    >>> coefficients("all_reduce", "ring", 8, topology="switch", links=1, stride=1, size=8)
    (14.0, 1.75)
    """
    shape = TOPOLOGIES[topology]
    if algorithm in shape.refused:
        raise InputError(
            f'{kind} by "{algorithm}" on a {topology}: its edges are no links there; use algorithm="auto" or '
            '"ring" for this dimension'
        )
    a = b = 0.0
    for r in ALGORITHMS[algorithm]("reduce_scatter" if kind == "reduce_scatter_block" else kind, n):
        hops, load = shape.round(r.distance, n, r.links, links=links, stride=stride, size=size)
        a += r.repeat * hops
        b += r.repeat * r.volume * load
    return a, b


class Phase(NamedTuple):
    """A step of a collective over several dimensions: `kind` in `dimension`, `fraction` S bytes."""

    kind: str
    dimension: int
    fraction: float


@lru_cache(maxsize=4096)
def phases(kind: str, members: tuple[int, ...]) -> tuple[Phase, ...]:
    """A collective over several dimensions as collectives in one dimension each, in order.

    All-reduce: reduce-scatter from the first dimension up, all-reduce in the last, all-gather back.
    Reduce-scatter and gather go from the first to the last, all-gather and scatter from the last to
    the first, on sizes that shrink or grow on the way. All-to-all, broadcast, reduce and barrier
    work on the full size in every dimension. Dimensions with one member take no part.

    >>> [tuple(p) for p in phases("all_reduce", (8, 2))]  # doctest: +NORMALIZE_WHITESPACE
    [('reduce_scatter', 0, 1.0), ('all_reduce', 1, 0.125), ('all_gather', 0, 0.125)]
    """
    up = [(k, n) for k, n in enumerate(members) if n > 1]
    down = up[::-1]
    if not up:
        return ()
    if kind in ("reduce_scatter", "reduce_scatter_block", "scatter"):
        return _changing(kind, up if kind != "scatter" else down, lambda n: 1 / n)
    if kind in ("all_gather", "gather"):
        return _changing(kind, down if kind == "all_gather" else up, float)
    if kind == "all_reduce":
        scatter = _changing("reduce_scatter", up[:-1], lambda n: 1 / n)
        part = 1 / math.prod(n for _, n in up[:-1])
        back = _changing("all_gather", down[1:], float, part)
        return (*scatter, Phase(kind, up[-1][0], part), *back)
    order = down if kind == "broadcast" else up
    return tuple(Phase(kind, k, 1.0) for k, _ in order)


def _changing(
    kind: str, order: list[tuple[int, int]], factor: Callable[[int], float], start: float = 1.0
) -> tuple[Phase, ...]:
    """Phases in that order; each leaves `factor`(members) times the size to the next."""
    result = []
    for k, n in order:
        result.append(Phase(kind, k, start))
        start *= factor(n)
    return tuple(result)
