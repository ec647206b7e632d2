"""Options that several commands share, and what they mean."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import click

from perfmodel.cli.output import Source
from perfmodel.errors import InputError, SystemFileError

DEFAULT_SYSTEM = "dgx-h100"


def stacked(*options: Callable[..., Any]) -> Callable[..., Any]:
    """Several options as one decorator."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        return functools.reduce(lambda f, option: option(f), reversed(options), function)

    return decorate


def _group(ctx: click.Context, parameter: click.Parameter, values: Any) -> dict[str, list[int]]:
    groups: dict[str, list[int]] = {}
    for text in values:
        name, _, ranks = text.partition("=")
        name = name.strip()
        try:
            members = [int(r) for r in ranks.split(",")]
        except ValueError:
            raise click.BadParameter(f"{text!r} is not NAME=RANK,RANK,...") from None
        if not name:
            raise click.BadParameter(f"{text!r} has no name; expected NAME=RANK,RANK,...")
        if name in groups:
            raise click.BadParameter(f"group {name!r} is defined twice")
        repeated = [rank for rank, times in Counter(members).items() if times > 1]
        if repeated:
            raise click.BadParameter(f"{text!r} has rank {repeated[0]} twice")
        groups[name] = members
    return groups


def _time(ctx: click.Context, parameter: click.Parameter, text: str | None) -> float | None:
    """A time with its unit, such as "1 us", in seconds."""
    from perfmodel import units

    if text is None:
        return None
    try:
        return units.parse(text, "s", where=parameter.opts[0], zero=False)
    except InputError as error:
        raise click.BadParameter(str(error)) from None


def _sizes(ctx: click.Context, parameter: click.Parameter, values: Any) -> dict[str, float]:
    """{name pattern: bytes} of NAME=BYTES; bytes as a number or with a unit."""
    from perfmodel import units

    sizes: dict[str, float] = {}
    for text in values:
        name, equals, value = text.rpartition("=")
        if not equals or not name:
            raise click.BadParameter(f"{text!r} is not NAME=BYTES")
        try:
            sizes[name] = float(value)
        except ValueError:
            try:
                sizes[name] = units.parse(value, "B", where=name)
            except InputError as error:
                raise click.BadParameter(str(error)) from None
    return sizes


trace_options = stacked(
    click.argument("trace", type=Source()),
    click.option(
        "--groups",
        type=click.Path(),
        help="Communicator group file (JSON), if not beside the trace.",
    ),
    click.option(
        "--group",
        multiple=True,
        callback=_group,
        metavar="NAME=0,1,...",
        help="Define a group; repeatable.",
    ),
    click.option(
        "--unknown-group",
        type=click.Choice(["error", "world"]),
        help="What to do with groups that nobody defines: stop, or take them as all ranks  [default: error]",
    ),
    click.option(
        "--dependencies",
        type=click.Choice(["both", "data", "control"]),
        help="Which edges count  [default: both]",
    ),
    click.option(
        "--zero-duration",
        type=float,
        metavar="US",
        help="What a recorded duration of 0 whole microseconds means [us]  [default: 0.5]",
    ),
    click.option(
        "--ranks",
        type=click.IntRange(1),
        help="Of a text workload: how many ranks run it, where it does not say so. Of a PyTorch run: "
        "the first so many.",
    ),
    click.option(
        "--tensor",
        type=click.IntRange(1),
        help="Of a text workload: how many ranks share a layer (the model parallel group).",
    ),
    click.option(
        "--passes",
        type=click.IntRange(1),
        help="Of a text workload: how many training steps.  [default: 1]",
    ),
    click.option(
        "--tick",
        callback=_time,
        metavar="TIME",
        help='Of a text workload: the unit of its times, such as "1 us".  [default: 1 ns]',
    ),
    click.option(
        "--size",
        "sizes",
        multiple=True,
        callback=_sizes,
        metavar="NAME=BYTES",
        help="Size of collectives and sends that record none, by name with wildcards; repeatable.",
    ),
    click.option(
        "--messages",
        type=click.Choice(["pair", "replay"]),
        help="Sends and receives without a peer: paired where one pairing is possible (pair, the default); those that "
        "remain replayed.",
    ),
    click.option(
        "--recorded-on",
        metavar="DEVICE",
        help="Accelerator or system that the times were recorded on, if PyTorch's traces do not say.",
    ),
    click.option(
        "--step",
        help="Of a PyTorch run: last, all, file, or the number of a ProfilerStep.  [default: last]",
    ),
    click.option(
        "--offsets",
        type=click.Choice(["recorded", "collectives", "none"]),
        help="When the ranks of a PyTorch run start: by their clocks, by clocks set by the collectives, together.  "
        "[default: recorded]",
    ),
    click.option("--strict", is_flag=True, help="Warnings about the trace are errors."),
)
TRACE_KEYS = (
    *("groups", "group", "unknown_group", "dependencies", "zero_duration"),
    *("ranks", "tensor", "passes", "tick", "sizes", "messages", "strict"),
    *("recorded_on", "step", "offsets"),
)


