"""Notebooks are stored as they are written: numbered, without output, with relative paths that exist."""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def cells(path: Path, kind: str) -> list[dict]:
    return [c for c in json.loads(path.read_text())["cells"] if c["cell_type"] == kind]


def text(cell: dict) -> str:
    return "".join(cell["source"])


def test_notebooks_are_numbered_without_gaps():
    assert [p.name[:3] for p in NOTEBOOKS] == [f"{k:02d}_" for k in range(1, len(NOTEBOOKS) + 1)]
    assert NOTEBOOKS


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_a_notebook_is_stored_without_output_and_opens_with_its_question(path):
    for cell in cells(path, "code"):
        assert cell["outputs"] == []
        assert cell["execution_count"] is None
    title = text(json.loads(path.read_text())["cells"][0]).splitlines()[0]
    assert title.startswith("# ")
    assert len(cells(path, "code")) <= 14


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_files_that_a_notebook_reads_are_in_the_repository(path):
    code = "\n".join(map(text, cells(path, "code")))
    for name in re.findall(r'"((?:\.\./|astra_sim/)[^"]+)"', code):
        where = FOLDER / name
        assert where.exists() or list(where.parent.glob(f"{where.name}.*.et")), name


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_the_code_of_a_notebook_compiles(path):
    for k, cell in enumerate(cells(path, "code")):
        compile(text(cell), f"{path.name} cell {k}", "exec")
