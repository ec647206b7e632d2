"""The commands that read one trace: run, inspect, timeline; and the small ones: systems, convert."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click

from perfmodel.commands.options import (
    TRACE_KEYS,
    output_options,
    show,
    system_options,
    text_of,
    the_graph,
    the_system,
    trace_options,
    write_table,
)


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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


@click.command()
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
