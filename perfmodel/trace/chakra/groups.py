"""Communicator groups: which global ranks belong to the group that a node names.

They stand in a JSON file beside the traces, `{"1": [0, 1], "2": [2, 3]}`, or, with PyTorch, in a
node of every rank. No group at all, and "0" where no file says otherwise, mean all ranks.

Source: astra-sim's --comm-group-configuration; PyTorch's ExecutionTraceObserver (schema 1.0.2 and
later) and chakra_converter, which keeps Python's `str()` of a list that holds one JSON text.
"""

import ast
import json
import re
from pathlib import Path
from typing import Any

from google.protobuf.message import DecodeError

from perfmodel.errors import InputError, TraceError
from perfmodel.json_text import check_held
from perfmodel.trace.chakra import schema
from perfmodel.trace.chakra.rank_trace import INVALID, RankTrace

GroupMembers = dict[str, tuple[int, ...]]

_LITERAL = re.compile(r"\[\s*('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\")\s*\]", re.DOTALL)
_MARK = b"process_group:init"
_MOST_RANKS = 2**31
LARGEST_FILE = 32 * 2**20
"""Bytes of a group file that are read; a million ranks in three groups each take 24 MB."""

_LARGEST_GUESS = LARGEST_FILE  # B; a larger file is not opened to see whether it has groups in it
_LARGEST_TEXT = 2**24


def read_groups(path: str | Path, *, simulator: bool = False) -> GroupMembers:
    """Ranks of each group, in the file's order, by id.

    An entry "0" counts as any other, though ASTRA-sim takes the number for all ranks and stops at
    the entry; so does this function for `simulator`.
    Raises InputError for what is no JSON object of `"<name>": [<distinct ranks>]`.
    """
    try:
        if Path(path).exists() and not (Path(path).is_file() or Path(path).is_dir()):
            raise InputError(f"{path}: is a device or a pipe. Give the path of a group file.")
        with Path(path).open("rb") as file:
            text = file.read(LARGEST_FILE + 1)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}). Give the path of a group file."
        ) from error
    if len(text) > LARGEST_FILE:
        raise InputError(f"{path}: has more than {LARGEST_FILE} B. Is it a group file?")
    check_held(text, path)
    expected = 'Expected a group file like {"1": [0, 1], "2": [2, 3]}.'
    try:
        pairs = json.loads(text, object_pairs_hook=_Pairs)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: is no JSON ({error}). {expected}") from error
    if not isinstance(pairs, _Pairs):
        raise InputError(f"{path}: holds a JSON {_kind(pairs)}. {expected}")
    groups: GroupMembers = {}
    for key, value in pairs.items:
        where = f"{path}: group {_short(key)}"
        if key == "":
            raise InputError(f"{where}: has no name. {expected}")
        if key == "0" and simulator:
            raise InputError(
                f"{where}: ASTRA-sim stops at this entry (ids are greater than 0, and 0 means all"
                f" ranks). Leave it out, or give the group another number. {expected}"
            )
        if key in groups:
            raise InputError(f"{where}: stands twice in the file. Keep one of them.")
        if not isinstance(value, list) or not value:
            raise InputError(f"{where}: is {_kind(value)}, not a list of ranks. {expected}")
        groups[key] = _ranks(value, where)
    return groups


def looks_like_groups(path: Path, *, named: bool = False) -> bool:
    """Whether a JSON file is meant as a group file: an object, not empty, of lists of whole numbers.

    named: it has the trace's name, and is meant as one too where it is no JSON (reading it says why).
    """
    try:
        if path.stat().st_size > _LARGEST_GUESS:
            return False
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError):
        return named
    except OSError:
        return False
    lists = content.values() if isinstance(content, dict) else ()
    if named and content == {}:  # says that the trace of this name has no groups
        return True
    return bool(lists) and all(
        isinstance(ranks, list) and all(type(r) is int for r in ranks) for ranks in lists
    )


