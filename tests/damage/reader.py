"""One reader of the package with sound files for it, and how one of them is damaged."""

from __future__ import annotations

import gzip
import io
import random
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.trace.mutate import mutate


@dataclass(frozen=True)
class Reader:
    """Files by name; which of them is damaged; and what reads them, as a text that can be compared.

    packed: the damaged one is a gzip of the damaged bytes. member: of a zip archive only this member is damaged
    ("*": any one), and the archive around it is sound.
    """

    files: Mapping[str, bytes]
    damaged: str
    read: Callable[[Path], str]
    packed: bool = False
    member: str = ""

    def damage(self, random_: random.Random) -> bytes:
        """Another content of the damaged file."""
        sound = self.files[self.damaged]
        if self.member:
            return _with_member_damaged(sound, self.member, random_)
        content = _damaged(sound, random_)
        return gzip.compress(content, 1, mtime=0) if self.packed else content


def _damaged(sound: bytes, random_: random.Random) -> bytes:
    return mutate(sound, random_) if random_.random() < 0.5 else _slightly(sound, random_)


def _slightly(data: bytes, random_: random.Random) -> bytes:
    """The data with one byte, or the digits of one number, exchanged: the kind of damage that may pass."""
    if not data:
        return b"0"
    at = random_.randrange(len(data))
    if 48 <= data[at] < 58:
        return data[:at] + bytes([random_.choice(b"0123456789")]) + data[at + 1 :]
    return data[:at] + bytes([data[at] ^ 1 << random_.randrange(8)]) + data[at + 1 :]


def _with_member_damaged(archive: bytes, member: str, random_: random.Random) -> bytes:
    """A zip archive whose checksums are those of what is in it."""
    sink = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(archive)) as found, zipfile.ZipFile(sink, "w") as made:
        names = found.namelist()
        chosen = random_.choice(names) if member == "*" else member
        for info in found.infolist():
            content = found.read(info)
            if info.filename == chosen:
                content = _damaged(content, random_)
            made.writestr(zipfile.ZipInfo(info.filename), content, info.compress_type)
    return sink.getvalue()
