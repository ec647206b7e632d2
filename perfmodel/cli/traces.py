"""Commands that turn traces into other traces, graphs and tables: convert, retarget, export, stats, difference."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from perfmodel.cli.options import (
    SYSTEM_KEYS,
    TRACE_KEYS,
    system_options,
    the_graph,
    the_system,
    trace_options,
)
from perfmodel.cli.output import Source, Target, counted, output_options, show
from perfmodel.errors import InputError
from perfmodel.files import check_target, whole_file

_RANK_FILE = re.compile(r"(?P<prefix>.+)\.\d+(?P<ending>\.(et|json)(\.gz)?)")
_ENDING = re.compile(r"(?P<prefix>.+?)(?P<ending>\.(et|json)(\.gz)?)")
_GOAL = (".goal", ".goal.gz")


class Files(click.ParamType):  # type: ignore[type-arg,unused-ignore]
    """Files to write: a name, a prefix or a folder; any name but an empty one."""

    name = "path"

    def convert(self, value: Any, param: Any, ctx: Any) -> str:
        if not value.strip():
            raise InputError(f"{value!r}: is no file to write; expected a name")
        text: str = value
        return text


@click.command()
@trace_options
@click.argument("target", type=Files())
@system_options
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
@click.option(
    "--anonymise", is_flag=True, help="Take names out; a report says what can still be inferred."
)
@click.option(
    "--key",
    type=Target(".json"),
    help="Write the key of --anonymise, which leads back to the names. Keep it.",
)
@click.option(
    "--digits",
    type=click.IntRange(1, 15),
    help="With --anonymise: round sizes and times to so many digits.",
)
def convert(
    trace: str, target: Any, overwrite: bool, anonymise: Any, key: Any, digits: Any, **options: Any
) -> None:
    """Write TRACE anew as TARGET: Chakra's .et or JSON, or GOAL.

    Any trace that can be loaded becomes <TARGET>.<rank>.et for every rank with <TARGET>.json for its groups: with peers
    and tags, without dangling dependencies, read by Chakra's tools and by ASTRA-sim. TARGET ending in .json gives JSON
    documents, in .goal a GOAL schedule (of recorded times, or where those are missing of what --system predicts), in
    .gz compressed files. One rank's Chakra file and a TARGET such as t.0.et: that file alone, with all that is in it.
    """
    if (key or digits) and not anonymise:
        raise click.UsageError("--key and --digits belong to --anonymise")
    if not anonymise and not target.endswith((*_GOAL, ".npz")) and _is_one_chakra_file(trace):
        _convert_file(trace, target)
        return
    graph = the_graph(trace, options)
    if anonymise:
        graph = _anonymised(graph, key, digits)
    _write(graph, target, overwrite=overwrite, options=options)


def _is_one_chakra_file(trace: str) -> bool:
    from perfmodel.workload.readers import read_chakra, reader_of

    return Path(trace).is_file() and reader_of(trace) is read_chakra and not trace.endswith(".npz")


def _convert_file(source: str, target: str) -> None:
    """One rank's file, record by record: unknown fields stay, dependencies on nothing go."""
    from perfmodel.trace import chakra
    from perfmodel.trace.chakra import json_forms
    from perfmodel.workload.trace_files import VERSION

    check_target(target)
    known = set(chakra.read(source).id.tolist())
    records = chakra.messages(source)
    metadata = next(records, None) or chakra.GlobalMetadata(version=VERSION)
    left_out = 0

    def kept() -> Iterator[Any]:
        nonlocal left_out
        for node in records:
            for field in ("ctrl_deps", "data_deps"):
                deps = getattr(node, field)
                there = [i for i in deps if i in known]
                if len(there) < len(deps):
                    left_out += len(deps) - len(there)
                    del deps[:]
                    deps.extend(there)
            yield node

    if target.removesuffix(".gz").endswith(".json"):
        text = json_forms.document(metadata, kept())
        with whole_file(target) as file:
            file.write(text.encode())
    else:
        chakra.write(target, metadata, kept())
    if left_out:
        click.echo(
            f"perfmodel: warning: {left_out} dependencies on nodes that are not in the file: left out",
            err=True,
        )
    click.echo(f"{target}: written", err=True)


