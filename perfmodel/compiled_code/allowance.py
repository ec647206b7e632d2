"""How long a loop runs as the Python that it is written in before it is compiled."""

from __future__ import annotations

import os
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import Any

from perfmodel.compiled_code.later import compile_later, possible
from perfmodel.errors import InputError
from perfmodel.files import whole_file

SOONER = 4
"""Compiling that nobody waits for begins after this part of the work that would be worth waiting for it."""


class Allowance:
    """How many steps a loop may still do as plain Python before it is compiled.

    Two accounts are kept. One is of this process: when it is used up, this process compiles, since its own work has
    been worth it. The other is of all processes of this machine, and lies beside the machine code: when it is used
    up, the loop is compiled after this process, by one that nobody waits for (`later`), and the account begins anew.
    So whoever looks in never waits for compiling, whoever comes back finds the loop compiled sooner or later, and a
    long run takes at worst twice what the better of Python and compiling would have taken (the ski rental problem;
    Karlin, Manasse, Rudolph, Sleator 1988). Where nothing can be compiled later, both accounts make this process wait.
    """

    def __init__(self, dispatcher: Any, steps: int, name: str | None = None):
        """A new account; `name` is how the loop's module calls it, where not as its function."""
        self._dispatcher, self._steps, self._name = dispatcher, steps, name
        self._here = self._unsaved = 0

    @cached_property
    def _file(self) -> Path | None:
        try:
            kept = self._dispatcher._cache._cache_file
            return Path(kept._cache_path) / f"{kept._index_name}.left"
        except AttributeError:  # nothing can be kept
            return None

    @cached_property
    def _left(self) -> int:
        try:
            with open(self._file or os.devnull) as file:
                return min(max(int(file.read(20)), 0), self._together)
        except (OSError, ValueError):  # not there, or not ours
            return self._together

    @cached_property
    def _later(self) -> bool:
        function = getattr(self._dispatcher, "py_func", None)
        return self._file is not None and function is not None and possible(function)

    @property
    def _together(self) -> int:
        """Steps of all processes of this machine."""
        return self._steps // SOONER if self._later else self._steps

    @property
    def left(self) -> int:
        """Steps that this process may do."""
        here = max(self._steps - self._here, 0)
        return here if self._later else min(here, self._left)

    def spend(self, steps: int, arguments: tuple[Any, ...] = ()) -> None:
        """Note that so many have been done, in a call with these arguments."""
        self._here += steps
        self._left = max(self._left - steps, 0)
        self._unsaved += steps
        if self._left == 0 and self._later:
            function = self._dispatcher.py_func
            compile_later(function, self._name or function.__name__, arguments)
            self._left = self._together
            self._unsaved = self._steps  # so that it is written
        if self._file and 50 * self._unsaved >= self._steps:  # what is lost between is little
            self._unsaved = 0
            with suppress(InputError), whole_file(self._file, durable=False) as file:
                file.write(str(self._left).encode())
