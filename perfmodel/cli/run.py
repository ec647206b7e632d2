"""The commands that read one trace: run, inspect, timeline."""

from __future__ import annotations

import sys
from typing import Any

import click
import numpy as np

from perfmodel.cli.options import (
    load_options,
    system_options,
    the_graph,
    the_system,
    trace_options,
)
from perfmodel.cli.output import (
    TimelineFile,
    check_different,
    counted,
    fits,
    json_text,
    output_options,
    show,
    write_table,
)
from perfmodel.cli.text_table import chosen, rows_of, text_table


@click.command()
@trace_options
@system_options
@click.option(
    "--timeline",
    "timeline_file",
    type=TimelineFile(),
    help="Also write a Perfetto / Chrome timeline: FILE.json or FILE.json.gz.",
)
@click.option(
    "--nodes",
    "node_count",
    type=click.IntRange(min=0),
    default=12,
    show_default=True,
    help="Rows of the critical path to print.",
)
@click.option(
    "--tokens",
    type=click.FloatRange(min=0, min_open=True),
    help="Tokens of a whole training run: also say how long it takes. Of traces that know their model.",
)
@click.option(
    "--economics",
    is_flag=True,
    help="Also $ and J a token. Of traces that know their model.",
)
@output_options
def run(
    trace: str,
    timeline_file: Any,
    node_count: Any,
    tokens: Any,
    economics: Any,
    as_json: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Predict the step time of TRACE and say why it is that time.

    Prints the makespan, each rank's breakdown (compute + exposed memory + exposed communication + idle), and the
    longest parts of the critical path. -o writes the timeline table of every node. Of a graph that knows its model (one
    made by synth.training) also utilization, throughput, memory by part and whether it fits; of a trace that names
    tensors its memory.
    """
    from perfmodel.prediction import predict
    from perfmodel.report.path_and_ranks import (
        path_breakdown_columns,
        path_columns,
        rank_columns,
    )

    check_different(timeline_file, output)
    graph = the_graph(trace, options)
    system, models = the_system(graph, options)
    prediction = predict(graph, system, models)
    per_rank, path = rank_columns(prediction), path_columns(prediction)
    on_path = path_breakdown_columns(prediction)
    step = held = None
    if graph.step is not None or graph.tensors is not None or tokens or economics:
        from perfmodel.analysis.throughput import throughput_row
        from perfmodel.report.memory import memory_parts

        step = throughput_row(prediction, tokens=tokens, economics=economics or None)
        held = memory_parts(prediction)
    if timeline_file:
        from perfmodel.report.timeline_file import write_timeline

        write_timeline(prediction, timeline_file)
    if output:
        from perfmodel.report.tables import timeline

        write_table(timeline(prediction), output)
    if as_json:
        result = {
            "makespan_s": prediction.makespan,
            "system": system.name,
            "ranks": graph.ranks,
            "nodes": len(graph),
            "models": [answer._asdict() for answer in prediction.models],
            "breakdown": rows_of(per_rank),
            "critical_path_breakdown": rows_of(on_path)[0],
            "critical_path": rows_of(path),
        }
        if step is not None and held is not None:
            result["throughput"] = step
            result["memory"] = rows_of(held[0])
        click.echo(json_text(result))
        return
    _print_prediction(prediction, per_rank, on_path)
    if step is not None and held is not None:
        _print_step(step, *held)
    if node_count:
        _print_longest(path, node_count)


def _print_prediction(prediction: Any, per_rank: Any, on_path: Any) -> None:
    """The step time and its breakdowns for people; of ranks that are alike the first."""
    from perfmodel import units
    from perfmodel.models.fitted import described

    graph, system = prediction.graph, prediction.compiled.system
    size = f"{counted(graph.ranks, 'rank')}, {counted(len(graph), 'node')}"
    click.echo(f"{graph.source}: {size} on {system.name}")
    click.echo(
        f"step time  {units.format(prediction.makespan, 's')}  ({prediction.makespan:.9g} s)\n"
    )
    click.echo(described(prediction.models) + "\n")
    click.echo("critical path [s]")
    click.echo(text_table(on_path) + "\n")
    click.echo("per rank [s]")
    first = _first_of_equal(per_rank)
    click.echo(text_table(chosen(per_rank, first)))
    more = graph.ranks - len(first)
    if more:
        verb = "is" if more == 1 else "are"
        click.echo(f"({counted(more, 'more rank')} {verb} equal to one of these; --json has all)")


def _first_of_equal(columns: Any) -> list[int]:
    """Of ranks of which all but the number is the same the first."""
    rows = zip(*(np.asarray(v, float).tolist() for n, v in columns.items() if n != "rank"))
    first: dict[tuple[float | None, ...], int] = {}
    for rank, row in enumerate(rows):
        first.setdefault(tuple(None if x != x else x for x in row), rank)
    return list(first.values())


def _print_step(row: dict[str, Any], held: dict[str, Any], source: str) -> None:
    """Utilization, throughput and memory for people; of ranks that hold the same the first."""
    from perfmodel import units

    if "mfu" in row:
        click.echo("\n" + ", ".join(_throughput_words(row)))
    size = units.format(row["peak_memory_B"], "B")
    click.echo(f"\nmemory: at most {size} on a rank, {fits(row['memory_margin_B'])} [B]")
    known = {name: values for name, values in held.items() if not np.isnan(values).all()}
    click.echo(text_table(chosen(known, _first_of_equal(held))))
    if source:
        click.echo(
            "weights_B: all that was there before the step; activations_B: all that came since; from"
            f" {source}"
        )


def _throughput_words(row: dict[str, Any]) -> list[str]:
    """Utilization, throughput and what a token costs."""
    words = [
        f"MFU {row['mfu']:.1%}",
        f"HFU {row['hfu']:.1%}",
        f"{row['TFLOP_per_s_per_gpu']:.4g} TFLOP/s per GPU",
        f"{row['tokens_per_s']:,.0f} tokens/s",
        f"{row['tokens_per_s_per_gpu']:,.1f} tokens/s per GPU",
    ]
    if "training_days" in row:
        words.append(f"{row['training_days']:.4g} days for all tokens")
    if "usd_per_token" in row:
        words.append(f"{row['usd_per_token'] * 1e6:.4g} $ a million tokens")
        words.append(f"{row['J_per_token']:.4g} J a token")
    return words


def _print_longest(path: Any, node_count: int) -> None:
    """The nodes that take up most of the critical path."""
    order = np.argsort(-np.array(path["on_path_s"], float), kind="stable")[:node_count]
    shown = ("rank", "node_id", "name", "type", "start_s", "on_path_s", "share")
    longest = chosen({name: path[name] for name in shown}, order.tolist())
    count = counted(len(path["rank"]), "node")
    click.echo(f"\nlongest on the critical path, {len(order)} of {count}")
    click.echo(text_table(longest))


@click.command()
@trace_options
@click.option(
    "--astra-sim",
    is_flag=True,
    help="Also what ASTRA-sim would stop at, hang on or pass over in silence.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
def inspect(trace: str, as_json: bool, astra_sim: Any, **options: Any) -> None:
    """What is in TRACE, and everything wrong with it.

    Exit status 1 where there are errors (with --strict: or warnings), also after the listing.
    """
    from perfmodel.analysis.inspection import inspect_trace

    chosen = load_options(options)
    report = inspect_trace(trace, strict=options["strict"], astra_sim=astra_sim, **chosen)
    click.echo(json_text(report.as_dict()) if as_json else report.text())
    if not report.good:
        sys.exit(1)


@click.command()
@trace_options
@system_options
@click.option("--rank", "only", multiple=True, type=int, help="Only this rank; repeatable.")
@click.option(
    "--depth",
    type=click.IntRange(1, 16),
    help="Components: collapsed to so many parts of their names in the table, nested in so many levels in a timeline.",
)
@click.option("--json", "as_json", is_flag=True, help="The table as JSON on standard output.")
@click.option(
    "-o",
    "--output",
    type=TimelineFile(".csv", ".parquet"),
    help="FILE.json or FILE.json.gz for Perfetto; or the table: FILE.csv, FILE.parquet.",
)
def timeline(
    trace: str, only: Any, depth: Any, as_json: bool, output: str | None, **options: Any
) -> None:
    """When every node of TRACE runs: a Perfetto / Chrome timeline, or a table.

    Prints the table of all nodes; -o writes a timeline for ui.perfetto.dev, or the table.
    """
    from perfmodel.prediction import predict
    from perfmodel.report.components import component_spans
    from perfmodel.report.tables import timeline as table
    from perfmodel.report.timeline_file import ENDINGS, write_timeline

    graph = the_graph(trace, options)
    prediction = predict(graph, *the_system(graph, options))
    if output and output.lower().endswith(ENDINGS):
        write_timeline(prediction, output, ranks=list(only) or None, depth=depth or 0)
    elif depth:
        spans = component_spans(prediction, depth, list(only) or None)
        show(spans[spans["level"] == depth].drop(columns="level"), as_json, output)
    else:
        show(table(prediction, list(only) or None), as_json, output)
    if output:
        click.echo(f"{output}: written", err=True)
