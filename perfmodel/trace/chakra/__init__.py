"""Chakra execution traces, in and out: the only place that knows protobuf.

read, decode: a rank's file as arrays (`RankTrace`)
build, encode: a RankTrace from columns, and as a file's bytes
messages, write, write_bytes: a file as protobuf messages and back, with everything that is in it
find: the rank files and the group file that a path means
read_groups, process_groups: communicator groups, from a file or from the node PyTorch writes
"""

from perfmodel.trace.chakra.files import find, siblings
from perfmodel.trace.chakra.groups import process_groups, read_groups
from perfmodel.trace.chakra.protobuf_messages import messages, messages_of, write, write_bytes
from perfmodel.trace.chakra.rank_trace import COLLECTIVES, NODE_TYPES, RankTrace
from perfmodel.trace.chakra.reader import content, decode, hash_of, read
from perfmodel.trace.chakra.schema import GlobalMetadata, Node
from perfmodel.trace.chakra.writer import build, encode

__all__ = [
    "COLLECTIVES",
    "NODE_TYPES",
    "GlobalMetadata",
    "Node",
    "RankTrace",
    "build",
    "content",
    "decode",
    "encode",
    "find",
    "hash_of",
    "messages",
    "messages_of",
    "process_groups",
    "read",
    "read_groups",
    "siblings",
    "write",
    "write_bytes",
]
