"""`perfmodel sweep`: one trace on very many designs."""

from __future__ import annotations

from typing import Any

import click

from perfmodel.commands.options import (
    assignments,
    number,
    system_options,
    the_graph,
    the_system,
    trace_options,
)
from perfmodel.commands.output import Folder, output_options, show
from perfmodel.errors import InputError


@click.command()
@trace_options
@system_options
@click.option(
    "--vary",
    multiple=True,
    required=True,
    callback=assignments,
    metavar="PATH=SPEC",
    help="Repeatable; SPEC below.",
)
@click.option(
    "--sample",
    "count",
    type=click.IntRange(min=1),
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
    type=Folder(),
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
      A,B,C                 these values (or names, for system, trace and network.algorithm)
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

    if path in ("system", "trace") or path in set(static_paths(models)):
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
