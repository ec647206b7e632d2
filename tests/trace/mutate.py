"""Trace files damaged at random: each must load or give one clear error, within seconds and 2 GB.

    python -m tests.trace.mutate --count 10000 --seed 1 FILE...

Every file in turn is damaged in one of a dozen ways and loaded. What is reported: how many loaded, how many were
refused and with what kinds of message, the slowest, the memory at the end; exit status 1 where one failed otherwise.
"""

from __future__ import annotations

import argparse
import gzip
import random
import re
import resource
import signal
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

SECONDS = 10
SHOWN = 25
BYTES = 2 * 2**30
_NUMBER = re.compile(rb"-?\d+(\.\d+)?([eE][+-]?\d+)?")
_STRANGE = (
    b"-1", b"0", b"1", b"18446744073709551615", b"9223372036854775808", b"1e308", b"NaN", b"null", b"true",
    b'"text"', b"[]", b"{}", b"99999999999999999999999999", b"0.5", b"-0.0", b"2147483648",
)  # fmt: skip


def mutate(data: bytes, random_: random.Random) -> bytes:
    """The data with one to three faults in it."""
    for _ in range(random_.randint(1, 3)):
        data = random_.choice(_WAYS)(data, random_)
    return data


def _place(data: bytes, random_: random.Random) -> int:
    """A position, near the beginning as often as anywhere."""
    return random_.randrange(max(1, min(len(data), random_.choice((64, 1024, len(data) + 1)))))


def _flip(data, random_):
    at = _place(data, random_)
    return (
        data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :] if data else data
    )


def _byte(data, random_):
    at = _place(data, random_)
    return data[:at] + bytes([random_.randrange(256)]) + data[at + 1 :]


def _cut(data, random_):
    return data[: _place(data, random_)]


def _drop(data, random_):
    at = _place(data, random_)
    return data[:at] + data[at + random_.randint(1, 64) :]


def _repeat(data, random_):
    at = _place(data, random_)
    piece = data[at : at + random_.randint(1, 256)]
    return data[:at] + piece * random_.choice((2, 3, 100)) + data[at:]


def _insert(data, random_):
    at = _place(data, random_)
    return data[:at] + random_.randbytes(random_.randint(1, 16)) + data[at:]


def _number(data, random_):
    found = list(_NUMBER.finditer(data[: 2**16])) or list(_NUMBER.finditer(data))[:1000]
    if not found:
        return _byte(data, random_)
    match = random_.choice(found)
    return data[: match.start()] + random_.choice(_STRANGE) + data[match.end() :]


def _line(data, random_):
    lines = data.split(b"\n")
    at = random_.randrange(len(lines))
    return b"\n".join(
        [*lines[:at], *random_.choice(([], [lines[at]] * 2, [b""])), *lines[at + 1 :]]
    )


def _swap(data, random_):
    a, b = sorted((_place(data, random_), _place(data, random_)))
    return data[:a] + data[b : b + 32] + data[a + 32 : b] + data[a : a + 32] + data[b + 32 :]


def _nest(data, random_):
    at = _place(data, random_)
    return (
        data[:at] + random_.choice((b"[", b"{", b'{"a":')) * random_.choice((1, 5000)) + data[at:]
    )


_WAYS: tuple[Callable[[bytes, random.Random], bytes], ...] = (
    *(_flip, _byte, _cut, _drop, _repeat, _insert, _number, _number, _line, _swap, _nest),
)


def attempt(load: Callable[[Path], object], path: Path, data: bytes) -> str:
    """ "loaded", or the error's text; anything but a TraceError or InputError is raised."""
    from perfmodel.errors import InputError

    path.write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            load(path)
        except InputError as error:
            text = str(error)
            assert len(text) > 20, text
            return text
    return "loaded"


def run(files: list[Path], count: int, seed: int, load: Callable[[Path], object]) -> Counter[str]:
    """Damage and load `count` times; the counts of what came out, by the beginning of the message.

    Raises:
        AssertionError: a load that took too long, or raised something else than an error of ours.
    """
    random_ = random.Random(seed)
    contents = {file: file.read_bytes() for file in files}
    contents = {f: gzip.decompress(d) if d[:2] == b"\x1f\x8b" else d for f, d in contents.items()}
    counts: Counter[str] = Counter()
    slowest = 0.0
    with tempfile.TemporaryDirectory() as folder:
        for k in range(count):
            file = files[k % len(files)]
            data = mutate(contents[file], random_)
            target = Path(folder) / file.name.removesuffix(".gz")
            began = time.perf_counter()
            signal.alarm(SECONDS)
            try:
                text = attempt(load, target, data)
            except BaseException as error:
                keep = Path(tempfile.gettempdir()) / f"mutated_{seed}_{k}_{target.name}"
                keep.write_bytes(data)
                raise AssertionError(
                    f"{file} as number {k} of seed {seed} ({keep}): {error!r}"
                ) from error
            finally:
                signal.alarm(0)
                target.unlink(missing_ok=True)
            slowest = max(slowest, time.perf_counter() - began)
            kind = re.sub(r"\d+", "#", text.replace(str(target), "FILE").split("\n")[0])[:70]
            counts["loaded" if text == "loaded" else kind] += 1
    counts["slowest, ms"] = round(slowest * 1000)
    return counts


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    from perfmodel.workload.load import load

    def late(*_):
        raise TimeoutError(f"took more than {SECONDS} s")

    signal.signal(signal.SIGALRM, late)

    def load_(path: Path) -> object:
        return load(path, ranks=4 if path.suffix == ".txt" else None)

    try:
        load_(options.files[0])
    except Exception as error:
        print(f"undamaged: {error}")
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + BYTES, used + BYTES))
    counts = run(options.files, options.count, options.seed, load_)
    for text, count in counts.most_common(SHOWN):
        print(f"{count:8}  {text}")
    print(f"{len(counts) - 1} kinds of outcome, none of them a failure")
    print(f"most memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10:.0f} MiB")


if __name__ == "__main__":
    try:
        main()
    except AssertionError as error:
        sys.exit(str(error))
