"""Files are there whole or not at all, whoever else writes, links or kills."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perfmodel.errors import InputError
from perfmodel.files import STALE, is_leftover, remove_leftovers, whole_file, write_whole

ROOT = Path(__file__).resolve().parents[1]


def test_a_link_in_the_targets_place_is_replaced_and_leads_nowhere(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("years of work")
    (tmp_path / "target").symlink_to(victim)
    write_whole(tmp_path / "target", b"new")
    assert victim.read_text() == "years of work"
    assert (tmp_path / "target").read_bytes() == b"new"
    assert not (tmp_path / "target").is_symlink()


def test_temporary_names_cannot_be_guessed_and_are_made_exclusively(tmp_path, monkeypatch):
    seen = []
    opened = os.open

    def watching(path, flags, *rest, **more):
        if is_leftover(Path(os.fspath(path)).name) and flags & os.O_CREAT:
            seen.append(Path(path).name)
            assert flags & os.O_EXCL
        return opened(path, flags, *rest, **more)

    monkeypatch.setattr(os, "open", watching)
    for _ in range(20):
        write_whole(tmp_path / "target", b"x")
    assert len(set(seen)) == 20


def test_many_writers_of_one_file_leave_one_of_their_contents(tmp_path):
    contents = [bytes([k]) * 100_000 for k in range(8)]
    threads = [
        threading.Thread(target=lambda c=c: [write_whole(tmp_path / "t", c) for _ in range(10)])
        for c in contents
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (tmp_path / "t").read_bytes() in contents
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path):
    write_whole(tmp_path / "t", b"old")

    def fail() -> None:
        with whole_file(tmp_path / "t") as file:
            file.write(b"half")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert (tmp_path / "t").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t"]


def test_a_target_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(InputError, match="there is no folder"):
        write_whole(tmp_path / "no" / "t", b"")
    with pytest.raises(InputError, match="is a folder"):
        write_whole(tmp_path, b"")


def test_leftovers_go_when_nobody_can_still_be_at_them(tmp_path):
    old, young = (tmp_path / f".t.{digit * 16}.partial" for digit in "ab")
    other = tmp_path / ".t.tmp"
    for path in (old, young, other):
        path.write_text("")
    os.utime(old, (0, 0))
    os.utime(other, (0, 0))
    remove_leftovers(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([young.name, other.name])
    assert STALE >= 600


WRITER = """
import signal, sys, time
from perfmodel.cli import main as cli
from perfmodel.files import whole_file
import click
@cli.cli.command("slowly")
@click.argument("path")
def slowly(path):
    with whole_file(path) as file:
        file.write(b"half")
        print("begun", flush=True)
        time.sleep(60)
cli.Commands.get_command = lambda self, ctx, name: slowly
signal.signal(signal.SIGINT, signal.default_int_handler)  # which a shell in the background has ignored
cli.main(["slowly", sys.argv[1]])
"""


@pytest.mark.parametrize(
    ("number", "status", "word"),
    [(signal.SIGTERM, 143, "terminated"), (signal.SIGINT, 130, "interrupted")],
)
def test_a_signal_ends_a_command_without_leaving_temporary_files(tmp_path, number, status, word):
    process = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "t")],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == status
    assert error.strip() == f"perfmodel: {word}"
    assert not list(tmp_path.iterdir())