def process_groups(trace: RankTrace, world: int | None = None) -> dict[str, tuple[int, ...] | None]:
    """Groups that PyTorch recorded in this rank's trace, by name; None: all ranks, `world` of them.

    The same name may mean other ranks in another rank's file. Names need not be numbers.
    Raises TraceError where the record does not decode, or two records disagree.
    """
    groups: dict[str, tuple[int, ...] | None] = {}
    for i, name in enumerate(_marked(trace)):
        if not name:
            continue
        where = f"{trace.source}: node {int(trace.id[i])} ({trace.name(i)})"
        for group, ranks in _process_groups(trace.record(i), where, world).items():
            if groups.setdefault(group, ranks) != ranks:
                raise TraceError(
                    f"{where}: group {_short(group)} is {ranks or 'all ranks'} here and"
                    f" {groups[group] or 'all ranks'} in an earlier node. Give a group file."
                )
    return groups


def _marked(trace: RankTrace) -> list[bool]:
    """Which nodes carry process groups: by name, as some producers do not type them METADATA."""
    if _MARK not in trace.data:
        return []
    return [_MARK.decode() in name for name in trace.names()]


def _process_groups(
    record: bytes, where: str, world: int | None
) -> dict[str, tuple[int, ...] | None]:
    remedy = "Give a group file instead, or correct the trace."
    if len(record) > _LARGEST_TEXT:
        raise TraceError(
            f"{where}: has {len(record)} B, at most {_LARGEST_TEXT} are read. {remedy}"
        )
    try:
        node = schema.Node.FromString(record)
    except DecodeError as error:
        raise TraceError(f"{where}: does not decode ({error}). {remedy}") from error
    text = node.inputs.values
    if not text.strip() and node.type == INVALID:
        return {}  # written by this package, with the groups in a file beside it
    literal = _LITERAL.fullmatch(text.strip())
    try:
        entries = json.loads(ast.literal_eval(literal[1]) if literal else text)
    except (ValueError, SyntaxError, RecursionError) as error:
        raise TraceError(
            f"{where}, inputs.values: holds no list of process groups ({error};"
            f" got {_short(text)}). {remedy}"
        ) from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise TraceError(f"{where}, inputs.values: is no list of objects. {remedy}")
    groups: dict[str, tuple[int, ...] | None] = {}
    for entry in entries:
        name, ranks, size = entry.get("pg_name"), entry.get("ranks"), entry.get("group_size")
        place = f"{where}, process group {_short(name)}"
        if not isinstance(name, str | int) or isinstance(name, bool) or not isinstance(ranks, list):
            raise TraceError(f"{place}: has no pg_name or no list of ranks. {remedy}")
        members = _ranks(ranks, place, TraceError) if ranks else None
        if members and isinstance(size, int) and size != len(members):
            raise TraceError(
                f"{place}: lists {len(members)} ranks and says group_size {size}. {remedy}"
            )
        if not members and world and isinstance(size, int) and size not in (0, world):
            raise TraceError(
                f"{place}: is all ranks, {size} of them, but the trace has {world}. Add the missing"
                " ranks' files, or give a group file."
            )
        groups[str(name)] = members
    return groups


def _ranks(values: list[Any], where: str, kind: type[InputError] = InputError) -> tuple[int, ...]:
    """The list of ranks, checked."""
    for value in values:
        if type(value) is not int or not 0 <= value < _MOST_RANKS:
            raise kind(f"{where}: {_short(value)} is no rank. Expected whole numbers from 0 on.")
    if len(set(values)) < len(values):
        seen: set[int] = set()
        twice = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
        raise kind(f"{where}: rank {twice} stands twice in it. Expected distinct ranks.")
    return tuple(values)


class _Pairs:
    """A JSON object with its keys as they stand, so that a key given twice is seen."""

    def __init__(self, items: list[tuple[str, Any]]) -> None:
        self.items = items


def _kind(value: Any) -> str:
    names = {_Pairs: "object", list: "list", str: "text", bool: "truth value", type(None): "null"}
    return "empty list" if value == [] else names.get(type(value), "number")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
