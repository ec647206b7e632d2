"""The command line: `perfmodel run | inspect | sweep | ...`.

Exit status 0: done; 1: the input is wrong (one message on standard error, no traceback); 2: wrong usage.
Modules are imported when a command needs them, so that `perfmodel --help` answers at once.
"""

from __future__ import annotations

import functools
import json
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from perfmodel.errors import InputError

DEFAULT_SYSTEM = "dgx-h100"


LAZY = {
    "astra-sim": ("perfmodel.commands_astra", "astra_sim"),
    "synth": ("perfmodel.commands_synth", "synth"),
    "sensitivity": ("perfmodel.commands_analysis", "sensitivity"),
    "optimize": ("perfmodel.commands_analysis", "optimize"),
    "calibrate": ("perfmodel.commands_analysis", "calibrate"),
    "compare": ("perfmodel.commands_analysis", "compare"),
}
SUMMARY = {
    "astra-sim": "Take the place of ASTRA-sim's analytical binaries: same flags, same result lines.",
    "synth": "Write a synthetic workload (GPT, FSDP, MoE, one collective, data parallel).",
    "sensitivity": "What the time depends on: derivatives, elasticities, how far each parameter can move.",
    "optimize": "The best hardware within bounds and a budget, by exact gradients.",
    "calibrate": "Fit model coefficients to measured durations.",
    "compare": "Two traces or two systems side by side.",
}


