"""Published training steps as settings of `synth.training`: what was run, and how long a step took.

Each function reads one table of ``reference/measured`` (or holds a table of the paper named) and returns jobs. What a
table does not say (overlap, types of gradients, buckets) comes from the framework's release that it ran, as named at
each function. Nothing here is fitted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

import perfmodel as pm
from perfmodel.machine.hwdb import find_hwdb
from perfmodel.models.model_file import read_models

NEMO = {
    **{"sharding": 1, "gradient_dtype": "bf16", "gather_dtype": "fp8", "bucket": 128 * 2**20},
    **{"attention": "flash", "dtype": "fp8", "dropout": False, "fused_loss": True},
}
"""NVIDIA NeMo's performance recipes: distributed optimizer, 16-bit gradients, both overlaps, fp8 and its parameters."""


@dataclass(frozen=True)
class Job:
    """One measured step.

    Attributes:
        table, row: where it stands.
        system: of `pm.hardware`; changes: parameters of it that the source states otherwise; sizes: of inner
            dimensions, where the job does not use all of one.
        coefficients: of the models, where the source's software is not the one that they were fitted to.
        measured: step time [s].
        model, settings: of `synth.training`.
    """

    table: str
    row: str
    system: str
    measured: float
    model: Any
    settings: dict[str, Any]
    changes: dict[str, float] = field(default_factory=dict)
    sizes: tuple[int, ...] = ()
    coefficients: dict[str, float] = field(default_factory=dict)

    def workload(self) -> pm.synth.Workload:
        """What was run."""
        return pm.synth.training(self.model, **self.settings)

    def predicted(self, models: Any = None) -> float:
        """Step time [s]."""
        work = self.workload()
        more: dict[str, Any] = {"sizes": self.sizes} if self.sizes else {}
        system = pm.hardware(self.system, ranks=max(work.ranks, 8), **more)
        if self.changes:
            system, _ = pm.with_parameters(system, pm.Models(), self.changes)
        return pm.predict(work.graph(), system, models).makespan


COEFFICIENTS = {"dgx-a100": "a100-sxm-80", "dgx-a100-40": "a100-sxm-80"}
"""Whose fitted kernels and collectives a system takes; the others take those of H100, with their own datasheet."""


def fitted(job: Job, channels: float | None = None) -> pm.Models:
    """The models in hwdb that were fitted to kernels and collectives, of the job's accelerator or its relative.

    Args:
        job: what was run.
        channels: cores that collectives hold, 0 for none; those of the models unless given.
    """
    name = COEFFICIENTS.get(job.system, "h100-sxm")
    models = read_models(find_hwdb() / "models" / f"{name}.toml").models
    if job.coefficients:
        system = pm.hardware(job.system)
        _, models = pm.with_parameters(system, models, job.coefficients)
    return models if channels is None else models.replace(channels=channels or None)


def errors(
    jobs: Iterable[Job],
    channels: float | None = None,
    say: Callable[[str], Any] = lambda text: None,
) -> pd.DataFrame:
    """One row a job: table, row, system, ranks, measured_s, predicted_s, error (predicted / measured - 1).

    Args:
        jobs: what was run.
        channels: as for `fitted`.
        say: takes a line as soon as a row is done.
    """
    rows = []
    for job in jobs:
        seconds = job.predicted(fitted(job, channels))
        error = seconds / job.measured - 1
        ranks = job.workload().ranks
        rows.append((job.table, job.row, job.system, ranks, job.measured, seconds, error))
        say(f"{job.row}: measured {job.measured:.4g} s, predicted {seconds:.4g} s, {error:+.1%}")
    names = ["table", "row", "system", "ranks", "measured_s", "predicted_s", "error"]
    return pd.DataFrame(rows, columns=names)


def leave_one_out(table: pd.DataFrame) -> pd.Series:
    """Errors with one factor for the table, fitted (median of ratios) to all rows but the one that it is applied to."""
    ratio = table.measured_s / table.predicted_s
    factor = pd.Series([ratio.drop(k).median() for k in table.index], table.index)
    return factor * table.predicted_s / table.measured_s - 1


def smallest_first(table: pd.DataFrame) -> pd.Series:
    """Errors with one factor for each system that makes its smallest job (by ranks) exact; that one is left out."""
    found = []
    for _, rows in table.groupby("system", sort=False):
        first = rows.ranks.idxmin()
        factor = rows.measured_s[first] / rows.predicted_s[first]
        found.append((factor * rows.predicted_s / rows.measured_s - 1).drop(first))
    return pd.concat(found)


