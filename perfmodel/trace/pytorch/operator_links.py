"""Which operator of the host trace is which event of the device trace.

Both are written in one run, but neither names the other outright. In order of trust:

1. `rf_id` of the host trace is Kineto's "Record function id" (since 2024);
2. Kineto's "External id" is `rf_id` plus a constant of the run;
3. names in order, thread by thread.

Whichever joins the most operators of equal name is taken. A host trace of another run joins by number, too, but then
the names differ: below 99 % equal names the pair is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import Any

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError
from perfmodel.trace.pytorch.host_trace import HostTrace
from perfmodel.trace.pytorch.kineto import ANNOTATION, OPERATOR, Device

AGREEMENT = 0.99
"""Least share of joined operators whose names are equal."""


@dataclass(frozen=True)
class OperatorLinks:
    """[n] the host trace's node of each device event, -1 for none; how they were found; the share of operators
    joined."""

    node: NDArray[np.int64]
    rule: str
    share: float


def link(host: HostTrace, device: Device) -> OperatorLinks:
    """Join a host trace and a device trace.

    Raises:
        TraceError: the two are not of one run.
    """
    ops = np.flatnonzero(np.isin(device.category, (OPERATOR, ANNOTATION)))
    known = {name: i for i, name in enumerate(device.names)}
    host_name = np.array([known.get(name, -1) for name in host.names], np.int64)
    nodes = np.flatnonzero(host.operator)
    best = OperatorLinks(np.full(len(device), -1, np.int64), "names in order", 0.0)
    agreement = 0.0
    for rule, key in (
        ("Record function id", device.record),
        ("External id", _shifted(host, device, ops, nodes, host_name)),
    ):
        joined = _join(key[ops], host.record[nodes])
        found = joined >= 0
        equal = found & (host_name[nodes[joined]] == device.name[ops])
        agree = equal.sum() / max(int(found.sum()), 1)
        if agree >= AGREEMENT and equal.any():
            node = np.full(len(device), -1, np.int64)
            node[ops[equal]] = nodes[joined[equal]]
            share = _share(node, ops, nodes)
            if share > best.share:
                best = OperatorLinks(node, rule, share)
        agreement = max(
            agreement, float(agree) if found.sum() > 0.5 * min(len(ops), len(nodes)) else 0.0
        )
    node = _by_names(host, device, ops, nodes, host_name, best.node)
    share = _share(node, ops, nodes)
    best = OperatorLinks(node, best.rule, share)
    if share < AGREEMENT:
        raise TraceError(
            f"{host.path}: is not the host trace of {device.path}: {share:.1%} of the operators are in both (names "
            f"that agree where their numbers do: {agreement:.1%}), expected {AGREEMENT:.0%} or more. Pair the files "
            "that one run wrote, or give the device trace alone."
        )
    return best


def _share(node: NDArray[Any], ops: NDArray[Any], nodes: NDArray[Any]) -> float:
    """Joined operators among those of the shorter of the two traces: one may hold more steps than the other."""
    return float((node[ops] >= 0).sum() / max(min(len(ops), len(nodes)), 1))


def _join(key: NDArray[np.int64], values: NDArray[np.int64]) -> NDArray[np.int64]:
    """[n] position of each key in values (the first; keys and values of 0 and below join nothing), -1 for none."""
    order = np.argsort(values, kind="stable")
    at = np.minimum(np.searchsorted(values[order], key), len(values) - 1)
    found = order[at] if len(values) else np.zeros(len(key), np.int64)
    return np.where((key > 0) & (values[found] == key), found, -1)


def _shifted(
    host: HostTrace,
    device: Device,
    ops: NDArray[np.int64],
    nodes: NDArray[np.int64],
    host_name: NDArray[np.int64],
) -> NDArray[np.int64]:
    """[n] External ids less the constant that makes most of them the `rf_id` of a node of the same name.

    The constant is voted for by names that are rare in both traces, each pair of equal name with its difference.
    """
    rare = np.bincount(device.name[ops], minlength=len(device.names)) <= 8
    here, there = ops[rare[device.name[ops]]], nodes[host_name[nodes] >= 0]
    there = there[rare[host_name[there]]]
    order = there[np.argsort(host_name[there], kind="stable")]
    first = np.searchsorted(host_name[order], device.name[here], side="left")
    count = np.searchsorted(host_name[order], device.name[here], side="right") - first
    count = np.minimum(count, 16)
    event = np.repeat(here, count)
    place = np.repeat(first, count) + (
        np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    )
    votes = device.external[event] - host.record[order[place]]
    if not len(votes):
        return np.full(len(device), -1, np.int64)
    constants, number = np.unique(votes, return_counts=True)
    shift = constants[np.argmax(number)]
    return np.where(device.external >= 0, device.external - shift, -1)


def _by_names(
    host: HostTrace,
    device: Device,
    ops: NDArray[np.int64],
    nodes: NDArray[np.int64],
    host_name: NDArray[np.int64],
    node: NDArray[np.int64],
) -> NDArray[np.int64]:
    """Join what is left by names in order: whole threads where nothing is joined yet, else the gaps between joins."""
    node = node.copy()
    left = ops[node[ops] < 0]
    free = nodes[~np.isin(nodes, node[ops])]
    if not len(left) or not len(free):
        return node
    free = free[np.argsort(host.record[free], kind="stable")]
    pairs = _threads(host, device, left, free, host_name)
    for thread, number in pairs:
        events = left[device.thread[left] == thread]
        events = events[np.argsort(device.start[events], kind="stable")]
        theirs = free[host.thread[free] == number]
        matcher = SequenceMatcher(
            None, device.name[events].tolist(), host_name[theirs].tolist(), autojunk=False
        )
        for a, b, size in matcher.get_matching_blocks():
            node[events[a : a + size]] = theirs[b : b + size]
    return node


def _threads(
    host: HostTrace,
    device: Device,
    left: NDArray[np.int64],
    free: NDArray[np.int64],
    host_name: NDArray[np.int64],
) -> list[tuple[int, int]]:
    """(thread of the device trace, thread of the host trace) by how many names they share, each once."""
    found = []
    for thread in np.unique(device.thread[left]):
        mine = np.bincount(
            device.name[left[device.thread[left] == thread]], minlength=len(device.names)
        )
        for number in np.unique(host.thread[free]):
            names = host_name[free[host.thread[free] == number]]
            theirs = np.bincount(names[names >= 0], minlength=len(device.names))
            found.append((int(np.minimum(mine, theirs).sum()), int(thread), int(number)))
    pairs, used = [], set()
    for count, thread, number in sorted(found, key=lambda f: -f[0]):
        if count and ("d", thread) not in used and ("h", number) not in used:
            used |= {("d", thread), ("h", number)}
            pairs.append((thread, number))
    return pairs
