"""The walls of the house, on the whole module graph: floors, circles, and who may know what.

Every import counts, wherever it stands (in a function, under `TYPE_CHECKING`, by `import_module`) and whatever its
form; what a module needs, it needs transitively.
"""

from __future__ import annotations

import ast
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "perfmodel"

FLOORS: tuple[tuple[str, ...], ...] = (
    ("errors", "vocabulary"),
    ("units", "files", "findings", "pytree", "display", "forking", "json_text", "threads"),
    ("compiled_code",),
    ("parameter_paths",),
    ("trace", "machine"),
    ("workload", "models"),
    ("synth",),
    ("schedule",),
    ("engine",),
    ("compiled",),
    ("prediction",),
    ("report", "calibration", "astra"),
    ("analysis",),
    ("optimization",),
    ("cli",),
)
"""From the ground up: a module imports from its own room and from the floors below it, and from nowhere else."""

FLOOR = {room: k for k, rooms in enumerate(FLOORS) for room in rooms}

FORMULAS = ("models",)
HARDWARE = ("machine", "models", "schedule", "engine", "compiled", "prediction")
COMPUTING = ("pytree", "machine", "models", "engine")
"""Rooms whose code runs inside JAX or compiled loops, where no table belongs."""


def modules(package: Path) -> dict[str, Path]:
    """Dotted name, without the package's own, -> file; a package is its `__init__`."""
    found = {}
    for path in package.rglob("*.py"):
        parts = path.relative_to(package).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path) -> set[str]:
    """Everything that a file imports, as dotted names; `from a import b` gives a.b."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif (
            isinstance(node, ast.Call)
            and getattr(node.func, "id", getattr(node.func, "attr", "")) == "import_module"
            and isinstance(node.args[0], ast.Constant)
        ):
            found.add(str(node.args[0].value))
    return found


def graph(package: Path) -> dict[str, set[str]]:
    """Module -> the modules of the package that it imports.

    `from a import b` is an import of the module a.b where there is one, else of a.
    """
    known = modules(package)
    prefix = f"{package.name}."
    edges: dict[str, set[str]] = {}
    for name, path in known.items():
        if not name:
            continue
        wanted = {i.removeprefix(prefix) for i in imports(path) if i.startswith(prefix)}
        there = {w if w in known else w.rpartition(".")[0] for w in wanted}
        edges[name] = (there & known.keys()) - {name, ""}
    return edges


def circle(edges: Mapping[str, Iterable[str]]) -> list[str]:
    """Modules that import each other in a circle, or stand above one; empty where there is none."""
    left = {name: set(needed) for name, needed in edges.items()}
    while True:
        ready = {name for name, needed in left.items() if not needed & left.keys()}
        if not ready:
            return sorted(left)
        left = {name: needed for name, needed in left.items() if name not in ready}


def reached(edges: Mapping[str, set[str]], start: str) -> set[str]:
    """All that a module imports, and what that imports."""
    seen: set[str] = set()
    waiting = [start]
    while waiting:
        name = waiting.pop()
        if name not in seen:
            seen.add(name)
            waiting.extend(edges.get(name, ()))
    return seen - {start}


def room(name: str) -> str:
    """The first word of a module's name."""
    return name.split(".")[0]


def faults(package: Path) -> list[str]:
    """What is wrong with the architecture of a package, a line each."""
    edges = graph(package)
    found = []
    if together := circle(edges):
        found.append(f"imports in a circle: {', '.join(together)}")
    for name, needed in edges.items():
        if room(name) in ("__main__",):
            continue
        for other in needed:
            if room(other) != room(name) and FLOOR[room(other)] >= FLOOR[room(name)]:
                found.append(f"{name} imports {other}, which is not below it")
    for name in edges:
        below = reached(edges, name)
        if room(name) in FORMULAS and (seen := {o for o in below if room(o) == "workload"}):
            found.append(f"a formula sees the graph: {name} reaches {', '.join(sorted(seen))}")
        if room(name) in ("trace", "workload") and (
            seen := {o for o in below if room(o) in HARDWARE}
        ):
            found.append(f"the graph sees hardware: {name} reaches {', '.join(sorted(seen))}")
    known = modules(package)
    for name in edges:
        if room(name) in COMPUTING and "system_file" not in name:
            tables = {i for i in imports(known[name]) if i.split(".")[0] == "pandas"}
            if tables:
                found.append(f"pandas in code that computes: {name}")
    return found


