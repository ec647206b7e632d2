"""Compiled loops, kept on the disk for as long as nothing that is in them has changed.

numba keeps machine code by the file of the function, and looks at that file only. But what a function calls is compiled
into it, and so are the numbers that it takes from other modules: after a change there the old code would run. Here
the key of what is kept covers all of it: the function's own file, every compiled function that it calls with
that function's file, and every constant that it names.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from functools import cache
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar

import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile

F = TypeVar("F", bound=Callable[..., Any])

_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, frozenset, np.generic)


def machine_code(function: F | None = None, **options: Any) -> Any:
    """Compile a function with numba, once per machine; once per process where nothing can be kept.

    Args:
        function: the function; without one, a decorator with these options.
        options: of `numba.njit`.
    """
    if function is None:
        return lambda later: machine_code(later, **options)
    try:
        result: Any = numba.njit(cache=True, **options)(function)
    except RuntimeError:  # "no locator available": neither the package nor the home is writable
        return numba.njit(**options)(function)
    kept = result._cache._cache_file  # no public way; a test fails where numba changes it
    result._cache._cache_file = _Covered(
        function, kept._cache_path, kept._index_name.removesuffix(".nbi"), kept._source_stamp
    )
    return result


class _Covered(IndexDataCacheFile):  # type: ignore[misc,unused-ignore]
    """numba's file of kept code, with a stamp that covers what is compiled into the function.

    The stamp is made when it is asked for: what a function calls may stand below it in its file.
    """

    def __init__(self, function: Any, path: str, name: str, stamp: tuple[Any, ...]):
        super().__init__(path, name, stamp)
        self._function = function

    @property
    def _source_stamp(self) -> tuple[Any, ...]:
        return (*self._own_stamp, source_key(self._function))

    @_source_stamp.setter
    def _source_stamp(self, stamp: tuple[Any, ...]) -> None:
        self._own_stamp = stamp


@cache
def source_key(function: Any) -> str:
    """A hash of all that is compiled into a function."""
    hasher = hashlib.sha256(numba.__version__.encode())
    seen: set[int] = set()
    _add(hasher, getattr(function, "py_func", function), seen)
    return hasher.hexdigest()


def _add(hasher: Any, function: FunctionType, seen: set[int]) -> None:
    if id(function) in seen:
        return
    seen.add(id(function))
    hasher.update(_hash_of(function.__code__.co_filename).encode())
    for name, value in _named(function.__code__, function.__globals__):
        if hasattr(value, "py_func"):
            _add(hasher, value.py_func, seen)
        elif isinstance(getattr(value, "_defn", value), FunctionType):
            plain = getattr(value, "_defn", value)  # an intrinsic, or compiled on the way
            if _is_own(plain.__module__ or ""):
                _add(hasher, plain, seen)
        elif isinstance(value, _CONSTANTS):
            hasher.update(f"{name}={value!r};".encode())
        elif isinstance(value, np.ndarray):
            hasher.update(f"{name}=".encode() + value.tobytes())


def _named(code: CodeType, known: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """The global values that a function's code names, those in modules that it names, too."""
    for name in code.co_names:
        value = known.get(name)
        if isinstance(value, ModuleType) and _is_own(value.__name__):
            for other in code.co_names:
                if hasattr(value, other):
                    yield f"{name}.{other}", getattr(value, other)
        elif value is not None:
            yield name, value
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _named(constant, known)


_OTHERS = ("builtins", "math", "numpy", "numba", "llvmlite", "scipy")
"""Libraries whose functions numba knows; its own version is part of the key."""


def _is_own(module: str) -> bool:
    return module.split(".")[0] not in _OTHERS


@cache
def _hash_of(file: str) -> str:
    """Of a source file's content; of its name where there is none."""
    try:
        with open(file, "rb") as source:
            return hashlib.file_digest(source, "sha256").hexdigest()
    except OSError:
        return os.path.basename(file)
