"""What ASTRA-sim prints and logs, line by line: rings, results and statistics of ranks as they end, debug lines.

Standard output has the lines of level info and above, ``log.log`` those of level debug too, ``err.log`` errors only.

Source: ASTRA-sim's Logging, Workload, RingTopology and GeneralComplexTopology at 518bd51.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import numpy as np

from perfmodel.astra import layout
from perfmodel.astra.algorithm_phases import BROADCAST
from perfmodel.astra.event_run import Run
from perfmodel.astra.lower import Lowered
from perfmodel.astra.memory_use import write_memory_use
from perfmodel.astra.statistics import Statistics
from perfmodel.astra.traces import trace_files
from perfmodel.vocabulary import NodeType

LEVELS = ("debug", "info", "warning", "error", "critical")
RING = "system::topology::RingTopology"
GIVES_UP = "warning! a callable is removed before call Only GPU and COMM types are supported for overlap extraction"
LARGEST_LOG = 10 * 2**20
"""Size of a log file at which another one is begun [B]."""
MOST_LOGS = 10
"""Older log files that are kept: log.1.log, log.2.log, ..."""


class Line(NamedTuple):
    """One line of the simulator's log."""

    logger: str
    level: str
    text: str

    def printed(self, time: str) -> str:
        """The line with its prefix."""
        return f"[{time}] [{self.logger}] [{self.level}] {self.text}"


def now() -> str:
    """The time as the lines show it."""
    return datetime.now().isoformat(sep=" ", timespec="milliseconds")


def publish(
    lowered: Lowered, run: Run, exposed: list[int], prefix: str | Path, folder: str | Path
) -> list[str]:
    """Write the files that the simulator writes, and return the lines that it prints.

    Args:
        prefix: of the traces. folder: for ``log.log`` and ``err.log``, made where it is not there.
    """
    peaks = {}
    if lowered.config.system.track_memory:
        peaks = write_memory_use(lowered, run, trace_files(prefix, lowered.flat.ranks), Path())
    time = now()
    found = list(lines(lowered, run, exposed, peaks))
    for name, least in (("log.log", 0), ("err.log", LEVELS.index("error"))):
        texts = (line.printed(time) for line in found if LEVELS.index(line.level) >= least)
        write_log(Path(folder) / name, texts)
    return [line.printed(time) for line in found if line.level != "debug"]


def lines(
    lowered: Lowered,
    run: Run,
    exposed: list[int],
    memory: dict[int, str] | None = None,
) -> Iterator[Line]:
    """All lines of a run that has ended, in their order.

    Args:
        exposed: of each rank [ns]. memory: peak use of the local memory of each rank, where it is tracked.
    """
    yield from _rings_of_rank_0(lowered)
    yield from _Journal(lowered, run, exposed, memory or {}).lines()
    yield Line("system", "warning", "Exiting")


def _rings_of_rank_0(lowered: Lowered) -> Iterator[Line]:
    """A ring for each collective and dimension; a flat algorithm has one ring over all, and none after it."""
    config = lowered.config
    for key in ("all-reduce", "reduce-scatter", "all-gather", "all-to-all"):
        offset = 1
        for size, algorithm in zip(
            config.network.sizes, config.system.algorithms.get(key, ()), strict=False
        ):
            count = config.network.ranks if algorithm.flat else size
            step = 1 if algorithm.flat else offset
            if algorithm.name != "doubleBinaryTree":
                yield Line(
                    RING,
                    "info",
                    f"ring of node 0, id: 0 dimension: local total nodes in ring: {count} index in ring: 0 "
                    f"offset: {step} total nodes in ring: {count}",
                )
            if algorithm.flat:
                break
            offset *= size


