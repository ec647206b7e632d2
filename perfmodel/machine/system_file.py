"""System files: TOML with a unit in every figure, checked to the last key, and hwdb made of them.

A file has `npu` (a table of figures, or the name of an accelerator's file), `[[network]]` once per
dimension, innermost first, and optionally `[remote_memory]`, `[system]` (power, price), `title`, `source`,
`dtype` (which peak rate counts where nobody asks for one; else bf16) and `models` (the set of fitted coefficients it
takes, by name or path). A figure is text ("3.35 TB/s") or a table { value = "3.35 TB/s", source = "...", status =
"assumed" }; `source` and `status` of a section hold for its figures that have none. [npu] may take what it does not
say itself from `accelerator = "h100-sxm"`. A file without [[network]] is one accelerator.

Peak rates are dense ones, by dtype; those with sparsity stand in [npu.sparse_peak_flops] and are never taken. The
place for other descriptions of machines (InfraGraph, NCCL's topology XML) is beside this module: a reader of them
returns a `Description`, too.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from perfmodel.errors import SystemFileError
from perfmodel.machine.hwdb import locate
from perfmodel.machine.system_figures import (
    Fact,
    Mark,
    as_table,
    check_keys,
    figure,
    mark,
    offer,
    table_list,
    text,
    toml,
)
from perfmodel.machine.topology import TOPOLOGIES

LARGEST_SIZE = 1 << 24
DTYPES = (
    "bf16",
    "fp16",
    "tf32",
    "fp32",
    "fp64",
    "fp64_tensor",
    "fp8",
    "fp8_promoted",
    "fp6",
    "fp4",
    "int8",
)
DEFAULT_DTYPE = "bf16"

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
        "cores": "1",
        "cache": "B",
        "cache_bandwidth": "B/s",
        "core_memory": "B",
        "achieved_bandwidth": "B/s",
        "material_cost": "$",
        "energy_per_byte": "J/B",
    },
    "network": {**_PRICED, "energy_per_byte": "J/B"},
    "remote_memory": {**_PRICED, "capacity": "B", "energy_per_byte": "J/B"},
    "system": {**_PRICED, "largest": "1"},
}
"""Figures that may be absent: section -> key -> unit."""

_BY_DTYPE = {
    "peak_flops": "FLOP/s",
    "sparse_peak_flops": "FLOP/s",
    "achieved_flops": "FLOP/s",
    "sustained_flops": "FLOP/s",
    "energy_per_flop": "J/FLOP",
}
"""Figures of [npu] that may be tables with one for each dtype; the first is required."""
_OF_THE_SYSTEM = ("peak_flops", "energy_per_flop")
"""Those of which a system has one, that of its dtype."""

_WORDS = {
    "npu": (*_BY_DTYPE, "accelerator", "process", "link", "source", "status"),
    "network": ("topology", "size", "reduction", "link", "switch", "source", "status"),
    "remote_memory": ("source", "status"),
    "system": ("source", "status"),
    "link": ("kind", "source", "status"),
}
_LINK = {"count": "1", "bandwidth": "B/s"}
_TOP = (
    "title",
    "aliases",
    "models",
    "dtype",
    "npu",
    "network",
    "remote_memory",
    "system",
    "source",
)
REDUCTIONS = ("", "nvls", "sharp")
"""What a dimension's switches can reduce by themselves: nothing, NVLink SHARP, InfiniBand SHARP."""


@dataclass
class Description:
    """What a file says, checked, in SI. A network size of None grows with the ranks.

    Attributes:
        name: of the file; title: for people.
        npu: peak_flops of `dtype`, memory_bandwidth, memory_capacity, cores where known.
        peaks: dense peak by dtype [FLOP/s]; empty where one figure is given for all.
        models: the set of fitted coefficients that the machine takes, "" for none.
        accelerator: the name of its accelerator's file, its own where it is one, "" where it has its own figures.
        folder: where the file lies, for paths in it.
    """

    name: str
    title: str = ""
    dtype: str = ""
    models: str = ""
    accelerator: str = ""
    folder: Path = Path()
    peaks: dict[str, float] = field(default_factory=dict)
    npu: dict[str, float] = field(default_factory=dict)
    network: list[dict[str, Any]] = field(default_factory=list)
    remote_memory: dict[str, float] | None = None
    facts: tuple[Fact, ...] = ()

    @property
    def sustained(self) -> tuple[tuple[str, float], ...]:
        """(dtype, what products can keep up over its peak rate) where the accelerator's file says it.

        The system's own dtype stands under "", too; one figure without a dtype is its.
        """
        found = {}
        for fact in self.facts:
            _, sustained, word = fact.path.partition("npu.sustained_flops")
            if sustained:
                found[word[1:] or self.dtype] = fact.value
        shares = {
            word: rate / self.peaks.get(word, self.npu["peak_flops"])
            for word, rate in found.items()
        }
        if self.dtype in shares:
            shares[""] = shares[self.dtype]
        return tuple(shares.items())


