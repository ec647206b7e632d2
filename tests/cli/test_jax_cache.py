"""Commands keep what JAX has compiled, in a folder that only the user can write into."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from perfmodel.cli.jax_cache import (
    DIRECTORY,
    SHORTEST,
    cache_folder,
    forget_damaged,
    forget_oldest,
    keep_compiled,
)

TRACE = Path(__file__).resolve().parents[2] / "traces" / "all_reduce_4"

pytestmark = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="folders have no owners here")


@pytest.fixture
def base(tmp_path, monkeypatch):
    """A cache folder of the user's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(DIRECTORY, raising=False)
    monkeypatch.delenv(SHORTEST, raising=False)
    tmp_path.chmod(0o700)
    return tmp_path


def test_the_folder_is_made_for_the_user_alone(base):
    folder = cache_folder()
    assert folder == base / "perfmodel" / "jax"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert cache_folder() == folder


@pytest.mark.parametrize("shared", ["", "perfmodel", "perfmodel/jax"])
def test_nothing_is_kept_where_others_can_write(base, shared):
    cache_folder()
    (base / shared).chmod(0o777)
    assert cache_folder() is None


def test_nothing_is_kept_behind_a_link(base, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (base / "perfmodel").mkdir(mode=0o700)
    (base / "perfmodel" / "jax").symlink_to(elsewhere)
    assert cache_folder() is None


def test_what_the_environment_says_counts(base, monkeypatch):
    monkeypatch.setenv(DIRECTORY, "elsewhere")
    keep_compiled()
    assert os.environ[DIRECTORY] == "elsewhere"
    assert not (base / "perfmodel").exists()


def test_the_oldest_go_when_there_are_too_many(tmp_path):
    for k in range(5):
        (tmp_path / str(k)).touch()
        os.utime(tmp_path / str(k), (k, k))
    forget_oldest(tmp_path, 2)
    assert sorted(f.name for f in tmp_path.iterdir()) == ["3", "4"]


def test_a_command_keeps_what_it_compiled(base):
    many = "network.0.bandwidth=1e11:1e12:600"  # of few designs NumPy takes care, without compiling
    command = [sys.executable, "-m", "perfmodel", "sweep", str(TRACE), "--system", "dgx-h100"]
    command += ["--vary", many, "--models", "roofline"]
    environment = {**os.environ, SHORTEST: "0"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    kept = {f.name for f in (base / "perfmodel" / "jax").iterdir()}
    assert kept
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout == done.stdout
    assert {f.name for f in (base / "perfmodel" / "jax").iterdir()} == kept


def test_what_is_damaged_is_made_anew_without_a_word(base):
    command = [
        *[sys.executable, "-m", "perfmodel", "sweep", str(TRACE), "--system", "dgx-h100", "--json"],
        *["--sample", "9000", "--vary", "network.0.bandwidth=1e11:9e11"],
    ]
    environment = {**os.environ, SHORTEST: "0"}
    first = subprocess.run(command, env=environment, capture_output=True, check=True)
    kept = sorted((base / "perfmodel" / "jax").glob("*-cache"))
    assert kept
    for file in kept:
        file.write_bytes(file.read_bytes()[:50])
    again = subprocess.run(command, env=environment, capture_output=True, check=True)
    assert (again.stdout, again.stderr) == (first.stdout, first.stderr)
    assert all(file.stat().st_size > 50 for file in kept)


def test_other_warnings_and_other_folders_are_left_alone(base, monkeypatch):
    damaged = "Error reading persistent compilation cache entry for 'jit_a': what"
    folder = cache_folder()
    (folder / "jit_a-1-cache").touch()
    (folder / "jit_ab-1-cache").touch()
    monkeypatch.setenv(DIRECTORY, str(base))
    assert not forget_damaged(damaged)
    monkeypatch.setenv(DIRECTORY, str(folder))
    assert not forget_damaged("Error writing persistent compilation cache entry for 'jit_a': what")
    assert not forget_damaged("Error reading persistent compilation cache entry for 'jit_c': what")
    assert not forget_damaged(damaged.replace("jit_a", "../jax/jit_a"))
    assert len(list(folder.iterdir())) == 2
    assert forget_damaged(damaged)
    assert [file.name for file in folder.iterdir()] == ["jit_ab-1-cache"]


def test_what_cannot_be_removed_is_said(base, monkeypatch):
    folder = cache_folder()
    (folder / "jit_a-1-cache").mkdir()
    monkeypatch.setenv(DIRECTORY, str(folder))
    assert not forget_damaged("Error reading persistent compilation cache entry for 'jit_a': what")
