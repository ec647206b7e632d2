"""The one table of units: text with a unit in, SI out, and back for people.

Inside the package every figure is SI (s, B, FLOP, B/s, FLOP/s, W, J, m^2, Hz) and $; a unit is read
or written here only. Decimal prefixes are powers of 1000 (GB), binary ones of 1024 (GiB). Bits are
spelt out (Gbit/s = 1.25e8 B/s), because Gb and GB are told apart by nobody.
"""

import difflib
import math
import re
from decimal import Decimal

from perfmodel.errors import SystemFileError

_DECIMAL = {"": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15, "E": 1e18}
_BINARY = {"Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50}
_SMALL = {"": 1.0, "m": 1e-3, "u": 1e-6, "µ": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12, "f": 1e-15}


def _prefixed(symbol: str, prefixes: dict[str, float], factor: float = 1.0) -> dict[str, float]:
    return {prefix + symbol: scale * factor for prefix, scale in prefixes.items()}


_LARGE = {**_DECIMAL, **_BINARY}
_TABLE: dict[str, dict[str, float]] = {
    "FLOP": {**_prefixed("FLOP", _DECIMAL), **_prefixed("OP", _DECIMAL)},
    "FLOP/s": {**_prefixed("FLOP/s", _DECIMAL), **_prefixed("OP/s", _DECIMAL)},
    "B": {**_prefixed("B", _LARGE), **_prefixed("bit", _LARGE, 1 / 8)},
    "B/s": {**_prefixed("B/s", _LARGE), **_prefixed("bit/s", _LARGE, 1 / 8)},
    "s": {**_prefixed("s", _SMALL), "min": 60.0, "h": 3600.0},
    "Hz": _prefixed("Hz", _DECIMAL),
    "W": {**_prefixed("W", _DECIMAL), "mW": 1e-3},
    "J": {**_prefixed("J", _DECIMAL), **_prefixed("J", _SMALL), "kWh": 3.6e6},
    "J/FLOP": _prefixed("J/FLOP", _SMALL),
    "J/B": {**_prefixed("J/B", _SMALL), **_prefixed("J/bit", _SMALL, 8.0)},
    "$": {"$": 1.0, "USD": 1.0, "k$": 1e3, "M$": 1e6},
    "$/s": {"$/s": 1.0, "$/h": 1 / 3600.0, "USD/h": 1 / 3600.0},
    "$/B": {"$/B": 1.0, "$/GB": 1e-9, "$/GiB": 2.0**-30},
    "m^2": {"m^2": 1.0, "m2": 1.0, "cm^2": 1e-4, "cm2": 1e-4, "mm^2": 1e-6, "mm2": 1e-6},
    "1": {"": 1.0, "%": 0.01},
}
"""SI unit -> spelling -> factor to SI."""

UNITS = tuple(_TABLE)
"""The SI units that texts can be read in."""

_SHOWN: dict[str, dict[str, float]] = {
    "FLOP": _prefixed("FLOP", _DECIMAL),
    "FLOP/s": _prefixed("FLOP/s", _DECIMAL),
    "B": _prefixed("B", _DECIMAL),
    "B/s": _prefixed("B/s", _DECIMAL),
    "s": {"s": 1.0, "ms": 1e-3, "us": 1e-6, "ns": 1e-9, "ps": 1e-12},
    "Hz": _prefixed("Hz", _DECIMAL),
    "W": {**_prefixed("W", _DECIMAL), "mW": 1e-3},
    "J": {**_prefixed("J", _DECIMAL), "mJ": 1e-3, "uJ": 1e-6, "nJ": 1e-9, "pJ": 1e-12},
    "J/FLOP": {"J/FLOP": 1.0, "nJ/FLOP": 1e-9, "pJ/FLOP": 1e-12},
    "J/B": {"J/B": 1.0, "nJ/B": 1e-9, "pJ/B": 1e-12},
    "$": {"$": 1.0, "k$": 1e3, "M$": 1e6},
    "$/s": {"$/h": 1 / 3600.0},
    "$/B": {"$/GB": 1e-9},
    "m^2": {"mm2": 1e-6},
    "1": {"": 1.0},
}
"""SI unit -> the spellings that people are shown -> factor to SI."""

_QUANTITY = re.compile(
    r"\s*([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf))\s*(.*?)\s*"
)


def parse(text: object, unit: str, *, where: str = "figure", zero: bool = False) -> float:
    """A figure with its unit, in SI.

    Args:
        text: a number and a unit, such as "3.35 TB/s".
        unit: the SI unit wanted, a key of the table.
        where: file, section and key, named in the error.
        zero: whether 0 makes sense here (a latency).

    Returns:
        The value in `unit`.

    Raises:
        SystemFileError: no text, no number, no unit, an unknown or unfitting one; negative, zero
            (unless allowed), infinite or not a number.

    >>> parse("3.35 TB/s", "B/s"), parse("400 Gbit/s", "B/s"), parse("1.5 us", "s")
    (3350000000000.0, 50000000000.0, 1.5e-06)
    """
    table = _TABLE[unit]
    expected = f"expected a number and a unit of {unit}, such as {_examples(unit)}"
    if text is None:
        raise SystemFileError(f"{where}: missing; {expected}")
    if not isinstance(text, str):
        raise SystemFileError(f"{where}: got {text!r}, which has no unit; {expected}")
    match = _QUANTITY.fullmatch(text)
    if match is None:
        raise SystemFileError(f"{where}: got {text!r}, which is no number with a unit; {expected}")
    digits, spelling = match[1], match[2]
    if spelling not in table:
        raise SystemFileError(f"{where}: got {text!r}, {_complaint(spelling, unit)}; {expected}")
    value = float(digits)
    if value and math.isfinite(value):
        value = float(Decimal(digits) * Decimal(repr(table[spelling])))
    if not math.isfinite(value) or value < 0 or (value == 0 and not zero):
        wanted = "0 or more" if zero else "more than 0"
        raise SystemFileError(f"{where}: got {text!r}; expected a finite figure, {wanted}")
    return value


def parse_any(text: str, *, where: str = "figure") -> tuple[float, str]:
    """A figure with its unit, in SI, and that SI unit, where the unit's spelling alone says what is measured.

    Raises:
        SystemFileError: as `parse`; a unit that nothing or several things are measured in.

    >>> parse_any("1 PFLOP/s"), parse_any("2 us")
    ((1000000000000000.0, 'FLOP/s'), (2e-06, 's'))
    """
    match = _QUANTITY.fullmatch(text)
    spelling = match[2] if match else ""
    found = [unit for unit, table in _TABLE.items() if spelling and spelling in table]
    if len(found) != 1:
        raise SystemFileError(
            f"{where}: got {text!r}; expected a number with a unit, such as 1 PFLOP/s, 400 GB/s, 2 us"
        )
    return parse(text, found[0], where=where, zero=True), found[0]


def format(value: float, unit: str) -> str:
    """A value in SI for people: three digits and a fitting prefix.

    >>> format(9.89e14, "FLOP/s"), format(0.001234, "s"), format(8e10, "B"), format(0, "s")
    ('989 TFLOP/s', '1.23 ms', '80 GB', '0 s')
    """
    ascending = sorted((scale, spelling) for spelling, scale in _SHOWN[unit].items())
    if value == 0 or not math.isfinite(value):
        return f"{value:g} {unit if unit != '1' else ''}".rstrip()
    fitting = [
        (scale, spelling) for scale, spelling in ascending if abs(_rounded(value / scale)) >= 1
    ]
    scale, spelling = fitting[-1] if fitting else ascending[0]
    return f"{_digits(_rounded(value / scale))} {spelling}".rstrip()


def _rounded(value: float) -> float:
    return float(f"{value:.3g}")


def _digits(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:g}"


def _examples(unit: str) -> str:
    spellings = list(_TABLE[unit])
    chosen = [s for s in spellings if s][:8]
    return ", ".join(chosen) if chosen else "1"


def _complaint(spelling: str, unit: str) -> str:
    if not spelling:
        return "which has no unit"
    for other, table in _TABLE.items():
        if spelling in table:
            return f"whose unit measures {other}, not {unit}"
    near = difflib.get_close_matches(spelling, list(_TABLE[unit]), n=3, cutoff=0.6)
    if re.fullmatch(r"[kKMGT]?b(ps|/s)?|[kKMGT]?[bB]ps", spelling):
        near = ["GB/s or Gbit/s" if spelling.endswith(("/s", "ps")) else "GB or Gbit"]
    return f"unit {spelling!r} is unknown" + (
        f" (did you mean {' or '.join(near)}?)" if near else ""
    )