def read(name_or_path: str | Path, *, dtype: str | None = None) -> Description:
    """Read and check a system file, and the accelerator's that it names.

    Args:
        dtype: which of the peak rates counts; by default what the file says, else bf16.

    Raises:
        SystemFileError: file, section and key, what was found, what was expected.
    """
    path = locate(name_or_path)
    data = toml(path)
    check_keys(data, _TOP, str(path))
    if dtype is not None and dtype not in DTYPES:
        raise SystemFileError(f"dtype {dtype!r}: {offer(str(dtype), DTYPES)}")
    reader = _FactReader(path, text(data.get("source", ""), f"{path}: source"), [])
    reader.words(data)
    npu = reader.npu(data.get("npu"), dtype)
    network = table_list(data.get("network", []), f"{path}: [[network]]")
    dimensions = [reader.dimension(k, d, k + 1 == len(network)) for k, d in enumerate(network)]
    remote = None
    if "remote_memory" in data:
        remote = reader.figures(
            "remote_memory", as_table(data["remote_memory"], f"{path}: remote_memory")
        )
    if "system" in data:
        reader.figures("system", as_table(data["system"], f"{path}: system"))
    total = 1
    for d in dimensions:
        total *= d["size"] or 1
    if total > LARGEST_SIZE:
        raise SystemFileError(f"{path}: {total} NPUs in all, expected {LARGEST_SIZE} at most")
    return Description(
        path.stem,
        reader.title,
        reader.dtype,
        reader.models,
        reader.accelerator or ("" if network else path.stem),
        path.parent,
        reader.peaks,
        npu,
        dimensions,
        remote,
        tuple(reader.facts),
    )


