"""Every measured row beside its prediction by the shipped coefficients and by the bare roofline.

Predictions are asked of `pm.operation_time`, as a user would: nothing here knows how the fits were made. Rows that a
fit saw are named so and never counted as held out.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import perfmodel as pm
from tests.validation import data

HOLDERS = {"a100": "dgx-a100", "h100": "dgx-h100"}
"""Device of the data -> system in hwdb."""

MODELS = {"fitted": None, "roofline": "roofline"}
"""Column of predictions -> models to ask."""


def _bands(values: pd.Series, edges: list[float], names: list[str]) -> pd.Series:
    return pd.cut(values, [-np.inf, *edges, np.inf], labels=names, right=False).astype(str)


def _size_bands(size: pd.Series) -> pd.Series:
    edges = [2.0**16, 2.0**20, 2.0**24, 2.0**28]
    return _bands(size, edges, ["< 64 KiB", "< 1 MiB", "< 16 MiB", "< 256 MiB", "256 MiB and more"])


def _predict(rows: pd.DataFrame, ask: Callable[[Any], np.ndarray]) -> pd.DataFrame:
    return rows.assign(**{name: ask(models) for name, models in MODELS.items()})


def gemm(where: Path, every: int = 1) -> pd.DataFrame:
    """Matrix products, `every` so many rows; of fp8_block, whose scales no formula here knows, none."""
    parts = []
    for device, holder in HOLDERS.items():
        table = data.gemm(where, device).iloc[::every]
        system = pm.hardware(holder)
        for dtype, rows in table[table.dtype != "fp8_block"].groupby("dtype"):
            sizes = {k: rows[k].to_numpy(float) for k in "mnk"}

            def ask(models, system=system, sizes=sizes, dtype=dtype):
                return pm.operation_time(system, "gemm", models=models, dtype=dtype, **sizes)

            parts.append(_predict(rows, ask).assign(kind=f"gemm {dtype}"))
    table = pd.concat(parts, ignore_index=True)
    least = table[["m", "n", "k"]].min(axis=1)
    table["band"] = _bands(least, [64, 512, 4096], ["min(m,n,k) < 64", "< 512", "< 4096", "more"])
    table["size"] = 2.0 * table.m * table.n * table.k
    return table.assign(ranks=1)


def relative(where: Path, every: int = 1) -> pd.DataFrame:
    """A100's bf16 products from its own datasheet and H100's coefficients: all rows held out."""
    rows = data.gemm(where, "a100").iloc[::every]
    system = pm.hardware("dgx-a100", models="h100-sxm")
    sizes = {k: rows[k].to_numpy(float) for k in "mnk"}
    table = _predict(
        rows, lambda models: pm.operation_time(system, "gemm", models=models, dtype="bf16", **sizes)
    )
    return table.assign(
        kind="gemm bf16 by H100's coefficients",
        band="all",
        seen=False,
        ranks=1,
        size=2.0 * table.m * table.n * table.k,
    )


def attention(where: Path) -> pd.DataFrame:
    """Causal prefill; H100's rows of head size 64 apart (see `data.attention`)."""
    parts = []
    for device, rows in data.attention(where).groupby("device"):
        system = pm.hardware(HOLDERS[str(device)])
        sizes = {
            k: rows[k].to_numpy(float) for k in ("batch", "heads", "kv_heads", "query", "head_size")
        }

        def ask(models, system=system, sizes=sizes):
            return pm.operation_time(
                system, "attention", models=models, key=sizes["query"], causal=1, **sizes
            )

        parts.append(_predict(rows, ask))
    table = pd.concat(parts, ignore_index=True)
    table["kind"] = np.where(table.causal_only, "attention", "attention, windows mixed in")
    table["band"] = _bands(
        table["query"], [1024, 4096], ["s < 1024", "s < 4096", "s 4096 and more"]
    )
    table["size"] = table["query"].astype(float)
    return table.assign(ranks=1)


def elementwise(where: Path) -> pd.DataFrame:
    """Memory-bound kernels: A100 80 GB PCIe is fitted; two other devices are not."""
    holders = {
        "NVIDIA A100 80GB PCIe": "a100-pcie-80",
        "NVIDIA A100-PCIE-40GB": "a100-pcie-40",
        "Tesla V100-PCIE-32GB": "v100-sxm-32",
    }
    known = set(pm.systems()) | set(_accelerators())
    parts = []
    for device, rows in data.elementwise(where).groupby("device"):
        if holders[str(device)] not in known:
            continue
        system = pm.hardware(holders[str(device)])
        sums = rows.operation.isin(["ln", "softmax"]).to_numpy()
        moved = rows.bytes.to_numpy()

        def ask(models, system=system, sums=sums, moved=moved):
            by = [
                pm.operation_time(system, kind, models=models, bytes=moved)
                for kind in ("norm", "elementwise")
            ]
            return np.where(sums, *by)

        kind = np.where(sums, "norm, softmax", "elementwise")
        parts.append(_predict(rows, ask).assign(kind=kind, band="all", size=moved, ranks=1))
    return pd.concat(parts, ignore_index=True)


def _accelerators() -> list[str]:
    from perfmodel.machine.hwdb import accelerators

    return accelerators()


def _collective_times(rows: pd.DataFrame, system: Any, models: Any) -> np.ndarray:
    result = np.zeros(len(rows))
    for kind in rows.kind.unique():
        mine = (rows.kind == kind).to_numpy()
        ranks = rows.ranks.to_numpy(float)[mine]
        size = rows["size"].to_numpy(float)[mine] / (ranks if kind == "all_gather" else 1.0)
        result[mine] = pm.operation_time(system, kind, models=models, size=size, ranks=ranks)
    return result