def gpt(layers: int, hidden: int, heads: int, vocabulary: int = 51_200) -> dict[str, Any]:
    """Sizes of a model of GPT-3's kind."""
    return {"layers": layers, "hidden": hidden, "heads": heads, "vocabulary": vocabulary}


def megatron_table_5() -> list[Job]:
    """Korthikanti et al. 2022 (arXiv:2205.05198), table 5: Megatron-LM on A100-80GB, unfused attention, fp16."""
    runs = (
        # model, gpus, pipeline, chunks, batch, micro-batch, seconds with full recomputation, with both techniques
        ("megatron-22b", 1, 1, 4, 4, 1.42, 1.10),
        ("megatron-175b", 8, 3, 64, 1, 18.13, 13.75),
        ("megatron-530b", 35, 3, 280, 1, 49.05, 37.83),
        ("megatron-1t", 64, 1, 512, 1, 94.42, 71.49),
    )
    jobs = []
    for model, pipeline, virtual, batch, micro_batch, full, both in runs:
        base = {
            **{"tensor": 8, "pipeline": pipeline, "virtual": virtual, "micro_batch": micro_batch},
            # messages between stages were not overlapped yet
            **{
                "global_batch": batch,
                "dtype": "fp16",
                "overlap": ("gradients", "parameters", "sums"),
            },
        }
        techniques = {"sequence_parallel": True, "recompute": "selective"}
        for name, more, seconds in (
            ("full", {"recompute": "full"}, full),
            ("sequence + selective", techniques, both),
        ):
            row = f"{model}, {name}"
            jobs.append(Job("Megatron table 5", row, "dgx-a100", seconds, model, base | more))
    return jobs


def vtrain(where: Path, name: str) -> list[Job]:
    """vTrain's measurements of Megatron-DeepSpeed on A100: full recomputation, 1F1B, 100 Gbit/s of network a GPU.

    Nothing overlaps: its products sum the gradients of their inputs in a call that is waited for, and autograd adds
    gradients up, in no product (microsoft/Megatron-DeepSpeed at 1619965, megatron/mpu/layers.py).
    """
    table = pd.read_csv(where / f"vtrain_iterations_{name}.csv", encoding="utf-8-sig")
    jobs = []
    for k, row in table.iterrows():
        r = {str(key).strip(): value for key, value in row.items()}
        ranks = int(r["tensor parallelism"])
        words = (
            50_257 // ranks * ranks
        )  # not padded (VIA-Research/vTrain at HEAD, src/config.py, src/model)
        sizes = gpt(int(r["# layers"]), int(r["hidden size"]), int(r["attention heads"]), words)
        settings = {
            "data": int(r["data parallelism"]),
            "tensor": int(r["tensor parallelism"]),
            "pipeline": int(r["pipeline parallelism"]),
            "micro_batch": int(r["micro batch"]),
            "global_batch": int(r["global batch"]),
            "sequence": int(r["sequence length"]),
            "recompute": "full",
            "dtype": "fp16",
            "gradient_dtype": "fp16",
            "accumulation": "autograd",
            "overlap": False,
        }
        jobs.append(
            Job(
                f"vTrain {name.replace('_half', '').replace('_', ' ')}",
                f"{k}: {r['# GPUs']:.0f} GPUs, hidden {r['hidden size']:.0f}, {settings['data']} x"
                f" {settings['tensor']} x {settings['pipeline']}",
                "dgx-a100",
                float(r["iteration time (ms)"]) * 1e-3,
                sizes,
                settings,
                {"network.1.bandwidth": 12.5e9},
            )
        )
    return jobs


