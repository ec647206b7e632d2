"""Refit every shipped coefficient: `python -m tests.validation.fit`, from the repository's root; minutes.

Reads the measured data (`data.folder`), fits each model to the rows that `data` marks as seen, with the rates that
hwdb has for the device, measures it on the rest, and writes hwdb/models/*.toml. Nothing else in the package holds a
fitted number. Coefficients that the data do not determine are fixed here, with the reason beside.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd

from perfmodel.machine.system import Dimension, System, hardware
from perfmodel.models import model_file
from perfmodel.models.across_nodes import Across
from perfmodel.models.attention import TiledAttention
from perfmodel.models.cost import Models
from perfmodel.models.gemm import TiledGemm
from perfmodel.models.kernels import Kernels, RoundedRoofline, Traffic
from perfmodel.models.memory import Bandwidth
from perfmodel.models.nccl import NVLS_MEMBERS, Messages, Nccl, Nvls, Protocols
from tests.validation import data
from tests.validation.solve import errors, fit

SETS = {
    "a100-sxm-80": ("a100", "dgx-a100", ("bf16",)),
    "h100-sxm": ("h100", "dgx-h100", ("bf16", "fp8")),
}
"""Set of coefficients -> device in the data, system in hwdb, number formats measured."""

KINDS = ("all_reduce", "all_gather", "reduce_scatter", "all_to_all")

EVERY_20TH = "rows whose key's CRC-32 is a multiple of 20: "
OTHER_SIZES = "NCCL 2.27.3, 2 and 8 GPUs, numbers of elements that are even powers of two"
EVERY_OTHER = "every other row of the table by size, from the first"

AICONFIGURATOR = "ai-dynamo/aiconfigurator 095f58a, Apache-2.0"
AWS = "aws-samples/awsome-distributed-training 7217859, MIT-0"
VIDUR = "microsoft/vidur 7d47513, MIT"
NEUSIGHT = "sitar-lab/NeuSight 6945927, MIT"

A100_NETWORK = 8e9
"""Rate of the network in the A100 rows of send and receive [B/s]: far below the datasheet's, as the data say."""

EFA = {"a100": 6.25e9, "h100": 50e9}
"""Network bandwidth of a GPU of AWS p4de and p5 [B/s]."""

CHANNELS = 24.0
HELD = {
    "a100": "NVIDIA/nccl-tests, issue 100: NCCL in a node of 8 A100 takes 24 channels, a core each",
    "h100": "NVIDIA developer forum 337991: NCCL on H100 takes 24 channels, a core each",
}
"""Cores that a collective of NCCL holds, and who measured it."""

Record = dict[str, Any]
"""A [[fit]] entry of a file of models."""


def entry(
    coefficients: str, device: str, predicted: Any, table: pd.DataFrame, error_of: str, **more: Any
) -> Record:
    """What a file says of one fit; errors over the rows that it did not see, as fractions."""
    held = ~table.seen.to_numpy()
    found = errors(np.asarray(predicted)[held], table.seconds.to_numpy()[held])
    text = " / ".join(f"{e:.2f}" for e in found)
    print(f"{coefficients} {device}: {text} % on {held.sum()} rows", flush=True)
    median, mean, p95 = (round(e / 100, 4) for e in found)
    return {
        "coefficients": [coefficients],
        "device": device,
        "measurements": int(table.seen.sum()),
        "error_of": f"{held.sum()} {error_of}",
        "median_error": median,
        "mean_error": mean,
        "p95_error": p95,
        **more,
    }


def columns(table: pd.DataFrame, *names: str) -> list[np.ndarray]:
    return [table[name].to_numpy(float) for name in names]


def in_slices(predict: Callable[..., jax.Array], *arrays: np.ndarray, most: int = 5000) -> Any:
    """`predict` over slices of the rows, padded to one length: bounded memory, one compilation."""
    jitted, parts, rows = jax.jit(predict), [], len(arrays[0])
    for at in range(0, rows, most):
        piece = [np.resize(a[at : at + most], most) for a in arrays]
        parts.append(np.asarray(jitted(*piece))[: min(most, rows - at)])
    return np.concatenate(parts)


