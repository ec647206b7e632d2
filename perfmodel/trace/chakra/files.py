"""Which files a path means: one `<prefix>.<rank>.et` per rank, and perhaps a group file."""

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from perfmodel.errors import InputError, TraceError
from perfmodel.files import StrPath
from perfmodel.trace.chakra.groups import looks_like_groups

_NAME = re.compile(r"(?P<prefix>.+)\.(?P<rank>\d+)\.(?P<kind>et|eg|json)(\.gz)?")
_KINDS = ("et", "eg", "json")
_GROUP_FILES = ("comm_group.json", "comm_groups.json")


def find(
    trace: StrPath | Iterable[StrPath], *, groups: StrPath | None = None
) -> tuple[list[tuple[int, Path]], Path | None]:
    """The rank files, in order of rank, and the group file or None.

    trace: a prefix (`dir/t` for `dir/t.0.et`, `dir/t.1.et`, ...), a folder with one prefix in it, or
        the files; a list of files without a rank in their names counts in its own order
    groups: the group file; else `<prefix>.json`, `comm_group.json` or `comm_groups.json` beside the
        traces, or the only JSON file there that has groups in it
    Raises TraceError where there is no trace, a rank is missing or there twice, or a folder holds
    several prefixes; InputError where the group file is not there or two are.
    """
    if isinstance(trace, str | os.PathLike):
        files = _from_path(Path(trace))
    else:
        files = _from_list([Path(file) for file in trace])
    ranks = [rank for rank, _ in files]
    for rank, (found, file) in enumerate(files):
        if found != rank and found in ranks[:rank]:
            raise TraceError(
                f"{file}: is a second file of rank {found} (beside {files[rank - 1][1].name})."
                " Give one file per rank."
            )
        if found != rank:
            raise TraceError(
                f"{file.parent}: the file of rank {rank} is missing ({len(files)} files, up to rank"
                f" {ranks[-1]}). Expected ranks 0..N-1 without a gap: add it."
            )
    return files, _group_file(files[0][1], groups)


def siblings(files: list[tuple[int, Path]]) -> list[Path]:
    """Files of further ranks beside those given, in order of rank: the trace is then not whole."""
    first = files[0][1]
    match = _NAME.fullmatch(first.name)
    if match is None:
        return []
    given = {file.name for _, file in files if file.parent == first.parent}
    found = []
    for file in first.parent.glob(f"{glob.escape(match['prefix'])}.*"):
        other = _NAME.fullmatch(file.name)
        same = other is not None and (other["prefix"], other["kind"]) == (
            match["prefix"],
            match["kind"],
        )
        if other and same and file.is_file() and file.name not in given:
            found.append((int(other["rank"]), file))
    return [file for _, file in sorted(found)]


def _from_path(path: Path) -> list[tuple[int, Path]]:
    if path.is_file():
        return _from_list([path])
    folder, prefix = (path, None) if path.is_dir() else (path.parent, path.name)
    found: dict[tuple[str, str], list[tuple[int, Path]]] = {}
    for file in sorted(folder.iterdir()) if folder.is_dir() else ():
        match = _NAME.fullmatch(file.name)
        if match and file.is_file() and prefix in (None, match["prefix"]):
            found.setdefault((match["kind"], match["prefix"]), []).append(
                (int(match["rank"]), file)
            )
    for kind in _KINDS:  # of a trace that is there in several forms the first
        current = {
            prefix: files
            for (found_kind, prefix), files in found.items()
            if found_kind == kind and (kind != "json" or not looks_like_groups(files[0][1]))
        }
        if current:
            break
    if not current:
        raise TraceError(
            f"{path}: no trace there. Expected files named {prefix or '<prefix>'}.<rank>.et; give a"
            " prefix (dir/name for dir/name.0.et), a folder, or a list of files."
        )
    if len(current) > 1:
        choices = ", ".join(str(folder / name) for name in sorted(current))
        raise TraceError(f"{path}: holds several traces. Give one of the prefixes {choices}.")
    return sorted(next(iter(current.values())))


def _from_list(paths: list[Path]) -> list[tuple[int, Path]]:
    if not paths:
        raise TraceError("The list of trace files is empty. Give one .et file per rank.")
    for path in paths:
        if not path.is_file():
            raise TraceError(f"{path}: is no file. Give the path of an .et file.")
    matches = [_NAME.fullmatch(path.name) for path in paths]
    if not any(matches):
        return list(enumerate(paths))
    for path, match in zip(paths, matches):
        if match is None:
            raise TraceError(
                f"{path}: has no rank in its name, other files of the list have one. Name all of"
                " them <prefix>.<rank>.et, or none."
            )
    return sorted((int(match["rank"]), path) for path, match in zip(paths, matches) if match)


def _group_file(first: Path, given: StrPath | None) -> Path | None:
    """The group file that goes with the trace whose first file is `first`."""
    if given is not None:
        if not Path(given).is_file():
            raise InputError(f"{given}: is no file. Give the path of a communicator group file.")
        return Path(given)
    match = _NAME.fullmatch(first.name)
    own = first.parent / f"{match['prefix'] if match else first.stem}.json"
    if own.is_file() and own.name not in _GROUP_FILES and looks_like_groups(own, named=True):
        return own
    named = [first.parent / name for name in _GROUP_FILES if (first.parent / name).is_file()]
    if len(named) == 1:
        return named[0]
    found = named or [
        file for file in sorted(first.parent.glob("*.json")) if looks_like_groups(file)
    ]
    if len(found) > 1:
        names = ", ".join(str(file) for file in found)
        raise InputError(f"{first}: several group files beside it: {names}. Say which one to use.")
    return found[0] if found else None
