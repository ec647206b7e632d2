"""The process that compiles what others have asked for (`later`)."""

import fcntl
import json
import os
import sys
from contextlib import suppress
from importlib import import_module

from perfmodel.compiled_code.later import example


def main() -> None:
    """Compile the loops that standard input names, one after the other; what another process compiles is left to it."""
    os.nice(19)
    for module, name, arguments in json.load(sys.stdin):
        loop = getattr(import_module(module), name)
        dispatcher = getattr(loop, "dispatcher", loop)
        kept = dispatcher._cache._cache_file
        with (
            suppress(BlockingIOError),
            open(os.path.join(kept._cache_path, f"{kept._index_name}.lock"), "wb") as lock,
        ):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dispatcher.compile(tuple(dispatcher.typeof_pyval(example(a)) for a in arguments))


if __name__ == "__main__":
    main()
