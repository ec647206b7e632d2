"""The measured data, as tables of equal form, and the rule that says which rows a fit may see.

The files are those of ``reference/measured`` of the project's shared folder (its README has origin and licence); they
are not part of the repository. Every table has `seconds`, the columns of its kind, and `seen`: whether the shipped
coefficients were fitted to the row. Rows are chosen by their own text, so that the rule needs no list:

* matrix products, attention, kernels bound by memory: the CRC-32 of the key ("m,n,k") is a multiple of 20 (5 %);
* collectives in a node: NCCL 2.27.3, 2 and 8 GPUs, number of elements an even power of two (every other size);
* collectives over two nodes, send and receive: every other row.
"""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pandas as pd

SHARE = 20
"""One row in so many is seen by the fits of kernels."""

NCCL = "2.27.3"
"""The version whose rows are fitted; the others are shown beside."""


def folder() -> Path | None:
    """Where the measured data are: `shared/reference/measured` beside the repository or above it; None if absent."""
    for parent in Path(__file__).resolve().parents:
        for place in (parent / "shared", parent.parent / "shared"):
            if (place / "reference" / "measured").is_dir():
                return place / "reference" / "measured"
    return None


def _chosen(table: pd.DataFrame, columns: list[str]) -> np.ndarray:
    """[rows] bool, the row's key hashes into the share that fits see."""
    keys = (",".join(str(int(v)) for v in row) for row in table[columns].itertuples(index=False))
    return np.array([zlib.crc32(key.encode()) % SHARE == 0 for key in keys])


def gemm(where: Path, device: str) -> pd.DataFrame:
    """Columns device, dtype, m, n, k, seconds, seen; `device` is a100 or h100."""
    table = pd.read_csv(where / f"gemm_{device}_sxm.csv")
    names = {"bfloat16": "bf16", "fp8": "fp8", "fp8_block": "fp8_block"}
    table = table.assign(
        device=device, dtype=table.dtype.map(names), seconds=table.latency_ms * 1e-3
    )
    table["seen"] = _chosen(table, ["m", "n", "k"]) & (table.dtype != "fp8_block")
    return table[["device", "dtype", "m", "n", "k", "seconds", "seen"]]


def attention(where: Path) -> pd.DataFrame:
    """Columns device, batch, query, heads, kv_heads, head_size, seconds, seen, causal_only.

    H100's rows of head size 64 mix full and windowed attention without saying which (long sequences reach three
    times the device's peak rate): they are no fair test of a formula for full attention, and no fit sees them.
    """
    table = pd.read_csv(where / "attention_prefill_a100_h100.csv")
    table = table.rename(
        columns={
            "batch_size": "batch",
            "isl": "query",
            "num_heads": "heads",
            "num_key_value_heads": "kv_heads",
            "head_dim": "head_size",
        }
    )
    table["device"] = table.system.str[:4]
    table["seconds"] = table.latency_ms * 1e-3
    table["causal_only"] = (table.device != "h100") | (table.head_size == 128)
    keys = ["batch", "heads", "kv_heads", "query", "head_size"]
    table["seen"] = _chosen(table, keys) & table.causal_only
    return table[["device", *keys, "seconds", "seen", "causal_only"]]


PASSES = {"add": 3, "sub": 3, "mul": 3, "div": 3, "pow": 3}
"""Arrays that an operation of two operands moves; all others read one and write one."""


def elementwise(where: Path) -> pd.DataFrame:
    """Columns device, operation, bytes, seconds, seen; numbers of 4 B."""
    table = pd.read_csv(where / "elementwise_a100_v100.csv")
    passes = table.OPName.map(PASSES).fillna(2)
    table["seen"] = _chosen(
        table.assign(o=table.OPName.map(lambda s: zlib.crc32(s.encode()))), ["o", "B", "H"]
    ) & (table.Device == "NVIDIA A100 80GB PCIe")
    return pd.DataFrame(
        {
            "device": table.Device,
            "operation": table.OPName,
            "bytes": passes * 4.0 * table.B * table.H,
            "seconds": table.latency_ms * 1e-3,
            "seen": table.seen,
        }
    )


def collectives(where: Path) -> pd.DataFrame:
    """Columns device, version, kind, dtype, ranks, size [B] as NCCL counts it, seconds, seen."""
    table = pd.read_csv(where / "nccl_collectives_a100_h100.csv")
    table["device"] = table.system.str[:4]
    table["kind"] = table.op.replace({"alltoall": "all_to_all"})
    table["size"] = table.message_size_raw * table.dtype.map({"half": 2.0, "int8": 1.0})
    table["seconds"] = table.lat_ms_med * 1e-3
    table["seen"] = (
        (table.nccl_version == NCCL)
        & table.num_gpus.isin([2, 8])
        & (np.log2(table.message_size_raw).round().astype(int) % 2 == 0)
    )
    return table.rename(columns={"num_gpus": "ranks", "nccl_version": "version"})[
        ["device", "version", "kind", "dtype", "ranks", "size", "seconds", "seen"]
    ]


def dgx_all_reduce(where: Path) -> pd.DataFrame:
    """All-reduce of one DGX H100 from another source, never fitted: columns as `collectives`."""
    table = pd.read_csv(where / "dgxc_h100_8gpu_allreduce.csv")
    return pd.DataFrame(
        {
            "device": "h100",
            "kind": "all_reduce",
            "ranks": 8,
            "size": table.bytes.astype(float),
            "seconds": table.time_us * 1e-6,
            "seen": False,
        }
    )


def two_nodes(where: Path) -> pd.DataFrame:
    """All-reduce on two nodes of 8 (AWS p4de and p5): columns device, ranks, size, seconds, seen."""
    table = pd.read_csv(where / "aws_allreduce_2node.csv")
    parts = []
    for device, column in (("a100", "p4de_us"), ("h100", "p5_us")):
        rows = table[table[column].notna()].reset_index(drop=True)
        parts.append(
            pd.DataFrame(
                {
                    "device": device,
                    "ranks": 16,
                    "size": rows.bytes.astype(float),
                    "seconds": rows[column] * 1e-6,
                    "seen": np.arange(len(rows)) % 2 == 0,
                }
            )
        )
    return pd.concat(parts, ignore_index=True)


def messages(where: Path) -> pd.DataFrame:
    """Send and receive in a node and over nodes: columns device, far, size, seconds, seen."""
    parts = []
    for device in ("a100", "h100"):
        table = pd.read_csv(where / f"sendrecv_{device}_dgx.csv")
        for per_node, rows in table.groupby("devices_per_node"):
            rows = rows.sort_values("size").reset_index(drop=True)
            parts.append(
                pd.DataFrame(
                    {
                        "device": device,
                        "far": per_node == 1,
                        "size": rows["size"].astype(float),
                        "seconds": rows["time_stats.send_recv.median"] * 1e-3,
                        "seen": np.arange(len(rows)) % 2 == 0,
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)
