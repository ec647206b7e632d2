"""What a workload, a system or a model is, as one hash: equal for those that say the same, however they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass
from types import BuiltinFunctionType, CodeType, FunctionType, MethodType
from typing import Any

import numpy as np

PACKAGE = __name__.split(".")[0]

NOT_CONTENT = ("source", "warnings", "origin")
"""Fields of a graph that say where it came from, not what it is."""


def content_digest(graph: Any) -> str:
    """SHA-256 over every array, name and group of a graph.

    Args:
        graph: a `Graph`; any dataclass of arrays, texts, numbers, and sequences of these will do.
    """
    hasher = hashlib.sha256()
    for field in fields(graph):
        if field.name not in NOT_CONTENT:
            hasher.update(f"{field.name}=".encode())
            _add(hasher, getattr(graph, field.name))
    return hasher.hexdigest()


def identity(value: Any) -> str:
    """SHA-256 over a tree of records, numbers, labels and functions: their classes, names and all bits of the numbers.

    Functions, and records of classes that are not this package's own, count with the code of their methods, too; with
    what that calls elsewhere by its name only.

    >>> identity((1.0, "ring")) == identity((1.0, "ring")) != identity((1.0, "tree"))
    True
    """
    hasher = hashlib.sha256()
    _add(hasher, value)
    return hasher.hexdigest()


def _add(hasher: Any, value: Any) -> None:
    if isinstance(value, str):
        _add_texts(hasher, [value])
    elif isinstance(value, type):
        hasher.update(f"class {value.__module__}.{value.__qualname__}".encode())
    elif hasattr(value, "__array__") and hasattr(value, "dtype"):
        plain = np.ascontiguousarray(value)
        hasher.update(f"array{plain.dtype.str}{plain.shape}:".encode())
        hasher.update(plain.tobytes() if plain.ndim == 0 else plain.data if plain.size else b"")
    elif is_dataclass(value):
        hasher.update(f"{type(value).__module__}.{type(value).__qualname__}(".encode())
        _add_methods(hasher, type(value))
        for field in fields(value):
            hasher.update(f"{field.name}=".encode())
            _add(hasher, getattr(value, field.name))
    elif isinstance(value, Mapping):
        hasher.update(f"map{len(value)}:".encode())
        for key, part in value.items():
            _add(hasher, key)
            _add(hasher, part)
    elif isinstance(value, Sequence) and not isinstance(value, bytes):
        hasher.update(f"list{len(value)}:".encode())
        if value and all(type(part) is str for part in value):
            _add_texts(hasher, value)
        elif value and all(type(part) is int for part in value):
            hasher.update(repr(value).encode())
        else:
            for part in value:
                _add(hasher, part)
    elif isinstance(value, FunctionType | BuiltinFunctionType | MethodType):
        code = getattr(value, "__code__", None)  # an address would be another one in every process
        hasher.update(f"function {value.__module__}.{value.__qualname__}".encode())
        if code is not None:
            _add_code(hasher, code, value.__doc__)
    else:
        hasher.update(f"{type(value).__qualname__} {value!r};".encode())


def _add_methods(hasher: Any, kind: type) -> None:
    """What the methods of somebody's own class do."""
    for base in kind.__mro__[:-1]:
        if base.__module__.split(".")[0] == PACKAGE:
            continue
        for name, method in sorted(vars(base).items()):
            if isinstance(method, FunctionType) and not name.startswith("__"):
                hasher.update(f"method {name}".encode())
                _add_code(hasher, method.__code__, method.__doc__)


def _add_code(hasher: Any, code: CodeType, documented: str | None = None) -> None:
    """What a function does: its steps, the names that it uses, and its constants but for what documents it."""
    hasher.update(code.co_code + repr(code.co_names).encode())
    for k, constant in enumerate(code.co_consts):
        if isinstance(constant, CodeType):
            _add_code(hasher, constant)
        elif isinstance(constant, frozenset):
            hasher.update(repr(sorted(map(repr, constant))).encode())
        elif k > 0 or constant != documented:
            hasher.update(f"{constant!r};".encode())


def _add_texts(hasher: Any, texts: Iterable[str]) -> None:
    """Texts, with their lengths: nothing in one is taken for the end of it."""
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    hasher.update(np.array([len(text) for text in raw], np.int64).data)
    hasher.update(b"".join(raw))
