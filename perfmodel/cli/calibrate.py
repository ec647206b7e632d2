"""`perfmodel calibrate`: coefficients from measurements, kept in a file that the other commands take."""

from __future__ import annotations

from typing import Any

import click

from perfmodel.cli.options import DEFAULT_SYSTEM, models_option, the_models
from perfmodel.cli.output import (
    PICTURES,
    TABLES,
    Source,
    Target,
    check_different,
    output_options,
    save_plot,
    show,
    text_of,
    write_table,
)
from perfmodel.errors import InputError


@click.command()
@click.argument("measurements", nargs=-1, required=True, type=Source())
@click.option(
    "--fit",
    "paths",
    multiple=True,
    metavar="PATH",
    help="A parameter to fit, such as compute.efficiency; repeatable. By default every coefficient of the models that "
    "the measurements depend on.",
)
@click.option(
    "--save",
    type=Target(".toml"),
    help="Write the fitted models to FILE.toml, for --models of the other commands; refused where the measurements "
    "leave a coefficient open.",
)
@click.option(
    "--plot", type=Target(*PICTURES), help="Write a plot of the residuals: FILE.png, .svg or .pdf."
)
@click.option(
    "--residuals",
    type=Target(*TABLES),
    help="Write measured and predicted durations, row by row: FILE.csv, .parquet or .json.",
)
@click.option("--confidence", default=0.95, show_default=True, help="Of the intervals.")
@click.option(
    "--system",
    default=DEFAULT_SYSTEM,
    show_default=True,
    help="What was measured: a name in hwdb or a TOML file.",
)
@click.option(
    "--dtype",
    default=None,
    help="Which peak rate counts; by default bf16, where the device has it.",
)
@models_option(
    "What is fitted: a file or a set whose coefficients the fit starts from; by default the bare roofline."
)
@click.option(
    "--saturating",
    is_flag=True,
    help="Let the network's bandwidth saturate with the size of a message (adds network.half_size).",
)
@click.option(
    "--collective",
    help="What nccl-tests measured, where its output does not tell an all-gather (all_gather) from an all-to-all "
    "(all_to_all).",
)
@click.option(
    "--ranks",
    type=click.IntRange(min=2),
    help="How many took part, where the output does not tell it.",
)
@click.option("--in-place", is_flag=True, help="Take nccl-tests' times of operations in place.")
@output_options
def calibrate(
    measurements: Any,
    paths: Any,
    save: Any,
    plot: str | None,
    residuals: Any,
    confidence: Any,
    system: Any,
    dtype: Any,
    models: Any,
    saturating: Any,
    collective: Any,
    ranks: Any,
    in_place: Any,
    as_json: bool,
    output: str | None,
) -> None:
    """Fit model coefficients to the durations in the files MEASUREMENTS.

    \b
    A file is what nccl-tests or rccl-tests printed, or a CSV or Parquet table, one measurement a row:
      m, n, k, dtype, latency_ms  a matrix product (batch, too; the time in any unit: time_us, duration_s, ...)
      flops, bytes_B              another kernel
      collective, size_B, ranks   a collective (size_B: one member's input)
      size_B                      a message
    All but the first with duration_s or a time with its unit in the name. Prints the fitted values with confidence
    intervals, and the errors in sample and held out. With --save, what was fitted is kept for the other commands.
    """
    from perfmodel.calibration.calibrate import calibrate as fit
    from perfmodel.calibration.fit_warnings import check_device
    from perfmodel.calibration.measurement_files import read_measurements
    from perfmodel.machine.system import hardware
    from perfmodel.vocabulary import COLLECTIVES

    check_different(plot, residuals, output, save)
    if collective not in (None, "send", *COLLECTIVES):
        raise InputError(
            f"--collective {collective}: expected send or one of {', '.join(COLLECTIVES)}"
        )
    machine = hardware(system, dtype=dtype)
    fitted = the_models(models)
    if saturating:
        from perfmodel.models.saturation import SaturatingAlphaBeta

        fitted = fitted.replace(network=SaturatingAlphaBeta())
    tables = [
        read_measurements(
            path, collective=collective, ranks=ranks, in_place=in_place, dtype=machine.dtype
        )
        for path in measurements
    ]
    for path, table in zip(measurements, tables):
        check_device(table, machine, path)
    result = fit(tables, machine, list(paths) or None, models=fitted, confidence=confidence)
    if plot:
        save_plot("residuals", result.residuals, plot)
    if residuals:
        write_table(result.residuals, residuals)
    if output or as_json:
        show(result.parameters, as_json, output)
    else:
        click.echo(text_of(result.parameters, missing="") + "\n")
        click.echo(text_of(result.error.reset_index(names=""), missing=""))
        if models is None and not saturating:
            say_own(system, dtype, tables)
    if save:
        named = [f"{path}, {len(table)} rows" for path, table in zip(measurements, tables)]
        result.save(save, data="; ".join(named))
        click.echo(f"{save}: written; use it with --models {save}", err=True)


def say_own(system: str, dtype: str | None, tables: list[Any]) -> None:
    """A line about how far off the coefficients are that the system has anyway, on the same measurements."""
    import jax.numpy as jnp
    import numpy as np

    from perfmodel.calibration.measurements import predicted, read
    from perfmodel.models.fitted import hardware

    machine = hardware(system, dtype=dtype)
    if machine.fitted is None:
        return
    errors = []
    for table in tables:
        nodes = read(table, machine)
        seconds = np.empty(len(table))
        seconds[nodes.place] = predicted(
            nodes.keys, [jnp.asarray(rows) for rows in nodes.rows], machine, machine.models
        )
        errors.append(np.abs(seconds / nodes.duration - 1))
    mean = 100 * np.concatenate(errors).mean()
    click.echo(
        f"\nwithout this fit: the coefficients that {machine.name} has anyway ({machine.fitted.name}) are off by "
        f"{mean:.3g} % in the mean on these measurements"
    )
