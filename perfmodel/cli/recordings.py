"""The command about recordings: replay."""

from __future__ import annotations

from typing import Any

import click

from perfmodel.cli.options import the_graph, trace_options
from perfmodel.cli.output import json_text, output_options, text_of, write_table


@click.command()
@trace_options
@output_options
def replay(trace: str, as_json: bool, output: str | None, **options: Any) -> None:
    """Measured against replayed: how well the recording TRACE (PyTorch's files) is understood.

    Host gaps, durations of kernels, start offsets and one pure cost per collective are taken as recorded; all waiting
    is predicted. Prints for each rank the span, the mean error of the starts of GPU work and the wait in collectives,
    then the shares of operators linked, of GPU time attributed and of collectives matched, where each kernel's work
    is known from, and whether the step is launch-bound.
    """
    from perfmodel.analysis.replay import replay as replayed

    graph = the_graph(trace, options)
    table = replayed(graph)
    if output:
        write_table(table, output)
    elif as_json:
        click.echo(json_text({"ranks": table.to_dict(orient="records"), **table.attrs}))
    else:
        click.echo(f"{graph.source}: {table.attrs['step']}, {_device(graph.recorded)}\n")
        click.echo(text_of(table))
        click.echo()
        for line in _lines(table.attrs):
            click.echo(line)


def _device(recorded: Any) -> str:
    """What the graph was recorded on."""
    if not recorded.device:
        return f"recorded on {recorded.name or 'an unknown device'}"
    return f"recorded on {recorded.device}" + (f" ({recorded.name})" if recorded.name else "")


def _lines(attrs: dict[str, Any]) -> list[str]:
    """The figures of all ranks together."""
    import pandas as pd

    shares = {
        "operators linked": attrs["operators_linked"],
        "GPU time attributed to operators": attrs["time_attributed"],
        "collectives matched": attrs["collectives_matched"],
    }
    lines = [f"{name}  {share:.2%}" for name, share in shares.items()]
    sources = {k: v for k, v in attrs["time_by_source"].items() if v > 0}
    if sources:
        table = pd.DataFrame(
            {"work known from": list(sources), "share of GPU time": list(sources.values())}
        )
        lines += ["", text_of(table)]
    path = {f"{k}_s": [v] for k, v in attrs["critical_path"].items()}
    lines += ["", "critical path of the replay [s]", text_of(pd.DataFrame(path))]
    if attrs["launch_bound"]:
        lines.append(
            "launch-bound: most of the critical path is the host's time, which a faster accelerator leaves as it is"
        )
    return lines
