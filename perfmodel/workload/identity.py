"""What a workload is, as one hash: equal for graphs that say the same, however they were made."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np

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


def _add(hasher: Any, value: Any) -> None:
    if isinstance(value, np.ndarray):
        plain = np.ascontiguousarray(value)
        hasher.update(f"array{plain.dtype.str}{plain.shape}:".encode())
        hasher.update(plain.data if plain.size else b"")
    elif hasattr(value, "__dataclass_fields__"):
        for field in fields(value):
            hasher.update(f"{field.name}=".encode())
            _add(hasher, getattr(value, field.name))
    elif isinstance(value, str):
        _add_texts(hasher, [value])
    elif isinstance(value, Sequence):
        hasher.update(f"list{len(value)}:".encode())
        if value and all(type(part) is str for part in value):
            _add_texts(hasher, value)
        elif value and all(type(part) is int for part in value):
            hasher.update(repr(value).encode())
        else:
            for part in value:
                _add(hasher, part)
    else:
        hasher.update(repr(value).encode())


def _add_texts(hasher: Any, texts: Iterable[str]) -> None:
    """Texts, with their lengths: nothing in one is taken for the end of it."""
    raw = [text.encode("utf-8", "surrogatepass") for text in texts]
    hasher.update(np.array([len(text) for text in raw], np.int64).data)
    hasher.update(b"".join(raw))
