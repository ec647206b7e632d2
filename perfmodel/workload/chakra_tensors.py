"""What the tensors of a Chakra trace hold: those that its nodes name, or those of PyTorch's operators.

Tensors by name and size (STAGE's `inputs` and `outputs`, or a generator's own in that form): one takes memory from the
start of the node that writes it, or from the beginning where none has before it is read, to the end of the last node
that reads it; one that nobody reads stays. That is ASTRA-sim's rule.

Chakra's converter copies into every node what PyTorch's host execution trace says of its inputs and outputs: the same
rules as there (`trace.pytorch.lifetimes`), over the host's nodes in the order of their ids.
"""

from __future__ import annotations

import re

import numpy as np
from numpy.typing import NDArray

from perfmodel.trace import chakra
from perfmodel.trace.chakra.tensors import Named, named
from perfmodel.trace.pytorch.lifetimes import SEES, Calls, changes, lifetimes
from perfmodel.workload.cycles import depths
from perfmodel.workload.tensor_memory import RankTensors

TAGGED = "the tensors that its nodes name: memory that no node names is not counted"

_TENSOR = re.compile(r"\[(\d+), (\d+), (\d+), (\d+), (\d+), '([^']*)'\]")
"""A tensor in Python's spelling: number, storage, offset, elements, bytes an element, device."""


def chakra_tensors(
    trace: chakra.RankTrace,
    edge_from: NDArray[np.int64],
    edge_to: NDArray[np.int64],
    *,
    pytorch: bool,
) -> RankTensors | None:
    """What the tensors of a trace hold; None where it names none.

    Args:
        edge_from, edge_to: [e], positions of the nodes and of those that wait for them.
        pytorch: it was converted from PyTorch's traces.
    """
    tagged = named(trace)
    if tagged is not None:
        return _of_names(tagged, depths(len(trace), edge_from, edge_to), trace.id)
    return _of_operators(trace) if pytorch else None


def _of_names(found: Named, depth: NDArray[np.int64], ids: NDArray[np.uint64]) -> RankTensors:
    """By name and size; the last reader is the one that most others come before, of equals the highest id."""
    count = int(found.tensor.max()) + 1
    size = np.zeros(count, np.int64)
    np.maximum.at(size, found.tensor, found.size)
    order = np.lexsort((ids[found.node], depth[found.node]))
    last, writer = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    reads = order[~found.written[order]]
    last[found.tensor[reads]] = found.node[reads]
    writes = order[found.written[order]][::-1]
    writer[found.tensor[writes]] = found.node[writes]
    there, ends = writer < 0, last >= 0
    node = np.concatenate([writer[~there], last[ends]])
    change = np.concatenate([size[~there], -size[ends]])
    return RankTensors(float(size[there].sum()), node, change, TAGGED)


def _of_operators(trace: chakra.RankTrace) -> RankTensors | None:
    order = np.argsort(trace.id, kind="stable")
    order = order[trace.is_cpu[order] == 1]
    place = {int(n): k for k, n in enumerate(trace.id[order].tolist())}
    parent = np.full(len(order), -1, np.int64)
    inputs, outputs = [], []
    for k, i in enumerate(order.tolist()):
        node = chakra.Node.FromString(trace.record(i))
        inputs.append(_tensors(node.inputs.values))
        outputs.append(_tensors(node.outputs.values))
        above = trace.ctrl_dep[trace.ctrl_ptr[i] : trace.ctrl_ptr[i + 1]]
        at = place.get(int(above[0]), -1) if len(above) else -1
        parent[k] = at if at < k else -1
    lives = lifetimes(Calls(parent, inputs, outputs))
    if lives is None:
        return None
    before, moment, change = changes(lives)
    return RankTensors(before, order[moment // 2], change, SEES)


def _tensors(text: str) -> list[list[object]]:
    """The tensors in an `IOInfo.values`."""
    return [[*map(int, m[:5]), m[5]] for m in _TENSOR.findall(text)]
