"""A prediction with all that it was made from, in one file: for a report, an issue, a reviewer.

A zip archive of
- `manifest.json`: format, versions, the options of the system, every parameter's value, the result, a hash of each of
  the other members;
- `graph.npz`: the graph as `save` writes it;
- `system.toml`, `models.toml`: the files of the system and of the models, where they are the user's own.

Nothing in it is run or unpickled. `reproduce` takes the system's structure from the installed hwdb or from the packed
file, and every value from the manifest, so that figures which hwdb has changed since do not count.
"""

from __future__ import annotations

import hashlib
import json
import platform
import struct
import tempfile
import zipfile
import zlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel.cli.options import SYSTEM_KEYS, the_system
from perfmodel.errors import InputError
from perfmodel.files import whole_file
from perfmodel.parameter_paths import parameters, with_parameters
from perfmodel.prediction import Prediction, predict
from perfmodel.report.path_and_ranks import path_breakdown
from perfmodel.workload.archive import save
from perfmodel.workload.load import load

FORMAT = "perfmodel-bundle-1"
PACKAGES = ("perfmodel", "numpy", "scipy", "jax", "jaxlib", "numba", "pandas")
LARGEST, TIMES = 2**29, 8
"""Most bytes that the members may unpack to [B]; or so many times the file's size, if that is more."""
_OWN = {"system": "system.toml", "models": "models.toml"}
"""Options that may name a file of the user's own, and what it is called in the archive."""
_MEMBERS = ("manifest.json", "graph.npz", *_OWN.values())
_TIME = (1980, 1, 1, 0, 0, 0)
"""Of every member, so that equal content gives an equal file."""


