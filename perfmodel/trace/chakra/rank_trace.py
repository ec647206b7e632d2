"""One rank's execution trace as arrays, in the order of its file."""

from dataclasses import dataclass, field
from functools import cached_property
from hashlib import sha256

import numpy as np

from perfmodel import vocabulary

NODE_TYPES = tuple(kind.name for kind in vocabulary.NodeType)
INVALID, METADATA, MEM_LOAD, MEM_STORE, COMP, COMM_SEND, COMM_RECV, COMM_COLL = range(8)

COLLECTIVES = tuple(name.upper() for name in vocabulary.COLLECTIVES)


@dataclass(frozen=True, eq=False)
class RankTrace:
    """The nodes of one rank: a column each, n nodes in file order, nothing judged.

    Ids may repeat, dependencies may point anywhere: whoever joins the ranks reports that.
    Numbers are the file's own; -1 means that a node lacks the attribute.

    source: what messages call it (the file's path)
    data: the uncompressed content that offsets point into [bytes]
    id, start_us: uint64[n]; start_us in us
    type: int32[n], `NODE_TYPES`; numbers the schema does not know are kept
    name_offset, name_size: int64[n], int32[n]; the name's UTF-8 text in `data`
    data_ptr, data_dep and ctrl_ptr, ctrl_dep: int64[n+1], uint64[.]; the ids that node i waits for
        are dep[ptr[i]:ptr[i+1]], in the file's order, duplicates kept
    duration_us: int64[n], us, whole; 0 also where the file says nothing
    is_cpu: int8[n], 0 or 1
    num_ops: int64[n], FLOP;  tensor_size, comm_size: int64[n], B
    comm_type: int32[n], `COLLECTIVES`;  comm_src, comm_dst, comm_tag: int64[n]
    stream, tid: int64[n], a negative value is kept as absent;  tensor_loc: int8[n]
    involved_dim, involved_dims: int32[n] bit mask (bit d: dimension d), int8[n] number of entries
    group, group_names: int32[n] index into the distinct texts of pg_name (of comm_group where
        pg_name is absent); an empty text is absent
    node_offset, node_size: int64[n], int32[n]; the node's record in `data`
    metadata: payload of the GlobalMetadata record [bytes], None where the file has none
    version, schema: its version, and the text of its attribute `schema`; "" where absent
    form: what the file was before it was turned into this format; "" for today's .et
    """

    source: str
    data: bytes = field(repr=False)
    id: np.ndarray
    type: np.ndarray
    name_offset: np.ndarray
    name_size: np.ndarray
    data_ptr: np.ndarray
    data_dep: np.ndarray
    ctrl_ptr: np.ndarray
    ctrl_dep: np.ndarray
    start_us: np.ndarray
    duration_us: np.ndarray
    is_cpu: np.ndarray
    num_ops: np.ndarray
    tensor_size: np.ndarray
    comm_size: np.ndarray
    comm_type: np.ndarray
    comm_src: np.ndarray
    comm_dst: np.ndarray
    comm_tag: np.ndarray
    stream: np.ndarray
    tid: np.ndarray
    tensor_loc: np.ndarray
    involved_dim: np.ndarray
    involved_dims: np.ndarray
    group: np.ndarray
    group_names: tuple[str, ...]
    node_offset: np.ndarray
    node_size: np.ndarray
    metadata: bytes | None
    version: str
    schema: str
    form: str = ""

    def __len__(self) -> int:
        return len(self.id)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the uncompressed content: equal digests, equal traces."""
        return sha256(self.data).hexdigest()

    def name(self, i: int) -> str:
        """Name of node i; bytes that are no UTF-8 become U+FFFD."""
        start = int(self.name_offset[i])
        return self.data[start : start + int(self.name_size[i])].decode("utf-8", "replace")

    def names(self) -> list[str]:
        """Names of all nodes (see `name`)."""
        data = self.data
        return [
            data[start:end].decode("utf-8", "replace")
            for start, end in zip(
                self.name_offset.tolist(), (self.name_offset + self.name_size).tolist()
            )
        ]

    def record(self, i: int) -> bytes:
        """The protobuf message of node i as it stands in the file."""
        start = int(self.node_offset[i])
        return self.data[start : start + int(self.node_size[i])]
