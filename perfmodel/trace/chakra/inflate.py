"""gzip, recognised by content and unpacked within bounds.

A few kilobytes of gzip can claim terabytes (deflate packs 1,032 : 1 at best), so both the size and
the ratio of what comes out are limited. Traces pack 5 to 60 : 1. What comes out of a file below 64 MiB
is limited further, so that no such file takes more than 2 GB to read.
"""

import zlib

from perfmodel.errors import TraceError

LIMIT = 8 * 2**30  # most bytes a file may grow to
RATIO = 400  # most bytes out of one, once more than FREE bytes have come out
FREE = 64 * 2**20
SMALL = 64 * 2**20  # a file below this size
SMALL_LIMIT = 640 * 2**20  # may grow to so many bytes
_MAGIC = b"\x1f\x8b\x08"  # what every gzip member begins with: magic, method "deflate"
_STEP = 4 * 2**20
_GZIP = 31  # zlib's number for: 32 KiB window, gzip header and checksum


def inflate(data: bytes, source: str, *, limit: int = LIMIT) -> bytes:
    """The content of gzip data (members one after the other), or the data itself if it is not gzip.

    Raises TraceError where the data is damaged, cut, or grows beyond the limits.

    >>> import gzip
    >>> inflate(gzip.compress(b"abc") + gzip.compress(b"d"), "x.et")
    b'abcd'
    """
    if not data.startswith(_MAGIC):
        return data
    limit = min(limit, SMALL_LIMIT) if len(data) < SMALL else limit
    pieces: list[bytes] = []
    size = 0
    rest = data
    while rest.strip(b"\0"):  # padding behind the last member is allowed
        member = zlib.decompressobj(_GZIP)
        while not member.eof:
            try:
                piece = member.decompress(rest, _STEP)
            except zlib.error as error:
                raise TraceError(
                    f"{source}: gzip data is damaged after {size} unpacked bytes ({error})."
                    " Write or copy the file again."
                ) from error
            rest = member.unconsumed_tail
            if not piece and not rest and not member.eof:
                raise TraceError(
                    f"{source}: gzip data ends after {size} unpacked bytes, before its checksum."
                    " The file is cut off: write or copy it again."
                )
            pieces.append(piece)
            size += len(piece)
            if size > limit or (size > FREE and size > RATIO * len(data)):
                raise TraceError(
                    f"{source}: {len(data)} B of gzip unpack to more than {size} B; at most"
                    f" {limit} B and {RATIO} times the file's size are taken. Unpack the file"
                    " yourself (gunzip) if it is meant to be so large."
                )
        rest = member.unused_data
    return b"".join(pieces)
