"""`perfmodel astra-sim`: in the place of ASTRA-sim's analytical binaries, with their flags and result lines."""

from __future__ import annotations

import warnings
from typing import Any

import click

from perfmodel.cli.output import Source, TimelineFile, json_text

IGNORED = ("compute_scale", "comm_scale", "logging_configuration")
"""Flags that are taken without effect; the binaries ignore the first two as well."""


def _switch(ctx: click.Context, parameter: click.Parameter, value: Any) -> Any:
    """True or false as the binaries take it."""
    if value in ("true", "True", "t", "T", "1"):
        return True
    if value in ("false", "False", "f", "F", "0"):
        return False
    raise click.BadParameter(f"{value!r}; expected true or false", ctx, parameter)


@click.command(
    "astra-sim", context_settings={"ignore_unknown_options": True, "allow_extra_args": True}
)
@click.option(
    "--workload-configuration",
    "prefix",
    required=True,
    type=Source(),
    help="Prefix of the traces: PREFIX.<rank>.et.",
)
@click.option(
    "--system-configuration", "system", required=True, type=click.Path(), help="System JSON."
)
@click.option(
    "--network-configuration", "network", required=True, type=click.Path(), help="Network YAML."
)
@click.option(
    "--remote-memory-configuration",
    "memory",
    type=click.Path(),
    help="Remote-memory JSON; none by default.",
)
@click.option(
    "--comm-group-configuration",
    "groups",
    default="empty",
    show_default=True,
    help='Communicator groups JSON; a name with "empty" in it means none.',
)
@click.option(
    "--backend",
    type=click.Choice(["unaware", "aware"]),
    default="unaware",
    show_default=True,
    help="Which of the simulator's two binaries: unaware or aware of congestion.",
)
@click.option(
    "--num-queues-per-dim",
    "queues",
    default=1,
    show_default=True,
    help="Queues per network dimension.",
)
@click.option(
    "--injection-scale",
    default=1.0,
    show_default=True,
    help="Multiplies the endpoint-delay of the system file.",
)
@click.option("--compute-scale", type=float, help="Without effect, as in the binaries.")
@click.option("--comm-scale", type=float, help="Without effect, as in the binaries.")
@click.option(
    "--rendezvous-protocol",
    "rendezvous",
    default="false",
    is_flag=False,
    flag_value="true",
    callback=_switch,
    help="Whether messages wait until their receivers ask for them.",
)
@click.option(
    "--logging-folder",
    default="log",
    show_default=True,
    type=click.Path(),
    help="Folder of log.log and err.log.",
)
@click.option("--logging-configuration", help="Taken and ignored: the log has its default form.")
@click.option(
    "--quiet",
    is_flag=True,
    help="Only the result lines, in the order of ranks, and no files.",
)
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
@click.option(
    "--timeline",
    "timeline_file",
    type=TimelineFile(),
    help="Also write a Perfetto / Chrome timeline: FILE.json or FILE.json.gz.",
)
@click.pass_context
def astra_sim(
    ctx: click.Context,
    /,
    prefix: Any,
    system: Any,
    network: Any,
    memory: Any,
    groups: Any,
    quiet: Any,
    as_json: bool,
    timeline_file: Any,
    logging_folder: Any,
    **flags: Any,
) -> None:
    """Run ASTRA-sim's inputs to the cycle, with its own flags.

    Prints what the binaries print, line by line: results and statistics of the ranks as they end, in cycles of a
    nanosecond. Writes log.log and err.log into the logging folder, and local_mem_trace.R.json with track-local-mem.

    A run that would hang or die silently there ends with a message that names ranks and nodes, and status 1. For
    sweeps, gradients and reasons over the same inputs see pm.astra.load in Python.
    """
    from perfmodel import astra

    ignored = [f"--{name.replace('_', '-')}" for name in IGNORED if flags.pop(name) is not None]
    if ignored or ctx.args:
        given = ", ".join([*ignored, *ctx.args])
        warnings.warn(f"flags without effect in ASTRA-sim: {given}", stacklevel=1)
    result = astra.simulate(prefix, system, network, memory, groups, **flags)
    if timeline_file:
        from perfmodel.prediction import predict
        from perfmodel.report.timeline_file import write_timeline

        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # said by `simulate`
            inputs = astra.load(prefix, system, network, memory, groups, truncate=True, **flags)
        write_timeline(predict(*inputs), timeline_file)
    if as_json:
        click.echo(
            json_text(
                {
                    "max_cycles": max(result.cycles),
                    "cycles": result.cycles,
                    "exposed": result.exposed,
                    "backend": flags["backend"],
                }
            )
        )
    elif quiet:
        for rank, (cycles, exposed) in enumerate(zip(result.cycles, result.exposed)):
            click.echo(
                f"sys[{rank}] finished, {cycles} cycles, exposed communication {exposed} cycles."
            )
    else:
        from perfmodel.astra.console import publish

        click.echo(
            "\n".join(publish(result.lowered, result.run, result.exposed, prefix, logging_folder))
        )
