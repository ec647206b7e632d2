"""One graph on very many designs: a tidy table, or a stream of Parquet files.

Columns of the points are parameter paths (`npu.peak_flops`, `network.0.latency`, `compute.efficiency`), static
choices of a model (`network.algorithm`), "system" (a name in hwdb or a file), or "trace" (another workload, as `load`
takes it). Points that differ in a choice are compiled once per choice; all others share one compiled graph.

The column `schedule` says who answered. "frozen": the longest path along the reference design's order, where that
certainly is the design's own; "cell": the same along the order of another design of the sweep; "own": a schedule of
this design alone.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from perfmodel import __version__
from perfmodel.analysis.design_parts import (
    SweepWork,
    check,
    choices,
    evaluate_part,
    in_si_units,
    split,
)
from perfmodel.analysis.designs import Designs, designs_of, joined
from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator
from perfmodel.compiled import Compiled, check_kinds, recall, unpack
from perfmodel.engine.bulk import devices_of
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import models_meant, models_of
from perfmodel.models.cost_power_area import basis
from perfmodel.report.memory import knows_memory
from perfmodel.workload.graph import Graph
from perfmodel.workload.identity import identity
from perfmodel.workload.load import load

if TYPE_CHECKING:
    import pandas as pd

    from perfmodel.analysis.designs import Points
    from perfmodel.analysis.sweep_store import Store

PART = 16_384
"""Designs per part of a sweep: one file, one unit of work."""


def sweep(
    graph: Graph | Compiled,
    system: System | Points | None = None,
    points: Points | None = None,
    *,
    models: Any = None,
    schedule: str = "own",
    breakdown: bool = True,
    batch_size: float | None = None,
    dtype: DTypeLike = np.float64,
    economics: Any = None,
    output: str | Path | None = None,
    client: Any = None,
    part: int = PART,
    collect: bool = True,
    progress: bool | None = None,
    threads: int | None = None,
    devices: str | None = None,
) -> pd.DataFrame | None:
    """Evaluate a graph on every design point.

    Args:
        graph: the workload, from `load`; or a compiled graph, which brings system and models:
            `sweep(compiled, points)`.
        system: the reference design; the points replace some of its parameters. Of models with `channels`, for how
            much of its time a kernel is beside collectives stays what it is there.
        points: a table, or lists whose Cartesian product is taken; see `sample` for sampled spaces.
        models: what turns work into time.
        schedule: "own" gives every design its own order of issue; "frozen" keeps the reference design's; "simulated"
            is "own" by simulation of every design, which is slow, to check against.
        breakdown: also the critical path by category, and the parameter that limits the design.
        batch_size: samples per step; adds the column throughput_per_s.
        dtype: of the longest path; float32 resolves 1 us at 10 s.
        economics: models of cost, power, energy and area (`pm.economics.Economics`), or True for the default ones
            scaled to what hwdb knows of each system; adds cost_usd, power_W, energy_J, area_mm2.
        output: a folder for Parquet parts. Parts that are there already and whole are kept, so that an interrupted
            sweep goes on where it was; damaged ones are evaluated again.
        client: a `distributed.Client`; parts are then spread over its workers, which write them themselves where
            they see the folder. Whoever can reach its scheduler can run code there.
        part: designs per part.
        collect: give the rows back; without it (and with `output`) memory stays bounded by one part.
        progress: a progress bar; by default where the output is a terminal and there is more than one part.
        threads: of this process (default: its processors).
        devices: what evaluates the designs: "host", compiled loops in this process, or a platform of JAX ("gpu",
            "tpu", "cpu"), whose devices share them; by default accelerators where there are any, else "host".
            Schedules of a design's own are made on the host in any case.

    Returns:
        The points' columns, makespan_s, compute_s + memory_s + communication_s + waiting_s (of the critical path),
        limited_by (the parameter with the largest elasticity, "recorded" or "host" where more of the time is
        recorded durations that nothing changes, or the host's, else "none"), schedule ("frozen", "cell" or "own": who
        answered; "deadlock" where the design's own leaves ranks waiting for each other, its times are then not numbers;
        "infinite" or "invalid" where the models give some duration that is infinite, or negative or no number), and
        throughput_per_s, figures of the economics (what these rest on is in `.attrs["basis"]`, a sentence each); of a
        graph that knows its model (`synth.training`) also mfu, hfu, TFLOP_per_s_per_gpu, tokens_per_s,
        tokens_per_s_per_gpu, peak_memory_B, fits, memory_margin_B, and with economics usd_per_token, J_per_token.

    Raises:
        InputError: an unknown parameter (the nearest are offered), an empty or non-finite space, a folder that
            holds another sweep.

    Example:
        >>> import perfmodel as pm
        >>> graph, system = pm.load("traces/all_reduce_4"), pm.hardware("dgx-h100")
        >>> table = pm.sweep(graph, system, {"network.0.bandwidth": [225e9, 450e9]})
        >>> bool(table.makespan_s[0] > table.makespan_s[1])
        True
    """
    if isinstance(graph, Compiled) and points is None:
        system, points = None, system
    graph, system, models = unpack(graph, system, models, "sweep")  # type: ignore[arg-type]
    check_kinds(graph, system)
    if points is None:
        raise InputError(
            "sweep: the points are missing; expected a DataFrame, or {parameter: values}"
        )
    for name, count in (("part", part), ("threads", threads)):
        if count is not None and not (isinstance(count, int | np.integer) and count >= 1):
            raise InputError(f"{name}: got {count!r}, expected a whole number of at least 1")
    for name, switch in (("breakdown", breakdown), ("collect", collect)):
        if not isinstance(switch, bool | np.bool_):
            raise InputError(f"{name}: got {switch!r}, expected True or False")
    if client is not None and not hasattr(client, "scatter"):
        raise InputError(f"client: got {client!r:.60}, expected a distributed.Client")
    options = EvaluationOptions(
        schedule=schedule,
        breakdown=breakdown,
        batch_size=batch_size,
        dtype=_name_of(dtype),
        threads=threads or os.cpu_count() or 1,
        economics=economics or None,
        devices=devices,
    )
    found = sweep_columns(
        SweepWork({"": graph}, system, models, options),
        points,
        output=output,
        client=client,
        part=part,
        collect=collect,
        progress=progress,
    )
    if found is None:
        return None
    import pandas as pd

    result = pd.DataFrame(found)
    if economics and "system" not in found:
        result.attrs["basis"] = basis(system, economics)
    return result


def sweep_columns(
    work: SweepWork,
    points: Points,
    *,
    output: str | Path | None = None,
    client: Any = None,
    part: int = PART,
    collect: bool = True,
    progress: bool | None = None,
) -> dict[str, Any] | None:
    """As `sweep`, of the graph in `work`: [D] columns by name, without waiting for pandas where no file needs it."""
    graph, system, options = work.graphs[""], work.system, work.options
    if client is None:
        devices_of(options.devices)
    designs = designs_of(points)
    graphs = _graphs(graph, designs)
    models = models_meant(system, work.models, designs.columns)
    designs = in_si_units(graphs, system, models, designs)
    check(graphs, system, models, designs, options)
    parts = list(split(designs, models_of(system, models), part))
    work = replace(work, graphs=graphs, models=models)
    store = None
    if output is not None:
        from perfmodel.analysis.sweep_store import claim

        store = claim(Path(output), _described(work, designs, part))
    done, todo = _there(store, parts, collect=collect)
    if todo and client is None and options.economics is None:
        _warn_of_unanswered(graph, system, models_of(system, models), designs)
    with _progress(parts, todo, progress) as show:
        for k, result in _results(work, parts, todo, store, client):
            show(len(parts[k]))
            if result is not None and (collect or store is None):
                done[k] = result
    if not collect and store is not None:
        return None
    for k in range(len(parts)):
        if k not in done and store is not None:
            done[k] = _read_again(store, k, parts[k])
    return {**designs.columns, **joined(parts, [done[k] for k in range(len(parts))])}


@contextmanager
def _progress(
    parts: list[Designs], todo: list[int], shown: bool | None
) -> Iterator[Callable[[int], Any]]:
    """What counts the designs that are done, for a progress bar."""
    if shown is False or (shown is None and len(parts) < 2):
        yield lambda designs: None
        return
    from tqdm import tqdm

    total = sum(map(len, parts))
    with tqdm(
        total=total,
        initial=total - sum(len(parts[k]) for k in todo),
        disable=None if shown is None else False,
        unit=" designs",
        unit_scale=True,
    ) as bar:
        yield bar.update


def _warn_of_unanswered(graph: Graph, system: System, models: Any, designs: Designs) -> None:
    """Say which varied parameters no node of the workload answers to."""
    if choices(designs.columns, models):
        return
    values = designs.numbers(list(designs.columns))
    moving = (values != values[:, :1]).any(axis=1)
    varied = [name for name, moves in zip(designs.columns, moving) if moves]
    if not varied:
        return
    unanswered = Evaluator.of(recall(graph, system, models)).unanswered(tuple(varied))
    if knows_memory(graph):  # whether it fits is an answer
        unanswered = [path for path in unanswered if path != "npu.memory_capacity"]
    if unanswered:
        warnings.warn(
            f"{graph.source}: no node answers to {', '.join(unanswered)}: the makespan is the same whatever the value; "
            "its durations are recorded, or it has no such work",
            stacklevel=4,
        )


def _described(work: SweepWork, designs: Designs, part: int) -> dict[str, Any]:
    """What a sweep's numbers depend on, by name."""
    return {
        "version": __version__,
        "graph": [graph.digest for graph in work.graphs.values()],
        "system": identity(work.system),
        "models": identity(models_of(work.system, work.models)),
        "points": designs.identity,
        "options": identity(replace(work.options, threads=0, devices=None)),
        "part": part,
    }


