"""What nccl-tests and rccl-tests print, as a table of measurements.

    # nThread 1 nGpus 1 minBytes 8 maxBytes 17179869184 step: 2(factor) ...
    #  Rank  0 Group  0 Pid  14840 on node-1 device  0 [0x01] NVIDIA H100 80GB HBM3
    #                                                    out-of-place                       in-place
    #   size     count    type   redop    root     time   algbw   busbw #wrong     time   algbw   busbw #wrong
    #    (B) (elements)                            (us)  (GB/s)  (GB/s)            (us)  (GB/s)  (GB/s)
       1048576   262144   float     sum      -1    27.37   38.31   67.04      0    27.41   38.26   66.95      0

Several runs may stand in one file; prefixes that mpirun, srun or kubectl put before a line are left out. The collective
is the one that the file names (a newer program's "Collective test starting", a command line), or follows from the
columns redop and root and from busbw / algbw, which is 2 (n - 1) / n of an all-reduce over n ranks, (n - 1) / n of a
reduce-scatter, all-gather or all-to-all, 1 of a broadcast, reduce or send (nccl-tests, doc/PERFORMANCE.md).

The program's size is that of the larger buffer, ours one member's input: of an all-gather and a gather the n-th part.
"""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass, field

import pandas as pd

from perfmodel.errors import InputError

PROGRAMS = {
    "all_reduce": "all_reduce",
    "all_gather": "all_gather",
    "reduce_scatter": "reduce_scatter",
    "alltoall": "all_to_all",
    "broadcast": "broadcast",
    "reduce": "reduce",
    "gather": "gather",
    "scatter": "scatter",
    "sendrecv": "send",
}
"""Name of the program, without its ending "_perf" -> what it measures, in our words."""

TYPES = (
    "int8",
    "uint8",
    "int32",
    "uint32",
    "int64",
    "uint64",
    "half",
    "float",
    "double",
    "bfloat16",
    "fp8_e4m3",
    "fp8_e5m2",
    "f8e4m3",
    "f8e5m2",
    "bf16",
    "char",
    "int",
)
"""Data types as the programs spell them."""

_PREFIX = re.compile(r"^(?:\[[\d,]+\]<std(?:out|err)>: ?|\s*\d+: (?=[#\s\d]))")
_RANK = re.compile(
    r"Rank\s+(?P<rank>\d+)\s+(?:Group\s+\d+\s+)?Pid\s+\d+\s+on\s+(?P<host>\S+)\s+device\s+\d+\s+"
    r"\[[^\]]*\]\s*(?P<device>.*)"
)
_PROGRAM = re.compile(rf"\b({'|'.join(PROGRAMS)}|hypercube)_perf")
_LIBRARY = re.compile(r"\b([NR]CCL) version\s*:?\s*(\S+)|nccl-library=(\d+)")
_HEADER = re.compile(r"\bsize\s+count\s+type\b.*\btime\s+algbw\s+busbw(?!\S)")
_DATA = re.compile(rf"^\s*\d+\s+\d+\s+(?:{'|'.join(TYPES)})\b")

CLOSE = 0.02
"""How far bandwidths may be from size / time and from each other: they are printed with two decimals."""


@dataclass
class _Printout:
    """One run of a program: its ranks, then its lines of figures."""

    program: str = ""
    library: str = ""
    device: str = ""
    columns: list[str] = field(default_factory=list)
    hosts: list[str] = field(default_factory=list)
    rows: list[tuple[int, list[str]]] = field(default_factory=list)


def is_nccl_tests(text: str) -> bool:
    """Whether a text is what nccl-tests or rccl-tests print.

    >>> is_nccl_tests("#  size  count  type  redop  root  time  algbw  busbw")
    True
    """
    return _HEADER.search(text) is not None


