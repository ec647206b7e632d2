"""Native collective algorithms: how each is named, and the phase that it makes of a collective in one dimension.

An algorithm is an entry of `ALGORITHMS`, a function that fills in its phase, and a state machine of a chunk (see
`algorithms`, by the same code).

Source: ASTRA-sim's Ring, AllToAll, HalvingDoubling, DoubleBinaryTreeAllReduce and CollectiveImplLookup at 518bd51.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from perfmodel.astra import costs, layout
from perfmodel.errors import SystemFileError, TraceError

ALL_REDUCE, ALL_GATHER, BROADCAST, ALL_TO_ALL, REDUCE_SCATTER = 0, 2, 5, 6, 7
KEYS = {
    ALL_REDUCE: "all-reduce",
    ALL_GATHER: "all-gather",
    ALL_TO_ALL: "all-to-all",
    REDUCE_SCATTER: "reduce-scatter",
}
"""The collectives that algorithms are configured for, by their key without "-implementation"."""
GROUP_DELAY = 10.0
"""Endpoint delay inside a group smaller than the world [ns]."""


@dataclass(frozen=True)
class Algorithm:
    """How a collective runs in one dimension.

    Attributes:
        name: one of `ALGORITHMS`.
        window: messages that ``direct`` keeps in flight; -1 for all.
        flat: a ``one*`` variant: one dimension over all ranks, the dimensions after it unused.
    """

    name: str
    window: int = -1
    flat: bool = False


@dataclass(frozen=True)
class PhaseMembers:
    """Where a phase runs: n members in steps of `stride`, or a group's list at `list` (stride 0)."""

    algorithm: Algorithm
    members: int
    stride: int
    list: int
    level: int
    last: bool = True

    @property
    def in_group(self) -> bool:
        return self.stride == 0


def parse_algorithm(text: str, where: str) -> Algorithm:
    """One entry of an implementation list.

    >>> parse_algorithm("oneDirect3", "x")
    Algorithm(name='direct', window=3, flat=True)
    """
    flat = text.startswith("one")
    name = text[3:4].lower() + text[4:] if flat and text[3:4].isupper() else text
    match = re.fullmatch(r"direct([0-9]*)", name)
    if match:
        window = int(match[1]) if match[1] else -1
        if window != 0:
            return Algorithm("direct", window, flat)
    elif name in ALGORITHMS and not (flat and name == "doubleBinaryTree"):
        return Algorithm(name, -1, flat)
    raise SystemFileError(
        f"{where}: {text!r}; expected ring, oneRing, direct or direct<window>, oneDirect or "
        "oneDirect<window> (window 1 or more), halvingDoubling, oneHalvingDoubling, doubleBinaryTree"
    )


