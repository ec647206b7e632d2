"""Files to write: their names checked before any work, and each there whole or not at all.

A file is written under a random name beside its target, reaches the disk, and then takes the target's name in one
step: readers see the old file or the new one, two writers do not meet, and a symbolic link in the target's place is
replaced, not followed. Whoever is killed leaves a file whose name `is_leftover` recognises.
"""

from __future__ import annotations

import contextlib
import gzip
import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError

StrPath = str | os.PathLike[str]
"""A path as people give it."""


def check_target(path: str | Path, endings: Sequence[str] = ()) -> None:
    """See whether a file of that name can be written.

    Args:
        path: the file, there already or not.
        endings: those that its name may have, such as ".csv"; any without.

    Raises:
        InputError: an empty name, another ending, a folder or a device, or no folder to write into.
    """
    target = Path(path)
    if not str(path).strip() or not target.name:
        raise InputError(f"{str(path)!r}: is no file to write; expected the name of a file")
    if endings and not target.name.lower().endswith(tuple(endings)):
        raise InputError(
            f"{path}: cannot be written as {target.suffix or 'a file without an ending'}; "
            f"use {', '.join(endings)}"
        )
    if os.path.isdir(target) or str(path).endswith("/"):
        raise InputError(f"{path}: is a folder; expected the name of a file to write")
    if os.path.exists(target) and not os.path.isfile(target):
        raise InputError(f"{path}: is no regular file; expected the name of a file to write")
    if not os.path.isdir(target.parent):
        raise InputError(f"{path}: cannot be written: there is no folder {target.parent}")


_LEFTOVER = re.compile(r"\..*\.[0-9a-f]{16}\.partial", re.DOTALL)

STALE = 3600.0
"""A leftover that nobody has written to for so long belongs to no writer that still runs [s]."""


@contextlib.contextmanager
def whole_file(path: str | Path, *, durable: bool = True) -> Iterator[Any]:
    """A binary file that takes its name when it is complete, by way of a temporary file beside it.

    It is compressed where the name ends in ".gz"; equal content gives equal files.

    Args:
        path: the target.
        durable: wait until the content is on the disk before it takes the name, so that a power cut leaves the old
            file or the new one.

    Raises:
        InputError: it cannot be written, with the name of the target and the reason.
    """
    target = Path(path)
    check_target(path)
    try:
        temporary, handle = _exclusive(target)
        try:
            with os.fdopen(handle, "wb") as raw:
                if target.suffix.lower() == ".gz":
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                        yield packed
                else:
                    yield raw
                if not raw.closed:  # a text wrapper closes it
                    raw.flush()
            if durable:
                _sync(temporary)
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        if durable:
            with contextlib.suppress(OSError):  # the list of names, where the system can
                _sync(target.parent)
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def write_whole(path: str | Path, content: bytes, *, durable: bool = True) -> None:
    """Put `content` at `path`, all of it or nothing (see `whole_file`)."""
    with whole_file(path, durable=durable) as file:
        file.write(content)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A new empty folder inside `folder`, gone at the end: what shall stay is moved out of it before.

    Raises:
        InputError: it cannot be made.
    """
    stage = folder / _temporary_name("stage")
    try:
        stage.mkdir(mode=0o777)
    except OSError as error:
        raise InputError(f"{folder}: cannot be written: {error.strerror or error}") from error
    try:
        yield stage
    finally:
        shutil.rmtree(stage, ignore_errors=True)


def is_leftover(name: str) -> bool:
    """Whether a name is one that the writers here give to what is not complete.

    >>> is_leftover(".t.et.0123456789abcdef.partial"), is_leftover("t.et")
    (True, False)
    """
    return _LEFTOVER.fullmatch(name) is not None


def remove_leftovers(folder: Path) -> None:
    """Remove what writers that were killed have left in a folder; what changed in the last hour stays."""
    for path in folder.iterdir():
        if not is_leftover(path.name):
            continue
        with contextlib.suppress(OSError):
            if path.lstat().st_mtime > time.time() - STALE:
                continue
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink()


def _temporary_name(name: str) -> str:
    return f".{name[:50]}.{secrets.token_hex(8)}.partial"


def _exclusive(target: Path) -> tuple[Path, int]:
    """A file beside the target that did not exist before, open for writing."""
    flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY
    flags |= getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    while True:
        temporary = target.with_name(_temporary_name(target.name))
        try:
            return temporary, os.open(temporary, flags, 0o666)
        except FileExistsError:
            continue


def _sync(path: Path) -> None:
    """Put a file's content, or a folder's list of names, on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
