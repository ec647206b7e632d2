"""The process that compiles what others have asked for (`later`)."""

import fcntl
import json
import os
import sys
from importlib import import_module
from typing import BinaryIO

from perfmodel.compiled_code.later import example


def main() -> None:
    """Compile the loops that standard input names, one after the other; what another process compiles is left to it."""
    os.nice(19)
    for module, name, arguments in json.load(sys.stdin):
        loop = getattr(import_module(module), name)
        dispatcher = getattr(loop, "dispatcher", loop)
        kept = dispatcher._cache._cache_file
        with open(os.path.join(kept._cache_path, f"{kept._index_name}.lock"), "wb") as lock:
            if not _another_has(lock):
                dispatcher.compile(tuple(dispatcher.typeof_pyval(example(a)) for a in arguments))


def _another_has(lock: BinaryIO) -> bool:
    """Take the lock, which goes with its file; whether another process has it.

    Where the file system knows no locks nobody has one: then two processes may compile the same, which costs time and
    nothing else, since what is kept is written aside and renamed.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


if __name__ == "__main__":
    main()
