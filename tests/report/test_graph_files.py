"""The graph for networkx, GraphML and DOT."""

import gzip
import xml.etree.ElementTree as xml

import pytest

import perfmodel as pm
from tests.handmade import comp, recv, send, write


@pytest.fixture
def graph(tmp_path):
    first = [
        comp(id=5, name='fwd.a"<x>'),
        comp(id=3, deps=[5], name="fwd.b"),
        send(1, id=9, deps=[3]),
    ]
    return pm.load(write(tmp_path, [first, [recv(0, id=1), comp(id=2, deps=[1])]]))


def test_networkx_has_nodes_edges_and_messages(graph):
    networkx = pytest.importorskip("networkx")
    g = pm.to_networkx(graph)
    assert networkx.is_directed_acyclic_graph(g)
    assert g.number_of_nodes() == len(graph)
    kinds = [d["kind"] for _, _, d in g.edges(data=True)]
    assert sorted(kinds) == ["dependency"] * 3 + ["message"]
    assert g.nodes["r0n5"]["name"] == 'fwd.a"<x>'


def test_components_become_one_node(graph):
    from perfmodel.report.graph_files import vertices_and_edges

    vertices, _ = vertices_and_edges(graph, ranks=[0], collapse=1)
    assert dict(vertices)["r0:fwd"]["nodes"] == 2
    with pytest.raises(pm.InputError, match="collapse: got 0"):
        vertices_and_edges(graph, collapse=0)


def test_graphml_parses_and_dot_quotes(graph, tmp_path):
    pm.write_graph(graph, tmp_path / "g.graphml.gz")
    root = xml.fromstring(gzip.decompress((tmp_path / "g.graphml.gz").read_bytes()))
    name = "{http://graphml.graphdrawing.org/xmlns}"
    assert len(root.findall(f".//{name}node")) == len(graph)
    assert len(root.findall(f".//{name}edge")) == 4
    pm.write_graph(graph, tmp_path / "g.dot")
    text = (tmp_path / "g.dot").read_text()
    assert text.count("->") == 4
    assert 'label="fwd.a\\"<x>"' in text


def test_what_no_tool_draws_is_refused_with_the_way_out(tmp_path):
    graph = pm.synth.data_parallel(64, 1000).graph()
    with pytest.raises(pm.InputError, match="--collapse"):
        pm.write_graph(graph, tmp_path / "g.dot")
    pm.write_graph(graph, tmp_path / "g.dot", collapse=1, ranks=[0, 1])
    with pytest.raises(pm.InputError, match="ends in"):
        pm.write_graph(graph, tmp_path / "g.png")
