"""Collectives as NCCL does them: by protocol and size in a node, with all phases at once over nodes.

V is what a GPU sends, h the hops one after the other, of n members and size S (of one member's input; of an
all-gather S is n times that, as NCCL counts): r = 2 for all-reduce, else 1,

    V = r (n - 1) / n S,    h = r (n - 1)

**In a node** NCCL takes a protocol of low latency for small sizes and one of high bandwidth for large ones. Both are
fitted, and so is where it changes over, on the logarithms:

    small = start + hop h alpha
    large = pnorm2( large_start + large_hop h alpha, V / (e B) + ramp sqrt(V / B) )
    ln t  = (1 - q) ln small + q ln large,    q = 1 / (1 + (S / (change sqrt(n / 2)))^(-1 / width))

alpha and B are the dimension's latency and one-way bandwidth. Where the switch reduces (NVLS, from 5 members on), an
all-reduce's large = pnorm2( start, W / (e B) + fill W / (W + half) ) with coefficients of its own and
W = (n + 1) / n S: every GPU sends its input into the switch and its part of the result to all. Among more
GPUs than were measured, 8, that may be the faster way for small sizes, too: small is then the soft minimum of both.

**Over nodes** chunks flow through all phases at once: latencies add up, the slowest phase's bandwidth decides. Two
nodes exchange halves of trees; more take a flat ring over all NICs, or trees while latency counts. See `across`.

Sources: NVIDIA/nccl src/graph/tuning.cc at 5067397 (algorithms, protocols, latencies); nccl-tests doc/PERFORMANCE.md
(V); P. Sanders et al., "Two-tree algorithms", Parallel Computing 35(12), 2009. Coefficients: hwdb/models.
"""

from __future__ import annotations

import math
from dataclasses import field
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from perfmodel.errors import InputError
from perfmodel.models.across_nodes import Across
from perfmodel.models.network import AlphaBeta
from perfmodel.models.smooth_extrema import overlap, soft_minimum
from perfmodel.pytree import number, record, static
from perfmodel.vocabulary import COLLECTIVES

NVLS_MEMBERS = 5
"""Fewest members whose all-reduce goes through a reducing switch (measured on H200; 6 on B200)."""

MEASURED_MEMBERS = 8
"""Most members of a node that were measured."""

MEASURED = {
    "all_reduce": "all_reduce",
    "barrier": "all_reduce",
    "all_gather": "all_gather",
    "gather": "all_gather",
    "broadcast": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "reduce_scatter_block": "reduce_scatter",
    "reduce": "reduce_scatter",
    "all_to_all": "all_to_all",
    "scatter": "all_to_all",
}
"""Kind of collective -> the measured kind whose coefficients it takes."""


def volume(kind: str, size: Any, n: int) -> tuple[Any, int, Any]:
    """What a GPU (at a root: the root) sends or receives [B], hops one after the other, and NCCL's size [B].

    Args:
        kind: a Chakra collective type in lower case.
        size: [rows] B of one member's input, of a scatter or broadcast the root's.
        n: members.

    >>> volume("all_reduce", 8.0, 4), volume("all_gather", 2.0, 4)
    ((12.0, 6, 8.0), (6.0, 3, 8.0))
    """
    if kind in ("all_reduce", "barrier"):
        return 2 * (n - 1) / n * size, 2 * (n - 1), size
    if kind in ("all_gather", "gather"):
        return (n - 1) * size, n - 1, n * size
    if kind in ("broadcast", "reduce"):
        return 1.0 * size, n - 1, size
    return (n - 1) / n * size, n - 1, size


@record
class Protocols:
    """Coefficients of one kind of collective in a node; see the module's text.

    Attributes:
        kind: "all_reduce", "all_gather", "reduce_scatter" or "all_to_all".
        start, large_start: of small and of large sizes [s].
        hop, large_hop: time of a hop, in units of the dimension's latency [1].
        efficiency: fraction of the bandwidth that large sizes reach [1].
        ramp: how slowly they reach it [s^0.5].
        change: size of two members where the protocols take the same weight [B].
        width: of the change, in ln S [1].
    """

    kind: str = static()
    start: Any = number("s")
    hop: Any = number("1")
    large_start: Any = number("s")
    large_hop: Any = number("1")
    efficiency: Any = number("1")
    ramp: Any = number("s^0.5")
    change: Any = number("B")
    width: Any = number("1")

    def time(self, kind: str, size: Any, n: int, dimension: Any, large: Any = None) -> Array:
        """[rows] seconds of a collective of `n` members; `large` [rows] replaces the large regime's time."""
        sent, hops, counted = volume(kind, size, n)
        sent, counted = jnp.asarray(sent), jnp.asarray(counted)
        latency, bandwidth = dimension.latency, dimension.bandwidth
        small = self.start + self.hop * hops * latency
        if large is None:
            large = overlap(
                self.large_start + self.large_hop * hops * latency,
                _transfer(sent, bandwidth, self.efficiency, self.ramp),
                1,
            )
        elif n > MEASURED_MEMBERS:
            small = soft_minimum([small, large])
        some = jnp.where(counted > 0, counted, 1.0)
        place = jnp.log(some / (self.change * math.sqrt(n / 2))) / self.width
        weight = jnp.where(counted > 0, jax.nn.sigmoid(place), 0.0)
        return jnp.exp((1.0 - weight) * jnp.log(small) + weight * jnp.log(large))


