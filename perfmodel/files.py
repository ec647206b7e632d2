"""Files to write: their names checked before any work, and each there whole or not at all."""

from __future__ import annotations

import contextlib
import gzip
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from perfmodel.errors import InputError


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


@contextlib.contextmanager
def whole_file(path: str | Path) -> Iterator[Any]:
    """A binary file that takes its name when it is complete, by way of a temporary file beside it.

    It is compressed where the name ends in ".gz"; equal content gives equal files.

    Raises:
        InputError: it cannot be written, with the name of the target and the reason.
    """
    target = Path(path)
    check_target(path)
    try:
        handle, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name[:100]}.")
        try:
            with os.fdopen(handle, "wb") as raw:
                if target.suffix.lower() == ".gz":
                    with gzip.GzipFile("", "wb", 6, raw, mtime=0) as packed:
                        yield packed
                else:
                    yield raw
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, target)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary)
            raise
    except OSError as error:
        raise InputError(f"{path}: cannot be written: {error.strerror or error}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
