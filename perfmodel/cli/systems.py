"""`perfmodel systems`: what is in hwdb, and where its figures come from."""

from __future__ import annotations

from typing import Any

import click

from perfmodel.cli.output import output_options, show, text_of
from perfmodel.cli.text_table import text_table


@click.command()
@click.argument("name", required=False)
@click.option(
    "--kind",
    type=click.Choice(["system", "accelerator", "link", "switch", "memory"]),
    help="What to list; by default systems.",
)
@output_options
def systems(name: Any, kind: Any, as_json: bool, output: str | None) -> None:
    """The systems in hwdb with their parameters; of NAME every figure with its source.

    NAME is a system, an accelerator (such as h100-sxm), a link (nvlink-4), a switch, a memory (hbm3e), or your own TOML
    file. Rates are dense peaks, bandwidths one way; "sparse" and "achieved" figures are never used. For programs
    (--json, -o) figures are SI numbers. A network's outermost dimension marked "+" grows with the trace.
    """
    people = not (as_json or output)
    if name is not None and kind is not None:
        raise click.UsageError(
            f"--kind lists all of a kind, and {name} is one; leave one of the two out"
        )
    if name is not None:
        print_figures(name) if people else show(figures(name), as_json, output)
    elif kind in (None, "system") and people:
        click.echo(text_table(systems_for_people()))
    elif kind in (None, "system"):
        show(all_systems(), as_json, output)
    else:
        show(all_of(kind, people), as_json, output)
    if name is None and people:
        others = "perfmodel systems --kind accelerator | link | switch | memory"
        click.echo(
            f"\nEvery figure with its source: perfmodel systems NAME. Others than these: {others}."
        )


def all_systems() -> Any:
    """One row per system: its network and its parameters [SI]."""
    import pandas as pd

    from perfmodel.machine.system import hardware, parameters
    from perfmodel.machine.system import systems as names

    known = {name: hardware(name) for name in names()}
    return pd.DataFrame(
        [{"system": n, "network": network_of(s), **parameters(s)} for n, s in known.items()]
    )


def systems_for_people() -> dict[str, list[str]]:
    """A row per system: its network and the figures of one NPU, with units."""
    from perfmodel import units
    from perfmodel.machine.system import hardware
    from perfmodel.machine.system import systems as names

    columns: dict[str, list[str]] = {"system": [], "peak": [], "memory": [], "network": []}
    for name in names():
        system = hardware(name)
        npu = system.npu
        columns["system"].append(name)
        columns["peak"].append(f"{units.format(npu.peak_flops, 'FLOP/s')} {system.dtype}")
        columns["memory"].append(
            f"{units.format(npu.memory_capacity, 'B')} at {units.format(npu.memory_bandwidth, 'B/s')}"
        )
        columns["network"].append(network_of(system, people=True))
    return columns


def all_of(kind: str, people: bool = False) -> Any:
    """One row per accelerator or part of that kind, a column per figure [SI]; for people, the main ones with units."""
    from perfmodel import units
    from perfmodel.report.catalogue import catalogue

    table = catalogue(kind=kind)
    if people:
        table["value"] = [
            units.format(v, u) for v, u in zip(table["value"], table["unit"], strict=True)
        ]
        shown = ACCELERATOR if kind == "accelerator" else table["figure"].unique()
        table = table[table["figure"].isin(shown)]
    wide = table.pivot(index="name", columns="figure", values="value")
    wide = wide[[f for f in table["figure"].unique() if f in wide]].loc[table["name"].unique()]
    wide = wide.rename(columns=lambda f: f.removeprefix("npu.")) if people else wide
    wide = wide.reset_index(names=kind)
    return wide.fillna("") if people else wide


ACCELERATOR = (
    "npu.peak_flops.bf16",
    "npu.peak_flops.fp16",
    "npu.peak_flops.fp8",
    "npu.memory_bandwidth",
    "npu.memory_capacity",
    "npu.cores",
    "npu.power",
)
"""What people see of every accelerator."""


def network_of(system: Any, people: bool = False) -> str:
    """The network's dimensions in words, innermost first; for people with their bandwidths."""
    from perfmodel import units

    last = len(system.network) - 1
    return " x ".join(
        f"{d.topology} {d.size}{'+' if system.grows and k == last else ''}"
        + (f" ({units.format(d.bandwidth, 'B/s')})" if people else "")
        for k, d in enumerate(system.network)
    )


def figures(name: str) -> Any:
    """Every figure of one entry, one row each: figure, value [SI], unit, status, source."""
    from perfmodel.report.catalogue import catalogue

    return catalogue(name)[["figure", "value", "unit", "status", "source"]]


def print_figures(name: str) -> None:
    """The figures for people: a table whose sources are numbered, and the sources below it."""
    from perfmodel import units
    from perfmodel.machine.system_figures import STATUS

    table = figures(name)
    head = title_of(name)
    texts = [
        f"{status}: {source}" if status else source
        for status, source in zip(table["status"], table["source"], strict=True)
    ]
    sources = list(dict.fromkeys(text for text in texts if text))
    pairs = zip(table["value"], table["unit"], strict=True)
    table["value"] = [units.format(value, unit) for value, unit in pairs]
    table["source"] = [f"[{sources.index(text) + 1}]" if text else "" for text in texts]
    click.echo(f"{head}\n")
    click.echo(text_of(table.drop(columns="unit")) + "\n")
    for number, text in enumerate(sources, 1):
        click.echo(f"[{number}] {text}")
    used = [word for word in STATUS if word and word in set(table["status"])]
    if used:
        click.echo("\n" + "; ".join(f"{word}: {STATUS[word]}" for word in used))


def title_of(name: str) -> str:
    """What an entry is, and of a system its network and whose fitted coefficients it takes."""
    from perfmodel.machine.parts import parts
    from perfmodel.machine.system import hardware
    from perfmodel.machine.system_file import read

    if name in parts():
        part = parts()[name]
        return f"{part.name}: {part.title}, a {part.kind}"
    description = read(name)
    title = f", {description.title}" if description.title else ""
    network = network_of(hardware(name)) or "one accelerator, without a network"
    fitted = "none, the bare roofline"
    if description.models:
        own = description.models == description.name
        fitted = f"{'its own' if own else 'a relative'}, {description.models}"
    return f"{description.name}{title}: {network}\nfitted coefficients: {fitted}"
