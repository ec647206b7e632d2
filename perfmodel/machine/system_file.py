"""System files: TOML with a unit in every figure, checked to the last key, and hwdb made of them.

A file has `npu` (a table of figures, or the name of an accelerator's file), `[[network]]` once per
dimension, innermost first, and optionally `[remote_memory]`, `[system]` (power, price), `source`.
A figure is text ("3.35 TB/s") or a table { value = "3.35 TB/s", source = "..." }; the `source` of a
section holds for its figures that name none. [npu] may take what it does not say itself from
`accelerator = "h100-sxm"`. A file without [[network]] is one accelerator.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from perfmodel import units
from perfmodel.errors import SystemFileError

LARGEST_FILE = 1 << 20
LARGEST_SIZE = 1 << 24
DTYPES = ("bf16", "fp16", "tf32", "fp32", "fp64", "fp64_tensor", "fp8", "fp4", "int8")

_PRICED = {"price": "$", "price_per_time": "$/s", "power": "W"}
_REQUIRED = {
    "npu": {"memory_bandwidth": "B/s", "memory_capacity": "B"},
    "network": {"bandwidth": "B/s", "latency": "s"},
    "remote_memory": {"bandwidth": "B/s", "latency": "s"},
    "system": {},
}
_OPTIONAL = {
    "npu": {
        **_PRICED,
        "die_area": "m^2",
        "clock": "Hz",
        "cache": "B",
        "material_cost": "$",
        "energy_per_flop": "J/FLOP",
        "energy_per_byte": "J/B",
    },
    "network": {**_PRICED, "energy_per_byte": "J/B"},
    "remote_memory": {**_PRICED, "capacity": "B", "energy_per_byte": "J/B"},
    "system": _PRICED,
}
"""Figures that no model of time needs: section -> key -> unit."""

_WORDS = {
    "npu": ("peak_flops", "accelerator", "source"),
    "network": ("topology", "size", "source"),
    "remote_memory": ("source",),
    "system": ("source",),
}


@dataclass(frozen=True)
class Fact:
    """A figure as a file gives it: path, value in SI, its SI unit, and who says so."""

    path: str
    value: float
    unit: str
    source: str


@dataclass
class Description:
    """What a file says, checked, in SI. A network size of None grows with the ranks."""

    name: str
    npu: dict[str, float] = field(default_factory=dict)
    network: list[dict[str, Any]] = field(default_factory=list)
    remote_memory: dict[str, float] | None = None
    facts: tuple[Fact, ...] = ()


def find_hwdb() -> Path:
    """The folder of the system files that come with the package.

    Raises:
        SystemFileError: it is in neither of its two places (the package, the repository).
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "hwdb", package.parent / "hwdb"):
        if folder.is_dir():
            return folder
    raise SystemFileError(f"hwdb is missing beside {package}; install perfmodel again")


def systems() -> list[str]:
    """Names of the systems in hwdb."""
    return [p.stem for p in _files() if "network" in _toml(p)]


def accelerators() -> list[str]:
    """Names of the single accelerators in hwdb."""
    return [p.stem for p in _files() if "network" not in _toml(p)]


def holders(accelerator: str) -> list[str]:
    """Names of the systems in hwdb that are made of that accelerator."""
    made_of = {name: _toml(locate(name)).get("npu") for name in systems()}
    return [
        name
        for name, npu in made_of.items()
        if accelerator == (npu.get("accelerator") if isinstance(npu, dict) else npu)
    ]


def read(name_or_path: str | Path, *, dtype: str) -> Description:
    """Read and check a system file, and the accelerator's that it names.

    Raises:
        SystemFileError: file, section and key, what was found, what was expected.
    """
    path = locate(name_or_path)
    data = _toml(path)
    _known(data, ("npu", "network", "remote_memory", "system", "source"), str(path))
    reader = _Reader(path, data.get("source", ""), [])
    npu = reader.npu(data.get("npu"), dtype)
    network = _list(data.get("network", []), f"{path}: [[network]]")
    dimensions = [reader.dimension(k, d, k + 1 == len(network)) for k, d in enumerate(network)]
    remote = None
    if "remote_memory" in data:
        remote = reader.figures(
            "remote_memory", _table(data["remote_memory"], f"{path}: remote_memory")
        )
    if "system" in data:
        reader.figures("system", _table(data["system"], f"{path}: system"))
    total = 1
    for d in dimensions:
        total *= d["size"] or 1
    if total > LARGEST_SIZE:
        raise SystemFileError(f"{path}: {total} NPUs in all, expected {LARGEST_SIZE} at most")
    return Description(path.stem, npu, dimensions, remote, tuple(reader.facts))


