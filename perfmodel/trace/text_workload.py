"""Text workloads of ASTRA-sim 1.0 and SimAI: a parallel strategy and a table of layers.

    DATA
    2
    layer0  -1  1000 NONE 0  1000 NONE 0  1000 ALLREDUCE 1048576  10
    layer1  -1  2000 NONE 0  2000 NONE 0  2000 ALLREDUCE 2097152  10

First line: the strategy, with SimAI also `model_parallel_NPU_group: 2 ep: 1 pp: 1 ... all_gpus: 4`. Second: the
number of layers. Then one layer a line: name, a number nobody reads, and for forward, input gradient and weight
gradient the compute time, the collective and its size [B]; last the update time, which passes after each of the
layer's collectives. Times are whole ticks of the simulator, 1 ns unless the caller says otherwise.

What a strategy means, `text_workload_order` says.

Groups: collectives of forward and input gradient run over the model parallel group (consecutive ranks), those of the
weight gradient over the data parallel one; a suffix _EP or _DP_EP names the expert group or its replicas. Ranks are
numbered tensor first, then expert, data, pipeline, as Megatron numbers them.

Sources: ASTRA-sim 1.0 and aliyun/SimAI, astra-sim/workload/Workload.cc and Layer.cc; mlcommons/chakra's Text converter.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from perfmodel.errors import TraceError

TICK = 1e-9
"""Seconds in one unit of the table's times."""

STRATEGIES = (
    "MICRO",
    "DATA",
    "MODEL",
    "HYBRID_DATA_MODEL",
    "HYBRID_MODEL_DATA",
    "HYBRID_CUSTOMIZED",
    "HYBRID_DLRM",
    "HYBRID_DLRM_ENHANCED",
    "HYBRID_TRANSFORMER",
    "HYBRID_TRANSFORMER_FWD_IN_BCKWD",
    "DISTRIBUTED_INFERENCE",
)
_COLLECTIVES = {
    "ALLREDUCE": "all_reduce",
    "ALLTOALL": "all_to_all",
    "ALLGATHER": "all_gather",
    "REDUCESCATTER": "reduce_scatter",
}
_GROUP_KEYS = {
    "model_parallel_NPU_group": "tensor",
    "ep": "expert",
    "pp": "pipeline",
    "vpp": "virtual",
    "ga": "accumulation",
    "all_gpus": "ranks",
    "DLRM_LAST_BOTTOM_LAYER": "last_bottom_layer",
    "checkpoints": "checkpoints",
    "checkpoint_initiates": "checkpoint_initiates",
    "pp_comm": "pipeline_size",
}
_COLUMNS = 12
MOST_LAYERS = 10_000_000
MOST_RANKS = 2**20


@dataclass(frozen=True)
class LayerPass:
    """One third of a layer: compute [ticks], and its collective or ""; size [B]; suffix of the group."""

    time: int
    collective: str
    size: int
    suffix: str


@dataclass(frozen=True)
class Layer:
    """A line of the table."""

    name: str
    forward: LayerPass
    input: LayerPass
    weight: LayerPass
    update: int
    strategy: str


@dataclass(frozen=True)
class Table:
    """A text workload as it stands in the file."""

    source: str
    strategy: str
    layers: tuple[Layer, ...]
    numbers: Mapping[str, int] = field(default_factory=dict)
    lists: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def is_text_workload(head: bytes) -> bool:
    """Whether a file that begins with `head` is a text workload: a strategy, and a number below it.

    >>> is_text_workload(b"DATA\\n2\\nlayer0 -1 ...")
    True
    """
    lines = head[:4096].split(b"\n", 2)
    first = lines[0].split()
    return (
        len(lines) > 1
        and bool(first)
        and first[0].decode("latin-1") in STRATEGIES
        and lines[1].strip().isdigit()
    )


def parse(text: str, source: str) -> Table:
    """Read the table.

    Raises:
        TraceError: a line that is not as the format says, with its number.
    """
    lines = text.splitlines()
    strategy, numbers, lists = _first_line(lines[0] if lines else "", source)
    count = lines[1].strip() if len(lines) > 1 else ""
    if not count.isdigit() or not 0 < int(count) <= MOST_LAYERS:
        raise TraceError(
            f"{source}: line 2: {_short(count)} is no number of layers; expected a whole number from 1 on"
        )
    rows = [(k, line.split()) for k, line in enumerate(lines[2:], 3) if line.strip()]
    if len(rows) != int(count):
        raise TraceError(
            f"{source}: line 2 says {count} layers, {len(rows)} lines follow. Correct the number, or copy"
            " the file again if it is cut off"
        )
    layers = tuple(_layer(words, strategy, f"{source}: line {k}") for k, words in rows)
    return Table(source, strategy, layers, numbers, lists)