def mlperf_405b(where: Path, version: str = "v5.0") -> list[Job]:
    """MLPerf Training, Llama 3.1 405B: NVIDIA's submissions whose parallelism is in their file names.

    Embedding and loss count as layers (the default division does the same), 16-bit attention and head, tensor-parallel
    overlap in v5.0 only. Products in fp8, but for NVIDIA's own of v5.1, which are in fp4 with 16-bit gathers.
    """
    table = pd.read_csv(where / "mlperf_llama_steps_half.csv")
    table = table[(table.bench == "llama31_405b") & (table.version == version)]
    jobs = []
    for _, r in table.iterrows():
        spread = _mlperf_spread(r)
        if spread is None:
            continue
        tensor, pipeline, context, virtual = spread
        system = "dgx-h100" if "H100" in r.accelerator else "gb200-nvl72"
        if "B200-SXM" in r.accelerator:
            system = "dgx-b200"
        if "GB300" in r.accelerator:
            system = "gb300-nvl72"
        narrow = {}
        if version == "v5.1" and r.submitter == "NVIDIA":
            narrow = {"dtype": "fp4", "gather_dtype": "bf16"}
        gpus = int(r.gpus)
        order = "data" if r.system in ("eos-dfw_n256", "eos-dfw_n320", "tyche_ngpu256") else ""
        settings = NEMO | narrow
        settings |= {
            "data": gpus // (tensor * pipeline * context),
            "tensor": tensor,
            "pipeline": pipeline,
            "context": context,
            "virtual": virtual,
            "micro_batches": int(r.ga),
            "sequence": int(r.seq),
            "sequence_parallel": True,
            "overlap": True
            if version == "v5.0"
            else ("gradients", "parameters", "pipeline", "sums"),
            "rank_order": "tensor-context-data-pipeline"
            if order
            else "tensor-context-pipeline-data",
        }
        jobs.append(
            Job(
                f"MLPerf {version} 405B",
                f"{r.system}, {gpus} GPUs, {r.accelerator}",
                system,
                float(r.step_time_median_s),
                "llama-3.1-405b",
                settings,
                sizes=(64,) if "nvl72" in system else (),
            )
        )
    return jobs


def _mlperf_spread(r: Any) -> tuple[int, int, int, int] | None:
    if pd.isna(r.tp):
        return (4, 8, 2, 8) if "dgxb200x8" in r.system else None
    return int(r.tp), int(r.pp), int(r.cp), int(r.vp)


NEMO_MODELS = {
    "GPT3-5B": "gpt-3-5b",
    "GPT3-20B": "gpt-3-20b",
    "GPT3-175B": "megatron-175b",
    "LLAMA2-7B": "llama-2-7b",
    "LLAMA2-13B": "llama-2-13b",
    "LLAMA2-70B": "llama-2-70b",
    "LLAMA3-8B": "llama-3-8b",
    "LLAMA3-70B": "llama-3-70b",
    "Nemotron-8B": "nemotron-3-8b",
    "Nemotron-15B": "nemotron-4-15b",
    "Nemotron-22B": "nemotron-3-22b",
    "Nemotron-340B": "nemotron-4-340b",
}


def nemo(where: Path) -> list[Job]:
    """NVIDIA's performance page of NeMo 24.12, H100, fp8."""
    table = pd.read_csv(where / "nemo_24.12_h100_fp8.csv")
    jobs = []
    for _, r in table.iterrows():
        gpus, spread = int(r.gpus), (int(r.tp), int(r.pp), int(r.cp), int(r.vp))
        tensor, pipeline, context, virtual = spread
        virtual = virtual if pipeline > 1 else 1
        settings = NEMO | {
            "data": gpus // (tensor * pipeline * context),
            "tensor": tensor,
            "pipeline": pipeline,
            "context": context,
            "virtual": virtual,
            "micro_batch": int(r.mbs),
            "global_batch": int(r.gbs),
            "sequence": int(r.seq),
            "sequence_parallel": tensor > 1,
            "overlap": True,
        }
        seconds = int(r.gbs) * int(r.seq) / (float(r.tokens_per_s_per_gpu) * gpus)
        name = next((v for k, v in NEMO_MODELS.items() if k.lower() == r.model.lower()), None)
        if name is None:
            raise pm.InputError(f"nemo_24.12_h100_fp8.csv: no preset for {r.model!r}")
        row = f"{r.model}, {gpus} GPUs, {tensor} x {pipeline} x {context}, {virtual} chunks"
        jobs.append(Job("NeMo 24.12", row, "dgx-h100", seconds, name, settings))
    return jobs


BRIDGE_MODELS = {
    "Llama3-8B": "llama-3-8b",
    "Llama3-70B": "llama-3-70b",
    "Llama3.1-405B": "llama-3.1-405b",
    "LLAMA3-8B": "llama-3-8b",
    "LLAMA3-70B": "llama-3-70b",
    "LLAMA3.1-405B": "llama-3.1-405b",
}


