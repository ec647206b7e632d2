"""Anonymised workloads: no name left, the same makespan on every design."""

import json

import numpy as np
import pytest

import perfmodel as pm
from tests.handmade import coll, comp, recv, send, write


def designs(count=5, seed=3):
    random = np.random.default_rng(seed)
    for _ in range(count):
        system, models = pm.hardware("dgx-h100"), pm.Models()
        values = {
            path: value * 10 ** random.uniform(-1, 1)
            for path, value in pm.parameters(system).items()
            if value > 0
        }
        yield pm.with_parameters(system, models, values)


@pytest.fixture(scope="module")
def graphs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a")
    first = [
        comp(id=7, name="z.secret", tid=3, is_cpu=1, duration=9),
        comp(id=3, name="a", deps=[7]),
        coll(id=1, name="m", group="tp", deps=[3]),
        coll(id=2, name="b", group="tp"),
        send(1, id=9, tag=77, deps=[1]),
    ]
    other = [
        comp(id=70, name="y.secret"),
        coll(id=1, name="b", group="tp"),
        coll(id=2, name="m", group="tp"),
        recv(0, id=9, tag=77),
    ]
    model = {"layers": 2, "hidden": 256, "heads": 4, "vocabulary": 1024}
    return [
        pm.load(write(folder, [first, other], {"tp": [0, 1]})),
        pm.synth.training(
            model, data=2, tensor=2, pipeline=2, micro_batches=2, sequence=128
        ).graph(),
        pm.synth.training(model, data=4, sharding=3, sequence=128).graph(),
    ]


def test_the_makespan_is_the_same_on_random_designs(graphs, tmp_path):
    for k, graph in enumerate(graphs):
        hidden = pm.anonymise(graph).graph
        pm.write_trace(hidden, tmp_path / str(k) / "t")
        read = pm.load(tmp_path / str(k))
        for system, models in designs():
            a, b, c = (pm.predict(g, system, models) for g in (graph, hidden, read))
            np.testing.assert_array_equal(a.finish, b.finish)
            np.testing.assert_array_equal(a.finish, c.finish)


def test_no_name_is_left_and_the_key_leads_back(graphs, tmp_path):
    for k, graph in enumerate(graphs):
        result = pm.anonymise(graph)
        files = pm.write_trace(result.graph, tmp_path / str(k) / "t")
        data = b"".join(f.read_bytes() for f in files)
        for name in {n for labels in graph.labels for n in labels.names} | {"secret", "tp"}:
            assert len(name) < 2 or name.encode() not in data, name
        names = result.key["names"]
        for labels, old in zip(result.graph.labels, graph.labels):
            assert tuple(names[n] for n in labels.names) == old.names
        json.dumps(result.key)


def test_rounded_sizes_stay_near(graphs):
    for graph in graphs:
        hidden = pm.anonymise(graph, digits=2).graph
        a, b = (pm.predict(g, pm.hardware("dgx-h100")).makespan for g in (graph, hidden))
        assert b == pytest.approx(a, rel=0.06)
        for p in hidden.programs:
            for column in (p.flops, p.size):
                some = column[column > 99]
                assert (some % 10 ** (np.log10(some).astype(int) - 1) == 0).all()


def test_the_report_says_what_a_reader_can_tell(graphs):
    text = "\n".join(pm.anonymise(graphs[1]).report)
    for part in ("8 ranks", "degrees of parallelism", "FLOP a step", "pipeline stages"):
        assert part in text


@pytest.mark.parametrize("digits", [0, 16, True])
def test_digits_out_of_range(graphs, digits):
    with pytest.raises(pm.InputError, match="digits"):
        pm.anonymise(graphs[0], digits=digits)
