"""What commands print and write: tables for people and for programs, files by their names' endings."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from perfmodel.cli.text_table import text_table
from perfmodel.errors import InputError
from perfmodel.files import check_target, whole_file

TABLES = (".csv", ".parquet", ".json")
PICTURES = (".png", ".svg", ".pdf")


class Target(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A file to write, checked before any work is done."""

    name = "path"

    def __init__(self, *endings: str):
        self.endings = endings

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        check_target(value, self.endings)
        text: str = value
        return text


class TimelineFile(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A trace-event file to write, or one with a further ending, checked before any work is done."""

    name = "path"

    def __init__(self, *more: str):
        self.more = more

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        from perfmodel.report.timeline_file import ENDINGS

        check_target(value, (*ENDINGS, *self.more))
        text: str = value
        return text


class Folder(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """A folder to write into, there already or not."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not value.strip():
            raise InputError(f"{value!r}: is no folder to write; expected its name")
        if Path(value).exists() and not Path(value).is_dir():
            raise InputError(f"{value}: is a file; expected a folder to write")
        text: str = value
        return text


class Source(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Something to read: any name but an empty one, which would mean the current folder."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not value.strip():
            self.fail("is empty; expected the name of a file or folder", param, ctx)
        text: str = value
        return text


def output_options(function: Any) -> Any:
    """--json and -o of the commands that answer with a table."""
    for option in (
        click.option(
            "-o",
            "--output",
            type=Target(*TABLES),
            help="Write the table to FILE.csv, .parquet or .json.",
        ),
        click.option(
            "--json", "as_json", is_flag=True, help="JSON on standard output, for programs."
        ),
    ):
        function = option(function)
    return function


def show(table: Any, as_json: bool, output: str | None) -> None:
    """Print a table for people or programs, or write it to a file whole or not at all.

    A table is a data frame, or arrays by column name.
    """
    if output:
        write_table(table, output)
    elif as_json:
        click.echo(_records(table))
    else:
        click.echo(text_of(table))


def text_of(table: Any, *, missing: str = "NaN") -> str:
    """A table for people, without a data frame's index."""
    return text_table({str(name): table[name].tolist() for name in table}, missing=missing)


def fits(margin: float) -> str:
    """Whether a step's memory fits, in words, from the capacity that is left [B]."""
    from perfmodel import units

    size = units.format(abs(margin), "B")
    return f"fits with {size} to spare" if margin >= 0 else f"does NOT fit, {size} too much"


def counted(number: int, noun: str) -> str:
    """A number of things.

    >>> counted(1, "rank"), counted(2000, "rank")
    ('1 rank', '2,000 ranks')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def json_text(value: Any) -> str:
    """JSON as its standard has it: null for what is no finite number."""
    return json.dumps(_plain(value), indent=1, allow_nan=False, default=str)


def _plain(value: Any) -> Any:
    """Python's own numbers, lists and dictionaries, None for nan and infinities."""
    if isinstance(value, dict):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if hasattr(value, "tolist"):
        return _plain(value.tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _records(table: Any) -> str:
    """A table as JSON, a row a line; numbers with all their digits, null for what is none or not finite."""
    if isinstance(table, Mapping):
        columns = [_plain(values) for values in table.values()]
    else:
        columns = [
            _plain(table[name].astype(object).where(table[name].notna(), None)) for name in table
        ]
    names = [str(name) for name in table]
    rows = (json.dumps(dict(zip(names, row)), default=str) for row in zip(*columns))
    lines = ",\n ".join(rows)
    return f"[\n {lines}\n]" if lines else "[]"


def write_table(table: Any, path: str) -> None:
    """Write by the name's ending: .csv, .parquet or .json (records)."""
    check_target(path, TABLES)
    if isinstance(table, Mapping):
        import pandas as pd

        table = pd.DataFrame(dict(table))
    with whole_file(path) as file:
        if path.lower().endswith(".csv"):
            inert(table).to_csv(file, index=False)
        elif path.lower().endswith(".parquet"):
            table.to_parquet(file, index=False)
        else:
            file.write(_records(table).encode())


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a cell begins with that spreadsheets run as a formula, or pass over to find one."""


def inert(table: Any) -> Any:
    """The table with an apostrophe before every text that a spreadsheet would take for a formula.

    >>> import pandas as pd
    >>> inert(pd.DataFrame({"name": ["=1+1", "gemm"], "start_s": [-1.0, 0.0]})).name.tolist()
    ["'=1+1", 'gemm']
    """
    safe = table.map(lambda cell: _inert(cell) if isinstance(cell, str) else cell)
    return safe.rename(columns=lambda name: _inert(name) if isinstance(name, str) else name)


def _inert(text: str) -> str:
    return "'" + text if len(text) > 1 and text.startswith(_FORMULA) else text


def save_plot(name: str, table: Any, path: str) -> None:
    """Draw a table with one of the plot functions into a file."""
    from perfmodel.report import plot

    axes = getattr(plot, name)(table)
    with whole_file(path) as file:
        kind = Path(path).suffix.lower().removeprefix(".")
        axes.figure.savefig(file, format=kind, dpi=150, bbox_inches="tight")


def check_different(*paths: str | None) -> None:
    """Raise InputError where two outputs are the same file."""
    given = [Path(path).resolve() for path in paths if path]
    for path in given:
        if given.count(path) > 1:
            raise InputError(f"{path}: is to be written twice; name different files")
