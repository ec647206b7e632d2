"""Published peaks of memory as settings of `synth.training`, with one stated number for each framework's libraries.

torchtitan: benchmarks/llama3_h100_202412_torchtitan.md and llama3-8b_h200_202506 (maximum over ranks of what the
allocator reserved); NVIDIA Megatron-Bridge: skills/nemo-mbridge-perf-memory-tuning and -activation-recompute
(fine-tuning of Llama 3 70B).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pandas as pd

import perfmodel as pm

GIB = 2**30

TORCHTITAN = {"sharding": 3, "fused_loss": False, "reserved": 2 * GIB}
"""2 GiB: CUDA's context is not counted by the allocator; NCCL's buffers, cuBLAS workspaces and odd blocks are."""

BRIDGE = {
    **{"sharding": 1, "dtype": "fp8", "gather_dtype": "fp8", "gradient_dtype": "bf16"},
    **{"recompute": "selective", "sequence_parallel": True, "reserved": 4 * GIB},
}
"""4 GiB: context, NCCL's buffers of five kinds of communicators, userbuffers and workspaces."""


@dataclass(frozen=True)
class Peak:
    """A measured peak [B] of some run."""

    row: str
    measured: float
    model: str
    settings: dict[str, Any]

    def predicted(self) -> float:
        """Bytes of the rank that holds most [B]."""
        return float(pm.synth.training(self.model, **self.settings).memory["total_B"].max())


def torchtitan() -> list[Peak]:
    """Rows 1 to 20 of the collection in the project's facts: Llama 3.1 on H100 and H200."""
    selective = TORCHTITAN | {"recompute": ["alternate"], "micro_batch": 2, "sequence": 8192}
    peaks = []
    for gpus, eager, compiled, fp8 in ((8, 82.4, 77.0, 76.8), (128, 67.0, 62.0, 61.8)):
        for name, dtype, seen in (
            ("eager", "bf16", eager),
            ("compile", "bf16", compiled),
            ("compile, fp8", "fp8", fp8),
        ):
            settings = selective | {"data": gpus, "dtype": dtype, "gather_dtype": "bf16"}
            peaks.append(Peak(f"8B, {gpus} H100, {name}", seen * GIB, "llama-3.1-8b", settings))
    full = TORCHTITAN | {"recompute": "full", "dtype": "fp8"}
    for context, seen in ((1, 83.9), (2, 84.2), (4, 84.0), (8, 84.5)):
        settings = full | {"data": 8 // context, "context": context, "sequence": 32_768 * context}
        row = f"8B, 8 H100, context {context}"
        peaks.append(Peak(row, seen * GIB, "llama-3.1-8b", settings))
    spread = full | {"data": 32, "tensor": 8, "micro_batch": 16, "sequence": 8192}
    for name, overlap, seen in (("", False, 71.9), (", async tensor", True, 67.6)):
        settings = spread | {"sequence_parallel": True, "overlap": overlap}
        peaks.append(Peak(f"70B, 256 H100{name}", seen * GIB, "llama-3.1-70b", settings))
    large = full | {
        **{"data": 8, "tensor": 8, "pipeline": 8, "sequence_parallel": True, "reshard": False},
    }
    for name, virtual, seen in (("1F1B", 1, 82.5), ("interleaved", 2, 72.7)):
        # a local batch of 32 in as many micro-batches as stages, torchtitan's default of then
        settings = large | {"virtual": virtual, "micro_batch": 4, "micro_batches": 8}
        row = f"405B, 512 H100, {name}"
        peaks.append(Peak(row, seen * GIB, "llama-3.1-405b", settings | {"sequence": 8192}))
    for context, seen in ((1, 75.3), (2, 75.9), (4, 77.1), (8, 84.9)):
        settings = large | {
            **{"data": 8 // context, "context": context, "sequence": 32_768 * context},
            **{"micro_batch": 1, "micro_batches": 8},
        }
        row = f"405B, 512 H100, context {context}"
        peaks.append(Peak(row, seen * GIB, "llama-3.1-405b", settings))
    for gpus, seen in ((32, 47.96), (64, 46.97)):
        # by then the loss was compiled, too, into one kernel
        fused = {"dtype": "fp8", "gather_dtype": "fp8", "fused_loss": True}
        settings = selective | fused | {"data": gpus}
        peaks.append(Peak(f"8B, {gpus} H200, fp8", seen * GIB, "llama-3.1-8b", settings))
    return peaks


def bridge() -> list[Peak]:
    """Rows 31 to 35: fine-tuning of Llama 3 70B on 32 H100, 32 sequences of at most 4,096 tokens.

    How long the sequences are is not said, and decides: computing the mlp again saves 3.2 GB there, and would save 13
    GB of 4,096 tokens each. So these rows are shown with full sequences, and count as a bound from above.
    """
    base = BRIDGE | {"sequence": 4096, "global_batch": 32}
    rows = (
        ("4 x 4 x 5", {"tensor": 4, "pipeline": 4, "virtual": 5, "data": 2}, 58.8),
        ("4 x 8 x 5", {"tensor": 4, "pipeline": 8, "virtual": 5, "data": 1}, 53.2),
        ("8 x 4 x 5", {"tensor": 8, "pipeline": 4, "virtual": 5, "data": 1}, 50.2),
        ("4 x 4 x 10", {"tensor": 4, "pipeline": 4, "virtual": 10, "data": 2}, 60.2),
        (
            "4 x 4 x 5, mlp",
            {
                "tensor": 4,
                "pipeline": 4,
                "virtual": 5,
                "data": 2,
                "recompute": ["attention", "mlp"],
            },
            55.6,
        ),
    )
    return [Peak(row, seen * 1e9, "llama-3-70b", base | more) for row, more, seen in rows]


def errors(peaks: list[Peak]) -> pd.DataFrame:
    """One row a run: row, measured_B, predicted_B, error."""
    rows = [(p.row, p.measured, p.predicted()) for p in peaks]
    table = pd.DataFrame(rows, columns=["row", "measured_B", "predicted_B"])
    return table.assign(error=table.predicted_B / table.measured_B - 1)