@dataclass(frozen=True)
class Reproduction:
    """What came out of running a bundle.

    Attributes:
        rows: (quantity, bundled, here) of each number compared.
        versions: (package, bundled, here) of those that differ.
        figures: (parameter, bundled, here) of those whose value in hwdb or in the models is another one here.
    """

    source: str
    rows: tuple[tuple[str, float, float], ...]
    versions: tuple[tuple[str, str, str], ...]
    figures: tuple[tuple[str, float, float], ...]

    @property
    def same(self) -> bool:
        """Whether every number is the same to the last bit."""
        return all(a == b or (np.isnan(a) and np.isnan(b)) for _, a, b in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """For programs."""
        keys = ("name", "bundled", "here")
        return {
            "source": self.source,
            "same": self.same,
            "numbers": [dict(zip(keys, row)) for row in self.rows],
            "versions": [dict(zip(keys, row)) for row in self.versions],
            "figures": [dict(zip(keys, row)) for row in self.figures],
        }

    def text(self) -> str:
        """For people."""
        lines = [f"{self.source}: the numbers are {'the same' if self.same else 'not the same'}"]
        for name, a, b in self.rows:
            off = "" if a == b else f"  ({b - a:+.3g}, {(b / a - 1) * 100 if a else np.nan:+.3g} %)"
            lines.append(f"  {name:<24} {a:.9g}  here {b:.9g}{off}")
        for name, old, new in self.versions:
            lines.append(f"  {name} was {old}, is {new} here")
        for path, was, now in self.figures:
            lines.append(f"  {path} was {was:.9g} (which counts), is {now:.9g} here")
        return "\n".join(lines)


def write_bundle(path: str, prediction: Prediction, options: dict[str, Any]) -> None:
    """Pack a prediction.

    Args:
        path: the file.
        prediction: of the command line.
        options: its system options (`cli.options.SYSTEM_KEYS`).
    """
    compiled = prediction.compiled
    members: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder) / "graph.npz"
        save(prediction.graph, archive)
        members["graph.npz"] = archive.read_bytes()
    kept = dict(options)
    for option, name in _OWN.items():
        file = Path(str(options.get(option) or ""))
        if file.suffix == ".toml" and file.is_file():
            members[name] = file.read_bytes()
            kept[option] = name
    values = parameters(compiled.system, compiled.models)
    manifest = {
        "format": FORMAT,
        "versions": versions(),
        "options": kept,
        "parameters": {name: float(value).hex() for name, value in values.items()},
        "result": {name: value.hex() for name, value in result(prediction).items()},
        "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in members.items()},
        "source": prediction.graph.source,
    }
    members["manifest.json"] = json.dumps(manifest, indent=1).encode()
    with whole_file(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive_:
        for name, data in members.items():
            archive_.writestr(zipfile.ZipInfo(name, _TIME), data, zipfile.ZIP_DEFLATED)


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers depend on."""
    found = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def result(prediction: Prediction) -> dict[str, float]:
    """The numbers that are compared: makespan, its parts along the critical path, sums over all tasks [s]."""
    parts = {
        f"critical_path.{name}_s": float(value)
        for name, value in path_breakdown(prediction).items()
    }
    return {
        "makespan_s": float(prediction.makespan),
        **parts,
        "sum_of_starts_s": float(np.sum(prediction.task_start)),
        "sum_of_finishes_s": float(np.sum(prediction.task_finish)),
    }


def reproduce_bundle(path: str) -> Reproduction:
    """Run what a bundle holds.

    Raises:
        InputError: no bundle, a damaged one, or one of a newer format.
    """
    manifest, members = _open(path)
    options = manifest["options"]
    with tempfile.TemporaryDirectory() as folder:
        for name, data in members.items():
            (Path(folder) / name).write_bytes(data)
        graph = load(Path(folder) / "graph.npz")
        options = {
            option: str(Path(folder) / value)
            if option in _OWN and value == _OWN[option]
            else tuple(value)
            if isinstance(value, list)
            else value
            for option, value in options.items()
        }
        system, models = the_system(graph, options)
    here = parameters(system, models)
    was = {name: float.fromhex(value) for name, value in manifest["parameters"].items()}
    gone = sorted(was.keys() ^ here.keys())
    if gone:
        raise InputError(
            f"{path}: the system or the models have other parameters here ({', '.join(gone[:5])}); the bundle was made"
            f" with perfmodel {manifest['versions'].get('perfmodel')}"
        )
    figures = tuple(
        (name, was[name], float(here[name])) for name in was if was[name] != float(here[name])
    )
    system, models = with_parameters(system, models, was)
    now = result(predict(graph, system, models))
    before = {name: float.fromhex(value) for name, value in manifest["result"].items()}
    rows = tuple((name, before[name], now.get(name, float("nan"))) for name in before)
    ours = versions()
    changed = tuple(
        (name, old, ours.get(name, "unknown"))
        for name, old in manifest["versions"].items()
        if old != ours.get(name)
    )
    return Reproduction(path, rows, changed, figures)


def _open(path: str) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the other members of a bundle, checked."""
    remedy = "Give a file that `perfmodel bundle` wrote, or copy it again."
    try:
        with zipfile.ZipFile(path) as archive:
            infos = {info.filename: info for info in archive.infolist()}
            unknown = sorted(infos.keys() - set(_MEMBERS))
            if unknown or "manifest.json" not in infos or "graph.npz" not in infos:
                raise InputError(f"{path}: is no bundle (it holds {sorted(infos)[:5]}). {remedy}")
            unpacked = sum(info.file_size for info in infos.values())
            if unpacked > max(LARGEST, TIMES * Path(path).stat().st_size):
                raise InputError(f"{path}: would unpack to {unpacked} B. {remedy}")
            members = {name: archive.read(name) for name in infos}
        manifest = json.loads(members.pop("manifest.json"))
        if manifest["format"] != FORMAT:
            raise InputError(
                f"{path}: is of the format {manifest['format']!r}, this version reads {FORMAT!r}."
            )
        for name, data in members.items():
            if hashlib.sha256(data).hexdigest() != manifest["sha256"][name]:
                raise InputError(f"{path}: {name} is not what was packed. {remedy}")
        for table in ("options", "parameters", "result", "versions"):
            if not isinstance(manifest[table], dict):
                raise ValueError(f"{table} is no object")
        _check_options(manifest["options"], members)
        for value in (*manifest["parameters"].values(), *manifest["result"].values()):
            float.fromhex(value)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    except (
        zipfile.BadZipFile,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
        EOFError,
        zlib.error,
        struct.error,
    ) as error:
        raise InputError(f"{path}: is no bundle, or a damaged one ({error}). {remedy}") from error
    return manifest, members


def _check_options(options: dict[str, Any], members: dict[str, bytes]) -> None:
    """Raise ValueError unless these are options as `write_bundle` notes them.

    A name that could be that of a file beside the bundle is none: only packed files are read.
    """
    if set(options) != set(SYSTEM_KEYS):
        raise ValueError(f"options: expected {', '.join(SYSTEM_KEYS)}")
    for name, value in options.items():
        if name == "assignments":
            right = isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        elif name == "used":
            right = value is None or (
                isinstance(value, list) and all(type(size) is int for size in value)
            )
        else:
            right = isinstance(value, str) or (value is None and name not in ("system", "prefer"))
        if name in _OWN and right and value is not None:
            packed = value == _OWN[name] and value in members
            right = packed or not (value.endswith(".toml") or "/" in value or "\\" in value)
        if not right:
            raise ValueError(f"options: {name} is {value!r:.60}")
