"""Damaged inputs for every reader: each must be read, twice alike, or refused by one clear error.

    python -m tests.damage --count 100000 --seed 1 [--processes 2] [--only NAME]

What counts as a failure: an error that is not the package's, a process that is lost, more than 10 s of processor time,
more than 2 GB of memory, two different results. Input number k of a seed is the same on every machine. Exit status 1
where there was a failure; what failed is kept in a folder that is named.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections import Counter
from pathlib import Path

from tests.damage.reader import Reader
from tests.damage.readers import readers, scratch

SECONDS = 10
BYTES = 2 * 10**9
PATIENCE = 120
"""Seconds without a word after which a process counts as hanging (the machine may be busy)."""

START = 1200
"""Seconds for the first word, before which the sound files are read and loops compiled."""

RUN = 250
"""Inputs of one process."""


def damaged(reader: Reader, name: str, seed: int, number: int) -> bytes:
    """The damaged file's content."""
    return reader.damage(random.Random(f"{seed} {name} {number}"))


def put(reader: Reader, content: bytes, folder: Path) -> None:
    """Write all files of a reader, one of them with another content."""
    for name, sound in reader.files.items():
        (folder / name).write_bytes(content if name == reader.damaged else sound)


def attempt(reader: Reader, folder: Path) -> str:
    """The result, or "refused: ..."."""
    from perfmodel.errors import InputError

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return reader.read(folder)
        except InputError as error:
            text = str(error)
            if len(text) < 15 or len(text) > 100_000:
                raise AssertionError(f"an unclear message: {text[:200]!r}") from error
            return "refused: " + text


def work(name: str, seed: int, numbers: range) -> None:
    """Try some inputs of a reader; a line of JSON before each, and one with the verdict after it."""
    reader = readers()[name]
    signal.signal(signal.SIGPROF, _late)
    with tempfile.TemporaryDirectory(dir=scratch()) as place:
        folder = Path(place) / "in"
        folder.mkdir()
        put(reader, reader.files[reader.damaged], folder)
        attempt(reader, folder)  # compiles, which no input is to be charged with
        for number in numbers:
            print(json.dumps({"number": number}), flush=True)
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            put(reader, damaged(reader, name, seed, number), folder)
            signal.setitimer(signal.ITIMER_PROF, SECONDS)
            try:
                first = attempt(reader, folder)
                verdict = "refused" if first.startswith("refused: ") else "read"
                if verdict == "read" and attempt(reader, folder) != first:
                    verdict = "failed: two results"
            except BaseException as error:
                verdict = f"failed: {type(error).__name__}: {error}"[:300]
            finally:
                signal.setitimer(signal.ITIMER_PROF, 0)
            most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
            if most > BYTES:
                verdict = f"failed: {most / 1e9:.1f} GB"
            print(json.dumps({"number": number, "verdict": verdict, "bytes": most}), flush=True)
            if verdict.startswith("failed: ") and most > BYTES:
                return  # the next ones would seem to take as much


def _late(*_: object) -> None:
    raise TimeoutError(f"more than {SECONDS} s")


def watched(name: str, seed: int, numbers: range, counts: Counter[str], failures: list) -> None:
    """Run `work` in a process of its own, and again behind the input at which it was lost."""
    begin = numbers.start
    while begin < numbers.stop:
        command = [sys.executable, "-m", "tests.damage", "--only", name, "--seed", str(seed)]
        command += ["--work", str(begin), str(numbers.stop)]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        at, answered, most = begin, False, 0
        alarm = threading.Timer(START, process.kill)
        alarm.start()
        assert process.stdout is not None
        for line in process.stdout:
            alarm.cancel()
            alarm = threading.Timer(PATIENCE, process.kill)
            alarm.start()
            told = json.loads(line)
            at, answered = told["number"], "verdict" in told
            if not answered:
                continue
            most = max(most, told["bytes"])
            counts[told["verdict"].split(":")[0]] += 1
            if told["verdict"].startswith("failed"):
                failures.append((name, at, told["verdict"]))
        process.wait()
        alarm.cancel()
        counts["most memory, MB"] = max(counts["most memory, MB"], most // 10**6)
        if process.returncode and not answered:
            assert process.stderr is not None
            said = process.stderr.read().strip()[-200:]
            counts["failed"] += 1
            failures.append(
                (name, at, f"failed: the process ended with {process.returncode} {said}")
            )
        begin = at + 1


def run(count: int, seed: int, processes: int, only: str | None) -> list[tuple[str, int, str]]:
    """Try `count` inputs, equally many of each reader; a line per reader, and the failures."""
    names = [only] if only else list(readers())
    each = -(-count // len(names))
    failures: list[tuple[str, int, str]] = []
    for name in names:
        counts: Counter[str] = Counter()
        pieces = [range(a, min(a + RUN, each)) for a in range(0, each, RUN)]
        for at in range(0, len(pieces), processes):
            threads = [
                threading.Thread(target=watched, args=(name, seed, piece, counts, failures))
                for piece in pieces[at : at + processes]
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        said = ", ".join(f"{word} {counts[word]}" for word in sorted(counts))
        print(f"{name:30} {said}", flush=True)
    return failures


def keep(failures: list[tuple[str, int, str]], seed: int) -> None:
    """Put the inputs that failed into a folder."""
    place = Path(tempfile.mkdtemp(prefix="damaged-"))
    for name, number, verdict in failures:
        reader = readers()[name]
        folder = place / f"{name} {number}".replace(" ", "-").replace(",", "")
        folder.mkdir(exist_ok=True)
        put(reader, damaged(reader, name, seed, number), folder)
        print(f"{folder}: {verdict}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--count", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--processes", type=int, default=1)
    parser.add_argument("--only", default=None)
    parser.add_argument("--work", type=int, nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.only, options.seed, range(*options.work))
        return 0
    failures = run(options.count, options.seed, options.processes, options.only)
    if failures:
        keep(failures, options.seed)
    print(f"{len(failures)} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
