"""What people ask of a training step first: utilization, tokens a second, $ and J a token, does it fit.

    MFU = model FLOP / (step time x ranks x peak rate of the products' type)
    HFU = the same with what is computed again
    TFLOP/s per GPU: model FLOP, not hardware's
    $ per token = price of the machine / its years of service x step time / tokens

Model FLOP: `synth.operations`. Sources: Chowdhery et al. 2022 (PaLM, arXiv:2204.02311), appendix B, for MFU;
Korthikanti et al. 2022 (arXiv:2205.05198), section 6, for HFU.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from perfmodel.analysis.economics import figures, totals
from perfmodel.errors import InputError
from perfmodel.models.cost_power_area import models_for
from perfmodel.prediction import Prediction
from perfmodel.report.memory import known, knows_memory, peak_memory
from perfmodel.workload.training_step import TrainingStep

if TYPE_CHECKING:
    import pandas as pd

YEAR = 365.25 * 86_400

YEARS = 4.0
"""Years over which a machine's price is spread, unless said otherwise; owners write servers off over 4 to 6."""


def throughput(
    prediction: Prediction,
    *,
    tokens: float | None = None,
    economics: Any = None,
    years: float = YEARS,
) -> pd.DataFrame:
    """Utilization, throughput, memory and cost of a training step, in one row.

    Args:
        prediction: of a graph that knows its model (`synth.training`); of a trace that names tensors, which says
            nothing of a model, the row is step time and memory.
        tokens: of a whole training run; adds how long it takes without interruption.
        economics: models of cost and energy (`pm.economics.Economics`), or True for the public ones; adds $ and J.
        years: over which the machine's price is spread.

    Returns:
        step_time_s, mfu, hfu, TFLOP_per_s_per_gpu, tokens_per_s, tokens_per_s_per_gpu, peak_memory_B, fits,
        memory_margin_B; training_days; usd_per_token, J_per_token.

    Raises:
        InputError: the graph knows neither its model nor its memory, or not its model where tokens or economics are
            asked for; a number that is not positive.

    Example:
        >>> import perfmodel as pm
        >>> p = pm.predict(pm.synth.training("llama-3-8b", tensor=8).graph(), pm.hardware("dgx-h100"))
        >>> row = throughput(p).iloc[0]
        >>> bool(row.fits), bool(0 < row.mfu < 1)
        (True, True)
    """
    import pandas as pd

    row = throughput_row(prediction, tokens=tokens, economics=economics, years=years)
    return pd.DataFrame({name: [value] for name, value in row.items()})


def throughput_row(
    prediction: Prediction,
    *,
    tokens: float | None = None,
    economics: Any = None,
    years: float = YEARS,
) -> dict[str, Any]:
    """The row of `throughput`, made without pandas."""
    graph, system = prediction.graph, prediction.compiled.system
    for name, value in (("tokens", tokens), ("years", years)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name}: got {value!r}, expected a positive number.")
    seconds, capacity = prediction.makespan, float(system.npu.memory_capacity)
    columns: dict[str, Any] = {"step_time_s": seconds}
    asked = tokens is not None or (economics is not None and economics is not False)
    if graph.step is None and not asked and knows_memory(graph):
        columns |= memory_columns(peak_memory(prediction), seconds, capacity=capacity)
        return _plain(columns)
    step = known(graph)
    columns |= step_columns(
        step,
        graph.ranks,
        seconds,
        peak_flops=float(system.npu.of_dtype(step.dtype).peak_flops),
    )
    columns |= memory_columns(step.peak, seconds, capacity=capacity)
    if tokens is not None:
        columns["training_days"] = tokens / columns["tokens_per_s"] / 86_400
    if economics is not None and economics is not False:
        work = totals(prediction.graph, system)
        found = figures(system, seconds, work, economics=models_for(system, economics))
        columns |= per_token(step, seconds, found["cost_usd"], found["energy_J"], years=years)
    return _plain(columns)


def _plain(columns: dict[str, Any]) -> dict[str, Any]:
    """Python's own numbers."""
    return {name: np.asarray(value).item() for name, value in columns.items()}


def step_columns(
    step: TrainingStep, ranks: int, makespan: Any, *, peak_flops: Any
) -> dict[str, Any]:
    """Columns of utilization and throughput, for one design or arrays of designs.

    Args:
        step: what the graph does.
        ranks: of the job.
        makespan: step time [s].
        peak_flops: of the products' type, of one rank [FLOP/s].
    """
    rank_time = np.asarray(makespan) * ranks
    with np.errstate(divide="ignore"):  # a step that takes no time
        rate = 1 / rank_time
    return {
        "mfu": step.model_flops * rate / peak_flops,
        "hfu": step.hardware_flops * rate / peak_flops,
        "TFLOP_per_s_per_gpu": step.model_flops * rate / 1e12,
        "tokens_per_s": step.tokens * rate * ranks,
        "tokens_per_s_per_gpu": step.tokens * rate,
    }


def memory_columns(peak: float | None, makespan: Any, *, capacity: Any) -> dict[str, Any]:
    """Columns of memory, for one design or as many as there are makespans; none where the peak is not known.

    Args:
        peak: bytes of the rank that holds most [B].
        capacity: memory of one rank [B].
    """
    if peak is None:
        return {}
    shape = np.shape(makespan)
    margin = np.broadcast_to(np.asarray(capacity) - peak, shape)
    return {"peak_memory_B": np.full(shape, peak), "fits": margin >= 0, "memory_margin_B": margin}


def per_token(
    step: TrainingStep, makespan: Any, cost: Any, energy: Any, *, years: float = YEARS
) -> dict[str, Any]:
    """Columns of $ and J a token.

    Args:
        makespan: step time [s]; cost: of the machine [$]; energy: of a step [J].
        years: over which the price is spread.
    """
    return {
        "usd_per_token": np.asarray(cost) / (years * YEAR) * makespan / step.tokens,
        "J_per_token": np.asarray(energy) / step.tokens,
    }
