"""The graph of nodes for other tools: networkx, GraphML, Graphviz's DOT.

Every node is there with its attributes; a dependency is an edge of kind "dependency", a message from its send to its
receive one of kind "message". Large graphs are collapsed: nodes of one rank whose names agree in their first parts
become one, with their number, time and work added up.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from perfmodel.errors import InputError
from perfmodel.files import whole_file
from perfmodel.report.tables import component
from perfmodel.workload.graph import Graph, check_ranks

ENDINGS = (".dot", ".graphml")
MOST_NODES = 20_000
"""More nodes than this are not drawn by any tool in reasonable time: collapse them."""
_COLOURS = {
    "COMP": "lightblue",
    "MEM": "khaki",
    "COMM": "salmon",
    "METADATA": "grey90",
    "INVALID": "grey90",
}

Vertex = tuple[str, dict[str, Any]]
Edge = tuple[str, str, dict[str, Any]]


def vertices_and_edges(
    graph: Graph, *, ranks: Sequence[int] | None = None, collapse: int | None = None
) -> tuple[list[Vertex], list[Edge]]:
    """Nodes and edges with their attributes.

    Args:
        graph: any.
        ranks: some ranks only; all by default.
        collapse: put nodes of a rank together whose names agree in so many parts ("a.b.c" has three); None keeps all.

    Returns:
        (name, {rank, name, type, resource, nodes, duration_s, flops, bytes_B, size_B}) of each, and
        (from, to, {kind, edges}).

    Raises:
        InputError: no such rank, or collapse below 1.
    """
    if collapse is not None and collapse < 1:
        raise InputError(f"collapse: got {collapse}, expected 1 or more parts of a name")
    chosen = check_ranks(graph, ranks)
    vertices: dict[str, dict[str, Any]] = {}
    edges: dict[tuple[str, str, str], int] = {}
    keys: dict[int, list[str]] = {}
    for rank in chosen:
        table = graph.table([rank])
        names = [str(name) for name in table["name"]]
        if collapse is None:
            keys[rank] = [f"r{rank}n{i}" for i in table["node_id"].tolist()]
        else:
            parts = {name: component(name, collapse) for name in dict.fromkeys(names)}
            keys[rank] = [f"r{rank}:{parts[name]}" for name in names]
        columns = {
            c: table[c].tolist()
            for c in ("type", "resource", "duration_s", "flops", "bytes_B", "size_B")
        }
        for k, key in enumerate(keys[rank]):
            v = vertices.setdefault(
                key,
                {
                    "rank": rank,
                    "name": names[k] if collapse is None else key.split(":", 1)[1],
                    "type": columns["type"][k],
                    "resource": columns["resource"][k],
                    "nodes": 0,
                    "duration_s": 0.0,
                    "flops": 0.0,
                    "bytes_B": 0.0,
                    "size_B": 0.0,
                },
            )
            if v["type"] != columns["type"][k]:
                v["type"] = "several"
            if v["resource"] != columns["resource"][k]:
                v["resource"] = "several"
            v["nodes"] += 1
            for c in ("duration_s", "flops", "bytes_B", "size_B"):
                value = columns[c][k]
                v[c] += value if value > 0 else 0.0
    for rank in chosen:
        p, row, mine = graph.programs[graph.program[rank]], graph.row[rank], keys[rank]
        target = np.repeat(np.arange(len(p)), np.diff(p.pred_ptr))
        for a, b in zip(p.pred.tolist(), target.tolist()):
            _count(edges, mine[a], mine[b], "dependency")
        sends = p.type[p.p2p] == 5
        for k, peer, other in zip(
            p.p2p[sends].tolist(), p.peer[row][sends].tolist(), p.partner[row][sends].tolist()
        ):
            if peer in keys and other >= 0:
                _count(edges, mine[k], keys[peer][other], "message")
    found = [(a, b, {"kind": kind, "edges": count}) for (a, b, kind), count in edges.items()]
    return list(vertices.items()), found


def _count(edges: dict[tuple[str, str, str], int], a: str, b: str, kind: str) -> None:
    if a != b:
        edges[a, b, kind] = edges.get((a, b, kind), 0) + 1


def to_networkx(
    graph: Graph, *, ranks: Sequence[int] | None = None, collapse: int | None = None
) -> Any:
    """The graph as a networkx.MultiDiGraph (see `vertices_and_edges`).

    Raises:
        InputError: networkx is not installed (pip install 'perfmodel[graph]'), or as `vertices_and_edges`.
    """
    try:
        import networkx
    except ImportError as error:
        raise InputError(
            "to_networkx: needs networkx; install it with: pip install 'perfmodel[graph]'"
        ) from error
    result = networkx.MultiDiGraph(source=graph.source)
    vertices, edges = vertices_and_edges(graph, ranks=ranks, collapse=collapse)
    result.add_nodes_from(vertices)
    result.add_edges_from(edges)
    return result


def write_graph(
    graph: Graph,
    path: str | Path,
    *,
    ranks: Sequence[int] | None = None,
    collapse: int | None = None,
) -> None:
    """Write the graph as .dot (Graphviz) or .graphml (yEd, Gephi, networkx); also with .gz behind it.

    Raises:
        InputError: another ending, or more nodes than any tool draws: then `collapse` or `ranks` is needed.
    """
    name = str(path).lower().removesuffix(".gz")
    if not name.endswith(ENDINGS):
        raise InputError(f"{path}: a graph's file ends in {' or '.join(ENDINGS)}")
    if collapse is None:
        _check_size(
            path, sum(int(graph.offset[r + 1] - graph.offset[r]) for r in check_ranks(graph, ranks))
        )
    vertices, edges = vertices_and_edges(graph, ranks=ranks, collapse=collapse)
    _check_size(path, len(vertices))
    lines = _dot(vertices, edges) if name.endswith(".dot") else _graphml(vertices, edges)
    with whole_file(path) as file:
        for line in lines:
            file.write((line + "\n").encode())


def _check_size(path: str | Path, nodes: int) -> None:
    if nodes > MOST_NODES:
        raise InputError(
            f"{path}: {nodes:,} nodes are more than tools can draw ({MOST_NODES:,}). Collapse them by component with"
            " collapse=1, 2, ... (--collapse), or choose some ranks (--rank)"
        )


def _dot(vertices: list[Vertex], edges: list[Edge]) -> Iterator[str]:
    yield "digraph trace {"
    yield '  node [shape=box, style=filled, fontname="Helvetica"];'
    for rank in dict.fromkeys(v["rank"] for _, v in vertices):
        yield f'  subgraph "cluster_rank{rank}" {{ label="rank {rank}";'
        for key, v in vertices:
            if v["rank"] == rank:
                colour = next(
                    (c for word, c in _COLOURS.items() if str(v["type"]).startswith(word)), "salmon"
                )
                label = v["name"] + (f" x{v['nodes']}" if v["nodes"] > 1 else "")
                yield f"    {_quoted(key)} [label={_quoted(label)}, fillcolor={colour}];"
        yield "  }"
    for a, b, e in edges:
        style = " [style=dashed, color=red]" if e["kind"] == "message" else ""
        yield f"  {_quoted(a)} -> {_quoted(b)}{style};"
    yield "}"


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", " ") + '"'


def _graphml(vertices: list[Vertex], edges: list[Edge]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="UTF-8"?>'
    yield '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">'
    kinds = {int: "long", float: "double", str: "string"}
    for domain, first in (
        ("node", vertices[0][1] if vertices else {}),
        ("edge", edges[0][2] if edges else {}),
    ):
        for name, value in first.items():
            kind = kinds[type(value)]
            yield f'  <key id="{domain}_{name}" for="{domain}" attr.name="{name}" attr.type="{kind}"/>'
    yield '  <graph edgedefault="directed">'
    for key, v in vertices:
        data = "".join(f'<data key="node_{n}">{_plain(x)}</data>' for n, x in v.items())
        yield f"    <node id={quoteattr(_clean(key))}>{data}</node>"
    for a, b, e in edges:
        data = "".join(f'<data key="edge_{n}">{_plain(x)}</data>' for n, x in e.items())
        yield f"    <edge source={quoteattr(_clean(a))} target={quoteattr(_clean(b))}>{data}</edge>"
    yield "  </graph>"
    yield "</graphml>"


def _plain(value: Any) -> str:
    return escape(_clean(str(value)))


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(c if c >= " " or c in "\t\n" else "\N{REPLACEMENT CHARACTER}" for c in text)
