"""The simulator as plain Python, as machine code, and as both in turn gives the same run, to the bit."""

import threading

import numpy as np
import pytest

from perfmodel.astra import event_run, kernel
from perfmodel.compiled_code.allowance import Allowance
from perfmodel.threads import in_threads
from tests.astra import test_mode_runs as modes
from tests.astra import test_random_runs as random
from tests.astra.test_traces import differing_in_a_group

BOTH = 5
"""Events that plain Python handles before machine code goes on."""


@pytest.fixture
def run_as(monkeypatch):
    """Record a run with so many events handled as plain Python."""

    def run_as(lowered, events):
        monkeypatch.setattr(kernel, "is_kept", lambda *_: events == 0)
        monkeypatch.setattr(kernel, "allowances", (Allowance(None, events),) * 2)
        return event_run.run(lowered, lowered.costs(), record=True)

    return run_as


def assert_same(run_as, lowered):
    machine = run_as(lowered, 0)
    for events in (BOTH, 10**12):
        run = run_as(lowered, events)
        assert (run.ok, run.digest, run.count, run.at_zero) == (
            machine.ok,
            machine.digest,
            machine.count,
            machine.at_zero,
        )
        for field in ("issue", "finish", "rank_end", "journal"):
            assert getattr(run, field).tobytes() == getattr(machine, field).tobytes(), field
        for field in ("cost", "pred_ptr", "pred", "node_first", "node_last", "marks"):
            here, there = getattr(run.events, field), getattr(machine.events, field)
            assert np.array_equal(here, there), field


@pytest.mark.parametrize("number", range(1, len(random.RUNS), 24))
def test_random_runs_are_the_same_as_python_and_as_machine_code(number, run_as):
    assert_same(run_as, random.lowered_run(random.RUNS[number]))


@pytest.mark.parametrize("name", modes.RUNS[::6])
def test_runs_in_other_modes_are_the_same_as_python_and_as_machine_code(name, run_as, monkeypatch):
    monkeypatch.chdir(modes.PLACE / name)
    assert_same(run_as, modes.lowered_run(name)[1])


def test_implementations_that_differ_in_a_group_are_the_same_as_both(tmp_path, run_as):
    assert_same(run_as, differing_in_a_group(tmp_path, 2)[1])


def test_machine_code_comes_back_now_and_then_and_goes_on(run_as, monkeypatch):
    lowered = random.lowered_run(random.RUNS[1])
    whole = run_as(lowered, 0)
    called = []
    machines = tuple(lambda *words, m=m: called.append(1) or m(*words) for m in kernel.machines)
    monkeypatch.setattr(kernel, "machines", machines)
    monkeypatch.setattr(kernel, "STRETCH", 3)
    pieces = run_as(lowered, 0)
    assert len(called) == -(-whole.count // 3) > 3
    assert pieces.rank_end.tolist() == whole.rank_end.tolist()
    assert (pieces.digest, pieces.count) == (whole.digest, whole.count)


def test_after_an_interrupt_no_thread_takes_another_design(monkeypatch):
    lowered = random.lowered_run(random.RUNS[1])
    caller, begun, interrupted = threading.get_ident(), threading.Barrier(2), threading.Event()
    taken = []

    def simulate(memory, cost):
        taken.append(threading.get_ident())
        if len(taken) <= 2:
            begun.wait(60)
        if threading.get_ident() == caller:
            raise KeyboardInterrupt
        interrupted.wait(60)
        memory._prepare(cost)

    monkeypatch.setattr(event_run.RunMemory, "simulate", simulate)
    with pytest.raises(KeyboardInterrupt):
        event_run.run_many(lowered, np.stack([lowered.costs()] * 50, axis=1), threads=2)
    interrupted.set()
    in_threads(lambda part: None, [1, 2])  # once the other thread is free again
    assert len(taken) == 2


def test_plain_python_is_left_when_its_allowance_is_used_up(run_as, monkeypatch):
    called = []
    machine = kernel.usual_machine
    usual = lambda *words: called.append(1) or machine(*words)  # noqa: E731
    monkeypatch.setattr(kernel, "machines", (usual, None))
    lowered = random.lowered_run(random.RUNS[1])
    run_as(lowered, 10**12)
    assert called == []
    run_as(lowered, BOTH)
    assert called == [1]
    assert kernel.allowances[0].left == 0


def test_what_is_left_of_an_allowance_holds_for_the_next_process(tmp_path):
    class File:
        _cache_path, _index_name = str(tmp_path), "loop"

    class Dispatcher:
        class _cache:
            _cache_file = File

    assert Allowance(Dispatcher, 1000).left == 1000
    Allowance(Dispatcher, 1000).spend(300)
    assert Allowance(Dispatcher, 1000).left == 700
    Allowance(Dispatcher, 1000).spend(5000)
    assert Allowance(Dispatcher, 1000).left == 0
    (tmp_path / "loop.left").write_text("many")
    assert Allowance(Dispatcher, 1000).left == 1000
