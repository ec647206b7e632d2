"""Which files a path means, and what communicator groups they hold."""

import json
from pathlib import Path

import pytest

from perfmodel.errors import InputError, TraceError
from perfmodel.trace import chakra
from tests.chakra_oracle import attribute, file_of, node

DATA = file_of(node(type=4))


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(DATA)


def names_of(files: list) -> list:
    return [(rank, file.name) for rank, file in files]


def test_a_prefix_a_folder_and_a_list_mean_the_same_files(tmp_path: Path) -> None:
    put(tmp_path, *(f"t.{rank}.et" for rank in range(11)))
    expected = [(rank, f"t.{rank}.et") for rank in range(11)]
    ways = [tmp_path / "t", str(tmp_path / "t"), tmp_path, sorted(tmp_path.glob("*.et"))]
    for way in ways:
        files, groups = chakra.find(way)
        assert names_of(files) == expected
        assert groups is None


def test_a_prefix_picks_its_files_among_others(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et", "t.1.et", "t.v2.0.et", "tt.0.et", "t.x.et", "t.0.et.bak", "t.0.eg")
    assert names_of(chakra.find(tmp_path / "t")[0]) == [(0, "t.0.et"), (1, "t.1.et")]
    assert names_of(chakra.find(tmp_path / "t.v2")[0]) == [(0, "t.v2.0.et")]


def test_gzipped_files_may_be_named_so(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et.gz", "t.1.et")
    assert names_of(chakra.find(tmp_path)[0]) == [(0, "t.0.et.gz"), (1, "t.1.et")]


def test_files_without_ranks_in_their_names_count_in_the_lists_order(tmp_path: Path) -> None:
    put(tmp_path, "b.et", "a.et")
    files, _ = chakra.find([tmp_path / "b.et", tmp_path / "a.et"])
    assert names_of(files) == [(0, "b.et"), (1, "a.et")]
    assert names_of(chakra.find(tmp_path / "a.et")[0]) == [(0, "a.et")]


def test_a_folder_with_several_traces_is_an_error_that_lists_them(tmp_path: Path) -> None:
    put(tmp_path, "a.0.et", "b.0.et")
    with pytest.raises(TraceError, match=r"several traces.*/a, .*/b\."):
        chakra.find(tmp_path)


@pytest.mark.parametrize(
    ("present", "missing"), [((0, 1, 3), 2), ((1, 2), 0), ((0, 2, 3), 1), ((5,), 0)]
)
def test_a_missing_rank_is_named(tmp_path: Path, present: tuple, missing: int) -> None:
    put(tmp_path, *(f"t.{rank}.et" for rank in present))
    with pytest.raises(TraceError, match=f"the file of rank {missing} is missing"):
        chakra.find(tmp_path / "t")


def test_a_rank_that_is_there_twice_is_an_error(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et", "t.1.et", "t.01.et")
    with pytest.raises(TraceError, match="second file of rank 1"):
        chakra.find(tmp_path / "t")


def test_no_trace_a_missing_file_and_an_empty_list_are_errors(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no trace there"):
        chakra.find(tmp_path)
    with pytest.raises(TraceError, match=r"no trace there. Expected files named t\.<rank>\.et"):
        chakra.find(tmp_path / "none" / "t")
    with pytest.raises(TraceError, match="is no file"):
        chakra.find([tmp_path / "t.0.et"])
    with pytest.raises(TraceError, match="is empty"):
        chakra.find([])
    put(tmp_path, "t.0.et", "u.et")
    with pytest.raises(TraceError, match="has no rank in its name"):
        chakra.find([tmp_path / "t.0.et", tmp_path / "u.et"])


def test_a_folder_of_several_traces_names_their_prefixes(shared: Path) -> None:
    with pytest.raises(TraceError, match=r"several traces.*transformer_2stack, .*twoComp"):
        chakra.find(shared / "reference/chakra/v0_0_1")


@pytest.mark.parametrize("name", ["comm_group.json", "comm_groups.json", "t.json", "anything.json"])
def test_a_group_file_beside_the_traces_is_found(tmp_path: Path, name: str) -> None:
    put(tmp_path, "t.0.et")
    (tmp_path / "notes.json").write_text('{"made": "today"}')
    (tmp_path / name).write_text('{"1": [0]}')
    assert chakra.find(tmp_path / "t")[1] == tmp_path / name


def test_the_prefixs_own_group_file_comes_first(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et")
    for name in ("comm_group.json", "t.json", "u.json"):
        (tmp_path / name).write_text('{"1": [0]}')
    assert chakra.find(tmp_path)[1] == tmp_path / "t.json"
    (tmp_path / "t.json").write_text('{"schema": "1.1.1"}')  # some other JSON of that name
    assert chakra.find(tmp_path)[1] == tmp_path / "comm_group.json"


def test_two_group_files_are_an_error_unless_one_is_given(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et")
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text('{"1": [0]}')
    with pytest.raises(InputError, match=r"several group files.*a\.json, .*b\.json"):
        chakra.find(tmp_path)
    given = tmp_path / "a.json"
    assert chakra.find(tmp_path, groups=given)[1] == given
    with pytest.raises(InputError, match="is no file"):
        chakra.find(tmp_path, groups=tmp_path / "c.json")


def test_a_named_group_file_is_taken_even_if_it_is_broken(tmp_path: Path) -> None:
    put(tmp_path, "t.0.et")
    (tmp_path / "comm_group.json").write_text("{")
    found = chakra.find(tmp_path)[1]
    assert found == tmp_path / "comm_group.json"
    with pytest.raises(InputError, match="is no JSON"):
        chakra.read_groups(found)


def test_every_reference_trace_and_its_groups_are_found(shared: Path) -> None:
    folders = sorted((shared / "reference/astra-sim/traces").iterdir())
    assert len(folders) > 60
    for folder in folders:
        files, groups = chakra.find(folder)
        assert len(files) == len(list(folder.glob("*.et")))
        if groups:
            content = chakra.read_groups(groups)
            assert content == {k: tuple(v) for k, v in json.loads(groups.read_text()).items()}
        assert (groups is not None) == any(folder.glob("*.json"))


def test_groups_keep_the_order_of_their_ranks(tmp_path: Path) -> None:
    file = tmp_path / "g.json"
    file.write_text('{"10": [3, 1], "2": [0]}')
    assert chakra.read_groups(file) == {"10": (3, 1), "2": (0,)}
    file.write_text('{"mesh_tp": [1, 0]}')
    assert chakra.read_groups(file) == {"mesh_tp": (1, 0)}
    file.write_text("{}")
    assert chakra.read_groups(file) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is no JSON"),
        ("{", "is no JSON"),
        ("\xff", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[[0, 1]]", "holds a JSON list"),
        ("7", "holds a JSON number"),
        ("null", "holds a JSON null"),
        ('{"traceEvents": []}', "group 'traceEvents': is empty list, not a list of ranks"),
        ('{"": [0]}', "group '': has no name"),
        ('{"1": [0], "1": [1]}', "group '1': stands twice"),
        ('{"1": []}', "group '1': is empty list, not a list of ranks"),
        ('{"1": 5}', "group '1': is number, not a list"),
        ('{"1": {"2": 3}}', "group '1': is object, not a list"),
        ('{"1": [0, -1]}', "-1 is no rank"),
        ('{"1": [0, true]}', "True is no rank"),
        ('{"1": [0, 1.0]}', "1.0 is no rank"),
        ('{"1": ["0"]}', "'0' is no rank"),
        ('{"1": [99999999999]}', "99999999999 is no rank"),
        ('{"1": [0, 1, 0]}', "rank 0 stands twice"),
    ],
)
def test_json_that_is_no_group_file_is_one_clear_error(
    tmp_path: Path, text: str, complaint: str
) -> None:
    file = tmp_path / "g.json"
    file.write_bytes(text.encode("latin-1"))
    with pytest.raises(InputError, match=complaint) as caught:
        chakra.read_groups(file)
    assert str(caught.value).startswith(str(file))


def test_a_group_file_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read"):
        chakra.read_groups(tmp_path / "g.json")


def torch_trace(*texts: str, name: str = "## process_group:init ##", type: int = 1):
    """A trace with PyTorch's record of its process groups, one node per text."""
    nodes = [node(type=4, name="before", id=0)]
    for k, text in enumerate(texts):
        message = node(attribute("pid", "int64_val", 1), id=k + 5, type=type, name=name)
        message.inputs.values = text
        nodes.append(message)
    return chakra.decode(file_of(*nodes), "t.0.et")


def as_torch(entries: list) -> str:
    """How the converter stores the list: Python's text of a list with one JSON text in it."""
    return str([json.dumps(entries)])


WORLD = {"pg_name": "0", "pg_desc": "default_pg", "ranks": [], "group_size": 4, "group_count": 3}
PAIR = {"pg_name": "3", "pg_desc": 'it\'s \\ "mine"', "ranks": [2, 0], "group_size": 2}


def test_pytorchs_process_groups_are_read() -> None:
    expected = {"0": None, "3": (2, 0)}
    assert chakra.process_groups(torch_trace(as_torch([WORLD, PAIR]))) == expected
    assert chakra.process_groups(torch_trace(json.dumps([WORLD, PAIR]))) == expected
    assert (
        chakra.process_groups(torch_trace(as_torch([WORLD]), as_torch([WORLD, PAIR]))) == expected
    )
    older = {"pg_name": "1", "backend_id": 5, "backend_config": "cuda:nccl", "ranks": [0, 1]}
    assert chakra.process_groups(torch_trace(as_torch([older]))) == {"1": (0, 1)}
    assert chakra.process_groups(torch_trace(as_torch([older]), type=4)) == {"1": (0, 1)}
    assert chakra.process_groups(torch_trace(as_torch([]))) == {}


def test_a_trace_without_process_groups_has_none() -> None:
    assert chakra.process_groups(torch_trace()) == {}
    assert chakra.process_groups(torch_trace("nonsense", name="some other metadata")) == {}


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "holds no list of process groups"),
        ("['not json']", "holds no list of process groups"),
        ("['a', 'b']", "holds no list of process groups"),
        ("[__import__('os')]", "holds no list of process groups"),
        ("['\\x5']", "holds no list of process groups"),
        ("[" * 200_000, "holds no list of process groups"),
        ("""['{"pg_name": "1"}']""", "is no list of objects"),
        ("""['[{"ranks": [0]}]']""", "process group None: has no pg_name"),
        ("""['[{"pg_name": "1", "ranks": "0, 1"}]']""", "has no pg_name or no list of ranks"),
        ("""['[{"pg_name": "1", "ranks": [0, "1"]}]']""", "'1' is no rank"),
        ("""['[{"pg_name": "1", "ranks": [1, 1]}]']""", "rank 1 stands twice"),
        ("""['[{"pg_name": "1", "ranks": [1], "group_size": 2}]']""", "group_size 2"),
    ],
)
def test_process_groups_that_do_not_decode_are_an_error_that_names_the_node(
    text: str, complaint: str
) -> None:
    with pytest.raises(TraceError, match=complaint) as caught:
        chakra.process_groups(torch_trace(text))
    assert "t.0.et: node 5 (## process_group:init ##)" in str(caught.value)


def test_process_groups_that_disagree_are_an_error() -> None:
    other = {**PAIR, "ranks": [0, 1]}
    with pytest.raises(TraceError, match=r"node 6 .*group '3' is \(0, 1\) here and \(2, 0\)"):
        chakra.process_groups(torch_trace(as_torch([PAIR]), as_torch([other])))
