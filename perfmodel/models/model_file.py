"""Models in files: TOML that names the class of each part, its coefficients, and what they were fitted to.

    title = "our H100 nodes, NCCL 2.27"
    channels = 24.0

    [compute]
    model = "Roofline"
    efficiency = 0.82
    overhead = "2.3 us"

    [network]
    model = "SaturatingAlphaBeta"
    half_size = "1 MB"
    base = { model = "AlphaBeta", algorithm = "ring", efficiency = 0.9 }

    [[fit]]
    coefficients = ["compute.efficiency", "compute.overhead"]
    data = "gemm.csv, 1250 rows"
    mean_error = 0.061

The sections are the parts of `Models`: compute, memory, network; one that is absent is left as it is where the file is
used (`ModelFile.over`): the system's own, or the bare default. So are `channels`, the cores that a collective holds,
which stand before the sections. A coefficient is
a number in SI or a text with a unit; one that is absent has its class's default. `[[fit]]` says what a result may
repeat about the coefficients; its keys are in `FIT_KEYS`. Only classes of the package can be named (`CLASSES`), so
that reading a file never runs code.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from perfmodel import units
from perfmodel.errors import InputError
from perfmodel.files import whole_file
from perfmodel.models.cost import Models

LARGEST_FILE = 16 << 20
"""Bytes; files of coefficients with the list of rows that they saw are some hundred kB."""

PARTS = ("compute", "memory", "network")

CHANNELS = "channels"
"""The cores that collectives hold: a number beside the parts."""

CLASSES = {
    "Roofline": "compute",
    "Bandwidth": "memory",
    "AlphaBeta": "network",
    "SaturatingRoofline": "saturation",
    "SaturatingAlphaBeta": "saturation",
    "Kernels": "kernels",
    "RoundedRoofline": "kernels",
    "Traffic": "kernels",
    "TiledGemm": "gemm",
    "TiledAttention": "attention",
    "Nccl": "nccl",
    "Protocols": "nccl",
    "Nvls": "nccl",
    "Messages": "nccl",
    "Across": "across_nodes",
}
"""Class -> module of `perfmodel.models` that has it."""

FIT_KEYS = {
    "coefficients": list,  # paths of the coefficients that were fitted
    "data": str,  # what was measured
    "device": str,
    "conditions": str,  # library and versions
    "rows": list,  # the rows of the data that the fit saw
    "measurements": int,  # how many
    "error_of": str,  # of which rows the errors are
    "median_error": float,
    "mean_error": float,
    "p95_error": float,
    "low": list,  # of the coefficients' 95 % intervals, in their order
    "high": list,
    "note": str,
}


@dataclass(frozen=True)
class ModelFile:
    """What a file says.

    Attributes:
        title: for people. models: those of the file, bare where it has none. fits: as they stand.
        source: the file's path. parts: which parts the file has, of `PARTS` and "channels".
    """

    title: str
    models: Models
    fits: tuple[Mapping[str, Any], ...] = ()
    source: str = ""
    parts: tuple[str, ...] = (*PARTS, CHANNELS)

    def over(self, models: Models) -> Models:
        """Other models with the parts that the file has put in their place."""
        return models.replace(**{part: getattr(self.models, part) for part in self.parts})


def read_models(path: str | Path) -> ModelFile:
    """Read and check a file of models.

    Raises:
        InputError: file, section and key, what was found, what was expected.
    """
    where = str(path)
    data = _toml(Path(path))
    _known(data, (*PARTS, CHANNELS, "title", "fit"), where)
    title = data.get("title", Path(path).stem)
    if not isinstance(title, str):
        raise InputError(f"{where}: title: got {title!r}, expected text")
    parts = {part: _record(data[part], f"{where}: {part}") for part in PARTS if part in data}
    if not parts:
        raise InputError(f"{where}: no models; expected a section [compute], [memory] or [network]")
    if CHANNELS in data:
        parts[CHANNELS] = _field(data[CHANNELS], {}, f"{where}: {CHANNELS}")
    fits = _fits(data.get("fit", []), where)
    return ModelFile(title, Models(**parts), fits, where, tuple(parts))


def write_models(
    path: str | Path,
    models: Models,
    *,
    title: str,
    fits: Sequence[Mapping[str, Any]] = (),
    parts: Sequence[str] = PARTS,
) -> None:
    """Write models, or some parts of them, so that `read_models` gives them back exactly.

    Raises:
        InputError: a part whose class is none of the package, a coefficient that is no finite number, or a file that
            cannot be written.
    """
    lines = [f"title = {_text(title)}"]
    if models.channels is not None:
        lines.append(f"{CHANNELS} = {_value(models.channels, CHANNELS)}")
    for part in parts:
        lines += _section(part, getattr(models, part))
    for fit in fits:
        lines += ["", "[[fit]]"]
        lines += [f"{key} = {_value(value, f'fit.{key}')}" for key, value in fit.items()]
    with whole_file(path) as file:
        file.write(("\n".join(lines) + "\n").encode("utf-8", "replace"))


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise InputError(f"{path}: more than {LARGEST_FILE} bytes, which is no file of models")
    try:
        return tomllib.loads(raw.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: not a TOML file: {error}") from error


def _record(table: Any, where: str) -> Any:
    """The object that a table describes."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: got {table!r}, expected a table with the key model")
    name = table.get("model")
    if not (isinstance(name, str) and name in CLASSES):
        raise InputError(f"{where}: model is {name!r}; {_offer(name, tuple(CLASSES))}")
    cls = getattr(import_module(f"perfmodel.models.{CLASSES[name]}"), name)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    _known(table, ("model", *fields), where)
    given = {
        key: _field(value, fields[key].metadata, f"{where}.{key}")
        for key, value in table.items()
        if key != "model"
    }
    try:
        return cls(**given)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where}: {error}") from error


