"""Options that several commands share, and what they mean; tables in and out."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from perfmodel.errors import InputError

DEFAULT_SYSTEM = "dgx-h100"


def stacked(*options: Callable) -> Callable:
    """Several options as one decorator."""

    def decorate(function: Callable) -> Callable:
        return functools.reduce(lambda f, option: option(f), reversed(options), function)

    return decorate


def _group(ctx, parameter, values) -> dict[str, list[int]]:
    groups = {}
    for text in values:
        name, _, ranks = text.partition("=")
        try:
            groups[name] = [int(r) for r in ranks.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r} is not NAME=RANK,RANK,...") from None
    return groups


trace_options = stacked(
    click.argument("trace", type=click.Path()),
    click.option(
        "--groups",
        type=click.Path(),
        help="Communicator group file (JSON), if not beside the trace.",
    ),
    click.option(
        "--group",
        multiple=True,
        callback=_group,
        metavar="NAME=0,1,...",
        help="Define a group; repeatable.",
    ),
    click.option(
        "--unknown-group",
        type=click.Choice(["error", "world"]),
        default="error",
        show_default=True,
        help="What to do with groups that nobody defines: stop, or take them as all ranks.",
    ),
    click.option(
        "--dependencies",
        type=click.Choice(["both", "data", "control"]),
        default="both",
        show_default=True,
        help="Which edges count.",
    ),
    click.option(
        "--zero-duration",
        type=float,
        default=0.5,
        show_default=True,
        metavar="US",
        help="What a recorded duration of 0 whole microseconds means [us].",
    ),
    click.option("--strict", is_flag=True, help="Warnings about the trace are errors."),
)
TRACE_KEYS = ("groups", "group", "unknown_group", "dependencies", "zero_duration", "strict")


def assignments(ctx, parameter, values) -> dict[str, str]:
    pairs = {}
    for text in values:
        path, equals, value = text.partition("=")
        if not equals or not value:
            raise click.BadParameter(f"{text!r} is not PATH=VALUE")
        pairs[path.strip()] = value.strip()
    return pairs


system_options = stacked(
    click.option(
        "--system",
        default=DEFAULT_SYSTEM,
        show_default=True,
        help="A name in hwdb (`perfmodel systems` lists them) or a TOML file.",
    ),
    click.option(
        "--dtype",
        default="bf16",
        show_default=True,
        help="Which peak rate of the accelerator counts.",
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        callback=assignments,
        metavar="PATH=VALUE",
        help='Change a parameter: npu.peak_flops=2e15, or with a unit: network.0.latency="2 us"; repeatable.',
    ),
    click.option(
        "--algorithm",
        default=None,
        help="Collective algorithm: auto, ring, halving-doubling, tree, direct; or one per dimension: ring,direct.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(["work", "recorded"]),
        default="work",
        show_default=True,
        help="Which counts where a node has both work and a recorded duration.",
    ),
)
SYSTEM_KEYS = ("system", "dtype", "assignments", "algorithm", "prefer")

output_options = stacked(
    click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs."),
    click.option(
        "-o", "--output", type=click.Path(), help="Write the table to FILE.csv, .parquet or .json."
    ),
)


def the_graph(trace: str, options: dict) -> Any:
    """The graph that the trace options mean; prints its warnings."""
    from perfmodel.load import load

    chosen = {k: options[k] for k in TRACE_KEYS}
    chosen["zero_duration"] = chosen["zero_duration"] * 1e-6
    graph = load(trace, **chosen)
    for text in graph.warnings:
        click.echo(f"perfmodel: {text}", err=True)
    return graph


def the_system(graph: Any, options: dict) -> tuple[Any, Any]:
    """The system (of the graph's size) and models that the system options mean."""
    from perfmodel.cost import Models
    from perfmodel.hardware import hardware
    from perfmodel.network import AlphaBeta
    from perfmodel.parameters import with_parameters

    system = hardware(options["system"], ranks=graph.ranks, dtype=options["dtype"])
    models = Models(prefer=options["prefer"])
    if options["algorithm"]:
        words = options["algorithm"].split(",")
        models = models.replace(
            network=AlphaBeta(algorithm=words[0] if len(words) == 1 else tuple(words))
        )
    values = {
        path: number(path, text, system, models) for path, text in options["assignments"].items()
    }
    return with_parameters(system, models, values)


def number(path: str, text: str, system: Any, models: Any) -> float:
    """A plain SI number, or one with a unit that fits the parameter."""
    from perfmodel import units
    from perfmodel.parameters import check_path, parameter_units

    known = parameter_units(system, models)
    check_path(path, known)
    try:
        return float(text)
    except ValueError:
        return units.parse(text, known[path], where=path)


def show(table: Any, as_json: bool, output: str | None) -> None:
    """Print a table for people or programs, or write it to a file whole or not at all."""
    if output:
        write_table(table, Path(output))
    elif as_json:
        click.echo(table.to_json(orient="records", indent=1, double_precision=15))
    else:
        click.echo(text_of(table))


def text_of(table: Any) -> str:
    """A table for people: six significant digits, no index."""
    import pandas as pd

    with pd.option_context(
        "display.width", 200, "display.max_columns", 30, "display.max_colwidth", 60
    ):
        return table.to_string(index=False, float_format=lambda x: f"{x:.6g}")


def write_table(table: Any, path: Path) -> None:
    """Write by the name's ending: .csv, .parquet or .json (records)."""
    writers = {
        ".csv": lambda p: table.to_csv(p, index=False),
        ".parquet": lambda p: table.to_parquet(p, index=False),
        ".json": lambda p: table.to_json(p, orient="records", indent=1, double_precision=15),
    }
    if path.suffix not in writers:
        raise InputError(f"{path}: unknown table format {path.suffix!r}; use {', '.join(writers)}")
    partial = path.with_name(path.name + ".tmp")
    try:
        writers[path.suffix](partial)
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