def locate(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """The file of a name in hwdb, or of a path (relative to `beside`, too)."""
    text = str(name_or_path)
    candidates = [Path(text)] if beside is None else [beside / text, Path(text)]
    looks_like_path = text.endswith(".toml") or "/" in text or "\\" in text
    known = {p.stem: p for p in _files()}
    if not looks_like_path and text in known:
        return known[text]
    for path in candidates:
        if path.is_file():
            return path
    word, names = ("system", systems()) if beside is None else ("accelerator", accelerators())
    if looks_like_path:
        raise SystemFileError(f"{text}: no such {word} file; names in hwdb: {', '.join(names)}.")
    near = difflib.get_close_matches(text, names, n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}."
    raise SystemFileError(
        f"{word} {text!r}: no such name in hwdb; {offer} A file of your own is named by its path."
    )


@dataclass
class _Reader:
    """Collects the facts of one file; `source` is the file's own, for figures that name none."""

    path: Path
    source: str
    facts: list[Fact]

    def npu(self, entry: Any, dtype: str) -> dict[str, float]:
        where = f"{self.path}: npu"
        if entry is None:
            raise SystemFileError(
                f"{where}: missing; expected a table [npu] or an accelerator's name"
            )
        if isinstance(entry, str):
            entry = {"accelerator": entry}
        table = dict(_table(entry, where))
        _known(table, (*_REQUIRED["npu"], *_OPTIONAL["npu"], *_WORDS["npu"]), where)
        source = _text(table.get("source", self.source), f"{where}.source")
        base: dict[str, float] = {}
        if "accelerator" in table:
            name = _text(table.pop("accelerator"), f"{where}.accelerator")
            base = self._accelerator(name, dtype, table)
        if "peak_flops" in table or not base:
            entry = table.pop("peak_flops", None)
            base["peak_flops"] = self._peak(entry, dtype, source)
        return {**base, **self.figures("npu", table, have=base)}

    def _accelerator(self, name: str, dtype: str, own: Mapping[str, Any]) -> dict[str, float]:
        """The figures of another file; those that this one gives itself do not come from there."""
        path = locate(name, self.path.parent)
        data = _toml(path)
        entry = data.get("npu")
        if not isinstance(entry, dict) or "accelerator" in entry:
            raise SystemFileError(
                f"{self.path}: npu names {path}, which has no [npu] table of figures itself"
            )
        other = _Reader(path, data.get("source", ""), [])
        if "peak_flops" in own:
            entry = {**entry, "peak_flops": own["peak_flops"]}
        base = other.npu(entry, dtype)
        replaced = {f"npu.{key}" for key in own}
        self.facts += [f for f in other.facts if f.path not in replaced]
        return {key: value for key, value in base.items() if key not in own}

    def _peak(self, entry: Any, dtype: str, source: str) -> float:
        """One figure for all dtypes, or one of a table by dtype."""
        where = f"{self.path}: npu.peak_flops"
        if isinstance(entry, dict) and "value" not in entry:
            table = dict(entry)
            source = _text(table.pop("source", source), f"{where}.source")
            _known(table, DTYPES, where)
            if dtype not in table:
                raise SystemFileError(
                    f"{where}: no figure for dtype {dtype!r}; there are: {', '.join(table)}"
                )
            entry, where = table[dtype], f"{where}.{dtype}"
        return self._figure("npu.peak_flops", entry, "FLOP/s", source, where=where)

    def dimension(self, k: int, entry: Any, outermost: bool) -> dict[str, Any]:
        where = f"{self.path}: [[network]] {k}"
        table = _table(entry, where)
        figures = self.figures("network", table, label=f"network.{k}")
        topology = table.get("topology")
        if topology not in ("ring", "switch", "fully-connected"):
            raise SystemFileError(
                f"{where}.topology: got {topology!r}, expected ring, switch or fully-connected"
            )
        size = table.get("size")
        if size == "any" and not outermost:
            raise SystemFileError(
                f'{where}.size: got "any", which only the last [[network]] may be'
            )
        if size != "any" and (type(size) is not int or not 1 <= size <= LARGEST_SIZE):
            raise SystemFileError(
                f'{where}.size: got {size!r}, expected "any" or a whole number, 1 to {LARGEST_SIZE}'
            )
        return {**figures, "topology": topology, "size": None if size == "any" else size}

    def figures(
        self, section: str, table: Mapping[str, Any], *, label: str = "", have: Any = ()
    ) -> dict[str, float]:
        """All figures of a section: the required ones are returned, all become facts."""
        label = label or section
        where = f"{self.path}: {label}"
        required, optional = _REQUIRED[section], _OPTIONAL[section]
        _known(table, (*required, *optional, *_WORDS[section]), where)
        source = _text(table.get("source", self.source), f"{where}.source")
        found = {}
        for key, unit in {**required, **optional}.items():
            if key in table or (key in required and key not in have):
                value = self._figure(f"{label}.{key}", table.get(key), unit, source)
                if key in required:
                    found[key] = value
        return found

    def _figure(self, path: str, entry: Any, unit: str, source: str, *, where: str = "") -> float:
        where = where or f"{self.path}: {path}"
        if isinstance(entry, dict):
            _known(entry, ("value", "source"), where)
            source = _text(entry.get("source", source), f"{where}.source")
            entry = entry.get("value")
        value = units.parse(entry, unit, where=where, zero=unit == "s")
        self.facts.append(Fact(path, value, unit, source))
        return value


def _files() -> list[Path]:
    return sorted(find_hwdb().glob("*.toml"))


def _toml(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise SystemFileError(f"{path}: cannot be read: {error.strerror}") from error
    if len(raw) > LARGEST_FILE:
        raise SystemFileError(f"{path}: more than {LARGEST_FILE} bytes, which is no system file")
    try:
        return tomllib.loads(raw.decode())
    except (ValueError, RecursionError) as error:
        raise SystemFileError(f"{path}: not a TOML file: {error}") from error


def _known(table: Mapping[str, Any], keys: tuple[str, ...], where: str) -> None:
    for key in table:
        if key not in keys:
            near = difflib.get_close_matches(key, keys, n=1, cutoff=0.5)
            offer = f"did you mean {near[0]}?" if near else f"expected {', '.join(keys)}"
            raise SystemFileError(f"{where}: unknown key {key!r}; {offer}")


def _table(entry: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(entry, dict):
        raise SystemFileError(f"{where}: got {entry!r}, expected a table")
    return entry


def _list(entry: Any, where: str) -> list[Any]:
    if not isinstance(entry, list):
        raise SystemFileError(f"{where}: got one table, expected a list: write [[network]]")
    return entry


def _text(entry: Any, where: str) -> str:
    if not isinstance(entry, str):
        raise SystemFileError(f"{where}: got {entry!r}, expected text")
    return entry
