"""Values of configuration files as ASTRA-sim's readers take them: numbers, switches, texts.

The simulator converts as C++ does: a whole number may be written with a fraction, which is cut, or as true or false;
a switch is on unless it is the number 0, so that false and "0" switch it on. What would mislead is kept as a note.

Source: nlohmann-json's conversions and comparisons; yaml-cpp's scalars.
"""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable, Hashable, Iterable, Mapping
from pathlib import Path
from typing import Any

import yaml

from perfmodel.errors import SystemFileError

LARGEST = 2**31 - 1
"""Largest whole number of the simulator's configuration."""


class Taker:
    """Takes keys from a mapping, checks them, and remembers which were asked for, and what misleads."""

    def __init__(self, data: Mapping[str, Any], name: str):
        self.data, self.name, self.known = data, name, set[str]()
        self.notes: list[str] = []

    def number(
        self,
        key: str,
        default: float | None,
        least: float = -math.inf,
        most: float = math.inf,
    ) -> float:
        self.known.add(key)
        if key not in self.data and default is not None:
            return default
        return real(self.data.get(key), f"{self.name}: {key}", least=least, most=most)

    def integer(self, key: str, default: int | None, least: int, most: float = LARGEST) -> int:
        """A whole number; a fraction is cut, true and false are 1 and 0."""
        self.known.add(key)
        if key not in self.data and default is not None:
            return default
        value = self.data.get(key)
        if isinstance(value, float) and math.isfinite(value) and value != int(value):
            self.notes.append(f"{self.name}: {key} is {value!r}, which is cut to {int(value)}")
        value = int(value) if isinstance(value, bool) else value
        where = f"{self.name}: {key}"
        real(value, where, most=most)
        return int(real(int(value or 0), where, least=least, most=most))

    def switch(self, key: str) -> bool:
        """On unless absent or the number 0."""
        self.known.add(key)
        value = self.data.get(key, 0)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return value != 0
        if value is not True:
            text = json.dumps(value, default=str)[:40]
            self.notes.append(
                f"{self.name}: {key} is {text}, which switches it on in ASTRA-sim (it compares with the number 0); "
                "write 0 to switch it off"
            )
        return True

    def text(self, key: str, default: str) -> str:
        self.known.add(key)
        value = self.data.get(key, default)
        if not isinstance(value, str):
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected a text")
        return value

    def choice(self, key: str, options: tuple[str, ...], default: str | None) -> str:
        self.known.add(key)
        value = self.data.get(key, default)
        if value not in options:
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected one of {options}")
        return str(value)

    def texts(self, key: str) -> list[str] | None:
        self.known.add(key)
        value = self.data.get(key)
        if value is None and key not in self.data:
            return None
        if not isinstance(value, list) or not value or not all(isinstance(v, str) for v in value):
            raise SystemFileError(f"{self.name}: {key} is {value!r}; expected a list of texts")
        return value

    def ignored(self) -> tuple[str, ...]:
        """The keys that nobody asked for, with the file."""
        return tuple(f"{self.name}: {key}" for key in sorted(set(self.data) - self.known, key=str))


def scalar(value: Any) -> Any:
    """A number that YAML 1.1 takes for a text (1e3, "50") as ASTRA-sim's reader takes it.

    >>> scalar("1e3")
    1000.0
    """
    pattern = r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?"
    return float(value) if isinstance(value, str) and re.fullmatch(pattern, value) else value


def whole(value: Any) -> Any:
    """The same for a whole number."""
    return int(value) if isinstance(value, str) and re.fullmatch(r"[0-9]{1,18}", value) else value


def real(
    value: Any,
    where: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
) -> float:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    good = number and abs(value) < math.inf
    if not good or value < least or value <= above or value > min(most, sys.float_info.max):
        bound = f", at least {least:g}" if least > -math.inf else ""
        bound = f", above {above:g}" if above > -math.inf else bound
        bound += f", at most {most:g}" if most < math.inf else ""
        raise SystemFileError(f"{where} is {value!r}; expected a number{bound}")
    return float(value)


LARGEST_FILE = 1 << 20
"""Bytes of a configuration file that are read."""

LARGEST_YAML = 1 << 16
"""Characters of a YAML file that are read: PyYAML takes a second for 100,000."""

DEEPEST = 20


def read_mapping(
    source: str | Path | Mapping[str, Any], load: Callable[[str, str], Any], what: str
) -> tuple[Mapping[str, Any], str]:
    if isinstance(source, Mapping):
        return source, f"<{what} configuration>"
    path = Path(source)
    try:
        if path.exists() and not path.is_file():
            raise SystemFileError(f"{path}: is no file; expected the {what} file")
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise SystemFileError(f"{path}: cannot be read as the {what} file ({error})") from None
    if len(raw) > LARGEST_FILE:
        raise SystemFileError(
            f"{path}: more than {LARGEST_FILE} B, which is no {what} configuration"
        )
    data = load(text, str(path))
    if not isinstance(data, dict) or not all(isinstance(key, str | int) for key in data):
        raise SystemFileError(f"{path}: not a {what} configuration; expected keys and values")
    return data, str(path)


def _pairs(pairs: Iterable[tuple[Any, Any]]) -> dict[Any, Any]:
    """The keys and values of a mapping, each key once: readers differ in which of two they take."""
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if key in found:
            raise SystemFileError(f"the key {key!r} is given twice; expected once")
        found[key] = value
    return found


class _Loader(yaml.SafeLoader):
    """YAML in which no key may be given twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        made = super().construct_mapping(node, deep=deep)
        _pairs((self.construct_object(key, deep=True), None) for key, _ in node.value)
        return made


def load_json(text: str, name: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=_pairs)
    except SystemFileError as error:
        raise SystemFileError(f"{name}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise SystemFileError(f"{name}: not JSON ({error})") from None


def load_yaml(text: str, name: str) -> Any:
    """What a YAML text says in plain words: aliases, which can mean gigabytes in a line, and tags are refused."""
    try:
        _check_plain(text)
        return yaml.load(text, Loader=_Loader)
    except SystemFileError as error:
        raise SystemFileError(f"{name}: {error}") from None
    except (yaml.YAMLError, RecursionError, ValueError, *_ODD) as error:
        reason = " ".join(str(error).split())
        raise SystemFileError(f"{name}: not YAML ({reason})") from None


_ODD = (TypeError, AttributeError, IndexError, KeyError, OverflowError)
"""What PyYAML raises for scalars that look like numbers or dates and are none."""


def _check_plain(text: str) -> None:
    """Raise SystemFileError for YAML that a configuration has no use for."""
    depth = 0
    if len(text) > LARGEST_YAML:
        raise SystemFileError(f"has {len(text)} characters; expected at most {LARGEST_YAML}")
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        line = event.start_mark.line + 1 if event.start_mark else 0
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise SystemFileError(f"line {line}: an alias (& or *); write the value out")
        tag = getattr(event, "tag", None)
        if tag:
            raise SystemFileError(f"line {line}: the tag {tag!r}; expected plain values")
        depth += isinstance(event, yaml.CollectionStartEvent)
        depth -= isinstance(event, yaml.CollectionEndEvent)
        if depth > DEEPEST:
            raise SystemFileError(f"lists within lists, more than {DEEPEST} deep")