@dataclass
class _Journal:
    """Walks through what happened in a run."""

    lowered: Lowered
    run: Run
    exposed: list[int]
    memory: dict[int, str]

    def __post_init__(self) -> None:
        flat, system = self.lowered.flat, self.lowered.config.system
        self.statistics = Statistics(self.lowered, self.run)
        sizes = np.array([len(group) for group in flat.groups])
        collective = (flat.type == NodeType.COMM_COLL) & (flat.comm_type != BROADCAST)
        self.ring = collective & (sizes[flat.group] < flat.ranks) & (not system.replay)
        self.roofline = ~np.isnan(self.statistics.rooflines.attainable)
        self.trace = system.trace
        self.action = np.empty(len(flat.type), np.int64)
        self.action[self.lowered.order] = self.lowered.tables.node_column(layout.NODE_ACTION)
        self.seen: set[tuple[int, int, int]] = set()
        self.text: dict[tuple[int, int], str] = {}

    def lines(self) -> Iterator[Line]:
        order = self.lowered.order
        speaks = self.ring | self.roofline | (self.action == layout.SKIP) | self.trace
        entries = self.run.journal
        row = np.where(entries >= 0, order[np.maximum(entries, 0) // 2], -1)
        issue = entries % 2 == 0
        kept = (row < 0) | (speaks[row] & (issue | self.trace))
        chosen = zip(entries[kept].tolist(), row[kept].tolist(), issue[kept].tolist(), strict=True)
        for entry, r, issued in chosen:
            if r < 0:
                yield from self._rank(-1 - entry)
            elif not issued:
                yield self._event("callback", r, self.run.finish[r])
            else:
                yield from self._issue(r)

    def _event(self, what: str, row: int, time: float) -> Line:
        flat = self.lowered.flat
        name = flat.names[row] if flat.names else ""
        return Line(
            "workload",
            "debug",
            f"{what},sys->id={flat.rank[row]}, tick={int(time)}, node->id={flat.node_id[row]}, "
            f"node->name={name}, node->type={flat.type[row]}",
        )

    def _issue(self, row: int) -> Iterator[Line]:
        """What the issue of a node says."""
        if self.trace:
            yield self._event("issue", row, self.run.issue[row])
        if self.action[row] == layout.SKIP:
            yield self._event("callback", row, self.run.finish[row])
        elif self.roofline[row]:
            yield Line("workload", "debug", self._roofline(row))
        elif self.ring[row]:
            yield from self._group(row)

    def _group(self, row: int) -> Iterator[Line]:
        """The ring of a group smaller than the world, at its first collective of a kind on a rank."""
        flat = self.lowered.flat
        rank, group = int(flat.rank[row]), int(flat.group[row])
        key = (rank, group, int(flat.comm_type[row]))
        if key not in self.seen:
            self.seen.add(key)
            members = flat.groups[group]
            count = len(members)
            yield Line(
                RING,
                "info",
                f"custom ring, id: {rank}, dimension: local total nodes in ring: {count} index in ring: "
                f"{members.index(rank)} total nodes in ring {count}",
            )

    def _roofline(self, row: int) -> str:
        flat, found = self.lowered.flat, self.statistics.rooflines
        work = int(flat.tensor_size[row]), int(flat.num_ops[row])
        if work not in self.text:
            columns = (
                found.intensity,
                found.attainable,
                found.seconds,
                found.compute,
                found.memory,
            )
            values = [_number(column[row]) for column in columns]
            self.text[work] = (
                "operation_intensity={}, perf={}, elapsed_time={} compute_utilization={} memory_utilization={} "
                "tensor_size={} num_ops={}"
            ).format(*values, *(_number(float(value)) for value in work))
        return self.text[work]

    def _rank(self, rank: int) -> Iterator[Line]:
        """The result of a rank, and its statistics."""
        cycles = int(self.run.rank_end[rank])
        yield Line(
            "workload",
            "info",
            f"sys[{rank}] finished, {cycles} cycles, exposed communication {self.exposed[rank]} cycles.",
        )
        yield Line("statistics", "info", f"sys[{rank}]. Post statistics processing start.")
        texts = list(self.statistics.of(rank))
        if texts == [""]:
            yield Line("system", "critical", GIVES_UP)
            return
        yield Line("statistics", "info", f"sys[{rank}]. Post statistics processing end.")
        for text in texts:
            yield Line("statistics", "info", f"sys[{rank}], {text}")
        if rank in self.memory:
            yield Line("workload", "info", f"sys[{rank}] peak memory usage: {self.memory[rank]}")


def _number(value: float) -> str:
    """A number as the simulator's formatting library writes it: as few digits as tell it apart.

    >>> _number(312e12), _number(2.5e-5)
    ('312000000000000', '2.5e-05')
    """
    return repr(float(value)).removesuffix(".0")


def write_log(path: Path, texts: Iterable[str]) -> None:
    """Append lines to a log file as the simulator does: a full one becomes log.1.log, and so on."""
    path.parent.mkdir(exist_ok=True)
    size = path.stat().st_size if path.is_file() else 0
    part: list[bytes] = []

    def flush() -> None:
        with path.open("ab") as file:
            file.write(b"".join(part))
        part.clear()

    for text in texts:
        line = f"{text}\n".encode("utf-8", "surrogateescape")
        if size + len(line) > LARGEST_LOG and size > 0:
            flush()
            _rotate(path)
            size = 0
        part.append(line)
        size += len(line)
    flush()


def _rotate(path: Path) -> None:
    """Move log.log to log.1.log, that to log.2.log, and so on."""
    names = [path, *(path.with_name(f"{path.stem}.{k}.log") for k in range(1, MOST_LOGS + 1))]
    for old, new in reversed(list(pairwise(names))):
        if old.is_file():
            old.replace(new)