def collectives(where: Path) -> pd.DataFrame:
    """NCCL in a node, every version; all-reduces of int8 apart, which the switch cannot add."""
    parts = []
    for device, rows in data.collectives(where).groupby("device"):
        system = pm.hardware(HOLDERS[str(device)], ranks=8)
        parts.append(_predict(rows, lambda m, r=rows, s=system: _collective_times(r, s, m)))
    table = pd.concat(parts, ignore_index=True)
    fitted = table.version == data.NCCL
    ring = (
        (table.kind == "all_reduce")
        & (table.dtype == "int8")
        & (table.ranks == 8)
        & (table.device == "h100")
    )
    table["band"] = _size_bands(table["size"])
    table["kind"] = (
        table.kind
        + np.where(fitted, "", ", NCCL " + table.version)
        + np.where(ring, " int8 (no NVLS)", "")
    )
    return table


def dgx(where: Path) -> pd.DataFrame:
    """All-reduce of one DGX H100, another source, nothing fitted."""
    rows = data.dgx_all_reduce(where)
    system = pm.hardware("dgx-h100", ranks=8)
    table = _predict(rows, lambda m: _collective_times(rows, system, m))
    return table.assign(band=_size_bands(table["size"]), kind="all_reduce, DGX table")


def two_nodes(where: Path) -> pd.DataFrame:
    """All-reduce on two nodes of AWS: their network's rate in the place of the DGX's."""
    rates = {"a100": 6.25e9, "h100": 50e9}
    parts = []
    for device, rows in data.two_nodes(where).groupby("device"):
        system = pm.hardware(HOLDERS[str(device)], ranks=16)
        system, _ = pm.with_parameters(system, None, {"network.1.bandwidth": rates[str(device)]})
        rows = rows.assign(kind="all_reduce")
        parts.append(_predict(rows, lambda m, r=rows, s=system: _collective_times(r, s, m)))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(band=_size_bands(table["size"]), kind="all_reduce, 2 nodes")


def messages(where: Path) -> pd.DataFrame:
    """Send and receive; A100's network at the rate that the data say, 8 GB/s."""
    parts = []
    for (device, far), rows in data.messages(where).groupby(["device", "far"]):
        system = pm.hardware(HOLDERS[str(device)], ranks=16)
        if device == "a100":
            system, _ = pm.with_parameters(system, None, {"network.1.bandwidth": 8e9})
        size, ranks = rows["size"].to_numpy(), 9 if far else 2

        def ask(models, system=system, size=size, ranks=ranks):
            return pm.operation_time(system, "send", models=models, size=size, ranks=ranks)

        kind = "send, over nodes" if far else "send, in a node"
        parts.append(_predict(rows, ask).assign(kind=kind, ranks=2))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(band=_size_bands(table["size"]))


def more_nodes(where: Path) -> pd.DataFrame:
    """Collectives of 10 nodes of H100 with 1, 2, 4 or 8 GPUs and NICs each: nothing fitted."""
    path = where.parent / "networks" / "multinode_measured.csv"
    table = pd.read_csv(path)
    kinds = {"alltoall": "all_to_all"}
    table["kind"] = table.collective.replace(kinds)
    wanted = (table.device == "H100 SXM + 400G per GPU") & (table.nodes == 10)
    wanted &= table.kind.isin(["all_reduce", "all_gather", "reduce_scatter", "all_to_all"])
    parts = []
    for gpus, rows in table[wanted].groupby("gpus"):
        per_node = int(gpus) // 10
        system = pm.hardware("dgx-h100", ranks=int(gpus), sizes=(per_node,))
        rows = rows.assign(
            ranks=int(gpus), size=rows.bytes.astype(float), seconds=rows.time_us * 1e-6, seen=False
        )
        predicted = _predict(rows, lambda m, r=rows, s=system: _collective_times(r, s, m))
        parts.append(
            predicted.assign(
                band=np.where(rows.bytes >= 2**30, "1 GiB and more", "less"), device="h100"
            )
        )
    result = pd.concat(parts, ignore_index=True)
    return result.assign(kind=result.kind + ", 10 x " + (result.ranks // 10).astype(str))


PARTS: dict[str, Callable[..., pd.DataFrame]] = {
    "gemm": gemm,
    "relative": relative,
    "attention": attention,
    "elementwise": elementwise,
    "collectives": collectives,
    "dgx": dgx,
    "two nodes": two_nodes,
    "more nodes": more_nodes,
    "messages": messages,
}
"""Parts of the page."""

COLUMNS = ["part", "device", "kind", "band", "ranks", "size", "seconds", *MODELS, "seen"]


def rows(where: Path, parts: list[str] | None = None) -> pd.DataFrame:
    """Every measured row of the parts: `COLUMNS`."""
    tables = [PARTS[name](where).assign(part=name) for name in parts or PARTS]
    return pd.concat([t[COLUMNS] for t in tables], ignore_index=True)


def summary(table: pd.DataFrame, by: tuple[str, ...] = ("part", "device", "kind")) -> pd.DataFrame:
    """|predicted / measured - 1| in %, by group, fitted rows and held-out rows apart."""
    groups = []
    for key, part in table.assign(rows=np.where(table.seen, "fitted", "held out")).groupby(
        [*by, "rows"], sort=False
    ):
        found: dict[str, Any] = {**dict(zip([*by, "rows"], key)), "count": len(part)}
        for name in MODELS:
            off = 100 * (part[name] / part.seconds - 1).abs()
            found |= {
                f"{name}_median_%": off.median(),
                f"{name}_mean_%": off.mean(),
                f"{name}_p95_%": np.percentile(off, 95),
            }
        groups.append(found)
    return pd.DataFrame(groups)