def bridge(where: Path) -> list[Job]:
    """NVIDIA's performance pages of Megatron-Bridge: pre-training of dense models on DGX-H100 without full sharding."""
    table = pd.read_csv(where / "megatron_bridge_throughput.csv")
    chosen = table.task.str.startswith("Pre-Training") & (table.System == "DGX-H100")
    chosen &= table.model.map(lambda m: _bridge_model(m) is not None)
    jobs = []
    for k, r in table[chosen].iterrows():
        if pd.notna(r.FSDP) and float(r.FSDP) > 0:
            continue
        gpus = int(r["#-GPUs"])
        tensor, pipeline, context = int(r.TP), int(r.PP), int(r.CP)
        virtual = 1 if pd.isna(r.VP) or pipeline == 1 else int(r.VP)
        fp8 = "FP8" in str(r.Precision)
        settings = NEMO | {
            "dtype": "fp8" if fp8 else "bf16",
            "gather_dtype": "fp8" if fp8 else "bf16",
            "data": gpus // (tensor * pipeline * context),
            "tensor": tensor,
            "pipeline": pipeline,
            "context": context,
            "virtual": virtual,
            "micro_batch": int(r.MBS),
            "global_batch": int(r.GBS),
            "sequence": int(r["Sequence Length"]),
            "sequence_parallel": tensor > 1,
            "overlap": True,
        }
        tokens = float(str(r["Tokens / sec / GPU"]).replace(",", ""))
        seconds = settings["global_batch"] * settings["sequence"] / (tokens * gpus)
        name = f"{r.rel[:5]} {r.model} {r.Precision}, {gpus} GPUs, {tensor} x {pipeline} x {context}, row {k}"
        jobs.append(
            Job("Megatron-Bridge H100", name, "dgx-h100", seconds, _bridge_model(r.model), settings)
        )
    return jobs


def _bridge_model(name: str) -> str | None:
    plain = str(name).lower().replace(" ", "").replace("-", "").replace("_", "")
    for word, preset in (
        ("llama38b", "llama-3-8b"),
        ("llama370b", "llama-3-70b"),
        ("llama3.1405b", "llama-3.1-405b"),
    ):
        if plain == word:
            return preset
    return None


MPT = {
    # layers, hidden, heads
    "760m": (24, 1536, 12),
    "1b": (24, 2048, 16),
    "3b": (32, 2560, 20),
    "7b": (32, 4096, 32),
    "13b": (40, 5120, 40),
    "30b": (48, 7168, 56),
    "70b": (80, 8192, 64),
}


def foundry(where: Path, gpu: str) -> list[Job]:
    """MosaicML's llm-foundry: MPT with PyTorch's FSDP; `gpu` is "a100_40gb" or "h100_80gb" (amp_bf16, FULL_SHARD).

    Sharded in fp32, gathered in 16 bits, gradients summed in fp32 (in 16 bits where the mode is PURE), every block
    computed again where the row says so. Its flash attention of 2023 is older than the kernels that hwdb's coefficients
    of H100 were fitted to: FlashAttention-2 reaches 35 % of that device's peak (Shah et al. 2024, arXiv:2407.08608,
    abstract).
    """
    table = pd.read_csv(where / "llm_foundry_throughput.csv")
    chosen = (gpu == table.GPU) & table.Model.isin(MPT) & (table.Model != "760m")
    if gpu.startswith("h100"):
        chosen &= (table.Precision == "amp_bf16") & (table["Sharding Strategy"] == "FULL_SHARD")
    jobs = []
    for k, r in table[chosen].iterrows():
        gpus = int(r["# GPUs"])
        sequence = int(r["SeqLen (T)"])
        sizes = gpt(*MPT[r.Model], vocabulary=50_368) | {
            "positions": sequence,
            "sequence": sequence,
        }
        pure = r["MP Mode"] == "PURE"
        settings = {
            "data": gpus,
            "sharding": 3,
            "micro_batch": int(r.MicroBatchSize),
            "micro_batches": int(r.GradAccum),
            "recompute": "full" if bool(r["Activation Checkpointing"]) else "none",
            "attention": "flash",
            "dropout": False,
            "fused_loss": False,
            "gradient_dtype": "bf16" if pure else "fp32",
        }
        sequences = gpus * int(r.MicroBatchSize) * int(r.GradAccum)
        seconds = sequences * sequence / float(r["Throughput (T/s)"])
        name = f"{k}: {r.Model}, {gpus} GPUs, {sequence} tokens, batch {r.MicroBatchSize} x {r.GradAccum}"
        system = "dgx-h100" if gpu.startswith("h100") else "dgx-a100-40"
        older = {"compute.flash.efficiency": 0.35} if system == "dgx-h100" else {}
        job = Job(f"llm-foundry {gpu}", name, system, seconds, sizes, settings, coefficients=older)
        jobs.append(job)
    return jobs
