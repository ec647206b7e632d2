"""What every node costs, in plain Python: roofline, memory, messages, and collectives round by round.

Independent of the package's formulas: a collective is played in rounds on one dimension after the other, and each
round takes its hops' latency and the time that the busiest link needs for its bytes. Sources: Thakur, Rabenseifner
and Gropp 2005 (ring, pairwise exchange, recursive halving and doubling), Chan et al. 2007 (composition of
collectives), Sanders, Speck and Träff 2009 (two trees), Williams, Waterman and Patterson 2009 (roofline). Sizes in
B, rates in B/s and FLOP/s, times in s. What a dimension's links are is said in `perfmodel.machine.system`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from tests.oracle import COLLECTIVE, COMP, MEM_LOAD, MEM_STORE, SEND, Nodes

KINDS = (
    "all_reduce",
    "reduce",
    "all_gather",
    "gather",
    "scatter",
    "broadcast",
    "all_to_all",
    "reduce_scatter",
    "reduce_scatter_block",
    "barrier",
)


class Layer(NamedTuple):
    """One network dimension with the group in it: n members, `stride` hops between neighbours on a ring."""

    n: int
    stride: int
    topology: str
    size: int
    built: int
    bandwidth: float
    latency: float

    @property
    def links(self) -> int:
        """Links of an NPU."""
        return {"ring": 2, "switch": 1}.get(self.topology, max(self.size, self.built, 2) - 1)

    @property
    def link(self) -> float:
        """Bandwidth of one link [B/s]."""
        return self.bandwidth / self.links


def costs(graph, nodes: Nodes, system, models) -> tuple[list[float], list[bool]]:
    """Cost of every node [s] (0 for what takes no time), and whether it replays a collective's record.

    Args:
        graph, nodes: the workload and `nodes_of` it.
        system: perfmodel's System with plain numbers.
        models: perfmodel's Models of the package's own kinds with plain numbers.
    """
    result, replayed = [], []
    for v in range(len(nodes)):
        seconds, replay = _cost(graph, nodes, v, system, models)
        result.append(seconds)
        replayed.append(replay)
    return result, replayed


def _cost(graph, nodes: Nodes, v: int, system, models) -> tuple[float, bool]:
    program = graph.programs[int(graph.program[nodes.rank[v]])]
    k, kind = nodes.position[v], nodes.type[v]
    if kind not in (COMP, MEM_LOAD, MEM_STORE, SEND, COLLECTIVE):
        return 0.0, False
    scale, recorded = float(program.scale[k]), float(program.duration[k])
    flops, moved, size = int(program.flops[k]), int(program.bytes[k]), int(program.size[k])
    has_work = {
        COMP: flops >= 0 or moved >= 0,
        MEM_LOAD: moved >= 0,
        MEM_STORE: moved >= 0,
        SEND: size >= 0,
        COLLECTIVE: size >= 0 or KINDS[int(program.comm_type[k])] == "barrier",
    }[kind]
    if not math.isnan(recorded) and (models.prefer == "recorded" or not has_work):
        return scale * recorded, kind == COLLECTIVE
    if len(nodes.group[v]) == 1:  # alone: nothing to send
        return 0.0, False
    if not has_work:
        raise ValueError(f"node {v} has neither work nor a record")
    if kind == COMP:
        return scale * compute(max(flops, 0), max(moved, 0), system.npu, models.compute), False
    if kind == SEND:
        peer = nodes.rank[nodes.partner[v]]
        return scale * message(size, nodes.rank[v], peer, system.network, models.network), False
    if kind == COLLECTIVE:
        name = KINDS[int(program.comm_type[k])]
        return (
            scale * collective(name, max(size, 0), nodes.group[v], system.network, models.network),
            False,
        )
    if system.remote_memory is not None and not program.local[k]:
        remote = system.remote_memory
        return scale * (remote.latency + moved / remote.bandwidth), False
    memory = models.memory
    rate = system.npu.memory_bandwidth * memory.efficiency
    return scale * (memory.latency + moved / rate), False


def compute(flops: float, moved: float, npu, model) -> float:
    """The slower of arithmetic and traffic [s]."""
    arithmetic = flops / (model.efficiency * npu.peak_flops)
    traffic = moved / (model.memory_efficiency * npu.memory_bandwidth)
    return max(arithmetic, traffic) + model.overhead


def address(rank: int, network) -> list[int]:
    """Place of a rank in every dimension, dimension 0 fastest."""
    place = []
    for dimension in network:
        place.append(rank % dimension.size)
        rank //= dimension.size
    return place


def message(size: float, source: int, target: int, network, model) -> float:
    """A message from one rank to another [s]: every hop's latency, the bytes over the slowest link."""
    time, slowest = 0.0, math.inf
    for d, a, b in zip(network, address(source, network), address(target, network)):
        if a == b:
            continue
        hops = min(abs(a - b), d.size - abs(a - b)) if d.topology == "ring" else 1
        layer = Layer(2, 1, d.topology, d.size, d.built, d.bandwidth * model.efficiency, d.latency)
        time += hops * layer.latency
        slowest = min(slowest, layer.link)
    return model.overhead + time + size / slowest


