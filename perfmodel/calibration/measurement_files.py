"""Files of measurements, recognised by what is in them: nccl-tests' output, a table, a Kineto trace."""

from __future__ import annotations

import gzip
import io
import zlib
from pathlib import Path

import pandas as pd

from perfmodel.calibration.kineto import read_kineto
from perfmodel.calibration.measurement_tables import bandwidths, bare, standard
from perfmodel.calibration.nccl_tests import is_nccl_tests, read_nccl_tests
from perfmodel.errors import InputError
from perfmodel.trace.pytorch.files import is_pytorch

LARGEST_FILE = 1 << 30
"""Bytes of a file; a table of a million rows has about 100 MB."""

LARGEST_UNPACKED = 1 << 28
"""Bytes that a packed file may grow to: a few kilobytes can claim gigabytes."""

MOST_CELLS = 50_000_000
"""Values of a Parquet table that are read: a few kilobytes can claim billions of equal ones."""


def read_measurements(
    path: str | Path,
    *,
    collective: str | None = None,
    ranks: int | None = None,
    in_place: bool = False,
    dtype: str = "bf16",
) -> pd.DataFrame:
    """The measurements of a file, in the columns of `calibration.measurements`.

    Args:
        path: what nccl-tests or rccl-tests printed (.txt, .log, ...); a table (.csv, .parquet) as `pm.calibrate` takes
            it or with m, n, k and a time; or PyTorch's Kineto traces (.json; also a folder or a prefix of those of
            several ranks). Each may be packed (.gz), but for .parquet.
        collective, ranks, in_place: of nccl-tests, see `nccl_tests.read_nccl_tests`.
        dtype: of matrix products whose table has no column dtype.

    Raises:
        InputError: it cannot be read, is none of these, or has no measurements.
    """
    path = Path(path)
    if not path.is_file() or path.name.endswith((".json", ".json.gz")):
        if is_pytorch(path):
            return read_kineto(path)
        if not path.is_file():
            raise InputError(f"{path}: there is no such file, and no PyTorch trace of that name")
    if path.suffix.lower() == ".parquet":
        return standard(_parquet(path), str(path), dtype)
    raw = _content(path)
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            f"{path}: is no text ({error.reason} at byte {error.start}); expected what nccl-tests printed, a table "
            "or a Kineto trace"
        ) from None
    if is_nccl_tests(text):
        return read_nccl_tests(
            text, source=str(path), collective=collective, ranks=ranks, in_place=in_place
        )
    table = _csv(text, path)
    if {"bytes", "algbw", "busbw"} <= {word for name in table for word in bare(name)}:
        return bandwidths(table, str(path), collective=collective, ranks=ranks)
    return standard(table, str(path), dtype)


def _content(path: Path) -> bytes:
    """All bytes of a file, unpacked."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
            file.seek(0)
            stream = gzip.GzipFile(fileobj=file) if packed else file
            limit = LARGEST_UNPACKED if packed else LARGEST_FILE
            raw = stream.read(limit + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path}: cannot be read: {getattr(error, 'strerror', None) or error}"
        ) from None
    if len(raw) > limit:
        raise InputError(
            f"{path}: more than {limit} bytes{', unpacked; unpack it yourself' if packed else ''}; split it, or take "
            "a sample of its rows"
        )
    return raw


def _csv(text: str, path: Path) -> pd.DataFrame:
    if "\x00" in text[:4096] or "," not in text[:65536]:
        raise InputError(
            f"{path}: is no output of nccl-tests (no line 'size count type ... time algbw busbw'), no table with "
            "commas and no Kineto trace"
        )
    try:
        return pd.read_csv(io.StringIO(text))
    except (ValueError, pd.errors.ParserError) as error:
        raise InputError(f"{path}: is no table ({str(error).strip()})") from None


def _parquet(path: Path) -> pd.DataFrame:
    import pyarrow
    from pyarrow import parquet

    try:
        described = parquet.ParquetFile(path).metadata
        cells = described.num_rows * described.num_columns
        if cells > MOST_CELLS:
            raise InputError(
                f"{path}: {described.num_rows} rows of {described.num_columns} columns; at most {MOST_CELLS} values "
                "are read. Split it, or take a sample of its rows"
            )
        table = pd.read_parquet(path)
        texts = [name for name, column in table.items() if pd.api.types.is_string_dtype(column)]
        return table.astype(dict.fromkeys(texts, object))  # texts that are no UTF-8 show here
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, pyarrow.ArrowException) as error:
        raise InputError(f"{path}: is no table ({error})") from None
