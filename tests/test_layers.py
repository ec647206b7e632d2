"""The three walls of the house: formulas know no graph, the graph knows no hardware, pandas stays out of JAX code."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "perfmodel"


def imports(module: str) -> set[str]:
    """Modules that a file imports anywhere, also inside functions."""
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("formulas", ["compute", "memory", "network", "collective"])
def test_formulas_never_see_the_graph(formulas):
    seen = {"graph", "tasks", "schedule", "events", "load", "predict"}
    assert not imports(formulas) & {f"perfmodel.{name}" for name in seen}


@pytest.mark.parametrize("module", ["graph", "load", "rank", "pairing", "groups", "store", "kinds"])
def test_the_graph_never_sees_hardware(module):
    seen = {"hardware", "compute", "memory", "network", "collective", "cost", "system_file"}
    assert not imports(module) & {f"perfmodel.{name}" for name in seen}


@pytest.mark.parametrize(
    "module",
    [
        *("longest_path", "cost", "compute", "memory", "network", "collective", "record"),
        *("engine", "kernels", "window", "evaluator", "predict"),
    ],
)
def test_pandas_never_enters_the_code_that_computes(module):
    assert not {name for name in imports(module) if name.split(".")[0] == "pandas"}


def test_only_the_chakra_package_knows_protobuf():
    for path in PACKAGE.rglob("*.py"):
        inside = path.parent.name == "chakra"
        text = path.read_text()
        assert inside or "google.protobuf" not in text, path


def test_nothing_is_pickled_or_evaluated():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
        assert "import pickle" not in path.read_text(), path


def test_modules_do_not_import_each_other_in_circles():
    modules = {p.stem for p in PACKAGE.glob("*.py")}
    edges = {}
    for name in modules:
        tree = ast.parse((PACKAGE / f"{name}.py").read_text())
        edges[name] = {
            node.module.split(".")[1]
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            and node.module
            and node.module.startswith("perfmodel.")
        } & modules
    done: set[str] = set()
    while edges:
        ready = {name for name, needed in edges.items() if needed <= done}
        assert ready, f"circle among {sorted(edges)}"
        done |= ready
        edges = {name: needed for name, needed in edges.items() if name not in ready}