def test_every_import_goes_down_and_none_round():
    assert faults(PACKAGE) == []


def test_every_room_has_a_floor():
    assert {room(name) for name in modules(PACKAGE) if name} - {"__main__"} == set(FLOOR)


@pytest.mark.parametrize(
    ("where", "line", "said"),
    [
        ("models/compute.py", "from perfmodel.workload.graph import Graph", "a formula sees"),
        (
            "machine/placement.py",
            "def f():\n    import perfmodel.workload.graph as g",
            "a formula sees",
        ),
        ("engine/reduction.py", "from perfmodel.prediction import predict", "not below it"),
        ("workload/load.py", "from perfmodel import models", "the graph sees hardware"),
        (
            "workload/groups.py",
            "def f():\n    from perfmodel.workload.load import load",
            "in a circle",
        ),
        (
            "schedule/frozen_graph.py",
            "import typing\nif typing.TYPE_CHECKING:\n    from perfmodel.schedule import certificate",
            "in a circle",
        ),
        (
            "units.py",
            'def f():\n    import importlib\n    importlib.import_module("perfmodel.cli.main")',
            "not below it",
        ),
        ("engine/longest_path.py", "def f():\n    import pandas.api", "pandas in code"),
    ],
)
def test_a_planted_import_is_found(tmp_path, where, line, said):
    house = tmp_path / "perfmodel"
    shutil.copytree(PACKAGE, house, ignore=shutil.ignore_patterns("__pycache__", "*.binpb"))
    with (house / where).open("a") as file:
        file.write(f"\n\n{line}\n")
    assert any(said in fault for fault in faults(house)), faults(house)


def test_at_most_16_modules_lie_directly_in_the_package():
    assert len(list(PACKAGE.glob("*.py"))) <= 16


def test_no_module_has_the_name_of_a_public_function():
    import perfmodel as pm

    functions = {name for name in pm.__all__ if callable(getattr(pm, name))}
    assert not functions & {room(name) for name in modules(PACKAGE)}


def test_importing_a_module_gives_the_module():
    import perfmodel.analysis.sweep
    import perfmodel.optimization.optimize

    assert perfmodel.analysis.sweep.__name__ == "perfmodel.analysis.sweep"
    assert callable(perfmodel.sweep)
    assert callable(perfmodel.optimize)


def test_only_the_chakra_reader_knows_protobuf():
    for path in PACKAGE.rglob("*.py"):
        inside = path.parent.name == "chakra"
        assert inside or "google.protobuf" not in path.read_text(), path


ONE_MEANING = {"Ints"}
"""Names that stand in several modules and mean the same in each: short for an array type."""


def test_no_two_classes_have_one_name():
    """Nor two types with names of their own, nor a class and one whose name differs by an underscore."""
    homes: dict[str, list[str]] = {}
    for name, path in modules(PACKAGE).items():
        for node in ast.parse(path.read_text()).body:
            for type_name in named_types(node):
                homes.setdefault(type_name.lstrip("_"), []).append(name)
    assert {k: v for k, v in homes.items() if len(v) > 1 and k not in ONE_MEANING} == {}


def named_types(statement: ast.stmt) -> list[str]:
    """The class or the type alias (a name like `Groups`) that a statement of a module makes."""
    if isinstance(statement, ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
        targets: list[ast.expr] = [statement.target]
    elif isinstance(statement, ast.Assign):
        targets = statement.targets
    else:
        return []
    names = [t.id for t in targets if isinstance(t, ast.Name)]
    return [n for n in names if n[0].isupper() and not n.isupper() and len(n) > 1]


def test_nothing_is_pickled_or_evaluated():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in ("eval", "exec", "__import__"), path
        assert not {i for i in imports(path) if i.split(".")[0] in ("pickle", "marshal")}, path
