"""Which collective a kernel (or a gloo call) is, how large, and on which communicator.

Newer Kineto traces say all of it in the kernel's arguments. Older ones say the kind and the tensor in the annotation
`nccl:all_reduce` that encloses the launch; what is left is the kernel's name. The group of ranks comes from the
kernel's arguments, from `pg_config` or `## process_group:init ##` by name, else it is the whole world.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from perfmodel.trace.pytorch.tensors import Tensor, arguments, message_type

KINDS = {
    "allreduce": 0,
    "reducescatter": 7,
    "reduce": 1,
    "allgather": 2,
    "gather": 3,
    "scatter": 4,
    "broadcast": 5,
    "alltoall": 6,
    "alltoallv": 6,
    "barrier": 9,
}
"""Collectives by what is left of their names (letters, lower case), as Chakra numbers them."""

MOST_ELEMENTS = 1 << 50
"""More elements than this are no message but damage."""

SEND_RECV = -1
UNKNOWN = -2

_LETTERS = re.compile(r"[^a-z]")


@dataclass(frozen=True)
class Collective:
    """One collective on one rank.

    Attributes:
        kind: Chakra's number, `SEND_RECV` or `UNKNOWN`.
        size: bytes of this rank's input, -1 unknown.
        group: name of the communicator, "" unknown; a number in angle brackets where only an address is known, which
            is another one on every rank.
        ranks: its members, () unknown.
        peer: the other rank of a send or receive, -1 unknown.
    """

    kind: int
    size: int = -1
    group: str = ""
    ranks: tuple[int, ...] = ()
    peer: int = -1


def kind_of(text: str) -> int:
    """The collective that a name stands for.

    >>> kind_of("nccl:_all_gather_base"), kind_of("ncclDevKernel_AllReduce_Sum_f16_RING_LL"), kind_of("nccl:all_to_all")
    (2, 0, 6)
    >>> kind_of("reduce_scatter_tensor_coalesced"), kind_of("ncclKernel_SendRecv_RING_SIMPLE_Sum_int8_t")
    (7, -1)
    """
    letters = _LETTERS.sub("", text.lower())
    for word in (
        "allreduce",
        "reducescatter",
        "allgather",
        "alltoall",
        "broadcast",
        "barrier",
        "scatter",
        "gather",
    ):
        if word in letters:
            return KINDS[word]
    if any(word in letters for word in ("sendrecv", "ncclsend", "ncclrecv", "send", "recv")):
        return SEND_RECV
    return KINDS["reduce"] if "reduce" in letters else UNKNOWN


def describe(
    kernel: str,
    args: Mapping[str, Any],
    enclosing: Sequence[tuple[str, Mapping[str, Any]]],
    groups: Mapping[str, tuple[int, ...]],
    names_of: Mapping[str, str] | None = None,
) -> Collective:
    """What is known of one collective.

    Args:
        kernel: its name; args: its Kineto arguments.
        enclosing: (name, arguments) of the operators and annotations round its launch, the innermost first.
        groups: ranks by name of a process group; names_of: names by the number that stands for one.
    """
    own = {**_parameters(enclosing), **args}
    said = str(own.get("Collective name", own.get("collective_name", "")))
    names = [
        said,
        *(name for name, _ in enclosing if name.startswith(("nccl:", "gloo:", "mpi:"))),
        kernel,
    ]
    kind = next((k for k in map(kind_of, names) if k != UNKNOWN), UNKNOWN)
    group = str(own.get("Process Group Name", own.get("pg_name", ""))) or _group(own, names_of)
    ranks = _ranks(own.get("Process Group Ranks")) or groups.get(group, ())
    size = _size(own, enclosing)
    peer = -1
    if kind == SEND_RECV:
        peer = next(
            (
                int(own[k])
                for k in ("Dst Rank", "Src Rank", "dst_rank", "src_rank")
                if isinstance(own.get(k), int)
            ),
            -1,
        )
    return Collective(kind, size, group, ranks, peer)


def _parameters(enclosing: Sequence[tuple[str, Mapping[str, Any]]]) -> Mapping[str, Any]:
    """Arguments of the innermost `record_param_comms`."""
    return next((args for name, args in enclosing if name == "record_param_comms"), {})


def _group(own: Mapping[str, Any], names_of: Mapping[str, str] | None) -> str:
    """The group that a `record_param_comms` names among its values: tensors, number of the call, group, rank, ..."""
    values = own.get("Concrete Inputs")
    group = values[2] if isinstance(values, list) and len(values) > 2 else ""
    if isinstance(group, list | tuple):
        return str(group[0]) if group else ""
    known = (names_of or {}).get(str(group))
    if known is not None:
        return known
    return f"<{group}>" if str(group).isdecimal() and int(group) > 1 << 16 else ""


def _ranks(text: Any) -> tuple[int, ...]:
    """Members from "[0, 1]"; Kineto shortens long lists with dots, which then say nothing."""
    if isinstance(text, list):
        return tuple(r for r in text if isinstance(r, int))
    if not isinstance(text, str) or "..." in text:
        return ()
    return tuple(map(int, re.findall(r"\d+", text)))


def _size(own: Mapping[str, Any], enclosing: Sequence[tuple[str, Mapping[str, Any]]]) -> int:
    """Bytes of this rank's input."""
    count, width = (
        own.get("In msg nelems", own.get("in_msg_nelems")),
        message_type(str(own.get("dtype", ""))),
    )
    if isinstance(count, int) and 0 <= count < MOST_ELEMENTS and width:
        return count * width
    for name, args in enclosing:
        if name.startswith(("nccl:", "gloo:", "mpi:")):
            shapes, types = args.get("Input Dims"), args.get("Input type")
            if isinstance(shapes, list) and isinstance(types, list):
                first = next(iter(arguments(shapes, types)), None)
                held = first if isinstance(first, list) else [first]
                tensors = [t for t in held if isinstance(t, Tensor)]
                if tensors and len(tensors) == len(held):
                    return min(sum(t.bytes for t in tensors), MOST_ELEMENTS)
    return -1
