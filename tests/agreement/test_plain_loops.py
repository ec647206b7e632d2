"""Loops that run as Python for little work say the same as their machine code, to the bit."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given

from perfmodel.astra import kernel
from perfmodel.compiled_code import PLAIN, Loop, kinds_of, machine_code
from perfmodel.compiled_code.allowance import Allowance
from perfmodel.engine import bulk_cpu as engine
from perfmodel.engine.cells import cell_of, checks_of, frozen_at
from tests.agreement.test_oracle_designs import designs, seeds, table
from tests.oracle_case import cases, compile_eagerly, evaluate_eagerly, repeatable


def loops() -> list[Loop]:
    """All that there are in this process."""
    return [thing for thing in gc.get_objects() if issubclass(type(thing), Loop)]


class Everything(set):
    """A set that holds whatever one asks for."""

    def __contains__(self, thing: object) -> bool:
        return True


@contextmanager
def all_loops(*, plain: bool) -> Iterator[None]:
    """Every loop as Python, or every one as machine code."""
    found = loops()
    before = [(x.allowance, x._ready, x._looked) for x in found]
    for loop in found:
        loop.allowance = Allowance(None, 10**12)
        loop._ready, loop._looked = set() if plain else Everything(), Everything()
    yield
    for loop, state in zip(found, before):
        loop.allowance, loop._ready, loop._looked = state


def answers(case, seed) -> list[np.ndarray]:
    """What the loops say of a case and of some designs."""
    compiled = compile_eagerly(case.graph, case.system, case.models)
    costs = table(compiled, designs(case, seed))
    here = evaluate_eagerly(compiled)
    found = [here.start, here.finish, here.slack, compiled.plan.slot_in, compiled.plan.slot]
    found += [compiled.events.pred, compiled.events.cost]
    for dtype in (np.float64, np.float32):
        found += engine.makespans(compiled.plan, costs, dtype=dtype, threads=1, tile=3, paths=True)
    found += compiled.own(costs, paths=True, threads=1)
    for column in costs.T[:2]:
        checked = checks_of(*frozen_at(compiled.own, column))
        if checked is not None:
            cell = cell_of(*checked, len(costs))
            found += cell.answer(costs, paths=True, threads=1)
            found += [cell.checks.a, cell.checks.b, cell.checks.c, cell.checks.strict]
    return found


@given(cases(chained=True), seeds)
@repeatable(25)
def test_plain_python_and_machine_code_agree_to_the_bit(case, seed):
    if case.times is None:
        return
    with all_loops(plain=True):
        plain = answers(case, seed)
    with all_loops(plain=False):
        compiled = answers(case, seed)
    assert len(plain) == len(compiled)
    for a, b in zip(plain, compiled):
        assert a.dtype == b.dtype
        assert a.tobytes() == b.tobytes()


def test_a_loop_is_compiled_when_it_has_done_as_much_as_compiling_takes():
    asked = []
    loop = machine_code(_total, small=lambda values: asked.append(1) or PLAIN // 2)
    loop._looked = Everything()  # what is kept on the disk does not count here
    loop.allowance = Allowance(None, PLAIN)
    results = [loop(np.arange(10.0)) for _ in range(4)]
    assert results == [45.0] * 4
    assert len(loop.dispatcher.overloads) == 1
    assert len(asked) == 3


def test_another_kind_of_numbers_has_an_allowance_of_its_own():
    loop = machine_code(_total, small=True)
    loop._looked = Everything()
    loop.allowance = Allowance(None, 10**6)
    loop._ready.add(kinds_of((np.arange(3.0),)))
    assert [loop(np.arange(3, dtype=kind)) for kind in (np.float64, np.int32)] == [3.0, 3.0]
    assert [signature[0].dtype.name for signature in loop.dispatcher.overloads] == ["float64"]


def _total(values):
    total = 0.0
    for k in range(values.size):
        total += values[k]
    return total


def test_machine_code_that_is_kept_is_used_at_once(tmp_path, monkeypatch):
    first = machine_code(_total, small=True)
    first.dispatcher(np.arange(3.0))  # writes it
    second = machine_code(_total, small=True)
    assert second(np.arange(3.0)) == 3.0
    assert len(second.dispatcher.overloads) == 1


def test_somebody_at_a_terminal_is_told_what_takes_so_long(monkeypatch, capsys):
    from perfmodel import compiled_code

    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(compiled_code, "_said", compiled_code.threading.Event())
    for _ in range(2):
        with compiled_code.said_while_it_takes(0.0):
            compiled_code._said.wait(10)
    assert capsys.readouterr().err.count("compiling") == 1


@pytest.mark.parametrize("steps", [0, 5])
def test_steps_are_counted_over_nested_tuples(steps):
    from perfmodel.compiled_code import elements

    assert elements((np.zeros(steps), (np.zeros(1),)), "text", 3) == steps + 1


def test_every_loop_is_found_by_its_module_and_name():
    for loop in loops():
        module = sys.modules[loop.py_func.__module__]
        if module.__name__.startswith("perfmodel."):
            assert getattr(module, loop.py_func.__name__) is loop
    for machine in kernel.machines:
        assert getattr(kernel, machine.py_func.__name__) is machine
