"""The words that every floor shares: node types, collectives, kinds of operation, dtypes, categories of time.

Node types and collectives have the numbers of the Chakra schema on the wire; the others are this package's own.
"""

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

OPERATIONS = (
    "other",
    "gemm",
    "attention",
    "elementwise",
    "reduction",
    "norm",
    "embedding",
    "optimizer",
)
"""What a compute node calculates; the position is its number in columns."""

DIMENSIONS: dict[str, tuple[str, ...]] = {
    "gemm": ("batch", "m", "n", "k"),
    "attention": ("batch", "heads", "kv_heads", "query", "key", "head_size", "causal"),
}
"""What the columns of `dimensions` mean for each kind of operation; the others have none.

A product is C [m, n] = A [m, k] B [k, n], `batch` times. Attention is of `query` tokens to `key` tokens in each of
`heads` query heads that share `kv_heads` key and value heads of `head_size` numbers; causal is 1 or 0.
"""

MOST_DIMENSIONS = max(map(len, DIMENSIONS.values()))

DTYPES = ("fp64", "fp32", "tf32", "bf16", "fp16", "fp8", "fp4", "int8", "fp8_promoted")
"""Number formats of a node; -1 in a column stands for the system's own.

"fp8_promoted" are products of fp8 numbers whose partial sums are promoted to fp32 every few steps along k, as
frameworks compute gradients. Hopper's tensor cores keep fewer digits than fp32 has, and promoting takes its other
units time; later devices need none of it (NVIDIA cuBLAS, CUBLASLT_MATMUL_DESC_FAST_ACCUM off).
"""

NUMBER_SIZE = {
    "fp64": 8.0,
    "fp32": 4.0,
    "tf32": 4.0,
    "bf16": 2.0,
    "fp16": 2.0,
    "fp8": 1.0,
    "fp8_promoted": 1.0,
    "fp4": 0.5,
    "int8": 1.0,
}
"""Bytes of a number of each format [B]."""

STANDS_FOR = {"fp8_promoted": "fp8"}
"""The format whose numbers one of the others has; a device without a rate of its own for it takes that one's."""

COMPUTE, MEMORY, COMMUNICATION, WAITING, HOST = range(5)
CATEGORIES = ("compute", "memory", "communication", "waiting", "host")
"""What time is spent on; `host` is what the CPU's threads do: operators, launches, gaps."""

TYPE_NAMES = {int(t): t.name for t in NodeType}


def describe(node_type: int, comm_type: int = -1) -> str:
    """The type of a node for people, collectives by their kind.

    >>> describe(7, 0), describe(4), describe(9)
    ('ALL_REDUCE', 'COMP', 'type 9')
    """
    if node_type == NodeType.COMM_COLL and 0 <= comm_type < len(COLLECTIVES):
        return COLLECTIVES[comm_type].upper()
    return TYPE_NAMES.get(int(node_type), f"type {node_type}")


OFFLOAD = "offload"
"""The resource of nodes that send data to remote memory and fetch it again."""
