"""Collectives over nodes: all phases at once, so that latencies add up and the slowest bandwidth decides.

With g GPUs in each of k nodes, n = g k, S NCCL's size, V the bytes and h the hops of a flat ring (`nccl.volume`):

* all-reduce over two nodes, trees whose halves are exchanged, with what the protocol of small sizes saves, and a
  time to fill the pipeline that grows until there are many chunks:
      t = start + 2 (g - 1) alpha_1 + 2 alpha_2 + change S / (S + change_half) + fill S / (S + half)
          + pnorm8(2 (g - 1) / g S / (e1 B1), S / g / (e2 B2))
* everything else, a ring over all GPUs that uses every NIC of a node; r (k - 1) of its hops are between nodes:
      t = ring_start + near (h - r (k - 1)) + far r (k - 1)
          + pnorm8(V / (near_efficiency B1), V / (g far_efficiency B2))
* all-reduce over more than two nodes, also double trees, for small sizes (the soft minimum of both):
      t = ring_start + 2 (g - 1) near + 2 log2(k) tree_far
          + pnorm8(2 (g - 1) / g S / (near_efficiency B1), 2 S / g / (tree_efficiency B2))
* all-to-all, every pair directly: the bytes for other nodes through the GPU's own NIC:
      t = ring_start + near (n - 1)
          + pnorm8(S (g - 1) / n / (near_efficiency B1), S (n - g) / n / (direct_efficiency B2))

More than one dimension of nodes: each carries the ring of all NPUs inside it. The latencies near and far are in
units of the dimensions' latencies. Trees beat the ring's bandwidth over two nodes only: an inner node of a tree
of more receives from two children and sends to a parent, 2 S / g in all.

Sources: NVIDIA/nccl src/graph/tuning.cc at 5067397 (hop latencies of NVLink and network by the Simple protocol, rates
of links, tree against ring); measured in networks.md, 3.2, of the package's reference data. Two nodes are fitted, see
hwdb/models.
"""

from __future__ import annotations

import math
from typing import Any

import jax.numpy as jnp
from jax import Array

from perfmodel.models.smooth_extrema import overlap, soft_minimum
from perfmodel.pytree import number, record


@record
class Across:
    """Coefficients of collectives over nodes; see the module's text.

    Attributes:
        start, change, fill: of trees over two nodes, whatever the size, from middle sizes on, for large ones [s].
        change_half, half: sizes at which half of the two is due [B].
        efficiency, outer_efficiency: e1, e2 of the two bandwidths that these trees reach [1].
        ring_start: of everything else [s].
        near, far, tree_far: hop in a node, between nodes in a ring, in a tree, by the dimension's latency [1].
        near_efficiency, far_efficiency, tree_efficiency, direct_efficiency: of the bandwidths [1].
    """

    start: Any = number("s")
    change: Any = number("s")
    change_half: Any = number("B")
    fill: Any = number("s")
    half: Any = number("B")
    efficiency: Any = number("1")
    outer_efficiency: Any = number("1")
    ring_start: Any = number("s", default=8.4e-6)
    near: Any = number("1", default=3.4 / 0.6)
    far: Any = number("1", default=14.0 / 2.7)
    tree_far: Any = number("1", default=14.0 / 2.7)
    near_efficiency: Any = number("1", default=0.82)
    far_efficiency: Any = number("1", default=0.97)
    tree_efficiency: Any = number("1", default=0.8)
    direct_efficiency: Any = number("1", default=0.92)

    def time(
        self,
        kind: str,
        size: Any,
        volumes: tuple[Any, int, Any],
        members: tuple[int, ...],
        network: tuple[Any, ...],
    ) -> Array:
        """[rows] seconds of a collective over more than one node.

        Args:
            kind: a Chakra collective type in lower case.
            size: [rows] B of one member's input.
            volumes: V [rows] B, h, S [rows] B of all members (`nccl.volume`).
            members: per dimension; of dimension 0 the GPUs of a node.
            network: the dimensions, innermost first.
        """
        if kind in ("all_to_all", "scatter"):
            return self._direct(size, members, network)
        if kind != "all_reduce":
            return self._ring(*volumes[:2], members, network)
        if math.prod(members[1:]) == 2:
            return self._two(volumes[2], members, network)
        return soft_minimum(
            [self._ring(*volumes[:2], members, network), self._tree(volumes[2], members, network)]
        )

    def _two(self, size: Any, members: tuple[int, ...], network: tuple[Any, ...]) -> Array:
        g = members[0]
        outer = network[_outermost(members)]
        latency = 2 * (g - 1) * network[0].latency + 2 * outer.latency
        inside = 2 * (g - 1) / g * size / (self.efficiency * network[0].bandwidth)
        outside = size / (g * self.outer_efficiency * outer.bandwidth)
        filling = self.fill * size / (size + self.half)
        filling = filling + self.change * size / (size + self.change_half)
        seconds: Array = self.start + latency + filling + overlap(inside, outside, 3)
        return seconds

    def _ring(self, sent: Any, hops: int, members: tuple[int, ...], network: Any) -> Array:
        n, nodes = math.prod(members), math.prod(members[1:])
        crossings = hops // (n - 1) * (nodes - 1)
        outer = network[_outermost(members)]
        time = self.ring_start + self.near * network[0].latency * (hops - crossings)
        time = time + self.far * outer.latency * crossings
        seconds: Array = time + self._slowest(sent, sent, members, network, self.far_efficiency)
        return seconds

    def _tree(self, size: Any, members: tuple[int, ...], network: tuple[Any, ...]) -> Array:
        g, nodes = members[0], math.prod(members[1:])
        outer = network[_outermost(members)]
        time = self.ring_start + self.near * network[0].latency * 2 * (g - 1)
        time = time + self.tree_far * outer.latency * 2 * math.log2(nodes)
        near = 2 * (g - 1) / g * size
        seconds: Array = time + self._slowest(
            near, 2.0 * size, members, network, self.tree_efficiency
        )
        return seconds

    def _direct(self, size: Any, members: tuple[int, ...], network: tuple[Any, ...]) -> Array:
        n, inside = math.prod(members), 1
        time = self.ring_start + self.near * network[0].latency * (n - 1)
        slowest = jnp.zeros_like(size)
        for k, m in enumerate(members):
            peers = inside * m if k == 0 else n
            efficiency = self.near_efficiency if k == 0 else self.direct_efficiency
            if m > 1:
                away = (peers - (1 if k == 0 else inside)) / n
                slowest = overlap(slowest, away * size / (efficiency * network[k].bandwidth), 3)
            inside *= m
        seconds: Array = time + slowest
        return seconds

    def _slowest(self, near: Any, far: Any, members: Any, network: Any, efficiency: Any) -> Array:
        """Bytes of all phases at once: `near` in the node, `far` over every dimension of nodes, shared by its NICs."""
        slowest = jnp.zeros_like(far)
        if members[0] > 1:
            slowest = near / (self.near_efficiency * network[0].bandwidth) + slowest
        inside = members[0]
        for k, m in enumerate(members[1:], 1):
            if m > 1:
                slowest = overlap(slowest, far / (inside * efficiency * network[k].bandwidth), 3)
            inside *= m
        return slowest


def _outermost(members: tuple[int, ...]) -> int:
    return max(k for k, m in enumerate(members) if m > 1)