def assignments(ctx: click.Context, parameter: click.Parameter, values: Any) -> dict[str, str]:
    pairs: dict[str, str] = {}
    for text in values:
        path, equals, value = text.partition("=")
        if not equals or not value:
            raise click.BadParameter(f"{text!r} is not PATH=VALUE")
        path = path.strip()
        if path in pairs:
            raise click.BadParameter(f"{path} is given twice")
        pairs[path] = value.strip()
    return pairs


def listed(text: str) -> list[str]:
    """The values between commas.

    >>> listed("dgx-h100, dgx-b200")
    ['dgx-h100', 'dgx-b200']
    """
    return [word.strip() for word in text.split(",")]


schedule_option = click.option(
    "--schedule",
    type=click.Choice(["own", "frozen", "simulated"]),
    default="own",
    show_default=True,
    help="Order of issue: every design's own, or the reference design's; simulated: own, by simulation of every one.",
)


def _used(ctx: click.Context, parameter: click.Parameter, value: Any) -> tuple[int, ...]:
    try:
        return tuple(int(word) for word in value.split(",")) if value else ()
    except ValueError:
        raise click.BadParameter(f"{value!r} is not N,N,...") from None


def models_option(text: str) -> Callable[..., Any]:
    """--models with the help that fits the command."""
    return click.option("--models", type=Source(), default=None, metavar="FILE", help=text)


system_options = stacked(
    click.option(
        "--system",
        default=DEFAULT_SYSTEM,
        show_default=True,
        help="A name in hwdb (`perfmodel systems` lists them) or a TOML file.",
    ),
    click.option(
        "--dtype",
        default=None,
        help="Which peak rate of the accelerator counts; by default bf16, where the device has it.",
    ),
    click.option(
        "--used",
        callback=_used,
        metavar="N,...",
        help="NPUs that jobs use of each inner network dimension, innermost first: 64 for 64 of 72.",
    ),
    models_option(
        "What turns work into time: FILE.toml as calibrate writes it, the name of a set of coefficients in hwdb, or "
        "roofline for none."
    ),
    click.option(
        "--set",
        "assignments",
        multiple=True,
        callback=assignments,
        metavar="PATH=VALUE",
        help='Change a parameter: npu.peak_flops=2e15, or with a unit: network.0.latency="2 us"; repeatable.',
    ),
    click.option(
        "--algorithm",
        default=None,
        help="Collective algorithm: auto, ring, halving-doubling, tree, direct; or one per dimension: ring,direct.",
    ),
    click.option(
        "--prefer",
        type=click.Choice(["work", "recorded"]),
        default="work",
        show_default=True,
        help="Which counts where a node has both work and a recorded duration.",
    ),
)
SYSTEM_KEYS = ("system", "dtype", "used", "models", "assignments", "algorithm", "prefer")


def load_options(options: dict[str, Any]) -> dict[str, Any]:
    """The options of `load` that were given, but strict."""
    chosen = {k: options[k] for k in TRACE_KEYS if k != "strict" and options[k] is not None}
    if "zero_duration" in chosen:
        chosen["zero_duration"] *= 1e-6
    return chosen


def the_graph(trace: str, options: dict[str, Any]) -> Any:
    """The graph that the trace options mean; prints its warnings."""
    from perfmodel.workload.load import load

    graph = load(trace, **load_options(options), strict=options["strict"])
    for text in graph.warnings:
        click.echo(f"perfmodel: {text}", err=True)
    return graph


def the_system(graph: Any, options: dict[str, Any], named: Iterable[str] = ()) -> tuple[Any, Any]:
    """The system (of the graph's size) and models that the system options mean; `named`: other parameters named."""
    from perfmodel.models.cost import models_meant, models_of
    from perfmodel.models.fitted import hardware
    from perfmodel.parameter_paths import with_parameters

    system = hardware(
        options["system"],
        dtype=options["dtype"],
        models=options["models"],
        sizes=options["used"],
    )
    if not system.network and graph.ranks > 1:
        raise SystemFileError(_no_network(system.name))
    system = system.resized(graph.ranks)
    named = (*named, *options["assignments"])
    if options["algorithm"]:
        named = (*named, "network.algorithm")
    given = None if options["models"] is None else models_of(system, None)
    models = models_of(system, models_meant(system, given, named)).replace(prefer=options["prefer"])
    if options["algorithm"]:
        words = options["algorithm"].split(",")
        algorithm = words[0] if len(words) == 1 else tuple(words)
        models = models.replace(network=_with_algorithm(models.network, algorithm))
    values = {
        path: number(path, text, system, models) for path, text in options["assignments"].items()
    }
    system, models = with_parameters(system, models, values)
    say_doubtful(system)
    return system, models


