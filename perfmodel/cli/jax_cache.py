"""Where JAX keeps what it has compiled for commands, so that the next command does not compile it again.

What is kept is machine code that later commands run. So the folder has to be the user's own, and nobody else may be
able to write into it or put another in its place; where that is not so, nothing is kept.
"""

from __future__ import annotations

import glob
import os
import re
import stat
import sys
from pathlib import Path

DIRECTORY = "JAX_COMPILATION_CACHE_DIR"
SHORTEST = "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"

MOST = 500
"""Functions that are kept, of some ten to a hundred KB each; the oldest go first."""


def keep_compiled() -> None:
    """Tell JAX, before it is imported, where to keep what it compiles; what the environment says already counts."""
    if DIRECTORY in os.environ or "JAX_ENABLE_COMPILATION_CACHE" in os.environ:
        return
    folder = cache_folder()
    if folder is not None:
        os.environ[DIRECTORY] = str(folder)
        os.environ.setdefault(SHORTEST, "0.1")
        forget_oldest(folder)


def forget_damaged(warning: str) -> bool:
    """Remove what JAX warns that it cannot read, which it never does itself; whether that is what it warns of.

    Only the function is named, so all that is kept of functions of that name goes.
    """
    found = re.match(r"Error reading persistent compilation cache entry for '([\w<>.]+)'", warning)
    folder = cache_folder()
    if found is None or folder is None or os.environ.get(DIRECTORY) != str(folder):
        return False
    files = list(folder.glob(f"{glob.escape(found[1])}-*"))
    try:
        for file in files:
            file.unlink(missing_ok=True)
    except OSError:
        return False
    return bool(files)


def cache_folder() -> Path | None:
    """The folder, made if need be; None where there is no safe one."""
    if not hasattr(os, "geteuid"):  # without owners there is no telling whose folder it is
        return None
    try:
        given = os.environ.get("XDG_CACHE_HOME", "")
        library = Path("Library/Caches") if sys.platform == "darwin" else Path(".cache")
        base = Path(given) if os.path.isabs(given) else Path.home() / library
        folder = base / "perfmodel" / "jax"
        folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
        return folder if all(map(_is_mine, (base, folder.parent, folder))) else None
    except (OSError, RuntimeError):  # no home, or one where nothing can be written
        return None


def _is_mine(folder: Path) -> bool:
    """Whether a folder, itself and no link, belongs to the user, and nobody else can write into it."""
    state = folder.lstat()
    others = stat.S_IWGRP | stat.S_IWOTH
    return (
        stat.S_ISDIR(state.st_mode) and state.st_uid == os.geteuid() and not state.st_mode & others
    )


def forget_oldest(folder: Path, most: int = MOST) -> None:
    """Remove the oldest files above this number."""
    try:
        files = [Path(entry.path) for entry in os.scandir(folder) if entry.is_file()]
        if len(files) > most:
            for file in sorted(files, key=lambda f: f.stat().st_mtime)[:-most]:
                file.unlink(missing_ok=True)
    except OSError:  # another command does the same
        return