def _transfer(sent: Any, bandwidth: Any, efficiency: Any, ramp: Any) -> Array:
    """V / (e B) + ramp sqrt(V / B) [s]; 0 for nothing sent, where the root has no derivative."""
    full = sent / bandwidth
    some = jnp.where(full > 0, full, 1.0)
    seconds: Array = full / efficiency + ramp * jnp.where(full > 0, jnp.sqrt(some), 0.0)
    return seconds


@record
class Nvls:
    """Large all-reduces through a switch that adds; see the module's text.

    Attributes:
        start: of a small one [s].
        efficiency: fraction of the bandwidth that large ones reach [1].
        fill: time to fill the pipeline of chunks once there are many [s].
        half: bytes W of which half of it is due [B].
    """

    start: Any = number("s")
    efficiency: Any = number("1")
    fill: Any = number("s")
    half: Any = number("B")

    def time(self, size: Any, n: int, dimension: Any) -> Array:
        """[rows] seconds of the large regime of an all-reduce of `size` [rows] B among n members."""
        sent = jnp.asarray((n + 1) / n * size)
        filling = self.fill * sent / (sent + self.half)
        return overlap(self.start, sent / (self.efficiency * dimension.bandwidth) + filling, 1)


@record
class Messages:
    """Send and receive: pnorm2( start, S / (e B) + ramp sqrt(S / B) ), in a node and over nodes."""

    start: Any = number("s")
    efficiency: Any = number("1")
    ramp: Any = number("s^0.5")
    far_start: Any = number("s")
    far_efficiency: Any = number("1")
    far_ramp: Any = number("s^0.5")

    def time(self, size: Any, bandwidth: Any, *, far: bool) -> Array:
        """[rows] seconds of messages of `size` [rows] B over links of `bandwidth` B/s."""
        start, efficiency, ramp = (
            (self.far_start, self.far_efficiency, self.far_ramp)
            if far
            else (self.start, self.efficiency, self.ramp)
        )
        return overlap(start, _transfer(jnp.asarray(size), bandwidth, efficiency, ramp), 1)


@record
class Nccl:
    """NCCL on nodes whose GPUs a switch joins (dimension 0), and on what joins the nodes.

    Attributes:
        inside: coefficients in a node, one `Protocols` per measured kind.
        nvls: large all-reduces in a node whose switch adds (`Dimension.reduction`).
        nodes: collectives over nodes.
        messages: send and receive.
        base: what answers where a dimension is no switch.
    """

    inside: tuple[Protocols, ...]
    nvls: Nvls
    nodes: Across
    messages: Messages
    base: AlphaBeta = field(default_factory=lambda: AlphaBeta(algorithm="ring"))

    def collective(self, kind: str, size: Array, group: Any, network: tuple[Any, ...]) -> Array:
        """[rows] seconds of a collective.

        Args:
            kind: a Chakra collective type in lower case, such as "all_reduce".
            size: [rows] B, the input of one member (a scatter's or broadcast's: of the root).
            group: members and strides by dimension (`placement.Span`); a group of one costs nothing.
            network: the dimensions, innermost first.

        Raises:
            InputError: an unknown kind.
        """
        if kind not in COLLECTIVES:
            raise InputError(f"collective {kind!r}: expected one of {', '.join(COLLECTIVES)}")
        if math.prod(group.members) == 1:
            return 0.0 * size
        if any(not d.shape.switched for d, n in zip(network, group.members) if n > 1):
            return self.base.collective(kind, size, group, network)
        if math.prod(group.members[1:]) == 1:
            return self.in_node(kind, size, group.members[0], network[0])
        volumes = volume(kind, size, math.prod(group.members))
        return self.nodes.time(kind, size, volumes, group.members, network)

    def answered_by(self, kind: str, group: Any, network: tuple[Any, ...]) -> str:
        """Path of the coefficients that answer for a kind of collective in a group."""
        if any(not d.shape.switched for d, n in zip(network, group.members) if n > 1):
            return "base"
        if math.prod(group.members[1:]) > 1:
            return "nodes"
        return f"inside.{[p.kind for p in self.inside].index(MEASURED[kind])}"

    def in_node(self, kind: str, size: Any, n: int, dimension: Any) -> Array:
        """[rows] seconds of a collective among `n` members of one node."""
        measured = MEASURED[kind]
        protocols = next(p for p in self.inside if p.kind == measured)
        large = None
        if (
            kind == "all_reduce"
            and getattr(dimension, "reduction", "") == "nvls"
            and n >= NVLS_MEMBERS
        ):
            large = self.nvls.time(size, n, dimension)
        return protocols.time(kind, size, n, dimension, large)

    def point_to_point(self, size: Array, hops: tuple[int, ...], network: tuple[Any, ...]) -> Array:
        """[rows] seconds of a message of `size` [rows] B; hops per dimension (`placement.hops`).

        Raises:
            InputError: no hop at all, a message of a rank to itself.
        """
        crossed = [k for k, h in enumerate(hops) if h > 0]
        if not crossed:
            raise InputError("a message of a rank to itself crosses no network")
        if any(not network[k].shape.switched for k in crossed):
            return self.base.point_to_point(size, hops, network)
        slowest = jnp.stack([jnp.asarray(1.0 / network[k].bandwidth) for k in crossed]).max()
        return self.messages.time(size, 1.0 / slowest, far=crossed[-1] > 0)