class Commands(click.Group):
    """Imports a command's module only when it is called or its help is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted({*super().list_commands(ctx), *LAZY})

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in LAZY:
            return super().get_command(ctx, name)
        from importlib import import_module

        module, attribute = LAZY[name]
        return getattr(import_module(module), attribute)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        rows = []
        for name in self.list_commands(ctx):
            command = super().get_command(ctx, name) if name not in LAZY else None
            rows.append((name, command.get_short_help_str(90) if command else SUMMARY[name]))
        with formatter.section("Commands"):
            formatter.write_dl(rows)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="perfmodel")
def cli() -> None:
    """How long a training step takes on hardware that need not exist, why, and what to change.

    TRACE is a Chakra execution trace of all ranks: a prefix ("dir/t" for dir/t.0.et, dir/t.1.et, ...) or a folder.
    Systems are names (see `perfmodel systems`) or your own TOML file. Parameters are named by path, in SI:
    npu.peak_flops, npu.memory_bandwidth, network.0.bandwidth, network.0.latency, compute.efficiency, ...
    """


def main(arguments: list[str] | None = None) -> None:
    """Entry point: turns wrong input into one message and exit status 1."""
    warnings.showwarning = _show_warning
    try:
        cli.main(args=arguments, standalone_mode=False)
    except click.exceptions.Abort:
        _fail("interrupted", 130)
    except click.UsageError as error:
        error.show()
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 1)
    except InputError as error:
        _fail(str(error), 1)
    except MemoryError:
        _fail("not enough memory for this input", 1)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except OSError as error:
        name = f"{error.filename}: " if error.filename else ""
        _fail(f"{name}{error.strerror or error}", 1)


def _fail(message: str, status: int) -> None:
    click.echo(f"perfmodel: {message}", err=True)
    sys.exit(status)


def _show_warning(message, category, filename, lineno, file=None, line=None) -> None:
    click.echo(f"perfmodel: warning: {message}", err=True)


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


def _assignments(ctx, parameter, values) -> dict[str, str]:
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
        callback=_assignments,
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


@cli.command()
@trace_options
@system_options
@click.option(
    "--timeline",
    "timeline_file",
    type=click.Path(),
    help="Also write a Perfetto / Chrome timeline (JSON).",
)
@click.option(
    "--nodes",
    "node_count",
    default=12,
    show_default=True,
    help="Rows of the critical path to print.",
)
@output_options
def run(trace, timeline_file, node_count, as_json, output, **options) -> None:
    """Predict the step time of TRACE and say why it is that time.

    Prints the makespan, each rank's breakdown (compute + exposed memory + exposed communication + idle), and the
    longest parts of the critical path. -o writes the timeline table of every node.
    """
    from perfmodel import units
    from perfmodel.predict import predict
    from perfmodel.table import breakdown, critical_path, timeline

    graph = the_graph(trace, options)
    system, models = the_system(graph, options)
    prediction = predict(graph, system, models)
    per_rank, path = breakdown(prediction), critical_path(prediction)
    on_path = breakdown(prediction, by="critical_path")
    if timeline_file:
        from perfmodel.trace_events import write_timeline

        write_timeline(prediction, timeline_file)
    if output:
        write_table(timeline(prediction), Path(output))
    if as_json:
        result = {
            "makespan_s": prediction.makespan,
            "system": system.name,
            "ranks": graph.ranks,
            "nodes": len(graph),
            "breakdown": per_rank.to_dict(orient="records"),
            "critical_path_breakdown": on_path.to_dict(orient="records")[0],
            "critical_path": path.to_dict(orient="records"),
        }
        click.echo(json.dumps(result, indent=1))
        return
    click.echo(f"{graph.source}: {graph.ranks} ranks, {len(graph):,} nodes on {system.name}")
    click.echo(
        f"step time  {units.format(prediction.makespan, 's')}  ({prediction.makespan:.9g} s)\n"
    )
    click.echo("critical path [s]")
    click.echo(text_of(on_path) + "\n")
    click.echo("per rank [s]")
    same = per_rank.drop(columns="rank").drop_duplicates()
    click.echo(text_of(per_rank.loc[same.index]))
    if len(same) < len(per_rank):
        click.echo(
            f"({len(per_rank) - len(same)} more ranks are equal to one of these; --json has all)"
        )
    click.echo(f"\nlongest of the {len(path)} nodes on the critical path")
    longest = path.sort_values("on_path_s", ascending=False).head(node_count)
    click.echo(
        text_of(longest[["rank", "node_id", "name", "type", "start_s", "on_path_s", "share"]])
    )


@cli.command()
@trace_options
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
def inspect(trace, as_json, **options) -> None:
    """What is in TRACE, and everything wrong with it.

    Exit status 1 where there are errors (with --strict: or warnings), also after the listing.
    """
    from perfmodel.inspection import inspect_trace

    chosen = {k: options[k] for k in TRACE_KEYS if k != "strict"}
    chosen["zero_duration"] = chosen["zero_duration"] * 1e-6
    report = inspect_trace(trace, strict=options["strict"], **chosen)
    click.echo(json.dumps(report.as_dict(), indent=1) if as_json else report.text())
    if not report.good:
        sys.exit(1)


@cli.command()
@trace_options
@system_options
@click.option(
    "-o",
    "--output",
    required=True,
    type=click.Path(),
    help="FILE.json or FILE.json.gz for Perfetto; or a table: FILE.csv, FILE.parquet.",
)
@click.option("--rank", "ranks", multiple=True, type=int, help="Only this rank; repeatable.")
def timeline(trace, output, ranks, **options) -> None:
    """Write when every node of TRACE runs: a Perfetto / Chrome timeline, or a table."""
    from perfmodel.predict import predict
    from perfmodel.table import timeline as table
    from perfmodel.trace_events import write_timeline

    graph = the_graph(trace, options)
    prediction = predict(graph, *the_system(graph, options))
    if output.endswith((".json", ".json.gz")):
        write_timeline(prediction, output, ranks=list(ranks) or None)
    else:
        write_table(table(prediction, list(ranks) or None), Path(output))
    click.echo(f"{output}: written", err=True)


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
def systems(as_json) -> None:
    """The systems in hwdb, with their figures."""
    import pandas as pd

    from perfmodel.hardware import hardware
    from perfmodel.hardware import systems as names
    from perfmodel.parameters import parameters

    rows = []
    for name in names():
        system = hardware(name)
        shape = " x ".join(
            f"{d.topology} {d.size}{'+' if system.grows and k == len(system.network) - 1 else ''}"
            for k, d in enumerate(system.network)
        )
        rows.append({"system": name, "network": shape, **parameters(system)})
    show(pd.DataFrame(rows), as_json, None)


@cli.command()
@trace_options
@system_options
@click.option(
    "--vary",
    multiple=True,
    required=True,
    callback=_assignments,
    metavar="PATH=SPEC",
    help="Repeatable; SPEC below.",
)
@click.option(
    "--sample",
    "count",
    type=int,
    default=None,
    metavar="N",
    help="Draw N Sobol points from the ranges instead of their product.",
)
@click.option(
    "--schedule",
    type=click.Choice(["own", "frozen"]),
    default="own",
    show_default=True,
    help="Order of issue: every design's own, or the reference design's.",
)
@click.option(
    "--batch-size", type=float, default=None, help="Samples per step: adds throughput_per_s."
)
@click.option("--economics", is_flag=True, help="Add cost, power, energy and area of each design.")
@click.option(
    "--folder",
    type=click.Path(),
    help="Stream Parquet parts into this folder; an interrupted sweep goes on there.",
)
@click.option(
    "--scheduler",
    default=None,
    metavar="ADDRESS",
    help="A Dask scheduler to spread the work over, for example tcp://10.0.0.1:8786.",
)
@output_options
def sweep(
    trace,
    vary,
    count,
    schedule,
    batch_size,
    economics,
    folder,
    scheduler,
    as_json,
    output,
    **options,
) -> None:
    """Evaluate TRACE on every combination of parameter values.

    \b
    SPEC is one of
      LOW:HIGH:COUNT        evenly spaced values, ends included
      LOW:HIGH:COUNT:log    evenly spaced logarithms
      A,B,C                 these values (or names, for system and network.algorithm)
    Values are SI numbers or carry a unit: network.0.bandwidth="100 GB/s,400 GB/s".
    """
    from perfmodel.points import sample as draw
    from perfmodel.sweep import sweep as evaluate

    graph = the_graph(trace, options)
    system, models = the_system(graph, options)
    if count is not None:
        ranges = {p: spec(p, t, system, models) for p, t in vary.items()}
        points: Any = draw({p: (min(v), max(v)) for p, v in ranges.items()}, count)
    else:
        points = {p: spec(p, t, system, models) for p, t in vary.items()}
    client = None
    if scheduler:
        from perfmodel.cluster import connect

        client = connect(scheduler)
    try:
        table = evaluate(
            graph,
            system,
            points,
            models=models,
            schedule=schedule,
            batch_size=batch_size,
            economics=economics or None,
            output=folder,
            client=client,
            collect=bool(output or as_json or not folder),
        )
    finally:
        if client is not None:
            client.close()
    if table is None:
        click.echo(f"{folder}: complete", err=True)
    else:
        show(table, as_json, output)


def spec(path: str, text: str, system: Any, models: Any) -> list:
    """The values that a --vary option means."""
    import numpy as np

    from perfmodel.sweep import static_paths

    if path == "system" or path in set(static_paths(models)):
        return text.split(",")
    parts = text.split(":")
    if len(parts) == 1:
        return [number(path, part, system, models) for part in text.split(",")]
    try:
        low, high = (number(path, part, system, models) for part in parts[:2])
        size, scale = int(parts[2]), parts[3] if len(parts) > 3 else "linear"
    except (ValueError, IndexError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"--vary {path}={text}: expected LOW:HIGH:COUNT, or values with commas"
        ) from None
    if size < 1 or low > high or scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise InputError(
            f"--vary {path}={text}: expected LOW <= HIGH, COUNT of at least 1, and linear or log"
        )
    return list(np.geomspace(low, high, size) if scale == "log" else np.linspace(low, high, size))


@cli.command()
@click.argument("source", type=click.Path())
@click.argument("target", type=click.Path())
def convert(source, target) -> None:
    """Write the trace SOURCE (one rank's file) anew as TARGET, in the current wire format.

    A TARGET ending in .gz is compressed. Unknown fields are kept.
    """
    from perfmodel import chakra

    records = chakra.messages(source)
    chakra.write(target, next(records, None), records)
    click.echo(f"{target}: written", err=True)


if __name__ == "__main__":
    main()