def phase_of(
    planner: Any, d: PhaseMembers, kind: int, size: int, queues: int, collective: int
) -> tuple[dict[str, int], int]:
    """A phase of a collective, and the bytes that a rank holds after it.

    Args:
        planner: gives numbers to sizes, rows and steps (`collective_plans.Planner`).
        kind: what the phase does; collective: what it is a phase of. size: bytes of a rank's chunk before it.
        queues: of its dimension that it takes in turn.
    """
    name, n = d.algorithm.name, d.members
    fixed = d.in_group and name != "doubleBinaryTree"
    delay = (costs.DELAY, GROUP_DELAY) if fixed else (costs.ENDPOINT,)
    phase = {
        "algorithm": ALGORITHMS[name].code,
        "members": n,
        "stride": d.stride,
        "list": d.list,
        "level": d.level,
        "queues": queues,
        "row": planner.rows.row(*delay),
        "window": 1,
        "period": n,
        "reduces": {ALL_REDUCE: 1, REDUCE_SCATTER: 2}.get(kind, 0),
        "reduction": -1,
    }
    ALGORITHMS[name].fill(planner, phase, d, kind, size, collective)
    if name == "doubleBinaryTree":
        return phase, size
    return phase, {REDUCE_SCATTER: size // n, ALL_GATHER: size * n}.get(kind, size)


def _ring(
    planner: Any, phase: dict[str, int], d: PhaseMembers, kind: int, size: int, collective: int
) -> None:
    """Each member sends to the next one, a message at a time."""
    n = d.members
    phase["sends"] = {ALL_REDUCE: 2 * (n - 1), ALL_TO_ALL: n * (n - 1) // 2}.get(kind, n - 1)
    _fill_messages(planner, phase, d, kind, size, (1,))


def _direct(
    planner: Any, phase: dict[str, int], d: PhaseMembers, kind: int, size: int, collective: int
) -> None:
    """Each member sends to all others, `window` messages at a time."""
    n, window = d.members, d.algorithm.window
    window = n - 1 if window < 0 else min(window, n - 1)
    phase["sends"] = 2 * (n - 1) if kind == ALL_REDUCE else n - 1
    phase["window"] = window
    phase["period"] = n * window if d.in_group else 2 * window
    phase["gated"] = int(kind == ALL_REDUCE)
    _fill_messages(planner, phase, d, kind, size, range(1, n))


def _fill_messages(
    planner: Any, phase: dict[str, int], d: PhaseMembers, kind: int, size: int, to: Iterable[int]
) -> None:
    """Messages of one size to members so many places further."""
    message = size if kind == ALL_GATHER else size // d.members
    phase["size"] = planner.size(message)
    if phase["reduces"]:
        phase["reduction"] = planner.reduction(message)
    planner.use_offsets(phase["size"], d, to)


def _halving(
    planner: Any, phase: dict[str, int], d: PhaseMembers, kind: int, size: int, collective: int
) -> None:
    """Distances and messages by step, as ASTRA-sim walks them, powers of two or not."""
    n = d.members
    if kind == ALL_TO_ALL:
        raise SystemFileError(
            f"{planner.config.system.source}: all-to-all-implementation is halvingDoubling, with which "
            "ASTRA-sim aborts"
        )
    sends = int(2 * math.log2(n)) if kind == ALL_REDUCE else int(math.log2(n))
    period = 1 + int(math.log2(n) - 1)
    distance, message, factor = 1, size // 2, 2.0
    if kind == ALL_GATHER:
        distance, message, factor = n // 2, size, 0.5
    phase.update(sends=sends, period=period, steps=len(planner.steps))
    for j in range(sends + 1):
        reduces = phase["reduces"] == 2 or (phase["reduces"] == 1 and j // period % 2 == 0)
        reduces = reduces and j % period >= 1
        reduction = planner.reduction(message) if reduces else -1
        number = 0
        if j < sends:
            number = planner.size(message)
            planner.use_offsets(number, d, (distance % n,) if distance % n else ())
            if distance % n == 0:
                raise TraceError(f"halvingDoubling over {n} members makes a rank send to itself")
        packet = number if j < sends else planner.packet_size(message)
        planner.steps.append((distance, number, reduction, packet))
        distance, message = int(distance * factor), int(message / factor)
        if distance == n and kind == ALL_REDUCE:
            factor = 0.5
            distance, message = int(distance * factor), int(message / factor)


def _tree(
    planner: Any, phase: dict[str, int], d: PhaseMembers, kind: int, size: int, collective: int
) -> None:
    """An all-reduce up and down a binary tree, two trees in turn, whatever the phase is to do."""
    n, source = d.members, planner.config.system.source
    if d.in_group or n & (n - 1):
        what = "a group smaller than the world" if d.in_group else f"{n} members"
        raise SystemFileError(
            f"{source}: doubleBinaryTree over {what}, where ASTRA-sim crashes; it takes all ranks of a "
            "dimension, a power of two"
        )
    if not d.last:
        raise SystemFileError(
            f"{source}: doubleBinaryTree is the last of fewer entries than the network has dimensions, "
            "where ASTRA-sim crashes; name an algorithm for every dimension"
        )
    if n not in planner.trees:
        planner.trees[n] = len(planner.places)
        planner.places += tree_places(n, top_last=True) + tree_places(n, top_last=False)
    counter = list(KEYS).index(collective) * len(planner.extents) + d.level
    phase.update(tree=planner.trees[n], counter=counter, size=planner.size(size))
    phase["reduction"] = planner.reduction(size)
    planner.use_offsets(phase["size"], d, range(1, n))


def tree_places(n: int, *, top_last: bool) -> list[tuple[int, int, int, int]]:
    """Role, parent, left and right child of each of n = 2^L members in order.

    >>> tree_places(4, top_last=True)[1]
    (1, 3, 0, 2)
    """
    places = [[layout.LEAF, -1, -1, -1] for _ in range(n)]
    low, top = (0, n - 1) if top_last else (1, 0)

    def build(first: int, count: int, parent: int) -> int:
        middle = first + count // 2
        places[middle][1] = parent
        if count > 1:
            places[middle][0] = layout.INNER
            places[middle][2] = build(first, count // 2, middle)
            places[middle][3] = build(middle + 1, count // 2, middle)
        return middle

    root = build(low, n - 1, top)
    places[top][0] = layout.TOP
    places[top][2 if top_last else 3] = root
    return [(role, parent, left, right) for role, parent, left, right in places]


class Entry(NamedTuple):
    """An algorithm: the code of its state machine, and what fills in its phase."""

    code: int
    fill: Callable[..., None]


ALGORITHMS = {
    "ring": Entry(layout.RING, _ring),
    "direct": Entry(layout.DIRECT, _direct),
    "halvingDoubling": Entry(layout.HALVING, _halving),
    "doubleBinaryTree": Entry(layout.TREE, _tree),
}
"""By the name in the system file."""
