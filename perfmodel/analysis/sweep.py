"""One graph on very many designs: a tidy table, or a stream of Parquet files.

Columns of the points are parameter paths (`npu.peak_flops`, `network.0.latency`, `compute.efficiency`), static
choices of a model (`network.algorithm`), "system" (a name in hwdb or a file), or "trace" (another workload, as `load`
takes it). Points that differ in a choice are compiled once per choice; all others share one compiled graph.

Two evaluators answer, and the column `schedule` says which: the frozen longest path, and, where a design would
issue its operations in another order, that design's own schedule.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import DTypeLike
from tqdm import tqdm

from perfmodel.analysis.dask_cluster import results
from perfmodel.analysis.design_parts import check, evaluate_part, split
from perfmodel.analysis.design_space import Points, table_of
from perfmodel.analysis.evaluation import EvaluationOptions, Evaluator
from perfmodel.errors import InputError
from perfmodel.machine.system import System
from perfmodel.models.cost import Models
from perfmodel.workload.graph import Graph
from perfmodel.workload.load import load

NOTE = "_sweep.json"
"""Says which sweep a folder of parts holds; readers of Parquet folders pass over names like this."""

PART = 16_384
"""Designs per part of a sweep: one file, one unit of work."""


def sweep(
    graph: Graph,
    system: System,
    points: Points,
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
) -> pd.DataFrame | None:
    """Evaluate a graph on every design point.

    Args:
        graph: the workload, from `load`.
        system: the reference design; the points replace some of its parameters.
        points: a table, or lists whose Cartesian product is taken; see `sample` for sampled spaces.
        models: what turns work into time.
        schedule: "own" gives every design its own order of issue; "frozen" keeps the reference design's.
        breakdown: also the critical path by category, and the parameter that limits the design.
        batch_size: samples per step; adds the column throughput_per_s.
        dtype: of the longest path; float32 resolves 1 us at 10 s.
        economics: models of cost, power, energy and area (`pm.economics.Economics`), or True for the default ones
            scaled to what hwdb knows of each system; adds cost_usd, power_W, energy_J, area_mm2.
        output: a folder for Parquet parts. Parts that are there already are kept, so that an interrupted sweep
            goes on where it was.
        client: a `distributed.Client`; parts are then spread over its workers.
        part: designs per part.
        collect: give the rows back; without it (and with `output`) memory stays bounded by one part.
        progress: a progress bar; by default where the output is a terminal and there is more than one part.
        threads: of this process (default: its processors).

    Returns:
        The points' columns, makespan_s, compute_s + memory_s + communication_s + waiting_s (of the critical path),
        limited_by (the system's parameter with the largest elasticity), schedule ("own" or "frozen": whose order;
        "deadlock" where the design's own leaves ranks waiting for each other, its times are then not numbers), and
        throughput_per_s, figures of the economics.

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
    for name, count in (("part", part), ("threads", threads)):
        if count is not None and count < 1:
            raise InputError(f"{name}: got {count}, expected at least 1")
    options = EvaluationOptions(
        schedule=schedule,
        breakdown=breakdown,
        batch_size=batch_size,
        dtype=_name_of(dtype),
        threads=threads or os.cpu_count() or 1,
        economics=economics or None,
    )
    models = Models() if models is None else models
    table = table_of(points)
    graphs = _graphs(graph, table)
    check(graphs, system, models, table, options)
    parts = list(split(table, models, part))
    done: dict[int, pd.DataFrame] = {}
    folder = None
    if output is not None:
        folder = Path(output)
        _claim(folder, graphs, system, models, table, options, part)
    todo = [k for k in range(len(parts)) if folder is None or not _file(folder, k).exists()]
    show = tqdm(
        total=len(table),
        initial=len(table) - sum(len(parts[k]) for k in todo),
        disable=(len(parts) < 2 or None) if progress is None else not progress,
        unit=" designs",
        unit_scale=True,
    )
    with show:
        for k, result in _results(graphs, system, models, parts, todo, options, client):
            if folder is not None:
                _write(result, _file(folder, k))
            else:
                done[k] = result
            show.update(len(result))
    if not collect and folder is not None:
        return None
    if folder is not None:
        frames = (_read(_file(folder, k)) for k in range(len(parts)))
    else:
        frames = (done[k] for k in range(len(parts)))
    return pd.concat(frames, ignore_index=False).sort_index()


def _name_of(dtype: DTypeLike) -> str:
    try:
        return np.dtype(dtype).name
    except TypeError:
        return str(dtype)


def _graphs(graph: Graph, table: pd.DataFrame) -> dict[str, Graph]:
    """The workloads by name; the given one has none."""
    names = table["trace"].unique() if "trace" in table else []
    return {"": graph, **{str(name): load(str(name)) for name in names}}


def _results(graphs, system, models, parts, todo, options, client):
    if client is not None:
        yield from results(client, graphs, system, models, parts, todo, options)
        return
    compiled: dict[tuple, Evaluator] = {}
    for k in todo:
        yield k, evaluate_part(compiled, graphs, system, models, parts[k], options)


def _file(folder: Path, k: int) -> Path:
    return folder / f"part-{k:06d}.parquet"


def _read(path: Path) -> pd.DataFrame:
    try:
        return pd.read_parquet(path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: is no whole part of a sweep ({error}); delete it and run the sweep again"
        ) from None


def _write(result: pd.DataFrame, path: Path) -> None:
    """Whole or not at all."""
    partial_path = path.with_name(f".{path.name}.tmp")
    result.to_parquet(partial_path)
    os.replace(partial_path, path)


def _claim(folder, graphs, system, models, table, options, part) -> None:
    """Note in the folder which sweep it holds, or check that it is this one."""
    described = {
        "graph": [graph.digest or repr(graph) for graph in graphs.values()],
        "system": repr(system),
        "models": repr(models),
        "points": hashlib.sha256(
            pd.util.hash_pandas_object(table).to_numpy().tobytes() + repr(list(table)).encode()
        ).hexdigest(),
        "options": repr(replace(options, threads=0)),
        "part": part,
    }
    folder.mkdir(parents=True, exist_ok=True)
    note = folder / NOTE
    if note.exists():
        try:
            there = json.loads(note.read_text())
        except ValueError:
            there = {}
        differing = [k for k in described if there.get(k) != described[k]]
        if differing:
            raise InputError(
                f"{folder}: holds another sweep (its {', '.join(differing)} differ); "
                "choose another folder or delete this one"
            )
        return
    if any(folder.iterdir()):
        raise InputError(f"{folder}: is not empty and holds no sweep; choose an empty folder")
    partial_note = folder / f".{NOTE}.tmp"
    partial_note.write_text(json.dumps(described, indent=1))
    os.replace(partial_note, note)