def read_nccl_tests(
    text: str,
    *,
    source: str = "nccl-tests",
    collective: str | None = None,
    ranks: int | None = None,
    in_place: bool = False,
) -> pd.DataFrame:
    """A row per line of figures.

    Args:
        text: what the program printed, of one run or of several.
        source: the file's name, for messages.
        collective: what was measured, in our words, where the file does not tell it.
        ranks: how many took part, where the file does not tell it.
        in_place: take the times of the operation in place.

    Returns:
        collective (nan: messages from a rank to the next), size_B of one member's input, ranks, per_node (ranks of a
        node; 0: not told), dtype, duration_s, device, library, line.

    Warns:
        UserWarning: rows that are left out, and why.

    Raises:
        InputError: no figures, or ones that contradict each other; a collective or a number of ranks not told.
    """
    runs = _runs(text, source)
    tables = [_table(run, source, collective, ranks, in_place) for run in runs]
    tables = [table for table in tables if len(table)]
    if not tables:
        raise InputError(
            f"{source}: no figures of nccl-tests; expected lines such as "
            "1048576 262144 float sum -1 27.37 38.31 67.04 0"
        )
    return pd.concat(tables, ignore_index=True)


def _runs(text: str, source: str) -> list[_Printout]:
    """The runs of a file, in order."""
    runs = [_Printout()]
    for number, line in enumerate(text.splitlines(), 1):
        line = _PREFIX.sub("", line)
        run = runs[-1]
        if run.rows and ("nThread " in line or _PROGRAM.search(line) or _RANK.search(line)):
            if "concluded" in line:
                run.program = run.program or _program(line)
                continue
            run = _Printout(library=run.library)
            runs.append(run)
        if found := _RANK.search(line):
            if int(found["rank"]) < len(run.hosts) and int(found["rank"]) == 0:
                raise InputError(
                    f"{source}: line {number}: rank 0 is there twice before any figures, so that each process ran "
                    "alone: the program was built without MPI=1; build it with MPI and measure again"
                )
            run.hosts.append(found["host"])
            run.device = run.device or found["device"].strip()
        elif found := _LIBRARY.search(line):
            run.library = f"{found[1]} {found[2]}" if found[1] else f"NCCL {found[3]}"
        elif _HEADER.search(line):
            run.columns = line.replace("#", " ", 1).split()
        elif _DATA.match(line):
            if not run.columns:
                raise InputError(
                    f"{source}: line {number}: figures before their header (size count type ...); "
                    "give the program's output as it is"
                )
            run.rows.append((number, line.split()))
        if not run.rows:
            run.program = run.program or _program(line)
    return runs


def _program(line: str) -> str:
    found = _PROGRAM.search(line)
    return found[1] if found else ""


def _table(
    run: _Printout, source: str, collective: str | None, ranks: int | None, in_place: bool
) -> pd.DataFrame:
    """The rows of one run."""
    rows = [_row(words, run.columns, number, source, in_place) for number, words in run.rows]
    wrong = [row.line for row in rows if row.wrong]
    empty = [row.line for row in rows if not row.size]
    for lines, why in ((wrong, "wrong results"), (empty, "no bytes")):
        if lines:
            warnings.warn(
                f"{source}: {len(lines)} lines with {why} are left out, the first is line {lines[0]}",
                stacklevel=4,
            )
    rows = [row for row in rows if row.size and not row.wrong]
    if not rows:
        return pd.DataFrame()
    best = max(rows, key=lambda row: row.algbw)
    factor = best.busbw / best.algbw if best.algbw else 0.0
    kind = collective or _collective(run.program, best, factor, source)
    members = _members(kind, run, factor, ranks, best, source)
    share = members if kind in ("all_gather", "gather") else 1
    hosts = list(dict.fromkeys(run.hosts))
    per_node = len(run.hosts) // len(hosts) if hosts else 0
    return pd.DataFrame(
        {
            "collective": None if kind == "send" else kind,
            "size_B": [row.size / share for row in rows],
            "ranks": members,
            "per_node": per_node,
            "dtype": [row.type for row in rows],
            "duration_s": [row.time * 1e-6 for row in rows],
            "device": run.device,
            "library": run.library,
            "line": [row.line for row in rows],
        }
    )