def say_doubtful(system: Any) -> None:
    """One line on standard error for figures of the system that are weak or assumed."""
    from perfmodel import units

    facts = system.doubtful()
    texts = [f"{f.path} {units.format(f.value, f.unit)} is {f.status} ({f.source})" for f in facts]
    if texts:
        click.echo(f"perfmodel: {system.name}: {'; '.join(texts)}", err=True)


def say_basis(system: Any, figures: Iterable[str]) -> None:
    """Lines on standard error that say what figures of money, power, energy and area rest on."""
    from perfmodel.models.cost_power_area import basis

    known = basis(system)
    groups: dict[str, list[str]] = {}
    for figure in figures:
        if figure in known:
            groups.setdefault(known[figure], []).append(figure)
    for text, names in groups.items():
        click.echo(f"perfmodel: {' and '.join(names)}: {text}", err=True)


def each_its_own(system: Any, models: Any, options: dict[str, Any]) -> Any:
    """None, which stands for every system's own models, where no option says anything else; else the models."""
    from perfmodel.parameter_paths import parameters

    known = parameters(system)
    said = options["models"] or options["algorithm"] or options["prefer"] != "work"
    if said or (models is not system.models and models != system.models):
        return models
    return models if any(path not in known for path in options["assignments"]) else None


def the_models(chosen: str | None) -> Any:
    """The models that --models of calibrate means: those of a file, of a set in hwdb, or the bare ones."""
    from perfmodel.models.cost import Models
    from perfmodel.models.fitted import chosen_models

    return Models() if chosen in (None, "roofline") else chosen_models(chosen).models


def _with_algorithm(network: Any, algorithm: str | tuple[str, ...]) -> Any:
    """The network model with another algorithm of its collectives.

    Raises:
        InputError: a model that knows no such choice.
    """
    from perfmodel.models.network import AlphaBeta
    from perfmodel.models.saturation import SaturatingAlphaBeta

    if isinstance(network, AlphaBeta):
        return replace(network, algorithm=algorithm)
    if isinstance(network, SaturatingAlphaBeta):
        return replace(network, base=replace(network.base, algorithm=algorithm))
    raise InputError(
        f"--algorithm: the network model {type(network).__name__} has no choice of it; leave it out, or give "
        "--models roofline"
    )


def _no_network(accelerator: str) -> str:
    from perfmodel.machine.hwdb import holders, systems

    held = holders(accelerator)
    offer = f"systems made of it: {', '.join(held)}" if held else f"systems: {', '.join(systems())}"
    return f"system {accelerator!r}: is an accelerator without a network, for one rank; {offer}."


def check_kept(option: str, options: dict[str, Any], system: Any) -> None:
    """Refuse --set of a system's parameter where `option` replaces the whole system, and it with it."""
    from perfmodel.parameter_paths import parameters

    known = parameters(system)
    lost = [path for path in options["assignments"] if path in known]
    if lost:
        raise click.UsageError(
            f"{option} system: replaces the whole system, so that --set {lost[0]} would be lost; "
            f"leave one of the two out, or give a TOML file with the figure as a system"
        )


def number(path: str, text: str, system: Any, models: Any) -> float:
    """A plain SI number, or one with a unit that fits the parameter.

    Raises:
        InputError: no such parameter, or a number that it cannot have.
    """
    from perfmodel import units
    from perfmodel.parameter_paths import check_path, parameter_limits, parameter_units

    known = parameter_units(system, models)
    check_path(path, known)
    rate = known[path].endswith("/s")
    try:
        value = float(text)
    except ValueError:
        value = units.parse(text, known[path], where=path, zero=not rate)
    endless = value == math.inf and path == "npu.memory_capacity"
    if not (math.isfinite(value) or endless) or value < 0 or (rate and not value):
        wanted = "more than 0" if rate else "0 or more"
        raise InputError(f"{path}: got {text}; expected a finite number, {wanted}")
    most = parameter_limits(system, models)[path]
    if value > most:
        raise InputError(
            f"{path}: got {text}; expected {most:g} at most, a fraction of the hardware's rate; for faster hardware "
            "change that rate (npu.peak_flops, npu.memory_bandwidth, network.0.bandwidth, ...)"
        )
    return value
