"""What is in hwdb, the folder of system files that comes with the package: names, and the file of each."""

import difflib
from functools import cache
from pathlib import Path

from perfmodel.errors import SystemFileError
from perfmodel.machine.system_figures import toml


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
    return [p.stem for p in _files() if "network" in toml(p)]


def accelerators() -> list[str]:
    """Names of the single accelerators in hwdb."""
    return [p.stem for p in _files() if "network" not in toml(p)]


def holders(accelerator: str) -> list[str]:
    """Names of the systems in hwdb that are made of that accelerator."""
    made_of = {name: toml(locate(name)).get("npu") for name in systems()}
    return [
        name
        for name, npu in made_of.items()
        if accelerator == (npu.get("accelerator") if isinstance(npu, dict) else npu)
    ]


def accelerator_of(system: str) -> str | None:
    """Name of the accelerator that a system in hwdb is made of; None for other names, and for what has no name."""
    for path in _files():
        if path.stem == system and "network" in toml(path):
            npu = toml(path).get("npu")
            name = npu.get("accelerator") if isinstance(npu, dict) else npu
            return None if name is None else str(name)
    return None


def locate(name_or_path: str | Path, beside: Path | None = None) -> Path:
    """The file of a name in hwdb, or of a path (relative to `beside`, too)."""
    wanted = str(name_or_path)
    candidates = [Path(wanted)] if beside is None else [beside / wanted, Path(wanted)]
    looks_like_path = wanted.endswith(".toml") or "/" in wanted or "\\" in wanted
    known = {p.stem: p for p in _files()}
    if not looks_like_path and (wanted in known or wanted in _aliases()):
        return known[wanted if wanted in known else _aliases()[wanted]]
    for path in candidates:
        if path.is_file():
            return path
    word, names = ("system", systems()) if beside is None else ("accelerator", accelerators())
    if looks_like_path:
        raise SystemFileError(f"{wanted}: no such {word} file; names in hwdb: {', '.join(names)}.")
    every = names if beside else [*systems(), *accelerators(), *_aliases()]
    near = difflib.get_close_matches(wanted, every, n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(names)}."
    raise SystemFileError(
        f"{word} {wanted!r}: no such name in hwdb; {offer} A file of your own is named by its path."
    )


def _files() -> list[Path]:
    return sorted(find_hwdb().glob("*.toml"))


@cache
def _aliases() -> dict[str, str]:
    """Other names of machines in hwdb -> their files' names."""
    return {alias: p.stem for p in _files() for alias in toml(p).get("aliases", ())}
