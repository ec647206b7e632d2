"""Frozen dataclasses that JAX sees as trees of numbers: hardware and models are made of them.

A field is a number (a leaf: it may be traced, batched, differentiated), another record, a tuple
of records, or `static` (a label or a shape: part of the tree's structure, hashable). A user's own
model is such a record, too.

Importing JAX takes a second, which commands that compute nothing with it do not wait for. So a record that is made
before JAX is imported (hardware) is made known to JAX with the first that is made afterwards (a formula's).
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Hashable
from typing import Any, TypeVar, cast, dataclass_transform

import numpy as np

T = TypeVar("T")

_leaves: dict[type, list[str]] = {}  # record -> its fields that are numbers or records
_unknown: list[type] = []  # records that JAX does not know yet


def static(**options: Any) -> Any:
    """A field that is no number: a label or a shape. `options` go to `dataclasses.field`."""
    return dataclasses.field(metadata={"static": True}, **options)


def number(unit: str, /, *, most: float = math.inf, **options: Any) -> Any:
    """A field that is a number in the SI unit named, "1" for a ratio; `most` is the largest that makes sense.

    A fraction of a rate has most=1: what is above warns when it is used, and is refused on the command line.
    """
    return dataclasses.field(metadata={"unit": unit, "most": most}, **options)


@dataclass_transform(frozen_default=True, field_specifiers=(static, number, dataclasses.field))
def record(cls: type[T]) -> type[T]:
    """Make a class a frozen dataclass and a JAX pytree.

    >>> import jax
    >>> @record
    ... class Point:
    ...     x: float = number("m")
    ...     label: str = static(default="")
    >>> jax.tree.leaves(Point(2.0, "here"))
    [2.0]
    """
    cls = dataclasses.dataclass(frozen=True)(cls)
    fields = dataclasses.fields(cls)  # type: ignore[arg-type]
    _leaves[cls] = [f.name for f in fields if not f.metadata.get("static")]
    _unknown.append(cls)
    if "jax" in sys.modules:
        make_known_to_jax()
    return cls


@functools.cache
def _jax() -> Any:
    import jax

    cast(Any, jax.config).update(
        "jax_enable_x64", True
    )  # a 10 s step in float32 resolves 1 us only
    return jax


def make_known_to_jax() -> Any:
    """Register the records that JAX does not know yet, and switch it to 64-bit numbers; returns JAX, imported."""
    jax = _jax()
    while _unknown:
        cls = _unknown.pop()
        fields = dataclasses.fields(cls)
        labels = [f.name for f in fields if f.metadata.get("static")]
        jax.tree_util.register_dataclass(cls, data_fields=_leaves[cls], meta_fields=labels)
    return jax


def children(node: Any) -> dict[str, Any]:
    """The parts of a pytree by the words of parameter paths; {} for a leaf.

    >>> children((2.0, 3.0))
    {'0': 2.0, '1': 3.0}
    """
    if type(node) in _leaves:
        return {name: getattr(node, name) for name in _leaves[type(node)]}
    if type(node) in (tuple, list):
        return {str(k): part for k, part in enumerate(node)}
    if node is None or is_leaf(node):
        return {}
    return {word(key): part for key, part in _level(node)[0]}


def is_leaf(node: Any) -> bool:
    """Whether a node of a pytree is a number, or what JAX takes for one.

    >>> is_leaf(2.0), is_leaf(()), is_leaf(None)
    (True, False, False)
    """
    if node is None or type(node) in (tuple, list) or type(node) in _leaves:
        return False
    if isinstance(node, int | float | str | np.ndarray | np.generic):
        return True
    return _level(node) is None


def _level(node: Any) -> Any:
    """What JAX says of a node: its parts by key and its labels; None for a leaf."""
    return make_known_to_jax().tree_util.default_registry.flatten_one_level_with_keys(node)


def content(node: Any) -> Hashable | None:
    """A key that is equal for trees of the same classes, labels and numbers; None where there is no telling.

    (JAX's own description of a tree does not tell two classes of the same fields apart.)

    >>> content((1.0, "no number")) is None, content([1.0, (2.0,)]) == content([1, (2.0,)])
    (True, True)
    """
    try:
        key = _key(node)
        hash(key)
    except (TypeError, ValueError):  # JAX's own errors of traced values are TypeErrors
        return None
    return key


def _key(node: Any) -> Hashable:
    if node is None or isinstance(node, int | float):
        return node
    level = _level(node)
    if level is None:
        return float(node)
    parts = tuple((word(key), _key(part)) for key, part in level[0])
    known = {name for name, _ in parts}
    labels: tuple[Any, ...] = ()
    if dataclasses.is_dataclass(node):
        names = [f.name for f in dataclasses.fields(node) if f.name not in known]
        labels = tuple((name, getattr(node, name)) for name in names)
    return type(node), labels, parts


def word(key: Any) -> str:
    """How a parameter path spells a key of JAX: a field's name, a position, a dictionary's key."""
    for name in ("name", "idx", "key"):
        if hasattr(key, name):
            return str(getattr(key, name))
    return str(key)