def fit_gemm(table: pd.DataFrame, device: str, system: System, dtype: str, k: int) -> Any:
    """Matrix products of one number format."""
    rows = table[table.dtype == dtype].reset_index(drop=True)
    sizes, npu = columns(rows[rows.seen], "m", "n", "k"), system.npu.of_dtype(dtype)
    start = TiledGemm(
        launch=2.5e-6 if dtype == "bf16" else 1e-5,
        efficiency=0.82,
        memory_efficiency=0.8,
        fill=120.0,
        step=1e5,
        join=2.3e-6,
        whole_waves=0.3,
        reach=0.016 if dtype == "bf16" else 0.006,
        kept=5e6,
        dtype=dtype,
        cores=float(npu.cores),
    )
    found = fit(
        start,
        lambda g: g.time(np.ones(len(sizes[0])), *sizes, npu, dtype),
        rows.seconds.to_numpy()[rows.seen],
        bounds={
            "whole_waves": (1e-3, 1.0),
            "step": (1.0, 1e8),
            "kept": (1e3, 1e9),
            "memory_efficiency": (0.5, 1.0),
            "efficiency": (0.5, 1.0),
        },
        starts=({}, {"whole_waves": 0.9}, {"whole_waves": 0.02}),
    )
    predicted = in_slices(
        lambda m, n, k: found.time(jnp.ones_like(m), m, n, k, npu, dtype),
        *columns(rows, "m", "n", "k"),
    )
    library = {"a100": "sglang/0.5.10", "h100": "trtllm/1.3.0rc10"}[device]
    return found, entry(
        f"compute.tiles.{k}",
        device,
        predicted,
        rows,
        f"other {dtype} products",
        data=f"{AICONFIGURATOR}: gemm, {dtype}",
        conditions=library,
        rows=[EVERY_20TH + '"m,n,k"'],
    )


def fit_base(table: pd.DataFrame, device: str, system: System) -> Any:
    """The same products by FLOP and bytes alone."""
    rows = table[table.dtype == "bf16"].reset_index(drop=True)
    m, n, k = columns(rows, "m", "n", "k")
    flops, moved, seen = 2.0 * m * n * k, 2.0 * (m * k + k * n + m * n), rows.seen.to_numpy()
    found = fit(
        RoundedRoofline(3e-6, 0.8, 0.75, 2e8, 1e6),
        lambda r: r.time(flops[seen], moved[seen], system.npu),
        rows.seconds.to_numpy()[seen],
        bounds={"start_flops": (1.0, 1e11), "start_bytes": (1.0, 1e9)},
        scale=0.05,
    )
    return found, entry(
        "compute.base",
        device,
        found.time(flops, moved, system.npu),
        rows,
        "other bf16 products, by FLOP and bytes",
        data=f"{AICONFIGURATOR}: gemm, bf16",
        rows=[EVERY_20TH + '"m,n,k"'],
    )


def fit_attention(table: pd.DataFrame, device: str, system: System) -> Any:
    """Prefill. Memory decides nowhere in it: its efficiency is that of a stream, 0.8."""
    rows = table[(table.device == device) & table.causal_only].reset_index(drop=True)
    b, h, g, q, d = columns(rows, "batch", "heads", "kv_heads", "query", "head_size")
    seen = rows.seen.to_numpy()

    def time(record: TiledAttention, s: Any) -> jax.Array:
        one = np.ones(len(q[s]))
        return record.time(b[s], h[s], g[s], q[s], q[s], d[s], one, system.npu)

    found = fit(
        TiledAttention(1e-5, 0.55, 0.8, 100.0, cores=float(system.npu.cores)),
        lambda a: time(a, seen),
        rows.seconds.to_numpy()[seen],
        fixed=("memory_efficiency",),
        scale=0.05,
    )
    sizes = "head size 128" if device == "h100" else "all"
    return found, entry(
        "compute.flash",
        device,
        time(found, slice(None)),
        rows,
        f"other causal prefills ({sizes})",
        data=f"{AICONFIGURATOR}: attention prefill, bf16, {sizes}",
        rows=[EVERY_20TH + '"batch,heads,kv_heads,length,head size"'],
        note="decode and backward follow from the formula; no measurement of them was found",
    )


def fit_traffic(table: pd.DataFrame, launch: float) -> Any:
    """Memory-bound kernels of A100 80 GB PCIe, the only device with enough rows; `launch` is that of products."""
    name = "NVIDIA A100 80GB PCIe"
    rows = table[table.device == name].reset_index(drop=True)
    npu = hardware("a100-pcie-80").npu
    sums = rows.operation.isin(["ln", "softmax"]).to_numpy()
    moved, seen = rows.bytes.to_numpy(), rows.seen.to_numpy()

    def time(record: Traffic) -> jax.Array:
        return jnp.where(sums, record.time(moved, npu, sums=True), record.time(moved, npu))

    found = fit(
        Traffic(5e-6, 0.87, 0.7),
        lambda t: time(t)[seen],
        rows.seconds.to_numpy()[seen],
        scale=0.05,
    )
    found = Traffic(launch, found.elementwise, found.norm)
    return found, entry(
        "compute.traffic",
        "NVIDIA A100 80GB PCIe",
        time(found),
        rows,
        "other elementwise kernels, layer norms, softmax",
        data=f"{NEUSIGHT}: elementwise, fp32",
        conditions="PyTorch, each kernel alone",
        rows=[EVERY_20TH + '"crc32(operation),B,H"'],
        note="the launch of a kernel timed alone is replaced by that of the device's matrix products; embedding and "
        "optimizer kernels were not measured",
    )


