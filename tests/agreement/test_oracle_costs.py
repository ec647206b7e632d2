"""The package's collectives and messages against the oracle's rounds, on all small networks."""

import math
from itertools import combinations, permutations, product

import pytest

from perfmodel.machine.placement import Span, hops, span
from perfmodel.machine.system import Dimension
from perfmodel.models.network import AlphaBeta
from perfmodel.vocabulary import COLLECTIVES
from tests import oracle_costs

TOPOLOGIES = ("ring", "switch", "fully-connected")
SIZES = ((8,), (6,), (5,), (4, 2), (2, 3))
BYTES = 1e6


def networks(sizes: tuple[int, ...]) -> list[tuple[Dimension, ...]]:
    """All topologies; bandwidths and latencies differ by dimension, and some machines are used in part."""
    return [
        tuple(
            Dimension(1e10 / (k + 1), (k + 1) * 1e-6, topology, n, n + spare if spare else 0)
            for k, (topology, n) in enumerate(zip(chosen, sizes))
        )
        for chosen in product(TOPOLOGIES, repeat=len(sizes))
        for spare in (0, 3)
    ]


def groups(sizes: tuple[int, ...]) -> list[tuple[Span, tuple[int, ...]]]:
    """One group of every shape that groups can have there."""
    ranks = range(math.prod(sizes))
    found = {span(g, sizes): g for n in range(2, len(ranks) + 1) for g in combinations(ranks, n)}
    return list(found.items())


@pytest.mark.parametrize("sizes", SIZES)
def test_every_group_by_every_algorithm_costs_what_its_rounds_cost(sizes):
    algorithms = ("auto", "ring", "direct", "halving-doubling", "tree")
    shapes = groups(sizes)
    compared = 0
    for network, algorithm, kind in product(networks(sizes), algorithms, COLLECTIVES):
        model = AlphaBeta(algorithm=algorithm, efficiency=0.8, overhead=1e-7)
        for shape, group in shapes:
            used = [d.topology for n, d in zip(shape.members, network) if n > 1]
            if algorithm == "tree" and "ring" in used:
                continue
            if algorithm == "halving-doubling" and any(n & (n - 1) for n in shape.members):
                continue
            time = float(model.collective(kind, BYTES, shape, network))
            expected = oracle_costs.collective(kind, BYTES, group, network, model)
            assert abs(time - expected) <= 1e-12 * expected, (network, group, algorithm, kind)
            compared += 1
    assert compared > 200


@pytest.mark.parametrize("sizes", SIZES)
def test_every_message_costs_its_hops_and_its_slowest_link(sizes):
    model = AlphaBeta(efficiency=0.8, overhead=1e-7)
    for network in networks(sizes)[::3]:
        for source, target in list(permutations(range(math.prod(sizes)), 2))[::5]:
            time = float(model.point_to_point(BYTES, hops(source, target, network), network))
            expected = oracle_costs.message(BYTES, source, target, network, model)
            assert time == pytest.approx(expected, rel=1e-12)
