"""The commands that answer "what should change": sensitivity, optimize, calibrate, compare."""

from __future__ import annotations

import difflib
import glob
import math
import re
from pathlib import Path
from typing import Any

import click

from perfmodel.cli.options import (
    SYSTEM_KEYS,
    TRACE_KEYS,
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
from perfmodel.cli.output import (
    PICTURES,
    Source,
    Target,
    counted,
    fits,
    json_text,
    output_options,
    save_plot,
    show,
    text_of,
    write_table,
)
from perfmodel.errors import InputError

FIGURE_UNITS = {"time": "s", "cost": "$", "power": "W", "energy": "J", "area": "m^2"}
"""What a budget of a figure is in."""


@click.command()
@trace_options
@system_options
@click.option(
    "--of",
    default="makespan",
    show_default=True,
    help="makespan, or a part of the critical path: compute_s, memory_s, communication_s.",
)
@click.option("--second", is_flag=True, help="Also second derivatives.")
@click.option(
    "--moves",
    is_flag=True,
    help="Also how far each parameter can move before the critical path changes.",
)
@click.option(
    "--plot", type=Target(*PICTURES), help="Write a tornado plot: FILE.png, .svg or .pdf."
)
@schedule_option
@output_options
def sensitivity(
    trace: str,
    of: Any,
    second: Any,
    moves: Any,
    plot: str | None,
    schedule: Any,
    as_json: bool,
    output: str | None,
    **options: Any,
) -> None:
    """What the step time of TRACE depends on, parameter by parameter.

    derivative is in seconds per SI unit of the parameter; elasticity is the change in per cent for one per cent more of
    the parameter; share is the part of the critical path that depends on it.
    """
    from perfmodel.analysis.sensitivity import sensitivity as evaluate

    graph = the_graph(trace, options)
    system, models = the_system(graph, options)
    table = evaluate(
        graph,
        system,
        models,
        of=of,
        schedule=schedule,
        second=second,
        moves=moves,
        tornado=bool(plot),
    )
    if plot:
        save_plot("tornado", table, plot)
    show(table, as_json, output)


@click.command()
@trace_options
@system_options
@click.option(
    "--bound",
    "bounds",
    multiple=True,
    required=True,
    callback=assignments,
    metavar="PATH=LOW:HIGH",
    help="A parameter that may change; repeatable.",
)
@click.option(
    "--objective",
    default="time",
    show_default=True,
    help="time, energy, cost, power, area, or an expression of them.",
)
@click.option(
    "--constraint",
    "constraints",
    multiple=True,
    metavar="TEXT",
    help='For example "network.0.bandwidth + network.1.bandwidth <= 1e12", or "memory_margin_B >= 0": it fits;'
    " repeatable.",
)
@click.option(
    "--budget",
    "budgets",
    multiple=True,
    metavar="FIGURE=LIMIT",
    help='At most so much of cost [$], power [W], energy [J], area [m^2] or a parameter: cost="2 M$"; repeatable.',
)
@click.option(
    "--choose",
    "choices",
    multiple=True,
    callback=assignments,
    metavar="PATH=A,B",
    help="Values to try all, for example system=dgx-h100,dgx-b200; repeatable.",
)
@click.option(
    "--integer",
    "integers",
    multiple=True,
    metavar="PATH",
    help="A bounded parameter that must be whole; repeatable.",
)
@click.option(
    "--starts",
    type=click.IntRange(min=1),
    default=8,
    show_default=True,
    help="Designs to start from.",
)
@schedule_option
@output_options
def optimize(
    trace: str,
    bounds: Any,
    objective: Any,
    constraints: Any,
    budgets: Any,
    choices: Any,
    integers: Any,
    starts: Any,
    schedule: Any,
    as_json: bool,
    output: str | None,
    **options: Any,
) -> None:
    """The hardware within bounds and a budget on which TRACE is fastest (or cheapest, ...).

    Prints what was chosen, the optimum, the constraints with their multipliers (what one more unit of the limit buys)
    and how it was found. -o writes the path of the search.
    """
    from perfmodel.optimization.optimize import optimize as solve
    from perfmodel.parameter_paths import parameters

    graph = the_graph(trace, options)
    system, models = the_system(graph, options, (*bounds, *choices))
    if "system" in choices:
        check_kept("--choose", options, system)
    limits: dict[str, tuple[float, float]] = {}
    for path, interval in bounds.items():
        low, colon, high = interval.partition(":")
        if not colon:
            raise InputError(f"--bound {path}={interval}: expected PATH=LOW:HIGH")
        limits[path] = (number(path, low, system, models), number(path, high, system, models))
    conditions = list(constraints)
    for text in budgets:
        figure, equals, limit = text.partition("=")
        if not equals:
            raise InputError(f"--budget {text}: expected FIGURE=LIMIT, for example cost=2e6")
        conditions.append(f"{figure} <= {budget(figure.strip(), limit.strip(), system, models)}")
    known = parameters(system, models)
    tried: dict[str, list[Any]] = {}
    for path, values in choices.items():
        words = listed(values)
        tried[path] = [number(path, w, system, models) for w in words] if path in known else words
    found = solve(
        graph,
        system,
        bounds=limits,
        objective=objective,
        constraints=conditions or None,
        models=each_its_own(system, models, options),
        choices=tried or None,
        integers=integers,
        starts=starts,
        schedule=schedule,
    )
    asked = " ".join((objective, *conditions))
    say_basis(found.system, (f for f in FIGURE_UNITS if re.search(rf"\b{f}\b", asked)))
    if output:
        write_table(found.path, output)
    if as_json:
        result = {
            "parameters": found.parameters,
            "choices": found.choices,
            "objective": found.objective,
            "bound": found.bound,
            "makespan_s": found.makespan,
            "own_makespan_s": found.own_makespan,
            "evaluations": found.evaluations,
            "multipliers": found.multipliers.to_dict(orient="records"),
        }
        click.echo(json_text(result))
        return
    for path, value in found.choices.items():
        click.echo(f"chosen: {path} = {value if isinstance(value, str) else f'{value:.6g}'}")
    click.echo(text_of(found.table()) + "\n")
    click.echo(
        f"step time {found.makespan:.9g} s (in its own order of issue {found.own_makespan:.9g} s)\n"
        f"objective {found.objective:.9g}, nothing below {found.bound:.9g}, "
        f"{counted(found.evaluations, 'model evaluation')}\n"
    )
    if len(found.multipliers):
        click.echo(text_of(found.multipliers))


def budget(figure: str, text: str, system: Any, models: Any) -> str:
    """The limit of a --budget option: as it stands, or in SI where it carries a unit."""
    from perfmodel import units
    from perfmodel.parameter_paths import check_path, parameter_units

    try:
        if math.isfinite(float(text)):
            return text
    except ValueError:
        known = {**FIGURE_UNITS, **parameter_units(system, models)}
        check_path(figure, known)
        return repr(units.parse(text, known[figure], where=f"--budget {figure}", zero=True))
    raise InputError(f"--budget {figure}={text}: expected a finite number")


@click.command()
@trace_options
@system_options
@click.argument("second", required=False, type=Source(), metavar="[TRACE|SYSTEM]")
@click.option(
    "--with",
    "other",
    type=Source(),
    metavar="TRACE|SYSTEM",
    help="The same as the second argument: another trace, or another system (name or TOML file).",
)
@output_options
def compare(
    trace: str, second: Any, other: Any, as_json: bool, output: str | None, **options: Any
) -> None:
    """TRACE on --system beside another trace on the same system, or the same trace on another system.

    \b
      perfmodel compare TRACE OTHER_TRACE
      perfmodel compare TRACE dgx-b200 --system dgx-h100
    A name in hwdb, or one ending in .toml, is a system. Columns a_* are of the first, b_* of the second.
    """
    from perfmodel.analysis.compare import compare as side_by_side
    from perfmodel.machine.system import accelerators, systems
    from perfmodel.prediction import predict
    from perfmodel.report.memory import knows_memory

    if (second is None) == (other is None):
        given = "is given twice, as an argument and by --with" if second else "is missing"
        raise click.UsageError(f"what to compare {trace} with {given}; perfmodel compare A B")
    other = second or other
    known = (*systems(), *accelerators())
    if trace in known and not is_there(trace):
        raise click.UsageError(
            f"{trace} is a system; two systems are compared by a trace: "
            f"perfmodel compare TRACE {other} --system {trace}"
        )
    if other not in known and not other.endswith(".toml") and not is_there(other):
        near = difflib.get_close_matches(other, known, n=3, cutoff=0.6)
        if near:
            raise InputError(
                f"{other}: no trace there, and no such system in hwdb; did you mean {' or '.join(near)}?"
            )
    graph = the_graph(trace, options)
    one = predict(graph, *the_system(graph, options))
    if other in known or other.endswith(".toml"):
        two = predict(graph, *the_system(graph, {**options, "system": other}))
    else:
        another = the_graph(other, {k: options[k] for k in TRACE_KEYS})
        two = predict(another, *the_system(another, {k: options[k] for k in SYSTEM_KEYS}))
    if not (output or as_json):
        for name, case in (("a", one), ("b", two)):
            click.echo(f"{name}: {case.graph.source} on {case.compiled.system.name}")
        click.echo()
    sections = ["category", "type", "component"]
    if knows_memory(one.graph) and knows_memory(two.graph):
        sections.append("throughput")
    table = side_by_side(one, two, by=sections)
    if not (output or as_json):
        margin = table[table["item"] == "memory_margin_B"]
        for name in ("a", "b") if len(margin) else ():
            click.echo(f"{name}: memory {fits(float(margin[f'{name}_s'].iloc[0]))} [B]")
        table = table[table["item"] != "fits"]  # said, no number
    show(table, as_json, output)


def is_there(trace: str) -> bool:
    """Whether files are there that the name of a trace (a folder, a file or a prefix) may mean."""
    path = Path(trace)
    return path.exists() or any(path.parent.glob(f"{glob.escape(path.name)}.*"))