def _by_ranks(rows: pd.DataFrame, kind: str, time: Callable[..., jax.Array]) -> jax.Array:
    """[rows] seconds; `time(size of one member's input, n, rows of it)` per number of ranks."""
    result = jnp.zeros(len(rows))
    for n in sorted(rows.ranks.unique()):
        mine = np.flatnonzero(rows.ranks.to_numpy() == n)
        size = rows["size"].to_numpy(float)[mine]
        result = result.at[mine].set(time(size / n if kind == "all_gather" else size, int(n), mine))
    return result


def fit_collective(
    table: pd.DataFrame, device: str, link: Dimension, kind: str, nvls: Nvls, k: int
) -> Any:
    """One kind of collective in a node, and NVLS with the all-reduces that use it (16-bit numbers)."""
    rows = table[(table.device == device) & (table.kind == kind) & (table.version == data.NCCL)]
    rows = rows.reset_index(drop=True)
    switch_adds = kind == "all_reduce" and link.reduction == "nvls"
    adds = ((rows.dtype == "half") & (rows.ranks >= NVLS_MEMBERS) & switch_adds).to_numpy()
    seen = rows.seen.to_numpy()

    def time(both: tuple[Protocols, Nvls]) -> jax.Array:
        protocols, switch = both

        def of(size, n, mine):
            plain = protocols.time(kind, size, n, link)
            if not adds[mine].any():
                return plain
            added = protocols.time(kind, size, n, link, switch.time(size, n, link))
            return jnp.where(adds[mine], added, plain)

        return _by_ranks(rows, kind, of)

    found, switch = fit(
        (Protocols(kind, 6e-6, 1.5, 1e-5, 1.5, 0.85, 1e-2, 2e5, 0.7), nvls),
        lambda both: time(both)[seen],
        rows.seconds.to_numpy()[seen],
        scale=0.05,
        fixed=() if adds.any() else ("1.start", "1.efficiency", "1.fill", "1.half"),
        bounds={
            "0.width": (0.3, 1.5),
            "0.efficiency": (0.6, 1.0),
            "0.ramp": (1e-5, 0.1),
            "0.large_hop": (0.1, 6.0),  # no more than a hop of the Simple protocol, 3.4 us
            "0.large_start": (1e-6, 4e-5),
            "1.efficiency": (0.5, 0.75),
            "1.start": (1e-6, 4e-5),
            "1.fill": (1e-6, 1e-3),
            "1.half": (1e5, 1e9),
        },
        starts=tuple(
            {"0.change": c, "0.width": w} for c in (3e4, 2e5, 1e6, 4e6) for w in (0.4, 1.0)
        ),
    )
    described = entry(
        f"network.inside.{k}",
        device,
        time((found, switch)),
        rows,
        f"other {kind}s of 2, 4 and 8 GPUs",
        data=f"{AICONFIGURATOR}: nccl, half and int8",
        conditions=f"NCCL {data.NCCL}",
        rows=[OTHER_SIZES],
    )
    if adds.any():
        described["coefficients"].append("network.nvls")
    return found, switch, described


def fit_messages(table: pd.DataFrame, device: str, link: Dimension, network: float) -> Any:
    """Send and receive in a node and over nodes."""
    numbers, described = [], []
    for far, bandwidth in ((False, link.bandwidth), (True, network)):
        rows = table[(table.device == device) & (table.far == far)].reset_index(drop=True)
        size, seen = rows["size"].to_numpy(), rows.seen.to_numpy()

        def time(record, size=size, bandwidth=bandwidth):
            return record.time(size, bandwidth, far=False)

        one = fit(
            Messages(1e-5, 0.8, 1e-3, 1.0, 1.0, 1.0),
            lambda r, time=time, seen=seen: time(r)[seen],
            rows.seconds.to_numpy()[seen],
            scale=0.05,
            fixed=("far_start", "far_efficiency", "far_ramp"),
            bounds={"efficiency": (0.3, 1.0), "ramp": (1e-6, 0.3)},
        )
        numbers += [one.start, one.efficiency, one.ramp]
        described.append(
            entry(
                "network.messages",
                device,
                time(one),
                rows,
                f"other messages {'over nodes' if far else 'in a node'}",
                data=f"{VIDUR}: send and receive, medians",
                rows=[EVERY_OTHER],
            )
        )
    return Messages(*numbers), described


