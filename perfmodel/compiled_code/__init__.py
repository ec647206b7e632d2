"""Compiled loops, kept on the disk for as long as nothing that is in them has changed.

numba keeps machine code by the file of the function, and looks at that file only. But what a function calls is compiled
into it, and so are the numbers that it takes from other modules: after a change there the old code would run. Here
the key of what is kept covers all of it: the function's own file, every compiled function that it calls with
that function's file, and every constant that it names.

Compiling a loop takes a second, which a small graph is not worth. A loop with `small=True` runs as the Python that it
is written in, unless its machine code is there already, until compiling pays (`allowance`).
Both ways do the same operations on the same kinds of numbers in the same order, so the results are the same to
the bit; such a loop may only do with numbers what NumPy's and the machine's do alike (no sums of narrow integers).
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import cache, cached_property, update_wrapper
from types import CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeVar, overload

import numba
import numpy as np
from numba.core.caching import IndexDataCacheFile

from perfmodel.compiled_code.allowance import Allowance
from perfmodel.errors import InputError

F = TypeVar("F", bound=Callable[..., Any])

_CONSTANTS = (bool, int, float, complex, str, bytes, tuple, frozenset, np.generic)


FORM = 2
"""Of what is kept: code with what it is of."""

PLAIN = 500_000
"""Steps that a small loop takes as plain Python before it is compiled: half a second, as long as compiling takes."""


@overload
def machine_code(function: F, *, small: Any = None, **options: Any) -> Any: ...


@overload
def machine_code(
    function: None = None, *, small: Any = None, **options: Any
) -> Callable[[F], Any]: ...


def machine_code(function: F | None = None, *, small: Any = None, **options: Any) -> Any:
    """Compile a function with numba, once per machine; once per process where nothing can be kept.

    Args:
        function: the function; without one, a decorator with these options.
        small: the arguments -> about how many steps a call takes, or True for the number of elements of its arrays:
            it is then not compiled for little work. None: it always is.
        options: of `numba.njit`.
    """
    if function is None:
        return lambda later: machine_code(later, small=small, **options)
    dispatcher = _dispatcher(function, **options)
    return dispatcher if small is None else Loop(dispatcher, elements if small is True else small)


def elements(*arguments: Any) -> int:
    """How many numbers there are in arrays, and in tuples of arrays.

    >>> elements(np.zeros(3), (np.zeros((2, 2)), 7))
    7
    """
    return sum(
        elements(*a) if isinstance(a, tuple) else a.size if isinstance(a, np.ndarray) else 0
        for a in arguments
    )


_LAYOUT = np.zeros((2, 2)).flags.num | np.zeros((2, 2), order="F").flags.num
"""Those bits of an array's flags that machine code is made for: contiguous in either order, aligned, writable."""