def _there(
    store: Store | None, parts: list[Designs], *, collect: bool
) -> tuple[dict[int, dict[str, Any]], list[int]]:
    """The parts that are there and whole (their figures, where they are collected), and those to evaluate."""
    if store is None:
        return {}, list(range(len(parts)))
    from perfmodel.analysis.sweep_store import Damaged

    done: dict[int, dict[str, Any]] = {}
    todo = []
    for k, points in enumerate(parts):
        try:
            figures = points.figures_in(store.read(k, points))
            if collect:
                done[k] = figures
        except FileNotFoundError:
            todo.append(k)
        except Damaged as error:
            warnings.warn(f"{store.path(k)}: {error}; evaluated again", stacklevel=4)
            todo.append(k)
    return done, todo


def _read_again(store: Store, part: int, points: Designs) -> dict[str, Any]:
    """The figures of a part that another process has just written."""
    from perfmodel.analysis.sweep_store import Damaged

    try:
        return points.figures_in(store.read(part, points))
    except (Damaged, FileNotFoundError) as error:
        raise InputError(
            f"{store.path(part)}: has changed while the sweep ran ({error}); run it again"
        ) from None


def _name_of(dtype: DTypeLike) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _graphs(graph: Graph, designs: Designs) -> dict[str, Graph]:
    """The workloads by name, read with the options that the given one, which has no name, was read with."""
    names = dict.fromkeys(map(str, designs.columns.get("trace", ())))
    options = graph.origin.options if graph.origin else {}
    return {"": graph, **{name: load(name, **options) for name in names}}


def _results(
    work: SweepWork, parts: list[Designs], todo: list[int], store: Store | None, client: Any
) -> Iterator[tuple[int, dict[str, NDArray[Any]] | None]]:
    """(number, figures) of the parts to do; None for the figures of a part that another process wrote to the store."""
    if client is not None:
        from perfmodel.analysis.dask_cluster import results

        yield from results(client, work, parts, todo, store)
        return
    compiled: dict[tuple[Any, ...], Evaluator] = {}
    for k in todo:
        result = evaluate_part(compiled, work, parts[k])
        if store is not None:
            store.write(k, parts[k].frame(result))
        yield k, result
