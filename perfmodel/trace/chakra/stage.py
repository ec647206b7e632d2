"""Work in traces of STAGE, the Symbolic Tensor Graph generator (schema `symbolic_tensor_network`).

STAGE counts multiply-accumulates of matrix products (op_type M), half their FLOP, and as tensor_size the output alone;
the bytes of all operands stand in the lists `inputs` and `outputs`, as texts that alternate with the tensors' names.
ASTRA-sim takes the two numbers as they are.

Source: astra-sim/stage.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perfmodel.errors import TraceError
from perfmodel.trace.chakra.attributes import decimal
from perfmodel.trace.chakra.rank_trace import COMP, RankTrace
from perfmodel.trace.chakra.rare_attributes import locate, texts_of
from perfmodel.trace.chakra.wire import LENGTH, address, reader, skip, tag

SCHEMA = "symbolic_tensor_network"


def stage_work(trace: RankTrace) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """[n] FLOP and [n] B of a STAGE trace's nodes, with both operands and the result; -1 where absent.

    Raises:
        TraceError: a size in `inputs` or `outputs` is no number.
    """
    flops, size = trace.num_ops.copy(), trace.tensor_size.copy()
    number, start, end = locate(trace, ("op_type", "inputs", "outputs"))
    kind, words = texts_of(trace, number[0], start[0], end[0])
    product = np.isin(kind, [k for k, word in enumerate(words) if word == "M"])
    flops[product & (flops > 0)] *= 2
    total = np.zeros((2, len(trace)), np.int64)
    bad = np.full(1, -1, np.int64)
    for side in (0, 1):
        _sum_sizes(
            address(trace.data), number[1 + side], start[1 + side], end[1 + side], total[side], bad
        )
    if bad[0] >= 0:
        raise TraceError(
            f"{trace.source}: node {trace.id[bad[0]]}: inputs and outputs do not alternate a tensor's name and its"
            " size [B], as STAGE writes them. Correct the program that wrote the trace"
        )
    operands = (number[1] == 30) & (number[2] == 30) & (trace.type == COMP) & (total.sum(0) > 0)
    return flops, np.where(operands, total.sum(0), size)


@reader(lambda base, number, start, end, *_: int((end - start).sum()) // 2)
def _sum_sizes(base, number, start, end, total, bad):
    """Add up every second text of the nodes' string lists, whole numbers of bytes."""
    for i in range(len(number)):
        if number[i] != 30:
            continue
        pos, stop, count = np.int64(start[i]), np.int64(end[i]), 0
        while pos < stop:
            field, wire, pos = tag(base, pos, stop)
            if pos < 0:
                bad[0] = i
                return
            p, pos = skip(base, pos, stop, wire)
            if pos < 0:
                bad[0] = i
                return
            if field != 1 or wire != LENGTH:
                continue
            if count % 2:
                status, size = decimal(base, p, pos)
                if status != 0 or size < 0:
                    bad[0] = i
                    return
                total[i] += size
            count += 1
        if count % 2:
            bad[0] = i
            return
