"""The arrays in a NumPy archive (.npz) that nobody vouches for.

An archive is a zip file of stored (not compressed) members, each an array with a short header. Everything that a
member says about itself is checked against the bytes that are there before memory is asked for, so that reading takes
what the file takes. Objects (pickles) are refused.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from perfmodel.files import whole_file

FAULTS = (
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    OSError,
    EOFError,
    RuntimeError,  # NotImplementedError and RecursionError, too
    OverflowError,
    MemoryError,
    struct.error,
    zlib.error,
    zipfile.BadZipFile,
)
"""What bytes that are no archive of arrays raise, here, in zipfile or in JSON."""

_LONGEST_HEADER = 4096
_UTF8_NAME = 0x800
_MAGIC = b"\x93NUMPY\x01\x00"
_HEADER = re.compile(
    r"\{'descr': '(?P<kind>[^']{1,20})', 'fortran_order': (?P<order>True|False), "
    r"'shape': \((?P<shape>[0-9, ]{0,60})\), \}\s*"
)


def write_members(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays as an archive that `numpy.load` reads, whole or not at all."""
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    with whole_file(path) as file:
        np.savez(file, **plain)  # type: ignore[arg-type]


class Members:
    """The members of an archive by name, without their ".npy"; each is read when it is asked for.

    Raises one of `FAULTS` where the file is no archive, or a member is compressed, encrypted, there twice, or longer
    than the file.
    """

    def __init__(self, path: Path):
        raw = path.read_bytes()
        if not zipfile.is_zipfile(io.BytesIO(raw)):
            raise ValueError("no archive")
        self._zip = zipfile.ZipFile(io.BytesIO(raw))
        self._infos: dict[str, zipfile.ZipInfo] = {}
        total = 0
        for info in self._zip.infolist():
            name = info.filename.removesuffix(".npy")
            total += info.file_size
            if info.flag_bits & ~_UTF8_NAME or info.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"member {name[:60]!r} is compressed, encrypted or of another kind"
                )
            if name in self._infos or info.file_size != info.compress_size or total > len(raw):
                raise ValueError(f"member {name[:60]!r} is there twice or longer than the file")
            self._infos[name] = info

    def expect(self, names: Iterable[str]) -> None:
        """Raise ValueError unless there are exactly these members."""
        wanted = set(names)
        for name in sorted(wanted ^ set(self._infos)):
            state = "missing" if name in wanted else "not expected"
            raise ValueError(f"member {name[:60]!r} is {state}")

    def array(self, name: str, kind: str, *shape: int | None) -> np.ndarray:
        """An array of that dtype and shape; None for a length that may be any."""
        raw = self._zip.read(self._infos[name])
        if not raw.startswith(_MAGIC):
            raise ValueError(f"member {name!r} is no array")
        (length,) = struct.unpack_from("<H", raw, 8)
        if length > _LONGEST_HEADER or 10 + length > len(raw):
            raise ValueError(f"member {name!r} has no sound header")
        header = _HEADER.fullmatch(raw[10 : 10 + length].decode("latin1"))
        if header is None:
            raise ValueError(f"member {name!r} has no sound header")
        dtype = np.dtype(kind)
        if header["kind"] != dtype.str:
            what = "objects, which need allow_pickle, never on" if "O" in header["kind"] else ""
            raise ValueError(
                f"member {name!r} holds {what or header['kind']}, expected {dtype.str}"
            )
        there = tuple(int(n) for n in header["shape"].split(",") if n.strip())
        fits = len(there) == len(shape) and all(w in (None, n) for w, n in zip(shape, there))
        if not fits or header["order"] != "False":
            raise ValueError(f"member {name!r} has the shape {there!r}, expected {shape}")
        count = math.prod(there)
        if count * dtype.itemsize != len(raw) - 10 - length:
            raise ValueError(f"member {name!r} has not the bytes of its shape {there!r}")
        if dtype.kind == "b" and (np.frombuffer(raw, np.uint8, count, 10 + length) > 1).any():
            raise ValueError(f"member {name!r} holds no truth values")
        return np.frombuffer(raw, dtype, count, 10 + length).reshape(there).copy()