def _first_line(line: str, source: str) -> tuple[str, dict[str, int], dict[str, tuple[int, ...]]]:
    words = line.replace(":", " ").split()
    strategy = words[0] if words else ""
    if strategy not in STRATEGIES:
        raise TraceError(
            f"{source}: line 1: {_short(strategy)} is no parallel strategy; expected one of {', '.join(STRATEGIES)}"
        )
    numbers: dict[str, int] = {}
    lists: dict[str, tuple[int, ...]] = {}
    k = 1
    while k < len(words):
        key = _GROUP_KEYS.get(words[k])
        if key is None and words[k].isdigit() and k == 1:  # Chakra's converter: the number alone
            numbers["last_bottom_layer"] = int(words[k])
            k += 1
            continue
        value = words[k + 1] if k + 1 < len(words) else ""
        if not value.isdigit():
            raise TraceError(
                f"{source}: line 1: {_short(words[k])} is followed by {_short(value)}; expected a whole number"
            )
        k += 2
        if key in ("checkpoints", "checkpoint_initiates"):
            found = words[k : k + int(value)]
            if len(found) != int(value) or not all(word.isdigit() for word in found):
                raise TraceError(
                    f"{source}: line 1: {key} says {value} layers and lists {len(found)}"
                )
            lists[key] = tuple(map(int, found))
            k += int(value)
        elif key:
            numbers[key] = int(value)
    return strategy, numbers, lists


def _layer(words: list[str], strategy: str, where: str) -> Layer:
    wanted = _COLUMNS + (strategy == "HYBRID_CUSTOMIZED")
    if len(words) < wanted:
        raise TraceError(
            f"{where}: {len(words)} columns, expected {wanted}: name, a number, (time, collective, size) of forward,"
            " input gradient and weight gradient, update time" + ", strategy" * (wanted > _COLUMNS)
        )
    own = words[12] if wanted > _COLUMNS else strategy
    if own not in STRATEGIES:
        raise TraceError(f"{where}: column 13: {_short(own)} is no parallel strategy")
    forward, input_, weight = (
        _part(words[k : k + 3], f"{where}: columns {k + 1} to {k + 3}") for k in (2, 5, 8)
    )
    update = _whole(words[11], f"{where}: column 12 (update time)")
    return Layer(words[0], forward, input_, weight, update, own)


def _part(words: list[str], where: str) -> LayerPass:
    time, size = (_whole(words[k], where) for k in (0, 2))
    name, _, suffix = words[1].partition("_")
    if name == "NONE":
        return LayerPass(time, "", 0, "")
    if name not in _COLLECTIVES or suffix not in ("", "EP", "DP_EP"):
        raise TraceError(
            f"{where}: {_short(words[1])} is no collective; expected NONE or one of {', '.join(_COLLECTIVES)},"
            " which may end in _EP or _DP_EP"
        )
    return LayerPass(time, _COLLECTIVES[name], size, suffix)


def _whole(word: str, where: str) -> int:
    digits = word[:-2] if word.endswith(".0") else word
    if not digits.isdigit() or len(digits) > 18:
        raise TraceError(f"{where}: {_short(word)} is no whole number from 0 to 1e18")
    return int(digits)


def _short(word: str) -> str:
    return repr(word if len(word) <= 40 else word[:37] + "...")


def groups_of(
    table: Table, ranks: int, tensor: int | None, used: Iterable[str]
) -> dict[str, np.ndarray]:
    """[groups, members] of each kind of group in use: "ALL", "TP", "DP", "EP", "DP_EP".

    Rank = t + tensor * (e + expert * (d + replicas * p)) with t in the tensor group, e in the expert group, d over
    its replicas, p the pipeline stage; the data parallel group is (e, d) together.

    Raises:
        TraceError: the sizes do not divide the ranks, or a size is needed that nobody says.
    """
    numbers = table.numbers
    kinds = set(used) - {""}
    size = tensor or numbers.get("tensor") or (ranks if kinds <= {"ALL"} else None)
    expert, pipeline = numbers.get("expert") or 1, numbers.get("pipeline") or 1
    if size is None:
        raise TraceError(
            f"{table.source}: {table.strategy} splits the ranks into model and data parallel groups and does not say"
            " of how many ranks. Give the model parallel one with tensor=N (--tensor N)"
        )
    whole = size * expert * pipeline
    if ranks % whole:
        raise TraceError(
            f"{table.source}: {ranks} ranks are no multiple of model parallel {size} x expert {expert} x pipeline"
            f" {pipeline}. Give another number with ranks=N (--ranks N)"
        )
    grid = np.arange(ranks).reshape(pipeline, ranks // whole, expert, size)  # p, d, e, t
    every = {
        "ALL": grid.reshape(1, ranks),
        "TP": grid.reshape(-1, size),
        "EP": grid.transpose(0, 1, 3, 2).reshape(-1, expert),
        "DP_EP": grid.transpose(0, 2, 3, 1).reshape(-1, ranks // whole),
        "DP": grid.transpose(0, 3, 1, 2).reshape(-1, expert * (ranks // whole)),
    }
    return {kind: every[kind] for kind in kinds}


def ranks_of(table: Table, ranks: int | None) -> int:
    """How many ranks run it: as asked for, else as the file says.

    Raises:
        TraceError: neither says so.
    """
    count = ranks or table.numbers.get("ranks")
    if not count:
        raise TraceError(
            f"{table.source}: is a text workload of ASTRA-sim 1.0, which does not say how many ranks run it."
            " Give the number with ranks=N (--ranks N)"
        )
    if not 0 < count <= MOST_RANKS:
        raise TraceError(f"{table.source}: {count} ranks; expected 1 to {MOST_RANKS}")
    return count