def _anonymised(graph: Any, key: str | None, digits: int | None) -> Any:
    from perfmodel.workload.anonymise import anonymise

    result = anonymise(graph, digits=digits)
    if key:
        with whole_file(key) as file:
            file.write(json.dumps(result.key, indent=1).encode())
        os.chmod(key, 0o600)
        click.echo(f"{key}: written; it leads back to the names, keep it to yourself", err=True)
    click.echo("What a reader of the trace can still tell:")
    for line in result.report:
        click.echo(f"  {line}")
    return result.graph


def _write(graph: Any, target: str, *, overwrite: bool, options: dict[str, Any]) -> None:
    """A graph as .et or JSON files, as GOAL, or as a saved graph."""
    from perfmodel.workload.trace_files import write_trace

    name = Path(target).name
    if name.endswith((*_GOAL, ".npz")):
        check_target(target)
        if Path(target).exists() and not overwrite:
            raise InputError(f"{target}: is there already. Choose another name, or say --overwrite")
        _write_goal(graph, target, options) if name.endswith(_GOAL) else _save(graph, target)
        click.echo(f"{target}: written", err=True)
        return
    match = _RANK_FILE.fullmatch(name) or _ENDING.fullmatch(name)
    prefix = Path(target).with_name(match["prefix"]) if match else Path(target)
    if target.endswith("/") or prefix.is_dir():
        prefix = prefix / "t"
    files = write_trace(
        graph, prefix, ending=match["ending"] if match else ".et", overwrite=overwrite
    )
    click.echo(f"{prefix}: {counted(len(files), 'file')} written", err=True)


def _save(graph: Any, target: str) -> None:
    from perfmodel.workload.archive import save

    save(graph, target)


def _write_goal(graph: Any, target: str, options: dict[str, Any]) -> None:
    import numpy as np

    from perfmodel.prediction import predict
    from perfmodel.vocabulary import NodeType
    from perfmodel.workload.goal_schedule import write_goal

    works = (NodeType.COMP, NodeType.MEM_LOAD, NodeType.MEM_STORE)
    missing = any((np.isnan(p.duration) & np.isin(p.type, works)).any() for p in graph.programs)
    times = None
    if missing:
        times = predict(graph, *the_system(graph, options)).duration
        click.echo(f"perfmodel: computation takes what {options['system']} predicts", err=True)
    write_goal(graph, target, times=times)


