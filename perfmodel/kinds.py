"""The words of the Chakra schema: node types and collective types, by their numbers on the wire."""

from enum import IntEnum


class NodeType(IntEnum):
    """What a node does. METADATA and INVALID nodes take no time and no resource."""

    INVALID = 0
    METADATA = 1
    MEM_LOAD = 2
    MEM_STORE = 3
    COMP = 4
    COMM_SEND = 5
    COMM_RECV = 6
    COMM_COLL = 7


COLLECTIVES = (
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
"""Collective types; the position is the number that the attribute ``comm_type`` holds."""

TYPE_NAMES = {int(t): t.name for t in NodeType}


def describe(node_type: int, comm_type: int = -1) -> str:
    """The type of a node for people, collectives by their kind.

    >>> describe(7, 0), describe(4), describe(9)
    ('ALL_REDUCE', 'COMP', 'type 9')
    """
    if node_type == NodeType.COMM_COLL and 0 <= comm_type < len(COLLECTIVES):
        return COLLECTIVES[comm_type].upper()
    return TYPE_NAMES.get(int(node_type), f"type {node_type}")