def _field(value: Any, metadata: Mapping[str, Any], where: str) -> Any:
    """A field as its class wants it: a label, a record, a tuple of records, or a number in SI."""
    if metadata.get("static"):
        if isinstance(value, dict):
            raise InputError(f"{where}: got a table, expected a word or a list")
        return tuple(value) if isinstance(value, list) else value
    if isinstance(value, dict):
        return _record(value, where)
    if isinstance(value, list):
        parts = [_field(part, metadata, f"{where}.{k}") for k, part in enumerate(value)]
        return tuple(parts)
    unit = metadata.get("unit", "1")
    if isinstance(value, str) and unit in units.UNITS:
        return units.parse(value, unit, where=where, zero=True)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise InputError(
            f"{where}: got {value!r}, expected a number [{unit}] or a text with a unit"
        )
    if not (math.isfinite(value) and value >= 0):
        raise InputError(f"{where}: got {value}, expected a finite number [{unit}], 0 or more")
    return float(value)


def _fits(entries: Any, where: str) -> tuple[Mapping[str, Any], ...]:
    if not (isinstance(entries, list) and all(isinstance(e, dict) for e in entries)):
        raise InputError(f"{where}: fit: expected tables, each headed [[fit]]")
    for k, entry in enumerate(entries):
        _known(entry, tuple(FIT_KEYS), f"{where}: [[fit]] {k}")
        for key, value in entry.items():
            wanted = FIT_KEYS[key]
            fitting = (
                isinstance(value, int | float) if wanted is float else isinstance(value, wanted)
            )
            if not fitting or isinstance(value, bool):
                raise InputError(
                    f"{where}: [[fit]] {k}: {key}: got {value!r}, expected {_WORDS[wanted]}"
                )
    return tuple(entries)


_WORDS = {list: "a list", str: "text", int: "a whole number", float: "a number"}


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            raise InputError(f"{where}: unknown key {key!r}; {_offer(key, keys)}")


def _offer(word: Any, known: tuple[str, ...]) -> str:
    near = difflib.get_close_matches(str(word), known, n=1, cutoff=0.6)
    return f"did you mean {near[0]}?" if near else f"expected one of {', '.join(known)}"


def _section(path: str, part: Any, brackets: str = "[]") -> list[str]:
    """The lines of one record, then of the records in it."""
    name = type(part).__name__
    if CLASSES.get(name) != type(part).__module__.removeprefix("perfmodel.models."):
        raise InputError(
            f"{path}: {name} is a class of your own, which a file cannot name; files know "
            f"{', '.join(CLASSES)}"
        )
    header = f"{brackets[: len(brackets) // 2]}{path}{brackets[len(brackets) // 2 :]}"
    lines, inner = ["", header, f"model = {_text(name)}"], []
    for field in dataclasses.fields(part):
        value = getattr(part, field.name)
        if dataclasses.is_dataclass(value):
            inner += _section(f"{path}.{field.name}", value)
        elif isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
            for record in value:
                inner += _section(f"{path}.{field.name}", record, "[[]]")
        elif value is not None:
            unit = field.metadata.get("unit", "")
            comment = f"  # {unit}" if unit not in ("", "1") else ""
            lines.append(f"{field.name} = {_value(value, f'{path}.{field.name}')}{comment}")
    return lines + inner


def _value(value: Any, where: str) -> str:
    """A number, a word, or a list of such as TOML writes it."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Sequence):
        return f"[{', '.join(_value(part, where) for part in value)}]"
    if isinstance(value, int | np.integer):
        return str(int(value))
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise InputError(f"{where}: {type(value).__name__} cannot be written to a file") from None
    if not math.isfinite(number):
        raise InputError(f"{where}: is {number}, expected a finite number")
    return repr(number)


def _text(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007F")
