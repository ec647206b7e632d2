"""JSON that nobody vouches for: what its values would take in memory is bounded before they are made."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from perfmodel.errors import InputError

HELD = 1.5e9
"""What the values of a text may take however short it is [B]."""

HELD_PER_BYTE = 24
"""What those of a longer one may take, in terms of its length; real traces take 5 to 10."""

_COSTS = ((b"{", 240), (b"[", 70), (b",", 40), (b":", 40))
"""Sign -> bytes that a value behind it takes at least, in CPython: a dictionary, a list, a number or text in either."""


def check_held(raw: bytes, source: object, *, kind: type[InputError] = InputError) -> None:
    """Raise an error of that kind where the values of a JSON text would take too much memory.

    >>> check_held(b'{"a": [1, 2]}', "x.json")
    """
    held = len(raw) + sum(raw.count(sign) * cost for sign, cost in _COSTS)
    most = max(HELD, HELD_PER_BYTE * len(raw))
    if held > most:
        raise kind(
            f"{source}: {len(raw)} B of JSON hold so many values that they would take {held / 1e9:.1f} GB; at most "
            f"{most / 1e9:.1f} GB are taken for that size. The file is damaged, or is no trace"
        )


def loads(
    raw: bytes,
    source: object,
    *,
    kind: type[InputError] = InputError,
    pairs: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """The value of a JSON text, a byte-order mark before it or not.

    Args:
        raw: the text.
        source: what messages call it.
        kind: of the error.
        pairs: makes the objects, from their keys and values in order.

    Raises:
        InputError: it is no JSON, or would take too much memory.

    >>> loads(b'{"a": [1, 2]}', "x.json")
    {'a': [1, 2]}
    """
    check_held(raw, source, kind=kind)
    try:
        return json.loads(raw.decode("utf-8-sig"), object_pairs_hook=pairs)
    except (ValueError, RecursionError) as error:
        raise kind(f"{source}: is no JSON ({error})") from None
