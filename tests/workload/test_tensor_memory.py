"""Memory of traces that tag their nodes with tensors, and what becomes of it on the way through the house."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import perfmodel as pm
from perfmodel import synth
from perfmodel.cli.main import main
from perfmodel.errors import InputError
from perfmodel.trace import chakra
from perfmodel.vocabulary import NodeType
from perfmodel.workload.columns import RankColumns
from perfmodel.workload.tensor_memory import RankTensors


def tagged(path: Path, nodes: list[tuple[list[int], dict[str, int], dict[str, int]]]) -> Path:
    """An .et file of one rank: nodes that wait for others, read and write tensors of so many bytes; 1 us each."""
    records = [chakra.GlobalMetadata(version="1.0.0").SerializeToString()]
    for k, (waits, reads, writes) in enumerate(nodes):
        node = chakra.Node(id=k, name=f"n{k}", type=int(NodeType.COMP), duration_micros=1)
        node.data_deps.extend(waits)
        for name, sides in (("inputs", reads), ("outputs", writes)):
            attribute = node.attr.add(name=name)
            attribute.string_list.values.extend(
                text for tensor, size in sides.items() for text in (tensor, f"{size}.0")
            )
        records.append(node.SerializeToString())
    raw = b"".join(bytes([len(r) & 127 | 128, len(r) >> 7]) + r for r in records)
    path.write_bytes(raw)
    return path


def predicted(path: Path) -> pm.Prediction:
    return pm.predict(pm.load(path), pm.hardware("dgx-h100", ranks=1))


CHAIN = [
    ([], {"w": 100, "x": 30}, {"a": 50}),
    ([0], {"a": 50}, {"b": 7, "empty": 0}),
    ([1], {"b": 7, "w": 100}, {"out": 5}),
]


def test_a_tensor_lives_from_its_writer_to_its_last_reader(tmp_path):
    """w and x are there before; x ends with node 0, a with 1, w and b with 2; nobody reads what comes out."""
    p = predicted(tagged(tmp_path / "t.0.et", CHAIN))
    curve = pm.memory(p, 0)
    assert (curve.time_s * 1e6).tolist() == pytest.approx([0, 0, 1, 1, 2, 2, 3, 3])
    assert curve.total_B.tolist() == [130, 180, 150, 157, 107, 112, 12, 5]
    table = pm.memory(p)
    assert table.total_B.tolist() == [180]
    assert table.weights_B.tolist() == [130]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_the_peak_is_that_of_a_plain_list_of_tensors(tmp_path, data):
    """Nodes in a chain: what is held while each runs, tensor by tensor."""
    n = data.draw(st.integers(1, 8))
    size = {f"t{k}": data.draw(st.integers(1, 9)) for k in range(6)}
    free, nodes = list(size), []
    for k in range(n):
        reads = data.draw(st.lists(st.sampled_from(list(size)), unique=True, max_size=3))
        writes = data.draw(st.lists(st.sampled_from([*free, ""]), unique=True, max_size=2))
        writes = [
            w for w in writes if w and not any(w in r for _, r, _ in nodes) and w not in reads
        ]
        free = [f for f in free if f not in writes]
        nodes.append(
            ([k - 1] if k else [], {r: size[r] for r in reads}, {w: size[w] for w in writes})
        )
    if not any(r or w for _, r, w in nodes):
        return
    held = []
    for k in range(n):
        now = 0
        for name, width in size.items():
            writer = [j for j, (_, _, w) in enumerate(nodes) if name in w]
            readers = [j for j, (_, r, _) in enumerate(nodes) if name in r]
            if writer or readers:
                begun = not writer or writer[0] <= k
                over = bool(readers) and max(readers) < k
                now += width * (begun and not over)
        held.append(now)
    p = predicted(tagged(tmp_path / "t.0.et", nodes))
    at_first = sum(
        width
        for name, width in size.items()
        if any(name in r for _, r, _ in nodes) and not any(name in w for _, _, w in nodes)
    )
    assert pm.memory(p).total_B[0] == max([*held, at_first])


def test_lists_that_are_no_tensors_and_sizes_say_nothing(tmp_path):
    path = tagged(tmp_path / "t.0.et", [([], {"w": 1}, {})])
    raw = path.read_bytes().replace(b"1.0", b"one")
    path.write_bytes(raw)
    assert pm.load(path).tensors is None


def test_the_peak_of_a_trace_of_stage_is_the_one_that_astra_sim_prints(shared):
    folder = shared / "reference" / "astra-sim"
    graph = pm.load(folder / "traces" / "stg_llama_fsdp8")
    p = pm.predict(graph, pm.hardware("dgx-h100", ranks=8))
    written = json.loads(
        gzip.decompress((folder / "output/stg_llama_track/local_mem_trace.0.json.gz").read_bytes())
    )
    counted = [e["args"]["Memory_MB"] for e in written["traceEvents"] if e["ph"] == "C"]
    curve = pm.memory(p, 0)
    assert pm.memory(p).total_B[0] == max(counted) * 2**20
    assert curve.total_B.iloc[-1] == counted[-1] * 2**20


def test_the_peak_follows_from_when_nodes_run():
    """A tensor of the second product and one of the first copy: together where the first product is over sooner."""
    columns = RankColumns(
        id=[1, 2, 3, 4],
        type=[NodeType.COMP] * 2 + [NodeType.MEM_LOAD] * 2,
        flops=[10**12, 10**12, -1, -1],
        bytes=[1, 1, 10**10, 10**10],  # 3 ms each
        resource=[0, 0, 1, 1],
        resources=("compute", "copies"),
        edge_from=[0, 2],
        edge_to=[1, 3],
        tensors=RankTensors(10, [1, 1, 2, 2], [50, -50, 50, -50], "by hand"),
    )
    graph = pm.Graph.from_ranks([columns])
    peaks = {}
    for rate in (1e15, 1e12):
        system = pm.hardware("dgx-h100", ranks=1, models="roofline")
        system, _ = pm.with_parameters(system, system.models, {"npu.peak_flops": rate})
        compiled = pm.compile(graph, system, pm.Models())
        p = pm.predict(compiled)
        peaks[rate] = pm.memory(p).total_B[0]
        swept = pm.sweep(compiled, {"npu.memory_capacity": [59.0, 61.0]})
        assert (swept.peak_memory_B == peaks[rate]).all()
        assert pm.memory(p, 0).total_B.max() == peaks[rate]
    assert peaks == {1e15: 110, 1e12: 60}


def test_tensors_of_columns_are_checked():
    with pytest.raises(InputError, match="node has shape"):
        RankTensors(0, [1, 2], [1.0], "")
    with pytest.raises(InputError, match="no finite number"):
        RankTensors(0, [1], [np.nan], "")
    with pytest.raises(InputError, match="tensors name a node beyond the 1"):
        RankColumns(id=[1], type=[4], tensors=RankTensors(0, [1], [1.0], ""))


def test_ranks_whose_trace_names_none_are_not_a_number():
    with_some = {"id": [1], "type": [NodeType.COMP], "flops": [1], "bytes": [1]}
    ranks = [
        RankColumns(**with_some, tensors=RankTensors(7, [0], [1.0], "by hand")),
        RankColumns(**with_some),
    ]
    p = pm.predict(pm.Graph.from_ranks(ranks), pm.hardware("dgx-h100", ranks=2))
    assert pm.memory(p).total_B.tolist() == pytest.approx([8, np.nan], nan_ok=True)
    assert pm.throughput(p).peak_memory_B.tolist() == [8]
    with pytest.raises(
        InputError, match=r"rank 1: its trace names no tensors. Ranks that do: \[0\]"
    ):
        pm.memory(p, 1)
    with pytest.raises(InputError, match="rank: got 2, expected 0 to 1"):
        pm.memory(p, 2)


def test_a_saved_graph_keeps_its_tensors(tmp_path):
    graph = pm.load(tagged(tmp_path / "t.0.et", CHAIN))
    pm.save(graph, tmp_path / "g.npz")
    (tmp_path / "t.0.et").unlink()
    again = pm.load(tmp_path / "g.npz")
    assert again.digest == graph.digest
    system = pm.hardware("dgx-h100", ranks=1)
    both = [pm.memory(pm.predict(g, system)) for g in (graph, again)]
    assert both[0].equals(both[1])
    assert both[0].attrs == both[1].attrs


def test_another_workload_does_not_know_the_old_ones_memory():
    graph = synth.training(
        {"layers": 2, "hidden": 64, "heads": 4, "inner": 128, "vocabulary": 64}, data=2, sequence=16
    ).graph()
    for changed in (
        pm.retarget(graph, ranks=4),
        pm.retarget(graph, batch=(1, 2), sequence=(16, 16)),
    ):
        assert changed.step is None
        assert any("memory of the step are not known any more" in w for w in changed.warnings)


def test_the_command_says_what_is_held_and_what_it_cannot_see(tmp_path, capsys):
    run = ["run", str(tagged(tmp_path / "t.0.et", CHAIN)), "--system", "dgx-h100"]
    main(run)
    text = capsys.readouterr().out
    assert "memory: at most 180 B on a rank, fits with" in text
    assert "memory that no node names is not counted" in text
    main([*run, "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["throughput"]["fits"] is True
    assert found["memory"][0]["gradients_B"] is None