def collective(kind: str, size: float, group: tuple[int, ...], network, model) -> float:
    """A collective of a group of ranks [s]: its phases one after the other, each in one dimension."""
    layers = layers_of(group, network, model.efficiency)
    time = model.overhead
    for phase, k, part in phases(kind, size, [layer.n for layer in layers]):
        name = model.algorithm if isinstance(model.algorithm, str) else model.algorithm[k]
        time += in_one_dimension(phase, part, layers[k], name)
    return time


def layers_of(group: tuple[int, ...], network, efficiency: float) -> list[Layer]:
    """How a group lies in the network: a product of places per dimension, else flat in the outermost one."""
    places = [address(rank, network) for rank in group]
    sets = [sorted({place[k] for place in places}) for k in range(len(network))]
    if math.prod(map(len, sets)) == len({tuple(place) for place in places}):
        shape = [
            (len(s), ring_stride(s, d.size) if len(s) > 1 else 1) for s, d in zip(sets, network)
        ]
    else:
        outermost = max(k for k, s in enumerate(sets) if len(s) > 1)
        shape = [(len(set(group)) if k == outermost else 1, 1) for k in range(len(network))]
    return [
        Layer(n, stride, d.topology, d.size, d.built, d.bandwidth * efficiency, d.latency)
        for (n, stride), d in zip(shape, network)
    ]


def ring_stride(places: list[int], size: int) -> int:
    """Longest way between neighbours, going round in order of place, or out over every other and back."""

    def longest(way: list[int]) -> int:
        gaps = [abs(a - b) for a, b in zip(way, way[1:] + way[:1])]
        return max(min(gap, size - gap) for gap in gaps)

    out_and_back = places[::2] + places[1::2][::-1]
    return min(longest(places), longest(out_and_back))


def phases(kind: str, size: float, members: list[int]) -> list[tuple[str, int, float]]:
    """(kind, dimension, one member's input there [B]) of a collective over several dimensions."""
    up = [k for k, n in enumerate(members) if n > 1]
    down = up[::-1]
    if kind == "all_reduce":
        if not up:
            return []
        result = []
        for k in up[:-1]:
            result.append(("reduce_scatter", k, size))
            size /= members[k]
        result.append(("all_reduce", up[-1], size))
        for k in down[1:]:
            result.append(("all_gather", k, size))
            size *= members[k]
        return result
    result = []
    for k in down if kind in ("all_gather", "scatter", "broadcast") else up:
        result.append((kind.removesuffix("_block"), k, size))
        if kind in ("reduce_scatter", "reduce_scatter_block", "scatter"):
            size /= members[k]
        elif kind in ("all_gather", "gather"):
            size *= members[k]
    return result


def in_one_dimension(kind: str, size: float, layer: Layer, algorithm: str) -> float:
    """One phase [s]: choose the algorithm, play its rounds."""
    n = layer.n
    power_of_two = n & (n - 1) == 0
    if algorithm == "auto":
        if kind == "all_to_all" or layer.topology == "fully-connected":
            algorithm = "direct"
        elif layer.topology == "ring":
            algorithm = "ring"
        elif kind in ("all_reduce", "reduce_scatter", "all_gather"):
            algorithm = "halving-doubling" if power_of_two else "ring"
        else:
            algorithm = "tree"
    rounds = {"ring": by_ring, "direct": by_everyone, "tree": by_tree}.get(algorithm, by_halving)
    return sum(rounds(kind, size, layer))