def kinds_of(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    """What tells apart arguments that take machine code of their own: numbers, dimensions and layout of arrays.

    >>> table = np.zeros((2, 3))
    >>> kinds_of((table, 1)) == kinds_of((np.ones((4, 5)), 7)), kinds_of((table, 1)) == kinds_of((table.T, 1))
    (True, False)
    """
    return tuple(
        [
            (a.dtype.num, a.ndim, a.flags.num & _LAYOUT)
            if isinstance(a, np.ndarray)
            else kinds_of(a)
            if isinstance(a, tuple)
            else type(a)
            for a in arguments
        ]
    )


class Loop:
    """A function that is compiled when that is worth it; compiled functions may call it."""

    def __init__(self, dispatcher: Any, steps: Callable[..., int]):
        update_wrapper(self, dispatcher.py_func)
        self.dispatcher, self.py_func = dispatcher, dispatcher.py_func
        self._steps, self.allowance = steps, Allowance(dispatcher, PLAIN)
        # by the kinds of arguments: whether there is machine code, or it shall be made; was looked for
        self._ready: set[tuple[Any, ...]] = set()
        self._looked: set[tuple[Any, ...]] = set()

    @property
    def _numba_type_(self) -> Any:
        return self.dispatcher._numba_type_

    def __call__(self, *arguments: Any) -> Any:
        kinds = kinds_of(arguments)
        if kinds in self._ready:
            return self.dispatcher(*arguments)
        steps = int(self._steps(*arguments))
        kept = kinds not in self._looked and is_kept(self.dispatcher, arguments)
        self._looked.add(kinds)
        if not kept and steps <= self.allowance.left:
            self.allowance.spend(steps, arguments)
            with np.errstate(over="ignore"):  # of hashes, that wrap around in machine code, too
                return self.plain(*arguments)
        self._ready.add(kinds)
        with said_while_it_takes():
            return self.dispatcher(*arguments)

    @cached_property
    def plain(self) -> Callable[..., Any]:
        """The function as Python, and what it calls as well."""
        return plain_of(self.py_func)


def is_kept(dispatcher: Any, arguments: tuple[Any, ...]) -> bool:
    """Whether there is machine code of a compiled function for these arguments, here or on the disk."""
    signature = tuple(map(dispatcher.typeof_pyval, arguments))
    if signature in dispatcher.overloads:
        return True
    try:
        kept = dispatcher._cache
        key = kept._index_key(signature, dispatcher.targetctx.codegen())
        return key in kept._cache_file._load_index()
    except (AttributeError, OSError):  # nothing can be kept
        return False


def plain_of(
    function: FunctionType, stand_ins: Mapping[str, Any] = MappingProxyType({})
) -> FunctionType:
    """A compiled function as Python, and what it calls as well, with words that wrap around as the machine's do.

    Args:
        function: what machine code is made of.
        stand_ins: what some of the names that it and those that it calls use stand for in Python.
    """
    return _plain(function, {}, stand_ins)


def _unsigned(value: Any) -> np.uint64:
    return np.uint64(int(value) & (1 << 64) - 1)


def _signed(value: Any) -> int:
    word = int(value) & (1 << 64) - 1
    return word - (word >> 63 << 64)


_WORDS = {numba.uint64: _unsigned, numba.int64: _signed}


def _plain(
    function: FunctionType,
    made: dict[FunctionType, FunctionType],
    stand_ins: Mapping[str, Any],
) -> FunctionType:
    """A copy of a function in whose world everything that is compiled is not."""
    if function not in made:
        world = {**function.__globals__, **stand_ins}
        made[function] = FunctionType(
            function.__code__, world, function.__name__, function.__defaults__, function.__closure__
        )
        for name in function.__code__.co_names:
            called = getattr(world.get(name), "py_func", None)
            if isinstance(called, FunctionType):
                world[name] = _plain(called, made, stand_ins)
            elif isinstance(world.get(name), numba.types.Type):
                world[name] = _WORDS[world[name]]
    return made[function]


_said = threading.Event()


@contextmanager
def said_while_it_takes(seconds: float = 1.0) -> Iterator[None]:
    """Say once, at a terminal, that something is being compiled, if it takes longer than this."""
    if _said.is_set() or not (sys.stderr and sys.stderr.isatty()):
        yield
        return

    def say() -> None:
        if not _said.is_set():
            _said.set()
            print("perfmodel: compiling, once on this machine ...", file=sys.stderr)

    timer = threading.Timer(seconds, say)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _dispatcher(function: Any, **options: Any) -> Any:
    """A function as numba compiles it, with its code kept where there is a place for it."""
    if numba.config.DISABLE_JIT:
        raise InputError(
            "NUMBA_DISABLE_JIT is set in the environment: schedules and sweeps need machine code; unset it"
        )
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

    The stamp is made when it is asked for: what a function calls may stand below it in its file. numba keeps it in the
    index alone, which is written before the code, and by several processes. So the code says, too, what it is of:
    where a process ended between the two it is older code, where two of them took one name that of other arguments.
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

    def _load_index(self) -> dict[Any, str]:
        """What is kept; nothing where that is damaged, or is another version's, whose names are gone by now."""
        try:
            return dict(super()._load_index())
        except Exception:
            return {}

    def save(self, key: Any, data: Any) -> None:
        """Keep code; where there is no room for it, or no right to, it will be compiled again."""
        with suppress(OSError):
            super().save(key, (self._source_stamp, key, data))

    def load(self, key: Any) -> Any:
        """What is kept for this key; None where that is damaged, or something else."""
        try:
            stamp, known, data = super().load(key)
        except Exception:
            return None
        return data if (stamp, known) == (self._source_stamp, key) else None


@cache
def source_key(function: Any) -> str:
    """A hash of all that is compiled into a function."""
    hasher = hashlib.sha256(f"{numba.__version__} {FORM};".encode())
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
