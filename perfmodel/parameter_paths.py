"""Numbers of a system and of the models by path: `npu.peak_flops`, `compute.efficiency`.

A path names the way down from the system or from the models, one field or position at a time; every
leaf of the two JAX pytrees is a parameter, whatever their classes. Values are SI. System and models
share no path: where both have a part of one name (`network`), one has positions, the other fields.
"""

import dataclasses
import difflib
import math
import warnings
from collections.abc import Mapping
from typing import Any, TypeVar

import numpy as np

from perfmodel import units
from perfmodel.errors import InputError
from perfmodel.pytree import children, is_leaf, make_known_to_jax

S = TypeVar("S")
M = TypeVar("M")


def parameters(system: Any, models: Any = None) -> dict[str, Any]:
    """Every number of the system, then of the models, by path, in the order of their fields [SI].

    >>> from perfmodel.machine.system import NPU, System
    >>> list(parameters(System(NPU(1e12, 1e12, 8e10))))
    ['npu.peak_flops', 'npu.memory_bandwidth', 'npu.memory_capacity']
    """
    return {**_leaves(system), **_leaves(models)}


def parameter_units(system: Any, models: Any = None) -> dict[str, str]:
    """The SI unit of every parameter, by path; "1" for a ratio."""
    roots = {path: root for root in (system, models) for path in _leaves(root)}
    return {path: _said(root, path, "unit", "1") for path, root in roots.items()}


def parameter_limits(system: Any, models: Any = None) -> dict[str, float]:
    """The largest value that makes sense of every parameter, by path; inf where nothing is said."""
    roots = {path: root for root in (system, models) for path in _leaves(root)}
    return {path: _said(root, path, "most", math.inf) for path, root in roots.items()}


def with_parameters(system: S, models: M, values: Mapping[str, Any]) -> tuple[S, M]:
    """Copies of system and models with the parameters named set to `values`: numbers [SI] (tracers, too), or
    texts with a unit ("400 GB/s").

    Raises:
        InputError: a path that neither has; the message offers the nearest. A value that is no number.
    """
    own, theirs = _leaves(system), _leaves(models)
    for path, value in values.items():
        check_path(path, {**own, **theirs})
        if isinstance(value, str):
            value = in_si(value, _said(system if path in own else models, path, "unit", "1"), path)
        elif value is None or isinstance(value, bytes | Mapping):
            raise InputError(f"parameter {path}: got {value!r:.60}, expected a number [SI]")
        (own if path in own else theirs)[path] = value
    return _rebuilt(system, own), _rebuilt(models, theirs)


def _rebuilt(root: S, leaves: Mapping[str, Any]) -> S:
    """The same tree with other numbers."""
    tree = make_known_to_jax().tree
    made: S = tree.unflatten(tree.structure(root), list(leaves.values()))
    return made


def in_si(value: Any, unit: str, where: str) -> float:
    """A parameter's value in SI, from a number, or from a text: a plain number or one with a unit that fits.

    Raises:
        InputError: neither, or a number that no parameter has (negative, infinite; a rate of 0).

    >>> in_si("1 PFLOP/s", "FLOP/s", "npu.peak_flops"), in_si(3, "s", "network.0.latency")
    (1000000000000000.0, 3.0)
    """
    rate = unit.endswith("/s")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        if not isinstance(value, str):
            raise InputError(f"{where}: got {value!r:.60}, expected a number [{unit}]") from None
        return units.parse(value, unit, where=where, zero=not rate)
    if isinstance(value, bool) or not np.isfinite(number) or number < 0 or (rate and not number):
        expected = "more than 0" if rate else "0 or more"
        raise InputError(f"{where}: got {value!r:.60}, expected a finite number, {expected}")
    return number


def check_values(system: Any, models: Any = None) -> None:
    """Raise InputError for a number that no hardware has: not a number, negative, or a rate of 0.

    Warns:
        UserWarning: a fraction above 1, or what else is more than its field says that makes sense.
    """
    units, most = parameter_units(system, models), parameter_limits(system, models)
    for path, value in parameters(system, models).items():
        figures = np.asarray(value, float)
        rate = units[path].endswith("/s")
        wrong = figures[~(figures > 0 if rate else figures >= 0)]
        if wrong.size:
            expected = "a positive rate" if rate else "a number >= 0"
            raise InputError(
                f"parameter {path}: is {wrong.flat[0]:g} [{units[path]}], expected {expected}"
            )
        if figures.size and figures.max() > most[path] * (1 + 1e-9):
            warnings.warn(
                f"parameter {path}: is {figures.max():g}, above {most[path]:g}: a fraction of a rate that no hardware "
                "reaches; give the hardware a higher rate instead (such as npu.peak_flops)",
                stacklevel=3,
            )


def check_path(path: str, known: Mapping[str, Any]) -> None:
    """Raise InputError, with the nearest names, unless `path` is one of `known`."""
    if path in known:
        return
    near = difflib.get_close_matches(str(path), list(known), n=3, cutoff=0.4)
    offer = f"did you mean {' or '.join(near)}?" if near else f"there are: {', '.join(known)}"
    raise InputError(f"parameter {path!r}: no such path; {offer}")


def _leaves(node: Any, path: str = "") -> dict[str, Any]:
    """The numbers of a tree by path, in the order of its fields."""
    if not is_leaf(node):
        return {
            longer: leaf
            for step, part in children(node).items()
            for longer, leaf in _leaves(part, f"{path}.{step}" if path else step).items()
        }
    if dataclasses.is_dataclass(node):
        raise InputError(
            f"{path or 'model'}: {type(node).__name__} is no JAX pytree, so its numbers cannot "
            "be reached; decorate the class with perfmodel.record"
        )
    if not path:
        raise InputError(
            f"got {type(node).__name__} {node!r:.60}, expected a tree of parameters: a System or Models()"
        )
    return {path: node}


def _said(root: Any, path: str, word: str, otherwise: Any) -> Any:
    """What the innermost record on the way says of a number (its unit, ...), and otherwise where none does."""
    found = otherwise
    for step in path.split("."):
        fields = getattr(type(root), "__dataclass_fields__", {})
        found = fields[step].metadata.get(word, otherwise) if step in fields else otherwise
        root = children(root)[step]
    return found