def by_ring(kind: str, size: float, layer: Layer) -> list[float]:
    """Seconds of every round, each to the next member (all-to-all: to the k-th next)."""
    n = layer.n
    if kind == "all_to_all":
        return [_to_one(layer, k, size / n, one_link=True) for k in range(1, n)]
    rounds, sent = {
        "reduce_scatter": (n - 1, size / n),
        "all_reduce": (2 * (n - 1), size / n),
        "all_gather": (n - 1, size),
        "gather": (n - 1, size),
        "scatter": (n - 1, size / n),
        "broadcast": (n - 1, size / (n - 1)),
        "reduce": (n - 1, size / (n - 1)),
        "barrier": (2 * (n - 1), 0.0),
    }[kind]
    return [_to_one(layer, 1, sent) for _ in range(rounds)]


def by_halving(kind: str, size: float, layer: Layer) -> list[float]:
    """Pairs exchange halves of what is left, then (for a whole result) what was gathered, doubled."""
    n = layer.n
    distances = [2**k for k in range(n.bit_length() - 1)]
    if kind in ("all_to_all", "barrier"):
        part = size / 2 if kind == "all_to_all" else 0.0
        return [_to_one(layer, d, part, one_link=True) for d in distances]
    scatters = kind not in ("all_gather", "gather")
    gathers = kind not in ("reduce_scatter", "scatter")
    times = []
    part = size if scatters else n * size
    for d in distances:
        part /= 2
        exchange = _to_one(layer, d, part, one_link=True)
        times.extend([exchange] * (scatters + gathers))
    return times


def by_tree(kind: str, size: float, layer: Layer) -> list[float]:
    """Two trees with half of the data each, in many chunks: the levels' latencies, all bytes once."""
    n = layer.n
    levels = 0
    while 2**levels < n:
        levels += 1
    if kind in ("all_gather", "reduce_scatter", "all_to_all"):
        return by_ring(kind, size, layer)
    if kind in ("gather", "scatter"):
        through_root = (n - 1) * size / (n if kind == "scatter" else 1)
        return [_to_one(layer, 1, through_root / levels, one_link=True) for _ in range(levels)]
    ways = 2 if kind in ("all_reduce", "barrier") else 1
    moved = {"all_reduce": 2 * size, "barrier": 0.0}.get(kind, size)
    part = moved / (ways * levels)
    links = min(2, _peer_links(layer))
    if layer.topology == "fully-connected":
        return [layer.latency + part / (links * layer.link)] * (ways * levels)
    return [_to_one(layer, 1, part)] * (ways * levels)


def by_everyone(kind: str, size: float, layer: Layer) -> list[float]:
    """Everyone sends to everyone at once."""
    n = layer.n
    parts, whole = _to_all(layer, size / n), _to_all(layer, size)
    return {
        "barrier": [_to_all(layer, 0.0)],
        "all_gather": [whole],
        "gather": [whole],
        "all_to_all": [parts],
        "reduce_scatter": [parts],
        "scatter": [parts],
    }.get(kind, [parts, parts])


def _peer_links(layer: Layer) -> int:
    """Links of an NPU to the group, one per peer; a flat stand-in may have more peers than links."""
    return min(layer.n - 1, layer.links)


def _ways(layer: Layer) -> int:
    """Directions in which a ring's group can send: two, but one for a pair with one short way."""
    return 1 if layer.n == 2 and 2 * layer.stride < layer.size else 2


def _to_one(layer: Layer, distance: int, sent: float, *, one_link: bool = False) -> float:
    """A round in which each member sends bytes to the member `distance` places on [s]."""
    if layer.topology == "switch":
        return layer.latency + sent / layer.link
    if layer.topology == "fully-connected":
        links = 1 if one_link else _peer_links(layer)
        return layer.latency + sent / (links * layer.link)
    hops = layer.stride * min(distance, layer.n - distance)
    links = 1 if one_link else _ways(layer)
    return hops * layer.latency + hops * sent / (links * layer.link)


def _to_all(layer: Layer, each: float) -> float:
    """A round in which each member sends bytes to each other one [s]."""
    peers = range(1, layer.n)
    if layer.topology == "switch":
        return layer.latency + len(peers) * each / layer.link
    if layer.topology == "fully-connected":
        return layer.latency + len(peers) * each / (_peer_links(layer) * layer.link)
    hops = [layer.stride * min(d, layer.n - d) for d in peers]
    carried = sum(each * h for h in hops)
    return max(hops) * layer.latency + carried / (_ways(layer) * layer.link)
