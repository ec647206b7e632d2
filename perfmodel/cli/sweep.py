"""`perfmodel sweep`: one trace on very many designs."""

from __future__ import annotations

import os
from typing import Any

import click

from perfmodel.cli.options import (
    assignments,
    check_kept,
    each_its_own,
    listed,
    number,
    say_basis,
    schedule_option,
    system_options,
    the_graph,
    the_system,
    trace_options,
)
from perfmodel.cli.output import Folder, output_options, show
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
    help="Draw N points from the ranges instead of their product; names are all combined with them.",
)
@click.option(
    "--sampling",
    "method",
    type=click.Choice(["sobol", "latin-hypercube"]),
    help="How --sample draws  [default: sobol]",
)
@schedule_option
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
    help="A Dask scheduler to spread the work over, for example tcp://10.0.0.1:8786. It has to be trusted.",
)
@output_options
def sweep(
    trace: str,
    vary: Any,
    count: Any,
    method: Any,
    schedule: Any,
    batch_size: Any,
    economics: Any,
    folder: Any,
    scheduler: Any,
    as_json: bool,
    output: str | None,
    **options: Any,
) -> None:
    """Evaluate TRACE on every combination of parameter values.

    \b
    SPEC is one of
      LOW:HIGH:COUNT        evenly spaced values, ends included
      LOW:HIGH:COUNT:log    evenly spaced logarithms
      A,B,C                 these values (or names, for system, trace and network.algorithm)
      LOW:HIGH              with --sample: logarithms evenly spread; LOW:HIGH:linear, or a LOW of 0: values
    Values are SI numbers or carry a unit: network.0.bandwidth="100 GB/s,400 GB/s".
    """
    from perfmodel.analysis.design_parts import SweepWork
    from perfmodel.analysis.evaluation import EvaluationOptions
    from perfmodel.analysis.sweep import sweep_columns

    if method and count is None:
        raise click.UsageError("--sampling: says how --sample draws; give --sample N, too")
    graph = the_graph(trace, options)
    system, models = the_system(graph, options, vary)
    if "system" in vary:
        check_kept("--vary", options, system)
    if count is not None:
        points = sampled(vary, count, method or "sobol", system, models)
    else:
        points = {p: spec(p, t, system, models) for p, t in vary.items()}
    client = None
    if scheduler is not None:
        from perfmodel.analysis.dask_cluster import connect

        client = connect(scheduler)
    how = EvaluationOptions(
        schedule=schedule,
        batch_size=batch_size,
        economics=economics or None,
        threads=os.cpu_count() or 1,
    )
    try:
        table = sweep_columns(
            SweepWork({"": graph}, system, each_its_own(system, models, options), how),
            points,
            output=folder,
            client=client,
            collect=bool(output or as_json or not folder),
        )
    finally:
        if client is not None:
            client.close()
    if economics and "system" not in vary:
        say_basis(system, ("cost", "power", "energy", "area"))
    if table is None:
        click.echo(f"{folder}: complete", err=True)
    else:
        show(table, as_json, output)


def sampled(vary: dict[str, str], count: int, method: str, system: Any, models: Any) -> Any:
    """Points drawn from the ranges that --vary options mean, each with every combination of names."""
    import numpy as np

    from perfmodel.analysis.design_space import sample
    from perfmodel.analysis.designs import designs_of

    lists = {p: names(p, t) for p, t in vary.items() if is_choice(p, models)}
    ranges = {p: interval(p, t, system, models) for p, t in vary.items() if p not in lists}
    if not ranges:
        raise click.UsageError("--sample: draws from ranges, PATH=LOW:HIGH, and --vary has none")
    drawn = sample(dict.fromkeys(ranges, (0.0, 1.0)), count, method=method, log=False)
    for path, (low, high, log) in ranges.items():
        share = drawn[path]
        inside = np.exp(np.log(low) + share * np.log(high / low)) if log else None
        drawn[path] = low + share * (high - low) if inside is None else inside
    if not lists:
        return drawn
    return designs_of(lists).frame().merge(drawn, how="cross")[list(vary)]


def interval(path: str, text: str, system: Any, models: Any) -> tuple[float, float, bool]:
    """Low and high end of a --vary option that is sampled, and whether its logarithms are spread evenly."""
    parts = [part.strip() for part in text.split(":")]
    counted = parts[2:3] if len(parts) > 2 and parts[2].isdigit() else []
    scale = parts[2 + len(counted) :]
    if len(parts) < 2 or scale not in ([], ["log"], ["linear"]):
        raise click.UsageError(
            f"--vary {path}={text}: --sample needs LOW:HIGH (or LOW:HIGH:log, LOW:HIGH:linear)"
        )
    low, high = (number(path, part, system, models) for part in parts[:2])
    if low > high or (scale == ["log"] and low <= 0):
        above = " and LOW above 0 for log" if scale == ["log"] else ""
        raise InputError(f"--vary {path}={text}: expected LOW <= HIGH{above}")
    return low, high, low > 0 and scale != ["linear"]


def is_choice(path: str, models: Any) -> bool:
    """Whether a path takes names rather than numbers."""
    from perfmodel.analysis.design_parts import static_paths

    return path in ("system", "trace") or path in set(static_paths(models))


def names(path: str, text: str) -> list[str]:
    """The names of a --vary option."""
    words = listed(text)
    if not all(words):
        raise InputError(f"--vary {path}={text}: one of the names is empty")
    return words


def spec(path: str, text: str, system: Any, models: Any) -> list[Any]:
    """The values that a --vary option means."""
    import numpy as np

    if is_choice(path, models):
        return names(path, text)
    parts = [part.strip() for part in text.split(":")]
    if len(parts) == 1:
        return [number(path, part, system, models) for part in listed(text)]
    wrong = (
        f"--vary {path}={text}: expected LOW:HIGH:COUNT, LOW:HIGH:COUNT:log, or values with commas"
    )
    if not 3 <= len(parts) <= 4:
        raise InputError(f"{wrong}; LOW:HIGH alone needs --sample" if len(parts) == 2 else wrong)
    low, high = (number(path, part, system, models) for part in parts[:2])
    try:
        size, scale = int(parts[2]), parts[3] if len(parts) > 3 else "linear"
    except ValueError:
        raise InputError(wrong) from None
    if size < 1 or low > high or scale not in ("linear", "log") or (scale == "log" and low <= 0):
        raise InputError(
            f"--vary {path}={text}: expected LOW <= HIGH, COUNT of at least 1, and linear or log"
        )
    return list(np.geomspace(low, high, size) if scale == "log" else np.linspace(low, high, size))