@dataclass(frozen=True)
class _Row:
    """A line of figures: size [B], time [us], bandwidths [GB/s]; root -1: none."""

    line: int
    size: int
    type: str
    redop: str
    root: int
    time: float
    algbw: float
    busbw: float
    wrong: bool


def _row(words: list[str], columns: list[str], line: int, source: str, in_place: bool) -> _Row:
    rest = words[3:]
    redop = rest.pop(0) if rest and not _is_number(rest[0]) else ""
    has_root = "root" in columns and len(rest) > 3 and re.fullmatch(r"-?\d+", rest[0])
    root = int(rest.pop(0)) if has_root else -1
    after = columns[columns.index("busbw") + 1 :]
    width = 3 if not after or after[0] == "time" else 4
    part = rest[width : 2 * width] if in_place else rest[:width]
    try:
        time, algbw, busbw = (float(word) for word in part[:3])
    except ValueError:
        place = "in place" if in_place else "out of place"
        raise InputError(
            f"{source}: line {line}: no time, algbw and busbw {place}, got {' '.join(words)}"
        ) from None
    size = int(words[0])
    wrong = len(part) > 3 and part[3] not in ("0", "N/A", "0e+00") and _is_number(part[3])
    if not time > 0 and size:
        raise InputError(f"{source}: line {line}: time is {time}, expected more than 0 us")
    if size and abs(size / time / 1e3 - algbw) > CLOSE * algbw + 0.011 and time > 1:
        raise InputError(
            f"{source}: line {line}: {size} B in {time} us are {size / time / 1e3:.2f} GB/s, but algbw is {algbw}; "
            "the columns are not those of nccl-tests, or the line is damaged"
        )
    return _Row(line, size, words[2], redop, root, time, algbw, busbw, wrong and _errs(part[3]))


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def _errs(word: str) -> bool:
    """Whether the column #wrong (a count) or error (the largest deviation) tells of wrong results."""
    return float(word) >= 1 if re.fullmatch(r"\d+", word) else float(word) > 1e-2


def _collective(program: str, row: _Row, factor: float, source: str) -> str:
    """What was measured, by the program's name or by the columns."""
    if program == "hypercube":
        raise InputError(f"{source}: hypercube_perf is no collective of a trace; leave it out")
    if program:
        return PROGRAMS[program]
    reduces = row.redop not in ("", "none")
    if row.root >= 0:
        return "reduce" if reduces else "broadcast"
    if reduces:
        return "all_reduce" if factor >= 1 - CLOSE else "reduce_scatter"
    if factor >= 1 - CLOSE:
        return "send"
    raise InputError(
        f"{source}: line {row.line}: an all-gather or an all-to-all? The figures of both look alike, and no line names "
        'the program; give collective="all_gather" or "all_to_all" (--collective), or keep the command line in the file'
    )


def _members(
    kind: str, run: _Printout, factor: float, ranks: int | None, row: _Row, source: str
) -> int:
    """How many ranks took part, by the list of ranks or by busbw / algbw; both where both are there."""
    told = ranks or len(run.hosts)
    twice = 2.0 if kind == "all_reduce" else 1.0
    tells = kind not in ("send", "broadcast", "reduce") and factor > 0
    if told:
        expected = twice * (told - 1) / told if tells else 1.0
        if tells and row.algbw > 1 and abs(factor - expected) > CLOSE * expected:
            raise InputError(
                f"{source}: line {row.line}: busbw / algbw is {factor:.3f}, but {kind} over {told} ranks has "
                f"{expected:.3f}; say how many took part and in what (ranks=, collective=)"
            )
        return told
    if tells and row.algbw > 1 and twice - factor > 1e-9:
        found = twice / (twice - factor)
        if round(found) >= 2 and abs(found - round(found)) < 0.02 * found and found < 100:
            return round(found)
    raise InputError(
        f"{source}: no line says how many ranks took part (# Rank 0 ... on host device ...); give ranks= (--ranks)"
    )