def _pair(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[str, str] | None:
    """OLD:NEW"""
    if text is None:
        return None
    old, colon, new = text.partition(":")
    if not colon or not old or not new:
        raise click.BadParameter(f"{text!r} is not OLD:NEW")
    return old, new


def _numbers(
    ctx: click.Context, parameter: click.Parameter, text: str | None
) -> tuple[int, int] | None:
    """OLD:NEW of whole numbers; one number stays as it is."""
    if text is None:
        return None
    old, _, new = text.partition(":")
    try:
        return int(old), int(new or old)
    except ValueError:
        raise click.BadParameter(f"{text!r} is not OLD:NEW, whole numbers") from None


@click.command()
@trace_options
@click.argument("target", type=Files())
@click.option(
    "--from",
    "trace_ranks",
    type=click.IntRange(1),
    help="Ranks of a text workload that does not say them.",
)
@click.option(
    "--data", multiple=True, help="Name of the data parallel groups, with wildcards; repeatable."
)
@click.option(
    "--batch", callback=_numbers, metavar="OLD:NEW", help="Sequences that a rank has at once."
)
@click.option(
    "--sequence",
    callback=_numbers,
    metavar="OLD:NEW",
    help="Tokens of a sequence; needed with --batch, too.",
)
@click.option(
    "--dtype", callback=_pair, metavar="OLD:NEW", help="Format of the numbers, such as bf16:fp8."
)
@click.option("--overwrite", is_flag=True, help="Replace files that are there.")
def retarget(
    trace: str,
    target: Any,
    trace_ranks: Any,
    data: Any,
    batch: Any,
    sequence: Any,
    dtype: Any,
    overwrite: bool,
    **options: Any,
) -> None:
    """Write TRACE for another number of --ranks, another --batch, --sequence or --dtype.

    More or fewer ranks are more or fewer replicas of the model, with the same batch on each rank.

    Gradients' all-reduces keep their size, shards of parameters and the optimizer's work on them shrink or grow. What
    is taken for granted is said.
    """
    from perfmodel.workload.retarget import retarget as retargeted

    ranks = options["ranks"]
    if not (ranks or batch or sequence or dtype):
        raise click.UsageError(
            "nothing to change: give --ranks, --batch and --sequence, or --dtype"
        )
    before = the_graph(trace, {**options, "ranks": trace_ranks})
    graph = retargeted(
        before, ranks=ranks, data=list(data) or None, batch=batch, sequence=sequence, dtype=dtype
    )
    for text in graph.warnings:
        if "retarget" in text:
            click.echo(f"perfmodel: {text}", err=True)
    _write(graph, target, overwrite=overwrite, options=options)


@click.command()
@trace_options
@click.argument("target", type=Target(".dot", ".graphml", ".dot.gz", ".graphml.gz"))
@click.option("--rank", "only", multiple=True, type=int, help="Only this rank; repeatable.")
@click.option(
    "--collapse",
    type=click.IntRange(1),
    help="Nodes whose names agree in so many parts become one.",
)
def export(trace: str, target: Any, only: Any, collapse: Any, **options: Any) -> None:
    """Write the graph of TRACE as TARGET, a .dot (Graphviz) or .graphml (yEd, Gephi, networkx) file."""
    from perfmodel.report.graph_files import write_graph

    graph = the_graph(trace, options)
    write_graph(graph, target, ranks=list(only) or None, collapse=collapse)
    click.echo(f"{target}: written", err=True)


_BY = click.option(
    "--by",
    type=click.Choice(["operator", "name", "type", "kind"]),
    default="operator",
    show_default=True,
    help="What counts together; operator: names without numbers and signatures.",
)
_WHERE = click.option(
    "--where",
    type=click.Choice(["all", "host", "device"]),
    default="all",
    show_default=True,
    help="Operators of the host, kernels of the device, or all.",
)
_PREDICTED = click.option(
    "--predicted", is_flag=True, help="Times that --system predicts, not recorded ones."
)


@click.command()
@trace_options
@system_options
@_BY
@_WHERE
@_PREDICTED
@output_options
def stats(
    trace: str,
    by: Any,
    where: Any,
    predicted: Any,
    as_json: bool,
    output: str | None,
    **options: Any,
) -> None:
    """How often each operator and kernel of TRACE runs, and how long: calls, total, mean, least, most, share, FLOP."""
    from perfmodel.prediction import predict
    from perfmodel.report.statistics import statistics

    graph = the_graph(trace, options)
    what = predict(graph, *the_system(graph, options)) if predicted else graph
    show(statistics(what, by, where=where), as_json, output)


@click.command()
@trace_options
@system_options
@click.option(
    "--with", "other", type=Source(), help="The other trace; without it, TRACE's own prediction."
)
@_BY
@_WHERE
@output_options
def difference(
    trace: str, other: Any, by: Any, where: Any, as_json: bool, output: str | None, **options: Any
) -> None:
    """Where two traces differ, or recorded times of TRACE and those that --system predicts: by operator."""
    from perfmodel.prediction import predict
    from perfmodel.report.statistics import difference as differences

    graph = the_graph(trace, options)
    if other:
        second: Any = the_graph(other, {key: options[key] for key in TRACE_KEYS})
    else:
        second = predict(graph, *the_system(graph, options))
    show(differences(graph, second, by, where=where), as_json, output)


@click.command()
@trace_options
@system_options
@click.option("-o", "--output", type=Target(".zip"), required=True, help="The file to write.")
def bundle(trace: str, output: str, **options: Any) -> None:
    """Pack TRACE, system, models, versions and the predicted result into one file, for others to reproduce."""
    from perfmodel.cli.bundle_file import write_bundle
    from perfmodel.prediction import predict

    graph = the_graph(trace, options)
    prediction = predict(graph, *the_system(graph, options))
    write_bundle(output, prediction, {key: options[key] for key in SYSTEM_KEYS})
    click.echo(f"{output}: written; makespan {prediction.makespan:.6g} s", err=True)


@click.command()
@click.argument("file", type=Source())
@click.option("--json", "as_json", is_flag=True, help="JSON on standard output, for programs.")
def reproduce(file: Any, as_json: bool) -> None:
    """Run what a bundle FILE holds, and say whether the numbers are the same.

    Exit status 1 where they are not.
    """
    from perfmodel.cli.bundle_file import reproduce_bundle
    from perfmodel.cli.output import json_text

    report = reproduce_bundle(file)
    click.echo(json_text(report.as_dict()) if as_json else report.text())
    if not report.same:
        raise SystemExit(1)
