"""Compiling that nobody waits for: in a process of its own, at the lowest priority, when the command has ended.

What is to be compiled goes to that process (`python -m perfmodel.compiled_code`) as JSON: a loop's module and name, and
arguments described by their types. It ends when all of it lies on the disk, where later commands find it.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import Any

import numpy as np

from perfmodel.errors import InputError

WHEN = "PERFMODEL_COMPILE"
"""Variable of the environment: with "now" a command compiles what is due itself, and leaves no process behind; "later",
or nothing, is the other way."""

PACKAGE = __name__.split(".")[0]

_wanted: list[tuple[str, str, list[Any]]] = []


def possible(function: FunctionType) -> bool:
    """Whether a function can be compiled later: one of this package, where nobody wants it otherwise.

    Raises:
        InputError: the environment says what means nothing.
    """
    own = function.__module__.startswith(f"{PACKAGE}.")
    able = os.name == "posix" and bool(sys.executable)
    when = os.environ.get(WHEN) or "later"
    if when not in ("later", "now"):
        raise InputError(f"{WHEN} is {when!r} in the environment; expected later or now")
    return own and able and when == "later"


def compile_later(function: FunctionType, name: str, arguments: tuple[Any, ...]) -> None:
    """Have a loop compiled when this process has ended.

    Args:
        function: what it is made of; name: how its module calls the loop.
        arguments: what it was called with.
    """
    if not _wanted:
        atexit.register(_start)
    _wanted.append((function.__module__, name, [description(a) for a in arguments]))


def _start() -> None:
    """Start the process, and hand it what is wanted."""
    if not _wanted:
        return
    here = str(Path(__file__).parents[2])  # this package, and nothing from the current folder (-P)
    path = os.pathsep.join(filter(None, [here, os.environ.get("PYTHONPATH")]))
    with suppress(OSError):  # no process can be started: what is wanted will be wanted again
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{PACKAGE}.compiled_code"],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        assert process.stdin
        with process.stdin as out:
            out.write(json.dumps(_wanted).encode())
        process.returncode = 0  # nobody waits for it


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_wanted.clear)


def description(argument: Any) -> Any:
    """An argument's type, as JSON holds it.

    >>> description((np.zeros((2, 3)), 7, np.int32(1)))
    {'tuple': [{'array': '<f8', 'dimensions': 2, 'order': 'C', 'writable': True}, 7, {'number': '<i4'}]}
    """
    if type(argument) is tuple:
        return {"tuple": [description(part) for part in argument]}
    if isinstance(argument, np.ndarray):
        flags = argument.flags
        order = "C" if flags.c_contiguous else "F" if flags.f_contiguous else "A"
        return {
            "array": argument.dtype.str,
            "dimensions": argument.ndim,
            "order": order,
            "writable": flags.writeable,
        }
    if isinstance(argument, np.generic):
        return {"number": argument.dtype.str}
    if argument is None or isinstance(argument, bool | int | float):
        return argument
    raise TypeError(f"{argument!r:.60}: compiled loops take arrays, numbers and tuples of these")


def example(described: Any) -> Any:
    """An argument of the type that is described.

    >>> example({"tuple": [{"array": "<f8", "dimensions": 2, "order": "C", "writable": True}, 7]})[0].shape
    (2, 2)
    """
    if not isinstance(described, dict):
        return described
    if "tuple" in described:
        return tuple(example(part) for part in described["tuple"])
    if "number" in described:
        return np.dtype(described["number"]).type(0)
    dimensions, order = described["dimensions"], described["order"]
    if order == "A":
        made = np.zeros((4,) * dimensions, described["array"])[(slice(None, None, 2),) * dimensions]
    else:
        made = np.zeros((2,) * dimensions, described["array"], order)
    made.flags.writeable = described["writable"]
    return made
