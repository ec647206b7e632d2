"""The simulator reads and writes only words of its own: machine code would not see others."""

from __future__ import annotations

import numpy as np
import pytest

from perfmodel import astra
from perfmodel.astra import event_run, kernel
from perfmodel.astra import layout as c
from tests.astra import refusing_words as refusing
from tests.astra import test_mode_runs as modes
from tests.astra import test_random_runs as random
from tests.astra.test_traces import node, reduce, write
from tests.astra_workload import SYSTEM, network

ROOMS = (None, 1, 20)
"""Records that pools have at first: as many as usual, or so few that they have to grow."""


@pytest.fixture
def run(monkeypatch):
    """Run a workload in memory that refuses; with pools of few records, which have to grow."""

    def run(lowered, *, record, room=None):
        tables, of_tables = refusing.spread_tables(lowered.tables)
        t = refusing.Words(tables.words, of_tables, numbers=False)
        memory = event_run.RunMemory(tables, len(lowered.rows), record=record)
        if room is not None:
            memory.room = {pool: min(count, room) for pool, count in memory.room.items()}
        prepare = memory._prepare

        def prepare_apart(cost):
            prepare(cost)
            memory.words, memory.allowed = refusing.spread_state(memory.words)
            memory.floats = memory.words.view(np.float64)

        def simulate(_t, words, _f):
            words[c.LIMIT] = 1 << 62
            m = refusing.Words(words, memory.allowed, numbers=False)
            f = refusing.Words(words, memory.allowed, numbers=True)
            with np.errstate(over="ignore"):
                kernel.plain(t, m, f)

        memory._prepare = prepare_apart
        monkeypatch.setattr(kernel, "simulate", simulate)
        memory.simulate(lowered.costs())
        return event_run._rank_ends(memory), int(memory.words[c.DIGEST])

    return run


def assert_own_words_only(run, lowered):
    """Whether a run ends, and is the same however large its pools are to begin with."""
    found = [run(lowered, record=record, room=room) for record in (False, True) for room in ROOMS]
    for ends, digest in found[1:]:
        assert np.array_equal(ends, found[0][0], equal_nan=True)
        assert digest == found[0][1]


# several queues, windows, masks and algorithms; 156 fills slots in one event while no cell is left
@pytest.mark.parametrize("number", [*range(2, len(random.RUNS), 40), 156])
def test_random_runs_touch_only_their_own_words(number, run):
    assert_own_words_only(run, random.lowered_run(random.RUNS[number]))


# custom collectives, shared buses, rendezvous, memory servers; 018 registers timers while no batch is left
@pytest.mark.parametrize("name", [*modes.RUNS[4::12], "018"])
def test_runs_in_other_modes_touch_only_their_own_words(name, run, monkeypatch):
    monkeypatch.chdir(modes.PLACE / name)
    assert_own_words_only(run, modes.lowered_run(name)[1])


def test_more_timers_at_once_than_there_is_room_for_make_room(tmp_path):
    """A custom collective with 200 computations that start at one moment and end at different ones."""
    computations = [node(k, 4) for k in range(200)]
    for k, each in enumerate(computations):
        each.duration_micros = k + 1
    system = {**SYSTEM, "all-reduce-implementation-custom": [str(tmp_path / "c")]}
    write(tmp_path, computations, computations, name="c")
    flat = astra.read_flat(write(tmp_path, [reduce(1)], [reduce(1)]), 2)
    lowered = astra.lower(flat, astra.read_config(system, network(("Switch", 2))))
    assert event_run.run(lowered, lowered.costs()).rank_end.tolist() == [200_000, 200_000]


@pytest.mark.parametrize(("words", "index"), [("t", -1), ("m", -1), ("t", 10**9), ("f", 10**9)])
def test_memory_refuses_what_is_below_or_behind_it(words, index):
    lowered = random.lowered_run(random.RUNS[0])
    tables, of_tables = refusing.spread_tables(lowered.tables)
    memory = refusing.Words(tables.words, of_tables, numbers=words == "f")
    with pytest.raises(refusing.Refused):
        memory[index]


def test_memory_refuses_what_is_between_tables_or_was_never_written():
    lowered = random.lowered_run(random.RUNS[0])
    memory = event_run.RunMemory(lowered.tables, len(lowered.rows), record=True)
    memory._prepare(lowered.costs())
    words, allowed = refusing.spread_state(memory.words)
    m = refusing.Words(words, allowed, numbers=False)
    for index in (words[c.NODES] - 1, words[c.TIMERS + c.POOL_END], words[c.VERTEX_ROW]):
        with pytest.raises(refusing.Refused):
            m[index]
    assert m[words[c.NODES]] >= 0
