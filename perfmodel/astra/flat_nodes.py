"""Nodes of all ranks as the simulator takes them, and how messages name nodes and communicator groups."""

from dataclasses import dataclass

from perfmodel.errors import one_line, quoted
from perfmodel.vocabulary import describe
from perfmodel.workload import graph


@dataclass(frozen=True, eq=False)
class FlatNodes(graph.Flat):
    """Nodes of all ranks in the order rank, position in the file, and the names of their groups."""

    group_names: tuple[str, ...] = ()


def name_of(flat: FlatNodes, row: int) -> str:
    """A node by rank, id, name and type."""
    kind = describe(int(flat.type[row]), int(flat.comm_type[row]))
    name = f" {quoted(flat.names[row])}" if flat.names and flat.names[row] else ""
    return f"rank {flat.rank[row]}, node {flat.node_id[row]}{name} ({kind})"


def group_name(flat: FlatNodes, group: int) -> str:
    """A communicator group by the name its file gives it, where that is known."""
    if group < len(flat.group_names):
        return one_line(flat.group_names[group], 80)
    return str(list(flat.groups[group]))