TWO = ("start", "change", "change_half", "fill", "half", "efficiency", "outer_efficiency")


def fit_two_nodes(table: pd.DataFrame, device: str, link: Dimension, outer: Dimension) -> Any:
    """All-reduce over two nodes. A100's are held up by their network: NVLink's share stays NCCL's, 20 of 25 GB/s."""
    rows = table[table.device == device].reset_index(drop=True)
    size, seen = rows["size"].to_numpy(), rows.seen.to_numpy()

    def time(record: Across, s: Any) -> jax.Array:
        return record.time("all_reduce", s, (s, 30, s), (8, 2), (link, outer))

    shares = {"a100": 20.0 / 25.0, "h100": 20.6 / 25.0}
    start = Across(6e-5, 5e-5, 3e4, 3e-4, 2e7, 0.95, 0.9, near_efficiency=shares[device])
    if device == "a100":
        start = replace(start, efficiency=shares[device])
    others = [n for n in Across.__dataclass_fields__ if n not in TWO]
    found = fit(
        start,
        lambda a: time(a, size[seen]),
        rows.seconds.to_numpy()[seen],
        scale=0.05,
        fixed=(*others, *(("efficiency",) if device == "a100" else ())),
        bounds={"efficiency": (0.8, 1.1), "outer_efficiency": (0.8, 1.0)},
    )
    described = entry(
        "network.nodes",
        device,
        time(found, size),
        rows,
        "other all-reduces on 2 x 8 GPUs",
        data=f"{AWS}: nccl-tests, {'p4de' if device == 'a100' else 'p5'}",
        conditions="EFA",
        rows=[EVERY_OTHER],
        note="more than two nodes, and other collectives over nodes, are not fitted: NCCL's own latencies and link "
        "rates, and 97 % of the network as on 10 x 1 H100",
    )
    return found, described


def refit(name: str) -> tuple[Models, list[Record]]:
    """The models of one set and what is to be said of each fit."""
    where = data.folder()
    if where is None:
        raise SystemExit("the measured data (shared/reference/measured) are not here")
    device, holder, dtypes = SETS[name]
    system = hardware(holder, ranks=16)
    link, outer = system.network
    products = data.gemm(where, device)
    tiles, described = [], []
    for k, dtype in enumerate(dtypes):
        found, said = fit_gemm(products, device, system, dtype, k)
        tiles.append(found)
        described.append(said)
    base, said = fit_base(products, device, system)
    described.append(said)
    flash, said = fit_attention(data.attention(where), device, system)
    described.append(said)
    traffic, said = fit_traffic(data.elementwise(where), tiles[0].launch)
    described.append(said)
    inside, nvls = [], Nvls(2e-5, 0.66, 5e-5, 1e7)
    for k, kind in enumerate(KINDS):
        found, nvls, said = fit_collective(data.collectives(where), device, link, kind, nvls, k)
        inside.append(found)
        described.append(said)
    network = A100_NETWORK if device == "a100" else outer.bandwidth
    messages, said_two = fit_messages(data.messages(where), device, link, network)
    described += said_two
    efa = Dimension(EFA[device], outer.latency, "switch", 2)
    nodes, said = fit_two_nodes(data.two_nodes(where), device, link, efa)
    described.append(said)
    models = Models(
        Kernels(tuple(tiles), flash, traffic, base),
        Bandwidth(),
        Nccl(tuple(inside), nvls, nodes, messages),
        channels=CHANNELS,
    )
    described.append(
        {
            "coefficients": ["channels"],
            "device": device,
            "data": HELD[device],
            "note": "not fitted; Transformer Engine's own tensor-parallel collectives hold 2 to 8 of H100",
        }
    )
    return models, described


def main(names: list[str]) -> None:
    for name in names or list(SETS):
        models, described = refit(name)
        title = f"{name}, fitted by tests/validation/fit.py"
        path = hwdb_models() / f"{name}.toml"
        model_file.write_models(path, models, title=title, fits=described)
        print(f"wrote {path}")


def hwdb_models() -> Any:
    from perfmodel.machine.hwdb import find_hwdb

    folder = find_hwdb() / "models"
    folder.mkdir(exist_ok=True)
    return folder


if __name__ == "__main__":
    main(sys.argv[1:])