@dataclass
class _FactReader:
    """Collects the facts of one file; `source` is the file's own, for figures that name none."""

    path: Path
    source: str
    facts: list[Fact]
    title: str = ""
    dtype: str = ""
    models: str = ""
    accelerator: str = ""
    peaks: dict[str, float] = field(default_factory=dict)

    def words(self, data: Mapping[str, Any]) -> None:
        """What the head of a file says: its title, its dtype, its models."""
        for key in ("title", "dtype", "models"):
            setattr(self, key, text(data.get(key, ""), f"{self.path}: {key}"))
        if self.dtype and self.dtype not in DTYPES:
            raise SystemFileError(f"{self.path}: dtype {self.dtype!r}: {offer(self.dtype, DTYPES)}")
        aliases = data.get("aliases", [])
        if not (isinstance(aliases, list) and all(isinstance(word, str) for word in aliases)):
            raise SystemFileError(
                f"{self.path}: aliases: got {aliases!r}, expected a list of names"
            )

    def npu(self, entry: Any, dtype: str | None) -> dict[str, float]:
        where = f"{self.path}: npu"
        if entry is None:
            raise SystemFileError(
                f"{where}: missing; expected a table [npu] or an accelerator's name"
            )
        if isinstance(entry, str):
            entry = {"accelerator": entry}
        table = dict(as_table(entry, where))
        optional = (*_REQUIRED["npu"], *_OPTIONAL["npu"])
        check_keys(table, (*optional, *_WORDS["npu"]), where)
        base: dict[str, float] = {}
        if "accelerator" in table:
            name = text(table.pop("accelerator"), f"{where}.accelerator")
            base = self._accelerator(name, dtype, table)
        text(table.get("process", ""), f"{where}.process")
        self.dtype = dtype or self.dtype or DEFAULT_DTYPE
        default = mark(table, where, (self.source, ""))
        for key, unit in _BY_DTYPE.items():
            if key in table or (key == "peak_flops" and not base):
                value = self._by_dtype(key, table.get(key), unit, default)
                if key == "peak_flops":
                    base["peak_flops"] = value
        for link in table_list(table.get("link", []), f"{where}.link"):
            self._link(link, default)
        return {**base, **self.figures("npu", table, have=base)}

    def _accelerator(
        self, name: str, dtype: str | None, own: Mapping[str, Any]
    ) -> dict[str, float]:
        """The figures of another file; those that this one gives itself do not come from there."""
        path = locate(name, self.path.parent)
        data = toml(path)
        entry = data.get("npu")
        if not isinstance(entry, dict) or "accelerator" in entry:
            raise SystemFileError(
                f"{self.path}: npu names {path}, which has no [npu] table of figures itself"
            )
        other = _FactReader(path, data.get("source", ""), [])
        other.words(data)
        if "peak_flops" in own:
            entry = {**entry, "peak_flops": own["peak_flops"]}
        base = other.npu(entry, dtype or self.dtype)
        self.dtype, self.peaks, self.accelerator = other.dtype, other.peaks, path.stem
        self.models = self.models or other.models
        replaced = {f"npu.{key}" for key in own}
        self.facts += [f for f in other.facts if ".".join(f.path.split(".")[:2]) not in replaced]
        return {key: value for key, value in base.items() if key not in own}

    def _by_dtype(self, key: str, entry: Any, unit: str, default: Mark) -> float:
        """One figure for all dtypes, or one of a table by dtype; returned is that of the system's dtype.

        Only a peak rate must have that dtype; 0 where another figure has not.
        """
        where = f"{self.path}: npu.{key}"
        if not isinstance(entry, dict) or "value" in entry:
            return self._add(f"npu.{key}", entry, unit, default)
        table = dict(entry)
        default = mark(table, where, default)
        for word in ("source", "status"):
            table.pop(word, None)
        check_keys(table, DTYPES, where)
        if self.dtype not in table and key == "peak_flops":
            raise SystemFileError(
                f"{where}: no figure for dtype {self.dtype!r}; there are: {', '.join(table)}"
            )
        place = len(self.facts)
        values = {
            word: self._add(f"npu.{key}.{word}", table[word], unit, default) for word in table
        }
        if key == "peak_flops":
            self.peaks = values
        if self.dtype not in table or key not in _OF_THE_SYSTEM:
            return 0.0
        own = next(f for f in self.facts[place:] if f.path.endswith(f".{self.dtype}"))
        self.facts.insert(place, replace(own, path=f"npu.{key}"))
        return values[self.dtype]

    def _link(self, entry: Any, default: Mark) -> None:
        """A kind of links that the accelerator has: how many, and what each carries one way."""
        where = f"{self.path}: npu.link"
        table = as_table(entry, where)
        kind = text(table.get("kind"), f"{where}.kind")
        check_keys(table, (*_LINK, *_WORDS["link"]), where)
        default = mark(table, where, default)
        for key, unit in _LINK.items():
            self._add(f"npu.link.{kind}.{key}", table.get(key), unit, default)

    def _add(self, path: str, entry: Any, unit: str, default: Mark) -> float:
        self.facts.append(figure(path, entry, unit, default, str(self.path)))
        return self.facts[-1].value

    def dimension(self, k: int, entry: Any, outermost: bool) -> dict[str, Any]:
        where = f"{self.path}: [[network]] {k}"
        table = as_table(entry, where)
        figures = self.figures("network", table, label=f"network.{k}")
        topology = table.get("topology")
        if topology not in TOPOLOGIES:
            raise SystemFileError(
                f"{where}.topology: got {topology!r}, expected one of {', '.join(TOPOLOGIES)}"
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
        for key in ("link", "switch"):
            text(table.get(key, ""), f"{where}.{key}")
        reduction = table.get("reduction", "")
        if reduction not in REDUCTIONS:
            raise SystemFileError(
                f"{where}.reduction: got {reduction!r}, expected nvls or sharp (left out: none)"
            )
        return {
            **figures,
            "topology": topology,
            "size": None if size == "any" else size,
            "reduction": reduction,
        }

    def figures(
        self, section: str, table: Mapping[str, Any], *, label: str = "", have: Any = ()
    ) -> dict[str, float]:
        """All figures of a section: the required ones are returned, all become facts."""
        label = label or section
        where = f"{self.path}: {label}"
        required, optional = _REQUIRED[section], _OPTIONAL[section]
        check_keys(table, (*required, *optional, *_WORDS[section]), where)
        default = mark(table, where, (self.source, ""))
        found = {}
        for key, unit in {**required, **optional}.items():
            if key in table or (key in required and key not in have):
                value = self._add(f"{label}.{key}", table.get(key), unit, default)
                if key in required or key == "cores":
                    found[key] = value
        return found
