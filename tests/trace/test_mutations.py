"""Damaged files of every format: each loads or gives one clear error (a small part of `mutate`'s ten thousand)."""

import gzip
import json

import pytest

import perfmodel as pm
from perfmodel.trace.chakra import json_forms
from tests.handmade import coll, comp, recv, send, write
from tests.trace.mutate import run
from tests.trace.test_chakra_json import FEEDER, JSONIZER, STAGE
from tests.trace.test_chakra_older import attribute, file_of, number, text
from tests.trace.test_goal import TWO
from tests.trace.test_text_workload import MLP, SIMAI


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("formats")
    nodes = [comp(id=3, name="a"), coll(id=4, deps=[3], group="1"), send(0, id=5), recv(0, id=6)]
    current = write(folder / "w", [nodes]) / "t.0.et"
    records = list(pm.chakra.messages(current))
    pm.write_trace(pm.synth.data_parallel(2, 8).graph(), folder / "own")
    old = file_of(number(1, 1) + text(2, "m") + number(3, 3) + number(4, 0) + number(12, 8))
    late = file_of(
        number(1, 1) + text(2, "k") + number(3, 4) + text(11, attribute("runtime", 2, number(6, 3)))
    )
    contents = {
        "current.et": current.read_bytes(),
        "packed.et": gzip.compress(current.read_bytes()),
        "old.eg": old,
        "late.et": late,
        "feeder.json": json.dumps(FEEDER).encode(),
        "jsonizer.json": JSONIZER.encode(),
        "stage.json": json.dumps(STAGE).encode(),
        "document.json": json_forms.document(records[0], records[1:]).encode(),
        "mlp.txt": MLP.encode(),
        "simai.txt": SIMAI.encode(),
        "two.goal": TWO.encode(),
    }
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    return [*(folder / name for name in contents), folder / "own.0.et"]


@pytest.mark.parametrize("seed", [11, 12])
def test_damaged_files_load_or_give_one_clear_error(files, seed):
    counts = run(
        files, 200, seed, lambda path: pm.load(path, ranks=4 if path.suffix == ".txt" else None)
    )
    assert counts["loaded"] > 0
    assert len(counts) > 20
