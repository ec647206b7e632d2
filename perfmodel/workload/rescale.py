"""The work of a step with another batch, sequence length or number format, where the formulas of its work allow it.

With f = new / old number of tokens that a rank has at once (batch x sequence):

| work | changes |
| --- | --- |
| matrix product | of (m, n, k) the one that counts tokens x f; FLOP with m n k, bytes with m k + k n + m n |
| batched product | batch with the sequences, of (m, n, k) those that are the sequence with it |
| attention | batch with the sequences, query and key with the sequence: FLOP and bytes with their products |
| optimizer, gradient norm | stays |
| all other work | FLOP and bytes x f |
| collectives of data parallel groups | stay: gradients and parameters do not depend on tokens |
| other collectives, messages | size x f |

A number format changes bytes and sizes with the width of its numbers, FLOP not; the optimizer keeps its formats.
Recorded durations of work are scaled like its FLOP, or its bytes where it has none.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import InputError
from perfmodel.vocabulary import DIMENSIONS, DTYPES, NUMBER_SIZE, OPERATIONS, STANDS_FOR, NodeType
from perfmodel.workload.graph import Graph
from perfmodel.workload.program import Program

GEMM, ATTENTION = OPERATIONS.index("gemm"), OPERATIONS.index("attention")
FindOptimizer = Callable[[Program, Sequence[str]], NDArray[np.bool_]]


def rescale(
    graph: Graph,
    growing: set[int],
    optimizer: FindOptimizer,
    *,
    batch: tuple[int, int] | None = None,
    sequence: tuple[int, int] | None = None,
    dtype: tuple[str, str] | None = None,
) -> Graph:
    """The graph with other numbers of tokens or another number format.

    Args:
        graph: stays as it is.
        growing: numbers of the data parallel groups.
        optimizer: which nodes of a program step the parameters.
        batch, sequence, dtype: (old, new), as for `retarget`.

    Raises:
        InputError: one of batch and sequence without the other, numbers out of range, an unknown dtype, or a matrix
            product in which no dimension, or several, can be the tokens.
    """
    if (batch is None) != (sequence is None):
        raise InputError(
            "retarget: batch and sequence go together; give the other as (old, old) where it stays"
        )
    for name, pair in (("batch", batch), ("sequence", sequence)):
        if pair is not None and not (
            len(pair) == 2 and all(type(x) is int and x > 0 for x in pair)
        ):
            raise InputError(
                f"retarget: {name}: got {pair!r}, expected (old, new), whole numbers from 1 on"
            )
    width = 1.0
    if dtype is not None:
        if len(dtype) != 2 or any(d not in DTYPES for d in dtype):
            raise InputError(
                f"retarget: dtype: got {dtype!r}, expected (old, new) of {', '.join(DTYPES)}"
            )
        width = NUMBER_SIZE[dtype[1]] / NUMBER_SIZE[dtype[0]]
    programs = []
    for p in graph.programs:
        names = graph.labels[graph.label[int(p.ranks[0])]].names
        keeps = optimizer(p, names)
        if batch and sequence:
            p = _with_tokens(graph, p, names, keeps, growing, batch, sequence)
        if dtype:
            p = _with_dtype(p, keeps, dtype, width)
        programs.append(p)
    said = []
    if batch and sequence:
        said.append(
            f"batch {batch[0]} to {batch[1]}, sequence {sequence[0]} to {sequence[1]}: work without dimensions and"
            " communication that is not data parallel change with the number of tokens"
        )
    if dtype:
        said.append(
            f"{dtype[0]} to {dtype[1]}: bytes and all sizes change with the width, the optimizer stays"
        )
    text = "warning: made by retarget: " + "; ".join([*said, *forgotten(graph)])
    return replace(
        graph,
        programs=tuple(programs),
        warnings=(*graph.warnings, text),
        origin=None,
        step=None,
        tensors=None,
    )


def forgotten(graph: Graph) -> list[str]:
    """What does not hold for the changed workload: tokens, FLOP and memory, where the graph knew them."""
    if graph.step is not None:
        return [
            "tokens, FLOP and memory of the step are not known any more: make it with synth.training"
        ]
    return ["what its tensors hold is not known any more"] if graph.tensors is not None else []


def _with_tokens(
    graph: Graph,
    p: Program,
    names: Sequence[str],
    keeps: NDArray[np.bool_],
    growing: set[int],
    batch: tuple[int, int],
    sequence: tuple[int, int],
) -> Program:
    f = Fraction(batch[1] * sequence[1], batch[0] * sequence[0])
    dimensions = p.dimensions.copy()
    flop_ratio, byte_ratio = (np.full(len(p), float(f)) for _ in range(2))
    for k in np.flatnonzero((p.kind == GEMM) & (p.dimensions >= 0).any(1)).tolist():
        old = [max(int(x), 1) for x in p.dimensions[k, :4]]
        new = _product(old, batch, sequence, lambda k=k: graph.name(int(p.ranks[0]), k))
        dimensions[k, :4] = new
        flop_ratio[k] = float(np.prod(new, dtype=float) / np.prod(old, dtype=float))
        byte_ratio[k] = _elements(new) / _elements(old)
    place = {word: i for i, word in enumerate(DIMENSIONS["attention"])}
    for k in np.flatnonzero((p.kind == ATTENTION) & (p.dimensions >= 0).any(1)).tolist():
        old = dimensions[k].copy()
        for word, (was, now) in (("batch", batch), ("query", sequence), ("key", sequence)):
            i = place[word]
            if old[i] > 0 and (old[i] * now) % was == 0:
                dimensions[k, i] = old[i] * now // was
        sizes = [
            [max(int(d[place[w]]), 1) for w in ("batch", "query", "key")]
            for d in (old, dimensions[k])
        ]
        flop_ratio[k] = float(np.prod(sizes[1], dtype=float) / np.prod(sizes[0], dtype=float))
        byte_ratio[k] = (
            sizes[1][0] * (sizes[1][1] + sizes[1][2]) / (sizes[0][0] * (sizes[0][1] + sizes[0][2]))
        )
    comp = np.isin(p.type, (NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE)) & ~keeps
    flop_ratio, byte_ratio = (np.where(comp, r, 1.0) for r in (flop_ratio, byte_ratio))
    data = np.isin(p.groups, sorted(growing)).all(0)
    moves = np.isin(p.type, (NodeType.COMM_SEND, NodeType.COMM_RECV))
    moves |= (p.slot >= 0) & ~np.append(data, False)[p.slot]
    ratio = np.where(p.flops > 0, flop_ratio, byte_ratio)
    return replace(
        p,
        dimensions=dimensions,
        flops=_scaled(p.flops, flop_ratio),
        bytes=_scaled(p.bytes, byte_ratio),
        size=_scaled(p.size, np.where(moves, float(f), 1.0)),
        duration=p.duration * ratio,
    )


def _product(
    old: list[int], batch: tuple[int, int], sequence: tuple[int, int], name: Callable[..., str]
) -> list[int]:
    """(batch, m, n, k) of a product with other tokens.

    >>> _product([1, 4096, 1024, 512], (2, 4), (2048, 2048), str)
    [1, 8192, 1024, 512]
    >>> _product([32, 2048, 2048, 64], (2, 2), (2048, 4096), str)
    [32, 4096, 4096, 64]
    """
    tokens = batch[0] * sequence[0]
    new = list(old)
    hits = [i for i in (1, 2, 3) if old[i] == tokens]
    if len(hits) == 1:
        new[hits[0]] = batch[1] * sequence[1]
        return new
    along = [i for i in (1, 2, 3) if old[i] == sequence[0]]
    if old[0] > 1 and old[0] % batch[0] == 0 and along:
        new[0] = old[0] * batch[1] // batch[0]
        for i in along:
            new[i] = sequence[1]
        return new
    what = "no dimension is" if not hits else "several dimensions are"
    raise InputError(
        f"retarget: {name()}: a product of (batch, m, n, k) = {tuple(old)}: {what} batch x sequence = {tokens}."
        " Give the batch and sequence that the trace was made with"
    )


def _elements(sizes: list[int]) -> float:
    batch, m, n, k = map(float, sizes)
    return batch * (m * k + k * n + m * n)


def _with_dtype(
    p: Program, keeps: NDArray[np.bool_], dtype: tuple[str, str], width: float
) -> Program:
    old = [k for k, d in enumerate(DTYPES) if dtype[0] in (d, STANDS_FOR.get(d))]
    new = DTYPES.index(dtype[1])
    changes = (p.type == NodeType.COMP) & ~keeps & np.isin(p.dtype, (-1, *old))
    communicates = np.isin(p.type, (NodeType.COMM_SEND, NodeType.COMM_RECV, NodeType.COMM_COLL))
    return replace(
        p,
        dtype=np.where(changes, new, p.dtype).astype(np.int8),
        bytes=_scaled(p.bytes, np.where(changes, width, 1.0)),
        size=_scaled(p.size, np.where(communicates, width, 1.0)),
    )


def _scaled(values: NDArray[np.int64], ratio: NDArray[np.float64]) -> NDArray[np.int64]:
    """Rounded to whole numbers; what is absent or 0 stays, what is not scaled stays exactly."""
    changed = (values > 0) & (ratio != 1.0)
    return np.where(changed, np.rint(values * ratio).astype(np.int64), values)
