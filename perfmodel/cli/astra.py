"""`perfmodel astra-sim`: in the place of ASTRA-sim's analytical binaries, with their flags and result lines."""

from __future__ import annotations

import warnings

import click

from perfmodel.cli.output import Source, Timeline, json_text
from perfmodel.errors import SystemFileError


def _unmodelled(ctx, parameter, value):
    """A flag that must keep its default."""
    if value != parameter.default:
        raise SystemFileError(
            f"{parameter.opts[0]}={value}: is not modelled; leave it at {parameter.default}"
        )
    return value


def _switched_off(ctx, parameter, value):
    """A switch that must be off: false, f, no, n, off or 0 in any case."""
    if value.strip().lower() not in ("false", "f", "no", "n", "off", "0"):
        raise SystemFileError(
            f"{parameter.opts[0]}={value}: is not modelled; leave it at {parameter.default}"
        )
    return value


@click.command("astra-sim")
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
@click.option("--compute-scale", default=1.0, callback=_unmodelled, help="Only 1.")
@click.option("--injection-scale", default=1.0, callback=_unmodelled, help="Only 1.")
@click.option("--comm-scale", default=1.0, callback=_unmodelled, help="Only 1.")
@click.option(
    "--rendezvous-protocol",
    default="false",
    is_flag=False,
    flag_value="true",
    callback=_switched_off,
    help="Only false.",
)
@click.option("--logging-folder", default=None, help="Taken and ignored: nothing is logged.")
@click.option("--logging-configuration", default=None, help="Taken and ignored: nothing is logged.")
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
@click.option(
    "--timeline",
    "timeline_file",
    type=Timeline(),
    help="Also write a Perfetto / Chrome timeline: FILE.json or FILE.json.gz.",
)
def astra_sim(
    prefix, system, network, memory, groups, backend, queues, as_json, timeline_file, **ignored
) -> None:
    """Run ASTRA-sim's inputs to the cycle, with its own flags.

    Prints its result lines, one per rank, in cycles of a nanosecond:
    "sys[0] finished, N cycles, exposed communication M cycles."

    A run that would hang or die silently there ends with a message that names ranks and nodes, and status 1. For
    sweeps, gradients and reasons over the same inputs see pm.astra.load in Python.
    """
    from perfmodel import astra

    for name in ("logging_folder", "logging_configuration"):
        if ignored[name]:
            warnings.warn(
                f"--{name.replace('_', '-')} has no effect: nothing is logged", stacklevel=1
            )
    result = astra.simulate(prefix, system, network, memory, groups, backend=backend, queues=queues)
    if timeline_file:
        from perfmodel.prediction import predict
        from perfmodel.report.timeline_file import write_timeline

        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "without effect in ASTRA-sim", UserWarning)
            inputs = astra.load(
                prefix,
                system,
                network,
                memory,
                groups,
                backend=backend,
                queues=queues,
                truncate=True,
            )
        write_timeline(predict(*inputs), timeline_file)
    if as_json:
        click.echo(
            json_text(
                {
                    "max_cycles": max(result.cycles),
                    "cycles": result.cycles,
                    "exposed": result.exposed,
                    "backend": backend,
                }
            )
        )
        return
    for rank, (cycles, exposed) in enumerate(zip(result.cycles, result.exposed)):
        click.echo(
            f"sys[{rank}] finished, {cycles} cycles, exposed communication {exposed} cycles."
        )
