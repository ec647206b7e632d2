"""The folder of a sweep: a note that says which sweep it holds, and a Parquet file for each part of it.

A part is believed only after a check: the file carries a checksum of all its bytes, the sweep and the part that it
belongs to, and the points that it answers. What fails is not there, and is evaluated again.

The checksum stands in the Parquet file's own metadata: it is that of the file with zeros in the checksum's place, so
nothing is parsed before every byte is known to be as it was written.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from perfmodel.analysis.designs import Designs
from perfmodel.errors import InputError
from perfmodel.files import is_leftover, remove_leftovers, whole_file, write_whole

NOTE = "_sweep.json"
"""Says which sweep a folder of parts holds; readers of Parquet folders pass over names like this."""

FORMAT = "perfmodel-sweep-3"

_KEY = b"perfmodel"
_BLANK = "0" * 64
_SEAL = b'"sha256": "'
_LONGEST_NOTE = 1 << 24
_LARGEST_ROW = 1 << 16
"""Bytes of a file per row of a part, and at least, that are taken for a part."""


class Damaged(Exception):
    """A file is no whole part of this sweep; the text says why."""


@dataclass(frozen=True)
class Store:
    """The parts of one sweep in one folder.

    Attributes:
        folder: where they are.
        sweep: which sweep it is, a hash of all that its numbers depend on.
        place: a random text in the folder's note: who sees the same one sees the same folder.
    """

    folder: str
    sweep: str
    place: str

    def path(self, part: int) -> Path:
        """The file of a part."""
        return Path(self.folder) / f"part-{part:06d}.parquet"

    def is_here(self) -> bool:
        """Whether this process sees the folder that the sweep's asker sees."""
        try:
            return bool(_read_note(Path(self.folder) / NOTE).get("place") == self.place)
        except OSError:
            return False

    def write(self, part: int, result: pd.DataFrame) -> None:
        """Write the rows of a part, whole or not at all.

        Raises:
            InputError: the file cannot be written.
        """
        mark = {"sweep": self.sweep, "part": part, "rows": len(result), "sha256": _BLANK}
        table = pa.Table.from_pandas(result)
        table = table.replace_schema_metadata(
            {**(table.schema.metadata or {}), _KEY: json.dumps(mark).encode()}
        )
        sink = pa.BufferOutputStream()
        pq.write_table(table, sink)
        raw = bytearray(sink.getvalue())
        at = _seal(raw)
        raw[at : at + 64] = hashlib.sha256(raw).hexdigest().encode()
        with whole_file(self.path(part)) as file:
            file.write(raw)

    def read(self, part: int, points: Designs) -> pd.DataFrame:
        """The rows of a part, checked.

        Args:
            part: its number.
            points: the points that it answers.

        Raises:
            Damaged: the file is not what `write` wrote for this part of this sweep.
            FileNotFoundError: there is none.
        """
        path = self.path(part)
        try:
            if path.stat().st_size > _LARGEST_ROW * (len(points) + 1024):
                raise Damaged("is larger than any part")
            raw = bytearray(path.read_bytes())
            at = _seal(raw)
            seal = raw[at : at + 64].decode("ascii", "replace")
            raw[at : at + 64] = _BLANK.encode()
            if hashlib.sha256(raw).hexdigest() != seal:
                raise Damaged("its checksum is not that of its content")
            table = pq.read_table(pa.BufferReader(bytes(raw)))
            mark = json.loads((table.schema.metadata or {})[_KEY])
            expected = {"sweep": self.sweep, "part": part, "rows": len(points), "sha256": _BLANK}
            if mark != expected:
                differing = [key for key in expected if mark.get(key) != expected[key]]
                raise Damaged(f"belongs to another sweep or part (its {', '.join(differing)})")
            frame = table.to_pandas()
        except FileNotFoundError:
            raise
        except (OSError, ValueError, KeyError, TypeError, pa.ArrowException) as error:
            raise Damaged(
                f"is no Parquet file of a part ({error or type(error).__name__})"
            ) from None
        _check_points(frame, points)
        return frame


def _seal(raw: bytearray) -> int:
    """Where the checksum stands in a file's bytes."""
    at = raw.rfind(_SEAL)
    if at < 0 or at + len(_SEAL) + 64 > len(raw):
        raise Damaged("carries no checksum")
    return at + len(_SEAL)


def _check_points(frame: pd.DataFrame, points: Designs) -> None:
    """Raise Damaged unless the rows answer exactly these points."""
    if not np.array_equal(frame.index, points.rows):
        raise Damaged("has other rows")
    for column, values in points.columns.items():
        if column not in frame or not np.array_equal(frame[column], values):
            raise Damaged(f"answers other points (column {column})")


def claim(folder: Path, described: Mapping[str, Any]) -> Store:
    """Note in a folder which sweep it holds, or check that it is this one.

    Args:
        folder: made where it is not there.
        described: what the sweep's numbers depend on, by name; hashes and numbers.

    Raises:
        InputError: the folder holds another sweep or something else, or cannot be written.
    """
    described = json.loads(json.dumps(dict(described)))
    try:
        folder.mkdir(parents=True, exist_ok=True)
        note = folder / NOTE
        if not note.exists():
            there = [path.name for path in folder.iterdir() if not is_leftover(path.name)]
            if there:
                raise InputError(
                    f"{folder}: is not empty and holds no sweep; choose an empty folder"
                )
            fresh = {"format": FORMAT, "place": uuid4().hex, **described}
            write_whole(note, json.dumps(fresh, indent=1).encode())
        found = _read_note(note)  # perhaps that of another process which came first
        remove_leftovers(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be used: {error.strerror or error}") from None
    differing = [key for key in described if found.get(key) != described[key]]
    if found.get("format") != FORMAT:
        differing = [*differing, "format"]
    if differing:
        raise InputError(
            f"{folder}: holds another sweep (its {', '.join(differing)} differ); "
            "choose another folder or delete this one"
        )
    sweep = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
    return Store(str(folder.resolve()), sweep, str(found.get("place")))


def _read_note(path: Path) -> dict[str, Any]:
    """What a note says; nothing where it is none."""
    with path.open("rb") as file:
        text = file.read(_LONGEST_NOTE)
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
