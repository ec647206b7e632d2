"""`perfmodel systems`: what is in hwdb, and where its figures come from."""

from __future__ import annotations

from typing import Any

import click

from perfmodel.cli.output import output_options, show, text_of
from perfmodel.errors import SystemFileError

PEAK = "npu.peak_flops"


@click.command()
@click.argument("name", required=False)
@output_options
def systems(name, as_json, output) -> None:
    """The systems in hwdb with their parameters; of NAME every figure with its source.

    NAME is a system, an accelerator (such as h100-sxm) or your own TOML file. For programs (--json, -o) figures are
    SI numbers. A network's outermost dimension marked "+" grows with the trace.
    """
    people = not (as_json or output)
    if name is None:
        show(all_systems(people), as_json, output)
    elif people:
        print_figures(by_dtype_of(name))
    else:
        show(figures(by_dtype_of(name)), as_json, output)


def all_systems(people: bool = False) -> Any:
    """One row per system: its network and its parameters [SI]; for people, texts with units."""
    import pandas as pd

    from perfmodel import units
    from perfmodel.machine.system import hardware
    from perfmodel.machine.system import systems as names
    from perfmodel.parameter_paths import parameter_units, parameters

    rows = []
    for name in names():
        system = hardware(name)
        values = parameters(system)
        if people:
            known = parameter_units(system)
            values = {path: units.format(value, known[path]) for path, value in values.items()}
        rows.append({"system": name, "network": network_of(system), **values})
    table = pd.DataFrame(rows)
    return table.fillna("") if people else table


def network_of(system: Any) -> str:
    """The network's dimensions in words, innermost first."""
    last = len(system.network) - 1
    return " x ".join(
        f"{d.topology} {d.size}{'+' if system.grows and k == last else ''}"
        for k, d in enumerate(system.network)
    )


def figures(by_dtype: dict[str, Any]) -> Any:
    """Every figure of a system, one row each: figure, value [SI], unit, source.

    A peak rate's name ends in its dtype, where the dtypes differ.
    """
    import pandas as pd

    first = next(iter(by_dtype.values()))
    peaks = {dtype: system.fact(PEAK) for dtype, system in by_dtype.items()}
    if len(set(peaks.values())) == 1:
        rows = [(PEAK, first.fact(PEAK))]
    else:
        rows = [(f"{PEAK}.{dtype}", fact) for dtype, fact in peaks.items()]
    rows += [(fact.path, fact) for fact in first.facts if fact.path != PEAK]
    return pd.DataFrame(
        [(name, fact.value, fact.unit, fact.source) for name, fact in rows],
        columns=["figure", "value", "unit", "source"],
    )


def by_dtype_of(name: str) -> dict[str, Any]:
    """The system with each dtype that it has a peak rate of."""
    from perfmodel.machine.system import hardware
    from perfmodel.machine.system_file import DTYPES

    found: dict[str, Any] = {}
    wrong = None
    for dtype in DTYPES:
        try:
            found[dtype] = hardware(name, dtype=dtype)
        except SystemFileError as error:
            wrong = wrong or error
    if wrong and not found:
        raise wrong
    return found


def print_figures(by_dtype: dict[str, Any]) -> None:
    """The figures for people: a table whose sources are numbered, and the sources below it."""
    from perfmodel import units

    system = next(iter(by_dtype.values()))
    table = figures(by_dtype)
    sources = [text for text in table["source"].unique() if text]
    pairs = zip(table["value"], table["unit"], strict=True)
    table["value"] = [units.format(value, unit) for value, unit in pairs]
    table["source"] = [f"[{sources.index(s) + 1}]" if s else "" for s in table["source"]]
    click.echo(f"{system.name}: {network_of(system) or 'one accelerator, without a network'}\n")
    click.echo(text_of(table.drop(columns="unit")) + "\n")
    for number, source in enumerate(sources, 1):
        click.echo(f"[{number}] {source}")
